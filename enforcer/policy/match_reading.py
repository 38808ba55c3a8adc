"""Reads `match`: its keys, and which protocols they leave.

What lives here: the table of keys. What must not: readers of single values (fields.py).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from capd.enforcer.policy.action import PRINCIPAL_KINDS, Tls
from capd.enforcer.policy.address_range import AddressRange
from capd.enforcer.policy.fields import Key, flag, known, named, one_of, parsed, read_keys, some
from capd.enforcer.policy.glob import Glob, PathGlob
from capd.enforcer.policy.host_pattern import HostPattern
from capd.enforcer.policy.http_path import ENCODED_SLASH, without_dots
from capd.enforcer.policy.linear_regex import REGEX_CHARACTERS_MAX, compile_regex
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.port_range import PortRange
from capd.enforcer.policy.problem import Problems
from capd.enforcer.policy.protocol import EFFECTS, FACTS, PROTOCOLS
from capd.enforcer.policy.variables import names_in
from capd.enforcer.policy.yaml_node import Node

_METHOD: Final = re.compile(r"[A-Z][A-Z0-9-]{0,31}", re.ASCII)
_COMMAND: Final = re.compile(r"[A-Z][A-Z0-9._|-]{1,63}", re.ASCII)
"""Redis has `JSON.SET`, and `CONFIG|SET` for what a subcommand does."""


def _method(text: str) -> str:
    if _METHOD.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no method; methods are written in capitals, and GET is not get")
    return text


def _command(text: str) -> str:
    if _COMMAND.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no command; write the first word of a statement in capitals")
    return text


def _path(text: str) -> PathGlob:
    if not text.startswith("/"):
        raise ValueError(f"{text!r} never matches: a path begins with /")
    plain = text.replace(ENCODED_SLASH, "/")
    if without_dots(plain) != plain or "//" in plain or "%" in plain or ";" in plain or "\\" in plain:
        raise ValueError(f"{text!r} never matches: paths are judged decoded but for %2F, without '.', '..', '//', ';' and '\\'")
    return PathGlob(text)


def _regex(text: str) -> str:
    if len(text) > REGEX_CHARACTERS_MAX:
        raise ValueError(f"a pattern has at most {REGEX_CHARACTERS_MAX} characters")
    try:
        compile_regex(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no pattern: {error}") from error
    return text


def _principal(text: str) -> Glob:
    kind, colon, _ = text.partition(":")
    if colon and kind not in PRINCIPAL_KINDS and "*" not in kind:
        raise ValueError(f"{text!r}: before the colon stands what kind it is: {', '.join(PRINCIPAL_KINDS)}, or *")
    return Glob(text)


_NAMES: Final = some(parsed(Glob))

MATCH_KEYS: Final[dict[str, Key]] = {
    "principals": Key(
        read=some(parsed(_principal)),
        form="patterns",
        words="whom the run acts for: a name of whatever kind, or `kind:name`",
    ),
    "runs": Key(read=_NAMES, form="patterns", words="name of the run"),
    "labels": Key(read=named(_NAMES), form="name: patterns", words="labels of the run; each must be there"),
    "protocols": Key(
        read=some(known(PROTOCOLS, "protocol")),
        form=", ".join(f"`{name}`" for name in PROTOCOLS),
        words="protocol of the message",
    ),
    "hosts": Key(
        read=some(parsed(HostPattern.parse)),
        form="`api.example.com`, `*.example.com`, `192.0.2.1`, `*`",
        words="name that the agent used for the target, or the address if it used none",
    ),
    "ports": Key(read=some(parsed(PortRange.parse)), form="`443`, `8000-8999`", words="port of the target"),
    "addresses": Key(read=some(parsed(AddressRange.parse)), form="`10.0.0.0/8`, `::1`", words="address that is connected to"),
    "tls": Key(read=some(one_of(Tls)), form=", ".join(f"`{one}`" for one in Tls), words="how the target is protected"),
    "databases": Key(
        read=_NAMES,
        form="patterns",
        words="database that the session of a database is in, in Redis its number; not what a statement touches",
    ),
    "users": Key(read=_NAMES, form="patterns", words="user of the database that the session is opened as"),
    "methods": Key(read=some(parsed(_method)), form="`GET`, `POST`, …", words="HTTP method"),
    "paths": Key(read=some(parsed(_path)), form="`/v1/*`, `/repos/**`", words="HTTP path, normalised"),
    "path_regex": Key(read=parsed(_regex), form="pattern", words="HTTP path, normalised"),
    "query_regex": Key(read=parsed(_regex), form="pattern", words="HTTP query, raw, without `?`"),
    "commands": Key(
        read=some(parsed(_command)),
        form="`SELECT`, `CONFIG`, `CONFIG|SET`, …",
        words="first word of a statement, or a command of Redis; what it does, only its effects say: `WITH` may delete",
    ),
    "effects": Key(
        read=some(known(EFFECTS, "effect")), form=", ".join(f"`{name}`" for name in EFFECTS), words="what a statement does"
    ),
    "resources": Key(
        read=_NAMES,
        form="patterns",
        words="what a statement touches: relations `schema.table`, of MySQL `database.table`; keys of Redis",
    ),
    "text_regex": Key(read=parsed(_regex), form="pattern", words="text of a statement, or HTTP body"),
    "facts": Key(read=named(flag), form="`name: true` or `false`", words=f"facts: {', '.join(f'`{name}`' for name in FACTS)}"),
}


def read_match(node: Node, problems: Problems) -> Match | None:
    """Read a `match`; None, with the problems noted, when something is wrong in it."""
    before = len(problems.found)
    found: dict[str, Any] = read_keys(node, MATCH_KEYS, problems)
    for name, _ in found.get("facts", ()):
        if name not in FACTS:
            problems.add(node.place, f"there is no fact {name!r}; there are {', '.join(FACTS)}")
    if len(problems.found) > before:
        return None
    match = Match(**found)
    if not match.of_protocols:
        asked = ", ".join(sorted(match.content))
        problems.add(
            node.place, f"this never matches: no message of {', '.join(match.protocols) or 'any protocol'} has {asked}"
        )
        return None
    return match


def about(match: Match, when: str | None) -> Match:
    """Give a match that names the protocols that it, or its rule's condition, leaves: what asks for a protocol is about it."""
    protocols = match.of_protocols
    asked = {name.partition(".")[0] + "." for name in names_in(when or "")}
    foreign = asked & frozenset[str]().union(*(PROTOCOLS[name].variables for name in protocols))
    whole = frozenset(name for name in protocols if foreign and foreign <= PROTOCOLS[name].variables)
    spoken = whole or frozenset(name for name in protocols if foreign & PROTOCOLS[name].variables)
    if not match.protocols and spoken:
        protocols = spoken
    return match if len(protocols) == len(PROTOCOLS) else replace(match, protocols=tuple(sorted(protocols)))
