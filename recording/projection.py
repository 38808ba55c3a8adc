"""From records to rows: what a stream of records says about runs, sessions, messages and processes.

What lives here: the one place that knows how a row comes about, so that an index that was kept up while recording and one that
was rebuilt from segments are the same. What must not: SQL, files.

Every rule is idempotent: records that are seen twice, as after a crash, leave the same rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import Final
from uuid import UUID

from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.rows import DecisionSummary, Endpoint, MessageRow, ProcessRow, RunRow, SessionProcess, SessionRow

SUMMARY_CHARS_MAX: Final = 16 << 10
"""A summary is never cut in its record; in the index it is: one statement of megabytes must not weigh like a thousand."""
TEXT_CHARS_MAX: Final = 8 << 10
"""What of a message's details is searchable."""
SESSIONS_KEPT_MAX: Final = 20_000
"""Sessions held in memory between records; more are read back from the index when they are heard of again."""
RUN_LOSSES: Final = ("control_events", "streams", "bytes")
RUN_MARKERS: Final = frozenset({"run", "run_end", "run_losses", "exec", "fork", "exit", "io_uring", "coverage_gap"})
"""Markers whose record's session is a run."""
IDENTITY_BYTES: Final = 16
VERDICT_PARTIAL: Final = "partial"
MASKED_SO_FAR: Final = "masked"
LEVELS_WITHHOLDING: Final = frozenset({"metadata", "off"})
STILL_OPEN: Final = "still open"
STARTED_BEFORE: Final = "started before capture"

