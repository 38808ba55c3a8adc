"""What leaves this host about a request: the public form, with secrets masked and nothing that could deceive who reads it.

What lives here: that form (docs/approvals.md). What must not: the forms of single chat tools, sending.

The rules of masking are those of recordings. Header fields come with their credentials masked already (enforcer/proxy/held.py).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from capd.enforcer.approvals.moment import NS_PER_SECOND
from capd.enforcer.approvals.state import State
from capd.enforcer.masking import sql_secrets
from capd.enforcer.masking.body import BodyMask
from capd.enforcer.masking.place import filled, joined
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import Scanner
from capd.recording.visible_text import from_bytes, visible, visible_lines

BODY_CHARACTERS_MAX: Final = 16_384
"""Of a body in a message: a person reads less; its page has all of it."""
ASKED: Final = "asked"
SQL: Final = (sql_secrets.POSTGRESQL, sql_secrets.MYSQL)
"""Protocols whose statements may set a password."""
OURS: Final = frozenset({"id", "state", "fingerprint", "policy", "scope", "body_hash", "demands", "rules", "masked_by"})
"""Facts that no agent wrote, in which a hash might look like a number of somebody's."""
_EVENTS: Final = {State.PENDING.value: ASKED, State.USED.value: State.APPROVED.value}

Notice = dict[str, Any]


def event_of(state: str) -> str:
    """Say what a state is an event of: `asked`, or how the request ended."""
    return _EVENTS.get(state, state)


def notice(found: Mapping[str, Any], rules: Rules, *, characters_max: int = BODY_CHARACTERS_MAX) -> Notice:
    """Give what may be told of a request.

    Args:
        found: its public form on this host, with all of its body (enforcer/approvals/listing.py).
        rules: what is masked.
        characters_max: how much of the body is given.
    """
    told = {_name(key): _value(key, value, rules) for key, value in found.items() if key != "body"}
    content = None if found["body"] is None else _without_passwords(b64decode(found["body"]), found.get("protocol"))
    body = None if content is None else _body(content, found["fields"], rules)
    return {
        **told,
        "body_text": None if body is None else body[:characters_max],
        "body_whole": not found["body_bytes"] or (body is not None and len(body) <= characters_max),
    }


def rfc3339(time_ns: int) -> str:
    """Give a time as `2026-11-21T07:24:11Z`."""
    return f"{datetime.fromtimestamp(time_ns // NS_PER_SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _name(key: str) -> str:
    return "time" if key == "at_ns" else key.removesuffix("_ns")


def _value(key: str, value: Any, rules: Rules) -> Any:  # noqa: ANN401 - whatever JSON has
    if key.endswith("_ns"):
        return None if value is None else rfc3339(value)
    if key == "labels":  # their names are an agent's words, and mean nothing
        return {visible(masked(name, rules)): visible(masked(text, rules)) for name, text in value.items()}
    if key == "fields":
        return [[visible(name), _field(name, text, rules)] for name, text in value]
    return value if key in OURS else _plain(value, rules)


def _plain(value: Any, rules: Rules) -> Any:  # noqa: ANN401 - as above
    """Mask and make visible all text, however deep."""
    if isinstance(value, str):
        return visible(masked(value, rules))
    if isinstance(value, Mapping):
        return {visible(str(_name(key))): _value(key, inner, rules) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [_plain(inner, rules) for inner in value]
    return value


def masked(text: str, rules: Rules) -> str:
    """Give a text with what the rules find filled up."""
    data = text.encode("utf-8", "backslashreplace")
    return from_bytes(filled(data, joined(Scanner(rules).feed(data, final=True))))


def _field(name: str, text: str, rules: Rules) -> str:
    """Mask a header field: by its name, and by what stands in it."""
    head = f"{name}: "
    return visible(masked(head + text, rules)[len(head) :])


def _without_passwords(content: bytes, protocol: object) -> bytes:
    """Give all of a statement with `*` for its passwords, which have no form of their own."""
    return filled(content, sql_secrets.places(content, 0, str(protocol))) if protocol in SQL else content


def _body(content: bytes, fields: Sequence[Sequence[str]], rules: Rules) -> str:
    mask = BodyMask.after(rules, {"headers": fields})
    mask.take(content, 0)
    return "\n".join(visible_lines(from_bytes(filled(content, joined(mask.judge(final=True))))))
