"""What the fields of a header block mean: a request, a response, trailers (RFC 9113 section 8).

What lives here: pure functions over fields. What must not: compression, streams.

A section that breaks the rules is told with what is wrong in `malformed`: it is an error of its stream only, and the
connection goes on (RFC 9113 section 8.1.1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.decoders.message import JsonValue

_PSEUDO: Final = frozenset({":method", ":scheme", ":authority", ":path", ":protocol", ":status"})
_CONNECTION: Final = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
_NAME: Final = re.compile(r":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE_BAD: Final = re.compile(r"[\x00\r\n]")
_STATUS: Final = re.compile(r"[1-9][0-9]{2}")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_INTERIM: Final = range(100, 200)


@dataclass(frozen=True, slots=True)
class Section:
    """The fields of one block.

    Attributes:
        headers: name and value of each as sent, pseudo-header fields too, Latin-1.
        values: the first of each name.
        malformed: None, or what is wrong with them.
    """

    headers: list[list[str]]
    values: dict[str, str]
    malformed: str | None

    @property
    def length(self) -> int | None:
        """How long its body is said to be."""
        said = self.values.get("content-length", "")
        return int(said) if _DIGITS.fullmatch(said) else None

    @property
    def grpc(self) -> bool:
        """Whether its body is gRPC's messages."""
        return self.values.get("content-type", "").startswith("application/grpc")

    def request(self) -> dict[str, JsonValue]:
        """Give the fields of a request head."""
        values = self.values
        method = values.get(":method", "")
        target = values.get(":path", "") or (values.get(":authority", "") if method == "CONNECT" else "")
        told: dict[str, JsonValue] = {"method": method, "target": target, "version": "2", "scheme": values.get(":scheme")}
        if ":protocol" in values:
            told["protocol"] = values[":protocol"]
        return {**told, "host": values.get(":authority", values.get("host")), **self.told()}

    def response(self) -> dict[str, JsonValue]:
        """Give the fields of a response head."""
        return {"version": "2", "status": self.status, "reason": "", "interim": self.interim, **self.told()}

    def told(self) -> dict[str, JsonValue]:
        """Give the fields of any section."""
        told: dict[str, JsonValue] = {"headers": self.headers}
        return told if self.malformed is None else {**told, "malformed": self.malformed}

    @property
    def status(self) -> int:
        """The status; 0 if it is none."""
        said = self.values.get(":status", "")
        return int(said) if _STATUS.fullmatch(said) else 0

    @property
    def interim(self) -> bool:
        """Whether another answer follows."""
        return self.status in _INTERIM

    def grpc_status(self) -> dict[str, JsonValue]:
        """Give what gRPC says of the end of a call, if it does."""
        status, words = self.values.get("grpc-status"), self.values.get("grpc-message")
        return {} if status is None else {"grpc_status": status, **({} if words is None else {"grpc_message": words})}


def section(fields: Sequence[tuple[bytes, bytes]]) -> Section:
    """Read the fields of a block."""
    headers: list[list[str]] = []
    values: dict[str, str] = {}
    malformed: str | None = None
    regular = False
    for raw_name, raw_value in fields:
        name, value = str(raw_name, "latin-1"), str(raw_value, "latin-1")
        headers.append([name, value])
        malformed = malformed or _fault(name, value, values, regular=regular)
        regular = regular or not name.startswith(":")
        values.setdefault(name, value)
    return Section(headers, values, malformed or _missing(values))


def _fault(name: str, value: str, before: dict[str, str], *, regular: bool) -> str | None:
    """Say what is wrong with a field (RFC 9113 sections 8.2 and 8.3)."""
    if name.startswith(":"):
        if name not in _PSEUDO:
            return "unknown pseudo-header field"
        if regular or name in before:
            return f"{name} {'behind other fields' if regular else 'twice'}"
    elif name in _CONNECTION or (name == "te" and value != "trailers"):
        return f"field {name} of HTTP/1"
    if not _NAME.fullmatch(name) or _VALUE_BAD.search(value) or value != value.strip(" \t"):
        return "a field that RFC 9113 section 8.2.1 forbids"
    return None


def _missing(values: dict[str, str]) -> str | None:
    """Say what a section lacks (RFC 9113 section 8.3.1)."""
    if ":method" in values:
        if ":status" in values:
            return "both a request and a response"
        plain = values[":method"] != "CONNECT" or ":protocol" in values
        if plain and not (values.get(":scheme") and values.get(":path")):
            return "a request without scheme or path"
    elif ":status" in values and not _STATUS.fullmatch(values[":status"]):
        return "status is no number"
    return None
