"""Rows 16 to 24 of the design's table, from inside of a run of a whole `capd up`: what is more than it looks like.

What lives here: what an agent says to databases, and the sink's servers of them, which keep each statement that they hear. What
must not: what real servers make of statements (enforcer/test_postgresql_walked_around.py, enforcer/sql/), masks, which are row
21 (enforcer/test_masking_postgresql.py, enforcer/test_masking_mysql.py).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from capd.enforcer.decision_words import said_sha256
from tests.decoders import mysql_bytes as my
from tests.enforcer import mysql_model
from tests.enforcer import postgresql_model as pg
from tests.forcing.instance import Instance, _end, instance
from tests.forcing.test_bypass_table import BAD, DENIED, clear, heard
from tests.forcing.yard import Yard, inside
from tests.requirements import require_command, require_probes

pytestmark = pytest.mark.kernel
POSTGRESQL_PORT, MYSQL_PORT = 5433, 3306
POLICY = """\
rules:
  - {id: web, match: {protocols: [http], hosts: ["10.77.0.2"], paths: ["/open/**"]}, then: allow}
  - id: reads
    match: {protocols: [postgresql, mysql], hosts: ["10.77.0.2"], effects: [select, session], resources: ["*.open"]}
    then: allow
"""
WALKED = "walked"
"""What nothing that arrives may have in it: a relation that no rule allows, or a word beside what is not allowed."""

MYSQL = [
    ("16 a comment that is executed", "/*!50000 delete from walked */"),
    ("16 the same within what is allowed", "select a from open /*!50000 union select a from walked */"),
    ("16 of a version that there is none of", "select a from open /*!99999 union select a from walked */"),
    ("16 MariaDB's own", "/*M!100100 delete from walked */"),
    ("16 within a comment", "select a from open /* /*!50000 union select a from walked */ */"),
    ("17 behind a WITH", "with x as (select a from walked) select * from x"),
    ("17 a second statement", "select a from open; delete from walked"),
    ("17 behind a comment", "select a from open -- \n; drop table walked"),
    ("17 another delimiter", "select a from open\n;\0delete from walked"),
    ("18 a function", "do walked()"),
    ("18 a function in a list", "select a, walked() from open"),
    ("18 a procedure", "call walked()"),
    ("18 a file is read", "select load_file('walked') from open"),
    ("18 a file is written", "select a from open into outfile 'walked'"),
    ("18 a file is loaded", "load data local infile 'walked' into table open"),
    ("19 quotes change", "set sql_mode = 'ANSI_QUOTES' /* walked */"),
    ("19 encodings change", "set names gbk /* walked */"),
    ("22 a text that is run", "prepare s from 'delete from walked'"),
    ("22 a text that is executed", "execute immediate 'delete from walked'"),
]
POSTGRESQL = [
    ("17 writes behind a WITH", "with x as (delete from walked returning *) select * from open"),
    ("17 a second statement", "select a from open; delete from walked"),
    ("17 behind a comment", "select a from open /* /* */ */; drop table walked --"),
    ("18 a block", "do $$begin delete from walked; end$$"),
    ("18 a procedure", "call walked()"),
    ("18 a function", "select walked(a) from open"),
    ("18 a function in FROM", "select a from open, dblink('walked', 'x') as t(a text)"),
    ("18 a file", "select pg_read_file('walked') from open"),
    ("18 a program", "copy open to program 'walked'"),
    ("18 an explanation that runs", "explain analyze delete from walked"),
    ("19 strings change", "set standard_conforming_strings = off /* walked */"),
    ("19 what two readers end elsewhere", r"select '\', (select s from walked) --'"),
    ("22 a text that is run", "prepare p as delete from walked"),
    ("22 another role", "set role walked"),
    ("22 another user", "set session authorization walked"),
    ("22 another schema", "set search_path to walked"),
]
EXEC = "/open/api/v1/namespaces/a/pods/b/exec?command=sh&stdin=1"
SOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
)
SHELLS = [
    ("23 SSH", 'say(b"SSH-2.0-OpenSSH_9.6\\r\\n", port=2525)', (*DENIED, "cut")),
    ("24 a GET that runs a command, by WebSocket", f"say(get({EXEC!r}, more={SOCKET!r}))", BAD),
    ("24 a node's proxy beside the paths that are allowed", 'say(get("/open/../api/v1/nodes/a/proxy/run/b?cmd=sh"))', BAD),
]
HELPERS = """
def until(client, words, got=b""):
    while not got.endswith(words):
        part = client.recv(65536)
        if not part: break
        got += part
    return got
def postgresql(port, first, ready, said):
    with socket.create_connection(("10.77.0.2", port), 20) as client:
        client.sendall(first)
        until(client, ready)
        client.sendall(said)
        return until(client, ready).decode("latin-1")
