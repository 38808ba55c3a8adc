"""Runs and their processes, told as markers of the run.

What lives here: what the notes and the process events mean for runs and processes. What must not: sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from capd.daemon.assembly.events import ControlEvent
from capd.daemon.assembly.losses import RunLosses
from capd.daemon.assembly.output import Batch
from capd.daemon.assembly.processes import ProcessKey, ProcessTable, Run, RunTable
from capd.probes.layouts import ExecEvent, ExitEvent, ForkEvent
from capd.recording.identity import uuid7_from
from capd.recording.record import Kind, Record, Value

Note = Mapping[str, Value]


class Lineage:
    """The tables of runs and processes, and what is recorded of them."""

    def __init__(self, processes: ProcessTable, runs: RunTable) -> None:
        self.processes = processes
        self.runs = runs

    def run(self, key: int, wall_ns: int, host: UUID, boot: UUID) -> Run:
        """Give the run of a key; one that no note told of gets an id made of host, boot and key until its note comes."""
        run = self.runs.get(key)
        if run is None:
            identity = uuid7_from(max(wall_ns, 0) // 1_000_000, host.bytes + boot.bytes + key.to_bytes(8, "big"))
            run = Run(key=key, id=identity, started_ns=wall_ns, placeholder=True)
            self.runs.put(run)
        return run

    def started(self, note: Note, wall_ns: int, host: UUID, batch: Batch) -> Run:
        """Take the note of a run's start. A run that is told again (the daemon was restarted) goes on."""
        key, identity = note["key"], note["run"]
        assert isinstance(key, int)
        assert isinstance(identity, bytes)
        labels, principal, name = note.get("labels"), note.get("principal"), note.get("name")
        before = self.runs.get(key)
        run = Run(
            key=key,
            id=UUID(bytes=identity),
            name=name if isinstance(name, str) else None,
            labels=dict(labels) if isinstance(labels, Mapping) else {},
            principal=dict(principal) if isinstance(principal, Mapping) else {},
            facts={field: value for field, value in note.items() if field not in ("note", "key", "name")},
            started_ns=before.started_ns if before is not None and before.id.bytes == identity else wall_ns,
        )
        self.runs.put(run)
        self._mark(run, wall_ns, batch, {"name": "run", **run.facts, "run_name": run.name, "host": host.bytes})
        return run

    def ended(self, run: Run, wall_ns: int, batch: Batch) -> None:
        """Note the end of a run."""
        run.ended_ns = wall_ns
        self._mark(run, wall_ns, batch, {"name": "run_end"})

    def lost(self, run: Run, lost: RunLosses, wall_ns: int, batch: Batch) -> None:
        """Record what a run lost so far that is in none of its sessions."""
        self._mark(run, wall_ns, batch, {"name": "run_losses", **lost._asdict()})

    def told(self, note: Note) -> ProcessKey:
        """Take the note of a process that was already running when its run was selected."""
        pid, start_ns, run = note["pid"], note["start_ns"], note["run"]
        assert isinstance(pid, int)
        assert isinstance(start_ns, int)
        assert isinstance(run, int)
        process = self.processes.seen((pid, start_ns), run)
        exe, argv, uid = note.get("exe"), note.get("argv"), note.get("uid")
        process.exe = exe if isinstance(exe, str) else process.exe
        process.argv = [str(part) for part in argv] if isinstance(argv, list | tuple) else process.argv
        process.uid = uid if isinstance(uid, int) else process.uid
        return process.key

    def missed(self, note: Note, run: Run, wall_ns: int, batch: Batch) -> None:
        """Record that a run uses a TLS library that is not watched: what it says through it cannot be read."""
        facts = {field: note.get(field) for field in ("path", "reason", "device", "inode")}
        self._mark(run, wall_ns, batch, {"name": "coverage_gap", **facts})

    def fork(self, event: ControlEvent, body: ForkEvent, run: Run, batch: Batch) -> None:
        """Record that a process made a child."""
        parent = (event.pid, event.process_start_ns)
        self.processes.fork(parent, (body.child_pid, body.child_start_ns), event.run)
        facts: dict[str, Value] = {"name": "fork", "pid": event.pid, "start_ns": event.process_start_ns}
        facts |= {"child_pid": body.child_pid, "child_start_ns": body.child_start_ns}
        self._mark(run, event.wall_ns, batch, facts)

    def exec(self, event: ControlEvent, body: ExecEvent, run: Run, batch: Batch) -> None:
        """Record that a process runs a new program."""
        process = self.processes.exec((event.pid, event.process_start_ns), event.run, body)
        facts: dict[str, Value] = {
            "name": "exec",
            "pid": process.pid,
            "start_ns": process.start_ns,
            "exe": process.exe,
            "argv": process.argv,
            "uid": body.uid,
            "gid": body.gid,
            "comm": process.comm,
            "cgroup": body.cgroup,
        }
        if body.argv_bytes_total > len(body.argv):
            facts["argv_bytes"] = body.argv_bytes_total
        self._mark(run, event.wall_ns, batch, facts)

    def uses_uring(self, event: ControlEvent, run: Run, batch: Batch) -> None:
        """Record that what a process moves may go unseen: on sockets that never show up, this is all that is told."""
        self.processes.seen((event.pid, event.process_start_ns), event.run).uring = True
        self._mark(run, event.wall_ns, batch, {"name": "io_uring", "pid": event.pid, "start_ns": event.process_start_ns})

    def exit(self, event: ControlEvent, body: ExitEvent, run: Run, batch: Batch) -> set[ProcessKey]:
        """Record the end of a process. Gives its living children."""
        key = (event.pid, event.process_start_ns)
        heirs = self.processes.exit(key, event.run, event.time_ns)
        facts: dict[str, Value] = {"name": "exit", "pid": key[0], "start_ns": key[1], "status": body.status}
        self._mark(run, event.wall_ns, batch, facts)
        return heirs

    @staticmethod
    def _mark(run: Run, wall_ns: int, batch: Batch, body: dict[str, Value]) -> None:
        batch.records.append(Record(Kind.MARKER, run.id, wall_ns, None, body))
