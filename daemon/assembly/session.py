"""One open session: captured chunks in, records out.

What lives here: layers (application and wire), positions, gaps, the way into the decoder, the end. What must not: which session
a chunk belongs to, and when a session ends; the assembler knows.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from typing import Final
from uuid import UUID

from capd.daemon.assembly.addresses import endpoint
from capd.daemon.assembly.completeness import judge
from capd.daemon.assembly.decoding import Decoding
from capd.daemon.assembly.layers import Layers, Piece
from capd.daemon.assembly.looks import look, untaken
from capd.daemon.assembly.messages import MessageWriter
from capd.daemon.assembly.naming import NAMING_TYPES, library_name, peer_name, tie_name
from capd.daemon.assembly.output import Batch
from capd.daemon.assembly.recorded import APPLICATION, WIRE, recorded
from capd.daemon.assembly.socket_bytes import socket_bytes, unseen
from capd.daemon.assembly.state import DIRECTIONS, REQUEST, RESPONSE, SessionState
from capd.daemon.assembly.streams import DAMAGED, UNKNOWN, Channel, Chunk, Hole, reason_of
from capd.daemon.assembly.suspense import Suspense
from capd.decoders.message import Gap, Message
from capd.probes.layouts import Absence, SocketCloseEvent
from capd.recording.record import SIDES, Kind, Record, Value

WIRE_KEPT_MAX: Final = 16 * 1024
"""Wire bytes of each direction that are kept as evidence of the handshake when the plaintext is recorded."""
PAYLOAD_BYTES_MAX: Final = 1024 * 1024
"""Payload in one DATA record; a larger call becomes several, so that a reader's memory does not depend on an agent's calls."""
REFEED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Application bytes that are read again to rebuild a decoder after a restart; beyond it the decoder resynchronises instead."""

RACE_NS: Final = 10_000_000
"""How much later than its own time an event may get into the ring: a processor may be taken away between the two."""

StreamKey = tuple[bool, int]
"""Whether a TLS stream, and its id."""
ChannelKey = tuple[bool, int, int]
"""The same, and the direction."""
History = Callable[[UUID], Iterator[Record]]
"""Gives the records of a session that are already on disk, in recorded order."""


