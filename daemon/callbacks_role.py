"""The process of webhooks and links: it tells others what waits for a person, and takes what comes back.

What lives here: its event loop, its confinement, its status. What must not: deciding (the desk), forms and replies
(enforcer/callbacks), connections (callback_listener.py, webhook_client.py).

It is a child of the enforcer and narrower than it: it can read neither the store of approvals nor any key, so that the desk is
all it has. The desk waits for it in nothing: it is asked, and what is not asked for in time is told later or never.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from capd.daemon import control_client, webhook_client
from capd.daemon.callback_listener import Listener
from capd.daemon.callback_parts import TOLD, CallbackParts, Receiver
from capd.daemon.callback_peers import Peers
from capd.daemon.errors import DaemonUnreachableError, SandboxError
from capd.daemon.landlock import KEEP_FILES, READ, restrict
from capd.enforcer.callbacks import generic, signature, slack
from capd.enforcer.callbacks.address import same_origin
from capd.enforcer.callbacks.notice import event_of
from capd.enforcer.callbacks.outbox import Delivery, Outbox, pause_seconds
from capd.enforcer.callbacks.site import DECIDED, IGNORED, SHOWN, Asked, Reply, Site
from capd.recording.durable import read_regular, replace_content

LOOK_SECONDS: Final = 0.5
"""Between two questions to the desk: a person does not notice less."""
STATUS_SECONDS: Final = 1.0
TOLD_BYTES_MAX: Final = 16 << 20
"""Sixteen webhooks with all that the desk lists have a few megabytes."""
ASKING_MAX: Final = 4
"""Questions to the desk at a time: it answers one after the other."""
WHISPERS_MAX: Final = 64
"""Answers to presses that are on their way to Slack."""
NEEDED: Final = ("encodings.idna", "stringprep")
"""What is imported late, and cannot be read then."""
SYSTEM: Final = tuple(
    map(
        Path,
        ("/etc", "/usr", "/lib", "/lib64", "/proc", "/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf"),
    )
)
"""What looking up names reads, and what the kernel tells of who connects."""
ERROR_CHARACTERS_MAX: Final = 300
"""Of what a receiver's failure is called in the status."""
JSON: Final = ("Content-Type", "application/json")


def run_callbacks(parts: CallbackParts, hierarchy: Path) -> None:
    """Work until SIGTERM.

    Raises:
        OSError: the kernel has no sock_diag.
    """
    for name in NEEDED:
        import_module(name)
    confinement = _restrict(parts, hierarchy)
    asyncio.run(Callbacks(parts, hierarchy, confinement).run())


def _restrict(parts: CallbackParts, hierarchy: Path) -> str:
    """Give up reading but what is needed; say what was given up."""
    mine = {parts.directory: READ | KEEP_FILES, parts.status.parent: READ | KEEP_FILES}
    code = [Path(name) for name in (sys.prefix, sys.base_prefix)]
    places = dict.fromkeys([*SYSTEM, *code, parts.runs, hierarchy], READ)
    try:
        restrict({**places, **mine}, reading=True)
    except SandboxError as error:
        return f"not reading ({error})"
    return "reading"


