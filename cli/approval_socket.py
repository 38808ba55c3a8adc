"""Asking the desk of approvals.

What lives here: one question, one answer. What must not: what is asked, what is printed.
"""

from __future__ import annotations

from typing import Any

from capd.daemon import control_client, locations
from capd.daemon.errors import DaemonUnreachableError
from capd.enforcer.approvals.errors import ApprovalsUnreachableError


def ask(config: str | None, verb: str, **fields: object) -> dict[str, Any]:
    """Ask, and give the answer.

    Raises:
        ApprovalsUnreachableError: nobody answers.
        RefusedError: the desk refused; message, hint and exit status are its own.
    """
    path = locations.approvals_socket(config)
    try:
        return control_client.ask(path, verb, **fields)
    except DaemonUnreachableError as error:
        raise ApprovalsUnreachableError(f"nobody answers for approvals at {path}") from error
