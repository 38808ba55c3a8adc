"""Agent: a few statements with psycopg, simple and extended protocol; finds the server in libpq's environment.

statements.py SIZE...       also one row of each size
"""

from __future__ import annotations

import sys

import psycopg


def main(*sizes: str) -> None:
    """Create, copy, select, update; go back."""
    with psycopg.connect("") as database:
        database.execute("CREATE TEMPORARY TABLE note (id int, text text)")
        with database.cursor().copy("COPY note FROM STDIN") as copy:
            for number in range(100):
                copy.write_row((number, f"line {number}"))
        for size in sizes:
            row = database.execute("SELECT %s::text, repeat('r', %s)", ["q" * int(size), int(size)]).fetchone()
            assert row is not None
            assert len(row[0]) == len(row[1]) == int(size)
        with database.pipeline():
            for number in range(10):
                database.execute("UPDATE note SET text = %s WHERE id = %s", [f"changed {number}", number])
        assert database.execute("SELECT count(*) FROM note WHERE text LIKE 'changed%'").fetchone() == (10,)
        database.rollback()


if __name__ == "__main__":
    main(*sys.argv[1:])
