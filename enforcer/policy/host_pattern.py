"""Hosts as rules name them: `api.example.com`, `*.example.com`, `api-*.example.com`, `192.0.2.1`, `*`.

What lives here: reading, matching and covering. What must not: addresses that a name leads to: `addresses` of a rule are those.

`*.` at the beginning is one label or more: `*.example.com` is `a.example.com` and `a.b.example.com`, not `example.com`. A star
elsewhere stays within its label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.policy.action import Tri
from capd.enforcer.policy.host_name import HostNameError, normal_pattern
from capd.enforcer.policy.linear_regex import compile_regex, literally

ANY: Final = "*"
_STAND_IN: Final = "x"
"""Stands for a star while the rest of a pattern is normalised: a letter that needs no encoding wherever it stands."""


@dataclass(frozen=True, slots=True, order=True)
class HostPattern:
    """A pattern.

    Attributes:
        text: normalised.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """Read one.

        Raises:
            HostNameError: it is none, or has a form that no host is judged in.
        """
        if text == ANY:
            return cls(ANY)
        if "*" not in text:
            return cls(normal_pattern(text))
        rest = text.removeprefix("*.")
        if not text.isascii():
            raise HostNameError(f"{text!r}: write labels beyond ASCII as A-labels (xn--...) beside a star")
        if "*" in rest.rpartition(".")[2]:
            raise HostNameError(f"{text!r} leaves the top-level domain open; to match every host write '*'")
        normal_pattern(rest.replace("*", _STAND_IN))
        lowered = text.lower().removesuffix(".")
        return cls(lowered)

    @property
    def exact(self) -> bool:
        """Whether it is a host itself."""
        return "*" not in self.text

    @property
    def suffix(self) -> str | None:
        """The domain of which it is all below; None when it is of another kind."""
        rest = self.text.removeprefix("*.")
        return rest if rest != self.text and "*" not in rest else None

    @property
    def regex(self) -> str:
        """The same as a regular expression for a whole host."""
        if self.text == ANY:
            return ".*"
        rest = self.text.removeprefix("*.")
        below = r"(?:[^.]+\.)+" if rest != self.text else ""
        return below + "[^.]*".join(literally(part) for part in rest.split("*"))

    def covers(self, other: HostPattern) -> bool:
        """Say whether it certainly matches all that the other one does; False is not certain."""
        if self.text in (other.text, ANY):
            return True
        if other.exact:
            return compile_regex(rf"\A(?:{self.regex})\z")(other.text) is True
        return self.suffix is not None and other.text.endswith(f".{self.suffix}")


def any_host(patterns: Sequence[HostPattern]) -> Callable[[str], Tri]:
    """Give a function that says whether any of the patterns is for a host."""
    if any(pattern.text == ANY for pattern in patterns):
        return lambda _: True
    exact = frozenset(pattern.text for pattern in patterns if pattern.exact)
    wild = [pattern.regex for pattern in patterns if not pattern.exact]
    if not wild:
        return exact.__contains__
    search = compile_regex(rf"\A(?:{'|'.join(wild)})\z")
    return lambda host: host in exact or search(host)
