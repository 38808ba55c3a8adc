"""What a verifier saw before: the key that it trusts for a host, and how far that host's recording had come.

What lives here: pins and their file. What must not: judging what is seen now. The file is the verifier's own; neither a host
nor a bucket can make it forget.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.recording.durable import DIRECTORY_MODE, replace_content
from capd.recording.errors import PinsError, on_disk

VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What is remembered of one host.

    Attributes:
        key: public key (32 bytes) that is trusted for itself; what it vouches for is trusted as well.
        signed_from: lowest number of a signed segment that was seen: none after it may be unsigned.
        sequence, digest: newest sealed segment that was seen, and the hash of its footer.
        head, head_digest: number and hash of the newest head that was seen; 0 and empty without any.
        seen_ns: when, ns since 1970 UTC.
        first: the oldest sealed segment that was in a bucket; 0: none was seen in one.
        buckets: URLs of the buckets in which the host was seen.
        signer: id of the key that signed the newest segment; empty: not known, or nobody.
    """

    key: bytes
    signed_from: int
    sequence: int
    digest: bytes
    head: int
    head_digest: bytes
    seen_ns: int
    first: int = 0
    buckets: Sequence[str] = ()
    signer: bytes = b""

    def to_json(self) -> dict[str, int | str | list[str]]:
        """Give the form in the file."""
        return {
            "key": self.key.hex(),
            "signed_from": self.signed_from,
            "sequence": self.sequence,
            "footer": self.digest.hex(),
            "head": self.head,
            "head_hash": self.head_digest.hex(),
            "seen_ns": self.seen_ns,
            "first": self.first,
            "buckets": list(self.buckets),
            "signer": self.signer.hex(),
        }


def load(path: Path) -> dict[UUID, Pin]:
    """Read pins; a file that is not there has none.

    Raises:
        PinsError: it holds something else.
        StateDirectoryError: it cannot be read.
    """
    with on_disk("read the pins", path):
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except UnicodeDecodeError as error:
            raise PinsError(path, "it is no text") from error
    try:
        found = json.loads(text)
        if found["version"] > VERSION:
            raise PinsError(path, f"it has version {found['version']}, this capd knows {VERSION}")
        return {UUID(host): _pin(fields) for host, fields in found["hosts"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PinsError(path, f"it lacks what it must have: {error!r}") from error


def save(path: Path, pins: Mapping[UUID, Pin]) -> None:
    """Write pins, in the place of those that are there.

    Raises:
        StateDirectoryError: they cannot be written.
    """
    hosts = {str(host): pin.to_json() for host, pin in sorted(pins.items())}
    with on_disk("write the pins", path):
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        replace_content(path, json.dumps({"version": VERSION, "hosts": hosts}, indent=1).encode() + b"\n")


def _pin(fields: Mapping[str, object]) -> Pin:
    def number(name: str) -> int:
        value = fields.get(name, 0) if name == "first" else fields[name]  # an earlier capd did not write it
        if not isinstance(value, int):
            raise TypeError(f"{name} is no number")
        return value

    return Pin(
        key=bytes.fromhex(str(fields["key"])),
        signed_from=number("signed_from"),
        sequence=number("sequence"),
        digest=bytes.fromhex(str(fields["footer"])),
        head=number("head"),
        head_digest=bytes.fromhex(str(fields["head_hash"])),
        seen_ns=number("seen_ns"),
        first=number("first"),
        buckets=_texts(fields.get("buckets", [])),  # an earlier capd wrote neither this nor the next
        signer=bytes.fromhex(str(fields.get("signer", ""))),
    )


def _texts(found: object) -> tuple[str, ...]:
    if not isinstance(found, list):
        raise TypeError("buckets is no list")
    return tuple(map(str, found))
