"""Which expressions certainly carry nothing of a hidden column, though the server does not say where they come from.

What lives here: a short list, and one rule: in a plain SELECT, an expression may name only columns that are known and not
hidden, words of the grammar, and functions of the server's own that only give a value. What must not: deciding on a statement.

A plain SELECT is one whose FROM has relations by their names and nothing else (select_list.py): a name in it is a column of one
of these, or one of these as a whole, and can be nothing that was renamed on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.masking.rows.select_list import Item, word
from capd.enforcer.sql.functions import Catalogue, catalogue
from capd.enforcer.sql.lexeme import LITERALS, Dialect, Kind, Lexeme, words

_CONSTANTS: Final = words("true false null current_date current_timestamp current_time localtimestamp localtime")
_GRAMMAR: Final = words(
    """
    case when then else end and or not null true false is distinct from in between like ilike similar to escape as filter
    where over partition by order asc desc nulls first last rows range groups preceding following unbounded current row
    interval at time zone any all some array cast extract coalesce nullif greatest least isnull notnull symmetric
    substring position trim both leading trailing overlay placing for normalize within group
    current_date current_timestamp current_time localtimestamp localtime
    year month day hour minute second quarter week epoch dow doy
    signed unsigned binary datetime div mod xor regexp rlike second microsecond week using separator
    int integer int2 int4 int8 smallint bigint numeric decimal real float float4 float8 double precision boolean bool text
    varchar char character varying date timestamp timestamptz with without uuid json jsonb bytea
    """
)
"""Words of expressions. One that is a column's name, too, was looked for among hidden columns and relations before."""
_GOES_ON: Final = words(
    """
    case when then else and or not is distinct from in between like ilike similar to escape as filter where over partition by
    order within group at placing for both leading trailing div mod xor regexp rlike binary using separator
    """
)
"""Words behind which an expression goes on."""
_COUNT: Final = ("count", "(", "*", ")")
_COUNT_PIECES: Final = len(_COUNT)
_OWN_SCHEMA: Final = "pg_catalog"


_OF_ROWS: Final = words(
    """
    any_out anycompatible_out anycompatiblenonarray_out anyelement_out anynonarray_out any_value array_agg concat hash_record
    json json_agg json_agg_strict json_array json_arrayagg json_build_array json_build_object json_scalar jsonb_agg
    jsonb_agg_strict jsonb_build_array jsonb_build_object num_nonnulls num_nulls pg_column_compression pg_column_size
    quote_literal quote_nullable record_out record_send row_to_json to_json to_jsonb
    """
)
"""Functions of the server that take a row as a whole: `a.to_json` calls one where there is no column of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is known of the relations of a plain SELECT, all names in lower case.

    Attributes:
        hidden: names of hidden columns, and of what is shown of them under another name.
        known: names of all other columns.
        relations: names and aliases of the relations.
    """

    hidden: frozenset[str]
    known: frozenset[str]
    relations: frozenset[str]


def takes_row(lexemes: Sequence[Lexeme], at: int, dialect: Dialect) -> bool:
    """Say whether a name behind a dot may be a function that is given what stands before the dot.

    It is one where the relation has no column of that name: that another one has counts for nothing.
    """
    behind_dot = at > 0 and lexemes[at - 1].text == "." and lexemes[at].kind in {Kind.WORD, Kind.NAME}
    return behind_dot and dialect is Dialect.POSTGRESQL and lexemes[at].text in _OF_ROWS


def is_certain(item: Item) -> bool:
    """Say whether an item is a constant, or `count(*)`: harmless in any statement."""
    lexemes = item.lexemes
    if len(lexemes) == 1:
        return lexemes[0].kind in LITERALS or word(lexemes[0]) in _CONSTANTS
    return is_count(lexemes)


def is_count(lexemes: Sequence[Lexeme]) -> bool:
    """Say whether pieces are `count(*)`."""
    return len(lexemes) == _COUNT_PIECES and tuple(one.text.lower() for one in lexemes) == _COUNT and word(lexemes[0]) != ""


def is_harmless(item: Item, around: Surroundings) -> bool:
    """Say whether an item of a plain SELECT can carry nothing that is hidden."""
    known, places = catalogue(item.dialect), range(len(item.lexemes))
    if any(takes_row(item.lexemes, at, item.dialect) for at in places) or not _is_whole(item.lexemes, around):
        return False
    return all(_is_harmless(item.lexemes, at, around, known) for at in places)


def _is_whole(lexemes: Sequence[Lexeme], around: Surroundings) -> bool:
    """Say whether an expression may end where it does: else the list went on behind it, and nobody looked at that."""
    last = lexemes[-1]
    if last.kind is Kind.WORD and last.text.lower() not in around.known:
        return last.text.lower() not in _GOES_ON
    return _ends_operand(last)


def _is_harmless(lexemes: Sequence[Lexeme], at: int, around: Surroundings, known: Catalogue) -> bool:
    one = lexemes[at]
    if one.kind in LITERALS:
        return True
    if one.kind is Kind.SIGN or one.kind is Kind.OPERATOR:
        before = lexemes[at - 1] if at else None
        if one.text == "*":
            return before is not None and (_ends_operand(before) or is_count(lexemes[at - 2 : at + 2])) and before.text != "."
        return True
    if one.kind not in {Kind.WORD, Kind.NAME}:
        return False
    return _is_harmless_name(lexemes, at, around, known)


def _is_harmless_name(lexemes: Sequence[Lexeme], at: int, around: Surroundings, known: Catalogue) -> bool:
    one, name = lexemes[at], lexemes[at].text.lower()
    following = lexemes[at + 1].text if at + 1 < len(lexemes) else ""
    plain = one.kind is Kind.WORD
    after_dot = at > 0 and lexemes[at - 1].text == "."
    if following == ".":
        # The last name of a path decides; before it stand a relation, its schema, or the server's own.
        return True
    if following == "(":
        own = not after_dot or lexemes[at - 2].text == _OWN_SCHEMA
        pure = name in known.pure or known.effects.get(name) == frozenset()
        return (own and pure) or (plain and not after_dot and name in _GRAMMAR)
    if name in around.hidden or name in around.relations:
        return False
    if name in around.known:
        return True
    return plain and not after_dot and name in _GRAMMAR


def _ends_operand(one: Lexeme) -> bool:
    return one.kind in LITERALS or one.kind <= Kind.NAME or one.text in {")", "]"}
