"""Asks a `match` of actions: compiled into functions once, so that a rule costs about a microsecond.

What lives here: the functions. What must not: reading, what a match leads to.

An answer is True, False, or None: it is not known. What a message says is asked only as far as it could be read: of an action
that is not complete, no answer about its content is a certain no, unless the one thing that is not certain is which of several
readings its path has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from capd.enforcer.policy.action import COMMANDS, SUBCOMMAND, UNKNOWN_SCHEMA, UNREADABLE_HOST, Action, Tri
from capd.enforcer.policy.condition import Bindings, Condition
from capd.enforcer.policy.glob import Glob, PathGlob, any_of
from capd.enforcer.policy.host_pattern import ANY, any_host
from capd.enforcer.policy.linear_regex import RegexError, compile_regex
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.protocol import HTTP, MYSQL, PROTOCOLS, REDIS
from capd.enforcer.policy.written_otherwise import decoded, unescaped

Check = Callable[[Action], Tri]
Matcher = Callable[[Action, Bindings], Tri]


def named_checks(match: Match) -> Iterator[tuple[str, Check]]:
    """Give the function of each key that is given, those that are cheap and of the connection first."""
    for key, build in (*CONNECTION.items(), *CONTENT.items()):
        if getattr(match, key) or (key == "protocols" and len(match.of_protocols) < len(PROTOCOLS)):
            yield key, build(match)


def compile_match(match: Match, condition: Condition | None = None, *, known: frozenset[str] = frozenset()) -> Matcher:
    """Give one function for all keys, and the condition of a rule.

    Args:
        match: the keys.
        condition: beside them.
        known: keys that hold wherever the function is asked, because it was found by them.
    """
    connection = tuple(check for key, check in named_checks(match) if key in CONNECTION and key not in known)
    content = tuple(check for key, check in named_checks(match) if key in CONTENT)

    def matches(action: Action, bindings: Bindings) -> Tri:
        answer: Tri = True
        for check in connection:
            found = check(action)
            if found is False:
                return False
            if found is None:
                answer = None
        certain = action.complete or action.path_alone
        for check in content:
            found = check(action)
            if found is False and certain:
                return False
            if not found:
                answer = None
        if condition is not None:
            found = condition(bindings)
            if found is False and certain:
                return False
            if not found:
                answer = None
        return answer

    return matches


def _all_agree(answers: Sequence[Tri]) -> Tri:
    """Of names that a message claims, what it touches, how its path is read: all must be meant for a yes, none for a no.

    So a rule that stops needs one of them, and a rule that permits needs all.
    """
    if all(answer is True for answer in answers):
        return True
    return False if all(answer is False for answer in answers) else None


def _principals(match: Match) -> Check:
    # A pattern is for names, or for kinds and names: `user*` is not for everybody of the kind user, and a name that an identity
    # provider gave cannot pass for one of another kind.
    names = any_of([glob for glob in match.principals if ":" not in glob.text])
    kinds = any_of([glob for glob in match.principals if ":" in glob.text])

    def check(action: Action) -> Tri:
        known = action.principal
        return None if known is None else names(known.name) or kinds(f"{known.kind}:{known.name}")

    return check


def _runs(match: Match) -> Check:
    matches = any_of(match.runs)
    return lambda action: None if action.run.name is None else matches(action.run.name)


def _labels(match: Match) -> Check:
    wanted = tuple((name, any_of(values)) for name, values in match.labels)

    def check(action: Action) -> Tri:
        labels = action.run.labels
        answers = [matches(labels[name]) if name in labels else False for name, matches in wanted]
        if False in answers:
            return False
        return None if None in answers else True

    return check


def _protocols(match: Match) -> Check:
    names = match.of_protocols
    return lambda action: action.protocol in names


def _hosts(match: Match) -> Check:
    matches = any_host(match.hosts)
    anyone = True if any(pattern.text == ANY for pattern in match.hosts) else None

    def check(action: Action) -> Tri:
        target = action.target
        if not target.aliases and target.host != UNREADABLE_HOST:
            return matches(target.host)
        return _all_agree([anyone if name == UNREADABLE_HOST else matches(name) for name in target.names])

    return check


def _ports(match: Match) -> Check:
    ranges = match.ports
    if all(one.first == one.last for one in ranges):
        ports = frozenset(one.first for one in ranges)
        return lambda action: action.target.port in ports
    return lambda action: any(action.target.port in one for one in ranges)


def _addresses(match: Match) -> Check:
    networks = [one.network for one in match.addresses]
    single = frozenset(network.network_address for network in networks if network.num_addresses == 1)
    # As numbers: comparing objects of ipaddress takes a microsecond each.
    wider = [
        (network.version, int(network.netmask), int(network.network_address))
        for network in networks
        if network.num_addresses > 1
    ]

    def check(action: Action) -> Tri:
        address = action.target.address
        if address is None:
            return None
        if address in single:
            return True
        if not wider:
            return False
        number, version = int(address), address.version
        return any(version == of and number & mask == first for of, mask, first in wider)

    return check


def _tls(match: Match) -> Check:
    wanted = frozenset(match.tls)
    unknown = "unknown" in wanted

    def check(action: Action) -> Tri:
        tls = action.target.tls
        return tls in wanted or (None if tls == "unknown" and not unknown else False)

    return check


def _databases(match: Match) -> Check:
    matches, folded = any_of(match.databases), _folded(match.databases)

    def check(action: Action) -> Tri:
        name = action.database
        if name is None:
            return None
        found = matches(name)
        return None if found is False and action.protocol == MYSQL and folded(name.casefold()) is not False else found

    return check


def _users(match: Match) -> Check:
    matches = any_of(match.users)
    return lambda action: None if action.user is None else matches(action.user)


def _folded(globs: Sequence[Glob]) -> Callable[[str], Tri]:
    """Give a function that asks without regard to case: where MySQL's file system has none, `Cards` is `cards`."""
    return any_of([Glob(glob.text.casefold()) for glob in globs])


