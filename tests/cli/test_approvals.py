"""`capd approvals`, `approve`, `deny`: what a person reads and types, at a socket that answers as the desk does.

What lives here: lines, JSON, exit statuses, following. What must not: agents (tests/enforcer/test_approvals_role.py).
"""

from __future__ import annotations

import grp
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from capd.cli.approval_json import public
from capd.cli.approval_lines import change_line, decided_lines, detail_lines
from capd.cli.line import plain
from capd.daemon import approver_identity, runs
from capd.daemon.approvals_desk import Counter, DeskParts, new_id
from capd.daemon.cgroups import RunCgroup, find_root
from capd.daemon.control import ControlServer, Peer
from capd.daemon.runs import Registry
from capd.enforcer.approvals.errors import NotAnApproverError
from capd.enforcer.approvals.listing import to_json
from capd.enforcer.approvals.request import Channel
from capd.enforcer.approvals.state import State
from capd.enforcer.policy.action import Run
from capd.enforcer.policy.rule import ApprovalScope
from capd.enforcer.proxy.judge import Agent, judge
from capd.enforcer.proxy.question import Body
from tests.cli.test_json import documented
from tests.enforcer.asking import AGENT, ANN, Client, Scene, hold
from tests.enforcer.test_proxy_judge import API, request
from tests.requirements import require_root

ASK = """
import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
peer.sendall(b'{"verb": "%s", "id": "req"}\\n')
print(peer.makefile().read())
"""
CONTEXT = {
    "previous": [{"at_ns": 1_800_000_000_000_000_000, "said": "GET api.test/x\x1b[2J", "outcome": "allowed"}],
    "processes": [{"pid": 7, "parent": 1, "uid": AGENT, "name": "evil\u202e"}],
}


def asked(**more: object) -> Any:  # noqa: ANN401 - a hold
    """Give what a real judge has held, with context."""
    agent = Agent(run=Run(name="nightly\x07", id="r", labels={"team": "a\u200bb"}), principal=None, uid=AGENT)
    found = judge(API, agent, request("PUT", **more), proven=True).held  # type: ignore[arg-type] # facts of a request
    assert found is not None
    return replace(found, shown={**found.shown, **CONTEXT})


@pytest.fixture
def place(tmp_path: Path) -> Scene:
    """Give an empty directory."""
    return Scene(tmp_path)


