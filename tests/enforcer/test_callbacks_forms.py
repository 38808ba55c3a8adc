"""What leaves the host: signatures, the public form with secrets masked, Slack's blocks within Slack's limits, pages.

What lives here: values. What must not: sending.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capd.enforcer.approvals.listing import to_json
from capd.enforcer.callbacks import generic, page, slack
from capd.enforcer.callbacks.link import Link, Says, token
from capd.enforcer.callbacks.notice import BODY_CHARACTERS_MAX, Notice, event_of, masked, notice
from capd.enforcer.callbacks.signature import AGE_SECONDS_MAX, is_from_slack, signed
from capd.enforcer.callbacks.slack_action import Press, read_press
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.proxy.judge import judge
from capd.enforcer.proxy.question import Body
from capd.recording.visible_text import HARMLESS_SPACES
from tests.cli.test_json import documented
from tests.enforcer.asking import Client, Scene
from tests.enforcer.test_proxy_judge import AGENT, API, request

RULES = Rules(Choice())
CONTEXT = {"previous": [{"at_ns": 10**18, "said": "GET api.test/a", "outcome": "allowed"}], "processes": []}
TEXT = st.text(max_size=200)
SLACK_SECRET = b"8f742231b10e8888abcd99yyyzzz85a5"
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
"""The example of Slack's page about verifying requests."""
SLACK_FIELDS = {
    "x-slack-request-timestamp": "1531420618",
    "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
}
LINK = Link(request="r" * 10, action=b"a" * 32, says=Says.APPROVE, webhook="w" * 32, approver="", until_s=9**9)
LINKS = {says.value: token(b"k" * 32, replace(LINK, says=says)) for says in Says}


