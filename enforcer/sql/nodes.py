"""Which kinds of nodes of the parser's tree are understood, and which of their parts.

What lives here: the tables. What must not: walking the tree, importing the parser.

A kind that is not here, or a part that is not here, makes a statement incomplete: a later version of the parser may know more
of SQL than whoever wrote this. Expressions have no effects but by their calls (calls.py) and the queries within them; so of
them only the kind counts. For statements and what stands in FROM each part counts.
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.sql.lexeme import Dialect, words

_QUERY: Final = frozenset({"with_", "order", "limit", "offset", "locks"})
PARTS: Final = {
    "Select": _QUERY
    | {
        "expressions",
        "distinct",
        "into",
        "from_",
        "joins",
        "laterals",
        "where",
        "group",
        "having",
        "windows",
        "kind",
        "operation_modifiers",
    },
    "Union": _QUERY | {"this", "expression", "distinct", "by_name"},
    "Except": _QUERY | {"this", "expression", "distinct", "by_name"},
    "Intersect": _QUERY | {"this", "expression", "distinct", "by_name"},
    "Subquery": _QUERY | {"this", "alias", "joins", "laterals", "sample"},
    "Values": _QUERY | {"expressions", "alias", "joins", "laterals"},
    "Insert": frozenset({"with_", "this", "expression", "conflict", "returning", "default", "ignore"}),
    "Update": frozenset({"with_", "this", "expressions", "from_", "where", "returning", "order", "limit"}),
    "Delete": frozenset({"with_", "this", "using", "where", "returning", "order", "limit", "tables"}),
    "Merge": frozenset({"with_", "this", "using", "on", "whens", "returning"}),
    "When": frozenset({"matched", "source", "condition", "then"}),
    "Table": frozenset({"this", "alias", "db", "joins", "laterals", "ordinality", "only", "rows_from", "sample"}),
    "Join": frozenset({"this", "on", "side", "kind", "using", "method", "expressions"}),
    "From": frozenset({"this"}),
    "Lateral": frozenset({"this", "alias", "ordinality", "joins"}),
    "Unnest": frozenset({"expressions", "alias", "offset", "joins"}),
    "CTE": frozenset({"this", "alias", "materialized"}),
    "With": frozenset({"expressions", "recursive", "search"}),
    "Into": frozenset({"this", "temporary", "unlogged"}),
    "Lock": frozenset({"update", "expressions", "wait", "key"}),
    "OnConflict": frozenset({"duplicate", "expressions", "action", "conflict_keys", "constraint", "where", "index_predicate"}),
    "Returning": frozenset({"expressions"}),
}
"""Parts of statements, and of what stands in FROM."""
_EXPRESSIONS: Final = words(
    """
    Add Alias Aliases All And Any Array ArrayContainsAll AtTimeZone Between BitString BitwiseAnd BitwiseLeftShift
    BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor Boolean Bracket ByteString Case Cast Collate Column
    ColumnConstraint ColumnDef Cube DataType DataTypeParam DefaultColumnConstraint Distance Distinct Div Dot EQ
    Escape Exists Fetch Filter FormatJson GT GTE Glob Group GroupingSets Having HexString ILike Identifier If In
    IntDiv Interval IntervalSpan Introducer Is IsNotDistinctFrom JSON JSONExtract JSONKeyValue JSONPath Kwarg LT
    LTE Lambda Like Limit LimitOptions Literal Mod Mul NEQ NationalString Neg Not NotNullColumnConstraint Null
    NullSafeEQ NullSafeNEQ ObjectIdentifier Offset Opclass Or Order Ordered Overlaps Parameter Paren
    PathColumnConstraint Placeholder PropertyEQ PseudoType RecursiveWithSearch RegexpILike RegexpLike Rollup
    Schema SessionParameter SimilarTo Slice Star StraightJoin Sub TableAlias TableSample Tuple Var Variadic Whens
    Where Window WindowSpec WithinGroup XMLElement XMLNamespace Xor
    """
)
ALLOWED: Final = {
    Dialect.POSTGRESQL: _EXPRESSIONS - {"Lambda", "SessionParameter", "Introducer", "StraightJoin"},
    Dialect.MYSQL: _EXPRESSIONS - {"PseudoType", "Lambda"},
}
"""Kinds of expressions. A function, of whichever kind, is judged by its name."""
