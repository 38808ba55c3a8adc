"""The body of an HTTP message as it comes in, piece by piece, with what its head says of it.

What lives here: what is kept of it, and taking the chunk framing out. What must not: presentation, unpacking (payload).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from capd.cli import facts
from capd.cli.facts import Facts
from capd.cli.veil import pair_of
from capd.decoders.sse import EventStream

# What stands in a span before a chunk (RFC 9112 section 7.1): the end of the chunk before, and a size line.
CHUNK_FRAMING: Final = re.compile(rb"(?:\r\n)?([0-9A-Fa-f]{1,16})[^\r\n]{0,4096}\r\n")
EVENTS_TYPE: Final = "text/event-stream"
STREAMED_TYPES: Final = ("application/x-ndjson", "application/jsonl", "application/stream+json")


@dataclass(kw_only=True, slots=True)
class Body:
    """The body being received in one direction.

    Attributes:
        media_type: as its head says, in lower case.
        codings: content codings, the last applied last.
        chunked: whether its bytes have chunk framing in them.
        chunk_left: bytes that are still to come of the chunk being received.
        kept: its first bytes.
        length: how many there were.
        notes: why it is not all that was said.
        left_out: whether the recording level left out what it holds.
        stream: of HTTP/2.
        events: what reads it as server-sent events, if it says that it is some.
    """

    media_type: str = ""
    codings: Sequence[str] = ()
    chunked: bool = False
    chunk_left: int = 0
    kept: bytearray = field(default_factory=bytearray)
    length: int = 0
    notes: list[str] = field(default_factory=list)
    left_out: bool = False
    stream: int | None = None
    events: EventStream | None = None

    @classmethod
    def after(cls, fields: Facts) -> Body:
        """Give the body that a head announces."""
        headers = headers_of(fields)
        media_type = headers.get("content-type", "").strip().lower()
        codings = [coding.strip() for coding in headers.get("content-encoding", "").split(",") if coding.strip()]
        return cls(
            media_type=media_type,
            codings=codings,
            chunked=facts.text(fields, "framing") == "chunked",
            events=EventStream() if media_type.startswith(EVENTS_TYPE) and not codings else None,
        )

    @property
    def streamed(self) -> bool:
        """Whether its pieces are messages of their own."""
        return self.media_type.startswith(STREAMED_TYPES) and not self.codings

    @property
    def json_like(self) -> bool:
        """Whether it is said to be JSON."""
        return "json" in self.media_type

    @property
    def whole(self) -> bool:
        """Whether all of it is kept, as far as anybody knows."""
        return not self.notes and len(self.kept) == self.length

    def successor(self) -> Body:
        """Give the state for what follows of the same body once what was received is shown."""
        return Body(
            media_type=self.media_type,
            codings=self.codings,
            chunked=self.chunked,
            chunk_left=self.chunk_left,
            events=self.events,
        )

    def take(self, told: Facts, span: bytes, bytes_max: int) -> tuple[bytes, int]:
        """Take the next piece; give its content, as far as it is at hand, and how much of it is not.

        Args:
            told: the body of its record.
            span: the bytes of its span, as far as they are at hand.
            bytes_max: how much is kept in all.
        """
        content = self.unframed(span)
        length = facts.number(facts.mapping(told, "fields"), "bytes")
        whole = max(length or 0, len(content)) or _span_length(told)
        self.length += whole
        if len(self.kept) < bytes_max:
            self.kept += content[: bytes_max - len(self.kept)]
        note = facts.text(told, "incomplete")
        if note:
            self.notes.append(note)
        return content, whole - len(content)

    def unframed(self, span: bytes) -> bytes:
        """Take the chunk framing out of a span; it stands before the content of each chunk, perhaps of several."""
        if not self.chunked:
            return span
        content = bytearray()
        at = 0
        while at < len(span):
            if self.chunk_left == 0:
                framing = CHUNK_FRAMING.match(span, at)
                if framing is None:
                    break
                at, self.chunk_left = framing.end(), int(framing[1], 16)
                continue
            part = span[at : at + self.chunk_left]
            content += part
            at += len(part)
            self.chunk_left -= len(part)
        return bytes(content)


def headers_of(fields: Facts) -> Mapping[str, str]:
    """Give the headers by name in lower case; of several the last."""
    pairs = (pair_of(pair) for pair in facts.sequence(fields, "headers"))
    return {name.lower(): value for name, value in pairs}


def _span_length(told: Facts) -> int:
    start, end = facts.number(told, "start"), facts.number(told, "end")
    return max(end - start, 0) if start is not None and end is not None else 0
