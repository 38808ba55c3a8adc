"""Keep and let go: what is over goes and proves it, what is held, locked or not known stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from capd.daemon.deletion_copies import DeletionCopies
from capd.daemon.expiry import Expiry
from capd.daemon.retention import DAY_NS, FOR_EVER, UNKNOWN, Lifetime, Rule, Subject, lifetime
from capd.recording.bucket import Bucket
from capd.recording.bucket.errors import BucketError
from capd.recording.bucket.holds import Hold, place, read, release
from capd.recording.bucket.layout import SegmentKey
from capd.recording.deletions import Deleted, Deletion, MalformedDeletionError
from capd.recording.evidence.host_report import HostReport, Trust
from capd.recording.evidence.hosts import verify_shelf
from capd.recording.evidence.seals import Fault
from capd.recording.index import Index
from capd.recording.keys import HostKey
from capd.recording.rows import Endpoint, RunRow, SegmentRow, SessionRow
from tests.daemon.conftest import call
from tests.daemon.recorded_segments import HOST, seal
from tests.servers.ceph import Ceph
from tests.servers.kinds import LOCKING, empty_bucket

RECORDED_NS = 1_763_700_000_000_000_000
RULES = [
    Rule(name="bank", target="*.bank.example:443", keep_ns=100 * DAY_NS),
    Rule(name="ci", label="team=ci*", hot_ns=1 * DAY_NS, keep_ns=10 * DAY_NS),
    Rule(name="alice", principal="alice", keep_ns=None),
]
CI, BANK, ALICE, NOBODY = "ci", "bank", "alice", "nobody"
RUN = UUID(int=7)


def session(kind: str, number: int) -> SessionRow:
    """Give a session that falls under one of the rules, or none."""
    return SessionRow(
        session=UUID(int=(number << 8) + len(kind)),
        labels={"team": "ci-7"} if kind == CI else {},
        principal={"kind": "unix", "name": "alice" if kind == ALICE else "bob", "uid": 1000},
        target=Endpoint(host="192.0.2.7", port=443, name="pay.bank.example" if kind == BANK else None),
    )


class Desk:
    """A host that recorded some segments long ago and shipped them."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory, self.url = directory, url
        self.bucket = Bucket.open(url)
        self.signer = HostKey.new()
        self.segments = directory / "segments"
        self.copies = directory / "deletions"
        self.copies.mkdir()

    def record(self, *kinds: list[str] | None) -> None:
        """Record and ship one segment for each list of kinds of sessions; None: the index knows nothing of it."""
        paths = seal(self.segments, count=len(kinds), clock=lambda: RECORDED_NS, signer=self.signer)
        public = self.signer.public
        self.bucket.create(f"host={HOST}/keys/{public.id.hex()}.pub", public.to_text())
        with Index.open(self.directory / "capd.db") as index:
            for number, (path, members) in enumerate(zip(paths, kinds, strict=True), 1):
                self.bucket.create(self.key(number), path)
                if members is None:
                    continue
                rows = [session(kind, number) for kind in members]
                for row in rows:
                    index.upsert_session(row)
                ids = [row.session for row in rows]
                times = {"first_ns": RECORDED_NS, "last_ns": RECORDED_NS + 1, "file_bytes": 1, "raw_bytes": 1, "records": 1}
                index.upsert_segment(SegmentRow(sequence=number, host=HOST, recovered=False, sessions=[HOST, *ids], **times))
            index.commit()

    def key(self, number: int) -> str:
        """Give a segment's key."""
        return str(SegmentKey.of(HOST, number, RECORDED_NS))

    def expiry(self, rules: list[Rule] | None = None) -> Expiry:
        """Start a new shipper's part of it."""
        return Expiry(
            bucket=Bucket.open(self.url),
            host=HOST,
            rules=RULES if rules is None else rules,
            index=self.directory / "capd.db",
            segments=self.segments,
            signer=lambda: self.signer,
            copies=DeletionCopies(Bucket.open(self.url), HOST, self.copies),
            pause=lambda: True,
        )

    def after(self, days: int) -> Expiry:
        """Make one pass so many days later."""
        made = self.expiry()
        made.turn(RECORDED_NS + days * DAY_NS)
        return made

    def there(self) -> list[int]:
        """Give the numbers of the segments in the bucket."""
        found = [SegmentKey.parse(entry.key) for entry in self.bucket.list(f"host={HOST}/")]
        return [key.sequence for key in found if key is not None]

    def local(self) -> list[int]:
        """Give the numbers of the segments on the host."""
        return sorted(int(path.stem) for path in self.segments.glob("*.seg"))

    def verified(self) -> HostReport:
        """Verify the bucket."""
        reports = [report for report in verify_shelf(self.bucket, Trust(), workers=2) if report.host == HOST]
        (report,) = reports
        return report


