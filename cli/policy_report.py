"""What `capd policy` prints for people.

What lives here: lines. What must not: deciding, JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from capd.cli.line import EMPTY, Line, Span, Style
from capd.cli.policy_replay import Judged, Replayed
from capd.cli.safe_text import cut, visible
from capd.cli.summary import short_ids
from capd.enforcer.credentials.credential import Credential
from capd.enforcer.credentials.errors import CredentialError
from capd.enforcer.policy.action import Action
from capd.enforcer.policy.decision import Decision, Outcome
from capd.enforcer.policy.example import Tried
from capd.enforcer.policy.explanation import Explained
from capd.enforcer.policy.policy import Policy
from capd.enforcer.policy.protocol import HTTP
from capd.enforcer.policy.rule import Effect, Rule

STYLES: Final = {Outcome.ALLOW: Style.GOOD, Outcome.APPROVE: Style.DOUBTFUL, Outcome.DENY: Style.BAD}
WORDS: Final = {Outcome.ALLOW: "allowed", Outcome.APPROVE: "held for approval", Outcome.DENY: "denied"}
SUMMARY_COLUMNS: Final = 110
OTHER: Final = frozenset({"protocols", "hosts"})
"""A rule that fails by one of these is about something else."""


def unknown_credentials(policy: Policy, configured: Collection[str] | None) -> list[tuple[str, str]]:
    """Give rules with credentials that are not configured; of a draft, whose configuration nobody knows, none."""
    wanted = [(rule.id, rule.injection.credential) for rule in policy.rules if rule.injection is not None]
    return [] if configured is None else [pair for pair in wanted if pair[1] not in configured]


def unbound_credentials(policy: Policy, configured: Mapping[str, Credential] | None) -> list[tuple[str, str]]:
    """Give rules with credentials that are not for where the rules put them, and why."""
    found: list[tuple[str, str]] = []
    for rule in policy.rules:
        credential = None if rule.injection is None else (configured or {}).get(rule.injection.credential)
        if credential is not None and (problem := _unbound(rule, credential)):
            found.append((rule.id, problem))
    return found


def _unbound(rule: Rule, credential: Credential) -> str:
    """Say why a credential is not for what a rule matches; whose runs it is for, and their databases, shows when it is used."""
    try:
        for host in rule.match.hosts:
            for ports in rule.match.ports:
                for port in (ports.first, ports.last):
                    credential.check_target(host.text, port)
        if HTTP in rule.match.of_protocols:
            credential.check_request()
    except CredentialError as error:
        return str(error)
    return ""


def checked(policy: Policy, configured: Mapping[str, Credential] | None) -> dict[str, object]:
    """Give what `check` says of a policy that can be used."""
    unknown = unknown_credentials(policy, configured)
    return {
        "policy": policy.version,
        "rules": policy.own_rules,
        "scopes": len(policy.scopes),
        "passthrough": len(policy.passthrough),
        "examples": len(policy.examples),
        "unknown_credentials": [{"rule": rule, "credential": name} for rule, name in unknown],
        "unbound_credentials": [
            {"rule": rule, "problem": problem} for rule, problem in unbound_credentials(policy, configured)
        ],
    }


def check_lines(policy: Policy, place: Path, configured: Mapping[str, Credential] | None) -> Iterator[Line]:
    """Say what a policy that can be used consists of, and which rules cannot do what they say as things are."""
    yield (Span("the policy can be used", Style.GOOD), Span(f"  {place}"))
    yield (Span("version ", Style.FAINT), Span(policy.version))
    parts = [
        _counted(policy.own_rules, "rule"),
        _counted(len(policy.scopes), "scope"),
        _counted(len(policy.passthrough), "passthrough"),
        _counted(len(policy.examples), "example"),
    ]
    shipped = len(policy.rules) - policy.own_rules
    yield (Span(", ".join(parts)), Span(f"  and {_counted(shipped, 'rule')} that come with capd", Style.FAINT))
    for rule, name in unknown_credentials(policy, configured):
        yield (Span(f"{rule}: no credential {name} is configured, so what it matches is denied", Style.DOUBTFUL),)
    for rule, problem in unbound_credentials(policy, configured):
        yield (Span(f"{rule}: {problem}, so what it matches there is denied", Style.DOUBTFUL),)
    if policy.examples:
        yield (Span("`capd policy test` tries the examples", Style.FAINT),)


def explain_lines(
    action: Action, decision: Decision, rules: Sequence[Explained], *, everything: bool, assumed: bool
) -> Iterator[Line]:
    """Say what is decided about an action, and what each rule has to do with it."""
    yield from _action_lines(action, assumed=assumed)
    outcome = decision.outcome
    yield (Span(WORDS[outcome], STYLES[outcome]), Span(f"  {decision.carried_out.reason}"))
    if decision.judged != decision.carried_out:
        judged = decision.judged
        yield (Span(f"  were everything in force: {WORDS[judged.outcome]}", Style.DOUBTFUL), Span(f"  {judged.reason}"))
    for words in _obligations(decision):
        yield (Span(f"  {words}"),)
    yield EMPTY
    hidden = 0
    for one in rules:
        if not everything and OTHER.intersection(one.failed):
            hidden += 1
            continue
        yield _rule_line(one)
    if hidden:
        yield (Span(f"… {_counted(hidden, 'rule')} for other protocols or hosts; --all shows them", Style.FAINT),)
    yield (Span(f"policy {decision.policy[:12]}", Style.FAINT),)


def _action_lines(action: Action, *, assumed: bool) -> Iterator[Line]:
    target = action.target
    what = f"{action.operation} {target.host}:{target.port}{action.path or ''}"
    yield (Span(f"{action.protocol} ", Style.FAINT), Span(cut(visible(what), SUMMARY_COLUMNS), Style.STRONG))
    where = "not known" if target.address is None else str(target.address)
    note = " (assumed; --address says another)" if assumed else ""
    yield (Span(f"  address {where}{note}, TLS {target.tls}", Style.FAINT),)
    for words in _done(action):
        yield (Span(f"  {cut(visible(words), SUMMARY_COLUMNS)}"),)
    for problem in action.problems:
        yield (Span(f"  not complete: {visible(problem)}", Style.DOUBTFUL),)


def _done(action: Action) -> Iterator[str]:
    """Say what an action does, and to what: the names that rules ask for."""
    if action.effects:
        yield f"effects {', '.join(sorted(action.effects))}"
    for access in sorted({one.access for one in action.resources or ()}):
        yield f"{access} {', '.join(one.name for one in action.resources or () if one.access == access)}"


def _obligations(decision: Decision) -> Iterator[str]:
    for rule, approval in decision.approvals:
        groups = f" of {', '.join(approval.groups)}" if approval.groups else ""
        persons = f"{approval.quorum} approver{'s' if approval.quorum > 1 else ''}{groups}"
        good = f"good for {approval.ttl_seconds} s, {approval.scope}"
        yield f"{rule}: held for {approval.hold_seconds} s, until {persons} said yes; {good}"
    yield from (f"{rule}: masked before it goes on" for rule, _ in decision.masks)
    yield from (f"{rule}: credential {one.credential} is put in" for rule, one in decision.injections)
    yield from (f"{rule}: logged" for rule in decision.logs)


def _rule_line(one: Explained) -> Line:
    rule = one.rule
    mark, style = ("✓", Style.GOOD) if one.counts else ("·", Style.FAINT)
    if one.counts and rule.then in {Effect.DENY, Effect.APPROVE}:
        style = Style.BAD if rule.then is Effect.DENY else Style.DOUBTFUL
    observed = "" if rule.enforced else " (observed only)"
    return (
        Span(f"{mark} {rule.then:<8}", style),
        Span(f"{rule.id}{observed}", Style.STRONG),
        Span(f"  {_why(one)}", Style.FAINT),
    )


def _why(one: Explained) -> str:
    if one.answer is False:
        return f"does not match: {', '.join(one.failed)}"
    if one.answer is True:
        return "matches" if one.counts else "matches, but the action is not complete"
    doubtful = [*one.failed, *one.unknown]
    counted = "counts as matching" if one.counts else "counts as not matching"
    return f"not certain: {', '.join(doubtful) or 'the action is not complete'}; {counted}"


def test_lines(found: Sequence[Tried]) -> Iterator[Line]:
    """Say which examples do not come out as they must."""
    for one in found:
        if one.passed:
            continue
        expected, judged = one.example.expected, one.decision.judged
        by = f" by {one.example.by}" if one.example.by else ""
        yield (Span("FAILED ", Style.BAD), Span(f"{one.example.place}: "), Span(one.example.written, Style.STRONG))
        decided = f" by {', '.join(judged.rules)}" if judged.rules else ""
        yield (Span(f"  must be {WORDS[expected]}{by}, is {WORDS[judged.outcome]}{decided}: {judged.reason}"),)
    failed = sum(not one.passed for one in found)
    if not found:
        yield (
            Span("there are no examples", Style.DOUBTFUL),
            Span("  write some beside the rules: docs/policy.md", Style.FAINT),
        )
        return
    words = f"{failed} of {len(found)} examples failed" if failed else f"all {len(found)} examples come out as they must"
    yield (Span(words, Style.BAD if failed else Style.GOOD),)


def replay_lines(found: Replayed) -> Iterator[Line]:
    """Say what a policy would have stopped: what is alike is shown once, with a count."""
    alike: dict[tuple[object, ...], list[Judged]] = {}
    for one in found.kept:
        action = one.recorded.action
        # HTTP is alike by method, host and path; a statement by its text.
        what = action.path if action.path is not None else one.recorded.summary
        key = (action.protocol, action.operation, action.target.host, action.target.port, what, one.judgement)
        alike.setdefault(key, []).append(one)
    short = short_ids([str(one.row.session) for one in found.kept])
    for group in sorted(alike.values(), key=len, reverse=True):
        yield from _group_lines(group, short)
    if found.left_out:
        yield (Span(f"… {found.left_out:,} more messages; --limit shows more", Style.DOUBTFUL),)
    counts = [f"{found.outcomes[outcome]:,} {WORDS[outcome]}" for outcome in (Outcome.DENY, Outcome.APPROVE, Outcome.ALLOW)]
    yield (Span(f"{', '.join(counts)}  in {_counted(found.sessions, 'session')}", Style.STRONG),)
    if found.incomplete:
        yield (Span(f"{found.incomplete:,} messages could not be judged in full", Style.DOUBTFUL),)
    if found.partial:
        yield (
            Span(
                f"{_counted(found.partial, 'session')} not recorded completely: what is missing was not judged", Style.DOUBTFUL
            ),
        )
    for reason, count in sorted(found.missing.items()):
        yield (Span(f"not judged: {count:,} {reason}", Style.DOUBTFUL),)
    for reason, count in sorted(found.passed_over.items()):
        yield (Span(f"passed over: {count:,} {reason}", Style.FAINT),)


def _group_lines(group: Sequence[Judged], short: dict[str, str]) -> Iterator[Line]:
    one = group[0]
    action, judgement = one.recorded.action, one.judgement
    where = f"{action.target.host}:{action.target.port}"
    yield (
        Span(f"{len(group):>6,} x ", Style.FAINT),
        Span(f"{WORDS[judgement.outcome]:<17} ", STYLES[judgement.outcome]),
        Span(f"{action.protocol} {where}  ", Style.FAINT),
        Span(cut(visible(one.recorded.summary), SUMMARY_COLUMNS), Style.STRONG),
    )
    at = "" if one.recorded.ordinal is None else f" --at {one.recorded.ordinal}"
    yield (Span(f"         {judgement.reason}"),)
    yield (Span(f"         capd replay {short[str(one.row.session)]}{at}", Style.FAINT),)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 or what.endswith('through') else 's'}"
