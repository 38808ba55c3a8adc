"""`make bench`: one run, all figures, as ratios where another machine would have other numbers.

What lives here: the order, the table. What must not: measuring.

Run: make bench [BENCH="--seconds 5 --only sustained"]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import calls, databases, enforcer, evidence, installed, policy, recorder, redis, rows, secrecy, sql, throughput
from bench.instance import built, started

TIERS = ("modern", "classic")
MESSAGE_SIZES = (64, 1024, 16384)
TLS_SIZES = (1024, 16384)
IDLE_SECONDS = 10
UNPACED_SECONDS = 10
"""A sender beyond the budget is watched shortly: it shows what happens there, not what is promised."""

Figures = dict[str, object]


@dataclass(frozen=True, slots=True)
class Setting:
    """What every part needs: the load generator, a folder of its own, how long a flood lasts, which tiers and message sizes."""

    load: str
    folder: Path
    seconds: float
    tiers: tuple[str, ...]
    sizes: tuple[int, ...]


def sustained(setting: Setting) -> Figures:
    """Print what capture sustains."""
    found: Figures = {}
    print(
        f"\nsustained for {setting.seconds:g} s each, journal on disk (target: 300,000 records/s or 1,000 MB/s, nothing lost)"
    )
    for tier in setting.tiers:
        for size in setting.sizes:
            for wanted in (throughput.target(size), 0):
                seconds = setting.seconds if wanted else min(setting.seconds, UNPACED_SECONDS)
                result = throughput.flood(setting.load, size, seconds, wanted, tier=tier)
                found[f"{tier} {size} {wanted or 'unpaced'}"] = asdict(result)
                print(
                    f"  {tier:8} {size:6d} B  {f'{wanted:,}/s wanted' if wanted else 'unpaced':16}"
                    f"  {result.records_per_second:10,.0f} records/s  {result.megabytes_per_second:8,.1f} MB/s"
                    f"  lost {result.lost_bytes:,} B ({result.lost_share:.4%})",
                    flush=True,
                )
    return found


def tls(setting: Setting) -> Figures:
    """Print what a TLS call costs more."""
    found: Figures = {}
    for size in TLS_SIZES:
        times = calls.tls_calls(setting.load, setting.folder, size)
        alone = times["alone"]
        print(f"\none SSL_write of {size} B to a socket: {alone:,.0f} ns alone")
        for name, value in times.items():
            print(f"  {name:20} {value:10,.0f} ns   +{value - alone:8,.0f} ns   {value / alone:6.2f} x")
        copy = times["probe that copies"] - times["empty probe"]
        budget = 1.15 * times["empty probe"] + copy
        print(f"  budget: 1.15 x the empty probe and {copy:,.0f} ns of copy, {budget:,.0f} ns; an agent pays", end=" ")
        print(f"{times['capd, agent'] / budget:.2f} of it")
        found[str(size)] = dict(times)
    return found


def sockets(setting: Setting) -> Figures:
    """Print what a socket call costs more."""
    found: Figures = {}
    for tier in setting.tiers:
        times = calls.socket_calls(setting.load, tier=tier)
        alone = times["alone"]
        print(f"\none send and one receive of 1 KiB, {tier} tier: {alone:,.0f} ns alone")
        for name, value in times.items():
            print(f"  {name:20} {value:10,.0f} ns   +{value - alone:8,.0f} ns   {value / alone:6.2f} x")
        found[tier] = dict(times)
    return found


def memory(_setting: Setting) -> Figures:
    """Print resident memory of each role at rest, and the CPU they use."""
    with started("up") as instance:
        time.sleep(2)
        resident = calls.memory_bytes(instance, "Rss")
        proportional = sum(calls.memory_bytes(instance, "Pss").values())
        ticks = calls.cpu_seconds(instance)
        time.sleep(IDLE_SECONDS)
        share = (calls.cpu_seconds(instance) - ticks) / IDLE_SECONDS
    print("\nat rest (budget: 120 MB together, 1 % of one core)")
    for name, value in resident.items():
        print(f"  {name:20} {value / 1e6:8.1f} MB resident")
    print(f"  {'together':20} {proportional / 1e6:8.1f} MB, shared pages counted once; {share:.2%} of one core")
    return {"resident": dict(resident), "proportional": proportional, "cpu_share": share}


def installed_roles(setting: Setting) -> Figures:
    """Print what the installed service takes, on a machine that boots."""
    asked = f"an agent asks over HTTPS on one connection, answers of {installed.ANSWER_BYTES} B"
    print(f"\nas installed, {setting.seconds:g} s each; under load {asked}")
    found = installed.run(setting.seconds)
    for line in installed.table(found):
        print(f"  {line}", flush=True)
    return {what: asdict(part) for what, part in found.items()}


def recording(_setting: Setting) -> Figures:
    """Print how fast the recorder works off a journal."""
    found: Figures = {}
    print("\nrecorder, per second of one core (budget: 100 MB/s in bulk, 50,000 messages/s of a protocol)")
    for name in recorder.CASES:
        result = recorder.measured(name)
        print(f"  {result.line(name)}", flush=True)
        found[name] = asdict(result)
    return found


def kept(setting: Setting) -> Figures:
    """Print what becomes of a recording: writing, verifying, replaying, searching it, and asking a fleet."""
    print("\nthe recording (budget: first line of a replay of 1 GB 150 ms, a search over 1,000,000 messages 50 ms)")
    return dict(evidence.measured(setting.folder, evidence.Sizes()))


def proof(_setting: Setting) -> Figures:
    """Print what sealing, verifying and encrypting take."""
    print("\nproof and secrecy, per second of CPU")
    return secrecy.measure()


def judged(_setting: Setting) -> Figures:
    """Print what a decision takes."""
    print("\na decision by a policy, CPU time")
    return policy.measure()


def understood(_setting: Setting) -> Figures:
    """Print what understanding a statement takes."""
    return sql.main()


def masked(_setting: Setting) -> Figures:
    """Print what masking rows takes."""
    return rows.main()


def connected(_setting: Setting) -> Figures:
    """Print what the enforcer costs a client of PostgreSQL, beside pgbouncer."""
    print("\nPostgreSQL through the enforcer (budget: 0.25 ms added at the median, half of pgbouncer's statements)")
    found = databases.run(databases.SECONDS, databases.ROUNDS, lambda line: print(f"  {line}", flush=True))
    return {what: {name: asdict(one) for name, one in by.items()} for what, by in found.items()}


def cached(_setting: Setting) -> Figures:
    """Print what the enforcer costs a client of Redis."""
    print("\nRedis through the enforcer (budget: 0.25 ms added at the median)")
    found = redis.run(redis.REQUESTS, redis.ROUNDS, lambda line: print(f"  {line}", flush=True))
    return {what: {name: asdict(one) for name, one in by.items()} for what, by in found.items()}


def enforced(_setting: Setting) -> Figures:
    """Print what the enforcer costs beside a bare relay, and mitmproxy."""
    print("\nenforcer, HTTP/1.1 keep-alive, answers of 1 KiB (budget: 0.3 ms added at the median, 10 x mitmproxy)")
    found = enforcer.compare(enforcer.Plan())
    for line in enforcer.table(found):
        print(line)
    return enforcer.figures(found)


PARTS: dict[str, Callable[[Setting], Figures]] = {
    "sustained": sustained,
    "tls": tls,
    "sockets": sockets,
    "recorder": recording,
    "memory": memory,
    "installed": installed_roles,
    "evidence": kept,
    "secrecy": proof,
    "policy": judged,
    "sql": understood,
    "rows": masked,
    "enforcer": enforced,
    "databases": connected,
    "redis": cached,
}


def main() -> None:
    """Measure the chosen parts."""
    parser = argparse.ArgumentParser(description="measure capd on this machine")
    parser.add_argument("--seconds", type=float, default=60, help="of each flood")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given again")
    parser.add_argument("--tier", choices=TIERS, action="append", help="one tier; may be given again")
    parser.add_argument("--size", type=int, action="append", help="bytes of a flood's messages; may be given again")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: needs root")
    print(f"{platform.release()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="capd-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        setting = Setting(
            built(folder), folder, options.seconds, tuple(options.tier or TIERS), tuple(options.size or MESSAGE_SIZES)
        )
        figures = {part: PARTS[part](setting) for part in options.only or PARTS}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
