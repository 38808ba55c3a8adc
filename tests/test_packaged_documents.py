"""The documentation as packages install it: every page is there, and every link leads to one."""

from __future__ import annotations

import os.path
import re
from pathlib import Path

from tests.packaging_module import packaging_module

REPOSITORY = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^()#\s:]+)(?:#[^()]*)?\)")
ANCHORED = re.compile(r"\]\(([^()#\s:]*)#([^()\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def test_links_lead_to_what_is_installed() -> None:
    """README.md and the index of docs/ are two pages, and nothing links to what a package does not have."""
    pages = dict(packaging_module("documents").pages(REPOSITORY))
    assert pages[Path("README.md")].startswith("# capd")
    assert pages[Path("index.md")].startswith("# Documentation")
    assert len(pages) == 1 + len(list((REPOSITORY / "docs").rglob("*.md")))
    links = [(place, link) for place, text in pages.items() for link in LINK.findall(text)]
    assert (Path("README.md"), "packages.md") in links
    assert [] == [(place, link) for place, link in links if not _leads(place, link, set(pages))]


def test_links_into_pages_lead_to_their_headings() -> None:
    """Whoever follows a link with a `#`, in a checkout or as packages install it, comes to that heading."""
    pages = dict(packaging_module("documents").pages(REPOSITORY))
    pages |= {path.relative_to(REPOSITORY): path.read_text(encoding="utf-8") for path in REPOSITORY.glob("docs/**/*.md")}
    astray = []
    for place, text in pages.items():
        for link, anchor in ANCHORED.findall(text):
            target = Path(os.path.normpath(place.parent / link)) if link else place
            if anchor not in _anchors(pages[target]):
                astray.append(f"{place}: {link}#{anchor}")
    assert [] == astray


def _anchors(text: str) -> set[str]:
    """Give what headings are linked to by: small letters, dashes for spaces, without other signs."""
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in HEADING.findall(text)}


def _leads(place: Path, link: str, pages: set[Path]) -> bool:
    parts: list[str] = []
    for part in (place.parent / link).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return Path(*parts) in pages


def test_manual_pages_name_the_place() -> None:
    """Who reads a manual page has no checkout."""
    documents = packaging_module("documents")
    text = documents.in_manual("documented in docs/json.md, docs/exit\\-statuses.md; /srv/docs/json.md, docs/*")
    assert (
        "documented in /usr/share/doc/capd/json.md, /usr/share/doc/capd/exit\\-statuses.md; /srv/docs/json.md, docs/*" == text
    )
