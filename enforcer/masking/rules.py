"""All rules of one configuration, put together once.

What lives here: which rules there are, and the regular expressions that look for all of them at a time. What must not: looking.

Python's `re` reads a few MB a second with a hundred alternatives, so it looks only where there is something: the prefilter is
the Rust engine inside pydantic, which decides in linear time, at hundreds of MB a second, whether a piece holds any trigger.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, groupby, product
from typing import Final

from capd.enforcer.masking import formats, identifiers, names, own_pattern
from capd.enforcer.masking.json_path import ANY, DESCEND, JsonPath
from capd.enforcer.masking.linear_matcher import linear_matcher
from capd.enforcer.masking.opening import Opening
from capd.enforcer.masking.patterns import check

_JOINED: Final = re.compile(r"[_\-]")
SPELLED_PARTS_MAX: Final = 5
"""81 ways to write a name; names of more parts are not written in mixed ways."""
_DECODED: Final = r"(?i-u:content-encoding|transfer-encoding|multipart/)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a configuration asks for.

    Attributes:
        builtin: whether the rules that come with capd hold.
        headers: further header fields.
        cookies: cookies by name; empty for all of them.
        keys: further names of parameters, form fields and JSON members, at any depth.
        json_paths: places in JSON: `$.user.ssn`, `$.cards[*].number`, `$..pin`.
        columns: columns of SQL results by name.
        redis_keys: patterns for keys and channels of Redis: `session:*`, `user:?:card`.
        identifiers: checksummed numbers by name.
        patterns: further secret formats: name to regular expression.
        unreadable: whether a body that cannot be looked into is masked.
        formats: whether the secret formats that come with capd hold; None: as `builtin` says.
        lines: whether what is looked at may be the lines of a protocol that nobody decodes.
    """

    builtin: bool = True
    headers: Sequence[str] = ()
    cookies: Sequence[str] = ()
    keys: Sequence[str] = ()
    json_paths: Sequence[str] = ()
    columns: Sequence[str] = ()
    redis_keys: Sequence[str] = ()
    identifiers: Sequence[str] = identifiers.DEFAULT
    patterns: Mapping[str, str] = field(default_factory=dict)
    unreadable: bool = True
    formats: bool | None = None
    lines: bool = False

    @property
    def knows_formats(self) -> bool:
        """Whether the secret formats that come with capd hold."""
        return self.builtin if self.formats is None else self.formats


