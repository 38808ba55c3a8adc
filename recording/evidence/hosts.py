"""A host's recording as a whole: its segments, heads and keys held against each other, and against what was seen before.

What lives here: the chain, signatures, heads, pins, and the walk over a shelf. What must not: frames, content, presentation.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.recording.deletions import RECORD_BYTES_MAX, Deletion, MalformedDeletionError, is_deletion
from capd.recording.errors import HostKeyError
from capd.recording.evidence.pins import Pin
from capd.recording.evidence.seals import Fault, Finding, SegmentSeal, check_segment
from capd.recording.evidence.shelf import Item, Shelf, host_of, is_key, is_sealed, name_of
from capd.recording.heads import IDLE_NS, Head, MalformedHeadError
from capd.recording.heads import number_of as head_number
from capd.recording.keys import PublicKey, trusted
from capd.recording.segment.layout import UNSIGNED_VERSION, sequence_of
from capd.recording.segment.trailer import seal_message

AHEAD: Final = 256
"""Segments in work at once, so that their footers are not all in memory together."""
SILENT_NS: Final = 2 * IDLE_NS
NS_PER_HOUR: Final = 3600 * 1_000_000_000


@dataclass(slots=True, kw_only=True)
class HostReport:
    """What was found out about one host.

    Attributes:
        host: its id; None when nothing readable says it.
        segments: the sealed ones, in their order.
        findings: what is wrong with it as a whole; each segment has its own.
        missing: numbers of segments that are not there: first and last of each hole.
        expired: first and last of those that are not there because a policy let them go, as signed records say.
        unsigned: how many sealed segments nobody signed.
        signed_from: lowest number of a signed one; None without any.
        head: the newest head whose signature is right.
        heads: how many there are.
        root: the key that all trust came from; None when there is none.
        keys: ids of all trusted keys.
        pin: what was remembered from before; None: this host was never seen.
    """

    host: UUID | None
    segments: list[SegmentSeal] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)
    expired: list[tuple[int, int]] = field(default_factory=list)
    unsigned: int = 0
    signed_from: int | None = None
    head: Head | None = None
    heads: int = 0
    root: PublicKey | None = None
    keys: Sequence[bytes] = ()
    pin: Pin | None = None

    def all_findings(self) -> Iterator[Finding]:
        """Give what is wrong, with the host and with each of its segments."""
        yield from self.findings
        for seal in self.segments:
            yield from seal.findings

    @property
    def faults(self) -> set[Fault]:
        """What kinds of damage there are."""
        return {finding.fault for finding in self.all_findings() if finding.damage}

    def next_pin(self, now_ns: int) -> Pin | None:
        """Give what to remember of it; None when there is damage, or nothing signed."""
        newest = next((seal for seal in reversed(self.segments) if seal.trailer), None)
        if self.faults or self.root is None or self.signed_from is None or newest is None or newest.trailer is None:
            return None
        before = self.pin
        return Pin(
            key=self.root.raw,
            signed_from=min(self.signed_from, before.signed_from) if before else self.signed_from,
            sequence=newest.sequence,
            digest=newest.trailer.digest,
            head=self.head.number if self.head else 0,
            head_digest=self.head.own_digest if self.head else b"",
            seen_ns=now_ns,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What is known before anything is read.

    Attributes:
        pins: what was seen before, by host.
        keys: public keys that were given by hand: they are trusted for themselves, and nothing else is.
        now_ns: wall time, to say how old a head is; None does not ask.
        only: numbers of the segments that are asked for, of a host that has more; None: all there are.
    """

    pins: Mapping[UUID, Pin] = field(default_factory=dict)
    keys: Sequence[PublicKey] = ()
    now_ns: int | None = None
    only: frozenset[int] | None = None


