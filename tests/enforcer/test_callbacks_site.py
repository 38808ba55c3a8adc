"""The listener's replies as values, and when messages are sent: nothing here has a socket.

What lives here: requests against replies, the outbox against a clock. What must not: HTTP's framing.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.callbacks.address import same_origin
from capd.enforcer.callbacks.outbox import GIVE_UP_SECONDS, LONGEST_SECONDS, QUEUE_MAX, TOLD_MAX, Outbox, pause_seconds
from capd.enforcer.callbacks.own_rules import own_rules
from capd.enforcer.callbacks.pace import Pace
from capd.enforcer.callbacks.site import STATUSES, Asked, Site
from capd.enforcer.policy.policy import read_policy
from capd.enforcer.policy.written_action import Circumstances, written_action

BASE = "https://approve.test/capd"
FORM = {"content-type": "application/x-www-form-urlencoded"}
HOST = {"host": "approve.test"}
NOTICE = {
    "id": "k3m9q",
    "state": "pending",
    "operation": "POST",
    "url": "https://api.test/pay",
    "upgrade": None,
    "principal": None,
    "run": {"id": "r", "uid": 1},
    "run_name": None,
    "effects": None,
    "problems": [],
    "why": "money",
    "rules": ["pay"],
    "previous": [],
    "expires": "2027",
    "body_bytes": 0,
    "body_text": "",
    "fields": [],
    "fields_left_out": 0,
    "approved_by": ["ann"],
    "demands": [{"rule": "pay", "quorum": 2, "yeses": 1, "groups": ["finance"]}],
    "reason": "",
}
SECRET = b"s" * 32
FIELDS = st.dictionaries(st.sampled_from(["host", "origin", "content-type"]), st.text(max_size=30))


class Desk:
    """Answers as it is told, and keeps what it was asked."""

    def __init__(self, refusal: str = "", *, gone: bool = False) -> None:
        self.asked: list[tuple[str, dict[str, object]]] = []
        self._refusal, self._gone = refusal, gone

    def __call__(self, verb: str, **fields: object) -> Mapping[str, Any]:
        """Answer."""
        self.asked.append((verb, fields))
        if self._gone:
            raise ConnectionRefusedError
        if self._refusal:
            return {"refused": self._refusal, "message": "no", "hint": "do else"}
        link = {"says": "approve", "approver": "ann", "confirm": "c"}
        return {"link": link, "request": NOTICE | {"state": "pending" if verb == "link" else "used"}}


def site(desk: Desk, base: str = BASE) -> Site:
    """Give a site at 1,000 seconds."""
    return Site(base, {"chat": SECRET}, "host.test", desk, lambda: 1_000.0)


def post(target: str = "/capd/link/t", body: bytes = b"confirm=c", **fields: str) -> Asked:
    """Give what our page sends."""
    more = {name.replace("_", "-"): value for name, value in fields.items()}
    return Asked(method="POST", target=target, fields=HOST | FORM | more, body=body)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_get_only_looks(method: str) -> None:
    """A GET asks the desk to show, and nothing else."""
    desk = Desk()
    reply = site(desk).answer(Asked(method=method, target="/capd/link/t", fields=HOST))
    assert (200, "shown", [("link", {"token": "t"})]) == (reply.status, reply.why, desk.asked)
    assert 'value="c"' in reply.body
    assert "1 person of finance (rule pay)" in reply.body


def test_a_post_decides() -> None:
    """A POST hands the link, the page's word and the reason to the desk."""
    desk = Desk()
    reply = site(desk).answer(post(body=b"confirm=c&reason=a+b"))
    assert (200, "decided") == (reply.status, reply.why)
    assert [("use_link", {"token": "t", "confirm": "c", "reason": "a b"})] == desk.asked
    assert "was approved by ann" in reply.body


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (post(host="evil.test"), 421),
        (post(host="approve.test:8443"), 421),
        (post(host=""), 421),
        (post(host="approve.test, evil.test"), 421),
        (post(host="ann@approve.test"), 421),
        (post(host="[::1"), 421),
        (post(host="approve.test:x"), 421),
        (Asked(method="GET", target="/capd/link/t"), 421),
        (post(origin="https://evil.test"), 403),
        (post(origin="http://approve.test"), 403),
        (post(origin="null"), 403),
        (post(origin=""), 403),
        (post(sec_fetch_site="cross-site"), 403),
        (post(sec_fetch_site="same-site"), 403),
        (post(sec_fetch_site="none"), 403),
        (post(content_type="text/plain"), 400),
        (post(body=b"confirm=a&confirm=c"), 400),
        (post(body=b"confirm"), 400),
        (post(body=b"confirm=\xff"), 400),
        (post(body=b"&".join(b"a%d=1" % number for number in range(20))), 400),
        (post("/capd/link/" + "t" * 2_000), 404),
        (post("/link/t"), 404),
        (post("/capd"), 404),
        (post("/capd/"), 404),
        (post("https://approve.test/capd/link/t"), 404),
        (Asked(method="DELETE", target="/capd/link/t", fields=HOST), 405),
        (Asked(method="GET", target="/capd/slack/chat", fields=HOST), 405),
        (post("/capd/slack/bot"), 404),
        (post("/capd/slack/chat"), 401),
    ],
    ids=range(29),
)
def test_what_is_refused_before_the_desk_is_asked(asked: Asked, status: int) -> None:
    """What our page or Slack did not send never reaches the desk."""
    desk = Desk()
    reply = site(desk).answer(asked)
    assert (status, []) == (reply.status, desk.asked)
    assert reply.why not in {"", "shown", "decided"}


