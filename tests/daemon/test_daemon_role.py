"""The daemon role with the real kernel: runs, restarts, selectors, a full journal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack
import pytest

from capd.daemon import control_client, runs
from capd.daemon.cgroups import Hierarchy
from capd.probes import layouts
from capd.probes.budget import PER_RUN_MAX
from capd.recording.journal import Block, Source
from tests.daemon.conftest import ENVIRONMENT, PYTHON, Daemon, call, capd, open_directory, wait_until
from tests.requirements import require, require_command, require_probes

pytestmark = pytest.mark.kernel
Make = Callable[..., Daemon]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """Give a running daemon, which the tests share because compiling takes seconds; each looks at its own run."""
    require_probes()
    with open_directory() as directory:
        made = Daemon(directory)
        made.start()
        yield made
        made.stop()


def events(daemon: Daemon, key: int | None = None) -> list[tuple[layouts.EventHeader, layouts.Body]]:
    """Give the events of the journal, all or of one run."""
    spans = (block.payload for block in daemon.blocks() if block.source is not Source.NOTE)
    return [event for span in spans for event in layouts.events(span) if key in (None, event[0].run)]


def executed(daemon: Daemon, key: int) -> list[bytes]:
    """Give the arguments of each exec of a run."""
    return [body.argv for _header, body in events(daemon, key) if isinstance(body, layouts.ExecEvent)]


def started(daemon: Daemon, name: str) -> Mapping[str, Any]:
    """Give the note of the run with a name."""
    return next(note for note in daemon.notes("run_started") if note["name"] == name)


def ended(daemon: Daemon, name: str) -> bool:
    """Tell whether the run with a name has ended."""
    return started(daemon, name)["key"] in [note["key"] for note in daemon.notes("run_ended")]


def run_names(daemon: Daemon) -> set[str]:
    """Name the live runs."""
    return {str(run["name"]) for run in daemon.status()["runs"]}


def command(daemon: Daemon, name: str, *words: str) -> list[str]:
    """Give the command line that runs a command under a name."""
    return capd("run", "--config", daemon.config, "--name", name, "--", *words)


@contextmanager
def live(daemon: Daemon, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background; it is killed at the end."""
    process = subprocess.Popen(command(daemon, name, *words), env=ENVIRONMENT, stdin=subprocess.DEVNULL)
    arguments = Path(f"/proc/{process.pid}/cmdline")
    wait_until(lambda: name in run_names(daemon) and b"--config" not in arguments.read_bytes(), f"{name} is executed")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_run_is_recorded_from_its_exec_to_its_end(daemon: Daemon) -> None:
    """A run's note stands before its first event and its end behind its last; nothing of capd's own client is in it."""
    done = daemon.run("/bin/sh", "-c", "exit 7", "sh", "argument", name="whole")
    assert (7, "") == (done.returncode, done.stderr)
    wait_until(lambda: ended(daemon, "whole"), "the run has ended")
    note = started(daemon, "whole")
    assert ["/bin/sh", "-c", "exit 7", "sh", "argument"] == note["command"]
    assert {"kind": "user", "name": "root", "uid": 0, "verified": False} == note["principal"]
    kinds = [type(body).__name__ for _header, body in events(daemon, note["key"])]
    assert ("ExecEvent", "ExitEvent") == (kinds[0], kinds[-1])
    assert not [kind for kind in kinds if kind.startswith("Socket")]
    order = [_said(block, note["key"]) for block in daemon.blocks()]
    assert order.index("run_started") < order.index("events") < order.index("run_ended")
    assert "whole" not in run_names(daemon)
    assert Hierarchy().id_of(note["cgroup"]) is None


def _said(block: Block, key: int) -> str:
    """Name what a block has of a run."""
    if block.source is Source.NOTE:
        note = msgpack.unpackb(block.payload)
        return str(note["note"]) if note.get("key") == key else ""
    return "events" if any(header.run == key for header, _body in layouts.events(block.payload)) else ""


