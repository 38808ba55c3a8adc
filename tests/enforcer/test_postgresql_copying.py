"""What a client says between a COPY and the server's word that it wants data: to a real server, alone and behind capd.

What lives here: that both come to the same. What must not: single messages of the core, what is denied, masking.
"""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from tests.enforcer.postgresql_model import (
    FLUSH,
    SYNC,
    bind,
    close,
    describe,
    error_fields,
    execute,
    message,
    messages,
    parse,
    query,
)
from tests.enforcer.test_postgresql_live import Place, place, shared  # noqa: F401 - fixtures

COPY = query("copy copied from stdin")
COPIES = parse("copy copied from stdin") + bind() + execute()
DATA, DONE = message("d", b"1\n"), message("c")
SELECT = query("select 7")
RUN = parse("select 7") + bind() + execute()
CALL = message("F", bytes(10))

ENDS = {
    "Query": COPY + SELECT,
    "Query, with its data behind": COPY + SELECT + DATA + DONE,
    "two Queries": COPY + SELECT + SELECT,
    "Parse": COPY + parse("select 7"),
    "a group": COPY + RUN + SYNC,
    "Describe": COPY + describe("S"),
    "Close": COPY + close("S", "x"),
    "FunctionCall": COPY + CALL,
    "Sync, then Query": COPY + SYNC + SELECT,
    "data, then Query": COPY + DATA + SELECT,
    "a group's Query": COPIES + SELECT,
    "a group's FunctionCall": COPIES + CALL,
    "a group's Parse": COPIES + parse("select 7", "a"),
    "a group's Parse, with its data behind": COPIES + parse("select 7", "a") + DATA + DONE + SYNC,
    "a group in a group": COPIES + RUN + SYNC,
    "another COPY": COPY + COPY,
}
GOES_ON = {
    "data at once": (COPY + DATA + DONE, 1),
    "Sync": (COPY + SYNC + DATA + DONE + SELECT, 2),
    "Flush": (COPY + FLUSH + DATA + DONE + SELECT, 2),
    "a group": (COPIES + SYNC + DATA + DONE + SYNC, 1),
    "no relation": (query("copy nowhere from stdin") + SELECT, 2),
    "no relation, with its data": (query("copy nowhere from stdin") + DATA + DONE + SELECT, 2),
    "no relation, Sync": (query("copy nowhere from stdin") + SYNC + SELECT, 3),
    "in a transaction": (query("begin") + query("copy nowhere from stdin") + SELECT + query("rollback"), 4),
}


@pytest.fixture
def copying(place: Place) -> Place:  # noqa: F811 - the fixture
    """Give a server with a table to copy to, and the proxy before it."""
    place.direct("drop table if exists copied; create table copied (a int)")
    return place


def heard(place: Place, said: bytes, readies: int, *, behind: bool) -> tuple[list[tuple[str, str]], bool]:  # noqa: F811 - the fixture
    """Say bytes at once; gives the messages that come, up to so many ReadyForQuery, and whether the connection was ended."""
    alone = {} if behind else {"host": "127.0.0.1", "hostaddr": "127.0.0.1", "port": str(place.server.port)}
    answer, ended = b"", False
    with (
        closing(place.connect(sslmode="disable", **alone)) as connection,
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as client,
    ):
        client.settimeout(20)
        client.sendall(said)
        while not ended and answer.count(b"Z\0\0\0\5") < readies:
            data = client.recv(65_536)
            answer, ended = answer + data, not data
    told = [(code, error_fields(body)["C"] if code == "E" else body.decode("latin-1")) for code, body in messages(answer)]
    return told, ended


@pytest.mark.parametrize("name", ENDS)
def test_what_is_no_data_ends_the_session(copying: Place, name: str) -> None:
    """As the server does: it says that this means nothing here, and the session is over, with nothing copied or run."""
    for behind in (False, True):
        told, ended = heard(copying, ENDS[name], 9, behind=behind)
        assert ended, (behind, told)
        assert ("E", "08P01") == told[-1]
        assert not [code for code, _ in told if code in "DCZ"]
    assert "0\n" == copying.direct("select count(*) from copied")


@pytest.mark.parametrize("name", GOES_ON)
def test_what_goes_on(copying: Place, name: str) -> None:
    """Message for message what the server says alone."""
    said, readies = GOES_ON[name]
    alone = heard(copying, said, readies, behind=False)
    assert alone == heard(copying, said, readies, behind=True)
    assert not alone[1]
