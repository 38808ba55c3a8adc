"""What is masked in Redis: message by message, as decoders/redis tells them.

What lives here: passwords of commands and answers, values by the names of their keys and fields. What must not: how a stream is
cut into messages; a message comes with its exact bytes.

A value stands beside a name that is masked everywhere (`password`, `api_key`) when the name is the argument, or the string of
an answer, before it. A key is masked when it matches a pattern of the operator's, or its last part is such a name
(`user:7:password`): then all other arguments of its command, and the answer, are hidden. Which command reads or writes which
key is not asked: that hides more, never less.

Only what stands inside strings and lines is filled, so that a decoder still finds its way; numbers that Redis answers with
are shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final, cast

from capd.decoders.redis.values import line as line_of
from capd.decoders.redis.values import word
from capd.enforcer.masking.place import Place
from capd.enforcer.masking.rules import Rules, plain_key
from capd.enforcer.masking.scanner import Scanner
from capd.enforcer.masking.values import Value, Values, hidden

EXCHANGES_MAX: Final = 65_536
"""Commands whose answers will be hidden that are remembered; with more, every answer is."""
CREDENTIAL: Final = ("credential", "password of a command")
ANSWER: Final = ("credential", "answer with a password")
KEY: Final = ("key", "key or field by name")
CUT: Final = ("undecided", "cut off")
ANSWERS: Final = frozenset({"reply", "error", "push", "monitor"})
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO", "SORT", "SORT_RO", "MONITOR"})
"""Commands whose answer can hold values of keys that they do not name."""
_PLAIN_LINES: Final = frozenset({b"OK", b"QUEUED", b"PONG", b"RESET"})
_PARTS: Final = re.compile(r"[:./|]")
_SETTINGS: Final = frozenset({"requirepass", "masterauth", "primaryauth", "tlskeyfilepass", "tlsclientkeyfilepass"})
"""Settings that are passwords, as `plain_key` gives them: what stands behind one is hidden wherever it is told."""
NAME_BYTES_MAX: Final = 256
"""Longer strings are no name of a field."""
DEPTH_MAX: Final = 32
_STRINGS: Final = frozenset(b"$!=")
_LINES: Final = frozenset(b"+-")
_VALUE_BEHIND: Final = 2
"""SETEX key seconds value: behind a key with the name of a password, and more than one argument, any may be the value."""
_REPEATS: Final = re.compile(rb"with args beginning with:?")
"""What the error of an unknown command repeats: HELLO of a server that has none was given a password."""
_REPEATS_TEXT: Final = re.compile(_REPEATS.pattern.decode())
_BLANKS: Final = re.compile(rb"[^ \t\r\n]+")


class RedisMask:
    """Both directions of one connection."""

    dialect: Final = ""
    quiet: Final[frozenset[str]] = frozenset()
    errors: Final[frozenset[str]] = frozenset()

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._patterns = tuple(rules.choice.redis_keys)
        self._hidden: set[int] = set()
        self._all = False
        self._queued = False
        self._whole: set[int] = set()
        """Where answers begin of which all is hidden, until they are shown."""

    def authenticates(self, kind: str) -> bool | None:  # noqa: ARG002  # part of the protocol
        """A client may sign in at any time, or never: `hides` says what that means."""
        return True

    def hides(self, *, answers: bool) -> bool:
        """Any command may hold a password, any answer a value of a key that is masked."""
        return not answers or bool(self._patterns)

    def watches(
        self,
        kind: str,
        fields: Mapping[str, object],
        parts: Sequence[tuple[int, bytes]],  # noqa: ARG002  # part of the protocol
        exchange: int | None,
    ) -> bool:
        """Whether a message has to be judged though the prefilter finds nothing in it."""
        if kind == "command":
            return self._judges(fields)
        if kind == "error" and _REPEATS_TEXT.search(str(fields.get("message"))):
            return True
        return kind in ANSWERS and (self._hides(kind, fields, exchange) or self._names(fields.get("value"), DEPTH_MAX))

    def message(
        self,
        kind: str,
        fields: Mapping[str, object],
        raw: bytes,
        start: int,
        *,
        whole: bool = True,
        exchange: int | None = None,
    ) -> list[Place]:
        """Judge a message."""
        if kind == "command":
            places = self._command(fields, raw, start, whole=whole)
            if exchange is not None and self._answer_hidden(fields):
                self._remember(exchange)
            return places + self._text(raw, start)
        if kind not in ANSWERS:
            return self._text(raw, start)
        if self._hides(kind, fields, exchange):
            self._whole.add(start)
            rule = KEY if not fields.get("secret") else ANSWER
            places = _filled(raw, start, *rule) if whole else [Place(start, start + len(raw), *rule)]
        else:
            places = self._named_values(raw, start) if whole else []
            if kind == "error" and (repeats := _REPEATS.search(raw)):
                places.append(Place(start + repeats.end(), start + len(raw.rstrip(b"\r\n")), *CREDENTIAL))
        self._answered(kind, fields, exchange)
        return places + self._text(raw, start)

    def shown(self, fields: Mapping[str, Value], values: Values) -> dict[str, Value]:
        """Give the fields of a record of rows, which Redis has none of."""
        return cast("dict[str, Value]", values.value(fields))

    def report(self, value: Value) -> Value:
        """Errors are masked with other answers."""
        return value

    def record(self, body: Mapping[str, Value], values: Values, *, touched: bool) -> dict[str, Value] | None:
        """Give the body of a message's record with its values masked."""
        kind, start = body.get("type"), body.get("start")
        fields = body.get("fields")
        fields = dict(fields) if isinstance(fields, Mapping) else {}
        if kind == "command":
            return {**body, **self._shown_command(fields, values)}
        if kind not in ANSWERS:
            return None
        if isinstance(start, int) and start in self._whole:
            self._whole.discard(start)
            fields = {name: hidden(item) if name in ("value", "message") else item for name, item in fields.items()}
        elif touched:
            fields = {name: self._beside_names(item) for name, item in fields.items()}
            fields = cast("dict[str, Value]", values.value(fields))
            message = fields.get("message")
            if isinstance(message, str) and (repeats := _REPEATS_TEXT.search(message)):
                fields["message"] = message[: repeats.end()] + "*" * (len(message) - repeats.end())
        said = fields.get("value") if "value" in fields else f"{fields.get('code')} {fields.get('message')}"
        return {**body, "fields": fields, "summary": line_of(cast("object", said))}  # type: ignore[arg-type]

    def save(self) -> list[object]:
        """Give its state as plain values."""
        return [sorted(self._hidden), self._all, self._queued, sorted(self._whole)]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        remembered, everything, queued, whole = cast("tuple[Sequence[int], bool, bool, Sequence[int]]", tuple(saved))
        self._hidden, self._all, self._queued, self._whole = set(remembered), everything, queued, set(whole)

    # Commands

    def _judges(self, fields: Mapping[str, object]) -> bool:
        words = _words(fields)
        return any(isinstance(item, Mapping) and "hidden" in item for item in _arguments(fields)) or any(
            text is not None and (self._is_name(text) or self._is_key(text)) for text in words
        )

    def _hidden_arguments(self, fields: Mapping[str, object]) -> dict[int, tuple[str, str]]:
        """Give the arguments that are masked, counted from the first behind the command's name."""
        given, words = _arguments(fields), _words(fields)
        found = {index: CREDENTIAL for index, item in enumerate(given) if isinstance(item, Mapping) and "hidden" in item}
        keys = {index for index, text in enumerate(words) if text is not None and self._is_key(text)}
        if len(words) > _VALUE_BEHIND and words[0] is not None and self._is_name(words[0]):
            keys.add(0)
        if keys:
            found.update({index: KEY for index in range(len(given)) if index not in keys and index not in found})
        for index, text in enumerate(words[:-1]):
            if text is not None and self._is_name(text) and index + 1 not in keys:
                found.setdefault(index + 1, KEY)
        return found

    def _command(self, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool) -> list[Place]:
        masked = self._hidden_arguments(fields)
        if not masked and (whole or not self._patterns):
            return []
        if not whole or fields.get("inline"):
            rule = next(iter(masked.values()), CUT)
            return [*_after_first_word(raw, start, *rule)] if whole else [Place(start, start + len(raw), *rule)]
        spans = _strings(raw)
        return [Place(start + begin, start + end, *masked[i - 1]) for i, (begin, end) in enumerate(spans) if i - 1 in masked]

    def _shown_command(self, fields: dict[str, Value], values: Values) -> dict[str, Value]:
        given = list(_arguments(fields))
        masked = self._hidden_arguments(fields)
        shown = [
            hidden(item) if index in masked and not _marked(item) else values.value(item) for index, item in enumerate(given)
        ]
        summary = " ".join(map(word, [str(fields.get("command")), *shown]))
        return {"fields": {**fields, "arguments": shown}, "summary": values.value(summary)}

    def _answer_hidden(self, fields: Mapping[str, object]) -> bool:
        if self._patterns and str(fields.get("command")) in _SCRIPTS:
            return True
        words = _words(fields)
        # HGET user password: the answer is the value. A field's name that is set stands before its value.
        return any(text is not None and (self._is_key(text) or self._is_name(text)) for text in words)

    def _remember(self, exchange: int) -> None:
        self._hidden.add(exchange)
        if len(self._hidden) > EXCHANGES_MAX:
            self._all = True
            self._hidden.clear()

    def _is_name(self, text: str) -> bool:
        return len(text) <= NAME_BYTES_MAX and (self._rules.is_key(text) or plain_key(text) in _SETTINGS)

    def _is_key(self, text: str) -> bool:
        if any(fnmatchcase(text, pattern) for pattern in self._patterns):
            return True
        last = _PARTS.split(text)[-1]
        return last != text and self._is_name(last)

    # Answers

    def _hides(self, kind: str, fields: Mapping[str, object], exchange: int | None) -> bool:
        """Whether all of an answer is hidden."""
        if self._all or fields.get("secret") or (exchange is not None and exchange in self._hidden):
            return True
        if fields.get("commands") and self._queued:
            return True
        if kind == "push" or kind == "monitor":  # noqa: PLR1714  # reads better
            return bool(self._patterns) and (kind == "monitor" or any(map(self._is_key, _texts(fields.get("value")))))
        return exchange is None and bool(self._patterns)

    def _answered(self, kind: str, fields: Mapping[str, object], exchange: int | None) -> None:
        if kind == "push" or exchange is None:
            return
        if exchange in self._hidden and fields.get("value") == "QUEUED":
            self._queued = True
        if fields.get("commands"):
            self._queued = False
        self._hidden = {later for later in self._hidden if later > exchange} if self._hidden else self._hidden

    def _beside_names(self, value: Value) -> Value:
        """Hide the strings that stand behind a name."""
        if isinstance(value, Mapping):
            return {name: self._beside_names(item) for name, item in value.items()}
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return value
        shown: list[Value] = []
        before = False
        for item in value:
            shown.append(hidden(item) if before and _is_string(item) else self._beside_names(item))
            before = isinstance(item, str) and self._is_name(item)
        return shown

    def _names(self, value: object, depth: int) -> bool:
        """Whether there is a name in an answer."""
        if isinstance(value, Mapping):
            return depth > 0 and any(self._names(item, depth - 1) for item in value.values())
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        return any(self._is_name(item) if isinstance(item, str) else self._names(item, depth - 1) for item in value)

    def _named_values(self, raw: bytes, start: int) -> list[Place]:
        places: list[Place] = []
        before = False
        for begin, end in _strings(raw):
            if before and end > begin:
                places.append(Place(start + begin, start + end, *KEY))
            before = end - begin <= NAME_BYTES_MAX and self._is_name(raw[begin:end].decode("utf-8", "replace"))
        return places

    def _text(self, data: bytes, start: int) -> list[Place]:
        return Scanner(self._rules, start).feed(data, final=True) if self._rules.may_hold(data) else []


