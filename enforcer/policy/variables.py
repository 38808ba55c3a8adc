"""What a condition can ask: its variables, their types, and their values for an action.

What lives here: the table. What must not: the language (condition.py).

A variable whose value is not known has none: what depends on it is then neither true nor false.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Final

from capd.enforcer.policy.action import COMMANDS, Action
from capd.enforcer.policy.linear_regex import is_unicode
from capd.enforcer.policy.protocol import FACTS, HTTP, POSTGRESQL, PROTOCOLS


class Kind(Enum):
    """Types of CEL."""

    STRING = "string"
    INT = "int"
    BOOL = "bool"
    STRINGS = "list(string)"
    LABELS = "map(string, string)"


_QUOTED: Final = re.compile(r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""")
_NAME: Final = re.compile(r"(?<![\w.])[a-z]\w*(?:\s*\.\s*[a-zA-Z_]\w*)*", re.ASCII)
Read = Callable[[Action], object]
ITEMS_MAX: Final = 256
"""Of a list, as many are looked at; a list of more is not known to a condition."""


def _http(read: Read) -> Read:
    return lambda action: read(action) if action.protocol == HTTP else None


def _sql(read: Read) -> Read:
    return lambda action: read(action) if action.protocol == POSTGRESQL else None


def _items(found: Iterable[str] | None) -> list[str] | None:
    items = None if found is None else sorted(found)
    return None if items is None or len(items) > ITEMS_MAX else items


def _fact(name: str) -> Read:
    return lambda action: action.facts.get(name)


def _command(action: Action) -> str | None:
    return None if COMMANDS in action.operation else action.operation


VARIABLES: Final[Mapping[str, tuple[Kind, str, Read]]] = {
    "principal.name": (Kind.STRING, "whom the run acts for", lambda a: a.principal and a.principal.name),
    "principal.kind": (Kind.STRING, "user, unit, oidc or saml", lambda a: a.principal and a.principal.kind),
    "principal.verified": (
        Kind.BOOL,
        "whether an identity provider vouches for it",
        lambda a: a.principal and a.principal.verified,
    ),
    "principal.groups": (Kind.STRINGS, "its groups", lambda a: a.principal and _items(a.principal.groups)),
    "run.name": (Kind.STRING, "name of the run", lambda a: a.run.name),
    "labels": (Kind.LABELS, "labels of the run", lambda a: dict(a.run.labels)),
    "target.host": (Kind.STRING, "name that the agent used, or the address", lambda a: a.target.host),
    "target.port": (Kind.INT, "port", lambda a: a.target.port),
    "target.address": (Kind.STRING, "address that is connected to", lambda a: a.target.address and str(a.target.address)),
    "target.tls": (Kind.STRING, "none, inspected, passthrough or unknown", lambda a: a.target.tls.value),
    "protocol": (Kind.STRING, "name of the protocol", lambda a: a.protocol),
    "complete": (Kind.BOOL, "whether capd could read all of it", lambda a: a.complete),
    "text": (Kind.STRING, "SQL text, or body", lambda a: a.text),
    "http.method": (Kind.STRING, "method", _http(lambda a: a.operation)),
    "http.path": (Kind.STRING, "path, normalised", _http(lambda a: a.path)),
    "http.query": (Kind.STRING, "query, raw", _http(lambda a: a.query)),
    "sql.command": (
        Kind.STRING,
        "first word of the statement, in upper case; not known of several",
        _sql(_command),
    ),
    "sql.effects": (Kind.STRINGS, "what it does", _sql(lambda a: _items(a.effects))),
    "sql.resources": (
        Kind.STRINGS,
        "what it does it to",
        _sql(lambda a: None if a.resources is None else _items({one.name for one in a.resources})),
    ),
    **{name: (Kind.BOOL, words, _fact(name)) for name, words in FACTS.items()},
}
"""Name, type, meaning and where the value comes from."""


def names_for(protocols: Iterable[str]) -> frozenset[str]:
    """Give the variables that can have a value in messages of some protocols."""
    spoken = {PROTOCOLS[name].variables for name in protocols}
    foreign = tuple(prefix for one in PROTOCOLS.values() if (prefix := one.variables) is not None and prefix not in spoken)
    return frozenset(name for name in VARIABLES if not name.startswith(foreign))


def values(action: Action, names: Iterable[str]) -> dict[str, object]:
    """Give the values of some variables, as far as they are known."""
    found = {name: VARIABLES[name][2](action) for name in names}
    return {name: value for name, value in found.items() if value is not None and _readable(value)}


def _readable(value: object) -> bool:
    """Say whether CEL, whose text is Unicode, can hold it."""
    if isinstance(value, str):
        return value.isascii() or is_unicode(value)
    if isinstance(value, dict):
        return all(map(_readable, value)) and all(map(_readable, value.values()))
    return not isinstance(value, list) or all(map(_readable, value))


def names_in(source: str) -> frozenset[str]:
    """Give the variables that stand in a condition, outside of quotes."""
    found: set[str] = set()
    for words in _NAME.findall(_QUOTED.sub("''", source)):
        parts = "".join(words.split()).split(".")
        found |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return frozenset(VARIABLES) & found
