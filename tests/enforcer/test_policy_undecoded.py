"""What is not decoded opens no way round rules that look at what is said.

What lives here: rules, and what comes of a connection that capd cannot read. What must not: Redis (redis/test_redis_around.py).
"""

from __future__ import annotations

import pytest

from capd.enforcer.policy.action import Run
from capd.enforcer.policy.decision import Outcome
from capd.enforcer.policy.explanation import explain
from capd.enforcer.proxy.judge import Agent, judge
from capd.enforcer.proxy.question import Destination, Kind, Question, Verdict
from tests.enforcer.policies import action, policy
from tests.enforcer.rehearsal import Rehearsal

ANY = "{id: any, match: {hosts: api.test}, then: allow}"
TCP = "{id: tcp, match: {protocols: [http, tcp], hosts: api.test, ports: 443}, then: allow}"
NO_DELETE = "{id: no-delete, match: {methods: DELETE}, then: deny}"


def rules(*texts: str) -> str:
    """Write a file."""
    return "rules:\n" + "".join(f"  - {text}\n" for text in texts)


@pytest.mark.parametrize(
    ("texts", "outcome", "by"),
    [
        ((ANY,), Outcome.ALLOW, "any"),
        ((ANY, NO_DELETE), Outcome.DENY, ""),
        ((ANY, NO_DELETE, TCP), Outcome.ALLOW, "tcp"),
        ((ANY, TCP, "{id: no, match: {protocols: tcp, ports: 400-500}, then: deny}"), Outcome.DENY, "no"),
        ((ANY, "{id: ask, match: {hosts: api.test, methods: POST}, then: approve}"), Outcome.DENY, ""),
        ((ANY, "{id: hide, match: {protocols: http, hosts: '*.test'}, then: mask, mask: {keys: [x]}}"), Outcome.DENY, ""),
        ((ANY, "{id: drop, match: {protocols: postgresql, effects: drop}, then: deny}"), Outcome.DENY, ""),
        ((ANY, "{id: rows, match: {protocols: mysql, ports: 443}, then: limit, limit: {rows: 9}}"), Outcome.DENY, ""),
        ((ANY, "{id: no-delete, match: {hosts: other.test, methods: DELETE}, then: deny}"), Outcome.ALLOW, "any"),
        ((ANY, "{id: no-delete, match: {ports: 80, methods: DELETE}, then: deny}"), Outcome.ALLOW, "any"),
        ((ANY, "{id: no-delete, match: {methods: DELETE}, then: deny, stage: observe}"), Outcome.ALLOW, "any"),
        ((ANY, "{id: no-delete, match: {principals: ann, methods: DELETE}, then: deny}"), Outcome.DENY, ""),
        ((ANY, "{id: key, match: {protocols: http, hosts: api.test, ports: 443}, then: log}"), Outcome.ALLOW, "any"),
    ],
)
def test_only_a_rule_that_names_tcp_lets_go_what_no_other_rule_can_see(
    texts: tuple[str, ...], outcome: Outcome, by: str
) -> None:
    """Where a rule stops, holds or hides something that is said, what is not decoded needs a rule that means it."""
    made, asked = policy(rules(*texts)), action("connect api.test:443")
    decided = made.decide(asked)
    assert (outcome, by) == (decided.outcome, ",".join(decided.carried_out.rules))
    assert {one.rule.id for one in explain(made, asked) if one.counts and one.rule.id in ("any", "tcp")} >= {by} - {"", "no"}


@pytest.mark.parametrize(
    "said",
    [
        b"DELETE /1 HTTP/1.2\r\nHost: api.test\r\n\r\n",
        b"delete /1 HTTP/1.1\r\nHost: api.test\r\n\r\n",
        b"DELETE\t/1 HTTP/1.1\r\nHost: api.test\r\n\r\n",
        b"GET /1\r\n",
    ],
)
def test_a_request_that_is_none_for_us_is_not_relayed_unread(said: bytes) -> None:
    """What many servers take for a request, and capd does not, goes nowhere where a rule looks at requests."""
    made, agent = policy(rules(ANY.replace("api.test", "192.0.2.1"), NO_DELETE)), Agent(run=Run(name="r"), principal=None)

    def decide(question: Question) -> Verdict:
        return judge(made, agent, question, proven=True)

    run = Rehearsal(judge=decide, destination=Destination(address="192.0.2.1", port=80)).says(said)
    assert (b"", True) == (run.upstream, run.closed is not None)
    assert Kind.OPAQUE in [question.kind for question in run.questions]
