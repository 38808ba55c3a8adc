"""A terminal session as asciicast v3 (docs.asciinema.org/manual/asciicast/v3), which asciinema plays.

What lives here: telling a terminal from anything else, and the lines of that format. What must not: sessions of other kinds.

A terminal is plain text that nobody decoded, in which one side sends the control sequences of a terminal (ECMA-48) or telnet's
options. The file is ASCII; what a player would write to its own terminal is only what moves the cursor and colours the text:
strings to the terminal (titles, clipboard, device control) and what is no text are left out.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final

from capd.cli import facts
from capd.cli.forms.spoken import FormError, Spoken, head_words
from capd.cli.line import plain
from capd.cli.payload import is_text
from capd.cli.record_json import Json
from capd.cli.summary import peer, to_json
from capd.cli.transcript import gap_line, masked_line
from capd.recording.record import Direction, Kind, Record

VERSION: Final = 3
COLUMNS: Final = 80
ROWS: Final = 24
"""Of a terminal whose size nobody told: the oldest default there is."""
PROBE_BYTES: Final = 64 * 1024
"""How much of each direction is looked at for signs of a terminal."""
NS_PER_SECOND: Final = 1_000_000_000
HELD_CHARACTERS_MAX: Final = 4096
"""Of a control sequence that does not end; then it is none."""
DECODED: Final = frozenset({"http1", "http2", "mysql", "postgresql", "redis", "websocket"})
APPLICATION: Final = frozenset({"", "application"})
_SIGNS: Final = re.compile(rb"\x1b\[[0-9;?]*[@-~]|\x1b\][0-9]|\xff[\xfb-\xfe][\x00-\x7f]")
_TELNET: Final = re.compile(rb"\xff(?:[\xfb-\xfe].|\xfa.*?\xff\xf0|[\xf0-\xf9]|(?P<escaped>\xff))", re.DOTALL)
_SEQUENCE: Final = re.compile(
    r"\x1b\[(?P<csi>[0-?]*[ -/]*)(?P<final>[@-~])"
    r"|(?P<string>(?:\x1b[\]P_^X]|[\x90\x98\x9d-\x9f]).*?(?:\x07|\x1b\\|\x9c))"
    r"|\x1b(?P<two>[ -/]+[0-~]|[0-OQ-WYZ\\`-~])"
    r"|(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f\x7f-\x9f])",
    re.DOTALL,
)
_HARMLESS_CONTROLS: Final = "\x07\x08\t\n\x0b\x0c\r\x0e\x0f"
_FINALS: Final = frozenset("@ABCDEFGHIJKLMPSTXZ`abdefghlmrsu")
"""Control sequences that move, insert, delete, colour and set modes; none that makes a terminal answer."""
_MODES_LEFT_OUT: Final = re.compile(r"\?(?:.*;)?(?:9|100[0-6]|1015|1016|2004|66)(?:;|$)")
"""Modes in which the terminal of whoever looks would begin to send: reports of the mouse, of its focus, of pastes."""
_TWO: Final = re.compile(r"[78DEHM=>c]|[()*+][0-2AB]")


def cast(spoken: Spoken) -> Iterator[bytes]:
    """Give the pieces of the recording of a terminal.

    Raises:
        FormError: the session is none.
    """
    output = output_of(spoken)
    if output is None:
        words = f"session {spoken.row.session} is no terminal: it is {spoken.row.protocol}, without control sequences"
        raise FormError(words)
    begun_ns = spoken.row.started_ns
    session = spoken.row.to_json()
    header: dict[str, Json] = {
        "version": VERSION,
        "term": {"cols": COLUMNS, "rows": ROWS},
        "timestamp": max(begun_ns, 0) // NS_PER_SECOND,
        "title": f"{peer(session)}, session {spoken.row.session}",
    }
    yield _line(header)
    yield from (b"# " + to_json(words)[1:-1].encode("ascii") + b"\n" for words in head_words(spoken.row))
    last_ns = begun_ns
    channels = {direction: _Channel(telnet=True) for direction in Direction}
    for record in spoken.records():
        code, text = _event(record, output, channels)
        if text:
            yield _line([round(max(record.time_ns - last_ns, 0) / NS_PER_SECOND, 6), code, text])
            last_ns = max(last_ns, record.time_ns)


def output_of(spoken: Spoken) -> Direction | None:
    """Give the direction in which a session's terminal is written to; None when it is no terminal."""
    if spoken.row.protocol in DECODED:
        return None
    seen = {direction: bytearray() for direction in Direction}
    for record in spoken.records():
        if record.kind is Kind.DATA and record.direction is not None and facts.text(record.body, "layer") in APPLICATION:
            kept = seen[record.direction]
            kept += facts.payload(record.body, "payload")[: PROBE_BYTES - len(kept)]
        if all(len(kept) >= PROBE_BYTES for kept in seen.values()):
            break
    signs = {direction: len(_SIGNS.findall(kept)) for direction, kept in seen.items() if _reads_as_text(bytes(kept))}
    best = max(signs, key=lambda direction: (signs[direction], direction), default=None)
    return best if best is not None and signs[best] else None


