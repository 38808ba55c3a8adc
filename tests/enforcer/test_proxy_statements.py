"""Sessions and statements of databases, from the proxy's questions to verdicts, holds, entries and what stands.

What lives here: real policies, the real desk. What must not: bytes of any protocol.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest

from capd.enforcer.approvals.action_hash import fingerprint, shape
from capd.enforcer.approvals.hold import Answer, Hold, Outcome, hold_message, read_hold
from capd.enforcer.callbacks.notice import notice
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.policy.action import Principal, Run
from capd.enforcer.policy.policy import Policy, read_policy
from capd.enforcer.policy.rule import ApprovalScope
from capd.enforcer.proxy.commands import Refused
from capd.enforcer.proxy.entry import RESOURCES_MAX, Entry, decision_entry
from capd.enforcer.proxy.held import in_short, verdict_of
from capd.enforcer.proxy.judge import Agent, judge, needs_proof, observed
from capd.enforcer.proxy.question import Destination, Kind, Login, Question, Statement, Verdict
from capd.enforcer.proxy.questions import Questions
from capd.enforcer.proxy.sql_question import sql_statement
from capd.enforcer.proxy.world import World
from capd.enforcer.sql.lexeme import Dialect
from capd.enforcer.sql.message import Reader
from capd.enforcer.sql.session import new_session
from tests.enforcer.asking import ANN, KEY, Client, Scene

AGENT = Agent(run=Run(name="nightly", id="r"), principal=Principal(name="alice"), uid=2000)
HERE = Destination(address="192.0.2.1", port=5432)
LOGIN = Login(user="app", database="shop")


def policy(text: str) -> Policy:
    """Read one."""
    return read_policy({"test.yaml": text.encode()})


SHOP = policy(
    """
rules:
  - {id: reads, match: {hosts: db.test, effects: select}, then: allow}
  - {id: writes, match: {hosts: db.test, effects: [insert, update]}, then: approve, approve: {scope: shape, hold_seconds: 300}}
  - {id: cards, match: {resources: "*.cards"}, then: deny, reason: nobody needs card numbers}
  - {id: root, match: {users: root}, then: deny}
  - {id: words, match: {hosts: db.test, text_regex: forbidden}, then: deny}
  - id: hide
    match: {protocols: [postgresql, mysql], hosts: db.test, resources: public.people}
    then: mask
    mask: {columns: ssn}
  - id: key
    match: {protocols: [postgresql], hosts: db.test, ports: 5432, users: app}
    then: inject
    inject: {credential: pg}
