"""What rules look at of an HTTP request beside where it goes: so that what they do not look at can differ.

What lives here: the answer for one rule or scope. What must not: asking rules (matcher.py).
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.policy.match import Match
from capd.enforcer.policy.variables import names_in

PATH: Final = "path"
QUERY: Final = "query"
BOTH: Final = frozenset({PATH, QUERY})
_KEYS: Final = {
    **dict.fromkeys(("principals", "runs", "labels", "protocols", "hosts", "ports", "addresses", "tls"), frozenset[str]()),
    **dict.fromkeys(("databases", "users", "methods", "commands", "effects", "resources"), frozenset[str]()),
    **dict.fromkeys(("text_regex", "facts"), frozenset[str]()),
    "paths": frozenset({PATH}),
    "path_regex": frozenset({PATH}),
    "query_regex": frozenset({QUERY}),
}
"""What a key of a match looks at; one that is not here may look at anything."""
_VARIABLES: Final = {
    "http.method": frozenset[str](),
    "http.body_truncated": frozenset[str](),
    "http.path": frozenset({PATH}),
    "http.query": frozenset({QUERY}),
}
"""The same of a condition's variables about HTTP; the others are of the connection, of the body, or of other protocols."""
_HTTP: Final = "http."


def looks_at(match: Match, when: str | None = None) -> frozenset[str]:
    """Give which of PATH and QUERY decide whether a match and a condition hold. Whether a path can be read is not meant."""
    names = frozenset[str]() if when is None else names_in(when)
    keys = [_KEYS.get(key, BOTH) for key in match.given]
    variables = [_VARIABLES.get(name, BOTH) for name in names if name.startswith(_HTTP)]
    return frozenset[str]().union(*keys, *variables)
