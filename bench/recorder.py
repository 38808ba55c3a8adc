"""How fast the recorder is: a journal made up in advance, read to its end by the whole role, in one process on one core.

Figures per second are per second of CPU time, so that a machine which is busy elsewhere gives the same ones.

Run: PYTHONPATH=src:. python -P bench/recorder.py [bulk|http|postgresql]
"""

from __future__ import annotations

import gc
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from capd.daemon.configuration import Configuration
from capd.daemon.recorder import Recorder
from capd.daemon.recorder_role import COLLECT_AFTER
from capd.daemon.recording_policy import RecordingSection
from capd.recording.journal import Block, JournalWriter
from tests.assembly.world import HOST, MS, REQUEST, RESPONSE, Daemon, closed, executed, moved, opened

BLOCK_BYTES = 8 << 20
BULK_CALL = 64 << 10
BULK_TOTAL = 512 << 20
EXCHANGES = 20_000
EXCHANGES_PER_SESSION = 200

HTTP_BODY = b'{"id": "7f3e", "status": "succeeded", "output": [{"type": "text", "text": "It rains in Bergen."}]}'
HTTP_REQUEST = (
    b"GET /v1/answers/7f3e HTTP/1.1\r\nHost: api.example.org\r\nAccept: application/json\r\nUser-Agent: agent/1.0\r\n\r\n"
)
HTTP_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(HTTP_BODY) + HTTP_BODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a recorder did with a journal: wall and CPU seconds, what came in, what it made of it, resident memory at most."""

    seconds: float
    cpu_seconds: float
    messages: int
    records: int
    payload_bytes: int
    segment_bytes: int
    peak_bytes: int

    @property
    def messages_per_second(self) -> float:
        """Messages in a second of one core."""
        return self.messages / self.cpu_seconds

    @property
    def megabytes_per_second(self) -> float:
        """Payload in MB in a second of one core."""
        return self.payload_bytes / 1e6 / self.cpu_seconds

    def line(self, name: str) -> str:
        """Give the figures for a person."""
        return (
            f"{name:11} {self.megabytes_per_second:8,.1f} MB/s  {self.messages_per_second:8,.0f} messages/s"
            f"  {self.seconds:6.2f} s ({self.cpu_seconds:.2f} s CPU)  {self.peak_bytes / 1e6:4.0f} MB resident at most"
            f"  {self.records:,} records, {self.segment_bytes / 1e6:.0f} MB in segments"
        )


Exchange = Callable[[int], tuple[bytes, bytes]]


def message(kind: bytes, body: bytes) -> bytes:
    """Give one PostgreSQL message."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


STARTUP = (3 << 16).to_bytes(4, "big") + b"user\0agent\0database\0shop\0\0"
PG_START = (len(STARTUP) + 4).to_bytes(4, "big") + STARTUP
PG_READY = message(b"R", bytes(4)) + message(b"Z", b"I")
PG_COLUMN = b"\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"
PG_ROWS = message(b"T", b"\0\2id\0" + PG_COLUMN + b"name\0" + PG_COLUMN)


def postgresql(number: int) -> tuple[bytes, bytes]:
    """Give a statement with its one row."""
    query = message(b"Q", b"SELECT id, name FROM customers WHERE id = %d\0" % number)
    value = b"%d" % number
    row = message(b"D", b"\0\2" + len(value).to_bytes(4, "big") + value + b"\0\0\0\x0aAda Byron \x20"[:14])
    return query, PG_ROWS + row + message(b"C", b"SELECT 1\0") + message(b"Z", b"I")


def http(_number: int) -> tuple[bytes, bytes]:
    """Give a request with its answer."""
    return HTTP_REQUEST, HTTP_RESPONSE


