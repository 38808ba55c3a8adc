"""Recordings to read: what two sides said, as bytes, becomes records by the real decoders and files by the real writers.

What lives here: builders. What must not: expectations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.daemon.assembly.decoding import Decoding
from capd.daemon.assembly.messages import MessageWriter
from capd.daemon.assembly.output import Batch
from capd.daemon.assembly.state import SessionState
from capd.recording.identity import uuid7_from
from capd.recording.index import Index
from capd.recording.keys import ensure
from capd.recording.position import Position
from capd.recording.projection import Projection
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.rows import SegmentRow
from capd.recording.segment import SegmentReader
from capd.recording.segment.writer import Sealing, SegmentWriter

START_NS: Final = 1_795_245_851_123_456_789
"""2026-11-21T07:24:11.123456789Z."""
MS: Final = 1_000_000
HOST: Final = UUID(int=1)
RUN: Final = uuid7_from(START_NS // MS - 1000, b"run")
REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE


@dataclass
class Conversation:
    """One session being said; every step takes a millisecond."""

    name: bytes
    port: int = 443
    target: str = "api.example.org"
    protocol: str | None = None
    started_ns: int = START_NS
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.id = uuid7_from(self.started_ns // MS, self.name)
        self.time_ns = self.started_ns
        self.positions = [0, 0]
        self._state = SessionState(
            id=self.id,
            socket=1,
            stream=0,
            run=1,
            started_ns=self.started_ns,
            last_ns=self.started_ns,
            active_ns=0,
            process=(4242, 5),
            target={"host": "192.0.2.7", "port": self.port, "name": None},
        )
        self._decoding = Decoding(self._state)
        self._writer = MessageWriter(self._state)
        self.add(Kind.OPEN, None, opening(self.port, self.target))

    def add(self, kind: Kind, direction: Direction | None, body: Mapping[str, Value]) -> None:
        """Add any record."""
        self.records.append(Record(kind, self.id, self.time_ns, direction, body))

    def tls(self) -> None:
        """Note that what follows was seen in a TLS library."""
        self.add(Kind.MARKER, None, {"name": "tls", "library": "openssl", "tie": "nested"})

    def say(self, direction: Direction, data: bytes, pause_ms: int = 1, piece: int = 16384) -> None:
        """Let one side say something; the real decoder hears it."""
        self.time_ns += pause_ms * MS
        batch = Batch()
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            self.add(Kind.DATA, direction, {"position": self.positions[direction], "payload": part})
            self.positions[direction] += len(part)
            known = self._state.protocol
            for decoded in self._decoding.feed(int(direction), part):
                known = self._marked(known)
                self._writer.take(decoded, self.time_ns, batch)
            self._marked(known)
        self._writer.flush(batch)
        self.records += batch.records

    def _marked(self, known: str | None) -> str | None:
        """Note which protocol it is, if that is new."""
        if self._state.protocol != known:
            self.add(Kind.MARKER, None, {"name": "protocol", "protocol": self._state.protocol})
        return self._state.protocol

    def lose(self, direction: Direction, length: int, reason: str = "ring full") -> None:
        """Lose bytes, as a full ring does; the decoder is not told, it stopped caring."""
        self.time_ns += MS
        body: dict[str, Value] = {
            "position": self.positions[direction],
            "length": length,
            "layer": "application",
            "reason": reason,
        }
        self.add(Kind.GAP, direction, body)
        self.positions[direction] += length

    def close(self, verdict: str = "complete", reasons: Sequence[str] = ()) -> Conversation:
        """End it."""
        self.time_ns += MS
        self.add(
            Kind.CLOSE,
            None,
            {
                "state": "closed",
                "bytes": {"request": self.positions[0], "response": self.positions[1]},
                "messages": self._state.messages,
                "completeness": {"verdict": verdict, "reasons": list(reasons)},
            },
        )
        return self


def opening(port: int, target: str) -> dict[str, Value]:
    """Give the body of an OPEN record."""
    return {
        "run": RUN.bytes,
        "run_name": "nightly",
        "labels": {"team": "data"},
        "principal": {"kind": "user", "name": "ann", "uid": 1000, "verified": False},
        "host": HOST.bytes,
        "boot": UUID(int=2).bytes,
        "socket": 1,
        "transport": "tcp",
        "role": "client",
        "local": {"host": "192.0.2.1", "port": 40000, "name": None},
        "target": {"host": "192.0.2.7", "port": port, "name": target},
        "process": {
            "pid": 4242,
            "start_ns": 5,
            "exe": "/usr/bin/python3",
            "argv": ["python3", "agent.py"],
            "uid": 1000,
            "user": "ann",
            "comm": "python3",
        },
        "mid_stream": False,
    }


def run_records() -> list[Record]:
    """Give the records of the run: a shell that starts an agent, whose child is killed."""

    def mark(offset_ms: int, **body: Value) -> Record:
        return Record(Kind.MARKER, RUN, START_NS + (offset_ms - 100) * MS, None, body)

    principal: dict[str, Value] = {"kind": "user", "name": "ann", "uid": 1000, "verified": False}
    return [
        mark(
            0, name="run", run=RUN.bytes, run_name="nightly", labels={"team": "data"}, principal=principal,
            command=["sh", "nightly.sh"], cwd="/srv", cgroup="/capd-agents.slice/run-1.scope", adopted=False, host=HOST.bytes,
        ),
        mark(1, name="exec", pid=4200, start_ns=1, exe="/bin/sh", argv=["sh", "nightly.sh"], uid=1000),
        mark(2, name="fork", pid=4200, start_ns=1, child_pid=4242, child_start_ns=5),
        mark(3, name="exec", pid=4242, start_ns=5, exe="/usr/bin/python3", argv=["python3", "agent.py"], uid=1000),
        mark(4, name="fork", pid=4242, start_ns=5, child_pid=4250, child_start_ns=9),
        mark(500, name="exit", pid=4250, start_ns=9, status=9),
        mark(600, name="exit", pid=4242, start_ns=5, status=0),
        mark(700, name="exit", pid=4200, start_ns=1, status=3 << 8),
        mark(701, name="run_end"),
    ]  # fmt: skip


class Recording:
    """A state directory with segments and an index, written as the recorder writes them."""

    def __init__(self, state_dir: Path, *recipients: str) -> None:
        self.state_dir = state_dir
        sealing = Sealing(signer=ensure(state_dir / "keys"), recipients=recipients)
        self.writer = SegmentWriter(state_dir / "segments", host=HOST, clock=lambda: START_NS, sealing=sealing)
        self.index = Index.open(state_dir / "index" / "capd.db")
        self._projection = Projection(
            load_session=self.index.find_session, load_run=self.index.find_run, metadata_only=bool(recipients)
        )
        if recipients:
            self.index.withhold()

    def write(self, records: Iterable[Record], *, seal: bool = True) -> None:
        """Write records so that readers see them, in a segment of their own or in an open one."""
        taken = list(records)
        self.writer.append(taken)
        self.writer.flush(Position(0, 0))
        self._projection.receive(taken)
        self.index.apply(self._projection.changes())
        if seal:
            self.seal()
        self.index.commit()

    def seal(self) -> None:
        """Seal the open segment."""
        path = self.writer.seal({})
        if path is not None:
            with SegmentReader(path) as reader:
                assert reader.footer is not None
                self.index.upsert_segment(SegmentRow.from_footer(reader.footer, path.stat().st_size))
        self.index.commit()

    def close(self) -> None:
        """Let go of the files."""
        self.writer.close()
        self.index.close()