@pytest.fixture(params=["directory", "azure", LOCKING])
def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Give a host with a bucket of each kind."""
    return Desk(tmp_path, empty_bucket(request.param, request, monkeypatch, tmp_path))


def test_what_is_over_goes_and_the_bucket_proves_it(desk: Desk) -> None:
    """Segments go when the longest of their sessions is over, there and here; `verify` says expired, and nothing is wrong."""
    desk.record([CI], [CI, CI], [CI, BANK], [CI], [CI, NOBODY], [ALICE], None, [CI])
    desk.after(9)
    assert [1, 2, 3, 4, 5, 6, 7, 8] == desk.there()
    first = desk.after(11)
    # 8 is the last one, and no head names it: that it was there is known from the record alone.
    assert (4, [3, 5, 6, 7], [3, 5, 6, 7]) == (first.expired.segments, desk.there(), desk.local())
    report = desk.verified()
    assert (set(), [], [(1, 2), (4, 4), (8, 8)]) == (report.faults, report.missing, report.expired)
    assert desk.after(11).expired.segments == 0
    desk.after(101)
    assert [5, 6, 7] == desk.there()
    report = desk.verified()
    assert (set(), [], [(1, 4), (8, 8)]) == (report.faults, report.missing, report.expired)
    assert {Fault.EXPIRED} == {finding.fault for finding in report.findings if finding.segment}


def test_without_its_record_a_segment_is_missing(desk: Desk) -> None:
    """Who deletes without the host's word is found out, also with a record that another key signed, or of something else."""
    desk.record([CI], [CI], [CI], [BANK])
    good = Deletion(host=HOST, written_ns=1, segments=[Deleted(sequence=2, digest=b"2" * 32, policy="ci")])
    desk.bucket.delete(desk.key(2))
    assert {Fault.MISSING} == desk.verified().faults
    forged = good.signed(HostKey.new())
    desk.bucket.create(f"host={HOST}/deletions/{forged.name}", forged.pack())
    report = desk.verified()
    assert ({Fault.MISSING, Fault.UNKNOWN_KEY}, [(2, 2)]) == (report.faults, report.missing)
    desk.bucket.delete(f"host={HOST}/deletions/{forged.name}")
    wrong = good.signed(desk.signer)
    desk.bucket.create(f"host={HOST}/deletions/{wrong.name}", wrong.pack())
    assert {Fault.ORDER} == desk.verified().faults, "segment 3 names another footer than the record"


