"""What `capd verify` does with a bundle, which is an excerpt: of a host's segments only some, of their content some sessions.

What lives here: what is asked of a bundle beside its evidence: its files, and that its sessions go on without a hole from their
first record to their last. What must not: hashes and signatures of segments (recording/evidence), the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from capd.cli import facts
from capd.cli.record_json import Json
from capd.cli.verify_report import jumps_of
from capd.recording.bundle import Manifest, differences
from capd.recording.errors import CorruptSegmentError, EncryptedError
from capd.recording.record import Direction, Kind, Record

if TYPE_CHECKING:
    from capd.recording.segment.cipher import Keys

EXTRA = "is not in the manifest"


@dataclass(slots=True, kw_only=True)
class Excerpt:
    """What was found out about a bundle.

    Attributes:
        manifest: what it says of itself.
        problems: what is wrong or missing, in words.
        notes: what is worth knowing and no damage.
    """

    manifest: Manifest
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def words(self) -> str:
        """Give the line that says what this is, and what is not known by it."""
        sessions = len(self.manifest.sessions)
        what = f"{sessions} session{'' if sessions == 1 else 's'}"
        return f"EXCERPT  {what} of a host's recording; what else that host recorded is not here and was not asked for"

    def as_json(self) -> dict[str, Json]:
        """Give the public object."""
        return {
            "sessions": [str(one) for one in self.manifest.sessions],
            "runs": [str(one) for one in self.manifest.runs],
            "segments": list(self.manifest.segments),
            "missing_segments": list(self.manifest.missing),
            "notes": list(self.notes),
        }


def check_bundle(directory: Path, manifest: Manifest, keys: Keys) -> Excerpt:
    """Hold a bundle's files against its manifest, and look whether its sessions are whole.

    Raises:
        CapdError: the directory cannot be read.
    """
    found = Excerpt(manifest=manifest)
    for path, words in differences(directory, manifest):
        (found.notes if words == EXTRA else found.problems).append(f"{path} {words}")
    found.problems += [f"segment {number} was not to be had when this was exported" for number in manifest.missing]
    for session in manifest.sessions:
        _check_session(found, directory, session, keys)
    return found


def _check_session(found: Excerpt, directory: Path, session: UUID, keys: Keys) -> None:
    from capd.recording.archive import Archive  # noqa: PLC0415 - only a bundle needs it

    thread = _Thread()
    try:
        with Archive(directory, keys) as archive:
            jumps = jumps_of(thread.follow(archive.records(session)))
    except EncryptedError as error:
        found.notes.append(f"session {session}: not read, {error}; --identity FILE opens it")
        return
    except CorruptSegmentError as error:
        found.problems.append(f"session {session}: {error}")
        return
    found.problems += [f"session {session}: {words}" for words in (*jumps, *thread.problems())]
    if not thread.closed:
        found.notes.append(f"session {session}: it had not ended when this was exported")


class _Thread:
    """Follows the records of one session from its beginning to its end."""

    def __init__(self) -> None:
        self.closed = False
        self._begun = False
        self._whole = False
        self._ends = dict.fromkeys(Direction, 0)
        self._messages = 0
        self._jumped: list[str] = []
        self._said: list[str] = []

    def follow(self, records: Iterable[Record]) -> Iterator[Record]:
        """Give the records on, and look at them."""
        for record in records:
            if not self._begun and record.kind is not Kind.OPEN:
                self._said.append("its beginning is missing")
            self._begun = True
            self._take(record)
            yield record

    def problems(self) -> Sequence[str]:
        """Give what is wrong, in words."""
        if not self._begun:
            return ["nothing of it is here"]
        return [*self._said, *(self._jumped if self._whole else ())]

    def _take(self, record: Record) -> None:
        body = record.body
        if record.kind in {Kind.DATA, Kind.GAP} and facts.text(body, "layer") in {"", "application"}:
            start = facts.number(body, "position")
            length = len(facts.payload(body, "payload")) if record.kind is Kind.DATA else facts.number(body, "length") or 0
            if start is not None and record.direction is not None:
                self._ends[record.direction] = max(self._ends[record.direction], start + length)
        elif record.kind is Kind.MESSAGE:
            ordinal = facts.number(body, "ordinal")
            if ordinal is not None and ordinal != self._messages:
                self._jumped.append(f"messages {self._messages} to {ordinal - 1} are missing")
            self._messages = self._messages + 1 if ordinal is None else ordinal + 1
        elif record.kind is Kind.CLOSE:
            self._close(record)

    def _close(self, record: Record) -> None:
        """Hold what came against the sums of the end, where the session was recorded whole: it says what there must be."""
        self.closed = True
        completeness = facts.mapping(record.body, "completeness")
        self._whole = facts.text(completeness, "verdict") == "complete" and not facts.sequence(completeness, "policy")
        moved = facts.mapping(record.body, "bytes")
        for direction, end in self._ends.items():
            total = facts.number(moved, direction.name.lower())
            if total is not None and total != end:
                self._jumped.append(f"{direction.name.lower()}: {end:,} bytes of {total:,} are here")
        messages = facts.number(record.body, "messages")
        if messages is not None and messages != self._messages:
            self._jumped.append(f"{self._messages:,} messages of {messages:,} are here")
