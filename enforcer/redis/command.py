"""What a command does: effects, keys, and whether that is all.

What lives here: from the words of a command to what rules ask for, and what is added by hand to what the server says of its
commands. What must not: sessions (enforcer/proxy/redis), policy.

Words for effects are those of the policy (policy/protocol.EFFECTS). Of a command that is not known nothing is: a module's, a
later version's, a renamed one. What a script does is in the script, beside the keys that it was given: it is code, and never
complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.redis.catalogue import Known, look_up
from capd.enforcer.redis.keys import NO_SENSE, Found, UnknownKeysError, keys_of, option

UNKNOWN: Final = "unknown"
NOT_KNOWN: Final = "the command is not known"
SCRIPT: Final = "what a script does is not known"
ELSEWHERE: Final = "it reaches other databases"
NO_TEXT: Final = "a key is no text"
ANYTHING: Final = "what it does is not known"
_NAME_CHARACTERS_MAX: Final = 64

_BY_FLAG: Final = {"access": "select", "update": "update", "insert": "insert", "delete": "delete"}
_HARMLESS_DANGEROUS: Final = frozenset({"KEYS", "SORT", "SORT_RO", "INFO", "ROLE", "LASTSAVE"})
"""Dangerous to Redis because they are slow or tell of the server: they read."""
_ALSO: Final = {
    "FLUSHALL": {"drop"},
    "FLUSHDB": {"drop"},
    "SWAPDB": {"update"},
    "SAVE": {"file"},
    "BGSAVE": {"file"},
    "BGREWRITEAOF": {"file"},
    "SHUTDOWN": {"file"},
    "CONFIG|SET": {"file"},
    "CONFIG|REWRITE": {"file"},
    "ACL|SETUSER": {"grant"},
    "ACL|DELUSER": {"grant"},
    "ACL|LOAD": {"grant", "file"},
    "ACL|SAVE": {"grant", "file"},
    "MODULE|LOAD": {"code", "file"},
    "MODULE|LOADEX": {"code", "file"},
    "MODULE|UNLOAD": {"code"},
    "FUNCTION|FLUSH": {"drop"},
    "FUNCTION|DELETE": {"drop"},
    "SCRIPT|FLUSH": {"drop"},
    "DEBUG": {"code", "file"},
    "MONITOR": {"select"},
    "REPLICAOF": {"drop", "update"},
    "SLAVEOF": {"drop", "update"},
    "SYNC": {"select"},
    "PSYNC": {"select"},
    "RESTORE": {"update"},
    "PUBLISH": {"notify"},
    "SPUBLISH": {"notify"},
    "SUBSCRIBE": {"select"},
    "SSUBSCRIBE": {"select"},
    "PSUBSCRIBE": {"select"},
    "KEYS": {"select"},
    "SCAN": {"select"},
    "RANDOMKEY": {"select"},
    "CLUSTER|GETKEYSINSLOT": {"select"},
    "PUBSUB|CHANNELS": {"select"},
    "PUBSUB|SHARDCHANNELS": {"select"},
    "DBSIZE": {"select"},
    "INFO": {"select"},
    "ROLE": {"select"},
}  # fmt: skip
_CHANNELS: Final = {"SUBSCRIBE": "read", "SSUBSCRIBE": "read", "PUBLISH": "write", "SPUBLISH": "write"}
"""Channels are resources as keys are."""
_ALL_KEYS: Final = frozenset(
    {"KEYS", "SCAN", "RANDOMKEY", "DBSIZE", "FLUSHALL", "FLUSHDB", "SWAPDB", "PSUBSCRIBE", "MONITOR", "SYNC", "PSYNC", "DEBUG"}
    | {"SAVE", "BGSAVE", "BGREWRITEAOF", "REPLICAOF", "SLAVEOF", "FAILOVER", "SHUTDOWN"}
    | {"CLUSTER|GETKEYSINSLOT", "PUBSUB|CHANNELS", "PUBSUB|SHARDCHANNELS"}
)
"""What these touch has no names, or more than anybody knows."""
_WRITES: Final = frozenset({"insert", "update", "delete", "drop", "code"})
_READ_AT_TIMES: Final = frozenset({"BITFIELD", "SORT", "GEORADIUS", "GEORADIUSBYMEMBER"})
"""Commands that write only with some of their words, which keys.py looks at."""
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"})
_TRACKING: Final = "CLIENT|TRACKING"
_TRACKING_OPTIONS: Final = 3
"""CLIENT TRACKING ON, and what follows."""
_ANYTHING: Final = frozenset({"DEBUG"})
_SESSION: Final = frozenset({"@connection", "@transaction"})
_DATABASE_WORD: Final = {"COPY": 3}
"""Commands that take a database behind the word DB, and from which argument on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a command does.

    Attributes:
        name: in upper case, with its subcommand: `CONFIG|SET`.
        effects: None: not known.
        resources: names of keys and channels, and `read` or `write`; None: not known.
        problems: why that is not all; none: it is.
    """

    name: str
    effects: frozenset[str] | None
    resources: tuple[tuple[str, str], ...] | None
    problems: tuple[str, ...] = ()


def read(arguments: Sequence[bytes]) -> Command:
    """Give what a command does.

    Args:
        arguments: its words, the name first; never none.
    """
    known = look_up(arguments)
    if known is None:
        return Command(name=_shown(arguments[0]), effects=None, resources=None, problems=(NOT_KNOWN,))
    problems = []
    found: list[Found] | None
    if not known.takes(len(arguments)):
        found, problems = None, [NO_SENSE]
    else:
        try:
            found = keys_of(known, arguments)
        except UnknownKeysError as error:
            found, problems = None, [str(error)]
    if known.name in _SCRIPTS:
        problems.append(SCRIPT)
    if known.name in _ANYTHING:
        problems.append(ANYTHING)
    if _elsewhere(known, arguments):
        problems.append(ELSEWHERE)
    broadcasts = _broadcasts(known, arguments)
    unnamed = broadcasts or known.name in _ALL_KEYS
    resources = None if found is None or unnamed else _resources(known, arguments, found)
    if resources is None and found is not None and not unnamed:
        problems.append(NO_TEXT)
    effects = frozenset({"select"}) if broadcasts else _effects(known, found)
    return Command(name=known.name, effects=effects, resources=resources, problems=tuple(problems))


def _broadcasts(known: Known, arguments: Sequence[bytes]) -> bool:
    """Say whether it asks to be told the name of every key that anybody changes, or of all that begin alike."""
    return known.name == _TRACKING and any(option(word) == b"BCAST" for word in arguments[_TRACKING_OPTIONS:])


def _shown(name: bytes) -> str:
    """Give the name of a command that nobody knows, if it is one."""
    text = name.decode("latin-1").upper()
    plain = name.isascii() and text.replace(".", "").replace("_", "").replace("-", "").isalnum()
    return text if plain and len(text) <= _NAME_CHARACTERS_MAX else UNKNOWN


def _effects(known: Known, found: Sequence[Found] | None) -> frozenset[str]:
    effects = set(_ALSO.get(known.name, ()))
    for flags in (one.flags for one in (known.searches if found is None else found)):
        effects |= {effect for flag, effect in _BY_FLAG.items() if flag in flags}
        if "RO" in flags:
            effects.add("select")
    if "admin" in known.flags or ("@dangerous" in known.categories and known.name not in _HARMLESS_DANGEROUS):
        effects.add("administer")
    if "@scripting" in known.categories:
        # What a script does to its keys, and others, is its own affair.
        effects -= {"select", "update"}
        effects.add("code")
    if "write" in known.flags and not effects & _WRITES and known.name not in _READ_AT_TIMES:
        effects.add("update")
    if "readonly" in known.flags and not effects:
        effects.add("select")
    if known.categories & _SESSION and not effects:
        effects.add("session")
    return frozenset(effects or {"session"})


def _resources(known: Known, arguments: Sequence[bytes], found: Sequence[Found]) -> tuple[tuple[str, str], ...] | None:
    resources: dict[tuple[str, str], None] = {}
    try:
        for key in found:
            name = arguments[key.index].decode()
            if "RO" in key.flags or "access" in key.flags:
                resources[name, "read"] = None
            if "RO" not in key.flags:
                resources[name, "write"] = None
        access = _CHANNELS.get(known.name)
        if access is not None:
            channels = arguments[1:2] if access == "write" else arguments[1:]
            resources |= dict.fromkeys((channel.decode(), access) for channel in channels)
    except UnicodeDecodeError:
        return None
    return tuple(resources)


def _elsewhere(known: Known, arguments: Sequence[bytes]) -> bool:
    if known.name in ("MOVE", "SWAPDB", "FLUSHALL", "MIGRATE"):
        return True
    start = _DATABASE_WORD.get(known.name)
    return start is not None and any(option(word) == b"DB" for word in arguments[start:])
