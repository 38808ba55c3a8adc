"""What masking of rows costs: judging a statement, rows of PostgreSQL and MySQL in text and binary, COPY in its three formats.

What lives here: the rows, and the figures. What must not: printing, but as a script.

Figures are CPU time, the best of several rounds; beside them stands what an empty Python call costs in the same run.

Run: PYTHONPATH=src:. python -P bench/rows.py
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from bench.policy import microseconds

from capd.enforcer.masking.rows.catalogue import Catalogue, Column, Relation
from capd.enforcer.masking.rows.copy_form import BINARY, CSV, TEXT, CopyForm
from capd.enforcer.masking.rows.copy_stream import copy_mask
from capd.enforcer.masking.rows.field import Field
from capd.enforcer.masking.rows.judgement import Judged, judge
from capd.enforcer.masking.rows.mysql_column import MysqlColumn, write_length
from capd.enforcer.masking.rows.mysql_row import MysqlResultMask
from capd.enforcer.masking.rows.protection import Hidden, protection
from capd.enforcer.masking.rows.replacing import Style
from capd.enforcer.masking.rows.result import ResultMask
from capd.enforcer.masking.rows.seeking import Seeker
from capd.enforcer.obligations.answer import rules_of
from capd.enforcer.policy.rule import Mask, Replace
from capd.enforcer.sql.lexeme import Dialect
from capd.enforcer.sql.message import Reader
from capd.enforcer.sql.session import new_session

KEY = b"a key of this host, and no other"
VALUES = (
    b"4711",
    b"Ann Example",
    b"ann@corp.example",
    b"536-90-4399",
    b"de",
    b"2026-11-29 04:11:12",
    b"48211.50",
    b"a short note",
)
"""Of one customer: 90 bytes in eight columns."""
NAMES = ("id", "name", "email", "ssn", "country", "created", "salary", "note")
ROWS = 1_000
"""In one piece of COPY."""
SEEKER = Seeker([("seek", rules_of(Mask(identifiers=("card", "iban"), formats=True)))])
STATEMENTS = {
    "about nothing hidden": "SELECT o.id, o.total FROM orders o WHERE o.customer = 4711 ORDER BY o.id LIMIT 50",
    "shows a hidden column": "SELECT c.id, c.name, c.ssn FROM customers c WHERE c.id = 4711",
    "and computes": (
        "SELECT c.country, count(*), max(length(c.name)) FROM customers c JOIN orders o ON o.customer = c.id GROUP BY c.country"
    ),
    "refused": "SELECT upper(c.ssn) FROM customers c WHERE c.id = 4711",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one row costs.

    Attributes:
        row_us: microseconds.
        megabytes_s: at that pace, in MB/s of rows as they come.
    """

    row_us: float
    megabytes_s: float


def fields(*, binary: bool) -> tuple[Field, ...]:
    """Give the columns of a result, all of them texts."""
    return tuple(
        Field(name=name.encode(), table=16_384, column=at + 1, type=25, modifier=-1, format=int(binary))
        for at, name in enumerate(NAMES)
    )


def hidden(names: Sequence[str], replace: Replace) -> tuple[Hidden | None, ...]:
    """Say that some columns are hidden."""
    return tuple(Hidden(rule="hide", replace=replace) if name in names else None for name in NAMES)


HIDDEN: dict[str, tuple[tuple[Hidden | None, ...], Seeker | None]] = {
    "nothing": (hidden((), Replace.NULL), None),
    "one column, NULL": (hidden(("ssn",), Replace.NULL), None),
    "one column, constant": (hidden(("ssn",), Replace.FIXED), None),
    "one column, hash": (hidden(("ssn",), Replace.HASH), None),
    "all columns, constant": (hidden(NAMES, Replace.FIXED), None),
    "cards, IBANs, secrets": (hidden((), Replace.NULL), SEEKER),
    "both": (hidden(("ssn",), Replace.FIXED), SEEKER),
}


def data_row() -> bytes:
    """Give the body of a DataRow."""
    return struct.pack(">H", len(VALUES)) + b"".join(struct.pack(">i", len(value)) + value for value in VALUES)