def test_a_pass_that_dies_is_finished(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever deletion fails, the bucket is whole to who verifies it, and a later pass does the rest."""
    desk.record([CI], [CI], [CI], [CI], [BANK])
    for survivors in (3, 2, 1):
        dying = desk.expiry()
        left = [4 - survivors if survivors == 3 else 1]
        real = dying._delete

        def delete(key: str) -> None:
            if not left[0]:  # noqa: B023 - called in this round
                raise BucketError("cut off")
            left[0] -= 1  # noqa: B023 - as above
            real(key)  # noqa: B023 - as above

        monkeypatch.setattr(dying, "_delete", delete)
        with pytest.raises(BucketError, match="cut off"):
            dying.turn(RECORDED_NS + 11 * DAY_NS)
        assert survivors + 1 == len(desk.there())
        report = desk.verified()
        assert (set(), []) == (report.faults, report.missing)
    assert 1 == desk.after(11).expired.segments
    assert ([5], [(1, 4)]) == (desk.there(), desk.verified().expired)


def test_a_hold_keeps_and_its_release_lets_go(desk: Desk) -> None:
    """What a hold names stays, in the words of the bucket's own legal hold too where it has one; the rest goes."""
    desk.record([CI], [CI], [CI], [BANK])
    hold = Hold(
        id=uuid4(),
        reason="case 4711",
        placed_by="t",
        placed_ns=1,
        sessions=frozenset([session(CI, 2).session]),
        hosts=frozenset([HOST]),
    )
    place(desk.bucket, hold)
    made = desk.after(11)
    assert ([2, 4], 1, 1) == (desk.there(), made.expired.holds, made.expired.held)
    if desk.bucket.signed is not None:
        assert (True, False) == (desk.bucket.signed.held(desk.key(2)), desk.bucket.signed.held(desk.key(4)))
    assert release(desk.bucket, hold.id, by="u", now_ns=2, reason="closed")
    assert not release(desk.bucket, hold.id, by="u", now_ns=3, reason="closed again")
    assert [("u", 2, "closed")] == [one.released for one in read(desk.bucket)]
    desk.after(11)
    assert [4] == desk.there()


def test_a_hold_on_a_run_keeps_its_sessions(desk: Desk) -> None:
    """A segment that holds records of a run's sessions alone is held with the run; so is one whose runs nobody knows."""
    desk.record([CI], [CI], [CI], [BANK])
    with Index.open(desk.directory / "capd.db") as index:
        index.upsert_session(replace(session(CI, 1), run=UUID(int=8)))
        index.upsert_session(replace(session(CI, 2), run=RUN))
    hold = Hold(id=uuid4(), reason="case 4711", placed_by="t", placed_ns=1, runs=frozenset([RUN]))
    place(desk.bucket, hold)
    made = desk.after(11)
    assert ([2, 3, 4], 2) == (desk.there(), made.expired.held)
    if desk.bucket.signed is not None:
        assert desk.bucket.signed.held(desk.key(2))


def test_a_hold_counts_from_when_it_is_placed(tmp_path: Path) -> None:
    """What a pass had not come to when a hold was placed stays, though it had read the holds before."""
    (tmp_path / "bucket").mkdir()
    desk = Desk(tmp_path, str(tmp_path / "bucket"))
    desk.record([CI], [BANK], [CI], [BANK], [CI])
    passing = desk.expiry()
    asked = iter(range(9))

    def pause() -> bool:
        if next(asked) == 1:
            place(desk.bucket, Hold(id=uuid4(), reason="case 4711", placed_by="t", placed_ns=1))
        return True

    passing._pause = pause
    passing.turn(RECORDED_NS + 11 * DAY_NS)
    assert [2, 3, 4, 5] == desk.there()
    assert (2, [2, 3, 4, 5]) == (desk.after(11).expired.held, desk.there())


def test_a_hold_counts_for_what_goes_together(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what one record of deletion names, those segments stay that had not gone when a hold was placed; all is whole."""
    desk.record([CI], [CI], [CI], [CI], [BANK])
    passing = desk.expiry()
    hold = Hold(id=uuid4(), reason="case 4711", placed_by="t", placed_ns=1)
    real = passing._delete

    def delete(key: str) -> None:
        real(key)
        if len(desk.there()) == 3:
            place(desk.bucket, hold)

    monkeypatch.setattr(passing, "_delete", delete)
    passing.turn(RECORDED_NS + 11 * DAY_NS)
    report = desk.verified()
    assert ([3, 4, 5], set(), [(1, 2)]) == (desk.there(), report.faults, report.expired)
    assert (2, [3, 4, 5]) == (desk.after(11).expired.held, desk.there())
    assert release(desk.bucket, hold.id, by="u", now_ns=2, reason="closed")
    desk.after(11)
    assert ([5], [(1, 4)]) == (desk.there(), desk.verified().expired)


def test_a_hold_that_cannot_be_read_stops_all_deletion(desk: Desk) -> None:
    """What a later capd wrote, or what is damaged, might hold anything."""
    desk.record([CI], [BANK])
    for content in (b"no json", b'{"version": 2}', b'{"version": 1, "hold": 5}', b"[]"):
        key = f"holds/{uuid4()}.hold"
        desk.bucket.create(key, content)
        with pytest.raises(BucketError, match="no hold"):
            desk.after(11)
        desk.bucket.delete(key)
    assert [1, 2] == desk.there()


def test_what_the_bucket_locks_stays_and_nothing_is_claimed(
    ceph: Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under default retention nothing is deleted before it is over, and no record says that it was."""
    for name, value in ceph.environment.items():
        monkeypatch.setenv(name, value)
    desk = Desk(tmp_path, f"s3://{ceph.make('locked', retention=('COMPLIANCE', 1))}")
    desk.record([CI], [CI])
    # Retention goes by the bucket's clock: the pass must be of today.
    made = desk.expiry([Rule(name="now", keep_ns=0)])
    made.turn(RECORDED_NS + DAY_NS)
    assert ([1, 2], 2, 0) == (desk.there(), made.expired.locked, made.expired.segments)
    assert [] == desk.bucket.list(f"host={HOST}/deletions/")
    assert [1, 2] == desk.local()


def test_no_rule_deletes_nothing(desk: Desk) -> None:
    """Without rules, and without an index, everything stays for ever."""
    desk.record([CI], None)
    desk.expiry([]).turn(RECORDED_NS + 10_000 * DAY_NS)
    assert [1, 2] == desk.there()


def subject(kind: str) -> Subject:
    """Give a subject that falls under one of the rules, or none."""
    row = session(kind, 1)
    targets = [f"{row.target.name}:443"] if row.target.name else []
    return Subject(principals=["alice" if kind == ALICE else "bob"], targets=targets, labels=row.labels)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([], FOR_EVER),
        ([CI], Lifetime(policy="ci", hot_ns=DAY_NS, keep_ns=10 * DAY_NS)),
        ([CI, BANK], Lifetime(policy="bank", hot_ns=None, keep_ns=100 * DAY_NS)),
        ([BANK, CI], Lifetime(policy="bank", hot_ns=None, keep_ns=100 * DAY_NS)),
        ([CI, ALICE], Lifetime(policy="alice", hot_ns=None, keep_ns=None)),
        ([CI, NOBODY], FOR_EVER),
    ],
)
def test_lifetime_of_a_segment_is_the_longest(kinds: list[str], expected: Lifetime) -> None:
    """One session that nobody's rule fits, or whose rule says for ever, keeps all of a segment."""
    assert expected == lifetime([subject(kind) for kind in kinds], RULES)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (RULES[:2], FOR_EVER),
        ([*RULES[:2], Rule(name="rest", keep_ns=50 * DAY_NS)], Lifetime(policy="bank", hot_ns=None, keep_ns=100 * DAY_NS)),
        ([Rule(name="rest", keep_ns=5 * DAY_NS), *RULES], Lifetime(policy="rest", hot_ns=None, keep_ns=5 * DAY_NS)),
        ([*RULES, Rule(name="rest", keep_ns=5 * DAY_NS)], Lifetime(policy="alice", hot_ns=None, keep_ns=None)),
    ],
)
def test_of_whom_nothing_is_known_any_rule_may_fit(rules: list[Rule], expected: Lifetime) -> None:
    """A session whose beginning no segment here tells is kept as long as any rule says that could be its own."""
    assert expected == lifetime([UNKNOWN], rules)


