"""PostgreSQL with bytes missing, and with messages too long to hold."""

from __future__ import annotations

import pytest

from capd.decoders.message import Gap, Message
from capd.decoders.postgresql import PostgresqlDecoder
from capd.decoders.postgresql.answers import DUE_MAX
from capd.decoders.postgresql.wire import COPY_PART_BYTES, PREFIX_BYTES, ROW_BYTES_MAX, STATEMENT_BYTES_MAX
from tests.decoders import postgresql_bytes as pg
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, all_ways, check_spans, drain, feed, outline

OPEN: list[Arrival] = [(REQUEST, pg.OPENING), (RESPONSE, pg.OPENED)]
OPENED = ["> StartupMessage 0 user=u database=d", "< AuthenticationOk 0", "< ReadyForQuery 0 idle"]
LOST = Gap(length=4, reason="ring full")
UNKNOWN = Gap(length=None, reason="ring full")
AFTER_LOST = "no message boundary known after 4 bytes lost: ring full"
AFTER_UNKNOWN = "no message boundary known after bytes lost: ring full"
SELECT = pg.query("select 1")
ROWS = pg.columns(("a", 25)) + pg.row(b"abcdefgh") + pg.row(b"second") + pg.complete("SELECT 2") + pg.ready()
ASKED = "> Query 1 select 1"
END = ["< CommandComplete 1 SELECT 2", "< ReadyForQuery 1 idle"]
IN_ROW = len(pg.columns(("a", 25))) + 5 + 2 + 4 + 2

