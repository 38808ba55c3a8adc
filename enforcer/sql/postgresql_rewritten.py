"""What the parser is shown where PostgreSQL has what it does not know.

What lives here: these places, each with what stands there instead. What must not: what a statement does.

None of what goes has effects of its own: that the row is a cursor's, by which operator rows are sorted, of which type a literal
is, which part of a column is written. What can have effects within it is found all the same: calls among the pieces (calls.py),
and a query that is not shown makes pieces and tree disagree (agreement.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from capd.enforcer.sql.functions import catalogue
from capd.enforcer.sql.lexeme import LITERALS, Dialect, Kind
from capd.enforcer.sql.statement import Statement

CALL: Final = "capd_call"
"""Stands for functions of which the parser has a grammar of its own, which is not the server's."""
_OWN_SCHEMA: Final = "pg_catalog"
_OPERATORS: Final = frozenset({"*", "=", "<", ">", "<=", ">=", "<>", "!=", "+", "-", "/", "=>"})
_ANY_OPERATOR: Final = "+"
"""Of other operators only the place counts: PostgreSQL has any number of them, before an operand or between two, as `+`."""
_OVERRIDING: Final = frozenset({"user", "system"})
_OTHER_GRAMMAR: Final = frozenset(
    {"json_object", "json_object_agg", "jsonb_object_agg", "json_extract_path", "jsonb_extract_path", "convert"}
    | {"json_extract_path_text", "jsonb_extract_path_text"}
)
_QUERIES: Final = frozenset({"select", "with", "values", "table", "("})
_PATH: Final = "path"
"""A type, and a word of XMLTABLE, whose reader takes it away."""
_TYPES: Final = frozenset({"oid", "name", "xid", "xid8", "cid", "tid"})
"""Of the server's own columns, as are reg...: arrays of them the parser does not know."""
_XML_KINDS: Final = frozenset({"content", "document"})
_BY: Final = (["by", "ref"], ["by", "value"])
_COLUMN_OPTIONS: Final = frozenset({"path", "default", "not"})
_STANDALONE: Final = (("no", "value"), ("no",), ("yes",))
_BEFORE_NAME: Final = (["."], ["into"])
"""Behind them each word is a name: INSERT INTO convert (a) calls nothing."""
Shown = tuple[str, int]
"""A text, and for how many pieces it stands."""


def rewritten(statement: Statement) -> dict[int, Shown]:
    """Give what the parser is shown in the place of some pieces, by where they are.

    Raises:
        ValueError: nobody knows what something does: an operator of a schema.
    """
    found: dict[int, Shown] = {}
    at, end = 0, len(statement.lexemes)
    while at < end:
        if at in found:
            at += max(found[at][1], 1)
            continue
        kind, text = statement.lexemes[at][:2]
        if kind is Kind.OPERATOR:
            if text not in _OPERATORS:
                found[at] = (_ANY_OPERATOR, 1)
        elif kind is Kind.WORD:
            reader = _WORDS.get(text)
            if reader is not None and _texts(statement, at - 1, 1) not in _BEFORE_NAME:
                reader(statement, at, found)
            if at not in found and _is_type(statement, at):
                found[at] = ("", 1)
            elif (text in _TYPES or text.startswith("reg")) and _texts(statement, at - 1, 1) == ["::"]:
                found[at] = ("text", 1)
        at += found[at][1] if at in found and found[at][1] else 1
    return found


def _texts(statement: Statement, at: int, count: int) -> list[str]:
    """Give words, signs and operators from a place on; of others nothing."""
    return [
        one.text if one.kind in {Kind.WORD, Kind.SIGN, Kind.OPERATOR} else ""
        for one in statement.lexemes[max(0, at) : at + count]
    ]


def _is_type(statement: Statement, at: int) -> bool:
    """Say whether a word is the type of a literal behind it."""
    lexemes = statement.lexemes
    typed = at + 1 < len(lexemes) and lexemes[at + 1].kind is Kind.STRING
    keyword = lexemes[at].text in catalogue(Dialect.POSTGRESQL).keywords and lexemes[at].text != _PATH
    return typed and _texts(statement, at - 1, 1) != ["."] and not keyword


