"""`capd approvals`: what waits for a person.

What lives here: options, following. What must not: asking (approval_socket.py), what is printed (approval_lines.py).
"""

from __future__ import annotations

import time
from typing import Any, Final

import click

from capd.cli.approval_json import public
from capd.cli.approval_lines import change_line, detail_lines, list_lines
from capd.cli.approval_socket import ask
from capd.cli.options import CorrectedUsageError, Verb, config_option
from capd.cli.options import as_json as json_option
from capd.cli.screen import Screen, reader_may_leave, standard_output
from capd.cli.summary import to_json
from capd.enforcer.approvals.errors import ApprovalsUnreachableError
from capd.recording.errors import ExitStatus

FOLLOW_SECONDS: Final = 0.5
"""Between two looks while following: a person does not notice less."""
UNREACHABLE_LOOKS_MAX: Final = 120
"""A minute: an upgrade of capd takes less."""


@click.command(
    name="approvals",
    cls=Verb,
    short_help="Show what waits for a person's approval.",
    examples=(
        "capd approvals",
        "capd approvals --follow",
        "capd approvals k3m9q          # all of one, with its body",
        "capd approvals --all --json | jq '.[] | select(.state == \"denied\")'",
    ),
)
@click.argument("identity", metavar="[ID]", required=False)
@click.option("--follow", is_flag=True, help="Go on, and show what is asked and what becomes of it.")
@click.option("--all", "everything", is_flag=True, help="Also what is over.")
@config_option
@json_option
def command(identity: str | None, follow: bool, everything: bool, config: str | None, as_json: bool) -> int:
    """Show what agents want to do that a rule wants a person to approve.

    With ID, all of that one. Root may ask, and members of the groups that `[enforcement] approvers` names.
    Exit status: 0; 1 when nothing waits, so that a script can tell.
    """
    if identity is not None and (follow or everything):
        raise CorrectedUsageError("with ID there is nothing else to show", f"capd approvals {identity}")
    with reader_may_leave():
        screen = standard_output()
        if identity is not None:
            _write(screen, ask(config, "approval", id=identity)["approval"], as_json=as_json)
            return ExitStatus.OK
        if follow:
            _follow(screen, config, as_json=as_json)
        found: list[dict[str, Any]] = ask(config, "approvals", all=everything)["approvals"]
        if as_json:
            screen.write_json(to_json([public(one) for one in found], indent=2))
        else:
            screen.write(list_lines(found, time.time_ns()))
        return ExitStatus.OK if found else ExitStatus.NEGATIVE


def _write(screen: Screen, found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        screen.write_json(to_json(public(found), indent=2))
    else:
        screen.write(detail_lines(found, time.time_ns(), whole=True))


def _look(config: str | None, *, first: bool) -> list[dict[str, Any]]:
    """Look once; a desk that is started anew meanwhile is waited for.

    Raises:
        ApprovalsUnreachableError: it never answered, or not for long.
    """
    for _ in range(0 if first else UNREACHABLE_LOOKS_MAX):
        try:
            return list(ask(config, "approvals", all=True)["approvals"])
        except ApprovalsUnreachableError:
            time.sleep(FOLLOW_SECONDS)
    return list(ask(config, "approvals", all=True)["approvals"])


def _follow(screen: Screen, config: str | None, *, as_json: bool) -> None:
    """Show what waits, then each change, until interrupted."""
    seen: dict[str, tuple[object, ...]] = {}
    first = True
    while True:
        for one in _look(config, first=first):
            stamp = (one["state"], len(one["approved_by"]))
            known = seen.get(one["id"])
            seen[one["id"]] = stamp
            if known == stamp or (first and one["state"] != "pending"):
                continue
            if as_json:
                screen.write_json(to_json(public(one)))
            elif known is None and one["state"] == "pending":
                screen.write(detail_lines(one, time.time_ns(), whole=False))
            else:
                screen.write([change_line(one, time.time_ns())])
        screen.flush()
        first = False
        time.sleep(FOLLOW_SECONDS)
