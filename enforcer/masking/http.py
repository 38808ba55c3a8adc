"""What is masked in HTTP/1: one direction of a connection, message by message, as decoders/http1 tells them.

What lives here: heads by field name, chunks. What must not: parsing of HTTP; a message comes with its exact bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, cast

from capd.decoders.http2.frames import HEADER_BYTES, PREFACE
from capd.decoders.http2.resync import follow_each_other
from capd.enforcer.masking.body import BodyMask
from capd.enforcer.masking.header import header_places
from capd.enforcer.masking.place import Place
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import Scanner

_FIELD: Final = re.compile(rb"(?m)^([!-9;-~]+)[ \t]*:[ \t]*([^\r\n]*)")
_FRAMING: Final = re.compile(rb"(?:\r\n)?([0-9A-Fa-f]{1,16})[^\r\n]{0,4096}\r\n")
"""What stands in a span before the content of a chunk (RFC 9112 section 7.1)."""
_HARMLESS: Final = re.compile(rb"(?:\r?\n?[0-9A-Fa-f]{0,16}\r?\n?)?")
"""What of a body's framing may have come before the content that it frames."""
HARMLESS_BYTES_MAX: Final = 20
LENGTH_OF_CHUNK_BYTES_MAX: Final = 20
"""The end of a chunk and the length of the next, of which no name and value fit into what is left."""
NOT_DECODED: Final = "not decoded"
"""Stands for the type of what runs after a switch of protocols."""
SWITCHING: Final = 101
NOT_TEXT: Final = frozenset({"h2c", "websocket"})
"""HTTP/2 compresses headers, WebSocket scrambles what a client says (RFC 6455 section 5.3)."""


class Framed:
    """A body on its way, and where in its framing.

    Attributes:
        mask: its content.
        chunked: whether it is in chunks.
        chunk_left: bytes that are still to come of the present chunk.
        tunnel: whether it is no body, but what runs after a switch of protocols.
        broken: whether nobody knows any more where a chunk begins.
        end: behind what came, in the stream.
    """

    __slots__ = ("broken", "chunk_left", "chunked", "end", "mask", "tunnel")

    def __init__(self, mask: BodyMask, *, chunked: bool, tunnel: bool = False) -> None:
        self.mask = mask
        self.chunked = chunked
        self.tunnel = tunnel
        self.chunk_left = 0
        self.broken = False
        self.end = 0


