"""Deciding: the order of effects, what is not known, and that neither order nor what an agent sends changes it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from capd.enforcer.policy.action import Action, Principal, Resource, Run, Target, Tls
from capd.enforcer.policy.action_json import ActionError, from_json, to_json
from capd.enforcer.policy.condition import Bindings, compile_condition
from capd.enforcer.policy.decision import Outcome
from capd.enforcer.policy.evaluator import Evaluator, judge
from capd.enforcer.policy.explanation import explain
from capd.enforcer.policy.host_pattern import HostPattern
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.match_reading import MATCH_KEYS
from capd.enforcer.policy.matcher import CONNECTION, CONTENT
from capd.enforcer.policy.policy import Policy
from capd.enforcer.policy.protocol import CONTENT_KEYS
from capd.enforcer.policy.rule import Approval, Effect, Rule, Stage
from capd.enforcer.policy.scope import Mode
from tests.enforcer.policies import CONDITIONS, action, actions, named, policy, rules

SETTINGS = settings(max_examples=100)


def decided(found: list[Rule], asked: Action) -> Outcome:
    """Give the outcome of some rules."""
    return Evaluator(found, (), "v").decide(asked).outcome


EFFECTS = {
    "deny": "then: deny",
    "approve": "then: approve",
    "mask": "then: mask\n    mask: {keys: ssn}\n    match: {protocols: http}",
    "inject": (
        "then: inject\n    inject: {credential: k, header: authorization}\n"
        "    match: {protocols: http, hosts: a.example, ports: 443}"
    ),
    "log": "then: log",
}
ORDERS = [
    (["allow"], "allow", 0, 0),
    (["deny", "allow"], "deny", 0, 0),
    (["approve", "allow"], "approve", 0, 0),
    (["deny", "approve", "allow"], "deny", 0, 0),
    (["mask", "allow"], "allow", 1, 0),
    (["inject", "allow"], "allow", 0, 1),
    (["mask", "inject", "allow"], "allow", 1, 1),
    (["mask", "inject", "approve"], "approve", 1, 1),
    (["mask", "inject", "deny"], "deny", 0, 0),
    (["mask"], "deny", 1, 0),
    (["inject"], "deny", 0, 1),
    (["log"], "deny", 0, 0),
    ([], "deny", 0, 0),
]


@pytest.mark.parametrize(("effects", "outcome", "masks", "injections"), ORDERS)
def test_effects_have_an_order(effects: list[str], outcome: str, masks: int, injections: int) -> None:
    """Deny, approve, allow, default: the strongest decides; what is masked, injected or logged is no permission."""
    # Conditions that could be false keep the rules out of each other's shadow.
    texts = [
        "\n    when: complete || text == ''\n    ".join([f"  - id: {name}", EFFECTS.get(name, "then: allow")])
        for name in effects
    ]
    for ordered in (texts, texts[::-1]):
        decision = policy("rules:\n" + "\n".join(ordered) if ordered else "").decide(action("GET https://a.example/"))
        if outcome == "deny":
            masks = injections = 0
        assert (outcome, masks, injections) == (decision.outcome, len(decision.masks), len(decision.injections))


@SETTINGS
@given(st.lists(rules(), max_size=6), actions(), st.randoms(use_true_random=False))
def test_order_changes_nothing(drawn: list[Rule], asked: Action, shuffler: st.Random) -> None:  # type: ignore[name-defined] # hypothesis draws a random.Random
    """A decision is the same for any order of rules, in a file or over files."""
    found = named(drawn)
    shuffled = list(found)
    shuffler.shuffle(shuffled)
    assert Evaluator(found, (), "v").decide(asked) == Evaluator(shuffled, (), "v").decide(asked)


def meant(asked: Action, effect: Effect) -> Rule:
    """Give a rule that is about an action."""
    match = Match(protocols=(asked.protocol,), hosts=() if asked.target.host == "?" else (HostPattern(asked.target.host),))
    return Rule(id="meant", then=effect, match=match, approval=Approval() if effect is Effect.APPROVE else None)


@SETTINGS
@given(st.lists(rules(), max_size=6), actions(), st.integers(min_value=0, max_value=6))
def test_a_deny_is_never_lost(drawn: list[Rule], asked: Action, place: int) -> None:
    """A rule that denies an action decides it, whatever other rules there are, wherever it stands among them."""
    found = named(drawn)
    found.insert(place, meant(asked, Effect.DENY))
    decision = Evaluator(found, (), "v").decide(asked)
    assert (Outcome.DENY, True) == (decision.outcome, "meant" in decision.carried_out.rules)


@SETTINGS
@given(st.lists(rules(), max_size=5), rules(effects=(Effect.DENY,), stages=(Stage.ENFORCE,)), actions())
def test_a_deny_that_may_match_wins(drawn: list[Rule], deny: Rule, asked: Action) -> None:
    """Where a rule denies alone, for certain or because not enough is known, it denies among any others."""
    rule = replace(deny, id="deny")
    if Evaluator([rule], (), "v").decide(asked).carried_out.rules:
        assert Outcome.DENY is decided([*named(drawn), rule], asked)


@SETTINGS
@given(st.lists(rules(), max_size=5), rules(effects=(Effect.ALLOW,)), actions(), st.sampled_from([Effect.DENY, Effect.APPROVE]))
def test_permissions_weaken_nothing(drawn: list[Rule], more: Rule, asked: Action, effect: Effect) -> None:
    """A further rule that allows turns neither a deny nor an approval into anything weaker."""
    found = [*named(drawn), meant(asked, effect)]
    first = decided(found, asked)
    assert first is not Outcome.ALLOW
    assert first is decided([*found, replace(more, id="more"), replace(meant(asked, Effect.ALLOW), id="all")], asked)


@SETTINGS
@given(st.lists(rules(effects=(Effect.ALLOW,), stages=(Stage.ENFORCE,)), min_size=1, max_size=4), actions())
def test_what_is_not_complete_is_allowed_by_name_only(drawn: list[Rule], asked: Action) -> None:
    """An action that could not be read in full is allowed by no rule but one that says that it accepts that."""
    found = named(drawn)
    decision = Evaluator(found, (), "v").decide(replace(asked, problems=("cut",)))
    if decision.outcome is Outcome.ALLOW:
        assert [True] == [rule.accept_incomplete for rule in found if rule.id in decision.carried_out.rules]


@SETTINGS
@given(st.lists(rules(effects=(Effect.DENY, Effect.APPROVE, Effect.ALLOW)), max_size=5), actions())
def test_knowing_less_allows_nothing(drawn: list[Rule], asked: Action) -> None:
    """Nothing is allowed because less of it is known, and what a rule denies stays denied."""
    found = named([replace(rule, accept_incomplete=False) for rule in drawn])
    first = Evaluator(found, (), "v").decide(asked)
    less = replace(
        asked, principal=None, path=None, query=None, effects=None, resources=None, text=None, facts={}, problems=("cut",)
    )
    if first.outcome is not Outcome.ALLOW:
        assert Outcome.ALLOW is not decided(found, less)
    if first.outcome is Outcome.DENY and first.carried_out.rules:
        assert Outcome.DENY is decided(found, less)


@SETTINGS
@given(st.lists(rules(), max_size=6), actions())
def test_the_index_finds_every_rule(drawn: list[Rule], asked: Action) -> None:
    """Rules that are found by protocol and host decide as all rules, asked one by one."""
    found = named(drawn)
    evaluator = Evaluator(found, (), "v")
    explained = explain(Policy(rules=found, scopes=(), passthrough=(), examples=(), version="v", evaluator=evaluator), asked)
    enforced = [one.rule for one in explained if one.counts and one.rule.enforced]
    decision = evaluator.decide(asked)
    assert judge(enforced, asked).outcome is decision.outcome
    assert judge([one.rule for one in explained if one.counts], asked).outcome is decision.judged.outcome


KNOWN = Action(
    principal=Principal(name="ann", kind="oidc"),
    run=Run(name="nightly", labels={"team": "data"}),
    target=Target(host="a.example", port=443, tls=Tls.INSPECTED),
    protocol="http",
    operation="GET",
    path="/v1/x",
    query="a=1",
    text="hello",
    facts={"target.names_agree": True},
)
SQL = Action(
    target=Target(host="db", port=5432),
    protocol="postgresql",
    operation="DELETE",
    effects=frozenset({"select", "delete"}),
    resources=(Resource(name="public.users", access="write"), Resource(name="secret.keys", access="read")),
    facts={"sql.has_where": False},
)
STATES: list[tuple[str, Action, bool | None]] = [
    ("principals: ann", KNOWN, True),
    ("principals: oidc:ann", KNOWN, True),
    ("principals: user:ann", KNOWN, False),
    ("principals: user:root", replace(KNOWN, principal=Principal(name="user:root", kind="oidc")), False),
    ("principals: oidc:user:root", replace(KNOWN, principal=Principal(name="user:root", kind="oidc")), True),
    ("principals: 'user*'", replace(KNOWN, principal=Principal(name="root", kind="user")), False),
    ("principals: 'user:r*'", replace(KNOWN, principal=Principal(name="root", kind="user")), True),
    ("principals: '*:root'", replace(KNOWN, principal=Principal(name="root", kind="user")), True),
    ("principals: '*'", replace(KNOWN, principal=Principal(name="user:root", kind="oidc")), True),
    ("principals: ann", replace(KNOWN, principal=None), None),
    ("runs: 'night*'", KNOWN, True),
    ("runs: 'night*'", replace(KNOWN, run=Run()), None),
    ("labels: {team: [ops, data]}", KNOWN, True),
    ("labels: {team: data, cost: x}", KNOWN, False),
    ("hosts: a.example", KNOWN, True),
    ("hosts: a.example", replace(KNOWN, target=replace(KNOWN.target, aliases=("b.example",))), None),
    ("hosts: [a.example, b.example]", replace(KNOWN, target=replace(KNOWN.target, aliases=("b.example",))), True),
    ("hosts: c.example", replace(KNOWN, target=replace(KNOWN.target, aliases=("b.example",))), False),
    ("hosts: c.example", replace(KNOWN, target=replace(KNOWN.target, host="?")), None),
    ("hosts: '*'", replace(KNOWN, target=replace(KNOWN.target, host="?")), True),
    ("addresses: 10.0.0.0/8", KNOWN, None),
    ("ports: 443", KNOWN, True),
    ("ports: 400-500", KNOWN, True),
    ("ports: 444-500", KNOWN, False),
    ("tls: inspected", KNOWN, True),
    ("tls: [none, passthrough]", KNOWN, False),
    ("tls: inspected", replace(KNOWN, target=replace(KNOWN.target, tls=Tls.UNKNOWN)), None),
    ("methods: [GET, HEAD]", KNOWN, True),
    ("methods: POST", KNOWN, False),
    ("methods: DELETE", replace(KNOWN, operation="delete"), None),
    ("methods: POST", replace(KNOWN, operation="get"), False),
    ("methods: POST", replace(KNOWN, problems=("cut",)), None),
    ("paths: /v1/**", KNOWN, True),
    ("paths: /v1/*", KNOWN, True),
    ("paths: /*", KNOWN, False),
    ("paths: /v1/**", replace(KNOWN, path=None), None),
    ("paths: /v1/**", replace(KNOWN, path="/v1"), True),
    ("paths: /v1/**", replace(KNOWN, path="/v10"), False),
    ("paths: /v1/**", replace(KNOWN, path="/v1/a\nb"), True),
    ("paths: /v?/x", KNOWN, True),
    ("paths: /v1/X", KNOWN, None),
    ("paths: /v1/**", replace(KNOWN, path="/V1/x"), None),
    ("paths: /v1", replace(KNOWN, path="/v1/"), None),
    ("paths: /v1", replace(KNOWN, path="/V1/"), None),
    ("paths: /v1", replace(KNOWN, path="/v1/x/"), False),
    ("paths: /v1/x", replace(KNOWN, path="/"), False),
    ("path_regex: '^/v1/ADMIN'", replace(KNOWN, path="/v1/admin"), None),
    ("path_regex: '/admin$'", replace(KNOWN, path="/v1/Admin/"), None),
    ("path_regex: '/admin$'", replace(KNOWN, path="/v1/Admin/x"), False),
    ("path_regex: '^/v[0-9]+/'", KNOWN, True),
    ("path_regex: '^/v[0-9]+$'", replace(KNOWN, path="/v1\n"), False),
    ("query_regex: 'a=[12]'", KNOWN, True),
    ("query_regex: 'a=[12]'", replace(KNOWN, query=None), None),
    ("query_regex: 'a=b c'", replace(KNOWN, query="x=1&%61=b+c"), None),
    ("query_regex: 'a=b'", replace(KNOWN, query="%61=%FF"), False),
    ("query_regex: '^a=%62$'", replace(KNOWN, query="a=%62"), True),
    ("text_regex: hello", KNOWN, True),
    ("text_regex: hello", replace(KNOWN, text="\udcff"), None),
    ("text_regex: 'DROP /x'", replace(KNOWN, text=r'{"a": "\u0044R\u004fP \/x"}'), None),
    ("text_regex: DROP", replace(KNOWN, text="a=%44ROP+it"), None),
    ("text_regex: '😀!'", replace(KNOWN, text=r"\uD83D\ude00!"), None),
    ("text_regex: DROP", replace(KNOWN, text=r"\ud83d and 100% + \u12"), False),
    ("facts: {target.names_agree: true}", KNOWN, True),
    ("facts: {target.names_agree: false}", KNOWN, False),
    ("facts: {http.body_truncated: false}", KNOWN, None),
    ("methods: GET", SQL, False),
    ("facts: {http.body_truncated: false}", SQL, False),
    ("commands: DELETE", SQL, True),
    ("text_regex: DROP", replace(SQL, text="LIKE '%44ROP'"), False),
    ("commands: DELETE", replace(SQL, operation="SELECT; DELETE"), None),
    ("commands: [DELETE, SELECT]", replace(SQL, operation="SELECT; DELETE"), True),
    ("commands: DROP", replace(SQL, operation="SELECT; DELETE"), False),
    ("resources: 'public.*'", replace(SQL, resources=(Resource(name="?.users"),)), None),
    ("resources: 'public.users'", replace(SQL, resources=(Resource(name="?.users"),)), None),
    ("resources: 'public.orders'", replace(SQL, resources=(Resource(name="?.users"),)), False),
    ("resources: '*.users'", replace(SQL, resources=(Resource(name="?.users"),)), True),
    ("resources: '*'", replace(SQL, resources=(Resource(name="?.users"),)), True),
    ("resources: 'p*s'", replace(SQL, resources=(Resource(name="?.users"),)), None),
    ("effects: delete", SQL, None),
    ("effects: [delete, select]", SQL, True),
    ("effects: drop", SQL, False),
    ("effects: drop", replace(SQL, effects=None), None),
    ("effects: drop", replace(SQL, effects=frozenset()), False),
    ("resources: 'public.*'", SQL, None),
    ("resources: ['public.*', 'secret.*']", SQL, True),
    ("resources: 'other.*'", SQL, False),
    ("resources: '*'", replace(SQL, resources=()), False),
    ("facts: {sql.has_where: false}", SQL, True),
    ("facts: {sql.has_where: false}", replace(SQL, facts={}), None),
]
COUNTED = {
    "deny": (True, True, False),
    "approve": (True, True, False),
    "log": (True, True, False),
    "allow": (True, False, False),
}


@pytest.mark.parametrize(("match", "asked", "answer"), STATES)
def test_matching_has_three_answers(match: str, asked: Action, answer: bool | None) -> None:
    """A key matches, does not, or that is not known; then it counts for what stops, and not for what allows."""
    for effect, (yes, unknown, no) in COUNTED.items():
        read = policy(f"rules:\n  - id: a\n    match: {{{match}}}\n    then: {effect}\n")
        (found,) = [one for one in explain(read, asked) if one.rule.id == "a"]
        assert answer is found.answer
        allowed = asked.complete if effect == "allow" else True
        assert {True: yes and allowed, None: unknown, False: no}[answer] is found.counts


MANY, TOO_MANY = (replace(SQL, resources=tuple(Resource(name=f"r{n}") for n in range(count))) for count in (200, 257))
CONDITION_STATES: list[tuple[str, Action, bool | None]] = [
    ("http.method == 'GET' && target.port == 443", KNOWN, True),
    ("http.method == 'POST'", KNOWN, False),
    ("labels.team == 'data'", KNOWN, True),
    ("labels.cost == 'data'", KNOWN, None),
    ("'cost' in labels && labels.cost == 'x'", KNOWN, False),
    ("labels.cost == 'x' || http.method == 'GET'", KNOWN, True),
    ("1 / (target.port - 443) == 1", KNOWN, None),
    ("target.address == '10.0.0.1'", KNOWN, None),
    ("principal.kind == 'oidc' && !principal.verified", KNOWN, True),
    ("http.path.matches('^/v1/[a-z]$')", KNOWN, True),
    ("text.matches('h')", replace(KNOWN, text="\udcff"), None),
    ("text == 'x' || http.method == 'GET'", replace(KNOWN, text="\udcff"), True),
    ("run.name == 'nightly'", replace(KNOWN, run=Run(labels={"a": "\udcff"})), None),
    ("labels.a == 'x'", replace(KNOWN, run=Run(labels={"a": "\udcff"})), None),
    ("!sql.has_where", SQL, True),
    ("sql.effects.exists(e, e == 'delete')", SQL, True),
    ("sql.resources.all(r, r.startsWith('public.'))", SQL, False),
    (
        "sql.resources.all(r, sql.resources.all(s, sql.resources.all(t, r != s + t)))",
        MANY,
        None,
    ),
    ("sql.resources.size() > 0", TOO_MANY, None),
]


@pytest.mark.parametrize(("source", "asked", "answer"), CONDITION_STATES)
def test_conditions_have_three_answers(source: str, asked: Action, answer: bool | None) -> None:
    """A condition holds, does not, or errs, which is not known; one side of || and && can decide without the other."""
    assert answer is compile_condition(source, frozenset({asked.protocol}))(Bindings(asked))


@SETTINGS
@given(st.sampled_from(CONDITIONS), actions())
def test_a_condition_that_errs_allows_nothing(when: str, asked: Action) -> None:
    """Where a condition is neither true nor false, a rule with it denies and does not allow."""
    deny = Rule(id="a", then=Effect.DENY, when=when)
    asked = replace(asked, protocol="http")
    if compile_condition(when, deny.match.of_protocols)(Bindings(asked)) is not None:
        return
    first, second = (Evaluator([replace(deny, then=effect)], (), "v").decide(asked) for effect in (Effect.DENY, Effect.ALLOW))
    assert (("a",), Outcome.DENY) == (first.carried_out.rules, second.outcome)


def test_a_condition_about_a_protocol_makes_the_rule_about_it() -> None:
    """A rule whose condition asks for SQL does not stop HTTP because there is no SQL in it."""
    allows = "  - id: b\n    then: allow\n  - id: c\n    match: {protocols: tcp}\n    then: allow\n"
    read = policy("rules:\n  - id: a\n    when: sql.command == 'DROP'\n    then: deny\n" + allows)
    assert "allow" == read.decide(action("GET https://a.example/")).outcome
    assert ("deny", "allow") == (
        read.decide(action("sql db DROP TABLE x")).outcome,
        read.decide(action("connect db:1")).outcome,
    )


SCOPED = """
scopes:
  - {id: canary, match: {labels: {stage: canary}}, mode: observe, recording: full}
  - {id: strict, match: {principals: root}, mode: enforce}
  - {id: rest, recording: metadata}