"""
)


def session(login: Login | None = LOGIN, *, host: str | None = "db.test", **more: object) -> Question:
    """Give a question about an opening."""
    facts: dict[str, object] = {"protocol": "postgresql", "inspected": host is not None, "server_name": host, **more}
    return Question(number=1, kind=Kind.SESSION, destination=HERE, login=login, **facts)  # type: ignore[arg-type] # as given


def statement(text: str | None = "SELECT 1", **more: object) -> Question:
    """Give a question about a statement that reads nothing, but for what is given."""
    said: dict[str, object] = {"operation": "SELECT", "effects": frozenset({"select"}), "resources": (), "shape": text or ""}
    asked: dict[str, object] = {name: more.pop(name) for name in ("carries_out", "protocol", "login", "host") if name in more}
    content = (text or "").encode("utf-8", "surrogateescape")
    made = Statement(**{"content": content, "text": text, **said, **more})  # type: ignore[arg-type] # as given
    host = asked.pop("host", "db.test")
    facts: dict[str, object] = {"protocol": "postgresql", "login": LOGIN, "inspected": host is not None, "server_name": host}
    facts |= asked
    return Question(number=2, kind=Kind.STATEMENT, destination=HERE, statement=made, **facts)  # type: ignore[arg-type] # as given


def changing(text: str = "UPDATE a SET b = 1", **more: object) -> Question:
    """Give a question about a statement that is held."""
    written = {"operation": "UPDATE", "effects": frozenset({"update"}), "resources": (("public.a", "write"),)}
    return statement(text, **{**written, "shape": "UPDATE a SET b = ?", **more})


@pytest.mark.parametrize(("sql", "prepares"), [("update a set b = $1", True), ("select f($1)", False), ("do 'x'", False)])
def test_what_is_not_understood_is_held_when_it_is_prepared(sql: str, prepares: bool) -> None:
    """A person is asked of what is prepared before it is, where nobody knows what it will do."""
    message = Reader().read(sql.encode(), new_session(Dialect.POSTGRESQL))
    made = sql_statement(message, sql.encode(), "utf-8", sql.encode(), shown={}, prepares=True)
    assert prepares == made.prepares


@pytest.mark.parametrize(
    ("question", "allowed", "reason", "rule"),
    [
        (session(carries_out=True), True, "", "reads"),
        (session(), False, "cannot_be_carried_out", "reads"),
        (session(Login(user=None, database=None)), True, "", "reads"),
        (session(Login(user="root", database="shop")), False, "denied_by_policy", "root"),
        (session(host="other.test"), False, "allowed_by_no_rule", ""),
        (session(protocol="mysql"), True, "", "reads"),
        (statement(), True, "", "reads"),
        (statement(login=Login(user="root", database="shop")), False, "denied_by_policy", "root"),
        (statement(login=Login(user=None, database=None)), False, "denied_by_policy", "root"),
        (statement(login=None), False, "denied_by_policy", "root"),
        (statement(effects=None), False, "approval_needed", "writes"),
        (statement(effects=frozenset({"select", "drop"})), False, "allowed_by_no_rule", ""),
        (statement(problems=("it could not be read",)), False, "denied_by_policy", "cards,words"),
        (statement(resources=(("public.cards", "read"),)), False, "denied_by_policy", "cards"),
        (statement(resources=(("?.cards", "read"),)), False, "denied_by_policy", "cards"),
        (statement(resources=None), False, "denied_by_policy", "cards"),
        (statement("SELECT 'forbidden'"), False, "denied_by_policy", "words"),
        (statement(None), False, "denied_by_policy", "words"),
        (statement("x" * 70_000), False, "denied_by_policy", "words"),
        (statement("\udcff"), False, "denied_by_policy", "words"),
        (statement(resources=(("public.people", "read"),)), False, "cannot_be_carried_out", "reads"),
        (statement(resources=(("public.people", "read"),), carries_out=True), True, "", "reads"),
        (statement(operation="connect", effects=frozenset({"drop"})), False, "allowed_by_no_rule", ""),
        (changing(), False, "approval_needed", "writes"),
        (changing(estimable=True, prepares=True), True, "only_prepared", "writes"),
        (changing(approved=SHOP.version), True, "approved_before", "writes"),
        (changing(approved="another"), False, "approval_needed", "writes"),
        (changing(prepares=True, resources=(("public.cards", "write"),)), False, "denied_by_policy", "cards"),
        (changing(approved=SHOP.version, resources=(("public.cards", "write"),)), False, "denied_by_policy", "cards"),
        (changing(prepares=True, resources=(("public.people", "write"),)), False, "cannot_be_carried_out", "writes"),
    ],
)
def test_verdicts(question: Question, allowed: bool, reason: str, rule: str) -> None:
    """What the policy decides is carried out, what cannot be is denied, and what is not known of a statement permits none."""
    verdict = judge(SHOP, AGENT, question, proven=True)
    assert (allowed, reason, rule) == (verdict.allowed, verdict.reason, verdict.rule)
    assert verdict.held is None or verdict.reason == "approval_needed"


def test_what_is_put_in_and_hidden() -> None:
    """An opening has the credential, a statement what is masked of its result, and neither has the other's."""
    opened = judge(SHOP, AGENT, session(carries_out=True), proven=True).obligations
    people = statement(resources=(("public.people", "read"),), carries_out=True)
    said = judge(SHOP, AGENT, people, proven=True).obligations
    assert (["key"], []) == ([rule for rule, _ in opened.injections], list(opened.masks))
    assert ([], ["hide"]) == (list(said.injections), [rule for rule, _ in said.masks])


def test_a_credential_does_not_go_in_clear() -> None:
    """A session that is not in verified TLS gets no credential of a rule that does not say `cleartext`: it is not opened."""
    text = "rules: [{id: all, match: {hosts: 192.0.2.1}, then: allow}, {id: key, match: {protocols: redis, hosts: 192.0.2.1, "
    clear = session(host=None, protocol="redis", carries_out=True)
    for more, allowed in (("", False), (", cleartext: true", True)):
        read = policy(text + f"ports: 5432}}, then: inject, inject: {{credential: x{more}}}}}]")
        assert allowed is judge(read, AGENT, clear, proven=True).allowed


