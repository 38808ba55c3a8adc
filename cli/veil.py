"""What opens doors is named, not spelled: credentials in HTTP headers, passwords of databases.

What lives here: which places those are, and what stands there instead. What must not: masking of a recording before it is
stored (capd.enforcer.masking); this is about who looks at it.

A screen, and a file that was exported, is seen by more people than a recording. `replay --format json` and `raw` have all.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from capd.cli import facts
from capd.cli.facts import Facts
from capd.enforcer.masking.header import header_places
from capd.enforcer.masking.names import HEADERS
from capd.enforcer.masking.place import FILLER
from capd.recording.record import Direction, Kind, Record, Value

HEADERS_VEILED: Final = frozenset(HEADERS)
"""The same as the recorder masks by default (capd.enforcer.masking): at `full` they are recorded, and still not shown."""
PASSWORDS: Final = frozenset({"PasswordMessage", "SASLInitialResponse", "SASLResponse", "GSSResponse"})
"""PostgreSQL's messages that carry a password or the proof of one; replay shows nothing of them either."""
PROOFS: Final = frozenset({"AuthResponse", "AuthSwitchResponse"})
"""MySQL's; others tell where in them the proof stands."""
PROOF: Final = "proof"
HTTP2: Final = "http2"
REDIS: Final = "redis"
SECTIONS: Final = frozenset({"request", "response", "headers", "end", "PUSH_PROMISE"})
"""HTTP/2's messages that are header blocks."""
FRAME_HEAD_BYTES: Final = 9
_END: Final = 1 << 62
PACKET_HEAD_BYTES: Final = 4
PASSWORD_HEAD_BYTES: Final = 5
"""Type byte and length before what such a message carries."""
_NAMES: Final = tuple(name.encode() + b":" for name in HEADERS_VEILED)
_NAME_BYTES_MAX: Final = max(len(name) for name in _NAMES) + 8
"""A few more for blanks before the colon, which no server takes but a client may send."""
_LINE_END: Final = re.compile(rb"[\r\n]")
_AFTER_HOLE_BYTES_MAX: Final = 16 * 1024
"""How much of a line whose beginning is missing is filled: it may be the rest of a credential, or of a body without lines."""


def veiled(name: str, value: str) -> str:
    """Give what may be shown of a header's value."""
    data = value.encode("utf-8", "surrogatepass")
    shown: list[str] = []
    at = 0
    for place in header_places(HEADERS_VEILED, (), name, data):
        secret = data[place.start : place.end]
        if secret.strip(FILLER):
            shown += [data[at : place.start].decode("utf-8", "replace"), f"… ({len(secret)} characters not shown)"]
            at = place.end
    return "".join([*shown, data[at:].decode("utf-8", "replace")]) if shown else value


def pair_of(pair: Value) -> tuple[str, str]:
    """Give name and value of a header, whatever is really there."""
    parts = [facts.text_of(part) for part in facts.sequence_of(pair)]
    return (parts[0], ": ".join(parts[1:])) if parts else ("", facts.text_of(pair))


def veiled_record(record: Record) -> Record:
    """Give a MESSAGE record of HTTP with what may be shown of its headers; any other as it is. DATA is for `StreamVeil`."""
    if record.kind is not Kind.MESSAGE or not facts.text(record.body, "protocol").startswith("http"):
        return record
    fields = facts.mapping(record.body, "fields")
    changed: dict[str, Value] = {}
    for key in ("headers", "trailers"):
        pairs = [pair_of(pair) for pair in facts.sequence(fields, key)]
        if any(name.lower() in HEADERS_VEILED for name, _ in pairs):
            changed[key] = [[name, veiled(name, value)] for name, value in pairs]
    if not changed:
        return record
    body = {key: value for key, value in record.body.items() if key != "text"}
    return Record(record.kind, record.session, record.time_ns, record.direction, {**body, "fields": {**fields, **changed}})


def veiled_records(records: Iterator[Record]) -> Iterator[Record]:
    """Give the records of a session of HTTP with what may be shown: heads, and lines of bytes that no decoder understood.

    Of HTTP/2 no bytes are shown that were not understood: its heads are compressed.
    """
    veils = {direction: StreamVeil(http=True) for direction in Direction}
    opaque = False
    for record in records:
        payload, direction, name = record.body.get("payload"), record.direction, record.body.get("name")
        if record.kind is Kind.GAP:
            for veil in veils.values():
                veil.hole(hides=False)
        elif record.kind is Kind.MARKER and name == "protocol":
            opaque = facts.text(record.body, "protocol") == HTTP2
        elif record.kind is Kind.MARKER and name == "decoder" and direction is not None and opaque:
            veils[direction] = StreamVeil(http=True, spans=[(0, _END)])
        if record.kind is Kind.DATA and direction is not None and isinstance(payload, bytes):
            body = {**record.body, "payload": veils[direction].filled(payload, 0)}
            yield Record(record.kind, record.session, record.time_ns, direction, body)
        else:
            yield veiled_record(record)


