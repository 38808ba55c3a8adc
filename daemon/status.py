"""What `capd status` shows: facts gathered from the daemon, the recorder's file and the disk.

What lives here: gathering, and the shape of the JSON object. What must not: picking what health hangs on (status_facts.py),
judging (health.py), the screen (cli/status.py).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capd.daemon import catalogue_status, control_client, health, locations, lock, processes, status_facts
from capd.daemon.control_client import RefusedError
from capd.daemon.errors import ConfigurationError, DaemonUnreachableError
from capd.daemon.health import Facts, Health
from capd.daemon.instance_paths import InstanceAt, InstancePaths
from capd.recording.durable import open_regular

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

STATUS_BYTES_MAX: Final = 1 << 20
"""Of the recorder's status, which an unprivileged process writes and root may read."""

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What of the configuration a status hangs on.

    Attributes:
        paths: of the instance.
        bucket: whether something is to be shipped.
        enforcing: whether there is to be an enforcer.
        late_seconds: how long something may wait to be shipped.
        listen: where metrics are to be served, or None.
        alerts: whether changes of health are to be told.
    """

    paths: InstancePaths
    bucket: bool
    enforcing: bool
    late_seconds: float
    listen: str | None
    alerts: bool

    @classmethod
    def by(cls, configuration: Configuration) -> Wanted:
        """Read it off a configuration."""
        return cls(
            paths=configuration,
            bucket=configuration.bucket_url is not None,
            enforcing=configuration.enforcement.mode != "off",
            late_seconds=configuration.shipper.late_seconds,
            listen=configuration.metrics.listen,
            alerts=configuration.alerts.enabled,
        )

    @classmethod
    def told(cls, answer: Json, runtime_dir: Path) -> Wanted | None:
        """Read it off a daemon's answer; None: it is of a version that does not say it."""
        match answer.get("settings"):
            case {
                "state_dir": str(state_dir),
                "bucket": bool(bucket),
                "late_seconds": int() | float() as late_seconds,
                "listen": (str() | None) as listen,
                "alerts": {"enabled": bool(alerts)},
            }:
                return cls(
                    paths=InstanceAt(state_dir=Path(state_dir), runtime_dir=runtime_dir),
                    bucket=bucket,
                    enforcing=status_facts.inner(answer, "enforcement").get("mode", "off") != "off",
                    late_seconds=late_seconds,
                    listen=listen,
                    alerts=alerts,
                )
        return None


def gather(configuration: Configuration) -> tuple[Json, Health]:
    """Ask everybody and judge.

    Returns:
        The object that `capd status --json` prints (docs/operations.md), and the judgement in it.
    """
    answer, unreachable = _ask(configuration.control_socket)
    wanted = None if answer is None else Wanted.told(answer, configuration.runtime_dir)
    return _gathered(wanted or Wanted.by(configuration), answer, unreachable)


def gather_at(given: str | None) -> tuple[Json, Health]:
    """Do the same for who has read no configuration: a daemon that answers has, and reading it takes longer than all else here.

    What is on disk is read where that daemon has not judged it, or there is none; of what is wrong there, what is right counts.

    Args:
        given: the file that was named, or None.

    Raises:
        ConfigurationError: the file that was named cannot be read, or nothing in it says whom to ask.
    """
    try:
        runtime_dir = locations.likely_runtime_directory(given)
    except ConfigurationError:
        from capd.daemon import configuration  # noqa: PLC0415 - it is what takes long

        configuration.load(given)  # which says more of what is wrong
        raise
    answer, unreachable = _ask(runtime_dir / locations.CONTROL_SOCKET)
    wanted = None if answer is None else Wanted.told(answer, runtime_dir)
    if wanted is not None and not status_facts.inner(answer or {}, "configuration").get("changed_on_disk"):
        return _gathered(wanted, answer, unreachable)
    from capd.daemon.configuration_salvage import understand  # noqa: PLC0415 - as above

    found = understand(given)
    problem = "" if found.problem is None else str(found.problem)
    judged = problem if found.whole else None
    return _gathered(wanted or Wanted.by(found.settings), answer, unreachable, on_disk=judged)


def completed(answer: Json, runtime_dir: Path) -> Json:
    """Give that object for what a daemon has just answered."""
    wanted = Wanted.told(answer, runtime_dir)
    return answer if wanted is None else _gathered(wanted, answer, "")[0]


