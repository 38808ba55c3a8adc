"""Approval by a chat tool end to end: the real enforcer, a real receiver of webhooks, curl as a person's browser and as Slack.

What lives here: what receivers, persons, agents and targets see, and what is left on disk. What must not: the desk's inside.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.enforcer.test_approvals_role import BODY, POLICY, answered, capd, posting, until, waiting
from tests.enforcer.yard import Yard, yard
from tests.requirements import require_command, require_root

RECEIVER = Path(__file__).parent / "webhook_receiver.py"
HOOKS, LINKS = 9443, 9080
BASE = "http://127.0.0.1:9080/capd"
SECRET, SLACK_SECRET = b"0123456789abcdef0123456789abcdef", b"8f742231b10e8888abcd99yyyzzz85a5"
ANN, BEN = "daemon", "games"
"""Users that every Debian has, each in a group of its name."""
CONFIGURATION = f"""\
approvers = ["{ANN}", "{BEN}"]
[approvals]
listen = "127.0.0.1:{LINKS}"
base_url = "{BASE}"
[[approvals.webhooks]]
name = "bot"
url = "https://127.0.0.1:{HOOKS}/hook"
secret_file = "DIR/bot.secret"
ca_file = "DIR/tls/ca.pem"
approver = "{ANN}"
rules = ["pay"]
[[approvals.webhooks]]
name = "chat"
format = "slack"
url_file = "DIR/chat.url"
secret_file = "DIR/chat.secret"
ca_file = "DIR/tls/ca.pem"
slack_users = {{ U0BEN = "{BEN}", U0GONE = "no-such-user" }}
rules = ["pay"]
[[approvals.webhooks]]
name = "flaky"
url = "https://127.0.0.1:{HOOKS}/flaky"
secret_file = "DIR/bot.secret"
ca_file = "DIR/tls/ca.pem"
rules = ["quick"]
[[approvals.webhooks]]
name = "refuses"
url = "https://127.0.0.1:{HOOKS}/refuses"
secret_file = "DIR/bot.secret"
ca_file = "DIR/tls/ca.pem"
rules = ["quick"]
[[approvals.webhooks]]
name = "distrusted"
url = "https://127.0.0.1:{HOOKS}/never"
secret_file = "DIR/bot.secret"
rules = ["quick"]
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Yard]:
    """Make one for all tests here."""
    require_root()
    require_command("nft", "nsenter", "setpriv", "curl", "openssl")
    with TemporaryDirectory(prefix="capd-yard-") as name, _receiving(Path(name)) as made:
        yield made


@contextmanager
def _receiving(directory: Path) -> Iterator[Yard]:
    for file, content in (
        ("bot.secret", SECRET),
        ("chat.secret", SLACK_SECRET),
        ("chat.url", f"https://127.0.0.1:{HOOKS}/services/T0/B0/x\n".encode()),
    ):
        (directory / file).write_bytes(content)
        (directory / file).chmod(0o600)
    receivers: list[subprocess.Popen[bytes]] = []

    def receive(made: Yard) -> None:
        tls = made.certificates
        words = [sys.executable, "-P", str(RECEIVER), tls.certificate, tls.key, str(HOOKS), directory / "received"]
        receiver = subprocess.Popen([*made.within, *map(str, words)], stdout=subprocess.PIPE)
        receivers.append(receiver)
        assert receiver.stdout is not None
        assert b"ready\n" == receiver.stdout.readline()

    try:
        with yard(directory, POLICY, CONFIGURATION.replace("DIR", str(directory)), receive) as made:
            yield made
    finally:
        for receiver in receivers:
            receiver.kill()
            receiver.communicate()


def received(place: Yard, path: str) -> list[dict[str, Any]]:
    """Give what came for a path of the receiver."""
    file = place.directory / "received"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [found for line in lines if (found := json.loads(line))["path"] == path]


def told(place: Yard, request: str, event: str) -> dict[str, Any]:
    """Wait until the bot was told of an event, and give what it got."""

    def found() -> list[dict[str, Any]]:
        events = ((one, json.loads(one["body"])) for one in received(place, "/hook"))
        return [one | {"json": body} for one, body in events if (body["request"]["id"], body["event"]) == (request, event)]

    until(lambda: bool(found()))
    first, *again = found()  # a kill in between may have it come twice, and the receiver can tell
    assert {first["json"]["delivery"]} == {one["json"]["delivery"] for one in (first, *again)}
    return first


