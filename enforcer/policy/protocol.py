"""What can be judged: the protocols, and which parts of a rule have a meaning for each.

What lives here: the tables. What must not: any protocol's messages. A protocol is added with the proxy that speaks it: a rule
for a protocol that capd cannot judge would never do what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from capd.enforcer.policy.limit import EVERYWHERE, OF_ANSWERS

HTTP: Final = "http"
WEBSOCKET: Final = "websocket"
POSTGRESQL: Final = "postgresql"
MYSQL: Final = "mysql"
REDIS: Final = "redis"
TLS: Final = "tls"
TCP: Final = "tcp"

HOLD_SECONDS_HTTP_MAX: Final = 55
"""Clients of HTTP and of tools give up after 60 s."""
HOLD_SECONDS_MAX: Final = 600
"""A database's client waits; its transaction, and its locks, wait with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What rules may ask of a protocol, and do to it.

    Attributes:
        keys: keys of `match` about the content of its messages.
        session_keys: keys of `match` about a session, known when it is opened and at each of its messages.
        variables: prefixes of its variables in conditions.
        opens: whether a connection is opened as somebody before anything can be said in it, which is a decision of its own.
        masks: whether what it says can be rewritten.
        injects: whether credentials can be put in.
        limits: which guard rails there are (limit.py).
        hold_seconds_max: how long a message of it can be held.
    """

    keys: frozenset[str] = frozenset()
    session_keys: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()
    opens: bool = False
    masks: bool = False
    injects: bool = False
    limits: frozenset[str] = frozenset()
    hold_seconds_max: int = HOLD_SECONDS_HTTP_MAX


_LOGIN: Final = frozenset({"databases", "users"})
_STATEMENT: Final = frozenset({"commands", "effects", "resources", "text_regex"})
SESSION: Final = "session."
"""Prefix of variables about the session of a database."""

_SQL: Final = Protocol(
    keys=_STATEMENT,
    session_keys=_LOGIN,
    variables=frozenset({"sql.", SESSION}),
    opens=True,
    limits=EVERYWHERE | OF_ANSWERS,
    masks=True,
    injects=True,
    hold_seconds_max=HOLD_SECONDS_MAX,
)

PROTOCOLS: Final[Mapping[str, Protocol]] = {
    HTTP: Protocol(
        keys=frozenset({"methods", "paths", "path_regex", "query_regex", "text_regex"}),
        variables=frozenset({"http."}),
        masks=True,
        injects=True,
    ),
    WEBSOCKET: Protocol(),
    POSTGRESQL: _SQL,
    MYSQL: _SQL,
    REDIS: Protocol(
        keys=_STATEMENT,
        session_keys=_LOGIN,
        variables=frozenset({"redis.", SESSION}),
        opens=True,
        limits=EVERYWHERE | OF_ANSWERS,
        injects=True,
        hold_seconds_max=HOLD_SECONDS_MAX,
    ),
    TLS: Protocol(),
    TCP: Protocol(),
}
"""`mysql` is MariaDB's too; `tls` is TLS that is not opened, `tcp` is anything that capd does not decode, `websocket` is what a
request of HTTP becomes, which is judged as such: of these three only the connection is judged. Of a database each message is,
and before it the opening of its session."""

OF_DATABASES: Final = tuple(name for name, protocol in PROTOCOLS.items() if protocol.opens)
SESSION_KEYS: Final = frozenset[str]().union(*(protocol.session_keys for protocol in PROTOCOLS.values()))
CONTENT_KEYS: Final = frozenset[str]().union(*(protocol.keys for protocol in PROTOCOLS.values()))

EFFECTS: Final[Mapping[str, str]] = {
    "select": "reads rows",
    "insert": "adds rows",
    "update": "changes rows",
    "delete": "removes rows",
    "define": "creates or changes a definition: CREATE, ALTER, COMMENT",
    "drop": "removes a definition, or all rows: DROP, TRUNCATE",
    "grant": "changes rights: GRANT, REVOKE, roles",
    "session": "changes the session: SET, transactions, cursors",
    "code": "runs code: DO, CALL, functions with side effects",
    "file": "reads or writes files or programs of the server",
    "lock": "keeps others from rows or relations: LOCK, SELECT FOR UPDATE, advisory locks",
    "maintain": "rewrites or reorganises what is there: VACUUM, ANALYZE, CLUSTER, REINDEX, REFRESH",
    "notify": "speaks to other sessions: NOTIFY, pg_notify(), PUBLISH",
    "administer": "governs a server of Redis: settings, replication, other sessions, saving, shutting down",
}
"""What a statement can do, and what that means."""

NAME_BOUND: Final = "target.name_bound"
FACTS: Final[Mapping[str, str]] = {
    "target.names_agree": "every name that the message claims for its target (Host field, absolute URL, SNI) is the same",
    NAME_BOUND: "the name is proven for the address, by the target's certificate or the host's resolver; "
    "false: the agent says so",
    "http.body_truncated": "there is more of the body than was judged",
    "sql.has_where": "every UPDATE and DELETE has a WHERE that asks for a column; true where there is none, false of TRUNCATE",
}
"""Facts that are true, false or not known, and what they mean. A condition sees them as variables of the same name."""

RECORDED: Final[Mapping[str, str]] = {
    "http1": HTTP,
    "http2": HTTP,
    "websocket": HTTP,
    **{name: name for name in (POSTGRESQL, MYSQL, REDIS, TLS)},
}
"""A session of WebSocket began with a request.

What decoders call protocols, and what policies do; all else is TCP."""


def of_recorded(name: str) -> str:
    """Give a protocol's name by the name that its decoder has."""
    return RECORDED.get(name, TCP)


def hold_seconds_max(names: Iterable[str]) -> int:
    """Give how long messages of some protocols can be held: the shortest of their limits."""
    return min(PROTOCOLS[name].hold_seconds_max for name in names)
