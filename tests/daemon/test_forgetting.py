"""What was said is gone everywhere once its time is over: index, catalogue, bucket; and what is kept is there."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner

from capd.daemon.deletion_copies import DeletionCopies
from capd.daemon.expiry import Expiry
from capd.daemon.recorder_expiry import RecorderExpiry
from capd.daemon.retention import DAY_NS, Rule
from capd.recording import index_segments
from capd.recording.bucket import Bucket
from capd.recording.bucket.errors import BucketError
from capd.recording.bucket.holds import Hold, place, read, release
from capd.recording.bucket.layout import SegmentKey
from capd.recording.bucket.removal import remove
from capd.recording.deletions import Deleted, Deletion
from capd.recording.index import Index
from capd.recording.journal import Position
from capd.recording.keys import HostKey
from capd.recording.projection import Projection
from capd.recording.record import Kind, Record
from capd.recording.rows import SegmentRow, SessionRow
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import sealed_path
from capd.recording.segment.writer import Sealing, SegmentWriter
from tests.cli.conftest import VERBS
from tests.recording.test_index_expiry import HOST, RUN, START_NS, closing, identity, opening, record, said, secret
from tests.servers.ceph import Ceph

pytest.importorskip("pyarrow", reason="the fleet extra is not installed")
pytest.importorskip("duckdb", reason="the fleet extra is not installed")

import pyarrow.parquet as pq

from capd.recording.catalogue.expiring import CatalogueExpiry, Removed
from capd.recording.catalogue.fleet import Fleet
from capd.recording.catalogue.layout import day_of, days_in
from capd.recording.catalogue.writing import CatalogueWriter

RULES = [Rule(name="ci", target="target1.example:443", keep_ns=10 * DAY_NS), Rule(name="rest", keep_ns=100 * DAY_NS)]


class Site:
    """A host whose recording is in a bucket, with index and catalogue."""

    def __init__(self, directory: Path, url: str | None = None) -> None:
        self.directory = directory
        self.segments, self.copies, self.keys = (directory / name for name in ("segments", "copies", "keys"))
        self.path = directory / "index" / "capd.db"
        (directory / "bucket").mkdir(parents=True)
        self.copies.mkdir()
        self.bucket = Bucket.open(url or str(directory / "bucket"))
        self.signer = HostKey.new()
        self.signer.save(self.keys)
        self.bucket.create(f"host={HOST}/keys/{self.signer.public.id.hex()}.pub", self.signer.public.to_text())
        self.index = Index.open(self.path)
        self.recorder = RecorderExpiry(self.copies, self.keys, HOST, clock=lambda: self.now)
        self.now = 0.0
        sealing = Sealing(signer=self.signer)
        self._writer = SegmentWriter(self.segments, host=HOST, clock=lambda: START_NS, sealing=sealing)
        self._projection = Projection(load_session=self.index.find_session, load_run=self.index.find_run)

    def record(self, *segments: list[Record]) -> None:
        """Record and ship segments."""
        writer = self._writer
        for records in segments:
            writer.append(records)
            writer.flush(Position(0, 0))
            self._projection.receive(records)
            self.index.apply(self._projection.changes(), writer.sequence)
            path = writer.seal({})
            assert path is not None
            with SegmentReader(path) as reader:
                assert reader.footer is not None
                self.index.upsert_segment(SegmentRow.from_footer(reader.footer, reader.file_bytes))
                self.bucket.create(str(SegmentKey.of(HOST, reader.header.sequence, START_NS)), path)
            self.index.commit()

    def catalogue(self) -> None:
        """Bring the catalogue up to date."""
        writer = CatalogueWriter(
            self.bucket,
            HOST,
            local=lambda sequence: sealed_path(self.segments, sequence),
            find_session=self.index.find_session,
            find_run=self.index.find_run,
        )
        writer.extend(START_NS + DAY_NS)

    def pass_days(self, days: int) -> None:
        """Let the shipper make a pass so many days later, and the recorder learn of it."""
        Expiry(
            bucket=self.bucket,
            host=HOST,
            rules=RULES,
            index=self.path,
            segments=self.segments,
            signer=lambda: self.signer,
            copies=DeletionCopies(self.bucket, HOST, self.copies),
            pause=lambda: True,
        ).turn(START_NS + days * DAY_NS)
        self.learn()

    def learn(self) -> None:
        """Let the recorder do all that it has to."""
        for _ in range(60):
            self.recorder.attend(self.index, idle=True)
            self.now += 1

    def expiry(self, bucket: Bucket | None = None) -> CatalogueExpiry:
        """Give what takes out of the catalogue."""
        return CatalogueExpiry(
            bucket or self.bucket,
            HOST,
            expired=self.index.is_expired,
            remains=lambda one: (self.index.find_session(one) or self.index.find_run(one)) is not None,
            holds=[hold for hold in read(self.bucket) if hold.released is None],
            now_ns=START_NS,
        )

    def forget(self) -> Removed:
        """Let the cataloguer take out what expired."""
        spans = [(record.from_ns, record.until_ns) for record in self.index.let_go()]
        return self.expiry().turn(days_in(self.bucket.folders("catalogue/segments/"), spans))

    def told(self) -> str:
        """Give everything that can be read out of the bucket, unpacked, and out of the index's files as they are."""
        found = []
        for path in sorted(self.directory.rglob("*")):
            if path.suffix == ".parquet":
                found.append(str(pq.read_table(io.BytesIO(path.read_bytes())).to_pylist()))
            elif path.suffix == ".seg":
                with SegmentReader(path) as reader:
                    found.append(str(list(reader.records())))
            if path.is_file():
                found.append(path.read_bytes().decode("latin-1"))
        return "\n".join(found)

    def ask(self, verb: str, *arguments: str) -> tuple[int, str]:
        """Ask a verb about the bucket; give its exit status and all that it prints."""
        command = [*arguments, "--bucket", str(self.bucket)]
        done = CliRunner().invoke(VERBS[verb], command, prog_name=f"capd {verb}", standalone_mode=False)
        failure = str(done.exception) if done.exception else ""
        return done.return_value or 0, done.output + failure


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a host that recorded three segments into two files of the catalogue: one class to 10 days, one to 100."""
    made = Site(tmp_path / "site")
    yield made
    made.index.close()


def spoken(site: Site) -> None:
    """Record sessions of two classes: segments 1 and 2 are of class ci, 3 and 4 are kept longer."""
    run = record(Kind.MARKER, RUN, 3, name="run", run_name="job", labels={}, host=HOST.bytes)
    site.record(
        [opening(1, 1), said(1, 0, 1), said(1, 1, 1)],
        [said(1, 2, 2), closing(1, 2, 3)],
        [run, opening(2, 3), said(2, 0, 3), opening(4, 3), said(4, 0, 3)],
    )
    site.catalogue()
    site.record([said(2, 1, 4), closing(2, 4, 2), closing(4, 4, 1)])
    site.catalogue()


def by_id(rows: list[SessionRow]) -> list[SessionRow]:
    """Give sessions in the order of their ids: of those that began at once the rest is in no order."""
    return sorted(rows, key=lambda row: row.session)


GONE = [secret(1, 0, 1), secret(1, 1, 1), secret(1, 2, 2)]
KEPT = [secret(2, 0, 3), secret(4, 0, 3), secret(2, 1, 4)]


def test_what_expired_is_nowhere(site: Site) -> None:
    """Before its time all is found everywhere; after it no byte of it is in index, catalogue or bucket, and the rest is."""
    spoken(site)
    before = site.told()
    assert all(word in before for word in [*GONE, *KEPT])
    assert all(site.ask("search", word)[0] == 0 for word in [*GONE, *KEPT])
    site.pass_days(11)
    done = site.forget()
    assert (0, 0) == (done.locked, done.held)
    after = site.told()
    assert [] == [word for word in GONE if word in after]
    assert all(word in after for word in KEPT)
    assert [1] * 3 == [site.ask("search", word)[0] for word in GONE]
    assert [0] * 3 == [site.ask("search", word)[0] for word in KEPT]
    status, printed = site.ask("sessions", "--json")
    listed = json.loads(printed[printed.index("[") : printed.rindex("]") + 1])
    assert [str(identity(2)), str(identity(4))] == sorted(one["session"] for one in listed)
    status, printed = site.ask("show", str(identity(1)))
    assert "segments expired by policy" in printed
    status, printed = site.ask("verify", "--pins", str(site.directory / "pins"))
    assert (0, True, True) == (status, "WHOLE" in printed, "expired" in printed), printed


def test_a_session_that_goes_on_says_what_is_gone(site: Site) -> None:
    """Index and bucket say the same of a session whose beginning expired, wherever it is asked, and never call it whole."""
    site.record([opening(1, 1), said(1, 0, 1)])
    site.catalogue()
    site.record([said(1, 1, 2), closing(1, 2, 2)], [opening(2, 3), said(2, 0, 3)])
    site.catalogue()
    deletion = Deletion(host=HOST, written_ns=1, segments=[Deleted(sequence=1, digest=bytes(32), policy="ci")]).signed(
        site.signer
    )
    site.bucket.delete(str(SegmentKey.of(HOST, 1, START_NS)))
    sealed_path(site.segments, 1).unlink()
    site.bucket.create(f"host={HOST}/deletions/{deletion.name}", deletion.pack())
    site.pass_days(1)
    site.forget()
    assert secret(1, 0, 1) not in site.told()
    kept = site.index.session(identity(1))
    (shown,) = [row for row in Fleet(site.bucket).sessions() if row.session == identity(1)]
    assert [(part.first, part.last, part.segments) for part in kept.expired] == [(1, 1, 1)]
    assert [(part.first, part.last, part.segments) for part in shown.expired] == [(1, 1, 1)]
    assert (kept.target, kept.verdict, kept.messages) == (shown.target, shown.verdict, shown.messages)
    for arguments in (["--state-dir", str(site.directory)], ["--bucket", str(site.bucket)]):
        asked = CliRunner().invoke(VERBS["replay"], [str(identity(1)), *arguments], standalone_mode=False)
        assert "expired: its segment 1 let go by retention" in asked.output, asked.output
        assert secret(1, 1, 2) in asked.output
        lines = CliRunner().invoke(VERBS["replay"], [str(identity(1)), "--format", "json", *arguments], standalone_mode=False)
        assert ["gap", "message", "close"] == [json.loads(line)["kind"] for line in lines.output.splitlines()]
        raw = CliRunner().invoke(
            VERBS["replay"], [str(identity(1)), "--format", "raw", "--direction", "request", *arguments], standalone_mode=False
        )
        assert (1, True) == (raw.return_value, "expired" in raw.output)
        told = CliRunner().invoke(VERBS["show"], [str(identity(1)), *arguments], standalone_mode=False)
        assert "expired: its segment 1" in told.output
        listed = CliRunner().invoke(VERBS["sessions"], arguments, standalone_mode=False)
        assert "complete: expired" in listed.output


def test_the_catalogue_is_the_one_that_is_made_of_what_is_left(site: Site, tmp_path: Path) -> None:
    """After files were made anew the catalogue answers as one that is made of the remaining segments alone."""
    spoken(site)
    site.pass_days(11)
    site.forget()
    other = Bucket.open(str(tmp_path))
    for entry in site.bucket.list(f"host={HOST}/"):
        other.create(entry.key, site.bucket.read(entry.key))
    fresh = Site.__new__(Site)
    fresh.__dict__ |= {**site.__dict__, "bucket": other}
    fresh.catalogue()
    kept, made = Fleet(site.bucket), Fleet(other)
    assert by_id(made.sessions()) == by_id(kept.sessions()) == by_id(site.index.sessions())
    assert made.runs() == kept.runs() == site.index.runs()
    said_now = [(hit.session, hit.ordinal, hit.time_ns) for hit in kept.search("select")]
    assert said_now == [(hit.session, hit.ordinal, hit.time_ns) for hit in made.search("select")]
    assert [kept.segments_of(identity(number)) for number in (1, 2, 4)] == [
        made.segments_of(identity(number)) for number in (1, 2, 4)
    ]
    before = {entry.key: site.bucket.read(entry.key) for entry in site.bucket.list("catalogue/")}
    site.catalogue()
    assert Removed() == site.forget()
    assert before == {entry.key: site.bucket.read(entry.key) for entry in site.bucket.list("catalogue/")}


def test_everything_expired_leaves_no_file(site: Site) -> None:
    """When the last of a day has expired its catalogue is empty, and what comes then is put into it as ever."""
    spoken(site)
    site.pass_days(11)
    site.forget()
    site.pass_days(101)
    site.forget()
    assert [] == site.bucket.list("catalogue/")
    site.catalogue()
    assert [] == site.bucket.list("catalogue/")
    assert {"runs": 0, "sessions": 0, "messages": 0, "segments": 0} == site.index.counts()


@pytest.mark.parametrize("calls", [1, 4, 8, 11, 15, 19])
def test_a_cataloguer_that_dies_is_finished(site: Site, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever request is the last one, what is kept is always found, and the next errand does the rest."""
    spoken(site)
    site.pass_days(11)
    dying = Bucket.open(str(site.bucket))
    left = [calls]

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise BucketError("cut off")
            return real(*arguments)

        return call

    for name in ("create", "delete"):
        monkeypatch.setattr(dying, name, counted(getattr(dying, name)))
    try:
        site.expiry(dying).turn([day_of(START_NS)])
    except BucketError:
        assert {identity(4), identity(2)} <= {row.session for row in Fleet(site.bucket).sessions()}
        assert all(len(Fleet(site.bucket).search(word)) == 1 for word in KEPT)
    site.catalogue()
    site.forget()
    whole = site.told()
    assert [] == [word for word in GONE if word in whole]
    assert all(len(Fleet(site.bucket).search(word)) == 1 for word in KEPT)
    names = [entry.key.rpartition("/")[2] for entry in site.bucket.list("catalogue/messages/")]
    assert ["000000000001.e2.parquet", "000000000004.parquet"] == names