def _reads_as_text(kept: bytes) -> bool:
    return is_text(_TELNET.sub(b"", kept))


def _event(record: Record, output: Direction, channels: dict[Direction, _Channel]) -> tuple[str, str]:
    direction = record.direction
    if record.kind is Kind.DATA and direction is not None and facts.text(record.body, "layer") in APPLICATION:
        text = channels[direction].feed(facts.payload(record.body, "payload"))
        return "o" if direction is output else "i", text
    if record.kind is Kind.GAP:
        return "m", plain(gap_line(direction, record.body, layer=facts.text(record.body, "layer")))
    return ("m", plain(masked_line(direction, record.body))) if record.kind is Kind.MASKED else ("", "")


def _line(value: Json) -> bytes:
    return to_json(value).encode("ascii") + b"\n"


class _Channel:
    """One direction: bytes in, what a player may show out. Characters and sequences may be cut anywhere."""

    def __init__(self, *, telnet: bool) -> None:
        self._telnet = telnet
        self._bytes = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, payload: bytes) -> str:
        """Take the next bytes."""
        text = self._held + self._decoder.decode(self._without_telnet(payload))
        self._held = ""
        given: list[str] = []
        at = 0
        while at < len(text):
            found = _SEQUENCE.match(text, at)
            if found is None:
                rest = text[at:]
                if len(rest) <= HELD_CHARACTERS_MAX:
                    self._held = rest
                    break
                at += 1
                continue
            given.append(_shown(found))
            at = found.end()
        return "".join(given)

    def _without_telnet(self, payload: bytes) -> bytes:
        """Take telnet's commands out (RFC 854); 0xFF is no byte of UTF-8, so that nothing else is touched."""
        data = self._bytes + payload
        self._bytes = b""
        kept = _TELNET.sub(b"", data)
        cut = kept.rfind(b"\xff")
        if cut >= 0 and len(kept) - cut <= HELD_CHARACTERS_MAX:
            kept, self._bytes = kept[:cut], kept[cut:]
        return kept


def _shown(found: re.Match[str]) -> str:
    """Give what of a piece a player may write to its terminal."""
    if found["text"] is not None:
        return found[0]
    if found["control"] is not None:
        return found[0] if found[0] in _HARMLESS_CONTROLS else ""
    if found["final"] is not None:
        private = found["csi"][:1] in {">", "<", "="} or " " in found["csi"] or "!" in found["csi"]
        sends = found["final"] in "hl" and _MODES_LEFT_OUT.match(found["csi"])
        return found[0] if found["final"] in _FINALS and not private and not sends else ""
    if found["two"] is not None:
        return found[0] if _TWO.fullmatch(found["two"]) else ""
    return ""
