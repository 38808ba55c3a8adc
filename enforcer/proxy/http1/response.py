"""A response: what of it goes to the agent, and what capd says itself.

What lives here: status lines, framing, refusals with a machine-readable reason. What must not: bytes on their way (layer.py).

`Alt-Svc` is left out: a client would go on over QUIC, where it is rejected, and some never come back (RFC 7838).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast

from capd.decoders.message import Message
from capd.enforcer.proxy.http1.fields import HOP_BY_HOP, Fields, end_to_end, members, split, written
from capd.enforcer.proxy.obliged import Obliged
from capd.enforcer.proxy.question import Verdict

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
SWITCHING: Final = 101
NO_RULE: Final = "default"
"""In the place of a rule's name: what no rule allows is denied."""
PHRASE_CHARACTERS_MAX: Final = 200
"""Of why, in the status line: many clients show that and nothing of a body, and no line should be long."""
_PLAIN_TEXT: Final = ("git/",)
"""Clients, by how their User-Agent begins, that show a body if it is plain text only."""
NEVER_ANSWERED: Final = HOP_BY_HOP | {"alt-svc", "x-capd-approval", "x-capd-rule"}
"""Of a target's answer."""
_TELLING: Final = ("version", "status", "reason", "framing", "length", "interim")
"""What of an answer makes its head, beside field lines."""


@dataclass(slots=True, kw_only=True)
class Outgoing:
    """A response on its way to the agent. Nobody changes it; freezing is slow.

    Attributes:
        status: of the final answer, or an interim one.
        head: to be sent.
        chunked: the body goes as chunks.
        keeps: the connection can go on afterwards.
        interim: another answer follows.
    """

    status: int
    head: bytes
    chunked: bool
    keeps: bool
    interim: bool


class Responses:
    """Reads the answers of one connection. One that is as the one before is not read again."""

    def __init__(self) -> None:
        self._headers: object = None
        self._asked: tuple[object, ...] = ()
        self._outgoing: Outgoing | None = None

    def read(self, message: Message, obliged: Obliged | None, *, old: bool, keeps: bool) -> Outgoing:
        """Read a decoded response and write its head anew.

        Args:
            message: of type `response`, whole.
            obliged: what obligations make of it; None: there are none.
            old: the client speaks HTTP/1.0, which knows no chunks.
            keeps: whether the client wants to go on.

        Raises:
            NominationError: it has no meaning that could go across.
            CannotCarryOutError: obligations cannot be met.
        """
        if obliged is not None:
            return _read(message, obliged, old=old, keeps=keeps)
        asked = (old, keeps, *map(message.fields.__getitem__, _TELLING))
        headers = message.fields["headers"]
        # The decoder gives the same object for the same field lines, and nobody changes it.
        if self._outgoing is None or headers is not self._headers or asked != self._asked:
            self._outgoing = _read(message, None, old=old, keeps=keeps)
            self._headers, self._asked = headers, asked
        return self._outgoing


def _read(message: Message, obliged: Obliged | None, *, old: bool, keeps: bool) -> Outgoing:
    said = message.fields
    status, framing = cast("int", said["status"]), cast("str", said["framing"])
    kept, named = split(cast("Sequence[Sequence[str]]", said["headers"]), NEVER_ANSWERED)
    nominated = members(named, "connection")
    if nominated:
        kept = end_to_end(kept, nominated, NEVER_ANSWERED)
    chunked = framing == "chunked" and not old
    interim, reason = said["interim"] is True, str(said["reason"])
    if obliged is not None:
        has_body = framing in {"chunked", "close"} or (framing == "length" and said["length"] != 0)
        kept = obliged.interim(kept) if interim else obliged.head(status, kept, has_body=has_body)
        reason = obliged.text(reason)
    goes_on = keeps and "close" not in nominated and said["version"] == "1.1"
    goes_on = (goes_on and framing in {"none", "length"}) or (goes_on and chunked)
    if chunked:
        kept.append(("transfer-encoding", "chunked"))
    elif framing == "length":
        kept.append(("content-length", str(said["length"])))
    elif framing == "none" and not interim and status != HTTPStatus.NO_CONTENT:
        kept += [("content-length", value) for value in named.get("content-length", ())[:1]]
    if status == SWITCHING:
        kept += [("connection", "upgrade"), *(("upgrade", value) for value in named.get("upgrade", ()))]
    elif not interim and not goes_on:
        kept.append(("connection", "close"))
    head = written(f"HTTP/1.1 {status} {reason}", kept)
    return Outgoing(status=status, head=head, chunked=chunked, keeps=goes_on, interim=interim)


def refusal(status: int, facts: Mapping[str, str], *, rule: str, keeps: bool, head_only: bool, asked: Fields = ()) -> bytes:
    """Write an answer of capd itself.

    Why stands where clients show it: in the status line, and in the body.

    Args:
        status: of the answer.
        facts: the JSON object in its body; `error` says what happened, in a word.
        rule: that decided; "" when none did.
        keeps: whether the connection goes on.
        head_only: the request was HEAD.
        asked: fields of the request, where they are known.
    """
    own, body = refusal_parts(status, facts, rule, asked)
    fields = [*own, *([] if keeps else [("connection", "close")])]
    why = _printable(f"{HTTPStatus(status).phrase}: {facts['message']}".rstrip(": "))[:PHRASE_CHARACTERS_MAX]
    head = written(f"HTTP/1.1 {status} {why}", fields)
    return head if head_only else head + body


def refusal_parts(status: int, facts: Mapping[str, str], rule: str, asked: Fields) -> tuple[list[tuple[str, str]], bytes]:
    """Give the fields and the body of an answer of capd itself; arguments as `refusal` has."""
    kind, body = _body(status, facts, asked)
    fields = [("content-type", kind), ("content-length", str(len(body))), ("cache-control", "no-store")]
    return fields + refusal_marks(facts, rule), body


def refusal_marks(facts: Mapping[str, str], rule: str) -> list[tuple[str, str]]:
    """Give the fields by which a client knows an answer of capd itself."""
    marks = [("x-capd-rule", _printable(rule))] if rule else []
    return marks + ([("x-capd-approval", facts["approval"])] if "approval" in facts else [])


def _body(status: int, facts: Mapping[str, str], asked: Fields) -> tuple[str, bytes]:
    """Give type and content: JSON that is a Status of Kubernetes too, or plain text."""
    if any(name.lower() == "user-agent" and value.startswith(_PLAIN_TEXT) for name, value in asked):
        told = ", ".join(f"{name} {facts[name]}" for name in ("rule", "decision") if facts.get(name))
        text = f"{facts['message']} ({told})" if told else facts["message"]
        return "text/plain; charset=utf-8", f"capd: {text}\n".encode("utf-8", "replace")
    status_of_kubernetes = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
    said = json.dumps({**facts, **status_of_kubernetes}, ensure_ascii=True, separators=(",", ":"))
    return "application/json", said.encode("ascii") + b"\n"


def _printable(text: str) -> str:
    """Give a text as it may stand in a head."""
    return "".join(one if one.isascii() and one.isprintable() else "?" for one in text)


def verdict_facts(verdict: Verdict, session: str) -> dict[str, str]:
    """Give what a denied client is told; `decision` is what the decision log knows it by."""
    return {
        "error": "denied",
        "reason": verdict.reason,
        "message": verdict.message,
        "rule": verdict.rule,
        "policy": verdict.policy,
        "decision": f"{session}/{verdict.number}",
        **verdict.facts,
    }