@pytest.mark.parametrize(("sessions", "runs"), [([identity(1)], []), ([], [RUN])])
def test_what_is_held_stays_in_the_catalogue(site: Site, sessions: list[UUID], runs: list[UUID]) -> None:
    """A hold that was placed after the segments went keeps what the catalogue tells of them, until it is released."""
    spoken(site)
    site.pass_days(11)
    hold = Hold(id=uuid4(), reason="case", placed_by="t", placed_ns=1, sessions=frozenset(sessions), runs=frozenset(runs))
    place(site.bucket, hold)
    assert 2 == site.forget().held
    assert site.ask("search", GONE[0])[0] == 0
    release(site.bucket, hold.id, by="t", now_ns=2, reason="closed")
    site.forget()
    assert site.ask("search", GONE[0])[0] == 1


def test_only_the_hosts_own_word_counts(site: Site) -> None:
    """A record that no key of the host signed, or that is under another name or of another host, takes nothing out."""
    spoken(site)
    segments = [Deleted(sequence=3, digest=bytes(32), policy="x")]
    good = Deletion(host=HOST, written_ns=1, segments=segments)
    cases = {
        "000000000003-000000000003.deletion": good.signed(HostKey.new()).pack(),
        "000000000001-000000000003.deletion": good.signed(site.signer).pack(),
        "000000000002-000000000002.deletion": b"no record",
    }
    for name, content in cases.items():
        (site.copies / name).write_bytes(content)
    site.learn()
    assert set(cases) == site.recorder.refused
    assert [] == site.index.let_go()
    assert 4 == site.index.counts()["segments"]


