"""What is remembered of a policy's decisions is what it would decide.

What lives here: any policies and any questions, again and again; bounds. What must not: what policies mean.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capd.enforcer.policy.action import Action, Principal, Run, Target
from capd.enforcer.policy.decision import Decision
from capd.enforcer.policy.evaluator import Evaluator
from capd.enforcer.policy.policy import Policy
from capd.enforcer.policy.rule import Rule
from capd.enforcer.proxy import remembered as memory
from capd.enforcer.proxy.judge import Agent, judge
from capd.enforcer.proxy.question import Body, Destination, Kind, Question, Request
from capd.enforcer.proxy.remembered import Remembered
from tests.enforcer.policies import METHODS, PATHS, named, policy, rules

RUNS = (Run(id="r", name="nightly", labels={"team": "data"}), Run(id="r", name="nightly", labels={"team": "web"}), Run())
PRINCIPALS = (None, Principal(name="ann"), Principal(name="ann", kind="oidc"))
FIELDS = (
    (),
    (("accept", "*/*"),),
    (("X-HTTP-Method-Override", "DELETE"),),
    (("x_http_method_override", "DELETE"),),
    (("x-forwarded-host", "b.example.com"),),
    (("x-forwarded-host", "a.example.com"),),
    (("content-encoding", "gzip"),),
    (("content-type", "application/json"), ("authorization", "AWS4-HMAC-SHA256 x")),
)
AGENT = Agent(run=RUNS[0], principal=PRINCIPALS[1])


def a_policy(drawn: list[Rule]) -> Policy:
    """Make one of rules."""
    found = named(drawn)
    return Policy(rules=found, scopes=(), passthrough=(), examples=(), version="v", evaluator=Evaluator(found, (), "v"))


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Draw one about a request; few values for everything, so that some come again, and some differ in one thing alone."""
    inspected = draw(st.booleans())
    host = draw(st.sampled_from(["a.example.com", "b.example.com", "10.0.0.7"]))
    bodies = (None, *(Body(content=content, complete=whole) for content in (b"", b"a secret") for whole in (True, False)))
    return Question(
        number=draw(st.integers(1, 9)),
        kind=Kind.REQUEST,
        destination=Destination(
            address=draw(st.sampled_from(["10.0.0.7", "192.0.2.1"])), port=draw(st.sampled_from([443, 5432]))
        ),
        protocol="http1",
        server_name=host if inspected and draw(st.booleans()) else None,
        inspected=inspected,
        request=Request(
            method=draw(st.sampled_from((*METHODS, "get", "CONNECT"))),
            host=host,
            path=draw(st.sampled_from((*PATHS, "/v1/%2Fx", "/v1/a%20b", "/v1//x", "*", "http://b.example.com/"))),
            query=draw(st.sampled_from((None, "", "x", "x#y"))),
            fields=draw(st.sampled_from(FIELDS)),
            upgrade=draw(st.sampled_from((None, None, "websocket"))),
        ),
        body=draw(st.sampled_from(bodies)),
        carries_out=draw(st.booleans()),
    )


Asked = tuple[Run, Principal | None, Question, bool, int]
ASKED: st.SearchStrategy[Asked] = st.tuples(
    st.sampled_from(RUNS), st.sampled_from(PRINCIPALS), questions(), st.booleans(), st.sampled_from([0, 1])
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rules(), max_size=5), st.lists(rules(), max_size=5), st.lists(ASKED, min_size=2, max_size=12))
def test_what_is_remembered_is_what_would_be_decided(first: list[Rule], second: list[Rule], asked: list[Asked]) -> None:
    """Whoever asks, whatever, however often, whichever policy is in force: the verdict is that of a judge without memory."""
    policies, known = (a_policy(first), a_policy(second)), Remembered()
    for _ in range(2):
        for run, principal, question, proven, which in asked:
            agent = Agent(run=run, principal=principal, uid=1)
            anew = judge(policies[which], agent, question, proven=proven)
            assert anew == judge(policies[which], agent, question, proven=proven, remembered=known)