@pytest.mark.parametrize(
    "fields", [{}, {"origin": "https://approve.test"}, {"origin": "HTTPS://Approve.Test", "sec-fetch-site": "same-origin"}]
)
def test_what_a_browser_sends(fields: dict[str, str]) -> None:
    """A browser's answer from our page is taken, and so is one of a program that says nothing of origins."""
    for host in ("approve.test", "Approve.Test:443"):
        assert "decided" == site(Desk()).answer(replace(post(), fields=FORM | {"host": host} | fields)).why


@pytest.mark.parametrize("refusal", [*STATUSES, "SomeDefect"])
def test_refusals_of_the_desk(refusal: str) -> None:
    """Each refusal has its status, and the page has the desk's words."""
    reply = site(Desk(refusal)).answer(post())
    assert (STATUSES.get(refusal, 500), refusal) == (reply.status, reply.why)
    assert "no. do else" in reply.body


def test_without_a_desk() -> None:
    """Where the desk does not answer the page says that nothing was decided."""
    reply = site(Desk(gone=True)).answer(post())
    assert (503, "unreachable", True) == (reply.status, reply.why, "nothing was decided" in reply.body)


def press(secret: bytes = SECRET, **changed: Any) -> Asked:  # noqa: ANN401 - anything
    """Give what Slack sends."""
    action = {"action_id": "capd-approve", "value": "t"}
    facts = {"type": "block_actions", "user": {"id": "U1"}, "actions": [action], "response_url": "https://hooks.test/x"}
    body = urlencode({"payload": json.dumps(facts | changed)}).encode()
    signature = "v0=" + hmac.digest(secret, b"v0:1000:" + body, "sha256").hex()
    return post("/capd/slack/chat", body, x_slack_request_timestamp="1000", x_slack_signature=signature)


def test_a_press() -> None:
    """A press that Slack signed reaches the desk with user and webhook; Slack is told what takes the message's place."""
    desk = Desk()
    reply = site(desk).answer(press())
    asked = {"token": "t", "webhook": "chat", "user": "U1"}
    assert ([("press", asked)], 200, "decided") == (desk.asked, reply.status, reply.why)
    assert reply.tell is not None
    webhook, url, message = reply.tell
    assert ("chat", "https://hooks.test/x", True) == (webhook, url, message["replace_original"])


def test_a_press_that_does_not_count() -> None:
    """A press that the desk refuses is 200 to Slack, whose user alone is told why; the message stays."""
    reply = site(Desk("UnknownChatUserError")).answer(press())
    assert (200, "UnknownChatUserError") == (reply.status, reply.why)
    assert reply.tell is not None
    assert ("ephemeral", False, "no. do else") == tuple(
        reply.tell[2][key] for key in ("response_type", "replace_original", "text")
    )
    assert 401 == site(Desk()).answer(press(b"x" * 32)).status
    assert 400 == site(Desk()).answer(press(actions=[])).status
    assert (200, None) == ((other := site(Desk()).answer(press(type="shortcut"))).status, other.tell)


@given(
    st.text(max_size=80),
    st.text(max_size=40),
    st.dictionaries(st.sampled_from(["host", "origin", "content-type"]), st.text(max_size=30)),
)
def test_nothing_breaks_it(target: str, method: str, fields: dict[str, str]) -> None:
    """Whatever is asked, there is a reply."""
    for path in (target, f"/capd/link/{target}", f"/capd/slack/{target}"):
        body = target.encode("utf-8", "replace")
        reply = site(Desk()).answer(Asked(method=method, target=path, fields=HOST | fields, body=body))
        assert 200 <= reply.status < 600


