"""Links: what makes one, what each change of one becomes, and what they do at a real desk over a real store.

What lives here: tokens and the counter at which they are used. What must not: HTTP.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.approvals.desk import Desk
from capd.enforcer.approvals.errors import (
    AlreadyDecidedError,
    ApprovalsUnwritableError,
    NotAnApproverError,
    SelfApprovalError,
)
from capd.enforcer.approvals.request import Channel, Demand, Person
from capd.enforcer.approvals.state import State
from capd.enforcer.callbacks.errors import (
    LinkElsewhereError,
    LinkExpiredError,
    LinkUnconfirmedError,
    LinkUsedError,
    UnknownChatUserError,
)
from capd.enforcer.callbacks.link import (
    TOKEN_CHARACTERS_MAX,
    Link,
    LinkForgedError,
    Says,
    confirmation,
    confirms,
    read_token,
    token,
)
from capd.enforcer.callbacks.link_counter import NO_REASON, LinkCounter
from capd.enforcer.callbacks.webhook import Webhook
from capd.enforcer.policy.rule import ApprovalScope
from capd.recording.errors import CapdError
from tests.enforcer.asking import AGENT, ANN, BEN, Client, Scene, hold

KEY = bytes(range(32))
LINK = Link(request="k3m9q", action=b"f" * 32, says=Says.APPROVE, webhook="bot", approver="ann", until_s=1_800_000_900)
GOLDEN = (
    "lwGlazNtOXHEIGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmp2FwcHJvdmWjYm90o2Fubs5rSdWE"
    ".Auqmm8cwqr_OTqa2vt2Jswhy9kpHBqDyejJXRwlR2wE"
)
BOT = Webhook(name="bot", approver="ann")
CHAT = Webhook(name="chat", users={"U1": "ann", "U2": "ben", "U3": "ann"})
PERSONS = {"ann": ANN, "ben": BEN}


def person(name: str) -> Person:
    """Find a person, as the operating system would."""
    if name not in PERSONS:
        raise NotAnApproverError(f"there is no user {name!r}")
    return PERSONS[name]


@pytest.fixture
def place(tmp_path: Path) -> Scene:
    """Give an empty directory."""
    return Scene(tmp_path)


def counter(place: Scene, desk: Desk, *webhooks: Webhook, find: Callable[[str], Person] = person) -> LinkCounter:
    """Give the counter of a desk."""
    return LinkCounter(desk, KEY, webhooks or (BOT, CHAT), find, place.clock)


def links(links: LinkCounter, desk: Desk, webhook: str = "bot") -> dict[str, str]:
    """Give the links to the latest request."""
    return links.made_for(desk.requests()[-1])[webhook]


# -- tokens --------------------------------------------------------------------------------------------------------------------


def test_the_form_is_kept() -> None:
    """A link of today is read by every later capd."""
    assert GOLDEN == token(KEY, LINK)
    assert LINK == read_token(KEY, GOLDEN)


CHANGES = {
    "request": "k3m9r",
    "action": b"g" * 32,
    "says": Says.DENY,
    "webhook": "bov",
    "approver": "bnn",
    "until_s": 1_800_000_901,
}


@pytest.mark.parametrize("field", list(CHANGES))
def test_each_field_is_signed(field: str) -> None:
    """A link with one field changed under the old signature is none; made anew it is another."""
    changed = replace(LINK, **{field: CHANGES[field]})  # type: ignore[arg-type] # one of each type
    payload, signature = token(KEY, changed).split(".")[0], GOLDEN.split(".")[1]
    with pytest.raises(LinkForgedError):
        read_token(KEY, f"{payload}.{signature}")
    assert changed == read_token(KEY, token(KEY, changed))
    assert (False, False) == (changed.id == LINK.id, confirms(KEY, changed, confirmation(KEY, LINK)))


@given(st.integers(0, len(GOLDEN) - 1), st.characters())
def test_no_letter_can_be_changed(at: int, letter: str) -> None:
    """A link with any letter changed is refused, and nothing but refused."""
    text = GOLDEN[:at] + letter + GOLDEN[at + 1 :]
    if text == GOLDEN:
        assert LINK == read_token(KEY, text)
        return
    with pytest.raises(LinkForgedError):
        read_token(KEY, text)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: urlsafe_b64encode(data).decode() + "."))
def test_anything_else_is_forged(text: str) -> None:
    """Whatever comes in place of a link is refused, and nothing but refused."""
    with pytest.raises(LinkForgedError):
        read_token(KEY, text)


@given(
    st.builds(
        Link,
        request=st.text(max_size=20),
        action=st.binary(max_size=40),
        says=st.sampled_from(Says),
        webhook=st.text(max_size=32),
        approver=st.text(max_size=32),
        until_s=st.integers(0, 1 << 40),
    ),
    st.binary(min_size=32, max_size=32),
)
def test_links_survive_their_way(link: Link, key: bytes) -> None:
    """What is signed is what is read, with that key and no other; its address holds nothing that has to be escaped."""
    text = token(key, link)
    assert link == read_token(key, text)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
    with pytest.raises(LinkForgedError):
        read_token(bytes(one ^ 1 for one in key), text)


def test_no_other_spelling_counts() -> None:
    """A link with padding, in the other base64, or signed for another use is none."""
    payload, signature = GOLDEN.split(".")
    confirm = confirmation(KEY, LINK)
    standard = urlsafe_b64decode(signature + "=")
    for text in (
        f"{payload}=.{signature}",
        f"{payload}.{signature}=",
        f"{GOLDEN}.",
        f"{GOLDEN}\n",
        f"{payload}.{signature[:-1]}N",
        f"{payload}.{confirm}",
        f"{payload}.{standard.hex()}",
        f"{payload}.",
        f".{signature}",
    ):
        with pytest.raises(LinkForgedError):
            read_token(KEY, text)


def test_another_version_is_none() -> None:
    """A payload of a version that is not known is refused although it is signed."""
    from capd.enforcer.callbacks import link as module  # noqa: PLC0415 - its inside

    payload: bytes = msgpack.packb([2, "k3m9q", b"f", "approve", "bot", "ann", 1])
    text = f"{module._text(payload)}.{module._text(module._mac(KEY, module._LINK, payload))}"
    with pytest.raises(LinkForgedError):
        read_token(KEY, text)


def test_the_longest_link_is_taken() -> None:
    """The longest names that a configuration may have make a link that is not too long."""
    longest = replace(LINK, request="k" * 10, webhook="w" * 32, approver="é" * 32, until_s=1 << 40)
    assert longest == read_token(KEY, token(KEY, longest))
    assert len(token(KEY, longest)) < TOKEN_CHARACTERS_MAX / 2


# -- at the desk ---------------------------------------------------------------------------------------------------------------


def test_an_approval_by_a_link(place: Scene) -> None:
    """A link approves once, as its person, and what is written down names webhook and link; a restart changes nothing."""
    desk = place.desk()
    client = Client(desk, hold())
    counted = counter(place, desk)
    made = links(counted, desk)
    opened = counted.open(made["approve"])
    assert ["waiting"] == client.outcomes
    request = counted.use(made["approve"], opened.confirmation, "")
    assert (State.USED, ["waiting", "approved"]) == (request.state, client.outcomes)
    assert (ApprovalScope.ONCE, "ann") == (request.scope, request.votes[0].person.name)
    channel = Channel(webhook="bot", link=opened.link.id)
    assert channel == request.votes[0].person.channel
    assert f"ann: webhook bot, link {opened.link.id}" == client.last.via
    for again in (counted, counter(place, place.desk()), counter(place, place.desk())):
        with pytest.raises(LinkUsedError):
            again.use(made["approve"], opened.confirmation, "")
        with pytest.raises(LinkUsedError):
            again.open(made["approve"])
        with pytest.raises(AlreadyDecidedError):
            again.use(made["deny"], confirmation(KEY, read_token(KEY, made["deny"])), "")
    assert {} == counted.made_for(desk.requests()[-1])["bot"]


def test_a_denial_by_a_link(place: Scene) -> None:
    """A link denies with the person's words on one line, or says that there were none."""
    for reason, told in (
        ("not\nnow\t please ", "not now please"),
        ("", NO_REASON),
        ("\x1b[2J", NO_REASON),
        ("x" * 900, "x" * 500),
    ):
        desk = place.desk()
        client = Client(desk, hold(path=f"/{len(reason)}"))
        counted = counter(place, desk)
        text = links(counted, desk)["deny"]
        counted.use(text, counted.open(text).confirmation, reason)
        assert ("denied", "ann", told) == (client.last.outcome.value, client.last.by, client.last.reason)
        assert "ann: webhook bot, link " in client.last.via


