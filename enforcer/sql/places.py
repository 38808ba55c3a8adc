"""Words before a bracket that call a function in some places of a statement, and in others are a part of its grammar.

What lives here: telling these places apart (PostgreSQL's). What must not: words that are never calls, or always (calls.py).
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.sql.lexeme import Kind, words
from capd.enforcer.sql.statement import Statement

_BY: Final = "by"
_CLAUSES: Final = words("select from where having window order partition values on set returning by")
"""Of these, the one before an item says what it is an item of."""
_WHEN: Final = "when"
_MERGES: Final = frozenset({"merge", "with"})
_ACTIONS: Final = frozenset({"set", "reset"})
_ITEMS: Final = frozenset({"rollup", "cube"})
_INSERT: Final = "insert"
PLACED: Final = frozenset({*_ACTIONS, *_ITEMS, _INSERT})
"""Words that can be functions, and are none in some places."""
_NOWHERE: Final = -1


class Places:
    """Of one statement, found in one pass: it may have thousands of such words.

    Of each piece it is noted in which brackets it stands, and which words stand before it there.
    """

    def __init__(self, statement: Statement) -> None:
        self._lexemes, self._merges = statement.lexemes, statement.lexemes[0].text in _MERGES
        self._opened: list[int] = []
        self._clause: list[int] = []
        self._when: list[int] = []
        around: list[tuple[int, int, int, int]] = []
        opened = clause = when = end = _NOWHERE
        for at, one in enumerate(statement.lexemes):
            if at == end:
                opened, clause, when, end = around.pop()
            self._opened.append(opened)
            self._clause.append(clause)
            self._when.append(when)
            if at in statement.closing:
                around.append((opened, clause, when, end))
                opened, clause, when, end = at, _NOWHERE, _NOWHERE, statement.closing[at]
            elif one.kind is Kind.WORD:
                clause = at if one.text in _CLAUSES else clause
                when = at if one.text == _WHEN else when

    def no_call(self, at: int, *, definition: bool) -> bool:
        """Say whether one of PLACED before a bracket is no function.

        Args:
            at: where it stands.
            definition: the statement is the definition of a table.
        """
        word = self._lexemes[at].text
        if word in _ACTIONS:
            return definition and self._acts(at)
        return self._inserts(at) if word == _INSERT else self._groups(at)

    def _groups(self, at: int) -> bool:
        """Say whether ROLLUP or CUBE is an item of GROUP BY, where they are no functions (documentation 7.2.4)."""
        opened = self._opened[at]
        if opened >= 0 and [one.text for one in self._lexemes[max(0, opened - 2) : opened]] == ["grouping", "sets"]:
            return self._lexemes[at - 1].text in {"(", ","} and self._groups(opened - 2)
        if not at or self._lexemes[at - 1].text not in {_BY, "distinct", "all", ","}:
            return False
        clause = self._clause[at]
        return clause > 0 and [one.text for one in self._lexemes[clause - 1 : clause + 1]] == ["group", _BY]

    def _inserts(self, at: int) -> bool:
        """Say whether INSERT is what MERGE does: after WHEN NOT MATCHED ... THEN, outside of all brackets."""
        if not self._merges or self._lexemes[at - 1].text != "then" or self._opened[at] >= 0:
            return False
        when = self._when[at]
        return when >= 0 and [one.text for one in self._lexemes[when + 1 : when + 3]] == ["not", "matched"]

    def _acts(self, at: int) -> bool:
        """Say whether SET or RESET begins an action of ALTER: there, outside of brackets, nothing else follows a comma."""
        return self._opened[at] < 0 and (not at or self._lexemes[at - 1].text == ",")
