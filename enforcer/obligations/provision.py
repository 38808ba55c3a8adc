"""What a request with obligations needs on its way: its fields with the credentials in them, and what must not come back.

What lives here: the value that a verdict carries to whatever forwards the request. What must not: how it came about
(equipment.py), protocols.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from capd.enforcer.obligations.answer import Answer
from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.obligations.reflection import Reflection


@dataclass(frozen=True, slots=True, kw_only=True)
class Provision:
    """For one request.

    Attributes:
        fields: end-to-end fields as they are to be sent.
        query: as it is to be sent.
        secrets: what must not come back, by the name of its credential.
        strict: whether an answer that cannot be looked into is refused.
    """

    fields: tuple[tuple[str, str], ...] = field(repr=False)
    query: str | None = field(repr=False)
    secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    strict: bool = True

    def answer(self, obligations: Obligations) -> Answer:
        """Begin the answer to the request."""
        return Answer(obligations.masks, Reflection(self.secrets), strict=self.strict)