_ProcessKey = tuple[UUID, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Rows of which more was heard."""

    runs: Sequence[RunRow] = ()
    sessions: Sequence[SessionRow] = ()
    messages: Sequence[MessageRow] = ()
    processes: Sequence[ProcessRow] = ()


def _nothing(_: UUID) -> None:
    return None


@dataclass(slots=True, kw_only=True)
class Projection:
    """Takes records in recorded order and gives the rows that they change.

    Attributes:
        load_session, load_run: give a row from before this projection began; None when there is none.
        metadata_only: leave out what was said: messages keep their place, time and type, and no text.
    """

    load_session: Callable[[UUID], SessionRow | None] = _nothing
    load_run: Callable[[UUID], RunRow | None] = _nothing
    metadata_only: bool = False
    _sessions: OrderedDict[UUID, _Session] = field(default_factory=OrderedDict)
    _runs: dict[UUID, RunRow] = field(default_factory=dict)
    _processes: dict[_ProcessKey, ProcessRow] = field(default_factory=dict)
    _messages: list[MessageRow] = field(default_factory=list)
    _changed_sessions: dict[UUID, _Session] = field(default_factory=dict)
    _changed_runs: set[UUID] = field(default_factory=set)
    _changed_processes: set[_ProcessKey] = field(default_factory=set)

    def receive(self, records: Iterable[Record]) -> None:
        """Take records of any sessions and runs, in their order."""
        # Neighbours are mostly of one session, and looking a UUID up is what would cost most here.
        for identity, together in groupby(records, attrgetter("session")):
            is_run = identity in self._runs
            session = self._sessions.get(identity)
            for record in together:
                if is_run or (record.kind is Kind.MARKER and _text(record.body.get("name")) in RUN_MARKERS):
                    self._receive_run(record)
                    is_run = True
                    continue
                session = session or self._begin(record)
                if session is None:
                    continue
                session.take(record)
                if record.kind is Kind.MESSAGE:
                    self._messages.append(message_row(record, said=not self.metadata_only))
            if session is not None:
                self._changed_sessions[identity] = session

    @property
    def messages_waiting(self) -> int:
        """How many messages there are since the last call of `changes`."""
        return len(self._messages)

    def changes(self) -> Changes:
        """Give the rows that changed since the last call."""
        changes = Changes(
            runs=[self._runs[run] for run in self._changed_runs],
            sessions=[session.row() for session in self._changed_sessions.values()],
            messages=self._messages,
            processes=[self._processes[key] for key in self._changed_processes],
        )
        for identity, session in self._changed_sessions.items():
            if session.ended_ns is not None:
                self._sessions.pop(identity, None)
        for key in self._changed_processes:
            if self._processes[key].ended_ns is not None:
                del self._processes[key]
        while len(self._sessions) > SESSIONS_KEPT_MAX:
            self._sessions.popitem(last=False)
        self._messages = []
        self._changed_sessions = {}
        self._changed_runs = set()
        self._changed_processes = set()
        return changes

    def _begin(self, record: Record) -> _Session | None:
        known = self.load_session(record.session)
        if known is None:
            if record.kind is Kind.MARKER:
                return None  # about the host, or about a session of which nothing else is there
            known = SessionRow(session=record.session, started_ns=record.time_ns)
        session = _Session(known)
        self._sessions[record.session] = session
        return session

    def _receive_run(self, record: Record) -> None:
        body = record.body
        name = body.get("name")
        run = self._runs.get(record.session) or self.load_run(record.session)
        if run is None:
            run = RunRow(run=record.session, started_ns=record.time_ns)
        if name == "run":
            run = _run_row(run, body)
        elif name == "run_end":
            run = replace(run, ended_ns=record.time_ns)
        elif name == "run_losses":
            run = _with_losses(run, body)
        elif name in ("exec", "fork", "exit"):
            self._receive_process(record)
        self._runs[record.session] = run
        self._changed_runs.add(record.session)

    def _receive_process(self, record: Record) -> None:
        body = record.body
        prefix = "child_" if body["name"] == "fork" else ""
        pid, start_ns = body.get(f"{prefix}pid"), body.get(f"{prefix}start_ns")
        if not isinstance(pid, int):
            return
        key = self._process_key(record.session, pid, start_ns if isinstance(start_ns, int) else None)
        row = self._processes.get(key) or ProcessRow(run=key[0], pid=key[1], start_ns=key[2], seen_ns=record.time_ns)
        if body["name"] == "exec":
            row = replace(row, exe=_text(body.get("exe")), argv=_texts(body.get("argv")), uid=_number(body.get("uid")))
        elif body["name"] == "exit":
            row = replace(row, ended_ns=record.time_ns, status=_number(body.get("status")))
        self._processes[key] = row
        self._changed_processes.add(key)

    def _process_key(self, run: UUID, pid: int, start_ns: int | None) -> _ProcessKey:
        """Give the process that a marker means: without a start time the one with this pid that is alive."""
        if start_ns is not None:
            return (run, pid, start_ns)
        return next((key for key in reversed(self._processes) if key[:2] == (run, pid)), (run, pid, 0))


class _Session:
    """A session's row while it grows."""

    __slots__ = ("bytes", "decision", "ended_ns", "last_ns", "messages", "policy", "reasons", "row_before", "verdict")

    def __init__(self, row: SessionRow) -> None:
        self.row_before = row
        self.bytes = list(row.bytes)
        self.messages = row.messages
        self.last_ns = row.last_ns
        self.ended_ns = row.ended_ns
        self.verdict = row.verdict
        self.decision = row.decision
        self.policy = list(row.policy)
        self.reasons: dict[str, None] = dict.fromkeys(reason for reason in row.reasons if reason != STILL_OPEN)

    def take(self, record: Record) -> None:
        """Count one record."""
        body = record.body
        self.last_ns = max(self.last_ns, record.time_ns)
        kind = record.kind
        if kind is Kind.DATA:
            self._data(record.direction, body)
        elif kind is Kind.MESSAGE:
            self._message(body)
        elif kind is Kind.GAP:
            self.reasons[_text(body.get("reason")) or "unknown"] = None
        elif kind is Kind.OPEN:
            self._open(record)
        elif kind is Kind.MARKER:
            self._marker(body)
        elif kind is Kind.CLOSE:
            self._close(record)
        elif kind is Kind.VERDICT:
            self._decided(body)
        elif kind is Kind.MASKED:
            self._withheld(MASKED_SO_FAR)

    def row(self) -> SessionRow:
        """Give the row as it is now."""
        reasons = list(self.reasons)
        if self.ended_ns is None:
            reasons.append(STILL_OPEN)
        return replace(
            self.row_before,
            bytes=(self.bytes[0], self.bytes[1]),
            messages=self.messages,
            last_ns=self.last_ns,
            ended_ns=self.ended_ns,
            verdict=self.verdict,
            reasons=reasons,
            policy=self.policy,
            decision=self.decision,
        )

    def _withheld(self, words: str) -> None:
        """Note that policy keeps something out of the record; the end of the session says how much."""
        if words not in self.policy:
            self.policy.append(words)

    def _data(self, direction: Direction | None, body: Mapping[str, Value]) -> None:
        payload, position = body.get("payload"), body.get("position")
        if direction is None or body.get("layer", "application") != "application":
            return
        if isinstance(payload, bytes | bytearray | memoryview) and isinstance(position, int):
            length = body.get("length")
            size = length if isinstance(length, int) and not payload else len(payload)
            self.bytes[direction] = max(self.bytes[direction], position + size)

    def _message(self, body: Mapping[str, Value]) -> None:
        ordinal = body.get("ordinal")
        if isinstance(ordinal, int):
            self.messages = max(self.messages, ordinal + 1)
        protocol = body.get("protocol")
        if isinstance(protocol, str) and self.row_before.protocol == "unknown":
            self.row_before = replace(self.row_before, protocol=protocol)

    def _marker(self, body: Mapping[str, Value]) -> None:
        name = body.get("name")
        if name == "protocol":
            protocol = body.get("protocol")
            if isinstance(protocol, str):
                self.row_before = replace(self.row_before, protocol=protocol)
        elif name == "tls":
            self.row_before = replace(self.row_before, tie=_text(body.get("tie")))
        elif name == "recording" and body.get("level") in LEVELS_WITHHOLDING:
            self._withheld(f"recording level {body.get('level')}")
        elif name == "witness" and body.get("alarm") is True and (finding := _text(body.get("finding"))):
            self.reasons[finding] = None
            self.verdict = VERDICT_PARTIAL if self.verdict == "complete" else self.verdict

    def _decided(self, body: Mapping[str, Value]) -> None:
        """Take totals that only grow, and the policy that decided last."""
        before = self.decision or DecisionSummary()
        found = DecisionSummary.from_facts(body.get("so_far")) or DecisionSummary()
        self.decision = DecisionSummary(
            allowed=max(before.allowed, found.allowed),
            denied=max(before.denied, found.denied),
            held=max(before.held, found.held),
            policy=_text(body.get("policy")) or before.policy,
        )

    def _open(self, record: Record) -> None:
        body, before = record.body, self.row_before
        if body.get("mid_stream"):
            self.reasons[STARTED_BEFORE] = None
        labels = body.get("labels")
        self.row_before = replace(
            before,
            run=_identity(body.get("run")) or before.run,
            run_name=_text(body.get("run_name")) or before.run_name,
            labels=labels if isinstance(labels, Mapping) else before.labels,
            principal=_mapping(body.get("principal")) or before.principal,
            host=_identity(body.get("host")) or before.host,
            transport=_text(body.get("transport")) or before.transport,
            role=_text(body.get("role")) or before.role,
            target=_endpoint(body.get("target"), before.target),
            local=_endpoint(body.get("local"), before.local),
            process=_process(body.get("process"), before.process),
            started_ns=min(before.started_ns or record.time_ns, record.time_ns),
        )

    def _close(self, record: Record) -> None:
        body = record.body
        self.ended_ns = record.time_ns
        self.row_before = replace(self.row_before, state=_text(body.get("state")) or "closed")
        completeness = body.get("completeness")
        if isinstance(completeness, Mapping):
            self.verdict = _text(completeness.get("verdict")) or VERDICT_PARTIAL
            self.reasons = dict.fromkeys(_texts(completeness.get("reasons")))
            self.policy = _texts(completeness.get("policy"))
        moved = body.get("bytes")
        if isinstance(moved, Mapping):
            for direction in Direction:
                count = moved.get(direction.name.lower())
                if isinstance(count, int):
                    self.bytes[direction] = count
        messages = body.get("messages")
        if isinstance(messages, int):
            self.messages = messages


def _run_row(run: RunRow, body: Mapping[str, Value]) -> RunRow:
    note = body.get("run")
    facts = note if isinstance(note, Mapping) else body
    labels = facts.get("labels")
    return replace(
        run,
        name=_text(facts.get("run_name")) or (_text(facts.get("name")) if facts is not body else None) or run.name,
        labels=labels if isinstance(labels, Mapping) else run.labels,
        principal=_mapping(facts.get("principal")) or run.principal,
        command=_texts(facts.get("command")) or run.command,
        cwd=_text(facts.get("cwd")) or run.cwd,
        cgroup=_text(facts.get("cgroup")) or run.cgroup,
        adopted=bool(facts.get("adopted")) or run.adopted,
        host=_identity(facts.get("host")) or run.host,
    )


def _with_losses(run: RunRow, body: Mapping[str, Value]) -> RunRow:
    """Take totals that only grow, so that a marker which is read twice changes nothing."""
    found = {name: max(_number(body.get(name)) or 0, run.lost.get(name, 0)) for name in RUN_LOSSES}
    return replace(run, lost={name: count for name, count in found.items() if count})


def message_row(record: Record, *, said: bool = True) -> MessageRow:
    """Build the row of a MESSAGE record. What is searchable besides its summary is its text, else the values of its fields.

    Args:
        record: the record.
        said: whether to take what was said; without, summary and text are empty.
    """
    get = record.body.get
    text = get("text") if said else ""
    if not isinstance(text, str):
        text = " ".join(_words(get("fields"), TEXT_CHARS_MAX))
    summary = (_text(get("summary")) or "") if said else ""
    return MessageRow(
        session=record.session,
        ordinal=_number(get("ordinal")) or 0,
        time_ns=record.time_ns,
        direction=record.direction,
        protocol=_text(get("protocol")) or "unknown",
        type=_text(get("type")) or "",
        exchange=_number(get("exchange")),
        summary=summary if len(summary) <= SUMMARY_CHARS_MAX else summary[:SUMMARY_CHARS_MAX],
        text=text if len(text) <= TEXT_CHARS_MAX else text[:TEXT_CHARS_MAX],
    )


def _words(value: Value, room: int) -> list[str]:
    """Give the texts and numbers in a value, up to about so many characters."""
    words: list[str] = []
    waiting = [value]
    while waiting and room > 0:
        item = waiting.pop()
        if isinstance(item, str):  # first what is most common
            word = item
        elif isinstance(item, list):
            if not item or not isinstance(item[0], str) or (joined := _joined(item)) is None:
                waiting += item[::-1]
                continue
            word = joined
        elif isinstance(item, dict):
            waiting += reversed(item.values())
            continue
        elif isinstance(item, tuple):
            waiting += item[::-1]
            continue
        elif item is not None and not isinstance(item, bool) and isinstance(item, int | float):
            word = str(item)
        else:
            continue
        if len(word) > room:
            word = word[:room]
        room -= len(word) + 1
        words.append(word)
    return words


def _joined(items: list[str]) -> str | None:
    """Put texts together; None when some are something else."""
    try:
        return " ".join(items)
    except TypeError:
        return None


def _text(value: Value) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Value) -> int | None:
    return value if isinstance(value, int) else None


def _texts(value: Value) -> list[str]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return []
    return [item if isinstance(item, str) else str(item) for item in value]


def _mapping(value: Value) -> Mapping[str, Value] | None:
    return value if isinstance(value, Mapping) and value else None


def _identity(value: Value) -> UUID | None:
    return UUID(bytes=value) if isinstance(value, bytes) and len(value) == IDENTITY_BYTES else None


def _endpoint(value: Value, before: Endpoint) -> Endpoint:
    if not isinstance(value, Mapping):
        return before
    port = _number(value.get("port"))
    return Endpoint(
        host=_text(value.get("host")) or before.host,
        port=before.port if port is None else port,
        name=_text(value.get("name")) or before.name,
    )


def _process(value: Value, before: SessionProcess) -> SessionProcess:
    if not isinstance(value, Mapping):
        return before
    uid = _number(value.get("uid"))
    return SessionProcess(
        pid=_number(value.get("pid")) or before.pid,
        start_ns=_number(value.get("start_ns")) or before.start_ns,
        exe=_text(value.get("exe")) or before.exe,
        argv=_texts(value.get("argv")) or before.argv,
        user=_text(value.get("user")) or (None if uid is None else str(uid)) or before.user,
    )
