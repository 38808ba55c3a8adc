"""Bodies with something hidden, cut anywhere: what comes out, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.masking.json_path import KEY_BYTES_MAX
from capd.enforcer.obligations.answer import rules_of
from capd.enforcer.obligations.masked_body import EVENT_BYTES_MAX, MaskedBody, Shape
from capd.enforcer.obligations.obligation import CannotCarryOutError
from capd.enforcer.policy.rule import Mask

MASK = Mask(json_paths=("$.ssn", "$.cards[*].number", "$..deep"), keys=("pin",), identifiers=("iban",))
IBAN = "GR1601101050000010547023795"


def through(shape: Shape, parts: Sequence[bytes], mask: Mask = MASK) -> tuple[bytes, int]:
    """Give what comes out, and how many places were hidden."""
    counts: Counter[str] = Counter()
    body = MaskedBody([("rule", rules_of(mask))], shape, counts)
    shown = b"".join(body.feed(part) for part in parts) + body.feed(b"", final=True)
    return shown, counts["rule"]


def pieces(data: bytes, size: int) -> list[bytes]:
    """Cut data into pieces of one size; 0: not at all."""
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data]


BODIES = [
    (Shape.JSON, b'{"ssn": "123", "a": 1}', b'{"ssn": "***", "a": 1}', 1),
    (Shape.JSON, b'{"ssn":123456,"a":1}', b'{"ssn":null  ,"a":1}', 1),
    (Shape.JSON, b'{"ssn":12}', b'{"ssn":0 }', 1),
    (Shape.JSON, b'{"ssn":false}', b'{"ssn":null }', 1),
    (Shape.JSON, b'{"\\u0073sn":"x"}', b'{"\\u0073sn":"*"}', 1),
    (Shape.JSON, b'{"ssn": {"x": [1, "two", {"y": true}]}}', b'{"ssn": {"x": [0, "***", {"y": null}]}}', 3),
    (Shape.JSON, b'{"cards":[{"number":"1"},{"number":"2","x":3}]}', b'{"cards":[{"number":"*"},{"number":"*","x":3}]}', 2),
    (Shape.JSON, b'{"a":{"b":{"deep":-1.5e3}}}', b'{"a":{"b":{"deep":null  }}}', 1),
    (Shape.JSON, b'{"pin": 1234, "x": 5678}', b'{"pin": null, "x": 5678}', 1),
    (Shape.JSON, f'["{IBAN}"]'.encode(), b'["' + b"*" * 27 + b'"]', 1),
    (Shape.JSON, b'{"ssn":"12 34","a":"12"}', b'{"ssn":"*****","a":"12"}', 1),
    (Shape.JSON, b'{"ssn":"12, true","a":[null]}', b'{"ssn":"********","a":[null]}', 1),
    (Shape.JSON, b'{"deep":{"a":" 1","b":"2 "}}', b'{"deep":{"a":"**","b":"**"}}', 2),
    (Shape.JSON, b'{"ssn":' + b"7" * 70 + b"}", b'{"ssn":' + b"*" * 70 + b"}", 1),
    (Shape.JSON, b'{"a":"\\"","ssn":"\\\\"}', b'{"a":"\\"","ssn":"**"}', 1),
    (Shape.LINES, b'{"ssn":"1"}\n{"ssn":"2"}\r\n\n{"x":"3"}', b'{"ssn":"*"}\n{"ssn":"*"}\r\n\n{"x":"3"}', 2),
    (Shape.EVENTS, b'data: {"ssn":"1"}\n\ndata:{"x":"2"}\n\n', b'data: {"ssn":"*"}\n\ndata:{"x":"2"}\n\n', 1),
    (Shape.EVENTS, b'data: {"ssn":\r\ndata: "1"}\r\n\r\n', b'data: {"ssn":\r\ndata: "*"}\r\n\r\n', 1),
    (Shape.EVENTS, b'data: {"ssn":\rdata: "1"}\r\r', b'data: {"ssn":\rdata: "*"}\r\r', 1),
    (Shape.EVENTS, b'event: x\nid: 1\ndata\ndata: {"ssn":"1"}', b'event: x\nid: 1\ndata\ndata: {"ssn":"*"}', 1),
    (Shape.EVENTS, f": {IBAN}\n\n".encode(), b": " + b"*" * 27 + b"\n\n", 1),
    (
        Shape.EVENTS,
        b'data: "open\n\ndata: [1/2] {\n\ndata: {"ssn":"1"}\n\n',
        b'data: "open\n\ndata: [1/2] {\n\ndata: {"ssn":"*"}\n\n',
        1,
    ),
    (Shape.TEXT, f"pin=1234 {IBAN}".encode(), b"pin=**** " + b"*" * 27, 2),
]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(("shape", "data", "shown", "count"), BODIES)
def test_what_comes_out(shape: Shape, data: bytes, shown: bytes, count: int, size: int) -> None:
    """Each place is hidden, once, in bytes of the same length, however the body is cut."""
    assert (shown, count) == through(shape, pieces(data, size))


LONG_KEYS = [
    b"k" * KEY_BYTES_MAX,
    b"k" * (KEY_BYTES_MAX - 1) + b"\\\\",
    b"k" * (KEY_BYTES_MAX - 1) + b'\\" : \\"',
    b"k" * (2 * KEY_BYTES_MAX) + b"{[",
]


@pytest.mark.parametrize("size", [0, 1, 1000, KEY_BYTES_MAX + 2])
@pytest.mark.parametrize("key", LONG_KEYS, ids=["whole", "escape", "quote", "brackets"])
def test_a_long_key_hides_nothing(key: bytes, size: int) -> None:
    """A key that is longer than any that a rule names turns no string behind it into something else, however it is cut."""
    data = b'{"%b": "x", "ssn": "123", "a": {"deep": 7}}' % key
    shown = data.replace(b"123", b"***").replace(b"7", b"0")
    assert (shown, 2) == through(Shape.JSON, pieces(data, size))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.text("12, ]}-etrun", max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ssn", "cards", "number", "deep", "é"]), inner)
    ),
    max_leaves=20,
)


def hidden(value: object) -> bool:
    """Say whether a value tells nothing."""
    if isinstance(value, dict):
        return all(map(hidden, value.values()))
    if isinstance(value, list):
        return all(map(hidden, value))
    return value in (None, 0) or (isinstance(value, str) and set(value) <= {"*"})


def check(before: object, after: object, path: tuple[str, ...] = ()) -> None:
    """Check that what paths name is hidden, and that all else is as it was."""
    if path and (path == ("ssn",) or path[-1] == "deep" or (len(path) == 3 and path[0] == "cards" and path[2] == "number")):
        assert hidden(after)
    elif isinstance(before, dict):
        assert isinstance(after, dict)
        assert before.keys() == after.keys()
        for key in before:
            check(before[key], after[key], (*path, key))
    elif isinstance(before, list):
        assert isinstance(after, list)
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            check(one, other, (*path, str(number)))
    else:
        assert before == after


@given(VALUES, st.booleans(), st.integers(0, 9), st.sampled_from([None, 1]))
def test_json_stays_json(value: object, ascii_only: bool, size: int, indent: int | None) -> None:
    """Of any JSON, cut anywhere, exactly what paths name is hidden, and the rest can be read as before."""
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    mask = Mask(json_paths=MASK.json_paths)
    shown, _ = through(Shape.JSON, pieces(data, size), mask)
    assert len(data) == len(shown)
    check(value, json.loads(shown))
    assert shown == through(Shape.JSON, [data], mask)[0]


@given(st.lists(VALUES, max_size=4), st.sampled_from(["\n", "\r\n", "\r"]), st.integers(0, 9))
def test_events_stay_events(values: list[object], end: str, size: int) -> None:
    """Events come out whole, one by one, each with the same masked as it would be alone."""
    mask = Mask(json_paths=MASK.json_paths)
    events = [f"data: {line}" for value in values for line in [json.dumps(value)]]
    data = "".join(f"{event}{end}{end}" for event in events).encode()
    shown, _ = through(Shape.EVENTS, pieces(data, size), mask)
    found = [json.loads(event[6:]) for event in shown.decode().split(end * 2) if event]
    assert len(values) == len(found)
    for before, after in zip(values, found, strict=True):
        check(before, after)


def test_an_event_goes_on_when_it_is_whole() -> None:
    """An event does not wait for the next one, and what is before its end does."""
    body = MaskedBody([("rule", rules_of(MASK))], Shape.EVENTS, Counter())
    assert b"" == body.feed(b'data: {"ssn": "1"}\n')
    assert b'data: {"ssn": "*"}\n\n' == body.feed(b"\n")


REFUSED = [
    (Shape.JSON, '{"ssn": "1"}'.encode("utf-16")),
    (Shape.LINES, b'{"ssn":\n"1"}\n'),
    (Shape.EVENTS, b"data: " + b"x" * (EVENT_BYTES_MAX + 1)),
    (Shape.EVENTS, b'data: {"ssn":\n\ndata: "1"}\n\n'),
    (Shape.EVENTS, b'data: [\r\ndata: {"ssn": "1\r\n\r\ndata: 2"}]\n\n'),
]


@pytest.mark.parametrize(("shape", "data"), REFUSED, ids=["utf-16", "split line", "long event", "split event", "split string"])
def test_what_cannot_be_judged_is_refused(shape: Shape, data: bytes) -> None:
    """Text in another encoding, lines and events that are no texts, an event without an end: nothing of them goes on."""
    with pytest.raises(CannotCarryOutError):
        through(shape, pieces(data, 1000))
