"""Manual pages, made from the commands themselves, and from the model of the configuration (configuration_pages.py).

What lives here: the form of a command's page. What must not: anything that a page says; that is the commands' help.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import configuration_pages

from capd.cli.main import VERBS, capd
from capd.daemon.version import VERSION

SECTION = 1
STATUSES = (
    "0 all is well, 1 a negative answer, 2 wrong use or configuration; the others are in /usr/share/doc/capd/exit-statuses.md."
)


def pages(epoch: int) -> Iterator[tuple[str, str]]:
    """Give every page's file name and text.

    Args:
        epoch: date of the pages, s since 1970.
    """
    date = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d")
    root = click.Context(capd, info_name="capd")
    yield f"capd.{SECTION}", _page(root, date, below=list(VERBS))
    for verb in VERBS:
        yield from _of(verb, root, date)
    yield "capd.toml.5", configuration_pages.manual(date)


def _of(name: str, parent: click.Context, date: str) -> Iterator[tuple[str, str]]:
    assert isinstance(parent.command, click.Group)
    command = parent.command.get_command(parent, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent)
    below = sorted(command.list_commands(context)) if isinstance(command, click.Group) else []
    yield f"{context.command_path.replace(' ', '-')}.{SECTION}", _page(context, date, below=below)
    for verb in below:
        yield from _of(verb, context, date)


def _page(context: click.Context, date: str, *, below: list[str]) -> str:
    command, name = context.command, context.command_path
    summary, _, rest = inspect.cleandoc(command.help or "").partition("\n\n")
    lines = [
        f'.TH "{name.replace(" ", "-").upper()}" "{SECTION}" "{date}" "capd {VERSION}" "capd"',
        ".SH NAME",
        f"{_safe(name.replace(' ', '-'))} \\- {_safe(_line(summary).rstrip('.'))}",
        ".SH SYNOPSIS",
        f"\\fB{_safe(name)}\\fP {_safe(' '.join(command.collect_usage_pieces(context)))}",
        ".SH DESCRIPTION",
        _paragraphs(rest or summary),
        *_options(command, context),
        *_verbs(context, below),
        *_examples(command),
        ".SH EXIT STATUS",
        _safe(STATUSES),
        ".SH SEE ALSO",
        "/usr/share/doc/capd" if context.parent is None else f"\\fB{_safe('capd')}\\fP({SECTION}), /usr/share/doc/capd",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    records = [record for one in command.get_params(context) if (record := one.get_help_record(context)) is not None]
    if records:
        yield ".SH OPTIONS"
    for option, words in records:
        yield from (".TP", f"\\fB{_safe(option)}\\fP", _safe(_line(words)))


def _verbs(context: click.Context, below: list[str]) -> Iterator[str]:
    if below:
        yield ".SH COMMANDS"
    for verb in below:
        assert isinstance(context.command, click.Group)
        command = context.command.get_command(context, verb)
        assert command is not None
        yield from (".TP", f"\\fB{_safe(verb)}\\fP", _safe(command.get_short_help_str(200)))


def _examples(command: click.Command) -> Iterator[str]:
    """Give the examples: of a list, or of an epilog that is one."""
    examples = list(getattr(command, "examples", ()))
    if not examples and (command.epilog or "").startswith("\b\nExamples:"):
        examples = [line.strip() for line in (command.epilog or "").splitlines()[2:]]
    if examples:
        yield from (".SH EXAMPLES", ".nf", *(_safe(example) for example in examples), ".fi")


def _paragraphs(text: str) -> str:
    """Give paragraphs; one that click must not fill is not filled here."""
    parts = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b"):
            parts.append("\n".join((".nf", *map(_safe, paragraph.splitlines()[1:]), ".fi")))
        else:
            parts.append(_safe(_line(paragraph)))
    return "\n.PP\n".join(part for part in parts if part)


def _line(text: str) -> str:
    return " ".join(text.split())


def _safe(text: str) -> str:
    """Give text in which nothing is taken for a request of roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