STRICT = policy(
    """
rules:
  - {id: all, match: {protocols: [http], hosts: ["*.example.com"]}, then: allow}
  - {id: address, match: {addresses: [192.0.2.2]}, then: deny}
  - {id: body, match: {protocols: [http], methods: [POST], text_regex: secret}, then: deny}
  - {id: cut, match: {protocols: [http], methods: [PATCH]}, when: http.body_truncated, then: deny}
  - {id: clear, match: {tls: [none]}, then: deny}
  - {id: host, match: {hosts: [b.example.com]}, then: deny}
  - {id: method, match: {protocols: [http], methods: [DELETE]}, then: deny}
  - {id: path, match: {protocols: [http], paths: [/no]}, then: deny}
  - {id: port, match: {ports: [444]}, then: deny}
  - {id: principal, match: {principals: [bob]}, then: deny}
  - {id: query, match: {protocols: [http]}, when: "http.query == 'no'", then: deny}
  - {id: run, match: {labels: {team: [web]}}, then: deny}
"""
)
HERE = Destination(address="192.0.2.1", port=443)


def about(question: Question, **changes: object) -> Question:
    """Change a question's request."""
    assert question.request is not None
    return replace(question, request=replace(question.request, **changes))  # type: ignore[arg-type] # as the case has it


def usual() -> Question:
    """Give a question that the strict policy allows."""
    request = Request(method="GET", host="a.example.com", path="/x")
    sni = "a.example.com"
    return Question(
        number=1,
        kind=Kind.REQUEST,
        destination=HERE,
        protocol="http1",
        server_name=sni,
        inspected=True,
        request=request,
        body=Body(content=b"", complete=True),
    )


@pytest.mark.parametrize(
    ("allowed", "denied"),
    [
        (usual(), about(usual(), path="/no")),
        (usual(), about(usual(), query="no")),
        (usual(), about(usual(), method="DELETE")),
        (usual(), about(usual(), host="c.example.com")),
        (replace(usual(), server_name=None), about(replace(usual(), server_name=None), host="b.example.com")),
        (usual(), about(usual(), fields=(("X_HTTP_Method_Override", "PUT"),))),
        (usual(), replace(usual(), destination=replace(HERE, address="192.0.2.2"))),
        (usual(), replace(usual(), destination=replace(HERE, port=444))),
        (usual(), replace(usual(), server_name="b.example.com")),
        (usual(), replace(usual(), inspected=False)),
        (about(usual(), method="POST"), replace(about(usual(), method="POST"), body=None)),
        (
            about(usual(), method="PATCH"),
            replace(about(usual(), method="PATCH"), body=Body(content=b"", complete=False)),
        ),
        (about(usual(), method="POST"), replace(about(usual(), method="POST"), body=Body(content=b"secret", complete=True))),
    ],
    ids=[
        *(
            "path",
            "query",
            "method",
            "host",
            "host in clear",
            "field",
            "address",
            "port",
            "server name",
            "clear",
            "body unread",
        ),
        *("body cut", "body"),
    ],
)
def test_one_thing_is_another(allowed: Question, denied: Question) -> None:
    """Questions that differ in one thing alone are not taken for each other, whichever comes first."""
    for asked in ((allowed, denied), (denied, allowed)):
        known = Remembered()
        found = [judge(STRICT, AGENT, one, proven=True, remembered=known).allowed for one in (*asked, *asked)]
        assert [one is allowed for one in (*asked, *asked)] == found


def test_somebody_else_is_another() -> None:
    """Another run, another principal, and a name that nobody vouches for are not taken for those of before."""
    known = Remembered()
    others = [replace(AGENT, run=RUNS[1]), replace(AGENT, principal=Principal(name="bob"))]
    cases = [(AGENT, True, True), *((other, True, False) for other in others), (AGENT, False, False)] * 2
    for agent, proven, allowed in cases:
        assert allowed is judge(STRICT, agent, usual(), proven=proven, remembered=known).allowed


def test_another_policy_decides_anew() -> None:
    """What one policy decided is forgotten when another one is in force, and when the first comes back."""
    known, open_to_all = Remembered(), policy("rules: [{id: all, then: allow}]")
    asked = about(usual(), path="/no")
    found = [judge(one, AGENT, asked, proven=True, remembered=known).allowed for one in (STRICT, open_to_all, STRICT)]
    assert [False, True, False] == found


