"""What is wrong with a policy: all of it, each with its place.

What lives here: places, problems, the error. What must not: finding them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from capd.recording.errors import CapdError, ExitStatus


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands: file, line and column, counted from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """What is wrong, and where."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"

    def to_json(self) -> dict[str, str | int]:
        """Give the public form."""
        place = self.place
        return {"file": place.file, "line": place.line, "column": place.column, "message": self.message}


class Problems:
    """Collects what is wrong, so that all of it is told at once."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, place: Place, message: str) -> None:
        """Note one."""
        self.found.append(Problem(place, message))

    def raise_if_any(self) -> None:
        """Refuse the policy if anything is wrong with it.

        Raises:
            PolicyError: something is.
        """
        if self.found:
            raise PolicyError(self.found)


class PolicyError(CapdError):
    """The policy cannot be used; lists every problem, not the first."""

    exit_status: ClassVar[int] = ExitStatus.USAGE
    hint: ClassVar[str] = (
        "mend what is listed above, and look with `capd policy check`; a policy that is in force stays in force"
    )

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = sorted(set(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))