def curl(place: Yard, url: str, *words: str, inside: bool = False) -> tuple[int, str]:
    """Ask as a person's browser, or as a process of the run; give status and body, status 0 without an answer."""
    command = [*place.within, "curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}", *words, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=place.enter if inside else None)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def confirmation(page: str) -> str:
    """Give what the page's form has."""
    found = re.search(r'name="confirm" value="([^"]+)"', page)
    assert found is not None, page
    return found[1]


def callbacks(place: Yard) -> dict[str, Any]:
    """Give what the process of links says of itself."""
    found = json.loads((place.directory / "run" / "enforcer" / "callbacks" / "status.json").read_bytes())
    assert isinstance(found, dict)
    return found


def test_a_link_decides_once(place: Yard) -> None:
    """The receiver verifies what it gets; a GET decides nothing; a POST has it go once; a second is told so, also later."""
    with posting(place, "/pay/link?token=abcdefgh1234", BODY, "-H", "Authorization: Bearer s3cret-s3cret") as agent:
        request = waiting(place, "/pay/link?token=abcdefgh1234")
        got = told(place, request["id"], "asked")
        fields, raw = got["fields"], got["body"].encode()
        signed = f"v1:{fields['x-capd-timestamp']}:".encode() + raw
        assert f"v1={hmac.digest(SECRET, signed, 'sha256').hex()}" == fields["x-capd-signature"]
        assert abs(time.time() - int(fields["x-capd-timestamp"])) < 300
        assert (got["json"]["delivery"], "asked") == (fields["x-capd-delivery"], fields["x-capd-event"])
        assert not {"s3cret-s3cret", "abcdefgh1234"} & set(re.split(r"[^a-z0-9-]", got["body"]))
        links = got["json"]["links"]
        assert (ANN, True) == (links["approver"], links["approve"].startswith(f"{BASE}/link/"))
        assert ('"amount": 5', True) == (got["json"]["request"]["body_text"][1:12], got["json"]["request"]["body_whole"])
        for _ in range(2):
            status, page = curl(place, links["approve"])
            assert (200, True) == (status, "POST https://api.test:443/pay/link" in page), page
        assert "s3cret-s3cret" not in page
        assert f"Approve as {ANN}" in page
        assert "pending" == waiting(place, "/pay/link?token=abcdefgh1234")["state"]
        assert 403 == curl(place, links["approve"], "-d", "confirm=x")[0]
        form = ("-d", f"confirm={confirmation(page)}")
        assert 403 == curl(place, links["approve"], *form, "-H", "Origin: https://evil.test")[0]
        assert 421 == curl(place, links["approve"], *form, "-H", "Host: evil.test")[0]
        status, page = curl(place, links["approve"], *form, "-H", "Origin: http://127.0.0.1:9080")
        assert (200, True) == (status, f"was approved by {ANN}" in page), page
        assert ("200", 1) == ((answer := answered(agent))[0].split()[1], answer[1]["times"])
    for verb in ("approve", "deny"):
        status, page = curl(place, links[verb], *form)
        assert (410, verb == "approve") == (status, "This link was used" in page), page
    assert 410 == curl(place, links["approve"])[0]
    assert "approved" == told(place, request["id"], "approved")["json"]["event"]
    decision = [one for one in place.entries() if one["kind"] == "decision" and one.get("allowed")][-1]
    approval = decision["approval"]
    assert isinstance(approval, dict)
    assert (request["id"], ANN) == (approval["id"], approval["by"])
    assert re.fullmatch(f"{ANN}: webhook bot, link [0-9a-f]{{16}}", approval["via"])
    assert f"{ANN}" in capd(place, "approvals", request["id"])
    place.kill(signal.SIGKILL)
    place.start()
    until(lambda: 410 == curl(place, links["approve"], *form)[0])
    assert "This link was used" in curl(place, links["approve"], *form)[1]


def test_a_link_denies_with_a_reason(place: Yard) -> None:
    """The agent reads the reason that a person gave on the page, and the other link is void."""
    with posting(place, "/pay/no") as agent:
        links = told(place, waiting(place, "/pay/no")["id"], "asked")["json"]["links"]
        form = ("-d", f"confirm={confirmation(curl(place, links['deny'])[1])}&reason=not+in%0Aproduction")
        assert 200 == curl(place, links["deny"], *form)[0]
        told_agent = answered(agent)[1]
    assert ("denied_by_person", f"denied by {ANN}: not in production") == (told_agent["reason"], told_agent["message"])
    assert 410 == curl(place, links["approve"])[0]


