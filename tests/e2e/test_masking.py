"""What the masking rules cover is on no disk: an agent's secrets are searched for in every file that capd keeps.

What lives here: a real agent over HTTPS and PostgreSQL, what must be found where. What must not: rules (tests/enforcer), the
search (searched.py).
"""

from __future__ import annotations

import base64
import re
import shlex
from pathlib import Path

import pytest

from tests.e2e.certificates import Certificates
from tests.e2e.instance import Instance
from tests.e2e.postgres import Database, environment, relay
from tests.e2e.searched import OPENED, everything, traces
from tests.e2e.truth import Server, wait_until
from tests.requirements import require_command, require_probes

pytestmark = pytest.mark.e2e

RULES = '[catalogue]\ndelay_seconds = 1\n[masking]\ncolumns = ["ssn"]\njson_paths = ["$.user.pin"]\n'
BEARER, COOKIE, PASSWORD = "bearer-Qx7fT2vK9s", "cookie-Zr4mW8pL1d", "hunter2-Jb6yN3cE5g"
PIN, SSN, ARGUMENT = "pin-Hk2sV9tU7a", "ssn-Mw5dX8rB4e", "argument-Lf8jC1nO6i"
KEY = "sk-ant-api03-" + "Gy3kPz9Q" * 4
CARD = "4539578763621486"
SHIPPED_SECONDS = 60.0
WORDS = tuple(secret.rpartition("-")[2].lower() for secret in (BEARER, COOKIE, PASSWORD, PIN, SSN, KEY))
"""As the full-text index keeps what is said: cut at signs, in small letters."""
HOLDING = ("segments", "index", "catalogue", "bucket")
"""Where a recording without masking holds all that was said."""
SECRETS = (BEARER, COOKIE, PASSWORD, PIN, SSN, KEY, CARD, ARGUMENT)
CURL = f"""url = "https://127.0.0.1:PORT/masked?api_key={PASSWORD}&n=/10"
header = "Authorization: Bearer {BEARER}"
header = "Cookie: sid={COOKIE}"
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


def talk(directory: Path, ca: Path, port: int) -> list[str]:
    """Give a command in which an agent says all of its secrets. They are in files: the arguments have but one."""
    (directory / "body").write_text(BODY)
    (directory / "curl").write_text(CURL.replace("PORT", str(port)).replace("BODY", str(directory / "body")))
    said = {"REVERSED": SSN[::-1], "CARD": CARD, "PASSWORD": PASSWORD}
    (directory / "sql").write_text(re.sub("|".join(said), lambda found: said[found[0]], SQL))
    curl = ["curl", "-sSf", "--http1.1", "--cacert", str(ca), "-o", "/dev/null", "-K", str(directory / "curl")]
    psql = ["psql", "-X", "-q", "-o", "/dev/null", "-f", str(directory / "sql")]
    lines = ["set -e", shlex.join(curl), shlex.join(psql), shlex.join(["/bin/true", "--password", ARGUMENT])]
    return ["/bin/sh", "-c", "\n".join(lines)]


def recorded(directory: Path, trusted: Certificates, mirror: Server, database: Database, level: str) -> dict[str, set[str]]:
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
            command = talk(directory, trusted.authority, mirror.port)
            instance.run("masked", *command, environment=environment(port, trusted))
            ledger.take(1)
        mirror.ledger.take(1)
        instance.settled("masked", 2, transport="tcp")
        instance.wait_sealed()
        sealed = len(list((instance.state / "segments").glob("*.seg")))
        wait_until(lambda: sealed <= len(list(bucket.rglob("*.seg"))), SHIPPED_SECONDS, "everything is shipped")
        wait_until(lambda: any(bucket.rglob("catalogue/messages/**/*.parquet")), SHIPPED_SECONDS, "there is a catalogue")
    finally:
        assert 0 == instance.stop()
    return traces(everything(instance, bucket), (*SECRETS, *WORDS))


@pytest.mark.parametrize("secret", SECRETS)
def test_every_form_is_found(secret: str) -> None:
    """The search finds a secret in bytes, hex, percent signs, UTF-16, and in base64 wherever in the coded bytes it begins."""
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
    assert {"here": set()} == traces([("here", secret[:-1].encode())], [secret])


@pytest.mark.slow
def test_no_secret_is_kept(directory: Path, trusted: Certificates, mirror: Server, database: Database) -> None:
    """No covered secret is in any file, in any form; at the level `full` they are found wherever what was said is held."""
    require_probes()
    for command in ("curl", "psql"):
        require_command(command)
    masked = recorded(directory, trusted, mirror, database, "masked")
    full = recorded(directory, trusted, mirror, database, "full")
    assert {OPENED: set(SECRETS), **{place: set() for place in masked.keys() - {OPENED}}} == masked
    assert {*HOLDING, "journal", "logs", "recorder", "runtime", OPENED} <= masked.keys() & full.keys()
    assert {place: set(SECRETS) for place in HOLDING} == {place: full[place] & set(SECRETS) for place in HOLDING}
    assert set(WORDS) <= full["index"], "the words of the full-text index are searched too"
    assert set() == full["journal"] | full["logs"], "what is raw is encrypted, and nothing that was said is told"
