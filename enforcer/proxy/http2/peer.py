"""One side of an HTTP/2 connection: the h2 library's state machine behind a few calls, and what it leaves to its user.

What lives here: windows, GOAWAY, errors of the library. What must not: requests and answers.

A header block is not looked into by the library, and no body is counted against its content-length: what is wrong with
either is an error of its stream (RFC 9113 8.1.1), which the library makes the connection's, with all streams in it. A GOAWAY
is kept from it, since it lets nothing follow one, and much may.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, cast

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.events import Event, RemoteSettingsChanged
from h2.exceptions import NoSuchStreamError, ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hyperframe.frame import GoAwayFrame

from capd.decoders.http2.frames import Type
from capd.enforcer.proxy.broken_peer import BrokenPeerError
from capd.enforcer.proxy.http2.cutting import Cut, Cutter
from capd.enforcer.proxy.http2.errors import Code
from capd.enforcer.proxy.http2.limits import CLOSED_STREAMS_MAX, FRAME_BYTES_MAX, HEAD_BYTES_MAX, STREAMS_MAX, TABLE_BYTES_MAX

Fields = Iterable[tuple[str, str]]
INITIAL_WINDOW_BYTES: Final = 65_535
"""Of a connection, before it is told more (RFC 9113 6.9.2)."""
GOAWAY_BYTES: Final = 8
LAST_STREAM: Final = 0x7FFF_FFFD
"""Behind it there is one number left for a client (RFC 9113 5.1.1)."""
SIGN: Final = b"capdhold"
"""What a PING carries, which has no meaning."""
_STREAM_BITS: Final = 0x7FFF_FFFF


@dataclass(frozen=True, slots=True)
class Farewell:
    """The peer takes no new streams; those above `last` it never looked at."""

    last: int
    code: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The peer broke the protocol: it is told so, and nothing else any more."""

    reason: str


Heard = Event | Farewell | Broken


class _Connection(H2Connection):
    """The library's, without its own look at content-length; fields.py has that. The library is pinned, a test holds this."""

    MAX_CLOSED_STREAMS = CLOSED_STREAMS_MAX

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream._initialize_content_length = _pass_over  # type: ignore[method-assign,assignment] # noqa: SLF001 - no switch for it
        return stream


def _pass_over(_headers: object) -> None:
    """Do nothing."""