def test_opening_changes_nothing(place: Scene) -> None:
    """However often a link is looked at, nothing is written, and it can still be used."""
    desk = place.desk()
    Client(desk, hold())
    counted = counter(place, desk)
    text = links(counted, desk)["approve"]
    before = (place.directory / "requests.log").read_bytes()
    for _ in range(5):
        assert State.PENDING is counted.open(text).request.state
    assert before == (place.directory / "requests.log").read_bytes()


@pytest.mark.parametrize("given", ["", "x", "é", GOLDEN])
def test_without_the_page_nothing_is_decided(place: Scene, given: str) -> None:
    """Who did not see the page of exactly this link cannot answer by it."""
    desk = place.desk()
    Client(desk, hold())
    counted = counter(place, desk)
    made = links(counted, desk)
    for wrong in (given, counted.open(made["deny"]).confirmation):
        with pytest.raises(LinkUnconfirmedError):
            counted.use(made["approve"], wrong, "")
    assert State.PENDING is desk.requests()[-1].state


def use(counted: LinkCounter, text: str) -> None:
    """Use a link with what its page would have."""
    counted.use(text, confirmation(KEY, read_token(KEY, text)), "")


def test_a_link_ends_with_its_request(place: Scene) -> None:
    """When a request was cancelled, expired, or its policy changed, its links are void."""
    desk = place.desk()
    client = Client(desk, hold(path="/left"))
    counted = counter(place, desk)
    left = links(counted, desk)["approve"]
    desk.leave(client.waiter)
    Client(desk, hold(path="/policy"))
    changed = links(counted, desk)["approve"]
    desk.change_policy("p2")
    Client(desk, hold(path="/late", policy="p2"))
    late = links(counted, desk)["approve"]
    place.clock.pass_seconds(899)
    counted.open(late)
    place.clock.pass_seconds(2)
    for text, error in ((left, AlreadyDecidedError), (changed, AlreadyDecidedError), (late, LinkExpiredError)):
        with pytest.raises(error):
            use(counted, text)
    desk.tick()
    with pytest.raises(AlreadyDecidedError):
        use(counted, late)


