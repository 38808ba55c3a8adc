"""PostgreSQL through the proxy's core, against a model of its server: what is asked, what is heard, what the client reads.

What lives here: tables of messages. What must not: sockets, real servers (test_postgresql_clients.py).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from capd.enforcer.proxy.commands import Close
from capd.enforcer.proxy.connection import Connection
from capd.enforcer.proxy.events import Event, Held, Interrupted, Side
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.postgresql.cancel_channel import CancelChannel
from capd.enforcer.proxy.postgresql.cancelling import Cancels
from capd.enforcer.proxy.postgresql.layer import PostgresqlLayer
from capd.enforcer.proxy.postgresql.shared import Shared
from capd.enforcer.proxy.question import Kind, Login, Question, Verdict
from capd.enforcer.resolver.telling import channel
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
    startup,
)
from tests.enforcer.postgresql_talk import HERE, Talk, by_text, held

SELECT, DENIED = "select a from t", "select denied from t"
OTHER = "select b from t"
RUN = bind() + execute()


def test_begin() -> None:
    """A session is asked for by user and database, dialled when it may be, and told with a key of its own."""
    talk = Talk(judge=None)
    talk.says(startup())
    question = talk.run.asked[0]
    assert (Kind.SESSION, "postgresql", Login(user="agent", database="shop")) == (
        question.kind,
        question.protocol,
        question.login,
    )
    assert ([], b"") == (talk.run.dials, talk.run.upstream)
    talk.decide()
    assert [question.number] == talk.run.dials
    assert "RSSKZI" == kinds(talk.run.client)
    key = next(body for code, body in messages(talk.run.client) if code == "K")
    assert (b"\0\0\0\7", True) == (key[:4], key[4:] != b"keys")
    assert 1 == talk.server.asked


def test_a_denied_session() -> None:
    """It reads why, and nothing is dialled."""
    talk = Talk(judge=lambda question: by_text(question).__class__(number=question.number, allowed=False, reason="no"))
    talk.says(startup())
    ((code, body),) = messages(talk.run.client)
    assert ("E", "FATAL", "42501") == (code, error_fields(body)["S"], error_fields(body)["C"])
    assert ([], Close()) == (talk.run.dials, talk.run.closed)


SIMPLE = {
    "allowed": ([query(SELECT)], "TDCZI", [SELECT]),
    "denied": ([query(DENIED)], "EZI", []),
    "denied, then allowed": ([query(DENIED), query(SELECT)], "EZITDCZI", [SELECT]),
    "two at once": ([query(SELECT) + query(SELECT)], "TDCZITDCZI", [SELECT, SELECT]),
    "denied in a transaction": (
        [query("begin"), query(DENIED), query(SELECT), query("rollback"), query(SELECT)],
        "CZTEZEEZECZITDCZI",
        ["begin", "rollback", SELECT],
    ),
    "denied in a failed transaction": ([query("begin"), query("fail"), query(DENIED)], "CZTEZEEZE", ["begin"]),
    "copy out": ([query("copy t to stdout")], "HdcCZI", ["copy t to stdout"]),
    "copy in": (
        [query("copy t from stdin"), message("d", b"row") + message("d", b"row"), message("c")],
        "GCZI",
        ["copy t from stdin"],
    ),
    "copy in, at once": (
        [query("copy t from stdin") + message("d", b"row") * 3 + message("c") + query(SELECT)],
        "GCZITDCZI",
        ["copy t from stdin", SELECT],
    ),
    "data that nobody wants": ([query(SELECT) + message("d", b"row") + message("c") + query(SELECT)], "TDCZITDCZI", None),
    "copy in that the client ends": ([query("copy t from stdin"), message("f", b"no\0"), query(SELECT)], "GEZITDCZI", None),
    "denied copy": (
        [query("copy denied from stdin") + message("d", b"row") + message("c"), query(SELECT)],
        "EZITDCZI",
        [SELECT],
    ),
    "a call of a function": ([message("F", bytes(10)), query(SELECT)], "EZITDCZI", [SELECT]),
}
EXTENDED = {
    "unnamed": ([parse(SELECT) + bind() + describe() + execute() + SYNC], "12TDCZI", [SELECT]),
    "piece by piece": ([parse(SELECT), FLUSH, bind(), execute(), FLUSH, SYNC], "12DCZI", [SELECT]),
    "denied at Parse": ([parse(DENIED) + FLUSH, describe("S"), SYNC], "EZI", []),
    "denied by a value": ([parse(SELECT) + bind(value="denied") + execute() + SYNC], "EZI", []),
    "the next group goes on": (
        [parse(DENIED) + RUN + SYNC + parse(SELECT) + RUN + SYNC],
        None,
        [SELECT],
    ),
    "denied behind one that ran": (
        [parse(SELECT) + RUN + parse(DENIED) + RUN + SYNC],
        "12DCEZI",
        [SELECT],
    ),
    "denied in a transaction": (
        [query("begin"), parse(DENIED) + RUN + SYNC, query(SELECT), query("rollback")],
        "CZTEZEEZECZI",
        ["begin", "rollback"],
    ),
    "named, run twice": (
        [parse(SELECT, "s") + SYNC, bind("s") + execute() + SYNC, bind("s") + execute() + SYNC],
        "1ZI2DCZI2DCZI",
        [SELECT, SELECT],
    ),
    "of a name that is not there": ([bind("s") + execute() + SYNC], "EZI", []),
    "of a portal that is not there": ([execute("p") + SYNC], "EZI", []),
    "a name twice": (
        [parse(SELECT, "s") + SYNC, parse(OTHER, "s") + SYNC, bind("s") + execute() + SYNC],
        None,
        [SELECT],
    ),
    "closed": ([parse(SELECT, "s") + close("S", "s") + SYNC, bind("s") + execute() + SYNC], "13ZIEZI", []),
    "the server fails, and the rest is dropped": (
        [parse("fail") + RUN + parse(SELECT) + RUN + SYNC],
        "12EZI",
        [],
    ),
    "begin in a group": (
        [parse("begin") + RUN + parse(SELECT) + RUN + SYNC],
        "12C12DCZT",
        ["begin", SELECT],
    ),
    "copy in": (
        [parse("copy t from stdin") + RUN + SYNC, message("d", b"row"), message("c") + SYNC],
        "12GCZI",
        None,
    ),
    "nothing": ([SYNC], "ZI", []),
}


@pytest.mark.parametrize("step", [0, 1, 3, 7])
@pytest.mark.parametrize("name", [*SIMPLE, *EXTENDED])
def test_messages(name: str, step: int) -> None:
    """What the client reads and what the server runs, however bytes are cut."""
    said, expected, ran = (SIMPLE | EXTENDED)[name]
    talk = Talk(step=step).begin()
    talk.says(*said)
    if expected is not None:
        assert expected == kinds(talk.new())
    if ran is not None:
        assert ran == [sql for sql, _ in talk.server.ran]
    assert not [text for text in talk.server.heard if "denied" in text]
    assert (3 if name == "copy in, at once" else talk.server.copied) == talk.server.copied
    assert not talk.run.closed
    talk.says(TERMINATE)
    assert talk.server.over
    assert Close() == talk.run.closed


def test_values_are_part_of_what_is_judged() -> None:
    """The question about a Bind has the values; its Execute asks no second one."""
    talk = Talk().begin().says(parse(SELECT) + bind(value="7") + execute() + SYNC)
    (question,) = [one for one in talk.run.questions if one.kind is Kind.STATEMENT]
    assert question.statement is not None
    assert (SELECT, True) == (question.statement.text, b"7" in question.statement.content)
    assert [(SELECT, "7")] == talk.server.ran


def test_an_execute_that_is_not_the_latest_is_judged_again() -> None:
    """Between Bind and Execute another statement was decided: the first is asked about again before it runs."""
    talk = Talk().begin()
    talk.says(parse(SELECT, "s") + parse(OTHER, "r") + bind("s", "p") + bind("r", "q") + execute("p") + execute("q") + SYNC)
    assert [SELECT, OTHER, SELECT, OTHER, SELECT, OTHER] == talk.statements
    assert [SELECT, OTHER] == [sql for sql, _ in talk.server.ran]


def test_the_rest_of_what_a_person_approved() -> None:
    """Of a portal that a person approved the rest is asked for as such; another one is not, though it has the same values."""

    def approved(question: Question) -> Verdict:
        return replace(by_text(question), approval={"id": "a"}) if question.kind is Kind.STATEMENT else by_text(question)

    talk = Talk(judge=approved).begin()
    talk.says(query("begin"), parse(SELECT) + bind(portal="p") + execute("p", 1) + SYNC, execute("p", 1) + SYNC)
    talk.says(parse(SELECT) + SYNC, bind(portal="q") + execute("q") + SYNC)
    asked = [(one.statement.prepares, one.statement.approved) for one in talk.run.questions if one.statement is not None]
    assert [(False, ""), (False, ""), (False, "1"), (True, ""), (False, "")] == asked


def test_nothing_is_sent_while_a_question_waits() -> None:
    """Whatever the client says behind it, the server gets nothing before the decision; then everything in order."""
    talk = Talk(judge=None)
    talk.says(startup()).decide()
    talk.new()
    before = talk.run.upstream
    talk.says(query(SELECT) + query(OTHER))
    assert before == talk.run.upstream
    talk.decide(held)
    assert [(SELECT, None)] == talk.server.ran
    talk.decide(held)
    assert [SELECT, OTHER] == [sql for sql, _ in talk.server.ran]


ESTIMATED = {
    "select a from t": True,
    "delete from t where a = 1": True,
    "delete from t where a = 1; select 1": False,
    "select dangerous(a) from t": False,
    "select $1::int": False,
    "drop table t": False,
}


@pytest.mark.parametrize("sql", ESTIMATED)
def test_an_estimate_for_a_person(sql: str) -> None:
    """Where it is safe, the planner is asked before a person is; within a transaction of the client's it is not."""
    talk = Talk(judge=None)
    talk.says(startup()).decide().says(query(sql))
    question = talk.run.asked[0]
    assert question.statement is not None
    assert ESTIMATED[sql] == question.statement.estimable
    if not question.statement.estimable:
        return
    talk.decide(lambda question: Verdict(number=question.number, allowed=False, body_bytes=1))
    again = talk.run.asked[0].statement
    assert again is not None
    assert ({"rows": 40, "cost": 12}, False) == (again.shown["estimate"], again.estimable)
    assert question.statement.content == again.content
    assert [] == talk.server.ran
    talk.decide(held).says(query("begin")).decide(held).says(query(sql))
    last = talk.run.asked[0].statement
    assert last is not None
    assert ({"transaction": "open"}, False) == (last.shown, last.estimable)


