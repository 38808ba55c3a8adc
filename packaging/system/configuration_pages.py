"""docs/configuration.md and capd.toml(5), made from the model of the configuration. `make docs` writes the first.

What lives here: the form of the two pages, and what is said about all keys. What must not: anything that is said about one key;
that is the model's (daemon/configuration.py).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

from capd.daemon.configuration_effect import effect_of
from capd.daemon.configuration_reference import Entry, entries, readable, sections
from capd.daemon.version import VERSION

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
COLUMNS = 140
TOP = "Keys of no table"
MORE = {
    "capture": "capture.md",
    "storage": "operations.md#when-room-is-short",
    "encryption": "operations.md#encryption",
    "enforcement": "enforcement.md",
    "approvals": "approvals.md",
    "credentials": "credentials.md",
    "bucket": "operations.md#shipping",
    "shipper": "operations.md#shipping",
    "catalogue": "fleet.md",
    "local": "operations.md#keeping-and-letting-go",
    "metrics": "metrics.md",
    "alerts": "metrics.md#alerts",
    "recording": "masking.md",
    "masking": "masking.md",
    "retention": "operations.md#keeping-and-letting-go",
}
"""The page with more about a table."""
FILES = """\
/etc/capd/capd.toml is read, and then every *.toml in the directory conf.d beside it, in the order of their names. All may be
missing, and an empty file is a good one: every key has a default. With `--config FILE`, or CAPD_CONFIG, it is FILE that is
read, and conf.d beside it. conf.d and what is in it must belong to root, to the owner of FILE or to who reads it, and nobody
else may write there.

A later file wins. Tables are put together, key by key. An array of tables is continued: a [[retention]] of a later file comes
after those of earlier ones. Any other value takes the place of the earlier one, and so do other arrays. An empty array, such as
`retention = []`, takes away what earlier files said.

A key that does not exist is an error, and so is a value that cannot be; all errors are told at once, with file and line.
`capd config check` looks without starting anything, `capd config show` says what is in effect and where it is from. A role that
may not read one of the files does not start; it never takes it for an empty one.

`systemctl reload capd` takes over what can be while capd goes on; what takes effect at a restart is named, with the command. A
configuration that is wrong in any place is refused as a whole, and what was in force stays.

No key holds a secret: keys that name one name the file, credential or program that has it.
"""
EXAMPLE = """\
bucket_url = "s3://recordings"

[capture]
data_ring_bytes = 134217728

[selection]
slices = ["capd-agents.slice", "ci.slice"]
"""


def markdown() -> str:
    """Give the page of the documentation."""
    lines = [
        "# Configuration",
        "",
        "Made from the model of the configuration by `make docs`; a test holds it against that. `man capd.toml` is the same.",
        "",
    ]
    for paragraph in _paragraphs():
        lines += [*wrap(paragraph.replace("[[retention]]", "`[[retention]]`"), COLUMNS), ""]
    lines += ["```toml", *EXAMPLE.splitlines(), "```", ""]
    for header, meaning, keys in _tables():
        lines += [f"## {f'`{header}`' if header else TOP}", ""]
        if meaning or _more(header):
            more = f" More in [{_more(header).partition('#')[0]}]({_more(header)})." if _more(header) else ""
            lines += [f"{_sentence(meaning)}{more}".strip(), ""]
        lines += ["| key | default | what it is | meaning | takes effect |", "|---|---|---|---|---|", *map(_row, keys), ""]
    return "\n".join(lines)


def manual(date: str) -> str:
    """Give the manual page.

    Args:
        date: of the page, in its form.
    """
    lines = [
        f'.TH "CAPD.TOML" "5" "{date}" "capd {VERSION}" "capd"',
        ".SH NAME",
        "capd.toml \\- configuration of capd",
        ".SH SYNOPSIS",
        "/etc/capd/capd.toml",
        ".PP",
        "/etc/capd/conf.d/*.toml",
        ".SH DESCRIPTION",
        "\n.PP\n".join(_safe(paragraph.replace("`", "")) for paragraph in _paragraphs()),
    ]
    for header, meaning, keys in _tables():
        lines += [f'.SH "{_safe(header or TOP.upper())}"', *([_safe(_sentence(meaning))] if meaning else [])]
        for entry in keys:
            words = _sentence(entry.meaning).replace("`", "")
            told = f"{words} {_sentence(_what(entry))} Default: {_default(entry)}. {_effect(entry)}"
            lines += [".TP", f"\\fB{_safe(entry.path[-1])}\\fP", _safe(told)]
    lines += [
        ".SH EXAMPLES",
        ".nf",
        *map(_safe, EXAMPLE.splitlines()),
        ".fi",
        ".SH SEE ALSO",
        "\\fBcapd\\-config\\fP(1), \\fBcapd\\fP(1), /usr/share/doc/capd/configuration.md",
    ]
    return "\n".join(lines) + "\n"


def _tables() -> Iterator[tuple[str, str, list[Entry]]]:
    """Give each table: its header, what it is for, its keys; those of no table first."""
    found: dict[str, list[Entry]] = {}
    for entry in entries():
        if entry.kind != "tables by name":
            found.setdefault(entry.table, []).append(entry)
    meanings = sections()
    for header in sorted(found, key=bool):
        yield header, meanings.get(header, ""), found[header]


def _paragraphs() -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in FILES.split("\n\n")]


def _more(header: str) -> str:
    return MORE.get(header.strip("[]").partition(".")[0], "")


def _row(entry: Entry) -> str:
    cells = (f"`{entry.path[-1]}`", f"`{entry.shown_default}`", _what(entry), entry.meaning, effect_of(entry.key).described)
    return "| " + " | ".join(_linked(cell.replace("|", "\\|")) for cell in cells) + " |"


def _what(entry: Entry) -> str:
    unit = f", in {entry.unit}" if entry.unit else ""
    limits = f", {entry.limits}" if entry.limits else ""
    return f"{entry.kind}{unit}{limits}"


def _default(entry: Entry) -> str:
    if entry.unit == "bytes" and isinstance(entry.default, int) and entry.default:
        return f"{entry.shown_default} ({readable(entry.default)})"
    return entry.shown_default.strip("()")


def _effect(entry: Entry) -> str:
    return f"Takes effect: {effect_of(entry.key).described}."


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}." if words else ""


def _linked(text: str) -> str:
    return re.sub(r"docs/([a-z-]+\.md)", r"[\1](\1)", text)


def _safe(text: str) -> str:
    """Give text in which nothing is taken for a request of roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    PAGE.write_text(markdown(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