def test_descendants_belong_to_the_run_wherever_they_go(daemon: Daemon) -> None:
    """A grandchild after setsid and a double fork keeps its run alive, and its exec is recorded under it."""
    daemon.run("/bin/sh", "-c", "setsid sh -c 'sleep 0.7 & exec true' >/dev/null 2>&1 & wait", name="daemonizes")
    assert "daemonizes" in run_names(daemon)
    wait_until(lambda: ended(daemon, "daemonizes"), "the grandchild has ended")
    assert b"sleep\x000.7\x00" in executed(daemon, started(daemon, "daemonizes")["key"])


def test_process_that_left_its_cgroup_keeps_its_run(daemon: Daemon) -> None:
    """An agent that is root and moves itself to another cgroup is still part of its run until it ends."""
    leaves = f"echo 0 >{Hierarchy().root}/cgroup.procs; sleep 0.8; /bin/true escaped"
    daemon.run("/bin/sh", "-c", f"sh -c '{leaves}' >/dev/null 2>&1 & sleep 0.2", name="leaves")
    assert "leaves" in run_names(daemon)
    wait_until(lambda: ended(daemon, "leaves"), "the escaped process has ended")
    assert b"/bin/true\x00escaped\x00" in executed(daemon, started(daemon, "leaves")["key"])


def test_others_leave_no_record(daemon: Daemon) -> None:
    """Processes that no run started leave not one event."""
    before = len(events(daemon))
    subprocess.run(["/bin/sh", "-c", "true; echo | cat"], check=True, stdout=subprocess.DEVNULL)
    daemon.run("/bin/true", name="after")
    wait_until(lambda: ended(daemon, "after"), "a run after it has ended")
    key = started(daemon, "after")["key"]
    assert {key} == {header.run for header, _body in events(daemon)[before:]}


def test_runs_survive_the_daemon(daemons: Make, instance_dir: Path) -> None:
    """After kill -9 the next daemon takes up the run that lives, with its key and processes, and ends the other."""
    daemon = daemons()
    daemon.start()
    fifo = instance_dir / "go"
    os.mkfifo(fifo)
    with live(daemon, "lives", "/bin/sh", "-c", f"read x <{fifo}; /bin/true done") as agent:
        with live(daemon, "dies", "/bin/sleep", "60"):
            cgroup = next(run["cgroup"] for run in daemon.status()["runs"] if run["name"] == "dies")
            assert -signal.SIGKILL == daemon.stop(signal.SIGKILL)
        daemon.start()
        wait_until(lambda: run_names(daemon) == {"lives"}, "the run is taken up")
        assert Hierarchy().id_of(cgroup) is None
        fifo.write_text("go\n")
        assert 0 == agent.wait(180)
    wait_until(lambda: ended(daemon, "lives"), "the run has ended")
    assert ended(daemon, "dies")
    first, second = (note for note in daemon.notes("run_started") if note["name"] == "lives")
    assert (first["key"], False, True) == (second["key"], first["resumed"], second["resumed"])
    assert agent.pid in [note["pid"] for note in daemon.notes("process")]
    assert b"/bin/true\x00done\x00" in executed(daemon, first["key"])
    assert 0 == daemon.stop()
    assert ["start", "start", "stop"] == [note["note"] for note in daemon.notes() if note["note"] in {"start", "stop"}]


