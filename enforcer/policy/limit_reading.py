"""Reads the options of a rule that limits.

What lives here: their keys, and what is wrong with them. What must not: other effects (rule_reading.py).
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.policy.fields import Key, flag, integer
from capd.enforcer.policy.problem import Place, Problems
from capd.enforcer.policy.protocol import PROTOCOLS
from capd.enforcer.policy.rule import Rule

LIMIT_MAX: Final = 1 << 53
"""Rows or bytes: what numbers of JSON can say without loss."""
SECONDS_MAX: Final = 86_400
PER_MINUTE_MAX: Final = 1_000_000
_COUNT: Final = integer(1, LIMIT_MAX)
LIMIT_KEYS: Final[dict[str, Key]] = {
    "rows": Key(read=_COUNT, form="number", words="rows, or values, of the answer to one statement"),
    "bytes": Key(read=_COUNT, form="number", words="bytes of the answer to one statement"),
    "run_rows": Key(read=_COUNT, form="number", words="rows of all answers to a run under this rule"),
    "run_bytes": Key(read=_COUNT, form="number", words="bytes of all answers to a run under this rule"),
    "seconds": Key(read=integer(1, SECONDS_MAX), form=f"1 to {SECONDS_MAX}", words="how long a statement may take"),
    "read_only": Key(
        read=flag, form="`true`, `false`", words="nothing but what reads: effects `select` and `session`; `false`"
    ),
    "per_minute": Key(
        read=integer(1, PER_MINUTE_MAX), form=f"1 to {PER_MINUTE_MAX}", words="statements of a run in a minute, under this rule"
    ),
    "export_rows": Key(read=_COUNT, form="number", words="as `run_rows`, but it is only told of"),
    "export_bytes": Key(read=_COUNT, form="number", words="as `run_bytes`, but it is only told of"),
}


def check_limit(rule: Rule, place: Place, problems: Problems) -> None:
    """Note why a rule that limits could not do what it says."""
    if rule.limit is None or not rule.limit.given:
        problems.add(place, "a rule that limits says what, in `limit`")
        return
    for name in sorted(rule.match.of_protocols):
        unfit = sorted(rule.limit.given - PROTOCOLS[name].limits)
        if unfit:
            fit = ", ".join(sorted(one for one, protocol in PROTOCOLS.items() if rule.limit.given <= protocol.limits))
            words = f"capd cannot limit {', '.join(unfit)} of {name}; say `protocols` in `match`: {fit or 'none'}"
            problems.add(place, words)
            return
