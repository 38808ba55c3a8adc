"""Host names in the one form in which they are judged.

What lives here: normalising of what an agent or an operator wrote. What must not: patterns, DNS.

Lower case, no trailing dot, IDNA A-labels; addresses as Python's ipaddress writes them, IPv4 mapped into IPv6 as IPv4. What
resolvers and clients read differently is refused: numbers that some take for an address (`0x7f.1`, `2130706433`, `127.1`),
characters beyond ASCII on the wire, empty labels, labels that are too long.
"""

from __future__ import annotations

import re
from typing import Final

from capd.enforcer.policy.address_range import address

NAME_CHARACTERS_MAX: Final = 253
"""RFC 1035 2.3.4, without the root's dot."""
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
"""RFC 1123 2.1; the underscore because names with one are in use and nobody reads them differently."""
_NUMBER: Final = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII)
_DEVIATIONS: Final = frozenset("\u00df\u03c2\u200c\u200d")
"""Characters that IDNA2003 and IDNA2008 read differently (UTS 46, section 7)."""


class HostNameError(ValueError):
    """The name has no form in which it could be judged; the message says why."""


def normal_host(text: str) -> str:
    """Give a host that a message names, normalised.

    Args:
        text: a name, an IPv4 address, or an IPv6 address with or without brackets.

    Raises:
        HostNameError: different readers take it for different hosts.
    """
    bare = text.removeprefix("[").removesuffix("]") if text.startswith("[") and text.endswith("]") else text
    found = address(bare)
    if found is not None:
        if ("%" in bare) or (bare != text) != (":" in bare):
            raise HostNameError(f"{text!r} is an address in a form that readers take differently")
        return str(found)
    if not text.isascii():
        raise HostNameError(f"{text!r} has characters beyond ASCII")
    return _labels(text.lower())


def normal_pattern(text: str) -> str:
    """Give a host that an operator names, normalised: characters beyond ASCII become A-labels.

    Raises:
        HostNameError: it is no host, or IDNA2003 and IDNA2008 take it for different ones.
    """
    if ":" in text and not text.startswith("["):
        text = f"[{text}]"
    if text.isascii():
        return normal_host(text)
    if _DEVIATIONS.intersection(text):
        raise HostNameError(f"{text!r} means different hosts to different clients; write its A-label (xn--...)")
    try:
        return normal_host(text.encode("idna").decode("ascii"))
    except UnicodeError as error:
        raise HostNameError(f"{text!r} is no name: {error}") from error


def _labels(name: str) -> str:
    bare = name.removesuffix(".")
    if not bare or len(bare) > NAME_CHARACTERS_MAX:
        raise HostNameError("the host is empty" if not bare else f"the host is longer than {NAME_CHARACTERS_MAX} characters")
    labels = bare.split(".")
    for label in labels:
        if _LABEL.fullmatch(label) is None:
            raise HostNameError(f"{name!r} is no host name: {label!r} is no label")
    if _NUMBER.fullmatch(labels[-1]):
        raise HostNameError(f"{name!r} is a number that some take for an address")
    return bare
