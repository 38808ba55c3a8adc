"""What proof and secrecy cost: sealing, signing and encrypting segments, verifying them, encrypting the journal.

What lives here: the recordings made for it, and the figures. What must not: printing, but as a script.

Figures are per second of CPU time, so that a machine which is busy elsewhere gives the same ones. Verification uses all cores,
by the clock it is as many times faster; beside it stands what SHA-256 alone makes of the same bytes: nothing can be faster.

Run: PYTHONPATH=src:. python -P bench/secrecy.py
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from pyrage import x25519

from capd.recording.evidence.host_report import Trust
from capd.recording.evidence.hosts import verify_shelf
from capd.recording.evidence.shelf import DirectoryShelf
from capd.recording.journal import JournalKey, JournalWriter, Position, Source
from capd.recording.keys import HostKey
from capd.recording.record import Direction, Kind, Record
from capd.recording.segment.writer import Sealing, SegmentWriter

HOST = UUID(int=1)
SESSION = UUID(int=7)
PAYLOAD_BYTES = 16 << 10
RECORDING_BYTES = 256 << 20
SPAN_BYTES = 4 << 20
JOURNAL_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A recording that was written.

    Attributes:
        megabytes_per_second: payload, in a second of CPU.
        file_bytes: on disk.
        segments: how many.
    """

    megabytes_per_second: float
    file_bytes: int
    segments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A recording that was verified.

    Attributes:
        gigabytes_per_second: of files, in a second of CPU.
        payload_per_second: GB of what was recorded in them.
        hashing_per_second: GB that SHA-256 alone makes, in memory.
        cores_used: CPU seconds in a second of the clock.
    """

    gigabytes_per_second: float
    payload_per_second: float
    hashing_per_second: float
    cores_used: float


def payloads(share: float) -> list[bytes]:
    """Give payloads of which a share is noise and the rest text."""
    noise = random.Random(5)
    size = int(PAYLOAD_BYTES * share)
    words = b"id status succeeded output It rains in Bergen customer order total paid name price { } : , 17 4711".split()
    return [
        noise.randbytes(size) + b" ".join(noise.choices(words, k=PAYLOAD_BYTES // 2))[: PAYLOAD_BYTES - size]
        for _ in range(512)
    ]


def write(directory: Path, sealing: Sealing, pieces: Sequence[bytes]) -> Written:
    """Write a recording of one session, as the recorder does."""
    writer = SegmentWriter(directory, host=HOST, clock=time.time_ns, sealing=sealing)
    position = 0
    before = time.process_time()
    for number in range(RECORDING_BYTES // PAYLOAD_BYTES):
        payload = pieces[number % len(pieces)]
        body = {"position": position, "payload": payload}
        writer.append([Record(Kind.DATA, SESSION, number, Direction.REQUEST, body)])
        position += len(payload)
        if writer.raw_bytes > 8 << 20:
            writer.flush(Position(0, number))
            writer.seal({})
    writer.seal({})
    seconds = time.process_time() - before
    files = [path.stat().st_size for path in directory.glob("*.seg")]
    return Written(megabytes_per_second=position / 1e6 / seconds, file_bytes=sum(files), segments=len(files))


def verify(directory: Path, threads: int) -> Verified:
    """Verify a recording whose files are in the page cache."""
    paths = list((directory / "segments").glob("*.seg"))
    contents = [path.read_bytes() for path in paths]
    size = sum(map(len, contents))
    before = time.process_time()
    for content in contents:
        hashlib.sha256(content).digest()
    hashing = time.process_time() - before
    del contents
    began, before = time.perf_counter(), time.process_time()
    (report,) = verify_shelf(DirectoryShelf(directory), Trust(), workers=threads)
    seconds, wall = time.process_time() - before, time.perf_counter() - began
    assert not report.faults
    return Verified(
        gigabytes_per_second=size / 1e9 / seconds,
        payload_per_second=RECORDING_BYTES / 1e9 / seconds,
        hashing_per_second=size / 1e9 / hashing,
        cores_used=seconds / wall,
    )


def journal(directory: Path, key: JournalKey | None, span: bytes) -> float:
    """Append spans; give MB of payload in a second of CPU."""
    with JournalWriter(directory, key=key) as writer:
        before = time.process_time()
        for number in range(JOURNAL_BYTES // len(span)):
            writer.append(Source.DATA, span, count=1, boottime_ns=number, realtime_ns=number)
            writer.remove_before(writer.position)
        return JOURNAL_BYTES / 1e6 / (time.process_time() - before)


def measure() -> dict[str, object]:
    """Print all figures, and give them."""
    found: dict[str, object] = {}
    identity = x25519.Identity.generate()
    for name, share in (("text", 0.0), ("half noise", 0.5)):
        for way in ("chained", "signed", "encrypted"):
            with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
                found |= recording(Path(scratch), name, way, payloads(share), identity)
    spans = {"noise": random.Random(3).randbytes(SPAN_BYTES), "text": b"".join(payloads(0.0))[:SPAN_BYTES]}
    for name, span in spans.items():
        for way, key in (("plain", None), ("encrypted", JournalKey(HOST, os.urandom(32)))):
            with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
                rate = found[f"journal {name} {way}"] = journal(Path(scratch), key, span)
            print(f"journal {name:6} {way:10} {rate:8,.0f} MB/s of payload per CPU second", flush=True)
    return found


def recording(state: Path, name: str, way: str, pieces: Sequence[bytes], identity: x25519.Identity) -> dict[str, object]:
    """Write a recording in one way, verify it, print what that took, and give it."""
    key = HostKey.new()
    key.save(state / "keys")
    recipients = (str(identity.to_public()),) if way == "encrypted" else ()
    made = write(state / "segments", Sealing(signer=None if way == "chained" else key, recipients=recipients), pieces)
    print(
        f"write {name:10} {way:10} {made.megabytes_per_second:8,.0f} MB/s of payload per CPU second"
        f"  ratio {made.file_bytes / RECORDING_BYTES:.3f}  {made.segments} segments"
    )
    found: dict[str, object] = {f"write {name} {way}": asdict(made)}
    if way != "chained":
        seen = verify(state, len(os.sched_getaffinity(0)))
        found[f"verify {name} {way}"] = asdict(seen)
        print(
            f"  verify {seen.gigabytes_per_second:6.2f} GB/s of files  {seen.payload_per_second:6.2f} GB/s of payload"
            f"  SHA-256 alone {seen.hashing_per_second:.2f} GB/s"
            f"  ratio {seen.gigabytes_per_second / seen.hashing_per_second:.2f}  {seen.cores_used:.1f} cores",
            flush=True,
        )
    return found


if __name__ == "__main__":
    measure()
