"""The recorder: the role that turns the journal into the recording.

What lives here: its loop, what it writes when, and its status. What must not: what events mean (assembly/), formats of files
(recording/), its process (recorder_role.py).

It reads the journal cycle by cycle, gives the blocks to the assembler and appends the records to a segment. A flush makes them
visible and ends a frame, which says up to where in the journal everything is stored. After a seal it remembers the assembler's
state and allows the daemon to free the journal. It holds nothing that it could not find again after `kill -9`.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from uuid import UUID

from capd.daemon.assembly.assembler import Assembler
from capd.daemon.assembly.sessions import NO_BOOT, Origin
from capd.daemon.freed_memory import FreedMemory
from capd.daemon.masking.levels import Level
from capd.daemon.masking.policy import stage
from capd.daemon.masking.policy_levels import Policy
from capd.daemon.processes import rss_bytes
from capd.daemon.recorder_astray import Astray
from capd.daemon.recorder_cycles import Cycle, Cycles
from capd.daemon.recorder_expiry import RecorderExpiry
from capd.daemon.recorder_history import history
from capd.daemon.recorder_index import RecorderIndex
from capd.daemon.recorder_memory import (
    BEGUN,
    BEGUN_ANEW,
    DAMAGED,
    LET_GO,
    PARTED,
    POLICY,
    SETTLED,
    Memory,
    Remembered,
    Steps,
    said_boot,
    say_boot,
    steps_since,
)
from capd.daemon.recorder_policy import RecorderPolicy
from capd.daemon.recorder_resumption import After, abandoned, go_again, mend
from capd.daemon.recorder_sealing import KeyRing, Seals, after_heads
from capd.daemon.recorder_user import user_name
from capd.daemon.recorder_witness import RecorderWitness
from capd.daemon.storage import State
from capd.daemon.storage_keeping import read_state
from capd.daemon.tripwire import tripwire, with_markers
from capd.daemon.version import VERSION
from capd.recording.durable import replace_content
from capd.recording.errors import CapdError, StorageFullError
from capd.recording.index_search import SessionFilter
from capd.recording.journal import Block, JournalDamage, JournalKeys, JournalReader, Position
from capd.recording.record import Kind, Record, Value
from capd.recording.rows import STATE_OPEN
from capd.recording.segment.recovery import recover
from capd.recording.segment.trailer import Signer
from capd.recording.segment.writer import SegmentWriter

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

POLL_SECONDS: Final = 0.03
"""How often the journal is looked at while it grows: what a follower waits at most."""
IDLE_POLL_SECONDS: Final = 0.1
"""How often when nothing has come for a while, so that a host at rest pays a third of a percent of a core."""
IDLE_SECONDS: Final = 0.3
"""Without a new block for so long, nothing more of what was drained will come: the daemon writes a block in a tenth of that."""
FLUSH_SECONDS: Final = 0.2
"""How long records may wait in memory while the journal grows."""
FLUSH_BYTES: Final = 4 * 1024 * 1024
STATUS_SECONDS: Final = 1.0
MEMORY_SHARE: Final = 20
"""A snapshot is taken at a seal when the last one is this many times as long ago as it took: at most 5 % of the time."""
MEMORY_IDLE_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
"""How long to wait after the disk refused to take more."""
STOP_SECONDS_MAX: Final = 20.0
"""After a signal the rest of the journal is worked off, for as long as this; a later start does what is left."""
CLOSING_BYTES: Final = 8 * 1024 * 1024
"""Of a segment, before compression, while storage is out: the sooner it is sealed, the sooner the journal before it goes."""
ERRORS_SHOWN: Final = 10


class Recorder:
    """One recorder at work in the directories of one configuration."""

    def __init__(self, configuration: Configuration, *, host: UUID, user: str, signer: Signer | None = None) -> None:
        """Recover what an earlier one left, and stand where it stood.

        Args:
            configuration: of this instance.
            host: its id.
            user: who the recorder runs as, for the status.
            signer: the host's key; None leaves segments unsigned.

        Raises:
            CapdError: a directory cannot be used, or holds what a later capd wrote.
        """
        self._configuration, self._host, self._user = configuration, host, user
        self._tripwire = tripwire(configuration)
        self._errors: deque[str] = deque(maxlen=ERRORS_SHOWN)
        self.counts = {"messages": 0, "records": 0, "segments": 0, "damages": 0}
        self._stopping: float | None = None
        self._seal_asked = False
        self._refused_at: float | None = None
        self._last_block: Block | None = None
        self._boot = said_boot(configuration.recorder_runtime_dir)
        self._keys = JournalKeys(configuration.journal_key_file, configuration.journal_key_elsewhere)
        self._memory = Memory(configuration.recorder_dir, configuration.position_file, self._keys)
        ring = KeyRing(configuration.recorder_runtime_dir / "keys")
        self._seals = Seals(signer=signer, recipients=configuration.encryption.recipients, ring=ring)
        segments = configuration.segments_dir
        recovery = after_heads(
            recover(segments, clock=time.time_ns, signer=signer, quarantine=configuration.quarantine_dir), segments
        )
        self._index = RecorderIndex(configuration, self._seals, self._errors.append)
        recorded = recovery.position or Position(0, 0)
        self._policy = RecorderPolicy(configuration.policy_dir, frozenset({0, os.geteuid()}))
        remembered = self._begin_at(self._memory.load())
        start = remembered.position if remembered else None
        steps = steps_since(segments, remembered.sequence if remembered else 0, host, ring)
        before = remembered.witness if remembered else b""
        self._witness = RecorderWitness(configuration, host, before, steps.witnessed, level=self._level)
        found = self._finds_way(steps, recorded, known=start is not None)
        after = After(stage=self._stage, witness=self._witness, astray=Astray(self._assembler, self._stage))
        reached = self._resume(steps, recorded, after) if found else None
        self._position = self._begin_anew(recorded) if reached is None else reached
        self._writer = SegmentWriter(
            configuration.segments_dir,
            host=host,
            clock=time.time_ns,
            sequence=recovery.next_sequence,
            previous=recovery.previous,
            position=self._position,
            sealing=self._seals.sealing,
        )
        self._expiry = RecorderExpiry(configuration.deletions_dir, configuration.keys_dir, host)
        self._closing = False
        """Storage is out: what is open is sealed, so that the journal can be freed, with the room that the reserve gave."""
        self._flushed_bytes, self._remembering_seconds, self._freed = 0, 0.0, FreedMemory()
        self._flushed_at = self._status_at = self._remembered_at = time.monotonic()
        self._remembered_position = start
        self._seals.begin(configuration.segments_dir, host, recovery)
        self._mend(None if reached is None else after, remembered.sequence if remembered else 0)
        self._policy.kept = self._stage.policy if remembered and reached and steps.begun_anew is None else Policy()
        self._change_policy(self._policy.first(self._stage.policy, time.monotonic))
        self._abandon_unknown()

    # -- start -----------------------------------------------------------------------------------------------------------------

    def _begin_at(
        self, remembered: Remembered | None, position: Position | None = None, boot: UUID = NO_BOOT
    ) -> Remembered | None:
        """Be as it was remembered, or know nothing but a boot and read from a position; give what was of use."""
        configuration = self._configuration
        self._stage = stage(configuration.masking, configuration.recording, Policy())
        if remembered is not None and not self._stage.restore(remembered.masking):
            remembered = None
        if remembered is None:
            self._stage.judge_by(self._policy.first(None, time.monotonic))
        self._assembler = Assembler(
            origin=Origin(host=self._host, boot=boot),
            history=self._history,
            user_name=user_name,
            snapshot=remembered.snapshot if remembered else None,
        )
        start = remembered.position if remembered else position
        after = remembered.block if remembered else None
        self._read_from(start, after)
        return remembered

    def _read_from(self, start: Position | None, after: int | None = None) -> None:
        self._reader = JournalReader(self._configuration.journal_dir, start, self._keys, after=after)
        self._cycles = Cycles(self._reader)

    def _begin_anew(self, recorded: Position) -> Position:
        """Go on behind what is recorded without knowing how it came there: to go the way again would tell it otherwise."""
        self._errors.append("what was known of open sessions is lost: they are recorded as new ones")
        self._reader.close()
        self._begin_at(None, recorded, self._boot)
        return recorded

    def _finds_way(self, steps: Steps, recorded: Position, *, known: bool) -> bool:
        """Stand where the way begins that was gone; False: that is not there any more. `known`: a snapshot says where."""
        if steps.hidden:
            return False
        if steps.begun_anew is not None:
            self._reader.close()
            self._begin_at(None, *steps.begun_anew)
            return True
        if steps.begun is not None and self._reader.position in (None, Position(0, 0)):
            self._reader.close()
            self._read_from(steps.begun)
            return True
        return known or not self._reader.freed or not (self._memory.released or recorded > Position(0, 0))

    def _resume(self, steps: Steps, recorded: Position, after: After) -> Position | None:
        """Come to where the recording ends; give where that is, or None when the journal does not lead there any more."""
        start = self._reader.position
        return go_again(self._cycles, self._assembler, after, steps, start=start, recorded=recorded)

    def _mend(self, after: After | None, sequence: int) -> None:
        """Have sessions go on behind what is recorded that came to something else on the way; None: all were begun anew."""
        if after is None:
            self._store([self._step(BEGUN_ANEW, at=list(self._position.to_fields()), boot=self._boot.bytes)])
            return
        astray = after.astray.found(self._configuration.segments_dir, sequence, self._seals.ring)
        gaps, records = mend(self._assembler, after, astray)
        self._store([*gaps, *self._tripwire.look(self._stage.all_held())])
        self._append(records)

    def _abandon_unknown(self) -> None:
        """End the sessions that the index calls open and nobody knows any more, and take out messages that were lost."""
        known = {session.state.id: session.state.messages for _, session in self._assembler.table.items()}
        for session, messages in known.items():
            self._index.index.remove_messages(session, messages)
        rows = self._index.index.sessions(SessionFilter(state=STATE_OPEN), limit=None)
        rows = [row for row in rows if row.host in (None, self._host) and row.session not in known.keys() | self._witness.alone]
        self._append([abandoned(row) for row in rows])

    def _level(self, session: UUID) -> Level | None:
        return self._stage.level(session)  # which may be another one by then

    def _history(self, session: UUID) -> Iterator[Record]:
        numbers = self._index.index.segments_of(session)
        return history(session, self._configuration.segments_dir, numbers, self._seals.ring, self._stage)

    # -- loop ------------------------------------------------------------------------------------------------------------------

    def run(self, beat: Callable[[], None] = lambda: None) -> None:
        """Work until a signal says stop; then finish what the journal holds, seal, and return. `beat`: called in each round."""
        idle_since = time.monotonic()
        while True:
            beat()
            now = time.monotonic()
            if self._refused_at is not None and not self._retry(now):
                if self._stopping is not None:
                    break
                continue
            stopping = self._stopping is not None  # asked before looking: what was written until then is still read
            cycle = self._cycles.next()
            if cycle is not None:
                self._take(cycle)
                idle_since = time.monotonic()
                if self._stopping is None or time.monotonic() < self._stopping:
                    self._attend(idle=False)
                    continue
                break
            if self._cycles.waiting and now - idle_since > POLL_SECONDS:
                self._take(self._cycles.rest())
                idle_since = now
            idle = now - idle_since > IDLE_SECONDS or self._stopping is not None
            self._attend(idle=idle)
            if stopping and not self._cycles.waiting:
                break
            time.sleep(IDLE_POLL_SECONDS if idle else POLL_SECONDS)
        self._finish()

    def stop(self, seconds: float = STOP_SECONDS_MAX) -> None:
        """Make `run` finish, within about so many seconds; may be called by a signal handler."""
        if self._stopping is None:
            self._stopping = time.monotonic() + seconds

    def ask_seal(self) -> None:
        """Seal the current segment soon; may be called by a signal handler."""
        self._seal_asked = True

    def _take(self, cycle: Cycle) -> None:
        self._say_beginning(cycle.position if isinstance(cycle, JournalDamage) else cycle[0].position)
        if isinstance(cycle, JournalDamage):
            self.counts["damages"] += 1
            self._errors.append(f"journal damaged at file {cycle.position.file}, byte {cycle.position.offset}: {cycle.reason}")
            at, end = cycle.position.to_fields(), cycle.next.to_fields()
            self._store([self._step(DAMAGED, at=[*at], next=[*end], reason=cycle.reason)])
            self._append(self._assembler.damaged().records)
            self._position = cycle.next
        else:
            if self._cycles.parted is not None:
                self._store([self._step(PARTED, at=list(self._cycles.parted.to_fields()))])
            for batch in self._assembler.process(cycle):
                self._append(batch.records)
            self._last_block = cycle[-1].without_payload()
            self._position = cycle[-1].next
            if self._boot != self._assembler.table.origin.boot:
                self._say_boot()

    def _say_beginning(self, at: Position) -> None:
        """Say where the way begins if not in the journal's first file, or that would be missed.

        A daemon that dies, or finds no room, before it makes its first file leaves the number behind.
        """
        if self._position == Position(0, 0) and at.file > 0:
            self._store([self._step(BEGUN, at=list(at.to_fields()))])

    def _say_boot(self) -> None:
        self._boot = self._assembler.table.origin.boot
        try:
            say_boot(self._configuration.recorder_runtime_dir, self._boot)
        except CapdError as error:
            self._errors.append(str(error))

    def _step(self, name: str, **facts: Value) -> Record:
        """Give the marker of a step that has to be taken again on the way to here."""
        return Record(Kind.MARKER, self._host, time.time_ns(), None, {"name": name, **facts})

    def _append(self, records: list[Record]) -> None:
        """Hand records on: nothing reaches a segment or the index that masking has not passed."""
        seen = self._tripwire.look(records)
        self._store(with_markers(self._witness.watch(self._stage.take(self._witness.observe(records))), seen))

    def _store(self, records: list[Record]) -> None:
        records = self._tripwire.hidden(records)
        self._writer.append(records)
        self.counts["records"] += len(records)
        self.counts["messages"] += [record.kind for record in records].count(Kind.MESSAGE)
        self._index.receive(records, self._writer.sequence)

    def _attend(self, *, idle: bool) -> None:
        """Do what is due besides reading."""
        now = time.monotonic()
        if idle and self._assembler.unsettled:
            self._append(self._assembler.settle().records)
            self._append([self._step(SETTLED)])
        self._store(self._witness.listen(self._position, now))
        waiting = self._writer.raw_bytes - self._flushed_bytes
        if waiting >= FLUSH_BYTES or (waiting and (now - self._flushed_at >= FLUSH_SECONDS or idle or self._index.ahead)):
            self._flush()
        if self._seal_asked or (self._closing and (idle or self._writer.raw_bytes >= CLOSING_BYTES)):
            self._seal_asked = False
            self._writer.ask_seal()
        if self._refused_at is None and self._writer.should_seal(time.time_ns()):
            self._seal()
        elif idle and self._writer.empty and now - self._remembered_at > MEMORY_IDLE_SECONDS:
            self._remember()
            self._freed.give_back(self.counts["records"])
        self._expire(idle=idle)
        if now - self._status_at >= STATUS_SECONDS:
            self._say_head(final=False)
            closing = read_state(self._configuration.storage_file) is State.OUT
            # There is room again: the index, which had none, catches up with what is sealed.
            self._seal_asked = self._seal_asked or (self._index.behind and self._closing and not closing)
            self._closing = closing
            self._change_policy(self._policy.look(now))
            self.write_status("running")

    def _change_policy(self, found: Policy | None) -> None:
        """Have another policy say how much is recorded, or try again to."""
        changed = self._policy.change(self._stage, found, seal=self._seal, remember=lambda: self._remember(anyway=True))
        if changed is not None:
            self._store([self._step(POLICY, version=changed.version, known=changed.known)])

    def _finish(self) -> None:
        if self._cycles.waiting:
            self._take(self._cycles.rest())
        if self._assembler.unsettled:
            self._append(self._assembler.settle().records)
            self._append([self._step(SETTLED)])
        if held := self._stage.cut():
            self._store([*self._witness.watch(held), self._step(LET_GO)])
        self._flush()
        self._seal()
        self._say_head(final=True)
        self.write_status("stopped")
        self._writer.close()
        self._reader.close()
        with suppress(CapdError):  # what it lacks it gets from the segments at the next start
            self._index.close()

    # -- disk ------------------------------------------------------------------------------------------------------------------

    def _flush(self) -> bool:
        """Make what was appended visible. False: the disk has no room; everything is kept and tried again."""
        try:
            self._writer.flush(self._position)
        except StorageFullError as error:
            self._refuse(error)
            return False
        self._refused_at = None
        self._flushed_bytes, self._flushed_at = self._writer.raw_bytes, time.monotonic()
        self._index.write(self._writer.sequence)
        return True

    def _expire(self, *, idle: bool) -> None:
        """Take a little of what expired out of the index, unless that lacks room itself."""
        if self._refused_at is None and self._stopping is None:
            self._index.expire(self._expiry, idle=idle)

    def _seal(self) -> bool:
        if not self._flush():
            return False
        try:
            path = self._writer.seal(self._assembler.losses)
            self._flushed_bytes = 0
            if path is not None:
                self._seals.sealed(self._writer.sequence - 1)
                self.counts["segments"] += 1
                self._index.segment(path)
            self._writer.settle()
        except StorageFullError as error:
            self._refuse(error)
            return False
        now = time.monotonic()
        if self._stopping is not None or now - self._remembered_at >= MEMORY_SHARE * self._remembering_seconds:
            self._remember()
        return True

    def _say_head(self, *, final: bool) -> None:
        """Sign how far the recording has come, if it is time; what the disk does not take is said the next time."""
        try:
            self._writer.settle()
            self._seals.say_head(self._writer.previous, final=final)
        except CapdError as error:
            self._errors.append(str(error))

    def _remember(self, *, anyway: bool = False) -> bool:
        """Take a snapshot, and let the daemon free the journal before it. Everything up to here is sealed. False: it failed."""
        began, done = time.monotonic(), True
        if anyway or self._position != self._remembered_position or self._witness.changed:
            try:
                self._writer.settle()
                remembered = Remembered(
                    snapshot=self._assembler.snapshot(),
                    masking=self._stage.save(),
                    witness=self._witness.save(),
                    position=self._position,
                    sequence=self._writer.sequence,
                    block=self._last_block.sequence if self._last_block and self._last_block.next == self._position else None,
                )
                self._memory.save(remembered)
                self._remembered_position = self._position
                self._witness.remembered()
                if self._seals.encrypted:  # what is sealed from now on has its own keys
                    self._seals.forget(self._index.index.segments_of_open(), self._index.index.last_segment())
            except CapdError as error:
                self._errors.append(str(error))
                done = False
        self._remembered_at = time.monotonic()
        self._remembering_seconds = self._remembered_at - began
        return done

    def _refuse(self, error: CapdError) -> None:
        self._errors += [] if self._refused_at is not None else [str(error)]
        self._refused_at = time.monotonic()

    def _retry(self, now: float) -> bool:
        """Try again to write what the disk did not take. False: not yet."""
        if now - (self._refused_at or now) < RETRY_SECONDS:
            time.sleep(POLL_SECONDS)
            return False
        done = self._flush()
        self.write_status("running" if done else "disk full")
        return done

    # -- status ----------------------------------------------------------------------------------------------------------------

    def write_status(self, state: str) -> None:
        """Say how it stands."""
        self._status_at, lag_bytes = time.monotonic(), self._reader.lag_bytes()
        behind = self._last_block is not None and (lag_bytes or self._cycles.waiting)
        lag_seconds = max(0.0, (time.time_ns() - self._last_block.realtime_ns) / 1e9) if behind and self._last_block else 0.0
        status = {
            "state": state,
            "pid": os.getpid(),
            "version": VERSION,
            "uid": os.geteuid(),
            "user": self._user,
            "time": time.time(),
            "position": self._position.to_fields(),
            "lag_bytes": lag_bytes,
            "lag_seconds": round(lag_seconds, 3),
            "sessions_open": len(self._assembler.table),
            "sessions_total": self._assembler.table.total,
            "sessions_evicted": self._assembler.table.evictions,
            "blocks_malformed": self._assembler.malformed,
            **self.counts,
            "losses": self._assembler.losses,
            "witness": self._witness.status(),
            "secrets": self._tripwire.status(),
            "masking": self._stage.failures.status(),
            "policy": self._policy.status(self._stage),
            "expiry_refused": sorted(self._expiry.refused)[:ERRORS_SHOWN],
            "rss_bytes": rss_bytes(),
            "errors": list(self._errors),
        }
        try:
            content = json.dumps(status, indent=1).encode() + b"\n"
            replace_content(self._configuration.recorder_status_file, content, mode=0o644, sync=False)
        except OSError as error:
            self._errors.append(f"cannot write the status: {error.strerror}")