rules:
  - {id: a, match: {hosts: a.example}, then: allow}
  - {id: b, match: {methods: POST}, then: deny, stage: observe}
  - {id: m, match: {protocols: http}, then: mask, mask: {keys: x}}
"""
MODES = [
    ("GET https://b.example/", "ann", "canary", "allow", "deny", "full", 0),
    ("GET https://b.example/", "root", "canary", "deny", "deny", "full", 0),
    ("GET https://b.example/", None, "canary", "deny", "deny", "full", 0),
    ("GET https://b.example/", "ann", "live", "deny", "deny", "metadata", 0),
    ("GET https://a.example/", "ann", "live", "allow", "allow", "metadata", 1),
    ("GET https://a.example/", "ann", "canary", "allow", "allow", "full", 0),
    ("POST https://a.example/", "ann", "live", "allow", "deny", "metadata", 1),
    ("GET http://169.254.169.254/", "ann", "live", "deny", "deny", "metadata", 0),
]


@pytest.mark.parametrize(("text", "principal", "stage", "outcome", "would", "recording", "masks"), MODES)
def test_what_is_observed_is_told_and_not_done(
    *, text: str, principal: str | None, stage: str, outcome: str, would: str, recording: str, masks: int
) -> None:
    """A scope that observes stops and changes nothing, a rule that is observed stops nothing; both say what would be."""
    decision = policy(SCOPED).decide(action(text, principal=principal, labels={"stage": stage}))
    assert (outcome, would, recording, masks) == (
        decision.outcome,
        decision.judged.outcome,
        decision.recording,
        len(decision.masks),
    )
    assert decision.would_deny is (would == "deny" and outcome != "deny")
    assert (decision.mode is Mode.OBSERVE) is (stage == "canary" and principal == "ann")


PLACES = [
    ("header: authorization", "header: authorization"),
    ("header: authorization", "form: bearer"),
    ("form: basic", "form: aws-sigv4"),
    ("header: x-key", "header: x_key"),
    ("form: query, parameter: key", "form: query, parameter: KEY"),
]


@pytest.mark.parametrize(("first", "second"), PLACES)
def test_two_credentials_for_one_place_are_denied(first: str, second: str) -> None:
    """Where two rules would put different credentials into one place, nothing goes on."""
    about = "{protocols: http, hosts: a.example, ports: 443}"
    one = f"  - id: NAME\n    match: {about}\n    then: inject\n    inject: {{credential: NAME, FORM}}\n"
    allow = "  - {id: allow, then: allow}\n"
    asked = action("GET https://a.example/")
    rules = [one.replace("NAME", name).replace("FORM", form) for name, form in (("a", first), ("b", second))]
    assert "allow" == policy("rules:\n" + rules[0] + allow).decide(asked).outcome
    both = policy("rules:\n" + "".join(rules) + allow).decide(asked)
    assert ("deny", ("a", "b"), ()) == (both.outcome, both.carried_out.rules, both.injections)


def test_the_agent_is_told_why() -> None:
    """A refusal carries the rule's words, and what capd could not read."""
    read = policy("rules:\n  - {id: a, match: {methods: DELETE}, then: deny, reason: agents delete nothing}\n")
    assert "agents delete nothing" == read.decide(action("DELETE https://a.example/")).carried_out.reason
    told = read.decide(action("GET https://a.example/a%5cb")).carried_out.reason
    unread = "the path has an encoded backslash (%5C) or an encoded NUL"
    assert f"agents delete nothing (capd could not read all of it: {unread})" == told


