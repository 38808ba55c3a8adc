"""Where the columns of a view come from, as PostgreSQL stored it: `pg_rewrite.ev_action`, a pg_node_tree.

What lives here: finding the outermost list of targets of a stored query, and what each of them says of its origin.
What must not: the rest of a query.

The form is the server's own (src/backend/nodes/outfuncs.c) and changes between versions: nodes are `{NAME :field value ...}`,
lists `(...)`, and a backslash stands before each character of a name that would mean something. What is not found, or is found
more than once, is not known; nothing is guessed.
"""

from __future__ import annotations

import re
from typing import Final

from capd.enforcer.masking.rows.catalogue import Origin

TREE_CHARACTERS_MAX: Final = 8_388_608
"""Of one view; a thousand columns take less."""
_TOKEN: Final = re.compile(r"\\.|[{}()]|\"", re.DOTALL)
_TARGETS: Final = " :targetList ("
_ENTRY: Final = re.compile(
    r"TARGETENTRY :expr .* :resno (\d+) :resname (?:\\.|[^ \\])+ :ressortgroupref \d+"
    r" :resorigtbl (\d+) :resorigcol (-?\d+) :resjunk (true|false)",
    re.DOTALL,
)


class UnreadableTreeError(Exception):
    """A stored query is not of the form that is known."""


def origins(tree: str) -> tuple[Origin | None, ...]:
    """Give for each column of a view where it comes from; None: it is computed.

    Args:
        tree: `ev_action` as text.

    Raises:
        UnreadableTreeError: it cannot be read.
    """
    if len(tree) > TREE_CHARACTERS_MAX or not tree.startswith("({QUERY "):
        raise UnreadableTreeError
    found: list[Origin | None] = []
    for text in _children(tree):
        entry = _ENTRY.fullmatch(text)
        if entry is None:
            raise UnreadableTreeError
        number, relation, column, junk = int(entry[1]), int(entry[2]), int(entry[3]), entry[4] == "true"
        if junk:
            continue
        if number != len(found) + 1:
            raise UnreadableTreeError
        found.append(Origin(relation, column) if relation and column > 0 else None)
    return tuple(found)


def _children(tree: str) -> list[str]:
    """Give the text of each node in the target list of the outermost query, without its braces."""
    depth = 0
    entry = listed = -1
    lists = 0
    found: list[str] = []
    for token in _TOKEN.finditer(tree):
        sign = token[0]
        if sign in {"{", "("}:
            depth += 1
            # The outermost list and its query are two deep; the list of targets begins a third.
            if sign == "(" and depth == _LIST_DEPTH and tree.endswith(_TARGETS, 0, token.end()):
                lists += 1
                listed = depth
            elif sign == "{" and listed > 0 and depth == listed + 1:
                entry = token.end()
        elif sign in {"}", ")"}:
            if sign == "}" and listed > 0 and depth == listed + 1:
                found.append(tree[entry : token.start()])
            if depth == listed:
                listed = -1
            depth -= 1
    if lists != 1 or depth:
        raise UnreadableTreeError
    return found


_LIST_DEPTH: Final = 3
