"""A secret in all the forms in which a server may say it again.

What lives here: the forms, and finding them. What must not: where bytes come from, what is done about a hit.

Found are the secret as it is; with any of its special characters percent-encoded, escaped as in JSON, JavaScript or HTML; all
of it so escaped; in hexadecimal; in base64 of either alphabet, at any place of what was encoded. A form is a sequence of
alternatives, one for each character, so that mixtures are found too.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from functools import cached_property, lru_cache
from html.entities import codepoint2name
from typing import Final

Alternatives = tuple[bytes, ...]
_PLAIN: Final = re.compile(r"[A-Za-z0-9]")
SECRETS_MAX: Final = 256
"""Whose forms are kept ready; making those of a long one takes milliseconds."""
_GROUP: Final = 3
"""Bytes that base64 encodes together (RFC 4648 4)."""


@dataclass(frozen=True, repr=False)
class Needle:
    """One form.

    Attributes:
        steps: what may stand for each character, in order.
    """

    steps: tuple[Alternatives, ...]

    @cached_property
    def bytes_max(self) -> int:
        """Give the length of the longest text of this form."""
        return sum(max(map(len, step)) for step in self.steps)

    @cached_property
    def _literal(self) -> bytes | None:
        return b"".join(step[0] for step in self.steps) if all(len(step) == 1 for step in self.steps) else None

    @cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        return re.compile(b"".join(_any_of(step) for step in self.steps))

    def find(self, data: bytes, at: int = 0) -> tuple[int, int] | None:
        """Give where the form is next from an index on."""
        if self._literal is not None:
            place = data.find(self._literal, at)
            return None if place < 0 else (place, place + len(self._literal))
        found = self._pattern.search(data, at)
        return None if found is None else found.span()

    def first_begun(self, data: bytes) -> int:
        """Give where the form begins at the end of the data, if more bytes could make it whole; else the data's length."""
        least = max(0, len(data) - self.bytes_max + 1)
        first = len(data)
        for head in {one[:1] for one in self.steps[0]}:
            at = data.find(head, least, first)
            while at >= 0 and not self._may_begin(data, at):
                at = data.find(head, at + 1, first)
            first = at if at >= 0 else first
        return first

    def _may_begin(self, data: bytes, at: int) -> bool:
        """Say whether the data ends inside of the form, which begins at an index."""
        places = {at}
        for step in self.steps:
            further: set[int] = set()
            for place in places:
                for one in step:
                    have = data[place : place + len(one)]
                    if have == one and place + len(one) < len(data):
                        further.add(place + len(one))
                    elif one.startswith(have) and place + len(have) == len(data):
                        return True
            if not further:
                return False
            places = further
        return False


def _any_of(step: Alternatives) -> bytes:
    if len(step) == 1:
        return re.escape(step[0])
    return b"(?:" + b"|".join(re.escape(one) for one in step) + b")"


@lru_cache(maxsize=SECRETS_MAX)
def needles(secret: str) -> tuple[Needle, ...]:
    """Give the forms of a secret.

    Args:
        secret: ASCII that can be printed.
    """
    texts = [secret, *_base64(secret)]
    forms = [tuple(_alternatives(one) for one in text) for text in texts]
    forms += [tuple((escape,) for escape in escaped) for escaped in zip(*(_escapes(one) for one in secret), strict=True)]
    hexadecimal = secret.encode("ascii").hex()
    forms += [tuple((one.encode("ascii"),) for one in text) for text in (hexadecimal, hexadecimal.upper())]
    return tuple(Needle(form) for form in dict.fromkeys(forms))


def _alternatives(character: str) -> Alternatives:
    """Give what may stand for a character; letters and digits are escaped by nobody who does not escape all of them."""
    plain = character.encode("ascii")
    if _PLAIN.fullmatch(character):
        return (plain,)
    backslash = (b"\\" + plain,)
    named = codepoint2name.get(ord(character))
    entity = () if named is None else (b"&" + named.encode("ascii") + b";",)
    blank = (b"+",) if character == " " else ()
    # A backslash that stands for itself comes last: it is how most escapes begin.
    return tuple(dict.fromkeys((*_escapes(character), *backslash, *entity, *blank, plain)))


def _escapes(character: str) -> Alternatives:
    """Give the ways of writing a character by its number: RFC 3986 2.1, RFC 8259 7, ECMAScript, HTML."""
    lower, upper = f"{ord(character):02x}", f"{ord(character):02X}"
    forms = (f"%{upper}", f"%{lower}", f"\\u00{upper}", f"\\u00{lower}", f"\\x{upper}", f"\\x{lower}")
    entities = (f"&#{ord(character)};", f"&#x{upper};", f"&#x{lower};", f"&#X{upper};", f"&#0{ord(character)};")
    return tuple(form.encode("ascii") for form in (*forms, *entities))


def _base64(secret: str) -> list[str]:
    """Give what base64 makes of the secret wherever it stands, without the characters that depend on its neighbours."""
    data, found = secret.encode("ascii"), []
    for before in range(_GROUP):
        encoded = b64encode(bytes(before) + data).decode("ascii").rstrip("=")
        first = -(-before * 4 // _GROUP)
        last = (before + len(data)) * 4 // _GROUP
        core = encoded[first:last]
        found += [core, core.replace("+", "-").replace("/", "_")]
    return found
