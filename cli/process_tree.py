"""The processes of a run as a tree, from its exec, fork and exit markers.

What lives here: records in, lines out. What must not: files.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from capd.cli import facts, moments
from capd.cli.facts import Facts
from capd.cli.line import Line, Span, Style
from capd.cli.record_json import Json
from capd.cli.safe_text import cut, visible
from capd.recording.record import Kind, Record

Key = tuple[int, int]
COMMAND_COLUMNS: Final = 120
# Deeper trees exist only where somebody forks on purpose without end; their lines would all be indentation.
DEPTH_SHOWN_MAX: Final = 40


@dataclass(kw_only=True, slots=True)
class Process:
    """A process of the run.

    Attributes:
        pid: its number.
        seen_ns: wall time of the first that was heard of it.
        programs: the programs it executed, one after the other.
        ended_ns, status: when it ended, and its wait status; None before.
        parent: who forked it, if that was in the run.
        children: whom it forked, in order.
    """

    pid: int
    seen_ns: int
    programs: list[Facts] = field(default_factory=list)
    ended_ns: int | None = None
    status: int | None = None
    parent: Key | None = None
    children: list[Key] = field(default_factory=list)


def gather(records: Iterable[Record]) -> dict[Key, Process]:
    """Give the processes that the markers of a run tell of, in the order in which they were first heard of."""
    processes: dict[Key, Process] = {}
    for record in records:
        name = facts.text(record.body, "name") if record.kind is Kind.MARKER else ""
        if name not in {"exec", "fork", "exit", "process"}:
            continue
        one = _known(processes, record, "pid", "start_ns")
        if name in {"exec", "process"}:
            one.programs.append(record.body)
        elif name == "exit":
            one.ended_ns, one.status = record.time_ns, facts.number(record.body, "status")
        else:
            _forked(processes, record)
    return processes


def lines(processes: dict[Key, Process]) -> Iterator[Line]:
    """Give the tree, every process with its programs and its end."""
    told: set[Key] = set()
    # Depth first without recursion: the depth is an agent's choice.
    waiting = [(key, 0) for key, process in reversed(processes.items()) if process.parent not in processes]
    while waiting:
        key, depth = waiting.pop()
        if key in told:
            continue
        told.add(key)
        process = processes[key]
        yield from _process_lines(process, "  " * min(depth, DEPTH_SHOWN_MAX))
        waiting += [(child, depth + 1) for child in reversed(process.children)]


def as_json(processes: dict[Key, Process]) -> list[Json]:
    """Give the processes as `show --json` lists them."""
    return [
        {
            "pid": process.pid,
            "start_ns": key[1],
            "parent": None if process.parent is None else {"pid": process.parent[0], "start_ns": process.parent[1]},
            "seen": moments.rfc3339(process.seen_ns),
            "ended": None if process.ended_ns is None else moments.rfc3339(process.ended_ns),
            "status": process.status,
            "programs": [{"exe": facts.text(program, "exe"), "argv": _argv(program)} for program in process.programs],
        }
        for key, process in processes.items()
    ]


def ending(process: Process) -> Span:
    """Say how a process ended (wait status, wait(2))."""
    if process.ended_ns is None:
        return Span("running", Style.GOOD)
    if process.status is None:
        return Span("ended", Style.FAINT)
    number = process.status & 0x7F
    if number:
        try:
            word = signal.Signals(number).name
        except ValueError:
            word = f"signal {number}"
        return Span(f"killed by {word}", Style.BAD)
    code = (process.status >> 8) & 0xFF
    return Span(f"exit {code}", Style.BAD if code else Style.FAINT)


def _known(processes: dict[Key, Process], record: Record, pid_key: str, start_key: str) -> Process:
    key = (facts.number(record.body, pid_key) or 0, facts.number(record.body, start_key) or 0)
    return processes.setdefault(key, Process(pid=key[0], seen_ns=record.time_ns))


def _forked(processes: dict[Key, Process], record: Record) -> None:
    parent_key = (facts.number(record.body, "pid") or 0, facts.number(record.body, "start_ns") or 0)
    child_key = (facts.number(record.body, "child_pid") or 0, facts.number(record.body, "child_start_ns") or 0)
    child = _known(processes, record, "child_pid", "child_start_ns")
    if child.parent is None and child_key != parent_key:
        child.parent = parent_key
        processes[parent_key].children.append(child_key)


def _process_lines(process: Process, indent: str) -> Iterator[Line]:
    head = (
        Span(f"{moments.clock(process.seen_ns)} ", Style.FAINT),
        Span(f"{indent}{process.pid} ", Style.STRONG),
    )
    if not process.programs:
        yield (*head, Span("(forked, same program)  ", Style.FAINT), ending(process))
        return
    *earlier, last = process.programs
    if not earlier:
        yield (*head, Span(_command(last) + "  "), ending(process))
        return
    yield (*head, Span(_command(earlier[0])))
    for program in earlier[1:]:
        yield (Span(f"{'':13}{indent}  then "), Span(_command(program)))
    yield (Span(f"{'':13}{indent}  then "), Span(_command(last) + "  "), ending(process))


def _argv(program: Facts) -> list[str]:
    return [facts.text_of(word) for word in facts.sequence(program, "argv")]


def _command(program: Facts) -> str:
    return cut(visible(" ".join(_argv(program)) or facts.text(program, "exe") or "?"), COMMAND_COLUMNS)