class Terminal:
    """A desk whose persons' socket is served in a thread, and the command line."""

    def __init__(self, place: Scene) -> None:
        self.desk, self.directory = place.desk(), place.directory
        (self.directory / "run" / "enforcer").mkdir(parents=True)
        (self.directory / "runs").mkdir()
        (self.directory / "capd.toml").write_text(f'runtime_dir = "{self.directory}/run"\n', encoding="ascii")
        socket = self.directory / "run" / "enforcer" / "approvals.sock"
        parts = DeskParts(
            directory=self.directory,
            holds=socket,
            persons=socket,
            approvers=(grp.getgrgid(0).gr_name,),
            runs=self.directory / "runs",
            hierarchy=self.directory / "none",
            status=self.directory / "status",
            say=print,
        )
        self._selector = selectors.DefaultSelector()
        self._server = ControlServer(socket, Counter(parts, self.desk, place.clock).verbs(), self._selector)
        self._over = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.01):
                key.data()

    def close(self) -> None:
        """End it."""
        self._over = True
        self._thread.join()
        self._server.close()
        self._selector.close()

    def words(self, *verb: str) -> list[str]:
        """Give the command."""
        return [sys.executable, "-P", "-m", "capd.cli.main", *verb, "--config", str(self.directory / "capd.toml")]

    def capd(self, *verb: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a verb."""
        return subprocess.run(self.words(*verb), capture_output=True, text=True, check=False, user=uid, group=uid)


@contextmanager
def terminal(place: Scene) -> Iterator[Terminal]:
    """Serve one."""
    require_root()
    made = Terminal(place)
    try:
        yield made
    finally:
        made.close()


def test_a_person_at_a_terminal(place: Scene) -> None:
    """What waits is listed and exits 0, nothing with 1; a yes counts once, a no needs a reason, what is over exits 1."""
    with terminal(place) as made:
        empty = made.capd("approvals")
        assert (1, "nothing waits for approval\n") == (empty.returncode, empty.stdout)
        first, second = Client(made.desk, asked()), Client(made.desk, asked(path="/2"))
        listed = json.loads(made.capd("approvals", "--json").stdout)
        assert [first.last.id, second.last.id] == [one["id"] for one in listed]
        assert 0 == made.capd("approve", first.last.id).returncode
        assert "approved" == first.last.outcome.value
        again = made.capd("approve", first.answers[0].id)
        assert (1, True) == (again.returncode, "is used already" in again.stderr)
        assert 2 == made.capd("deny", second.last.id).returncode
        assert 2 == made.capd("deny", second.last.id, "--reason", " ").returncode
        denied = json.loads(made.capd("deny", second.last.id, "--reason", "no", "--json").stdout)
        assert ("denied", "root", "no") == (denied["state"], denied["denied_by"], denied["reason"])
        assert 1 == made.capd("approvals", "nothere").returncode
        assert 2 == made.capd("approvals", "nothere", "--follow").returncode


def test_following(place: Scene) -> None:
    """Followed, each request comes when it is asked, and again when it is decided, until the reader has enough."""
    with terminal(place) as made:
        Client(made.desk, asked())
        words = made.words("approvals", "--follow", "--json")
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as follow:
            assert follow.stdout is not None
            one = json.loads(follow.stdout.readline())
            assert 0 == made.capd("deny", one["id"], "--reason", "no").returncode
            other = json.loads(follow.stdout.readline())
            follow.send_signal(signal.SIGINT)
            assert 130 == follow.wait(180)
    assert (one["id"], "pending", "denied") == (other["id"], one["state"], other["state"])


def test_nobody_answers(tmp_path: Path) -> None:
    """Without an enforcer the command says so, and what to do."""
    (tmp_path / "capd.toml").write_text(f'runtime_dir = "{tmp_path}"\n', encoding="ascii")
    words = [sys.executable, "-P", "-m", "capd.cli.main", "approvals", "--config", str(tmp_path / "capd.toml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (8, True) == (done.returncode, "systemctl start capd-enforcer" in done.stderr)


def test_json_is_documented(place: Scene) -> None:
    """What is printed as JSON stands in docs/json.md, and what stands there is printed."""
    desk = place.desk()
    Client(desk, asked())
    shown = public(to_json(desk.requests()[0], place.clock()))
    assert documented("request for approval") == set(shown)
    assert documented("earlier message") == set(shown["previous"][0])
    assert "2027-01-15T08:00:00.000000000Z" == shown["asked"]


@pytest.mark.parametrize("whole", [False, True])
def test_lines_are_safe_and_never_silently_cut(place: Scene, whole: bool) -> None:
    """Nothing an agent chose can steer a terminal or hide; what is left out is told with its length."""
    desk = place.desk()
    body = b"\x1b[31m\xe2\x80\xae\xe2\x80\x8b\xff" + b"line\n" * 500
    Client(desk, asked(body=Body(content=body, complete=True), fields=(("X-Odd\x9b", "\x9b1m"),) * 80, query="a=\u00ad"))
    one = to_json(desk.requests()[0], place.clock(), body=body, clients=1, head_bytes=len(body) if whole else 2_048)
    text = "\n".join(plain(line) for line in detail_lines(one, place.clock().wall_ns, whole=whole))
    assert not [letter for letter in text if not letter.isprintable() and letter != "\n"]
    assert not set("\u202e\u200b\u00ad") & set(text)
    for part in (
        "\\x1b[31m\\u202e\\u200b\\xff",
        "nightly\\x07",
        "a\\u200bb",
        "evil\\u202e",
        "1 waiting",
        "wants it approved (ask)",
    ):
        assert part in text, text
    assert whole == (text.count("line") > 400)
    assert whole != (f"cut: {len(body)} bytes in all" in text)
    assert (80 if whole else 0) == text.count("X-Odd")
    left = "\n".join(plain(line) for line in detail_lines({**one, "fields_left_out": 16}, place.clock().wall_ns, whole=whole))
    assert whole == ("16 more header fields" in left)


def test_lines_of_what_was_decided(place: Scene) -> None:
    """Each state has its own words."""
    desk = place.desk()
    client = Client(desk, replace(asked(), scope=ApprovalScope.RUN))
    desk.approve(client.last.id, ANN, ApprovalScope.RUN)

    def words() -> str:
        one = to_json(desk.requests()[0], place.clock())
        return "\n".join(plain(line) for line in (change_line(one, 0), *decided_lines(one, 0)))

    assert "approved, approved by ann" in words()
    assert "good for all that these rules hold in this run" in words()
    desk.deny(client.answers[0].id, ANN, "enough")
    assert "denied by ann: enough" in words()


def test_lines_say_who_used_a_link(place: Scene) -> None:
    """Who decided by a link or a button is shown with the webhook and the chat tool's name of him."""
    desk = place.desk()
    client = Client(desk, asked())
    pressed = replace(ANN, channel=Channel(webhook="chat", link="0123", user="U1"))
    desk.approve(client.last.id, pressed, ApprovalScope.ONCE)
    one = to_json(desk.requests()[0], place.clock())
    assert "used, approved by ann (ann by webhook chat as U1)" in plain(change_line(one, 0))
    assert [{"by": "ann", "webhook": "chat", "link": "0123", "user": "U1"}] == public(one)["channels"]


# -- who speaks ----------------------------------------------------------------------------------------------------------------


def test_persons_are_who_the_system_says(tmp_path: Path) -> None:
    """User, groups and runs are the kernel's and the system's; a process that has ended, or is not there, proves nothing."""
    peer = Peer(pid=os.getpid(), uid=os.geteuid(), pidfd=os.pidfd_open(os.getpid()))
    person = approver_identity.person_of(peer, tmp_path, find_root())
    assert (os.geteuid(), False, False) == (person.uid, person.in_run, person.has_runs)
    assert grp.getgrgid(os.getegid()).gr_name in person.groups
    # A run of a unit: what it runs as is known by its processes. Here it is this very process's cgroup.
    path = next(
        line[3:] for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines() if line.startswith("0::")
    )
    where = RunCgroup(path=path, id=1, unit="x.service")
    Registry(tmp_path).add(runs.Run(id=uuid4(), name="x", principal=runs.unit_principal("x"), cgroup=where, started_ns=1))
    person = approver_identity.person_of(peer, tmp_path, find_root())
    assert (True, True) == (person.in_run, person.has_runs)
    os.close(peer.pidfd)
    with subprocess.Popen(["sleep", "60"]) as child:
        gone = Peer(pid=child.pid, uid=0, pidfd=os.pidfd_open(child.pid))
        child.kill()
    for one in (gone, replace(gone, pid=0), replace(gone, pid=os.getpid())):
        with pytest.raises(NotAnApproverError):
            approver_identity.person_of(one, tmp_path, find_root())
    os.close(gone.pidfd)
    assert ("4000000000", ()) == approver_identity._user(4_000_000_000)


def test_others_see_and_decide_nothing(place: Scene) -> None:
    """A user in none of the groups is told who may, and nothing else."""
    with terminal(place) as made:
        for path in (made.directory, *made.directory.parents[:-2], made.directory / "run"):
            path.chmod(path.stat().st_mode | 0o055)
        Client(made.desk, hold())
        for verb in ("approvals", "approval", "approve", "deny"):
            words = ["/usr/bin/python3", "-c", ASK % verb, str(made.directory / "run" / "enforcer" / "approvals.sock")]
            done = subprocess.run(words, capture_output=True, text=True, check=False, user=AGENT, group=AGENT, extra_groups=[])
            assert "is no approver" in json.loads(done.stdout)["error"]["message"]
        assert State.PENDING is made.desk.requests()[0].state


def test_ids_are_typed_by_people() -> None:
    """Ids have no letters that look like others, and are not guessed twice."""
    ids = {new_id() for _ in range(200)}
    assert 200 == len(ids)
    assert not set("ilou") & set("".join(ids))
