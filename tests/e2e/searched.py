"""Secrets, searched for in all that an instance keeps: in its files as they are, and in what they hold once it is unpacked.

What lives here: the forms that a secret may have, the places where it may be. What must not: secrets, expectations.
"""

from __future__ import annotations

import base64
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from capd.recording.journal import Block, JournalKeys, JournalReader
from capd.recording.record import pack
from capd.recording.segment import SegmentReader

OPENED = "journal, opened with its key"
"""Raw capture, which is what the recorder masks: whoever has the key of this host's start finds everything in it."""
EXPORTS = "exports"
"""What verbs gave, if a test keeps it."""
_SQL_BLOB = re.compile(r"X'([0-9A-F]*)'")


class Kept(Protocol):
    """An instance that has ended."""

    @property
    def directory(self) -> Path:
        """Where everything of it is."""

    @property
    def state(self) -> Path:
        """Its state directory."""


def forms(secret: str) -> dict[str, bytes]:
    """Give a secret as it is, and coded in the ways in which bytes become text; base64 at each place where it may begin."""
    plain = secret.encode()
    found = {"bytes": plain, "hex": plain.hex().encode(), "HEX": plain.hex().upper().encode()}
    found |= {"percent": b"".join(b"%%%02x" % byte for byte in plain), "PERCENT": b"".join(b"%%%02X" % byte for byte in plain)}
    found |= {"UTF-16LE": secret.encode("utf-16-le"), "UTF-16BE": secret.encode("utf-16-be")}
    for before in range(3):
        # Characters that neighbours would change are left out.
        inside = slice((0, 2, 3)[before], 4 * ((before + len(plain)) // 3))
        for name, code in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            found[f"{name} {before}"] = code(b"\0" * before + plain)[inside]
    return found | {f"Huffman {before}": coded for before, coded in enumerate(huffman_forms(secret))}


def huffman_forms(secret: str) -> Iterator[bytes]:
    """Give a secret in the code of HTTP/2's headers (RFC 7541), at each of the eight bits at which it may begin."""
    bits = "".join(f"{REQUEST_CODES[byte]:0{REQUEST_CODES_LENGTH[byte]}b}" for byte in secret.encode())
    for before in range(8):
        whole = bits[before : before + (len(bits) - before) // 8 * 8]
        yield int(whole, 2).to_bytes(len(whole) // 8, "big")


def traces(kept: Iterable[tuple[str, bytes]], secrets: Iterable[str]) -> dict[str, set[str]]:
    """Give which secrets are in which places, in any form."""
    coded = [(secret, list(forms(secret).values())) for secret in secrets]
    found: dict[str, set[str]] = {}
    for place, data in kept:
        there = {secret for secret, codes in coded if any(code in data for code in codes)}
        found[place] = found.get(place, set()) | there
    return found


def everything(instance: Kept, bucket: Path) -> Iterator[tuple[str, bytes]]:
    """Give all that an instance keeps, with the place it is in: a place that nothing is in does not appear.

    Args:
        instance: it has ended.
        bucket: a directory below the instance's.
    """
    for path in instance.directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            place = _place(instance, bucket, path)
            data = path.read_bytes()
            yield place, data if data.strip(b"\0") else b""  # the reserve is many megabytes of nothing
            yield from ((place, data) for data in _unpacked(path))
    reader = JournalReader(instance.state / "journal", None, JournalKeys(instance.state / "keys" / "journal.key"))
    while (block := reader.read()) is not None:
        if isinstance(block, Block):
            yield OPENED, bytes(block.payload)


def _place(instance: Kept, bucket: Path, path: Path) -> str:
    if path.is_relative_to(bucket):
        return "catalogue" if path.suffix == ".parquet" else "bucket"
    if path.parent == instance.directory:
        return "logs" if path.suffix == ".log" else "configuration"
    if path.is_relative_to(instance.directory / EXPORTS):
        return EXPORTS
    return path.relative_to(instance.state).parts[0] if path.is_relative_to(instance.state) else "runtime"


def _unpacked(path: Path) -> Iterator[bytes]:
    """Give what a reader sees in a file that is compressed, or not stored in one piece."""
    if path.suffix == ".seg":
        with SegmentReader(path) as reader:
            yield b"".join(pack(record) for record in reader.records())
    elif path.suffix == ".parquet":
        table = pq.read_table(path, partitioning=None)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        yield sink.getvalue().to_pybytes()
    elif path.name == "capd.db":
        yield from _rows(path)


def _rows(database: Path) -> Iterator[bytes]:
    """Give the rows of the index, and the words of its full-text index in their order: it stores each beginning once."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    text = "\n".join(connection.iterdump())
    yield text.encode("utf-8", "surrogatepass")
    yield b"".join(bytes.fromhex(blob) for blob in _SQL_BLOB.findall(text))
    connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, messages_fts, instance)")
    words = connection.execute("SELECT term FROM temp.words ORDER BY doc, col, offset")
    yield b"-".join(word.encode() for (word,) in words)
    connection.close()
