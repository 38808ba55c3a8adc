"""Obligations as they are carried out by the installed enforcer: real clients of a run, real targets, real sources of secrets.

What lives here: what targets get, what agents see, what is written down. What must not: the proxy's inside.
"""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest

from tests.daemon.conftest import wait_until
from tests.enforcer.yard import AGENT, Yard, yard
from tests.on_disk import content
from tests.requirements import require_command, require_root

TOKEN = "tok-1f9a/7c+3e=b2"
PASSWORD = "pa55 word&more"
PRINTED = "printed-secret-1"
SAVED = "from-a-file-of-variables"
POLICY = """\
rules:
  - {id: all, match: {protocols: [http], hosts: [api.test, other.test]}, then: allow}
  - id: token
    match: {protocols: [http], hosts: [api.test], ports: [443], paths: [/token/**, /back/token]}
    then: inject
    inject: {credential: token, form: bearer}
  - id: login
    match: {protocols: [http], hosts: [api.test], ports: [443], paths: [/login]}
    then: inject
    inject: {credential: login, form: basic}
  - id: key
    match: {protocols: [http], hosts: [api.test], ports: [443], paths: [/key]}
    then: inject
    inject: {credential: saved, form: query, parameter: api_key}
  - id: printed
    match: {protocols: [http], hosts: [api.test], ports: [443], paths: [/printed]}
    then: inject
    inject: {credential: printed, header: x-api-key, prefix: "Key "}
  - id: foreign
    match: {protocols: [http], hosts: [other.test], ports: [443], paths: [/foreign]}
    then: inject
    inject: {credential: token, form: bearer}
  - id: nobodys
    match: {protocols: [http], hosts: [api.test], ports: [443], paths: [/nobodys]}
    then: inject
    inject: {credential: nobodys, form: bearer}
  - id: unknown
    match: {protocols: [http], hosts: [api.test], ports: [443], paths: [/unknown]}
    then: inject
    inject: {credential: not-there, form: bearer}
  - id: open
    match: {protocols: [http], hosts: [api.test], ports: [80], paths: [/clear]}
    then: inject
    inject: {credential: token, form: bearer}
  - id: hide
    match: {protocols: [http], hosts: [api.test], paths: [/back/masked]}
    then: mask
    mask: {json_paths: ["$.customer.birthday", "$.salary"], keys: [pin], headers: [x-said], identifiers: [iban]}
"""
IBAN = "GR1601101050000010547023795"
PERSON = {"name": "Ann", "customer": {"birthday": "1990-02-03", "iban": IBAN}, "pin": 1234, "salary": 98765, "n": [1, 2]}
SHOWN = {"name": "Ann", "customer": {"birthday": "*" * 10, "iban": "*" * 27}, "pin": None, "salary": None, "n": [1, 2]}


@pytest.fixture(scope="module")
def place() -> Iterator[Yard]:
    """Make one for all tests here, with a credential of each source."""
    require_root()
    require_command("nft", "nsenter", "setpriv", "curl", "openssl")
    with TemporaryDirectory(prefix="capd-yard-") as name, TemporaryDirectory(prefix="capd-secrets-", dir="/root") as kept:
        secrets = Path(kept)
        write(secrets / "token", TOKEN + "\n")
        write(secrets / "login", PASSWORD)
        write(secrets / "saved.env", f"# ours\nOTHER=x\nexport API_KEY='{SAVED}'\n")
        program = secrets / "print"
        program.write_text(f"#!/bin/sh\necho run >> {secrets}/runs\necho {PRINTED}\n")
        program.chmod(0o700)
        directory = Path(name)
        with yard(directory, POLICY, enforcement=configuration(secrets)) as made:
            yield made


def write(path: Path, text: str) -> None:
    """Write a secret as an operator would."""
    path.touch(mode=0o600)
    path.write_text(text)


def configuration(secrets: Path) -> str:
    """Give the credentials."""
    bound = 'hosts = ["api.test"]\nports = [443]\n'
    return f"""
[credentials.token]
file = "{secrets}/token"
hosts = ["api.test"]
ports = [443, 80]
[credentials.login]
file = "{secrets}/login"
user = "ann"
{bound}
[credentials.saved]
environment_file = "{secrets}/saved.env"
variable = "API_KEY"
{bound}
[credentials.printed]
command = ["{secrets}/print"]
ttl_seconds = 3600
{bound}
[credentials.nobodys]
file = "{secrets}/token"
principals = ["nobody-at-all"]
{bound}
"""


