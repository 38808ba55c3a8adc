"""Which arguments of a command are keys.

What lives here: the search that Redis itself makes by a command's key specifications (db.c, getKeysUsingKeySpecs), and the
commands whose own reading of their words is another one. What must not: what is done with the keys.

Where a specification and what the command really does can differ (a group of streams that is called STREAMS), what is said is
that it is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from capd.decoders.redis.wire import COUNT_LIMIT, length_of
from capd.enforcer.redis.catalogue import Known, Search

NO_SENSE: Final = "its keys do not add up"
PATTERNS: Final = "patterns in it name keys that nobody knows"
TWO_READINGS: Final = "its words can be read in two ways"


class UnknownKeysError(Exception):
    """Which keys a command has cannot be said. Never leaves this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One key.

    Attributes:
        index: of the argument.
        flags: what is done with it, as key specifications say.
    """

    index: int
    flags: frozenset[str]


def option(argument: bytes) -> bytes:
    """Give an argument as Redis compares it with its options: up to a zero byte (strcasecmp), whatever the case of letters."""
    return argument.partition(b"\0")[0].upper()


def keys_of(known: Known, arguments: Sequence[bytes]) -> list[Found]:
    """Give the keys of a command, in the order of its specifications.

    Raises:
        UnknownKeysError: nobody can say.
    """
    own = _OWN.get(known.name)
    if own is not None:
        return list(own(known, arguments))
    return [key for search in known.searches for key in _search(known, search, arguments)]


def _search(known: Known, search: Search, arguments: Sequence[bytes]) -> Iterator[Found]:
    if "not_key" in search.flags:
        return
    first = _begin(search, arguments)
    if first is not None:
        places = _find(search, first, arguments)
        if not places and "no_mandatory_keys" not in known.flags:
            raise UnknownKeysError(NO_SENSE)
        for index in places:
            yield Found(index=index, flags=search.flags)


def _begin(search: Search, arguments: Sequence[bytes]) -> int | None:
    match search.begin:
        case ("index", at):
            return int(at)
        case ("keyword", word, start):
            if int(start) < 0:
                raise UnknownKeysError(TWO_READINGS)
            places = [index for index in range(int(start), len(arguments)) if option(arguments[index]) == word.encode()]
            if len(places) > 1:
                raise UnknownKeysError(TWO_READINGS)
            return places[0] + 1 if places else None
    raise UnknownKeysError(NO_SENSE)


def _find(search: Search, first: int, arguments: Sequence[bytes]) -> range:
    match search.find:
        case ("range", step, last, limit):
            return _range(first, int(step), int(last), int(limit), len(arguments))
        case ("keynum", offset, at, step):
            place = first + int(at)
            count = length_of(arguments[place], COUNT_LIMIT) if place < len(arguments) else None
            first += int(offset)
            if count is None or first + (count - 1) * int(step) >= len(arguments):
                raise UnknownKeysError(NO_SENSE)
            return range(first, first + count * int(step), int(step))
    raise UnknownKeysError(NO_SENSE)


def _range(first: int, step: int, last: int, limit: int, count: int) -> range:
    if last >= 0:
        end = first + last
    elif limit > 1:
        end = first + (count - first) // limit + last
    else:
        end = count + last
    if first >= count or end >= count or end < first:
        raise UnknownKeysError(NO_SENSE)
    return range(first, end + 1, step)


# Commands that read their words in their own way.

READ: Final = frozenset({"RO", "access"})
WRITTEN: Final = frozenset({"OW", "update"})
READ_AND_WRITTEN: Final = frozenset({"RW", "access", "update"})
MOVED: Final = frozenset({"RW", "access", "delete"})


def _set(_: Known, arguments: Sequence[bytes]) -> list[Found]:
    """SET gives the old value when it is asked to (t_string.c, setGetKeys)."""
    asked = any(option(word) == b"GET" for word in arguments[3:])
    return [Found(index=1, flags=READ_AND_WRITTEN if asked else WRITTEN)]


def _bitfield(_: Known, arguments: Sequence[bytes]) -> list[Found]:
    """BITFIELD reads only, when it only gets (bitops.c, bitfieldGetKeys)."""
    index, reads = 2, True
    while index < len(arguments):
        word, left = option(arguments[index]), len(arguments) - index - 1
        if word == b"GET" and left >= 2:  # noqa: PLR2004 - type, offset
            index += 3
        elif word in (b"SET", b"INCRBY") and left >= 3:  # noqa: PLR2004 - type, offset, value
            reads = False
            index += 4
        elif word == b"OVERFLOW" and left >= 1:
            index += 2
        else:
            raise UnknownKeysError(NO_SENSE)
    return [Found(index=1, flags=READ if reads else READ_AND_WRITTEN)]


def _sort(known: Known, arguments: Sequence[bytes]) -> Iterator[Found]:
    """SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA] [STORE destination]."""
    yield Found(index=1, flags=READ)
    lengths = {b"BY": 2, b"GET": 2, b"LIMIT": 3, b"ASC": 1, b"DESC": 1, b"ALPHA": 1}
    if known.name == "SORT":
        lengths[b"STORE"] = 2
    index, store = 2, None
    while index < len(arguments):
        word = option(arguments[index])
        length = lengths.get(word)
        if length is None or index + length > len(arguments):
            raise UnknownKeysError(NO_SENSE)
        if word in (b"BY", b"GET") and b"*" in arguments[index + 1]:
            raise UnknownKeysError(PATTERNS)
        if word == b"STORE":
            store = index + 1
        index += length
    if store is not None:
        yield Found(index=store, flags=WRITTEN)


def _streams(known: Known, arguments: Sequence[bytes]) -> list[Found]:
    """XREAD and XREADGROUP: options with their values, then STREAMS, and as many keys as ids (t_stream.c, xreadCommand)."""
    lengths = {b"COUNT": 2, b"BLOCK": 2}
    if known.name == "XREADGROUP":
        lengths |= {b"GROUP": 3, b"NOACK": 1}
    index = 1
    while index < len(arguments) and option(arguments[index]) != b"STREAMS":
        length = lengths.get(option(arguments[index]))
        if length is None:
            raise UnknownKeysError(NO_SENSE)
        index += length
    rest = len(arguments) - index - 1
    grouped = any(option(word) == b"GROUP" for word in arguments[1:index])
    if rest <= 0 or rest % 2 or grouped is not (known.name == "XREADGROUP"):
        raise UnknownKeysError(NO_SENSE)
    by_word = next(at for at in range(len(arguments)) if at and option(arguments[at]) == b"STREAMS")
    if by_word != index:
        raise UnknownKeysError(TWO_READINGS)
    return [Found(index=at, flags=READ) for at in range(index + 1, index + 1 + rest // 2)]


def _radius(known: Known, arguments: Sequence[bytes]) -> list[Found]:
    """GEORADIUS and GEORADIUSBYMEMBER: the last of STORE and STOREDIST is where the result goes (geo.c)."""
    start = 6 if known.name == "GEORADIUS" else 5
    places = [index for index in range(start, len(arguments)) if option(arguments[index]) in (b"STORE", b"STOREDIST")]
    if len(places) > 1:
        raise UnknownKeysError(TWO_READINGS)
    found = [Found(index=1, flags=READ)]
    if places:
        if places[0] + 1 >= len(arguments):
            raise UnknownKeysError(NO_SENSE)
        found.append(Found(index=places[0] + 1, flags=WRITTEN))
    return found


def _migrate(_: Known, arguments: Sequence[bytes]) -> list[Found]:
    """MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password] [AUTH2 user password] [KEYS key ...]."""
    lengths = {b"COPY": 1, b"REPLACE": 1, b"AUTH": 2, b"AUTH2": 3}
    index = 6
    while index < len(arguments):
        word = option(arguments[index])
        if word == b"KEYS":
            if arguments[3] != b"" or index + 1 >= len(arguments):
                raise UnknownKeysError(NO_SENSE)
            return [Found(index=at, flags=MOVED) for at in range(index + 1, len(arguments))]
        length = lengths.get(word)
        if length is None or index + length > len(arguments):
            raise UnknownKeysError(NO_SENSE)
        index += length
    return [Found(index=3, flags=MOVED)]


_OWN: Final[Mapping[str, Callable[[Known, Sequence[bytes]], Iterator[Found] | list[Found]]]] = {
    "SET": _set,
    "BITFIELD": _bitfield,
    "SORT": _sort,
    "SORT_RO": _sort,
    "XREAD": _streams,
    "XREADGROUP": _streams,
    "GEORADIUS": _radius,
    "GEORADIUSBYMEMBER": _radius,
    "MIGRATE": _migrate,
}
