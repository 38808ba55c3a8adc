"""The pages that a link shows: plain HTML without scripts, which no other site can put into a frame.

What lives here: their text and the header fields that go with them. What must not: what is decided, HTTP.
"""

from __future__ import annotations

from html import escape
from typing import Final

from capd.enforcer.callbacks.facts import rows, what
from capd.enforcer.callbacks.link import Says
from capd.enforcer.callbacks.notice import Notice

HTML: Final = "text/html; charset=utf-8"
POLICY: Final = "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
FIELDS: Final = (
    ("Content-Security-Policy", POLICY),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    # Not `no-referrer`, with which browsers send `Origin: null` along with a form (Fetch, "append a request Origin header").
    ("Referrer-Policy", "same-origin"),
    ("X-Robots-Tag", "noindex, nofollow"),
    ("Cache-Control", "no-store"),
)
CONFIRM: Final = "confirm"
REASON: Final = "reason"


def asking(found: Notice, says: Says, approver: str, confirmation: str) -> str:
    """Give the page that shows a request, with the button that decides."""
    reason = '<p><label>Reason, which the agent reads: <input name="reason" maxlength="500" required></label></p>'
    form = (
        f'<form method="post">{reason if says is Says.DENY else ""}'
        f'<input type="hidden" name="{CONFIRM}" value="{escape(confirmation)}">'
        f'<p><button type="submit">{says.value.capitalize()} as {escape(approver)}</button></p></form>'
    )
    lines = "".join(
        f"<tr><th align=left valign=top>{escape(name)}</th><td>{_ordered(text)}</td></tr>" for name, text in _rows(found)
    )
    body = f"<h2>Body</h2><pre>{_ordered(found['body_text'])}</pre>" if found["body_text"] else ""
    return _page(f"{says.value.capitalize()} {found['id']}?", f"<table>{lines}</table>{_fields(found)}{body}{form}")


def told(title: str, words: str) -> str:
    """Give a page that says something."""
    return _page(title, f"<p>{escape(words)}</p>")


def _rows(found: Notice) -> list[tuple[str, str]]:
    before = "; ".join(f"{one['said']} {one['outcome']}" for one in found["previous"])
    return [("what", what(found)), *rows(found), ("before", before or "nothing")]


def _fields(found: Notice) -> str:
    lines = [f"{name}: {value}" for name, value in found["fields"]]
    if found["fields_left_out"]:
        lines.append(f"and {found['fields_left_out']} more, which are bound as well")
    return f"<h2>Header fields</h2><pre>{_ordered(chr(10).join(lines))}</pre>"


def _ordered(text: str) -> str:
    """Give text in the order in which it was said: letters that are written from right to left turn what is between them."""
    return f'<bdo dir="ltr">{escape(text)}</bdo>'


def _page(title: str, content: str) -> str:
    head = f'<meta charset="utf-8"><meta name="robots" content="noindex"><title>capd: {escape(title)}</title>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{content}</body></html>\n'
