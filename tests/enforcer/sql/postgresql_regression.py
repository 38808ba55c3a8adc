"""Tries the statements of PostgreSQL's own regression tests on a server, as postgresql_truth.py does each.

What lives here: reading such files, a database for each, and the shares. What must not: comparing.

    packaging/regression .cache/regression
    PYTHONPATH=src:. python -P -m tests.enforcer.sql.postgresql_regression .cache/regression [NAME]...

The directory is src/test/regress of the server's source; only some files: their names. Each file runs in a database of its own,
made of one in which test_setup ran. What psql itself does between statements is left out. Each statement is a transaction: what
needs a longer one, such as FETCH, the server refuses, and what cannot run in one, such as VACUUM.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from psycopg.conninfo import make_conninfo

from capd.enforcer.sql import postgresql_scanner
from capd.enforcer.sql.lexeme import POSTGRESQL_DEFAULT, Dialect
from capd.enforcer.sql.statement import split
from tests.e2e.certificates import make
from tests.e2e.postgres import database
from tests.enforcer.sql.postgresql_truth import Truth
from tests.enforcer.sql.verdicts import Verdicts

SETUP = ("test_setup", "create_index")
"""Files that come before all others."""
BASE = "truth_base"
PIECE_CHARACTERS = 4_000
"""A file goes through the scanner in parts, which have a limit there."""
PROCESSES = 3
SHARE_MIN = 0.98
"""Of statements whose code is in their text, all files together."""
LOST_MAX = 10
"""Statements that could not be compared: a file may drop, or time out, what the comparison needs."""
_DOLLARS = re.compile(r"\$\w*\$")
_SET = re.compile(r"\\set\s+(\w+)\s+(.*)")
_SET_PART = re.compile(r"'((?:[^']|'')*)'|:(\w+)|(\S+)")
_USED = re.compile(r""":(['"]?)(\w+)\1""")


class Psql:
    """What psql makes of a file.

    Attributes:
        variables: that a file sets, and those of the environment.
    """

    def __init__(self, directory: Path) -> None:
        self.variables = {"abs_srcdir": str(directory), "libdir": "/nowhere", "dlsuffix": ".so"}

    def statements(self, text: str) -> Iterator[bytes]:
        """Give the statements of a file: without psql's own commands, and without data of COPY."""
        for piece in _pieces(text):
            yield from self._statements(piece)

    def _statements(self, piece: str) -> Iterator[bytes]:
        lines = []
        copying = False
        for line in piece.splitlines():
            if copying:
                copying = line != "\\."
                continue
            copying = re.match(r"(?i)^copy\b.*\bfrom stdin", line) is not None
            if line.startswith("\\"):
                self._command(line)
            else:
                lines.append(_USED.sub(self._value, re.sub(r"\\g\w*.*$|\\;", ";", line)))
        yield from statements_in("\n".join(lines))

    def _command(self, line: str) -> None:
        found = _SET.match(line)
        if found is not None:
            parts = (
                part[1].replace("''", "'") if part[1] is not None else self.variables.get(part[2] or "", part[3] or "")
                for part in _SET_PART.finditer(found[2])
            )
            self.variables[found[1]] = "".join(parts)

    def _value(self, found: re.Match[str]) -> str:
        value = self.variables.get(found[2])
        return found[0] if value is None else f"{found[1]}{value}{found[1]}"


def statements_in(plain: str) -> Iterator[bytes]:
    """Give the statements of a text."""
    scanned = postgresql_scanner.scan(plain.encode(), POSTGRESQL_DEFAULT)
    for statement in split(scanned, Dialect.POSTGRESQL):
        if statement.lexemes:
            yield plain[statement.lexemes[0].start : statement.lexemes[-1].end].encode()


def _pieces(text: str) -> Iterator[str]:
    """Give a file in parts that are short enough for the scanner, ending at empty lines, outside of dollars."""
    part = ""
    for line in text.splitlines(keepends=True):
        part += line
        ends = not line.strip() and part.rstrip().endswith(";") and len(part) > PIECE_CHARACTERS
        if ends and not len(_DOLLARS.findall(part)) % 2:
            yield part
            part = ""
    yield part


def _path(directory: Path, name: str) -> Path:
    return directory / "sql" / f"{name}.sql"


def _text(directory: Path, name: str) -> str:
    return _path(directory, name).read_text(encoding="utf-8", errors="replace")


def prepared(directory: Path, conninfo: str = "") -> None:
    """Make the database that others are made of."""
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{BASE}"'.encode())
        admin.execute(f"CREATE DATABASE \"{BASE}\" TEMPLATE template0 ENCODING 'UTF8'".encode())
    with psycopg.connect(conninfo, dbname=BASE, autocommit=True) as connection:
        for name in SETUP:
            for text in Psql(directory).statements(_text(directory, name)) if _path(directory, name).exists() else ():
                connection.pgconn.exec_(text)
        connection.execute("VACUUM ANALYZE")


def tried(directory: Path, name: str, conninfo: str = "") -> Verdicts:
    """Run a file in a database of its own; what is left of it stays: a subscription would not let it go."""
    database = f"truth_{name}".replace(".", "_")
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{database}"'.encode())
        admin.execute(f'CREATE DATABASE "{database}" TEMPLATE "{BASE}"'.encode())
    with psycopg.connect(conninfo, dbname=database, autocommit=True) as connection:
        # Plans of the questions are made once: they take longer than most statements.
        connection.execute("SET statement_timeout = '3s'; SET plan_cache_mode = force_generic_plan; SET jit = off")
        truth = Truth(connection)
        for text in Psql(directory).statements(
            (directory / "sql" / f"{name}.sql").read_text(encoding="utf-8", errors="replace")
        ):
            _try(truth, text)
        return truth.verdicts


def _try(truth: Truth, text: bytes) -> None:
    try:
        truth.try_(text)
    except ConnectionError:
        truth.verdicts.lost.append((text.decode("utf-8", "replace"), "the server ended the connection"))
    except Exception:  # noqa: BLE001 - the rest of the corpus is of interest all the same; a test says that there is none
        truth.verdicts.lost.append((text.decode("utf-8", "replace"), traceback.format_exc(limit=-3)))
        truth.connection.pgconn.exec_(b"ROLLBACK")


def names(directory: Path) -> list[str]:
    """Give the names of the files, without those that come before all."""
    return sorted(path.stem for path in (directory / "sql").glob("*.sql") if path.stem != SETUP[0])


def all_tried(directory: Path, chosen: list[str], conninfo: str = "") -> Verdicts:
    """Run files, some side by side."""
    prepared(directory, conninfo)
    total = Verdicts()
    with ProcessPoolExecutor(PROCESSES) as pool:
        for name, found in zip(chosen, pool.map(partial(tried, directory, conninfo=conninfo), chosen), strict=True):
            found.wrong = [(f"{name}: {text}", problem) for text, problem in found.wrong]
            total.add(found)
    return total


def main() -> int:
    """Run files on a server of their own, print what came of it; give what is wrong with it as a status."""
    directory = Path(sys.argv[1]).resolve()
    with TemporaryDirectory(prefix="capd-regression-", ignore_cleanup_errors=True) as name:
        work = Path(name)
        work.chmod(0o755)
        with database(work / "server", make(work)) as server:
            told = {variable.removeprefix("PG").lower(): value for variable, value in server.environment.items()}
            told = {key: value for key, value in told.items() if key in {"host", "hostaddr", "port", "user", "password"}}
            conninfo = make_conninfo(**told, dbname="postgres", sslmode="disable")
            found = all_tried(directory, sys.argv[2:] or names(directory), conninfo)
    sys.stdout.write(found.report())
    return int(bool(found.wrong) or len(found.lost) > LOST_MAX or (not sys.argv[2:] and found.share_of_readable < SHARE_MIN))


if __name__ == "__main__":
    sys.exit(main())
