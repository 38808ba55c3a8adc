"""A regular expression of the user against text of a recording, within limits of length and time.

What lives here: `--grep`. What must not: what is searched.

Python's `re` can take exponential time for a harmless-looking expression, and the text it meets was chosen by somebody else.
Lines are therefore cut, and a search that is still busy after a second is stopped by an alarm signal, which `re` heeds.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar, Final, Never

from capd.recording.errors import CapdError, ExitStatus

LINE_CHARACTERS_MAX: Final = 64 * 1024
SEARCH_SECONDS_MAX: Final = 1.0
PATTERN_CHARACTERS_MAX: Final = 1000
EXCERPT_CHARACTERS: Final = 100
"""Shown before and after a match in a long line."""


class PatternError(CapdError):
    """The expression cannot be used."""

    exit_status: ClassVar[int] = ExitStatus.USAGE
    hint: ClassVar[str] = (
        "write a Python regular expression; to find the text itself, put a backslash before each of .*+?()[]{}|^$"
    )


class PatternTooSlowError(CapdError):
    """The expression takes too long on some text of this recording."""

    exit_status: ClassVar[int] = ExitStatus.USAGE
    hint: ClassVar[str] = "take nested repetition out of the expression: (a+)+ finds no more than a+"


class _TimeIsUp(BaseException):
    """The alarm rang. Not an Exception, so that nothing on its way takes it for its own."""


class Pattern:
    """A compiled expression.

    Raises:
        PatternError: it is no expression, or too long.
    """

    def __init__(self, expression: str) -> None:
        if len(expression) > PATTERN_CHARACTERS_MAX:
            raise PatternError(f"--grep is {len(expression)} characters long; at most {PATTERN_CHARACTERS_MAX} are allowed")
        try:
            self._compiled = re.compile(expression)
        except (re.error, RecursionError, OverflowError) as error:
            raise PatternError(f"--grep {expression!r} is no regular expression: {error}") from error
        self._expression = expression

    def found(self, lines: Iterable[str]) -> dict[int, tuple[int, int]]:
        """Give the numbers of the lines that match, each with where it matches first.

        Raises:
            PatternTooSlowError: not done within SEARCH_SECONDS_MAX.
        """
        try:
            with _alarm(SEARCH_SECONDS_MAX):
                return {
                    number: match.span()
                    for number, line in enumerate(lines)
                    if (match := self._compiled.search(line[:LINE_CHARACTERS_MAX])) is not None
                }
        except _TimeIsUp:
            raise PatternTooSlowError(
                f"--grep {self._expression!r} takes more than {SEARCH_SECONDS_MAX:.0f} s on one message"
            ) from None


def excerpt(text: str, found: tuple[int, int]) -> str:
    """Give the part of a long line around a match, with marks where it was cut."""
    start, end = max(found[0] - EXCERPT_CHARACTERS, 0), found[1] + EXCERPT_CHARACTERS
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        # Signals reach the main thread only; nothing of capd searches elsewhere.
        yield
        return
    before = signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _ring(_number: int, _frame: FrameType | None) -> Never:
    raise _TimeIsUp