def test_a_clock_that_is_set_back_gives_no_time(place: Scene) -> None:
    """A link is over when its request is, whatever the wall clock shows by then."""
    desk = place.desk()
    Client(desk, hold())
    counted = counter(place, desk)
    text = links(counted, desk)["approve"]
    place.clock.pass_seconds(901)
    place.clock.wall_ns -= 3_600 * 10**9
    with pytest.raises(LinkExpiredError):
        use(counted, text)


def test_a_link_to_what_is_forgotten(place: Scene) -> None:
    """A link to a request that the store has no more has expired; one to another action under that id is for something else."""
    desk = place.desk()
    Client(desk, hold())
    counted = counter(place, desk)
    gone = token(KEY, replace(read_token(KEY, links(counted, desk)["approve"]), request="req9999999"))
    with pytest.raises(LinkExpiredError):
        use(counted, gone)
    other = token(KEY, replace(read_token(KEY, links(counted, desk)["approve"]), action=b"x" * 32))
    with pytest.raises(LinkElsewhereError):
        use(counted, other)
    short = token(KEY, replace(read_token(KEY, links(counted, desk)["approve"]), request="req"))
    with pytest.raises(LinkElsewhereError):
        use(counted, short)
    assert State.PENDING is desk.requests()[-1].state


@pytest.mark.parametrize(
    "webhooks",
    [(CHAT,), (Webhook(name="bot", approver="ben"),), (Webhook(name="bot"),), (Webhook(name="bot", users={"U1": "ann"}),)],
    ids=["gone", "another approver", "none", "a chat's"],
)
def test_a_configuration_that_changed(place: Scene, webhooks: tuple[Webhook, ...]) -> None:
    """A link speaks for nobody for whom its webhook does not speak any more."""
    desk = place.desk()
    Client(desk, hold())
    text = links(counter(place, desk), desk)["approve"]
    with pytest.raises(LinkElsewhereError):
        use(counter(place, desk, *webhooks), text)


@pytest.mark.parametrize(
    ("who", "asked", "error"),
    [
        (replace(ANN, uid=AGENT), {}, SelfApprovalError),
        (ANN, {"principal": ("user", "ann", "verified")}, SelfApprovalError),
        (ANN, {"principal": ("user", "ann@corp.example", "verified")}, SelfApprovalError),
        (replace(ANN, has_runs=True), {}, SelfApprovalError),
        (replace(ANN, groups=("approvers",)), {"groups": ("finance",)}, NotAnApproverError),
        (ANN, {"uid": None}, SelfApprovalError),
    ],
)
def test_a_link_gives_no_right(place: Scene, who: Person, asked: dict[str, object], error: type[CapdError]) -> None:
    """Whom the desk would not let approve at its socket it does not let approve by a link or a button."""
    desk = place.desk()
    Client(desk, hold(**asked))  # type: ignore[arg-type] # facts of an action
    counted = counter(place, desk, find=lambda _: who)
    with pytest.raises(error):
        use(counted, links(counted, desk)["approve"])
    with pytest.raises(error):
        counted.press(links(counted, desk, "chat")["approve"], "chat", "U1")
    assert State.PENDING is desk.requests()[-1].state


