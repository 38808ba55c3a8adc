"""Statement by statement: what the probes recorded of a database's session, held against what the enforcer decided. Pure rules.

What lives here: which messages are decided about, pairing, and where a decision stands. What must not: records' form, when it
is looked at.

The enforcer decides about one thing at a time, in the order in which it was said, and a decoder numbers what belongs together
as one exchange. So whatever was run has a decision with the same text, behind those of what was run before it. There may be
more of them than that: of a statement that is prepared, then run, and run again. Both sides know a statement by a hash of its
text; where the text is not plain ASCII, which two readers may decode differently, or is not there, any decision will do.

What is no disagreement: what was answered with an error, or not at all, may never have been read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from capd.daemon.witness.matching import AGE_NS
from capd.daemon.witness.state import Flow, Pending, Seen, Spoken
from capd.enforcer.decision_words import said_sha256
from capd.recording.record import Value

WAITING_MAX: Final = 4_096
"""Statements, or decisions, of one connection that wait for the other; clients that pipeline stay below."""
UNPLACED_MAX: Final = 4_096
"""Statements of one connection that may yet get a decision to stand beside them: half a second of the fastest."""
UNLINKED_MAX: Final = 1_024
"""The same of a connection that the enforcer did not tell of so far, and may never tell of."""
HELD: Final = "held"

_ASKED: Final[Mapping[str, frozenset[str]]] = {
    "postgresql": frozenset({"Query", "Parse", "Bind", "FunctionCall"}),
    "mysql": frozenset({"COM_QUERY", "COM_STMT_PREPARE", "COM_STMT_EXECUTE", "COM_INIT_DB", "COM_FIELD_LIST"}),
    "redis": frozenset({"command"}),
}
"""Messages of clients that are decided about, by protocol, as decoders call both."""
_BY_SUMMARY: Final = frozenset({"Bind", "command"})
"""A Bind has no text: its summary is that of the statement, if that was seen. Of Redis it is the command as it is typed."""
_OF_SESSION: Final = frozenset({"AUTH", "HELLO", "SELECT", "RESET", "QUIT"})
"""Commands of Redis about which another question is asked: who the session is of, and where; or none."""
_RAN: Final[Mapping[str, frozenset[str]]] = {
    "postgresql": frozenset(
        {"CommandComplete", "rows", "DataRow", "RowDescription", "ParseComplete", "BindComplete", "EmptyQueryResponse"}
        | {"CopyInResponse", "CopyOutResponse", "CopyBothResponse", "FunctionCallResponse", "PortalSuspended"}
    ),
    "mysql": frozenset(
        {"OK", "EOF", "ColumnCount", "ColumnDefinitions", "ColumnDefinition", "rows", "Row", "COM_STMT_PREPARE_OK"}
        | {"LocalInfileRequest"}
    ),
    "redis": frozenset({"reply"}),
}
"""Answers which show that a server has taken what it was asked."""


def spoken(body: Mapping[str, Value]) -> Spoken | None:
    """Give the statement of a message's record; None: it is none that the enforcer decides about."""
    exchange = exchange_of(body)
    fields = body.get("fields")
    told: Mapping[str, Value] = fields if isinstance(fields, Mapping) else {}
    if exchange is None or (body.get("type") == "command" and str(told.get("command")) in _OF_SESSION):
        return None
    summed = body.get("type") in _BY_SUMMARY
    text = body.get("summary") if summed else told.get("sql")
    known = isinstance(text, str) and (text or not summed) and body.get("incomplete") is None and not told.get("omitted")
    return Spoken(exchange=exchange, said=said_sha256(text) if known and isinstance(text, str) else None)


def exchange_of(body: Mapping[str, Value]) -> int | None:
    """Give the exchange of such a message, whatever of it was left out; None: it is none."""
    return _exchange(body, _ASKED)


def ran(body: Mapping[str, Value]) -> int | None:
    """Give the exchange of which a message's record shows that it was run; None: it shows nothing."""
    return _exchange(body, _RAN)


def _exchange(body: Mapping[str, Value], kinds: Mapping[str, frozenset[str]]) -> int | None:
    exchange = body.get("exchange")
    known = str(body.get("type")) in kinds.get(str(body.get("protocol")), frozenset())
    return exchange if known and isinstance(exchange, int) else None


def begin(seen: Seen, found: Spoken) -> bool:
    """Take a statement; say whether it is one more: of an exchange the first counts."""
    if found.exchange <= seen.begun:
        return False
    seen.begun = found.exchange
    seen.spoken.append(found)
    if not seen.unplaceable:
        seen.unplaced.append(found)
    return True


def answered(seen: Seen, exchange: int, time_ns: int) -> None:
    """Take that an exchange was run. Answers have the order of statements: those before it that have none were not run."""
    for place, one in enumerate(seen.spoken):
        if one.exchange == exchange:
            one.ran_ns = one.ran_ns or time_ns
            seen.spoken[:place] = [other for other in seen.spoken[:place] if other.ran_ns is not None]
            return


def pair(seen: Seen, flow: Flow) -> None:
    """Take what belongs together out of both."""
    while seen.spoken and seen.spoken[0].ran_ns is not None:
        found = next((place for place, told in enumerate(flow.told) if _alike(seen.spoken[0].said, told.said)), None)
        if found is None:
            return
        del flow.told[: found + 1], seen.spoken[0]


def drop_old(seen: Seen, flow: Flow) -> None:
    """Forget decisions that nothing was said for by the time at which the probes told of later things."""
    if not seen.spoken:
        flow.told = [told for told in flow.told if told.at_ns + AGE_NS > seen.last_ns]


def undecided(seen: Seen, flow: Flow, *, heard_ns: int) -> str | None:
    """Say which statement was run without a decision; None: none, or not yet. Arguments as of requests.undecided."""
    first = seen.spoken[0] if seen.spoken else None
    if flow.relayed or flow.lost or first is None or first.ran_ns is None or heard_ns < first.ran_ns + AGE_NS:
        return None
    return f"undecided statement: number {first.exchange} was run, and the enforcer has no decision about it"


def lose_place(seen: Seen) -> None:
    """Place no further decisions: one was dropped, or what it is about, so that the next would stand beside another's words."""
    seen.unplaced, seen.unplaceable = [], True


def place(seen: Seen, pending: Sequence[Pending]) -> None:
    """Find the statements that decisions stand beside."""
    for one in () if seen.unplaceable else pending:
        if not one.statement or one.exchange is not None:
            continue
        found = next((at for at, spoken in enumerate(seen.unplaced) if _alike(spoken.said, one.said)), None)
        if found is None:
            return
        one.exchange = seen.unplaced[found].exchange
        # What waits for a person is decided once more.
        del seen.unplaced[: found if one.facts.get("outcome") == HELD else found + 1]


def waits(pending: Pending, seen: Seen) -> bool:
    """Say whether the message that a decision is about is not stored yet."""
    if pending.exchange is None:
        return pending.statement and not seen.unplaceable
    return pending.exchange > seen.stored if pending.statement else pending.exchange >= seen.requests


def _alike(one: bytes | None, other: bytes | None) -> bool:
    return one is None or other is None or one == other
