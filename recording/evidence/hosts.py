"""A host's recording as a whole: its segments, heads and keys held against each other, and against what was seen before.

What lives here: the chain, signatures, heads, pins, and the walk over a shelf. What must not: frames, content, presentation.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.recording.bucket.layout import SegmentKey
from capd.recording.deletions import RECORD_BYTES_MAX, Deletion, MalformedDeletionError, is_deletion
from capd.recording.errors import CapdError, HostKeyError
from capd.recording.evidence.host_report import HostReport, Trust
from capd.recording.evidence.key_order import KeyOrder
from capd.recording.evidence.listing import by_host, in_a_row, sealed_number, went
from capd.recording.evidence.pins import Pin
from capd.recording.evidence.seals import Fault, Finding, SegmentSeal, check_segment
from capd.recording.evidence.shelf import Item, Shelf, evidence, folder_of, is_key, is_sealed, name_of
from capd.recording.heads import HEAD, IDLE_NS, Head, MalformedHeadError
from capd.recording.heads import number_of as head_number
from capd.recording.keys import KEY_FILE_BYTES_MAX, PublicKey, trusted
from capd.recording.segment.layout import UNSIGNED_VERSION, FileHeader, sequence_of
from capd.recording.segment.trailer import seal_message

AHEAD: Final = 256
"""Segments in work at once, so that their footers are not all in memory together."""
SILENT_NS: Final = 2 * IDLE_NS
NS_PER_HOUR: Final = 3600 * 1_000_000_000


def verify_shelf(shelf: Shelf, trust: Trust, *, workers: int | None = None) -> Iterator[HostReport]:
    """Check all that lies on a shelf, host by host.

    Raises:
        CapdError: it cannot be read.
    """
    groups = by_host(shelf)
    owners: dict[bytes, UUID | None] = {}
    threads = workers or max(2, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        for host, items in sorted(groups.items(), key=lambda group: str(group[0])):
            report = _HostCheck(shelf, trust, host).run(items, pool)
            _tell_shared(report, owners)
            yield report
    for host, pin in sorted(trust.pins.items()):
        if trust.bucket in pin.buckets and host not in groups:
            yield _gone(host, pin)


def _tell_shared(report: HostReport, owners: dict[bytes, UUID | None]) -> None:
    """Tell of a key that signed for two hosts: whoever owns one of them can speak for the other.

    That is no damage: a host that was given another id has its key still.
    """
    for key in sorted(report.signers):
        other = owners.setdefault(key, report.host)
        if other != report.host:
            words = f"key {key.hex()} signed for host {other} as well: who has the key of one can sign for the other"
            report.findings.append(Finding(fault=Fault.UNKNOWN_KEY, message=words, damage=False))


def _gone(host: UUID, pin: Pin) -> HostReport:
    """Tell of a host of which nothing is left where it was seen before: not even a key, or a record of what was let go."""
    words = f"nothing of this host is here any more: segment {pin.sequence} and head {pin.head} were seen in this bucket"
    missing = Finding(fault=Fault.MISSING, message=words)
    return HostReport(host=host, findings=[missing], pin=pin, in_bucket=True)


class _HostCheck:
    """The checks of one host, and what they saw."""

    def __init__(self, shelf: Shelf, trust: Trust, host: UUID | None) -> None:
        self._shelf = shelf
        self._trust = trust
        self.report = HostReport(host=host, in_bucket=host is not None or bool(trust.bucket))
        self._keys: dict[bytes, PublicKey] = {}
        self._known: set[bytes] = set()
        self._chosen = False
        self._digests: dict[int, bytes] = {}
        self._before: SegmentSeal | None = None
        self._folder = ""
        """Where all of it is."""
        self._begins = 0
        """Number of the first segment that was here when the place was looked at again; 0: it was not."""
        self._records: set[str] = set()
        """Keys of the records of deletion that were read."""
        self._deletions: list[Deletion] = []
        """What they say, until it is known whose signatures count."""
        self._believed: list[Deletion] = []
        self._deleted: dict[int, bytes] = {}
        """Footers of the segments that were let go; filled once it is known whose signatures count."""
        self._gone: Sequence[int] = ()
        """Their numbers, in order."""
        self._heads: dict[int, bytes] = {}
        self._signers = KeyOrder({}, (), "segment")
        self._head_signers = KeyOrder({}, (), "head")

    def run(self, items: Sequence[Item], pool: ThreadPoolExecutor) -> HostReport:
        report = self.report
        self._folder = folder_of(items[0].key)
        numbers = {item.key: number for item in items if (number := sequence_of(Path(name_of(item.key)))) is not None}
        # An open segment has no seal to check; its end, which a recovery may cut, is nobody's loss.
        sealed = [item for item in items if item.key in numbers and is_sealed(item.key)]
        if self._trust.bucket:
            self._judge_places(items, numbers.keys())
        wanted = sorted(sealed, key=lambda item: numbers[item.key])
        heads = self._read_heads(items)
        public = self._read_keys(items)
        self._read_deletions(items)
        for start in range(0, len(wanted), AHEAD):
            together = list(pool.map(lambda item: check_segment(self._shelf, item), wanted[start : start + AHEAD]))
            if None in together:
                self._look_again()
            for seal in together:
                if seal is None:
                    continue
                if report.host is None:
                    report.host = seal.header.host if seal.header else None
                self._choose_keys(public, seal, heads)
                self._take(seal)
        self._choose_keys(public, None, heads)
        self._judge_heads(heads)
        self._judge_deleted()
        self._tell_expired_end()
        self._judge_pin()
        if report.signed_from is None and report.unsigned:
            self._find(Fault.UNSIGNED, "no segment is signed")
        return report

    def _find(self, fault: Fault, message: str, *, segment: int | None = None, damage: bool = True) -> None:
        self.report.findings.append(Finding(fault=fault, message=message, segment=segment, damage=damage))

    def _read(self, key: str, length: int) -> bytes | None:
        """Give the beginning of a file; None: it is not there any more."""
        try:
            return self._shelf.read(key, 0, length)
        except CapdError as error:
            if went(error):
                return None
            raise

    def _look_again(self) -> None:
        """Segments went since they were listed: find the records that say why, and how much left the host."""
        items = self._shelf.list(self._folder)
        self._read_deletions(items)
        if self._chosen:
            self._judge_deletions()
        if not self.report.in_bucket:
            self._begins = min((number for item in items if (number := sealed_number(item)) is not None), default=0)

    # -- places ----------------------------------------------------------------------------------------------------------------

    def _judge_places(self, items: Iterable[Item], segments: Collection[str]) -> None:
        """Tell what lies in a bucket as no capd puts it there: readers pass over it, and would not miss it."""
        unsealed = [key for key in segments if not is_sealed(key)]
        if unsealed:
            self._find(Fault.ORDER, f"{unsealed[0]} is not sealed: no shipper puts such a segment into a bucket")
        outside = [item.key for item in items if self.report.host is None and evidence(name_of(item.key))]
        if outside:
            more = f" and {len(outside) - 1:,} more" if len(outside) > 1 else ""
            self._find(Fault.ORDER, f"in no host's folder, where no reader looks: {outside[0]}{more}")

    def _judge_place(self, seal: SegmentSeal, header: FileHeader) -> None:
        """Hold a segment's key in a bucket against the one that it must have there: at any other no reader finds it."""
        if not self._trust.bucket or (header.host, header.sequence) != (self.report.host, seal.sequence):
            return  # no bucket, or told already
        own = str(SegmentKey.of(header.host, header.sequence, header.created_ns))
        if seal.key != own:
            seal.find(Fault.ORDER, f"it lies at {seal.key}, where no reader looks for it; its place is {own}")

    # -- keys ------------------------------------------------------------------------------------------------------------------

    def _read_keys(self, items: Iterable[Item]) -> list[PublicKey]:
        found = list(self._trust.keys)
        for item in items:
            if is_key(name_of(item.key)):
                try:
                    if (data := self._read(item.key, KEY_FILE_BYTES_MAX)) is not None:
                        found.append(PublicKey.from_text(data, item.key))
                except HostKeyError as error:
                    self._find(Fault.ALTERED, str(error))
        return found

    def _choose_keys(self, public: Sequence[PublicKey], seal: SegmentSeal | None, heads: Sequence[Head]) -> None:
        """Decide which key is trusted for itself: one given by hand, the pinned one, else that of the first signature."""
        report = self.report
        if report.host is None:
            report.host = next((head.host for head in heads), None)
        if self._chosen or report.host is None:
            return
        pin = self._trust.pins.get(report.host)
        report.pin = pin
        if seal is not None and not (seal.trailer and seal.trailer.key_id):
            return  # nothing to choose by yet
        self._chosen = True
        self._trust_keys(public, pin, seal, heads)
        self._judge_deletions()

    def _trust_keys(
        self, public: Sequence[PublicKey], pin: Pin | None, seal: SegmentSeal | None, heads: Sequence[Head]
    ) -> None:
        """Fill what is trusted, and take the root of it down."""
        report = self.report
        assert report.host is not None
        keys = {key.id: key for key in public}
        if self._trust.keys:
            roots = [key.id for key in self._trust.keys]
        elif pin is not None:
            pinned = PublicKey(raw=pin.key)
            keys.setdefault(pinned.id, pinned)
            roots = [pinned.id]
        else:
            roots = _first(keys, seal, heads)
        self._known = set(keys)
        self._keys = trusted(keys.values(), report.host, roots)
        seen = (pin.sequence, pin.signer) if pin is not None and pin.sequence else None
        self._signers = KeyOrder(self._keys, roots, "segment", seen=seen)
        self._head_signers = KeyOrder(self._keys, roots, "head")
        report.root = next((self._keys[root] for root in roots if root in self._keys), None)
        report.keys = sorted(self._keys)

    def _signed(self, key_id: bytes, signature: bytes, message: bytes) -> tuple[Fault, str] | None:
        """Say what is wrong with a signature; None when nothing is."""
        key = self._keys.get(key_id)
        if key is not None:
            if not key.verifies(signature, message):
                return Fault.ALTERED, f"it is not what key {key_id.hex()} signed"
            self.report.signers.add(key_id)
            return None
        if key_id in self._known:
            return Fault.UNKNOWN_KEY, f"signed with key {key_id.hex()}, for which no trusted key of this host vouches"
        return Fault.UNKNOWN_KEY, f"signed with key {key_id.hex()}, which is not here"

    # -- segments --------------------------------------------------------------------------------------------------------------

    def _take(self, seal: SegmentSeal) -> None:
        """Hold a segment against the one before it."""
        report, before = self.report, self._before
        report.segments.append(seal)
        if seal.header is not None and seal.header.host != report.host:
            seal.find(Fault.ORDER, f"it is a segment of host {seal.header.host}")
        if seal.header is not None:
            self._judge_place(seal, seal.header)
        if before is not None and seal.sequence == before.sequence:
            seal.find(Fault.ORDER, f"there are two segments {seal.sequence}: the other is {before.key}")
        elif before is not None and seal.sequence > before.sequence + 1:
            self._miss(before.sequence + 1, seal.sequence - 1)
        elif before is None:
            self._tell_start(seal.sequence)
        self._check_previous(seal)
        self._check_signature(seal)
        if seal.trailer is not None:
            self._digests[seal.sequence] = seal.trailer.digest
        if before is not None:
            before.footer = None  # of a million segments not all may stay
        self._before = seal

    def _miss(self, first: int, last: int, reason: str = "") -> None:
        """Tell what is not there: segments that a policy let go apart from those that nobody accounts for."""
        only = self._trust.only
        for gone, *ends in self._parted(first, last):
            together = ends if only is None else sorted(number for number in only if ends[0] <= number <= ends[1])
            if gone and together:
                self._expire(together[0], together[-1])
            elif together:
                self._miss_unaccounted(together[0], together[-1], reason)

    def _parted(self, first: int, last: int) -> Iterator[tuple[bool, int, int]]:
        """Divide a range of numbers, as large as whoever named a file liked, by whether a policy let them go."""
        gone = self._gone[bisect_left(self._gone, first) : bisect_right(self._gone, last)]
        at = first
        for one, other in in_a_row(gone):
            if at < one:
                yield False, at, one - 1
            yield True, one, other
            at = other + 1
        if at <= last:
            yield False, at, last

    def _tell_start(self, first: int) -> None:
        """Tell which segments before the first one here a policy let go, and of a bucket, which it begins without.

        From a host local copies go once they are shipped. A bucket has all that was shipped to it, so only a verifier that saw
        more of it before knows that its beginning is missing.
        """
        pin = self._trust.pins.get(self.report.host) if self.report.host is not None else None
        seen_from = pin.first if pin is not None else 0
        for gone, one, other in self._parted(1, first - 1):
            if gone:
                self._expire(one, other)
            elif self.report.in_bucket and self._trust.only is None:
                unseen = min(other, seen_from - 1) if seen_from else other
                if one <= unseen:
                    words = (
                        f"{_named(one, unseen)} not here, and no record says why: it begins later, or its beginning was removed"
                    )
                    self._find(Fault.MISSING, words, segment=one, damage=False)
                if unseen < other:
                    self._miss_unaccounted(max(one, unseen + 1), other, " that was seen in a bucket before")

    def _tell_expired_end(self) -> None:
        """Tell which segments a policy let go that nothing else asked for: after the last one here and the newest head."""
        told = {number for first, last in self.report.expired for number in range(first, last + 1)}
        rest = sorted(self._deleted.keys() - told - self._digests.keys())
        for first, last in in_a_row(rest):
            self._expire(first, last)

    def _expire(self, first: int, last: int) -> None:
        self.report.expired.append((first, last))
        words = f"segment {first} expired" if first == last else f"segments {first} to {last} expired"
        self._find(Fault.EXPIRED, f"{words} by policy, as a signed record says", segment=first, damage=False)

    def _miss_unaccounted(self, first: int, last: int, reason: str) -> None:
        if last < self._begins:
            return  # it left the host while it was looked at, as what is before the first segment did earlier
        self.report.missing.append((first, last))
        self._find(Fault.MISSING, f"{_named(first, last)} missing{reason}", segment=first)

    def _check_previous(self, seal: SegmentSeal) -> None:
        footer, before = seal.footer, self._before
        if footer is None or footer.header.version == UNSIGNED_VERSION:
            return
        if seal.sequence == 1 and footer.previous is not None:
            seal.find(Fault.ORDER, "it names a segment before it, and is the first")
        gone = self._deleted.get(seal.sequence - 1)
        if gone is not None and (before is None or before.sequence != seal.sequence - 1) and footer.previous != gone:
            seal.find(Fault.ORDER, f"it does not follow segment {seal.sequence - 1} as the record of its deletion tells")
        if before is None or before.trailer is None or before.sequence != seal.sequence - 1:
            return
        if footer.previous != before.trailer.digest:
            words = f"it does not follow segment {before.sequence} as that is here: one of the two was exchanged"
            seal.find(Fault.ORDER, words)

    def _check_signature(self, seal: SegmentSeal) -> None:
        report, trailer, header = self.report, seal.trailer, seal.header
        if trailer is None or header is None:
            return
        if trailer.key_id:
            if report.signed_from is None:
                report.signed_from = seal.sequence
            problem = self._signed(
                trailer.key_id, trailer.signature, seal_message(header.host, header.sequence, trailer.digest)
            )
            if problem is None and (words := self._signers.take(seal.sequence, trailer.key_id)) is not None:
                problem = (Fault.REPLACED_KEY, words)
            if problem is not None:
                seal.find(*problem)
            return
        report.unsigned += 1
        seen = [number for number in (report.signed_from, report.pin.signed_from if report.pin else None) if number is not None]
        if seen and seal.sequence >= min(seen):
            seal.find(Fault.UNSIGNED, f"nobody signed it, although segment {min(seen)} was signed")
        else:
            words = "written by a capd that did not sign yet" if header.version == UNSIGNED_VERSION else "nobody signed it"
            seal.find(Fault.UNSIGNED, words, damage=False)

    # -- deletions -------------------------------------------------------------------------------------------------------------

    def _read_deletions(self, items: Iterable[Item]) -> None:
        for item in items:
            if is_deletion(name_of(item.key)) and item.key not in self._records:
                self._records.add(item.key)
                try:
                    if (data := self._read(item.key, RECORD_BYTES_MAX)) is not None:
                        self._deletions.append(Deletion.parse(data))
                except MalformedDeletionError as error:
                    self._find(Fault.ALTERED, f"{name_of(item.key)}: {error}")

    def _judge_deletions(self) -> None:
        """Believe the records of deletion that the host signed, and tell the others."""
        for deletion in self._deletions:
            problem = self._signed(deletion.key_id, deletion.signature, deletion.message)
            if deletion.host != self.report.host:
                problem = (Fault.ORDER, f"it is a record of host {deletion.host}")
            if problem is not None:
                self._find(problem[0], f"{deletion.name}: {problem[1]}")
                continue
            self._believed.append(deletion)
            self._deleted |= {one.sequence: one.digest for one in deletion.segments}
        self._deletions = []
        self._gone = sorted(self._deleted)

    def _judge_deleted(self) -> None:
        """Hold records of deletion against the segments: who signed these, and those that are still here."""
        for deletion in self._believed:
            words = self._signers.judge(deletion.segments[-1].sequence, deletion.key_id)
            if words is not None:
                self._find(Fault.REPLACED_KEY, f"{deletion.name}: {words}")
        for number in sorted(self._deleted.keys() & self._digests.keys()):
            if self._deleted[number] != self._digests[number]:
                words = f"segment {number} is another one than the record of its deletion names"
                self._find(Fault.ORDER, words, segment=number)

    # -- heads -----------------------------------------------------------------------------------------------------------------

    def _read_heads(self, items: Iterable[Item]) -> list[Head]:
        heads = []
        for item in items:
            number = head_number(name_of(item.key))
            if number is None:
                continue
            if (data := self._read(item.key, HEAD.size + 1)) is None:
                continue
            self.report.heads += 1
            try:
                head = Head.parse(data)
            except MalformedHeadError as error:
                self._find(Fault.ALTERED, f"head {number}: {error}")
                continue
            if head.number != number:
                self._find(Fault.ORDER, f"head {head.number} is in the place of head {number}")
            heads.append(head)
        return sorted(heads, key=lambda head: head.number)

    def _judge_heads(self, heads: Sequence[Head]) -> None:
        before: Head | None = None
        for head in heads:
            problem = self._signed(head.key_id, head.signature, head.message)
            if head.host != self.report.host:
                problem = (Fault.ORDER, f"it is a head of host {head.host}")
            if problem is not None:
                self._find(problem[0], f"head {head.number}: {problem[1]}")
                continue
            words = self._head_signers.take(head.number, head.key_id) or self._signers.judge(head.sequence, head.key_id)
            if words is not None:
                self._find(Fault.REPLACED_KEY, f"head {head.number}: {words}")
            if before is not None and head.number > before.number + 1:
                if self._trust.only is None:
                    self._find(Fault.MISSING, f"heads {before.number + 1} to {head.number - 1} are missing")
            elif before is not None and head.previous != before.own_digest:
                self._find(Fault.ORDER, f"head {head.number} does not follow head {before.number} as that is here")
            digest = self._digests.get(head.sequence, self._deleted.get(head.sequence))
            if digest is not None and digest != head.digest:
                words = f"segment {head.sequence} is another one than head {head.number} names"
                self._find(Fault.ORDER, words, segment=head.sequence)
            before = self.report.head = head
            self._heads[head.number] = head.own_digest
        self._judge_end()

    def _judge_end(self) -> None:
        """Hold the end of the recording against the newest head."""
        report, head = self.report, self.report.head
        if head is None:
            if report.signed_from is not None and self._trust.only is None:
                self._find(Fault.SILENT, "there is no head: a missing end would not show", damage=False)
            return
        last = max(self._digests, default=head.sequence if not report.segments else 0)
        if head.sequence > last and report.segments:
            self._miss(last + 1, head.sequence, f" at the end, as head {head.number} tells")
        elif head.sequence and not report.segments:
            self._miss(1, head.sequence, f", as head {head.number} tells")
        now_ns = self._trust.now_ns
        if now_ns is not None and not head.final and now_ns - head.written_ns > SILENT_NS:
            hours = (now_ns - head.written_ns) // NS_PER_HOUR
            words = f"the last head is {hours} h old; capd writes one at least every hour while it runs"
            self._find(Fault.SILENT, words, damage=False)

    def _judge_pin(self) -> None:
        """Hold what is here against what was seen before."""
        report, pin = self.report, self.report.pin
        if pin is None:
            return
        newest = report.head.number if report.head else 0
        if newest < pin.head:
            self._find(Fault.ROLLED_BACK, f"head {pin.head} was seen before; the newest one here is {newest or 'none'}")
        elif self._heads.get(pin.head, pin.head_digest) != pin.head_digest:
            self._find(Fault.ROLLED_BACK, f"head {pin.head} is another one than was seen before")
        last = max(self._digests, default=0)
        if max((last, *self._deleted)) < pin.sequence:
            self._find(Fault.ROLLED_BACK, f"segment {pin.sequence} was seen before; the newest one here is {last or 'none'}")
        elif self._digests.get(pin.sequence, self._deleted.get(pin.sequence, pin.digest)) != pin.digest:
            words = f"segment {pin.sequence} is another one than was seen before"
            self._find(Fault.ROLLED_BACK, words, segment=pin.sequence)


def _named(first: int, last: int) -> str:
    return f"segment {first} is" if first == last else f"segments {first} to {last} are"


def _first(keys: Mapping[bytes, PublicKey], seal: SegmentSeal | None, heads: Sequence[Head]) -> list[bytes]:
    """Give the key at the start of the succession that the oldest signature here was made in."""
    oldest = seal.trailer.key_id if seal is not None and seal.trailer is not None else b""
    current = keys.get(oldest) or next((keys[head.key_id] for head in heads if head.key_id in keys), None)
    seen: set[bytes] = set()
    while current is not None and current.predecessor in keys and current.id not in seen:
        seen.add(current.id)
        current = keys[current.predecessor]
    return [] if current is None else [current.id]
