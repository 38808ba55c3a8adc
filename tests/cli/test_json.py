"""docs/json.md and what the commands print are the same, both ways."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Capd
from tests.cli.recorded import Recording
from tests.cli.spoken import over_http

DOCUMENT = Path(__file__).parents[2] / "docs" / "json.md"
FIELD = re.compile(r"^\| `([a-z_]+)` \|", re.MULTILINE)
SESSION = str(over_http().id)


def documented(*headings: str) -> set[str]:
    """Give the fields of the tables below some headings."""
    sections = dict(part.split("\n", 1) for part in DOCUMENT.read_text(encoding="utf-8").split("\n## ")[1:])
    return {field for heading in headings for field in FIELD.findall(sections[heading])}


PRINTED: list[tuple[list[str], Callable[[str], Any], list[str]]] = [
    (["sessions", "--json"], lambda text: json.loads(text)[0], ["session"]),
    (["runs", "--json"], lambda text: json.loads(text)[0], ["run"]),
    (["show", SESSION, "--json"], json.loads, ["session", "show of a session"]),
    (["show", "nightly", "--json"], json.loads, ["run", "show of a run"]),
    (["search", "customers", "--json"], lambda text: json.loads(text)[0], ["hit"]),
    (["replay", SESSION, "--format", "json"], lambda text: json.loads(text.splitlines()[0]), ["record"]),
    (["verify", "--json"], json.loads, ["verification"]),
    (["verify", "--json"], lambda text: json.loads(text)["hosts"][0], ["verified host"]),
    (["keys", "--json"], lambda text: json.loads(text)[0], ["key"]),
    (["verify", "--json"], lambda text: json.loads(text)["segments"][0], ["segment"]),
]


@pytest.mark.parametrize(("arguments", "first", "headings"), PRINTED)
def test_every_field_is_documented(
    capd: Capd, recorded: Recording, arguments: list[str], first: Callable[[str], Any], headings: list[str]
) -> None:
    """What is printed stands in the tables, and what stands there is printed: a field can be added, never lost."""
    assert documented(*headings) == set(first(capd(*arguments).stdout))


@pytest.mark.parametrize("arguments", [arguments for arguments, _, _ in PRINTED])
def test_json_is_printable_ascii(capd: Capd, recorded: Recording, arguments: list[str]) -> None:
    """No byte of any JSON output can steer a terminal."""
    assert [] == re.findall(r"[^\n\x20-\x7e]", capd(*arguments).stdout)


@pytest.mark.parametrize("verb", ["runs", "sessions", "search"])
def test_arrays_have_one_element_a_line(capd: Capd, recorded: Recording, verb: str) -> None:
    """Each element of an array is a line of its own, for tools that know lines only."""
    arguments = ["customers"] if verb == "search" else []
    text = capd(verb, *arguments, "--json").stdout
    lines = text.splitlines()
    assert ("[", "]") == (lines[0], lines[-1])
    assert json.loads(text) == [json.loads(line.removesuffix(",")) for line in lines[1:-1]]
