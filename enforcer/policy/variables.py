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
from capd.enforcer.policy.protocol import FACTS, HTTP, PROTOCOLS, SESSION


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


def _of(prefix: str, read: Read) -> Read:
    """Give a value in messages of the protocols that have variables of a prefix."""
    spoken = frozenset(name for name, protocol in PROTOCOLS.items() if prefix in protocol.variables)
    return lambda action: read(action) if action.protocol in spoken else None


def _statement(prefix: str, things: str) -> dict[str, tuple[Kind, str, Read]]:
    """Give what is known of a statement; of a session's opening nothing is."""
    return {
        f"{prefix}command": (
            Kind.STRING,
            "first word of the statement, in upper case; not known of several",
            _of(prefix, _command),
        ),
        f"{prefix}effects": (Kind.STRINGS, "what it does", _of(prefix, lambda a: _items(a.effects))),
        f"{prefix}resources": (Kind.STRINGS, f"{things} that it touches", _of(prefix, _resources)),
    }


def _items(found: Iterable[str] | None) -> list[str] | None:
    items = None if found is None else sorted(found)
    return None if items is None or len(items) > ITEMS_MAX else items


def _fact(name: str) -> Read:
    return lambda action: action.facts.get(name)


def _command(action: Action) -> str | None:
    return None if action.opening or COMMANDS in action.operation else action.operation


def _resources(action: Action) -> list[str] | None:
    return None if action.resources is None else _items({one.name for one in action.resources})


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
    "complete": (Kind.BOOL, "whether capd could read all of it", lambda a: None if a.opening else a.complete),
    "text": (Kind.STRING, "text of a statement, or body", lambda a: a.text),
    "http.method": (Kind.STRING, "method", _http(lambda a: a.operation)),
    "http.path": (Kind.STRING, "path, normalised", _http(lambda a: a.path)),
    "http.query": (Kind.STRING, "query, raw", _http(lambda a: a.query)),
    "session.database": (
        Kind.STRING,
        "database that the session of a database is in, in Redis its number",
        _of(SESSION, lambda a: a.database),
    ),
    "session.user": (Kind.STRING, "user of the database that it is opened as", _of(SESSION, lambda a: a.user)),
    **_statement("sql.", "relations"),
    **_statement("redis.", "keys"),
    **{name: (Kind.BOOL, words, _fact(name)) for name, words in FACTS.items()},
}
"""Name, type, meaning and where the value comes from."""


def names_for(protocols: Iterable[str]) -> frozenset[str]:
    """Give the variables that can have a value in messages of some protocols."""
    spoken = frozenset[str]().union(*(PROTOCOLS[name].variables for name in protocols))
    foreign = tuple(prefix for one in PROTOCOLS.values() for prefix in one.variables if prefix not in spoken)
    return frozenset(name for name in VARIABLES if not name.startswith(foreign))


def names_of_messages() -> frozenset[str]:
    """Give the variables that have a value once something is said, not when a session is opened."""
    about = ("target.", "principal.", "run.", SESSION)
    return frozenset(name for name in VARIABLES if not name.startswith(about)) - {"labels", "protocol"}


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
