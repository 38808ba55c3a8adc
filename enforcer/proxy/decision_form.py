"""Entries about statements that are said again and again: their form, made once, and what is filled in.

What lives here: which of an entry's values differ among kin. What must not: the entry (entry.py), packing (entry_form.py).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from capd.enforcer.decision_words import said_sha256
from capd.enforcer.entry_form import Form, packed_hash, packed_number, packed_time
from capd.enforcer.proxy.entry import decision_entry
from capd.enforcer.proxy.question import Kin, Question, Verdict

LEFT_OPEN: Final = ("at_ns", "number", "content_sha256", "text_sha256")

Filled = tuple[Form, tuple[bytes, bytes, bytes, bytes]]


def filled_decision(session: str, question: Question, verdict: Verdict, at_ns: int) -> Filled | None:
    """Give the form of `decision_entry`, and what it is filled with; None: such an entry has to be made as a whole."""
    kin, statement = question.kin, question.statement
    if kin is None or statement is None or verdict.approval or verdict.body_bytes:
        return None
    told = (session, verdict.allowed, verdict.reason, verdict.rule, verdict.policy, verdict.obligations)
    known = kin.told
    if isinstance(known, tuple) and known[0] == told:
        form: Form = known[1]
    else:
        form = Form(decision_entry(session, question, verdict, at_ns), LEFT_OPEN)
        kin.told = (told, form)
    content = sha256(statement.content).digest()
    said = _said(kin, statement.text, statement.content, content)
    text = packed_content = packed_hash(content)
    if said is not content:
        text = packed_hash(said)
    return form, (packed_time(at_ns), packed_number(question.number), packed_content, text)


def _said(kin: Kin, text: str | None, content: bytes, of_content: bytes) -> bytes | None:
    """Give the hash of the text, which mostly is the content, or the text of the one before."""
    if text is None:
        return None
    known = kin.said
    if known is not None and known[0] is text:
        return known[1]
    if len(text) == len(content) and text.isascii() and text.encode("ascii") == content:
        return of_content
    found = said_sha256(text)
    kin.said = (text, found)
    return found