def conversations(
    exchange: Exchange, port: int, greeting: tuple[bytes, bytes] | None, *, exchanges: int = EXCHANGES
) -> Iterator[tuple[bytes, bytes]]:
    """Give control and data events of many sessions of a protocol."""
    time_ns = 10 * MS
    for session in range(exchanges // EXCHANGES_PER_SESSION):
        socket, positions = 1_000 + session, [0, 0]
        yield opened(time_ns, socket, peer=("192.0.2.7", port)), b""
        pairs = [greeting] if greeting else []
        pairs += [exchange(number) for number in range(EXCHANGES_PER_SESSION)]
        for pair in pairs:
            for direction in (REQUEST, RESPONSE):
                time_ns += 10_000
                yield b"", moved(time_ns, socket, direction, positions[direction], pair[direction])
                positions[direction] += len(pair[direction])
        time_ns += 1_000
        yield closed(time_ns, socket, positions[0], positions[1], (positions[0], positions[1])), b""


def bulk() -> Iterator[tuple[bytes, bytes]]:
    """Give one upload of half-compressible bytes."""
    noise = random.Random(7)
    pieces = [noise.randbytes(BULK_CALL // 2) + bytes(noise.choices(b"abcdefgh \n", k=BULK_CALL // 2)) for _ in range(16)]
    yield opened(10 * MS, 5, peer=("192.0.2.7", 9_000)), b""
    for number in range(BULK_TOTAL // BULK_CALL):
        yield b"", moved(10 * MS + number * 1_000, 5, REQUEST, number * BULK_CALL, pieces[number % 16])


def write_journal(directory: Path, events: Iterator[tuple[bytes, bytes]]) -> int:
    """Write a journal as the daemon would. Gives the size of its payload."""
    daemon = Daemon()
    total = 0
    with_time = time.time_ns()
    with JournalWriter(directory) as writer:

        def put(blocks: list[Block]) -> int:
            for block in blocks:
                stamps = {"boottime_ns": block.boottime_ns, "realtime_ns": with_time + block.boottime_ns}
                writer.append(block.source, block.payload, count=block.count, **stamps)
            return sum(len(block.payload) for block in blocks)

        put(daemon.started())
        put(daemon.run_started())
        control, data, size = [executed(5 * MS, b"/usr/bin/agent", b"agent")], [], 0
        turn = 10 * MS
        for about_control, about_data in events:
            control.append(about_control)
            data.append(about_data)
            size += len(about_data)
            if size > BLOCK_BYTES:
                turn += 20 * MS
                total += put(daemon.cycle(turn + 10_000 * MS, control=control, data=data))
                control, data, size = [], [], 0
        total += put(daemon.cycle(turn + 20_000 * MS, control=control, data=data))
        put(daemon.note(turn + 20_001 * MS, note="stop"))
    return total


def peak_bytes() -> int:
    """Give the most memory that was resident in this process since the kernel was told to forget what was before."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(name: str, level: Literal["full", "masked"] = "masked") -> Result:
    """Let a recorder work off a journal of a case. In a process of its own, or its memory is not its own."""
    root = Path(tempfile.mkdtemp(prefix="capd-bench-"))
    recording = RecordingSection(level=level)
    settings = Configuration(state_dir=root / "state", runtime_dir=root / "run", recording=recording)
    for directory in (settings.recorder_dir, settings.segments_dir, settings.index_dir, settings.recorder_runtime_dir):
        directory.mkdir(parents=True)
    total = write_journal(settings.journal_dir, CASES[name]())
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)  # as the role does
    recorder = Recorder(settings, host=HOST, user="bench")
    began, cpu_began = time.monotonic(), time.process_time()
    recorder.stop(seconds=3_600)
    recorder.run()
    result = Result(
        seconds=time.monotonic() - began,
        cpu_seconds=time.process_time() - cpu_began,
        messages=recorder.counts["messages"],
        records=recorder.counts["records"],
        payload_bytes=total,
        segment_bytes=sum(path.stat().st_size for path in settings.segments_dir.iterdir()),
        peak_bytes=peak_bytes(),
    )
    shutil.rmtree(root)
    return result


def measured(name: str, level: Literal["full", "masked"] = "masked") -> Result:
    """Measure a case in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, name, level).result()


CASES: Final[dict[str, Callable[[], Iterator[tuple[bytes, bytes]]]]] = {
    "bulk": bulk,
    "http": lambda: conversations(http, 80, None),
    "postgresql": lambda: conversations(postgresql, 5432, (PG_START, PG_READY)),
}


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        print(measured(case).line(case))
        print(measured(case, "full").line(f"{case}, full"))
