"""What capd itself says in RESP, to either side.

What lives here: building commands and answers. What must not: when they are sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

OK: Final = b"+OK\r\n"
EXECABORT: Final = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
WRONGPASS: Final = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
NOPERM: Final = "NOPERM"
"""What Redis itself says of a command that its ACL denies."""
ERR: Final = "ERR"
_TEXT_CHARACTERS_MAX: Final = 1_024
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")


def command(words: Sequence[bytes]) -> bytes:
    """Give a command in its one form, whatever it came in."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts += (b"$%d\r\n" % len(word), word, b"\r\n")
    return b"".join(parts)


def error(code: str, text: str, facts: Mapping[str, str] | None = None) -> bytes:
    """Give an error in one line.

    Args:
        code: its first word, which clients look at.
        text: for a person.
        facts: for machines and people, behind it.
    """
    told = ", ".join(f"{name}={value}" for name, value in (facts or {}).items() if value)
    said = _CONTROL.sub(" ", f"{text} ({told})" if told else text)[:_TEXT_CHARACTERS_MAX]
    return f"-{code} {said}\r\n".encode("utf-8", "replace")