def test_what_is_allowed_is_sent_while_a_person_is_asked_about_what_follows() -> None:
    """A pipeline waits to be sent in one piece, but not for a person; nor is it lost when the client leaves."""
    for ends in (False, True):
        talk = Talk(judge=None)
        talk.says(startup()).decide()
        talk.says(parse(SELECT) + RUN + SYNC + parse(OTHER) + RUN + SYNC).decide(held)
        assert [] == talk.server.ran
        if ends:
            talk.run.ends(Side.CLIENT)
        else:
            talk.run.tell(Held(talk.run.asked[0].number, "ap-1"))
        talk.go()
        assert [(SELECT, None)] == talk.server.ran


def test_a_client_that_leaves_while_a_question_waits() -> None:
    """The question is withdrawn, and nothing was sent."""
    talk = Talk(judge=None)
    talk.says(startup()).decide().says(query(SELECT))
    number = talk.run.asked[0].number
    talk.run.ends(Side.CLIENT)
    assert ([number], []) == (talk.run.withdrawn, talk.server.ran)


def test_a_held_statement() -> None:
    """The client is told whom it waits for; a cancel by its key takes the question back, and the session goes on."""
    woken: list[Event] = []
    cancels = Cancels(bytes(32))

    def core() -> Connection:
        around = Surroundings(destination=HERE, run="r", wake=woken.append)
        return Connection(PostgresqlLayer(around, Shared(cancels=cancels), dialled=False))

    talk = Talk(judge=None, core=core)
    talk.says(startup()).decide()
    key = next(body for code, body in talk.told() if code == "K")
    talk.says(query(SELECT))
    number = talk.run.asked[0].number
    talk.run.tell(Held(number, "ap-7"))
    ((code, body),) = talk.told()
    assert ("N", "capd: waiting for approval ap-7") == (code, error_fields(body)["M"])
    place = f"r|{HERE.address}|{HERE.port}"
    assert [False, False, True] == [
        cancels.interrupt(*of) for of in ((place, b"\0\0\0\7", b"keys"), ("q", key[:4], key[4:]), (place, key[:4], key[4:]))
    ]
    assert [Interrupted()] == woken
    talk.run.tell(woken[0])
    ((code, body), (ready, _)) = talk.told()
    assert ("E", "57014", "Z", [number]) == (code, error_fields(body)["C"], ready, talk.run.withdrawn)
    assert not cancels.interrupt(place, key[:4], key[4:])
    talk.says(query(OTHER)).decide(held)
    assert [(OTHER, None)] == talk.server.ran