def curl(place: Yard, *words: str | Path, **more: object) -> bytes:
    """Run curl as an agent that trusts our authority; give what it printed."""
    done = place.agent("curl", "-sS", "--max-time", "15", "--cacert", place.trust / "bundle.pem", *words, **more)  # type: ignore[arg-type]
    assert 0 == done.returncode, done.stderr
    return done.stdout


def told(place: Yard, *words: str) -> dict[str, Any]:
    """Give what the target says it got."""
    return cast("dict[str, Any]", json.loads(curl(place, *words)))


def digest(text: str) -> str:
    """Give what the target tells of a value."""
    return sha256(text.encode()).hexdigest()


INJECTED = [
    ("/token/x", "authorization", f"Bearer {TOKEN}", ("-H", "Authorization: Bearer mine")),
    ("/login", "authorization", "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode(), ("-u", "me:mine")),
    ("/printed", "x-api-key", f"Key {PRINTED}", ("-H", "X-Api-Key: mine", "-H", "X_API_KEY: mine")),
]


@pytest.mark.parametrize(("path", "field", "value", "words"), INJECTED, ids=[case[0] for case in INJECTED])
def test_the_target_gets_the_secret_and_the_agent_never(
    place: Yard, path: str, field: str, value: str, words: tuple[str, ...]
) -> None:
    """What the agent put in the place is replaced; the target, which says everything back, is not heard with the secret."""
    found = told(place, *words, f"https://api.test{path}")
    assert digest(value) == found["hashes"][field]
    assert "*" in found["headers"][field]
    assert not [name for name, said in found["headers"].items() if "mine" in said]
    raw = curl(place, "-i", *words, f"https://api.test{path}")
    for secret in (TOKEN, PASSWORD, PRINTED, value):
        assert secret.encode() not in raw
        assert base64.b64encode(secret.encode()).rstrip(b"=")[:-1] not in raw


def test_a_parameter_is_replaced(place: Yard) -> None:
    """A credential in the query takes the place of the agent's own, and is hidden where the target says its path back."""
    found = told(place, "https://api.test/key?a=1&API%5Fkey=mine&b=2")
    assert digest(f"/key?a=1&b=2&api_key={SAVED}") == found["path_hash"]
    assert f"/key?a=1&b=2&api_key={'*' * len(SAVED)}" == found["path"]


def test_without_an_obligation_everything_is_seen(place: Yard) -> None:
    """The control: the same target, asked where no rule masks, says what it got and what it has."""
    found = told(place, "-H", f"Authorization: Bearer {TOKEN}", "https://api.test/plain")
    assert f"Bearer {TOKEN}" == found["headers"]["authorization"]
    assert PERSON == json.loads(curl(place, "-d", json.dumps(PERSON), "https://api.test/back/plain"))


REFUSED = [
    ("https://other.test/foreign", "credential_not_bound"),
    ("https://api.test/nobodys", "credential_not_bound"),
    ("https://api.test/unknown", "credential_unknown"),
    ("http://api.test/clear", "cannot_be_carried_out"),
]


@pytest.mark.parametrize(("address", "reason"), REFUSED, ids=[case[1] + case[0][-4:] for case in REFUSED])
def test_a_credential_goes_nowhere_else(place: Yard, address: str, reason: str) -> None:
    """Outside of its binding, or in clear, a credential is not used, and the request does not go on without it."""
    status, _, body = curl(place, "-i", address).partition(b"\r\n\r\n")
    assert b" 403" in status.split(b"\r\n")[0]
    assert reason == json.loads(body)["reason"]


def test_secrets_are_read_anew(place: Yard) -> None:
    """A file that was replaced counts from the next request on; one that others can read is refused, and says so."""
    path = next(Path("/root").glob("capd-secrets-*")) / "token"
    try:
        write(path, "another-token-2")
        assert digest("Bearer another-token-2") == told(place, "https://api.test/token/x")["hashes"]["authorization"]
        path.chmod(0o644)
        refused = told(place, "https://api.test/token/x")
        assert "credential_unavailable" == refused["reason"]
        assert str(path) not in refused["message"]
        assert "its mode 0644 lets others at it" in (place.directory / "enforcer.log").read_text()
    finally:
        write(path, TOKEN + "\n")
        path.chmod(0o600)


def test_a_program_is_run_once_in_its_time(place: Yard) -> None:
    """What a program printed is used for as long as it is good."""
    for _ in range(3):
        told(place, "https://api.test/printed")
    assert 1 == len((next(Path("/root").glob("capd-secrets-*")) / "runs").read_text().split())


@pytest.mark.parametrize("piece", ["0", "1", "7", "1000"])
def test_answers_are_masked(place: Yard, piece: str) -> None:
    """Places in JSON, keys, fields and numbers with a checksum are hidden however the answer comes; it stays JSON."""
    words = ("-i", "-H", f"x-piece: {piece}", "-H", "Range: bytes=3-", "-d", json.dumps(PERSON))
    head, _, body = curl(place, *words, "https://api.test/back/masked").partition(b"\r\n\r\n")
    assert SHOWN == json.loads(body)
    fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
    assert "etag" not in fields
    assert {"*"} == set(fields["x-said"])


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        ("application/x-ndjson", '{"salary": 98765}\n{"salary": "x"}\n', b'{"salary": null }\n{"salary": "*"}\n'),
        (
            "text/event-stream",
            'data: {"salary":\ndata: "12"}\n\ndata: [DONE]\n\n',
            b'data: {"salary":\ndata: "**"}\n\ndata: [DONE]\n\n',
        ),
    ],
)
def test_streams_are_masked(place: Yard, kind: str, text: str, shown: bytes) -> None:
    """Lines of JSON and events are masked one by one."""
    for piece in ("0", "1", "5"):
        words = ("-H", f"x-type: {kind}", "-H", f"x-piece: {piece}", "-d", "@-")
        assert shown == curl(
            place, "--data-binary", *words[-1:], *words[:-2], "https://api.test/back/masked", stdin=text.encode()
        )


