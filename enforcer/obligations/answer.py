"""The answer to a request with obligations: what of its head and body the agent gets.

What lives here: what can be looked into, which fields are masked or left out, the way of a body. What must not: framing: the
length of a body never changes, so whoever writes HTTP/1.1 or HTTP/2 writes it as it came.

What cannot be looked into is refused with the head, as long as nothing of it was sent: a coding that nobody asked for, a part
of a body, a charset that is not of bytes; and, where places in JSON are hidden, what does not say that it is JSON, and charsets
that have a backslash within characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from capd.enforcer.masking.header import header_places
from capd.enforcer.masking.names import COOKIE_HEADERS
from capd.enforcer.masking.place import Place, filled, joined
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.masking.scanner import Scanner
from capd.enforcer.obligations.masked_body import MaskedBody, Shape
from capd.enforcer.obligations.obligation import CannotCarryOutError, CarriedOut
from capd.enforcer.obligations.reflection import Reflection, ReflectionFilter
from capd.enforcer.policy.rule import Mask

Fields = Sequence[tuple[str, str]]
RULES_MAX: Final = 256
"""Masks that are kept ready; making one takes milliseconds."""
_CODINGS: Final = ("content-encoding", "grpc-encoding")
_LINES: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/json-lines"}
    | {"application/json-seq", "application/stream+json"}
)
_EVENTS: Final = "text/event-stream"
_BYTEWISE: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_ASCII_ALONE: Final = ("iso-8859-", "windows-125", "latin", "euc-", "koi8-")
"""Charsets in which all of ASCII are the bytes that they are in ASCII, and no such byte is a part of another character."""
_ASCII_BELOW: Final = ("windows-", "gb", "big5", "shift_jis", "sjis")
"""Those in which a backslash, a bracket, or a letter may be the second byte of another character: who looks for where in JSON
something is would take it for an escape of the quote behind it."""
_UTF16: Final = frozenset({b"\xfe\xff", b"\xff\xfe"})
"""How a text begins that says by itself that it is UTF-16, or UTF-32 in the order of most machines (Unicode 16.0, 23.8)."""
_UTF16_BYTES: Final = 2
_OF_THE_BODY: Final = frozenset({"accept-ranges", "signature", "signature-input"})
"""Fields that are about exactly these bytes; a masked body is another one."""
_HASHES: Final = frozenset(
    {"etag", "digest", "hash", "checksum", "md5", "sha1", "sha256", "sha512", "crc32", "crc32c", "crc64", "crc64ecma"}
)
"""Words in names of fields that have a hash of the body: `Content-Digest` (RFC 9530), `x-goog-hash`, `x-amz-checksum-sha256`.
Who has the hash of all of an answer finds a short value in it by trying."""


class Answer:
    """One answer. `head` comes first, then the body's parts, then its end; interim heads may come before."""

    def __init__(self, masks: Sequence[tuple[str, Mask]], reflection: Reflection, *, strict: bool = True) -> None:
        """Begin.

        Args:
            masks: what is hidden, by rule.
            reflection: secrets that must not come back.
            strict: whether what cannot be looked into is refused; else it goes on as it is.
        """
        self._rules = [(rule, rules_of(mask)) for rule, mask in masks]
        self._paths = any(mask.json_paths for _, mask in masks)
        self._reflection, self._strict = reflection, strict
        self._masked: Counter[str] = Counter()
        self._filter = ReflectionFilter(reflection)
        self._body: MaskedBody | None = None
        self._start = b""

    @property
    def carried_out(self) -> CarriedOut:
        """What was done so far."""
        return CarriedOut(masked=dict(+self._masked), reflected=dict(+self._reflection.found))

    def head(self, status: int, fields: Fields, *, has_body: bool) -> list[tuple[str, str]]:
        """Give the end-to-end fields of a final answer as the agent gets them.

        Args:
            status: of the answer.
            fields: end-to-end fields.
            has_body: whether content follows.

        Raises:
            CannotCarryOutError: it cannot be looked into, and nothing of it may go on.
        """
        if has_body and self._strict:
            _check(status, fields, paths=self._paths)
        if has_body and self._rules:
            self._body = MaskedBody(self._rules, self._shape(_media_type(fields)), self._masked)
        return self.interim(fields)

    def interim(self, fields: Fields) -> list[tuple[str, str]]:
        """Give the fields of an interim answer, or trailers, masked.

        What is a hash of the body is left out, also where no body follows: an answer to HEAD, 304, a trailer has it too.
        """
        kept = [pair for pair in fields if not (self._rules and _is_of_the_body(pair[0].lower()))]
        return [(self.text(name), self._field(name, value)) for name, value in kept]

    def text(self, text: str) -> str:
        """Give a reason phrase or the like without secrets."""
        return self._reflection.hidden(text.encode("latin-1")).decode("latin-1")

    def body(self, content: bytes) -> bytes:
        """Take a part of the body and give what can go on.

        Raises:
            CannotCarryOutError: it cannot be looked into after all; what was given so far must not be taken for all.
        """
        if self._strict and len(self._start) < _UTF16_BYTES:
            self._start = (self._start + content)[:_UTF16_BYTES]
            if self._start in _UTF16:
                raise CannotCarryOutError("the answer begins as a text in UTF-16 does")
        return self._through(content, final=False)

    def end(self) -> bytes:
        """Give what still waits, at the end of the body; raises as `body` does."""
        return self._through(b"", final=True)

    def _through(self, content: bytes, *, final: bool) -> bytes:
        content = self._filter.feed(content, final=final)
        return content if self._body is None else self._body.feed(content, final=final)

    def _field(self, name: str, value: str) -> str:
        data = self._reflection.hidden(value.encode("latin-1"))
        for rule, rules in self._rules:
            places = _places(rules, name, data)
            self._masked[rule] += len(places)
            data = filled(data, places)
        return data.decode("latin-1")

    def _shape(self, kind: str) -> Shape:
        if kind == _EVENTS:
            return Shape.EVENTS
        if kind in _LINES:
            return Shape.LINES
        if kind == "application/json" or kind.endswith(("+json", "/json")):
            return Shape.JSON
        if self._paths:
            raise CannotCarryOutError("a rule hides places in JSON, and the answer does not say that it is JSON")
        return Shape.TEXT


