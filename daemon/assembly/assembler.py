"""Journal blocks in, records out: the one place where everything of the core comes together.

What lives here: dispatch of events and notes, and what has to wait for the next drain cycle. What must not: files, clocks, what
happens inside a session.

A cycle is the blocks that the daemon drained in one turn: control first, then data. They are put in order of time, but the
daemon takes only so much of a full data ring in one turn, so data may come many cycles after the control events that it came
before. So nothing is concluded from an absence at once: lost bytes, ends of sessions and ends of runs wait until a note of the
daemon or a later data event shows that the data ring was drained up to their time. Journals of form 1 have no such notes; there
so many cycles must have come that any ring was drained. Where nothing more is to come, `settle` ends the waiting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, cast
from uuid import UUID

import msgpack

from capd.daemon.assembly import events
from capd.daemon.assembly.events import ControlEvent
from capd.daemon.assembly.lineage import Lineage
from capd.daemon.assembly.losses import LossTable
from capd.daemon.assembly.naming import tie_name
from capd.daemon.assembly.output import Batch
from capd.daemon.assembly.processes import ProcessTable, Run, RunTable
from capd.daemon.assembly.session import History, Session
from capd.daemon.assembly.sessions import TLS_KEY, Origin, SessionTable, SocketEnd, UserName
from capd.daemon.assembly.snapshot import Snapshot, restored_session, saved_chunk, saved_session
from capd.daemon.assembly.streams import DAMAGED, RESTARTED, Chunk, reason_of
from capd.daemon.assembly.tls import Hold
from capd.daemon.assembly.waiting import Waiting
from capd.probes.layouts import (
    ExecEvent,
    ExitEvent,
    ForkEvent,
    Library,
    MalformedEventError,
    Role,
    SocketCloseEvent,
    SocketOpenEvent,
    Tie,
    TlsCloseEvent,
    TlsOpenEvent,
    UringUsedEvent,
)
from capd.recording.journal import Block, Source
from capd.recording.record import Kind, Record, Value

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Payload after which a batch is given out, so that a full ring's block does not become a ring's worth of records at once."""
AFTER_EVENTS: Final = frozenset({"drained", "run_ended", "stop"})
"""Notes that the daemon writes after all that was in the rings when it made them."""
BATCH_RECORDS: Final = 2048
"""Records after which one is given out: so many take some megabytes, a ring's worth of small messages takes hundreds."""
ATTACHED_MAX: Final = 64
"""Attachments remembered; they matter to conversations that were beginning just then."""


