"""`capd status`: how capd is.

What lives here: the screen. What must not: gathering (daemon/status.py) or judging (daemon/health.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final, cast

import click

from capd.cli.line import Line, Span, Style
from capd.cli.options import config_option
from capd.cli.screen import reader_may_leave, standard_output
from capd.cli.summary import size, to_json
from capd.cli.table import Column, lay_out
from capd.daemon import status
from capd.daemon.configuration_effect import UNITS
from capd.daemon.errors import FleetExtraMissingError

EXAMPLES: Final = """\b
Examples:
  capd status
  capd status --json | jq .reasons
"""
STYLES: Final = {"healthy": Style.GOOD, "degraded": Style.DOUBTFUL, "down": Style.BAD}
LABEL_COLUMNS: Final = 12
FAILURES_SHOWN_MAX: Final = 4
LIBRARIES_SHOWN_MAX: Final = 4
RUNS_SHOWN_MAX: Final = 8
"""So that all of it is one screen; --json has the rest."""
SECONDS_AN_HOUR: Final = 3600

Facts = Mapping[str, object]


@click.command(epilog=EXAMPLES)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON; its fields are documented in docs/operations.md.")
def command(config: str | None, as_json: bool) -> int:
    """Say how capd is: healthy, degraded or down, and why.

    Exit status: 0 healthy, 1 degraded, 2 down.
    """
    found, judged = status.gather_at(config)
    with reader_may_leave():
        if as_json:
            standard_output().write_json(to_json(found, indent=2))
        else:
            screen = standard_output()
            screen.write(lines(found, screen.columns))
    return judged.verdict.value


def lines(found: Facts, columns: int | None) -> Iterator[Line]:
    """Give the whole screen."""
    health = str(found["health"])
    yield (Span("capd is "), Span(health, STYLES[health]))
    for reason in _list(found, "reasons"):
        yield (Span("  ! ", STYLES[health]), Span(str(reason["reason"])))
        yield (Span(f"    {reason['next_step']}", Style.FAINT),)
    yield from _roles(found)
    if "tier" in found:
        yield from _capture(found)
    yield from _disk(found)
    if "configuration" in found:
        yield from _configuration(_map(found, "configuration"))
    if "clock" in found:
        yield from _clock(_map(found, "clock"))
    if "canary" in cast("Facts", found.get("enforcement", {})):
        yield from _enforcement(_map(found, "enforcement"))
    if "runs" in found:
        yield from _runs(_list(found, "runs"), columns)
        others = cast("int", _map(found, "withheld").get("runs", 0)) if "withheld" in found else 0
        if others:
            yield _label("", f"and {others} of other users, which root may see")


def _roles(found: Facts) -> Iterator[Line]:
    for name, role in _map(found, "roles").items():
        facts = cast("Facts", role)
        pid = f" (pid {facts['pid']})" if facts["pid"] else ""
        backlog = f", {size(cast('int', facts['lag_bytes']))} behind" if facts.get("lag_bytes") else ""
        yield _label(name, f"{facts['state']}{pid}{backlog}")
        if name == "shipper" and facts["pid"]:
            yield from _shipper(facts)
        if name == "recorder":
            yield from _sessions(facts)
        if name == "enforcer" and facts["pid"]:
            yield from _approvals(facts.get("approvals"))
            yield from _webhooks(facts.get("callbacks"))


def _sessions(facts: Facts) -> Iterator[Line]:
    """Show what the recorder says. An unprivileged process wrote it: what is of another shape is passed over."""
    match facts:
        case {"sessions_open": int(opened), "sessions_total": int(total)}:
            yield _label("sessions", f"{opened} open, {total} since the recorder started")


def _approvals(desk: object) -> Iterator[Line]:
    match desk:
        case {"pending": int(pending)}:
            yield _label("approvals", f"{pending} wait for a person: capd approvals" if pending else "nothing waits")


def _webhooks(callbacks: object) -> Iterator[Line]:
    """Show what became of messages to webhooks, as an unprivileged process wrote it."""
    match callbacks:
        case {"webhooks": list(webhooks)}:
            pass
        case _:
            return
    for webhook in webhooks:
        match webhook:
            case {
                "name": str(name),
                "delivered": int(delivered),
                "waiting": int(waiting),
                "failed": int(failed),
                "dropped": int(dropped),
                "last_error": str(error),
            }:
                gone = f", {failed + dropped} given up" if failed + dropped else ""
                failing = f"; failing: {error}" if error else ""
                yield _label("webhook", f"{name}: {delivered} delivered, {waiting} waiting{gone}{failing}")


def _shipper(facts: Facts) -> Iterator[Line]:
    """Show what the shipper says. An unprivileged process wrote it: what is of another shape is passed over."""
    match facts:
        case {"bucket": str(bucket), "backlog": {"segments": int(segments), "bytes": int(waiting)}, **rest}:
            pass
        case _:
            return
    lock = rest.get("object_lock")
    yield _label("bucket", f"{bucket}{_lock(lock) if isinstance(lock, dict) else ''}")
    match rest.get("oldest_unshipped_seconds"):
        case int() | float() as age if segments:
            yield _label("to ship", f"{segments} segments, {size(waiting)}, the oldest for {age:.0f} s")
        case _:
            yield _label("to ship", "nothing")
    match rest.get("last_success"):
        case int() | float() as moment:
            yield _label("shipped", f"the last one {max(0.0, time.time() - moment):.0f} s ago")
    match rest.get("catalogue"):
        case {"possible": False}:
            yield _label("catalogue", f"not written: {FleetExtraMissingError.hint}")
        case {"error": str(message)}:
            yield _label("catalogue", f"failing: {message}")
        case {"through": int(through), "waiting": int(left)}:
            yield _label("catalogue", f"through segment {through}{f', {left} wait to share a file' if left else ''}")
    match rest.get("last_error"):
        case {"message": str(message)}:
            yield _label("", f"failing: {message}")


def _lock(lock: Facts) -> str:
    match lock:
        case {"enabled": True, "mode": str(mode), "days": int(days)}:
            return f", object lock {mode} for {days} days"
        case {"enabled": True}:
            return ", object lock without default retention"
        case {"unknown": str(reason)}:
            return f", object lock not known: {reason}"
    return ", no object lock"


def _capture(found: Facts) -> Iterator[Line]:
    drained, journal = _map(found, "drained"), _map(found, "journal")
    yield _label("tier", f"{found['tier']}, capd {found['version']}")
    rings = ", ".join(f"{name} {_ring(cast('Facts', ring))}" for name, ring in _map(found, "rings").items())
    yield _label("rings", rings)
    yield _label("captured", f"{drained['records']} records, {size(cast('int', drained['bytes']))}")
    losses = _map(found, "losses")
    causes = ", ".join(f"{name} {count}" for name, count in _map(losses, "counters").items())
    lost = f"{size(cast('int', losses['bytes']))} of {losses['streams']} streams{f' ({causes})' if causes else ''}"
    yield _label("lost", lost if losses["bytes"] or causes else "nothing")
    backlog, most = cast("int", journal["backlog_bytes"]), cast("int", journal["bytes_max"])
    yield _label("journal", f"{size(backlog)} wait for the recorder, of at most {size(most)}")
    attached = _list(found, "attachments")
    failures = cast("list[object]", found["attach_failures"])
    unseen = len(failures) + cast("int", _map(found, "withheld").get("attach_failures", 0) if "withheld" in found else 0)
    gaps = f"{unseen} cannot be watched: their sessions are opaque" if unseen else "none that cannot be"
    yield _label("coverage", f"{len(attached)} TLS libraries watched, {gaps}")
    for library in attached[:LIBRARIES_SHOWN_MAX]:
        yield _label("", str(library["path"]))
    if len(attached) > LIBRARIES_SHOWN_MAX:
        yield _label("", f"and {len(attached) - LIBRARIES_SHOWN_MAX} more: capd status --json")
    for failure in failures[:FAILURES_SHOWN_MAX]:
        yield _label("", f"not watched: {failure}")
    if len(failures) > FAILURES_SHOWN_MAX:
        yield _label("", f"and {len(failures) - FAILURES_SHOWN_MAX} more that are not watched: capd status --json")
    for warning in cast("list[object]", found["warnings"]):
        yield _label("note", str(warning))


def _disk(found: Facts) -> Iterator[Line]:
    disk = _map(found, "disk")
    free, total = cast("int | None", disk["free_bytes"]), cast("int | None", disk["total_bytes"])
    room = "not there yet" if free is None else f"{size(free)} free of {size(total)}"
    yield _label("disk", f"{disk['state_dir']}: {room}")
    if "storage" in found:
        storage = _map(found, "storage")
        held = f", {storage['held']} runs held back" if storage["held"] else ""
        full = storage.get("seconds_until_full")
        forecast = f", full in {_duration(full)} at the present rate" if isinstance(full, int | float) else ""
        yield _label("storage", f"{storage['state']}: {storage['described']}{held}{forecast}")
        for problem in cast("list[object]", storage["problems"]):
            yield _label("", str(problem))


def _duration(seconds: float) -> str:
    hours = int(seconds) // SECONDS_AN_HOUR
    return f"{hours // 24} days" if hours >= 48 else f"{hours} h {int(seconds) % SECONDS_AN_HOUR // 60} min"  # noqa: PLR2004 - two days


def _clock(facts: Facts) -> Iterator[Line]:
    match facts:
        case {"synchronised": True, "error_seconds": int() | float() as error}:
            yield _label("clock", f"kept right, to {error:.3f} s")
        case {"synchronised": False}:
            yield _label("clock", "not kept right: times in the record may be off; `timedatectl set-ntp true`, or chrony")
        case _:
            yield _label("clock", "the kernel does not say whether it is kept right")


def _configuration(facts: Facts) -> Iterator[Line]:
    files = [str(path) for path in cast("list[object]", facts["files"])]
    step = "is wrong, see above" if facts.get("on_disk") else "`systemctl reload capd`"
    changed = f"; changed on disk since: {step}" if facts["changed_on_disk"] else ""
    named = files[0] if len(files) == 1 else f"{len(files)} files: capd config show" if files else "no file, defaults"
    yield _label("config", f"{named}{changed}")
    for one in _list(facts, "pending"):
        units = " ".join(UNITS[str(role)] for role in cast("list[object]", one["roles"]) if str(role) in UNITS)
        yield _label("", f"{one['key']} waits for `systemctl restart {units}`")


def _enforcement(facts: Facts) -> Iterator[Line]:
    canary, refused = _map(facts, "canary"), _map(facts, "refused")
    moment, result = cast("int | None", canary["time_ns"]), canary["result"]
    tried = "not tried yet" if moment is None else f"{result}, tried {max(0.0, time.time() - moment / 1e9):.0f} s ago"
    yield _label("enforcement", f"{facts['mode']}: {facts['problem'] or tried}")
    known = cast("list[Facts]", cast("Facts", facts.get("namespaces") or {}).get("known") or [])
    if known:
        opened = sum(one["problem"] is None for one in known)
        yield _label("namespaces", f"{opened} open" + (f", {len(known) - opened} reach nothing" if opened < len(known) else ""))
    counts = [f"{kind} {count}" for layer in refused.values() for kind, count in cast("Facts", layer).items() if count]
    yield _label("refused", ", ".join(counts) or "nothing")


def _runs(runs: list[Facts], columns: int | None) -> Iterator[Line]:
    yield _label("runs", f"{len(runs)} live" if runs else "none live; start one: capd run -- COMMAND")
    if not runs:
        return
    headings = [
        Column(name="run", rigid=True),
        Column(name="name"),
        Column(name="for"),
        Column(name="processes", right=True),
        Column(name="cgroup"),
    ]
    rows = [
        [
            str(run["run"]),
            str(run["name"] or "-"),
            str(_map(run, "principal")["name"]),
            str(run["processes"]),
            str(run["cgroup"]),
        ]
        for run in runs[:RUNS_SHOWN_MAX]
    ]
    yield from lay_out(headings, rows, fit=columns)
    if len(runs) > RUNS_SHOWN_MAX:
        yield (Span(f"and {len(runs) - RUNS_SHOWN_MAX} more: capd status --json", Style.FAINT),)


def _ring(ring: Facts) -> str:
    return f"{size(cast('int', ring['used']))} of {size(cast('int', ring['bytes']))}"


def _label(name: str, text: str) -> Line:
    return (Span(f"  {name:<{LABEL_COLUMNS}}", Style.FAINT), Span(text))


def _map(facts: Facts, key: str) -> Facts:
    return cast("Facts", facts[key])


def _list(facts: Facts, key: str) -> list[Facts]:
    return cast("list[Facts]", facts[key])