def test_rows_stay_while_the_bucket_has_the_segments(site: Site) -> None:
    """A pass that died after its record is not told to the recorder before its segments have gone: it needs their rows."""
    spoken(site)
    segments = [Deleted(sequence=number, digest=bytes(32), policy="ci") for number in (1, 2)]
    deletion = Deletion(host=HOST, written_ns=1, segments=segments).signed(site.signer)
    site.bucket.create(f"host={HOST}/deletions/{deletion.name}", deletion.pack())
    site.bucket.delete(str(SegmentKey.of(HOST, 1, START_NS)))
    copies = DeletionCopies(site.bucket, HOST, site.copies)
    assert 0 == copies.bring(site.path)
    site.bucket.delete(str(SegmentKey.of(HOST, 2, START_NS)))
    assert 1 == copies.bring(site.path)
    assert 1 == copies.bring(site.path)
    site.learn()
    assert 2 == site.index.counts()["segments"]


def test_an_index_that_was_made_anew_forgets_again(site: Site) -> None:
    """Another index, which knows of no deletion, learns of all of them; what somebody brought back is taken out again."""
    spoken(site)
    backup = {path: path.read_bytes() for path in site.segments.glob("*.seg")}
    site.pass_days(11)
    site.index.close()
    for path, content in backup.items():
        path.write_bytes(content)
    for carried in (True, False):
        if not carried:
            (site.path.parent / "carried.json").unlink()
        index_segments.rebuild(site.path, site.segments)
        site.index = Index.open(site.path)
        assert site.index.search(GONE[0])
        site.learn()
        assert [] == site.index.search(GONE[0])
        assert GONE[0].encode() not in site.path.read_bytes()
        assert all(site.index.search(word) for word in KEPT)