class Assembler:
    """The state of everything that is open, and the way from blocks to records."""

    def __init__(self, *, origin: Origin, history: History, user_name: UserName, snapshot: Snapshot | None = None) -> None:
        """Begin with nothing, or with what a snapshot holds.

        Args:
            origin: host and boot until the first note of a start tells them.
            history: gives the records of a session that are on disk already; asked after a restart only.
            user_name: gives the name of a user id.
            snapshot: from the last time that everything was settled.
        """
        self._lineage = Lineage(ProcessTable(), RunTable())
        self._hold = Hold()
        self._waiting = Waiting()
        self._losses = LossTable()
        self._changed: dict[int, Session] = {}
        self._attached_ns: list[int] = []
        """Boot clock of each attachment to a library that a process may have been using already."""
        self._broken = False
        """A block of this cycle could not be read to its end."""
        self._wall_ns = 0
        self.malformed = 0
        """Blocks that could not be read to their end."""
        self.table = SessionTable(
            origin=origin, processes=self._lineage.processes, runs=self._lineage.runs, history=history, user_name=user_name
        )
        if snapshot is not None:
            self._restore(snapshot, history)

    @property
    def losses(self) -> dict[str, int]:
        """The probes' own counters, as last noted."""
        return self._losses.counters

    @property
    def unsettled(self) -> bool:
        """Whether something waits that `settle` would end."""
        waiting = self._waiting
        found = map(self.table.get, waiting.sessions)
        return bool(waiting.runs) or any(session is None or not waiting.owed(session) for session in found)

    def process(self, blocks: Sequence[Block]) -> Iterator[Batch]:
        """Take the blocks of one cycle; all batches have to be taken before the next call."""
        batch = Batch()
        payload_bytes = 0
        waiting = self._waiting
        waiting.cycle += 1
        last = blocks[-1]
        waiting.now_ns, self._wall_ns = last.boottime_ns, last.realtime_ns
        for block in blocks:
            if block.source is Source.NOTE:
                self._note(block, batch)
        control: list[ControlEvent] = []
        for block in blocks:
            if block.source is Source.CONTROL:
                try:
                    control.extend(events.control_events(block))
                except MalformedEventError:
                    self._broken = True
        data = (chunk for block in blocks if block.source is Source.DATA for chunk in self._chunks(block))
        for event in events.in_order(control, data):
            if isinstance(event, Chunk):
                self._chunk(event, batch)
                waiting.drained_ns = max(waiting.drained_ns, event.time_ns)
                payload_bytes += event.captured
                if payload_bytes > BATCH_BYTES or len(batch.records) > BATCH_RECORDS:
                    yield batch
                    batch, payload_bytes = Batch(), 0
            else:
                self._control(event, batch)
        if self._broken:
            self._malformed(batch)
        self._conclude(batch, force=False)
        self._finish(batch)
        yield batch

    def settle(self) -> Batch:
        """Wait for nothing any more, because what was given so far is to be stored; but for what the daemon still owes."""
        batch = Batch()
        self._conclude(batch, force=True)
        self._finish(batch)
        return batch

    def damaged(self) -> Batch:
        """A part of the journal cannot be read: nobody knows what of which session was in it."""
        batch = Batch()
        self._interrupt(DAMAGED, batch)
        self._finish(batch)
        return batch

    def snapshot(self) -> Snapshot:
        """Give everything that has to be remembered. Only between cycles."""
        return Snapshot(
            origin=self.table.origin,
            wall_ns=self._wall_ns,
            runs=self._lineage.runs.all(),
            processes=self._lineage.processes.all(),
            sessions=[saved_session(session) for _, session in self.table.items()],
            waiting=self._waiting,
            sockets=self.table.sockets(),
            ends=self.table.ends(),
            held=[saved_chunk(chunk) for chunk in self._hold.all()],
            losses=self._losses,
            total=self.table.total,
            unrecorded=self.table.unrecorded,
        )

    # -- data ------------------------------------------------------------------------------------------------------------------

    def _chunks(self, block: Block) -> Iterator[Chunk]:
        try:
            yield from events.chunks(block)
        except MalformedEventError:
            self._broken = True

    def _chunk(self, chunk: Chunk, batch: Batch) -> None:
        if chunk.tls:
            key = self._key_of_plaintext(chunk, batch)
            if key is None:
                return
        else:
            key = chunk.socket or chunk.stream
        session = self.table.get(key)
        process = (chunk.pid, chunk.process_start_ns)
        if session is None:
            if not chunk.length and not chunk.datagram:
                return  # the end of a direction of a session that is over
            session = self._begin(key, chunk, batch)
        elif process != session.state.process or session.state.orphaned_ns is not None:
            self.table.use(session, key, process, chunk.wall_ns, batch)
        self._changed[key] = session
        if chunk.tls and not session.spoken and session.state.ciphertext.late(self._attached_ns, chunk.time_ns):
            session.state.reasons.append("TLS library met late")
        if not session.accept(chunk, batch):
            self._waiting.add(key)

    def _key_of_plaintext(self, chunk: Chunk, batch: Batch) -> int | None:
        """Give the session that plaintext belongs to; None when it has to wait for its socket."""
        if chunk.socket:
            if chunk.stream in self._hold:
                self._tie(chunk, TlsOpenEvent(chunk.stream, 0, chunk.socket, chunk.library, chunk.tie), batch)
            self.table.tie(chunk.stream, chunk.socket)
            return chunk.socket
        session = self.table.of_stream(chunk.stream)
        if session is not None:
            return session.state.socket or TLS_KEY + session.state.stream
        if self.table.get(TLS_KEY + chunk.stream) is not None:
            return TLS_KEY + chunk.stream
        for stream in self._hold.add(chunk):
            self._release(stream, batch)
        return None

    def _tie(self, event: ControlEvent | Chunk, body: TlsOpenEvent, batch: Batch) -> None:
        """A TLS stream has its socket: what waited belongs there, before what comes."""
        waiting = self._hold.release(body.stream)
        session = self.table.get(body.socket) or self._begin(body.socket, waiting[0] if waiting else event, batch)
        self.table.tie(body.stream, body.socket)
        library = body.library or (waiting[0].library if waiting else Library.NONE)
        session.tie(body.stream, library, body.tie, event.wall_ns, batch)
        self._changed[body.socket] = session
        for chunk in waiting:
            chunk.socket, chunk.tie = body.socket, body.tie
            self._chunk(chunk, batch)

    def _release(self, stream: int, batch: Batch) -> Session | None:
        """What waited for its socket becomes a session without one."""
        key = TLS_KEY + stream
        for chunk in self._hold.release(stream):
            session = self.table.get(key)
            if session is None:
                session = self._begin(key, chunk, batch)
                session.tie(stream, chunk.library, Tie.NONE, chunk.wall_ns, batch)
                session.state.reasons.append("TLS without socket")
            self._changed[key] = session
            if not session.accept(chunk, batch):
                self._waiting.add(key)
        return self.table.get(key)

    def _begin(self, key: int, event: ControlEvent | Chunk, batch: Batch) -> Session:
        """Open a session at an event of it."""
        self._run(event.run, event.wall_ns)
        session = self.table.begin(key, event, batch)
        if session.closing is not None:  # its end came before
            self._waiting.add(key)
        return session

    def _run(self, key: int, wall_ns: int) -> Run:
        return self._lineage.run(key, wall_ns, self.table.origin.host, self.table.origin.boot)

    # -- control ---------------------------------------------------------------------------------------------------------------

    def _control(self, event: ControlEvent, batch: Batch) -> None:
        match event.body:
            case SocketOpenEvent() as body:
                self._socket_open(event, body, batch)
            case SocketCloseEvent() as body:
                self._socket_close(event, body)
            case TlsOpenEvent() as body:
                self._tls_open(event, body, batch)
            case TlsCloseEvent() as body:
                self._tls_close(event, body, batch)
            case ForkEvent() as body:
                self._lineage.fork(event, body, self._run(event.run, event.wall_ns), batch)
            case ExecEvent() as body:
                self._lineage.exec(event, body, self._run(event.run, event.wall_ns), batch)
                self.table.process_known((event.pid, event.process_start_ns))
                self.table.left_tls((event.pid, event.process_start_ns), event.time_ns)
            case UringUsedEvent():
                self._lineage.uses_uring(event, self._run(event.run, event.wall_ns), batch)
                self.table.uses_uring((event.pid, event.process_start_ns))
            case ExitEvent() as body:
                self._exit(event, body, batch)
            case _:
                pass  # a mapped file concerns the daemon, which attaches to it

    def _socket_open(self, event: ControlEvent, body: SocketOpenEvent, batch: Batch) -> None:
        session = self.table.learn(body)
        if session is None and body.role in (Role.CLIENT, Role.SERVER):
            session = self._begin(body.socket, event, batch)
        if session is not None:
            self._changed[body.socket] = session

    def _socket_close(self, event: ControlEvent, body: SocketCloseEvent) -> None:
        if self.table.ended(SocketEnd(event.time_ns, event.wall_ns, body)) is not None:
            self._waiting.add(body.socket)

    def _tls_open(self, event: ControlEvent, body: TlsOpenEvent, batch: Batch) -> None:
        if not body.socket:
            return
        untied = self.table.get(TLS_KEY + body.stream)
        if untied is None:
            self._tie(event, body, batch)
            return
        session = self.table.get(body.socket)
        facts: dict[str, Value] = {"name": "tied_late", "socket": body.socket, "tie": tie_name(body.tie)}
        facts["session"] = None if session is None else session.state.id.bytes
        batch.records.append(Record(Kind.MARKER, untied.state.id, untied.state.moment(event.wall_ns), None, facts))

    def _tls_close(self, event: ControlEvent, body: TlsCloseEvent, batch: Batch) -> None:
        if body.stream in self._hold and body.socket:
            waited = TlsOpenEvent(body.stream, 0, body.socket, Library.NONE, Tie.NONE)
            self._tie(event, waited, batch)
        session = self._release(body.stream, batch) if body.stream in self._hold else self.table.of_stream(body.stream)
        session = session or self.table.get(TLS_KEY + body.stream)
        if session is None:
            return
        session.ends[True, body.stream] = body.position
        session.state.ciphertext.ended_ns[body.stream] = event.time_ns
        session.resume(batch)
        key = session.state.socket or TLS_KEY + session.state.stream
        if not session.state.socket:
            session.closing, session.closed_ns = session.closing or "closed", event.wall_ns
        session.waits_ns = max(session.waits_ns, event.time_ns)
        self._waiting.add(key)

    def _exit(self, event: ControlEvent, body: ExitEvent, batch: Batch) -> None:
        run = self._run(event.run, event.wall_ns)
        heirs = self._lineage.exit(event, body, run, batch)
        process = (event.pid, event.process_start_ns)
        for stream in self._hold.of_process(*process):
            self._release(stream, batch)
        self.table.left_tls(process, event.time_ns)
        self.table.process_ended(process, heirs, event.time_ns)

    # -- notes -----------------------------------------------------------------------------------------------------------------

    def _note(self, block: Block, batch: Batch) -> None:
        try:
            note = cast("Mapping[str, Value]", msgpack.unpackb(block.payload, strict_map_key=False))
            self._take_note(note, block.wall_time_ns(cast(int, note.get("boottime_ns", block.boottime_ns))), batch)
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError, msgpack.UnpackException):
            self.malformed += 1

    def _take_note(self, note: Mapping[str, Value], wall_ns: int, batch: Batch) -> None:
        if note["note"] in AFTER_EVENTS:
            self._waiting.drained(cast(int, note["boottime_ns"]))
        match note["note"]:
            case "start":
                self._started(note, wall_ns, batch)
            case "run_started":
                run = self._lineage.started(note, wall_ns, self.table.origin.host, batch)
                self._waiting.runs.pop(run.key, None)
                for key, session in self.table.of_run(run.key):
                    session.announce = True
                    self._changed[key] = session
            case "run_ended":
                self._waiting.runs[cast(int, note["key"])] = self._waiting.now_ns
            case "process":
                self.table.process_known(self._lineage.told(note))
            case "losses":
                for key in self._losses.take(note, self._waiting.now_ns, wall_ns):
                    self._tell_run_losses(key, batch)
            case "attached" if note.get("late"):
                self._attached_ns = [*self._attached_ns, cast(int, note["boottime_ns"])][-ATTACHED_MAX:]
            case "attach_failed" if note.get("run"):
                self._lineage.missed(note, self._run(cast(int, note["run"]), wall_ns), wall_ns, batch)
            case "attach_failed" | "stop" | "storage":
                self.table.mark_host(note, wall_ns, batch)

    def _started(self, note: Mapping[str, Value], wall_ns: int, batch: Batch) -> None:
        """The probes began anew, unless the epoch is the same: what is open has a hole; after a reboot nothing of it stays."""
        before = self.table.origin
        epoch, boot, host = (UUID(bytes=cast(bytes, note[name])) for name in ("epoch", "boot", "host"))
        if epoch == before.epoch:
            self.table.go_on(note, wall_ns, batch)
            return
        for key in list(self._waiting.sessions):
            session = self.table.get(key)
            if session is not None and not session.reached() and self._waiting.owed(session):
                session.cut(RESTARTED, batch)
                self._settle_session(key, session, batch)
        self._conclude(batch, force=True)
        self._strangers(batch, force=True)
        self._losses.restarted()
        self._waiting.form = cast(int, note.get("form", 1))
        if boot != before.boot:
            self._abandon_all(batch)
        else:
            self._interrupt(RESTARTED, batch)
        self.table.restarted(replace(before, host=host, boot=boot, epoch=epoch), note, wall_ns, batch)

    def _tell_run_losses(self, key: int, batch: Batch) -> None:
        run, lost = self._run(key, self._wall_ns), self._losses.runs[key]
        self._lineage.lost(run, lost, self._wall_ns, batch)

    def _strangers(self, batch: Batch, run: int | None = None, *, force: bool = False) -> None:
        """Tell of connections that lost something and of which nothing else is there; with `force` of a run, or of all, now."""
        now_ns = None if force else self._waiting.now_ns
        for key in self._losses.strangers(self.table.knows, now_ns, run) if self._losses.streams else ():
            if key:
                self._tell_run_losses(key, batch)

    # -- conclusions -----------------------------------------------------------------------------------------------------------

    def _conclude(self, batch: Batch, *, force: bool) -> None:
        """Settle what can wait no longer, or everything that the daemon does not owe an answer to."""
        waiting = self._waiting
        for key in list(waiting.sessions):
            session = self.table.get(key)
            if session is None:
                del waiting.sessions[key]
                continue
            session.resume(batch)
            if waiting.over(key, session, force=force):
                self._settle_session(key, session, batch)
        for stream in self._hold.expired(waiting.now_ns):
            self._release(stream, batch)
        for session in self.table.orphans(waiting.now_ns, waiting.told_ns):
            session.settle(self._wall_ns, batch)
            self._end(session.state.socket or TLS_KEY + session.state.stream, session, "closed", batch)
        for run_key in list(waiting.runs):
            if force or waiting.run_over(run_key):
                del waiting.runs[run_key]
                self._end_run(run_key, batch)
        self._strangers(batch)
        self.table.silent(waiting.told_ns)
        self._lineage.processes.forget(waiting.now_ns)

    def _settle_session(self, key: int, session: Session, batch: Batch) -> None:
        self._waiting.sessions.pop(key, None)
        session.settle(session.state.last_ns, batch)
        self._changed[key] = session
        if session.closing is not None:
            self._end(key, session, session.closing if isinstance(session.closing, str) else "closed", batch)

    def _end(self, key: int, session: Session, word: str, batch: Batch) -> None:
        state = session.state
        streams = [(False, state.socket)] + [(True, stream) for stream in state.tls_streams]
        for tls_stream, stream in streams:
            for direction in (0, 1):
                key_of_loss = tls_stream, stream, direction
                if (lost := self._losses.claim(key_of_loss)) is not None:
                    session.unaccounted(key_of_loss, lost.bytes, reason_of(lost.cause), state.last_ns, batch)
        untold = state.transport is None or (state.transport == "tcp" and not isinstance(session.closing, SocketCloseEvent))
        state.reasons += self._losses.reasons(state, untold=bool(state.socket) and untold)
        self._changed.pop(key, None)
        self._waiting.sessions.pop(key, None)
        self.table.end(key, word, max(state.last_ns, session.closed_ns), batch)

    def _end_run(self, run_key: int, batch: Batch) -> None:
        run = self._lineage.runs.get(run_key)
        if run is None:
            return
        for stream in self._hold.of_run(run_key):
            self._release(stream, batch)
        for key, session in self.table.of_run(run_key):
            session.settle(session.state.last_ns, batch)
            session.closed_ns = session.closed_ns or self._wall_ns
            self._end(key, session, "closed", batch)
        self._strangers(batch, run_key, force=True)
        self._lineage.ended(run, self._wall_ns, batch)

    def _interrupt(self, reason: str, batch: Batch) -> None:
        for key, session in self.table.items():
            session.interrupted(reason, self._wall_ns, batch)
            self._changed[key] = session

    def _abandon_all(self, batch: Batch) -> None:
        """The host was started anew: whatever was open is gone."""
        for stream in self._hold.streams():
            self._release(stream, batch)
        for key, session in self.table.items():
            session.state.reasons.append("the host was started anew")
            self._end(key, session, "abandoned", batch)
        self.table.clear_sockets()
        self._lineage.processes.clear()
        for run in self._lineage.runs.all():
            if run.ended_ns is None:
                self._lineage.ended(run, self._wall_ns, batch)

    def _malformed(self, batch: Batch) -> None:
        self._broken = False
        self.malformed += 1
        self._interrupt(DAMAGED, batch)

    def _finish(self, batch: Batch) -> None:
        """End a batch: write what waited for more of its kind, repeat changed OPEN records."""
        for session in self._changed.values():
            if session.writer.waiting:
                session.writer.flush(batch)
            if session.announce:
                self.table.announce(session, session.state.last_ns, batch)
        self._changed.clear()

    def _restore(self, snapshot: Snapshot, history: History) -> None:
        self.table.origin = snapshot.origin
        self.table.total, self.table.unrecorded = snapshot.total, snapshot.unrecorded
        self._waiting, self._wall_ns = snapshot.waiting, snapshot.wall_ns
        for run in snapshot.runs:
            self._lineage.runs.put(run)
        self._lineage.processes.restore(snapshot.processes, snapshot.waiting.now_ns)
        sessions = [restored_session(saved, history) for saved in snapshot.sessions]
        self.table.restore(sessions, snapshot.sockets, snapshot.ends)
        for chunk in snapshot.held:
            self._hold.add(Chunk(*chunk))
        self._losses = snapshot.losses
