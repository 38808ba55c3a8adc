"""A statement of SQL, or several in one message, as an action.

What lives here: from what is known of a message (enforcer/sql) to the facts that rules ask for. What must not: reading SQL.

What capd is not sure of makes the action incomplete. So a rule that denies an effect stops every statement that could have it,
and none is allowed but by a rule that accepts what is incomplete.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from capd.enforcer.policy.action import Action, Principal, Resource, Run, Target
from capd.enforcer.policy.linear_regex import is_unicode
from capd.enforcer.policy.protocol import MYSQL, POSTGRESQL
from capd.enforcer.sql.lexeme import Dialect
from capd.enforcer.sql.message import Message, Reader
from capd.enforcer.sql.session import Session, new_session

TEXT_CHARACTERS_MAX: Final = 65_536
"""Of what was said, so much is judged; there is hardly a statement of more that a person wrote."""
DIALECTS: Final = {POSTGRESQL: Dialect.POSTGRESQL, MYSQL: Dialect.MYSQL}
"""What the text of statements is written in."""
NO_TEXT: Final = "the statement is no text"
_READER: Final = Reader()
"""Remembers what statements do, which is the same for everybody."""


def read_sql(text: str, session: Session) -> Message | None:
    """Give what a text does in a session; None if it is no text.

    Args:
        text: as it was sent, decoded.
        session: in which it is said.
    """
    if not is_unicode(text):
        return None
    reading = session.reading
    if reading.encoding is not None:
        # It is decoded already: what its bytes were does not count any more.
        session = replace(session, reading=replace(reading, encoding="utf-8"))
    return _READER.read(text.encode(), session)


def sql_action(
    text: str,
    *,
    principal: Principal | None,
    run: Run,
    target: Target,
    protocol: str = POSTGRESQL,
    login: tuple[str | None, str | None] = (None, None),
    problems: tuple[str, ...] = (),
    read: Message | None = None,
) -> Action:
    """Give the action of a statement, or of several in one message.

    Args:
        text: as it was sent.
        principal: whom the run acts for.
        run: which.
        target: where it goes.
        protocol: a key of DIALECTS.
        login: database and user of its session.
        problems: why the text is not all that was sent.
        read: what it does, where its session is known; None: it is read as in a new session, whose search path is not known.
    """
    found = list(problems)
    if len(text) > TEXT_CHARACTERS_MAX:
        found.append(f"the statement is longer than {TEXT_CHARACTERS_MAX} characters")
    read = read or read_sql(text, new_session(DIALECTS[protocol]))
    if read is None:
        read = Message(command="unknown", shape="", effects=None, resources=None, problems=(NO_TEXT,))
    known = read.resources
    return Action(
        principal=principal,
        run=run,
        target=target,
        protocol=protocol,
        operation=read.command,
        database=login[0],
        user=login[1],
        effects=read.effects,
        resources=None if known is None else tuple(Resource(name=name, access=access) for name, access in known),
        text=text[:TEXT_CHARACTERS_MAX] if is_unicode(text) else None,
        facts={} if read.has_where is None else {"sql.has_where": read.has_where},
        problems=tuple(dict.fromkeys((*found, *read.problems))),
    )
