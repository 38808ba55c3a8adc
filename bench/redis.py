"""What the enforcer costs a client of Redis: redis-benchmark through it and directly, in one run.

What lives here: the server, asking, the figures. What must not: the enforcer's surroundings (middles.py).

Redis runs on loopback and keeps nothing. The enforcer has one process, a policy of ten rules, and its decision log on disk.
Both take turns, round by round; a figure is the median of its rounds.

Run: PYTHONPATH=src:. python -P bench/redis.py [REQUESTS [ROUNDS]]
"""

from __future__ import annotations

import csv
import io
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.databases import enforcer
from bench.middles import DIRECT, ENFORCER, Middle, processor_seconds

from tests.servers.redis import redis_server

ALLOW: Final = (
    "  - {id: redis, match: {protocols: [redis], hosts: [127.0.0.1], effects: [select, update, session]}, then: allow}"
)
REQUESTS: Final = 20_000
ROUNDS: Final = 3
SHAPES: Final = ((1, 1), (16, 1), (64, 1), (1, 16), (16, 16))
"""Clients, and commands of each that are under way at once."""
TESTS: Final = ("SET", "GET")
SECONDS_MAX: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measurement: commands a second, milliseconds, microseconds of the middle's processor a command."""

    per_second: float
    median_ms: float
    p99_ms: float
    cpu_us: float


def measure(middle: Middle, test: str, clients: int, depth: int, requests: int) -> Result:
    """Have redis-benchmark ask so often."""
    words = [
        "-h",
        "127.0.0.1",
        "-p",
        str(middle.port),
        "-t",
        test.lower(),
        "-n",
        str(requests),
        "-c",
        str(clients),
        "-P",
        str(depth),
    ]
    before = processor_seconds(middle.pids)
    done = subprocess.run(
        ["redis-benchmark", *words, "-r", "100000", "--csv"], capture_output=True, text=True, check=True, timeout=SECONDS_MAX
    )
    spent = processor_seconds(middle.pids) - before
    (found,) = [row for row in csv.DictReader(io.StringIO(done.stdout)) if row["test"] == test]
    return Result(
        per_second=float(found["rps"]),
        median_ms=float(found["p50_latency_ms"]),
        p99_ms=float(found["p99_latency_ms"]),
        cpu_us=spent / requests * 1e6,
    )


def run(requests: int, rounds: int, show: Callable[[str], None]) -> dict[str, dict[str, Result]]:
    """Measure everything; give the figures by what was asked, and by what stood in the middle."""
    found: dict[str, dict[str, list[Result]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="capd-bench-")))
        server = stack.enter_context(redis_server())
        middles = {DIRECT: Middle(port=server.port, pids=(os.getpid(),))}
        middles[ENFORCER] = stack.enter_context(enforcer(folder, server.port, ALLOW))
        for _ in range(rounds):
            for test in TESTS:
                for clients, depth in SHAPES:
                    for name, middle in middles.items():
                        one = measure(middle, test, clients, depth, requests)
                        found.setdefault(f"{test}, {clients} clients, {depth} at once", {}).setdefault(name, []).append(one)
    results = {what: {name: median(some) for name, some in by.items()} for what, by in found.items()}
    for line in table(results):
        show(line)
    return results


def median(results: list[Result]) -> Result:
    """Give the median of each figure."""
    return Result(**{one.name: statistics.median(getattr(result, one.name) for result in results) for one in fields(Result)})


def table(results: dict[str, dict[str, Result]]) -> Iterator[str]:
    """Give the figures as lines."""
    heads = f"{'each second':>13} {'of direct':>10} {'median ms':>10} {'p99 ms':>8} {'cpu us':>7}"
    yield f"{'redis-benchmark':30} {'by':10} {heads}"
    for what, by in results.items():
        for name, one in by.items():
            share = one.per_second / by[DIRECT].per_second
            cpu = one.cpu_us if name != DIRECT else 0
            rate = f"{one.per_second:13,.0f} {share:10.2f}"
            yield f"{what:30} {name:10} {rate} {one.median_ms:10.3f} {one.p99_ms:8.3f} {cpu:7.1f}"


def main() -> None:
    """Measure as the command line says."""
    words = sys.argv[1:]
    requests, rounds = (*words, *(str(REQUESTS), str(ROUNDS))[len(words) :])
    run(int(requests), int(rounds), lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
