"""The desk's side of links: what its socket answers to the process of links, and what a store that ends anywhere makes of them.

What lives here: verbs, changes, identities, prefixes of a store. What must not: links by themselves, HTTP.
"""

from __future__ import annotations

import pwd
import selectors
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from capd.daemon import control_client
from capd.daemon.approvals_links import LinkVerbs
from capd.daemon.approver_identity import person_named
from capd.daemon.cgroups import RunCgroup
from capd.daemon.control import ControlServer, Peer
from capd.daemon.runs import Registry, Run, user_principal
from capd.enforcer.approvals import store as stores
from capd.enforcer.approvals.entry import apply_entry, ask_entry, vote_entry
from capd.enforcer.approvals.errors import AlreadyDecidedError, NotAnApproverError
from capd.enforcer.approvals.request import Request, Vote
from capd.enforcer.approvals.store import LINK_KEY, MAGIC, Store, frame, read_frames
from capd.enforcer.callbacks.changes import Changes
from capd.enforcer.callbacks.errors import LinkUsedError
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.policy.rule import ApprovalScope
from tests.enforcer.asking import ANN, BEN, Client, Scene, hold
from tests.enforcer.test_callbacks_forms import public
from tests.enforcer.test_callbacks_links import BOT, CHAT, KEY, counter, links, use
from tests.requirements import require_root

PEER = Peer(pid=0, uid=0, pidfd=-1)


@pytest.fixture
def place(tmp_path: Path) -> Scene:
    """Give an empty directory."""
    return Scene(tmp_path)


class Counter:
    """The verbs of a desk, called without a socket."""

    def __init__(self, place: Scene) -> None:
        public(place)
        self.desk = place.desk()
        self.counter = counter(place, self.desk, BOT, CHAT)
        self._verbs = LinkVerbs(self.desk, self.counter, Rules(Choice()), place.clock).verbs()

    def ask(self, verb: str, **fields: object) -> dict[str, Any]:
        """Ask."""
        assert self._verbs[verb].root_only
        return self._verbs[verb].act(PEER, fields)


def test_a_whole_story(place: Scene) -> None:
    """What changed is told once, a notice has its webhook's links, a link is shown and used, refusals have their names."""
    made = Counter(place)
    first = made.ask("changes", life="", since=0)
    (change,) = first["changes"]
    assert ("pending", ["bot", "chat"], False) == (change["state"], change["webhooks"], first["more"])
    assert 0 < change["seconds_left"] <= 900
    again = made.ask("changes", life=first["life"], since=first["next"])
    assert ([], first["next"]) == (again["changes"], again["next"])
    assert 1 == len(made.ask("changes", life="another", since=first["next"])["changes"])
    notice = made.ask("notice", id=change["id"], webhook="bot")
    assert {"approve", "deny"} == set(notice["links"])
    assert "body" not in notice["request"]
    assert {} == made.ask("notice", id=change["id"], webhook="none")["links"]
    token = notice["links"]["approve"]
    shown = made.ask("link", token=token)["link"]
    assert ("approve", "ann") == (shown["says"], shown["approver"])
    unconfirmed = made.ask("use_link", token=token, confirm="x", reason="")
    assert ("LinkUnconfirmedError", True) == (unconfirmed["refused"], bool(unconfirmed["hint"]))
    assert "approved" == made.ask("use_link", token=token, confirm=shown["confirm"], reason="")["request"]["state"]
    assert "LinkUsedError" == made.ask("use_link", token=token, confirm=shown["confirm"], reason="")["refused"]
    (changed,) = made.ask("changes", life=first["life"], since=first["next"])["changes"]
    assert "approved" == changed["state"]
    assert {} == made.ask("notice", id=change["id"], webhook="bot")["links"]
    pressed = made.ask("press", token=token, webhook="chat", user="U1")
    assert "LinkElsewhereError" == pressed["refused"]
    assert "UnknownRequestError" == made.ask("notice", id="nothere", webhook="bot")["refused"]