def test_a_session_of_another_worker() -> None:
    """A cancel that comes to one worker interrupts what waits in another, and only that."""
    ends = [channel(), channel()]
    channels = [CancelChannel(hears, [tells for tells, _ in ends]) for _, hears in ends]
    workers = [Cancels(bytes(32), one.tell) for one in channels]
    woken: list[str] = []
    workers[1].hold("r|192.0.2.1|5432", b"\0\0\0\7", b"mine", lambda: woken.append("it"))
    for place, key in (("q|192.0.2.1|5432", b"mine"), ("r|192.0.2.1|5432", b"else"), ("r|192.0.2.1|5432", b"mine")):
        if not workers[0].interrupt(place, b"\0\0\0\7", key):
            workers[0].elsewhere(place, b"\0\0\0\7", key)
    for one, cancels in zip(channels, workers, strict=True):
        one.take(cancels)
    assert ["it"] == woken
    for pair in ends:
        for end in pair:
            end.close()


@pytest.mark.parametrize("run", ["r", "another"])
def test_a_cancel_request(run: str) -> None:
    """It goes to the server with the server's own key, and from another run with one that nobody has."""
    cancels = Cancels(bytes(32))

    def core(run: str) -> Connection:
        return Connection(PostgresqlLayer(Surroundings(destination=HERE, run=run), Shared(cancels=cancels), dialled=False))

    key = next(body for code, body in messages(Talk(core=lambda: core("r")).says(startup()).run.client) if code == "K")
    packet = b"\x04\xd2\x16\x2e" + key
    asked = Talk(core=lambda: core(run)).says(startup(packet)).run
    assert (Kind.SESSION, Login(user=None, database=None)) == (asked.questions[0].kind, asked.questions[0].login)
    assert startup(packet)[:12] == asked.upstream[:12]
    assert (run == "r") == (asked.upstream[12:] == b"keys")
    assert b"" == asked.client


