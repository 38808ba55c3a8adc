"""What the masking rules cover is on no disk: an agent's secrets are searched for in every file that capd keeps.

What lives here: a real agent over HTTPS and PostgreSQL, the search, its control. What must not: rules (tests/enforcer).
"""

from __future__ import annotations

import base64
import re
import shlex
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from capd.recording.record import pack
from capd.recording.segment import SegmentReader
from tests.e2e.certificates import Certificates
from tests.e2e.http2 import http2_server
from tests.e2e.instance import CLIENTS, Instance
from tests.e2e.postgres import Database, environment, relay
from tests.e2e.truth import Server, serving
from tests.e2e.websocket import websocket_server
from tests.requirements import require_command, require_probes

pytestmark = pytest.mark.e2e

RULES = '[masking]\ncolumns = ["ssn"]\njson_paths = ["$.user.pin"]\n'
BEARER, COOKIE, PASSWORD = "bearer-Qx7fT2vK9s", "cookie-Zr4mW8pL1d", "hunter2-Jb6yN3cE5g"
PIN, SSN, ARGUMENT = "pin-Hk2sV9tU7a", "ssn-Mw5dX8rB4e", "argument-Lf8jC1nO6i"
KEY = "sk-ant-api03-" + "Gy3kPz9Q" * 4
CARD = "4539578763621486"
BEARER2, COOKIE2, PASSWORD2 = "bearer-Wc3nR7uD2p", "cookie-Vt9hS5jF6x", "hunter2-Ek4aB8mZ1q"
"""What is said over HTTP/2, where a secret in a header is in a code of bits."""
COMPRESSED = (BEARER2, COOKIE2)
SPOKEN, PACKED = "hunter2-Ns6pY2wC8r", "hunter2-Df1xM7vL3g"
"""What is said over WebSocket, scrambled and packed."""
SECRETS = (BEARER, COOKIE, PASSWORD, PIN, SSN, KEY, CARD, ARGUMENT, BEARER2, COOKIE2, PASSWORD2, SPOKEN, PACKED)
CURL = f"""url = "https://127.0.0.1:PORT/masked?api_key={PASSWORD}&n=/10"
header = "Authorization: Bearer {BEARER}"
header = "Cookie: sid={COOKIE}"
header = "Content-Type: application/json"
data = "@BODY"
"""
CURL2 = f"""url = "https://127.0.0.1:PORT/masked/10?api_key={PASSWORD2}"
header = "Authorization: Bearer {BEARER2}"
header = "Cookie: sid={COOKIE2}"
header = "Content-Type: application/json"
data = "@BODY"
"""
BODY = f'{{"user": {{"pin": "{PIN}", "name": "ada"}}, "password": "{PASSWORD}", "note": "key {KEY} card {CARD}"}}'
SQL = """CREATE TEMP TABLE t (id int, ssn text);
INSERT INTO t VALUES (1, reverse('REVERSED'));
SELECT * FROM t;
COPY t (id, ssn) TO STDOUT;
SELECT 'CARD' /* password 'PASSWORD' */;
"""


def forms(secret: str) -> Iterator[bytes]:
    """Give a secret as it is, in hex, and in base64 at each of the three places where it may begin."""
    plain = secret.encode()
    yield plain
    yield plain.hex().encode()
    yield plain.hex().upper().encode()
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + plain)
        # Characters that neighbours would change are left out.
        yield coded[(0, 2, 3)[before] : len(coded) - 4]
    yield from huffman_forms(secret)


