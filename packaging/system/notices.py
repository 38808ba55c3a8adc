"""Whose work is in the package, from what each library says of itself.

What lives here: reading that; Debian's machine-readable form (DEP-5); for an rpm all texts, and all licences in one expression.
What must not: judging licences.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

HEAD = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: capd

Files: *
Copyright: the authors of capd
License: Apache-2.0

License: Apache-2.0
 On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.
"""
APACHE = "www.apache.org/licenses/"
"""Stands in the text of that licence, which Debian has in one place for all."""
APACHE_CHARACTERS_MAX = 12_000
"""Of that text alone, which has 11,358 and whose copies add a line. A longer one has terms of others behind it and comes along
whole, as that of pyarrow has those of all that is compiled into it."""
UNSAID = {"pyrage": "MIT"}
"""Of libraries whose metadata has no licence, from the LICENSE file of their repositories."""


SPDX = {
    "Apache License, Version 2.0": "Apache-2.0",
    "LGPL": "LGPL-2.1-or-later",
    "MIT License": "MIT",
    "Public Domain": "LicenseRef-Fedora-Public-Domain",
    "The MIT License (MIT)": "MIT",
}
"""Names in old metadata, as SPDX has them; python-stdnum's text says which LGPL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """One library that comes along."""

    name: str
    version: str
    licence: str
    texts: tuple[str, ...]

    @property
    def expression(self) -> str:
        """Its licence as SPDX has it."""
        told = SPDX.get(self.licence, self.licence)
        return f"({told})" if " OR " in told else told


def bundled(libraries: Path) -> list[Library]:
    """Give all but capd itself.

    Args:
        libraries: directory of the environment.

    Raises:
        ValueError: one does not say its licence.
    """
    found = []
    for path in sorted(libraries.glob("*.dist-info/METADATA")):
        metadata = Parser().parsestr(path.read_text(encoding="utf-8"), headersonly=True)
        name = str(metadata["Name"])
        if name != "capd":
            licence, texts = _licence(metadata.get_all, name), tuple(_texts(path.parent))
            found.append(Library(name=name, version=str(metadata["Version"]), licence=licence, texts=texts))
    return found


def copyright_file(libraries: Path) -> str:
    """Give Debian's file."""
    return "\n".join([HEAD, *map(_stanza, bundled(libraries))])


def whole_texts(libraries: Path) -> str:
    """Give every library's name, licence, and what it says of it."""
    parts = []
    for library in bundled(libraries):
        head = f"{library.name} {library.version}: {library.expression}"
        parts.append("\n\n".join([f"{head}\n{'=' * len(head)}", *(text.strip("\n") for text in library.texts)]))
    return "\n\n\n".join(parts) + "\n"


def expression(libraries: Path) -> str:
    """Give the licences of all, as SPDX puts them together (its annex D)."""
    found = {one for library in bundled(libraries) for one in library.expression.split(" AND ")}
    return " AND ".join(["Apache-2.0", *sorted(found - {"Apache-2.0"})])


def _licence(get_all: object, name: str) -> str:
    assert callable(get_all)
    expression = get_all("License-Expression") or get_all("License") or []
    classifiers = [one.rpartition("::")[2].strip() for one in get_all("Classifier") or [] if one.startswith("License ::")]
    told = next((str(one).splitlines()[0].strip() for one in expression if str(one).strip()), "") or " and ".join(classifiers)
    told = told or UNSAID.get(name, "")
    if not told:
        raise ValueError(f"{name} does not say its licence")
    return told


def _texts(directory: Path) -> list[str]:
    names = ("LICEN", "COPYING", "NOTICE", "AUTHORS")
    found = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.name.upper().startswith(names)]
    return [path.read_text(encoding="utf-8", errors="replace") for path in found]


def _stanza(library: Library) -> str:
    own = [text for text in library.texts if not _is_apache(text)]
    lines = [line.rstrip() or "." for text in own for line in text.splitlines()]
    if len(own) < len(library.texts) or not library.texts:
        lines.append("On Debian systems the full text of Apache-2.0 is in /usr/share/common-licenses/Apache-2.0.")
    body = "".join(f" {line}\n" for line in lines)
    short = f"{library.name}-{library.licence}".replace(" ", "-")
    return (
        f"Files: usr/lib/capd/lib/python*/site-packages/{library.name.lower().replace('-', '_')}/*\n"
        f"Copyright: the authors of {library.name} {library.version}\nLicense: {short}\n\nLicense: {short}\n{body}"
    )


def _is_apache(text: str) -> bool:
    return APACHE in text and len(text) <= APACHE_CHARACTERS_MAX