def kernel_ids(pid: int) -> set[tuple[str, str]]:
    """Give kind and number of each BPF program and link that a process holds."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(OSError):
            for line in entry.read_text().splitlines():
                if line.startswith(("prog_id:", "link_id:")):
                    found.add((line[:4], line.split()[1]))
    return found


def test_a_killed_daemon_leaves_nothing_in_the_kernel(daemons: Make, instance_dir: Path) -> None:
    """After kill -9 no program and no link of the daemon exists, and the next start removes its cgroups, not another's."""
    require_command("bpftool")
    daemon = daemons()
    daemon.start()
    assert daemon.process is not None
    held = kernel_ids(daemon.process.pid)
    assert {"prog", "link"} == {kind for kind, _number in held}
    parent = Hierarchy().root / "capd"
    with live(daemon, "lives", "/bin/sleep", "60"):
        (kept,) = [run["cgroup"] for run in daemon.status()["runs"]]
        daemon.stop(signal.SIGKILL)
        cut_off, others, unmarked = (parent / f"test-{name}" for name in ("cut-off", "others", "unmarked"))
        for directory, mark in ((cut_off, instance_dir / "run"), (others, Path("/run/another")), (unmarked, None)):
            directory.mkdir()
            if mark is not None:
                os.setxattr(directory, "trusted.capd.owner", os.fsencode(mark))
        wait_until(lambda: not [item for item in held if exists_in_kernel(*item)], "the kernel has let all go")
        daemon.start()
        assert (False, True, True) == (cut_off.exists(), others.exists(), unmarked.exists())
        assert [kept] == [run["cgroup"] for run in daemon.status()["runs"]]
    for directory in (others, unmarked):
        directory.rmdir()
    wait_until(lambda: Hierarchy().id_of(kept) is None, "the run's own has gone with it")


def exists_in_kernel(kind: str, number: str) -> bool:
    """Say whether a program or link exists."""
    return subprocess.run(["bpftool", kind, "show", "id", number], capture_output=True, check=False).returncode == 0


@pytest.fixture
def slice_() -> Iterator[Path]:
    """Give a cgroup whose children are to become runs."""
    directory = Hierarchy().root / "capd-test-slice"
    directory.mkdir()
    yield directory
    for path in [*directory.glob("*/"), directory]:
        with suppress(OSError):
            path.rmdir()


