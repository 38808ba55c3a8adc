"""Redis, by the side that signs in: the words of AUTH (redis.io, commands AUTH and HELLO).

What lives here: the words. What must not: RESP.
"""

from __future__ import annotations

from capd.enforcer.obligations.sign_in import SignIn


def auth(sign_in: SignIn, user: str | None) -> tuple[bytes, ...]:
    """Give a command that signs in.

    Args:
        sign_in: with what.
        user: as whom the agent wants to sign in; None: it named nobody.

    Returns:
        `AUTH secret` for a server's one password, `AUTH user secret` for users of an ACL.
    """
    name = sign_in.user if sign_in.user is not None else user
    secret = sign_in.secret.reveal().encode("utf-8")
    return (b"AUTH", secret) if name is None else (b"AUTH", name.encode("utf-8"), secret)


def hello(sign_in: SignIn, user: str | None, version: int) -> tuple[bytes, ...]:
    """Give a command that signs in and chooses the protocol.

    Args:
        sign_in: with what.
        user: as whom the agent wants to sign in; None: it named nobody, which HELLO calls `default`.
        version: of RESP, 2 or 3.
    """
    name = sign_in.user if sign_in.user is not None else user
    secret = sign_in.secret.reveal().encode("utf-8")
    return (b"HELLO", b"%d" % version, b"AUTH", (name or "default").encode("utf-8"), secret)
