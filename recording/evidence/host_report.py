"""What is known before a host's recording is looked at, and what was found out about it.

What lives here: trust, the report, what is remembered of it. What must not: the checks (hosts.py), presentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from capd.recording.evidence.pins import Pin
from capd.recording.evidence.seals import Fault, Finding, SegmentSeal
from capd.recording.heads import Head
from capd.recording.keys import PublicKey


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
        signers: ids of those that made a signature that is here.
        pin: what was remembered from before; None: this host was never seen.
        in_bucket: whether it lies in a bucket, or in a folder of its own as in one, from which nothing goes but by policy.
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
    signers: set[bytes] = field(default_factory=set)
    pin: Pin | None = None
    in_bucket: bool = False

    def all_findings(self) -> Iterator[Finding]:
        """Give what is wrong, with the host and with each of its segments."""
        yield from self.findings
        for seal in self.segments:
            yield from seal.findings

    @property
    def faults(self) -> set[Fault]:
        """What kinds of damage there are."""
        return {finding.fault for finding in self.all_findings() if finding.damage}

    def next_pin(self, now_ns: int, bucket: str = "") -> Pin | None:
        """Give what to remember of it; None when there is damage, or nothing signed.

        Args:
            now_ns: wall time, ns since 1970 UTC.
            bucket: URL of the bucket that it is in; empty where it is in none.
        """
        newest = next((seal for seal in reversed(self.segments) if seal.trailer), None)
        if self.faults or self.root is None or self.signed_from is None or newest is None or newest.trailer is None:
            return None
        before = self.pin
        first = self.segments[0].sequence if self.in_bucket else before.first if before else 0
        buckets = {*(before.buckets if before else ()), *([bucket] if bucket and self.in_bucket else ())}
        return Pin(
            first=first,
            key=self.root.raw,
            signed_from=min(self.signed_from, before.signed_from) if before else self.signed_from,
            sequence=newest.sequence,
            digest=newest.trailer.digest,
            head=self.head.number if self.head else 0,
            head_digest=self.head.own_digest if self.head else b"",
            seen_ns=now_ns,
            buckets=tuple(sorted(buckets)),
            signer=newest.trailer.key_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What is known before anything is read.

    Attributes:
        pins: what was seen before, by host.
        keys: public keys that were given by hand: they are trusted for themselves, and nothing else is.
        now_ns: wall time, to say how old a head is; None does not ask.
        only: numbers of the segments that are asked for, of a host that has more; None: all there are.
        bucket: URL of the bucket that is looked at, all of it; empty where it is none.
    """

    pins: Mapping[UUID, Pin] = field(default_factory=dict)
    keys: Sequence[PublicKey] = ()
    now_ns: int | None = None
    only: frozenset[int] | None = None
    bucket: str = ""
