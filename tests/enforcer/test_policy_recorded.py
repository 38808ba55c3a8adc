"""Recorded messages as actions: what is not known of them is not made up, whatever a record holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.policy.action import Resource
from capd.enforcer.policy.recorded_action import Missing, Recorded, recorded_actions, unjudged
from capd.recording.identity import uuid7_from
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.rows import Endpoint, SessionRow

SESSION = uuid7_from(1, b"x")
ROW = SessionRow(session=SESSION, protocol="http1", transport="tcp", role="client", target=Endpoint(host="192.0.2.7", port=443))
NAMES = ["method", "target", "headers", "sql", "user", "database", "parameters", "schema", "command"]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 200)
    | st.sampled_from(["request", "http1", "application", "GET", "/a", "Host"])
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
ODD: st.SearchStrategy[Any] = st.sampled_from([[], {}, [1], b"", 7, None, True, "x"])
BODIES = st.fixed_dictionaries(
    {
        "protocol": st.sampled_from(["http1", "postgresql", "mysql", "redis"]) | ODD,
        "type": st.sampled_from(["request", "Query", "StartupMessage", "COM_QUERY", "COM_INIT_DB", "OK", "command"]) | ODD,
    },
    optional=dict.fromkeys(
        ("fields", "start", "end", "ordinal", "incomplete", "layer", "places", "summary", "name"), VALUES | ODD
    ),
)
RECORDS = st.tuples(
    st.sampled_from([Kind.MESSAGE, Kind.MASKED, Kind.MARKER]),
    st.sampled_from([Direction.REQUEST, Direction.REQUEST, Direction.RESPONSE, None]),
    BODIES,
)


@given(st.lists(RECORDS, max_size=5), st.sampled_from(["http1", "postgresql", "mysql", "redis"]))
def test_no_record_raises(records: list[tuple[Kind, Direction | None, dict[str, Any]]], protocol: str) -> None:
    """Whatever is in a record, of a newer version or damaged, its messages are actions or nothing."""
    row = SessionRow(
        session=SESSION, protocol=protocol, transport="tcp", target=ROW.target, principal={"name": 7}, labels={"a": 1}
    )
    made = [Record(kind, SESSION, 1, direction, body) for kind, direction, body in records]
    for found in recorded_actions(row, iter(made)):
        assert isinstance(found, Missing) or found.action.protocol in {"http", "postgresql", "mysql", "redis", "websocket"}


PASSED_OVER = [
    (SessionRow(session=SESSION, transport="unix", target=ROW.target), "unix sessions, which are not redirected"),
    (SessionRow(session=SESSION, transport="udp", target=ROW.target), "udp sessions, which are not redirected"),
    (
        SessionRow(session=SESSION, transport="tcp", role="server", target=ROW.target),
        "sessions in which the agent is the server",
    ),
    (SessionRow(session=SESSION, transport="tcp"), "sessions whose target is not known"),
    (ROW, None),
]


@pytest.mark.parametrize(("row", "reason"), PASSED_OVER)
def test_sessions_that_no_policy_judges_are_named(row: SessionRow, reason: str | None) -> None:
    """A session that would not be judged if a policy were enforced says why."""
    assert reason == unjudged(row)


def judged(records: list[Record], row: SessionRow = ROW) -> list[Recorded]:
    """Give the actions of a session."""
    return [found for found in recorded_actions(row, iter(records)) if isinstance(found, Recorded)]


def message(spoken: str, kind: str, /, **fields: Any) -> Record:  # noqa: ANN401 - as records hold it
    """Give the record of a message."""
    body: dict[str, Value] = {"protocol": spoken, "type": kind, "fields": fields, "start": 0, "end": 100, "ordinal": 0}
    return Record(Kind.MESSAGE, SESSION, 1, Direction.REQUEST, body)


TLS = Record(Kind.MARKER, SESSION, 0, None, {"name": "tls"})
MESSAGES = [
    (message("http1", "request", method="GET", target="/a", headers=[["Host", "a.example"]]), True),
    (message("http1", "request"), False),
    (message("http2", "request", method="GET", target="/a", headers=[[":authority", "a.example"]]), True),
    (
        message("http2", "request", method="GET", target="/a", headers=[[":authority", "a.example"]], malformed="two paths"),
        False,
    ),
    (message("http2", "request", method="CONNECT", target="a.example", headers=[], protocol="websocket"), False),
]


@pytest.mark.parametrize(("record", "complete"), MESSAGES)
def test_what_was_not_recorded_is_not_complete(record: Record, complete: bool) -> None:
    """A request without its head, that is malformed, or that becomes something else, is not complete."""
    (found,) = judged([TLS, record])
    assert complete is found.action.complete


def test_what_went_over_to_websocket_is_judged_by_its_request() -> None:
    """A session whose protocol is another now began with a request, and that is what a policy sees."""
    asked = message("http1", "request", method="GET", target="/a", headers=[["Host", "a.example"]])
    found = judged([asked, message("websocket", "text", part=0)], replace(ROW, protocol="websocket"))
    assert ["http"] == [one.action.protocol for one in found]


@pytest.mark.parametrize(
    ("sql", "complete"),
    [
        ("BEGIN", True),
        ("SELECT 1", True),
        ("BEGIN; DROP TABLE x", True),
        ("DO ''", False),
        ("SELECT f(1)", False),
        ("", True),
        ("-- nothing", False),
    ],
)
def test_statements_are_complete_when_it_is_certain(sql: str, complete: bool) -> None:
    """A statement is complete if capd knows what it does."""
    row = SessionRow(
        session=SESSION, protocol="postgresql", transport="tcp", target=Endpoint(host="192.0.2.7", port=5432, name="shop")
    )
    (found,) = judged([message("postgresql", "Query", sql=sql)], row)
    assert (complete, "192.0.2.7") == (found.action.complete, found.action.target.host)


def test_a_websocket_is_judged_as_what_the_enforcer_asks_for() -> None:
    """A handshake is a request, and then a WebSocket to the same target: both must be allowed."""
    fields = [["Host", "a.example"], ["Upgrade", "WebSocket"], ["Connection", "Upgrade"]]
    found = judged([TLS, message("http1", "request", method="GET", target="/ws", headers=fields)])
    assert [("http", "GET", "a.example"), ("websocket", "connect", "a.example")] == [
        (one.action.protocol, one.action.operation, one.action.target.host) for one in found
    ]
    assert [0, 0] == [one.ordinal for one in found]
    assert [True, True] == [one.action.complete for one in found]


def masked(start: int, length: int) -> Record:
    """Give the record of a place that is hidden."""
    return Record(Kind.MASKED, SESSION, 1, Direction.REQUEST, {"layer": "application", "places": [[start, length]]})


@pytest.mark.parametrize(
    ("target", "complete", "query"),
    [
        ("/pkg.Service/Method", True, ""),
        ("/a/very/long/path/that/is/longer/than/a/frame", True, ""),
        ("/a?x=1", True, "x=1"),
        ("/a?token=****", True, None),
        ("/a/****/b", False, ""),
        ("/**", False, ""),
    ],
)
def test_a_packed_head_is_judged_by_its_fields(target: str, complete: bool, query: str | None) -> None:
    """Of HTTP/2, where a head is hidden as a whole, what its fields still say is judged: also the method of a gRPC call."""
    headers = [[":method", "POST"], [":path", target], [":authority", "a.example"], ["authorization", "******"]]
    asked = message("http2", "request", method="POST", target=target, headers=headers)
    (found,) = judged([TLS, masked(9, 91), asked], replace(ROW, protocol="http2"))
    assert (complete, query, "a.example") == (found.action.complete, found.action.query, found.action.target.host)


def test_where_messages_may_be_missing_is_told() -> None:
    """Bytes that were lost or passed over in what the agent said are told, each with its reason; those of answers are not."""
    lost: dict[str, Value] = {"layer": "application", "length": 5}
    records = [
        Record(Kind.GAP, SESSION, 1, Direction.REQUEST, lost),
        Record(Kind.GAP, SESSION, 1, Direction.REQUEST, {**lost, "layer": "wire"}),
        Record(Kind.GAP, SESSION, 1, Direction.RESPONSE, lost),
        Record(Kind.MARKER, SESSION, 2, Direction.REQUEST, {"name": "skipped", "start": 0, "end": 5}),
        Record(Kind.MARKER, SESSION, 3, None, {"name": "resumed"}),
    ]
    found = [one for one in recorded_actions(ROW, iter(records)) if isinstance(one, Missing)]
    assert [1, 2, 3] == [one.time_ns for one in found]
    assert 3 == len({one.reason for one in found})


SQL_ROW = SessionRow(
    session=SESSION, protocol="postgresql", transport="tcp", target=Endpoint(host="192.0.2.7", port=5432, name="shop")
)


def reported(name: str, value: str) -> Record:
    """Give the record of what a server reported."""
    said = message("postgresql", "ParameterStatus", name=name, value=value)
    return replace(said, direction=Direction.RESPONSE)


FOLLOWED: list[tuple[list[Record], bool, str]] = [
    ([], True, "?.a"),
    ([message("postgresql", "Query", sql="SET search_path TO s")], True, "?.a"),
    ([message("postgresql", "Query", sql="DO ''")], True, "?.a"),
    ([reported("client_encoding", "SJIS")], False, ""),
    ([reported("client_encoding", "SJIS"), reported("client_encoding", "UTF8")], True, "?.a"),
    ([reported("standard_conforming_strings", "off")], False, ""),
    ([message("postgresql", "Query", sql="SET standard_conforming_strings TO off")], False, ""),
]


@pytest.mark.parametrize(("before", "complete", "name"), FOLLOWED, ids=range(len(FOLLOWED)))
def test_the_session_of_statements_is_followed(before: list[Record], name: str, *, complete: bool) -> None:
    """What the agent set, and the server reported, decides how the next statement is read."""
    last = message("postgresql", "Query", sql="SELECT '\\' FROM a")
    *_, found = recorded_actions(SQL_ROW, iter([*before, last]))
    assert isinstance(found, Recorded)
    assert complete is found.action.complete
    assert [name] * bool(name) == [one.name for one in found.action.resources or ()]


@pytest.mark.parametrize("direction", [Direction.REQUEST, Direction.RESPONSE])
def test_after_a_gap_nothing_of_a_session_is_known(direction: Direction) -> None:
    """Where something is missing, the agent may have set how text is read, or the server may have said so."""
    gap = replace(message("postgresql", "x"), kind=Kind.GAP, direction=direction)
    *_, found = recorded_actions(SQL_ROW, iter([gap, message("postgresql", "Query", sql="SELECT 1")]))
    assert isinstance(found, Recorded)
    assert not found.action.complete


def answer(spoken: str, kind: str, /, **fields: Any) -> Record:  # noqa: ANN401 - as records hold it
    """Give the record of a server's message."""
    body: dict[str, Value] = {"protocol": spoken, "type": kind, "fields": fields, "start": 0, "end": 100, "ordinal": 0}
    return Record(Kind.MESSAGE, SESSION, 1, Direction.RESPONSE, body)


