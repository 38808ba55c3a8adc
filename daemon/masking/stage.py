"""All records on their way to the recording: the one place that they pass before anything is written or indexed.

What lives here: which session a record belongs to, what waits in all of them together, what is remembered over the
recorder's own end. What must not: files, the rules themselves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Final, cast
from uuid import UUID

import msgpack

from capd.daemon.masking.failures import Failures, defect
from capd.daemon.masking.levels import Level, Levels
from capd.daemon.masking.policy_levels import Policy
from capd.daemon.masking.session import MaskedSession
from capd.daemon.masking.shown import Shown
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.values import Values
from capd.recording.record import Kind, Record

RUNS_MAX: Final = 4_096
"""Runs of which it is remembered how much of them is recorded."""
NOTED: Final = frozenset({Kind.OPEN, Kind.MARKER, Kind.CLOSE})
"""Records that say what a session is."""
HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""What may wait in all sessions together; beyond it those with the most are judged as if the stream ended."""


class Stage:
    """Takes records as the assembler gives them; gives them as they are stored."""

    def __init__(self, rules: Rules, levels: Levels) -> None:
        self._rules = rules
        self._undecoded = rules.undecoded
        self._levels = levels
        self._shown = Shown(Values(rules))
        self.failures = Failures()
        self._sessions: dict[UUID, MaskedSession] = {}
        self._runs: OrderedDict[UUID, Level] = OrderedDict()
        self._waiting: dict[UUID, MaskedSession] = {}
        """Sessions of which something waits."""
        self._idle = self._passes_all(levels)

    def _passes_all(self, levels: Levels) -> bool:
        nothing_hidden = levels.default is Level.FULL or (levels.default is Level.MASKED and not self._rules)
        return nothing_hidden and levels.uniform

    @property
    def policy(self) -> Policy:
        """Whose levels are in force."""
        return self._levels.policy

    def judge_by(self, policy: Policy) -> None:
        """Take another policy into force, in sessions that are open too."""
        self._levels = replace(self._levels, policy=policy)
        self._idle = self._passes_all(self._levels) and (self._idle or not self._sessions)
        for session in self._sessions.values():
            session.extent.judge_by(self._levels, session.protocol)

    def take(self, records: Sequence[Record]) -> list[Record]:
        """Take records of any sessions and runs, in their order; give those that can be stored now."""
        if self._idle:
            return self._noted(records)
        out: list[Record] = []
        touched: dict[UUID, MaskedSession] = {}
        for identity, together in groupby(records, attrgetter("session")):
            session = self._sessions.get(identity)
            for record in together:
                if session is None:
                    if record.kind is not Kind.OPEN:
                        out.append(self._other(record))
                        continue
                    session = self._sessions[identity] = self._begin(identity)
                self._guarded(session, record, out)
            if session is not None:
                touched[identity] = session
        for identity, session in touched.items():
            self._guarded(session, None, out)
            if session.queue:
                self._waiting[identity] = session
            else:
                self._waiting.pop(identity, None)
            if session.closed:
                del self._sessions[identity]
        if self._waiting:
            self._bound(out)
        return out

    def _noted(self, records: Sequence[Record]) -> list[Record]:
        """Let all pass, and remember what another policy would ask of the sessions that are open."""
        for record in records:
            if record.kind in NOTED:
                session = self._sessions.get(record.session)
                if session is None and record.kind is Kind.OPEN:
                    session = self._sessions[record.session] = self._begin(record.session)
                if session is not None:
                    session.note(record)
                    if session.closed:
                        del self._sessions[record.session]
        return list(records)

    def _guarded(self, session: MaskedSession, record: Record | None, out: list[Record]) -> None:
        """Let a session take a record; or, without one, give what it can."""
        try:
            if record is not None:
                session.take(record)
                return
            if not session.failed:
                session.settle()
            out.extend(session.release())
        except Exception as error:  # noqa: BLE001  # a defect in masking must neither store what it should hide nor stop the rest
            where, time_ns = defect(error), session.queue[-1].record.time_ns if session.queue else 0
            self.failures.note(session.id, where, time_ns)
            out.extend(session.fail(where, time_ns))
            if record is None:
                out.extend(session.release())

    def level(self, identity: UUID) -> Level | None:
        """Give the level of a session: the strictest that it may have, while it is not certain; None: it is not open."""
        session = self._sessions.get(identity)
        return None if session is None else session.level

    def _begin(self, identity: UUID) -> MaskedSession:
        return MaskedSession(identity, (self._rules, self._undecoded), self._levels, self._shown)

    def cut(self) -> list[Record]:
        """The recorder ends in order: give everything that waits, but of sessions whose level is not known: a later one may."""
        out: list[Record] = []
        for session in [session for session in self._waiting.values() if session.certain]:
            session.cut()
            out += session.release(all_of_them=True)
            del self._waiting[session.id]
        return out

    def give_up(self, identity: UUID) -> list[Record]:
        """Let go of what waits of a session, which is not to be stored; give it, masked."""
        session = self._waiting.pop(identity, None)
        if session is None:
            return []
        session.cut()
        return list(session.release(all_of_them=True))

    def stores(self, identity: UUID) -> bool:
        """Say whether more of a session is stored than its beginning and its end."""
        session = self._sessions.get(identity)
        return session is None or session.level is not Level.OFF

    def restored(self, record: Record) -> Record | None:
        """Give a stored record as whoever rebuilds a decoder needs it; None where it cannot be given any more."""
        session = self._sessions.get(record.session)
        return record if session is None else session.undecided.restored(record)

    def held(self, identity: UUID) -> list[Record]:
        """Give what waits of a session, as it came: whoever rebuilds its decoder needs it."""
        session = self._sessions.get(identity)
        return [] if session is None else [waiting.record for waiting in session.queue]

    def all_held(self) -> list[Record]:
        """Give what waits in all sessions, as it came."""
        return [waiting.record for session in self._waiting.values() for waiting in session.queue]

    def save(self) -> bytes:
        """Give everything that has to be remembered over the recorder's end. It holds what was said, unmasked."""
        sessions = [(identity.bytes, session.save()) for identity, session in self._sessions.items()]
        runs = [(run.bytes, int(level)) for run, level in self._runs.items()]
        saved = (sessions, runs, self._levels.policy.save())
        return cast("bytes", msgpack.packb(saved, unicode_errors="surrogateescape"))

    def restore(self, saved: bytes) -> bool:
        """Take what was saved. False: it is nothing of this version, or of other rules, and nothing of it was taken."""
        before = self.policy
        try:
            sessions, runs, *later = msgpack.unpackb(saved, strict_map_key=False, unicode_errors="surrogateescape")
            self.judge_by(Policy.restored(later[0] if later else None))
            for identity, state in sessions:
                session = self._begin(UUID(bytes=identity))
                session.restore(state)
                self._sessions[session.id] = session
                if session.queue:
                    self._waiting[session.id] = session
            self._runs.update((UUID(bytes=run), Level(level)) for run, level in runs)
            self._idle = self._idle and not self._waiting
        except (ValueError, TypeError, LookupError, msgpack.UnpackException):
            self._sessions, self._waiting = {}, {}
            self.judge_by(before)
            return False
        return True

    def _other(self, record: Record) -> Record:
        """Give what is of no session: about a run, the host, or a session of which nothing else is known."""
        level = self._runs.get(record.session, Level.MASKED)
        if record.kind is Kind.MARKER and record.body.get("name") == "run":
            level = self._runs[record.session] = self._levels.of_run(record.body)
            if len(self._runs) > RUNS_MAX:
                self._runs.popitem(last=False)
        return self._shown.anything(record, level)

    def _bound(self, out: list[Record]) -> None:
        """Let nothing wait any more where too much does."""
        total = sum(session.held_bytes for session in self._waiting.values())
        while total > HELD_BYTES_MAX:
            identity = max(self._waiting, key=lambda identity: self._waiting[identity].held_bytes)
            session = self._waiting.pop(identity)
            total -= session.held_bytes
            session.cut()
            out += session.release(all_of_them=True)
