"""A decision of the enforcer as one line.

What lives here: VERDICT records in words. What must not: where they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from capd.cli import facts
from capd.cli.facts import Facts
from capd.cli.line import Line, Span, Style

WORDS: Final = {"allow": "ALLOWED", "deny": "DENIED", "held": "HELD", "body_wanted": "BODY WANTED", "inspect": "INSPECTED"}
STYLES: Final = {"allow": Style.GOOD, "deny": Style.BAD, "held": Style.DOUBTFUL}


def is_stopped(told: Facts) -> bool:
    """Say whether a message did not go on."""
    return facts.text(told, "outcome") not in {"allow", "body_wanted", "inspect"}


def decision_line(told: Facts) -> Line:
    """Give the line that says what was decided about what, why, and which decision it was."""
    outcome = facts.text(told, "outcome")
    word = WORDS.get(outcome, outcome.upper() or "DECIDED")
    details = [
        f"{label}{value}"
        for label, key in (("rule ", "rule"), ("", "reason"), ("policy ", "policy"), ("decision ", "decision"))
        if (value := facts.text(told, key))
    ]
    details += _obligations(told)
    return (
        Span(f"{word} {_subject(told)}", STYLES.get(outcome, Style.FAINT)),
        Span(f": {', '.join(details)}" if details else "", Style.FAINT),
    )


def _obligations(told: Facts) -> list[str]:
    """Give what was done beside letting it go on: what capd put in, and what it hid from the agent."""
    found = told.get("obligations")
    if not isinstance(found, Mapping):
        return []
    rules, pairs = found.get("masks"), found.get("credentials")
    put_in = [pair[1] for pair in pairs if isinstance(pair, list | tuple) and len(pair) > 1] if isinstance(pairs, list) else []
    hidden = rules if isinstance(rules, list) else []
    return [*(f"credential {name} put in" for name in put_in), *(f"answer masked by {rule}" for rule in hidden)]


def _subject(told: Facts) -> str:
    exchange = facts.number(told, "exchange")
    method, host = facts.text(told, "method"), facts.text(told, "host")
    if method:
        if exchange is not None and facts.text(told, "protocol") == "http2":
            return f"{method} to {host} (stream {exchange})"
        return f"{method} to {host}" + ("" if exchange is None else f" (request {exchange + 1})")
    if operation := facts.text(told, "operation"):
        user, database = facts.text(told, "user"), facts.text(told, "database")
        return operation + (f" as {user}" if user else "") + (f" in {database}" if database else "")
    about = facts.text(told, "about")
    name = facts.text(told, "server_name")
    return f"{about or 'connection'}{f' to {name}' if name else ''}"
