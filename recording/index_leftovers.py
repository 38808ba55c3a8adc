"""Overwriting what is left in an index's file of rows that were removed.

What lives here: the full-text index's old words, and bytes between the rows of a page. What must not: which rows go.

Three things are left after a row was removed, although SQLite overwrites what it removes (`secure_delete`):
- FTS5 keeps the words of a removed message until the b-trees that hold them and their removal are merged into one;
- where rows move from page to page while others are removed, their old bytes stay in the unused middle of the page that they
  leave, and are not found again when the rows themselves are removed later;
- the write-ahead log keeps old pages until it is cut.

The middle of a page is overwritten in the file itself, by the file format's own words (sqlite.org/fileformat2.html, section
1.6): no reader ever looks there, so that it harms nobody, whenever it happens. It is done when the log is empty and no page is
in this connection's memory, and the file is closed only after the connection: closing it would let go of SQLite's locks.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from capd.recording.index_expiry import SCRUB
from capd.recording.index_schema import BUSY_MS, sqlite_errors

MERGED_PAGES: Final = 200
"""Pages of the full-text index that one step writes: some ten milliseconds."""
SWEPT_PAGES: Final = 1_000
"""Pages that one step looks at: 4 MB."""
PAGES_MAX: Final = 0x01FF_FFFF
"""From the next page number on, the first byte of an overflow page may look like the type of a b-tree page: 137 GB."""
PAGE_SIZE_OFFSET: Final = 16
FILE_HEADER_BYTES: Final = 100
"""The first page has them before its own header."""
INTERIOR: Final = frozenset({2, 5})
LEAVES: Final = frozenset({10, 13})
CELLS_OFFSET: Final = 3
CONTENT_OFFSET: Final = 5
WHOLE: Final = 65_536
"""What a content offset of 0 means."""
_MERGE: Final = "INSERT INTO messages_fts (messages_fts, rank) VALUES ('merge', ?)"


class Leftovers:
    """Overwrites, step by step, what `IndexExpiry` left."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Take the index's connection; `close` after that was closed."""
        self._path = path
        self._connection = connection
        self._file: int | None = None
        self._merging = self._merged = False
        self._page = 1

    @property
    def waiting(self) -> bool:
        """Whether there may be something to overwrite."""
        with sqlite_errors(self._path):
            row = self._connection.execute("SELECT 1 FROM meta WHERE name = ?", [SCRUB]).fetchone()
        return row is not None

    def step(self) -> bool:
        """Do a little more; False when nothing is left, or a reader is in the way for now.

        Raises:
            StateDirectoryError: the file cannot be written.
        """
        with sqlite_errors(self._path):
            if not self._merged:
                self._merge()
                return True
            if not self._cut_log():
                return False
            if self._sweep():
                return True
            self._connection.execute("DELETE FROM meta WHERE name = ?", [SCRUB])
            self._connection.commit()
            self.restart()
        return False

    def restart(self) -> None:
        """Begin again, because more rows were removed."""
        self._merging = self._merged = False
        self._page = 1

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _merge(self) -> None:
        """Go on merging all b-trees of words that there were at the beginning into one."""
        before = self._connection.total_changes
        # Below zero: put all on one level first. To say that again would begin again with what came meanwhile.
        self._connection.execute(_MERGE, [MERGED_PAGES if self._merging else -MERGED_PAGES])
        self._merged = self._merging and self._connection.total_changes - before < 2  # noqa: PLR2004 - by FTS5's manual: no work
        self._merging = True
        self._connection.commit()

    def _cut_log(self) -> bool:
        """Bring the write-ahead log into the file and cut it; False when a reader needs it."""
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        return not busy

    def _sweep(self) -> bool:
        """Overwrite the middles of some pages; False when there are no more."""
        self._connection.execute("PRAGMA shrink_memory")
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        size = int.from_bytes(os.pread(self._file, 2, PAGE_SIZE_OFFSET), "big")
        size = WHOLE if size == 1 else size
        pages = os.fstat(self._file).st_size // size
        if pages > PAGES_MAX:
            return False
        last = min(pages, self._page + SWEPT_PAGES - 1)
        for number in range(self._page, last + 1):
            offset = (number - 1) * size
            page = os.pread(self._file, size, offset)
            start, end = middle(page, FILE_HEADER_BYTES if number == 1 else 0)
            if page.count(0, start, end) != end - start:
                os.pwrite(self._file, bytes(end - start), offset + start)
        self._page = last + 1
        if self._page > pages:
            os.fsync(self._file)
        return self._page <= pages


def middle(page: bytes, header: int) -> tuple[int, int]:
    """Give where in a page of a b-tree nothing is: between the list of its cells and the first cell's content.

    Args:
        page: all of its bytes.
        header: where its header starts.

    Returns:
        Start and end; equal for pages of other kinds, and where the header makes no sense.
    """
    kind = page[header]
    if kind not in INTERIOR | LEAVES:
        return 0, 0
    cells = int.from_bytes(page[header + CELLS_OFFSET : header + CELLS_OFFSET + 2], "big")
    content = int.from_bytes(page[header + CONTENT_OFFSET : header + CONTENT_OFFSET + 2], "big") or WHOLE
    start = header + (12 if kind in INTERIOR else 8) + 2 * cells
    return (start, content) if start <= content <= len(page) else (0, 0)