def _names_end(statement: Statement, at: int, *, dots: bool = False) -> int:
    """Give where names with commas, or dots, between them end that begin at a place; the place itself: there are none."""
    lexemes, between = statement.lexemes, "." if dots else ","
    while at < len(lexemes) and lexemes[at].kind <= Kind.NAME:
        if _texts(statement, at + 1, 1) != [between]:
            return at + 1
        at += 2
    return at


def _directly_within(statement: Statement, opened: int) -> Iterator[int]:
    """Give the places within brackets, without those within others there: what stands in these has a grammar of its own."""
    at, end = opened + 1, statement.closing.get(opened, opened)
    while at < end:
        yield at
        at = statement.closing.get(at, at) + 1


# -- one for each word; each writes what it has to say ------------------------------------------------------------------------

Found = dict[int, Shown]


def _operator(statement: Statement, at: int, found: Found) -> None:
    if at + 1 not in statement.closing:
        return
    end = statement.closing[at + 1]
    inside = [part.text for part in statement.lexemes[at + 2 : end]]
    if inside[:-1] not in ([], [_OWN_SCHEMA, "."]):
        raise ValueError(inside[0])
    found[at] = (_ANY_OPERATOR, end - at + 1)


def _current(statement: Statement, at: int, found: Found) -> None:
    if _texts(statement, at, 2) == ["current", "of"] and _texts(statement, at - 1, 1) == ["where"]:
        found[at] = ("current = 1", 3)


def _using(statement: Statement, at: int, found: Found) -> None:
    """ORDER BY a USING <; JOIN b USING (a) AS c."""
    if [one.kind for one in statement.lexemes[at + 1 : at + 2]] == [Kind.OPERATOR]:
        found[at] = ("asc", 2)
        return
    end = statement.closing.get(at + 1)
    if end is not None and _names_end(statement, at + 2) == end and _texts(statement, end + 1, 1) == ["as"]:
        found[end + 1] = ("", 2)


def _overriding(statement: Statement, at: int, found: Found) -> None:
    said = _texts(statement, at + 1, 2)
    if said[1:] == ["value"] and said[0] in _OVERRIDING:
        found[at] = ("", 3)


def _insert(statement: Statement, at: int, found: Found) -> None:
    """INSERT INTO a (b[1], c.d): which part of a column is written."""
    if _texts(statement, at + 1, 1) != ["into"]:
        return
    place = _names_end(statement, at + 2, dots=True)
    if _texts(statement, place, 1) == ["as"]:
        place += 2
    end = statement.closing.get(place)
    if end is None or _texts(statement, place, 1) != ["("] or _texts(statement, place + 1, 1)[0] in _QUERIES:
        return
    inside = place + 1
    while inside < end:
        text = _texts(statement, inside, 1)[0]
        count = 1
        if text == "[":
            count = statement.closing[inside] - inside + 1
            found[inside] = ("", count)
        elif text == ".":
            count = 2
            found[inside] = ("", count)
        inside += count


def _search(statement: Statement, at: int, found: Found) -> None:
    """WITH RECURSIVE a AS (...) SEARCH DEPTH FIRST BY b SET c (documentation 7.8.2.1)."""
    said = _texts(statement, at + 1, 3)
    if _texts(statement, at - 1, 1) != [")"] or said[:1] not in (["depth"], ["breadth"]) or said[1:] != ["first", "by"]:
        return
    end = _names_end(statement, at + 4)
    if end > at + 4 and _texts(statement, end, 1) == ["set"]:
        found[at] = ("", end + 2 - at)


