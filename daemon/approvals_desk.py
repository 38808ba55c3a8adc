"""The process of approvals: the desk with its sockets: for proxies, for persons, and for the process of webhooks and links.

What lives here: its event loop, what persons can ask. What must not: deciding (enforcer/approvals), who persons are.

It is a child of the enforcer, of its user and with its confinement. What waits outlives it: it is on disk.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from capd.daemon.approver_identity import person_named, person_of
from capd.daemon.control import ControlServer, Peer, Verb
from capd.daemon.errors import RequestRefusedError
from capd.daemon.state_directory import boot_id
from capd.enforcer.approvals.action_hash import KEY_BYTES
from capd.enforcer.approvals.desk import Desk
from capd.enforcer.approvals.eligibility import check_reader
from capd.enforcer.approvals.hold_server import HoldServer
from capd.enforcer.approvals.limits import REASON_CHARACTERS_MAX
from capd.enforcer.approvals.listing import to_json
from capd.enforcer.approvals.moment import Moment
from capd.enforcer.approvals.request import Person, Request
from capd.enforcer.approvals.state import State
from capd.enforcer.approvals.store import LINK_KEY, Store
from capd.enforcer.policy.rule import ApprovalScope
from capd.recording.durable import replace_content

if TYPE_CHECKING:  # what they import is dear, and wanted only where webhooks are configured
    from capd.daemon.approvals_links import LinkParts, LinkVerbs

TICK_SECONDS_MAX: Final = 1.0
"""Between two looks at the time: what lapses lapses within it, and the status is no older."""
HEAD_BYTES: Final = 2_048
"""Of a body, in a list; one request by its id comes with all of it."""
LISTED_MAX: Final = 500
"""Requests of one answer, the latest."""
ID_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter looks like another, or like a digit."""
ID_LETTERS: Final = 10


@dataclass(frozen=True, kw_only=True)
class DeskParts:
    """What the process is given.

    Attributes:
        directory: of the store.
        holds: socket for proxies.
        persons: socket for persons.
        approvers: groups of those who may decide.
        runs: directory of the files of live runs.
        hierarchy: where cgroup2 is mounted.
        status: file for its counters.
        say: tells whoever reads the log.
        links: for webhooks and links; None: there are none.
        beat: gives a sign of life.
    """

    directory: Path
    holds: Path
    persons: Path
    approvers: tuple[str, ...]
    runs: Path
    hierarchy: Path
    status: Path
    say: Callable[[str], None]
    links: LinkParts | None = None
    beat: Callable[[], None] = lambda: None


def run_desk(parts: DeskParts) -> None:
    """Work until SIGTERM.

    Raises:
        CapdError: the store or a socket cannot be used.
    """
    boot = str(boot_id())

    def clock() -> Moment:
        return Moment(wall_ns=time.time_ns(), boot_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME), boot=boot)

    store = Store(parts.directory)
    desk = Desk(store, clock, new_id, os.urandom(KEY_BYTES))
    if desk.damage is not None:
        parts.say(f"capd enforcer: approvals: {desk.damage}; {desk.damage.hint}")
    links = None if parts.links is None else _link_verbs(parts, parts.links, desk, store, clock)
    Counter(parts, desk, clock, links).run()


def _link_verbs(parts: DeskParts, links: LinkParts, desk: Desk, store: Store, clock: Callable[[], Moment]) -> LinkVerbs:
    from capd.daemon.approvals_links import LinkVerbs  # noqa: PLC0415 - as above
    from capd.enforcer.callbacks.link_counter import LinkCounter  # noqa: PLC0415 - as above

    def person(name: str) -> Person:
        found = person_named(name, parts.runs, parts.hierarchy)
        check_reader(found, parts.approvers)
        return found

    key = store.key(LINK_KEY, os.urandom(KEY_BYTES))
    return LinkVerbs(desk, LinkCounter(desk, key, links.webhooks, person, clock), links.masking, clock)


def new_id() -> str:
    """Make an id: 50 random bits, which is enough for a host, in letters that a person can type."""
    return "".join(ID_ALPHABET[byte % len(ID_ALPHABET)] for byte in os.urandom(ID_LETTERS))