def _gathered(wanted: Wanted, answer: Json | None, unreachable: str, *, on_disk: str | None = None) -> tuple[Json, Health]:
    """Give it; `on_disk`: what is wrong with the configuration there, as the caller has judged it; None: it has not."""
    paths = wanted.paths
    recorder, age = _reported(paths.recorder_status_file)
    shipper = _reported(paths.shipper_status_file) if wanted.bucket else None
    metrics = _reported(paths.metrics_status_file)
    enforcer = _reported(paths.enforcer_status_file) if wanted.enforcing else None
    watching = metrics if wanted.listen or wanted.alerts else None
    reports = {"recorder": (recorder, age), "shipper": shipper, "enforcer": enforcer, "metrics": watching}
    running = {name: report[0] for name, report in reports.items() if report is not None and status_facts.is_running(*report)}
    free, total = _disk(paths.state_dir)
    judged = health.judge(
        Facts(
            daemon=None if answer is None else status_facts.daemon_facts(answer),
            unreachable=unreachable,
            recorder_running=status_facts.is_running(recorder, age),
            recorder_seconds=age,
            recorder_state=str(recorder.get("state", "running")),
            state_dir=str(paths.state_dir),
            now_ns=time.time_ns(),
            shipper=status_facts.shipper_facts(wanted.late_seconds, shipper),
            enforcer=None if enforcer is None else status_facts.enforcer_facts(*enforcer),
            witness=status_facts.witness_facts(recorder),
            secrets=status_facts.secret_facts(recorder),
            masking=status_facts.masking_facts(recorder),
            upkeep=status_facts.upkeep_facts(answer or {}, running),
            policy_problem=status_facts.policy_problem(recorder),
            policy_known=status_facts.inner(recorder, "policy").get("known") is not False,
            metrics_running=None if wanted.listen is None else status_facts.is_running(*metrics),
            configuration_on_disk=on_disk,
        )
    )
    roles: dict[str, Json] = {
        "daemon": {"state": "running" if answer else "down", "pid": answer.get("pid") if answer else None},
        "recorder": _role(recorder, age),
        **({} if shipper is None else {"shipper": {**_role(*shipper), "catalogue": _catalogue(paths)}}),
        **({} if enforcer is None else {"enforcer": _role(*enforcer)}),
        **({"metrics": _role(*metrics)} if wanted.listen or wanted.alerts else {}),
    }
    status: Json = {
        "health": judged.verdict.name.lower(),
        "reasons": [
            {"alert": item.alert, "severity": item.severity, "reason": item.reason, "next_step": item.next_step}
            for item in judged.reasons
        ],
        "roles": roles,
        "disk": {"state_dir": str(paths.state_dir), "free_bytes": free, "total_bytes": total},
        **{key: value for key, value in (answer or {}).items() if key not in {"ok", "pid"}},
    }
    if "configuration" in status:
        found = status_facts.inner(status, "configuration")
        status["configuration"] = {
            **found,
            "on_disk": on_disk or None,
            "pending": pending(found.get("pending"), roles, processes.start_ns),
        }
    if answer is None:
        status["last_daemon_pid"] = lock.holder(paths.lock_file)
    return status, judged


def pending(found: object, roles: Mapping[str, Mapping[str, object]], started: Callable[[int], int | None]) -> list[Json]:
    """Give which changed keys wait for which roles to be started anew: those that have not been since.

    Args:
        found: what the daemon says: `key`, `roles`, `since_ns`.
        roles: with the pid of each that runs.
        started: says when a process started, on CLOCK_BOOTTIME; None: it is gone, or not to be seen.
    """
    waiting: list[Json] = []
    for one in found if isinstance(found, list) else []:
        match one:
            case {"key": str(key), "roles": list(named), "since_ns": int(since)}:
                pids = {role: pid for role in named if isinstance(pid := roles.get(str(role), {}).get("pid"), int)}
                old = [role for role, pid in pids.items() if (started(pid) or 0) < since]
                if old:
                    waiting.append({"key": key, "roles": old})
    return waiting


def _catalogue(paths: InstancePaths) -> Json:
    """Give how far the bucket's catalogue goes, as the last errand said."""
    return {"possible": catalogue_status.possible(), **catalogue_status.read_status(paths.catalogue_status_file)}


def _role(status: Json, age: float | None) -> Json:
    running = status_facts.is_running(status, age)
    return {
        **status,
        "state": status.get("state", "running") if running else "down",
        "pid": status.get("pid") if running else None,
        "age_seconds": age,
    }


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


def _disk(directory: Path) -> tuple[int | None, int | None]:
    try:
        found = os.statvfs(directory)
    except OSError:
        return None, None
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
