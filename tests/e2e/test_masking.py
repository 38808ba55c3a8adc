"""What the masking rules cover is on no disk: an agent's secrets are searched for in every file that capd keeps.

What lives here: a real agent over HTTPS and PostgreSQL, what must be found where. What must not: rules (tests/enforcer), the
search (searched.py).
"""

from __future__ import annotations

import base64
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from capd.recording.catalogue.schema import DECIDER, TABLES
from tests.daemon.conftest import wait_until
from tests.e2e.certificates import Certificates
from tests.e2e.http2 import http2_server
from tests.e2e.instance import CLIENTS, Instance
from tests.e2e.postgres import Database, environment, relay
from tests.e2e.searched import OPENED, everything, traces
from tests.e2e.truth import Server, serving
from tests.e2e.websocket import websocket_server
from tests.requirements import require_command, require_probes

pytestmark = pytest.mark.e2e

RULES = '[catalogue]\ndelay_seconds = 1\n[masking]\ncolumns = ["ssn"]\njson_paths = ["$.user.pin"]\n'
BEARER, COOKIE, PASSWORD = "bearer-Qx7fT2vK9s", "cookie-Zr4mW8pL1d", "hunter2-Jb6yN3cE5g"
PIN, SSN, ARGUMENT = "pin-Hk2sV9tU7a", "ssn-Mw5dX8rB4e", "argument-Lf8jC1nO6i"
KEY = "sk-ant-api03-" + "Gy3kPz9Q" * 4
CARD = "4539578763621486"
BEARER2, COOKIE2, PASSWORD2 = "bearer-Wc3nR7uD2p", "cookie-Vt9hS5jF6x", "hunter2-Ek4aB8mZ1q"
"""What is said over HTTP/2, where a secret in a header is in a code of bits."""
SPOKEN, PACKED = "hunter2-Ns6pY2wC8r", "hunter2-Df1xM7vL3g"
"""What is said over WebSocket, scrambled and packed: the latter is in no capture of bytes."""
SECRETS = (BEARER, COOKIE, PASSWORD, PIN, SSN, KEY, CARD, ARGUMENT, BEARER2, COOKIE2, PASSWORD2, SPOKEN, PACKED)
WORDS = tuple(secret.rpartition("-")[2].lower() for secret in (BEARER, COOKIE, PASSWORD, PIN, SSN, KEY))
"""As the full-text index keeps what is said: cut at signs, in small letters."""
HOLDING = ("segments", "index", "catalogue", "bucket")
"""Where a recording without masking holds all that was said."""
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


def catalogued(bucket: Path) -> int:
    """Give how many segments the catalogue has in all of its tables: the file of `segments` is the first to be there."""
    parts = bucket.rglob(f"catalogue/{DECIDER}/**/*.parquet")
    whole = [part for part in parts if len(list(bucket.glob(f"catalogue/*/{'/'.join(part.parts[-3:])}"))) == len(TABLES)]
    return sum(pq.read_metadata(part).num_rows for part in whole)


def recorded(
    directory: Path, trusted: Certificates, mirrors: Sequence[Server], database: Database, level: str
) -> dict[str, set[str]]:
    """Record the agent at a level, ship that, and end; give which secrets are where."""
    place = directory / level
    bucket = place / "bucket"
    for made in (place, bucket):
        made.mkdir()
        made.chmod(0o777)
    instance = Instance(place, f'bucket_url = "{bucket}"\n{RULES}', level=level)
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
        instance.wait_sealed()
        for session in sessions:
            instance.ask("verify", session["session"])
        sealed = len(list((instance.state / "segments").glob("*.seg")))
        wait_until(lambda: sealed <= len(list(bucket.rglob("*.seg"))), "everything is shipped")
        wait_until(lambda: sealed <= catalogued(bucket), "everything is in the catalogue")
    finally:
        assert 0 == instance.stop()
    return traces(everything(instance, bucket), (*SECRETS, *WORDS))


@pytest.mark.parametrize("secret", SECRETS)
def test_every_form_is_found(secret: str) -> None:
    """The search finds a secret in bytes, hex, percent signs, UTF-16, in base64 and Huffman code wherever it begins."""
    for before in range(4):
        plain = b"\xff\xef"[: before % 3] + secret.encode() + b"\xfe\xed"
        for coded in (
            plain,
            plain.hex().encode(),
            base64.b64encode(plain),
            base64.urlsafe_b64encode(plain),
            "".join(f"%{byte:02X}" for byte in plain).encode(),
            b"\0" * before + secret.encode("utf-16-le"),
        ):
            assert {"here": {secret}} == traces([("here", b"before " + coded + b" behind")], [secret])
    code = "".join(f"{REQUEST_CODES[byte]:0{REQUEST_CODES_LENGTH[byte]}b}" for byte in secret.encode())
    for before in range(8):
        bits = ("1" * before + code).ljust(len(code) + 16, "1")
        coded = int(bits[: len(bits) // 8 * 8], 2).to_bytes(len(bits) // 8, "big")
        assert {"here": {secret}} == traces([("here", b"before " + coded)], [secret])
    assert {"here": set()} == traces([("here", secret[:-1].encode())], [secret])


@pytest.mark.slow
def test_no_secret_is_kept(directory: Path, trusted: Certificates, mirror: Server, database: Database) -> None:
    """No covered secret is in any file, in any form; at the level `full` they are found wherever what was said is held."""
    require_probes()
    for command in ("curl", "psql"):
        require_command(command)
    with serving(http2_server(trusted)) as mirror2, serving(websocket_server(trusted)) as parrot:
        masked = recorded(directory, trusted, (mirror, mirror2, parrot), database, "masked")
        full = recorded(directory, trusted, (mirror, mirror2, parrot), database, "full")
    assert {OPENED: set(SECRETS) - {PACKED}, **{place: set() for place in masked.keys() - {OPENED}}} == masked
    assert {*HOLDING, "journal", "logs", "recorder", "runtime", OPENED} <= masked.keys() & full.keys()
    assert {place: set(SECRETS) for place in HOLDING} == {place: full[place] & set(SECRETS) for place in HOLDING}
    assert set(WORDS) <= full["index"], "the words of the full-text index are searched too"
    assert set() == full["journal"] | full["logs"], "what is raw is encrypted, and nothing that was said is told"