def plain(path: str = "/x", **more: object) -> Question:
    """Give a question."""
    return Question(
        number=1,
        kind=Kind.REQUEST,
        destination=Destination(address="192.0.2.1", port=443),
        protocol="http1",
        request=Request(**{"method": "GET", "host": "a.example.com", "path": path, **more}),  # type: ignore[arg-type] # as the case has it
    )


@pytest.mark.parametrize(
    ("question", "again"),
    [
        (plain(), False),
        (plain(fields=(("x-request-id", "1"),)), False),
        (plain("/" + "x" * memory.TARGET_CHARACTERS_MAX), True),
        (plain(query="x" * memory.TARGET_CHARACTERS_MAX), True),
        (replace(plain(), body=Body(content=b"x", complete=True)), True),
        (plain(fields=(("host", "b.example.com"),)), True),
        (plain("/a%20b"), True),
        (plain("/a//b"), True),
        (plain(query="x#y"), True),
        (plain(method="CONNECT"), True),
    ],
    ids=["plain", "field", "long path", "long query", "body", "another host", "encoded", "empty segment", "odd", "CONNECT"],
)
def test_what_is_long_or_has_a_body_is_decided_anew(question: Question, again: bool) -> None:
    """A request that comes again is not decided again, unless more decides than is kept."""
    none, known = a_policy([]), Remembered()
    found = [decision_of(known, none, question) for _ in range(2)]
    assert again is (found[0] is not found[1])


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no room, everything is forgotten."""
    monkeypatch.setattr(memory, "DECISIONS_MAX", 2)
    known = Remembered()
    first, second = (decision_of(known, STRICT, plain(f"/{number}")) for number in range(2))
    assert decision_of(known, STRICT, plain("/0")) is first
    assert decision_of(known, STRICT, plain("/1")) is second
    decision_of(known, STRICT, plain("/2"))
    assert decision_of(known, STRICT, plain("/0")) is not first


RULE = "  - {{id: rule, match: {{protocols: [http], {match}}}, {when}then: deny}}"


@pytest.mark.parametrize(
    ("match", "when", "by_path", "by_query"),
    [
        ("hosts: [a.example.com]", "", False, False),
        ("hosts: [a.example.com], methods: [PUT], tls: [none], ports: [80], text_regex: x", "", False, False),
        ("hosts: [a.example.com]", "when: http.method == 'PUT', ", False, False),
        ("hosts: [a.example.com], paths: [/x]", "", True, False),
        ("paths: [/x]", "", True, False),
        ("hosts: [b.example.com], paths: [/x]", "", False, False),
        ("hosts: ['*.example.com'], path_regex: x", "", True, False),
        ("hosts: [a.example.com], query_regex: x", "", False, True),
        ("hosts: [a.example.com]", "when: http.path == '/x', ", True, False),
        ("hosts: [a.example.com]", "when: \"http.query.contains('x') || http.path == '/'\", ", True, True),
        ("hosts: [a.example.com], paths: [/x]", "stage: observe, ", True, False),
    ],
    ids=[
        *("host", "others", "condition", "path", "path anywhere", "path of another host", "path below", "query"),
        *("condition on path", "condition on both", "observed"),
    ],
)
def test_what_no_rule_looks_at_decides_nothing(match: str, when: str, by_path: bool, by_query: bool) -> None:
    """Requests that differ in what no rule for their target looks at share a decision, others do not."""
    known, one = Remembered(), policy("rules:\n" + RULE.format(match=match, when=when))
    first = decision_of(known, one, plain("/x", query="x"))
    assert by_path is (first is not decision_of(known, one, plain("/y", query="x")))
    assert by_query is (first is not decision_of(known, one, plain("/x", query="y")))
    assert first is decision_of(known, one, plain("/x", query="x"))


def decision_of(known: Remembered, one: Policy, question: Question) -> Decision:
    """Have a decision made, or remembered."""
    action = Action(target=Target(host="a.example.com", port=443), protocol="http", operation="GET")
    return known.decision(one, (AGENT.run, AGENT.principal), question, proven=True, action=lambda: action)
