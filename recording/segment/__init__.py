"""Segments: the finished record, in files that are written once, sealed, and then never change.

What lives here: the segment format (docs/formats/segment.md), its writer, its reader, and what is done after a crash. What must
not: the meaning of the records.
"""

from capd.recording.segment.footer import Footer, FrameEntry, SessionEntry
from capd.recording.segment.reader import Frame, SegmentReader
from capd.recording.segment.recovery import Recovery, recover
from capd.recording.segment.writer import Sealing, SegmentWriter

__all__ = ["Footer", "Frame", "FrameEntry", "Recovery", "Sealing", "SegmentReader", "SegmentWriter", "SessionEntry", "recover"]
