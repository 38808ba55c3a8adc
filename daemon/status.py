"""What `capd status` shows: facts gathered from the daemon, the recorder's file and the disk.

What lives here: gathering, and the shape of the JSON object. What must not: judging (health.py), the screen (cli/status.py).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from capd.daemon import catalogue_status, control_client, health, lock
from capd.daemon.control_client import RefusedError
from capd.daemon.enforcer_facts import EnforcerFacts
from capd.daemon.errors import DaemonUnreachableError
from capd.daemon.health import (
    DaemonFacts,
    EnforcementFacts,
    Facts,
    Health,
    ShipperFacts,
    StorageFacts,
)
from capd.daemon.health_witness import WitnessFacts
from capd.recording.durable import open_regular

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

WEBHOOK_SECONDS_MAX: Final = 60.0
"""A webhook that fails for as long has failed several times."""
STATUS_BYTES_MAX: Final = 1 << 20
"""Of the recorder's status, which an unprivileged process writes and root may read."""

Json = dict[str, object]


def gather(configuration: Configuration) -> tuple[Json, Health]:
    """Ask everybody and judge.

    Returns:
        The object that `capd status --json` prints (docs/operations.md), and the judgement in it.
    """
    answer, unreachable = _ask(configuration.control_socket)
    recorder, age = _reported(configuration.recorder_status_file)
    shipper = None if configuration.bucket_url is None else _reported(configuration.shipper_status_file)
    metrics = _reported(configuration.metrics_status_file)
    enforcer = None if configuration.enforcement.mode == "off" else _reported(configuration.enforcer_status_file)
    free, total = _disk(configuration.state_dir)
    judged = health.judge(
        Facts(
            daemon=None if answer is None else daemon_facts(answer),
            unreachable=unreachable,
            recorder_running=_runs(recorder, age),
            recorder_seconds=age,
            recorder_state=str(recorder.get("state", "running")),
            state_dir=str(configuration.state_dir),
            now_ns=time.time_ns(),
            shipper=shipper_facts(configuration, shipper),
            enforcer=None if enforcer is None else enforcer_facts(*enforcer),
            witness=witness_facts(recorder),
            policy_problem=_problem(recorder),
            policy_known=_inner(recorder, "policy").get("known") is not False,
            metrics_running=None if configuration.metrics.listen is None else _runs(*metrics),
        )
    )
    daemon_pid = answer.get("pid") if answer else None
    status: Json = {
        "health": judged.verdict.name.lower(),
        "reasons": [
            {"alert": item.alert, "severity": item.severity, "reason": item.reason, "next_step": item.next_step}
            for item in judged.reasons
        ],
        "roles": {
            "daemon": {"state": "running" if answer else "down", "pid": daemon_pid},
            "recorder": _role(recorder, age),
            **({} if shipper is None else {"shipper": {**_role(*shipper), "catalogue": _catalogue(configuration)}}),
            **({} if enforcer is None else {"enforcer": _role(*enforcer)}),
            **({"metrics": _role(*metrics)} if configuration.metrics.listen or configuration.alerts.enabled else {}),
        },
        "disk": {"state_dir": str(configuration.state_dir), "free_bytes": free, "total_bytes": total},
        **{key: value for key, value in (answer or {}).items() if key not in {"ok", "pid"}},
    }
    if answer is None:
        status["last_daemon_pid"] = lock.holder(configuration.lock_file)
    return status, judged


def _catalogue(configuration: Configuration) -> Json:
    """Give how far the bucket's catalogue goes, as the last errand said."""
    return {"possible": catalogue_status.possible(), **catalogue_status.read_status(configuration.catalogue_status_file)}


