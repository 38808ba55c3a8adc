"""All open sessions: which chunk belongs to which, when a session begins and when it ends.

What lives here: the table, OPEN records, users of a socket, the limit. What must not: what happens inside a session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from capd.daemon.assembly.addresses import local_of, target_of, transport
from capd.daemon.assembly.completeness import FOREIGN
from capd.daemon.assembly.events import ControlEvent
from capd.daemon.assembly.losses import StreamKey
from capd.daemon.assembly.output import Batch
from capd.daemon.assembly.processes import Process, ProcessKey, ProcessTable, RunTable
from capd.daemon.assembly.session import History, Session
from capd.daemon.assembly.state import SessionState
from capd.daemon.assembly.streams import RESTARTED, Chunk
from capd.probes.layouts import MidStream, Role, SocketCloseEvent, SocketOpenEvent
from capd.recording.identity import session_id
from capd.recording.record import Kind, Record, Value

SESSIONS_MAX: Final = 16_384
"""Open sessions held at once, each about 5 KB besides its decoder's buffers. At the limit those that were silent longest are
closed as abandoned, with a marker that says so; if they speak again, that is a new session which started before its capture."""
EVICTED_AT_ONCE: Final = SESSIONS_MAX // 16
"""How many are closed then, so that finding the silent ones is paid rarely."""
SOCKETS_MAX: Final = 65_536
"""Sockets that are known but have not spoken: facts for a session that may come. At the limit the oldest facts go."""
USERS_MAX: Final = 1_024
"""Processes noted as users of one session; enough for any pre-forking server."""
ORPHANED_NS: Final = 2_000_000_000
"""Event time after which a unix or UDP session without living users is closed: their close is not always seen."""
NO_BOOT: Final = UUID(int=0)
TLS_KEY: Final = 1 << 64
"""Added to the id of a TLS stream without socket, to make it a key beside socket ids."""

UserName = Callable[[int], str | None]
"""Gives the name of a user id, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where and when what is recorded happens.

    Attributes:
        host: the installation.
        boot: the kernel's boot id; zeros while nobody told: what comes may be of an earlier one than this.
        epoch: the daemon's start; None before the first note of one.
    """

    host: UUID
    boot: UUID = NO_BOOT
    epoch: UUID | None = None


@dataclass(frozen=True, slots=True)
class SocketEnd:
    """A socket's last descriptor is gone.

    Attributes:
        time_ns: boot clock.
        wall_ns: wall time.
        body: what was told of it.
    """

    time_ns: int
    wall_ns: int
    body: SocketCloseEvent


class SessionTable:
    """The open sessions."""

    def __init__(
        self, *, origin: Origin, processes: ProcessTable, runs: RunTable, history: History, user_name: UserName
    ) -> None:
        self.origin = origin
        self._runs = runs
        self._processes = processes
        self._history = history
        self._user_name = user_name
        self._sessions: dict[int, Session] = {}
        self._sockets: dict[int, SocketOpenEvent] = {}
        self._ends: dict[int, SocketEnd] = {}
        """Of sockets that had said nothing: what they said may be in a later cycle, if a turn of the daemon was parted."""
        self._by_stream: dict[int, int] = {}
        self._used: dict[ProcessKey, set[int]] = {}
        self._orphans: dict[int, None] = {}
        self._evicted: dict[int, None] = {}
        self._unnamed: dict[ProcessKey, set[int]] = {}
        """Sessions whose process had no facts when they were opened."""
        self.unrecorded: str | None = None
        """Why nothing of what agents say is recorded at the moment; None while it is."""
        self.total = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: int) -> Session | None:
        """Give an open session."""
        return self._sessions.get(key)

    def items(self) -> list[tuple[int, Session]]:
        """Give them all with their keys."""
        return list(self._sessions.items())

    def of_run(self, run: int) -> list[tuple[int, Session]]:
        """Give the sessions of a run with their keys."""
        return [(key, session) for key, session in self._sessions.items() if session.state.run == run]

    def of_stream(self, stream: int) -> Session | None:
        """Give the session that a TLS stream was tied to."""
        key = self._by_stream.get(stream)
        return None if key is None else self._sessions.get(key)

    def knows(self, stream: StreamKey) -> bool:
        """Say whether a stream, of a socket or of TLS, belongs to an open session."""
        tls_stream, number, _direction = stream
        return (
            (TLS_KEY + number in self._sessions or self.of_stream(number) is not None)
            if tls_stream
            else number in self._sessions
        )

    def begin(self, key: int, event: ControlEvent | Chunk, batch: Batch) -> Session:
        """Open a session at its first event."""
        if len(self._sessions) >= SESSIONS_MAX:
            self._evict(batch)
        stream = key - TLS_KEY if key >= TLS_KEY else 0
        user = (event.pid, event.process_start_ns)
        identity = session_id(
            host=self.origin.host,
            boot=self.origin.boot,
            socket=stream or key,
            boottime_ns=event.time_ns,
            unix_ns=event.wall_ns,
            layer=1 if stream else 0,
        )
        state = SessionState(
            id=identity,
            socket=0 if stream else key,
            stream=stream,
            run=event.run,
            started_ns=event.wall_ns,
            last_ns=event.wall_ns,
            active_ns=event.time_ns,
            process=user,
        )
        session = self._sessions[key] = Session(state, self._history)
        self.total += 1
        facts = self._sockets.pop(key, None)
        if facts is not None:
            _learn(state, facts)
        end = self._ends.pop(key, None)
        if end is not None:
            _end(session, end)
        if key in self._evicted:
            del self._evicted[key]
            state.mid_stream = True
            session.counted = False
        self._hold(key, session)
        process = self._processes.get(user)
        state.uring = process is not None and process.uring
        if process is None or process.exe is None:
            self._unnamed.setdefault(user, set()).add(key)
        self.announce(session, event.wall_ns, batch)
        self._say_unrecorded(session, event.wall_ns, batch)
        return session

    def _hold(self, key: int, session: Session) -> None:
        """Note who may hold what the first of its processes had: that may have ended before what it said was told."""
        state = session.state
        state.users, ended_ns = self._processes.holders(state.process)
        for user in state.users:
            self._used.setdefault(user, set()).add(key)
        if not state.users:
            state.orphaned_ns = state.active_ns if ended_ns is None else max(ended_ns, state.active_ns)
            self._orphans[key] = None

    def restarted(self, origin: Origin, note: Mapping[str, Value], wall_ns: int, batch: Batch) -> None:
        """Sessions that begin from here on are of other probes."""
        self.origin, self.unrecorded = origin, None
        self.mark_host(note, wall_ns, batch)

    def go_on(self, note: Mapping[str, Value], wall_ns: int, batch: Batch) -> None:
        """Another daemon drains the same probes from here on: nothing is missing."""
        if note.get("continued"):
            self.mark_host(note, wall_ns, batch)

    def mark_host(self, note: Mapping[str, Value], wall_ns: int, batch: Batch) -> None:
        """Write a note of the daemon down as a marker of the host.

        If it says that nothing is recorded any more, each session that is open, or begins, until it is again, says so.
        """
        facts = {name: value for name, value in note.items() if name != "note"}
        body: dict[str, Value] = {"name": f"capture_{note['note']!s}", **facts}
        batch.records.append(Record(Kind.MARKER, self.origin.host, wall_ns, None, body))
        if "recording" in note:
            self.unrecorded = None if note["recording"] else f"not recorded: storage {note['state']!s}"
            for session in self._sessions.values():
                self._say_unrecorded(session, wall_ns, batch)

    def _say_unrecorded(self, session: Session, wall_ns: int, batch: Batch) -> None:
        state, reason = session.state, self.unrecorded
        if reason is not None and reason not in state.reasons:
            state.reasons.append(reason)
            state.unrecorded = True
            body: dict[str, Value] = {"name": "unrecorded", "reason": reason}
            batch.records.append(Record(Kind.MARKER, state.id, state.moment(wall_ns), None, body))

    def learn(self, event: SocketOpenEvent) -> Session | None:
        """Note a socket's facts. Gives its session, if it has one; else they wait for it."""
        session = self._sessions.get(event.socket)
        if session is not None:
            session.announce |= _learn(session.state, event)
            return session
        self.forget_socket(event.socket)
        self._sockets[event.socket] = event
        if len(self._sockets) > SOCKETS_MAX:
            del self._sockets[next(iter(self._sockets))]
        return None

    def tie(self, stream: int, key: int) -> None:
        """Note that a TLS stream belongs to a session."""
        self._by_stream[stream] = key

    def ended(self, end: SocketEnd) -> Session | None:
        """Note that a socket is gone. Gives its session, if it has one."""
        socket = end.body.socket
        session = self._sessions.get(socket)
        if session is not None:
            _end(session, end)
            return session
        self._ends[socket] = end
        if len(self._ends) > SOCKETS_MAX:
            oldest = next(iter(self._ends))
            self.forget_socket(oldest)
            self._doubt(oldest)
        return None

    def silent(self, drained_ns: int) -> None:
        """Forget the sockets that had ended by then and said nothing: all that was said up to a time is there (boot clock)."""
        while self._ends and next(iter(self._ends.values())).time_ns <= drained_ns:
            self.forget_socket(next(iter(self._ends)))

    def forget_socket(self, socket: int) -> None:
        """A socket that never spoke is gone."""
        self._sockets.pop(socket, None)
        self._ends.pop(socket, None)

    def use(self, session: Session, key: int, process: ProcessKey, wall_ns: int, batch: Batch) -> None:
        """Note that another process uses a session."""
        state = session.state
        known = self._processes.get(process)
        if process == state.process and known is not None and known.ended:
            return  # it says nothing any more: this was told late
        state.orphaned_ns = None
        self._orphans.pop(key, None)
        if process in state.users:
            return
        if len(state.users) < USERS_MAX:
            state.users.add(process)
            self._used.setdefault(process, set()).add(key)
        state.uring = state.uring or (known is not None and known.uring)
        if process != state.process:
            body: dict[str, Value] = {"name": "process", **self.process_facts(process)}
            batch.records.append(Record(Kind.MARKER, state.id, state.moment(wall_ns), None, body))

    def process_known(self, process: ProcessKey) -> None:
        """Facts of a process came late: sessions that were opened without them are announced again."""
        for key in self._unnamed.pop(process, ()):
            session = self._sessions.get(key)
            if session is not None:
                session.announce = True

    def uses_uring(self, process: ProcessKey) -> None:
        """A process moves what is not seen: the sessions that it uses are not complete, as those that it will use."""
        for key in self._used.get(process, ()):
            session = self._sessions.get(key)
            if session is not None:
                session.state.uring = True

    def left_tls(self, process: ProcessKey, time_ns: int) -> None:
        """A process ended, or runs another program: its TLS streams are over (boot clock)."""
        for key in self._used.get(process, ()):
            session = self._sessions.get(key)
            if session is not None:
                session.state.left_tls(process, time_ns)

    def process_ended(self, process: ProcessKey, heirs: set[ProcessKey], time_ns: int) -> None:
        """A user of sessions is gone; its children may still hold its descriptors."""
        self._unnamed.pop(process, None)
        for key in self._used.pop(process, ()):
            session = self._sessions.get(key)
            if session is None:
                continue
            session.state.users.discard(process)
            session.state.users |= heirs
            for heir in heirs:
                self._used.setdefault(heir, set()).add(key)
            if not session.state.users:
                session.state.orphaned_ns = time_ns
                self._orphans[key] = None

    def orphans(self, now_ns: int, told_ns: int) -> list[Session]:
        """Give the unix and UDP sessions whose users are gone for long enough; all is told up to `told_ns` (boot clock)."""
        found = []
        for key in list(self._orphans):
            session = self._sessions.get(key)
            if session is None or session.state.orphaned_ns is None:
                del self._orphans[key]
            elif session.state.orphaned_ns + ORPHANED_NS < now_ns and session.state.orphaned_ns <= told_ns:
                del self._orphans[key]
                if session.state.transport != "tcp":
                    found.append(session)
        return found

    def announce(self, session: Session, wall_ns: int, batch: Batch) -> None:
        """Write an OPEN record with all that is known now."""
        session.announce = False
        state = session.state
        run = self._runs.of(state.run)
        body: dict[str, Value] = {
            "run": run.id.bytes,
            "run_name": run.name,
            "labels": run.labels,
            "principal": run.principal,
            "host": self.origin.host.bytes,
            "boot": self.origin.boot.bytes,
            "socket": state.socket,
            "transport": state.transport,
            "role": Role(state.role).name.lower(),
            "local": state.local,
            "target": target_facts(state),
            "process": self.process_facts(state.process),
            "mid_stream": state.mid_stream,
        }
        state.opened = True
        batch.records.append(Record(Kind.OPEN, state.id, state.moment(wall_ns), None, body))

    def process_facts(self, key: ProcessKey) -> dict[str, Value]:
        """Give what is known of a process, as records hold it."""
        return facts_of(key, self._processes.get(key), self._user_name)

    def end(self, key: int, word: str, wall_ns: int, batch: Batch) -> None:
        """Close a session and forget it."""
        session = self._sessions.pop(key)
        state = session.state
        if session.announce:
            self.announce(session, wall_ns, batch)
        session.close(word, wall_ns, batch)
        for stream in state.tls_streams:
            self._by_stream.pop(stream, None)
        for process in state.users:
            used = self._used.get(process)
            if used is not None:
                used.discard(key)
                if not used:
                    del self._used[process]
        self._orphans.pop(key, None)

    def restore(self, sessions: list[Session], sockets: list[SocketOpenEvent], ends: list[SocketEnd]) -> None:
        """Take what a snapshot kept."""
        self._sockets = {event.socket: event for event in sockets}
        self._ends = {end.body.socket: end for end in ends}
        for session in sessions:
            state = session.state
            key = state.socket or TLS_KEY + state.stream
            self._sessions[key] = session
            self._by_stream.update(dict.fromkeys(state.tls_streams, key))
            for process in state.users:
                self._used.setdefault(process, set()).add(key)
            if state.orphaned_ns is not None:
                self._orphans[key] = None

    def sockets(self) -> list[SocketOpenEvent]:
        """Give the facts of sockets that did not speak yet, for a snapshot."""
        return list(self._sockets.values())

    def ends(self) -> list[SocketEnd]:
        """Give the ends of sockets that said nothing so far, for a snapshot."""
        return list(self._ends.values())

    def clear_sockets(self) -> None:
        """Forget the sockets that did not speak: the host was started anew."""
        self._sockets.clear()
        self._ends.clear()

    def _evict(self, batch: Batch) -> None:
        """Close those that were silent longest."""
        silent = sorted(self._sessions, key=lambda key: self._sessions[key].state.active_ns)[:EVICTED_AT_ONCE]
        self.evictions += len(silent)
        for key in silent:
            session = self._sessions[key]
            wall_ns = session.state.last_ns
            session.state.reasons.append("too many open sessions")
            body: dict[str, Value] = {"name": "evicted", "sessions_max": SESSIONS_MAX}
            batch.records.append(Record(Kind.MARKER, session.state.id, wall_ns, None, body))
            session.settle(wall_ns, batch)
            self.end(key, "abandoned", wall_ns, batch)
            self._doubt(key)

    def _doubt(self, key: int) -> None:
        """Remember that a session with this key, if there will be one, is the rest of something."""
        self._evicted[key] = None
        while len(self._evicted) > SESSIONS_MAX:
            del self._evicted[next(iter(self._evicted))]


