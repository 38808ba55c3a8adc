"""The policy in force, and how another one takes its place while connections are open.

What lives here: reloading. What must not: when to reload, what becomes of open connections: the version on a decision tells its
holder that it was made by another policy and must be asked for again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from capd.enforcer.policy.policy import Policy
from capd.enforcer.policy.problem import PolicyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What became of a reload.

    Attributes:
        before: version that was in force; None when there was none.
        now: version that is in force; None when there is none, so that everything is denied.
        refused: why the new policy was refused, so that the one before stays in force; None: it was not.
    """

    before: str | None
    now: str | None
    refused: PolicyError | None = None

    @property
    def changed(self) -> bool:
        """Whether decisions that were made before must be made again."""
        return self.before != self.now

    def words(self) -> str:
        """Say it in one line."""
        if self.refused is None:
            return f"policy {_short(self.now)} is in force" + ("" if self.changed else ", as before")
        count = len(self.refused.problems)
        kept = f"policy {_short(self.now)} stays in force" if self.now else "no policy is in force: everything is denied"
        return f"the policy was refused for {count} problem{'s' if count > 1 else ''}; {kept}"


class PolicySet:
    """Holds the policy in force. Its exchange is one assignment: a decision is made by one policy, the old or the new.

    Args:
        load: reads the policy; raises PolicyError.
    """

    def __init__(self, load: Callable[[], Policy]) -> None:
        self._load = load
        self._current: Policy | None = None

    @property
    def current(self) -> Policy | None:
        """The policy in force; None: none could be loaded yet, and whoever asks must deny."""
        return self._current

    def reload(self) -> Reload:
        """Load the policy anew; one that is refused changes nothing."""
        before = None if self._current is None else self._current.version
        try:
            policy = self._load()
        except PolicyError as error:
            return Reload(before=before, now=before, refused=error)
        self._current = policy
        return Reload(before=before, now=policy.version)


def _short(version: str | None) -> str:
    return (version or "none")[:12]
