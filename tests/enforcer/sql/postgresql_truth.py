"""What PostgreSQL itself did for a statement: which relations it locked for writing and for reading, and which rows changed.

What lives here: asking the server, and comparing. What must not: statements (postgresql_corpus.py, postgresql_regression.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus

from capd.enforcer.proxy.postgresql.inquiry import names_queries
from capd.enforcer.sql.effect import WRITE, Effects
from capd.enforcer.sql.lexeme import Dialect
from capd.enforcer.sql.message import Message, Reader
from capd.enforcer.sql.session import Session, new_session
from tests.enforcer.sql.verdicts import REFUSED, Verdicts

USER_OID_MIN = 16384
"""Of relations, those below are the server's own."""
OWN = "SELECT proname::text FROM pg_proc WHERE pronamespace <> 'pg_catalog'::regnamespace"
TELLING = {"satisfies_hash_partition", "currval"}
WRITES = {
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
}
LOCKED = """
SELECT l.relation::int, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
 WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation >= 16384
 AND c.relnamespace <> 'pg_catalog'::regnamespace AND c.relkind IN ('r','p','v','m','f','S')
"""
# Counts of earlier transactions are in it until the server has sent them on.
CHANGED = """
SELECT relid::int, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_xact_user_tables
 WHERE n_tup_ins + n_tup_upd + n_tup_del > 0
"""
# What a relation leads to: its children, what its view or rule names, what refers to it by keys, its sequences.
REACHED = """
WITH RECURSIVE reached(id) AS (
  SELECT unnest(%s::int[])
  UNION
  SELECT next FROM reached r CROSS JOIN LATERAL (
    SELECT inhrelid::int FROM pg_inherits WHERE inhparent = r.id
    UNION ALL SELECT inhparent::int FROM pg_inherits WHERE inhrelid = r.id
    UNION ALL SELECT confrelid::int FROM pg_constraint WHERE conrelid = r.id AND confrelid <> 0
    UNION ALL SELECT conrelid::int FROM pg_constraint WHERE confrelid = r.id
    UNION ALL SELECT refobjid::int FROM pg_depend d JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
               WHERE w.ev_class = r.id AND d.refclassid = 'pg_class'::regclass
    UNION ALL SELECT refobjid::int FROM pg_depend d JOIN pg_attrdef a ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
               WHERE a.adrelid = r.id AND d.refclassid = 'pg_class'::regclass
    UNION ALL SELECT refobjid::int FROM pg_depend d JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
               WHERE p.polrelid = r.id AND d.refclassid = 'pg_class'::regclass
    UNION ALL SELECT d.objid::int FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = r.id
               AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
  ) AS more(next)
) SELECT id FROM reached
"""
# A trigger, and a function in a view, may do anything at all: the schema's doing, not the statement's.
TRIGGERED = """
SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = ANY (%s::int[]))
     + (SELECT count(*) FROM pg_event_trigger)
     + (SELECT count(*) FROM pg_depend d JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
         WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid >= 16384 AND w.ev_class = ANY (%s::int[]))
"""
ONLY_SEQUENCES = "SELECT bool_and(relkind = 'S') FROM pg_class WHERE oid = ANY (%s::int[])"