class Counter:
    """Where persons come to the desk."""

    def __init__(self, parts: DeskParts, desk: Desk, clock: Callable[[], Moment], links: LinkVerbs | None = None) -> None:
        self._parts, self._desk, self._clock, self._links = parts, desk, clock, links
        self._stopping = False
        self._told = ""
        self._servers: list[ControlServer | HoldServer] = []

    def run(self) -> None:
        """Serve until SIGTERM."""
        wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._stop(wake))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ, lambda: None)
            self._servers = [ControlServer(self._parts.persons, self.verbs(), selector)]
            if self._links is not None and self._parts.links is not None:
                self._servers.append(ControlServer(self._parts.links.socket, self._links.verbs(), selector, mode=0o600))
            self._servers.append(HoldServer(self._parts.holds, self._desk, selector, self._parts.say))
            while not self._stopping:
                self._parts.beat()
                left = self._desk.tick()
                self._report()
                for key, _events in selector.select(TICK_SECONDS_MAX if left is None else min(left, TICK_SECONDS_MAX)):
                    key.data()
                for server in self._servers:
                    server.attend()
            for server in self._servers:
                server.close()

    def _stop(self, wake: int) -> None:
        self._stopping = True
        os.eventfd_write(wake, 1)

    def _report(self) -> None:
        """Tell how it goes; what cannot be written down is told once."""
        if self._desk.problem and self._desk.problem != self._told:
            self._parts.say(f"capd enforcer: approvals: {self._desk.problem}")
        self._told = self._desk.problem
        requests = self._desk.requests()
        status = {
            "pid": os.getpid(),
            "time": time.time(),
            "pending": sum(request.state is State.PENDING for request in requests),
            "approved": sum(request.state is State.APPROVED for request in requests),
            "problem": self._desk.problem,
            "not_taken": dict(sum((Tally(server.failed) for server in self._servers), Tally())),
            "damage": "" if self._desk.damage is None else str(self._desk.damage),
        }
        try:
            replace_content(self._parts.status, json.dumps(status).encode(), mode=0o644, sync=False)
        except OSError as error:
            self._parts.say(f"capd enforcer: approvals: the status is late: {error.strerror}")

    # -- what persons can ask --------------------------------------------------------------------------------------------------

    def verbs(self) -> dict[str, Verb]:
        """Give what can be asked, by whom is checked in each."""
        return {
            "approvals": Verb(act=self._list),
            "approval": Verb(act=self._show),
            "approve": Verb(act=self._approve),
            "deny": Verb(act=self._deny),
        }

    def _person(self, peer: Peer) -> Person:
        person = person_of(peer, self._parts.runs, self._parts.hierarchy)
        check_reader(person, self._parts.approvers)
        return person

    def _list(self, peer: Peer, request: Mapping[str, object]) -> dict[str, object]:
        self._person(peer)
        everything = request.get("all") is True
        chosen = [one for one in self._desk.requests() if everything or one.open][-LISTED_MAX:]
        return {"approvals": [self._json(one, HEAD_BYTES) for one in chosen]}

    def _show(self, peer: Peer, request: Mapping[str, object]) -> dict[str, object]:
        self._person(peer)
        return {"approval": self._json(self._desk.named(_text(request, "id"))[0])}

    def _approve(self, peer: Peer, request: Mapping[str, object]) -> dict[str, object]:
        person = self._person(peer)
        scope = request.get("scope", ApprovalScope.ONCE.value)
        if scope not in list(ApprovalScope):
            raise RequestRefusedError(f"an approval is good for {', '.join(ApprovalScope)}, not for {scope!r}")
        return {"approval": self._json(self._desk.approve(_text(request, "id"), person, ApprovalScope(str(scope))))}

    def _deny(self, peer: Peer, request: Mapping[str, object]) -> dict[str, object]:
        person = self._person(peer)
        reason = _text(request, "reason").strip()
        if not 0 < len(reason) <= REASON_CHARACTERS_MAX or not reason.isprintable():
            raise RequestRefusedError(f"a reason is one line of 1 to {REASON_CHARACTERS_MAX} characters: the agent reads it")
        return {"approval": self._json(self._desk.deny(_text(request, "id"), person, reason))}

    def _json(self, request: Request, head_bytes: int | None = None) -> dict[str, Any]:
        _, body = self._desk.named(request.id)
        more = {} if head_bytes is None else {"head_bytes": head_bytes}
        exact, clients = self._desk.exact(request), self._desk.clients(request)
        return to_json(request, self._clock(), clients=clients, body=body, exact=exact, **more)


def _text(request: Mapping[str, object], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str):
        raise RequestRefusedError(f"`{name}` is missing")
    return value
