"""What is in effect, value by value, and where each is from.

What lives here: that, with what may be a secret left out. What must not: the screen (cli/config.py), reading files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from capd.daemon import configuration_reference as reference
from capd.daemon.configuration_files import Key, Layered, Origin

if TYPE_CHECKING:
    from capd.daemon.configuration import Configuration

HIDDEN: Final = "(not shown)"
WITH_ARGUMENTS: Final = ("credentials", reference.NAMED, "command")
"""A program's arguments may hold a secret."""
SECRET_ADDRESS: Final = ("approvals", "webhooks", reference.ELEMENT, "url")
"""Who knows all of it may write there."""
ENVIRONMENT: Final[Mapping[Key, str]] = {
    ("bucket", "endpoint"): "AWS_ENDPOINT_URL",
    ("bucket", "region"): "AWS_REGION",
    ("bucket", "ca_file"): "AWS_CA_BUNDLE",
    ("bucket", "allow_http"): "AWS_ALLOW_HTTP",
}
"""What counts where no file says a key."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One value.

    Attributes:
        key: in words.
        value: as JSON has it, without what may be a secret.
        origin: file and line; None: none says it.
        variable: of the environment, that says it.
    """

    key: str
    value: object
    origin: Origin | None = None
    variable: str | None = None

    @property
    def source(self) -> str:
        """In words."""
        if self.origin is not None:
            return str(self.origin)
        return "default" if self.variable is None else f"environment {self.variable}"

    def to_json(self) -> dict[str, object]:
        """Give it as `capd config show --json` prints it (docs/json.md)."""
        file, line = (None, None) if self.origin is None else (self.origin.file, self.origin.line)
        kind = "file" if self.origin is not None else "default" if self.variable is None else "environment"
        return {
            "key": self.key,
            "value": self.value,
            "source": kind,
            "file": file,
            "line": line,
            "variable": self.variable,
        }


def effective(settings: Configuration, layered: Layered, environment: Mapping[str, str]) -> Iterator[Shown]:
    """Give every value in effect, in the order of the model.

    Args:
        settings: what the files say, judged.
        layered: what they say, with their lines.
        environment: of who asks; a role may have another one.
    """
    for path, value in _leaves(settings.model_dump(mode="json"), ()):
        origin, variable = layered.origins.get(path), ENVIRONMENT.get(path)
        if origin is None and value is None and variable is not None and variable in environment:
            yield Shown(key=reference.written(path), value=_without_user(environment[variable]), variable=variable)
        else:
            yield Shown(key=reference.written(path), value=_shown(path, value), origin=origin)


def _leaves(value: object, path: Key) -> Iterator[tuple[Key, object]]:
    if isinstance(value, Mapping) and value:
        for name, below in value.items():
            yield from _leaves(below, (*path, name))
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        for number, below in enumerate(value):
            yield from _leaves(below, (*path, number))
    else:
        yield path, value


def _shown(path: Key, value: object) -> object:
    entry = reference.entry_at(path)
    known = () if entry is None else entry.path
    if known == WITH_ARGUMENTS and isinstance(value, Sequence) and len(value) > 1:
        return [value[0], HIDDEN]
    if known == SECRET_ADDRESS and isinstance(value, str):
        found = urlsplit(value)
        return f"{found.scheme}://{found.hostname}/{HIDDEN}"
    return _without_user(value) if isinstance(value, str) else value


def _without_user(value: str) -> str:
    """Leave out a user and password of an address, and its query."""
    scheme, there, rest = value.partition("://")
    if not there:
        return value
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    shown = f"{HIDDEN}@{host}" if at and user else host
    before, question, _query = path.partition("?")
    return f"{scheme}://{shown}{slash}{before}" + (f"?{HIDDEN}" if question else "")