def test_changes_come_in_parts(place: Scene) -> None:
    """However much changed, all of it is told, in order, in parts; what changed twice is told once, as it is."""
    desk = place.desk()
    for number in range(7):
        Client(desk, hold(path=f"/{number}"))
    changes = Changes()
    since, told = 0, []
    while True:
        since, part = changes.since(since, desk.requests(), 3)
        told += [one.id for one in part]
        if not part:
            break
    assert [one.id for one in desk.requests()] == told
    desk.deny(told[2], ANN, "no")
    desk.approve(told[1], ANN, ApprovalScope.ONCE)
    since, part = changes.since(since, desk.requests(), 3)
    assert {(told[1], "used"), (told[2], "denied")} == {(one.id, one.state.value) for one in part}
    assert (since, []) == changes.since(since, desk.requests(), 3)


def test_the_store_ends_anywhere(place: Scene) -> None:
    """Wherever the store ends after a link was used, it is used exactly when its vote is there."""
    desk = place.desk()
    client = Client(desk, hold())
    text = links(counter(place, desk), desk)["approve"]
    use(counter(place, desk), text)
    assert ["waiting", "approved"] == client.outcomes
    path = place.directory / stores.FILE
    content = path.read_bytes()
    entries = read_frames(content)[0]
    ends = [len(MAGIC)]
    for entry in entries:
        ends.append(ends[-1] + len(frame(entry)))
    assert ["ask", "vote", "approve", "use"] == [entry["kind"] for entry in entries]
    for end in sorted({end + off for end in ends for off in (-1, 0, 1)}):
        if not len(MAGIC) <= end <= len(content):
            continue
        path.write_bytes(content[:end])
        after = place.desk()
        counted = counter(place, after)
        voted = end >= ends[2]
        if end < ends[1]:
            assert [] == after.requests()
            continue
        if voted:
            with pytest.raises((LinkUsedError, AlreadyDecidedError)):
                use(counted, text)
        else:
            use(counted, text)
            with pytest.raises(LinkUsedError):
                use(counted, text)


def test_a_store_from_before_links(place: Scene) -> None:
    """A vote that was written before there were links is read: it came to the socket."""
    asked = place.desk()
    Client(asked, hold(quorum=2))
    (request,) = asked.requests()
    vote = vote_entry(request.id, Vote(person=BEN, scope=ApprovalScope.ONCE, at=place.clock()))
    assert vote["vote"]["person"].pop("channel", "missing") is None
    requests: dict[str, Request] = {}
    for entry in (ask_entry(request.asked), vote):
        apply_entry(requests, entry)
    assert BEN == requests[request.id].votes[0].person
    assert "channel" in asdict(BEN)


def test_the_key_is_made_once(place: Scene) -> None:
    """The key of links is kept, for its owner alone, and is not that of fingerprints."""
    store = Store(place.directory)
    assert KEY == store.key(LINK_KEY, KEY) == store.key(LINK_KEY, bytes(32))
    assert 0o400 == (place.directory / LINK_KEY).stat().st_mode & 0o777
    assert KEY != store.key(stores.KEY, bytes(32))


def test_whom_a_name_is(tmp_path: Path) -> None:
    """A name is a user of this host with his groups and with what runs as him; root, and who is not there, are nobody."""
    user = pwd.getpwnam("daemon")
    found = person_named("daemon", tmp_path, tmp_path)
    assert (user.pw_uid, "daemon", False, None) == (found.uid, found.name, found.has_runs, found.login_uid)
    assert "daemon" in found.groups
    where = RunCgroup(path="/capd-none", id=1, unit=None)
    run = Run(id=uuid4(), name="x", principal=user_principal(user.pw_uid), cgroup=where, started_ns=1)
    Registry(tmp_path).add(run)
    assert person_named("daemon", tmp_path, tmp_path).has_runs
    for name, words in (("root", "root"), ("no-such-user", "no user")):
        with pytest.raises(NotAnApproverError, match=words):
            person_named(name, tmp_path, tmp_path)


def test_only_the_enforcer_can_ask(place: Scene) -> None:
    """The socket of links is closed to other users from the moment it is there."""
    require_root()
    made = Counter(place)
    path, selector = place.directory / "links.sock", selectors.DefaultSelector()
    server = ControlServer(path, made._verbs, selector, mode=0o600)
    assert 0o600 == path.stat().st_mode & 0o777
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            for key, _ in selector.select(0.01):
                key.data()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert 1 == len(control_client.ask(path, "changes", life="", since=0)["changes"])  # type: ignore[arg-type] # a list
    finally:
        over.set()
        thread.join()
        server.close()
        selector.close()
