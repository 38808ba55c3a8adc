"""Show bytes to a person: text if they are text, JSON laid out, compressed bodies unpacked within limits, else hexadecimal.

What lives here: the preview of a payload. What must not: protocols.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from capd.cli.line import Line, Span, Style
from capd.cli.safe_text import cut, from_bytes, visible_lines

# Text rarely packs better than 1:50; beyond this the rest is not worth unpacking and the preview says so.
UNPACKED_RATIO_MAX: Final = 200
UNPACKED_BYTES_FREE: Final = 16 * 1024
# Each layer multiplies what a bomb can do, and no server sends three.
PACKINGS_MAX: Final = 2
# Deeper levels than this would push the text out of sight.
JSON_DEPTH_SHOWN_MAX: Final = 40
JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}:,]|[^\s"\[\]{}:,]+', re.DOTALL)
# The beginning says what a payload is; looking at all of a large one would be slow.
JUDGED_BYTES_MAX: Final = 4096
HEX_COLUMNS: Final = 16
# A text with one odd byte in 20 is still best read as text; more is binary.
ODD_SHARE_MAX: Final = 0.05
ZLIB_OR_GZIP: Final = zlib.MAX_WBITS | 32
ZSTD_WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much of a long thing is shown before a mark says that there is more.

    Attributes:
        lines: of a body.
        line_columns: of a line of a body, or of a header.
        hex_bytes: of binary bytes.
        rows: of a result.
        cell_columns: of a cell.
        body_bytes: of a body kept and unpacked for its preview. A bomb of 1:1000 stops here and not after its gigabytes.
        everything: whether minor things (all headers) are shown too.
    """

    lines: int = 24
    line_columns: int = 240
    hex_bytes: int = 64
    rows: int = 20
    cell_columns: int = 48
    body_bytes: int = 64 * 1024
    everything: bool = False


BRIEF: Final = Limits()
FULL: Final = Limits(
    lines=1_000_000,
    line_columns=1_000_000,
    hex_bytes=1_000_000,
    rows=1_000_000,
    cell_columns=1_000_000,
    body_bytes=8 * 1024 * 1024,
    everything=True,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpacked:
    """A body after its content codings were taken off.

    Attributes:
        data: what came out, at most as many bytes as were asked for.
        note: None, or why this is not all or not unpacked.
    """

    data: bytes
    note: str | None = None


def unpack(data: bytes, codings: Sequence[str], *, whole: bool, bytes_max: int) -> Unpacked:
    """Take off content codings (RFC 9110 section 8.4), the last applied first, within limits of size and ratio.

    Args:
        data: the body, or its beginning.
        codings: as listed in Content-Encoding.
        whole: whether `data` is the whole body, so that an early end is a defect.
        bytes_max: most bytes to give out.
    """
    wanted = [coding.strip().lower() for coding in codings if coding.strip().lower() not in {"", "identity"}]
    if len(wanted) > PACKINGS_MAX:
        return Unpacked(data=data, note=f"not unpacked: {len(wanted)} codings")
    note: str | None = None
    for coding in reversed(wanted):
        limit = min(bytes_max, max(UNPACKED_BYTES_FREE, len(data) * UNPACKED_RATIO_MAX))
        step = _unpack_one(data, coding, limit=limit, whole=whole)
        if step is None:
            return Unpacked(data=data, note=f"not unpacked: {coding}")
        data, note = step.data, note or step.note
    return Unpacked(data=data, note=note)


def _unpack_one(data: bytes, coding: str, *, limit: int, whole: bool) -> Unpacked | None:
    if coding in {"gzip", "x-gzip"}:
        return _inflate(data, ZLIB_OR_GZIP, limit, whole=whole)
    if coding == "deflate":
        # RFC 9110 section 8.4.1.2 wants the zlib form; some servers send bare DEFLATE.
        wrapped = _inflate(data, ZLIB_OR_GZIP, limit, whole=whole)
        return wrapped if wrapped.data or not data else _inflate(data, -zlib.MAX_WBITS, limit, whole=whole)
    return _unzstd(data, limit) if coding == "zstd" else None


def _inflate(data: bytes, window_bits: int, limit: int, *, whole: bool) -> Unpacked:
    inflater = zlib.decompressobj(window_bits)
    try:
        unpacked = inflater.decompress(data, limit)
    except zlib.error:
        return Unpacked(data=b"", note="damaged: does not unpack")
    if inflater.unconsumed_tail:
        return Unpacked(data=unpacked, note=f"unpacked the first {len(unpacked):,} bytes")
    return Unpacked(data=unpacked, note="its packing has no end" if whole and not inflater.eof else None)


def _unzstd(data: bytes, limit: int) -> Unpacked:
    import zstandard  # noqa: PLC0415 - slow to import and rarely needed

    reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX).stream_reader(data)
    try:
        unpacked = reader.read(limit + 1)
    except zstandard.ZstdError:
        return Unpacked(data=b"", note="damaged: does not unpack")
    return Unpacked(data=unpacked[:limit], note=f"unpacked the first {limit:,} bytes" if len(unpacked) > limit else None)