def _methods(match: Match) -> Check:
    """Case counts (RFC 9110 9.1), not for every server: of `delete` nobody knows. Rules have capitals (match_reading.py)."""
    wanted = frozenset(match.methods)

    def check(action: Action) -> Tri:
        method = action.operation
        if method in wanted:
            return True
        return None if method.upper() in wanted else False

    return check


def _commands(match: Match) -> Check:
    wanted = frozenset(match.commands)

    def is_wanted(command: str) -> bool:
        return command in wanted or command.partition(SUBCOMMAND)[0] in wanted

    return lambda action: _all_agree([is_wanted(command) for command in action.operation.split(COMMANDS)])


def _paths(match: Match) -> Check:
    texts = [glob.text for glob in match.paths]
    folded = [PathGlob(text.casefold()) for text in texts]
    return _read_both_ways(_loosely(any_of(match.paths), any_of(folded), plain=texts == [glob.text for glob in folded]))


def _path_regex(match: Match) -> Check:
    pattern = match.path_regex or ""
    exactly = compile_regex(pattern)
    try:
        folded = compile_regex(f"(?i){pattern}")
    except RegexError:  # too large so; then there is no other way to read it
        return _read_both_ways(exactly)
    return _read_both_ways(_loosely(exactly, folded, plain=pattern == pattern.casefold()))


def _loosely(exactly: Callable[[str], Tri], folded: Callable[[str], Tri], *, plain: bool) -> Callable[[str], Tri]:
    """Case counts, and so does a slash at the end, not for every server: of `/Admin/` nobody knows whether it is `/admin`.

    Args:
        exactly: asks about a path.
        folded: asks about one in small letters.
        plain: whether the two are the same for a path in small letters.
    """

    def matches(path: str) -> Tri:
        found = exactly(path)
        if found is not False:
            return found
        small = path.casefold()
        short = small.removesuffix("/") or small
        if plain and short == path:
            return False
        return False if folded(small) is False and folded(short) is False else None

    return matches


