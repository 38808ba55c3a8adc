"""A message of SQL as it is asked about, whichever database it goes to.

What lives here: from what a message does (enforcer/sql) to the statement of a question. What must not: protocols, deciding.
"""

from __future__ import annotations

from collections.abc import Mapping

from capd.enforcer.proxy.question import Statement
from capd.enforcer.sql.message import Message


def sql_statement(
    message: Message,
    sql: bytes,
    encoding: str,
    content: bytes,
    *,
    shown: Mapping[str, object],
    estimable: bool = False,
    prepares: bool = False,
    approved: str = "",
) -> Statement:
    """Give the statement of a question.

    Args:
        message: what it does.
        sql: its text.
        encoding: that its bytes are in.
        content: every byte that decides what it does.
        shown: to a person beside it.
        estimable: whether how much it is about can be found out first.
        prepares: whether it is only prepared, and asked about again before it is run.
        approved: as in Statement.
    """
    return Statement(
        operation=message.command,
        content=content,
        text=sql_text(sql, encoding),
        effects=message.effects,
        resources=message.resources,
        facts=sql_facts(message),
        problems=message.problems,
        shape=message.shape,
        shown=shown,
        estimable=estimable,
        # Of what capd does not see through, nobody knows that it will be the same.
        prepares=prepares and message.complete,
        approved=approved,
    )


def sql_facts(message: Message) -> Mapping[str, bool | None]:
    """Give what policies call facts of a message (policy/protocol.py)."""
    return {} if message.has_where is None else {"sql.has_where": message.has_where}


def sql_text(sql: bytes, encoding: str) -> str | None:
    """Give a text as rules look at it; None: it is none."""
    try:
        return sql.decode(encoding)
    except UnicodeDecodeError:
        return None
