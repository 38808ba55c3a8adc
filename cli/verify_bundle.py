"""What `capd verify` does with a bundle, which is an excerpt: of a host's segments only some, of their content some sessions.

What lives here: what is asked of a bundle beside its evidence: its files, and that its sessions go on without a hole from their
first record to their last. What must not: hashes and signatures of segments (recording/evidence), the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from capd.cli.record_json import Json
from capd.cli.verify_thread import follow
from capd.recording.bundle import Manifest, differences
from capd.recording.errors import CorruptSegmentError, EncryptedError

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
    if not manifest.sessions and not manifest.runs:
        found.problems.append("the manifest names no session and no run, so that nothing can be held against it")
    found.problems += [f"segment {number} was not to be had when this was exported" for number in manifest.missing]
    for session in manifest.sessions:
        _check_session(found, directory, session, keys)
    return found


def _check_session(found: Excerpt, directory: Path, session: UUID, keys: Keys) -> None:
    from capd.recording.archive import Archive  # noqa: PLC0415 - only a bundle needs it

    try:
        with Archive(directory, keys, indexed=False) as archive:  # whoever put one in it could explain away what is missing
            problems, notes = follow(archive.records(session))
    except EncryptedError as error:
        found.notes.append(f"session {session}: not read, {error}; --identity FILE opens it")
        return
    except CorruptSegmentError as error:
        found.problems.append(f"session {session}: {error}")
        return
    found.problems += [f"session {session}: {words}" for words in problems]
    found.notes += [f"session {session}: {words} when this was exported" for words in notes]
