"""Judging what is left of a host after whatever happened to it: the promises of capd, one after the other.

What lives here: the promises. What must not: faults, roles.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

import pyarrow.parquet as pq

from capd.daemon.configuration import Configuration
from capd.daemon.recorder import Recorder
from capd.daemon.recorder_memory import steps_since
from capd.recording import index_segments
from capd.recording.age import NoKeys
from capd.recording.bucket import Bucket
from capd.recording.bucket.layout import SegmentKey
from capd.recording.catalogue.layout import parse_key
from capd.recording.evidence.host_report import HostReport, Trust
from capd.recording.evidence.hosts import verify_shelf
from capd.recording.evidence.shelf import DirectoryShelf, Shelf
from capd.recording.heads import number_of as head_number
from capd.recording.index import Index
from capd.recording.journal import Block
from capd.recording.record import Kind, Record
from capd.recording.segment import SegmentReader
from capd.recording.segment.cipher import Keys
from capd.recording.verify import verify_directory
from tests.assembly.world import HOST
from tests.soak.crashes.host import Host, copy_journal
from tests.soak.crashes.seam import Fault

Sessions = Mapping[UUID, Sequence[Record]]
STEPS: Final = frozenset({"settled", "let_go", "parted", "journal_damaged", "begun", "begun_anew"})
"""Markers that tell of the recorder's own steps."""


def recorded(host: Host, *, without: Container[int] = ()) -> Sessions:
    """Give all records in sealed segments by session, in their order, without what tells of the recorder's own pauses."""
    return _records(host.settings.segments_dir, host.reading, without)


def _records(segments: Path, reading: Keys, without: Container[int] = ()) -> Sessions:
    found: dict[UUID, list[Record]] = {}
    for path in sorted(segments.glob("*.seg")):
        if int(path.stem) in without:
            continue
        with SegmentReader(path, keys=reading) as reader:
            for record in reader.records():
                if record.body.get("name") not in STEPS:
                    found.setdefault(record.session, []).append(record)
    return found


def expected(host: Host, blocks: Iterable[Block] | None = None) -> Sessions:
    """Give what a recorder that nothing happened to makes of the same journal, or of some blocks."""

    def work(made: Recorder) -> None:
        made.stop(60)
        made.run()

    return _undisturbed(host, host.directory / "undisturbed", blocks, work)


def _undisturbed(host: Host, directory: Path, blocks: Iterable[Block] | None, work: Callable[[Recorder], None]) -> Sessions:
    settings = Configuration(state_dir=directory / "state", runtime_dir=directory / "run")
    for path in (settings.recorder_dir, settings.segments_dir, settings.index_dir, settings.recorder_runtime_dir):
        path.mkdir(parents=True)
    settings.keys_dir.mkdir()
    if blocks is None:
        settings.journal_dir.symlink_to(host.shadow)
        if host.key is not None:
            settings.journal_key_file.write_bytes(host.settings.journal_key_file.read_bytes())
    else:
        copy_journal(iter(blocks), settings.journal_dir)

    def role(_say: object) -> None:
        host.hurry(lambda _line: None)
        work(Recorder(settings, host=HOST, user="soak"))

    status, said_lines = host.start("the undisturbed recorder", Fault(), role).end()
    assert status == 0, said_lines
    return _records(settings.segments_dir, NoKeys())


def retraced(host: Host) -> Sessions:
    """Give what one recorder makes of the same journal in one go, taking the steps that the recording says were taken.

    How a recorder divides the journal depends on when it looks, and some of what it writes depends on that. So it writes down
    where it divided; that is the promise held here: journal and steps together give the recording, whoever died on the way.
    """
    steps = steps_since(host.settings.segments_dir, 0, HOST, host.reading)

    def work(made: Recorder) -> None:
        made._cycles.cut = steps.cuts
        while cycle := made._cycles.next() or made._cycles.rest():
            made._take(cycle)
            if made._position in steps.settled:
                made._append(made._assembler.settle().records)
            if made._position in steps.let_go:
                made._store(made._stage.cut())
        made._finish()

    return _undisturbed(host, host.directory / "retraced", None, work)


