"""What understanding a statement costs: the first time, again with other literals, again to the byte; and hostile ones.

What lives here: the statements, and the figures. What must not: printing, but as a script.

Figures are CPU time, the best of several rounds; beside them stands what an empty Python call costs in the same run.

Run: PYTHONPATH=src:. python -P bench/sql.py
"""

# ruff: noqa: S608 - statements are what is measured
from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass

from bench.policy import microseconds

from capd.enforcer.sql.lexeme import MESSAGE_BYTES_MAX, NESTING_MAX, Dialect
from capd.enforcer.sql.message import Reader
from capd.enforcer.sql.session import new_session

POSTGRESQL = {
    "point": "SELECT id, name, email FROM customers WHERE id = 4711",
    "join": (
        "SELECT o.id, o.total, c.name, count(i.id) FROM orders AS o JOIN customers AS c ON c.id = o.customer_id"
        " LEFT JOIN items AS i ON i.order_id = o.id WHERE o.created_at > '2026-01-01' AND c.country IN ('de', 'fr', 'it')"
        " AND o.status <> 'void' GROUP BY o.id, o.total, c.name HAVING count(i.id) > 2 ORDER BY o.total DESC LIMIT 50"
    ),
    "write": (
        "WITH moved AS (DELETE FROM orders WHERE created_at < '2020-01-01' RETURNING id, total)"
        " INSERT INTO archive (id, total) SELECT id, total FROM moved ON CONFLICT (id) DO UPDATE SET total = excluded.total"
    ),
    "rows": "INSERT INTO events (at, what, who) VALUES " + ", ".join(f"('2026-01-01', 'e{n}', {n})" for n in range(100)),
    "define": "CREATE TABLE t (id int PRIMARY KEY, name varchar(20) DEFAULT 'x', owner int REFERENCES users (id))",
    "set": "SET search_path TO shop, public",
}
MYSQL = {"point": POSTGRESQL["point"], "join": POSTGRESQL["join"]}
HOSTILE = {
    "brackets": "SELECT " + "(" * NESTING_MAX + "1" + ")" * NESTING_MAX,
    "queries": "SELECT " + "(SELECT " * (NESTING_MAX - 1) + "1" + ")" * (NESTING_MAX - 1),
    "calls": "SELECT " + "abs(" * (NESTING_MAX - 1) + "1" + ")" * (NESTING_MAX - 1),
    "types": "SELECT " + "struct(" * (NESTING_MAX - 1) + "1" + ") = 1" * (NESTING_MAX - 1),
    "cases": "SELECT " + "CASE WHEN true THEN " * 2_000 + "1" + " END" * 2_000,
    "not": "SELECT " + "NOT " * 12_000 + "true",
    "minus": "SELECT " + "- " * 12_000 + "1",
    "and": "SELECT 1 WHERE " + " AND ".join(["a = b"] * 2_500),
    "columns": "SELECT " + ", ".join(["a"] * 8_000),
    "unions": " UNION ".join(["SELECT 1"] * 4_000),
    "joins": "SELECT 1 FROM a" + " JOIN a ON true" * 4_000,
    "casts": "SELECT 1" + "::int" * 6_000,
    "dots": "SELECT a" + ".a" * 8_000,
    "quotes": "SELECT " + "'' " * 15_000,
    "open quote": "SELECT '" + "''" * 30_000,
    "open dollar": "SELECT " + "$a$ $b$ " * 7_000,
    "open comment": "SELECT " + "/*" * 30_000,
    "lines": "SELECT 'a'" + "\n " * 30_000,
    "line after line": "SELECT 'a'" + "\n'a'" * 10_000,
    "statements": "SELECT 1;" * 250,
    "names": "SELECT " + ", ".join(f'"n{n}"' for n in range(4_000)),
    "withs": "WITH " + ", ".join(f"a{n} AS (SELECT 1)" for n in range(1_500)) + " SELECT 1",
    "brackets after brackets": "SELECT " + ", ".join(["((((((((1))))))))"] * 700),
    "rows of queries": "INSERT INTO t VALUES " + ", ".join(["((SELECT 1), a)"] * 1_500),
}
"""Of the longest kind that the limits let through, or longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one statement costs, in microseconds.

    Attributes:
        first_us: nothing of it is known.
        shape_us: a statement of its shape was read before.
        again_us: it was read before, to the byte.
    """

    first_us: float
    shape_us: float
    again_us: float


def cost(sql: str, dialect: Dialect) -> Cost:
    """Measure one statement."""
    session = new_session(dialect).told_schemas(("public",))
    message = sql.encode()
    reader, fresh = Reader(), Reader()
    reader.read(message, session)

    def anew(forget: Callable[[], None]) -> Callable[[], object]:
        def call() -> object:
            forget()
            return fresh.read(message, session)

        return call

    def all_() -> None:
        fresh.forget()

    def messages() -> None:
        fresh.forget(shapes=False)

    return Cost(
        first_us=microseconds(anew(all_)),
        shape_us=microseconds(anew(messages)),
        again_us=microseconds(lambda: reader.read(message, session)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """What a hostile statement costs.

    Attributes:
        bytes: how long it is.
        milliseconds: CPU time, once.
        megabytes: the most memory that Python held for it; None: not measured.
        complete: whether it was understood.
    """

    bytes: int
    milliseconds: float
    megabytes: float | None
    complete: bool


def worst(sql: str, *, memory: bool = True) -> Worst:
    """Measure one hostile statement; time and memory in two rounds, for each disturbs the other."""
    session = new_session(Dialect.POSTGRESQL).told_schemas(("public",))
    message = sql.encode()[:MESSAGE_BYTES_MAX]
    before = time.process_time()
    found = Reader().read(message, session)
    spent = time.process_time() - before
    peak = None
    if memory:
        tracemalloc.start()
        Reader().read(message, session)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
    return Worst(bytes=len(message), milliseconds=spent * 1e3, megabytes=peak, complete=found.complete)


def main() -> dict[str, object]:
    """Print the figures; give them."""
    found: dict[str, object] = {}
    cost(POSTGRESQL["point"], Dialect.POSTGRESQL)  # the parser is imported once
    print(f"\nunderstanding a statement, microseconds of CPU (an empty call: {microseconds(lambda: None):.3f})")
    for dialect, statements in ((Dialect.POSTGRESQL, POSTGRESQL), (Dialect.MYSQL, MYSQL)):
        for name, sql in statements.items():
            one = cost(sql, dialect)
            found[f"{dialect.value} {name}"] = asdict(one)
            print(
                f"  {dialect.value:10} {name:8} {len(sql):6d} B   first {one.first_us:9,.0f}"
                f"   by shape {one.shape_us:8,.1f}   again {one.again_us:6,.2f}"
            )
    print("\nhostile statements")
    for name, sql in HOSTILE.items():
        bad = worst(sql)
        found[f"hostile {name}"] = asdict(bad)
        print(
            f"  {name:24} {bad.bytes:6d} B {bad.milliseconds:9,.1f} ms {bad.megabytes or 0:7.1f} MB"
            f"   {'complete' if bad.complete else 'not complete'}"
        )
    return found


if __name__ == "__main__":
    main()
