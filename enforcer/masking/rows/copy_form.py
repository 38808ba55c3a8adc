"""How a COPY of PostgreSQL writes its rows: which columns, in which format, with which signs between them.

What lives here: reading the statement (PostgreSQL documentation, COPY; the old forms of options too). What must not: the rows.

An option that is not known here, or a sign that is not written plainly, makes a form that nobody can follow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from capd.enforcer.sql.cursor import Cursor, NotUnderstoodError
from capd.enforcer.sql.lexeme import Kind
from capd.enforcer.sql.statement import Statement

TEXT: Final = "text"
CSV: Final = "csv"
BINARY: Final = "binary"
_FORMATS: Final = frozenset({TEXT, CSV, BINARY})
_ON: Final[Mapping[str, bool]] = {"": True, "true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
_SIGNS: Final[Mapping[str, str]] = {r"E'\t'": "\t", r"e'\t'": "\t"}
_PLAIN: Final = re.compile(r"'(?:[^']|'')*'")
_ENCODINGS: Final = frozenset({"utf8", "utf-8"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyForm:
    """What COPY ... TO STDOUT writes.

    Attributes:
        relation: what it is of, as written, in quotes; "": a query.
        name: its name, without a schema.
        columns: names; None: all that are not generated.
        format: TEXT, CSV or BINARY.
        delimiter, quote, escape: signs, of one byte.
        null: what stands for NULL.
        header: whether a line with names comes first.
    """

    relation: str = ""
    name: str = ""
    columns: tuple[str, ...] | None = None
    format: str = TEXT
    delimiter: str = "\t"
    quote: str = '"'
    escape: str = '"'
    null: str = r"\N"
    header: bool = False


def read_form(statement: Statement) -> CopyForm | None:
    """Read COPY ... TO STDOUT; None: it is none, or one that cannot be followed."""
    cursor = Cursor(statement, 1)
    try:
        old_binary = cursor.take("binary")
        form = _subject(cursor)
        cursor.expect("to")
        cursor.expect("stdout")
        given = _options(cursor)
        cursor.end()
    except (NotUnderstoodError, KeyError, ValueError):
        return None
    return _with(form, {**given, **({"format": BINARY} if old_binary else {})})


def _subject(cursor: Cursor) -> CopyForm:
    if cursor.peek() == "(":
        cursor.skip()
        return CopyForm()
    names = cursor.names()
    columns: list[str] | None = None
    if cursor.take("("):
        columns = [cursor.name()]
        while cursor.take(","):
            columns.append(cursor.name())
        cursor.expect(")")
    relation = ".".join(map(quoted, names))
    return CopyForm(relation=relation, name=names[-1], columns=None if columns is None else tuple(columns))


def quoted(name: str) -> str:
    """Give a name in quotes."""
    return '"' + name.replace('"', '""') + '"'


def _options(cursor: Cursor) -> dict[str, str]:
    cursor.take("with")
    found: dict[str, str] = {}
    if cursor.take("("):
        while True:
            name = cursor.name()
            found[name] = _columns(cursor) if name == "force_quote" else _value(cursor)
            if not cursor.take(","):
                break
        cursor.expect(")")
        return found
    while cursor.left:
        word = cursor.take_any("csv", "binary", "header", "delimiter", "delimiters", "null", "quote", "escape")
        if word in {"csv", "binary"}:
            found["format"] = word
        elif word == "header":
            found["header"] = ""
        elif word:
            cursor.take("as")
            found[word.removesuffix("s")] = _value(cursor)
        else:
            raise NotUnderstoodError("an option of COPY is not known")
    return found


def _columns(cursor: Cursor) -> str:
    """Pass over columns that are always quoted: what stands in quotes is read in any case."""
    if not cursor.take("*"):
        cursor.expect("(")
        cursor.at -= 1
        cursor.skip()
    return ""


def _value(cursor: Cursor) -> str:
    """Read what an option is set to; "" if nothing is said."""
    one = cursor.lexeme()
    if one is None or (one.kind is Kind.SIGN and one.text in {",", ")"}):
        return ""
    cursor.at += 1
    if one.kind is not Kind.STRING:
        return one.text.lower()
    if one.text in _SIGNS:
        return _SIGNS[one.text]
    if _PLAIN.fullmatch(one.text) is None:
        raise NotUnderstoodError("a text is not written plainly")
    return one.text[1:-1].replace("''", "'")


def _with(form: CopyForm, given: Mapping[str, str]) -> CopyForm | None:
    format_ = given.get("format", TEXT)
    if (
        given.keys() - {"format", "delimiter", "null", "header", "quote", "escape", "encoding", "force_quote"}
        or format_ not in _FORMATS
    ):
        return None
    header = _ON.get(given["header"].lower()) if "header" in given else False
    if header is None or given.get("encoding", "utf8").lower() not in _ENCODINGS:
        return None
    csv = format_ == CSV
    quote = given.get("quote", '"')
    form = replace(
        form,
        format=format_,
        delimiter=given.get("delimiter", "," if csv else "\t"),
        quote=quote,
        escape=given.get("escape", quote),
        null=given.get("null", "" if csv else r"\N"),
        header=header,
    )
    signs = (form.delimiter, form.quote, form.escape)
    plain = all(len(sign) == 1 and sign.isascii() and sign not in "\r\n" for sign in signs)
    return form if plain and not {"\r", "\n"} & set(form.null) and (csv or form.delimiter != "\\") else None