def public(place: Scene, body: bytes = b"", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - facts of a request
    """Give the form that a request which waits has on this host."""
    desk = place.desk()
    content = Body(content=body, complete=True)
    held = judge(API, replace(AGENT, uid=2000), request("PUT", body=content, **more), proven=True).held
    assert held is not None
    client = Client(desk, replace(held, shown={**held.shown, **CONTEXT}))
    latest, kept = desk.named(client.last.id)
    return to_json(latest, place.clock(), clients=1, body=kept)


def found(place: Scene, body: bytes = b"", **more: Any) -> Notice:  # noqa: ANN401 - as above
    """Give the notice of a request that waits."""
    return notice(public(place, body, **more), RULES)


def written(base: dict[str, Any], text: str, body: bytes) -> Notice:
    """Give the notice of a request in which an agent wrote a text wherever it can."""
    facts = {
        "url": f"https://api.test:443/{text}",
        "operation": text,
        "fields": [["Content-Type", "text/plain"], [text, text]],
        "previous": [{"at_ns": 10**18, "said": text, "outcome": text}],
        "run_name": text,
        "labels": {text: text},
        "resources": [text],
        "problems": [text],
        "reason": text,
        "body": b64encode(body).decode(),
        "body_bytes": len(body),
    }
    return notice({**base, **facts}, RULES)


@pytest.fixture
def place(tmp_path: Path) -> Scene:
    """Give an empty directory."""
    return Scene(tmp_path)


@pytest.fixture
def base(place: Scene) -> dict[str, Any]:
    """Give a request that waits."""
    return public(place)


# -- signatures ----------------------------------------------------------------------------------------------------------------


def test_slacks_own_example() -> None:
    """The example that Slack publishes is genuine, and so it is five minutes before and after, not longer."""
    at = int(SLACK_FIELDS["x-slack-request-timestamp"])
    for now in (at, at - AGE_SECONDS_MAX, at + AGE_SECONDS_MAX):
        assert is_from_slack(SLACK_SECRET, SLACK_FIELDS, SLACK_BODY, now)
    for now in (at - AGE_SECONDS_MAX - 1, at + AGE_SECONDS_MAX + 1):
        assert not is_from_slack(SLACK_SECRET, SLACK_FIELDS, SLACK_BODY, now)


@pytest.mark.parametrize(
    ("fields", "body", "secret"),
    [
        ({}, SLACK_BODY + b"x", SLACK_SECRET),
        ({}, b"", SLACK_SECRET),
        ({}, SLACK_BODY, SLACK_SECRET[:-1]),
        ({"x-slack-request-timestamp": "1531420619"}, SLACK_BODY, SLACK_SECRET),
        ({"x-slack-request-timestamp": " 1531420618"}, SLACK_BODY, SLACK_SECRET),
        ({"x-slack-request-timestamp": "+1531420618"}, SLACK_BODY, SLACK_SECRET),
        ({"x-slack-request-timestamp": "1531420618, 1531420618"}, SLACK_BODY, SLACK_SECRET),
        ({"x-slack-request-timestamp": "1" * 5_000}, SLACK_BODY, SLACK_SECRET),
        ({"x-slack-request-timestamp": "١٥٣١٤٢٠٦١٨"}, SLACK_BODY, SLACK_SECRET),
        ({"x-slack-request-timestamp": ""}, SLACK_BODY, SLACK_SECRET),
        ({"x-slack-signature": SLACK_FIELDS["x-slack-signature"].upper()}, SLACK_BODY, SLACK_SECRET),
        ({"x-slack-signature": SLACK_FIELDS["x-slack-signature"][3:]}, SLACK_BODY, SLACK_SECRET),
        ({"x-slack-signature": SLACK_FIELDS["x-slack-signature"].replace("v0", "v1")}, SLACK_BODY, SLACK_SECRET),
        ({"x-slack-signature": "v0=é"}, SLACK_BODY, SLACK_SECRET),
        ({"x-slack-signature": ""}, SLACK_BODY, SLACK_SECRET),
    ],
)
def test_what_slack_did_not_sign(fields: dict[str, str], body: bytes, secret: bytes) -> None:
    """With anything changed it is not Slack's."""
    assert not is_from_slack(secret, SLACK_FIELDS | fields, body, 1531420618)


def test_our_signature() -> None:
    """A receiver can compute the signature from what it gets, by any library; this one was made by OpenSSL."""
    made = signed(b"secret-of-sixteen", 1_800_000_000, b'{"a":1}')
    assert "v1=b10878bb563db43a85f203b79a7c8b094e60362f10f2029e7378e18b9eec2959" == made
    assert made != signed(b"secret-of-sixteen", 1_800_000_001, b'{"a":1}')


def test_deliveries_have_one_name() -> None:
    """A delivery has the same id each time, and no other has it."""
    parts = [("host", "bot", "k3m9q", "asked"), ("host", "bot", "k3m9q", "denied"), ("host", "bo", "tk3m9q", "asked")]
    assert 3 == len({generic.delivery_id(*one) for one in parts})
    assert generic.delivery_id(*parts[0]) == generic.delivery_id(*parts[0])


# -- the public form -----------------------------------------------------------------------------------------------------------


def test_secrets_stay_here(place: Scene) -> None:
    """No credential is in what leaves the host: not of a header field, the query, a body, or under an unknown name."""
    key = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    told = json.dumps(
        found(
            place,
            json.dumps({"password": "hunter22-hunter22", "note": key, "amount": 5}).encode(),
            query="access_token=abcdef0123456789&page=2",
            fields=(
                ("Content-Type", "application/json"),
                ("Authorization", "Bearer s3cret-s3cret-s3cret"),
                ("Cookie", "sid=s3cret-s3cret-s3cret"),
                ("X-Thing", key),
            ),
        )
    )
    for secret in ("hunter22", key, "abcdef0123456789", "s3cret"):
        assert secret not in told
    assert "page=2" in told
    assert r"\"amount\": 5" in told


def test_what_is_packed_is_not_told(place: Scene) -> None:
    """A body that nobody can look into is not told of."""
    told = found(place, b"\x1f\x8b\x08secret-inside", fields=(("Content-Encoding", "gzip"), ("Content-Type", "text/plain")))
    assert "*" * 16 == told["body_text"]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=400), TEXT)
def test_nothing_deceives(base: dict[str, Any], body: bytes, text: str) -> None:
    """Whatever an agent writes, no control or invisible character is in what is told, and it is JSON."""
    told = written(base, text, body)
    plain = json.dumps(told, ensure_ascii=False)
    assert told == json.loads(plain.encode())
    assert "" == "".join(letter for letter in plain if not letter.isprintable() and letter not in HARMLESS_SPACES)


def test_the_message_is_documented(place: Scene) -> None:
    """What a webhook gets stands in docs/json.md, and what stands there it gets."""
    told = found(place)
    names = ("event", "delivery", "webhook", "host", "base_url", "approver")
    message = generic.body(told, links=LINKS, **dict.fromkeys(names, "x"))
    assert documented("message to a webhook") == set(message)
    assert documented("request for approval") - {"body"} | {"body_text", "body_whole"} == set(told)
    assert documented("earlier message") == set(told["previous"][0])
    assert {"approve", "deny", "approver", "expires"} == set(message["links"])
    assert generic.body(told, links={}, **dict.fromkeys(names, "x"))["links"] is None


def test_a_long_body_is_cut_and_says_so(place: Scene) -> None:
    """A body that is longer than a message's is cut, and `body_whole` says so; an empty one is whole."""
    long = found(place, b"x" * (BODY_CHARACTERS_MAX + 1))
    assert (BODY_CHARACTERS_MAX, False) == (len(long["body_text"]), long["body_whole"])
    assert (True, "") == ((empty := found(place, b""))["body_whole"], empty["body_text"])