def _end(session: Session, end: SocketEnd) -> None:
    session.ends[False, end.body.socket] = end.body.position
    session.closing, session.closed_ns = end.body, end.wall_ns
    session.waits_ns = end.time_ns  # whoever moved bytes on it was done before


def _learn(state: SessionState, event: SocketOpenEvent) -> bool:
    """Put a socket's facts into its session. Gives whether that told anything new."""
    local, target = local_of(event), target_of(event)
    new = {
        "transport": transport(event),
        "role": event.role or state.role,
        "local": local or state.local,
        "target": target or state.target,
        "mid_stream": state.mid_stream or (bool(event.mid_stream) and RESTARTED not in state.losses),
    }
    changed = False
    if event.mid_stream == MidStream.FOREIGN and new["mid_stream"] and FOREIGN not in state.reasons:
        state.reasons.append(FOREIGN)
    for name, value in new.items():
        if getattr(state, name) != value:
            setattr(state, name, value)
            changed = True
    return changed


def target_facts(state: SessionState) -> dict[str, Value]:
    """Give the peer as records and the index hold it; what is not known is None."""
    target = state.target or {}
    return {"host": target.get("host"), "port": target.get("port"), "name": state.name}


def facts_of(key: ProcessKey, process: Process | None, user_name: UserName) -> dict[str, Value]:
    """Give a process as records and the index hold it; what is not known is None."""
    if process is None:
        return {"pid": key[0], "start_ns": key[1], "exe": None, "argv": [], "uid": None, "user": None, "comm": None}
    return {
        "pid": key[0],
        "start_ns": key[1],
        "exe": process.exe,
        "argv": process.argv,
        "uid": process.uid,
        "user": None if process.uid is None else user_name(process.uid),
        "comm": process.comm,
    }