class Truth:
    """A connection to a server in which statements are tried."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self.connection = connection
        self.reader = Reader()
        self.verdicts = Verdicts()
        self.session: Session = new_session(Dialect.POSTGRESQL)
        self.changed: set[tuple[object, ...]] = set()
        self.reached: set[int] = set()
        self._learn()

    def ask(self, question: str, *arguments: object) -> list[tuple[object, ...]]:
        """Ask the server something."""
        return self.connection.execute(question, arguments or None).fetchall()

    def _learn(self) -> None:
        path, plain, encoding, temporary = self._told()
        session = new_session(Dialect.POSTGRESQL).told_schemas(path, temporary)
        functions = names_queries(functions=True)[2]
        session = session.told_functions(str(name) for (name,) in self.ask(functions))
        self.session = session.reported("standard_conforming_strings", plain).reported("client_encoding", encoding)

    def _told(self) -> tuple[tuple[str, ...], str, str, frozenset[str]]:
        question = (
            "SELECT current_schemas(false)::text[], current_setting('standard_conforming_strings'),"
            " current_setting('client_encoding'),"
            " (SELECT array_agg(relname::text) FROM pg_class"
            " WHERE relnamespace = pg_my_temp_schema() AND relkind IN ('r', 'v', 'S', 'p', 'm', 'f'))"
        )
        path, plain, encoding, temporary = self.ask(question)[0]
        assert isinstance(path, list)
        names = temporary if isinstance(temporary, list) else []
        # Its own temporary schema is pg_temp to everybody.
        return tuple(re.sub(r"^pg_temp_\d+$", "pg_temp", one) for one in path), str(plain), str(encoding), frozenset(names)

    def _own(self) -> set[str]:
        return {str(name) for (name,) in self.ask(OWN)}

    def _check_session(self, text: bytes) -> None:
        """Compare what the session's tracker says with the server; then tell it the truth."""
        path, plain, _, temporary = self._told()
        session = self.session
        problems = []
        if session.names.schemas is not None and not set(path) <= set(session.names.schemas):
            problems.append(f"the path is {path}, not {session.names.schemas}")
        if session.reading.plain_backslash not in {None, plain == "on"}:
            problems.append("backslashes are read otherwise")
        relations = {name for name in temporary if not name.endswith("_seq")}
        if session.names.temporary is not None and (more := relations - session.names.temporary):
            problems.append(f"there are temporary relations {more}")
        self.verdicts.wrong += [(text.decode("utf-8", "replace"), problem) for problem in problems]
        self.verdicts.counts["session unknown after it"] += session.names.schemas is None
        self._learn()

    def ids(self, done: Effects, *, writes: bool) -> set[int]:
        """Give the ids of the relations that a statement names."""
        found = set()
        for relation in done.relations:
            if writes and relation.access != WRITE:
                continue
            rows = self.ask(
                "SELECT to_regclass(concat_ws('.', quote_ident(%s), quote_ident(%s)))::oid::int", relation.schema, relation.name
            )
            found |= {row[0] for row in rows if isinstance(row[0], int)}
        return found

    def named(self, ids: Iterable[int]) -> Mapping[int, str]:
        """Give the names of relations, with schemas."""
        rows = self.ask(
            "SELECT c.oid::int, CASE WHEN n.oid = pg_my_temp_schema() THEN 'pg_temp' ELSE nspname END || '.' || relname"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = ANY (%s::int[])",
            list(ids),
        )
        return {row[0]: str(row[1]) for row in rows if isinstance(row[0], int)}

    def try_(self, text: bytes, *, keep: bool = True) -> None:
        """Run a statement, and compare what was said of it with what it did.

        Args:
            text: the statement.
            keep: the server keeps what it did; else that is taken back.
        """
        read = self.reader.read(text, self.session)
        pgconn = self.connection.pgconn
        if read.command in {"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE"}:
            self.verdicts.counts["steers the transaction"] += 1
            return
        pgconn.exec_(b"BEGIN")
        own = self._own()
        compared = read.complete and len(read.statements) == 1
        before = self.ids(read.statements[0], writes=False) if compared else set()
        before_written = self.ids(read.statements[0], writes=True) if compared else set()
        self.reached = {row[0] for row in self.ask(REACHED, list(before)) if isinstance(row[0], int)} if compared else set()
        self.changed = set(self.ask(CHANGED))
        result = pgconn.exec_(text)
        status = ExecStatus(result.status)
        if status in {ExecStatus.COPY_IN, ExecStatus.COPY_OUT}:
            self._finish_copy(status)
            result = pgconn.exec_(b"SELECT 1")
            status = ExecStatus(result.status)
        if status in {ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE, ExecStatus.EMPTY_QUERY}:
            pgconn.exec_(b"ROLLBACK")
            self.verdicts.counts[REFUSED] += 1
            if pgconn.transaction_status == TransactionStatus.UNKNOWN:
                raise ConnectionError(text)
            return
        self.verdicts.count(text, read, own | self._own())
        if compared:
            self._compare(text, read, before, before_written)
        pgconn.exec_(b"COMMIT" if keep else b"ROLLBACK")
        if not keep:
            return
        for one in read.statements:
            self.session = self.session.after(one, succeeded=True)
        self._check_session(text)

    def _finish_copy(self, status: ExecStatus) -> None:
        pgconn = self.connection.pgconn
        if status is ExecStatus.COPY_IN:
            pgconn.put_copy_end()
        else:
            while pgconn.get_copy_data(0)[0] > 0:
                pass
        while pgconn.get_result() is not None:
            pass

    def _compare(self, text: bytes, read: Message, before: set[int], before_written: set[int]) -> None:
        (done,) = read.statements
        locked = self.ask(LOCKED)
        server_writes = {row[0] for row in locked if row[1] in WRITES and isinstance(row[0], int)}
        server_reads = {row[0] for row in locked if isinstance(row[0], int)}
        changed = {row[0] for row in self.ask(CHANGED) if row not in self.changed and isinstance(row[0], int)}
        named = before | self.ids(done, writes=False)
        written = before_written | self.ids(done, writes=True)
        explains = read.command == "EXPLAIN" and "select" in done.effects and not (done.effects - {"select"})
        kept = read.command in {"EXPLAIN", "DECLARE"} and explains
        problems = []
        if (
            not kept
            and "currval" not in done.functions
            and (extra := server_writes - written)
            and done.effects.isdisjoint({"lock", "maintain"})
        ):
            problems += self._extra("writes", extra, written | named)
        if extra := changed - written:
            problems += self._extra("changes rows of", extra, written | named)
        # Functions that tell of a relation lock it, to read its definition.
        own = all(name.startswith(("pg_catalog.", "information_schema.")) for name, _ in read.resources or ())
        tells = any(name.startswith("pg_") or name in TELLING for name in done.functions) or (own and read.resources)
        if (extra := server_reads - named) and not tells:
            problems += self._extra("reads", extra, named)
        if done.effects <= {"select", "insert", "update", "delete", "lock"}:
            # nextval() of no rows takes no number.
            missing = {
                one for one in written - server_writes if one >= USER_OID_MIN and not self.ask(ONLY_SEQUENCES, [one])[0][0]
            }
            problems += [f"does not write {', '.join(self.named(missing).values())}"] if missing else []
        names = self.named(named)
        resolved = {name for relation in done.relations for name in self.session.resolved(relation)}
        lost = [name for name in names.values() if name not in resolved and f"?.{name.partition('.')[2]}" not in resolved]
        problems += [f"touches {', '.join(lost)}, not {resolved}"] if lost and "define" not in done.effects else []
        # In its own tests, the server is made to have a relation of ours in its own schema.
        if not any(name.startswith("pg_catalog.old_") for name in names.values()):
            self.verdicts.wrong += [(text.decode("utf-8", "replace"), problem) for problem in problems]

    def _extra(self, verb: str, extra: set[int], named: set[int]) -> list[str]:
        reached = self.reached | {row[0] for row in self.ask(REACHED, list(named)) if isinstance(row[0], int)}
        if not extra - reached:
            self.verdicts.excused[f"{verb}: children, keys, views, sequences"] += 1
            return []
        triggers = self.ask(TRIGGERED, list(reached), list(reached))[0][0]
        if triggers:
            self.verdicts.excused[f"{verb}: a trigger"] += 1
            return []
        if self.ask(ONLY_SEQUENCES, list(extra - reached))[0][0]:
            self.verdicts.excused[f"{verb}: the default of a type"] += 1
            return []
        return [f"{verb} {', '.join(self.named(extra - reached).values())}"]
