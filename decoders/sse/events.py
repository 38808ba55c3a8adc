"""A body of the type text/event-stream, event by event, however it arrives.

What lives here: lines, fields, when an event is whole (WHATWG HTML, sections 9.2.5 and 9.2.6). What must not: HTTP; whoever
has a body gives its content.

It is a view: what a reader makes of bytes that are recorded, and masked, as a body. What a browser drops is told here with the
reason: an event without its blank line, or one without data that has a name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

LINE_BYTES_MAX: Final = 1024 * 1024
"""A longer line is cut, and so is its event: answers of models are lines of some hundred bytes."""
EVENT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Data of one event; as many lines as one likes may be of one."""
_BOM: Final = b"\xef\xbb\xbf"
_END: Final = re.compile(rb"[\r\n]")
_LF: Final = 0x0A
_DIGITS: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSentEvent:
    """One event.

    Attributes:
        start, end: its bytes in the content of the body, with the blank line.
        type: as named; `message` if it is not.
        data: its lines of data, put together.
        id: the last event id that was in force then.
        retry: milliseconds after which to come back, if it says so.
        incomplete: None, or why it is not all that was said.
    """

    start: int
    end: int
    type: str
    data: str
    id: str
    retry: int | None = None
    incomplete: str | None = None


@dataclass(slots=True)
class _Growing:
    """An event on its way."""

    start: int
    type: str = ""
    data: list[str] = field(default_factory=list)
    size: int = 0
    retry: int | None = None
    incomplete: str | None = None
    said: bool = False


class EventStream:
    """One body. Use `take` and, at its end, `end`."""

    def __init__(self) -> None:
        self._position = 0
        self._line = bytearray()
        self._cut = False
        self._skip_lf = False
        self._first = True
        self._id = ""
        self._event = _Growing(0)

    def take(self, content: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; give the events that are whole with them."""
        events: list[ServerSentEvent] = []
        at = 0
        while at < len(content):
            if self._skip_lf and content[at] == _LF:
                # A CR and a LF end one line, though they came apart.
                self._skip_lf = False
                at += 1
                self._position += 1
                if not self._event.said and not self._line:
                    self._event.start = self._position
                continue
            self._skip_lf = False
            found = _END.search(content, at)
            end = len(content) if found is None else found.start()
            self._add(content[at:end])
            self._position += end - at
            at = end
            if found is None:
                break
            self._skip_lf = content[at] != _LF
            at += 1
            self._position += 1
            events += self._end_line()
        return events

    def lose(self, length: int | None, reason: str) -> None:
        """Bytes are missing: the event that is on its way is not whole, nor is what follows up to its end."""
        self._position += length or 0
        self._line.clear()
        self._cut = False
        self._event.incomplete = self._event.incomplete or reason
        self._event.said = True

    def end(self) -> list[ServerSentEvent]:
        """Nothing more comes: give what has no end."""
        event = self._event
        if self._line:
            self._field()
        if not event.said:
            return []
        event.incomplete = event.incomplete or "the stream ended before its blank line"
        return [self._whole()]

    def _add(self, part: bytes) -> None:
        room = LINE_BYTES_MAX - len(self._line)
        self._line += part[:room]
        if len(part) > room:
            self._cut = True

    def _end_line(self) -> list[ServerSentEvent]:
        if self._first:
            self._first = False
            if self._line.startswith(_BOM):
                del self._line[: len(_BOM)]
        if self._line:
            self._field()
            return []
        event = self._event
        if event.said and (event.data or event.type or event.retry is not None or event.incomplete):
            return [self._whole()]
        self._event = _Growing(self._position)
        return []

    def _field(self) -> None:
        """Take a line that is not blank."""
        event, line = self._event, bytes(self._line)
        self._line.clear()
        event.said = True
        if self._cut:
            self._cut = False
            event.incomplete = f"a line of more than {LINE_BYTES_MAX} bytes"
        raw_name, _, raw_value = line.partition(b":")
        name, value = raw_name.decode("utf-8", "replace"), raw_value.removeprefix(b" ").decode("utf-8", "replace")
        if name == "data":
            self._data(value)
        elif name == "event":
            event.type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and _DIGITS.fullmatch(value):
            event.retry = int(value)

    def _data(self, value: str) -> None:
        event = self._event
        event.size += len(value) + 1
        if event.size > EVENT_BYTES_MAX:
            event.incomplete = f"data of more than {EVENT_BYTES_MAX} bytes"
        else:
            event.data.append(value)

    def _whole(self) -> ServerSentEvent:
        event, self._event = self._event, _Growing(self._position)
        return ServerSentEvent(
            start=event.start,
            end=self._position,
            type=event.type or "message",
            data="\n".join(event.data),
            id=self._id,
            retry=event.retry,
            incomplete=event.incomplete,
        )