POSTGRESQL = replace(ROW, protocol="postgresql")
MYSQL = replace(ROW, protocol="mysql")
REDIS = replace(ROW, protocol="redis")
GREETING = message("postgresql", "StartupMessage", parameters={"user": "app", "database": "shop"})
HELLO = message("mysql", "HandshakeResponse", user="app", database="shop")


def told(found: list[Recorded]) -> list[tuple[str, str | None, str | None]]:
    """Give what is done as whom, where."""
    return [(one.action.operation, one.action.user, one.action.database) for one in found]


def test_whose_session_of_a_database_it_is() -> None:
    """The opening is judged as the client named it, and what is said in it as whom and where it was opened."""
    said = message("postgresql", "Query", sql="SELECT 1")
    assert [("connect", "app", "shop"), ("SELECT", "app", "shop")] == told(judged([GREETING, said], POSTGRESQL))
    assert [("connect", "ann", "ann")] == told(
        judged([message("postgresql", "StartupMessage", parameters={"user": "ann"})], POSTGRESQL)
    )
    assert [("SELECT", None, None)] == told(judged([said], POSTGRESQL))
    assert [("connect", None, None)] == told(judged([message("postgresql", "StartupMessage")], POSTGRESQL))


def test_a_session_of_mysql() -> None:
    """A statement is in the database that the session is in: another one is not known before the server says so."""
    said = message("mysql", "COM_QUERY", sql="DELETE FROM orders")
    use, done = message("mysql", "COM_INIT_DB", database="h`r"), answer("mysql", "OK", schema="h`r")
    found = judged([HELLO, said, message("mysql", "COM_PING"), use, said, done, said], MYSQL)
    assert [
        ("connect", "app", "shop"),
        ("DELETE", "app", "shop"),
        ("USE", "app", "shop"),
        ("DELETE", "app", None),
        ("DELETE", "app", "h`r"),
    ] == told(found)
    names = [{one.name for one in found[number].action.resources or ()} for number in (1, 3, 4)]
    assert [{"shop.orders"}, {"?.orders"}, {"h`r.orders"}] == names
    prepared = judged(
        [HELLO, message("mysql", "COM_STMT_PREPARE", sql="DROP TABLE a"), message("mysql", "COM_STMT_EXECUTE")], MYSQL
    )
    assert ["connect", "DROP"] == [one.action.operation for one in prepared]
    gone = judged([HELLO, message("mysql", "COM_CHANGE_USER", user="root", database=None), said], MYSQL)
    assert [("connect", "root", None), ("DELETE", "root", None)] == told(gone)[1:]