def enter(cgroup: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a process in a cgroup, as a service manager would: it enters and then executes."""
    return subprocess.Popen(["/bin/sh", "-c", f'echo $$ >{cgroup}/cgroup.procs; exec "$@"', "sh", *words], env=ENVIRONMENT)


def test_what_is_selected_becomes_runs(daemons: Make, slice_: Path) -> None:
    """In a selected slice what is there and what appears later becomes a run; a selected cgroup is one each time it is used."""
    early_cgroup, late_cgroup, single = slice_ / "early.service", slice_ / "late.service", slice_.parent / "capd-test-single"
    early_cgroup.mkdir()
    single.mkdir()
    early = enter(early_cgroup, "/bin/sleep", "600")
    daemon = daemons('[selection]\nslices = ["/capd-test-slice"]\ncgroups = ["capd-test-single"]\n')
    daemon.start()
    wait_until(lambda: run_names(daemon) == {"early.service"}, "the early one is a run")
    late_cgroup.mkdir()
    late = enter(late_cgroup, "/bin/sleep", "31")
    wait_until(lambda: "late.service" in run_names(daemon), "the late one is a run")
    for _round in range(2):
        again = enter(single, "/bin/sleep", "32")
        wait_until(lambda: "capd-test-single" in run_names(daemon), "the single one is a run")
        end(again)
        wait_until(lambda: "capd-test-single" not in run_names(daemon), "the single one has ended")
    end(early, late)
    wait_until(lambda: ended(daemon, "early.service") and ended(daemon, "late.service"), "both have ended")
    notes = daemon.notes("run_started")
    assert ["capd-test-single"] * 2 + ["early.service", "late.service"] == sorted(note["name"] for note in notes)
    assert all(note["adopted"] and note["principal"]["kind"] == "unit" for note in notes)
    described = {note["run"]: note["pid"] for note in daemon.notes("process")}
    assert early.pid == described[started(daemon, "early.service")["key"]]
    late_key = started(daemon, "late.service")["key"]
    assert late.pid == described.get(late_key) or b"/bin/sleep\x0031\x00" in executed(daemon, late_key)
    single.rmdir()


def end(*processes: subprocess.Popen[bytes]) -> None:
    """Kill processes that this test started."""
    for process in processes:
        process.kill()
        process.wait()


FILLER = "import os, socket; a, b = socket.socketpair(); [(a.send(os.urandom(60000)), b.recv(60000)) for _ in range(60)]"


def test_the_end_of_a_run_waits_for_room(daemons: Make) -> None:
    """A run that ends while nothing can be written is ended in the record by the next daemon that can write."""
    daemon = daemons("[journal]\nbytes_max = 1048576\n")
    daemon.start()
    with live(daemon, "ends", "/usr/bin/python3", "-I", "-c", f"{FILLER}; import time; time.sleep(600)"):
        wait_until(lambda: daemon.status()["journal"]["stopped"], "full")
    wait_until(lambda: "ends" not in run_names(daemon), "it is over")
    assert 0 == daemon.stop()
    assert not ended(daemon, "ends")
    daemon.config.write_text(daemon.config.read_text().replace("1048576", "1073741824"))
    daemon.start()
    wait_until(lambda: ended(daemon, "ends"), "its end is in the journal")
    wait_until(lambda: not list((daemon.directory / "run" / "runs").iterdir()), "its file is gone")


def test_full_journal_is_said_and_runs_are_refused(daemons: Make) -> None:
    """When nobody seals the journal and it is full, status says so and a run is refused, not started unrecorded."""
    daemon = daemons("[journal]\nbytes_max = 1048576\n")
    daemon.start()
    assert 0 == daemon.run("/usr/bin/python3", "-I", "-c", FILLER).returncode
    wait_until(lambda: daemon.status()["journal"]["stopped"], "full")
    assert "journal full" == daemon.status()["journal"]["stopped"]["cause"]
    marker = daemon.directory / "started"
    refused = daemon.run("/usr/bin/touch", str(marker))
    assert 5 == refused.returncode
    assert "capd cannot record at the moment" in refused.stderr
    assert not marker.exists()
    told = call("status", "--config", daemon.config)
    assert 1 == told.returncode
    assert "not draining: journal full" in told.stdout


def test_run_of_another_user(daemon: Daemon) -> None:
    """Any user may start a run; it is that user's, and the command runs as that user."""
    done = daemon.run("/usr/bin/id", "-u", name="theirs", user=65534, group=65534, extra_groups=[])
    assert (0, "65534\n") == (done.returncode, done.stdout)
    assert 65534 == started(daemon, "theirs")["principal"]["uid"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["no-such-command"], 127, "'no-such-command': command not found"),
        (["/no/such/file"], 127, "command not found"),
        (["/etc/passwd"], 126, "cannot be executed: Permission denied"),
        (["/etc"], 126, "cannot be executed"),
        (["false"], 1, ""),
    ],
)
def test_exit_status_of_run(daemon: Daemon, words: list[str], status: int, message: str) -> None:
    """The exit status is the command's, or what a shell gives for one that cannot be executed; that makes no run."""
    before = len(daemon.notes("run_started"))
    done = daemon.run(*words)
    assert status == done.returncode
    assert message in done.stderr
    assert before + (status not in {126, 127}) == len(daemon.notes("run_started"))


def test_a_run_inside_a_run_says_so(daemon: Daemon) -> None:
    """An agent that starts a run under another name stays bound to its own: the note has its id, and its principal."""
    inner = ["run", "--config", str(daemon.config), "--name", "innocent", "--", "/bin/true"]
    done = daemon.run(sys.executable, "-P", "-m", "capd.cli.main", *inner, name="outer")
    assert (0, "") == (done.returncode, done.stderr)
    wait_until(lambda: ended(daemon, "innocent"), "the inner run has ended")
    outer, innocent = started(daemon, "outer"), started(daemon, "innocent")
    assert {"capd.outer_run": str(UUID(bytes=outer["run"]))} == innocent["labels"]
    assert outer["principal"] == innocent["principal"]
    assert {} == outer["labels"]


