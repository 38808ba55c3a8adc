"""Were credentials of capd in what agents said, and did anybody look? A judgement over facts, as health.py makes others.

What lives here: these rules. What must not: finding the facts (status.py), looking (tripwire.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from capd.daemon.alert_kinds import Alert
from capd.daemon.reason import LOSS_NS_RECENT, Reason


@dataclass(frozen=True, kw_only=True)
class SecretFacts:
    """What the recorder says of credentials in what agents say.

    Attributes:
        seen: how often, by the credential's name.
        seen_ns: wall time of the latest, None: there was none.
        latest: where it was: credential, run and session, in words.
        unsearched_bytes: what was not looked at, in total.
        unsearched_ns: wall time of the latest of that, None: all was.
        problem: why it cannot be looked at now, or None.
    """

    seen: Mapping[str, int] = field(default_factory=dict)
    seen_ns: int | None = None
    latest: str = ""
    unsearched_bytes: int = 0
    unsearched_ns: int | None = None
    problem: str | None = None


def secret_reasons(facts: SecretFacts, now_ns: int) -> Iterator[Reason]:
    """Give what is wrong."""
    if facts.seen_ns is not None and now_ns - facts.seen_ns < LOSS_NS_RECENT:
        yield Reason(
            alert=Alert.SECRET_SEEN,
            reason=f"a credential of capd was in what an agent said or heard: {facts.latest}",
            next_step="replace it; `capd show ID` of that session tells where it was, and it is hidden there",
        )
    if facts.unsearched_ns is not None and now_ns - facts.unsearched_ns < LOSS_NS_RECENT:
        why = "" if facts.problem is None else f": {facts.problem}"
        yield Reason(
            alert=Alert.SECRETS_UNSEARCHED,
            reason=f"{facts.unsearched_bytes} bytes of what agents said were not searched for credentials{why}",
            next_step="see whether the enforcer runs, whose keeper looks; what was said then is not looked at later",
        )
