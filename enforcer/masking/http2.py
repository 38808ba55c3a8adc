"""What is masked in HTTP/2: one direction of a connection, message by message, as decoders/http2 tells them.

What lives here: header blocks, the bodies of streams that are mixed. What must not: decoding; a message comes with its exact
bytes and with what they say.

A header block is compressed, its texts are in a code of bits and in the table of later blocks: nothing in it can be masked in
place. If any of its fields holds what a rule covers, the whole block is masked, and so is one that could not be decoded. What
the fields say is masked field by field in the message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

from capd.decoders.http2.frames import BLOCKS, HEADER_BYTES, fragment, frame_at
from capd.enforcer.masking.body import BodyMask
from capd.enforcer.masking.header import header_places
from capd.enforcer.masking.place import Place
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import Scanner

BODIES_MAX: Final = 4_096
"""As many as the decoder remembers streams; of more the oldest is judged as it is."""
BEHIND_BYTES_MAX: Final = 1024 * 1024
"""What is behind the beginning of something in one stream waits for its rest, but not for longer than this: packed bodies are
judged in blocks of 64 KiB, and a server sends a dozen at a time."""
HEADS: Final = frozenset({"request", "response", "headers", "end", "PUSH_PROMISE"})
NOT_DECODED: Final = "header block not decoded"
RESET: Final = "RST_STREAM"
TEXT_PROBE_BYTES: Final = 1_024
TEXT_CHARS_MIN: Final = 32
"""Of random bytes so many are UTF-8 without controls once in 10^12 times."""
NOT_LOOKED_INTO: Final = "websocket"
"""Stands for a coding that capd does not know."""


class Http2Mask:
    """One direction."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._bodies: dict[int, BodyMask] = {}
        self._busy: dict[int, BodyMask] = {}
        """Those of which something is not judged."""
        self._opaque: dict[int, bool] = {}
        """Streams whose answers carry what is not decoded."""
        self._told = 0
        self.decided = 0
        """Everything before is judged."""
        self.pieces: list[tuple[int, int]] = []
        """Where in the stream the content of the latest `body` is: offsets and lengths."""

    def message(self, kind: str, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool = True) -> list[Place]:
        """Judge a message; see `HttpMask.message`. Of a `body` the fields say where its content is: `pieces`."""
        self._told = max(self._told, start + len(raw))
        number = cast("int", fields.get("stream", 0))
        if kind == "body":
            return self._content(number, fields, raw, start)
        places: list[Place] = []
        if kind in HEADS:
            if kind == "end":
                places += self._finish(number)
            elif kind in ("request", "response") and fields.get("framing") == "frames":
                places += self._begin(number, self._mask(number, fields))
            return places + self._block(fields, raw, start, whole=whole)
        if kind == RESET:
            places += self._finish(number)
        return places + (Scanner(self._rules, start).feed(raw, final=True) if raw else [])

    def passed_over(self, end: int) -> None:
        """Bytes up to an offset are no message."""
        self._told = max(self._told, end)

    def other_said(self, kind: str, fields: Mapping[str, object]) -> list[Place]:
        """Hear of a message of the other direction: it may end a stream in both, or say what runs in one."""
        if kind == RESET:
            return self._finish(cast("int", fields.get("stream", 0)))
        if kind == "request" and fields.get("protocol") is not None and len(self._opaque) < BODIES_MAX:
            self._opaque[cast("int", fields.get("stream", 0))] = True
        return []

    def judge(self) -> list[Place]:
        """Look at what came of the bodies; what may be the beginning of something waits for more."""
        places: list[Place] = []
        self.decided = self._told
        for number, body in list(self._busy.items()):
            places += body.judge()
            undecided = body.undecided
            if undecided is not None and self._told - undecided > BEHIND_BYTES_MAX:
                places += body.gap(0)
                undecided = None
            if undecided is None:
                del self._busy[number]
            else:
                self.decided = min(self.decided, undecided)
        return places

    def gap(self, _length: int) -> list[Place]:
        """Bytes are missing: of which body nobody knows."""
        return self._all_cut()

    def harmless(self, _tail: bytes) -> bool:
        """Say whether bytes that belong to no message yet are nothing but framing: who knows."""
        return False

    def end(self) -> list[Place]:
        """Nothing more will come."""
        return [place for number in list(self._bodies) for place in self._finish(number)]

    def cut(self) -> list[Place]:
        """What is judged has to be judged now, without what follows."""
        return self._all_cut()

    def save(self) -> list[object]:
        """Give its state as plain values."""
        return [self._told, self.decided, list(self._opaque), [[number, body.save()] for number, body in self._bodies.items()]]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        self._told, self.decided, opaque, bodies = cast(
            "tuple[int, int, list[int], list[tuple[int, list[object]]]]", tuple(saved)
        )
        self._opaque = dict.fromkeys(opaque, True)
        self._bodies = {number: BodyMask.restored(self._rules, state) for number, state in bodies}
        self._busy = {number: body for number, body in self._bodies.items() if body.busy}

    # -- bodies ----------------------------------------------------------------------------------------------------------------

    def _mask(self, number: int, fields: Mapping[str, object]) -> BodyMask:
        """Give the mask of a body; what runs in a CONNECT with a protocol (RFC 8441) is not decoded, in either direction."""
        if fields.get("protocol") is not None or self._opaque.pop(number, False):
            return BodyMask(self._rules, coding=NOT_LOOKED_INTO)
        return BodyMask.after(self._rules, fields)

    def _begin(self, number: int, body: BodyMask) -> list[Place]:
        places = self._finish(number)
        if len(self._bodies) >= BODIES_MAX:
            places += self._finish(next(iter(self._bodies)))
        self._bodies[number] = body
        return places

    def _content(self, number: int, fields: Mapping[str, object], raw: bytes, start: int) -> list[Place]:
        """Take a part of a body. What is in it beside content is framing: padding that is more than zeros is no message."""
        places: list[Place] = []
        self.pieces = []
        end = start + len(raw)
        for position, length in _pairs(fields.get("pieces")):
            begin, until = max(position, start), min(position + length, end)
            if begin < until:
                content = raw[begin - start : until - start]
                if number not in self._bodies:
                    # Its head was not seen or not decoded: it may be packed, in any way.
                    coding = "" if _is_text(content) else NOT_LOOKED_INTO
                    places += self._begin(number, BodyMask(self._rules, coding=coding))
                self._bodies[number].take(content, begin)
                self.pieces.append((begin, until - begin))
                self._busy[number] = self._bodies[number]
        return places

    def _finish(self, number: int) -> list[Place]:
        body = self._bodies.pop(number, None)
        self._busy.pop(number, None)
        return [] if body is None else body.judge(final=True)

    def _all_cut(self) -> list[Place]:
        """Judge everything that came; what comes next in a body may be the rest of what was cut."""
        self._busy.clear()
        self.decided = self._told
        return [place for body in self._bodies.values() for place in body.gap(0)]

    # -- header blocks ---------------------------------------------------------------------------------------------------------

    def _block(self, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool) -> list[Place]:
        """Mask the frames of a header block, but their heads, if anything in it is covered."""
        if not raw:
            return []
        reason = self._covered(fields)
        if not whole:
            reason = reason or Place(0, 0, "undecided", NOT_DECODED)
            return [reason._replace(start=start, end=start + len(raw))]
        places: list[Place] = []
        for begin, end, hides in _parts(raw):
            if reason is not None or hides:
                why = reason or Place(0, 0, "undecided", "padding")
                places.append(why._replace(start=start + begin, end=start + end))
        return places

    def _covered(self, fields: Mapping[str, object]) -> Place | None:
        """Give by which rule a section is hidden, if any of its fields is."""
        section = fields.get("headers", fields.get("trailers"))
        if not isinstance(section, Sequence):
            return Place(0, 0, "undecided", NOT_DECODED)
        pairs = [(str(pair[0]), str(pair[1]).encode("latin-1", "replace")) for pair in section]
        lines = [b"%s: %s" % (name.encode("latin-1", "replace"), value) for name, value in pairs]
        if not self._rules.may_hold(b"\n".join(lines)):
            return None
        for (name, value), line in zip(pairs, lines, strict=True):
            found = header_places(self._rules.headers, self._rules.cookies, name, value)
            found = found or Scanner(self._rules).feed(line, final=True)
            if found:
                return found[0]
        return None