def test_a_name_that_is_not_proven() -> None:
    """As of HTTP a rule must permit the address as well, and the resolver is asked only where something would be allowed."""
    for question in (session(carries_out=True), statement()):
        assert not judge(SHOP, AGENT, question, proven=False).allowed
        assert needs_proof(SHOP, AGENT, question)
    assert not needs_proof(SHOP, AGENT, session(host="c2VjcmV0.evil.test"))
    assert not needs_proof(SHOP, AGENT, statement(host="c2VjcmV0.evil.test"))


def test_observed() -> None:
    """Where all is only observed sessions are opened as they are, nothing is masked, and nobody is asked."""
    for question in (session(Login(user="root", database="")), session(carries_out=True), changing(), statement(effects=None)):
        seen = observed(judge(SHOP, AGENT, question, proven=True))
        assert (True, None, False) == (seen.allowed, seen.held, bool(seen.obligations))


def held(question: Question, policy_of: Policy = SHOP) -> Hold:
    """Give what a person is asked."""
    found = judge(policy_of, AGENT, question, proven=True).held
    assert found is not None
    return found


OTHERS: dict[str, Question] = {
    "content": changing(content=b"UPDATE a SET b = 2"),
    "database": changing(login=replace(LOGIN, database="hr")),
    "no database": changing(login=replace(LOGIN, database=None)),
    "user": changing(login=replace(LOGIN, user="ben")),
    "protocol": changing(protocol="mysql"),
    "operation": changing(operation="UPDATE; INSERT"),
    "effects": changing(content=b"more", effects=frozenset({"update", "insert"})),
    "destination": replace(changing(), destination=replace(HERE, port=5433)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_an_approval_is_bound_to(name: str) -> None:
    """Another byte, another database, user or place is another action, which an approval is not for."""
    first, second = held(changing()), held(OTHERS[name])
    assert fingerprint(KEY, first.bound) != fingerprint(KEY, second.bound)
    assert fingerprint(KEY, first.bound) != fingerprint(KEY, replace(first.bound, policy="other"))


def shaped(found: Hold) -> bytes:
    """Give the fingerprint of its shape."""
    return shape(KEY, found.bound, found.body, is_json=found.is_json, likeness=found.likeness)


@pytest.mark.parametrize(
    ("alike", "other"),
    [
        (True, changing("UPDATE a SET b = 2")),
        (False, changing(shape="UPDATE a SET c = ?")),
        (False, changing(login=replace(LOGIN, database="hr"))),
        (False, changing(login=replace(LOGIN, user="ben"))),
        (False, changing(effects=frozenset({"insert", "update"}))),
        (False, changing(resources=(("hr.a", "write"),))),
        (False, changing(facts={"sql.has_where": True})),
        (False, changing("UPDATE a SET b = 2", shape="")),
    ],
)
def test_shapes(alike: bool, other: Question) -> None:
    """Of one shape are statements that differ in their literals alone: in one session, with the same effects on the same."""
    assert alike is (shaped(held(changing())) == shaped(held(other)))


def test_what_could_not_be_read_has_no_shape() -> None:
    """Of a statement with problems only the identical one is alike: its literals may be code."""
    everything = policy("rules: [{id: all, match: {hosts: db.test}, then: approve, approve: {scope: shape}}]")
    first, second = (held(changing(f"DO '{code}'", shape="DO ?", problems=("code",)), everything) for code in ("a", "b"))
    assert shaped(first) != shaped(second)
    assert shaped(first) == shaped(held(changing("DO 'a'", shape="DO ?", problems=("code",)), everything))


def test_a_shape_is_good_for_the_next(tmp_path: Path) -> None:
    """Approved for its shape the next statement goes at once, one of another shape is asked about."""
    made = Scene(tmp_path)
    desk = made.desk()
    first = Client(desk, read_hold(hold_message(held(changing()))))
    assert first.last.outcome is Outcome.WAITING
    desk.approve(first.last.id, ANN, ApprovalScope.SHAPE)
    second = Client(desk, held(changing("UPDATE a SET b = 2")))
    other = Client(desk, held(changing("UPDATE a SET c = 1", shape="UPDATE a SET c = ?")))
    assert [Outcome.APPROVED, Outcome.APPROVED, Outcome.WAITING] == [one.last.outcome for one in (first, second, other)]


def test_what_a_person_is_shown() -> None:
    """The text without secrets, what it does to what, what could not be read, and what the proxy found out."""
    secret = "ghp_" + "a1B2" * 9
    text = "UPDATE a SET b = '{}'"
    asked = changing(text.format(secret), shown={"in_transaction": True, "estimate": {"rows": 7}})
    shown = held(asked).shown
    assert "postgresql://app@db.test:5432/shop" == shown["url"]
    assert text.format("*" * len(secret)) == shown["statement"]
    assert (["update"], ["public.a (write)"], []) == (shown["effects"], shown["resources"], shown["problems"])
    assert {"in_transaction": True, "estimate": '{"rows": 7}'} == shown["known"]
    assert secret not in str(shown)


@pytest.mark.parametrize("protocol", ["postgresql", "mysql"])
def test_passwords_are_not_shown(protocol: str) -> None:
    """A password that a statement sets is hidden from whoever approves it, and in what a webhook is told of it."""
    text = "ALTER ROLE app PASSWORD 'hunter2'" if protocol == "postgresql" else "SET PASSWORD FOR app = 'hunter2'"
    found = held(changing(text, protocol=protocol))
    assert "hunter2" not in str(found.shown)
    told = notice({**found.shown, "body": b64encode(found.body).decode()}, Rules(Choice()))
    assert "hunter2" not in str(told)
    assert "*******" in str(told["body_text"])


def test_much_to_show_has_its_limit() -> None:
    """However much a statement names, what is shown of it fits the desk, and says that there is more."""
    names = tuple((f"public.{'t' * 500}{number}", "write") for number in range(1_000))
    found = held(changing("UPDATE " + "y" * 60_000, resources=names, shown={str(number): "z" * 9_000 for number in range(99)}))
    assert len(str(found.shown)) < 48 * 1024
    listed = found.shown["resources"]
    assert isinstance(listed, list)
    assert "and 968 more" == listed[-1]


def test_too_long_to_be_approved() -> None:
    """What nobody could be shown is denied."""
    verdict = judge(SHOP, AGENT, changing(content=b"x" * 300_000), proven=True)
    assert (False, None, "cannot_be_approved") == (verdict.allowed, verdict.held, verdict.reason)


def test_what_was_said_before_has_no_literals() -> None:
    """Beside later questions a person sees shapes, not what was in them."""
    verdict = judge(SHOP, AGENT, statement("SELECT 'x'", shape="SELECT ?"), proven=True)
    assert ("SELECT ?", "allowed") == in_short(statement("SELECT 'x'", shape="SELECT ?"), verdict)
    assert ("SELECT", "allowed") == in_short(statement("SELECT 'x'", shape=""), verdict)
    assert in_short(session(), verdict) is None


def test_entries() -> None:
    """The log tells of a statement by its hash, effects and relations; never its text, nor the keys of Redis."""
    asked = changing("UPDATE a SET b = 'private'", resources=tuple((f"public.t{n}", "write") for n in range(99)))
    entry = decision_entry("s", asked, judge(SHOP, AGENT, asked, proven=True), 7)
    assert ("statement", "shop", "app", "UPDATE") == tuple(entry[key] for key in ("about", "database", "user", "operation"))
    assert (["update"], 99, True) == tuple(entry[key] for key in ("effects", "resources_count", "complete"))
    assert [["public.t0", "write"]] == entry["resources"][:1]  # type: ignore[index] # it is a list
    assert RESOURCES_MAX == len(entry["resources"])  # type: ignore[arg-type] # as above
    assert sha256(b"UPDATE a SET b = 'private'").digest() == entry["content_sha256"]
    redis = changing(protocol="redis", resources=(("token:private", "write"),))
    told = decision_entry("s", redis, judge(SHOP, AGENT, redis, proven=True), 7)
    assert (None, 1) == (told["resources"], told["resources_count"])
    assert "private" not in str([entry, told])
    opened = decision_entry("s", session(), judge(SHOP, AGENT, session(), proven=True), 7)
    assert ("session", "shop", "app") == tuple(opened[key] for key in ("about", "database", "user"))
    assert "effects" not in opened


@dataclass
class Asking:
    """A session that keeps what it is told."""

    id: str = "s"
    agent: Agent = AGENT
    listening: bool = True
    verdicts: list[Verdict] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    told: list[tuple[int, str]] = field(default_factory=list)
    questions: Questions | None = None

    def found(self, question: Question, verdict: Verdict) -> None:
        """Take a verdict as written down."""
        assert self.questions is not None
        self.verdicts.append(verdict)
        self.questions.answered(question, verdict)

    def revoked(self, question: Question) -> None:
        """Keep it."""
        self.cut.append(question.number)

    def waits(self, question: Question, approval: str) -> None:
        """Keep it."""
        self.told.append((question.number, approval))

    def left(self) -> None:
        """Be there."""

    def refused(self, command: Refused) -> None:
        """Take it."""

    def write(self, entry: Entry) -> None:
        """Take it."""

    def failed(self) -> None:
        """Fail."""
        raise AssertionError


def asked_in_turn(story: Callable[[Questions, Asking, list[Policy]], Awaitable[None]]) -> Asking:
    """Run a story with questions that a policy judges which can be exchanged."""
    said, current = Asking(), [SHOP]

    async def hold(_agent: Agent, _question: Question, verdict: Verdict, waits: Callable[[str], None]) -> Verdict:
        waits("k3m9q")
        waits("k3m9q")
        return replace(verdict, held=None, allowed=True)

    async def equip(_agent: Agent, question: Question, verdict: Verdict) -> Verdict:
        assert question.kind is Kind.SESSION
        return replace(verdict, provision=object())  # type: ignore[arg-type] # nobody looks into it

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            world = World(
                judge=lambda agent, question: judge(current[0], agent, question, proven=True),
                hold=hold,
                equip=equip,
                log=None,  # type: ignore[arg-type] # nothing else is needed
                owner=None,  # type: ignore[arg-type]
                agent=None,  # type: ignore[arg-type]
                connection=None,  # type: ignore[arg-type]
                session=None,  # type: ignore[arg-type]
            )
            said.questions = Questions(world, tasks, said)
            await story(said.questions, said, current)

    asyncio.run(main())
    return said


async def settled() -> None:
    """Let what is to be judged be judged."""
    for _ in range(20):
        await asyncio.sleep(0)


NO_SHOP = policy("rules: [{id: reads, match: {hosts: db.test, databases: hr}, then: allow}]")
NO_READS = policy("rules: [{id: w, match: {hosts: db.test, effects: insert}, then: allow}]")


@pytest.mark.parametrize(
    ("after", "over", "cut"),
    [(SHOP, False, []), (NO_SHOP, True, [1]), (NO_SHOP, False, [1, 2]), (NO_READS, False, [1, 2]), (NO_READS, True, [1])],
)
def test_a_session_stands_as_long_as_its_connection(after: Policy, over: bool, cut: list[int]) -> None:
    """However many statements were said since, a policy that does not allow the opening as it was cuts the connection."""

    async def story(questions: Questions, _said: Asking, current: list[Policy]) -> None:
        questions.ask(session(carries_out=True))
        await settled()
        for number in range(2, 400):
            questions.ask(replace(statement(), number=number))
        questions.ask(statement())
        if over:
            questions.over(2)
        current[0] = after
        questions.reconsider()
        await settled()

    said = asked_in_turn(story)
    assert [True] * 400 == [one.allowed for one in said.verdicts]
    assert cut == sorted(said.cut)


def test_who_waits_is_told_once() -> None:
    """A statement that a person is asked about is said to be held, by the id of the request, once; then it has its verdict."""

    async def story(questions: Questions, _said: Asking, _current: list[Policy]) -> None:
        questions.ask(changing())
        await settled()

    said = asked_in_turn(story)
    assert ([(2, "k3m9q")], [True]) == (said.told, [one.allowed for one in said.verdicts])


def test_masks_of_a_statement_need_nothing_fetched() -> None:
    """A statement whose result is masked is not equipped, and goes on with what is to be masked."""

    async def story(questions: Questions, _said: Asking, _current: list[Policy]) -> None:
        questions.ask(statement(resources=(("public.people", "read"),), carries_out=True))
        await settled()

    (verdict,) = asked_in_turn(story).verdicts
    assert (True, ["hide"]) == (verdict.allowed, [rule for rule, _ in verdict.obligations.masks])


def test_an_answer_that_denies_a_statement() -> None:
    """What a person denies is told with the reason."""
    verdict = verdict_of(
        judge(SHOP, AGENT, changing(), proven=True), Answer(outcome=Outcome.DENIED, id="x", by="ann", reason="no")
    )
    assert (False, "denied_by_person", "denied by ann: no") == (verdict.allowed, verdict.reason, verdict.message)
