"""Requests for approval as `--json` prints them (docs/json.md): what the desk answers, with times as text.

What lives here: that translation. What must not: lines for people (approval_lines.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capd.cli import moments


def public(found: Mapping[str, Any]) -> dict[str, Any]:
    """Give the public form of a request."""
    shown: dict[str, Any] = {}
    for name, value in found.items():
        if name.endswith("_ns"):
            shown[name.removesuffix("_ns")] = None if value is None else moments.rfc3339(value)
        else:
            shown[name] = value
    return {**shown, "previous": [public_message(message) for message in found["previous"]]}


def public_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Give the public form of an earlier message."""
    return {"time": moments.rfc3339(message["at_ns"]), "said": message["said"], "outcome": message["outcome"]}