def test_requests_for_odd_runs_are_refused(daemon: Daemon) -> None:
    """Names, labels and commands beyond their limits are refused, and nothing is started or left behind."""
    before = len(daemon.notes("run_started"))
    odd: tuple[dict[str, object], ...] = (
        {"command": []},
        {"command": "true"},
        {"command": ["true"], "name": "x" * 1000},
        {"command": ["true"], "labels": {"a": 1}},
        {"command": ["true"], "labels": {"capd.outer_run": "made up"}},
        {"command": ["true"], "labels": {str(number): "" for number in range(100)}},
        {"command": ["true"], "uid": 0},
    )
    for fields in odd:
        with pytest.raises(control_client.RefusedError) as caught:
            control_client.ask_quietly(daemon.socket, "run", **fields)
        assert 2 == caught.value.exit_status
    assert before == len(daemon.notes("run_started"))


def test_doctor_says_why_a_process_is_recorded_or_not(daemon: Daemon) -> None:
    """For a process of a run doctor names the run; for another it says what to do; for none, that there is none."""
    with live(daemon, "looked at", "/bin/sleep", "60") as agent:
        run = next(run["run"] for run in daemon.status()["runs"] if run["name"] == "looked at")
        recorded = call("doctor", "--config", daemon.config, str(agent.pid))
    assert (0, True) == (recorded.returncode, f"recorded as part of run {run}" in recorded.stdout)
    own = str(os.getpid())
    other = call("doctor", "--json", "--config", daemon.config, own)
    (finding,) = [found for found in json.loads(other.stdout) if found["subject"] == "selection"]
    assert (1, "bad") == (other.returncode, finding["mark"])
    assert "capd run" in finding["next_step"]
    gone = call("doctor", "--config", daemon.config, "4000000")
    assert (1, True) == (gone.returncode, "there is no process 4000000" in gone.stdout)
    refused = call("doctor", "--config", daemon.config, own, user=65534, group=65534, extra_groups=[])
    assert "belongs to another user" in refused.stdout


def test_daemon_is_not_started_inside_a_run(daemons: Make, daemon: Daemon, instance_dir: Path) -> None:
    """A daemon inside a live run of its own instance refuses to start: it would record its own writes without end."""
    other = daemons()
    (instance_dir / "run" / "runs").mkdir(parents=True)
    with live(daemon, "host of a daemon", "/bin/sleep", "60"):
        for file in (daemon.directory / "run" / "runs").glob("*.json"):
            shutil.copy(file, instance_dir / "run" / "runs")
        cgroup = next(run["cgroup"] for run in daemon.status()["runs"] if run["name"] == "host of a daemon")
        entered = enter(Hierarchy().directory(cgroup), *capd("daemon", "--config", other.config))
        assert 4 == entered.wait(180)


def owner(cgroup: Path) -> bytes | None:
    """Name the instance that made a cgroup; None: nobody says, or it is gone."""
    try:
        return os.getxattr(cgroup, "trusted.capd.owner")
    except OSError:
        return None


def test_a_run_that_cannot_begin_leaves_nothing(daemons: Make, instance_dir: Path) -> None:
    """When a run's file cannot be written, its client is told, and neither cgroup nor selection nor note is left open."""
    daemon = daemons()
    daemon.start()
    directory = daemon.directory / "run" / "runs"
    directory.rmdir()
    directory.touch()
    done = daemon.run("true", name="cannot begin")
    assert (5, True) == (done.returncode, f"cannot write {directory}" in done.stderr)
    parent = Hierarchy().root / "capd"
    own = [name for name in parent.glob("*/") if owner(name) == os.fsencode(instance_dir / "run")]
    assert ([], []) == (own, daemon.status()["runs"])
    directory.unlink()
    directory.mkdir()
    assert 0 == daemon.run("true", name="can").returncode


def test_what_a_selector_finds_waits_for_better_times(daemons: Make, slice_: Path) -> None:
    """A selected cgroup that cannot become a run does not end the daemon: it is told, and tried again until it can."""
    daemon = daemons('[selection]\nslices = ["/capd-test-slice"]\n')
    daemon.start()
    directory = daemon.directory / "run" / "runs"
    directory.rmdir()
    directory.touch()
    (slice_ / "late.service").mkdir()
    late = enter(slice_ / "late.service", "/bin/sleep", "31")
    try:
        wait_until(lambda: daemon.status()["unselected"], "told")
        assert "1 cgroups that a selector names are not recorded" in call("status", "--config", daemon.config).stdout
        directory.unlink()
        directory.mkdir()
        wait_until(lambda: run_names(daemon) == {"late.service"}, "a run after all")
        assert [] == daemon.status()["unselected"]
    finally:
        end(late)