def credential_spans(records: Iterator[Record]) -> dict[Direction, list[tuple[int, int]]]:
    """Give where passwords of databases, and blocks of HTTP/2 with a credential in them, stand: start and end, in order.

    So do bytes of HTTP/2 that no decoder understood.
    """
    found: dict[Direction, list[tuple[int, int]]] = {direction: [] for direction in Direction}
    opaque = False
    for record in records:
        body, direction, name = record.body, record.direction, record.body.get("name")
        if record.kind is Kind.MARKER and name == "protocol":
            opaque = facts.text(body, "protocol") == HTTP2
        if direction is None:
            continue
        start, end = facts.number(body, "start"), facts.number(body, "end")
        if record.kind is Kind.MESSAGE and start is not None and end is not None:
            proof = [at for at in facts.sequence(facts.mapping(body, "fields"), PROOF) if isinstance(at, int)]
            if facts.text(body, "type") in PASSWORDS:
                found[direction].append((start + PASSWORD_HEAD_BYTES, end))
            elif facts.text(body, "type") in PROOFS:
                found[direction].append((start + PACKET_HEAD_BYTES, end))
            elif len(proof) == len(("start", "end")):
                found[direction].append((start + proof[0], start + proof[1]))
            elif facts.text(body, "protocol") == HTTP2 and end > start and _has_credential(body):
                found[direction].append((start + FRAME_HEAD_BYTES, end))
            elif facts.text(body, "protocol") == REDIS and _has_password(body):
                found[direction].append((start, end))
        elif record.kind is Kind.MARKER and opaque and name == "skipped" and start is not None and end is not None:
            found[direction].append((start, end))
        elif record.kind is Kind.MARKER and opaque and name == "decoder":
            found[direction].append((facts.number(body, "offset") or 0, _END))
    return {direction: sorted(spans) for direction, spans in found.items()}


def _has_credential(told: Facts) -> bool:
    """Whether a message of HTTP/2 is a header block with a credential, or one that was not decoded."""
    fields = facts.mapping(told, "fields")
    if facts.text(told, "type") not in SECTIONS:
        return False
    section = fields.get("headers", fields.get("trailers"))
    return section is None or any(pair_of(pair)[0].lower() in HEADERS_VEILED for pair in facts.sequence_of(section))


def _has_password(told: Facts) -> bool:
    """Whether a message of Redis is a command with a password, or an answer that may hold one."""
    fields = facts.mapping(told, "fields")
    return bool(fields.get("secret")) or any(
        "hidden" in facts.mapping_of(argument) for argument in facts.sequence(fields, "arguments")
    )


class StreamVeil:
    """Fills credentials in the bytes of one direction, as they come; no byte is added or taken.

    Of HTTP every line that begins like one of the headers is filled up to its end, wherever it stands: what a decoder did not
    understand may hold credentials too. After a hole the rest of the line is filled.
    """

    def __init__(self, *, http: bool, spans: Sequence[tuple[int, int]] = ()) -> None:
        """Begin.

        Args:
            http: whether lines are looked at.
            spans: positions that are filled whatever they hold, in order.
        """
        self._http = http
        self._spans = spans
        self._line = bytearray()
        """The beginning of the line that is being read, up to _NAME_BYTES_MAX."""
        self._hides = False
        self._hidden_after_hole = 0
        self._was_hidden = False

    def hole(self, *, hides: bool = True) -> None:
        """Bytes are missing before what comes next; `hides`: whether the rest of the line is filled."""
        self._hides = self._http and hides
        self._hidden_after_hole = _AFTER_HOLE_BYTES_MAX
        self._line.clear()

    def filled(self, payload: bytes, position: int) -> bytes:
        """Give the bytes that may be shown in place of these.

        Args:
            payload: the next bytes.
            position: where in the stream they are.
        """
        at = max(0, bisect_right(self._spans, (position, _END)) - 1)
        for start, end in islice(self._spans, at, None):
            if start >= position + len(payload):
                break
            first, last = max(start - position, 0), min(end - position, len(payload))
            if first < last:
                payload = payload[:first] + FILLER * (last - first) + payload[last:]
        return self._lines(payload) if self._http else payload

    def _lines(self, payload: bytes) -> bytes:
        given = bytearray()
        at = 0
        while at < len(payload):
            found = _LINE_END.search(payload, at)
            end = len(payload) if found is None else found.start()
            given += self._part(payload[at:end])
            if found is not None:
                given += payload[end : end + 1]
                # A line that begins with a blank goes on with the header before it (RFC 9112 section 5.2).
                self._was_hidden = self._hides or (self._was_hidden and not self._line)
                self._hides = False
                self._hidden_after_hole = 0
                self._line.clear()
                end += 1
            at = end
        return bytes(given)

    def _part(self, part: bytes) -> bytes:
        """Give what may be shown of a part of one line."""
        if self._hides:
            return self._hidden(part)
        room = _NAME_BYTES_MAX - len(self._line)
        if room <= 0 or not part:
            return part
        before = len(self._line)
        self._line += part[:room]
        if self._was_hidden and self._line.startswith((b" ", b"\t")):
            self._hides = True
            return self._hidden(part)
        name, colon, _ = bytes(self._line).lower().partition(b":")
        if not colon or name.rstrip(b" \t") + colon not in _NAMES:
            return part
        self._hides = True
        shown = max(len(name) + 1 - before, 0)
        return part[:shown] + self._hidden(part[shown:])

    def _hidden(self, part: bytes) -> bytes:
        if self._hidden_after_hole:
            hidden = min(len(part), self._hidden_after_hole)
            self._hidden_after_hole -= hidden
            self._hides = self._hidden_after_hole > 0
            return FILLER * hidden + part[hidden:]
        return FILLER * len(part)
