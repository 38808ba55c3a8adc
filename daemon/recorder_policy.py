"""The policy as the recorder needs it: which recording levels it sets, read anew whenever its files change.

What lives here: noticing that, reading in a child process, putting another policy in force. What must not: what levels do
(masking/).

What reads a policy takes memory and time that a recorder does not have, so a child of its own does, and gives the levels in
plain values. A policy that is refused changes nothing. Where there is one that nobody could read yet, no words are stored.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgpack

from capd.daemon.masking.policy_levels import Policy
from capd.daemon.masking.stage import Stage
from capd.enforcer.policy.policy_stamp import is_there, stamp
from capd.enforcer.policy.problem import PolicyError
from capd.enforcer.policy.session_scopes import SessionScopes

LOOK_SECONDS: Final = 1.0
"""How often files are looked at: as often as the enforcer does."""
READING_SECONDS_MAX: Final = 60.0
"""A policy of 5,000 rules takes some seconds on a busy machine; a child that takes longer is ended."""
ANSWER_BYTES: Final = 65_536
"""Read at a time."""
PROBLEM_CHARACTERS_MAX: Final = 1_000
"""Of what is wrong with a policy; `capd policy check` has all of it."""


class RecorderPolicy:
    """Watches one policy directory."""

    def __init__(self, directory: Path, owners: frozenset[int]) -> None:
        """Begin.

        Args:
            directory: where the policy is.
            owners: users to whom its files must belong.
        """
        self._directory, self._owners = directory, owners
        self._stamp: object = None
        self._due_at = 0.0
        self._child: _Child | None = None
        self._next: Policy | None = None
        """One that could not be put in force yet."""
        self.kept = Policy()
        """What the recorder's snapshot was taken by."""
        self.problem: str | None = None
        """Why the policy on disk could not be read, so that the one before counts."""

    def first(self, before: Policy | None, monotonic: Callable[[], float]) -> Policy:
        """Give the policy to begin with, and wait for it.

        Args:
            before: what was in force when the recorder ended; None: that is not known.
            monotonic: gives time that never goes back, in seconds.
        """
        found = self.look(monotonic())
        while self._child is not None:
            select.select([self._child.pipe], [], [], LOOK_SECONDS)
            found = self.look(monotonic()) or found
        if found is not None:
            return found
        return Policy(known=self.problem is None) if before is None or not before.known else before

    def look(self, monotonic: float) -> Policy | None:
        """Give a policy that was read since the last call."""
        if self._child is None and monotonic >= self._due_at:
            self._due_at = monotonic + LOOK_SECONDS
            found = stamp(self._directory)
            if found != self._stamp:
                self._stamp = found
                if not is_there(self._directory):
                    self.problem = None
                    return Policy()
                self._child = _Child(self._directory, self._owners, monotonic + READING_SECONDS_MAX)
        return None if self._child is None else self._heard(self._child, monotonic)

    def change(
        self, stage: Stage, found: Policy | None, *, seal: Callable[[], bool], remember: Callable[[], bool]
    ) -> Policy | None:
        """Put another policy in force: from a snapshot on, so that whoever goes this way again goes all of it by one.

        Args:
            stage: goes by it from here on.
            found: what was read; None: nothing new.
            seal: brings all that was recorded into sealed segments; False: there is no room.
            remember: takes a snapshot; False: that failed.

        Returns:
            What is in force now, if that is another one. For want of room the one before counts, and it is tried again.
        """
        policy = self._next = found or self._next
        if policy is None or policy.same(self.kept):
            self._next = None
            return None
        before = stage.policy
        if not seal():
            return None
        stage.judge_by(policy)
        if not remember():
            stage.judge_by(before)
            return None
        self.kept, self._next = policy, None
        return policy

    def status(self, stage: Stage) -> dict[str, object]:
        """Give the part of the recorder's status."""
        return {"version": stage.policy.version, "known": stage.policy.known, "problem": self.problem}

    def _heard(self, child: _Child, monotonic: float) -> Policy | None:
        answer = child.answer(monotonic)
        if answer is None:
            return None
        self._child = None
        try:
            version, problem, plain = msgpack.unpackb(answer)
            self.problem = problem
            return None if problem else Policy(version=version, scopes=SessionScopes.from_plain(plain))
        except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
            self.problem = f"it could not be read ({type(error).__name__})"
            return None


class _Child:
    """A process that reads a policy."""

    def __init__(self, directory: Path, owners: frozenset[int], until: float) -> None:
        self.pipe, writing = os.pipe()
        self._until = until
        self._parts: list[bytes] = []
        self._process = os.fork()
        if self._process == 0:
            _tell(directory, owners, writing)
        os.close(writing)
        os.set_blocking(self.pipe, False)

    def answer(self, monotonic: float) -> bytes | None:
        """Give what it told, once that is all; empty when it did not end in time."""
        try:
            while part := os.read(self.pipe, ANSWER_BYTES):
                self._parts.append(part)
        except BlockingIOError:
            if monotonic < self._until:
                return None
            self._parts = []
            os.kill(self._process, signal.SIGKILL)
        os.close(self.pipe)
        os.waitpid(self._process, 0)
        return b"".join(self._parts)


def _tell(directory: Path, owners: frozenset[int], writing: int) -> None:
    """Be the child: write version, problem and scopes, and end without what an interpreter does at its end."""
    try:
        answer = msgpack.packb(_read(directory, owners))
        with open(writing, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


def _read(directory: Path, owners: frozenset[int]) -> tuple[str, str | None, object]:
    try:
        from capd.enforcer.policy.directory import load_policy  # noqa: PLC0415 - what it needs is to stay out of the recorder

        policy = load_policy(directory, owners=owners)
    except (PolicyError, ImportError) as error:
        return "", str(error)[:PROBLEM_CHARACTERS_MAX], None
    scopes = SessionScopes(policy.scopes, [one.match for one in policy.passthrough])
    return policy.version, None, scopes.plain()
