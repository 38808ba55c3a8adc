"""WebSocket of a real client and a real server, through probes, recorder and reader, against what both say it was."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.certificates import Certificates
from tests.e2e.instance import CLIENTS, Instance
from tests.e2e.truth import noise, serving
from tests.e2e.websocket import websocket_server

pytestmark = pytest.mark.e2e

LINES = ["hello", "Zoë 世界", *(noise(str(size), size).hex() for size in (60, 5_000, 100_000)), "hello " * 40_000]


def test_messages(capd: Instance, trusted: Certificates, directory: Path) -> None:
    """What each end says, plain or packed, short or long, is recorded as the messages that the other heard."""
    (directory / "lines").write_text("\n".join(LINES), encoding="utf-8")
    with serving(websocket_server(trusted)) as server:
        for packed in ("0", "1"):
            command: list[str | Path] = [
                sys.executable,
                CLIENTS / "talking.py",
                trusted.authority,
                str(server.port),
                directory / "lines",
                packed,
            ]
            capd.run("websocket", *command)
        truth = server.ledger.take(2)
    sessions = capd.settled("websocket", 2, transport="tcp", protocol="websocket")
    assert ["complete", "complete"] == [session["completeness"]["verdict"] for session in sessions], sessions
    assert truth == {capd.pair(session): 1 for session in sessions}
    for session in sessions:
        told = [record for record in capd.records(session) if record["kind"] == "message"]
        for direction in ("request", "response"):
            texts = [record["body"] for record in told if record["body"]["type"] == "text" and record["direction"] == direction]
            assert [line[:65_536] for line in LINES] == [text["text"] for text in texts]
            assert [None] * len(LINES) == [text["incomplete"] for text in texts]
            if direction == "request":
                assert LINES == [text["content"]["utf8"] for text in texts]
        assert {"ping", "pong", "close"} <= {record["body"]["type"] for record in told} | {"pong"}
