"""Sessions as one HTML file that replays them offline: nothing is fetched, nothing of the recording is ever markup.

What lives here: the document and the data in it. What must not: what stands in a transcript (transcript), behaviour (page.js).

All that was recorded is in one block of JSON, in ASCII and without `<`, `>` or `&`, which the script turns into text nodes. A
policy in the page allows that script and that style by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Final

from capd.cli import moments
from capd.cli.forms.spoken import HTTP, Spoken
from capd.cli.line import Line, Style, line
from capd.cli.payload import Limits
from capd.cli.record_json import Json
from capd.cli.safe_text import visible
from capd.cli.summary import peer, session_head, to_json, verdict_lines
from capd.cli.transcript import Block, Transcript
from capd.cli.veil import veiled_records
from capd.recording.errors import CorruptSegmentError
from capd.recording.record import Kind, Record

PAGE_BYTES_MAX: Final = 64 << 20
"""Of data; a browser that has to read more becomes slow before it shows anything."""
WARNINGS_AFTER_MAX: Final = 1000
"""Gaps and the like that are told although what stands between them is not."""
NS_PER_MS: Final = 1_000_000
POLICY: Final = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
)
STYLES: Final = (
    Style.PLAIN, Style.STRONG, Style.FAINT, Style.BAD, Style.GOOD, Style.DOUBTFUL, Style.REQUEST, Style.RESPONSE,
)  # fmt: skip
"""By number, as page.js names them."""
_NUMBERS: Final = {style: number for number, style in enumerate(STYLES)}
_ESCAPES: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_BODY: Final = """<header><h1>{title}</h1><select id="session"></select><div id="head"></div><div id="verdict"></div></header>
<noscript><p>This page replays a recording with a script that is in it; allow that, or use capd replay.</p></noscript>
<nav><button id="play">play</button><select id="speed" title="speed"><option value="1">as it was</option>
<option value="10">10 times</option><option value="100">100 times</option></select>
<input id="slider" type="range" min="0" max="0" step="any" value="0" title="time"><button id="end">end</button>
<span id="now"></span></nav>
<div id="marks" class="marks"></div>
<main id="blocks"></main>
"""


def page(sessions: Iterable[Spoken], limits: Limits, *, title: str) -> Iterator[bytes]:
    """Give the pieces of the page.

    Args:
        sessions: what it replays; with several, whoever looks chooses.
        limits: how much of long things is shown.
        title: what it is of.
    """
    script, style = _asset("page.js"), _asset("page.css")
    policy = POLICY.format(script=_hash(script), style=_hash(style))
    name = escape(visible(title))
    yield (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width">\n'
        f"<title>{name}</title><style>{style}</style></head><body>\n{_BODY.format(title=name)}"
        '<script type="application/json" id="recording">{"sessions": ['
    ).encode()
    room = _Room(PAGE_BYTES_MAX)
    for number, spoken in enumerate(sessions):
        yield b",\n" if number else b"\n"
        yield from _session(spoken, limits, room)
    yield f"\n]}}</script>\n<script>{script}</script>\n</body></html>\n".encode()


@dataclass(slots=True)
class _Room:
    """Bytes that the page may still grow by."""

    left: int


def _session(spoken: Spoken, limits: Limits, room: _Room) -> Iterator[bytes]:
    session = spoken.row.to_json()
    name = f"{spoken.row.protocol} to {peer(session)}, {moments.rfc3339(spoken.row.started_ns)}"
    head = _lines(session_head(session))
    yield b'{"name": %s, "head": %s, "blocks": [' % (_embedded(visible(name)), _embedded(head))
    left_out = warnings = 0
    separator = b"\n"
    at_ms = 0.0
    for block in _blocks(spoken, limits):
        # A clock that was set back must not bring the slider out of order.
        at_ms = max(at_ms, (block.time_ns - spoken.row.started_ns) / NS_PER_MS)
        packed = _embedded(_block(block, at_ms))
        if len(packed) > room.left and not (block.warning and warnings < WARNINGS_AFTER_MAX):
            room.left = 0
            left_out += 1
            continue
        warnings += len(packed) > room.left
        room.left = max(room.left - len(packed), 0)
        yield separator + packed
        separator = b",\n"
    more = f"{left_out:,} more are in the recording and not in this page: capd replay {spoken.row.session}" if left_out else ""
    yield b'\n], "verdict": %s, "more": %s}' % (_embedded(_lines(verdict_lines(session))), _embedded(more))


def _blocks(spoken: Spoken, limits: Limits) -> Iterator[Block]:
    transcript = Transcript(limits, protocol=spoken.row.protocol)
    try:
        records = spoken.records()
        for record in veiled_records(records) if spoken.row.protocol in HTTP else records:
            for block in transcript.feed(record):
                yield _marked(block, record)
    except CorruptSegmentError as error:
        yield from transcript.pending()
        words = line(f"the recording is damaged from here on: {error}", Style.BAD)
        yield Block(time_ns=spoken.row.last_ns, direction=None, lines=[words], warning=True)
        return
    yield from transcript.pending()


def _marked(block: Block, record: Record) -> Block:
    """Give a block of a masked place as one that is listed."""
    if record.kind is not Kind.MASKED:
        return block
    return Block(time_ns=block.time_ns, direction=block.direction, lines=block.lines, ordinal=block.ordinal, warning=True)


def _block(block: Block, at_ms: float) -> list[Json]:
    direction = -1 if block.direction is None else int(block.direction)
    ordinal = -1 if block.ordinal is None else block.ordinal
    return [at_ms, moments.clock(block.time_ns), direction, ordinal, int(block.warning), _lines(block.lines)]


def _lines(lines: Iterable[Line]) -> list[Json]:
    return [[[visible(span.text), _NUMBERS[span.style]] for span in spans] for spans in lines]


def _embedded(value: Json) -> bytes:
    """Give JSON that no parser of HTML takes for its own, wherever it stands."""
    return to_json(value).translate(_ESCAPES).encode("ascii")


def _asset(name: str) -> str:
    return files("capd.cli.forms").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(sha256(text.encode()).digest()).decode("ascii")