def test_others_see_only_that_there_are_runs(daemon: Daemon) -> None:
    """Another user's status has neither name, label nor cgroup of a run of root's, only how many there are."""
    with live(daemon, "of nobody's business", "/bin/sleep", "60"):
        done = call("status", "--json", "--config", daemon.config, user=65534, group=65534, extra_groups=[])
        text = call("status", "--config", daemon.config, user=65534, group=65534, extra_groups=[])
    found = json.loads(done.stdout)
    assert ([], 1) == (found["runs"], found["withheld"]["runs"])
    assert "business" not in done.stdout + text.stdout
    assert "and 1 of other users" in text.stdout


TWO_LIBRARIES = """
import ctypes, os, shutil, sys
for name in sys.argv[1:]:
    shutil.copy("/usr/lib/x86_64-linux-gnu/libssl.so.3", name)
    ctypes.CDLL(name)
input()
"""


def test_libraries_over_a_runs_share_are_gaps_of_that_run(daemon: Daemon, tmp_path: Path) -> None:
    """A run that maps more TLS libraries than its share: what is not watched is in the status and a note, under its name."""
    require(Path("/usr/lib/x86_64-linux-gnu/libssl.so.3").exists(), "needs libssl.so.3")
    names = [str(tmp_path / f"{number}.so") for number in range(PER_RUN_MAX + 1)]
    command = capd("run", "--config", daemon.config, "--name", "greedy", "--", "/usr/bin/python3", "-c", TWO_LIBRARIES, *names)
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE) as greedy:
        wait_until(lambda: daemon.notes("attach_failed"), "told")
        (failure,) = [text for text in daemon.status()["attach_failures"] if names[-1] in text]
        run = next(run["run"] for run in daemon.status()["runs"] if run["name"] == "greedy")
        assert f"{PER_RUN_MAX} files of this run have probes already, and others get what is left (run {run})" in failure
        greedy.communicate(b"\n")
    notes = daemon.notes("attach_failed")
    assert {(names[-1], started(daemon, "greedy")["key"])} == {(note["path"], note["run"]) for note in notes}
    wait_until(lambda: not daemon.status()["attach_failures"], "forgotten with its run")


CROWD = """
import os, sys
from pathlib import Path
from capd.daemon import control_client
from capd.daemon.errors import DaemonUnreachableError
def ask(number):
    try: control_client.ask_quietly(Path(sys.argv[1]), "run", name=f"crowd {number}", labels={}, command=["x"])
    except control_client.RefusedError as error: print(error, flush=True)
    except DaemonUnreachableError: ask(number)  # half a thousand at once: on a busy host not all are answered in time
children = []
for number in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        ask(number)
        sys.stdin.read()
        os._exit(0)
    children.append(child)
for child in children: os.waitpid(child, 0)
"""


def test_one_user_cannot_take_all_runs(daemon: Daemon) -> None:
    """A user gets so many live runs and no more; root can still start one, and gets them back when they end."""
    command = ["setpriv", "--reuid=65534", "--clear-groups", PYTHON, "-P", "-c", CROWD]
    wanted = str(runs.LIVE_PER_USER_MAX + 1)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    with subprocess.Popen([*command, str(daemon.socket), wanted], **pipes) as crowd:
        assert crowd.stdout is not None
        assert f"one user has at most {runs.LIVE_PER_USER_MAX} live runs\n" == crowd.stdout.readline()
        assert 0 == call("run", "--config", daemon.config, "--name", "of root", "--", "true").returncode
        crowd.communicate("")
    wait_until(lambda: ended(daemon, "crowd 0"), "the crowd's runs have ended")