def _read_both_ways(matches: Callable[[str], Tri]) -> Check:
    """Ask about a path in every way in which servers read it."""

    def check(action: Action) -> Tri:
        if action.path is not None:
            return matches(action.path)
        return _all_agree([matches(one) for one in action.readings]) if action.readings else None

    return check


def _query(match: Match) -> Check:
    """As it was sent counts; where a server that decodes it reads what is looked for, nobody knows what it is."""
    matches = compile_regex(match.query_regex or "")

    def check(action: Action) -> Tri:
        return None if action.query is None else _read_also(matches, action.query, decoded(action.query))

    return check


def _text(match: Match) -> Check:
    """As a query: in a body of HTTP letters may stand for others, as in JSON or a form."""
    matches = compile_regex(match.text_regex or "")

    def check(action: Action) -> Tri:
        if action.text is None:
            return None
        return _read_also(matches, action.text, unescaped(action.text) if action.protocol == HTTP else ())

    return check


def _read_also(matches: Callable[[str], Tri], text: str, others: Iterable[str]) -> Tri:
    found = matches(text)
    return None if found is False and any(matches(other) is not False for other in others) else found


def _effects(match: Match) -> Check:
    wanted = frozenset(match.effects)

    def check(action: Action) -> Tri:
        known = action.effects
        if known is None:
            return None
        return _all_agree([effect in wanted for effect in known]) if known else False

    return check


def _resources(match: Match) -> Check:
    matches, folded = any_of(match.resources), _folded(match.resources)
    anywhere = any_of([Glob(glob.text.removeprefix("*.")) for glob in match.resources if _anywhere(glob)])
    tables = any_of([Glob(glob.text.rpartition(".")[2]) for glob in match.resources if glob.text.count(".") == 1])
    undivided = any("." not in glob.text for glob in match.resources)

    def of_unknown_schema(name: str) -> Tri:
        # `*.orders` is any schema's; of others it depends on the schema, if at least the table is meant.
        return True if anywhere(name) else (None if undivided or tables(name) else False)

    def check(action: Action) -> Tri:
        if action.resources is None:
            return None
        protocol = action.protocol
        return _all_agree([of(one.name, protocol) for one in action.resources]) if action.resources else False

    def of(name: str, protocol: str) -> Tri:
        if protocol == REDIS:
            return matches(name)
        if name.startswith(UNKNOWN_SCHEMA):
            return of_unknown_schema(name.removeprefix(UNKNOWN_SCHEMA))
        found = matches(name)
        return None if found is False and protocol == MYSQL and folded(name.casefold()) is not False else found

    return check


def _anywhere(glob: Glob) -> bool:
    """Say whether a pattern is for relations of whichever schema."""
    return glob.text in {"*", "**"} or (glob.text.startswith("*.") and "." not in glob.text[2:])


def _facts(match: Match) -> Check:
    wanted = match.facts

    def check(action: Action) -> Tri:
        found = [(action.facts.get(name), value) for name, value in wanted]
        if any(known is not None and known is not value for known, value in found):
            return False
        return None if any(known is None for known, _ in found) else True

    return check


CONNECTION: Final[dict[str, Callable[[Match], Check]]] = {
    "protocols": _protocols,
    "hosts": _hosts,
    "ports": _ports,
    "tls": _tls,
    "databases": _databases,
    "users": _users,
    "principals": _principals,
    "runs": _runs,
    "labels": _labels,
    "addresses": _addresses,
}
CONTENT: Final[dict[str, Callable[[Match], Check]]] = {
    "methods": _methods,
    "commands": _commands,
    "paths": _paths,
    "effects": _effects,
    "resources": _resources,
    "facts": _facts,
    "path_regex": _path_regex,
    "query_regex": _query,
    "text_regex": _text,
}
