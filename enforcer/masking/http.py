"""What is masked in HTTP/1: one direction of a connection, message by message, as decoders/http1 tells them.

What lives here: heads by field name, bodies as text, JSON or packed, the way from a body's content back to the bytes of
the stream. What must not: parsing of HTTP; a message comes with its exact bytes.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from capd.enforcer.masking import packed
from capd.enforcer.masking.header import header_places
from capd.enforcer.masking.json_path import JsonScanner
from capd.enforcer.masking.packed import Packed
from capd.enforcer.masking.place import Place
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import Scanner

_FIELD: Final = re.compile(rb"(?m)^([!-9;-~]+)[ \t]*:[ \t]*([^\r\n]*)")
_FRAMING: Final = re.compile(rb"(?:\r\n)?([0-9A-Fa-f]{1,16})[^\r\n]{0,4096}\r\n")
"""What stands in a span before the content of a chunk (RFC 9112 section 7.1)."""
_HARMLESS: Final = re.compile(rb"(?:\r?\n?[0-9A-Fa-f]{0,16}\r?\n?)?")
"""What of a body's framing may have come before the content that it frames."""
HARMLESS_BYTES_MAX: Final = 20


@dataclass(slots=True)
class Body:
    """A body on its way."""

    chunked: bool
    kind: list[str]
    """Media type and codings, as the head has them."""
    looks: tuple[Scanner | JsonScanner | Packed, ...]
    inner: tuple[Scanner | JsonScanner, ...]
    position: int = 0
    chunk_left: int = 0
    broken: bool = False
    end: int = 0
    pieces: deque[tuple[int, int, int]] = field(default_factory=deque)
    """Content that is not decided yet: its offset in the content, in the stream, its length."""
    waiting: list[bytes] = field(default_factory=list)
    """Content that was not looked at yet."""


_SavedBody = tuple[
    list[str], bool, list[list[object]], list[list[object]], int, int, bool, int, list[tuple[int, int, int]], list[bytes]
]


