"""A credential in its place in a request: what the agent put there is taken away, the secret stands there instead.

What lives here: fields and parameters. What must not: signatures (signing.py), whether it may go there (equipment.py).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote_plus

from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.obligation import CannotCarryOutError
from capd.enforcer.policy.rule import Form, Injection

Fields = Sequence[tuple[str, str]]
_NO_LETTER: Final = re.compile(r"[^a-z0-9]")


def field_of(injection: Injection, secret: Secret, user: str | None) -> tuple[str, str]:
    """Give the field that a credential becomes.

    Raises:
        CannotCarryOutError: its form needs a user that it does not have.
    """
    if injection.form is Form.BASIC:
        if user is None or ":" in user:
            raise CannotCarryOutError("the credential has no `user` for the form basic, or one with a colon (RFC 7617 2)")
        return "authorization", "Basic " + b64encode(f"{user}:{secret.reveal()}".encode()).decode("ascii")
    if injection.form is Form.BEARER:
        return "authorization", f"Bearer {secret.reveal()}"
    assert injection.header is not None
    return injection.header, injection.prefix + secret.reveal()


def with_field(fields: Fields, name: str, value: str) -> list[tuple[str, str]]:
    """Give fields in which one has this value, once: servers with the variables of CGI take `X_Key` for `X-Key`."""
    wanted = _variable(name)
    return [*((one, said) for one, said in fields if _variable(one) != wanted), (name, value)]


def with_parameter(query: str | None, name: str, secret: Secret) -> str:
    """Give a query in which one parameter has this value, once, whichever case and encoding it had.

    Raises:
        CannotCarryOutError: it stands there in a way that some servers read and others do not.
    """
    parts = query.split("&") if query else []
    others = [part for part in parts if part and not _named(part, name)]
    if any(_named(piece, name) for part in others for piece in part.split(";")):
        raise CannotCarryOutError(f"its query has {name} behind a semicolon, which some servers take for a parameter")
    return "&".join([*others, f"{name}={quote(secret.reveal(), safe='')}"])


def _named(part: str, name: str) -> bool:
    return unquote_plus(part.partition("=")[0]).strip().lower() == name.lower()


def _variable(name: str) -> str:
    return _NO_LETTER.sub("-", name.lower())