class HttpMask:
    """One direction."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._body: Framed | None = None
        self._opaque: bool | None = None
        """Whether what runs after a switch of protocols holds texts in a form that nothing here reads; None before any."""
        self.decided = 0
        """Everything before is judged."""
        self.pieces: list[tuple[int, int]] = []
        """Where in the stream the content of the latest `body` is: offsets and lengths."""

    def message(self, kind: str, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool = True) -> list[Place]:
        """Judge a message.

        Args:
            kind: its type: `request`, `response`, `body`, `end`, `tunnel`. What `goes_on` is judged by `judge`, or by what
                follows.
            fields: as decoded.
            raw: its bytes; of one with a hole what is there is given piece by piece, with `whole` False.
            start: offset of the first of them.
            whole: whether they are all.
        """
        if kind in ("request", "response"):
            places = self._finish()
            places += self._head(raw, start)
            self._body = self._begin(fields)
            self.decided = start + len(raw)
            return places
        if kind == "body":
            if self._body is None:
                self._body = Framed(BodyMask(self._rules), chunked=False)
            self.pieces = self._content(self._body, raw, start, whole=whole)
            return self._extensions(raw, start, self.pieces)
        opaque = kind == "tunnel" and self._is_opaque(fields, raw)
        if kind == "tunnel" and not opaque:
            return self._tunnelled(raw, start)
        places = self._finish()
        if opaque:
            places.append(Place(start, start + len(raw), "undecided", NOT_DECODED))
        elif raw:
            places += self._head(raw, start) if kind == "end" else self._text(raw, start)
        self.decided = start + len(raw)
        return places

    def goes_on(self, kind: str) -> bool:
        """Say whether a message that was just judged is a part of what goes on behind it."""
        return kind == "body" or (kind == "tunnel" and self._body is not None)

    def _tunnelled(self, raw: bytes, start: int) -> list[Place]:
        """Take what runs after a switch of protocols: one text, in as many parts as it was read in."""
        places: list[Place] = []
        body = self._body
        if body is None or not body.tunnel:
            places = self._finish()
            body = self._body = Framed(BodyMask(self._rules.undecoded, NOT_DECODED), chunked=False, tunnel=True)
        self._content(body, raw, start, whole=True)
        return places

    def upgrades(self, kind: str, fields: Mapping[str, object], *, already: bool) -> bool:
        """Say whether what follows may be a protocol whose bytes are no text: it was asked for, and not refused."""
        if kind == "response":
            return already and (bool(fields.get("interim")) or fields.get("status") in (None, SWITCHING))
        headers = fields.get("headers")
        pairs = headers if kind == "request" and isinstance(headers, Sequence) else ()
        return already or any(str(name).lower() == "upgrade" and str(value).lower() in NOT_TEXT for name, value in pairs)

    def _is_opaque(self, fields: Mapping[str, object], raw: bytes) -> bool:
        if self._opaque is None:
            known = str(fields.get("protocol")).lower() in NOT_TEXT or raw.startswith(PREFACE[:HEADER_BYTES])
            self._opaque = known or follow_each_other(raw) is not False
        return self._opaque

    def gap(self, length: int) -> list[Place]:
        """Bytes are missing in the body that is on its way."""
        body = self._body
        if body is None:
            return []
        places = body.mask.gap(length)
        body.chunk_left = max(0, body.chunk_left - length)
        self.decided = max(self.decided, body.end)
        return places

    @property
    def in_body(self) -> bool:
        """Whether a body is on its way."""
        return self._body is not None

    def harmless(self, tail: bytes) -> bool:
        """Say whether bytes that belong to no message yet are nothing but framing of the body that is on its way."""
        body = self._body
        return body is not None and body.chunked and len(tail) <= HARMLESS_BYTES_MAX and bool(_HARMLESS.fullmatch(tail))

    def end(self) -> list[Place]:
        """Nothing more will come."""
        return self._finish()

    def cut(self) -> list[Place]:
        """What is judged has to be judged now, without what follows."""
        body = self._body
        return [] if body is None else body.mask.cut()

    def save(self) -> list[object]:
        """Give its state as plain values."""
        body = self._body
        if body is None:
            return [self.decided, self._opaque, None]
        framed = [body.mask.save(), body.chunked, body.chunk_left, body.broken, body.end, body.tunnel]
        return [self.decided, self._opaque, framed]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        self.decided, self._opaque, found = cast("tuple[int, bool | None, Sequence[object] | None]", tuple(saved))
        if found is None:
            return
        mask, chunked, chunk_left, broken, end, tunnel = cast(
            "tuple[Sequence[object], bool, int, bool, int, bool]", (*found, False)[:6]
        )
        rules = self._rules.undecoded if tunnel else self._rules
        body = self._body = Framed(BodyMask.restored(rules, mask), chunked=chunked, tunnel=tunnel)
        body.chunk_left, body.broken, body.end = chunk_left, broken, end

    # -- heads -----------------------------------------------------------------------------------------------------------------

    def _head(self, raw: bytes, start: int) -> list[Place]:
        """Mask fields by name; whatever else is in a head is looked at without them."""
        if not self._rules.may_hold(raw):
            return []
        places: list[Place] = []
        at = 0
        for line in _FIELD.finditer(raw):
            found = header_places(self._rules.headers, self._rules.cookies, line[1].decode("latin-1"), line[2])
            if found:
                places += self._text(raw[at : line.start()], start + at)
                places += [place.moved(start + line.start(2)) for place in found]
                at = line.end()
        return places + self._text(raw[at:], start + at)

    def _text(self, data: bytes, start: int) -> list[Place]:
        return Scanner(self._rules, start).feed(data, final=True) if data else []

    # -- bodies ----------------------------------------------------------------------------------------------------------------

    def _begin(self, fields: Mapping[str, object]) -> Framed | None:
        framing = fields.get("framing")
        if framing not in ("length", "chunked", "close"):
            return None
        return Framed(BodyMask.after(self._rules, fields), chunked=framing == "chunked")

    def _content(self, body: Framed, raw: bytes, start: int, *, whole: bool) -> list[tuple[int, int]]:
        """Take a part of a body, which `judge` looks at when there is more of it, or no more to come."""
        pieces = _unframed(body, raw, whole=whole)
        for at, length in pieces:
            body.mask.take(raw[at : at + length], start + at)
        body.end = start + len(raw)
        return [(start + at, length) for at, length in pieces]

    def _extensions(self, raw: bytes, start: int, pieces: Sequence[tuple[int, int]]) -> list[Place]:
        """Look at what stands between the content of chunks: their extensions (RFC 9112 section 7.1.1) say what they like."""
        places: list[Place] = []
        at = start
        for begin, length in (*pieces, (start + len(raw), 0)):
            if begin - at > LENGTH_OF_CHUNK_BYTES_MAX:
                places += self._text(raw[at - start : begin - start], at)
            at = begin + length
        return places

    def judge(self, *, final: bool = False) -> list[Place]:
        """Look at what came of the body; what may be the beginning of something waits for more, unless this was all."""
        body = self._body
        if body is None:
            return []
        places = body.mask.judge(final=final)
        undecided = body.mask.undecided
        self.decided = max(self.decided, body.end) if undecided is None else undecided
        return places

    def _finish(self) -> list[Place]:
        places = self.judge(final=True)
        self._body = None
        return places


def _unframed(body: Framed, span: bytes, *, whole: bool) -> list[tuple[int, int]]:
    """Give where in a span the content is, as offset and length; it may be that of several chunks."""
    if not body.chunked or body.broken:
        return [(0, len(span))] if span else []
    pieces: list[tuple[int, int]] = []
    at = 0
    while at < len(span):
        if body.chunk_left == 0:
            framing = _FRAMING.match(span, at)
            if framing is None:
                # Behind a hole nobody knows where a chunk begins: all of it is looked at as it is.
                body.broken = not whole or at == 0
                pieces.append((at, len(span) - at))
                break
            at, body.chunk_left = framing.end(), int(framing[1], 16)
            continue
        length = min(len(span) - at, body.chunk_left)
        pieces.append((at, length))
        at += length
        body.chunk_left -= length
    return pieces