class Rules:
    """The rules, ready to be looked for.

    Attributes:
        headers: names of header fields whose values are masked, in lower case.
        cookies: names of cookies; empty for all.
        keys: names of members and parameters, in lower case, without `_` and `-`.
        columns: names of columns, in lower case.
        json_paths: places in JSON.
        unreadable: as in `Choice`.
        openings: everything that is looked for in bytes.
        lookups: the same, ready to be looked for.
    """

    def __init__(self, choice: Choice) -> None:
        """Put the rules together.

        Raises:
            UnsafePatternError: a pattern of the operator is not allowed.
            ValueError: a path or an identifier is wrong.
        """
        self.choice = choice
        builtin = choice.builtin
        self.headers = frozenset(name.lower() for name in (*(names.HEADERS if builtin else ()), *choice.headers))
        self.cookies = frozenset(choice.cookies)
        self.columns = frozenset(column.lower() for column in choice.columns)
        self.json_paths = tuple(JsonPath.parse(path) for path in choice.json_paths)
        self.unreadable = choice.unreadable
        default_keys = names.KEYS if builtin else ()
        self.keys = frozenset(plain_key(name) for name in (*default_keys, *choice.keys))
        self._loose = tuple(map(plain_key, names.LOOSE)) if builtin else ()
        for name in choice.identifiers:
            if name not in identifiers.NAMES:
                raise ValueError(f"no identifier {name!r}; there are {', '.join(identifiers.NAMES)}")
        for pattern in choice.patterns.values():
            check(pattern)
        self.openings: tuple[Opening, ...] = (
            *(formats.FORMATS if choice.knows_formats else ()),
            *(formats.of_the_operator(name, pattern) for name, pattern in choice.patterns.items()),
            *(identifiers.identifier(name) for name in choice.identifiers),
            *names.headers(self.headers),
            *names.keys(default_keys, choice.keys),
            *(names.signing_in() if builtin and choice.lines else ()),
        )
        self.lookups = tuple(Lookup(list(alike)) for _, alike in groupby(self.openings, _alike))
        self._heads = _heads(self)
        self._cut = frozenset(head[:length] for head in self._heads for length in range(1, len(head)))
        self._head_bytes = max((len(head) for head in self._heads), default=0)
        self._any_head = linear_matcher([names.literally(names.within_ascii(head.decode()) for head in self._heads)])
        self._first_head = re.compile(names.literally(head.decode() for head in self._heads).encode() or b"(?!)")
        self._own = tuple(own_pattern.needs(pattern) for pattern in choice.patterns.values())
        self._triggers = linear_matcher([opening.trigger for opening in self.openings])
        self._wrapped = linear_matcher([_DECODED])

    def __bool__(self) -> bool:
        return bool(self.openings or self.headers or self.columns or self.json_paths or self.choice.redis_keys)

    @cached_property
    def undecoded(self) -> Rules:
        """The rules for bytes of which nobody knows where in a text they are: a path hides every member with its last name."""
        last = [next((step for step in reversed(path.steps) if _is_name(step)), None) for path in self.json_paths]
        keys = (*self.choice.keys, *(name for name in last if name is not None))
        return Rules(replace(self.choice, keys=keys, json_paths=(), lines=True))

    def is_key(self, name: str) -> bool:
        """Say whether a value is masked because of its name."""
        plain = plain_key(name)
        return plain in self.keys or plain.endswith(self._loose)

    def may_hold(self, data: bytes) -> bool:
        """Say whether there may be anything to mask; False is certain."""
        return self._triggers(data)

    def head(self, tail: bytes) -> int:
        """Give where in the last bytes something begins that could become an opening if more came; else their length."""
        lower = tail.lower()
        first = len(tail)
        if self._any_head(lower):
            # It looks past bytes beyond ASCII, which may be all that makes a head of what it found.
            found = self._first_head.search(lower)
            first = first if found is None else found.start()
        for length in range(min(self._head_bytes, len(tail)), 0, -1):
            if lower[-length:] in self._cut:
                first = min(first, len(tail) - length)
                break
        first = min((first, *(own_pattern.unfinished(needed, tail) for needed in self._own)))
        if self.choice.identifiers and lower[-1:] in _GO_ON:
            found = _IDENTIFIER_HEAD.search(lower, max(0, len(tail) - _IDENTIFIER_BYTES_MAX))
            first = min(first, found.start() if found else first)
        if self.choice.builtin:
            found = _FLAG_HEAD.search(lower, max(0, first - _FLAG_BYTES_MAX), first)
            first = found.start() if found else first
        return first

    def wrapped(self, head: bytes) -> bool:
        """Say whether the head of a message tells of a body that is not the bytes that follow."""
        return self._wrapped(head)

    def listing(self) -> list[tuple[str, str]]:
        """Give every rule: what it is for, and its name."""
        found = [("header", name) for name in sorted(self.headers)]
        found += [("cookie", name) for name in sorted(self.cookies)] or (
            [("cookie", "all")] if "cookie" in self.headers else []
        )
        found += [("key", name) for name in sorted({*(names.KEYS if self.choice.builtin else ()), *self.choice.keys})]
        found += [("json", path) for path in self.choice.json_paths]
        found += [("column", name) for name in sorted(self.columns)]
        found += [("redis key", pattern) for pattern in self.choice.redis_keys]
        told = [opening.rule.split(" ", 1) for opening in self.openings if " " in opening.rule]
        return found + list(dict.fromkeys((kind, name) for kind, name in told))


def _is_name(step: str) -> bool:
    return step not in (ANY, DESCEND) and not step.isdigit()


def plain_key(name: str) -> str:
    """Give a name as it is compared: api_key, apiKey and API-KEY are one."""
    return name.lower().replace("_", "").replace("-", "")