def test_a_statement_waits_for_what_decides_its_meaning() -> None:
    """In a pipeline a SET is waited for: the statement behind it is read in the session that it makes."""
    talk = Talk().begin()
    talk.says(parse("set search_path to a") + RUN + parse(SELECT) + RUN + SYNC)
    resources = [one.statement.resources for one in talk.run.questions if one.statement is not None]
    assert [(), (("a.t", "read"),)] == resources
    assert "12C12DCZI" == kinds(talk.new())


TIED = {
    "execute p": ("SELECT", (("public.t", "read"),), True),
    "execute p;": ("SELECT", (("public.t", "read"),), True),
    "EXECUTE P": ("SELECT", (("public.t", "read"),), True),
    'execute "P"': ("EXECUTE", None, False),
    "execute q(1, 'a')": ("SELECT", (("public.t", "read"),), True),
    "execute q(dangerous(1))": ("SELECT", (("public.t", "read"),), False),
    "execute q(1) where true": ("EXECUTE", None, False),
    "execute p; select 1": ("EXECUTE; SELECT", None, False),
    "execute/**/p": ("EXECUTE", None, False),
}


@pytest.mark.parametrize("sql", TIED)
def test_execute_is_tied_to_what_was_prepared(sql: str) -> None:
    """EXECUTE of SQL does what its PREPARE said; what is written otherwise, or runs more, is not complete."""
    talk = (
        Talk()
        .begin()
        .says(query("prepare p as select a from t"), query("prepare q (int, text) as select b from t where a = $1"))
    )
    talk.says(query(sql))
    found = talk.run.questions[-1].statement
    assert found is not None
    operation, resources, complete = TIED[sql]
    assert (operation, complete) == (found.operation, not found.problems)
    if complete:
        assert resources == found.resources
        assert (found.text or "").startswith("select ")  # what rules for text look at is what is run
    talk.says(query("deallocate p"), query("execute p"))
    assert talk.run.questions[-1].statement is not None
    assert talk.run.questions[-1].statement.problems


