"""An agent that speaks to PostgreSQL through the proxy, by libpq, and keeps every byte that it has of it.

What lives here: every way of the protocol. What must not: statements, what is expected.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

SILENCE_SECONDS_MAX = 120
ROWS_STATUS = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY)
WAYS = ("simple", "extended", "binary", "prepared", "pipeline", "cursor")


@dataclass
class Heard:
    """What a client has of one statement.

    Attributes:
        said: every value, error and notice.
        status: of its last result.
    """

    said: list[bytes] = field(default_factory=list)
    status: int = ExecStatus.EMPTY_QUERY

    def take(self, pgconn: PGconn, result: PGresult) -> None:
        """Keep all of a result."""
        self.status = result.status
        if result.status == ExecStatus.COPY_OUT:
            while (got := pgconn.get_copy_data(1))[0] >= 0:
                if got[0] == 0:
                    wait(pgconn)
                else:
                    self.said.append(bytes(got[1]))
            while (after := next_result(pgconn)) is not None:
                self.take(pgconn, after)
            self.status = ExecStatus.TUPLES_OK
            return
        for row in range(result.ntuples):
            values = (result.get_value(row, column) for column in range(result.nfields))
            self.said += [value for value in values if value is not None]
        self.said += [value for one in DiagnosticField if (value := result.error_field(one))]


def wait(pgconn: PGconn) -> None:
    """Wait for the server; libpq itself would wait with the interpreter locked, in which the proxy runs."""
    assert select.select([pgconn.socket], [], [], SILENCE_SECONDS_MAX)[0], "the proxy is silent"
    pgconn.consume_input()


def next_result(pgconn: PGconn) -> PGresult | None:
    """Give the next result."""
    while pgconn.is_busy():
        wait(pgconn)
    return pgconn.get_result()


class Client:
    """libpq through the proxy."""

    def __init__(self, words: dict[str, str]) -> None:
        self.connection = psycopg.connect(**words, autocommit=True)  # type: ignore[arg-type] # of libpq's own words
        self.pgconn = self.connection.pgconn
        self.heard = Heard()
        self._numbers = count()
        self.connection.add_notice_handler(lambda notice: self.heard.said.append(repr(notice).encode()))
        self.pgconn.notice_handler = lambda result: self.heard.take(self.pgconn, result)

    def run(self, text: str, way: str) -> Heard:
        """Run a statement in one of WAYS, within a transaction that is taken back."""
        self.heard = heard = Heard()
        self.pgconn.exec_(b"BEGIN")
        said = text.encode()
        status = heard.status
        for result in self._results(said, way):
            heard.take(self.pgconn, result)
            status = max(status, heard.status) if heard.status not in ROWS_STATUS else heard.status
        heard.status = status
        self.pgconn.exec_(b"ROLLBACK")
        again = self.pgconn.exec_(b"SELECT 'in step'")
        assert (ExecStatus.TUPLES_OK, b"in step") == (again.status, again.get_value(0, 0)), (text, way)
        return heard

    def close(self) -> None:
        """End it."""
        self.connection.close()

    def _results(self, said: bytes, way: str) -> Iterator[PGresult]:
        pgconn = self.pgconn
        if way == "simple":
            yield pgconn.exec_(said)
        elif way in {"extended", "binary"}:
            yield pgconn.exec_params(said, [], result_format=int(way == "binary"))
        elif way == "prepared":
            name = b"p%d" % next(self._numbers)
            prepared = pgconn.prepare(name, said)
            yield prepared
            if prepared.status == ExecStatus.COMMAND_OK:
                yield pgconn.exec_prepared(name, [])
        elif way == "cursor":
            declared = pgconn.exec_(b"DECLARE c CURSOR FOR " + said)
            yield declared
            if declared.status == ExecStatus.COMMAND_OK:
                yield pgconn.exec_(b"FETCH 3 FROM c")
                yield pgconn.exec_params(b"FETCH ALL FROM c", [], result_format=1)
        else:
            yield from self._pipeline(said)

    def _pipeline(self, said: bytes) -> Iterator[PGresult]:
        pgconn = self.pgconn
        pgconn.enter_pipeline_mode()
        for text in (b"SELECT 1", said, b"SELECT 2"):
            pgconn.send_query_params(text, [])
        pgconn.pipeline_sync()
        pgconn.flush()
        while True:
            result = next_result(pgconn)
            if result is None:
                continue
            if result.status == ExecStatus.PIPELINE_SYNC:
                break
            yield result
        assert next_result(pgconn) is None
        pgconn.exit_pipeline_mode()
