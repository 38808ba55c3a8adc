"""What the enforcer costs a database's client: pgbench through it, through pgbouncer, and directly, in one run.

What lives here: the servers, asking, the figures. What must not: the enforcer's surroundings (middles.py).

PostgreSQL runs on loopback without fsync; `pgbench -S` reads one row by its key. pgbouncer pools by session, so that all three
do the same for a client; the enforcer has a worker for each core, a policy of ten rules, and its decision log on disk. All take
turns, round by round; a figure is the median of its rounds. The budget is half of pgbouncer's statements: 0.50 in its column.

Run: PYTHONPATH=src:. python -P bench/databases.py [SECONDS [ROUNDS]]
"""

# ruff: noqa: S608 - statements are what is measured

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.middles import DIRECT, ENFORCER, Middle, processor_seconds, serve_enforcer, worker_world, workers

from capd.enforcer.tls.authority import make_authority

PGBOUNCER: Final = "pgbouncer"
MASKED: Final = "masked"
"""The enforcer, with the column that is read hidden in every row."""
ALLOW: Final = "  - {id: bench, match: {protocols: [postgresql], hosts: [127.0.0.1], effects: [select, session]}, then: allow}"
_COLUMNS: Final = "{columns: [pgbench_accounts.abalance], replace: fixed}"
HIDE: Final = f"  - {{id: hide, match: {{protocols: [postgresql]}}, then: mask, mask: {_COLUMNS}}}"
USER: Final = "bench"
CLIENTS: Final = (1, 16, 64)
SECONDS: Final = 3.0
ROUNDS: Final = 3
SCALE: Final = 5
"""Half a million rows: in memory, and enough that hardly a literal comes again."""
READY_SECONDS: Final = 20.0
MODES: Final = ("simple", "prepared", "pipelined")
SELECT_ONE: Final = "\\set aid random(1, 100000 * :scale)\n"
READ: Final = "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
PIPELINE: Final = 10
SCRIPTS: Final = {
    "simple": SELECT_ONE + READ,
    "prepared": SELECT_ONE + READ,
    "pipelined": "\\startpipeline\n" + (SELECT_ONE + READ) * PIPELINE + "\\endpipeline\n",
}
"""pgbench counts scripts: one of ten statements is counted as ten."""
PROTOCOLS: Final = {"simple": "simple", "prepared": "prepared", "pipelined": "prepared"}
COPY_ROWS: Final = 4_000_000
COPY: Final = (
    f"COPY (SELECT n, 'a row of some two hundred bytes, ' || repeat('x', 200) FROM generate_series(1, {COPY_ROWS}) n) TO STDOUT"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measurement: statements a second, milliseconds, microseconds of the middle's processor a statement."""

    per_second: float
    median_ms: float
    p99_ms: float
    cpu_us: float


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise SystemExit("bench/databases.py needs a PostgreSQL server")
    return found[-1].parent


def _as_postgres(*words: str | Path) -> None:
    command = ["runuser", "-u", "postgres", "--", *map(str, words)] if os.geteuid() == 0 else [*map(str, words)]
    subprocess.run(command, check=True, cwd="/", env={"PATH": os.environ["PATH"], "LANG": "C"}, stdout=subprocess.DEVNULL)


@contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """Run a PostgreSQL with pgbench's tables."""
    bin_, data = _programs(), folder / "data"
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    _as_postgres(bin_ / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off -c max_connections=200"
    _as_postgres(bin_ / "pg_ctl", "-s", "-w", "-D", data, "-l", folder / "log", "-o", options, "start")
    try:
        _pgbench(port, "-i", "-q", "-s", str(SCALE))
        yield
    finally:
        _as_postgres(bin_ / "pg_ctl", "-s", "-D", data, "-m", "immediate", "stop")


def _environment(port: int) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "PGUSER": USER,
        "PGDATABASE": "postgres",
        "PGSSLMODE": "disable",
    }


def _pgbench(port: int, *words: str) -> str:
    done = subprocess.run(["pgbench", *words], env=_environment(port), capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return done.stdout


def _free_port() -> int:
    import socket  # noqa: PLC0415 - for this alone

    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def pgbouncer(folder: Path, port: int) -> Iterator[Middle]:
    """Run pgbouncer before a port."""
    own, users = _free_port(), folder / "users"
    users.write_text(f'"{USER}" ""\n', encoding="ascii")
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": own,
        "auth_type": "trust",
        "auth_file": users,
        "pool_mode": "session",
        "default_pool_size": 100,
        "max_client_conn": 200,
        "unix_socket_dir": "",
        "log_connections": 0,
        "log_disconnections": 0,
        "ignore_startup_parameters": "extra_float_digits",
    }
    lines = [f"[databases]\npostgres = host=127.0.0.1 port={port} dbname=postgres\n[pgbouncer]"]
    lines += [f"{name} = {value}" for name, value in settings.items()]
    (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n", encoding="ascii")
    folder.chmod(0o755)
    words = ["runuser", "-u", "postgres", "--", PGBOUNCER, "-q", str(folder / "pgbouncer.ini")]
    with subprocess.Popen(words if os.geteuid() == 0 else words[4:]) as child:
        try:
            _wait(own)
            yield Middle(port=own, pids=(_child_of(child.pid),))
        finally:
            child.terminate()


def _child_of(pid: int) -> int:
    """Give the process that runuser started, or the one itself."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(found[0]) if found else pid


def _wait(port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if subprocess.run(["pg_isready", "-q"], env=_environment(port), check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on {port}")


@contextmanager
def enforcer(folder: Path, port: int, *more: str) -> Iterator[Middle]:
    """Run the enforcer, a worker for each core, before a port, with more rules."""
    ours = make_authority("capd bench", datetime.now(UTC))
    (folder / "ca.pem").write_bytes(ours.certificate_pem)
    rules = [f"  - {{id: other-{number}, match: {{hosts: [other{number}.test]}}, then: allow}}" for number in range(9)]
    rules += [ALLOW, *more]

    with workers(lambda some, place: serve_enforcer(some, worker_world(folder, port, ours, rules, place))) as found:
        yield found


def _masked(folder: Path, port: int) -> AbstractContextManager[Middle]:
    return enforcer(folder, port, HIDE)


def measure(middle: Middle, mode: str, clients: int, seconds: float, folder: Path) -> Result:
    """Have pgbench ask for some seconds."""
    script = folder / f"{mode}.sql"
    script.write_text(SCRIPTS[mode], encoding="ascii")
    log = folder / "latencies"
    for former in folder.glob("latencies.*"):
        former.unlink()
    words = ["-n", "-M", PROTOCOLS[mode], "-f", str(script), "-c", str(clients), "-j", "2" if clients > 1 else "1"]
    words += ["-T", f"{seconds:.0f}", "-s", str(SCALE), "-D", f"scale={SCALE}", "-l", f"--log-prefix={log}"]
    before = processor_seconds(middle.pids)
    said = _pgbench(middle.port, *words)
    spent = processor_seconds(middle.pids) - before
    found = re.search(r"tps = ([\d.]+)", said)
    count = re.search(r"number of transactions actually processed: (\d+)", said)
    assert found is not None
    assert count is not None
    each = PIPELINE if mode == "pipelined" else 1
    times = sorted(int(line.split()[2]) for path in folder.glob("latencies.*") for line in path.open(encoding="ascii"))
    return Result(
        per_second=float(found[1]) * each,
        median_ms=times[len(times) // 2] / 1e3,
        p99_ms=times[len(times) * 99 // 100] / 1e3,
        cpu_us=spent / (int(count[1]) * each) * 1e6,
    )


def copied(middle: Middle) -> Result:
    """Have psql read a gigabyte by COPY."""
    before, begin = processor_seconds(middle.pids), time.monotonic()
    words = ["psql", "-X", "-q", "-c", COPY]
    with subprocess.Popen(words, env=_environment(middle.port), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        size = 0
        while piece := child.stdout.read(1 << 20):
            size += len(piece)
    took = time.monotonic() - begin
    if child.returncode:
        raise SystemExit("psql could not copy")
    spent = processor_seconds(middle.pids) - before
    return Result(per_second=size / took / 1e6, median_ms=took * 1e3, p99_ms=took * 1e3, cpu_us=spent / (size / 1e6) * 1e6)


def median(results: list[Result]) -> Result:
    """Give the median of each figure."""
    return Result(**{one.name: statistics.median(getattr(result, one.name) for result in results) for one in fields(Result)})


def run(seconds: float, rounds: int, show: Callable[[str], None]) -> dict[str, dict[str, Result]]:
    """Measure everything; give the figures by what was asked, and by what stood in the middle."""
    found: dict[str, dict[str, list[Result]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="capd-bench-")))
        folder.chmod(0o755)
        port = _free_port()
        (folder / "pg").mkdir()
        stack.enter_context(server(folder / "pg", port))
        middles = {DIRECT: Middle(port=port, pids=(os.getpid(),))}
        for name, begin in ((PGBOUNCER, pgbouncer), (ENFORCER, enforcer), (MASKED, _masked)):
            (folder / name).mkdir()
            middles[name] = stack.enter_context(begin(folder / name, port))
        for name in (ENFORCER, MASKED):
            _wait(middles[name].port)
        for _ in range(rounds):
            for mode in MODES:
                for clients in CLIENTS:
                    for name, middle in middles.items():
                        result = measure(middle, mode, clients, seconds, folder)
                        found.setdefault(f"{mode}, {clients} clients", {}).setdefault(name, []).append(result)
            for name, middle in middles.items():
                found.setdefault("COPY of 1 GB, MB/s", {}).setdefault(name, []).append(copied(middle))
    results = {what: {name: median(some) for name, some in by.items()} for what, by in found.items()}
    for line in table(results):
        show(line)
    return results


def table(results: dict[str, dict[str, Result]]) -> Iterator[str]:
    """Give the figures as lines."""
    yield f"{'pgbench -S':24} {'by':10} {'each second':>13} {'of pgbouncer':>13} {'median ms':>10} {'p99 ms':>8} {'cpu us':>7}"
    for what, by in results.items():
        for name, one in by.items():
            share = one.per_second / by[PGBOUNCER].per_second
            yield (
                f"{what:24} {name:10} {one.per_second:13,.0f} {share:13.2f} {one.median_ms:10.3f} {one.p99_ms:8.3f}"
                f" {one.cpu_us if name != DIRECT else 0:8.1f}"
            )


def main() -> None:
    """Measure as the command line says."""
    words = sys.argv[1:]
    seconds, rounds = (*words, *(str(SECONDS), str(ROUNDS))[len(words) :])
    run(float(seconds), int(rounds), lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
