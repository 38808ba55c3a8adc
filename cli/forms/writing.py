"""Which module writes which form, and what a file of it is called.

What lives here: the table. What must not: a form, files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from capd.cli.forms.cast import cast, output_of
from capd.cli.forms.har import har
from capd.cli.forms.page import page
from capd.cli.forms.pcap import pcap
from capd.cli.forms.spoken import FormError, Spoken, suiting
from capd.cli.forms.sql import sql
from capd.cli.payload import Limits

SUFFIXES: Final = {"har": ".har", "sql": ".sql", "cast": ".cast", "pcap": ".pcapng", "page": ".html"}
"""What the name of a file of each form ends with."""
BINARY: Final = frozenset({"pcap"})
"""Forms that do not belong on a terminal."""


def pieces(form: str, sessions: Sequence[Spoken], limits: Limits, *, title: str = "capd") -> Iterator[bytes]:
    """Give the pieces of one file of a form with those of the sessions that can be given in it.

    Args:
        form: its name.
        sessions: the earliest first.
        limits: how much of long things is in it.
        title: what it is of, where a form says so.

    Raises:
        FormError: none can, or several could where a file holds one.
    """
    if form == "cast":
        return cast(_only_terminal(sessions))
    if form == "pcap":
        return pcap(sessions)
    if form == "page":
        return page(sessions, limits, title=title)
    found = suiting(sessions, form)
    return har(found, limits) if form == "har" else sql(found, limits)


def _only_terminal(sessions: Sequence[Spoken]) -> Spoken:
    if len(sessions) == 1:
        return sessions[0]
    found = [spoken for spoken in sessions if output_of(spoken) is not None]
    if len(found) == 1:
        return found[0]
    if not found:
        raise FormError(f"none of {len(sessions)} sessions is a terminal")
    raise FormError(
        f"{len(found)} sessions are terminals, and a file holds one: {', '.join(str(one.row.session) for one in found)}"
    )
