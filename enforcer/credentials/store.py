"""The store: values by name, read when they are used.

What lives here: reading each kind of source, and for how long what a program printed is used. What must not: bindings, sockets.

Files are read at each use, so that a value that was replaced is used from the next request on. A program is run again when what
it printed is too old; while that fails there is no value: an old one may have been taken back.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from capd.enforcer.credentials.command import printed
from capd.enforcer.credentials.credential import (
    CommandSource,
    Credential,
    EnvironmentSource,
    FileSource,
    Source,
    SystemdSource,
)
from capd.enforcer.credentials.errors import CredentialError, UnknownCredentialError
from capd.enforcer.credentials.guarded_file import read_guarded
from capd.enforcer.credentials.secret import Secret, usable

RETRY_SECONDS: Final = 2.0
"""Between two tries of a program that failed: each request of an agent would start it anew."""
_LINE: Final = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


@dataclass(slots=True)
class _Printed:
    """What a program printed last."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Secret | None = None
    error: str = ""
    until: float = 0.0


class Store:
    """Values by name. Safe for threads: two that want one credential run its program once."""

    def __init__(
        self,
        credentials: Mapping[str, Credential],
        clock: Callable[[], float],
        *,
        directory: Path | None = None,
        group: int | None = None,
        owner: int = 0,
    ) -> None:
        """Prepare.

        Args:
            credentials: all there are.
            clock: monotonic seconds.
            directory: systemd's, with the credentials of this unit; None: it gave none.
            group: that may read files beside root: the enforcer's.
            owner: whose the files of systemd may be beside root: one's own.
        """
        self._credentials, self._clock = credentials, clock
        self._directory, self._group, self._owners = directory, group, frozenset({0, owner})
        self._printed = {name: _Printed() for name in credentials}

    def value(self, name: str) -> Secret:
        """Give what a credential's source says, without the line end behind it.

        Raises:
            CredentialError: it is not to be had.
        """
        credential = self._credentials.get(name)
        if credential is None:
            raise UnknownCredentialError(name)
        try:
            if isinstance(credential.source, CommandSource):
                return self._of_command(self._printed[name], credential.source)
            return self._of_file(credential.source)
        except CredentialError as error:
            raise CredentialError(f"the credential {name}: {error}") from error

    def _of_file(self, source: Source) -> Secret:
        match source:
            case FileSource():
                return _secret(read_guarded(source.path, group=self._group))
            case SystemdSource():
                if self._directory is None:
                    raise CredentialError("systemd gave this process no credentials; see LoadCredential= in systemd.exec(5)")
                return _secret(read_guarded(self._directory / source.name, group=self._group, owners=self._owners))
            case EnvironmentSource():
                return _secret(variable(read_guarded(source.path, group=self._group), source))
        raise AssertionError(source)

    def _of_command(self, known: _Printed, source: CommandSource) -> Secret:
        with known.lock:
            if self._clock() >= known.until:
                self._run(known, source)
            if known.value is None:
                raise CredentialError(known.error)
            return known.value

    def _run(self, known: _Printed, source: CommandSource) -> None:
        known.value, known.error = None, ""
        try:
            known.value = _secret(printed(source.words, source.timeout_seconds))
            known.until = self._clock() + source.ttl_seconds
        except CredentialError as error:
            known.error, known.until = str(error), self._clock() + RETRY_SECONDS


def _secret(text: str) -> Secret:
    """Take a text without the line end behind it; what begins like JSON may have a form of its own (signing.py).

    Raises:
        CredentialError: nothing can be done with it.
    """
    value = text.removesuffix("\n").removesuffix("\r")
    problem = None if value.lstrip().startswith("{") else usable(value)
    if problem is not None:
        raise CredentialError(f"its value cannot be used: {problem}")
    return Secret(value)


def variable(text: str, source: EnvironmentSource) -> str:
    """Give the value of a variable in lines `KEY=value`; quotes around it are taken away, the last of a name counts.

    Raises:
        CredentialError: it is not there.
    """
    found: str | None = None
    for line in text.splitlines():
        read = _LINE.fullmatch(line)
        if read is not None and read[1] == source.variable:
            found = read[2].strip()
    if found is None:
        raise CredentialError(f"{source.path}: it has no line {source.variable}=")
    quoted = len(found) > 1 and found[0] == found[-1] and found[0] in "\"'"
    return found[1:-1] if quoted else found
