"""An answer of a stream: what of a target's goes to the agent, and what capd says itself, also to clients of gRPC.

What lives here: heads, trailers, refusals. What must not: streams.

A client of gRPC looks for a status in the trailers, or in a head that is all there is ("Trailers-Only" in gRPC's
PROTOCOL-HTTP2); of an answer with another HTTP status it shows a number and no reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from capd.enforcer.proxy.authority import BAD_GATEWAY, FORBIDDEN
from capd.enforcer.proxy.http1.fields import Fields as Pairs
from capd.enforcer.proxy.http1.fields import trailers
from capd.enforcer.proxy.http1.response import NEVER_ANSWERED, SWITCHING, refusal_marks, refusal_parts
from capd.enforcer.proxy.http2.fields import FieldsError, read_section
from capd.enforcer.proxy.http2.request import GRPC, Fields

GRPC_UNKNOWN: Final = 2
GRPC_PERMISSION_DENIED: Final = 7
GRPC_UNAVAILABLE: Final = 14
_GRPC: Final = {FORBIDDEN: GRPC_PERMISSION_DENIED, BAD_GATEWAY: GRPC_UNAVAILABLE}
_GRPC_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if code != ord("%"))
"""Of a message, what need not be written as %XX."""
_STATUS_DIGITS: Final = 3
_INTERIM: Final = range(100, 200)
_WITHOUT_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of an answer.

    Attributes:
        status: of the final answer, or an interim one.
        fields: in lower case, without what belongs to one connection.
        length: of the body that follows; None: that is not known.
    """

    status: int
    fields: Fields
    length: int | None

    @property
    def interim(self) -> bool:
        """Whether another head follows."""
        return self.status in _INTERIM


def read_head(raw: Sequence[tuple[bytes, bytes]], *, head_only: bool) -> Head:
    """Read the head of a target's answer.

    Raises:
        FieldsError: it is malformed.
    """
    section = read_section(raw, (":status",))
    said = section.pseudo.get(":status", "")
    if len(said) != _STATUS_DIGITS or not (said.isascii() and said.isdigit()) or said[0] == "0":
        raise FieldsError("the status is no number")
    return make_head(int(said), section.fields, section.length, head_only=head_only)


def make_head(status: int, fields: Fields, length: int | None, *, head_only: bool) -> Head:
    """Give the head that goes to a client.

    Args:
        status: as the target said.
        fields: the same, without pseudo-header fields.
        length: what content-length says, or None.
        head_only: the request was HEAD: there is no body, whatever its length is said to be.

    Raises:
        FieldsError: no such answer can go on.
    """
    if status == SWITCHING:
        raise FieldsError("the target changes the protocol, which HTTP/2 cannot")
    kept = [(name.lower(), value) for name, value in fields if name.lower() not in NEVER_ANSWERED]
    bodyless = head_only or status in _WITHOUT_BODY or status in _INTERIM
    if length is not None and status not in _INTERIM and status != HTTPStatus.NO_CONTENT:
        kept.append(("content-length", str(length)))
    return Head(status=status, fields=kept, length=0 if bodyless else length)


def read_trailers(raw: Sequence[tuple[bytes, bytes]]) -> Fields:
    """Give those trailers that may go on. Raises FieldsError: they are malformed."""
    return trailers(read_section(raw, ()).fields)


def refusal(status: int, facts: Mapping[str, str], *, rule: str, asked: Pairs = ()) -> tuple[Fields, bytes]:
    """Write an answer of capd itself: head and body; arguments as http1/response.py has."""
    fields, body = refusal_parts(status, facts, rule, asked)
    return [(":status", str(status)), *fields], body


def grpc_refusal(status: int, facts: Mapping[str, str], *, rule: str) -> Fields:
    """Write the same for a client of gRPC: a head that is all there is."""
    words = [facts.get("reason", facts.get("error", "")), facts.get("message", "")]
    message = "capd: " + ": ".join(word for word in words if word)
    told = [facts[key] for key in ("decision",) if key in facts]
    if told:
        message += f" (decision {told[0]})"
    return [
        (":status", "200"),
        ("content-type", GRPC),
        ("grpc-status", str(_GRPC.get(status, GRPC_UNKNOWN))),
        ("grpc-message", quote(message, safe=_GRPC_PLAIN)),
        *refusal_marks(facts, rule),
    ]