def test_who_is_no_approver_any_more_sees_nothing(place: Scene) -> None:
    """A link is not even shown once its person may not see what is asked."""

    def nobody(name: str) -> Person:
        raise NotAnApproverError(name)

    desk = place.desk()
    Client(desk, hold())
    text = links(counter(place, desk), desk)["approve"]
    with pytest.raises(NotAnApproverError):
        counter(place, desk, find=nobody).open(text)


def test_a_quorum_of_two(place: Scene) -> None:
    """Two persons by two ways make two yeses; one person by two ways makes one."""
    desk = place.desk()
    client = Client(desk, hold(quorum=2))
    counted = counter(place, desk)
    use(counted, links(counted, desk)["approve"])
    chat = links(counted, desk, "chat")["approve"]
    for user in ("U1", "U3"):
        with pytest.raises(AlreadyDecidedError, match="ann has approved it"):
            counted.press(chat, "chat", user)
    assert ["waiting"] == client.outcomes
    counted.press(chat, "chat", "U2")
    assert (["waiting", "approved"], "ann, ben") == (client.outcomes, client.last.by)
    assert ", user U2" in client.last.via
    with pytest.raises(LinkUsedError):
        counted.press(chat, "chat", "U2")


def test_buttons_are_no_links(place: Scene) -> None:
    """A button's value is no link, a link no button's value, and neither is another webhook's; who is not known is refused."""
    desk = place.desk()
    Client(desk, hold())
    other = replace(CHAT, name="other")
    counted = counter(place, desk, BOT, CHAT, other)
    chat, bot = links(counted, desk, "chat")["approve"], links(counted, desk)["approve"]
    with pytest.raises(LinkElsewhereError):
        counted.open(chat)
    with pytest.raises(LinkElsewhereError):
        use(counted, chat)
    for text, webhook in ((bot, "bot"), (bot, "chat"), (chat, "other")):
        with pytest.raises(LinkElsewhereError):
            counted.press(text, webhook, "U1")
    with pytest.raises(UnknownChatUserError):
        counted.press(chat, "chat", "U9")
    assert State.PENDING is desk.requests()[-1].state


def test_what_cannot_be_written_is_not_used(place: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk takes nothing a link decides nothing, and it can be used once it does again."""
    desk = place.desk()
    client = Client(desk, hold())
    counted = counter(place, desk)
    text = links(counted, desk)["approve"]
    with monkeypatch.context() as broken:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        broken.setattr("capd.enforcer.approvals.store.write_whole", full)
        broken.setattr("capd.enforcer.approvals.store.replace_content", full)
        with pytest.raises(ApprovalsUnwritableError):
            use(counted, text)
    assert ["waiting"] == client.outcomes
    use(counted, text)
    assert ["waiting", "approved"] == client.outcomes


@pytest.mark.parametrize(
    ("webhook", "serves"),
    [
        (Webhook(name="w"), True),
        (Webhook(name="w", rules=("pay",)), True),
        (Webhook(name="w", rules=("other",)), False),
        (Webhook(name="w", groups=("finance",)), True),
        (Webhook(name="w", groups=("ops", "finance")), True),
        (Webhook(name="w", groups=("ops",)), False),
        (Webhook(name="w", rules=("pay",), groups=("ops",)), False),
    ],
)
def test_whom_a_webhook_serves(place: Scene, webhook: Webhook, serves: bool) -> None:
    """A webhook is told of the requests of its rules and groups, and makes links to no others."""
    desk = place.desk()
    Client(desk, hold(groups=("finance",)))
    (request,) = desk.requests()
    assert serves is webhook.serves(request)
    assert serves is (webhook.name in counter(place, desk, webhook).made_for(request))
    assert not replace(webhook, rules=(), groups=("x",)).serves(request)
    two = replace(request, asked=replace(request.asked, demands=(*request.asked.demands, Demand(rule="b", groups=("x",)))))
    assert not replace(webhook, rules=("pay",), groups=("x",)).serves(two)
