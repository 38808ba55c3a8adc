"""Sessions of databases: their opening, and the facts of it that rules ask for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.policy import action_json
from capd.enforcer.policy.action import CONNECT, Action
from capd.enforcer.policy.evaluator import Evaluator
from capd.enforcer.policy.explanation import explain
from capd.enforcer.policy.problem import PolicyError
from capd.enforcer.policy.rule import Rule
from capd.enforcer.policy.sql_statement import sql_action
from capd.enforcer.policy.written_action import Circumstances, written_action
from tests.enforcer.policies import DATABASES, actions, named, policy, rules

ALLOW = "- {id: all, match: {hosts: db}, then: allow}"


def opening_of(said: Action) -> Action:
    """Give the opening of the session in which something is said."""
    known = {name: value for name, value in said.facts.items() if name.startswith("target.")}
    return replace(said, operation=CONNECT, effects=None, resources=None, text=None, facts=known, problems=())


def written(text: str, **known: str) -> Action:
    """Give an action as it is written, with what is known of its session."""
    return written_action(text, Circumstances(database=known.get("database"), user=known.get("user")))


@given(
    found=st.lists(rules(), max_size=6).map(named),
    said=actions().filter(lambda one: one.protocol in DATABASES),
    knows=st.booleans(),
)
def test_what_may_be_said_may_be_opened(found: list[Rule], said: Action, knows: bool) -> None:
    """Whatever is allowed in a session, its opening was allowed, even while it was not known as whom."""
    evaluator = Evaluator(found, (), "v")
    opened = opening_of(said) if knows else replace(opening_of(said), database=None, user=None)
    if evaluator.decide(said).outcome == "allow":
        assert "allow" == evaluator.open(opened).outcome
    assert "approve" != evaluator.open(opened).outcome


@given(found=st.lists(rules(), max_size=6).map(named), said=actions().filter(lambda one: one.protocol in DATABASES))
def test_a_credential_is_one_of_the_opening(found: list[Rule], said: Action) -> None:
    """Nothing that is said in a session has a credential put in, and nothing is masked of its opening."""
    evaluator = Evaluator(found, (), "v")
    assert () == evaluator.decide(said).injections
    assert () == evaluator.open(opening_of(said)).masks


@pytest.mark.parametrize(
    ("outcome", "text", "known"),
    [
        ("allow", "{match: {hosts: db}, then: allow}", {}),
        ("deny", "{match: {hosts: other}, then: allow}", {}),
        ("deny", "{match: {hosts: db, ports: 1}, then: allow}", {}),
        ("deny", "{match: {hosts: db, labels: {team: data}}, then: approve}", {}),
        ("allow", "{match: {hosts: db, effects: select}, then: allow}", {}),
        ("allow", "{match: {hosts: db, effects: drop}, then: approve}", {}),
        ("allow", "{match: {hosts: db, users: app}, then: allow}", {}),
        ("allow", "{match: {hosts: db, users: app}, then: allow}", {"user": "app"}),
        ("deny", "{match: {hosts: db, users: app}, then: allow}", {"user": "root"}),
        ("deny", "{match: {hosts: db, databases: shop}, then: allow}", {"database": "hr"}),
        ("deny", "{match: {hosts: db, databases: shop}, then: allow}", {"database": ""}),
        ("deny", "{match: {hosts: db}, when: 'session.user == \"app\"', then: allow}", {"user": "root"}),
        ("allow", "{match: {hosts: db}, when: 'session.user == \"app\"', then: allow}", {}),
        ("deny", "{match: {hosts: db, principals: ann}, then: allow}", {}),
        ("deny", "{match: {hosts: db, principals: ann}, then: approve}", {}),
        ("deny", "{match: {hosts: db}, when: 'session.user == \"app\"', then: approve}", {"user": "root"}),
        ("allow", "{match: {hosts: db}, when: 'sql.command == \"SELECT\" && complete', then: allow}", {}),
    ],
)
def test_what_permits_an_opening(outcome: str, text: str, known: dict[str, str]) -> None:
    """A session may be opened if a rule could permit something of what is said in it."""
    read = policy(f"rules:\n- {{id: one, {text[1:]}")
    assert outcome == read.open(written("open postgresql db", **known)).outcome


@pytest.mark.parametrize(
    ("stops", "text", "known"),
    [
        (True, "{match: {users: root}, then: deny}", {"user": "root"}),
        (False, "{match: {users: root}, then: deny}", {"user": "app"}),
        (False, "{match: {users: root}, then: deny}", {}),
        (True, "{match: {hosts: db}, when: 'session.user == \"root\"', then: deny}", {"user": "root"}),
        (False, "{match: {hosts: db}, when: 'session.user == \"root\"', then: deny}", {}),
        (True, "{match: {principals: ann}, then: deny}", {}),
        (False, "{match: {effects: drop}, then: deny}", {}),
        (False, "{match: {hosts: db, text_regex: secret}, then: deny}", {}),
        (False, "{match: {hosts: db}, when: '!complete', then: deny}", {}),
        (False, "{match: {hosts: db}, when: 'sql.command == \"connect\"', then: deny}", {}),
        (False, "{match: {users: root}, then: deny, stage: observe}", {"user": "root"}),
        (False, "{match: {users: root}, then: approve}", {"user": "root"}),
        (True, "{match: {databases: [shop, prod]}, then: deny}", {"database": "prod"}),
    ],
)
def test_what_stops_an_opening(stops: bool, text: str, known: dict[str, str]) -> None:
    """A rule that denies stops a session if it denies whatever is said in it; one about what is said does not."""
    read = policy(f"rules:\n{ALLOW}\n- {{id: one, {text[1:]}")
    decision = read.open(written("open postgresql db", **known))
    assert ("deny" if stops else "allow") == decision.outcome
    if stops:
        assert ("one",) == decision.carried_out.rules


INJECT = (
    "{{id: key, match: {{protocols: postgresql, hosts: db, ports: 5432{more}}}, then: inject, "
    "inject: {{credential: {name}}}{when}}}"
)


def test_a_credential_is_decided_at_the_opening() -> None:
    """A rule that injects gives its credential when it is known that the session is one of those it is for, and never later."""
    read = policy(f"rules:\n{ALLOW}\n- " + INJECT.format(more=", users: app", name="pg", when=""))
    assert ("key",) == tuple(rule for rule, _ in read.open(written("open postgresql db", user="app")).injections)
    assert () == read.open(written("open postgresql db", user="root")).injections
    assert () == read.open(written("open postgresql db")).injections
    assert () == read.decide(written("sql db SELECT 1", user="app")).injections


def test_two_credentials_of_a_session_deny() -> None:
    """Where two rules give different credentials nothing is opened, and nothing is said, complete or not."""
    second = INJECT.format(more="", name="other", when="").replace("id: key", "id: key-2")
    read = policy(
        f"rules:\n{ALLOW[:-1]}, accept_incomplete: true}}\n- " + INJECT.format(more="", name="pg", when="") + f"\n- {second}"
    )
    assert "deny" == read.open(written("open postgresql db")).outcome
    assert ["deny", "deny"] == [read.decide(written(f"sql db {text}")).outcome for text in ("SELECT 1", "DO 'x'")]


@pytest.mark.parametrize(
    ("more", "when"),
    [(", effects: select", ""), (", text_regex: x", ""), ("", ", when: 'sql.command == \"SELECT\"'"), ("", ", when: complete")],
)
def test_a_credential_cannot_hang_on_what_is_said(more: str, when: str) -> None:
    """A rule that injects into a database by what is said is refused, because it is signed in to before."""
    with pytest.raises(PolicyError, match="signed in to before anything is said"):
        policy("rules:\n- " + INJECT.format(more=more, name="pg", when=when))


def test_a_recording_level_cannot_hang_on_a_login() -> None:
    """A scope that says how much is recorded is refused if it asks who signs in; one that says a mode may."""
    with pytest.raises(PolicyError, match="before it is known who signs in"):
        policy("scopes:\n- {id: one, match: {users: app}, recording: full}")
    scope = "{id: one, match: {users: app}, mode: observe}"
    read = policy(f"scopes:\n- {scope}\nrules:\n{ALLOW}\n- {{id: no, match: {{ports: 3306}}, then: deny}}")
    outcomes = [read.open(written("open mysql db", **known)).outcome for known in ({"user": "app"}, {"user": "b"}, {})]
    assert ["allow", "deny", "deny"] == outcomes


@pytest.mark.parametrize("protocol", ["postgresql", "mysql", "redis"])
def test_observing_lets_it_be_opened_as_it_is(protocol: str) -> None:
    """In a scope that observes a session is opened, with nothing put in, and the decision says what would be."""
    about = "{protocols: [postgresql, mysql, redis], hosts: db, ports: 1}"
    inject = f"{{id: key, match: {about}, then: inject, inject: {{credential: x}}}}"
    read = policy(f"scopes:\n- {{id: see, mode: observe}}\nrules:\n- {inject}\n- {{id: no, match: {{users: app}}, then: deny}}")
    decision = read.open(written(f"open {protocol} db:1", user="app"))
    assert ("allow", "deny", ()) == (decision.outcome, decision.judged.outcome, decision.injections)


@pytest.mark.parametrize(
    ("outcome", "text", "database"),
    [
        ("deny", "mysql db SELECT * FROM cards", "shop"),
        ("deny", "mysql db SELECT * FROM CARDS", "shop"),
        ("deny", "mysql db SELECT * FROM Shop.Cards", "hr"),
        ("deny", "mysql db SELECT * FROM Shop.Cards JOIN shop.orders", "hr"),
        ("allow", "mysql db SELECT * FROM shop.orders", "hr"),
        ("deny", "sql db SELECT * FROM cards", "shop"),
        ("deny", "sql db SELECT * FROM shop.cards", "shop"),
        ("allow", 'sql db SELECT * FROM "Shop"."Orders"', "shop"),
        ("deny", "sql db SELECT 1; SELECT * FROM shop.cards", "shop"),
        ("deny", "mysql db SELECT 1; SELECT * FROM shop.cards", "shop"),
    ],
)
def test_names_of_both_dialects(outcome: str, text: str, database: str) -> None:
    """A relation is denied by its name, without its schema, and in MySQL in whatever case, in whichever statement it stands."""
    denied = "- {id: no, match: {resources: Shop.Cards}, then: deny}\n- {id: no-2, match: {resources: shop.cards}, then: deny}"
    read = policy(f"rules:\n{ALLOW[:-1]}, accept_incomplete: true}}\n{denied}")
    assert outcome == read.decide(written(text, database=database)).outcome


def test_a_database_of_mysql_in_whatever_case() -> None:
    """Where case may not count, a rule that denies counts and one that allows does not; elsewhere it counts."""
    read = policy(f"rules:\n{ALLOW}\n- {{id: no, match: {{databases: Prod}}, then: deny}}")
    found = [read.decide(written(f"{protocol} db SELECT 1", database="prod")).outcome for protocol in ("mysql", "sql")]
    assert ["deny", "allow"] == found
    read = policy("rules:\n- {id: yes, match: {databases: Prod}, then: allow}")
    assert "deny" == read.decide(written("mysql db SELECT 1", database="prod")).outcome


@given(found=st.lists(rules(), max_size=6).map(named), said=actions().filter(lambda one: one.protocol in DATABASES))
def test_explanations_of_openings_are_the_decision(found: list[Rule], said: Action) -> None:
    """The rules that are said to count for an opening are those that it was decided by."""
    read = replace(policy(), rules=found, evaluator=Evaluator(found, (), "v"))
    opened = opening_of(said)
    counting = {one.rule.id for one in explain(read, opened) if one.counts and one.rule.enforced}
    assert set(read.open(opened).carried_out.rules) <= counting


@pytest.mark.parametrize("text", ["open redis db", "open mysql db:1", "open postgresql [::1]"])
def test_an_opening_as_json(text: str) -> None:
    """An opening that is printed is read as the same."""
    action = written(text, database="3", user="app")
    assert action.opening
    assert action == action_json.from_json(json.dumps(action_json.to_json(action)))


@pytest.mark.parametrize(
    ("outcome", "match", "text"),
    [
        ("deny", "{commands: CONFIG}", "redis db CONFIG SET dir /"),
        ("deny", "{commands: CONFIG|SET}", "redis db config set dir /"),
        ("allow", "{commands: CONFIG|SET}", "redis db CONFIG GET dir"),
        ("allow", "{commands: CONFIG}", "redis db GET CONFIG"),
        ("deny", "{resources: 'session:*'}", "redis db MGET a session:7"),
        ("deny", "{resources: 'session:*'}", "redis db KEYS *"),
        ("deny", "{resources: 'session:*'}", "redis db FLUSHALL"),
        ("deny", "{resources: 'session:*'}", "redis db EVAL x 0"),
        ("deny", "{resources: 'session:*'}", "redis db NOSUCH a"),
        ("allow", "{resources: 'session:*'}", "redis db GET Session:7"),
        ("allow", "{resources: '*.x'}", "redis db GET ?.y"),
        ("deny", "{effects: drop}", "redis db FLUSHDB"),
        ("deny", "{effects: code}", "redis db EVALSHA x 0"),
        ("deny", "{databases: '0'}", "redis db GET a"),
    ],
)
def test_commands_of_redis(outcome: str, match: str, text: str) -> None:
    """A rule that denies a command denies its subcommands, one that denies keys denies what may touch any; names heed case."""
    read = policy(f"rules:\n{ALLOW[:-1]}, accept_incomplete: true}}\n- {{id: no, match: {match}, then: deny}}")
    assert outcome == read.decide(written(text)).outcome


def test_what_is_not_said_yet_is_explained_as_not_known() -> None:
    """Of an opening it is not known whether a rule about what is said matches, and the rule counts if it may let that go."""
    read = policy(
        "rules:\n- {id: a, match: {hosts: db, commands: SELECT}, then: allow}\n"
        "- {id: b, match: {hosts: db, effects: drop, users: app}, then: deny}"
    )
    found = {one.rule.id: one for one in explain(read, written("open postgresql db", user="root")) if one.rule.id in "ab"}
    assert (None, True, ("commands",)) == (found["a"].answer, found["a"].counts, found["a"].unknown)
    assert (False, False, ("users",)) == (found["b"].answer, found["b"].counts, found["b"].failed)


EMPTY = [("allow", ""), ("allow", " ;\n"), ("deny", "-- x"), ("deny", "\x0b"), ("deny", "\ufeff")]


@pytest.mark.parametrize("protocol", ["postgresql", "mysql"])
@pytest.mark.parametrize(("outcome", "text"), EMPTY)
def test_an_empty_statement_is_of_the_session(outcome: str, text: str, protocol: str) -> None:
    """What clients say to see whether the server is there does nothing; what only looks so is not known to."""
    read = policy("rules:\n- {id: a, match: {hosts: db, effects: session}, then: allow}")
    opened = written("open postgresql db", user="app")
    said = sql_action(text, principal=None, run=opened.run, target=opened.target, protocol=protocol)
    assert outcome == read.decide(said).outcome
