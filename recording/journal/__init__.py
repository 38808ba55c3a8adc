"""The journal: raw capture on the host's own disk, written by the daemon, read by the recorder, removed when it is sealed.

What lives here: the block format (docs/formats/journal.md), its writer and its reader. What must not: what payloads mean.
"""

from capd.recording.journal.block import Block, JournalDamage, Source
from capd.recording.journal.cipher import JournalKey, JournalKeys
from capd.recording.journal.reader import JournalReader
from capd.recording.journal.writer import JournalWriter
from capd.recording.position import Position

__all__ = ["Block", "JournalDamage", "JournalKey", "JournalKeys", "JournalReader", "JournalWriter", "Position", "Source"]