def test_a_decision_is_over_when_everything_is_answered() -> None:
    """A policy that changes later does not cut a session for what it did before; a portal is asked about again then."""
    talk = Talk().begin().says(query("begin"), parse(SELECT, "s") + bind("s", "p") + SYNC)
    number = talk.run.questions[-1].number
    assert number == talk.run.over[-1]
    talk.says(execute("p") + SYNC)
    assert (SELECT, number + 1) == (talk.statements[-1], talk.run.questions[-1].number)
    assert [(SELECT, None)] == talk.server.ran[1:]


REFUSED = {
    "replication": (startup(b"\0\3\0\0user\0a\0replication\0database\0\0"), "42501"),
    "a role": (startup(b"\0\3\0\0user\0a\0role\0b\0\0"), "42501"),
    "a switch": (startup(b"\0\3\0\0user\0a\0options\0-S 1\0\0"), "42501"),
    "a role as a switch": (startup(b"\0\3\0\0user\0a\0options\0-c role=b\0\0"), "42501"),
    "a role, escaped": (startup(b"\0\3\0\0user\0a\0options\0-c\\ x=1 --role=b\0\0"), "42501"),
    "no user": (startup(b"\0\3\0\0database\0a\0\0"), "28000"),
    "a user that servers cut": (startup(b"\0\3\0\0user\0" + b"a" * 64 + b"\0\0"), "42622"),
    "a user that is no text": (startup(b"\0\3\0\0user\0\xff\0\0"), "0A000"),
    "a database that is no text": (startup(b"\0\3\0\0user\0a\0database\0\xe9\0\0"), "0A000"),
    "a database that servers cut": (startup(b"\0\3\0\0user\0a\0database\0" + b"a" * 64 + b"\0\0"), "42622"),
    "protocol 2": (startup(b"\0\2\0\0user\0a\0\0"), None),
    "no end": (startup(b"\0\3\0\0user\0a\0"), "08P01"),
    "bytes behind a request for TLS": (bytes.fromhex("0000000804d2162f") + startup(), "08P01"),
    "bytes behind a request for GSSAPI": (bytes.fromhex("0000000804d21630") + startup(), "08P01"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_at_startup(name: str) -> None:
    """It reads why; nothing is asked, nothing dialled."""
    said, code = REFUSED[name]
    talk = Talk().says(said)
    assert [] == talk.run.dials
    assert [] == [one for one in talk.run.questions if one.kind is Kind.SESSION]
    if code is not None:
        assert code == error_fields(messages(talk.run.client)[0][1])["C"]
        assert talk.run.closed is not None


def test_settings_are_written_anew() -> None:
    """`options` is taken apart, and goes as the settings that it names; GSSAPI is answered with no."""
    talk = Talk(step=1).says(bytes.fromhex("0000000804d21630"))
    assert b"N" == talk.run.client
    talk.says(startup(b"\0\3\0\0user\0a\0options\0-c search_path=a\\ b --work-mem=1MB\0application_name\0x\0\0"))
    sent = talk.run.upstream[: int.from_bytes(talk.run.upstream[:4], "big")]
    assert b"\0\3\0\0user\0a\0database\0a\0search_path\0a b\0work_mem\x001MB\0application_name\0x\0\0" == sent[4:]


VERSIONS = {
    "3.0": (0, b"", None, 0, None),
    "3.2": (2, b"", None, 2, None),
    "3.2, of a server of 3.0": (2, b"", 0, 2, (0, [])),
    "3.9999": (9999, b"", None, 2, (2, [])),
    "an option of the protocol": (0, b"_pq_.x\0on\0", None, 0, (0, [b"_pq_.x"])),
}


@pytest.mark.parametrize("name", VERSIONS)
def test_versions_of_the_protocol(name: str) -> None:
    """The server is asked for what capd speaks, and the client hears what it will get; keys have the length that they have."""
    minor, options, answer, asked, told = VERSIONS[name]
    talk = Talk(judge=None, server=Server())
    talk.run.says(startup(b"\0\3" + minor.to_bytes(2, "big") + b"user\0agent\0" + options + b"\0"))
    talk.run.decide(by_text)
    assert b"\0\3" + asked.to_bytes(2, "big") + b"user\0agent\0database\0agent\0\0" == talk.run.upstream[4:]
    said = b"" if answer is None else message("v", b"\0\3" + answer.to_bytes(2, "big") + bytes(4))
    talk.run.answers(said + message("R", bytes(4)) + message("K", b"\0\0\0\7" + b"k" * 32))
    found = talk.told()
    assert ["v"] * (told is not None) + ["R", "K"] == [code for code, _ in found]
    assert 36 == len(found[-1][1])
    if told is not None:
        names = [name for name in found[0][1][8:].split(b"\0") if name]
        assert told == (int.from_bytes(found[0][1][2:4], "big"), names)


@pytest.mark.parametrize(
    "said",
    [message("p", b"x\0"), b"z\0\0\0\4", b"Q\0\0\0\3", b"Q\x7f\0\0\0", message("P", b"a"), query("a\0b"), message("D", b"X\0")],
)
def test_what_cannot_be_followed_ends_the_session(said: bytes) -> None:
    """The client reads why, the server heard nothing of it, and it is written down."""
    talk = Talk().begin()
    before = talk.run.upstream
    talk.says(said)
    assert ("FATAL", True) == (error_fields(talk.told()[-1][1])["S"], bool(talk.run.refused))
    assert (before, Close()) == (talk.run.upstream, talk.run.closed)


@pytest.mark.parametrize("said", ["1", "2", "T", "C", "D", "Z", "G", "R", "K", "x"])
def test_a_server_out_of_step_ends_the_session(said: str) -> None:
    """What answers nothing that was asked is not passed on as an answer to what comes next."""
    talk = Talk().begin()
    talk.run.answers(message(said, b"I" if said == "Z" else bytes(8)))
    if said == "D":  # a row alone decides nothing
        talk.run.answers(message("C", b"SELECT\0"))
    assert Close() == talk.run.closed


def test_a_name_whose_statement_fails_yet() -> None:
    """A name is taken once it is known that the statement was prepared: said behind what fails, it is free for the next."""
    talk = Talk().begin()
    talk.says(describe("S", "none") + parse("select 1", "a") + SYNC + parse("select 2", "a") + bind("a") + execute() + SYNC)
    assert "EZ12CZ" == kinds(talk.new()).replace("D", "").replace("I", "")
    assert [("select 2", None)] == talk.server.ran
    talk.says(parse("select 3", "a") + SYNC)
    assert "EZI" == kinds(talk.new())


def test_what_cannot_be_followed_behind_what_waits_ends_the_session() -> None:
    """So does what is read only once a verdict has come."""
    talk = Talk(judge=None)
    talk.says(startup()).decide().says(parse(SELECT) + message("D", b"X\0") + SYNC)
    talk.decide()
    assert "FATAL" == error_fields(talk.told()[-1][1])["S"]
    assert Close() == talk.run.closed
