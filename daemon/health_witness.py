"""Is what probes and enforcer say of the same connections as it should be? A judgement over facts, as health.py makes others.

What lives here: these rules. What must not: finding the facts (status.py), comparing (witness/).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from capd.daemon.alert_kinds import Alert
from capd.daemon.reason import LOSS_NS_RECENT, Reason


@dataclass(frozen=True, kw_only=True)
class WitnessFacts:
    """What the recorder says of probes and enforcer, which see the same connections.

    Attributes:
        undecided, unseen, differing, requests: connections about which they disagree, by kind, in total.
        unknown: connections of which decisions are missing, in total.
        helpers: sessions with programs outside of runs, over unix sockets.
        alarmed_ns: wall time of the latest of these, None: there was none.
        damages: parts of the decision log that could not be read, in total; entries of no known form count.
        missing, missing_files: entries and files of it that are gone unread, as far as their numbers tell.
        damaged_ns: wall time of the latest of those, None: there was none.
        enforced: whether it takes a disagreement for an alarm; None: it does not say.
    """

    undecided: int = 0
    unseen: int = 0
    differing: int = 0
    requests: int = 0
    unknown: int = 0
    helpers: int = 0
    alarmed_ns: int | None = None
    damages: int = 0
    missing: int = 0
    missing_files: int = 0
    damaged_ns: int | None = None
    enforced: bool | None = None


def witness_reasons(facts: WitnessFacts, mode: str, now_ns: int) -> Iterator[Reason]:
    """Give what is wrong; `mode`: of enforcement, as the daemon has it."""
    if mode == "enforce" and facts.enforced is False:
        yield Reason(
            alert=Alert.WITNESS_ABSENT,
            reason="agents are forced through the enforcer, but the recorder goes by a configuration in which they are not: "
            "it records no verdicts, and compares nothing",
            next_step="`systemctl restart capd-recorder`; nothing that waits in the journal is lost",
        )
    if facts.alarmed_ns is not None and now_ns - facts.alarmed_ns < LOSS_NS_RECENT:
        told = _counted(
            {
                "without a decision": facts.undecided,
                "that no probe saw": facts.unseen,
                "whose bytes differ": facts.differing,
                "whose requests differ": facts.requests,
                "whose decisions are not known": facts.unknown,
                "over unix sockets with programs outside, which are not forced": facts.helpers,
            }
        )
        yield Reason(
            alert=Alert.WITNESS_ALARM,
            reason=f"probes and enforcer disagree about connections of runs: {told}",
            next_step="`capd sessions` has them: the reasons of such a session say which; `capd show ID` tells more. "
            "`enforcement.helpers` has what may be spoken to over unix sockets",
        )
    if facts.damaged_ns is not None and now_ns - facts.damaged_ns < LOSS_NS_RECENT:
        told = _counted(
            {
                "parts of the decision log could not be read": facts.damages,
                "entries of it are missing": facts.missing,
                "files of it were gone before they were read": facts.missing_files,
            }
        )
        yield Reason(
            alert=Alert.DECISIONS_DAMAGED,
            reason=told,
            next_step="damage is in `quarantine` below `state_dir`; sessions concerned say that their verdicts are not known",
        )


def _counted(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {words}" for words, count in found.items() if count)
