"""Whatever a recording holds, the transcript of it is text that cannot steer a terminal, and comes without an exception."""

from __future__ import annotations

import re
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from capd.cli.line import Line, render
from capd.cli.payload import BRIEF, FULL
from capd.cli.playback import Choice, Playback
from capd.cli.record_json import as_json
from capd.cli.summary import session_head, to_json, verdict_lines
from capd.cli.transcript import Transcript
from capd.recording.record import Direction, Kind, Record

SESSION = UUID("0197f3a4-b5c6-7abc-8def-0123456789ab")
BIDI = "\u061c\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
STEERS = re.compile(f"[\x00-\x1f\x7f-\x9f{BIDI}]")
OWN_COLOURS = re.compile(r"\x1b\[(?:0|1|2|1;31|3[1-6])m")

NASTY = st.sampled_from(["\x1b]52;c;AAAA\x07", "\x9b2J", "\u202eevil", "\r\n\x00", "a\x1b[31mb", "\x7f", "\ud800"])
ATOM = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40)
    | NASTY
)
KEYS = st.sampled_from(
    [
        "type", "protocol", "summary", "exchange", "ordinal", "start", "end", "fields", "incomplete", "headers",
        "columns", "rows", "first_row", "status", "framing", "values", "parameters", "statement", "name", "library",
        "tie", "position", "payload", "layer", "length", "reason", "detail", "error", "offset", "content", "trailers",
        "binary", "omitted", "bytes", "text",
    ]
)  # fmt: skip
VALUE = st.recursive(ATOM, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)
KNOWN = st.fixed_dictionaries(
    {},
    optional={
        "protocol": st.sampled_from(["http1", "postgresql", "unknown", "\x1b[2J"]),
        "type": st.sampled_from(
            [
                "request",
                "response",
                "body",
                "end",
                "Query",
                "Parse",
                "Bind",
                "rows",
                "CommandComplete",
                "ErrorResponse",
                "tunnel",
            ]
        ),
        "layer": st.sampled_from(["application", "wire"]),
        "payload": st.binary(max_size=300),
        "position": st.integers(0, 500),
        "start": st.integers(0, 300),
        "end": st.integers(0, 600),
        "fields": st.dictionaries(KEYS, VALUE, max_size=6),
        "summary": NASTY | st.text(max_size=20),
    },
)
BODY = st.tuples(st.dictionaries(KEYS, VALUE, max_size=6), KNOWN).map(lambda pair: {**pair[0], **pair[1]})
RECORD = st.builds(
    Record,
    kind=st.sampled_from(list(Kind)),
    session=st.just(SESSION),
    time_ns=st.integers(-(2**63), 2**63 - 1) | st.integers(10**18, 2 * 10**18),
    direction=st.sampled_from([None, *Direction]),
    body=BODY,
)


def shown(lines: list[Line]) -> str:
    """Render lines in colour and take capd's own colours out again."""
    plain = "".join(render(line, coloured=False) for line in lines)
    coloured = OWN_COLOURS.sub("", "".join(render(line, coloured=True) for line in lines))
    return plain + coloured


@settings(max_examples=300, deadline=None)
@given(st.lists(RECORD, max_size=12), st.sampled_from([BRIEF, FULL]))
def test_no_record_steers_the_terminal(records: list[Record], limits: object) -> None:
    """For any records: no control but the newline between lines, no bidirectional or zero-width character, no exception."""
    assert limits in {BRIEF, FULL}
    transcript, playback = Transcript(BRIEF if limits == BRIEF else FULL), Playback(Choice(), BRIEF)
    blocks = [block for record in records for block in transcript.feed(record)] + transcript.pending()
    assert [] == STEERS.findall(shown([line for block in blocks for line in playback.lines(block)]))


@given(RECORD)
def test_no_record_steers_the_terminal_as_json(record: Record) -> None:
    """JSON of any record is printable ASCII on one line."""
    assert [] == re.findall(r"[^\x20-\x7e]", to_json(as_json(record)))


SESSION_KEYS = st.sampled_from(
    [
        "session", "run", "run_name", "protocol", "target", "host", "port", "name", "principal", "process", "pid",
        "exe", "argv", "user", "started", "ended", "state", "bytes", "request", "messages", "completeness", "verdict",
        "reasons", "tls", "tie", "library",
    ]
)  # fmt: skip


@given(
    st.dictionaries(
        SESSION_KEYS,
        st.recursive(
            ATOM, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SESSION_KEYS, inner, max_size=5), max_leaves=8
        ),
        max_size=12,
    )
)
def test_no_index_row_steers_the_terminal(session: dict[str, object]) -> None:
    """The head and the verdict of any index row are as safe as its records."""
    assert [] == STEERS.findall(shown([*session_head(session), *verdict_lines(session)]))  # type: ignore[arg-type]
