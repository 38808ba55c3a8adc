"""The byte tables in docs/formats are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from capd.recording import heads
from capd.recording.journal import block
from capd.recording.record import Kind
from capd.recording.segment import layout, trailer

FORMATS = Path(__file__).parents[2] / "docs" / "formats"


def byte_table(page: str, heading: str) -> list[tuple[int, int]]:
    """Give offset and size of each row of the table under a heading."""
    text = (FORMATS / page).read_text(encoding="utf-8")
    section = text.split(f"# {heading}\n", 1)[1].split("\n#", 1)[0]
    return [(int(offset), int(size)) for offset, size in re.findall(r"^\| (\d+) \| (\d+) \|", section, re.MULTILINE)]


def layout_of(format_string: str) -> list[tuple[int, int]]:
    """Give offset and size of each field of a struct format without padding."""
    sizes = {"B": 1, "H": 2, "I": 4, "Q": 8}
    fields = []
    offset = 0
    for number, code in re.findall(r"(\d*)([sBHIQ])", format_string):
        for size in [int(number)] if code == "s" else [sizes[code]] * int(number or 1):
            fields.append((offset, size))
            offset += size
    return fields


@pytest.mark.parametrize(
    ("page", "heading", "format_string"),
    [
        ("journal.md", "Block", block.HEADER.format),
        ("segment.md", "File header", layout.FILE_HEADER.format),
        ("segment.md", "Frame", layout.FRAME_HEADER.format),
        ("segment.md", "Trailer", trailer.TRAILER.format),
        ("heads.md", "Head", heads.HEAD.format),
        ("segment.md", "Frame header of version 1", layout.FRAME_HEADER_1.format),
        ("segment.md", "Trailer of version 1", trailer.TRAILER_1.format),
    ],
)
def test_a_byte_table_is_that_of_the_code(page: str, heading: str, format_string: str) -> None:
    """Every field is where its table has it."""
    assert layout_of(format_string) == byte_table(page, heading)


@pytest.mark.parametrize(
    ("page", "number"),
    [
        ("journal.md", block.RAW_BYTES_MAX),
        ("segment.md", layout.FRAME_RAW_BYTES_MAX),
        ("segment.md", layout.FRAME_STORED_BYTES_MAX),
        ("segment.md", layout.FRAME_INDEX_BYTES_MAX),
        ("segment.md", layout.KEY_BLOCK_BYTES_MAX),
        ("segment.md", trailer.FOOTER_BYTES_MAX),
    ],
)
def test_limits_are_documented(page: str, number: int) -> None:
    """Every limit of the code is named on its page."""
    assert f"{number:,}" in (FORMATS / page).read_text(encoding="utf-8")


def test_every_kind_of_record_is_documented() -> None:
    """Numbers and names of kinds are those of the page."""
    text = (FORMATS / "segment.md").read_text(encoding="utf-8")
    assert [(kind.value, kind.name) for kind in Kind] == [
        (int(number), name) for number, name in re.findall(r"(?:^### |, )(\d) ([A-Z]+)", text, re.MULTILINE)
    ]
