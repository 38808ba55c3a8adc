"""The version of a policy: a hash over what it decides, so that two hosts with the same one decide alike.

What lives here: the canonical form, and its hash. What must not: files: comments, order of keys and of rules, descriptions,
examples and the division into files change nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Final

LANGUAGE: Final = 3
"""Goes up when the same text comes to mean something else."""


def canonical(value: object) -> object:
    """Give a value of a policy as JSON has it; what a field leaves out of comparisons is left out."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: canonical(getattr(value, one.name)) for one in fields(value) if one.compare}
    if isinstance(value, Mapping):
        return {str(key): canonical(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [canonical(one) for one in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def version_of(parts: Mapping[str, object]) -> str:
    """Give the version of what a policy consists of: SHA-256 in hexadecimal."""
    text = json.dumps(canonical({"language": LANGUAGE, **parts}), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
