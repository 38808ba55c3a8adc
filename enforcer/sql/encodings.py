"""Encodings of clients in which a quote is a quote: no byte of a longer character is one below 0x80.

What lives here: the tables of names. What must not: reading text.

In Shift JIS, Big5, GBK, UHC, Johab and GB18030 the second byte of a character can be a backslash or a letter: a scanner that is
wrong about the encoding then sees other strings than the server. They are refused.
Source: PostgreSQL documentation, table 24.3 (client encodings that are no server encodings are those); MySQL manual 12.14.
"""

from __future__ import annotations

from typing import Final

BYTES: Final = "latin-1"
"""Each byte as a character: of an encoding whose characters do not matter, because all that counts is ASCII."""

SAFE_POSTGRESQL: Final = {
    "utf8": "utf-8",
    "unicode": "utf-8",
    "sql_ascii": BYTES,
    **dict.fromkeys((f"latin{number}" for number in range(1, 11)), BYTES),
    **dict.fromkeys(("euc_jp", "euc_cn", "euc_kr", "euc_tw", "euc_jis_2004"), BYTES),
    **dict.fromkeys(("koi8r", "koi8u", "iso_8859_5", "iso_8859_6", "iso_8859_7", "iso_8859_8"), BYTES),
    **dict.fromkeys((f"win{number}" for number in (866, 874, *range(1250, 1259))), BYTES),
}
SAFE_MYSQL: Final = {
    "utf8": "utf-8",
    "utf8mb3": "utf-8",
    "utf8mb4": "utf-8",
    **dict.fromkeys(("ascii", "latin1", "latin2", "latin5", "latin7", "cp1250", "cp1251", "cp1256", "cp1257"), BYTES),
    **dict.fromkeys(("binary", "koi8r", "koi8u", "greek", "hebrew", "cp850", "cp852", "cp866"), BYTES),
}


def safe_postgresql(name: str) -> str | None:
    """Give Python's name for an encoding of PostgreSQL; None for one that is not safe."""
    plain = name.lower()
    return SAFE_POSTGRESQL.get(plain) or SAFE_POSTGRESQL.get(plain.replace("-", "").replace("iso8859", "iso_8859_"))


def safe_mysql(name: str) -> str | None:
    """Give Python's name for a character set of MySQL; None for one that is not safe."""
    return SAFE_MYSQL.get(name.lower())
