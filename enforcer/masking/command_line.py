"""Which argument of a command is a password, or has one in it, though its own words do not say so.

What lives here: options that name one, and the programs whose options do not. What must not: texts, rules of a configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

_FLAG: Final = re.compile(
    r"--?(?:[a-z0-9]+[-_.]){0,3}(?:password|passwd|pass|pwd|passphrase|secret|token|credentials?|auth|oauth2-bearer|storepass"
    r"|keypass|api[-_]?key|secret[-_]key|access[-_]key|private[-_]key|auth[-_]?key|otp|pat|secret[-_]string)",
    re.IGNORECASE,
)
_USER_FLAG: Final = re.compile(r"(?:-[uUa]|--user|--proxy-user|--auth)")
_USER_AND_SECRET: Final = re.compile(r"((?:-[uU]|--(?:proxy-)?user=|--auth=)?[^:]+:)(?![0-9]{1,6}\Z)(.+)", re.DOTALL)
_ASSIGNED: Final = re.compile(r"((?:-pass(?:in|out)?=?)?pass:|--from-literal=[^=]+=)(.+)", re.DOTALL)
_WITH_VALUE: Final = re.compile(r"([^=]+)=(.+)", re.DOTALL)
_CURL_CLUSTER: Final = re.compile(r"-[a-zA-Z0-9#]+[uUb]")
"""Several options in one, the last of which takes what follows."""
_SETTING: Final = re.compile(r"(?!-)\w*_\w*", re.ASCII)
_NAME_ENDS: Final = re.compile(r".*[./:]", re.DOTALL)
_SETS: Final = frozenset({"aws", "dotnet", "gcloud", "git", "npm", "pip", "pnpm", "poetry", "yarn"})
"""Programs that take the name of a setting, and behind it its value."""
_MYSQL: Final = (frozenset[str](), ("-p",))
_BEHIND_P: Final = (frozenset({"-p"}), ("-p",))
_PROGRAMS: Final[Mapping[str, tuple[frozenset[str], tuple[str, ...]]]] = {
    "7z": _MYSQL,
    "bcp": (frozenset({"-P"}), ("-P",)),
    "cqlsh": _BEHIND_P,
    "curl": (frozenset({"-b", "--cookie", "--tlspassword", "--proxy-tlspassword"}), ("-b", "--cookie=")),
    "dotnet": (frozenset({"-k"}), ()),
    "evil-winrm": _BEHIND_P,
    "influx": (frozenset({"-t"}), ()),
    "ldapadd": (frozenset({"-w"}), ("-w",)),
    "ldapmodify": (frozenset({"-w"}), ("-w",)),
    "ldapsearch": (frozenset({"-w"}), ("-w",)),
    "mariadb": _MYSQL,
    "mariadb-dump": _MYSQL,
    "mongo": _BEHIND_P,
    "mongodump": _BEHIND_P,
    "mongoexport": _BEHIND_P,
    "mongoimport": _BEHIND_P,
    "mongorestore": _BEHIND_P,
    "mongosh": _BEHIND_P,
    "mysql": _MYSQL,
    "mysqladmin": _MYSQL,
    "mysqldump": _MYSQL,
    "ncftpput": _BEHIND_P,
    "nmcli": (frozenset({"password"}), ()),
    "nuget": (frozenset({"-ApiKey"}), ()),
    "openssl": (frozenset({"-k", "-K"}), ()),
    "rdesktop": _BEHIND_P,
    "redis-cli": (frozenset({"-a"}), ()),
    "sendemail": (frozenset({"-xp"}), ()),
    "snowsql": _BEHIND_P,
    "sqlcmd": (frozenset({"-P"}), ("-P",)),
    "ssh-keygen": (frozenset({"-N", "-P"}), ()),
    "sshpass": _BEHIND_P,
    "swaks": (frozenset({"-ap"}), ()),
    "twine": (frozenset({"-p"}), ()),
    "unzip": (frozenset({"-P"}), ()),
    "useradd": (frozenset({"-p"}), ()),
    "usermod": (frozenset({"-p"}), ()),
    "xfreerdp": (frozenset(), ("/p:",)),
    "zip": (frozenset({"-P"}), ()),
}
"""Programs, the options of theirs behind which a password is an argument, and those on which it goes on at once."""
_LAST: Final[Mapping[str, frozenset[str]]] = {
    "bundle": frozenset({"config"}),
    "composer": frozenset({"config"}),
    "htpasswd": frozenset({"-b", "-nb", "-bn", "-cb", "-bc", "-nbB", "-bnB", "-Bb", "-bB"}),
    "mc": frozenset({"alias"}),
    "ngrok": frozenset({"authtoken", "add-authtoken"}),
    "rabbitmqctl": frozenset({"add_user", "authenticate_user", "change_password"}),
    "redis-cli": frozenset({"auth", "requirepass", "masterauth"}),
    "vault": frozenset({"login", "unseal"}),
}
"""Programs, and words of theirs with which the last argument is a password."""
_PUTS: Final[Mapping[str, frozenset[str]]] = {
    "vault": frozenset({"put", "patch", "write"}),
    "fly": frozenset({"secrets"}),
    "flyctl": frozenset({"secrets"}),
    "doppler": frozenset({"secrets"}),
}
"""Programs, and words of theirs with which every value that a name is given is kept as a secret."""
_WITH_WORD: Final[Mapping[str, tuple[str, tuple[frozenset[str], tuple[str, ...]]]]] = {
    **dict.fromkeys(("az", "docker", "oc", "podman"), ("login", _BEHIND_P)),
    "gh": ("secret", (frozenset({"-b", "--body"}), ("-b", "--body="))),
}
"""Programs, the word with which they take a password, and the options behind which it is then."""
_RUNNERS: Final = frozenset({"sudo", "env", "nice", "timeout", "nohup", "xargs", "setpriv", "stdbuf", "strace", "doas", "time"})
"""Programs that run the one behind them."""
_RUNNER_WORDS_MAX: Final = 12
"""So many words, with options and what belongs to them, stand before the program that they run at most."""
_KNOWN: Final = frozenset({*_PROGRAMS, *_WITH_WORD, *_LAST, *_PUTS, *_SETS})


def hidden_from(argv: Sequence[object], is_key: Callable[[str], bool]) -> dict[int, int]:
    """Give the arguments that are hidden, by index, and from which character on.

    Args:
        argv: of the command.
        is_key: whether a name is one of a password.
    """
    program, names = _program(argv)
    separate, attached = _options(program, names)
    sets = program in _SETS
    puts = bool(_PUTS.get(program, frozenset[str]()) & names)
    found: dict[int, int] = {}
    before = ""
    for index, argument in enumerate(argv):
        if isinstance(argument, str):
            begin = _begin(argument, before, separate, is_key) if index else None
            on = next((len(flag) for flag in attached if argument.startswith(flag) and len(argument) > len(flag)), None)
            if begin is None and index and on is not None:
                begin = on
            if begin is None and index:
                begin = _set(argument, before, is_key if sets else None, puts=puts)
            if begin is not None:
                found[index] = begin
            before = argument
    if _LAST.get(program, frozenset[str]()) & {*names, *(name.lower() for name in names)} and isinstance(argv[-1], str):
        found.setdefault(len(argv) - 1, 0)
    return found


def _begin(argument: str, before: str, separate: frozenset[str], is_key: Callable[[str], bool]) -> int | None:
    """Give where in an argument a password begins; `before`: the argument before it."""
    of_curl = "--cookie" in separate
    cluster = of_curl and _CURL_CLUSTER.fullmatch(before) is not None
    flagged = before in separate or (_FLAG.fullmatch(before) is not None and not argument.startswith("-"))
    setting = _SETTING.fullmatch(before) is not None and is_key(before)
    user = _USER_FLAG.fullmatch(before) or (cluster and before[-1] in "uU") or (of_curl and before in {"-E", "--cert"})
    if user or argument.startswith(("-u", "-U", "--user=", "--proxy-user=", "--auth=")):
        pair = _USER_AND_SECRET.fullmatch(argument)
        if pair is not None:
            return pair.start(2)
        if before == "-U" and "%" in argument:
            return argument.index("%") + 1
    if flagged or setting or (cluster and before[-1] == "b"):
        return 0
    assigned = _ASSIGNED.fullmatch(argument)
    return None if assigned is None else assigned.start(2)


def _set(argument: str, before: str, is_key: Callable[[str], bool] | None, *, puts: bool) -> int | None:
    """Give where the value of a setting begins, which stands behind its name in the same argument, or the one before."""
    pair = _WITH_VALUE.fullmatch(argument)
    if pair is not None and (before == "--from-literal" or puts or _FLAG.fullmatch(pair[1])):
        return pair.start(2)
    named = is_key is not None and not before.startswith("-") and is_key(_NAME_ENDS.sub("", before))
    return 0 if named and pair is None else None


def _program(argv: Sequence[object]) -> tuple[str, frozenset[str]]:
    """Give the program that is run, and all words behind its name."""
    names = [argument.rsplit("/", 1)[-1] for argument in argv if isinstance(argument, str)]
    run = names[:1] if names[:1] and names[0] not in _RUNNERS else names[1:_RUNNER_WORDS_MAX]
    at = next((at for at, name in enumerate(run) if name in _KNOWN), 0)
    return (run[at], frozenset(names[at + 1 :])) if run else ("", frozenset())


def _options(program: str, names: frozenset[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Give the options of a program that do not name what they are."""
    word, options = _WITH_WORD.get(program, ("", None))
    if options is not None and word in names:
        return options
    return _PROGRAMS.get(program, (frozenset(), ()))