def said(records: Iterable[Record]) -> list[tuple[object, ...]]:
    """Give what was said, without the OPEN records: how often facts are repeated depends on how the journal grew.

    Without the times of messages, too: a decoder that was built anew may end a part of a body at another moment.
    """
    return [
        (record.kind, record.direction, 0 if record.kind is Kind.MESSAGE else record.time_ns, dict(record.body))
        for record in records
        if record.kind is not Kind.OPEN
    ]


def whole(shelf: Shelf) -> HostReport:
    """Demand that verification finds no damage."""
    (report,) = verify_shelf(shelf, Trust())
    damages = [finding for finding in report.all_findings() if finding.damage]
    assert [] == damages, damages
    assert 0 == report.unsigned, f"{report.unsigned} segments are not signed"
    return report


def judge_evidence(host: Host) -> None:
    """Nothing is damaged, nothing that was sealed is gone or another, nothing is left open."""
    if any(host.settings.segments_dir.glob("*.seg")):
        whole(DirectoryShelf(host.state))
    damages = [
        (report.path.name, finding)
        for report in verify_directory(host.settings.segments_dir, host.reading)
        for finding in report.findings
        if finding.damage
    ]
    assert [] == damages, damages
    assert [] == list(host.settings.segments_dir.glob("*.open"))
    judge_sealed(host, set())


def judge_sealed(host: Host, tampered: set[int]) -> None:
    """Everything that a recorder called sealed is as it was, here or in the bucket; all of it is in the bucket once."""
    keys = [key for path in host.bucket.rglob("*.seg") if (key := SegmentKey.parse(path.relative_to(host.bucket).as_posix()))]
    there = Counter(key.sequence for key in keys)
    assert {} == {number: count for number, count in there.items() if count > 1}, "a segment is in the bucket twice"
    digests = {key.sequence: sha256((host.bucket / str(key)).read_bytes()).digest() for key in keys}
    for number, digest in host.sealed.items():
        local = host.settings.segments_dir / f"{number:012d}.seg"
        if number in tampered:
            continue
        assert digests.get(number) == digest, f"segment {number} is not in the bucket as it was sealed"
        if local.exists() or host.limits.age_ns_max is None:
            assert digest == sha256(local.read_bytes()).digest(), f"segment {number} is not as it was sealed"
    assert set(host.sealed) >= set(there), "the bucket has segments that nobody sealed"


def judge_bucket(host: Host) -> None:
    """The bucket alone proves the same; its catalogue has every message once."""
    bucket = Bucket.open(str(host.bucket))
    if host.sealed:
        report = whole(bucket)
        assert [] == report.missing
        local = {number for path in host.settings.segments_dir.iterdir() if (number := head_number(path.name)) is not None}
        assert report.heads >= len(local)
    tables: dict[str, list[dict[str, object]]] = {}
    for entry in bucket.list("catalogue/"):
        part = parse_key(entry.key, entry.size)
        assert part is not None, f"{entry.key} is no part of a catalogue"
        table = pq.read_table(io.BytesIO(bucket.read(entry.key)), use_threads=False)
        tables.setdefault(part.table, []).extend(table.to_pylist())
    sequences = Counter(row["sequence"] for row in tables.get("segments", []))
    assert dict.fromkeys(host.sealed, 1) == sequences, "the catalogue has not each segment once"
    if host.encrypted:
        return
    messages = Counter(
        (str(record.session), record.body["ordinal"])
        for key in sorted(host.sealed)
        for record in _shipped(host, key)
        if record.kind is Kind.MESSAGE
    )
    catalogued = Counter((str(row["session"]), row["ordinal"]) for row in tables.get("messages", []))
    assert messages == catalogued, "the catalogue has not each message once"
    assert set(messages.values()) <= {1}


def _shipped(host: Host, sequence: int) -> Iterable[Record]:
    (path,) = host.bucket.rglob(f"{sequence:012d}.seg")
    with SegmentReader(path) as reader:
        yield from reader.records()


def judge_records(host: Host, *, exact: bool) -> None:
    """Every record of the journal is in segments once, as if nothing had happened; so says the index."""
    found, wanted = recorded(host), expected(host)
    others = set(wanted) ^ set(found)
    if not exact:
        others = {session for session in others if spoken(found.get(session, wanted.get(session, ())))}
    assert not others, f"sessions {others} are recorded or expected, not both"
    for session, records in wanted.items():
        if exact:
            assert said(records) == said(found[session]), f"session {session} was recorded otherwise"
        else:
            missing = Counter(map(str, spoken(records))) - Counter(map(str, spoken(found[session])))
            lost = any(record.body.get("state") == "abandoned" for record in found[session])
            assert missing.total() <= lost, f"session {session} lacks {missing}"
    judge_index(host, found)


