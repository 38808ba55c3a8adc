"""Segments: the finished record, in files that are written once, sealed, and then never change.

What lives here: the segment format (docs/formats/segment.md), its reader, its writer, what is done after a crash. The latter
two are imported by their own names: who reads needs neither. What must not: the meaning of the records.
"""

from capd.recording.segment.footer import Footer, FrameEntry, SessionEntry
from capd.recording.segment.reader import Frame, SegmentReader

__all__ = ["Footer", "Frame", "FrameEntry", "SegmentReader", "SessionEntry"]