def test_events() -> None:
    """A state is an event; that an approval was used is none of its own."""
    states = ("pending", "approved", "used", "denied", "expired", "cancelled", "policy_changed")
    assert ["asked", "approved", "approved", *states[3:]] == [event_of(state) for state in states]


def test_masking_keeps_what_is_none() -> None:
    """What is no secret stays as it is."""
    assert "GET https://api.test/päth?q=1" == masked("GET https://api.test/päth?q=1", RULES)


# -- Slack ---------------------------------------------------------------------------------------------------------------------


def check_blocks(message: dict[str, Any]) -> None:
    """Hold a message against the limits of Slack's documentation."""
    assert 0 < len(message["text"]) <= 40_000
    assert 0 < len(message["blocks"]) <= 50
    for block in message["blocks"]:
        assert block["type"] in {"header", "section", "actions"}
        if block["type"] == "actions":
            assert 0 < len(block["elements"]) <= 25
            assert len(block["block_id"]) <= 255
            for button in block["elements"]:
                assert (len(button["text"]["text"]) <= 75, button["text"]["type"]) == (True, "plain_text")
                assert len(button["value"]) <= 2_000
                assert len(button["action_id"]) <= 255
                assert button["style"] in {"primary", "danger"}
        else:
            text = block["text"]
            assert {"type", "text", "emoji"} == set(text)
            assert ("plain_text", False) == (text["type"], text["emoji"])
            assert 0 < len(text["text"]) <= (150 if block["type"] == "header" else 3_000)
            rest = text["text"].replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
            assert not set(rest) & set("&<>")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=5_000), st.sampled_from(["", "<!channel>", "&" * 4_000, "<" * 8_000, "x" * 8_000]), TEXT)
def test_blocks_are_within_limits(base: dict[str, Any], body: bytes, long: str, text: str) -> None:
    """Whatever an agent writes, Slack can take the message, and none of it is markup."""
    told = written(base, long + text, body)
    check_blocks(slack.message(told, LINKS, "host.test"))
    check_blocks(slack.message({**told, "state": "denied", "denied_by": "ann", "reason": text}, {}, "host.test"))
    assert len(slack.whispered(long + text)["text"]) <= 3_000


def test_a_message_has_what_a_person_needs(place: Scene) -> None:
    """The message shows principal, run, rule, target, effects, expiry and content, and has both buttons."""
    told = found(place, b'{"amount": 5}', path="/a")
    message = slack.message(told, LINKS, "host.test")
    text = json.dumps(message)
    assert 'body, as the agent sent it:\n{"amount": 5}' in [block["text"]["text"] for block in message["blocks"][:-1]]
    for part in ("PUT https://api.test:443/a", "host: host.test", told["run"]["id"], "until: 2027-01-15T08:", "user 2000"):
        assert part in text, part
    assert all(rule in text for rule in told["rules"])
    assert ["capd-approve", "capd-deny"] == [button["action_id"] for button in message["blocks"][-1]["elements"]]
    assert [LINKS["approve"], LINKS["deny"]] == [button["value"] for button in message["blocks"][-1]["elements"]]
    assert "actions" not in [block["type"] for block in slack.message(told, {}, "host.test")["blocks"]]


def test_what_capd_adds_is_shown(base: dict[str, Any]) -> None:
    """A person sees which credential capd puts in and what it hides, on the page and in the message."""
    told = notice({**base, "credentials": ["prod-key"], "masked_by": ["hide-names"], "upgrade": "websocket"}, RULES)
    for text in (json.dumps(slack.message(told, LINKS, "h")), page.asking(told, Says.APPROVE, "ann", "c")):
        for words in ("the credential prod-key", "parts of the answer, by hide-names", "what follows is not judged"):
            assert words in text


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (b"x" * 3_001, {}),
        (b"<" * 800, {}),
        (b"x" * 20_000, {}),
        (b"", {"path": "/" + "x" * 4_000}),
        (b"", {"fields": tuple((f"X-{number}", "y" * 100) for number in range(60))}),
        (b"", {"fields": tuple((f"X-Number-{number}", "y") for number in range(250))}),
    ],
)
def test_what_is_cut_cannot_be_approved(place: Scene, body: bytes, more: dict[str, Any]) -> None:
    """What Slack cannot show in full has no button to approve; the message says so, and where all of it is."""
    message = slack.message(found(place, body, **more), LINKS, "host.test")
    check_blocks(message)
    assert ["capd-deny"] == [button["action_id"] for button in message["blocks"][-1]["elements"]]
    assert "cannot be approved here" in json.dumps(message)


