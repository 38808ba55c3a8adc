"""What health hangs on, picked from what roles say of themselves.

What lives here: that; what is missing, or of another type than a role writes, says nothing. What must not: asking the roles
(status.py), judging (health.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Final, cast

from capd.daemon.enforcer_facts import EnforcerFacts
from capd.daemon.enforcer_failure import FAILED
from capd.daemon.health import DaemonFacts, ShipperFacts, StorageFacts
from capd.daemon.health_enforcement import EnforcementFacts
from capd.daemon.health_masking import MaskingFacts
from capd.daemon.health_secrets import SecretFacts
from capd.daemon.health_upkeep import Certificate, UpkeepFacts
from capd.daemon.health_witness import WitnessFacts
from capd.daemon.reason import REPORT_SECONDS_STALE
from capd.daemon.version import VERSION

WEBHOOK_SECONDS_MAX: Final = 60.0
"""A webhook that fails for as long has failed several times."""

Json = dict[str, object]


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
        configuration_problem=_text(inner(answer, "configuration"), "problem"),
    )


def shipper_facts(late_seconds: float, found: tuple[Json, float | None] | None) -> ShipperFacts | None:
    """Pick from the shipper's status what health hangs on; what is missing or of another type says nothing."""
    if found is None:
        return None
    status, age = found
    backlog, error = (inner(status, key) for key in ("backlog", "last_error"))
    return ShipperFacts(
        running=is_running(status, age),
        seconds=age,
        segments=int(_number(backlog, "segments") or 0),
        bytes=int(_number(backlog, "bytes") or 0),
        oldest_seconds=_number(status, "oldest_unshipped_seconds"),
        late_seconds=late_seconds,
        failing_seconds=_number(error, "failing_seconds"),
        error=str(error.get("message", "")),
        hint=str(error.get("hint", "")),
        conflicts=_length(status, "conflicts"),
        unshippable=_length(status, "unshippable"),
    )


def enforcer_facts(status: Mapping[str, object], age: float | None) -> EnforcerFacts:
    """Pick from the enforcer's status what health hangs on; what is missing or of another type says nothing."""
    found = status.get("workers")
    workers = [worker for worker in found if isinstance(worker, dict)] if isinstance(found, list) else []
    problems = [problem for worker in workers if isinstance(problem := worker.get("policy_problem"), str)]
    exported = [seconds for worker in workers if (seconds := _number(worker, "exported_seconds")) is not None]
    return EnforcerFacts(
        running=is_running(status, age),
        seconds=age,
        unlogged=sum(int(_number(worker, "unlogged") or 0) for worker in workers),
        policy_problem=problems[0] if problems else None,
        exported_seconds=min(exported, default=None),
        approvals_problem=_approvals_problem(status.get("approvals")),
        callbacks_problem=_callbacks_problem(status.get("callbacks")),
        failure=_failure(status),
    )


def witness_facts(status: Mapping[str, object]) -> WitnessFacts:
    """Pick from the recorder's status what came of comparing probes and enforcer."""
    found = inner(status, "witness")
    log = inner(found, "log")

    def whole(facts: Mapping[str, object], key: str) -> int | None:
        number = _number(facts, key)
        return None if number is None else int(number)

    enforced = found.get("enforced")
    times = (whole(log, "damaged_ns"), whole(log, "missing_ns"), whole(found, "malformed_ns"), whole(found, "missing_ns"))
    return WitnessFacts(
        undecided=whole(found, "undecided") or 0,
        unseen=whole(found, "unseen") or 0,
        differing=whole(found, "differing") or 0,
        requests=whole(found, "requests") or 0,
        unknown=whole(found, "unknown") or 0,
        helpers=whole(found, "helpers") or 0,
        alarmed_ns=whole(found, "alarmed_ns"),
        damages=(whole(log, "damages") or 0) + (whole(found, "malformed") or 0),
        missing=whole(found, "missing") or 0,
        missing_files=whole(log, "missing_files") or 0,
        damaged_ns=max((at for at in times if at is not None), default=None),
        enforced=enforced if isinstance(enforced, bool) else None,
    )


def upkeep_facts(answer: Mapping[str, object], reports: Mapping[str, Mapping[str, object]]) -> UpkeepFacts:
    """Pick what needs somebody's hand some day; what is missing or of another type says nothing.

    Args:
        answer: the daemon's.
        reports: of the other roles that run, by name.
    """
    listed = reports.get("enforcer", {}).get("certificates")
    certificates = []
    for one in listed if isinstance(listed, list) else []:
        match one:
            case {"kind": str(kind), "name": str(name), "until": int() | float() as until}:
                certificates.append(Certificate(kind=kind, name=name, until=until))
    versions = {name: found for name, report in {"daemon": answer, **reports}.items() if (found := _text(report, "version"))}
    storage = inner(answer, "storage")
    told = storage if "seconds_until_full" in storage else inner(reports.get("shipper", {}), "disk")
    return UpkeepFacts(
        certificates=tuple(certificates),
        version=VERSION,
        versions=versions,
        seconds_until_full=_number(told, "seconds_until_full"),
    )


