"""What is masked of values that were decoded already, and JSON by path, however it is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.enforcer.masking.json_path import DEPTH_MAX, JsonPath, JsonScanner
from capd.enforcer.masking.place import Place, filled, joined
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.masking.values import Value, Values

VALUES = Values(Rules(Choice()))
CASES: list[tuple[Value, Value]] = [
    ("GET /?token=abcdefgh1 HTTP/1.1", "GET /?token=********* HTTP/1.1"),
    ([["Authorization", "Bearer x"], ["Accept", "*/*"]], [["Authorization", "Bearer *"], ["Accept", "*/*"]]),
    ([["Cookie", "sid=ab; b=c"], ["Set-Cookie", "s=1; Path=/"]], [["Cookie", "sid=**; b=*"], ["Set-Cookie", "s=*; Path=/"]]),
    ({"password": "pw", "n": 3, "deep": {"api_key": 12}}, {"password": "**", "n": 3, "deep": {"api_key": "**"}}),
    (("a", None, 1.5, True, b"x"), ["a", None, 1.5, True, b"x"]),
    ("lone \udc80 surrogate password=x", "lone \udc80 surrogate password=*"),
]
COMMANDS = [
    ("curl -u bob:pw https://a:b@h/", "curl -u bob:** https://a:*@h/"),
    ("tool --password x --db-password yy --token=abc", "tool --password * --db-password ** --token=***"),
    ("env API_KEY=abc run --password --verbose", "env API_KEY=*** run --password --verbose"),
]


@pytest.mark.parametrize(("value", "shown"), CASES)
def test_values(value: Value, shown: Value) -> None:
    """What a rule covers is hidden in texts, header pairs and members; everything else stays as it is."""
    assert shown == VALUES.value(value)


@pytest.mark.parametrize(("argv", "shown"), COMMANDS)
def test_arguments(argv: str, shown: str) -> None:
    """A password in a command is hidden, also where it is an argument by itself."""
    assert shown.split() == VALUES.arguments(argv.split())


def test_deep_values_end() -> None:
    """A value nested without end is cut, not followed."""
    value: Value = "x"
    for _ in range(2_000):
        value = [value]
    VALUES.value(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "ssn", 'q"\\', "é"]), inner, max_size=4)
    ),
    max_leaves=20,
)
PATHS = ("$.a.b", "$.a[*].ssn", "$..ssn", "$.*.a[1]", "$['q\"\\']")


def expected(value: object, path: tuple[str, ...]) -> list[str]:
    """Give the scalars that a path means, as JSON texts, in order."""
    if not path:
        if isinstance(value, dict):
            return [found for item in value.values() for found in expected(item, ())]
        if isinstance(value, list):
            return [found for item in value for found in expected(item, ())]
        return [json.dumps(value)]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if path[0] != "..":
        return [found for key, item in items if path[0] in ("*", str(key)) for found in expected(item, path[1:])]
    matched = [(str(key) == path[1], item) for key, item in items]
    return [found for here, item in matched for found in expected(item, path[2:] if here else path)]


@settings(max_examples=300, deadline=None)
@given(JSON, st.sampled_from(PATHS), st.integers(0, 9), st.booleans())
def test_paths_mean_what_they_say(value: object, path_text: str, size: int, spaced: bool) -> None:
    """A path hides just the scalars that it means, however the JSON is written and cut."""
    path = JsonPath.parse(path_text)
    said = json.dumps(value, ensure_ascii=spaced, indent=1 if spaced else None).encode()
    scanner = JsonScanner((path,))
    found: list[Place] = []
    for at in range(0, len(said), size or len(said)):
        found += scanner.feed(said[at : at + (size or len(said))])
    found += scanner.feed(b"", final=True)
    hidden = [said[place.start : place.end].decode() for place in joined(found)]
    # Quotes stay: of a string only what is in between is hidden.
    texts = [json.dumps(json.loads(word), ensure_ascii=spaced) for word in expected(value, path.steps)]
    wanted = [text[1:-1] if text[0] == '"' else text for text in texts]
    assert [text for text in wanted if text] == hidden


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 9))
def test_any_bytes_pass_the_json_scanner(data: bytes, size: int) -> None:
    """What is no JSON is passed to its end."""
    scanner = JsonScanner((JsonPath.parse("$..a"),))
    for at in range(0, len(data), size):
        scanner.feed(data[at : at + size])
    scanner.feed(b"", final=True)
    assert len(data) == scanner.decided


def test_json_nested_without_end() -> None:
    """Below the limit of nesting everything is hidden that a path might mean, and memory stays bounded."""
    scanner = JsonScanner((JsonPath.parse("$..a"),))
    said = b'{"x":' * 5_000 + b'{"a": 1, "b": 2}'
    found = scanner.feed(said)
    assert b'{"a": 1, "b": 2}' != filled(said, found)[-16:]
    assert len(scanner._levels) <= DEPTH_MAX


def test_json_behind_a_gap() -> None:
    """Where bytes were lost nobody knows which member it is: what comes is hidden to the end."""
    scanner = JsonScanner((JsonPath.parse("$.a"),))
    said = b'{"b": 1, '
    found = scanner.feed(said) + scanner.gap(5)
    assert [] == found
    assert b'"********"' in filled(b'x": "12345678"}', scanner.feed(b'x": "12345678"}', final=True), len(said) + 5)
