"""What a query does: SELECT, INSERT, UPDATE, DELETE, MERGE and what can stand in them, by the parser's tree.

What lives here: parsing, and walking the tree with the names of WITH in scope. What must not: other statements.

The tree is not believed alone: verbs and names that our own scanner found must be in it (agreement.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from capd.enforcer.sql.agreement import disagreement
from capd.enforcer.sql.calls import called, of_fields
from capd.enforcer.sql.effect import READ, TEMPORARY, TEMPORARY_SCHEMA, WRITE, Change, Effects, Relation, ordered
from capd.enforcer.sql.functions import OWN_CATALOGUE, catalogue, is_own
from capd.enforcer.sql.lexeme import Dialect, words
from capd.enforcer.sql.nodes import ALLOWED, PARTS
from capd.enforcer.sql.parsing import parsed, sqlglot
from capd.enforcer.sql.postgresql_rewritten import CALL
from capd.enforcer.sql.shape import Shown, shown
from capd.enforcer.sql.statement import Statement

if TYPE_CHECKING:
    from sqlglot import exp

FORM: Final = "C"
"""Words that are no functions' names: what stands in their brackets the grammar itself reads."""
_NO_RELATION: Final = frozenset({"R", "T"})
"""Classes of PostgreSQL's words that are no relation's name: in FROM, current_user is a function."""
_VALUES: Final = words("current_date current_time current_timestamp localtime localtimestamp current_user session_user")
"""Of these, those that are functions without brackets, and reserved."""
NODES_MAX: Final = 50_000
"""Of a tree; more than any text of MESSAGE_BYTES_MAX needs."""
NOT_PARSED: Final = "capd's parser does not understand it"
Scope = frozenset[str]


def query_effects(statement: Statement) -> Effects:
    """Give what a query does."""
    command = statement.lexemes[0].text.upper()
    functions = called(statement)
    text = shown(statement)
    walk = None if text is None else _walked(text, statement.dialect, frozenset(functions.functions))
    if walk is None:
        failed = Effects(command=command, problems=(*statement.problems, NOT_PARSED))
        return failed.joined(functions)
    problems = [*statement.problems, *walk.problems]
    differs = disagreement(statement, walk.counts, walk.named)
    if differs is not None:
        problems.append(differs)
    found = Effects(
        command=command,
        effects=frozenset(walk.effects),
        relations=ordered(walk.relations),
        has_where=walk.has_where,
        changes=tuple(walk.changes),
        problems=tuple(dict.fromkeys(problems)),
    )
    if walk.calls_in_from:  # a name for it is one of its value, where that is no row
        functions = functions.joined(of_fields(functions.fields, values=True))
    return found.joined(functions)


def _walked(text: Shown, dialect: Dialect, functions: frozenset[str]) -> _Walk | None:
    """Parse a text, and walk over its tree; None: it is not understood."""
    walk = _Walk(dialect=dialect, text=text, functions=functions)
    try:
        tree = parsed(text.text, dialect)
        if tree is None:
            return None
        walk.take(tree)
    except Exception:  # noqa: BLE001 - whatever is odd about a parser of 20,000 lines, or its tree: the statement is not understood
        return None
    return walk