def _cycle(statement: Statement, at: int, found: Found) -> None:
    """CYCLE b SET c [TO 'Y' DEFAULT 'N'] USING d, at the same place or behind SEARCH."""
    end = _names_end(statement, at + 1)
    after = _texts(statement, at - 1, 1) == [")"] or any(place + count == at for place, (_, count) in found.items())
    if not after or end == at + 1 or _texts(statement, end, 1) != ["set"]:
        return
    end += 2
    if _texts(statement, end, 1) == ["to"]:
        for ahead in ("default", "using"):
            end += 1
            while end < len(statement.lexemes) and _texts(statement, end, 1) != [ahead]:
                one = statement.lexemes[end]
                if one.kind not in LITERALS and one.kind is not Kind.WORD:
                    return
                end += 1
    if _texts(statement, end, 1) == ["using"]:
        found[at] = ("", end + 2 - at)


def _values(statement: Statement, at: int, found: Found) -> None:
    """WITH a AS (...) VALUES (...): to the parser a WITH has no VALUES."""
    closed = at - 1
    if _texts(statement, closed, 1) != [")"]:
        return
    opened = next((begin for begin, end in statement.closing.items() if end == closed), 0)
    if _texts(statement, opened - 1, 1) in (["as"], ["materialized"]):
        found[at] = ("select", 1)


def _xml(statement: Statement, at: int, found: Found) -> None:
    """XMLPARSE(CONTENT a), XMLSERIALIZE(CONTENT a AS text), XMLPI(NAME a), XMLROOT(a, VERSION b, STANDALONE YES)."""
    end = statement.closing.get(at + 1)
    if end is None:
        return
    word, first = statement.lexemes[at].text, _texts(statement, at + 2, 1)[0]
    if word == "xmlparse" and first in _XML_KINDS:
        found[at] = (f"{CALL} (", 3)
    elif word == "xmlserialize" and first in _XML_KINDS:
        found[at] = ("cast (", 3)
    elif word == "xmlpi" and first == "name":
        found[at] = (f"{CALL} ( 1", 4)
    elif word == "xmlexists":
        _xml_exists(statement, at, end, found)
    elif word == "xmlroot":
        found[at] = (CALL, 1)
        for place in _directly_within(statement, at + 1):
            said = _texts(statement, place, 3)
            if said[:1] == ["version"]:
                found[place] = ("1", 3) if said[1:] == ["no", "value"] else ("", 1)
            elif said[:1] == ["standalone"]:
                found[place] = ("1", 1 + next((len(one) for one in _STANDALONE if tuple(said[1 : 1 + len(one)]) == one), 0))


def _xml_exists(statement: Statement, at: int, end: int, found: Found) -> None:
    """XMLEXISTS(a PASSING [BY REF] b [BY REF])."""
    found[at] = (CALL, 1)
    for place in _directly_within(statement, at + 1):
        said = _texts(statement, place, 3)
        by = (said[1:] if said[0] == "passing" else said)[:2] in _BY
        if said[0] == "passing":
            found[place] = (",", 3 if by else 1)
        elif by and place + 2 == end:
            found[place] = ("", 2)


def _substring(statement: Statement, at: int, found: Found) -> None:
    """SUBSTRING(a SIMILAR b ESCAPE c)."""
    for place in _directly_within(statement, at + 1):
        said = _texts(statement, place, 2)
        if said[0] == "escape" or (said[0] == "similar" and said[1] != "to"):
            found[place] = (",", 1)


def _escape(statement: Statement, at: int, found: Found) -> None:
    """LIKE a ESCAPE 'b'::bytea."""
    said = [one.kind for one in statement.lexemes[at + 1 : at + 4]]
    if said == [Kind.STRING, Kind.SIGN, Kind.WORD] and _texts(statement, at + 2, 1) == ["::"]:
        found[at] = ("escape '1'", 4)


