"""The parser, with a limit to what it does.

What lives here: sqlglot, made to stop. What must not: what its trees mean.

sqlglot tries a text as one thing, and if that fails as another, also within what it tries: of some texts of two hundred bytes
(types in types) it makes 2^30 attempts. So the steps that it takes are counted, which works only as long as it is Python: a
compiled one is not used.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from capd.enforcer.sql.lexeme import Dialect

if TYPE_CHECKING:
    from sqlglot import exp

STEPS_PER_WORD_MAX: Final = 12
"""Of 40,000 statements of PostgreSQL's regression tests, none takes more than six."""
STEPS_FREE: Final = 2_000
_PARSERS: Final = {Dialect.POSTGRESQL: "postgres", Dialect.MYSQL: "mysql"}


class TooManyStepsError(Exception):
    """The parser tries too much."""


@cache
def sqlglot() -> Any:  # noqa: ANN401 - a module
    """Give the module."""
    import sqlglot as module  # noqa: PLC0415 - a third of a second that only those pay who read SQL

    # It warns of what it does not parse; that is in the result.
    logging.getLogger("sqlglot").addHandler(logging.NullHandler())
    logging.getLogger("sqlglot").propagate = False
    return module


@cache
def _bounded(dialect: Dialect) -> tuple[Any, Any]:
    """Give the dialect, and a class of parser that counts its steps."""
    of = sqlglot().Dialect.get_or_raise(_PARSERS[dialect])
    if not sqlglot().parser.__file__.endswith(".py"):
        raise TooManyStepsError("the parser is compiled: its steps cannot be counted")
    of.INDEX_OFFSET = 0  # for others it would look through all that is before an index, again for each: `a[1].b[1].c[1]`

    class Bounded(of.parser_class):  # type: ignore[misc, name-defined] # known at run time only
        steps = 0

        def _advance(self, times: int = 1) -> None:
            self.steps -= 1
            if self.steps < 0:
                raise TooManyStepsError
            super()._advance(times)

    return of, Bounded


def parsed(text: str, dialect: Dialect) -> exp.Expression | None:
    """Give the tree of a text; None: it is no single statement.

    Raises:
        Exception: whatever a parser of 20,000 lines raises where it does not understand; TooManyStepsError.
    """
    of, bounded = _bounded(dialect)
    words = of.tokenize(text)
    parser = bounded(dialect=of, error_level=sqlglot().ErrorLevel.IMMEDIATE)
    parser.steps = STEPS_FREE + STEPS_PER_WORD_MAX * len(words)
    found = parser.parse(words, text)
    return found[0] if len(found) == 1 else None