def verify_shelf(shelf: Shelf, trust: Trust, *, workers: int | None = None) -> Iterator[HostReport]:
    """Check all that lies on a shelf, host by host.

    Raises:
        CapdError: it cannot be read.
    """
    groups: dict[UUID | None, list[Item]] = {}
    for item in shelf.list():
        groups.setdefault(host_of(item.key), []).append(item)
    threads = workers or max(2, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        for host, items in sorted(groups.items(), key=lambda group: str(group[0])):
            yield _HostCheck(shelf, trust, host).run(items, pool)


class _HostCheck:
    """The checks of one host, and what they saw."""

    def __init__(self, shelf: Shelf, trust: Trust, host: UUID | None) -> None:
        self._shelf = shelf
        self._trust = trust
        self.report = HostReport(host=host)
        self._keys: dict[bytes, PublicKey] = {}
        self._known: set[bytes] = set()
        self._chosen = False
        self._digests: dict[int, bytes] = {}
        self._before: SegmentSeal | None = None
        self._deletions: list[Deletion] = []
        self._deleted: dict[int, bytes] = {}
        """Footers of the segments that were let go; filled once it is known whose signatures count."""

    def run(self, items: Sequence[Item], pool: ThreadPoolExecutor) -> HostReport:
        report = self.report
        numbers = {item.key: number for item in items if (number := sequence_of(Path(name_of(item.key)))) is not None}
        # An open segment has no seal to check; its end, which a recovery may cut, is nobody's loss.
        sealed = [item for item in items if item.key in numbers and is_sealed(item.key)]
        wanted = sorted(sealed, key=lambda item: numbers[item.key])
        heads = self._read_heads(items)
        public = self._read_keys(items)
        self._read_deletions(items)
        for start in range(0, len(wanted), AHEAD):
            for seal in pool.map(lambda item: check_segment(self._shelf, item), wanted[start : start + AHEAD]):
                if report.host is None:
                    report.host = seal.header.host if seal.header else None
                self._choose_keys(public, seal, heads)
                self._take(seal)
        self._choose_keys(public, None, heads)
        self._judge_heads(heads)
        self._tell_expired_end()
        self._judge_pin()
        if report.signed_from is None and report.unsigned:
            self._find(Fault.UNSIGNED, "no segment is signed")
        return report

    def _find(self, fault: Fault, message: str, *, segment: int | None = None, damage: bool = True) -> None:
        self.report.findings.append(Finding(fault=fault, message=message, segment=segment, damage=damage))

    # -- keys ------------------------------------------------------------------------------------------------------------------

    def _read_keys(self, items: Iterable[Item]) -> list[PublicKey]:
        found = list(self._trust.keys)
        for item in items:
            if is_key(name_of(item.key)):
                try:
                    found.append(PublicKey.from_text(self._shelf.read(item.key), item.key))
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
        report.root = next((self._keys[root] for root in roots if root in self._keys), None)
        report.keys = sorted(self._keys)

    def _signed(self, key_id: bytes, signature: bytes, message: bytes) -> tuple[Fault, str] | None:
        """Say what is wrong with a signature; None when nothing is."""
        key = self._keys.get(key_id)
        if key is not None:
            return None if key.verifies(signature, message) else (Fault.ALTERED, f"it is not what key {key_id.hex()} signed")
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
        if before is not None and seal.sequence == before.sequence:
            seal.find(Fault.ORDER, f"there are two segments {seal.sequence}: the other is {before.key}")
        elif before is not None and seal.sequence > before.sequence + 1:
            self._miss(before.sequence + 1, seal.sequence - 1)
        elif before is None:
            self._tell_expired_start(seal.sequence)
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
        for gone, numbers in groupby(range(first, last + 1), lambda number: number in self._deleted):
            together = [number for number in numbers if only is None or number in only]
            if gone and together:
                self._expire(together[0], together[-1])
            elif together:
                self._miss_unaccounted(together[0], together[-1], reason)

    def _tell_expired_start(self, first: int) -> None:
        """Tell which segments before the first one here a policy let go; of others before it nothing is known."""
        for gone, numbers in groupby(range(1, first), lambda number: number in self._deleted):
            if gone and (together := list(numbers)):
                self._expire(together[0], together[-1])

    def _tell_expired_end(self) -> None:
        """Tell which segments a policy let go that nothing else asked for: after the last one here and the newest head."""
        told = {number for first, last in self.report.expired for number in range(first, last + 1)}
        rest = sorted(self._deleted.keys() - told - self._digests.keys())
        for _, numbers in groupby(enumerate(rest), lambda pair: pair[1] - pair[0]):
            together = [number for _, number in numbers]
            self._expire(together[0], together[-1])

    def _expire(self, first: int, last: int) -> None:
        self.report.expired.append((first, last))
        words = f"segment {first} expired" if first == last else f"segments {first} to {last} expired"
        self._find(Fault.EXPIRED, f"{words} by policy, as a signed record says", segment=first, damage=False)

    def _miss_unaccounted(self, first: int, last: int, reason: str) -> None:
        self.report.missing.append((first, last))
        words = f"segment {first} is" if first == last else f"segments {first} to {last} are"
        self._find(Fault.MISSING, f"{words} missing{reason}", segment=first)

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
            if problem is not None:
                seal.find(*problem)
            return
        report.unsigned += 1
        seen = [number for number in (report.signed_from, report.pin.signed_from if report.pin else None) if number is not None]
        if seen and seal.sequence > min(seen):
            seal.find(Fault.UNSIGNED, f"nobody signed it, although segment {min(seen)} before it was signed")
        else:
            words = "written by a capd that did not sign yet" if header.version == UNSIGNED_VERSION else "nobody signed it"
            seal.find(Fault.UNSIGNED, words, damage=False)

    # -- deletions -------------------------------------------------------------------------------------------------------------

    def _read_deletions(self, items: Iterable[Item]) -> None:
        for item in items:
            if is_deletion(name_of(item.key)):
                try:
                    self._deletions.append(Deletion.parse(self._shelf.read(item.key, 0, RECORD_BYTES_MAX)))
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
            self._deleted |= {one.sequence: one.digest for one in deletion.segments}

    # -- heads -----------------------------------------------------------------------------------------------------------------

    def _read_heads(self, items: Iterable[Item]) -> list[Head]:
        heads = []
        for item in items:
            number = head_number(name_of(item.key))
            if number is None:
                continue
            self.report.heads += 1
            try:
                head = Head.parse(self._shelf.read(item.key))
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
        self._judge_end()

    def _judge_end(self) -> None:
        """Hold the end of the recording against the newest head."""
        report, head = self.report, self.report.head
        if head is None:
            if report.signed_from is not None:
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
        elif report.head is not None and newest == pin.head and report.head.own_digest != pin.head_digest:
            self._find(Fault.ROLLED_BACK, f"head {pin.head} is another one than was seen before")
        last = max(self._digests, default=0)
        if max((last, *self._deleted)) < pin.sequence:
            self._find(Fault.ROLLED_BACK, f"segment {pin.sequence} was seen before; the newest one here is {last or 'none'}")
        elif self._digests.get(pin.sequence, pin.digest) != pin.digest:
            words = f"segment {pin.sequence} is another one than was seen before"
            self._find(Fault.ROLLED_BACK, words, segment=pin.sequence)


def _first(keys: Mapping[bytes, PublicKey], seal: SegmentSeal | None, heads: Sequence[Head]) -> list[bytes]:
    """Give the key at the start of the succession that the oldest signature here was made in."""
    oldest = seal.trailer.key_id if seal is not None and seal.trailer is not None else b""
    current = keys.get(oldest) or next((keys[head.key_id] for head in heads if head.key_id in keys), None)
    seen: set[bytes] = set()
    while current is not None and current.predecessor in keys and current.id not in seen:
        seen.add(current.id)
        current = keys[current.predecessor]
    return [] if current is None else [current.id]
