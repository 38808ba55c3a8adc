"""What is recorded of a session that goes on, for a decoder that is built anew after the recorder's death.

What lives here: reading it. What must not: building the decoder (assembly/).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import UUID

from capd.daemon.masking.stage import Stage
from capd.recording.errors import EncryptedError, StateDirectoryError
from capd.recording.record import Kind, Record
from capd.recording.segment import SegmentReader
from capd.recording.segment.cipher import Keys
from capd.recording.segment.layout import sealed_path


def history(session: UUID, segments: Path, numbers: Iterable[int], keys: Keys, stage: Stage) -> Iterator[Record]:
    """Give what is on disk of a session, and then what waits in masking, as far as it can be read without a hole.

    Args:
        session: which.
        segments: where sealed segments are. Nothing that was not sealed is asked for.
        numbers: of those that hold records of it, in order.
        keys: who opens encrypted ones. Where the key of one is gone, or its copy, it was written too long ago: the decoder
            finds its place again.
        stage: what the records went through. What waited in it at the snapshot may be stored since; a gap that is given twice
            would be counted twice, and what comes behind it be left out.
    """
    gaps: set[object] = set()
    for number in numbers:
        path = sealed_path(segments, number)
        try:
            with SegmentReader(path, keys=keys) as reader:
                for record in reader.records(session):
                    restored = stage.restored(record)
                    if restored is None:
                        return
                    if restored.kind is Kind.GAP:
                        gaps.add(_place(restored))
                    yield restored
        except EncryptedError:
            return
        except StateDirectoryError:
            if path.exists():
                raise
            return
    yield from (record for record in stage.held(session) if record.kind is not Kind.GAP or _place(record) not in gaps)


def _place(gap: Record) -> object:
    return gap.time_ns, gap.direction, gap.body.get("position"), gap.body.get("layer")