def judge_steps(host: Host) -> None:
    """Journal and steps together give the recording, record for record; so says the index."""
    found, wanted = recorded(host), retraced(host)
    assert set(wanted) == set(found)
    for session, records in wanted.items():
        assert said(records) == said(found[session]), f"session {session}: {_difference(said(records), said(found[session]))}"
    judge_consistency(host)


def judge_consistency(host: Host) -> None:
    """Nothing is there twice, and the index has it all."""
    found = recorded(host)
    judge_no_repetition(found)
    judge_index(host, found)


def _difference(wanted: Sequence[object], found: Sequence[object]) -> str:
    """Say where two recordings of a session part."""
    at = next((at for at, (one, other) in enumerate(zip(wanted, found, strict=False)) if one != other), None)
    if at is None:
        return f"{len(found)} records, {len(wanted)} were expected"
    return f"record {at} is {found[at]}, expected was {wanted[at]}"


def spoken(records: Iterable[Record]) -> list[tuple[object, ...]]:
    """Give the bytes of a session, its gaps and how it ended, however it was cut into records and messages."""
    parts: dict[object, bytes] = {}
    others: list[tuple[object, ...]] = []
    for record in records:
        payload = record.body.get("payload")
        if record.kind is Kind.DATA and isinstance(payload, bytes):
            key = (record.direction, record.body.get("layer"))
            parts[key] = parts.get(key, b"") + payload
        elif record.kind is Kind.GAP:
            others.append((record.direction, record.body["position"], record.body["length"], record.body["reason"]))
        elif record.kind is Kind.CLOSE and record.body["state"] != "abandoned":
            others.append((record.body["state"], record.body["bytes"], record.body["completeness"]))
    return [*sorted(parts.items(), key=str), *others]


def judge_index(host: Host, found: Sessions) -> None:
    """The index has every session, with all of its messages; where the host lost its keys, no session that is not recorded."""
    messages = {
        session: [record.kind for record in records].count(Kind.MESSAGE)
        for session, records in found.items()
        if any(record.kind is Kind.OPEN for record in records)
    }
    if host.flipped_index:
        index_segments.rebuild(host.settings.index_file, host.settings.segments_dir, host.reading)
    with Index.open(host.settings.index_file, readonly=True) as index:
        listed = {row.session: row.messages for row in index.sessions(limit=None)}
    if host.encrypted and host.lost_keys:
        assert set(listed) <= set(messages), f"the index has sessions {set(listed) - set(messages)} that nobody recorded"
        return
    wrong = {
        str(key): (messages.get(key), listed.get(key)) for key in messages | listed if messages.get(key) != listed.get(key)
    }
    assert not wrong, f"the index tells otherwise of sessions {wrong}"


def judge_no_repetition(found: Sessions) -> None:
    """No byte and no message is there twice, and what follows in a stream lies behind what came before."""
    for session, records in found.items():
        assert [record.kind for record in records].count(Kind.CLOSE) <= 1, f"session {session} ends twice"
        ends: dict[object, int] = {}
        ordinals = [record.body["ordinal"] for record in records if record.kind is Kind.MESSAGE]
        assert len(ordinals) == len(set(map(str, ordinals))), f"session {session} has a message twice"
        for record in records:
            payload, position = record.body.get("payload"), record.body.get("position")
            if record.kind is Kind.DATA and isinstance(payload, bytes) and isinstance(position, int):
                key = (record.direction, record.body.get("layer"))
                assert position >= ends.get(key, 0), f"session {session} has byte {position} twice"
                ends[key] = position + len(payload)


def named(path: Path) -> set[int]:
    """Give the numbers of the segments that verification calls damaged, of those in one place."""
    return {
        finding.segment
        for report in verify_shelf(DirectoryShelf(path), Trust())
        for finding in report.all_findings()
        if finding.damage and finding.segment is not None
    }
