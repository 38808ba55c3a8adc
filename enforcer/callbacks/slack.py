"""Slack's form of a notice: blocks, escaped and within Slack's limits.

What lives here: messages that go to Slack. What must not: what comes from it (slack_action.py), sending.

Source: https://docs.slack.dev/reference/block-kit/blocks (header 150 characters, section 3,000, 50 blocks), .../block-elements
(button text 75, value 2,000), https://docs.slack.dev/messaging/formatting-message-text (`&`, `<` and `>` are escaped). All text
that an agent can have written goes into `plain_text`, in which nothing is markup: no link, no mention of a channel, no bold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from capd.enforcer.callbacks.facts import became, rows, what
from capd.enforcer.callbacks.link import Says
from capd.enforcer.callbacks.notice import ASKED, Notice, event_of

HEADER_CHARACTERS_MAX: Final = 150
SECTION_CHARACTERS_MAX: Final = 3_000
FALLBACK_CHARACTERS_MAX: Final = 3_000
"""Of `text`, which notifications show; Slack takes 40,000, nobody reads them."""
VALUE_CHARACTERS_MAX: Final = 2_000
ACTION: Final = "capd-"
"""Begins the action_id of our buttons."""
BLOCK: Final = "capd-answer"

Message = dict[str, Any]


def asked(found: Notice, links: Mapping[str, str], host: str) -> Message:
    """Give the message for a new request.

    Args:
        found: the request.
        links: values of the buttons by what they say; none: there are no buttons.
        host: the name of this host.
    """
    texts = list(_texts(found, host))
    whole = found["body_whole"] and not found["fields_left_out"] and not any(_too_long(text) for text in texts)
    blocks: list[Message] = [
        {"type": "header", "text": _text(f"{found['id']} waits for approval", HEADER_CHARACTERS_MAX)},
        *({"type": "section", "text": _text(text, SECTION_CHARACTERS_MAX)} for text in texts),
    ]
    if links and not whole:
        words = (
            f"It is too long to be shown here, and cannot be approved here: `capd approvals {found['id']}` on {host} shows it."
        )
        blocks.append({"type": "section", "text": _text(words, SECTION_CHARACTERS_MAX)})
    buttons = [_button(says, links[says.value]) for says in Says if says.value in links and (whole or says is Says.DENY)]
    if buttons:
        blocks.append({"type": "actions", "block_id": BLOCK, "elements": buttons})
    return {"text": _cut(f"{found['id']} waits for approval: {what(found)}", FALLBACK_CHARACTERS_MAX), "blocks": blocks}


def outcome(found: Notice, host: str) -> str:
    """Say what became of a request, and what it was."""
    return f"{found['id']} {became(found)}: {what(found)} ({host})"


def ended(found: Notice, host: str) -> Message:
    """Give the message for what became of a request; it has no buttons."""
    text = outcome(found, host)
    section = {"type": "section", "text": _text(text, SECTION_CHARACTERS_MAX)}
    return {"text": _cut(text, FALLBACK_CHARACTERS_MAX), "blocks": [section]}


def message(found: Notice, links: Mapping[str, str], host: str) -> Message:
    """Give the message for a request as it stands."""
    return asked(found, links, host) if event_of(found["state"]) == ASKED else ended(found, host)


def whispered(words: str) -> Message:
    """Give an answer that only the user sees who pressed."""
    return {"response_type": "ephemeral", "replace_original": False, "text": _cut(words, FALLBACK_CHARACTERS_MAX)}


def replaced(found: Notice, host: str) -> Message:
    """Give what takes the place of a message after a press that counted."""
    return {"replace_original": True, **ended(found, host)}


def _texts(found: Notice, host: str) -> Iterator[str]:
    """Give the sections of a request."""
    yield what(found)
    yield "\n".join(f"{name}: {text}" for name, text in (("host", host), *rows(found)))
    if found["fields"]:
        yield "\n".join(("header fields, as the agent sent them:", *(f"{name}: {value}" for name, value in found["fields"])))
    if found["body_text"] and not found["body_text"].isspace():  # Slack takes no block of blanks
        yield f"body, as the agent sent it:\n{found['body_text']}"


def _button(says: Says, value: str) -> Message:
    assert len(value) <= VALUE_CHARACTERS_MAX
    style = "primary" if says is Says.APPROVE else "danger"
    label = {"type": "plain_text", "text": says.value.capitalize(), "emoji": False}
    return {"type": "button", "action_id": f"{ACTION}{says.value}", "text": label, "style": style, "value": value}


def _text(text: str, characters_max: int) -> Message:
    return {"type": "plain_text", "text": _cut(text, characters_max), "emoji": False}


def _too_long(text: str) -> bool:
    return len(_escaped(text)) > SECTION_CHARACTERS_MAX


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, characters_max: int) -> str:
    """Escape, and cut with a word about it; an escape is never cut in two."""
    whole = _escaped(text)
    if len(whole) <= characters_max:
        return whole
    mark = f"… cut: {len(text)} characters"
    kept, left = [], characters_max - len(mark)
    for character in text:
        piece = _escaped(character)
        left -= len(piece)
        if left < 0:
            break
        kept.append(piece)
    return "".join(kept) + mark
