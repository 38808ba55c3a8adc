"""Statements of PostgreSQL that come again: taken as a whole they are what they are message by message.

What lives here: the short way beside the long one, and what ends it. What must not: messages as
such (test_proxy_postgresql.py).
"""

# ruff: noqa: S608 - statements are what is tested

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.policy.limit import Limit
from capd.enforcer.proxy.commands import Command
from capd.enforcer.proxy.events import Data, Decided, Event, Held, Interrupted, Side
from capd.enforcer.proxy.postgresql.asked_again import Asks
from capd.enforcer.proxy.postgresql.lane import GROUP_MAX, KNOWN_MAX, Lane, around_number
from capd.enforcer.proxy.postgresql.numbers import only_number, without_numbers
from capd.enforcer.proxy.question import Question, Verdict
from tests.enforcer.postgresql_model import (
    FLUSH,
    SYNC,
    TERMINATE,
    Server,
    bind,
    close,
    describe,
    error_fields,
    execute,
    kinds,
    message,
    messages,
    parse,
    query,
)
from tests.enforcer.postgresql_talk import Talk, by_text, held

SELECT = "select a from t where b = %s"
ONE, OTHER = parse(SELECT % "$1", "one") + SYNC, parse("select c from u where d = $1", "other") + SYNC


def run(value: str, name: str = "one", *, described: bool = True) -> bytes:
    """Give a Bind and what runs it."""
    return bind(name, value=value) + (describe() if described else b"") + execute()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Keep what is taken as a whole."""
    found: list[bytes] = []
    handle = Lane.handle

    def kept(lane: Lane, event: Event) -> list[Command] | None:
        done = handle(lane, event)
        if done and isinstance(event, Data) and event.side is Side.CLIENT:
            found.append(event.data)
        return done

    monkeypatch.setattr(Lane, "handle", kept)
    return found


def begun(*, judge: Callable[[Question], Verdict] | None = by_text) -> Talk:
    """Give a session in which both statements were prepared and each way was gone once."""
    talk = Talk(judge=by_text).begin()
    talk.says(ONE, OTHER, run("1") + SYNC, run("1", "other") + SYNC, query(SELECT % 1))
    talk.new()
    talk.run.judge = judge
    return talk


def test_what_is_taken(taken: list[bytes]) -> None:
    """A statement that was allowed is known again with another value, as a Query, alone, in a group; each is asked about."""
    talk = begun()
    assert [] == taken
    before = len(talk.run.questions)
    said = [query(SELECT % 22), run("3") + SYNC, run("4") + run("5", "other", described=False) + run("6") + SYNC]
    talk.says(*said)
    assert said == taken
    assert "TDCZI2TDCZI2TDC2DC2TDCZI" == kinds(talk.new())
    asked = [one.statement.content for one in talk.run.questions[before:] if one.statement is not None]
    assert (SELECT % 22).encode() == asked[0]
    assert [bind(value=str(value))[7:] for value in (3, 4, 5, 6)] == [
        content[-len(bind(value="3")) + 7 :] for content in asked[1:]
    ]
    assert ["22", "3", "4", "5", "6"] == [value or sql.split()[-1] for sql, value in talk.server.ran[-5:]]
    assert talk.run.over[-1] == talk.run.questions[-1].number == talk.run.decisions[-1]


NOT_TAKEN = {
    "another text": query("select a from t where c = 1"),
    "two Queries": query(SELECT % 1) * 2,
    "half a Query": query(SELECT % 1)[:-3],
    "a Query with a zero byte": message("Q", b"select a from t where b = 1\0\0"),
    "a Query that is longer than it is": query(SELECT % 1) + b"S",
    "no Sync": run("1"),
    "a Flush": run("1") + FLUSH + SYNC,
    "a portal with a name": bind("one", "p", "1") + execute("p") + SYNC,
    "a portal that ends as a statement is called": bind("other", "xone", "1") + execute() + SYNC,
    "some rows": bind("one", value="1") + execute(rows=1) + SYNC,
    "the statement is described": bind("one", value="1") + describe("S", "one") + execute() + SYNC,
    "executed twice": run("1") + execute() + SYNC,
    "not executed": bind("one", value="1") + SYNC,
    "a name that nobody knows": run("1", "none") + SYNC,
    "too many": run("1") * (GROUP_MAX + 1) + SYNC,
    "a Parse before it": parse(SELECT % "$1") + bind(value="1") + execute() + SYNC,
}


@pytest.mark.parametrize("said", NOT_TAKEN.values(), ids=NOT_TAKEN.keys())
def test_what_is_not_taken(said: bytes, taken: list[bytes]) -> None:
    """Whatever is not just that goes message by message, and the session lives."""
    talk = begun()
    talk.says(said, FLUSH) if said.endswith(b"S") else talk.says(said)
    assert [] == taken


def _random_said(chance: random.Random) -> list[bytes]:
    """Give what a client might say that repeats itself, and sometimes does not."""
    values = ["1", "7", "22", "333", "denied"]
    weights = [5, 5, 5, 5, 1]
    said = []
    for _ in range(chance.randrange(4, 20)):
        value = chance.choices(values, weights)[0]
        kind = chance.random()
        if kind < 0.3:
            said.append(query(SELECT % value))
        elif kind < 0.75:
            count = chance.choice([1, 1, 2, 5])
            group = b"".join(
                run(chance.choices(values, weights)[0], chance.choice(["one", "one", "other"]), described=chance.random() < 0.8)
                for _ in range(count)
            )
            said.append(group + SYNC)
        else:
            said.append(
                chance.choice(
                    [
                        query("begin"),
                        query("commit"),
                        query("fail"),
                        query("set x to 1"),
                        close("S", "one") + SYNC,
                        query("deallocate one"),
                        ONE,
                        parse("fail", "one") + SYNC,
                        parse(SELECT % "$1", "one") + run(value) + SYNC,
                        parse(SELECT % "$1") + run(value, "") + SYNC,
                        run(value) + FLUSH,
                        SYNC,
                        bind("one", "p", value) + SYNC,
                        execute("p") + SYNC,
                    ]
                )
            )
    if chance.random() < 0.4:  # without waiting
        at = chance.randrange(len(said))
        said[at:] = [b"".join(said[at:])]
    return said


def _went(talk: Talk) -> tuple[object, ...]:
    return (
        talk.new(),
        talk.server.ran,
        talk.server.heard,
        talk.run.closed,
        [one.statement for one in talk.run.questions if one.number not in talk.run.withdrawn],
    )


@pytest.mark.parametrize("seed", range(150))
def test_both_ways_are_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client hears the same, the server runs the same, and the same is asked in the same order, but for what is withdrawn."""
    chance = random.Random(seed)
    said, cut = _random_said(chance), chance.random() < 0.3
    found = []
    for handle in (Lane.handle, lambda _lane, _event: None):
        monkeypatch.setattr(Lane, "handle", handle)
        talk = begun()
        talk.step = 5 if cut else 0
        talk.says(*said)
        if talk.run.closed is None:
            talk.says(TERMINATE)
        found.append(_went(talk))
        for sql, value in talk.server.ran:
            assert "denied" not in sql + (value or "")
    assert found[0] == found[1]


