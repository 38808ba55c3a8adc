"""Standard output: where lines go, whether with colour, how wide, and what happens when its reader leaves.

What lives here: the thin shell around the terminal. What must not: what is said.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TextIO

from capd.cli.line import Line, render
from capd.cli.summary import to_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Screen:
    """A place for lines.

    Attributes:
        stream: where they go.
        coloured: whether styles become escape sequences.
        columns: how wide a terminal is; None if it is none, and then nothing is cut to fit.
    """

    stream: TextIO
    coloured: bool
    columns: int | None

    def write(self, lines: Iterable[Line]) -> None:
        """Write lines; all text in them is made visible on its way."""
        for spans in lines:
            self.stream.write(render(spans, coloured=self.coloured) + "\n")

    def write_json(self, text: str) -> None:
        """Write text that is printable ASCII already, as summary.to_json makes it."""
        self.stream.write(text + "\n")

    def flush(self) -> None:
        """Hand over what was written."""
        self.stream.flush()


def standard_output(environment: Mapping[str, str] = os.environ) -> Screen:
    """Give standard output: with colour only on a terminal, and not against NO_COLOR (no-color.org) or TERM=dumb."""
    stream = sys.stdout
    if isinstance(stream, TextIOWrapper):
        # An odd locale must not stop a replay in its middle.
        stream.reconfigure(errors="backslashreplace")
    terminal = stream.isatty()
    coloured = terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    return Screen(stream=stream, coloured=coloured, columns=shutil.get_terminal_size().columns if terminal else None)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """End the block quietly when the reader of standard output has seen enough (`| head`)."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit; that must have somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def answer(found: object, lines: Iterable[Line], *, as_json: bool) -> None:
    """Write on standard output what a verb has found.

    Args:
        found: as `--json` has it (docs/json.md).
        lines: for people.
        as_json: which of both.
    """
    with reader_may_leave():
        if as_json:
            standard_output().write_json(to_json(found, indent=2))
        else:
            standard_output().write(lines)
