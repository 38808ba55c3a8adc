"""Values that are, or were, in use: those that an agent must never say or hear.

What lives here: remembering what was given out, and the values of files before they are. What must not: looking for them.

A value that was replaced opens doors until its target forgets it, so the latest few of each credential are remembered. Programs
are not run for this: what they print counts once it is used.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from capd.enforcer.credentials.credential import CommandSource, Credential
from capd.enforcer.credentials.errors import CredentialError
from capd.enforcer.credentials.secret import Secret, usable

VALUES_MAX: Final = 8
"""Of each credential: the one in use, and those before it."""
_JSON_KEYS: Final = ("SecretAccessKey", "SessionToken")
"""What is secret in what a `credential_process` prints (obligations/signing.py)."""


class Given:
    """The values of one keeper. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, list[str]] = {}
        self.version = 0
        """Counts changes."""

    def add(self, name: str, value: Secret) -> None:
        """Remember a value."""
        for text in _secrets(value.reveal()):
            with self._lock:
                known = self._values.setdefault(name, [])
                if text in known:
                    continue
                known.append(text)
                del known[:-VALUES_MAX]
                self.version += 1

    def add_files(self, credentials: Mapping[str, Credential], value: Callable[[str], Secret]) -> None:
        """Remember the values of all credentials that are read from files; one that is not to be had is left out."""
        for name, credential in credentials.items():
            if isinstance(credential.source, CommandSource):
                continue
            try:
                self.add(name, value(name))
            except CredentialError:
                continue  # told when it is used

    def values(self) -> list[tuple[str, str]]:
        """Give names and values."""
        with self._lock:
            return [(name, value) for name, values in self._values.items() for value in values]


def _secrets(text: str) -> Iterable[str]:
    """Give what is secret of a value: of JSON its members, of which names and numbers are none."""
    found = [text]
    if text.lstrip().startswith("{"):
        try:
            members = json.loads(text)
            found = [str(members[key]) for key in _JSON_KEYS if members.get(key)]
        except (ValueError, AttributeError, TypeError):
            found = []
    return [one for one in found if usable(one) is None]