def test_a_denied_one_of_a_group(taken: list[bytes]) -> None:
    """What stands before it runs, nothing behind it does, what was asked about that is withdrawn; the next group goes on."""
    talk = begun()
    before = len(talk.server.ran)
    said = run("1") + run("denied", "other") + run("3") + run("4") + SYNC
    talk.says(said)
    assert [said] == taken
    assert "2TDCEZI" == kinds(talk.new())
    assert ["1"] == [value for _, value in talk.server.ran[before:]]
    assert [one.number for one in talk.run.questions[-2:]] == talk.run.withdrawn
    talk.says(run("5") + SYNC)
    assert "2TDCZI" == kinds(talk.new())


def test_what_is_hidden_or_limited_goes_the_long_way() -> None:
    """A verdict that asks for more than to let a statement go is carried out, in the middle of a group too."""

    def limited(question: Question) -> Verdict:
        statement = question.statement
        counted = statement is not None and statement.content.endswith(b"9\0\0")
        limits = Obligations(limits=(("few", Limit(rows=0)),)) if counted else Obligations()
        return replace(by_text(question), obligations=limits)

    talk = begun(judge=limited)
    talk.says(run("1") + run("9") + run("3") + SYNC)
    told = talk.told()
    assert "12TD" != "".join(code for code, _ in told)
    assert "E" == told[-1][0]
    assert "54000" == error_fields(told[-1][1])["C"]
    assert [("few", "rows")] == [(one.exceeded.rule, one.exceeded.limit) for one in talk.run.exceeded]


def test_nothing_goes_on_undecided() -> None:
    """Of a group nothing is sent before the last of its statements was decided, and a verdict about another is no verdict."""
    talk = begun(judge=None)
    sent = len(talk.run.upstream)
    talk.says(run("1") + run("2") + SYNC)
    first, second = talk.run.asked
    talk.run.tell(Decided(replace(held(first), number=first.number + 100)))
    assert sent == len(talk.run.upstream)
    talk.decide(held)
    assert sent == len(talk.run.upstream)
    talk.decide(held)
    assert second.number == talk.run.decisions[-1]
    assert "2TDC2TDCZI" == kinds(talk.new())