def _xml_table(statement: Statement, at: int, found: Found) -> None:
    """XMLTABLE(a PASSING b COLUMNS c int PATH d DEFAULT e NOT NULL, f FOR ORDINALITY): a call with a, b, d and e."""
    end = statement.closing.get(at + 1)
    if end is None:
        return
    found[at] = (CALL, 1)
    place, columns = at + 2, False
    while place < end:
        said = _texts(statement, place, 3)
        count = statement.closing.get(place, place) - place + 1
        if said[0] in ("passing", "columns"):
            columns = said[0] == "columns"
            count = 3 if said[1:] in _BY else 1
            found[place] = (",", count)
        elif not columns and said[:2] in _BY:
            count = 2
            found[place] = ("", count)
        elif columns and said[0] in _COLUMN_OPTIONS:
            count = 2 if said[0] == "not" else 1
            found[place] = ("" if said[0] == "not" else ",", count)
        if columns and (said[0] == "columns" or (said[0] == "," and place not in found)):
            begins = place + 1
            place = _column_ends(statement, begins, end)
            found[begins] = ("1", place - begins)
            continue
        place += count


def _column_ends(statement: Statement, at: int, end: int) -> int:
    """Give where the name and the type of a column of XMLTABLE end."""
    at += 1
    while at < end and _texts(statement, at, 1)[0] not in {*_COLUMN_OPTIONS, ","}:
        at = statement.closing.get(at, at) + 1
    return at


def _merge(statement: Statement, at: int, found: Found) -> None:
    """MERGE INTO a USING b JOIN c ON d ON e: to the parser a source is one thing, which may be in brackets."""
    place, ons, using, joined = at + 2, [0], 0, False
    if _texts(statement, at + 1, 1) != ["into"]:
        return
    while place < len(statement.lexemes) and _texts(statement, place, 1)[0] not in ("when", "merge"):  # no piece is seen twice
        text = _texts(statement, place, 1)[0]
        using = using or (place if text == "using" else 0)
        joined = joined or text == "join"
        ons += [place] if text == "on" else []
        place = statement.closing.get(place, place) + 1
    if using and joined and ons[-1] > using:
        found[using] = ("using (", 1)
        found[ons[-1]] = (") on", 1)


def _normalized(statement: Statement, at: int, found: Found) -> None:
    """A IS NFC NORMALIZED."""
    if _texts(statement, at - 1, 1) in (["is"], ["not"]) and _texts(statement, at + 1, 1) == ["normalized"]:
        found[at] = ("", 1)


def _sampled(statement: Statement, at: int, found: Found) -> None:
    """TABLESAMPLE SYSTEM (a) REPEATABLE (b)."""
    place = at + 1 if statement.lexemes[at].text == "repeatable" else at + 2
    end = statement.closing.get(place)
    if end is not None:
        found[place] = ("( 1 )", end - place + 1)


def _call(statement: Statement, at: int, found: Found) -> None:
    end = statement.closing.get(at + 1)
    if end is None:
        return
    inside = _texts(statement, at + 2, end - at - 2)
    if not {":", "value", "returning", "absent"} & set(inside):
        found[at] = (CALL, 1)


def _collation(statement: Statement, at: int, found: Found) -> None:
    if _texts(statement, at + 1, 2) == ["for", "("]:
        found[at] = (CALL, 2)


def _bit(statement: Statement, at: int, found: Found) -> None:
    if _texts(statement, at + 1, 1) == ["varying"]:
        found[at] = ("bit", 2)


_WORDS: Final[dict[str, Callable[[Statement, int, Found], None]]] = {
    "operator": _operator,
    "current": _current,
    "using": _using,
    "overriding": _overriding,
    "insert": _insert,
    "search": _search,
    "cycle": _cycle,
    "values": _values,
    **dict.fromkeys(("xmlparse", "xmlserialize", "xmlpi", "xmlroot", "xmlexists"), _xml),
    "substring": _substring,
    **dict.fromkeys(("tablesample", "repeatable"), _sampled),
    **dict.fromkeys(_OTHER_GRAMMAR, _call),
    "collation": _collation,
    "bit": _bit,
    "escape": _escape,
    "xmltable": _xml_table,
    "merge": _merge,
    **dict.fromkeys(("nfc", "nfd", "nfkc", "nfkd"), _normalized),
}
