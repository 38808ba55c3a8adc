"""Counting one statement's answer against the limits of its decision.

What lives here: what is exceeded, and what has to be told of. What must not: protocols, clocks; time comes as an argument.

What cannot be counted is exceeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from capd.enforcer.limits.totals import Totals, key_of
from capd.enforcer.policy.limit import Limit

Limits = Sequence[tuple[str, Limit]]
"""Of a decision, by rule."""
PER_MINUTE: Final = "per_minute"
_OF_RUN: Final = (("run_rows", "rows"), ("run_bytes", "bytes"), ("export_rows", "rows"), ("export_bytes", "bytes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceeded:
    """A limit that was reached.

    Attributes:
        rule: whose.
        limit: its name, as in a policy.
        most: what it allows.
        counted: whether that could be counted.
    """

    rule: str
    limit: str
    most: int
    counted: bool = True

    @property
    def words(self) -> str:
        """Say it to a person."""
        if not self.counted:
            return f"{self.limit} of rule {self.rule} cannot be counted now"
        return f"more than {self.limit} {self.most} of rule {self.rule}"


def admitted(limits: Limits, totals: Totals | None, run: str, now: float) -> Exceeded | None:
    """Count one more statement of a run, and say why it may not be; None: it may.

    A run that has had all it may have says nothing more, so that it is not asked of the server in vain.
    """
    for rule, limit in limits:
        for name, _ in _OF_RUN[:2]:
            most = getattr(limit, name)
            total = None if most is None or totals is None else totals.add(key_of(run, rule, name), 0, now)
            if most is not None and (total is None or total >= most):
                return Exceeded(rule=rule, limit=name, most=most, counted=total is not None)
        most = limit.per_minute
        if most is not None and (totals is None or not totals.said(key_of(run, rule, PER_MINUTE), most, now)):
            return Exceeded(rule=rule, limit=PER_MINUTE, most=most, counted=totals is not None)
    return None


@dataclass(slots=True, kw_only=True)
class Meter:
    """Of one statement.

    Attributes:
        limits: of its decision.
        totals: of runs; None: they cannot be counted.
        run: whose it is.
        alarms: limits for exports that were reached with what was counted here, to be told once.
    """

    limits: Limits
    totals: Totals | None
    run: str
    alarms: list[Exceeded] = field(default_factory=list)
    _rows: int = 0
    _bytes: int = 0

    @property
    def seconds(self) -> int | None:
        """Give how long it may take."""
        return min((limit.seconds for _, limit in self.limits if limit.seconds is not None), default=None)

    def count(self, *, rows: int, size: int, now: float) -> Exceeded | None:
        """Count more of the answer; gives the first limit that it is beyond."""
        self._rows += rows
        self._bytes += size
        found: Exceeded | None = None
        for rule, limit in self.limits:
            found = found or self._own(rule, limit)
            for name, of in _OF_RUN:
                most = getattr(limit, name)
                amount = rows if of == "rows" else size
                if most is not None and amount:
                    found = self._of_run(rule, name, most, amount, now) or found
        return found

    def _own(self, rule: str, limit: Limit) -> Exceeded | None:
        if limit.rows is not None and self._rows > limit.rows:
            return Exceeded(rule=rule, limit="rows", most=limit.rows)
        if limit.bytes is not None and self._bytes > limit.bytes:
            return Exceeded(rule=rule, limit="bytes", most=limit.bytes)
        return None

    def _of_run(self, rule: str, name: str, most: int, amount: int, now: float) -> Exceeded | None:
        total = None if self.totals is None else self.totals.add(key_of(self.run, rule, name), amount, now)
        exceeded = Exceeded(rule=rule, limit=name, most=most, counted=total is not None)
        if not name.startswith("export_"):
            return exceeded if total is None or total > most else None
        if total is None or total - amount <= most < total:
            self.alarms.append(exceeded)
        return None
