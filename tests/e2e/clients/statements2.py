"""Agent: a few statements with psycopg2, whose wheel brings OpenSSL 1.1.1; finds the server in libpq's environment.

statements2.py SIZE...       also one row of each size
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import psycopg2  # type: ignore[import-untyped]  # it has no types, and one test needs none


def main(*sizes: str) -> None:
    """Create, copy, select, update; go back."""
    assert "/libssl-" in (mapped := Path("/proc/self/maps").read_text(encoding="ascii"))
    assert ".so.1.1" in mapped
    database = psycopg2.connect("")
    cursor = database.cursor()
    cursor.execute("CREATE TEMPORARY TABLE note (id int, text text)")
    cursor.copy_expert("COPY note FROM STDIN", io.StringIO("".join(f"{number}\tline {number}\n" for number in range(100))))
    for size in sizes:
        cursor.execute("SELECT %s::text, repeat('r', %s)", ["q" * int(size), int(size)])
        row = cursor.fetchone()
        assert len(row[0]) == len(row[1]) == int(size)
    cursor.execute("UPDATE note SET text = 'changed' WHERE id < 10")
    assert cursor.rowcount == 10
    database.rollback()
    database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
