"""Values that are known by the name beside them: `password=…`, `"api_key": "…"`, `Authorization: …`.

What lives here: the names that are masked by default, and what may stand between a name and its value in headers, addresses,
forms, JSON, YAML, SQL and command lines. What must not: secrets that are known by their own form (formats.py).

All patterns here are matched against lower case.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from capd.enforcer.masking.opening import Opening, Run

HEADERS: Final = (
    "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-auth-token",
    "x-access-token", "x-amz-security-token", "x-goog-api-key", "x-vault-token", "private-token", "x-gitlab-token",
    "x-github-token", "x-csrf-token", "x-xsrf-token", "x-session-token", "x-refresh-token", "x-auth-key",
    "x-functions-key", "ocp-apim-subscription-key",
)  # fmt: skip
"""Header fields that are masked by default."""
COOKIE_HEADERS: Final = frozenset({"cookie", "set-cookie"})
SCHEMES: Final = ("basic", "bearer", "token", "digest", "negotiate", "ntlm", "apikey", "aws4-hmac-sha256")
"""What stays of a credential: how it is used, not what it is."""
KEYS: Final = (
    "password", "passwd", "passphrase", "user_password", "client_secret", "secret_key", "secret_access_key",
    "aws_secret_access_key", "aws_session_token", "private_key", "api_key", "apikey", "api_token", "api_secret",
    "access_token", "refresh_token", "id_token", "auth_token", "session_token", "bearer_token", "secret_token",
    "client_assertion", "x-amz-signature", "x-amz-security-token", "x-goog-signature", "accountkey", "sharedaccesskey",
    "encryption_key", "signing_key", "webhook_secret", "secret", "pwd", "token", "sig", "signature",
)  # fmt: skip
"""Names of parameters, form fields, JSON members and settings that are masked by default, however deep they are."""
_LOOSE: Final = frozenset(
    {"password", "passwd", "passphrase", "secret_key", "secret_access_key", "api_key", "apikey", "client_secret"}
)
"""Names that say the same with anything before them: `db_password`, `OPENAI_API_KEY`, `dbPassword`."""
_WEAK: Final = frozenset({"secret", "pwd", "token", "sig", "signature"})
"""Names that are also used for what is no secret: their values have to have 8 characters."""
_EMPTY_VALUE: Final = r"(?!\$[0-9{(]|%s|\?|null\b|none\b|true\b|false\b|undefined\b|\*\*\*|\{\{|<[a-z])"
"""What stands where a value will be, and is none."""
_ENDS: Final = r"[^\s\"'&,;<>(){}\[\]\\|\x00]"
_AFTER_NAME: Final = r"(?:%22|[\"'\\]){0,4}[ \t]{0,8}(?:=>|:=|=|:|%3d|%3a)[ \t]{0,8}"
_TRIGGER_AFTER_NAME: Final = r"(?:%22|[\"'\\])*[ \t]*(?:=|:|%3d|%3a)"
_QUOTE: Final = r"(?P<q>\\{0,4}[\"']|%22|(?![\"'\\]))"
"""What opens a value: a quote, perhaps escaped; or nothing, when no quote follows."""


def alternatives(names: Iterable[str]) -> str:
    """Give a pattern for any of the names; `_`, `-` and nothing are the same: apiKey, api_key, api-key."""
    patterns = {"[_\\-]?".join(re.escape(part) for part in re.split(r"[_\-]", name.lower())) for name in names}
    return "|".join(sorted(patterns, key=lambda pattern: (-len(pattern), pattern)))


def _literals(names: Iterable[str]) -> tuple[str, ...]:
    """Give for each name its longest part, which is there however the parts are joined."""
    return tuple(sorted({max(re.split(r"[_\-]", name.lower()), key=len) for name in names}))


def _named(names: Collection[str], before: str, behind: str) -> list[Opening]:
    anything = alternatives(names)
    if not anything:
        return []
    return [
        Opening(
            rule="key",
            kind="credential",
            pattern=f"{before}(?P<n>{anything}){_AFTER_NAME}{_QUOTE}{_EMPTY_VALUE}{behind}",
            trigger=f"(?i-u:(?:{anything}){_TRIGGER_AFTER_NAME})",
            literals=_literals(names),
            run=Run.BARE,
            after=True,
            named=True,
        )
    ]


def keys(names: Iterable[str], exact: Collection[str] = ()) -> list[Opening]:
    """Give how values of keys are recognised.

    Args:
        names: keys, some of them among the defaults.
        exact: keys that the operator names; they are masked as they are, however short the value.
    """
    wanted = set(names)
    return [
        *_named(_LOOSE & wanted, "", ""),
        *_named(sorted(wanted - _LOOSE - _WEAK), r"(?<![a-z0-9])", ""),
        *_named(sorted(_WEAK & wanted), r"(?<![a-z0-9_.\-])", f"(?={_ENDS}{{8}})"),
        *_named(sorted(exact), r"(?<![a-z0-9])", ""),
        *(_spoken() if "password" in wanted else []),
    ]


def _spoken() -> list[Opening]:
    """Passwords in statements, command lines and the parts of a form."""
    return [
        Opening(
            rule="key",
            kind="credential",
            pattern=r"(?P<n>password|identified[ \t\r\n]{1,4}by)[ \t\r\n]{1,8}e?'",
            trigger=r"(?i-u:(?:password|identified[ \t\r\n]{1,4}by)[ \t\r\n]{1,8}e?')",
            literals=("password", "identified"),
            run=Run.SQL_QUOTED,
            after=True,
            named=True,
        ),
        Opening(
            rule="key",
            kind="credential",
            pattern=r"(?<![a-z0-9_])--?(?:[a-z0-9]{1,16}-){0,2}"
            r"(?P<n>password|passwd|passphrase|secret|token|api[_\-]?key)(?:=|[ \t]{1,4})(?=[^\s\-|&;\"'])",
            literals=("password", "passwd", "passphrase", "secret", "token", "key"),
            trigger=r"(?i-u:-(?:password|passwd|passphrase|secret|token|api[_\-]?key)[ \t=])",
            run=Run.BARE,
            after=True,
            named=True,
        ),
        Opening(
            rule="key",
            kind="credential",
            pattern=r"name=\"(?P<n>password|passwd|secret|token|api[_\-]?key)\"(?:\r\n[^\r\n]{1,96})?\r\n\r\n",
            trigger=r"(?i-u:name=\"(?:password|passwd|secret|token|api[_\-]?key)\")",
            literals=('name="',),
            run=Run.LINE,
            after=True,
            named=True,
        ),
        Opening(
            rule="credential",
            kind="credential",
            pattern=r"(?<![a-z0-9])(?P<n>basic|bearer)[ \t]{1,4}(?=[a-z_~+/.\-]{0,40}[0-9=])(?=[a-z0-9+/=._~\-]{12})",
            trigger=r"(?i-u:(?:basic|bearer)[ \t]{1,4}[a-z0-9+/=._~\-]{12})",
            literals=("basic", "bearer"),
            run=Run.BASE64,
            after=True,
            named=True,
        ),
    ]


def headers(names: Iterable[str]) -> list[Opening]:
    """Give how header fields are recognised in bytes that are not known to be HTTP: logs, command lines, other protocols."""
    ordered = sorted(names)
    cookies = [name for name in ordered if name in COOKIE_HEADERS]
    others = [name for name in ordered if name not in COOKIE_HEADERS]
    openings: list[Opening] = []
    scheme = f"(?:(?:{'|'.join(SCHEMES)})[ \\t]{{1,4}})?"
    behind = r"(?:[\"'\\]{0,4}[ \t]{0,8}[:=]|[\"'],)[ \t]{0,8}"
    for group, rest in ((others, scheme), (cookies, "")):
        if not group:
            continue
        anything = "|".join(re.escape(name) for name in group)
        openings.append(
            Opening(
                rule="header",
                kind="cookie" if group is cookies else "credential",
                pattern=f"(?<![a-z0-9_\\-])(?P<n>{anything}){behind}{_QUOTE}{rest}{_EMPTY_VALUE}",
                literals=tuple(group),
                trigger=f"(?i-u:(?:{anything})(?:[\"'\\\\]*[ \\t]*[:=]|[\"'],))",
                run=Run.LINE_UNQUOTED,
                after=True,
                named=True,
            )
        )
    return openings