def test_killed_between_page_and_answer(place: Yard) -> None:
    """All of the enforcer is killed after the page was shown: the link still counts, once, and nobody is told anew."""
    with posting(place, "/pay/killed") as agent:
        request = waiting(place, "/pay/killed")
        links = told(place, request["id"], "asked")["json"]["links"]
        form = ("-d", f"confirm={confirmation(curl(place, links['approve'])[1])}")
        place.kill(signal.SIGKILL)
        assert agent.wait(180) != 0
    place.start()
    until(lambda: 200 == curl(place, links["approve"])[0])
    command = [*place.within, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *form, links["approve"]]
    racing = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    assert [b"200", b"410", b"410", b"410"] == sorted(one.communicate(timeout=180)[0] for one in racing)
    with posting(place, "/pay/killed") as agent:
        assert ("200", 1) == ((answer := answered(agent))[0].split()[1], answer[1]["times"])
    told(place, request["id"], "approved")


def press(place: Yard, value: str, user: str, secret: bytes = SLACK_SECRET, age: int = 0) -> int:
    """Press a button as Slack would, and give the status."""
    action = {"action_id": "capd-approve", "value": value}
    answer_url = f"https://127.0.0.1:{HOOKS}/actions/{user}"
    payload = {"type": "block_actions", "user": {"id": user}, "actions": [action], "response_url": answer_url}
    body = urlencode({"payload": json.dumps(payload)})
    now = str(int(time.time()) - age)
    signature = hmac.digest(secret, f"v0:{now}:{body}".encode(), "sha256").hex()
    fields = (f"X-Slack-Request-Timestamp: {now}", f"X-Slack-Signature: v0={signature}")
    words = [word for field in fields for word in ("-H", field)]
    return curl(place, f"{BASE}/slack/chat", *words, "--data-binary", body)[0]


def test_slack(place: Yard) -> None:
    """Slack gets blocks with buttons; only what it signed, of a user who is known, decides; it is told what came of it."""
    with posting(place, "/pay/slack") as agent:
        request = waiting(place, "/pay/slack")

        def message() -> list[dict[str, Any]]:
            return [one for one in received(place, "/services/T0/B0/x") if f"{request['id']} waits" in one["body"]]

        until(lambda: bool(message()))
        blocks = json.loads(message()[0]["body"])["blocks"]
        assert "/pay/slack" in json.dumps(blocks)
        buttons = {one["text"]["text"]: one["value"] for one in blocks[-1]["elements"]}
        assert ["Approve", "Deny"] == list(buttons)
        approve = buttons["Approve"]
        assert 401 == press(place, approve, "U0BEN", b"x" * 32)
        assert 401 == press(place, approve, "U0BEN", age=301)
        assert 404 == curl(place, f"{BASE}/slack/bot", "-d", "x")[0]
        assert 409 == curl(place, f"{BASE}/link/{approve}")[0]
        for user, words in (("U0EVE", "speaks for nobody"), ("U0GONE", "there is no user")):
            assert 200 == press(place, approve, user)
            until(lambda user=user: bool(received(place, f"/actions/{user}")))  # type: ignore[misc] # bound at once
            assert words in received(place, f"/actions/{user}")[0]["body"]
        assert "pending" == waiting(place, "/pay/slack")["state"]
        assert 200 == press(place, approve, "U0BEN")
        assert ("200", 1) == ((answer := answered(agent))[0].split()[1], answer[1]["times"])
    until(lambda: bool(received(place, "/actions/U0BEN")))
    shown = json.loads(received(place, "/actions/U0BEN")[0]["body"])
    assert (True, True) == (shown["replace_original"], f"was approved by {BEN}" in shown["text"])
    assert 200 == press(place, approve, "U0BEN")
    until(lambda: len(received(place, "/actions/U0BEN")) > 1)
    assert "was used already" in received(place, "/actions/U0BEN")[1]["body"]
    (found,) = json.loads(capd(place, "approvals", request["id"], "--json"))["channels"]
    assert (BEN, "chat", "U0BEN") == (found["by"], found["webhook"], found["user"])


