"""What the enforcer costs: HTTP/1.1 through it, through a bare relay, and through mitmproxy, in clear and in TLS, in one run.

What lives here: asking, and the figures. What must not: what is asked (middles.py), the kernel's part: what nftables adds is a
fraction of a packet's way.

wrk asks: a program in C that takes a tenth of what any of these takes, as the rows of the target alone show. A connection waits
for its answer before it asks again, so on one connection the median is what an agent feels. All take turns, round by round, so
that what else happens on the machine happens to all of them; a figure is the median of its rounds.

Run: PYTHONPATH=src:. python -P bench/enforcer.py [SECONDS [ROUNDS]]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.middles import (
    DIRECT,
    MITMDUMP,
    MITMPROXY,
    NAME,
    RELAY,
    Middle,
    middles,
    processor_seconds,
)

CONNECTIONS: Final = (1, 16, 256)
SECONDS: Final = 3.0
ROUNDS: Final = 3
LARGE_BYTES: Final = 256 << 20
MANY: Final = 100
"""Connections, of which it takes a second or more to make them in TLS: those rounds are three times as long."""
NEW: Final = 16
"""Connections that are made anew for each request, at once."""
FIELDS: Final = ("User-Agent: bench/1", "Accept: */*", "Authorization: Bearer 0123456789abcdef")
REPORT: Final = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("FOUND %d %d %f %f %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measurement.

    Attributes:
        requests: per second, of all connections together.
        median_ms, p99_ms: of one request.
        cpu_us: processor time of who is in the middle, for one request; what a busy machine changes least.
        errors: requests that failed.
    """

    requests: float
    median_ms: float
    p99_ms: float
    cpu_us: float
    errors: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All figures of a run.

    Attributes:
        results: by kind, connections and who; connections 0: a new one for each request.
        bulk: MB/s of one large download, by kind and who.
        load: average of the machine, before and after.
    """

    results: dict[tuple[str, int, str], Result]
    bulk: dict[tuple[str, str], float]
    load: tuple[float, float]


def ask(middle: Middle, named: int, connections: int, *, tls: bool, seconds: float, script: Path) -> Result:
    """Ask on so many connections; 0: on new ones.

    Args:
        middle: who is asked.
        named: the target's port, which the Host field names.
        connections: at once.
        tls: whether in TLS.
        seconds: how long; whole ones.
        script: that has wrk tell its figures.
    """
    said = [f"Host: {NAME}:{named}", *FIELDS, *([] if connections else ["Connection: close"])]
    url = f"{'https' if tls else 'http'}://{NAME}:{middle.port}/v1/things/17?page=3"
    long = seconds * 3 if tls and connections > MANY else seconds
    words = ["wrk", "-t1", f"-c{connections or NEW}", f"-d{long:.0f}s", "--timeout", "10s", "-s", str(script)]
    before = processor_seconds(middle.pids)
    command = [*words, *(word for line in said for word in ("-H", line)), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    requests, micros, median, high, errors = map(float, line.split()[1:])
    if not requests:
        raise SystemExit(f"nothing was answered: {done.stdout}{done.stderr}")
    return Result(
        requests=requests / micros * 1e6,
        median_ms=median / 1e3,
        p99_ms=high / 1e3,
        cpu_us=(processor_seconds(middle.pids) - before) / requests * 1e6,
        errors=errors,
    )


def download(middle: Middle, named: int, size: int, *, tls: bool) -> float:
    """Fetch a large answer; gives MB/s."""
    url = f"{'https' if tls else 'http'}://{NAME}:{middle.port}/large/{size}"
    words = ["curl", "-sk", "-o", os.devnull, "-H", f"Host: {NAME}:{named}", "-w", "%{size_download} %{speed_download}", url]
    came, speed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    if int(came) != size:
        raise SystemExit(f"{came} bytes came of {size}")
    return float(speed) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
        seconds: of each round; whole ones.
        rounds: how many.
        connections: numbers of them.
        kinds: in clear, or in TLS.
        large_bytes: of a download.
        beside: whether mitmproxy is measured too.
    """

    seconds: float = SECONDS
    rounds: int = ROUNDS
    connections: tuple[int, ...] = CONNECTIONS
    kinds: tuple[str, ...] = ("clear", "TLS")
    large_bytes: int = LARGE_BYTES
    beside: bool = field(default_factory=MITMDUMP.exists)


def compare(plan: Plan) -> Found:
    """Measure everything."""
    load = os.getloadavg()[0]
    results: dict[tuple[str, int, str], list[Result]] = {}
    bulk: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = folder / "report.lua"
        script.write_text(REPORT, encoding="ascii")
        for kind in plan.kinds:
            tls = kind == "TLS"
            with middles(folder, tls=tls, beside=plan.beside) as there:
                port = there[DIRECT].port
                counts = (*plan.connections, *([0] if tls else []))
                for count, _, (who, middle) in product(counts, range(plan.rounds), there.items()):
                    one = ask(middle, port, count, tls=tls, seconds=plan.seconds, script=script)
                    results.setdefault((kind, count, who), []).append(one)
                for _, (who, middle) in product(range(plan.rounds), there.items()):
                    bulk.setdefault((kind, who), []).append(download(middle, port, plan.large_bytes, tls=tls))
    return Found(
        results={key: _middle(found) for key, found in results.items()},
        bulk={key: statistics.median(found) for key, found in bulk.items()},
        load=(load, os.getloadavg()[0]),
    )


def _middle(found: Sequence[Result]) -> Result:
    return Result(**{one.name: statistics.median(getattr(result, one.name) for result in found) for one in fields(Result)})


def table(found: Found) -> Iterator[str]:
    """Give the lines for a person."""
    yield f"  load {found.load[0]:.1f} before, {found.load[1]:.1f} after"
    yield "  kind  connections  middle      requests/s  median ms   p99 ms  CPU us  added: median ms  p99 ms  x of the relay"
    for (kind, count, who), one in found.results.items():
        bare = found.results[kind, count, RELAY]
        added = f"{one.median_ms - bare.median_ms:16.3f} {one.p99_ms - bare.p99_ms:8.2f} {one.requests / bare.requests:9.3f}"
        line = f"{who:9} {one.requests:12,.0f} {one.median_ms:10.3f} {one.p99_ms:8.2f} {one.cpu_us:7.0f}"
        more = ("" if who in (DIRECT, RELAY) else added) + (f"  {one.errors:,.0f} errors" if one.errors else "")
        yield f"  {kind:5} {count or 'new':>11}  {line} {more}"
    for (kind, who), speed in found.bulk.items():
        yield f"  {kind:5} one large download  {who:9} {speed:8,.0f} MB/s"
    if not any(who == MITMPROXY for _, _, who in found.results):
        yield "  mitmproxy is not here: `make bench` installs it"


def figures(found: Found) -> dict[str, object]:
    """Give the figures for a file."""
    return {
        **{
            f"{kind} {count or 'new'} {who}": {one.name: getattr(result, one.name) for one in fields(Result)}
            for (kind, count, who), result in found.results.items()
        },
        **{f"{kind} download {who}": speed for (kind, who), speed in found.bulk.items()},
        "load": found.load,
    }


def main() -> None:
    """Print a table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    print(f"enforcer, HTTP/1.1, answers of 1 KiB, {rounds} rounds of {seconds:g} s each (budget: 0.3 ms added at the median)")
    for line in table(compare(Plan(seconds=seconds, rounds=rounds))):
        print(line)


if __name__ == "__main__":
    main()
