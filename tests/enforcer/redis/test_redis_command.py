"""What commands of Redis do."""

from __future__ import annotations

import pytest

from capd.enforcer.policy.protocol import EFFECTS
from capd.enforcer.redis.catalogue import catalogue
from capd.enforcer.redis.command import ELSEWHERE, NO_TEXT, NOT_KNOWN, SCRIPT, Command, read
from capd.enforcer.redis.keys import NO_SENSE, PATTERNS

CASES: dict[str, tuple[str, str, str, str]] = {
    "GET k": ("GET", "select", "k read", ""),
    "get k": ("GET", "select", "k read", ""),
    "SET k v": ("SET", "update", "k write", ""),
    "SET k v GET": ("SET", "select update", "k read, k write", ""),
    "DEL a b": ("DEL", "delete", "a write, b write", ""),
    "SET k v GET\x00x": ("SET", "select update", "k read, k write", ""),
    "GEORADIUS k 1 2 3 km STORE\x00 d": ("GEORADIUS", "select update", "k read, d write", ""),
    "COPY a b DB\x00 1": ("COPY", "select update", "a read, b write", ELSEWHERE),
    "SETNX k v": ("SETNX", "insert", "k write", ""),
    "INCR k": ("INCR", "select update", "k read, k write", ""),
    "LPUSH k v": ("LPUSH", "insert", "k write", ""),
    "RENAME a b": ("RENAME", "select delete update", "a read, a write, b write", ""),
    "MGET a b": ("MGET", "select", "a read, b read", ""),
    "PING": ("PING", "session", "", ""),
    "SELECT 3": ("SELECT", "session", "", ""),
    "MULTI": ("MULTI", "session", "", ""),
    "CLIENT SETNAME x": ("CLIENT|SETNAME", "session", "", ""),
    "CLIENT KILL x": ("CLIENT|KILL", "administer", "", ""),
    "CONFIG SET dir /x": ("CONFIG|SET", "administer file", "", ""),
    "ACL SETUSER x": ("ACL|SETUSER", "administer grant", "", ""),
    "FLUSHALL": ("FLUSHALL", "administer drop", "?", ELSEWHERE),
    "FLUSHDB": ("FLUSHDB", "administer drop", "?", ""),
    "CLIENT TRACKING ON": ("CLIENT|TRACKING", "session", "", ""),
    "CLIENT TRACKING ON NOLOOP OPTIN": ("CLIENT|TRACKING", "session", "", ""),
    "client tracking on bcast": ("CLIENT|TRACKING", "select", "?", ""),
    "CLIENT TRACKING ON PREFIX a: BCAST NOLOOP": ("CLIENT|TRACKING", "select", "?", ""),
    "KEYS *": ("KEYS", "select", "?", ""),
    "SCAN 0": ("SCAN", "select", "?", ""),
    "CLUSTER GETKEYSINSLOT 0 9": ("CLUSTER|GETKEYSINSLOT", "select", "?", ""),
    "PUBSUB CHANNELS": ("PUBSUB|CHANNELS", "select", "?", ""),
    "PUBSUB SHARDCHANNELS a*": ("PUBSUB|SHARDCHANNELS", "select", "?", ""),
    "EVAL s 1 k": ("EVAL", "code", "k read, k write", SCRIPT),
    "EVALSHA_RO s 1 k": ("EVALSHA_RO", "code", "k read", SCRIPT),
    "EVAL s 5 k": ("EVAL", "code", "?", f"{NO_SENSE}, {SCRIPT}"),
    "SCRIPT LOAD x": ("SCRIPT|LOAD", "code", "", ""),
    "FUNCTION LOAD x": ("FUNCTION|LOAD", "code", "", ""),
    "MODULE LOAD x": ("MODULE|LOAD", "administer code file", "", ""),
    "SORT k BY w_*": ("SORT", "select update", "?", PATTERNS),
    "SORT k LIMIT 0 1": ("SORT", "select", "k read", ""),
    "SUBSCRIBE a b": ("SUBSCRIBE", "select", "a read, b read", ""),
    "PSUBSCRIBE *": ("PSUBSCRIBE", "select", "?", ""),
    "PUBLISH a m": ("PUBLISH", "notify", "a write", ""),
    "COPY a b": ("COPY", "select update", "a read, b write", ""),
    "COPY a b DB 1": ("COPY", "select update", "a read, b write", ELSEWHERE),
    "MOVE a 1": ("MOVE", "select update", "a read, a write", ELSEWHERE),
    "MONITOR": ("MONITOR", "administer select", "?", ""),
    "SHUTDOWN": ("SHUTDOWN", "administer file", "?", ""),
    "JSON.SET k . 1": ("JSON.SET", "?", "?", NOT_KNOWN),
    "CONFIG NOSUCH": ("CONFIG", "?", "?", NOT_KNOWN),
    "g\x00t k": ("unknown", "?", "?", NOT_KNOWN),
    "GET": ("GET", "select", "?", NO_SENSE),
    "GET \xff": ("GET", "select", "?", NO_TEXT),
}


@pytest.mark.parametrize("line", CASES)
def test_what_a_command_does(line: str) -> None:
    """Effects and keys are those that the command has, or not known."""
    found = read(line.encode("latin-1").split(b" "))
    resources = "?" if found.resources is None else ", ".join(f"{name} {access}" for name, access in found.resources)
    name, effects, keys, problems = CASES[line]
    assert (name, keys, problems) == (found.name, resources, ", ".join(found.problems))
    assert (None if effects == "?" else set(effects.split())) == found.effects


def each() -> list[Command]:
    """Every command that is known, with as many words as it needs."""
    found = []
    for known in catalogue().values():
        words = known.name.split("|")
        found.append(read([word.encode() for word in [*words, *["1"] * (abs(known.arity) - len(words))]]))
    return found


def test_every_command_does_something() -> None:
    """Every command has an effect, and only such that a rule can name."""
    assert [] == [found.name for found in each() if not found.effects and NOT_KNOWN not in found.problems]
    assert set() == {effect for found in each() for effect in found.effects or ()} - set(EFFECTS)


def test_what_is_dangerous_can_be_told_by_its_effects() -> None:
    """What Redis itself calls dangerous or for administrators can be denied by its effect, but for what only reads."""
    telling = {"administer", "code", "drop", "grant", "file"}
    dangerous = {known.name for known in catalogue().values() if known.categories & {"@dangerous", "@admin"}}
    quiet = {found.name for found in each() if not (found.effects or telling) & telling}
    assert {"KEYS", "SORT", "SORT_RO", "INFO", "ROLE", "LASTSAVE"} == dangerous & quiet


def test_what_writes_is_said_to_write() -> None:
    """No command that Redis says writes is said only to read, and none that it says reads is said to write."""
    writes = {"insert", "update", "delete", "drop", "code"}
    found = {one.name: one.effects or writes for one in each()}
    said = catalogue()
    at_times = {"BITFIELD", "SORT", "GEORADIUS", "GEORADIUSBYMEMBER"}
    quiet = {name for name, effects in found.items() if name in said and "write" in said[name].flags and not effects & writes}
    assert set() == quiet - at_times
    loud = {name for name, effects in found.items() if name in said and "readonly" in said[name].flags and effects & writes}
    assert {"EVAL_RO", "EVALSHA_RO", "FCALL_RO"} == loud
