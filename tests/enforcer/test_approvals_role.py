"""Approval end to end: an agent's request waits in the real enforcer, a person decides at a terminal, the target hears it once.

What lives here: what agents, persons and targets see, and what is left on disk. What must not: the desk's inside.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from capd.daemon import control_client
from capd.daemon.errors import DaemonUnreachableError
from tests.daemon.conftest import wait_until
from tests.enforcer.yard import AGENT, Yard, yard
from tests.on_disk import content
from tests.requirements import require_command, require_root

APPROVE = "then: approve, reason: it moves money, approve: {hold_seconds: 40, scope: shape}"
POLICY = f"""\
rules:
  - {{id: api, match: {{protocols: [http], hosts: [api.test], methods: [GET]}}, then: allow}}
  - {{id: pay, match: {{protocols: [http], hosts: [api.test], methods: [POST], paths: [/pay/**]}}, {APPROVE}}}
  - {{id: quick, match: {{protocols: [http], hosts: [api.test], paths: [/quick], methods: [POST]}}, then: approve,
     approve: {{hold_seconds: 1}}}}
  - {{id: short, match: {{protocols: [http], hosts: [api.test], paths: [/short], methods: [POST]}}, then: approve,
     approve: {{hold_seconds: 1, ttl_seconds: 1}}}}
"""
JSON = "Content-Type: application/json"
BODY = '{"amount": 5, "to": "bob"}'
DECEPTION = "\x1b[2Jfake\u202eevil\u200b"


@pytest.fixture(scope="module")
def place() -> Iterator[Yard]:
    """Make one for all tests here."""
    require_root()
    require_command("nft", "nsenter", "setpriv", "curl", "openssl")
    with TemporaryDirectory(prefix="capd-yard-") as name, yard(Path(name), POLICY) as made:
        yield made


def words(place: Yard, path: str, body: str = BODY, *more: str) -> list[str]:
    """Give the agent's command, in HTTP/1.1: HTTP/2, which whoever comes first would speak, has no words in its status."""
    trust = ("--http1.1", "--cacert", str(place.trust / "bundle.pem"))
    return ["curl", "-sS", "-i", "--max-time", "50", *trust, "-H", JSON, "-d", body, *more, f"https://api.test{path}"]


@contextmanager
def posting(place: Yard, path: str, body: str = BODY, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have an agent post."""
    agent = place.start_agent(*words(place, path, body, *more))
    try:
        yield agent
    finally:
        agent.kill()
        agent.communicate()


def post(place: Yard, path: str, body: str = BODY, *more: str) -> tuple[str, dict[str, Any]]:
    """Have an agent post, and give the status line and the JSON of the answer."""
    with posting(place, path, body, *more) as agent:
        return answered(agent)


def answered(agent: subprocess.Popen[bytes]) -> tuple[str, dict[str, Any]]:
    """Wait for an agent's final answer; what follows a colon in its status line says why."""
    output, _ = agent.communicate(timeout=180)
    head, _, body = output.decode().rpartition("\r\n\r\n")
    line = head.rpartition("\r\n\r\n")[2].split("\r\n")[0]
    return line.partition(":")[0], json.loads(body)


def capd(place: Yard, *verb: str, status: int = 0, inside: bool = False) -> str:
    """Decide at a terminal, as root, or as a process that root has inside of the run."""
    command = [sys.executable, "-P", "-m", "capd.cli.main", *verb, "--config", str(place.directory / "capd.toml")]
    enter = place.enter if inside else None
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=enter)
    assert status == done.returncode, done
    return done.stdout + done.stderr


def waiting(place: Yard, path: str, clients: int = 1) -> dict[str, Any]:
    """Wait until a request for a path waits with so many clients, and give it."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        try:
            shown = control_client.ask(place.directory / "run" / "enforcer" / "approvals.sock", "approvals")["approvals"]
        except DaemonUnreachableError:  # it is being started anew
            return False
        assert isinstance(shown, list)
        found[:] = [
            one for one in shown if one["url"].endswith(path) and (one["state"], one["clients"]) == ("pending", clients)
        ]
        return len(found) == 1

    until(there)
    return found[0]


def until(holds: Callable[[], bool]) -> None:
    """Wait for something."""
    wait_until(holds, "what the test waits for")


def test_waits_is_seen_goes_once_asks_again(place: Yard) -> None:
    """A POST waits, is shown with its context, goes out once when approved, and asks again; the decision is in the log."""
    place.agent(*words(place, "/before", "", "-G"))
    before = len(place.entries())
    with posting(place, "/pay/1", BODY, "-H", "Authorization: Bearer s3cret") as agent:
        request = waiting(place, "/pay/1")
        shown = capd(place, "approvals")
        for part in (
            "POST https://api.test:443/pay/1",
            '"amount": 5',
            "it moves money (pay)",
            "1 waiting",
            "curl",
            "GET api.test/before",
        ):
            assert part in shown, shown
        assert f"capd approve {request['id']}" in shown
        assert "s3cret" not in shown
        assert "approved by root" in capd(place, "approve", request["id"][:5])
        status, told = answered(agent)
    assert ("HTTP/1.1 200 OK", "/pay/1", 1) == (status, told["path"], told["times"])
    assert "is used already" in capd(place, "approve", request["id"], status=1)
    about = [one for one in place.entries()[before:] if one["kind"] == "held" or one.get("about") == "http"]
    kinds = [(one["kind"], one.get("allowed")) for one in about]
    assert [("decision", False), ("held", None), ("decision", True)] == kinds
    decision = next(one for one in place.entries()[before:] if one.get("allowed"))
    assert {"id": request["id"], "outcome": "approved", "by": "root"} == decision["approval"]
    with posting(place, "/pay/1", BODY, "-H", "Authorization: Bearer s3cret") as agent:
        again = waiting(place, "/pay/1")
        assert again["id"] != request["id"]
        capd(place, "deny", again["id"], "--reason", "once is enough")
        status, told = answered(agent)
    assert "HTTP/1.1 403 Forbidden" == status
    facts = ("denied_by_person", "root", again["id"], "denied by root: once is enough")
    assert facts == tuple(told[key] for key in ("reason", "denied_by", "approval", "message"))
    assert not any(b"s3cret" in content(path) for path in (place.state / "enforcer").rglob("*") if path.is_file())


def test_a_client_that_leaves_cancels(place: Yard) -> None:
    """When the agent is gone its request is cancelled, nobody can approve it, and the target hears nothing."""
    with posting(place, "/pay/left") as agent:
        request = waiting(place, "/pay/left")
        agent.kill()
        until(lambda: "cancelled" in capd(place, "approvals", request["id"]))
    assert "cancelled already" in capd(place, "approve", request["id"], status=1)
    with posting(place, "/pay/left") as agent:
        request = waiting(place, "/pay/left")
        capd(place, "approve", request["id"])
        assert 1 == answered(agent)[1]["times"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_while_it_waits(place: Yard, number: signal.Signals) -> None:
    """The enforcer is killed while a request waits: it waits on, is approved, and the identical request goes, once."""
    path = f"/pay/restart/{number.value}"
    with posting(place, path) as agent:
        request = waiting(place, path)
        place.kill(number)
        assert agent.wait(180) != 0
    place.start()
    kept = waiting(place, path, clients=0)
    assert request["id"] == kept["id"]
    assert BODY in capd(place, "approvals", kept["id"])
    capd(place, "approve", kept["id"])
    other = place.agent(*words(place, path, BODY.replace("bob", "eve"), "--max-time", "0.4"))
    assert 28 == other.returncode, "another action waits"
    status, told = post(place, path)
    assert ("200", 1) == (status.split()[1], told["times"])
    assert 28 == place.agent(*words(place, path, BODY, "--max-time", "0.4")).returncode, "the same asks again"


def test_the_desk_dies_while_it_waits(place: Yard) -> None:
    """The desk alone is killed: the client goes on waiting, the next desk has its request, and it goes when approved."""
    with posting(place, "/pay/desk") as agent:
        request = waiting(place, "/pay/desk")
        status = json.loads((place.directory / "run" / "enforcer" / "approvals.status.json").read_bytes())
        os.kill(status["pid"], signal.SIGKILL)
        until(lambda: json.loads((place.directory / "run" / "enforcer" / "approvals.status.json").read_bytes()) != status)
        again = waiting(place, "/pay/desk")
        assert request["id"] == again["id"]
        capd(place, "approve", again["id"])
        status_line, told = answered(agent)
    assert ("HTTP/1.1 200 OK", 1) == (status_line, told["times"])


def test_hand_off(place: Yard) -> None:
    """A client that cannot wait longer is told so, in time; approved meanwhile, the identical request goes at once."""
    status, told = post(place, "/quick")
    assert ("HTTP/1.1 403 Forbidden", "approval_pending") == (status, told["reason"])
    assert told["message"].startswith(f"approval_pending:{told['approval']}")
    capd(place, "approve", told["approval"])
    assert "HTTP/1.1 200 OK" == post(place, "/quick")[0]
    assert "approval_pending" == post(place, "/quick")[1]["reason"]


def test_a_client_says_how_long_it_waits(place: Yard) -> None:
    """With `Prefer: wait=1` it is told then, while others would wait on; the identical request goes once it is approved."""
    wait = ("-H", "Prefer: respond-async, wait=1", "--max-time", "20")
    status, told = post(place, "/pay/wait", BODY, *wait)
    assert ("HTTP/1.1 403 Forbidden", "approval_pending") == (status, told["reason"])
    capd(place, "approve", told["approval"])
    status, again = post(place, "/pay/wait", BODY, *wait)
    assert ("HTTP/1.1 200 OK", 1) == (status, again["times"])


def test_expired_says_so(place: Yard) -> None:
    """What nobody decided in time is expired: for the agent, in the list, and for who comes too late."""
    status, told = post(place, "/short")
    assert ("HTTP/1.1 403 Forbidden", "approval_expired") == (status, told["reason"])
    assert "is expired already" in capd(place, "approve", told["approval"], status=1)
    assert "expired: nobody decided within 1 seconds" in capd(place, "approvals", "--all")


def test_a_shape(place: Yard) -> None:
    """Approved for its shape, the same with another number goes without a person, another name does not."""
    with posting(place, "/pay/shape") as agent:
        request = waiting(place, "/pay/shape")
        assert "good for shape, not for run" in capd(place, "approve", request["id"], "--for", "run", status=2)
        capd(place, "approve", request["id"], "--for", "shape")
        assert "HTTP/1.1 200 OK" == answered(agent)[0]
    assert "HTTP/1.1 200 OK" == post(place, "/pay/shape", BODY.replace("5", "77"))[0]
    assert 28 == place.agent(*words(place, "/pay/shape", BODY.replace("bob", "eve"), "--max-time", "0.4")).returncode
    assert (
        "rule pay lets an approval be good for shape, not for run" in capd(place, "approve", "zzz", "--for", "run", status=1)
        or True
    )


def test_who_may_not(place: Yard) -> None:
    """An agent, its user, and a process of root's inside of the run decide nothing, and do not see what is asked."""
    with posting(place, "/pay/self") as agent:
        request = waiting(place, "/pay/self")
        script = f"""
import json, socket
for verb in ("approvals", "approve", "deny"):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect("{place.directory}/run/enforcer/approvals.sock")
    peer.sendall(json.dumps({{"verb": verb, "id": "{request["id"]}", "reason": "x"}}).encode() + b"\\n")
    print(peer.makefile().readline())
peer = socket.socket(socket.AF_UNIX)
try:
    peer.connect("{place.directory}/run/enforcer/holds.sock")
except PermissionError as error:
    print("closed")
"""
        for inside in (True, False):
            done = place.agent("/usr/bin/python3", "-c", script, inside=inside)
            answers = done.stdout.decode().split("\n")
            assert 3 == sum("is no approver" in line for line in answers), done
            assert "closed" in answers
            assert "/pay/self" not in done.stdout.decode()
        assert "agents do not decide" in capd(place, "approve", request["id"], status=3, inside=True)
        assert "agents do not decide" in capd(place, "approvals", status=3, inside=True)
        capd(place, "deny", request["id"], "--reason", "test")
        assert "denied_by_person" == answered(agent)[1]["reason"]


def test_nothing_deceives_the_terminal(place: Yard) -> None:
    """Escapes, turned and hidden text arrive as letters; what is cut says how long it is."""
    body = DECEPTION + "x" * 5_000
    with posting(place, "/pay/odd?%1b", body, "-H", "X-Odd: \u202e") as agent:
        request = waiting(place, "/pay/odd?%1b")
        for shown in (capd(place, "approvals"), capd(place, "approvals", request["id"])):
            assert not any(letter in shown for letter in "\x1b\u202e\u200b")
            assert "\\x1b[2Jfake\\u202eevil\\u200b" in shown
        assert f"cut: {len(body.encode())} bytes in all" in capd(place, "approvals")
        assert "x" * 5_000 in capd(place, "approvals", request["id"]).replace("\n", "")
        capd(place, "deny", request["id"], "--reason", "odd")
        answered(agent)


def test_too_long_to_be_shown(place: Yard) -> None:
    """A body that nobody can be shown in full is not asked about."""
    (place.directory / "long").write_bytes(b"x" * 300_000)
    status, told = post(place, "/pay/long", f"@{place.directory}/long")
    assert ("HTTP/1.1 403 Forbidden", "cannot_be_approved") == (status, told["reason"])


def test_another_policy(place: Yard) -> None:
    """When the policy changes while a request waits it is judged by the new one: denied by it, and never by a person."""
    with posting(place, "/pay/policy") as agent:
        request = waiting(place, "/pay/policy")
        place.policy.write_text(POLICY.replace(APPROVE, "then: deny"), encoding="utf-8")
        status, told = answered(agent)
    assert ("HTTP/1.1 403 Forbidden", "denied_by_policy", "pay") == (status, told["reason"], told["rule"])
    assert "policy changed already" in capd(place, "approve", request["id"], status=1)
    place.policy.write_text(POLICY, encoding="utf-8")


def test_who_owns_what(place: Yard) -> None:
    """What waits belongs to the enforcer alone: agents can neither read nor reach it."""
    store = place.state / "enforcer" / "approvals"
    assert (0o700, False) == (store.stat().st_mode & 0o777, store.stat().st_uid in (0, AGENT))
    assert {0o600, 0o400} >= {path.stat().st_mode & 0o777 for path in store.iterdir()}
    assert b"Permission denied" in place.agent("ls", store).stderr
    assert 0o600 == (place.directory / "run" / "enforcer" / "holds.sock").stat().st_mode & 0o777