def test_a_local_copy_that_went_takes_no_rows(site: Site) -> None:
    """What only left the host is found as before."""
    spoken(site)
    sealed_path(site.segments, 1).unlink()
    site.pass_days(1)
    assert all(site.index.search(word) for word in [*GONE, *KEPT])


@pytest.mark.parametrize("retention", [None, ("COMPLIANCE", 1)])
def test_versions_go_and_locks_hold(
    ceph: Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retention: tuple[str, int] | None
) -> None:
    """In a bucket with versions no old version is left; what it locks stays, is counted, and is not shown any more."""
    for name, value in ceph.environment.items():
        monkeypatch.setenv(name, value)
    site = Site(tmp_path, ceph.url(lock=True) if retention is None else f"s3://{ceph.make('forgetting', retention=retention)}")
    spoken(site)
    segments = [Deleted(sequence=number, digest=bytes(32), policy="ci") for number in (1, 2)]
    deletion = Deletion(host=HOST, written_ns=1, segments=segments).signed(site.signer)
    (site.copies / deletion.name).write_bytes(deletion.pack())
    site.learn()
    before = {entry.key for entry in site.bucket.list("catalogue/")}
    expiry = site.expiry()
    expiry._now_ns = time.time_ns()  # retention goes by the bucket's clock
    done = expiry.turn([day_of(START_NS)])
    after = {entry.key for entry in site.bucket.list("catalogue/")}
    old = {key for key in before if key.endswith("/000000000001.parquet")}
    assert (7, 7, 7 if retention else 0) == (len(old), done.created, done.locked)
    assert (old if retention else set()) == old & after
    assert [] == Fleet(site.bucket).search(GONE[0])
    assert Fleet(site.bucket).search(KEPT[0])
    assert site.bucket.signed is not None
    versions = [site.bucket.signed.versions(key) for key in sorted(old)]
    assert [bool(retention)] * 7 == [bool(found) for found in versions]
    site.index.close()


def test_what_somebody_deleted_before_goes_too(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that a bucket kept behind a marker of deletion, before the object was shipped again, is removed with it."""
    for name, value in ceph.environment.items():
        monkeypatch.setenv(name, value)
    bucket = Bucket.open(ceph.url(lock=True))
    bucket.create("a", b"said before")
    bucket.delete("a")
    bucket.create("a", b"said again")
    signed = bucket.signed
    assert signed is not None
    assert (1, 3) == (len(signed.versions("a")), len(signed.versions("a", deleted=True)))
    remove(bucket, "a")
    assert [] == signed.versions("a", deleted=True)


def test_days_are_those_of_what_expired() -> None:
    """Files are looked for around the time of what expired, and everywhere when nobody knows that."""
    folders = ["date=2026-01-01", "date=2026-01-09", "date=2026-01-12", "date=2026-01-14", "x"]
    at = int(datetime(2026, 1, 11, tzinfo=UTC).timestamp()) * 10**9
    assert [f"2026-01-{day:02d}" for day in (9, 12)] == [str(day) for day in days_in(folders, [(at, at)])]
    assert 4 == len(days_in(folders, [(at, at), (None, None)]))