@dataclass(slots=True, kw_only=True)
class _Walk:
    """A walk over a tree; what was found."""

    dialect: Dialect
    text: Shown
    functions: frozenset[str]
    effects: set[str] = field(default_factory=set)
    relations: list[Relation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    has_where: bool = True
    calls_in_from: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    _todo: list[tuple[exp.Expression, Scope]] = field(default_factory=list)
    _scope: Scope = frozenset()

    def take(self, tree: exp.Expression) -> None:
        """Walk over a tree. Without recursion: a tree may be as deep as a text is long."""
        self._todo = [(tree, frozenset())]
        seen = 0
        while self._todo:
            seen += 1
            if seen > NODES_MAX:
                self.problems.append("the statement is too large")
                return
            node, scope = self._todo.pop()
            self._node(node, scope)

    def _node(self, node: exp.Expression, scope: Scope) -> None:
        kind = type(node).__name__
        parts = PARTS.get(kind)
        if parts is not None:
            odd = [name for name, value in node.args.items() if value and name not in parts]
            if odd:
                self.problems.append(f"capd does not know what {odd[0].strip('_')} in {kind.upper()} does")
        elif kind not in ALLOWED[self.dialect] and not isinstance(node, sqlglot().exp.Func):
            self.problems.append(f"capd does not know what {kind} does")
        if kind == "Anonymous" and not self._is_called(node):
            self.problems.append("the parser takes for a call what is none")
        scope = self._with(node, scope)
        self._scope = scope
        handle = self._HANDLERS.get(kind)
        done = handle(self, node) if handle is not None else frozenset()
        for name, value in node.args.items():
            if name in done or name == "with_":
                continue
            for one in value if isinstance(value, list) else (value,):
                if isinstance(one, sqlglot().exp.Expr):
                    self._todo.append((one, scope))

    def _with(self, node: exp.Expression, scope: Scope) -> Scope:
        """Put the queries of WITH to what is to be done; give the names that hold in the rest."""
        with_ = node.args.get("with_")
        if not isinstance(with_, sqlglot().exp.With):
            return scope
        self._odd_parts(with_)
        queries = with_.expressions
        names = [self._name(query.args["alias"].this) for query in queries]
        recursive = bool(with_.args.get("recursive"))
        # In MySQL a query sees itself and those before it; what comes later is a table of that name to it.
        inside = scope | set(names) if recursive and self.dialect is Dialect.POSTGRESQL else scope
        for name, query in zip(names, queries, strict=True):
            inside |= {name} if recursive else set()
            self._odd_parts(query)
            self._todo.append((query.this, inside))
            inside |= {name}
            self.named.add(name)
        return scope | set(names)

    def _odd_parts(self, node: exp.Expression) -> None:
        kind = type(node).__name__
        if any(value and name not in PARTS.get(kind, ()) for name, value in node.args.items()):
            self.problems.append(f"capd does not know all of {kind.upper()}")

    def _name(self, node: Any) -> str:  # noqa: ANN401 - whatever the parser put where a name belongs
        if type(node).__name__ != "Identifier":
            self.problems.append("a name is none")
            return ""
        found = self.text.name(node.this, quoted=bool(node.args.get("quoted")))
        if found == CALL:
            self.problems.append("a relation has the name that stands for calls")
        return found

    def _is_called(self, node: exp.Expression) -> bool:
        """Say whether our own scanner sees the call, too."""
        name = self.text.name(node.name, quoted=True) if node.args.get("quoted") else str(node.name)
        if name.lower() in {CALL, "all", "any", "some"} and not node.args.get("quoted"):
            return True
        if catalogue(self.dialect).keywords.get(name.lower()) == FORM:
            return True
        return any(name.lower() == one.rpartition(".")[2].lower() for one in self.functions)

    def _count(self, verb: str) -> None:
        self.counts[verb] = self.counts.get(verb, 0) + 1

    def _relation(self, table: Any, access: str) -> Relation | None:  # noqa: ANN401 - as in _name
        """Note the relation of a Table node."""
        if type(table).__name__ == "Schema":
            table = table.this
        if type(table).__name__ != "Table" or type(table.this).__name__ != "Identifier" or table.args.get("catalog"):
            self.problems.append("a relation is not named plainly")
            return None
        schema = table.args.get("db")
        found = Relation(schema=None if schema is None else self._name(schema), name=self._name(table.this), access=access)
        if access == WRITE and self.dialect is Dialect.POSTGRESQL and is_own(found):
            self.problems.append(OWN_CATALOGUE)
        self.relations.append(found)
        self.named.add(found.name)
        return found

    def _table(self, node: exp.Expression) -> frozenset[str]:
        kind = type(node.this).__name__
        if kind == "Identifier":
            name, plain = self._name(node.this), not node.this.args.get("quoted")
            self.named.add(name)
            if plain and name in _VALUES and node.args.get("db") is None and self.dialect is Dialect.POSTGRESQL:
                self.calls_in_from = True
                return frozenset({"this"})
            if plain and catalogue(self.dialect).keywords.get(name) in _NO_RELATION:
                self.problems.append(f"{name} in FROM is no relation")
            if node.args.get("db") is not None or name not in self._scope:
                self._relation(node, READ)
                self.effects.add("select")
        else:
            self.calls_in_from = True
            if not node.args.get("rows_from") and not isinstance(node.this, sqlglot().exp.Func) and kind != "Dot":
                self.problems.append(f"capd does not know what {kind} in FROM is")
        return frozenset({"this", "db"}) if kind == "Identifier" else frozenset()

    def _called(self, node: exp.Expression) -> frozenset[str]:
        self.calls_in_from = True
        exp = sqlglot().exp
        if self.dialect is Dialect.MYSQL and not isinstance(node.this, exp.Subquery | exp.Func):
            self.problems.append("in MariaDB, LATERAL may be a relation's name")
        return frozenset()

    def _target(self, node: Any) -> frozenset[str]:  # noqa: ANN401 - as in _name
        """Note what a statement writes; what hangs on it is walked over."""
        self._relation(node, WRITE)
        table = node.this if type(node).__name__ == "Schema" else node
        if type(table).__name__ == "Table":
            self._odd_parts(table)
            if any(table.args.get(part) for part in ("joins", "laterals", "rows_from", "sample", "ordinality")):
                self.problems.append("more than one relation stands where one is written")
        return frozenset({"this"})

    def _select(self, node: exp.Expression) -> frozenset[str]:
        self._count("select")
        if node.args.get("kind"):
            self.problems.append("capd does not know what kind of SELECT it is")
        self.effects.add("select")
        return frozenset()

    def _into(self, node: exp.Expression) -> frozenset[str]:
        self._count("into")
        self.effects |= {"define", "insert"}
        made = self._relation(node.this, WRITE)
        if made is not None and made.schema is None and made.name.startswith("pg_"):
            self.problems.append("what it makes has a name like the server's own relations")
        if made is not None and (node.args.get("temporary") or (made.schema or "").startswith(TEMPORARY_SCHEMA)):
            self.relations[-1] = replace(made, schema=TEMPORARY_SCHEMA)
            self.changes.append(Change(setting=TEMPORARY, values=(made.name,)))
        return frozenset({"this"})

    def _lock(self, node: exp.Expression) -> frozenset[str]:
        self.effects.add("lock")
        if node.args.get("update"):
            self._count("update")
        # They name what stands in FROM, by its name or alias.
        return frozenset({"expressions"})

    def _insert(self, node: exp.Expression) -> frozenset[str]:
        self._count("insert")
        self.effects.add("insert")
        if node.args.get("returning"):
            self.effects.add("select")
        if node.this is None or type(node.this).__name__ == "Tuple":
            return frozenset()  # within MERGE
        self._count("into")
        conflict = node.args.get("conflict")
        if conflict is not None and not conflict.args.get("duplicate"):
            self._count("conflict")
        if conflict and (conflict.expressions or "update" in str(conflict.args.get("action") or "").lower()):
            self._count("update")
            self.effects.add("update")
        return self._target(node.this)

    def _update(self, node: exp.Expression) -> frozenset[str]:
        self._count("update")
        self.effects.add("update")
        if node.args.get("returning"):
            self.effects.add("select")
        if node.this is None:
            return frozenset()  # within MERGE
        self.has_where &= self._restricted(node.args.get("where"))
        return self._target(node.this)

    def _delete(self, node: exp.Expression) -> frozenset[str]:
        self._count("delete")
        self.effects.add("delete")
        if node.args.get("returning"):
            self.effects.add("select")
        if node.args.get("tables") or (node.args.get("using") and self.dialect is Dialect.MYSQL):
            # MySQL's DELETE FROM a USING b AS a empties b.
            self.problems.append("capd does not know which relations lose rows")
        self.has_where &= self._restricted(node.args.get("where"))
        return self._target(node.this)

    def _merge(self, node: exp.Expression) -> frozenset[str]:
        self._count("merge")
        self._count("into")
        self.has_where &= self._restricted(node.args.get("on"))
        if node.args.get("returning"):
            self.effects.add("select")
        return self._target(node.this)

    def _when(self, node: exp.Expression) -> frozenset[str]:
        then = node.args.get("then")
        if then is not None and type(then).__name__ == "Var":
            verb = str(then.this).lower()
            if verb == "delete":
                self._count("delete")
                self.effects.add("delete")
            elif verb != "do nothing":
                self.problems.append(f"capd does not know what {verb} in MERGE does")
        return frozenset()

    @staticmethod
    def _restricted(where: Any) -> bool:  # noqa: ANN401 - as in _name
        if where is None:
            return False
        return type(where).__name__ == "CurrentOf" or where.find(sqlglot().exp.Column) is not None

    _HANDLERS: ClassVar[dict[str, Callable[[_Walk, exp.Expression], frozenset[str]]]] = {
        "Table": _table,
        "Select": _select,
        "Into": _into,
        "Lock": _lock,
        "Insert": _insert,
        "Update": _update,
        "Delete": _delete,
        "Merge": _merge,
        "When": _when,
        **dict.fromkeys(("Lateral", "Unnest"), _called),
    }