def test_an_index_that_was_made_of_later_segments_lets_nothing_go_too_early(desk: Desk) -> None:
    """Whose a session was stands in its first segment: without that the longest class counts, for a run as for a session."""
    desk.record([CI], [CI], [CI])
    with Index.open(desk.directory / "capd.db") as index:
        index._connection.execute("DELETE FROM sessions WHERE session = ?", [str(session(CI, 1).session)])
        index.upsert_session(SessionRow(session=session(CI, 1).session, started_ns=RECORDED_NS))
        index._connection.execute("DELETE FROM sessions WHERE session = ?", [str(session(CI, 2).session)])
        index.upsert_run(RunRow(run=session(CI, 2).session, started_ns=RECORDED_NS))
    rules = [*RULES[:2], Rule(name="rest", keep_ns=10 * DAY_NS)]
    desk.expiry(rules).turn(RECORDED_NS + 11 * DAY_NS)
    assert [1, 2] == desk.there()
    desk.expiry(rules).turn(RECORDED_NS + 101 * DAY_NS)
    assert [] == desk.there()


def test_rules_match_by_pattern_and_the_first_decides() -> None:
    """All patterns of a rule have to fit; a rule without patterns fits everything."""
    rules = [Rule(name="both", principal="b*", label="team=ci*", keep_ns=1), Rule(name="rest", keep_ns=2)]
    assert ["both", "rest", "rest"] == [lifetime([subject(kind)], rules).policy for kind in (CI, ALICE, NOBODY)]


