"""Evidence that goes on while it is verified: what is shipped, expires or leaves the host meanwhile is nobody's damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from capd.recording.bucket import Bucket
from capd.recording.deletions import Deleted, Deletion
from capd.recording.evidence.host_report import HostReport, Trust
from capd.recording.evidence.hosts import verify_shelf
from capd.recording.evidence.seals import Fault
from capd.recording.evidence.shelf import DirectoryShelf, Item, Shelf
from capd.recording.heads import head_name
from capd.recording.segment.layout import sealed_path
from tests.recording.signed_host import HOST, SEGMENTS, Host, damage
from tests.recording.test_evidence_seen import bucket_of

URL = "s3://recordings"


class Meanwhile:
    """A shelf where something happens: after it was listed, or while."""

    def __init__(self, shelf: Shelf, listed: Callable[[], None], missed: Callable[[str], bool] = lambda _key: False) -> None:
        """Take what happens once it was listed, and which keys the first list is too early for."""
        self._shelf, self._listed, self._missed = shelf, listed, missed
        self.lists = 0

    def list(self, prefix: str = "") -> Sequence[Item]:
        """Give what is there; the first time, let it happen."""
        self.lists += 1
        found = self._shelf.list(prefix)
        if self.lists > 1:
            return found
        self._listed()
        return [item for item in found if not self._missed(item.key)]

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Give a range."""
        return self._shelf.read(key, offset, length)


class AfterLists(Meanwhile):
    """A shelf where something happens once nothing is listed any more, before the first byte is read."""

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Let it happen; then give a range."""
        happen, self._listed = self._listed, lambda: None
        happen()
        return super().read(key, offset, length)

    def list(self, prefix: str = "") -> Sequence[Item]:
        """Give what is there."""
        return self._shelf.list(prefix)


def looked_at(shelf: Shelf, url: str = URL) -> HostReport:
    """Check it."""
    (report,) = verify_shelf(shelf, Trust(bucket=url), workers=2)
    return report


def expire(host: Host, day: Path, *numbers: int) -> None:
    """Let segments go from a bucket as a shipper does: first the record, then they."""
    digests = {
        seal.sequence: seal.trailer.digest for seal in looked_at(DirectoryShelf(day.parent.parent)).segments if seal.trailer
    }
    named = [Deleted(sequence=number, digest=digests[number], policy="ci") for number in numbers]
    record = Deletion(host=HOST, written_ns=1, segments=named).signed(host.key)
    (day.parent / "deletions").mkdir()
    (day.parent / "deletions" / record.name).write_bytes(record.pack())
    for number in numbers:
        sealed_path(day, number).unlink()


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> tuple[Path, Shelf]:
    """Give the folder of a day in a bucket, and the bucket: as a directory's path, and as a URL."""
    day = bucket_of(host, tmp_path / "bucket")
    kinds: dict[str, Callable[[], Shelf]] = {
        "directory": lambda: DirectoryShelf(tmp_path / "bucket"),
        "bucket": lambda: Bucket.open((tmp_path / "bucket").as_uri()),
    }
    return day, kinds[request.param]()


@pytest.mark.parametrize("numbers", [(1, 2), (3, 4), (SEGMENTS,)])
def test_what_expires_while_it_is_verified_is_expired(host: Host, place: tuple[Path, Shelf], numbers: tuple[int, ...]) -> None:
    """A policy lets segments go that were listed: the record of that is found, and the rest is whole."""
    day, shelf = place
    report = looked_at(AfterLists(shelf, lambda: expire(host, day, *numbers)))
    assert ([], [(numbers[0], numbers[-1])]) == (damage(report), report.expired)
    assert SEGMENTS - len(numbers) == len(report.segments)


def test_what_goes_without_a_record_is_missing(place: tuple[Path, Shelf]) -> None:
    """Somebody takes a segment away that was listed: that is the same as before it was."""
    day, shelf = place
    report = looked_at(AfterLists(shelf, sealed_path(day, 3).unlink))
    assert ([(Fault.MISSING, 3, None)], [(3, 3)]) == (damage(report), report.missing)


def test_what_leaves_the_host_while_it_is_verified_is_not_missed(host: Host) -> None:
    """Local copies go, the oldest first: what went before it was read is as if it had gone before the look."""

    def release() -> None:
        for number in (1, 2, 3):
            sealed_path(host.segments, number).unlink()
        (host.segments / head_name(1)).unlink()

    assert [] == damage(looked_at(AfterLists(DirectoryShelf(host.directory), release), url=""))


def test_a_file_that_goes_while_its_directory_is_listed_is_passed_over(host: Host) -> None:
    """Between its name and the question for its size a local copy may go."""
    first = sealed_path(host.segments, 1)
    first.unlink()
    first.symlink_to("gone")
    assert [] == damage(looked_at(DirectoryShelf(host.directory), url=""))


@pytest.mark.parametrize("missed", [(SEGMENTS + 1,), (SEGMENTS + 1, SEGMENTS + 2), (SEGMENTS + 2,)])
def test_what_comes_while_it_is_listed_is_not_missed(host: Host, missed: tuple[int, ...]) -> None:
    """A list takes time: it may show a head, or a segment, and not what came before that, behind its back."""
    host.record(2)
    host.say_head()
    names = {sealed_path(Path(), number).name for number in missed}
    report = looked_at(
        Meanwhile(DirectoryShelf(host.directory), lambda: None, lambda key: key.rpartition("/")[2] in names), url=""
    )
    assert [] == list(report.all_findings())


def test_what_came_last_may_not_be_all(host: Host) -> None:
    """Segments that come between two lists are taken as far as they follow each other; the rest is for the next look."""
    host.record(3)
    number = SEGMENTS + 2

    def hide() -> None:
        sealed_path(host.segments, number).rename(host.directory / "later")

    late = {sealed_path(Path(), SEGMENTS + one).name for one in (1, 2, 3)}
    report = looked_at(Meanwhile(DirectoryShelf(host.directory), hide, lambda key: key.rpartition("/")[2] in late), url="")
    assert ([], SEGMENTS + 1) == (list(report.all_findings()), report.segments[-1].sequence)