def test_decisions_are_json() -> None:
    """The public form of a decision holds nothing that JSON does not."""
    read = policy(SCOPED + "  - {id: c, match: {paths: /x}, then: approve, approve: {groups: [dba]}}\n")
    printed = json.loads(json.dumps(read.decide(action("GET https://a.example/x")).to_json()))
    assert (["approve"], ["dba"], read.version) == ([printed["outcome"]], printed["approvals"][0]["groups"], printed["policy"])


@SETTINGS
@given(actions())
def test_actions_survive_json(asked: Action) -> None:
    """An action that is printed and read again is the same action."""
    assume(asked.text != "\udcff")
    assert asked == from_json(json.dumps(to_json(asked)))


WRONG = [
    "",
    "[]",
    "{}",
    '{"target": {"host": "a", "port": 1}, "protocol": "gopher", "operation": "x"}',
    '{"target": {"host": "A.example", "port": 1}, "protocol": "tcp", "operation": "connect"}',
    '{"target": {"host": "a", "port": 1, "x": 1}, "protocol": "tcp", "operation": "connect"}',
    '{"target": {"host": "a", "port": 1}, "protocol": "tcp", "operation": "connect", "effects": ["kill"]}',
    '{"target": {"host": "a", "port": 1}, "protocol": "tcp", "operation": "connect", "facts": {"x": true}}',
]


@pytest.mark.parametrize("text", WRONG)
def test_what_no_message_becomes_is_no_action(text: str) -> None:
    """An action with unknown words, or that is not normalised, is refused: it would be judged otherwise than its message."""
    with pytest.raises(ActionError):
        from_json(text)


def test_every_key_is_asked() -> None:
    """Each key of `match` has a function, of the connection or of what is said."""
    assert set(MATCH_KEYS) == {*CONNECTION, *CONTENT}
    assert {*CONTENT_KEYS, "facts"} == set(CONTENT)
