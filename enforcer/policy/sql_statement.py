"""A statement of SQL as an action.

What lives here: the command tag, and the few statements whose effects are certain without a parser. What must not: a parser.

capd does not know yet what a statement does: all but statements that steer the transaction, alone and without anything else,
are incomplete. So a rule that denies an effect stops every statement that could have it, and none is allowed but by a rule
that accepts what is incomplete. It is better to be told so than to be told a guess.
"""

from __future__ import annotations

import re
from typing import Final

from capd.enforcer.policy.action import Action, Principal, Run, Target
from capd.enforcer.policy.linear_regex import is_unicode
from capd.enforcer.policy.protocol import POSTGRESQL

TEXT_CHARACTERS_MAX: Final = 65_536
"""Of what was said, so much is judged; there is hardly a statement of more that a person wrote."""
NO_PARSER: Final = "capd does not know yet what a statement does"
_CERTAIN: Final = re.compile(
    r"\s*(?:(BEGIN|COMMIT|ROLLBACK|ABORT|END|START)(?:\s+(?:TRANSACTION|WORK))?)\s*;?\s*", re.IGNORECASE | re.ASCII
)
_WORD: Final = re.compile(r"\s*([A-Za-z]{2,32})(?![A-Za-z0-9_$])", re.ASCII)
UNKNOWN_COMMAND: Final = "unknown"


def sql_action(text: str, *, principal: Principal | None, run: Run, target: Target, problems: tuple[str, ...] = ()) -> Action:
    """Give the action of a statement, or of several in one message.

    Args:
        text: as it was sent.
        principal: whom the run acts for.
        run: which.
        target: where it goes.
        problems: why the text is not all that was sent.
    """
    found = list(problems)
    if len(text) > TEXT_CHARACTERS_MAX:
        found.append(f"the statement is longer than {TEXT_CHARACTERS_MAX} characters")
    if not is_unicode(text) or "\0" in text:
        found.append("the statement is no text")
    certain = _CERTAIN.fullmatch(text) if not found else None
    if certain is None:
        found.append(NO_PARSER)
    word = _WORD.match(text[:TEXT_CHARACTERS_MAX])
    return Action(
        principal=principal,
        run=run,
        target=target,
        protocol=POSTGRESQL,
        operation=word[1].upper() if word else UNKNOWN_COMMAND,
        effects=None if certain is None else frozenset({"session"}),
        resources=None if certain is None else (),
        text=text[:TEXT_CHARACTERS_MAX] if is_unicode(text) else None,
        problems=tuple(found),
    )
