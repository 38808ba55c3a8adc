"""What a real psql and a real server say to each other, decoded, against what psql printed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from capd.decoders.detect import detect
from capd.decoders.message import Direction, JsonValue, Message, ProtocolError, Skipped
from capd.decoders.postgresql import PostgresqlDecoder
from tests.decoders.feeding import RESPONSE, Arrival, byte_by_byte, check_spans, feed, normal
from tests.decoders.relay import Relay, free_port, relay_to
from tests.requirements import require, require_command

PASSWORD = "correct-horse-battery"
SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running PostgreSQL on loopback, and its directory, which clients may write to."""

    port: int
    directory: Path


def programs() -> Path:
    """The directory of the newest installed server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    require(found, "needs a PostgreSQL server below /usr/lib/postgresql")
    return found[-1].parent


def as_server(*command: object) -> None:
    """Run as a user that is not root, which the server demands."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*prefix, *map(str, command)], check=True, capture_output=True, cwd="/")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with a password and without TLS, so that the relay sees what is said."""
    bin_ = programs()
    require_command("psql", "pgbench")
    directory = Path(tempfile.mkdtemp(prefix="capd-pg-"))
    (directory / "password").write_text(PASSWORD, encoding="ascii")
    if os.geteuid() == 0:
        shutil.chown(directory, "postgres")
    data, port = directory / "data", free_port()
    as_server(
        bin_ / "initdb", "-D", data, "-U", "agent", "-A", "scram-sha-256", f"--pwfile={directory}/password", "-N", "-E", "UTF8"
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={directory} -c fsync=off"
    as_server(bin_ / "pg_ctl", "-s", "-w", "-D", data, "-l", directory / "log", "-o", options, "start")
    try:
        yield Server(port=port, directory=directory)
    finally:
        as_server(bin_ / "pg_ctl", "-s", "-w", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(directory)


def environment(port: int) -> dict[str, str]:
    """Libpq's variables."""
    own = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "agent", "PGPASSWORD": PASSWORD, "PGDATABASE": "postgres"}
    return {**os.environ, **own, "PGCLIENTENCODING": "UTF8", "PGGSSENCMODE": "disable"}


def psql(relay: Relay, script: str) -> str:
    """Run a script; gives what psql printed: rows only, unaligned."""
    command = ["psql", "-X", "-q", "-A", "-t", "-F", SEPARATOR, "-P", "null=<null>"]
    result = subprocess.run(command, check=False, input=script, capture_output=True, text=True, env=environment(relay.port))
    return result.stdout


def decoded(arrivals: Sequence[Arrival]) -> list[Message]:
    """All messages of a conversation, which must decode whole, the same byte by byte, and never show the password."""
    seen = feed(PostgresqlDecoder(), arrivals)
    check_spans(arrivals, seen)
    assert normal(seen) == normal(feed(PostgresqlDecoder(), byte_by_byte(arrivals)))
    assert [] == [event for event in seen if isinstance(event, Skipped | ProtocolError)]
    messages = [event for event in seen if isinstance(event, Message)]
    assert [] == [message for message in messages if message.incomplete]
    assert [] == [message for message in messages if PASSWORD in repr(message)]
    return messages


def of_type(messages: Sequence[Message], kind: str) -> list[Message]:
    """The messages of a type."""
    return [message for message in messages if message.type == kind]


def printed(fields: Mapping[str, JsonValue]) -> str:
    """A row as psql prints it."""
    values = fields["values"]
    assert isinstance(values, list)
    return SEPARATOR.join("<null>" if value is None else str(value) for value in values)


SCRIPT = """
create table t (id int primary key, name text, at timestamptz, raw bytea);
insert into t values (1, 'one', '2026-01-02 03:04:05+00', '\\x00ff'), (2, null, null, null), (3, 'drei é 漢', null, '');
select * from t order by id;
select id, name from t where name is null;
select repeat('x', 100000), generate_series(1, 3);
select * from missing;
do $$ begin raise notice 'careful'; end $$;
begin; update t set name = 'uno' where id = 1; rollback;
select count(*) from t; select 1 where false;
"""


def test_simple_queries(server: Server) -> None:
    """Statements are those that psql sent, rows are those that it printed, errors and notices are there."""
    with relay_to(server.port) as relay:
        output = psql(relay, SCRIPT)
    (arrivals,) = relay.conversations
    messages = decoded(arrivals)
    statements = [message.summary for message in of_type(messages, "Query")]
    expected = [statement.strip() for line in SCRIPT.strip().splitlines() for statement in _statements(line)]
    assert expected == statements
    # psql prints the rows of a statement only when it succeeds; none of these fails after rows.
    rows = of_type(messages, "DataRow")
    assert output.splitlines() == [printed(row.fields) for row in rows if not row.incomplete]
    assert ["42P01"] == [message.fields["code"] for message in of_type(messages, "ErrorResponse")]
    assert ["careful"] == [message.fields["message"] for message in of_type(messages, "NoticeResponse")]
    (query,) = (message for message in of_type(messages, "Query") if message.summary == "select * from missing;")
    assert [query.exchange] == [message.exchange for message in of_type(messages, "ErrorResponse")]
    kinds = {message.type for message in messages if message.exchange == 0}
    assert {"StartupMessage", "AuthenticationSASL", "SASLInitialResponse", "SASLResponse", "BackendKeyData"} <= kinds


def _statements(line: str) -> list[str]:
    """Psql sends one statement at a time; only $$ hides a semicolon in the script."""
    if "$$" in line:
        return [line]
    return [f"{part};" for part in line.split(";") if part.strip()]


def test_detected(server: Server) -> None:
    """The first bytes are recognised as PostgreSQL, with and without the request for encryption."""
    with relay_to(server.port) as relay:
        psql(relay, "select 1")
    for arrivals in relay.conversations:
        first = next(data for direction, data in arrivals if direction is Direction.REQUEST)
        assert isinstance(first, bytes)
        assert "postgresql" == detect(first, b"", None, ended=False)


def test_copy(server: Server) -> None:
    """COPY data is what psql wrote to the server and what it got from it, byte for byte."""
    rows = "".join(f"{number}\tname {number}\n" for number in range(20_000))
    with relay_to(server.port) as relay:
        script = f"create table c (id int, name text);\ncopy c from stdin;\n{rows}\\.\ncopy c to stdout;\n"
        output = psql(relay, script)
    messages = decoded(relay.conversations[0])
    assert rows == output
    data = of_type(messages, "CopyData")
    received = b"".join(message.content for message in data if message.direction is RESPONSE)
    sent = b"".join(message.content for message in data if message.direction is not RESPONSE)
    assert rows.encode() == received
    # psql 15 sends the end marker of an inline COPY along.
    assert rows.encode() == sent.removesuffix(b"\\.\n")
    tags = [message.summary for message in of_type(messages, "CommandComplete")]
    assert ["CREATE TABLE", "COPY 20000", "COPY 20000"] == tags
    asked = [message.exchange for message in of_type(messages, "Query")]
    assert asked[1:] == sorted({message.exchange for message in data if message.exchange is not None})


PIPELINE = """
\\startpipeline
select :client_id + 40 as n;
select 'text ' || :client_id as label;
\\endpipeline
select 'after' as word;
"""


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench(server: Server, mode: str) -> None:
    """The extended protocol of a real driver pairs statements, parameters and rows, in a pipeline too."""
    script = server.directory / f"{mode}.sql"
    text = PIPELINE if mode != "simple" else PIPELINE.replace("\\startpipeline", "").replace("\\endpipeline", "")
    script.write_text(text, encoding="ascii")
    command = ["pgbench", "-n", "-c", "1", "-t", "3", "-M", mode, "-f", str(script)]
    with relay_to(server.port) as relay:
        subprocess.run(command, check=True, capture_output=True, env=environment(relay.port))
    messages = decoded(max(relay.conversations, key=len))
    answers: dict[int | None, list[JsonValue]] = {}
    for row in of_type(messages, "DataRow"):
        answers.setdefault(row.exchange, []).append(row.fields["values"])
    asked = "Query" if mode == "simple" else "Execute"
    said = [(message.summary, answers.get(message.exchange)) for message in of_type(messages, asked)]
    values = ["0", "0"] if mode == "simple" else ["$1", "$1"]
    expected = [
        (f"select {values[0]} + 40 as n;", [["40"]]),
        (f"select 'text ' || {values[1]} as label;", [["text 0"]]),
        ("select 'after' as word;", [["after"]]),
    ]
    assert expected * 3 == said
    for bind in of_type(messages, "Bind"):
        assert bind.fields["parameters"] in (["0"], [])


def test_wrong_password(server: Server) -> None:
    """A refused login shows as its error, and not the password."""
    with relay_to(server.port) as relay:
        wrong = {**environment(relay.port), "PGPASSWORD": "wrong-" + PASSWORD}
        subprocess.run(["psql", "-X", "-c", "select 1"], check=False, capture_output=True, env=wrong)
    errors = of_type(decoded(relay.conversations[-1]), "ErrorResponse")
    assert [("28P01", 0)] == [(message.fields["code"], message.exchange) for message in errors]
