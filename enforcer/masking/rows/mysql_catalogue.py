"""What a MySQL or MariaDB server says of the relations that statements name, and what is asked for it.

What lives here: the questions, reading their answers, and how long they count. What must not: connections, what is hidden.

Of each relation it is asked for its columns, and whether it is a view: then for its query, and for what that names. Names stand
in backticks, which mean the same in every mode, texts in hexadecimal.

It answers in the encoding that the session says. So it is asked for that before: in UTF-16 no name would be the one in a rule,
in others a letter that they do not have is a question mark. And it gives no more rows than the session wants of a SELECT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from capd.enforcer.masking.rows.inquiry import STALE_SECONDS_MAX, UnreadableAnswerError
from capd.enforcer.sql.encodings import safe_mysql
from capd.enforcer.sql.lexeme import Dialect
from capd.enforcer.sql.message import Reader
from capd.enforcer.sql.session import UNKNOWN_SCHEMA, new_session

Name = tuple[str, str]
"""Database and relation, in lower case: whether case counts, the server's file system decides."""
Row = Sequence[bytes | None]
RELATIONS_MAX: Final = 512
"""That are known at a time; a statement that leads to more is refused."""
FORM_QUESTION: Final = "SELECT @@character_set_results, @@sql_select_limit"
_ABSENT: Final = frozenset({0, 1044, 1049, 1051, 1102, 1103, 1109, 1142, 1143, 1146})
"""Errors for a database or relation that is not there, has no such name, or may not be seen; 0: it is not said which."""
_AS_KEPT: Final = "binary"
_GENERATED: Final = "generated"


@dataclass(frozen=True, slots=True, kw_only=True)
class MysqlRelation:
    """A table or a view.

    Attributes:
        columns: names, in order.
        generated: those of them that are computed from others of their row.
        definition: of a view its query; "": it may not be seen; None: it is no view.
        made_of: what that query names; None: it is not known.
    """

    columns: tuple[str, ...]
    generated: frozenset[str] = frozenset()
    definition: str | None = None
    made_of: frozenset[Name] | None = frozenset()


def names_of(resources: Iterable[tuple[str, str]]) -> frozenset[Name] | None:
    """Give the relations that a statement names; None: it is not known which."""
    found: set[Name] = set()
    for resource, _ in resources:
        schema, _, name = resource.lower().partition(".")
        if schema == UNKNOWN_SCHEMA or not name:
            return None
        found.add((schema, name))
    return frozenset(found)


class MysqlCatalogue:
    """What one session knows."""

    def __init__(self) -> None:
        self.relations: dict[Name, MysqlRelation | None] = {}
        """None: the server gives none of that name, or does not tell."""
        self._asked: list[Name] = []
        self._form: _Form | None = None
        """None: that is to be asked."""
        self._at = 0.0
        self._reader = Reader()

    def question(self, names: Iterable[Name], at: float) -> str | None:
        """Say what to ask next, before a statement that names some relations is judged; None: nothing.

        Args:
            names: of the statement.
            at: now, in seconds of any clock that does not go back.

        Raises:
            UnreadableAnswerError: there are too many.
        """
        if at - self._at > STALE_SECONDS_MAX and not self._asked:
            self.relations.clear()
        if not self.relations:
            self._at = at
        if not self._asked:
            self._asked, self._form = self._missing(names), None
        if not self._asked:
            return None
        if self._form is None:
            return FORM_QUESTION
        if len(self.relations) >= RELATIONS_MAX:
            raise UnreadableAnswerError
        schema, name = self._asked[0]
        known = self.relations.get((schema, name))
        if known is None:
            return f"SHOW COLUMNS FROM {_quoted(schema)}.{_quoted(name)}"
        return (
            "SELECT view_definition FROM information_schema.views"  # noqa: S608 - texts in hexadecimal
            f" WHERE table_schema = {_text(schema)} AND table_name = {_text(name)}"
        )

    def answered(self, rows: Sequence[Row] | None, error: int = 0) -> None:
        """Take the rows that answer the question; None: the server answered with an error.

        Args:
            rows: of the answer.
            error: its number. That a relation is not there, or not to be seen, counts; that it took too long says nothing.

        Raises:
            UnreadableAnswerError: they do not.
        """
        asked = self._asked[0]
        known = self.relations.get(asked)
        try:
            if self._form is None:
                self._form = _form(rows)
            elif known is not None:
                self._asked.pop(0)
                self.relations[asked] = self._defined(asked, known, rows)
            elif rows is None:
                if error not in _ABSENT:
                    raise UnreadableAnswerError
                self._asked.pop(0)
                self.relations[asked] = None
            else:
                self.relations[asked] = _columns(rows, self._form)
        except (ValueError, IndexError, AttributeError) as broken:
            raise UnreadableAnswerError from broken

    def forget(self) -> None:
        """What was known may not hold any more."""
        self.relations.clear()
        self._asked.clear()

    def _missing(self, names: Iterable[Name]) -> list[Name]:
        """Give relations that are not known yet, with those behind known views."""
        todo, seen, found = list(names), set[Name](), []
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            if name not in self.relations:
                found.append(name)
                continue
            known = self.relations[name]
            todo += (known.made_of or ()) if known is not None else ()
        return found

    def _defined(self, name: Name, known: MysqlRelation, rows: Sequence[Row] | None) -> MysqlRelation:
        if rows is not None and not rows:
            return known
        said = (rows[0][0] or b"") if rows else b""
        narrow = self._form is None or self._form.narrow
        definition = "" if narrow and not _is_plain(said) else said.decode("utf-8")
        if not definition:
            return replace(known, definition="", made_of=None)
        session = new_session(Dialect.MYSQL).told_schemas((name[0],))
        read = self._reader.read(definition.encode("utf-8"), session)
        whole = read.complete and read.effects is not None and read.effects <= {"select"}
        return replace(known, definition=definition, made_of=names_of(read.resources or ()) if whole else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How the server answers in this session.

    Attributes:
        narrow: in an encoding that has not all letters.
        rows_max: at most so many rows.
    """

    narrow: bool
    rows_max: int


def _form(rows: Sequence[Row] | None) -> _Form:
    if not rows:
        raise UnreadableAnswerError
    said, most = rows[0]
    name = _AS_KEPT if said is None else said.decode("ascii").lower()
    encoding = safe_mysql(name)
    if encoding is None or not (most or b"").isdigit():
        raise UnreadableAnswerError
    return _Form(narrow=encoding != "utf-8" and name != _AS_KEPT, rows_max=int(most or b""))


def _is_plain(said: bytes) -> bool:
    """Say whether a text is the same in all encodings that are followed."""
    return said.isascii() and b"?" not in said


def _columns(rows: Sequence[Row], form: _Form) -> MysqlRelation:
    """Read SHOW COLUMNS: the first column is the name, the last one says more."""
    if len(rows) >= form.rows_max:
        raise UnreadableAnswerError
    names: list[str] = []
    generated: set[str] = set()
    for row in rows:
        if form.narrow and not _is_plain(row[0] or b""):
            raise UnreadableAnswerError
        name = (row[0] or b"").decode("utf-8").lower()
        names.append(name)
        if _GENERATED in (row[-1] or b"").decode("utf-8").lower():
            generated.add(name)
    if not names:
        raise UnreadableAnswerError
    return MysqlRelation(columns=tuple(names), generated=frozenset(generated))


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(value: str) -> str:
    return f"CONVERT(x'{value.encode('utf-8').hex()}' USING utf8)"


Relations = Mapping[Name, MysqlRelation | None]
