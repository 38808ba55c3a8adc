"""What is wrong with forcing agents' traffic through the enforcer, and with the enforcer.

What lives here: these rules, as health.py makes others. What must not: finding the facts (status_facts.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from capd.daemon.alert_kinds import Alert
from capd.daemon.enforcer_facts import EnforcerFacts
from capd.daemon.reason import LOSS_NS_RECENT, REPORT_SECONDS_STALE, Reason

EXPORT_SECONDS_RECENT: Final = 600.0
"""So long an export is told of."""
CANARY_NS_STALE: Final = 120_000_000_000
"""Four times the pause between two."""


@dataclass(frozen=True, kw_only=True)
class EnforcementFacts:
    """What the daemon says of forcing.

    Attributes:
        mode: `off`, `observe` or `enforce`.
        problem: why it is not in place, or None.
        owned: whether root's other programs cannot change the table.
        open: ways around the enforcer that the canary found.
        closed: what keeps traffic from the enforcer, as the canary found.
        unknown: why the last canary says nothing, or None.
        canary_ns: wall time of its findings, None before the first.
        escaped: processes of runs that left their run's cgroup.
        untrusted: why there was nothing that agents could trust when the daemon started, and what to do; None: there was.
        repaired: what had been changed by others when capd last put something back, or None.
        repaired_ns: wall time of that.
        namespaces: what keeps it from looking after network namespaces other than the host's, or None.
    """

    mode: str = "off"
    problem: str | None = None
    owned: bool = True
    open: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    unknown: str | None = None
    canary_ns: int | None = None
    escaped: int = 0
    untrusted: tuple[str, str] | None = None
    repaired: str | None = None
    repaired_ns: int = 0
    namespaces: str | None = None


def enforcement_reasons(facts: EnforcementFacts, now_ns: int) -> Iterator[Reason]:
    """Give what is wrong with forcing agents' traffic."""
    if facts.mode == "off":
        return
    if facts.problem is not None:
        yield Reason(
            alert=Alert.FORCING_MISSING,
            reason=f"agents' traffic is not forced through the enforcer: {facts.problem}",
            next_step="no run is let in while that is so; capd tries again every second; `capd doctor` checks the host",
        )
    if facts.open:
        yield Reason(
            alert=Alert.FORCING_OPEN,
            reason=f"agents' traffic gets around the enforcer: {', '.join(facts.open)}",
            next_step="no run is let in while that is so; see what changed the host's rules: `nft list ruleset`",
        )
    if facts.closed:
        yield Reason(
            alert=Alert.FORCING_CLOSED,
            reason=f"agents reach nothing: {', '.join(facts.closed)}",
            next_step="see whether the enforcer runs and listens at `enforcement.proxy_port`; till then all is refused",
        )
    elif facts.namespaces is not None:
        yield Reason(
            alert=Alert.FORCING_CLOSED,
            reason=f"agents in other network namespaces, such as containers, may reach nothing: {facts.namespaces}",
            next_step="see the daemon's log; nothing of theirs leaves meanwhile; `systemctl restart capd` begins anew",
        )
    if facts.untrusted is not None:
        problem, step = facts.untrusted
        yield Reason(
            alert=Alert.TRUST_UNUSABLE,
            reason=f"there is nothing that agents could trust, what they send is refused, and recorded: {problem}",
            next_step=step,
        )
    if facts.unknown is not None:
        yield Reason(
            alert=Alert.FORCING_UNKNOWN,
            reason=f"the canary that tries whether traffic is forced says nothing: {facts.unknown}",
            next_step="the rules stand as they were; the next canary tries within 30 s",
        )
    elif facts.canary_ns is not None and now_ns - facts.canary_ns > CANARY_NS_STALE:
        yield Reason(
            alert=Alert.FORCING_UNKNOWN,
            reason="no canary has tried for minutes whether traffic is forced",
            next_step="the daemon may be stuck: see its log, then restart it; the rules stand meanwhile",
        )
    yield from _changed(facts, now_ns)


def _changed(facts: EnforcementFacts, now_ns: int) -> Iterator[Reason]:
    """Give what agents and others did about it, or can do."""
    if facts.escaped:
        yield Reason(
            alert=Alert.RUN_ESCAPED,
            reason=f"{facts.escaped} processes of runs left their cgroup: what they connect now is not forced",
            next_step="`capd status --json` names them under `enforcement.escaped`; name their user in `enforcement.users`",
        )
    if facts.repaired is not None and now_ns - facts.repaired_ns < LOSS_NS_RECENT:
        yield Reason(
            alert=Alert.FORCING_CHANGED,
            reason=f"others changed what forces agents' traffic: {facts.repaired}",
            next_step="capd put it back; whoever does that as root can do it again: see what else manages nftables or bpffs",
        )
    if not facts.owned and facts.problem is None:
        yield Reason(
            alert=Alert.FORCING_UNOWNED,
            reason="other programs of root can remove the rules: this kernel has no tables that are owned (Linux 6.9)",
            next_step="the programs on cgroups stand beside them; capd puts the rules back within 30 s",
        )


def enforcer_reasons(facts: EnforcerFacts | None) -> Iterator[Reason]:
    """Give what is wrong with the enforcer; None: none is wanted."""
    if facts is None:
        return
    if not facts.running or facts.seconds is None or facts.seconds > REPORT_SECONDS_STALE:
        said = "" if facts.failure is None else f": {facts.failure[0]}"
        start = "restart" if facts.running else "enable --now"
        hint = f"`systemctl {start} capd-enforcer` and see its log; under `capd up` it is restarted by itself"
        yield Reason(
            alert=Alert.ENFORCER_DOWN,
            reason="the enforcer has not reported for some time" if facts.running else f"the enforcer does not run{said}",
            next_step=hint if facts.failure is None else facts.failure[1] or hint,
        )
        return
    if facts.unlogged:
        yield Reason(
            alert=Alert.ENFORCER_UNLOGGED,
            reason=f"{facts.unlogged} decisions could not be written down and were denied",
            next_step="see whether `state_dir` has room and can be written; the enforcer tries again with every decision",
        )
    if facts.exported_seconds is not None and facts.exported_seconds < EXPORT_SECONDS_RECENT:
        yield Reason(
            alert=Alert.EXPORT_LARGE,
            reason="a run was given more by a database than a rule's limit for exports",
            next_step="the decision log has it as `exceeded`, with the session: `capd show ID` says what it asked",
        )
    if facts.approvals_problem is not None:
        yield Reason(
            alert=Alert.APPROVALS_STUCK,
            reason=f"nobody can be asked to approve anything: {facts.approvals_problem}",
            next_step="see whether `state_dir` has room and can be written, and the enforcer's log; it goes on by itself then",
        )
    if facts.callbacks_problem is not None:
        yield Reason(
            alert=Alert.WEBHOOKS_FAILING,
            reason=f"not everybody is told what waits for approval: {facts.callbacks_problem}",
            next_step="see whether the receiver can be reached from here; `capd approvals` shows what waits in any case",
        )