def _check(status: int, fields: Fields, *, paths: bool) -> None:
    """Check that a body can be looked into; `paths`: also for where in JSON something is."""
    readable = _ASCII_ALONE if paths else _ASCII_ALONE + _ASCII_BELOW
    codings = {word.strip().lower() for name in _CODINGS for value in _values(fields, name) for word in value.split(",")}
    if codings - {"", "identity"}:
        raise CannotCarryOutError("the target compressed its answer, which it was asked not to")
    if status == HTTPStatus.PARTIAL_CONTENT or _values(fields, "content-range"):
        raise CannotCarryOutError("the target gave a part of its answer, which it was asked not to")
    kinds = _values(fields, "content-type")
    if len(kinds) > 1:
        raise CannotCarryOutError("the answer says twice of which type it is")
    for parameter in kinds[0].lower().split(";")[1:] if kinds else ():
        name, _, value = parameter.strip().partition("=")
        word = value.strip(" \t\"'")
        if name.strip() == "charset" and word not in _BYTEWISE and not word.startswith(readable):
            raise CannotCarryOutError("the charset of the answer is none that can be looked into")


def _is_of_the_body(name: str) -> bool:
    return name in _OF_THE_BODY or not _HASHES.isdisjoint(name.split("-"))


def _media_type(fields: Fields) -> str:
    return next(iter(_values(fields, "content-type")), "").partition(";")[0].strip().lower()


def _values(fields: Fields, name: str) -> list[str]:
    return [value for one, value in fields if one.lower() == name]


@lru_cache(maxsize=RULES_MAX)
def rules_of(mask: Mask) -> Rules:
    """Give the rules of masking that a rule of the policy asks for; names of cookies mean their fields."""
    cookies = tuple(sorted(COOKIE_HEADERS)) if mask.cookies else ()
    return Rules(
        Choice(
            builtin=False,
            headers=(*mask.headers, *cookies),
            cookies=mask.cookies,
            keys=mask.keys,
            json_paths=mask.json_paths,
            identifiers=mask.identifiers,
            formats=mask.formats,
        )
    )


def _places(rules: Rules, name: str, value: bytes) -> list[Place]:
    """Give what is hidden of a field: by its own name, else what is recognised in the line that it is."""
    if not value:
        return []
    if name.lower() in rules.headers:
        # Its name has decided; in a line with it, which is looked at as one, all of the value would be hidden.
        return joined([*header_places(rules.headers, rules.cookies, name, value), *Scanner(rules).feed(value, final=True)])
    before = f"{name}: ".encode("latin-1")
    found = joined(Scanner(rules).feed(before + value, final=True))
    return [place.moved(-len(before)) for place in found if place.end > len(before)]
