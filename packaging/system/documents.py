"""The documentation as packages install it: README.md and docs/ in one directory, with links that lead to what is there.

What lives here: which page becomes which, and its links. What must not: writing files (tree.py).
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator
from pathlib import Path

DIRECTORY = Path("usr/share/doc/capd")
INDEX = Path("index.md")
"""What docs/README.md becomes, beside the README.md of the whole."""
_LINK = re.compile(r"\[([^\]\n]*)\]\(([^()#\s]+)(#[^()\s]*)?\)")
_MENTION = re.compile(r"(?<![\w/.-])docs/(?=[a-z-]+(?:\\-[a-z]+)*\.md)")


def pages(repository: Path) -> Iterator[tuple[Path, str]]:
    """Give each page's place below DIRECTORY, and its text."""
    places = {Path("README.md"): Path("README.md"), Path("docs/README.md"): INDEX}
    for path in sorted((repository / "docs").rglob("*.md")):
        source = path.relative_to(repository)
        places.setdefault(source, source.relative_to("docs"))
    for source, place in places.items():
        yield place, _linked((repository / source).read_text(encoding="utf-8"), source, places)


def in_manual(page: str) -> str:
    """Give a manual page in which what is said of docs/ leads to where that is installed."""
    return _MENTION.sub(f"/{DIRECTORY}/", page)


def _linked(text: str, source: Path, places: dict[Path, Path]) -> str:
    """Have links lead to where pages are installed; of one to what is not installed its words stay."""

    def link(found: re.Match[str]) -> str:
        words, target, section = found[1], found[2], found[3] or ""
        if ":" in target:
            return found[0]
        place = places.get(Path(os.path.normpath(source.parent / target)))
        if place is None:
            return words
        return f"[{words.removeprefix('docs/')}]({os.path.relpath(place, places[source].parent)}{section})"

    return _LINK.sub(link, text)