def test_what_an_earlier_version_left_out_cannot_be_approved(place: Scene) -> None:
    """A request with fields that nobody was shown has no button to approve either."""
    message = slack.message({**found(place), "fields_left_out": 1}, LINKS, "host.test")
    assert ["capd-deny"] == [button["action_id"] for button in message["blocks"][-1]["elements"]]


def test_what_became_of_it(place: Scene) -> None:
    """Each end is told with who and why."""
    told = found(place)
    rows: list[tuple[dict[str, Any], str]] = [
        ({"state": "used", "approved_by": ["ann", "ben"]}, "was approved by ann, ben"),
        ({"state": "denied", "denied_by": "ann", "reason": "no & no"}, "was denied by ann (no &amp; no)"),
        ({"state": "expired", "reason": "nobody decided"}, "is expired (nobody decided)"),
        ({"state": "cancelled", "reason": ""}, "is cancelled:"),
        ({"state": "policy_changed", "reason": "the policy changed"}, "is over (the policy changed)"),
        ({"state": "pending", "approved_by": ["ann"]}, "has the yes of ann, and needs more"),
    ]
    for changed, words in rows:
        assert words in slack.ended({**told, **changed}, "h")["text"]


def payload(**changed: Any) -> bytes:  # noqa: ANN401 - anything
    """Give what Slack sends."""
    action = {"action_id": "capd-approve", "value": "v", "type": "button"}
    facts = {"type": "block_actions", "user": {"id": "U1"}, "actions": [action], "response_url": "https://x/"}
    return urlencode({"payload": json.dumps(facts | changed)}).encode()


def test_a_press_is_read() -> None:
    """A press of our button is read; another app's button and other interactions are passed over."""
    assert Press(user="U1", value="v", answer_url="https://x/") == read_press(payload())
    assert read_press(payload(type="view_submission")) is None
    assert read_press(payload(actions=[{"action_id": "other", "value": "v"}])) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"payload=",
        b"payload={",
        b"payload=[]",
        b"payload=1",
        b"\xff",
        b"a=1&payload=%7B%7D",
        payload(user={}),
        payload(user={"id": ""}),
        payload(user={"id": "U1 "}),
        payload(user={"id": ["U1"]}),
        payload(actions=[]),
        payload(actions=[{}, {}]),
        payload(actions="x"),
        b"payload=" + b"[" * 100_000,
        b"&".join([b"payload=%7B%7D"] * 20),
    ],
    ids=range(16),
)
def test_a_press_that_is_none(body: bytes) -> None:
    """What Slack would not send is refused, and nothing but refused."""
    with pytest.raises(ValueError):
        read_press(body)


# -- pages ---------------------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Keeps the tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        """Keep a tag."""
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.text += data


def test_labels_mean_nothing(base: dict[str, Any]) -> None:
    """A label whose name ends like that of a time is an agent's word like any other."""
    told = notice({**base, "labels": {"born_ns": "5", "token": "Bearer abcdefghijklmnopqrstuvwxyz012345"}}, RULES)
    assert "5" == told["labels"]["born_ns"]
    assert "abcdefghijklmnop" not in str(told["labels"])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["<script>alert(1)</script>", "</pre><form>", '"><img src=x onerror=y>', "&lt;b&gt;"]), TEXT)
def test_no_page_has_an_agents_markup(base: dict[str, Any], hostile: str, text: str) -> None:
    """Whatever an agent writes is text on the page."""
    plain, read, said = Tags(), Tags(), Tags()
    plain.feed(page.asking(written(base, "a", b"x"), Says.DENY, "ann", "c"))
    read.feed(page.asking(written(base, hostile + text, (hostile + text).encode()), Says.DENY, "ann", "c"))
    assert plain.tags == read.tags
    assert hostile in read.text
    said.feed(page.told(hostile, hostile))
    assert ["html", "head", "meta", "meta", "title", "body", "h1", "p"] == said.tags


def test_a_page_runs_nothing_and_is_kept_nowhere() -> None:
    """A page may load and run nothing, be framed by nobody, and is not kept."""
    fields = dict(page.FIELDS)
    assert "default-src 'none'" in fields["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in fields["Content-Security-Policy"]
    assert ("DENY", "no-store") == (fields["X-Frame-Options"], fields["Cache-Control"])


def test_what_is_written_from_right_to_left_turns_nothing(base: dict[str, Any]) -> None:
    """Between such letters a browser shows numbers and signs in the other order, unless it is told to keep to what was said."""
    pay = "pay('\u05d0', 100, '\u05d1')"
    told = page.asking(written(base, pay, pay.encode()), Says.APPROVE, "ann", "c")
    assert "\u05d0" in told
    assert "\u05d0" not in re.sub('<bdo dir="ltr">[^<]*</bdo>', "", told)
