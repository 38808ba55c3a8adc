"""Obligations in HTTP/2, stream by stream: what goes to the target, what of each answer comes out."""

from __future__ import annotations

import json

import pytest

from capd.enforcer.obligations.obligation import CarriedOut
from capd.enforcer.proxy.events import Side
from tests.enforcer.rehearsal import Rehearsal
from tests.enforcer.streams import facts, head, streams
from tests.enforcer.test_obligations_proxy import REFUSED, SECRET, obliged

JSON = ("content-type", "application/json")


def test_what_is_not_made_ready_does_not_go() -> None:
    """A verdict with obligations that nobody made ready is no permission for its stream."""
    run = streams(Rehearsal(judge=obliged(ready=False)))
    number = run.asks(head())
    assert ("403", "cannot_be_carried_out") == (run.at_client(number)[":status"], facts(run.at_client(number))["reason"])
    assert [] == list(run.asked)


def test_everything_of_an_answer_is_looked_at() -> None:
    """The target gets the credential; interim answers, fields, body and trailers come without it and without what is masked."""
    run = streams(Rehearsal(judge=obliged()))
    number = run.asks(head("GET", "/x", ("authorization", "mine"), ("te", "trailers")))
    assert (f"Bearer {SECRET}", "/x?k=v") == (run.at_target(1)["authorization"], run.at_target(1)[":path"])
    run.target.send_headers(1, [(":status", "103"), ("link", SECRET)])
    run.target.send_headers(1, [(":status", "200"), JSON, ("x-ssn", "123"), ("x-key", SECRET), ("etag", "x")])
    body = json.dumps({"ssn": 123456, "echo": SECRET, "n": 1}).encode()
    for at in range(0, len(body), 7):
        run.target.send_data(1, body[at : at + 7])
        run.go()
    run.target.send_headers(1, [("x-last", SECRET)], end_stream=True)
    run.go()
    seen = run.at_client(number)
    assert {"ssn": None, "echo": "*" * len(SECRET), "n": 1} == json.loads(bytes(seen.body))
    assert [("x-last", "*" * len(SECRET))] == seen.trailers
    assert SECRET not in str(seen.fields)
    assert "etag" not in dict(seen.fields[-1])
    assert ("***", True) == (seen["x-ssn"], seen.ended)
    assert [CarriedOut(masked={"hide": 2}, reflected={"key": 4})] == [one.carried_out for one in run.run.reports]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_looked_into_is_refused(name: str) -> None:
    """An answer that nobody can read is an error of the gateway, of its stream alone."""
    run = streams(Rehearsal(judge=obliged()))
    number, other = run.asks(head()), run.asks(head())
    fields = [(field.partition(": ")[0], field.partition(": ")[2]) for field in REFUSED[name]]
    run.answers(1, "200", b'{"ssn": "123"}', *fields)
    seen = run.at_client(number)
    assert ("502", "answer_not_masked") == (seen[":status"], facts(seen)["error"])
    assert 1 == len(run.run.refused)
    run.answers(3, "200", b'{"ssn": "123"}', JSON)
    assert b'{"ssn": "***"}' == bytes(run.at_client(other).body)


def test_what_turns_out_unreadable_is_reset() -> None:
    """A body that cannot be judged any more is reset, both ways, and leaves the other streams alone."""
    run = streams(Rehearsal(judge=obliged()))
    number, other = run.asks(head()), run.asks(head())
    run.target.send_headers(1, [(":status", "200"), JSON])
    run.target.send_data(1, b'{"ssn": "12')
    run.go()
    run.target.send_data(1, b'3", "\0')
    run.go()
    seen = run.at_client(number)
    assert seen.reset is not None
    assert not seen.ended
    assert b"12" not in seen.body
    assert run.at_target(1).reset is not None
    assert 1 == len(run.run.reports)
    run.answers(3, "200", b"{}", JSON)
    assert run.at_client(other).ended
    assert Side.CLIENT not in run.run.finished
