"""As whom capd signs in to a database, in the place of an agent.

What lives here: the value that a verdict carries to a database's layer. What must not: how it is done (enforcer/sign_in).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from capd.enforcer.credentials.method import WeakMethod
from capd.enforcer.credentials.secret import Secret
from capd.enforcer.policy.glob import Glob, any_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """For one session.

    Attributes:
        credential: name of the credential, for what is written down.
        user: as whom; None: as whom the agent names.
        secret: that user's.
        methods: weak ways that are allowed beside the good ones.
        databases: that the session may be in, also later; none: any.
        placeholder: what the agent's client has in the secret's place, to be asked for it; None: the agent is let in unasked.
    """

    credential: str
    user: str | None
    secret: Secret = field(repr=False)
    methods: frozenset[WeakMethod] = frozenset()
    databases: Sequence[Glob] = ()
    placeholder: str | None = None

    def admits(self, database: str | None) -> bool:
        """Say whether the session may be in a database; None: in none, or in one that is not known."""
        return not self.databases or (database is not None and any_of(self.databases)(database) is True)