def _heads(rules: Rules) -> tuple[bytes, ...]:
    """Give, in lower case, how openings begin."""
    heads = {name.lower() for name in rules.headers}
    keys = [name.lower() for name in (*(names.KEYS if rules.choice.builtin else ()), *rules.choice.keys)]
    heads |= {variant for key in keys for variant in _spellings(key)}
    if rules.choice.builtin:
        heads |= {"password", "identified", "basic", "bearer", "name=", "--", "pass", *names.COMMANDS}
    if rules.choice.builtin and rules.choice.lines:
        heads |= {verb + blank for verb in names.SIGNS_IN for blank in " \t"}
    if rules.choice.knows_formats:
        heads |= {literal for opening in formats.FORMATS for literal in opening.literals} | {
            "sk_live_",
            "sk_test_",
            "rk_live_",
            "rk_test_",
        }
    found: list[str] = []
    for head in sorted(heads):
        # Where one is, there is what it begins with.
        if not found or not head.startswith(found[-1]):
            found.append(head)
    return tuple(head.encode() for head in found)


def _spellings(key: str) -> set[str]:
    """Give every way of joining the parts of a name; of one with many parts those that join all of them alike."""
    parts = _JOINED.split(key)
    if len(parts) > SPELLED_PARTS_MAX:
        return {key, *(with_.join(parts) for with_ in ("", "_", "-"))}
    joins = product(("", "_", "-"), repeat=len(parts) - 1)
    return {"".join(chain.from_iterable(zip(parts, (*join, ""), strict=True))) for join in joins}


class Lookup:
    """Openings that begin alike, ready to be looked for where the prefilter found something."""

    __slots__ = ("_literals", "_trigger", "begins", "cased", "named", "openings", "patterns")

    def __init__(self, openings: Sequence[Opening]) -> None:
        """Take openings whose `begins`, literals and trigger are the same."""
        first = openings[0]
        self.openings = tuple(openings)
        self.patterns = tuple(re.compile(opening.pattern.encode()) for opening in openings)
        self.named, self.cased = first.named, first.cased
        self.begins = re.compile(first.begins.encode()) if first.begins else None
        self._literals = tuple(literal.encode() for literal in first.literals)
        self._trigger = None if self._literals else linear_matcher([first.trigger])

    def worth_while(self, window: bytes, lower: bytes) -> bool:
        """Say whether one can be in a window, which is given as it is and in lower case."""
        if self._trigger is not None:
            return self._trigger(window)
        return any(literal in lower for literal in self._literals)

    def search(self, text: bytes, at: int, until: int) -> tuple[Opening, re.Match[bytes]] | None:
        """Give the first match that begins between two indexes; of two that begin there that of the earlier opening."""
        if self.begins is None:
            found = self.patterns[0].search(text, at)
            return None if found is None or found.start() >= until else (self.openings[0], found)
        while (begun := self.begins.search(text, at)) is not None and begun.start() < until:
            for opening, pattern in zip(self.openings, self.patterns, strict=True):
                if (found := pattern.match(text, begun.start())) is not None:
                    return opening, found
            at = begun.start() + 1
        return None


def _alike(opening: Opening) -> object:
    """Give what is the same of openings that are looked for together."""
    return opening.begins or opening


_IDENTIFIER_HEAD: Final = re.compile(
    rb"(?<![0-9a-z])(?:[0-9](?:[ \-+.]?[0-9a-z]){0,40}|[a-z]{1,2}(?:[0-9](?: ?[0-9a-z]){0,40})?"
    rb"|[a-z]{1,6}(?:[0-9][0-9a-z]{0,10})?)[ \-+.]?\Z"
)
"""An identifier begins with a digit, two letters of a country, or six of a name, and has only single separators in it."""
_GO_ON: Final = frozenset(bytes([byte]) for byte in b"0123456789abcdefghijklmnopqrstuvwxyz -+.")
_IDENTIFIER_BYTES_MAX: Final = 64
_FLAG_HEAD: Final = re.compile(rb"(?<![a-z0-9_])--?(?:[a-z0-9]{1,16}-){0,2}[a-z0-9]{0,16}\Z")
"""The option of a command line begins before the name in it."""
_FLAG_BYTES_MAX: Final = 56
