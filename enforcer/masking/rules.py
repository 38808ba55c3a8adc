"""All rules of one configuration, put together once.

What lives here: which rules there are, and the regular expressions that look for all of them at a time. What must not: looking.

Python's `re` reads a few MB a second with a hundred alternatives, so it looks only where there is something: the prefilter is
the Rust engine inside pydantic, which decides in linear time, at hundreds of MB a second, whether a piece holds any trigger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

from capd.enforcer.masking import formats, identifiers, names
from capd.enforcer.masking.json_path import ANY, DESCEND, JsonPath
from capd.enforcer.masking.opening import OPENING_BYTES_MAX, Opening
from capd.enforcer.masking.patterns import UnsafePatternError, check

_BEYOND_ASCII: Final = bytes(range(0x80, 0x100))
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
        identifiers: checksummed numbers by name.
        patterns: further secret formats: name to regular expression.
        unreadable: whether a body that cannot be looked into is masked.
        formats: whether the secret formats that come with capd hold; None: as `builtin` says.
    """

    builtin: bool = True
    headers: Sequence[str] = ()
    cookies: Sequence[str] = ()
    keys: Sequence[str] = ()
    json_paths: Sequence[str] = ()
    columns: Sequence[str] = ()
    identifiers: Sequence[str] = identifiers.DEFAULT
    patterns: Mapping[str, str] = field(default_factory=dict)
    unreadable: bool = True
    formats: bool | None = None

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
        )
        self.lookups = tuple(Lookup(opening) for opening in self.openings)
        self._heads = _heads(self)
        self._cut = frozenset(head[:length] for head in self._heads for length in range(1, len(head)))
        self._head_bytes = max((len(head) for head in self._heads), default=0)
        self._any_head = _matcher([re.escape(head.decode()) for head in self._heads])
        tails = ((_IDENTIFIER_HEAD, 64, choice.identifiers), (_WORD_HEAD, OPENING_BYTES_MAX, choice.patterns))
        self._tails = tuple((pattern, reach) for pattern, reach, wanted in tails if wanted)
        self._triggers = _matcher([opening.trigger for opening in self.openings])
        self._wrapped = _matcher([_DECODED])

    def __bool__(self) -> bool:
        return bool(self.openings or self.headers or self.columns or self.json_paths)

    @property
    def undecoded(self) -> Rules:
        """The rules for bytes of which nobody knows where in a text they are: a path hides every member with its last name."""
        if not self.json_paths:
            return self
        last = [next((step for step in reversed(path.steps) if _is_name(step)), None) for path in self.json_paths]
        keys = (*self.choice.keys, *(name for name in last if name is not None))
        return Rules(replace(self.choice, keys=keys, json_paths=()))

    def may_hold(self, data: bytes) -> bool:
        """Say whether there may be anything to mask; False is certain."""
        return self._triggers(data)

    def head(self, tail: bytes) -> int:
        """Give where in the last bytes something begins that could become an opening if more came; else their length."""
        lower = tail.lower()
        first = len(tail)
        if self._any_head(lower):
            first = min(at for head in self._heads if (at := lower.find(head)) >= 0)
        for length in range(min(self._head_bytes, len(tail)), 0, -1):
            if lower[-length:] in self._cut:
                first = min(first, len(tail) - length)
                break
        for pattern, reach in self._tails:
            if pattern is _IDENTIFIER_HEAD and lower[-1:] not in _GO_ON:
                continue
            found = pattern.search(lower, max(0, len(tail) - reach))
            first = min(first, found.start() if found else first)
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
        told = [opening.rule.split(" ", 1) for opening in self.openings if " " in opening.rule]
        return found + list(dict.fromkeys((kind, name) for kind, name in told))


def _is_name(step: str) -> bool:
    return step not in (ANY, DESCEND) and not step.isdigit() and step.isascii()


def plain_key(name: str) -> str:
    """Give a name as it is compared: api_key, apiKey and API-KEY are one."""
    return name.lower().replace("_", "").replace("-", "")


def _matcher(triggers: Sequence[str]) -> Callable[[bytes], bool]:
    if not triggers:
        return lambda _: False
    try:
        engine = SchemaValidator(core_schema.str_schema(pattern="|".join(dict.fromkeys(triggers))))
    except SchemaError as error:
        raise UnsafePatternError(f"not a pattern in linear time: {error}") from error

    def matches(data: bytes) -> bool:
        # No trigger needs a byte beyond ASCII, and without them what is left still has every trigger that was there; as text of
        # several bytes each they would take five times as long.
        text = (data if data.isascii() else data.translate(None, _BEYOND_ASCII)).decode("ascii")
        return engine.isinstance_python(text)

    return matches


def _heads(rules: Rules) -> tuple[bytes, ...]:
    """Give, in lower case, how openings begin."""
    heads = {name.lower() for name in rules.headers}
    keys = [name.lower() for name in (*(names.KEYS if rules.choice.builtin else ()), *rules.choice.keys)]
    heads |= {variant for key in keys for variant in (key, key.replace("_", ""), key.replace("_", "-"), key.replace("-", "_"))}
    if rules.choice.builtin:
        heads |= {"password", "identified", "basic", "bearer", 'name="', "--"}
    if rules.choice.knows_formats:
        heads |= {literal for opening in formats.FORMATS for literal in opening.literals} | {
            "sk_live_",
            "sk_test_",
            "rk_live_",
            "rk_test_",
        }
    return tuple(head.encode() for head in sorted(heads))


class Lookup:
    """One opening, ready to be looked for where the prefilter found something."""

    __slots__ = ("_literals", "_trigger", "opening", "pattern")

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.pattern = re.compile(opening.pattern.encode())
        self._literals = tuple(literal.encode() for literal in opening.literals)
        self._trigger = None if self._literals else _matcher([opening.trigger])

    def worth_while(self, window: bytes, lower: bytes) -> bool:
        """Say whether it can be in a window, which is given as it is and in lower case."""
        if self._trigger is not None:
            return self._trigger(window)
        return any(literal in lower for literal in self._literals)


_IDENTIFIER_HEAD: Final = re.compile(
    rb"(?<![0-9a-z])(?:[0-9](?:[ \-+.]?[0-9a-z]){0,40}|[a-z]{1,2}(?:[0-9](?: ?[0-9a-z]){0,40})?"
    rb"|[a-z]{1,6}(?:[0-9][0-9a-z]{0,10})?)[ \-+.]?\Z"
)
"""An identifier begins with a digit, two letters of a country, or six of a name, and has only single separators in it."""
_GO_ON: Final = frozenset(bytes([byte]) for byte in b"0123456789abcdefghijklmnopqrstuvwxyz -+.")
_WORD_HEAD: Final = re.compile(rb"\S{1,320}\Z")