@pytest.mark.parametrize(
    ("changes", "covered"),
    [
        ({}, True),
        ({"hosts": {HOST}}, True),
        ({"hosts": {UUID(int=1)}}, False),
        ({"sessions": {UUID(int=5)}}, True),
        ({"sessions": {UUID(int=6)}}, False),
        ({"sessions": {UUID(int=6)}, "runs": {UUID(int=5)}}, True),
        ({"from_ns": 200}, True),
        ({"from_ns": 201}, False),
        ({"until_ns": 100}, False),
        ({"until_ns": 101}, True),
        ({"hosts": {HOST}, "sessions": {UUID(int=6)}}, False),
    ],
)
def test_a_hold_covers_what_fits_all_that_it_names(changes: dict[str, object], covered: bool) -> None:
    """Hosts, sessions or runs, and time have to fit; a segment of which nothing is known counts as held."""
    hold = Hold(id=uuid4(), reason="", placed_by="", placed_ns=0, **changes)  # type: ignore[arg-type] # a table of fields
    assert covered == hold.covers(HOST, [UUID(int=5)], 100, 200)
    if not hold.hosts and hold.from_ns is None and hold.until_ns is None:
        assert hold.covers(HOST, None, 100, 200)


@pytest.mark.parametrize("until", ["2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"])
def test_a_hold_on_no_time_is_refused(tmp_path: Path, until: str) -> None:
    """Who took beginning and end for each other is told, and does not leave with the id of a hold that holds nothing."""
    done = call("hold", "add", "--bucket", str(tmp_path), "--reason", "x", "--since", "2026-11-01T00:00:00Z", "--until", until)
    assert (2, "", []) == (done.returncode, done.stdout, read(Bucket.open(str(tmp_path))))
    assert "--since" in done.stderr


def test_records_of_deletion_are_read_as_written() -> None:
    """A record comes back as it was, its signature holds, and no change of it goes unnoticed."""
    signer = HostKey.new()
    segments = [Deleted(sequence=number, digest=bytes([number]) * 32, policy="ci") for number in (7, 8)]
    made = Deletion(host=HOST, written_ns=5, segments=segments).signed(signer)
    found = Deletion.parse(made.pack())
    assert (made, "000000000007-000000000008.deletion") == (found, found.name)
    assert signer.public.verifies(found.signature, found.message)
    changed = Deletion.parse(
        made.pack().replace(b'"sequence":8', b'"sequence":8').replace(b'"written_ns":5', b'"written_ns":6')
    )
    assert not signer.public.verifies(changed.signature, changed.message)
    for data in (
        b"",
        b"{}",
        b"[]",
        made.pack().replace(b'"version":1', b'"version":2'),
        made.pack().replace(b'"sequence":8', b'"sequence":9'),
    ):
        with pytest.raises(MalformedDeletionError):
            Deletion.parse(data)


def test_holds_on_the_command_line(tmp_path: Path) -> None:
    """A hold is placed, listed, and released once; a bucket that is none is told."""
    bucket = ["--bucket", str(tmp_path)]
    added = call("hold", "add", *bucket, "--reason", "case 4711", "--host", str(HOST), "--since", "2026-11-01T00:00:00Z")
    assert (0, 37) == (added.returncode, len(added.stdout)), added.stderr
    hold = added.stdout.strip()
    assert "1 hosts, a time range" in call("hold", "list", *bucket).stdout
    (found,) = read(Bucket.open(str(tmp_path)))
    assert (hold, "case 4711", frozenset([HOST]), 1_793_491_200 * 10**9) == (
        str(found.id),
        found.reason,
        found.hosts,
        found.from_ns,
    )
    assert hold in call("hold", "list", *bucket, "--json").stdout
    assert 0 == call("hold", "remove", *bucket, hold, "--reason", "closed").returncode
    assert "before" in call("hold", "remove", *bucket, hold, "--reason", "closed").stderr
    assert "released" in call("hold", "list", *bucket).stdout
    assert 9 == call("hold", "remove", *bucket, str(UUID(int=1)), "--reason", "x").returncode
    assert 2 == call("hold", "list", "--bucket", "nonsense").returncode