def test_failing_receivers(place: Yard) -> None:
    """What fails is tried again, what is refused or not trusted is not taken for sent, and the status tells of it."""
    with posting(place, "/quick") as agent:
        assert "approval_pending" == answered(agent)[1]["reason"]
    until(lambda: [503, 503, 200] == [one["status"] for one in received(place, "/flaky")][:3])
    same = {one["fields"]["x-capd-delivery"] for one in received(place, "/flaky")[:3]}
    assert 1 == len(same)

    def tallies() -> dict[str, Any]:
        return {one["name"]: one for one in callbacks(place)["webhooks"]}

    until(lambda: tallies()["flaky"]["delivered"] == 1 and tallies()["distrusted"]["retried"] > 0)
    found = tallies()
    assert (2, 0, "") == (found["flaky"]["retried"], found["flaky"]["failed"], found["flaky"]["last_error"])
    assert (0, 1, "it answered 400") == (
        found["refuses"]["retried"],
        found["refuses"]["failed"],
        found["refuses"]["last_error"].partition(": ")[2],
    )
    assert "certificate is not trusted" in found["distrusted"]["last_error"]
    assert [] == received(place, "/never")
    assert "" == callbacks(place)["problem"]
    status = place.status()["callbacks"]
    assert isinstance(status, dict)
    assert "reading" == status["confinement"]


def test_nobody_waits_for_the_process_of_links(place: Yard) -> None:
    """While the process of links hangs a person decides as ever; when it is killed another goes on, and links still count."""
    with posting(place, "/pay/hangs") as agent:
        request = waiting(place, "/pay/hangs")
        told(place, request["id"], "asked")
        pid = callbacks(place)["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            capd(place, "approve", request["id"])
            assert "200" == answered(agent)[0].split()[1]
        finally:
            os.kill(pid, signal.SIGKILL)
    told(place, request["id"], "approved")
    until(lambda: callbacks(place)["pid"] != pid)
    with posting(place, "/pay/after") as agent:
        links = told(place, waiting(place, "/pay/after")["id"], "asked")["json"]["links"]
        form = ("-d", f"confirm={confirmation(curl(place, links['approve'])[1])}")
        assert 200 == curl(place, links["approve"], *form)[0]
        assert "200" == answered(agent)[0].split()[1]


def test_it_ends_when_it_is_told(place: Yard) -> None:
    """Told to end, the process of links ends without a complaint, and what it told is on disk for the next."""
    place.kill(signal.SIGTERM)
    assert "callbacks:" not in (place.directory / "enforcer.log").read_text(encoding="utf-8")
    kept = json.loads((place.state / "enforcer" / "callbacks" / "told.json").read_bytes())
    assert {"bot", "chat"} <= set(kept)
    place.start()


def test_agents_do_not_come_near(place: Yard) -> None:
    """A run cannot ask the listener: the policy denies it, and what comes from its cgroup is hung up on."""
    with posting(place, "/pay/near") as agent:
        links = told(place, waiting(place, "/pay/near")["id"], "asked")["json"]["links"]
        done = place.agent("curl", "-sS", "--max-time", "5", links["approve"])
        assert b'"rule":"capd:callbacks-' in done.stdout, done
        before = callbacks(place)["connections"].get("agent", 0)
        assert (0, "") == curl(place, links["approve"], inside=True)
        until(lambda: callbacks(place)["connections"].get("agent") == before + 1)
        assert 200 == curl(place, links["approve"])[0]
        agent.kill()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("-X", "PUT"), 405),
        (("-d", "confirm=x&confirm=y"), 400),
        (("-d", "{}", "-H", "Content-Type: application/json"), 400),
        (("-H", f"X-Long: {'x' * 40_000}"), 431),
    ],
    ids=["method", "twice", "type", "long"],
)
def test_what_is_no_answer(place: Yard, words: tuple[str, ...], status: int) -> None:
    """What no page of ours sends is refused with a status that says so."""
    assert status == curl(place, f"{BASE}/link/a.b", *words)[0]


@pytest.mark.parametrize(
    "path", ["/", "/capd", "/capd/", "/capd/link/", "/capd/link/a.b", "/capd/link/../link/a", "/capd/slack/x"]
)
def test_nothing_else_is_there(place: Yard, path: str) -> None:
    """There is nothing to find beside links."""
    status, page = curl(place, f"http://127.0.0.1:{LINKS}{path}", "--path-as-is")
    assert (status in {404, 405}, False) == (True, "api.test" in page)
