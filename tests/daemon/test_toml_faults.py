"""A text that is not TOML: where it is wrong, and what it says all the same."""

from __future__ import annotations

import time
import tomllib

import pytest

from capd.daemon import toml_faults

TEXTS = [
    ("a = 1\nb = = 2\nc = 3\n", 2, "column 5", {"a": 1, "c": 3}),
    ("a = 1\n[t\nb = 2\n[u]\nc = 3\n", 2, "column 3", {"a": 1, "u": {"c": 3}}),
    ("a = 1\na = 2\n", 2, "Cannot overwrite", {"a": 1}),
    ('a = "x\nb = 1\n[t]\nc = 2\n', 1, "Illegal character", {"b": 1, "t": {"c": 2}}),
    ("a = 1\nb = [1,\n2\n", 3, "at the end of the file", {"a": 1}),
    ("a = 1\nb = ['x', 'y'\n[t]\nc = 2\n", 3, "Unclosed array", {"a": 1}),
    ("a = 1\nb = ['x', 'y'\nc = 2\n[t]\nd = 2\n", 3, "Unclosed array", {"a": 1}),
    ("no\n" * 40, 1, "Expected '='", {}),
    ("a = 1\n" + "b" * 70_000, 2, "Expected '='", {}),
    ("a = " + "[" * 20_000, 1, "", {}),
]


@pytest.mark.parametrize(("text", "line", "words", "expected"), TEXTS[:-1])
def test_a_fault_has_a_line(text: str, line: int, words: str, expected: object) -> None:
    """The line is the one where the reader could not go on, and the words say why, without the place in other words."""
    del expected
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    found, told = toml_faults.fault(caught.value, text)
    assert (line, True, False) == (found, words in told, "(at " in told), told


@pytest.mark.parametrize(("text", "line", "words", "expected"), TEXTS)
def test_what_stands_around_faults_is_read(text: str, line: int, words: str, expected: object) -> None:
    """Lines with faults are left out, all others are read; where there are too many, nothing is, and soon."""
    del line, words
    begun = time.process_time()
    assert expected == toml_faults.salvaged(text)
    assert time.process_time() - begun < 5