CASES: dict[str, tuple[list[Arrival], list[str]]] = {
    "inside a row": (
        [*OPEN, (REQUEST, SELECT), (RESPONSE, ROWS[:IN_ROW]), (RESPONSE, LOST), (RESPONSE, ROWS[IN_ROW + 4 :])],
        [*OPENED, ASKED, "< RowDescription 1 a text", "< DataRow 1 (4 bytes lost: ring full)", "< DataRow 1", *END],
    ),
    "over the end of a row": (
        [
            *OPEN,
            (REQUEST, SELECT),
            (RESPONSE, ROWS[: IN_ROW + 4]),
            (RESPONSE, LOST),
            (RESPONSE, ROWS[IN_ROW + 8 :] + b"Z\0\0\0\5"),
        ],
        [
            *[*OPENED, ASKED, "< RowDescription 1 a text", "< DataRow 1 (4 bytes lost: ring full)"],
            f"< ~ 63..78: {AFTER_LOST}",
            *END,
        ],
    ),
    "of unknown length between messages": (
        [*OPEN, (REQUEST, SELECT), (RESPONSE, UNKNOWN), (RESPONSE, pg.row(b"x") + pg.complete("SELECT 2") + pg.ready())],
        [*OPENED, ASKED, "< DataRow 1", *END],
    ),
    "inside a statement": (
        [*OPEN, (REQUEST, SELECT[:9]), (REQUEST, LOST), (REQUEST, SELECT[13:] + SELECT)],
        [*OPENED, "> Query 1 sele (4 bytes lost: ring full)", "> Query 2 select 1"],
    ),
    "over the end of a statement": (
        [*OPEN, (REQUEST, SELECT[:-2]), (REQUEST, LOST), (REQUEST, b"tail" + SELECT + SELECT)],
        [
            *OPENED,
            "> Query 1 select (4 bytes lost: ring full)",
            f"> ~ 43..47: {AFTER_LOST}",
            "> Query 2 select 1",
            "> Query 3 select 1",
        ],
    ),
    "inside a header": (
        [*OPEN, (REQUEST, SELECT[:3]), (REQUEST, LOST), (REQUEST, SELECT[7:] + SELECT), (REQUEST, b"")],
        [*OPENED, "> ~ 27..30: cut off: 4 bytes lost: ring full", f"> ~ 34..41: {AFTER_LOST}", "> Query 1 select 1"],
    ),
    "inside the startup": (
        [(REQUEST, pg.OPENING[:10]), (REQUEST, LOST), (REQUEST, pg.OPENING[14:] + SELECT), (REQUEST, b"")],
        ["> ~ 0..10: cut off: 4 bytes lost: ring full", f"> ~ 14..27: {AFTER_LOST}", "> Query 0 select 1"],
    ),
    "start in the middle": (
        [
            (REQUEST, UNKNOWN),
            (RESPONSE, UNKNOWN),
            (REQUEST, b"abc" + SELECT + pg.SYNC),
            (RESPONSE, b"Z\0\0\0\5Tokyo" + pg.complete("SELECT 2") + pg.ready()),
        ],
        [
            *[f"> ~ 0..3: {AFTER_UNKNOWN}", "> Query 0 select 1", "> Sync 0"],
            *[f"< ~ 0..10: {AFTER_UNKNOWN}", "< CommandComplete 0 SELECT 2", "< ReadyForQuery 0 idle"],
        ],
    ),
    "answers of earlier statements lost": (
        [
            *OPEN,
            (REQUEST, SELECT),
            (RESPONSE, UNKNOWN),
            (REQUEST, pg.query("b")),
            (RESPONSE, pg.complete("SELECT 2") + pg.ready()),
        ],
        [*OPENED, ASKED, "> Query 2 b", "< CommandComplete 2 SELECT 2", "< ReadyForQuery 2 idle"],
    ),
    "inside COPY data": (
        [*OPEN, (REQUEST, pg.query("copy")), (RESPONSE, pg.message("d", b"abcdefgh")[:8]), (RESPONSE, LOST), (RESPONSE, b"h")],
        [*OPENED, "> Query 1 copy", "< CopyData 1 (4 bytes lost: ring full)"],
    ),
    "nothing to find": (
        [*OPEN, (REQUEST, UNKNOWN), (REQUEST, b"Q\0\0\0\6x"), (REQUEST, b"")],
        [*OPENED, f"> ~ 27..33: {AFTER_UNKNOWN}"],
    ),
    "two gaps": (
        [*OPEN, (REQUEST, UNKNOWN), (REQUEST, b"xyz"), (REQUEST, LOST), (REQUEST, SELECT), (REQUEST, b"")],
        [*OPENED, f"> ~ 27..30: {AFTER_UNKNOWN}", ASKED],
    ),
    "no bytes": (
        [*OPEN, (REQUEST, SELECT[:7]), (REQUEST, Gap(length=0, reason="none")), (REQUEST, SELECT[7:])],
        [*OPENED, ASKED],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gap(name: str) -> None:
    """A gap costs what it hit and no more, is said, and positions count it."""
    arrivals, expected = CASES[name]
    seen = all_ways(PostgresqlDecoder, arrivals)
    assert expected == outline(seen)
    check_spans(arrivals, seen, ended=False)


def test_long_row() -> None:
    """A row beyond the limit is given with the values that are whole in its first part; the rest is not held."""
    decoder = PostgresqlDecoder()
    feed(decoder, [*OPEN, (REQUEST, SELECT), (RESPONSE, pg.columns(("a", 25), ("b", 25)))])
    long = pg.row(b"first", b"x" * 100_000_000)
    seen = []
    held = 0
    for begin in range(0, len(long), 1 << 20):
        decoder.receive(RESPONSE, long[begin : begin + (1 << 20)])
        seen += drain(decoder)
        held = max(held, len(decoder._sides[1].stream.data))
    (row,) = seen
    assert isinstance(row, Message)
    assert ["first", {"omitted": 100_000_000}] == row.fields["values"]
    assert f"100000015 bytes long; only the first {PREFIX_BYTES} are decoded" == row.incomplete
    assert len(long) == row.end - row.start
    assert held <= 2 << 20
    decoder.receive(RESPONSE, pg.complete("SELECT 1"))
    assert ["< CommandComplete 1 SELECT 1"] == outline(drain(decoder))


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (pg.query("s" * (STATEMENT_BYTES_MAX + 1)), "s" * PREFIX_BYTES),
        (pg.parse("n", "s" * (STATEMENT_BYTES_MAX + 1)), "s" * (PREFIX_BYTES - 2)),
        (pg.bind("", "", [b"s" * STATEMENT_BYTES_MAX]), ""),
    ],
    ids=["Query", "Parse", "Bind"],
)
def test_long_statement(sent: bytes, expected: str) -> None:
    """A statement beyond the limit shows its begin, is said to be incomplete, and the next one is read."""
    *_, long, following = feed(PostgresqlDecoder(), [*OPEN, (REQUEST, sent + SELECT)])
    assert isinstance(long, Message)
    assert isinstance(following, Message)
    assert expected == long.summary
    assert long.incomplete is not None
    assert ("Query", 2) == (following.type, following.exchange)


