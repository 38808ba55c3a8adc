"""What the process of webhooks and links has given up, tried in a child that gives it up.

What lives here: a child for each case. What must not: what the process does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from capd.daemon.approvals_links import LinkParts
from capd.daemon.callback_parts import CallbackParts
from capd.daemon.callbacks_role import _restrict
from capd.enforcer.masking.rules import Choice, Rules
from tests.requirements import require_root

REFUSED, DONE, OTHER = 13, 0, 1


def parts(place: Path) -> CallbackParts:
    """Give what the process has, below a directory."""
    for name in ("enforcer/approvals", "enforcer/callbacks", "run/callbacks", "runs", "keys"):
        (place / name).mkdir(parents=True)
    for name in (
        "enforcer/approvals/link.key",
        "enforcer/callbacks/told.json",
        "keys/host",
        "runs/a.json",
        "run/x.status.json",
    ):
        (place / name).write_text("x", encoding="ascii")
    return CallbackParts(
        receivers=(),
        listening=None,
        tls=None,
        base_url="",
        links=LinkParts(socket=place / "run" / "links.sock", webhooks=(), masking=Rules(Choice())),
        host="h",
        directory=place / "enforcer" / "callbacks",
        status=place / "run" / "callbacks" / "status.json",
        runs=place / "runs",
    )


def as_child(given: CallbackParts, act: Callable[[], object]) -> int:
    """Give up what the process gives up, do something, and give the error's number."""
    pid = os.fork()
    if pid == 0:
        status = OTHER
        try:
            if _restrict(given, Path("/sys/fs/cgroup")) == "reading":
                act()
                status = DONE
        except OSError as error:
            status = error.errno or OTHER
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("path", "write", "result"),
    [
        ("enforcer/approvals/link.key", False, REFUSED),
        ("enforcer/approvals/new", True, REFUSED),
        ("keys/host", False, REFUSED),
        ("run/x.status.json", True, REFUSED),
        ("runs/a.json", True, REFUSED),
        ("runs/a.json", False, DONE),
        ("enforcer/callbacks/told.json", False, DONE),
        ("enforcer/callbacks/new", True, DONE),
        ("run/callbacks/status.json", True, DONE),
    ],
)
def test_what_it_can_reach(tmp_path: Path, path: str, write: bool, result: int) -> None:
    """It can neither read keys and the store, nor write but in its own corners; even root could not."""
    require_root()
    given = parts(tmp_path)
    assert result == as_child(given, lambda: (tmp_path / path).open("w" if write else "r").close())


def test_it_cannot_take_a_sockets_place(tmp_path: Path) -> None:
    """It cannot remove what others made in the enforcer's corner, such as the socket at which persons decide."""
    require_root()
    given = parts(tmp_path)
    assert REFUSED == as_child(given, (tmp_path / "run" / "x.status.json").unlink)


def test_it_can_look_up_names(tmp_path: Path) -> None:
    """It still reads what looking up a name needs."""
    require_root()
    given = parts(tmp_path)
    assert DONE == as_child(given, lambda: Path("/etc/hosts").read_bytes())