def secret_facts(status: Mapping[str, object]) -> SecretFacts:
    """Pick from the recorder's status what came of looking for credentials in what agents say."""
    found = inner(status, "secrets")
    seen_ns, unsearched_ns = _number(found, "seen_ns"), _number(found, "unsearched_ns")
    listed = found.get("latest")
    latest = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    told = [f"{one.get('credential')} in session {one.get('session')} of run {one.get('run')}" for one in latest]
    problem = found.get("problem")
    return SecretFacts(
        seen={name: int(count) for name, count in inner(found, "seen").items() if isinstance(count, int)},
        seen_ns=None if seen_ns is None else int(seen_ns),
        latest="; ".join(dict.fromkeys(reversed(told))),
        unsearched_bytes=int(_number(found, "unsearched_bytes") or 0),
        unsearched_ns=None if unsearched_ns is None else int(unsearched_ns),
        problem=problem if isinstance(problem, str) else None,
    )


def masking_facts(status: Mapping[str, object]) -> MaskingFacts:
    """Pick from the recorder's status what masking failed at."""
    found = inner(status, "masking")
    latest_ns = _number(found, "latest_ns")
    return MaskingFacts(
        failed=int(_number(found, "failed") or 0),
        latest=_text(found, "latest") or "",
        latest_ns=None if latest_ns is None else int(latest_ns),
    )


def policy_problem(recorder: Mapping[str, object]) -> str | None:
    """Say why the recorder does not go by the policy on disk, or None."""
    problem = inner(recorder, "policy").get("problem")
    return problem if isinstance(problem, str) else None


def _approvals_problem(desk: object) -> str | None:
    if not isinstance(desk, dict):
        return None
    age = time.time() - (_number(desk, "time") or 0)
    if age > REPORT_SECONDS_STALE:
        return "the desk of approvals does not report"
    return str(desk["problem"]) if desk.get("problem") else None


def _callbacks_problem(found: object) -> str | None:
    """Say what is wrong with webhooks and links; one that fails for a moment is tried again."""
    if not isinstance(found, dict):
        return None
    if time.time() - (_number(found, "time") or 0) > REPORT_SECONDS_STALE:
        return "the process of webhooks and links does not report"
    if found.get("problem"):
        return str(found["problem"])
    for webhook in found.get("webhooks") or []:
        since = _number(webhook, "failing_since") if isinstance(webhook, dict) else None
        if since is not None and (seconds := time.time() - since) > WEBHOOK_SECONDS_MAX:
            return f"webhook {webhook.get('name')} has failed for {seconds:.0f} s: {webhook.get('last_error')}"
    return None


def _failure(status: Mapping[str, object]) -> tuple[str, str] | None:
    error = inner(status, "error")
    message, hint = _text(error, "message"), _text(error, "hint")
    return None if status.get("state") != FAILED or message is None else (message, hint or "")


def is_running(status: Mapping[str, object], age: float | None) -> bool:
    """Say whether the role lives that wrote a status; `age`: of that, None where there is none."""
    pid = status.get("pid")
    return status.get("state") != FAILED and isinstance(pid, int) and pid > 0 and _lives(pid) and age is not None


def inner(facts: Mapping[str, object], key: str) -> Mapping[str, object]:
    """Give what is inside of something, empty where it is nothing of the kind."""
    found = facts.get(key)
    return cast("Mapping[str, object]", found) if isinstance(found, dict) else {}


def _number(facts: Mapping[str, object], key: str) -> float | None:
    found = facts.get(key)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _text(facts: Mapping[str, object], key: str) -> str | None:
    found = facts.get(key)
    return found if isinstance(found, str) else None


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
    canary, table, repaired = (inner(found, key) for key in ("canary", "table", "repaired"))
    return EnforcementFacts(
        mode=str(found.get("mode", "off")),
        problem=cast("str | None", found.get("problem")),
        owned=bool(table.get("owned", True)),
        open=tuple(cast("list[str]", canary.get("open", []))),
        closed=tuple(cast("list[str]", canary.get("closed", []))),
        unknown=cast("str | None", canary.get("unknown")),
        canary_ns=cast("int | None", canary.get("time_ns")),
        escaped=len(cast("list[str]", found.get("escaped", []))) + escaped_withheld,
        untrusted=_untrusted(found.get("untrusted")),
        repaired=cast("str | None", repaired.get("what")),
        repaired_ns=cast("int", repaired.get("time_ns", 0)),
        namespaces=_text(found, "namespaces_problem"),
    )


def _untrusted(found: object) -> tuple[str, str] | None:
    match found:
        case {"problem": str(problem), "next_step": str(step)}:
            return problem, step
    return None


def _lives(pid: int) -> bool:
    """Ask the kernel: /proc may hide the processes of other users, as it does from units with ProtectProc=invisible."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