def _arguments(fields: Mapping[str, object]) -> Sequence[Value]:
    given = fields.get("arguments")
    return cast("Sequence[Value]", given) if isinstance(given, Sequence) and not isinstance(given, str) else ()


def _words(fields: Mapping[str, object]) -> list[str | None]:
    return [item if isinstance(item, str) else None for item in _arguments(fields)]


def _texts(value: object) -> list[str]:
    return (
        [item for item in value if isinstance(item, str)] if isinstance(value, Sequence) and not isinstance(value, str) else []
    )


def _marked(item: Value) -> bool:
    return isinstance(item, Mapping) and "hidden" in item


def _is_string(item: Value) -> bool:
    return isinstance(item, str) or (isinstance(item, Mapping) and bool({"binary", "begins", "text"} & set(item)))


def _tokens(raw: bytes) -> list[tuple[int, int, int]]:
    """Give type byte, begin and end of what is in every string and line of a message that is whole."""
    found: list[tuple[int, int, int]] = []
    at = 0
    while at < len(raw):
        end = raw.find(b"\r\n", at)
        if end < 0:
            break
        code, line = raw[at], raw[at + 1 : end]
        if code in _STRINGS and line.isdigit():
            begin = end + 2
            end = min(begin + int(line), len(raw))
            found.append((code, begin, end))
        elif code in _LINES:
            found.append((code, at + 1, end))
        at = end + 2
    return found


def _strings(raw: bytes) -> list[tuple[int, int]]:
    return [(begin, end) for code, begin, end in _tokens(raw) if code in _STRINGS]


def _filled(raw: bytes, start: int, kind: str, rule: str) -> list[Place]:
    """Give everything that strings and lines say, but for the words of the protocol."""
    places: list[Place] = []
    for code, begin, end in _tokens(raw):
        at = begin
        if code in _LINES:
            if raw[begin:end] in _PLAIN_LINES:
                continue
            at = begin + len(raw[begin:end].split(b" ", 1)[0]) if code == ord("-") else begin
        elif code == ord("="):
            at = min(begin + 4, end)
        places.append(Place(start + at, start + end, kind, rule))
    return places


def _after_first_word(raw: bytes, start: int, kind: str, rule: str) -> list[Place]:
    words = list(_BLANKS.finditer(raw))
    return [Place(start + found.start(), start + found.end(), kind, rule) for found in words[1:]]