def _pairs(value: object) -> Iterator[tuple[int, int]]:
    for pair in value if isinstance(value, Sequence) else ():
        at, length = pair
        yield at, length


def _is_text(content: bytes) -> bool:
    """Say whether bytes are text, and so many that no packing looks like it."""
    try:
        said = content[:TEXT_PROBE_BYTES].decode("utf-8")
    except UnicodeDecodeError as error:
        said = content[: error.start].decode("utf-8") if error.reason == "unexpected end of data" else ""
    return len(said) >= TEXT_CHARS_MIN and all(character >= " " or character in "\t\r\n" for character in said)


def _parts(raw: bytes) -> Iterator[tuple[int, int, bool]]:
    """Give where in frames the parts of a header block are, and what of their padding is more than zeros."""
    at = 0
    while at < len(raw):
        frame = frame_at(raw, at) if len(raw) - at >= HEADER_BYTES else None
        begin = at + HEADER_BYTES
        if frame is None or begin + frame.length > len(raw):
            yield at, len(raw), True
            return
        at = begin + frame.length
        part = fragment(frame, raw[begin:at]) if frame.kind in BLOCKS else (0, 0)
        if part is None:
            yield begin, at, True
            continue
        if part[0] < part[1]:
            yield begin + part[0], begin + part[1], False
        if raw[begin + part[1] : at].strip(b"\0"):
            yield begin + part[1], at, True