def daemon_facts(answer: Mapping[str, object]) -> DaemonFacts:
    """Pick from the daemon's answer what its health hangs on."""
    journal = cast("Mapping[str, object]", answer["journal"])
    losses = cast("Mapping[str, object]", answer["losses"])
    stopped = cast("Mapping[str, str] | None", journal["stopped"])
    withheld = cast("Mapping[str, int]", answer.get("withheld") or {})
    return DaemonFacts(
        stopped=None if stopped is None else f"{stopped['cause']}: {stopped['detail']}",
        lost_bytes=cast("int", losses["bytes"]),
        lost_records=cast("dict[str, int]", losses["counters"]),
        lost_ns=cast("int | None", losses["changed_ns"]),
        attach_failures=len(cast("list[object]", answer["attach_failures"])) + withheld.get("attach_failures", 0),
        unselected=len(cast("list[object]", answer.get("unselected") or [])) + withheld.get("unselected", 0),
        storage=_storage(cast("Mapping[str, object]", answer.get("storage") or {}), withheld.get("problems", 0)),
        enforcement=_enforcement(cast("Mapping[str, object]", answer.get("enforcement") or {}), withheld.get("escaped", 0)),
        backlog_bytes=cast("int", journal["backlog_bytes"]),
        backlog_bytes_max=cast("int", journal["bytes_max"]),
    )


def shipper_facts(configuration: Configuration, found: tuple[Json, float | None] | None) -> ShipperFacts | None:
    """Pick from the shipper's status what health hangs on; what is missing or of another type says nothing."""
    if found is None:
        return None
    status, age = found
    backlog, disk, error = (_inner(status, key) for key in ("backlog", "disk", "last_error"))
    return ShipperFacts(
        running=_runs(status, age),
        seconds=age,
        segments=int(_number(backlog, "segments") or 0),
        bytes=int(_number(backlog, "bytes") or 0),
        oldest_seconds=_number(status, "oldest_unshipped_seconds"),
        late_seconds=configuration.shipper.late_seconds,
        failing_seconds=_number(error, "failing_seconds"),
        error=str(error.get("message", "")),
        hint=str(error.get("hint", "")),
        conflicts=_length(status, "conflicts"),
        unshippable=_length(status, "unshippable"),
        seconds_until_full=_number(disk, "seconds_until_full"),
    )


def enforcer_facts(status: Mapping[str, object], age: float | None) -> EnforcerFacts:
    """Pick from the enforcer's status what health hangs on; what is missing or of another type says nothing."""
    found = status.get("workers")
    workers = [worker for worker in found if isinstance(worker, dict)] if isinstance(found, list) else []
    problems = [problem for worker in workers if isinstance(problem := worker.get("policy_problem"), str)]
    return EnforcerFacts(
        running=_runs(status, age),
        seconds=age,
        unlogged=sum(int(_number(worker, "unlogged") or 0) for worker in workers),
        policy_problem=problems[0] if problems else None,
        approvals_problem=_approvals_problem(status.get("approvals")),
        callbacks_problem=_callbacks_problem(status.get("callbacks")),
    )


def witness_facts(status: Mapping[str, object]) -> WitnessFacts:
    """Pick from the recorder's status what came of comparing probes and enforcer."""
    found = _inner(status, "witness")
    log = _inner(found, "log")

    def whole(facts: Mapping[str, object], key: str) -> int | None:
        number = _number(facts, key)
        return None if number is None else int(number)

    times = (whole(log, "damaged_ns"), whole(log, "missing_ns"), whole(found, "malformed_ns"), whole(found, "missing_ns"))
    return WitnessFacts(
        undecided=whole(found, "undecided") or 0,
        unseen=whole(found, "unseen") or 0,
        differing=whole(found, "differing") or 0,
        requests=whole(found, "requests") or 0,
        unknown=whole(found, "unknown") or 0,
        alarmed_ns=whole(found, "alarmed_ns"),
        damages=(whole(log, "damages") or 0) + (whole(found, "malformed") or 0),
        missing=whole(found, "missing") or 0,
        missing_files=whole(log, "missing_files") or 0,
        damaged_ns=max((at for at in times if at is not None), default=None),
    )


def _problem(recorder: Mapping[str, object]) -> str | None:
    problem = _inner(recorder, "policy").get("problem")
    return problem if isinstance(problem, str) else None