def per_row(call: Callable[[], object], size: int, rows: int = 1) -> Cost:
    """Measure a call that masks some rows of so many bytes each."""
    spent = microseconds(call) / rows
    return Cost(row_us=spent, megabytes_s=size / spent)


def postgresql(name: str, *, binary: bool) -> Cost:
    """Measure a row of PostgreSQL."""
    how, seeker = HIDDEN[name]
    mask, body = ResultMask(fields(binary=binary), how, Style(key=KEY), seeker), data_row()
    return per_row(lambda: mask.row(body), len(body))


def mysql(name: str, *, binary: bool) -> Cost:
    """Measure a row of MySQL."""
    how, seeker = HIDDEN[name]
    named = {"schema": "shop", "table": "c", "org_table": "customers"}
    columns = [MysqlColumn(**named, name=one, org_name=one, charset=45, length=400, type=253, flags=0) for one in NAMES]
    mask = MysqlResultMask(columns, how, KEY, seeker, binary=binary)
    values = b"".join(write_length(len(value)) + value for value in VALUES)
    body = b"\0\0\0" + values if binary else values
    return per_row(lambda: mask.row(body), len(body))


def copied(format_: str, name: str) -> Cost:
    """Measure a row of COPY, in pieces as the server sends them: one row each."""
    how, seeker = HIDDEN[name]
    binary = format_ == BINARY
    mark = b"," if format_ == CSV else b"\t"
    row = data_row() if binary else mark.join(VALUES) + b"\n"
    form = CopyForm(format=format_, delimiter=mark.decode(), null="" if format_ == CSV else r"\N")
    mask = copy_mask(form, fields(binary=binary), how, Style(key=KEY), seeker)
    if binary:
        mask.feed(b"PGCOPY\n\xff\r\n\0" + bytes(8))

    def call() -> None:
        for _ in range(ROWS):
            mask.feed(row)

    return per_row(call, len(row), ROWS)


def judged(name: str) -> float:
    """Measure judging a statement that was read before, and settling its result, in microseconds."""
    columns = tuple(Column(number=at + 1, name=one) for at, one in enumerate(NAMES))
    orders = tuple(Column(number=at + 1, name=one) for at, one in enumerate(("id", "customer", "total")))
    relations = {
        16_384: Relation(oid=16_384, schema="public", name="customers", view=False, columns=columns),
        16_385: Relation(oid=16_385, schema="public", name="orders", view=False, columns=orders),
    }
    hides = protection(Catalogue(stamp="", relations=relations), (("hide", Mask(columns=("customers.ssn",))),))
    session = new_session(Dialect.POSTGRESQL).told_schemas(("public",))
    text = STATEMENTS[name].encode()
    read = Reader().read(text, session)
    shown = fields(binary=False)[:3]

    def call() -> None:
        found = judge(read, text, session, hides)
        if isinstance(found, Judged):
            found.settle(shown)

    return microseconds(call)


def main() -> dict[str, object]:
    """Print the figures; give them."""
    found: dict[str, object] = {}
    print(
        f"\nmasking rows, microseconds of CPU a row of {len(data_row())} bytes"
        f" (an empty call: {microseconds(lambda: None):.3f})"
    )
    for name in HIDDEN:
        costs = {
            "postgresql text": postgresql(name, binary=False),
            "postgresql binary": postgresql(name, binary=True),
            "mysql text": mysql(name, binary=False),
            "mysql binary": mysql(name, binary=True),
            **{f"copy {one}": copied(one, name) for one in (TEXT, CSV, BINARY)},
        }
        found |= {f"{name} {kind}": asdict(cost) for kind, cost in costs.items()}
        print(f"  {name}")
        for kind, cost in costs.items():
            print(f"    {kind:18} {cost.row_us:6.2f}   {cost.megabytes_s:6.0f} MB/s")
    print("\njudging a statement that was read before, microseconds of CPU")
    for name in STATEMENTS:
        found[f"judged {name}"] = spent = judged(name)
        print(f"  {name:24} {spent:8.1f}")
    return found


if __name__ == "__main__":
    main()