def test_long_row_with_losses() -> None:
    """Gaps inside a row that is skipped by length cost nothing of what follows it."""
    long = pg.row(b"x" * 2 * ROW_BYTES_MAX)
    gap = Gap(length=1_000_000, reason="ring full")
    answer: list[Arrival] = [
        (RESPONSE, long[:100_000]),
        (RESPONSE, gap),
        (RESPONSE, long[1_100_000:] + pg.complete("SELECT 1")),
    ]
    *_, row, end = feed(PostgresqlDecoder(), [*OPEN, (REQUEST, SELECT), *answer])
    assert isinstance(row, Message)
    assert row.incomplete is not None
    assert row.incomplete.endswith("1000000 bytes lost: ring full")
    assert ["< CommandComplete 1 SELECT 1"] == outline([end])


@pytest.mark.parametrize("step", [1 << 16, 1 << 20, (1 << 20) + 7, 1 << 30])
def test_long_copy_data(step: int) -> None:
    """COPY data of any length comes in parts of one size, however its bytes are cut."""
    content = bytes(range(256)) * 4096 * 3 + b"tail"
    data = pg.message("d", content)
    decoder = PostgresqlDecoder()
    feed(decoder, [*OPEN, (REQUEST, pg.query("copy")), (RESPONSE, pg.message("H", b"\0\0\0"))])
    arrivals: list[Arrival] = [(RESPONSE, data[begin : begin + step]) for begin in range(0, len(data), step)]
    parts = feed(decoder, arrivals)
    assert [COPY_PART_BYTES] * 3 + [4] == [len(part.content) for part in parts if isinstance(part, Message)]
    assert content == b"".join(part.content for part in parts if isinstance(part, Message))
    offsets = [part.fields["offset"] for part in parts if isinstance(part, Message)]
    assert [0, COPY_PART_BYTES, 2 * COPY_PART_BYTES, 3 * COPY_PART_BYTES] == offsets


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (Gap(length=100, reason="x"), [(1_000, "100 bytes lost: x"), (1_047_476, None), (1_048_576, None), (2_848, None)]),
        (Gap(length=2_099_000, reason="x"), [(1_000, "2099000 bytes lost: x")]),
        (Gap(length=None, reason="x"), [(1_000, "bytes lost: x")]),
    ],
)
def test_loss_in_long_copy_data(gap: Gap, expected: list[tuple[int, str | None]]) -> None:
    """A gap inside long COPY data costs its own bytes; one of unknown length the rest of the message."""
    content = b"\xff" * 2_100_000
    data = pg.message("d", content)
    decoder = PostgresqlDecoder()
    feed(decoder, [*OPEN, (REQUEST, pg.query("copy")), (RESPONSE, pg.message("H", b"\0\0\0"))])
    rest = data[5 + 1_000 + (gap.length or 0) :]
    seen = feed(decoder, [(RESPONSE, data[: 5 + 1_000]), (RESPONSE, gap), (RESPONSE, rest), (RESPONSE, b"")])
    parts = [(len(event.content), event.incomplete) for event in seen if isinstance(event, Message)]
    assert expected == parts


def test_too_many_answers_due() -> None:
    """A client that pipelines deeper than is kept gets answers without numbers until the next ReadyForQuery."""
    decoder = PostgresqlDecoder()
    feed(decoder, OPEN)
    pipeline = pg.execute() * (DUE_MAX + 10)
    answers = pg.complete("A") * 2 + pg.ready()
    feed(decoder, [(REQUEST, pipeline)])
    seen = feed(decoder, [(RESPONSE, answers), (REQUEST, SELECT), (RESPONSE, pg.complete("B"))])
    expected = ["< CommandComplete None A", "< CommandComplete None A", "< ReadyForQuery None idle"]
    assert [*expected, "> Query 2 select 1", "< CommandComplete 2 B"] == outline(seen)


def test_resync_ignores_lookalikes() -> None:
    """Values that look like messages are not taken for one: the header behind them must be possible too."""
    lookalikes = b"Z\0\0\0\5Tokyo" + b"1\0\0\0\4abcd" + b"C\0\0\0\x0cBERLIN 1\0xx" + b"D\0\0\0\x0a\0\1\0\0\0\0!!"
    arrivals: list[Arrival] = [*OPEN, (RESPONSE, UNKNOWN), (RESPONSE, lookalikes + ROWS), (RESPONSE, b"")]
    seen = all_ways(PostgresqlDecoder, arrivals)
    assert [f"< ~ 15..{15 + len(lookalikes)}: {AFTER_UNKNOWN}", "< RowDescription None a text"] == outline(seen)[3:5]
