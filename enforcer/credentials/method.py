"""Ways to sign in to a database that tell more of a secret than they should, and are used only where a credential says so.

What lives here: their names. What must not: what they say (enforcer/sign_in).
"""

from __future__ import annotations

from enum import StrEnum


class WeakMethod(StrEnum):
    """What a credential can allow beside the ways that are always allowed."""

    MD5 = "md5"
    """PostgreSQL's: what the server stores is as good as the password, and what is sent is found by trying passwords."""
    CLEARTEXT = "cleartext"
    """The password itself, to a server that proved its name in TLS: PostgreSQL's `password`, `mysql_clear_password`."""
    RSA = "rsa"
    """MySQL's `caching_sha2_password` without TLS: the password itself, for a key that nobody vouches for."""