@pytest.mark.parametrize("kind", ["COM_BINLOG_DUMP", "COM_SHUTDOWN", "COM_PROCESS_KILL", "COM_FIELD_LIST", "command 0x2a"])
def test_what_mysql_can_do_beside_statements(kind: str) -> None:
    """A command whose effects nobody knows is judged as one that could have any."""
    (found,) = judged([message("mysql", kind)], MYSQL)
    assert (False, None, None, kind) == (
        found.action.complete,
        found.action.effects,
        found.action.resources,
        found.action.operation,
    )


def test_a_session_of_redis() -> None:
    """Its opening is judged, and each command by what it does to which keys; one that is not all there by nothing."""
    get = message("redis", "command", command="GET", arguments=["a"])
    set_ = message("redis", "command", command="CONFIG", arguments=["SET", "requirepass", {"hidden": 5}])
    cut = message("redis", "command", command="DEL", arguments=["a", {"begins": "b", "bytes": 9}])
    found = judged([get, set_, cut], REDIS)
    assert ["connect", "GET", "CONFIG|SET", "DEL"] == [one.action.operation for one in found]
    assert [True, True, True, False] == [one.action.complete for one in found]
    assert [None, {"select"}, {"administer", "file"}, None] == [one.action.effects for one in found]
    assert (Resource(name="a", access="read"),) == found[1].action.resources