def _approvals_problem(desk: object) -> str | None:
    if not isinstance(desk, dict):
        return None
    age = time.time() - (_number(desk, "time") or 0)
    if age > health.RECORDER_SECONDS_STALE:
        return "the desk of approvals does not report"
    return str(desk["problem"]) if desk.get("problem") else None


def _callbacks_problem(found: object) -> str | None:
    """Say what is wrong with webhooks and links; one that fails for a moment is tried again."""
    if not isinstance(found, dict):
        return None
    if time.time() - (_number(found, "time") or 0) > health.RECORDER_SECONDS_STALE:
        return "the process of webhooks and links does not report"
    if found.get("problem"):
        return str(found["problem"])
    for webhook in found.get("webhooks") or []:
        since = _number(webhook, "failing_since") if isinstance(webhook, dict) else None
        if since is not None and (seconds := time.time() - since) > WEBHOOK_SECONDS_MAX:
            return f"webhook {webhook.get('name')} has failed for {seconds:.0f} s: {webhook.get('last_error')}"
    return None


def _role(status: Json, age: float | None) -> Json:
    running = _runs(status, age)
    return {
        **status,
        "state": status.get("state", "running") if running else "down",
        "pid": status.get("pid") if running else None,
        "age_seconds": age,
    }


def _runs(status: Mapping[str, object], age: float | None) -> bool:
    pid = status.get("pid")
    return isinstance(pid, int) and _lives(pid) and age is not None


def _inner(facts: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = facts.get(key)
    return cast("Mapping[str, object]", found) if isinstance(found, dict) else {}


def _number(facts: Mapping[str, object], key: str) -> float | None:
    found = facts.get(key)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _length(facts: Mapping[str, object], key: str) -> int:
    found = facts.get(key)
    return len(found) if isinstance(found, list) else 0


def _storage(storage: Mapping[str, object], withheld: int) -> StorageFacts:
    """Pick from the daemon's words; a daemon of an earlier version says nothing of it. `withheld`: problems not shown."""
    return StorageFacts(
        state=str(storage.get("state", "ok")),
        described=str(storage.get("described", "")),
        action=str(storage.get("action", "refuse")),
        problems=len(cast("list[object]", storage.get("problems") or [])) + withheld,
    )


def _enforcement(found: Mapping[str, object], escaped_withheld: int) -> EnforcementFacts:
    """Pick from the daemon's words; a daemon of an earlier version says nothing of it."""
    canary, table, repaired = (_inner(found, key) for key in ("canary", "table", "repaired"))
    return EnforcementFacts(
        mode=str(found.get("mode", "off")),
        problem=cast("str | None", found.get("problem")),
        owned=bool(table.get("owned", True)),
        open=tuple(cast("list[str]", canary.get("open", []))),
        closed=tuple(cast("list[str]", canary.get("closed", []))),
        unknown=cast("str | None", canary.get("unknown")),
        canary_ns=cast("int | None", canary.get("time_ns")),
        escaped=len(cast("list[str]", found.get("escaped", []))) + escaped_withheld,
        repaired=cast("str | None", repaired.get("what")),
        repaired_ns=cast("int", repaired.get("time_ns", 0)),
    )


def _ask(path: Path) -> tuple[Json | None, str]:
    try:
        return control_client.ask(path, "status"), ""
    except (DaemonUnreachableError, RefusedError) as error:  # one that cannot say how it is may as well not be there
        return None, str(error)


def _reported(path: Path) -> tuple[Json, float | None]:
    """Read the recorder's status and say how old it is, in seconds; empty and None if there is none."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            age = max(0.0, time.time() - os.fstat(file.fileno()).st_mtime)
            found = json.loads(file.read(STATUS_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return {}, None
    return (_sane(found), age) if isinstance(found, dict) else ({}, None)


def _sane(found: Json) -> Json:
    """Leave out what the screen works with and is of another type than the recorder writes."""
    wanted = {"state": str, "pid": int, "lag_bytes": int}
    return {key: value for key, value in found.items() if key not in wanted or type(value) is wanted[key]}


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _disk(directory: Path) -> tuple[int | None, int | None]:
    try:
        found = os.statvfs(directory)
    except OSError:
        return None, None
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