class Callbacks:
    """The process."""

    def __init__(self, parts: CallbackParts, hierarchy: Path, confinement: str) -> None:
        self._parts, self._confinement = parts, confinement
        self._told_file = parts.directory / TOLD
        self._outbox = Outbox([one.name for one in parts.receivers], _read_told(self._told_file))
        self._kept: object = None
        self._asking = ThreadPoolExecutor(ASKING_MAX, thread_name_prefix="capd-ask")
        self._site = Site(parts.base_url, parts.slack_secrets, parts.host, self._ask, time.time)
        self._listener = None
        if parts.listening is not None:
            peers = Peers(parts.runs, hierarchy, os.geteuid())  # for as long as the process lives
            self._listener = Listener(parts.listening, parts.tls, self._answer, peers.refusal)
        self._tasks: asyncio.TaskGroup | None = None
        self._wake = {one.name: asyncio.Event() for one in parts.receivers}
        self._whispers = self._whispers_failed = 0
        self._desk_problem = self._disk_problem = ""
        self._answers: Counter[str] = Counter()

    async def run(self) -> None:
        """Serve until told to stop."""
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._follow(), name="follow the desk")
                tasks.create_task(self._report(), name="status")
                for receiver in self._parts.receivers:
                    tasks.create_task(self._send_all(receiver), name=f"webhook {receiver.name}")
                if self._listener is not None:
                    tasks.create_task(self._listener.serve(), name="listener")
                await stopping.wait()
                raise _StoppedError
        except* _StoppedError:
            pass  # the group has cancelled its tasks
        self._keep()
        self._asking.shutdown(wait=False, cancel_futures=True)

    # -- the desk --------------------------------------------------------------------------------------------------------------

    def _ask(self, verb: str, **fields: object) -> Mapping[str, Any]:
        """Ask the desk, in a thread.

        Raises:
            OSError: it does not answer.
        """
        try:
            return control_client.ask(self._parts.links.socket, verb, **fields)
        except (DaemonUnreachableError, control_client.RefusedError) as error:
            raise OSError(str(error)) from error

    async def _asked(self, verb: str, **fields: object) -> Mapping[str, Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._asking, lambda: self._ask(verb, **fields))

    async def _follow(self) -> None:
        """Take what changed, as long as there is more, then after a while again."""
        life, since = "", 0
        while True:
            try:
                found = await self._asked("changes", life=life, since=since)
            except OSError as error:
                self._desk_problem = str(error)
            else:
                self._desk_problem = ""
                life, since = str(found["life"]), int(found["next"])
                self._outbox.take(found["changes"], time.monotonic())
                if not found["more"]:
                    self._outbox.settle()
                if found["changes"]:
                    self._keep()
                    for event in self._wake.values():
                        event.set()
                    continue
            await asyncio.sleep(LOOK_SECONDS)

    # -- webhooks --------------------------------------------------------------------------------------------------------------

    async def _send_all(self, receiver: Receiver) -> None:
        """Send what is due, one after the other."""
        wake = self._wake[receiver.name]
        while True:
            delivery = self._outbox.next(receiver.name, time.monotonic())
            if delivery is not None:
                await self._send(receiver, delivery)
                self._keep()
                continue
            wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await wake.wait()

    async def _send(self, receiver: Receiver, delivery: Delivery) -> None:
        try:
            found = await self._asked("notice", id=delivery.request, webhook=receiver.name)
        except OSError as error:
            self._failed(delivery, webhook_client.Outcome(error=str(error)))
            return
        if "refused" in found or event_of(found["request"]["state"]) != delivery.event:
            self._outbox.outdated(delivery)
            return
        try:
            fields, body = self._message(receiver, delivery, found)
        except Exception as error:  # noqa: BLE001 - the boundary: a defect of ours costs one message, and is counted
            self._failed(delivery, webhook_client.Outcome(error=defect(error), final=True))
            return
        outcome = await webhook_client.post(receiver.url, receiver.tls, fields, body, seconds=receiver.seconds)
        if outcome.error:
            self._failed(delivery, outcome)
        else:
            self._outbox.delivered(delivery)

    def _failed(self, delivery: Delivery, outcome: webhook_client.Outcome) -> None:
        # Chance spreads tries, and hides nothing.
        pause = pause_seconds(delivery.tries, random.random(), outcome.pause_seconds)  # noqa: S311 - as above
        due, error = time.monotonic() + pause, f"{delivery.request}: {outcome.error[:ERROR_CHARACTERS_MAX]}"
        self._outbox.failed(delivery, error, final=outcome.final, due=due, wall=time.time())

    def _message(self, receiver: Receiver, delivery: Delivery, found: Mapping[str, Any]) -> tuple[list[tuple[str, str]], bytes]:
        """Give header fields and body."""
        parts = self._parts
        if receiver.slack:
            return [JSON], _packed(slack.message(found["request"], found["links"], parts.host))
        identity = generic.delivery_id(parts.host, receiver.name, delivery.request, delivery.event)
        body = _packed(
            generic.body(
                found["request"],
                event=delivery.event,
                delivery=identity,
                webhook=receiver.name,
                host=parts.host,
                links=found["links"],
                base_url=parts.base_url,
                approver=receiver.approver,
            )
        )
        now_s = int(time.time())
        return [
            JSON,
            (signature.TIMESTAMP, str(now_s)),
            (signature.SIGNATURE, signature.signed(receiver.secret, now_s, body)),
            (signature.DELIVERY, identity),
            (signature.EVENT, delivery.event),
        ], body

    def _keep(self) -> None:
        """Write down what was told; what cannot be is told twice after a restart, and the status says so."""
        told = self._outbox.told()
        if told == self._kept:
            return
        try:
            replace_content(self._told_file, json.dumps(told).encode(), mode=0o600, sync=False)
        except OSError as error:
            self._disk_problem = f"cannot write {self._told_file}: {error.strerror}"
        else:
            self._kept, self._disk_problem = told, ""

    # -- links and buttons -----------------------------------------------------------------------------------------------------

    async def _answer(self, asked: Asked) -> Reply:
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(self._asking, self._site.answer, asked)
        self._answers[reply.why] += 1
        if reply.tell is not None and self._tasks is not None:
            if self._whispers < WHISPERS_MAX:
                self._whispers += 1
                self._tasks.create_task(self._whisper(*reply.tell), name="answer to Slack")
            else:
                self._whispers_failed += 1
        return reply

    async def _whisper(self, webhook: str, url: str, message: Mapping[str, Any]) -> None:
        """Have Slack show something: once, where the webhook itself is, since the address comes with the press."""
        try:
            receiver = next(one for one in self._parts.receivers if one.name == webhook)
            if not same_origin(url, receiver.url):
                self._whispers_failed += 1
                return
            outcome = await webhook_client.post(url, receiver.tls, [JSON], _packed(message), seconds=receiver.seconds)
            self._whispers_failed += bool(outcome.error)
        finally:
            self._whispers -= 1

    # -- status ----------------------------------------------------------------------------------------------------------------

    async def _report(self) -> None:
        while True:
            with suppress(OSError):  # it is late then, and whoever reads it says so
                replace_content(self._parts.status, json.dumps(self._status()).encode(), mode=0o644, sync=False)
            await asyncio.sleep(STATUS_SECONDS)

    def _status(self) -> dict[str, object]:
        listening = self._listener
        return {
            "pid": os.getpid(),
            "time": time.time(),
            "confinement": self._confinement,
            "problem": self._desk_problem or self._disk_problem,
            "webhooks": [
                {"name": name, **asdict(tally), "waiting": waiting} for name, (tally, waiting) in self._outbox.tallies().items()
            ],
            "links": None if listening is None else self._links(),
            "connections": None if listening is None else dict(listening.counts),
            "answers_failed": self._whispers_failed,
        }

    def _links(self) -> dict[str, object]:
        why = dict(self._answers)
        counted = {name: why.pop(name, 0) for name in (SHOWN, DECIDED, IGNORED)}
        return {**counted, "refused": sum(why.values()), "why": why}


class _StoppedError(Exception):
    """Ends all tasks."""


def defect(error: Exception) -> str:
    """Say what went wrong in making a message, for all to read: the error's own words may have the links that are in it."""
    return f"a defect of capd: {type(error).__name__}"


def _packed(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def _read_told(path: Path) -> dict[str, dict[str, str]] | None:
    """Give what was told before; None: that is not known."""
    try:
        found = json.loads(read_regular(path, TOLD_BYTES_MAX))
        return {str(name): {str(key): str(value) for key, value in told.items()} for name, told in found.items()}
    except (OSError, ValueError, AttributeError):
        return None
