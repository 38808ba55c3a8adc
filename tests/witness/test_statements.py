"""Statement by statement: what was run has been decided, or that is told; and the decision stands beside what was said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from capd.daemon.witness import pending, statements
from capd.daemon.witness.witness import Witness
from capd.enforcer.proxy import entry
from capd.enforcer.proxy.question import Kind as About
from capd.enforcer.proxy.question import Login, Question, Statement, Verdict
from capd.recording.record import Direction, Kind, Record, Value
from tests.witness.world import DESTINATION, START, Connection, findings, hear, later, packed, seen, witness

ONE = Connection(number=1)
Said = list[Record]
Heard = list[bytes]


def question(number: int, text: str | None) -> Question:
    """Give a question about a statement."""
    said = Statement(
        operation="SELECT",
        content=(text or "").encode(),
        text=text,
        effects=frozenset({"select"}),
        resources=(("public.a", "read"),),
    )
    login = Login(user="app", database="shop")
    return Question(
        number=number,
        kind=About.STATEMENT,
        destination=DESTINATION,
        protocol="postgresql",
        login=login,
        statement=said,
    )


def decided(number: int, text: str | None = "SELECT 1", *, allowed: bool = True, at_ns: int = START) -> bytes:
    """Give the entry of a decision."""
    verdict = Verdict(number=number, allowed=allowed, reason="" if allowed else "denied_by_policy", rule="r", policy="v1")
    return packed(entry.decision_entry(ONE.flow, question(number, text), verdict, at_ns))


def held(number: int, text: str = "SELECT 1") -> bytes:
    """Give the entry that a person is asked."""
    return packed(entry.held_entry(ONE.flow, question(number, text), "k3m9q", START))


def opaque() -> bytes:
    """Give the entry that everything may be said."""
    whole = Question(number=9, kind=About.OPAQUE, destination=DESTINATION, protocol="postgresql")
    return packed(entry.decision_entry(ONE.flow, whole, Verdict(number=9, allowed=True), START))


def message(direction: Direction, kind: str, exchange: int | None, *, text: str | None = None, **more: Value) -> Record:
    """Give the record of a message."""
    body: dict[str, Value] = {"protocol": "postgresql", "type": kind, "exchange": exchange, "summary": text or ""}
    fields: dict[str, Value] = {} if text is None or kind == "Bind" else {"sql": text}
    return Record(Kind.MESSAGE, ONE.session, START, direction, {**body, "fields": fields, **more})


def query(exchange: int, text: str = "SELECT 1", kind: str = "Query", **more: Value) -> Record:
    """Give the record of a statement."""
    return message(Direction.REQUEST, kind, exchange, text=text, **more)


def answer(exchange: int | None, kind: str = "CommandComplete") -> Record:
    """Give the record of an answer."""
    return message(Direction.RESPONSE, kind, exchange)


def gap(direction: Direction) -> Record:
    """Give the record of bytes that are missing."""
    body: dict[str, Value] = {"position": 0, "length": 9, "layer": "application", "reason": "ring full"}
    return Record(Kind.GAP, ONE.session, START, direction, body)


A, B = query(1, "SELECT 1"), query(2, "DROP TABLE b")
OK_A, OK_B, BAD_B = answer(1), answer(2), answer(2, "ErrorResponse")
DA, DB = decided(1, "SELECT 1"), decided(2, "DROP TABLE b")
PARSE, BIND, BIND_2 = query(1, kind="Parse"), query(1, kind="Bind"), query(2, kind="Bind")
PARSED, BOUND, BOUND_2 = answer(1, "ParseComplete"), answer(1, "BindComplete"), answer(2, "BindComplete")
WRONG = ["undecided statement"]
CASES: dict[str, tuple[Said, Heard, list[str]]] = {
    "both say the same": ([A, OK_A, B, OK_B], [DA, DB], []),
    "pipelined": ([A, B, OK_A, OK_B], [DA, DB], []),
    "run without a decision": ([A, OK_A, B, OK_B], [DA], WRONG),
    "run without any": ([A, OK_A], [], WRONG),
    "run after a denial": ([A, OK_A, B, OK_B], [DA, decided(2, "DROP TABLE b", allowed=False)], WRONG),
    "denied": ([A, OK_A, B, BAD_B], [DA, decided(2, "DROP TABLE b", allowed=False)], []),
    "another text": ([A, OK_A, B, OK_B], [DA, decided(2, "SELECT 2")], WRONG),
    "another order": ([A, OK_A, B, OK_B], [DB, DA], WRONG),
    "the same twice, decided once": ([A, OK_A, query(2), OK_B], [DA], WRONG),
    "denied, then allowed, with the same text": ([B, BAD_B, query(3, "DROP TABLE b"), answer(3)], [DB], []),
    "run after one that failed": ([B, BAD_B, query(3), answer(3)], [decided(2, "DROP TABLE b", allowed=False)], WRONG),
    "not answered": ([A, OK_A, B], [DA], []),
    "passed over by the server": ([A, B, query(3, "SELECT 3"), OK_A, answer(3)], [DA, decided(3, "SELECT 3")], []),
    "prepared and run in one": ([PARSE, BIND, PARSED, BOUND, OK_A], [DA], []),
    "prepared, then run twice": ([PARSE, PARSED, BIND_2, BOUND_2, OK_B], [DA, decided(2)], []),
    "run again without a decision": ([PARSE, BIND, PARSED, BOUND, BIND_2, BOUND_2], [DA], WRONG),
    "decided more often than said": (
        [PARSE, BIND, BOUND, query(2, "SELECT 2"), OK_B],
        [DA, DA, DA, decided(4, "SELECT 2")],
        [],
    ),
    "a text that readers may read differently": ([query(1, "SELECT 'ä'"), OK_A], [decided(1, "SELECT 'Ã¤'")], []),
    "a statement of which only a part is there": ([query(1, "SEL", incomplete="long"), OK_A], [DA], []),
    "no text": ([A, OK_A], [decided(1, None)], []),
    "a call of a function": ([query(1, kind="FunctionCall"), answer(1, "FunctionCallResponse")], [], WRONG),
    "a call that is refused": ([query(1, kind="FunctionCall"), answer(1, "ErrorResponse")], [], []),
    "closing and asking what is there": (
        [query(1, kind="Describe"), answer(1, "RowDescription"), query(1, kind="Close")],
        [],
        [],
    ),
    "bytes of the agent are missing": ([gap(Direction.REQUEST), B, OK_B], [DA], []),
    "run with a statement that was prepared unseen": ([query(1, "", kind="Bind"), answer(1, "BindComplete")], [DA], []),
    "relayed unread": ([A, OK_A, B, OK_B], [opaque()], []),
}


def probes_first(made: Witness, said: Said, heard: Heard) -> Said:
    """Let the probes tell before the enforcer does."""
    return [*seen(made, [ONE.opened(), *said]), *hear(made, ONE.let_in(), *heard)]


def enforcer_first(made: Witness, said: Said, heard: Heard) -> Said:
    """Let the enforcer tell before the probes do."""
    return [*hear(made, ONE.let_in(), *heard), *seen(made, [ONE.opened(), *said])]


def by_turns(made: Witness, said: Said, heard: Heard) -> Said:
    """Let them tell in turn."""
    out = [*seen(made, [ONE.opened()]), *hear(made, ONE.let_in())]
    for number in range(max(len(said), len(heard))):
        out += seen(made, said[number : number + 1])
        out += hear(made, *heard[number : number + 1])
    return out


@pytest.mark.parametrize("order", [probes_first, enforcer_first, by_turns], ids=lambda order: str(order.__name__))
@pytest.mark.parametrize("name", CASES)
def test_what_is_an_alarm(name: str, order: Callable[[Witness, Said, Heard], Said]) -> None:
    """A statement that was run without a decision about it is an alarm, whoever tells first; what was not run is none."""
    said, heard, expected = CASES[name]
    made = witness()
    out = order(made, said, heard)
    out += seen(made, [ONE.closed(counted=False)])
    out += hear(made, ONE.ended())
    assert expected == findings([*out, *later(made)])
    assert bool(expected) is bool(made.books.counts.requests)


def test_without_enforcement_nothing_is_an_alarm() -> None:
    """What is only observed is not held against anything."""
    made = witness(enforced=False)
    assert [] == findings([*probes_first(made, [A, OK_A], []), *later(made)])


@pytest.mark.parametrize("order", [probes_first, enforcer_first, by_turns], ids=lambda order: str(order.__name__))
def test_verdicts_stand_beside_what_was_said(order: Callable[[Witness, Said, Heard], Said]) -> None:
    """Each decision names the exchange of its statement, one that waited for a person twice, and tells its effects."""
    made = witness()
    said = [query(1, "BEGIN"), answer(1), A_3, answer(3), query(4, "SELECT 1", kind="Parse"), answer(4, "ErrorResponse")]
    heard = [decided(1, "BEGIN"), held(2), decided(2), decided(3, allowed=False)]
    out = order(made, said, heard)
    found = [record.body for record in [*out, *later(made)] if record.kind is Kind.VERDICT]
    assert [(1, "allow"), (3, "held"), (3, "allow"), (4, "deny")] == [(one["exchange"], one["outcome"]) for one in found]
    told = ("operation", "effects", "resources", "complete", "user", "database", "about")
    expected = ["SELECT", ["select"], [["public.a", "read"]], True, "app", "shop", "statement"]
    assert expected == [found[0][name] for name in told]


A_3 = query(3)


def test_a_verdict_waits_for_its_message() -> None:
    """A decision that is read before its message is written behind it, not before, but not for ever."""
    made = witness()
    seen(made, [ONE.opened()])
    assert [] == hear(made, ONE.let_in(), decided(1))
    placed = seen(made, [A])
    assert [Kind.MESSAGE, Kind.VERDICT] == [record.kind for record in placed]
    assert [] == hear(made, decided(2, "SELECT 2"))
    late = [record for record in later(made) if record.kind is Kind.VERDICT]
    assert [None] == [record.body["exchange"] for record in late]


MANY = 1_000
ORDERS: dict[str, Callable[[Witness, Said, Heard], Said]] = {
    "the probes by far": probes_first,
    "the enforcer by far": enforcer_first,
}


@pytest.mark.parametrize("who", ORDERS)
def test_one_witness_may_be_far_ahead(who: str) -> None:
    """Of a client that says one statement a thousand times while one side is not read, each decision has its place."""
    made = witness()
    said = [one for number in range(1, MANY + 1) for one in (query(number), answer(number))]
    out = ORDERS[who](made, said, [decided(number, at_ns=START + number) for number in range(1, MANY + 1)])
    found = [record.body for record in out if record.kind is Kind.VERDICT]
    assert [(number, START + number) for number in range(1, MANY + 1)] == [(one["exchange"], one["at_ns"]) for one in found]


@pytest.mark.parametrize("who", ORDERS)
def test_where_too_much_waits_no_decision_has_anothers_place(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was dropped would leave its place to the next one with the same words: from there on none has a place."""
    for name in ("PENDING_MAX", "PENDING_FEW"):
        monkeypatch.setattr(pending, name, MANY // 2)
    for name in ("UNPLACED_MAX", "UNLINKED_MAX"):
        monkeypatch.setattr(statements, name, MANY // 2)
    made = witness()
    out = [*seen(made, [ONE.opened()]), *hear(made, ONE.let_in())]
    said = [one for number in range(1, MANY + 1) for one in (query(number), answer(number))]
    heard = [decided(number, at_ns=START + number) for number in range(1, MANY + 1)]
    out += [*seen(made, said), *hear(made, *heard)] if who == "the probes by far" else [*hear(made, *heard), *seen(made, said)]
    out += [*seen(made, [query(MANY + 1)]), *hear(made, decided(MANY + 1, at_ns=START + MANY + 1))]
    found = [record.body for record in out if record.kind is Kind.VERDICT]
    assert [START + number for number in range(1, MANY + 2)] == [one["at_ns"] for one in found]
    assert {None} == {one["exchange"] for one in found}


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that says more than can wait is counted, not compared; decisions that nothing waits for are forgotten."""
    monkeypatch.setattr(statements, "WAITING_MAX", 8)
    made = witness()
    probes_first(made, [query(number) for number in range(1, 12)], [])
    hear(made, *(decided(number) for number in range(1, 12)))
    seen(made, [ONE.closed(counted=False)])
    hear(made, ONE.ended())
    assert ([], 1) == (findings(later(made)), made.books.counts.unpaired)
    made = witness()
    hear(made, ONE.let_in())
    seen(made, [ONE.opened(), query(1), answer(1)])
    hear(made, *(decided(number, at_ns=START - 10**11) for number in range(1, 99)))
    assert 8 >= len(next(iter(made.books.flows.values())).told)
    assert [] == findings(later(made))


def test_a_level_that_leaves_out_what_was_said() -> None:
    """A verdict tells no more than the session's recording level does."""
    sayings = {"operation", "resources", "effects", "user", "database"}
    for level, told in (("off", set()), ("masked", sayings), ("", sayings), ("full", sayings | {"content_sha256"})):
        made = witness()
        marker = Record(Kind.MARKER, ONE.session, START, None, {"name": "recording", "level": level})
        out = [*hear(made, ONE.let_in(), decided(1)), *seen(made, [ONE.opened(), marker]), *later(made)]
        (found,) = [record.body for record in out if record.kind is Kind.VERDICT]
        assert told == (sayings | {"content_sha256"}) & set(found), level


MYSQL: dict[str, tuple[list[tuple[str, str | None, str]], Heard, list[str]]] = {
    "decided": ([("COM_QUERY", "SELECT 1", "ColumnDefinitions")], [DA], []),
    "run without a decision": ([("COM_QUERY", "SELECT 1", "OK"), ("COM_QUERY", "SELECT 2", "OK")], [DA], WRONG),
    "denied": ([("COM_QUERY", "SELECT 1", "ERR")], [], []),
    "prepared, and run twice": (
        [("COM_STMT_PREPARE", "SELECT 1", "COM_STMT_PREPARE_OK"), ("COM_STMT_EXECUTE", "SELECT 1", "rows")],
        [DA, decided(2)],
        [],
    ),
    "run once more than decided": (
        [("COM_STMT_PREPARE", "SELECT 1", "COM_STMT_PREPARE_OK"), ("COM_STMT_EXECUTE", "SELECT 1", "OK")],
        [DA],
        WRONG,
    ),
    "another database": ([("COM_INIT_DB", None, "OK")], [decided(1, "USE `a`")], []),
    "another database, undecided": ([("COM_INIT_DB", None, "OK")], [], WRONG),
    "what is not decided about": ([("COM_PING", None, "OK"), ("COM_STMT_CLOSE", None, "OK")], [], []),
}


@pytest.mark.parametrize("order", [probes_first, enforcer_first, by_turns], ids=lambda order: str(order.__name__))
@pytest.mark.parametrize("name", MYSQL)
def test_the_same_of_mysql(name: str, order: Callable[[Witness, Said, Heard], Said]) -> None:
    """Commands of MySQL that do something are held against decisions as statements of PostgreSQL are."""
    commands, heard, expected = MYSQL[name]
    said: Said = []
    for number, (kind, text, answered) in enumerate(commands, 1):
        fields: Value = {"database": "a"} if text is None else {"sql": text}
        said.append(query(number, "a", kind=kind, protocol="mysql", fields=fields))
        said.append(message(Direction.RESPONSE, answered, number, protocol="mysql"))
    made = witness()
    out = order(made, said, heard)
    out += seen(made, [ONE.closed(counted=False)])
    out += hear(made, ONE.ended())
    assert expected == findings([*out, *later(made)])


SET, GET = ("SET", "SET a 1"), ("GET", "GET a")
REDIS: dict[str, tuple[list[tuple[tuple[str, str], str]], Heard, list[str]]] = {
    "decided": ([(SET, "reply"), (GET, "reply")], [decided(1, "SET a 1"), decided(2, "GET a")], []),
    "run without a decision": ([(SET, "reply"), (GET, "reply")], [decided(1, "SET a 1")], WRONG),
    "another key": ([(GET, "reply")], [decided(1, "GET b")], WRONG),
    "denied": ([(SET, "error"), (GET, "reply")], [decided(1, "SET a 1", allowed=False), decided(2, "GET a")], []),
    "who the session is of": ([(("AUTH", "AUTH (hidden)"), "reply"), (("SELECT", "SELECT 3"), "reply")], [], []),
    "confirmed, not answered": ([(("SUBSCRIBE", "SUBSCRIBE c"), "push")], [], []),
}


@pytest.mark.parametrize("order", [probes_first, enforcer_first, by_turns], ids=lambda order: str(order.__name__))
@pytest.mark.parametrize("name", REDIS)
def test_the_same_of_redis(name: str, order: Callable[[Witness, Said, Heard], Said]) -> None:
    """Commands of Redis that do something are held against decisions, as one would type them."""
    commands, heard, expected = REDIS[name]
    said: Said = []
    for number, ((command, text), answered) in enumerate(commands, 1):
        fields: Value = {"command": command, "arguments": text.split()[1:]}
        said.append(query(number, text, kind="command", protocol="redis", fields=fields))
        said.append(message(Direction.RESPONSE, answered, number, protocol="redis"))
    made = witness()
    out = order(made, said, heard)
    out += seen(made, [ONE.closed(counted=False)])
    out += hear(made, ONE.ended())
    assert expected == findings([*out, *later(made)])
