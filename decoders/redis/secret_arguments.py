"""Which arguments of a command are passwords.

What lives here: the commands of Redis 7 that carry one, argument by argument. What must not: keys and values, which an
operator's rules name; bytes.

Where a word can be a password or not, depending on what stands before it, the reading is that of Redis; what Redis would
refuse is hidden when it looks like one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

_SETTINGS: Final = frozenset(
    {b"REQUIREPASS", b"MASTERAUTH", b"PRIMARYAUTH", b"TLS-KEY-FILE-PASS", b"TLS-CLIENT-KEY-FILE-PASS", b"USER"}
)
"""Settings that are passwords; `user` is a line of an ACL file."""
_SENTINEL: Final = frozenset({b"AUTH-PASS", b"SENTINEL-PASS"})
_RULES: Final = b"><#!"
"""First letters of the rules of ACL SETUSER that hold a password or the hash of one."""
USER_AT: Final = 2
"""Of ACL SETUSER."""
_LONGEST: Final = 1 << 16
"""More arguments than any of these commands has; beyond it all are hidden."""


def secrets_of(arguments: Sequence[bytes]) -> frozenset[int]:
    """Give the indexes of the arguments, the command's name being 0, that are passwords."""
    if not arguments:
        return frozenset()
    find = _FIND.get(arguments[0].upper())
    if find is None:
        return frozenset()
    if len(arguments) > _LONGEST:
        return frozenset(range(1, len(arguments)))
    return frozenset(find([argument.upper() for argument in arguments[:4]], arguments))


def _auth(_: Sequence[bytes], arguments: Sequence[bytes]) -> list[int]:
    """AUTH [user] password: with three words only the last is one; with any other number nobody knows."""
    return [2] if len(arguments) == 3 else list(range(1, len(arguments)))  # noqa: PLR2004 - AUTH user password


def _hello(_: Sequence[bytes], arguments: Sequence[bytes]) -> list[int]:
    found: list[int] = []
    for index, argument in enumerate(arguments):
        if index > 0 and argument.upper() == b"AUTH":
            # AUTH user password; with only one word behind it, that is taken for the password.
            found += [index + 2] if index + 2 < len(arguments) else range(index + 1, len(arguments))
    return found


def _acl(upper: Sequence[bytes], arguments: Sequence[bytes]) -> list[int]:
    if upper[1:2] == [b"DRYRUN"]:
        return _of_another(arguments, 3)
    if upper[1:2] != [b"SETUSER"]:
        return []
    return [index for index, argument in enumerate(arguments) if index > USER_AT and argument[:1] in _RULES and argument]


def _command(_: Sequence[bytes], arguments: Sequence[bytes]) -> list[int]:
    """COMMAND GETKEYS command..., and its like."""
    return _of_another(arguments, 2)


def _of_another(arguments: Sequence[bytes], begin: int) -> list[int]:
    """Give the passwords of a command that stands in one, which is not looked for any deeper."""
    find = _FIND.get(arguments[begin].upper()) if len(arguments) > begin else None
    if find is None or find in (_acl, _command):
        return []
    inner = arguments[begin:]
    return [begin + index for index in find([argument.upper() for argument in inner[:4]], inner)]


def _config(upper: Sequence[bytes], arguments: Sequence[bytes]) -> list[int]:
    if upper[1:2] != [b"SET"]:
        return []
    return [index + 1 for index in range(2, len(arguments) - 1) if arguments[index].upper() in _SETTINGS]


def _sentinel(upper: Sequence[bytes], arguments: Sequence[bytes]) -> list[int]:
    if upper[1:2] not in ([b"SET"], [b"CONFIG"]):
        return []
    return [index + 1 for index in range(2, len(arguments) - 1) if arguments[index].upper() in _SENTINEL]


def _migrate(_: Sequence[bytes], arguments: Sequence[bytes]) -> list[int]:
    """MIGRATE host port key db timeout [COPY] [REPLACE] [AUTH password | AUTH2 user password] [KEYS key...]."""
    found: list[int] = []
    for index in range(6, len(arguments)):
        option = arguments[index].upper()
        if option == b"KEYS":
            break
        if option == b"AUTH":
            found.append(index + 1)
        elif option == b"AUTH2":
            found.append(index + 2)
    return [index for index in found if index < len(arguments)]


_FIND: Final[Mapping[bytes, Callable[[Sequence[bytes], Sequence[bytes]], list[int]]]] = {
    b"AUTH": _auth,
    b"HELLO": _hello,
    b"ACL": _acl,
    b"COMMAND": _command,
    b"CONFIG": _config,
    b"SENTINEL": _sentinel,
    b"MIGRATE": _migrate,
}

SECRET_ANSWERS: Final = {
    b"ACL": frozenset({b"GETUSER", b"LIST", b"GENPASS"}),
    b"CONFIG": frozenset({b"GET"}),
}
"""Commands, by their second word, whose answer can hold a password or the hash of one."""


def answer_is_secret(arguments: Sequence[bytes]) -> bool:
    """Whether the answer to a command holds passwords, or hashes of them. CONFIG GET: only if it can ask for one."""
    words = [argument.upper() for argument in arguments[:2]]
    if len(words) < 2 or words[1] not in SECRET_ANSWERS.get(words[0], ()):  # noqa: PLR2004 - command and subcommand
        return False
    return words[0] != b"CONFIG" or any(_may_name_a_secret(pattern) for pattern in arguments[2:])


def _may_name_a_secret(pattern: bytes) -> bool:
    """Whether a pattern of CONFIG GET may match the name of a password."""
    if any(letter in b"[\\" for letter in pattern):
        return True
    upper = pattern.upper().decode("latin-1")
    return any(fnmatchcase(name.decode(), upper) for name in _SETTINGS)