@pytest.mark.parametrize("words", [("x-coding: gzip",), ("x-type: text/html",), ("x-type: application/json; charset=utf-16",)])
def test_what_cannot_be_looked_into_does_not_come(place: Yard, words: tuple[str, ...]) -> None:
    """An answer that a rule would mask and nobody can read is an error of the gateway, with nothing of it."""
    said = curl(place, "-i", "-H", *words, "-d", "hush-hush", "https://api.test/back/masked")
    assert b" 502" in said.split(b"\r\n")[0]
    assert b"answer_not_masked" in said
    assert b"hush" not in said


def test_nothing_writes_a_secret_down(place: Yard) -> None:
    """The decision log names credentials, rules and how often; no file of capd and no line of its log has a value."""
    told(place, "https://api.test/token/log")
    curl(place, "-d", json.dumps(PERSON), "https://api.test/back/masked")
    wait_until(lambda: sum(entry["kind"] == "carried_out" for entry in place.entries()) >= 2, "both are in the log")
    entries = place.entries()
    obliged = [cast("dict[str, Any]", entry["obligations"]) for entry in entries if "obligations" in entry]
    assert {"masks": [], "credentials": [["token", "token"]]} in obliged
    assert {"masks": ["hide"], "credentials": []} in obliged
    done = [entry for entry in entries if entry["kind"] == "carried_out"]
    assert any(cast("dict[str, int]", entry["reflected"]).get("token", 0) > 0 for entry in done)
    assert any(cast("dict[str, int]", entry["masked"]).get("hide", 0) >= 4 for entry in done)
    for secret in (TOKEN, PASSWORD, PRINTED, SAVED, IBAN):
        for form in (secret.encode(), base64.b64encode(secret.encode()), secret.encode().hex().encode()):
            holding = [path for path in place.directory.rglob("*") if path.is_file() and form in content(path)]
            assert [] == holding


def test_without_its_keeper_the_enforcer_starts_anew(place: Yard) -> None:
    """When the process that reads credentials dies, the role ends, so that whoever keeps it starts both."""
    assert place.enforcer is not None
    children = Path(f"/proc/{place.enforcer.pid}/task/{place.enforcer.pid}/children").read_text().split()
    keeper = next(int(child) for child in children if Path(f"/proc/{child}").stat().st_uid == 0)
    os.kill(keeper, signal.SIGKILL)
    assert 1 == place.enforcer.wait(180)
    (place.directory / "run" / "enforcer" / "worker-0.status.json").unlink()
    place.start()
    assert digest(f"Bearer {TOKEN}") == told(place, "https://api.test/token/x")["hashes"]["authorization"]
    socket = place.directory / "run" / "enforcer" / "credentials.sock"
    refused = place.agent("/usr/bin/python3", "-c", f"import socket; socket.socket(socket.AF_UNIX).connect('{socket}')")
    assert b"PermissionError" in refused.stderr
    assert AGENT != socket.stat().st_uid