def test_addresses_without_a_path() -> None:
    """A public address without a path, and with a port, is served at its root."""
    desk = Desk()
    reply = site(desk, "http://127.0.0.1:9080").answer(Asked(method="GET", target="/link/t", fields={"host": "127.0.0.1:9080"}))
    assert (200, 1) == (reply.status, len(desk.asked))


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("https://hooks.slack.com/a", "https://hooks.slack.com/b", True),
        ("https://hooks.slack.com/a", "https://HOOKS.slack.com:443/b", True),
        ("http://hooks.slack.com/a", "https://hooks.slack.com/b", False),
        ("https://hooks.slack.com.evil.test/", "https://hooks.slack.com/b", False),
        ("https://hooks.slack.com@evil.test/", "https://hooks.slack.com/b", False),
        ("https://hooks.slack.com:444/", "https://hooks.slack.com/b", False),
        ("https://hooks.slack.com:x/", "https://hooks.slack.com/b", False),
        ("", "https://hooks.slack.com/b", False),
        ("file:///etc/passwd", "https://hooks.slack.com/b", False),
    ],
)
def test_answers_go_where_the_webhook_is(one: str, two: str, same: bool) -> None:
    """An address that comes with a press is used only where the webhook itself is."""
    assert same is same_origin(one, two)


# -- the outbox ----------------------------------------------------------------------------------------------------------------


def change(request: str, state: str, *webhooks: str, left: float = 900.0) -> dict[str, Any]:
    """Give a change as the desk tells it."""
    return {"id": request, "state": state, "seconds_left": left, "webhooks": list(webhooks or ("bot",))}


def events(outbox: Outbox, webhook: str = "bot") -> list[tuple[str, str]]:
    """Deliver all that is due, and give what it was."""
    sent = []
    while (delivery := outbox.next(webhook, 0.0)) is not None:
        sent.append((delivery.request, delivery.event))
        outbox.delivered(delivery)
    return sent


def test_each_event_is_told_once() -> None:
    """A request is told when it is asked and when it ends, once each, to those it is for; a use is no event."""
    outbox = Outbox(["bot", "chat"], {"bot": {}, "chat": {}})
    outbox.take([change("a", "pending"), change("b", "pending", "bot", "chat"), change("c", "pending", "unknown")], 0.0)
    assert ([("a", "asked"), ("b", "asked")], [("b", "asked")]) == (events(outbox), events(outbox, "chat"))
    outbox.take([change("a", "pending"), change("a", "approved"), change("b", "denied")], 0.0)
    assert [("a", "approved"), ("b", "denied")] == events(outbox)
    outbox.take([change("a", "used"), change("b", "denied")], 0.0)
    assert [] == events(outbox)


def test_what_is_no_news_is_not_told() -> None:
    """A request that ended before anybody was told of it is told as ended alone."""
    outbox = Outbox(["bot"], {"bot": {}})
    outbox.take([change("a", "pending"), change("b", "pending")], 0.0)
    outbox.take([change("a", "used")], 0.0)
    assert [("b", "asked"), ("a", "approved")] == events(outbox)


def test_a_restart_repeats_nothing_and_forgets_nothing() -> None:
    """After a restart what was told is not told again, what was on its way is, and what ended meanwhile too."""
    outbox = Outbox(["bot"], {"bot": {}})
    outbox.take([change("a", "pending"), change("b", "pending"), change("c", "pending")], 0.0)
    first = outbox.next("bot", 0.0)
    assert first is not None
    outbox.delivered(first)
    again = Outbox(["bot"], outbox.told())
    again.take([change("a", "denied"), change("b", "pending"), change("c", "expired"), change("d", "denied")], 0.0)
    assert [("a", "denied"), ("b", "asked"), ("c", "expired"), ("d", "denied")] == events(again)


def test_a_new_webhook_hears_of_no_history() -> None:
    """A webhook of which nothing is known is told of what waits and of what ends from now on, not of what had ended."""
    outbox = Outbox(["bot"], None)
    outbox.take([change("old", "denied"), change("a", "pending")], 0.0)
    outbox.settle()
    outbox.take([change("a", "denied"), change("old", "denied"), change("new", "denied")], 0.0)
    assert [("a", "denied"), ("new", "denied")] == events(outbox)