def test_an_approval_in_the_middle() -> None:
    """A person is asked about one of a group: its client reads so, and those behind it are asked about anew."""
    talk = begun(judge=None)
    talk.says(run("1") + run("2") + run("3") + SYNC)
    numbers = [one.number for one in talk.run.asked]
    talk.decide(held)
    talk.run.tell(Held(numbers[1], "a1"))
    talk.go()
    assert [numbers[2]] == talk.run.withdrawn
    assert "N" in kinds(talk.new())
    talk.decide(held)
    assert [b"3"] == [one.statement.content[-3:-2] for one in talk.run.asked if one.statement is not None]
    talk.decide(held)
    assert ["1", "2", "3"] == [value for _, value in talk.server.ran[-3:]]
    assert "ZI" == kinds(talk.new())[-2:]


def test_verdicts_out_of_order() -> None:
    """A verdict that comes before that of a statement before it is given back: its statement is asked about anew, in turn."""
    talk = begun(judge=None)
    talk.says(run("1") + run("2") + run("3") + SYNC)
    first, second, third = talk.run.asked
    talk.run.tell(Decided(held(second)))
    talk.run.asked.clear()
    assert ([second.number], [third.number]) == (talk.run.unsent, talk.run.withdrawn)
    talk.run.tell(Decided(held(first)))
    talk.go()
    for value in (b"2", b"3"):
        assert [value] == [one.statement.content[-3:-2] for one in talk.run.asked if one.statement is not None]
        talk.decide(held)
    assert ["1", "2", "3"] == [value for _, value in talk.server.ran[-3:]]
    assert "2TDC2TDC2TDCZI" == kinds(talk.new())


def _left(talk: Talk) -> None:
    talk.run.ends(Side.CLIENT)


def _gave_up(talk: Talk) -> None:
    talk.run.tell(Interrupted())
    talk.go()


@pytest.mark.parametrize(("what", "told", "ends"), [(_left, "", True), (_gave_up, "EZI", False)])
def test_whoever_does_not_wait(what: Callable[[Talk], None], told: str, ends: bool) -> None:
    """A client that leaves, or gives up, while a group is decided: nothing is sent, and nobody waits for the verdicts."""
    talk = begun(judge=None)
    sent = len(talk.run.upstream)
    talk.says(run("1") + run("2") + SYNC)
    numbers = [one.number for one in talk.run.asked]
    what(talk)
    assert sorted(numbers) == sorted(talk.run.withdrawn)
    assert (b"" if ends else SYNC) == talk.run.upstream[sent:]
    assert told == kinds(talk.new())
    assert ends is (talk.run.closed is not None)
    assert 3 == len(talk.server.ran)


@pytest.mark.parametrize(
    "more", [message("N", b"SNOTICE\0\0"), message("S", b"client_encoding\0UTF8\0"), message("A", b"\0\0\0\1a\0b\0")]
)
@pytest.mark.parametrize("asking", [True, False])
def test_a_server_that_speaks_in_between(more: bytes, asking: bool) -> None:
    """What a server says of its own, while a group is decided or before its answer, reaches the client in its place."""
    talk = begun(judge=None)
    talk.says(run("1") + SYNC)
    if asking:
        talk.run.tell(Data(Side.UPSTREAM, more))
        talk.decide(held)
    else:
        talk.run.decide(held)
        talk.run.tell(Data(Side.UPSTREAM, more + talk.server.hears(bytes(talk.run.upstream[talk._taken :]))))
    assert more[:1].decode() + "2TDCZI" == kinds(talk.new())


def test_answers_in_pieces_and_failures(taken: list[bytes]) -> None:
    """An answer that comes in pieces, or is an error in the middle of a group, is followed."""
    talk = begun()
    talk.step = 3
    talk.server._statements["other"] = "fail"
    talk.run.says(run("1") + run("2", "other") + run("3") + SYNC)
    talk.go()
    assert 1 == len(taken)
    assert "2TDC2nEZI" == kinds(talk.new())
    talk.step = 0
    talk.says(run("4") + SYNC)
    assert "2TDCZI" == kinds(talk.new())
    assert ["1", "4"] == [value for _, value in talk.server.ran[-2:]]


