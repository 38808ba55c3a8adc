"""docs/policy.md is true: its tables are the code's, its examples load and come out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from capd.enforcer.policy.document import PASSTHROUGH_KEYS, document_keys
from capd.enforcer.policy.example import tried
from capd.enforcer.policy.example_reading import EXAMPLE_KEYS
from capd.enforcer.policy.fields import Key
from capd.enforcer.policy.limit_reading import LIMIT_KEYS
from capd.enforcer.policy.match_reading import MATCH_KEYS
from capd.enforcer.policy.policy import read_policy
from capd.enforcer.policy.protocol import EFFECTS, FACTS
from capd.enforcer.policy.rule_reading import APPROVE_KEYS, INJECT_KEYS, MASK_KEYS, RULE_KEYS, SCOPE_KEYS
from capd.enforcer.policy.shipped import TEXT
from capd.enforcer.policy.variables import VARIABLES

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")


def key_rows(keys: Mapping[str, Key]) -> list[str]:
    """Give the rows of a table of keys."""
    return [f"| `{name}`{', must be there' if key.required else ''} | {key.form} | {key.words} |" for name, key in keys.items()]


TABLES: dict[str, list[str]] = {
    "Keys of a file": key_rows(document_keys()),
    "Keys of a rule": key_rows(RULE_KEYS),
    "Keys of `match`": key_rows(MATCH_KEYS),
    "Keys of `approve`": key_rows(APPROVE_KEYS),
    "Keys of `mask`": key_rows(MASK_KEYS),
    "Keys of `inject`": key_rows(INJECT_KEYS),
    "Keys of `limit`": key_rows(LIMIT_KEYS),
    "Keys of a scope": key_rows(SCOPE_KEYS),
    "Keys of `passthrough`": key_rows(PASSTHROUGH_KEYS),
    "Keys of an example": key_rows(EXAMPLE_KEYS),
    "Variables of conditions": [f"| `{name}` | {kind.value} | {words} |" for name, (kind, words, _) in VARIABLES.items()],
    "Effects of statements": [f"| `{name}` | {words} |" for name, words in EFFECTS.items()],
    "Facts": [f"| `{name}` | {words} |" for name, words in FACTS.items()],
}


def section(heading: str) -> str:
    """Give the text below a heading."""
    return PAGE.split(f"### {heading}\n", 1)[1].split("\n#", 1)[0]


@pytest.mark.parametrize("heading", TABLES)
def test_reference_is_the_code(heading: str) -> None:
    """Each table of the reference has a row for each key that is read, with its form and meaning, and no other."""
    rows = [line for line in section(heading).splitlines() if line.startswith("| `")]
    assert TABLES[heading] == rows


def test_worked_example_comes_out() -> None:
    """Every policy on the page loads, and all its examples come out as they say."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) > 1
    found = []
    for number, block in enumerate(blocks):
        policy = read_policy({f"{number}.yaml": block.encode()})
        found += [(one.example.written, one.passed) for one in (tried(example, policy.judge) for example in policy.examples)]
    assert len(found) > 10
    assert [] == [written for written, passed in found if not passed]


def test_shipped_rules_are_listed() -> None:
    """Every address and name that capd denies by itself stands on the page."""
    values = re.findall(r"^ +- ([0-9a-z.:/-]+)(?:\s|$)", TEXT, re.MULTILINE)
    assert [] == [value for value in values if value not in PAGE]