def is_text(data: bytes) -> bool:
    """Say whether the bytes are best shown as text: UTF-8 (perhaps cut at its ends) with few controls in it."""
    if not data:
        return True
    shown = data[:JUDGED_BYTES_MAX].decode("utf-8", "replace")
    odd = sum(1 for character in shown if character == "\ufffd" or (character < " " and character not in "\t\n\r\x1b"))
    return odd <= len(shown) * ODD_SHARE_MAX


def preview(data: bytes, *, limits: Limits, json_like: bool = False, total: int | None = None) -> list[Line]:
    """Give lines that show the bytes, ended by a mark if there is more than the limits allow.

    Args:
        data: the bytes, or their beginning.
        limits: how much is shown.
        json_like: whether they are said to be JSON.
        total: how many there are in all; None: these.
    """
    length = len(data) if total is None else total
    if not is_text(data):
        return hexadecimal(data, limits=limits, total=length)
    text = from_bytes(data)
    lines = _lines(json_laid_out(text) if json_like and text.lstrip()[:1] in {"{", "["} else text, limits)
    return lines + _more(length - len(data))


def hexadecimal(data: bytes, *, limits: Limits, total: int) -> list[Line]:
    """Give the bytes as offset, hexadecimal and printable ASCII."""
    shown = data[: limits.hex_bytes]
    lines: list[Line] = []
    for offset in range(0, len(shown), HEX_COLUMNS):
        part = shown[offset : offset + HEX_COLUMNS]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)  # noqa: PLR2004 - printable ASCII
        lines.append((Span(f"{offset:06x}  ", Style.FAINT), Span(f"{part.hex(' '):<{3 * HEX_COLUMNS - 1}}  {letters}")))
    return lines + _more(total - len(shown))


def _more(count: int) -> list[Line]:
    return [(Span(f"… {count:,} more byte{'s' if count > 1 else ''}", Style.FAINT),)] if count > 0 else []


def json_laid_out(text: str) -> str:
    """Give JSON with one member a line.

    Only the space between lexemes changes: numbers keep their digits, members that occur twice stay twice, and text that
    breaks off or is no JSON after all loses nothing but its blanks.
    """
    return "".join(_indented(JSON_TOKEN.findall(text)))


def _indented(lexemes: Sequence[str]) -> Iterator[str]:
    depth = 0
    for number, lexeme in enumerate(lexemes):
        empty = number + 1 < len(lexemes) and lexeme in {"{", "["} and lexemes[number + 1] in {"}", "]"}
        closes_empty = number > 0 and lexeme in {"}", "]"} and lexemes[number - 1] in {"{", "["}
        if lexeme in {"}", "]"}:
            depth = max(depth - 1, 0)
            yield lexeme if closes_empty else _new_line(depth) + lexeme
        elif lexeme in {"{", "["}:
            depth += 1
            yield lexeme if empty else lexeme + _new_line(depth)
        elif lexeme == ",":
            yield lexeme + _new_line(depth)
        else:
            yield lexeme + " " if lexeme == ":" else lexeme


def _new_line(depth: int) -> str:
    return "\n" + "  " * min(depth, JSON_DEPTH_SHOWN_MAX)


def _lines(text: str, limits: Limits) -> list[Line]:
    # More characters than this are never shown; splitting all of a large body for its first lines would be slow.
    head = text[: limits.lines * limits.line_columns]
    lines = visible_lines(head.removesuffix("\n").removesuffix("\r"))
    shown: list[Line] = [(Span(cut(one, limits.line_columns)),) for one in lines[: limits.lines]]
    hidden = len(lines) - len(shown) + text.count("\n", len(head))
    if hidden:
        shown.append((Span(f"… {hidden:,} more line{'s' if hidden > 1 else ''}", Style.FAINT),))
    return shown