FORGED = {
    "ready too early": message("2") + message("Z", b"I"),
    "another state": message("2") + message("T", b"") + message("C", b"SELECT\0") + message("Z", b"T"),
    "bound twice": message("2") * 2 + message("C", b"SELECT\0") + message("Z", b"I"),
    "completed twice": message("2") + message("C", b"SELECT\0") * 2 + message("Z", b"I"),
    "COPY": message("2") + message("H", b"\0\0\0") + message("C", b"COPY\0") + message("Z", b"I"),
    "a length below the least": message("2") + b"D\0\0\0\1" + message("C", b"SELECT\0") + message("Z", b"I"),
    "more behind it": message("2") + message("C", b"SELECT\0") + message("Z", b"I") + message("C", b"SELECT\0"),
}


@pytest.mark.parametrize("said", FORGED.values(), ids=FORGED.keys())
def test_a_server_that_answers_something_else(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it says in the place of an answer, both ways make the same of it."""
    found = []
    for handle in (Lane.handle, lambda _lane, _event: None):
        monkeypatch.setattr(Lane, "handle", handle)
        talk = begun()
        monkeypatch.setattr(talk.server, "hears", lambda _: said)
        talk.says(run("1", described=False) + SYNC)
        found.append((talk.new(), talk.run.closed, [one.reason for one in talk.run.refused]))
    assert found[0] == found[1]


CHANGES = {
    "the search path": query("set search_path to other"),
    "a transaction": query("begin"),
    "a function": query("create function f() returns int language sql as 'select 1'"),
    "what nobody understands": query("do 'x'"),
    "its name": close("S", "one") + SYNC,
    "its name, by SQL": query("deallocate one"),
    "encoding": query("set client_encoding to latin1"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_is_known_ends(change: bytes, taken: list[bytes]) -> None:
    """Behind whatever may change what a statement means it is read anew."""
    talk = begun()
    talk.says(run("2") + SYNC)
    assert 1 == len(taken)
    talk.says(change, run("3") + SYNC)
    assert 1 == len(taken)


def test_a_statement_of_the_same_name_is_another(taken: list[bytes]) -> None:
    """A name that is prepared anew stands for what it stands for now: it is read, and asked about, as that."""
    talk = begun()
    talk.says(close("S", "one") + SYNC, parse("delete from t where b = $1", "one") + SYNC, run("2") + SYNC)
    assert [] == taken
    last = talk.run.questions[-1].statement
    assert last is not None
    assert ("DELETE", "delete from t where b = $1") == (last.operation, last.text)


def test_memory_is_bounded() -> None:
    """Of however many statements a session runs, it knows the latest few."""
    talk = begun()
    for number in range(3 * KNOWN_MAX):
        talk.says(parse(f"select a{'x' * number} from t where b = $1", f"s{number}") + SYNC)
        talk.says(run("1", f"s{number}") + SYNC, query(f"select b{'x' * number} from t"))
    layer = talk.run._core._layer
    lane = layer._talk.lane  # type: ignore[attr-defined]
    assert (KNOWN_MAX, KNOWN_MAX) == (len(lane._queries), len(lane._bound))


def test_a_number_that_decides_is_never_taken_for_another() -> None:
    """Where what a statement does hangs on a number, one with another number is read as what it is."""
    talk = Talk(server=Server()).begin()
    for value in (0, 1, 0, 2):
        talk.says(query(f"set standard_conforming_strings = {value}"))
    assert [f"set standard_conforming_strings = {value}" for value in (0, 1, 0, 2)] == talk.statements[-4:]
    assert "ZI" == kinds(talk.new())[-2:]


PIECES = [
    "select a from t where b = ",
    "1",
    "22",
    "x1",
    "1.5",
    " ",
    ",",
    "0",
    "(",
    ")",
    "-",
    "'",
    "_",
    "123456789",
    "1234567890",
    "",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: "".join(pieces).encode())


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sampled_from(PIECES), st.sampled_from(PIECES), st.data())
def test_the_latest_is_known_by_what_is_around_its_number(sql: bytes, one: str, other: str, data: st.DataObject) -> None:
    """A text that is known without taking it apart is one that would be known by taking it apart, and never another."""
    number = only_number(sql)
    asks = Asks.__new__(Asks)
    known = around_number(sql, asks)
    assert (number is None) is (known is None)
    if known is not None and number is not None:
        assert known.has(sql)
        between = data.draw(st.sampled_from([one, other, one + other]))
        text = sql[: number[0]] + between.encode() + sql[number[1] :]
        assert known.has(text) <= (without_numbers(text) == without_numbers(sql))
        assert not known.has(text[:-1] + b"'")
        assert not known.has(sql[: number[0]] + b"7" * 10 + sql[number[1] :])


def test_all_messages_are_whole() -> None:
    """The helpers of this file say what they are said to."""
    assert "BDESBES" == "".join(code for code, _ in messages(run("1") + SYNC + run("1", described=False) + SYNC))