class HttpMask:
    """One direction."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._body: Body | None = None
        self.decided = 0
        """Everything before is judged."""
        self.pieces: list[tuple[int, int]] = []
        """Where in the stream the content of the latest `body` is: offsets and lengths."""

    def message(self, kind: str, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool = True) -> list[Place]:
        """Judge a message.

        Args:
            kind: its type: `request`, `response`, `body`, `end`, `tunnel`. A `body` is judged by `judge`, or by what follows.
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
                self._body = self._made("", "", chunked=False)
            self.pieces = self._content(self._body, raw, start, whole=whole)
            return []
        places = self._finish()
        if raw:
            places += self._head(raw, start) if kind == "end" else self._text(raw, start)
        self.decided = start + len(raw)
        return places

    def gap(self, length: int) -> list[Place]:
        """Bytes are missing in the body that is on its way."""
        body = self._body
        if body is None:
            return []
        places = self.judge()
        places += [place for look in body.looks for place in self._placed(body, look.gap(length))]
        body.position += length
        body.chunk_left = max(0, body.chunk_left - length)
        body.pieces.clear()
        self.decided = max(self.decided, body.end)
        return places

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
        if body is None:
            return []
        places = self.judge()
        for look in body.looks:
            if isinstance(look, Scanner):
                places += self._placed(body, look.cut())
            elif isinstance(look, Packed):
                places += self._placed(body, look.gap(0))
        return places

    def save(self) -> list[object]:
        """Give its state as plain values."""
        body = self._body
        if body is None:
            return [self.decided, None]
        looks = [look.save() for look in body.looks]
        inner = [scanner.save() for scanner in body.inner]
        return [
            self.decided,
            [
                body.kind,
                body.chunked,
                looks,
                inner,
                body.position,
                body.chunk_left,
                body.broken,
                body.end,
                list(body.pieces),
                body.waiting,
            ],
        ]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        self.decided, found = cast("tuple[int, list[object] | None]", tuple(saved))
        if found is None:
            return
        kind, chunked, looks, inner, position, chunk_left, broken, end, pieces, waiting = cast("_SavedBody", tuple(found))
        self._body = body = self._made(kind[0], kind[1], chunked=chunked)
        body.position, body.chunk_left, body.broken, body.end = position, chunk_left, broken, end
        body.pieces.extend((offset, stream, length) for offset, stream, length in pieces)
        body.waiting.extend(waiting)
        if len(body.looks) == 1 and isinstance(body.looks[0], Packed):
            body.looks[0].restore(looks[0])
            return
        body.looks = tuple(
            Scanner.restored(self._rules, state)
            if isinstance(scanner, Scanner)
            else JsonScanner.restored(self._rules.json_paths, state)
            for scanner, state in zip(body.inner, inner, strict=True)
        )
        body.inner = cast("tuple[Scanner | JsonScanner, ...]", body.looks)

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

    def _begin(self, fields: Mapping[str, object]) -> Body | None:
        framing = fields.get("framing")
        if framing not in ("length", "chunked", "close"):
            return None
        media_type, coding = "", ""
        headers = fields.get("headers")
        for pair in headers if isinstance(headers, Sequence) else ():
            name, value = str(pair[0]).lower(), str(pair[1])
            if name == "content-type":
                media_type = value.lower()
            elif name == "content-encoding":
                coding = f"{coding},{value.lower()}"
        return self._made(media_type, coding, chunked=framing == "chunked")

    def _made(self, media_type: str, coding: str, *, chunked: bool) -> Body:
        codings = [word.strip() for word in coding.split(",") if word.strip() not in ("", "identity")]
        inner: tuple[Scanner | JsonScanner, ...] = (Scanner(self._rules),)
        if self._rules.json_paths and ("json" in media_type or not media_type):
            inner = (*inner, JsonScanner(self._rules.json_paths))
        kind = [media_type, coding]
        if not codings:
            return Body(chunked, kind, inner, inner)
        found = False

        def look(data: bytes, final: bool) -> tuple[bool, int]:
            nonlocal found
            for scanner in inner:
                found = bool(scanner.feed(data, final=final)) or found
            return found, min(scanner.decided for scanner in inner)

        name = codings[0] if packed.known(codings) else "unknown"
        packed_body = Packed(name, look, 0, unreadable=self._rules.unreadable)
        return Body(chunked, kind, (packed_body,), inner)

    def _content(self, body: Body, raw: bytes, start: int, *, whole: bool) -> list[tuple[int, int]]:
        """Take a part of a body, which `judge` looks at when there is more of it, or no more to come."""
        pieces = _unframed(body, raw, whole=whole)
        for at, length in pieces:
            body.pieces.append((body.position, start + at, length))
            body.position += length
            body.waiting.append(raw[at : at + length])
        body.end = start + len(raw)
        return [(start + at, length) for at, length in pieces]

    def judge(self, *, final: bool = False) -> list[Place]:
        """Look at what came of the body; what may be the beginning of something waits for more, unless this was all."""
        body = self._body
        if body is None or (not body.waiting and not final):
            return []
        content = b"".join(body.waiting)
        body.waiting.clear()
        places = [place for look in body.looks for place in self._placed(body, look.feed(content, final=final))]
        decided = min(look.decided for look in body.looks)
        while body.pieces and body.pieces[0][0] + body.pieces[0][2] <= decided:
            body.pieces.popleft()
        if body.pieces:
            offset, stream, _ = body.pieces[0]
            self.decided = stream + max(0, decided - offset)
        else:
            self.decided = max(self.decided, body.end)
        return places

    def _placed(self, body: Body, places: list[Place]) -> list[Place]:
        """Give places in a body's content as places in the stream: chunk framing may stand in them."""
        result: list[Place] = []
        for place in places:
            for content, stream, length in body.pieces:
                start, end = max(place.start, content), min(place.end, content + length)
                if start < end:
                    result.append(place._replace(start=start - content + stream, end=end - content + stream))
        return result

    def _finish(self) -> list[Place]:
        places = self.judge(final=True)
        self._body = None
        return places


def _unframed(body: Body, span: bytes, *, whole: bool) -> list[tuple[int, int]]:
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
