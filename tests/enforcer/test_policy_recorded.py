"""Recorded messages as actions: what is not known of them is not made up, whatever a record holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.policy.recorded_action import recorded_actions, unjudged
from capd.recording.identity import uuid7_from
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.rows import Endpoint, SessionRow

SESSION = uuid7_from(1, b"x")
ROW = SessionRow(session=SESSION, protocol="http1", transport="tcp", role="client", target=Endpoint(host="192.0.2.7", port=443))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 200)
    | st.sampled_from(["request", "http1", "application", "GET", "/a", "Host"])
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["method", "target", "headers", "sql"]), inner, max_size=3)
    ),
    max_leaves=8,
)
ODD: st.SearchStrategy[Any] = st.sampled_from([[], {}, [1], b"", 7, None, True, "x"])
BODIES = st.fixed_dictionaries(
    {"protocol": st.sampled_from(["http1", "postgresql"]) | ODD, "type": st.sampled_from(["request", "Query"]) | ODD},
    optional=dict.fromkeys(
        ("fields", "start", "end", "ordinal", "incomplete", "layer", "places", "summary", "name"), VALUES | ODD
    ),
)
RECORDS = st.tuples(
    st.sampled_from([Kind.MESSAGE, Kind.MASKED, Kind.MARKER]),
    st.sampled_from([Direction.REQUEST, Direction.REQUEST, None]),
    BODIES,
)


@given(st.lists(RECORDS, max_size=5), st.sampled_from(["http1", "postgresql"]))
def test_no_record_raises(records: list[tuple[Kind, Direction | None, dict[str, Any]]], protocol: str) -> None:
    """Whatever is in a record, of a newer version or damaged, its messages are actions or nothing."""
    row = SessionRow(
        session=SESSION, protocol=protocol, transport="tcp", target=ROW.target, principal={"name": 7}, labels={"a": 1}
    )
    made = [Record(kind, SESSION, 1, direction, body) for kind, direction, body in records]
    for found in recorded_actions(row, iter(made)):
        assert found.action.protocol in {"http", "postgresql"}


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
    (found,) = recorded_actions(ROW, iter([TLS, record]))
    assert complete is found.action.complete


def test_what_went_over_to_websocket_is_judged_by_its_request() -> None:
    """A session whose protocol is another now began with a request, and that is what a policy sees."""
    asked = message("http1", "request", method="GET", target="/a", headers=[["Host", "a.example"]])
    found = list(recorded_actions(replace(ROW, protocol="websocket"), iter([asked, message("websocket", "text", part=0)])))
    assert ["http"] == [one.action.protocol for one in found]


@pytest.mark.parametrize(
    ("sql", "complete"),
    [
        ("BEGIN", True),
        ("SELECT 1", True),
        ("BEGIN; DROP TABLE x", True),
        ("DO ''", False),
        ("SELECT f(1)", False),
        ("", False),
    ],
)
def test_statements_are_complete_when_it_is_certain(sql: str, complete: bool) -> None:
    """A statement is complete if capd knows what it does."""
    row = SessionRow(
        session=SESSION, protocol="postgresql", transport="tcp", target=Endpoint(host="192.0.2.7", port=5432, name="shop")
    )
    (found,) = recorded_actions(row, iter([message("postgresql", "Query", sql=sql)]))
    assert (complete, "192.0.2.7") == (found.action.complete, found.action.target.host)
