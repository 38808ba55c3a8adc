"""What the tests of recordings share: a disk that is full, records to write, and a host that signed some."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from capd.recording.identity import uuid7_from
from capd.recording.record import Direction, Kind, Record, Value
from tests.recording.signed_host import Host, two_heads

START_NS = 1_763_700_000_000_000_000


@contextmanager
def _file_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def file_limit() -> Callable[[int], AbstractContextManager[None]]:
    """Give a context in which no file of this process can grow beyond a size: the kernel then acts as if the disk were full."""
    return _file_limit


def _conversation(number: int, exchanges: int = 2, payload_bytes: int = 40) -> list[Record]:
    start = START_NS + number * 1_000_000_000
    session = uuid7_from(start // 1_000_000, b"session %d" % number)
    run = uuid7_from(START_NS // 1_000_000, b"run")
    records = [_opening(session, run, start, number)]
    position = [0, 0]
    for exchange in range(exchanges):
        for direction in Direction:
            at = start + 1_000_000 * (2 * exchange + direction + 1)
            payload = (b"%d.%d.%d " % (number, exchange, direction)).ljust(payload_bytes, b".")
            span = {"start": position[direction], "end": position[direction] + len(payload)}
            body: dict[str, Value] = {
                "protocol": "http1",
                "type": direction.name.lower(),
                "summary": f"message {exchange} of session {number}",
            }
            records.append(Record(Kind.DATA, session, at, direction, {"position": position[direction], "payload": payload}))
            records.append(
                Record(
                    Kind.MESSAGE,
                    session,
                    at,
                    direction,
                    {
                        **body,
                        **span,
                        "exchange": exchange,
                        "ordinal": 2 * exchange + direction,
                        "fields": {},
                        "incomplete": None,
                    },
                )
            )
            position[direction] += len(payload)
    end = start + 1_000_000 * (2 * exchanges + 1)
    closing: dict[str, Value] = {
        "state": "closed",
        "bytes": {"request": position[0], "response": position[1]},
        "messages": 2 * exchanges,
        "completeness": {"verdict": "complete", "reasons": []},
    }
    records.append(Record(Kind.CLOSE, session, end, None, closing))
    return records


def _opening(session: UUID, run: UUID, at: int, number: int) -> Record:
    body: dict[str, Value] = {
        "run": run.bytes,
        "run_name": "nightly",
        "labels": {"team": "data"},
        "principal": {"kind": "user", "name": "ann", "uid": 1000, "verified": False},
        "host": UUID(int=1).bytes,
        "boot": UUID(int=2).bytes,
        "socket": 100 + number,
        "transport": "tcp",
        "role": "client",
        "local": {"host": "127.0.0.1", "port": 40000 + number, "name": None},
        "target": {"host": "127.0.0.1", "port": 443, "name": "api.example.org"},
        "process": {
            "pid": 4000 + number,
            "start_ns": 5,
            "exe": "/usr/bin/python3",
            "argv": ["python3", "agent.py"],
            "uid": 1000,
            "user": "ann",
            "comm": "python3",
        },
        "mid_stream": False,
    }
    return Record(Kind.OPEN, session, at, None, body)


@pytest.fixture
def conversation() -> Callable[..., list[Record]]:
    """Give a maker of one session's records, the same for the same number: `conversation(number, exchanges, payload_bytes)`."""
    return _conversation


@pytest.fixture
def host(tmp_path: Path, conversation: Callable[..., list[Record]]) -> Host:
    """Give a host that recorded some segments and two heads, the newest about all of them."""
    return two_heads(tmp_path / "state", conversation)