class Session:
    """An open session and what it needs while it is open."""

    __slots__ = (
        "_history",
        "announce",
        "channels",
        "closed_ns",
        "closing",
        "continues",
        "counted",
        "decoding",
        "ends",
        "layers",
        "spoken",
        "stale",
        "state",
        "suspense",
        "waits_ns",
        "writer",
    )

    def __init__(self, state: SessionState, history: History) -> None:
        self.state = state
        self._history = history
        self.channels: dict[ChannelKey, Channel] = {}
        self.decoding = Decoding(state)
        self.layers = Layers(state)
        self.writer = MessageWriter(state)
        self.ends: dict[StreamKey, tuple[int, int]] = {}
        """Streams that ended, and at which positions."""
        self.suspense = Suspense()
        self.closing: SocketCloseEvent | str | None = None
        """Set when the session is to end: the socket's own end, or why else."""
        self.closed_ns = 0
        """Wall time of what ends it."""
        self.waits_ns = 0
        """Boot clock: when the data ring was drained up to here, nothing that is missing will come any more."""
        self.announce = False
        """Facts changed: the OPEN record has to be repeated."""
        self.counted = True
        """Streams that are met for the first time begin at position 0."""
        self.stale = False
        """The decoder has not seen what is already recorded."""
        self.continues = False
        """The probes were restarted: the next TLS stream goes on with the same conversation."""
        self.spoken: set[int] = set()
        """TLS streams that carried plaintext."""

    # -- chunks ----------------------------------------------------------------------------------------------------------------

    def accept(self, chunk: Chunk, batch: Batch) -> bool:
        """Take a chunk of this session.

        Returns:
            False: it waits for one that it overtook, and the session has to be settled later.
        """
        if chunk.absence == Absence.PEEKED:
            return look(self.state, chunk)
        key = (chunk.tls, chunk.stream, chunk.direction)
        channel = self.channels.get(key)
        if channel is None:
            channel = self.channels[key] = Channel(0 if self.counted else None)
        if channel.expected is not None and chunk.position < channel.expected and chunk.length:
            self._late(chunk, channel.expected, batch)
        if channel.accept(chunk):
            self._deliver(chunk, batch)
            for released in channel.released() if channel.early else ():
                self._deliver(released, batch)
            if not channel.early and not self.suspense:
                return True
        if channel.overdue():
            self._settle_channel(key, channel, batch)
            return not self.suspense
        awaited = chunk if channel.early else self.suspense.chunks[0]
        self.waits_ns = max(self.waits_ns, awaited.time_ns + RACE_NS)
        return False

    def tie(self, stream: int, library: int, tie: int, wall_ns: int, batch: Batch) -> None:
        """Note that a TLS stream belongs to this session; what it carries is the application data from now on."""
        state = self.state
        state.library, state.tie = library, max(tie, state.tie)
        if stream in state.tls_streams:
            return
        # Ids grow with time: one that is told late, having said nothing, is not the one that speaks now.
        insort(state.tls_streams, stream)
        body: dict[str, Value] = {"name": "tls", "library": library_name(library), "tie": tie_name(tie)}
        self._mark(body, wall_ns, batch)

    def resume(self, batch: Batch, *, force: bool = False) -> None:
        """Deliver what is decided by now of what waits for the end of a TLS stream; with `force` all, as it seems to be."""
        while self.suspense and (force or self.suspense.overdue or not self.layers.waits(self.suspense.chunks[0])):
            self._deliver_now(self.suspense.take(), batch)

    def _deliver(self, chunk: Chunk, batch: Batch) -> None:
        if not self.suspense and not (self.state.encrypted and not chunk.tls and self.layers.waits(chunk)):
            self._deliver_now(chunk, batch)
            return
        self.suspense.add(chunk)
        self.resume(batch)

    def _deliver_now(self, chunk: Chunk, batch: Batch) -> None:
        state = self.state
        state.moment(chunk.wall_ns)
        state.active_ns = max(state.active_ns, chunk.time_ns)
        if chunk.tls:
            self._put(self.layers.decide(encrypted=True), batch)
            self._plaintext(chunk, batch)
        elif chunk.absence == Absence.CIPHERTEXT:
            self._put(self.layers.decide(encrypted=True), batch)
            state.encrypted = True
            state.wire[chunk.direction] += chunk.length
            state.wire_left[chunk.direction] += chunk.length
            state.ciphertext.begun(chunk.time_ns)
            state.ciphertext.moved(chunk.direction, chunk.length)
        else:
            name, clear = state.name, state.ciphertext.clear[chunk.direction]
            pieces = self.layers.of(chunk)
            self.announce |= state.name != name
            if state.ciphertext.clear[chunk.direction] and not clear:
                self._put(pieces[:-1], batch)
                self._mark(
                    {"name": "clear", "position": state.application[chunk.direction]}, chunk.wall_ns, batch, chunk.direction
                )
                del pieces[:-1]
            self._put(pieces, batch)

    def _put(self, pieces: list[Piece], batch: Batch) -> None:
        state = self.state
        for chunk, layer, outside in pieces:
            if layer == WIRE:
                state.ciphertext.begun(chunk.time_ns)
                self._wire(chunk, batch, whole=outside)
            elif chunk.length or chunk.datagram or state.transport == "udp":
                self._application(chunk, batch)
            else:
                self._end(chunk, batch)

    def _plaintext(self, chunk: Chunk, batch: Batch) -> None:
        state = self.state
        state.encrypted = True
        if chunk.stream not in state.tls_streams:
            self.tie(chunk.stream, chunk.library, chunk.tie, chunk.wall_ns, batch)
        process = (chunk.pid, chunk.process_start_ns)
        state.tls_processes.setdefault(chunk.stream, process)
        state.ciphertext.told(chunk.direction)
        # TLS within TLS, unless another process goes on with what was begun before a fork.
        if chunk.stream != state.tls_streams[-1] and state.tls_processes.get(state.tls_streams[-1], process) == process:
            self._wire(chunk, batch)
            return
        if chunk.stream not in self.spoken:
            self.spoken.add(chunk.stream)
            forked = any(other != process for other in state.tls_processes.values())
            if not self.continues and not forked and not self.decoding.goes_on_over_tls:
                self._rebuild_if_stale(chunk.wall_ns, batch)
                self._flush_decoding(chunk.wall_ns, batch)
                self.decoding.restart()
                self.writer.over_tls()
            self.continues = False
        state.plaintext[chunk.direction] += chunk.length
        self._application(chunk, batch)

    def _application(self, chunk: Chunk, batch: Batch) -> None:
        state, direction = self.state, chunk.direction
        if self.stale:
            self._rebuild_if_stale(chunk.wall_ns, batch)
        if chunk.datagram or state.transport == "udp":
            self.decoding.label_datagrams(chunk.peer)
        if chunk.peer is not None and state.target is None:
            # An unconnected socket: whom it spoke with first is whom a person looks for.
            state.target, self.announce = endpoint(*chunk.peer), True
        payload = chunk.payload
        for start in range(0, len(payload), PAYLOAD_BYTES_MAX) if len(payload) > PAYLOAD_BYTES_MAX else (0,):
            piece = bytes(payload[start : start + PAYLOAD_BYTES_MAX])
            body: dict[str, Value] = {"position": state.application[direction], "payload": piece}
            self._qualify(body, chunk)
            batch.records.append(Record(Kind.DATA, state.id, state.last_ns, SIDES[direction], body))
            state.application[direction] += len(piece)
            if piece and self.decoding.wants:
                self._decode(direction, piece, chunk.wall_ns, batch)
        if chunk.captured < chunk.length:
            self._absent(chunk, APPLICATION, batch)

    def _wire(self, chunk: Chunk, batch: Batch, *, whole: bool = False) -> None:
        state, direction = self.state, chunk.direction
        payload = chunk.payload
        room = WIRE_KEPT_MAX - state.wire_kept[direction] if state.tls_streams and not whole else len(payload)
        kept = bytes(payload[: max(0, room)])
        for start in range(0, len(kept), PAYLOAD_BYTES_MAX):
            piece = kept[start : start + PAYLOAD_BYTES_MAX]
            body: dict[str, Value] = {"position": state.wire[direction] + start, "payload": piece, "layer": WIRE}
            self._qualify(body, chunk)
            batch.records.append(Record(Kind.DATA, state.id, state.last_ns, SIDES[direction], body))
        state.wire_kept[direction] += len(kept)
        state.wire_left[direction] += len(payload) - len(kept)
        state.wire[direction] += chunk.captured
        if chunk.captured < chunk.length:
            self._absent(chunk, WIRE, batch)

    def _qualify(self, body: dict[str, Value], chunk: Chunk) -> None:
        """Add what is not the same for every chunk of the session."""
        if chunk.tls:
            body["tie"], body["library"] = tie_name(chunk.tie), library_name(chunk.library)
        if chunk.peer is not None:
            body["peer"] = endpoint(*chunk.peer)
        if chunk.pid != self.state.process[0]:
            body["pid"] = chunk.pid

    def _absent(self, chunk: Chunk, layer: str, batch: Batch) -> None:
        missing = chunk.length - chunk.captured
        reason = reason_of(chunk.absence)
        if chunk.absence == Absence.RING_FULL:
            self._count_ring_loss((chunk.tls, chunk.stream, chunk.direction), missing)
        self.gap(chunk.direction, missing, reason, chunk.wall_ns, batch, layer=layer)

    def _end(self, chunk: Chunk, batch: Batch) -> None:
        """The peer has no more to say."""
        if not self.state.ended[chunk.direction]:
            self._rebuild_if_stale(chunk.wall_ns, batch)
            self._decode(chunk.direction, b"", chunk.wall_ns, batch)
            self.state.ended[chunk.direction] = True

    def _late(self, chunk: Chunk, expected: int, batch: Batch) -> None:
        """Bytes came after they had been given up: they are recorded where they came, and the record says so."""
        reason = "bytes recorded out of order"
        if reason not in self.state.reasons:
            self.state.reasons.append(reason)
        self.state.ciphertext.framing[chunk.direction].skip()
        body: dict[str, Value] = {"name": "late", "position": chunk.position, "expected": expected, "length": chunk.length}
        self._mark(body, chunk.wall_ns, batch, chunk.direction)

    # -- gaps ------------------------------------------------------------------------------------------------------------------

    def gap(
        self,
        direction: int,
        length: int | None,
        reason: str,
        wall_ns: int,
        batch: Batch,
        *,
        layer: str = APPLICATION,
        detail: str | None = None,
    ) -> None:
        """Record that bytes are missing here; `length` None when nobody knows how many."""
        state = self.state
        self._put(self.layers.decide(), batch)
        self._rebuild_if_stale(wall_ns, batch)
        self.writer.flush(batch)
        positions = state.application if layer == APPLICATION else state.wire
        body: dict[str, Value] = {"position": positions[direction], "length": length, "layer": layer, "reason": reason}
        if detail is not None:
            body["detail"] = detail
        batch.records.append(Record(Kind.GAP, state.id, state.moment(wall_ns), SIDES[direction], body))
        state.lose(reason, direction, length)
        positions[direction] += length or 0
        if layer == APPLICATION and self.decoding.wants:
            self._decode(direction, Gap(length, reason), wall_ns, batch)

    def interrupted(self, reason: str, wall_ns: int, batch: Batch) -> None:
        """Record that nobody knows what is missing: the probes were restarted, or the journal is damaged."""
        self.resume(batch, force=True)
        if reason != DAMAGED:
            for channel in self.channels.values():
                channel.restart()
            self.ends.clear()
            self.state.ring_lost.clear()
            self.state.peeked.clear()
            self.continues = bool(self.state.tls_streams)
        for direction in DIRECTIONS:
            if not self.state.ended[direction]:
                self.gap(direction, None, reason, wall_ns, batch)

    def unaccounted(self, key: ChannelKey, lost: int, reason: str, wall_ns: int, batch: Batch) -> None:
        """Compare with what the probes say was lost in a stream's direction; what no gap told yet is missing at its end."""
        self.resume(batch, force=True)
        missing = lost - self.state.ring_lost.get(key, 0)
        if missing > 0:
            self._lose(key, missing, reason, wall_ns, batch)

    def _lose(self, key: ChannelKey, missing: int, reason: str, wall_ns: int, batch: Batch) -> None:
        self._count_ring_loss(key, missing)
        self.gap(key[2], missing, reason, wall_ns, batch, layer=self._layer(key[0], key[2]))

    def _count_ring_loss(self, key: ChannelKey, missing: int) -> None:
        self.state.ring_lost[key] = self.state.ring_lost.get(key, 0) + missing

    def _layer(self, tls_stream: bool, direction: int) -> str:
        # A tied stream says that it is TLS, also when nothing of it arrived.
        encrypted = self.state.encrypted or bool(self.state.tls_streams)
        return APPLICATION if tls_stream or not encrypted or self.state.ciphertext.clear[direction] else WIRE

    def _settle_channel(self, key: ChannelKey, channel: Channel, batch: Batch, lost: str | None = None) -> None:
        for item in channel.settled():
            if isinstance(item, Hole):
                self.resume(batch, force=True)
                self._lose(key, item.length, lost or self.state.lost_reason, item.wall_ns, batch)
            else:
                self._deliver(item, batch)

    # -- the end ---------------------------------------------------------------------------------------------------------------

    @property
    def ending(self) -> bool:
        """Whether it, or a stream of it, has ended, and what came before that may still be on its way."""
        return self.closing is not None or bool(self.ends)

    @property
    def said_farewell(self) -> bool:
        """Whether the end of each of its TLS streams was told."""
        return all((True, stream) in self.ends for stream in self.state.tls_streams)

    def reached(self) -> bool:
        """Say whether nothing is waited for: nothing overtook anything, and streams that ended are there up to their end."""
        if self.suspense or any(channel.early for channel in self.channels.values()):
            return False
        if self.closing is not None and not self.said_farewell:
            return False
        return all(
            self._expected(*stream, direction) >= positions[direction]
            for stream, positions in self.ends.items()
            for direction in DIRECTIONS
        )

    def cut(self, reason: str, batch: Batch) -> None:
        """Wait no longer, because it can not come any more: nobody knows what of a TLS stream without an end is missing."""
        known = self.said_farewell
        self.settle(self.state.last_ns, batch, reason)
        for direction in () if known else DIRECTIONS:
            self.gap(direction, None, reason, self.state.last_ns, batch)

    def settle(self, wall_ns: int, batch: Batch, lost: str | None = None) -> None:
        """Wait no longer: what is missing is lost."""
        self.resume(batch, force=True)
        for key, channel in self.channels.items():
            if channel.early:
                self._settle_channel(key, channel, batch, lost)
        self.resume(batch, force=True)
        for (tls_stream, stream), positions in self.ends.items():
            for direction in DIRECTIONS:
                key = (tls_stream, stream, direction)
                missing = self.channels.setdefault(key, Channel()).tail(positions[direction])
                looked = direction == RESPONSE and (tls_stream, stream) in self.state.peeked
                if missing:
                    reason = reason_of(Absence.PEEKED) if looked else lost or self.state.lost_reason
                    self._lose(key, missing, reason, wall_ns, batch)
        self.ends.clear()
        for direction, missing in unseen(self.closing, self.state):
            layer = self._layer(False, direction)
            self.gap(direction, missing, UNKNOWN, wall_ns, batch, layer=layer, detail="TCP counted them, no probe saw them")

    def close(self, word: str, wall_ns: int, batch: Batch) -> None:
        """Write the last records; `word` is "closed" or "abandoned"."""
        state = self.state
        self.resume(batch, force=True)
        self._put(self.layers.decide(), batch)
        self._rebuild_if_stale(wall_ns, batch)
        for direction, reason, detail in state.ciphertext.missing(state.plaintext, len(state.tls_streams)):
            self.gap(direction, None, reason, wall_ns, batch, detail=detail)
        for tls_stream, missing in untaken(state, self._expected):
            self.gap(RESPONSE, missing, reason_of(Absence.PEEKED), wall_ns, batch, layer=self._layer(tls_stream, RESPONSE))
        self._flush_decoding(wall_ns, batch)
        self.writer.finish(wall_ns, batch)
        if state.protocol is None and state.encrypted:
            state.protocol = "tls"
        body: dict[str, Value] = {
            "state": word,
            "bytes": {"request": state.application[REQUEST], "response": state.application[RESPONSE]},
            "messages": state.messages,
            "completeness": judge(state, closed=True).body(),
        }
        if state.encrypted:
            body["wire_bytes"] = {"request": state.wire[REQUEST], "response": state.wire[RESPONSE]}
        body |= socket_bytes(self.closing, state)
        batch.records.append(Record(Kind.CLOSE, state.id, state.moment(wall_ns), None, body))

    def _expected(self, tls_stream: bool, stream: int, direction: int) -> int:
        channel = self.channels.get((tls_stream, stream, direction))
        return 0 if channel is None or channel.expected is None else channel.expected

    # -- decoding --------------------------------------------------------------------------------------------------------------

    def _decode(self, direction: int, data: bytes | Gap, wall_ns: int, batch: Batch) -> None:
        state = self.state
        before = state.protocol
        for decoded in self.decoding.feed(direction, data):
            if state.protocol != before:
                before = self._identified(wall_ns, batch)
            if state.name is None and isinstance(decoded, Message) and decoded.type in NAMING_TYPES:
                name = peer_name(decoded)
                if name and not self.writer.muted:
                    state.name, self.announce = name, True
            self.writer.take(decoded, wall_ns, batch)
        if state.protocol != before:
            self._identified(wall_ns, batch)

    def _flush_decoding(self, wall_ns: int, batch: Batch) -> None:
        """Tell the decoder that this was all, and write what it still has."""
        before = self.state.protocol
        for decoded in self.decoding.finish():
            if self.state.protocol != before:
                before = self._identified(wall_ns, batch)
            self.writer.take(decoded, wall_ns, batch)
        self.writer.flush(batch)
        if self.state.protocol != before:
            self._identified(wall_ns, batch)

    def _identified(self, wall_ns: int, batch: Batch) -> str | None:
        """Record which protocol it is."""
        if not self.writer.muted:
            self._mark({"name": "protocol", "protocol": self.state.protocol}, wall_ns, batch)
        return self.state.protocol

    def _rebuild_if_stale(self, wall_ns: int, batch: Batch) -> None:
        if self.stale:
            self.stale = False
            self._rebuild(wall_ns, batch)

    def _rebuild(self, wall_ns: int, batch: Batch) -> None:
        """Bring a new decoder to where the old one was when the recorder ended: feed it what is recorded, write nothing."""
        state, decoding = self.state, self.decoding
        if decoding.resume() or decoding.decoder is None:
            return
        behind = sum(state.application[direction] - state.base[direction] for direction in DIRECTIONS)
        at = list(state.base)
        if behind <= REFEED_BYTES_MAX and decoding.rereads:
            self.writer.muted = True
            for direction, start, data in recorded(self._history(state.id), state):
                if start == at[direction] and (isinstance(data, Gap) or start < state.application[direction]):
                    at[direction] += (data.length or 0) if isinstance(data, Gap) else len(data)
                    self._decode(direction, data, wall_ns, batch)
            self.writer.flush(batch)
            self.writer.muted = False
        if at != state.application:
            self.find_place(wall_ns, batch)

    def find_place(self, wall_ns: int, batch: Batch) -> None:
        """Go on with a decoder that has to find the next message by itself."""
        state = self.state
        state.begin_decoder(list(state.application))
        self.decoding.resume()
        self.writer.over_tls()
        self.stale = False
        self._mark({"name": "resumed", "base": list(state.base)}, wall_ns, batch)
        for direction in DIRECTIONS:
            self._decode(direction, Gap(None, "the recorder was restarted"), wall_ns, batch)

    def _mark(self, body: dict[str, Value], wall_ns: int, batch: Batch, direction: int | None = None) -> None:
        self.writer.flush(batch)
        side = None if direction is None else SIDES[direction]
        batch.records.append(Record(Kind.MARKER, self.state.id, self.state.moment(wall_ns), side, body))