def mysql(port, login, said):
    with socket.create_connection(("10.77.0.2", port), 20) as client:
        client.recv(65536)
        client.sendall(login)
        client.recv(65536)
        client.sendall(said)
        return client.recv(65536).decode("latin-1")
"""
READY = pg.message("Z", b"I")


class Servers:
    """What listens at the sink's ports of databases: a model for each connection."""

    def __init__(self) -> None:
        self.known: list[pg.Server | mysql_model.Server] = []

    def serve(self, listener: socket.socket, make: Callable[[], pg.Server | mysql_model.Server]) -> None:
        """Take connections until the listener is shut."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client, make()), daemon=True).start()

    def _talk(self, client: socket.socket, server: pg.Server | mysql_model.Server) -> None:
        self.known.append(server)
        with client, contextlib.suppress(OSError):
            if isinstance(server, mysql_model.Server):
                client.sendall(server.greets())
            while not server.over and (data := client.recv(65_536)):
                client.sendall(server.hears(data))

    def take(self) -> list[str]:
        """Give every statement that came since the last call."""
        known, self.known = self.known, []
        return [text for server in known for text in server.heard]


@pytest.fixture(scope="module")
def servers(ground: Yard) -> Iterator[Servers]:
    """Start them at the sink."""
    made = Servers()
    with contextlib.ExitStack() as stack:
        for port, make in ((POSTGRESQL_PORT, pg.Server), (MYSQL_PORT, mysql_model.Server)):
            listener = inside(ground.sink, partial(socket.create_server, ("10.77.0.2", port)))
            thread = threading.Thread(target=made.serve, args=(listener, make), daemon=True)
            thread.start()
            stack.callback(_end, listener, thread)
        yield made


@pytest.fixture(scope="module")
def place(ground: Yard, servers: Servers) -> Iterator[Instance]:
    """Start what all rows share; that a statement which is allowed arrives shows that the others could."""
    require_probes()
    require_command("nft", "nsenter", "setpriv")
    with instance(ground, policy=POLICY) as made:
        made.user.does(f"exec({HELPERS!r}, globals())\nreturn 1")
        for answer in (postgresql(made, pg.query("select a from open")), mysql(made, my.query("select a from open"))):
            assert "a" in answer
        assert ["select a from open"] * 2 == servers.take()
        yield made


def postgresql(place: Instance, said: bytes) -> str:
    """Let the agent sign in and say something; give what it read."""
    return place.user.does(f"return postgresql({POSTGRESQL_PORT}, {pg.startup()!r}, {READY!r}, {said!r})")


def mysql(place: Instance, said: bytes) -> str:
    """Do the same in MySQL."""
    return place.user.does(f"return mysql({MYSQL_PORT}, {my.login()!r}, {said!r})")


def decided(place: Instance, texts: list[str]) -> bool:
    """Say whether each statement that arrived has a decision that allows it."""
    allowed = {
        entry["text_sha256"]
        for entry in place.entries()
        if entry["kind"] == "decision" and entry.get("text_sha256") and entry["allowed"]
    }
    return {said_sha256(text) for text in texts} <= allowed


@pytest.mark.parametrize("sql", [row[1] for row in MYSQL], ids=[row[0] for row in MYSQL])
@pytest.mark.parametrize("prepared", [False, True], ids=["said", "20 prepared"])
def test_nothing_gets_past_in_mysql(place: Instance, servers: Servers, sql: str, prepared: bool) -> None:
    """The statement, or message with several, is answered with an error, and none of it reaches the server."""
    servers.take()
    found = mysql(place, my.prepare(sql) if prepared else my.query(sql))
    assert "\xff" in found
    texts = servers.take()
    assert [] == [text for text in texts if WALKED in text]
    assert decided(place, texts)


@pytest.mark.parametrize("sql", [row[1] for row in POSTGRESQL], ids=[row[0] for row in POSTGRESQL])
@pytest.mark.parametrize("prepared", [False, True], ids=["said", "20 prepared"])
def test_nothing_gets_past_in_postgresql(place: Instance, servers: Servers, sql: str, prepared: bool) -> None:
    """The same there."""
    servers.take()
    found = postgresql(place, pg.parse(sql) + pg.bind() + pg.execute() + pg.SYNC if prepared else pg.query(sql))
    assert "C42501" in found
    texts = servers.take()
    assert [] == [text for text in texts if WALKED in text]
    assert decided(place, texts)


@pytest.mark.parametrize(("body", "ends"), [row[1:] for row in SHELLS], ids=[row[0] for row in SHELLS])
def test_no_shell_is_opened(place: Instance, body: str, ends: tuple[str, ...]) -> None:
    """What is no protocol of capd's is opaque, and denied; what opens a shell needs its own rule. The sink hears nothing."""
    clear(place)
    found = place.user.does(body)
    assert found.startswith(ends), found
    assert [] == heard(place)
