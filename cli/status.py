"""`capd status`: how capd is.

What lives here: the screen. What must not: gathering (daemon/status.py) or judging (daemon/health.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final, cast

import click

from capd.cli.line import Line, Span, Style
from capd.cli.screen import reader_may_leave, standard_output
from capd.cli.summary import size, to_json
from capd.cli.table import Column, lay_out
from capd.daemon import configuration, status

EXAMPLES: Final = """\b
Examples:
  capd status
  capd status --json | jq .reasons
"""
STYLES: Final = {"healthy": Style.GOOD, "degraded": Style.DOUBTFUL, "down": Style.BAD}
LABEL_COLUMNS: Final = 12
FAILURES_SHOWN_MAX: Final = 20
RUNS_SHOWN_MAX: Final = 20
"""As many as a person looks at; --json has all."""

Facts = Mapping[str, object]


@click.command(epilog=EXAMPLES)
@click.option("--config", metavar="FILE", help="Configuration (else CAPD_CONFIG, /etc/capd/capd.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; its fields are documented in docs/operations.md.")
def command(config: str | None, as_json: bool) -> int:
    """Say how capd is: healthy, degraded or down, and why.

    Exit status: 0 healthy, 1 degraded, 2 down.
    """
    found, judged = status.gather(configuration.load(config))
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
        if name == "enforcer" and facts["pid"]:
            yield from _webhooks(facts.get("callbacks"))


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
            yield _label("catalogue", "not written: capd's `fleet` extra is not installed")
        case {"error": str(message)}:
            yield _label("catalogue", f"failing: {message}")
        case {"through": int(through), "waiting": int(left)}:
            yield _label("catalogue", f"through segment {through}{f', {left} wait to share a file' if left else ''}")
    match rest.get("last_error"):
        case {"message": str(message)}:
            yield _label("", f"failing: {message}")
    match rest.get("disk"):
        case {"seconds_until_full": int(seconds)}:
            yield _label("", f"the disk will be full in {seconds // 3600} h {seconds % 3600 // 60} min at the present rate")


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
    yield _label("TLS", ", ".join(str(library["path"]) for library in attached) or "no library found on this host yet")
    failures = cast("list[object]", found["attach_failures"])
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
        yield _label("storage", f"{storage['state']}: {storage['described']}{held}")
        for problem in cast("list[object]", storage["problems"]):
            yield _label("", str(problem))


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
