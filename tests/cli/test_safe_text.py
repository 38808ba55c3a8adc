"""Nothing recorded reaches a terminal as anything but visible characters."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.cli.safe_text import CUT_MARK, cut, from_bytes, visible, visible_lines, width

FORBIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

SPELLED = [
    ("plain text, 42", "plain text, 42"),
    ("Grüße, 世界, 🎉, ❤\ufe0f", "Grüße, 世界, 🎉, ❤\ufe0f"),
    ("\x1b[2J", r"\x1b[2J"),
    ("\x1b]52;c;ZXZpbA==\x07", r"\x1b]52;c;ZXZpbA==\x07"),
    ("\x1b]0;title\x1b\\", r"\x1b]0;title\x1b" + "\\"),
    ("\x9b31m", r"\x9b31m"),
    ("\x90+q\x9c", r"\x90+q\x9c"),
    ("a\nb\rc\td", r"a\nb\rc\td"),
    ("\x00\x7f\x80", r"\x00\x7f\x80"),
    ("user\u202etxt.exe", r"user\u202etxt.exe"),
    ("\u2066\u2069\u200e\u061c", r"\u2066\u2069\u200e\u061c"),
    ("zero\u200bwidth\ufeff\u2060", r"zero\u200bwidth\ufeff\u2060"),
    ("\u2028\u2029", r"\u2028\u2029"),
    ("tag\U000e0041\U000e007f", r"tag\U000e0041\U000e007f"),
    ("selector\ufe01\U000e0100", r"selector\ufe01\U000e0100"),
    ("filler\u3164\u115f\u2800", r"filler\u3164\u115f\u2800"),
    ("\ud800", r"\ud800"),
    ("\ue000\U0010ffff", r"\ue000\U0010ffff"),
    ("e\u0301", "e\u0301"),
    ("z" + "\u0300" * 6, "z" + "\u0300" * 4 + r"\u0300" * 2),
    ("10\u00a0000\u202f€", "10\u00a0000\u202f€"),
]


@pytest.mark.parametrize(("text", "expected"), SPELLED)
def test_what_steers_or_hides_is_spelled(text: str, expected: str) -> None:
    """Controls and invisible characters are shown as escapes in letters, everything else as it is."""
    assert expected == visible(text)


@given(st.text())
def test_no_text_steers_a_terminal(text: str) -> None:
    """Whatever the text, what comes out has no control, no format character and no line end."""
    assert not [character for character in visible(text) if unicodedata.category(character) in FORBIDDEN_CATEGORIES]


@given(st.binary())
def test_no_bytes_steer_a_terminal(data: bytes) -> None:
    """Whatever the bytes, their lines have no control and can be encoded."""
    shown = visible_lines(from_bytes(data))
    assert not [character for line in shown for character in line if unicodedata.category(character) in FORBIDDEN_CATEGORIES]
    "".join(shown).encode("utf-8")


def test_invalid_utf8_is_shown_byte_by_byte() -> None:
    """A byte that is no UTF-8 stands as its number."""
    assert r"ok \xff\xc3 ok" == from_bytes(b"ok \xff\xc3 ok")


def test_lines_end_where_text_ends_them() -> None:
    """Newline and return-newline end a line; a lone return is shown; tabs become blanks."""
    assert ["a", r"b\rc", "x       y", ""] == visible_lines("a\r\nb\rc\nx\ty\n")


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("short", 5, "short"),
        ("longer", 5, "long" + CUT_MARK),
        ("世界世界", 5, "世界" + CUT_MARK),
        ("世界世界", 4, "世" + CUT_MARK),
        ("e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"),
    ],
)
def test_cutting_is_marked(text: str, columns: int, expected: str) -> None:
    """What is cut ends in a mark and fits the columns, wide characters counted twice."""
    assert expected == cut(text, columns)


@given(st.text(), st.integers(min_value=1, max_value=40))
def test_cut_text_fits(text: str, columns: int) -> None:
    """Cut text never takes more columns than it may."""
    assert width(cut(visible(text), columns)) <= columns