def test_failures_are_tried_again_until_it_is_late() -> None:
    """A failure keeps its place until it is due; when time is over it is given up; what is final is at once; all is counted."""
    outbox = Outbox(["bot"], {"bot": {}})
    outbox.take([change("a", "pending", left=100.0), change("b", "denied")], 0.0)
    first = outbox.next("bot", 0.0)
    assert first is not None
    outbox.failed(first, "a: no", final=False, due=5.0, wall=1.0)
    assert (None, first) == (outbox.next("bot", 4.9), outbox.next("bot", 5.0))
    outbox.failed(first, "a: no", final=False, due=200.0, wall=2.0)
    second = outbox.next("bot", 100.0)
    assert second is not None
    assert "b" == second.request
    tally, waiting = outbox.tallies()["bot"]
    assert (2, 1, 1, "a: no", 1.0) == (tally.retried, tally.failed, waiting, tally.last_error, tally.failing_since)
    outbox.failed(second, "b: 400", final=True, due=0.0, wall=3.0)
    assert (2, 0) == (tally.failed, outbox.tallies()["bot"][1])
    outbox.take([change("c", "denied")], 0.0)
    third = outbox.next("bot", 0.0)
    assert third is not None
    outbox.delivered(third)
    assert (1, "", None) == (tally.delivered, tally.last_error, tally.failing_since)
    outbox.take([change("d", "denied")], 0.0)
    assert outbox.next("bot", GIVE_UP_SECONDS) is None


def test_what_changes_on_its_way() -> None:
    """When a request ends while it is being told, its end is told as well, whatever came of the first."""
    outbox = Outbox(["bot"], {"bot": {}})
    outbox.take([change("a", "pending")], 0.0)
    first = outbox.next("bot", 0.0)
    assert first is not None
    outbox.take([change("a", "denied")], 0.0)
    outbox.failed(first, "a: no", final=True, due=0.0, wall=1.0)
    outbox.outdated(first)
    assert [("a", "denied")] == events(outbox)


def test_queues_are_bounded() -> None:
    """However much comes while nobody listens, little is kept, and what goes is counted."""
    outbox = Outbox(["bot"], {"bot": {}})
    outbox.take([change(str(number), "denied") for number in range(TOLD_MAX + 10)], 0.0)
    tally, waiting = outbox.tallies()["bot"]
    assert (QUEUE_MAX, TOLD_MAX + 10 - QUEUE_MAX) == (waiting, tally.dropped)
    assert len(outbox.told()["bot"]) <= TOLD_MAX


@given(st.integers(0, 10_000), st.floats(0, 1), st.none() | st.floats(0, 10**9))
def test_pauses(tries: int, chance: float, asked: float | None) -> None:
    """A pause grows to a minute, is never shorter than half a second, and is what the receiver asks for up to a minute."""
    pause = pause_seconds(tries, chance, asked)
    assert 0.5 <= pause <= LONGEST_SECONDS
    assert pause >= min(asked or 0, LONGEST_SECONDS)
    assert pause_seconds(0, 1.0) <= pause_seconds(1, 1.0) <= pause_seconds(tries + 1, 1.0)


def test_pace() -> None:
    """So much at once, then so much in a second."""
    pace = Pace(2.0, 3, 0.0)
    assert [True, True, True, False] == [pace.take(0.0) for _ in range(4)]
    assert [True, False, True] == [pace.take(at) for at in (0.5, 0.6, 1.0)]
    assert [True, True, True, False] == [pace.take(99.0) for _ in range(4)]


# -- capd's own rules ----------------------------------------------------------------------------------------------------------

ALL = {"all.yaml": b"rules: [{id: all, match: {protocols: [http, tcp, tls], addresses: [0.0.0.0/0, '::/0']}, then: allow}]"}


@pytest.mark.parametrize(
    ("base", "listen", "text", "denied"),
    [
        (BASE, "127.0.0.1:9478", "GET https://approve.test/capd/link/x", True),
        (BASE, "127.0.0.1:9478", "POST https://approve.test/", True),
        (BASE, "127.0.0.1:9478", "connect approve.test:443", True),
        (BASE, "127.0.0.1:9478", "connect 127.0.0.1:9478", True),
        (BASE, "[::1]:9478", "connect [::1]:9478", True),
        (BASE, "unix:/run/x", "GET https://approve.test/x", True),
        (BASE, "127.0.0.1:9478", "GET https://approve.test:8443/", False),
        (None, None, "GET https://approve.test/x", False),
    ],
)
def test_agents_are_denied_the_listener(base: str | None, listen: str | None, text: str, denied: bool) -> None:
    """Whatever an operator allows, no run reaches links by their public name, nor where they come in."""
    policy = read_policy(ALL, own_rules(base, listen))
    decision = policy.decide(written_action(text, Circumstances()))
    assert denied is ("deny" == decision.outcome.value)
    assert denied is any(rule.startswith("capd:callbacks-") for rule in decision.carried_out.rules)
