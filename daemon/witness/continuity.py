"""Whether all that the enforcer wrote was read: the numbers of its entries, and what follows where some are missing.

What lives here: the rules, on the books. What must not: files, records.

Each process of a writer numbers its entries from 1, also those that it could not write. A process that begins anew has lost the
connections of the one before: the kernel closed them. What is missing may have been about any connection that was open then.
"""

from __future__ import annotations

from capd.daemon.witness.state import Books


def count(books: Books, writer: str, sequence: int, now_ns: int) -> None:
    """Find entries that are missing before one.

    Args:
        books: of the witness.
        writer: of the entry.
        sequence: its number.
        now_ns: wall time.
    """
    before = books.sequences.get(writer, 0)
    books.sequences[writer] = sequence
    if sequence == 1:
        if before:
            _died(books, writer, now_ns)
    elif sequence != before + 1:
        missing = max(sequence - before - 1, 1)
        books.counts.missing += missing
        lose(books, writer, f"{missing} {'entry' if missing == 1 else 'entries'} of the decision log missing", now_ns)


def lose(books: Books, writer: str, words: str, now_ns: int) -> None:
    """Entries of a writer are missing: of what it had open then, nobody knows all that was decided."""
    books.counts.missing_ns = now_ns
    for flow in books.flows.values():
        if flow.writer == writer and flow.closed_ns is None:
            flow.lost = flow.lost or words


def _died(books: Books, writer: str, now_ns: int) -> None:
    for flow in books.flows.values():
        if flow.writer == writer and flow.closed_ns is None:
            flow.closed_ns = now_ns


def damaged(books: Books, now_ns: int) -> None:
    """Count an entry that is of no known form."""
    books.counts.malformed += 1
    books.counts.malformed_ns = now_ns
