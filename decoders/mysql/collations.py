"""From the number of a collation to its character set.

What lives here: the tables (information_schema.COLLATIONS of MariaDB 10.11 and MySQL 8.0). What must not: decoding.
"""

from __future__ import annotations

from typing import Final

BINARY: Final = 63
"""The collation of what is no text."""
DEFAULT: Final = "utf-8"
"""Of a character set that is not known: what is not UTF-8 is given as it is."""

CODECS: Final = {
    "armscii8": DEFAULT, "ascii": "ascii", "big5": "big5", "binary": DEFAULT, "cp1250": "cp1250", "cp1251": "cp1251",
    "cp1256": "cp1256", "cp1257": "cp1257", "cp850": "cp850", "cp852": "cp852", "cp866": "cp866", "cp932": "cp932",
    "dec8": DEFAULT, "eucjpms": "euc-jp", "euckr": "euc-kr", "gb18030": "gb18030", "gb2312": "gb2312", "gbk": "gbk",
    "geostd8": DEFAULT, "greek": "iso8859-7", "hebrew": "iso8859-8", "hp8": "hp-roman8", "keybcs2": DEFAULT,
    "koi8r": "koi8-r", "koi8u": "koi8-u", "latin1": "cp1252", "latin2": "iso8859-2", "latin5": "iso8859-9",
    "latin7": "iso8859-13", "macce": "mac-latin2", "macroman": "mac-roman", "sjis": "shift-jis", "swe7": DEFAULT,
    "tis620": "tis-620", "ucs2": "utf-16-be", "ujis": "euc-jp", "utf16": "utf-16-be", "utf16le": "utf-16-le",
    "utf32": "utf-32-be", "utf8": DEFAULT, "utf8mb3": DEFAULT, "utf8mb4": DEFAULT,
}  # fmt: skip
"""Character set to codec."""
_IDS: Final = {
    "armscii8": (32, 64), "ascii": (11, 65), "big5": (1, 84), "binary": (63,), "cp1250": (26, 34, 44, 66, 99),
    "cp1251": (14, 23, 50, 51, 52), "cp1256": (57, 67), "cp1257": (29, 58, 59), "cp850": (4, 80), "cp852": (40, 81),
    "cp866": (36, 68), "cp932": (95, 96), "dec8": (3, 69), "eucjpms": (97, 98), "euckr": (19, 85),
    "gb18030": (248, 249, 250), "gb2312": (24, 86), "gbk": (28, 87), "geostd8": (92, 93), "greek": (25, 70),
    "hebrew": (16, 71), "hp8": (6, 72), "keybcs2": (37, 73), "koi8r": (7, 74), "koi8u": (22, 75),
    "latin1": (5, 8, 15, 31, 47, 48, 49, 94), "latin2": (2, 9, 21, 27, 77), "latin5": (30, 78), "latin7": (20, 41, 42, 79),
    "macce": (38, 43), "macroman": (39, 53), "sjis": (13, 88), "swe7": (10, 82), "tis620": (18, 89),
    "ucs2": (35, 90, *range(128, 152), 159, 640, 641, 642), "ujis": (12, 91),
    "utf16": (54, 55, *range(101, 125), 672, 673, 674), "utf16le": (56, 62), "utf32": (60, 61, *range(160, 184), 736, 737, 738),
    "utf8mb3": (33, 76, 83, *range(192, 216), 223, 576, 577, 578),
    "utf8mb4": (45, 46, *range(224, 248), *range(255, 324), 608, 609, 610),
}  # fmt: skip
_NAMES: Final = {number: name for name, numbers in _IDS.items() for number in numbers}
_WITHOUT_PADDING: Final = 1_024
"""MariaDB: a collation that does not pad with blanks has this much more than the one that does."""
_UCA_1400: Final = 2_048
_UCA_1400_SETS: Final = ("utf8mb3", "utf8mb4", "ucs2", "utf16", "utf32")
_UCA_1400_EACH: Final = 256
"""MariaDB: collations of Unicode 14, for each of five character sets so many numbers."""


def character_set(collation: int) -> str | None:
    """Name the character set of a collation; None: it is not known."""
    if collation >= _UCA_1400:
        index = (collation - _UCA_1400) // _UCA_1400_EACH
        return _UCA_1400_SETS[index] if index < len(_UCA_1400_SETS) else None
    found = _NAMES.get(collation)
    return _NAMES.get(collation - _WITHOUT_PADDING) if found is None and collation > _WITHOUT_PADDING else found


def codec(collation: int) -> str:
    """Give the codec for text of a collation."""
    return CODECS.get(character_set(collation) or "", DEFAULT)