def huffman_forms(secret: str) -> Iterator[bytes]:
    """Give a secret in the code of HTTP/2's headers (RFC 7541), at each of the eight bits at which it may begin."""
    bits = "".join(f"{REQUEST_CODES[byte]:0{REQUEST_CODES_LENGTH[byte]}b}" for byte in secret.encode())
    for before in range(8):
        whole = bits[before : before + (len(bits) - before) // 8 * 8]
        yield int(whole, 2).to_bytes(len(whole) // 8, "big")


def everything(instance: Instance) -> dict[str, bytes]:
    """Give all that an instance keeps: files as they are, and segments and the index as a reader sees them."""
    files = (path for path in instance.directory.rglob("*") if path.is_file() and not path.is_symlink())
    found = {str(path): path.read_bytes() for path in files}
    for path in (instance.state / "segments").glob("*.seg"):
        with SegmentReader(path) as reader:
            found[f"{path} unpacked"] = b"".join(pack(record) for record in reader.records())
    database = instance.state / "index" / "capd.db"
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    found[f"{database} as SQL"] = "\n".join(connection.iterdump()).encode("utf-8", "surrogatepass")
    connection.close()
    return found


def traces(instance: Instance, secrets: Sequence[str]) -> list[tuple[str, str]]:
    """Give where which secret is, in any form."""
    kept = everything(instance)
    assert any(name.endswith("unpacked") for name in kept)
    found = {
        (secret, Path(name).name) for secret in secrets for form in forms(secret) for name, data in kept.items() if form in data
    }
    return sorted(found)


def talk(directory: Path, ca: Path, port: int, port2: int, port3: int) -> list[str]:
    """Give a command in which an agent says all of its secrets. They are in files: the arguments have but one."""
    (directory / "body").write_text(BODY)
    (directory / "curl").write_text(CURL.replace("PORT", str(port)).replace("BODY", str(directory / "body")))
    (directory / "curl2").write_text(CURL2.replace("PORT", str(port2)).replace("BODY", str(directory / "body")))
    said = {"REVERSED": SSN[::-1], "CARD": CARD, "PASSWORD": PASSWORD}
    (directory / "sql").write_text(re.sub("|".join(said), lambda found: said[found[0]], SQL))
    tls = ["curl", "-sSf", "--cacert", str(ca), "-o", "/dev/null"]
    curl, curl2 = [*tls, "--http1.1", "-K", str(directory / "curl")], [*tls, "--http2", "-K", str(directory / "curl2")]
    psql = ["psql", "-X", "-q", "-o", "/dev/null", "-f", str(directory / "sql")]
    for packed, secret in enumerate((SPOKEN, PACKED)):
        (directory / f"said{packed}").write_text(f'{{"password": "{secret}", "n": 1}}\n{{"n": 2}}\n')
    talking = [
        [sys.executable, str(CLIENTS / "talking.py"), str(ca), str(port3), str(directory / f"said{n}"), str(n)] for n in (0, 1)
    ]
    lines = ["set -e", *map(shlex.join, (curl, curl2, *talking, psql)), shlex.join(["/bin/true", "--password", ARGUMENT])]
    return ["/bin/sh", "-c", "\n".join(lines)]


def recorded(directory: Path, trusted: Certificates, mirrors: Sequence[Server], database: Database, level: str) -> Instance:
    """Give an instance that recorded the agent at a level, and ended."""
    place = directory / level
    place.mkdir()
    place.chmod(0o755)
    instance = Instance(place, RULES, level=level)
    try:
        instance.start()
        with relay(database.port, trusted) as (port, ledger):
            command = talk(directory, trusted.authority, *(mirror.port for mirror in mirrors))
            instance.run("masked", *command, environment=environment(port, trusted))
            ledger.take(1)
        for number, mirror in enumerate(mirrors):
            mirror.ledger.take(1 + number // 2)
        sessions = instance.settled("masked", 5, transport="tcp")
        assert {"http1", "http2", "postgresql", "websocket"} == {session["protocol"] for session in sessions}
    finally:
        assert 0 == instance.stop()
    return instance


@pytest.mark.slow
def test_no_secret_is_on_the_disk(directory: Path, trusted: Certificates, mirror: Server, database: Database) -> None:
    """No covered secret is in any file, in bytes, base64 or hex; at the level `full` each of them is found."""
    require_probes()
    for command in ("curl", "psql"):
        require_command(command)
    with serving(http2_server(trusted)) as mirror2, serving(websocket_server(trusted)) as parrot:
        masked = recorded(directory, trusted, (mirror, mirror2, parrot), database, "masked")
        full = recorded(directory, trusted, (mirror, mirror2, parrot), database, "full")
    kept = everything(full)
    for secret in COMPRESSED:
        assert any(form in data for form in huffman_forms(secret) for data in kept.values())
    assert set(SECRETS) == {secret for secret, _ in traces(full, SECRETS)}
    assert [] == traces(masked, SECRETS)
