"""Secrets that come back, in every form, cut anywhere."""

from __future__ import annotations

import html
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.obligations.needle import needles
from capd.enforcer.obligations.reflection import Reflection, ReflectionFilter

ENCODERS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "percent": lambda text: quote(text, safe=""),
    "percent, small": lambda text: quote(text, safe="").lower() if text == text.lower() else quote(text, safe=""),
    "percent, in a path": lambda text: quote(text, safe="/:@"),
    "percent, as browsers": lambda text: quote(text, safe="!~*'()"),
    "form": quote_plus,
    "all percent": lambda text: "".join(f"%{ord(one):02X}" for one in text),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON, slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "JSON for HTML": lambda text: (
        json.dumps(text)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    ),
    "all JSON": lambda text: "".join(f"\\u{ord(one):04x}" for one in text),
    "HTML": html.escape,
    "HTML, by number": lambda text: "".join(one if one.isalnum() else f"&#{ord(one)};" for one in text),
    "hexadecimal": lambda text: text.encode().hex(),
    "HEXADECIMAL": lambda text: text.encode().hex().upper(),
}
SECRETS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=8, max_size=40).filter(
    lambda text: text == text.strip()
)
AROUND = st.binary(max_size=60)


def through(secret: str, parts: list[bytes]) -> tuple[bytes, int]:
    """Give what comes out of a filter, and how often the secret was found."""
    reflection = Reflection({"it": (secret,)})
    one = ReflectionFilter(reflection)
    shown = b"".join(one.feed(part) for part in parts) + one.feed(b"", final=True)
    return shown, reflection.found["it"]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut data at some places."""
    ends = sorted({min(place, len(data)) for place in cuts} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(SECRETS, st.sampled_from(sorted(ENCODERS)), AROUND, AROUND, st.lists(st.integers(0, 400), max_size=12))
def test_no_form_gets_through(secret: str, name: str, before: bytes, behind: bytes, cuts: list[int]) -> None:
    """However it is written and however the body is cut, a secret does not come out; lengths stay, and so does all else."""
    form = ENCODERS[name](secret).encode()
    data = before + form + behind
    shown, found = through(secret, cut(data, cuts))
    assert form not in shown
    assert len(data) == len(shown)
    assert found
    assert all(one == other for one, other in zip(data, shown, strict=True) if other != ord("*"))
    # Where it is cut behind what is one form already, the rest of a longer one is counted anew.
    assert shown == through(secret, [data])[0]


@given(SECRETS, st.binary(max_size=8), st.binary(max_size=8), st.booleans(), st.lists(st.integers(0, 100), max_size=6))
def test_base64_does_not_get_through(secret: str, before: bytes, behind: bytes, safe: bool, cuts: list[int]) -> None:
    """In base64 all is hidden of a secret but the characters that it shares with its neighbours, wherever it begins."""
    encode = urlsafe_b64encode if safe else b64encode
    data = b'"' + encode(before + secret.encode() + behind) + b'"'
    shown, _ = through(secret, cut(data, cuts))
    first, last = 1 + -(-len(before) * 4 // 3), 1 + (len(before) + len(secret)) * 4 // 3
    assert {ord("*")} == set(shown[first:last])
    assert shown == through(secret, [data])[0]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_other_bytes_go_through(data: bytes, cuts: list[int]) -> None:
    """What is no secret comes out as it went in."""
    assert (data, 0) == through("0123-not-there-4567", cut(data, cuts))


def test_nothing_waits_but_the_beginning_of_a_secret() -> None:
    """An event goes on at once, whatever it ends with, unless it is the beginning of a secret."""
    one = ReflectionFilter(Reflection({"it": ("sk-secret-12",)}))
    assert b"data: x\n\n" == one.feed(b"data: x\n\n")
    assert b"data: " == one.feed(b"data: sk-se")
    assert b"sk-sex" == one.feed(b"x")
    assert b"" == one.feed(b"sk-secret-1")
    assert b"*" * 12 == one.feed(b"2")


@pytest.mark.parametrize("text", ["aaaaaaaaaa", "abababababab", "%25%25%25%25", "\\\\\\\\\\\\u0"])
def test_secrets_that_repeat_themselves(text: str) -> None:
    """A secret that begins like its own end is found wherever it is, overlapping itself, byte by byte."""
    data = (text + text[:3]).encode() * 3
    assert through(text, [data]) == through(text, [bytes([byte]) for byte in data])
    assert text.encode() not in through(text, [data])[0]


def test_a_secret_does_not_show_in_what_looks_for_it() -> None:
    """Neither a form nor what holds all of them says the secret when it is printed."""
    printed = repr(needles("sk-secret-12")) + repr(Reflection({"it": ("sk-secret-12",)}))
    assert "secret" not in printed.replace("Reflection", "")