class Peer:
    """One side.

    Attributes:
        broken: whether nothing more can be said or heard.
    """

    def __init__(self, *, serves: bool, stream_bytes: int, connection_bytes: int) -> None:
        """Begin; what is to be said first can be taken at once.

        Args:
            serves: whether the peer is a client.
            stream_bytes: of a body that the peer may send before any is taken.
            connection_bytes: the same of all bodies.
        """
        self.broken = False
        self._cutter = Cutter(preface=serves)
        self._h2 = _Connection(
            H2Configuration(
                client_side=not serves,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self._h2.local_settings = Settings(
            client=not serves,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: stream_bytes,
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEAD_BYTES_MAX,
            },
        )
        self._stream_bytes = stream_bytes
        self._taken: dict[int, int] = {}
        self._taken_connection = 0
        self._connection_bytes = connection_bytes
        self._out = bytearray()
        self._h2.initiate_connection()
        if connection_bytes > INITIAL_WINDOW_BYTES:
            self._h2.increment_flow_control_window(connection_bytes - INITIAL_WINDOW_BYTES)

    # -- hearing ---------------------------------------------------------------------------------------------------------------

    @property
    def unfinished(self) -> int:
        """Name the stream whose head is not whole, or the BEGINNING that is not; 0: neither."""
        return self._cutter.unfinished

    @property
    def counting(self) -> bool:
        """Whether `calm` has anything to forget."""
        return self._cutter.counting

    def calm(self) -> None:
        """Forget what was counted of floods."""
        self._cutter.calm()

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return self._cutter.held

    def receive(self, data: bytes) -> list[Heard]:
        """Take bytes and give what they say; behind `Broken` comes nothing more."""
        if self.broken:
            return []
        heard: list[Heard] = []
        try:
            for cut in self._cutter.receive(data):
                heard += self._take(cut)
        except BrokenPeerError as error:
            heard.append(self._break(error.reason))
            self._say_goodbye(error.code)
        except ProtocolError as error:
            heard.append(self._break(str(error) or type(error).__name__))
        return heard

    def _take(self, cut: Cut) -> list[Heard]:
        if cut.kind == Type.GOAWAY:
            return [_farewell(cut)]
        if cut.kind == Type.RST_STREAM and cut.stream > self._highest(cut.stream):
            raise BrokenPeerError(Code.PROTOCOL_ERROR, "a stream that was never opened is given up")
        events = cast("list[Heard]", self._h2.receive_data(cut.raw))
        for event in events:
            if isinstance(event, RemoteSettingsChanged):
                self._h2.encoder.header_table_size = min(self._h2.remote_settings.header_table_size, TABLE_BYTES_MAX)
        return events

    def _highest(self, stream: int) -> int:
        ours = stream % 2 == int(self._h2.config.client_side)
        return self._h2.highest_outbound_stream_id if ours else self._h2.highest_inbound_stream_id

    def _break(self, reason: str) -> Broken:
        self.broken = True
        return Broken(reason)

    # -- saying ----------------------------------------------------------------------------------------------------------------

    def take(self) -> bytes:
        """Give the bytes for the peer."""
        self._out += self._h2.data_to_send()
        out, self._out = bytes(self._out), bytearray()
        return out

    def may_open(self) -> bool:
        """Say whether the peer takes another stream."""
        h2 = self._h2
        if h2.highest_outbound_stream_id >= LAST_STREAM:
            return False
        return not self.broken and h2.open_outbound_streams < h2.remote_settings.max_concurrent_streams

    def open(self) -> int:
        """Give the number of the next stream."""
        return self._h2.get_next_available_stream_id()

    def head(self, stream: int, fields: Fields, *, ends: bool) -> bool:
        """Send a head, or trailers; False: the stream is over."""
        if self.broken:
            return False
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        try:
            self._h2.send_headers(stream, encoded, end_stream=ends)
        except (StreamClosedError, NoSuchStreamError):
            return False
        return True

    def room(self, stream: int) -> int:
        """Say how many bytes of a body the peer takes now, in one frame."""
        if self.broken:
            return 0
        try:
            return max(0, min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size, FRAME_BYTES_MAX))
        except (StreamClosedError, NoSuchStreamError):
            return 0

    def body(self, stream: int, data: bytes, *, ends: bool) -> None:
        """Send a part of a body, `room` at most; nothing happens when the stream is over."""
        if self.broken:
            return
        try:
            self._h2.send_data(stream, data, end_stream=ends)
        except (StreamClosedError, NoSuchStreamError):
            return
        self._cutter.sent()

    def reset(self, stream: int, code: int) -> None:
        """Give a stream up; nothing happens when it is over."""
        self._taken.pop(stream, None)
        if self.broken:
            return
        try:
            self._h2.reset_stream(stream, code)
        except (StreamClosedError, NoSuchStreamError):
            return

    def took(self, stream: int, count: int) -> None:
        """Let the peer send so many bytes more in a stream: what it sent went on."""
        if self.broken or not count:
            return
        taken = self._taken.get(stream, 0) + count
        if taken * 2 < self._stream_bytes:
            self._taken[stream] = taken
            return
        self._taken.pop(stream, None)
        try:
            self._h2.increment_flow_control_window(taken, stream)
        except (StreamClosedError, NoSuchStreamError):
            return

    def took_in_all(self, count: int) -> None:
        """Let the peer send so many bytes more in all."""
        self._taken_connection += count
        if self.broken or self._taken_connection * 2 < min(self._connection_bytes, self._stream_bytes * 2):
            return
        taken, self._taken_connection = self._taken_connection, 0
        self._h2.increment_flow_control_window(taken)

    def ping(self) -> None:
        """Give a sign of life (RFC 9113 6.7)."""
        if not self.broken:
            self._h2.ping(SIGN)

    def forget(self, stream: int) -> None:
        """A stream is over."""
        self._taken.pop(stream, None)

    def farewell(self, last: int) -> None:
        """Take no new streams above a number (RFC 9113 6.8)."""
        if not self.broken:
            self._say_goodbye(Code.NO_ERROR, last)

    def _say_goodbye(self, code: int, last: int | None = None) -> None:
        self._out += self._h2.data_to_send()
        frame = GoAwayFrame(0)
        frame.last_stream_id = self._h2.highest_inbound_stream_id if last is None else last
        frame.error_code = int(code)
        self._out += frame.serialize()


def _farewell(cut: Cut) -> Farewell:
    payload = cut.payload
    if cut.stream or len(payload) < GOAWAY_BYTES:
        raise BrokenPeerError(Code.PROTOCOL_ERROR if cut.stream else Code.FRAME_SIZE_ERROR, "a GOAWAY that is none")
    return Farewell(int.from_bytes(payload[:4], "big") & _STREAM_BITS, int.from_bytes(payload[4:8], "big"))
