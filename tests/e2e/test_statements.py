"""Statements of a database before two witnesses: decisions stand beside what was said, what was run undecided is an alarm.

What lives here: what the recording says of a real PostgreSQL's sessions that went through the enforcer. What must not: what is
decided (tests/enforcer/test_statements_role.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import wait_until
from tests.e2e.certificates import Certificates
from tests.e2e.postgres import PASSWORD, Database, database, programs
from tests.e2e.test_witness import ZERO, Place
from tests.e2e.test_witness import place as place  # noqa: PLC0414 - a fixture
from tests.requirements import require_command
from tests.servers.mariadb import PASSWORD as MYSQL_PASSWORD
from tests.servers.mariadb import MariaDb, mariadb
from tests.servers.redis import redis_server

pytestmark = pytest.mark.kernel
SECRET = "a-word-that-was-denied"
TEXTS = ("SELECT 1", "INSERT INTO a VALUES ('SECRET')".replace("SECRET", SECRET), "BEGIN; SELECT 2; COMMIT", "SELECT 3")
TRANSACTIONS = 40


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Database]:
    """Run a server beside it, at its usual port."""
    require_command("psql")
    tls = place.capd.directory / "tls"
    certificates = Certificates(authority=tls / "ca.pem", certificate=tls / "cert.pem", key=tls / "key.pem")
    through = ("nsenter", f"--net=/run/netns/{place.namespace}")
    with database(place.capd.directory / "server", certificates, through=through, port=5432) as made:
        yield made


def login(place: Place) -> str:
    """Give how clients sign in, in verified TLS."""
    who = f"host=api.test hostaddr=127.0.0.1 user=agent password='{PASSWORD.replace(chr(39), chr(92) + chr(39))}'"
    trust = f"dbname=postgres sslmode=verify-full sslrootcert={place.capd.directory / 'state/trust/bundle.pem'}"
    return f"{who} {trust}"


def run(place: Place, name: str, *words: str | Path) -> str:
    """Let an agent of a run do something."""
    return place.verb("run", "--name", name, "--label", "silent=no", "--", *words)


def say(place: Place, name: str, *texts: str) -> str:
    """Let an agent say something, statement by statement, over one connection; give what it read."""
    return run(place, name, "psql", "-X", "-At", login(place), *(word for text in texts for word in ("-c", text)))


def ended(place: Place, name: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until the sessions of a run are closed, and give them."""

    def closed() -> list[dict[str, Any]]:
        return [one for one in place.sessions(name) if one["state"] == "closed"]

    wait_until(lambda: len(closed()) == count, "the sessions are closed")
    return closed()


@pytest.mark.usefixtures("server")
def test_decisions_stand_beside_statements(place: Place) -> None:
    """Of one session with statements that are allowed and denied each decision stands behind its own; the witnesses agree."""
    assert ["1", "2", "COMMIT", "3"] == [line for line in say(place, "said", *TEXTS).split("\n") if line and line != "BEGIN"]
    (session,) = ended(place, "said")
    assert ("postgresql", 1) == (session["protocol"], session["decision"]["denied"])
    told = [one["body"] for one in place.records(session["session"]) if one["kind"] in {"message", "verdict"}]
    asked = [one for one in told if one.get("type") == "Query"]
    decided = [one for one in told if one.get("about") == "statement"]
    assert [one["exchange"] for one in asked] == [one["exchange"] for one in decided]
    assert [told[told.index(one) + 1]["outcome"] for one in asked] == ["allow", "deny", "allow", "allow"]
    opening = next(one for one in told if one.get("about") == "session")
    assert ("allow", "agent", "postgres") == (opening["outcome"], opening["user"], opening["database"])
    assert (["insert"], [["public.a", "write"]]) == (decided[1]["effects"], decided[1]["resources"])
    assert SECRET not in str(decided)
    screen = place.verb("replay", session["session"])
    assert "DENIED INSERT as agent in postgres" in screen, screen
    wait_until(lambda: not place.witness()["flows"], "both have ended and were compared")
    found = place.witness()
    assert dict.fromkeys(ZERO, 0) == {name: found[name] for name in ZERO}
    again = [one["completeness"] for one in ended(place, "said")]
    assert ["complete"] == [one["verdict"] for one in again], again


@pytest.fixture(scope="module")
def other(place: Place) -> Iterator[MariaDb]:
    """Run a MariaDB beside it, at its usual port."""
    require_command("mariadb")
    with mariadb(within=("nsenter", f"--net=/run/netns/{place.namespace}"), port=3306) as made:
        yield made


@pytest.mark.usefixtures("other")
def test_decisions_stand_beside_commands_of_mariadb(place: Place) -> None:
    """In clear, with a server that speaks first: each decision stands behind its command; the witnesses agree."""
    who = ["-h", "127.0.0.1", "-P", "3306", "-u", "agent", f"-p{MYSQL_PASSWORD}", "shop"]
    text = "SELECT 1; SELECT 2; INSERT INTO a VALUES ('SECRET')".replace("SECRET", SECRET)
    read = run(place, "mariadb", "mariadb", "--no-defaults", "--skip-ssl", "-N", "-B", *who, "-e", text)
    assert ["1", "2"] == read.split()
    (session,) = ended(place, "mariadb")
    assert ("mysql", 1) == (session["protocol"], session["decision"]["denied"])
    told = [one["body"] for one in place.records(session["session"]) if one["kind"] in {"message", "verdict"}]
    asked = [one for one in told if one.get("type") == "COM_QUERY"]
    decided = [one for one in told if one.get("about") == "statement"]
    assert [one["exchange"] for one in asked] == [one["exchange"] for one in decided]
    outcomes = [one["outcome"] for one in decided if one["operation"] in {"SELECT", "INSERT"} and one["complete"]]
    assert ["allow", "allow", "deny"] == outcomes[-3:]
    assert SECRET not in str(decided)
    wait_until(lambda: not place.witness()["flows"], "both have ended and were compared")
    found = place.witness()
    assert dict.fromkeys(ZERO, 0) == {name: found[name] for name in ZERO}
    again = [one["completeness"] for one in ended(place, "mariadb")]
    assert ["complete"] == [one["verdict"] for one in again], again


def test_decisions_stand_beside_commands_of_redis(place: Place) -> None:
    """Of a pipeline each decision stands behind its command, which it is found by as one would type it."""
    through = ("nsenter", f"--net=/run/netns/{place.namespace}")
    said = "printf 'SET a 1\\nGET a\\nCONFIG SET dir /\\nGET \"b c\"\\n' | redis-cli -h 127.0.0.1"
    with redis_server(within=through, port=6379):
        run(place, "redis", "sh", "-c", said)
        (session,) = ended(place, "redis")
    assert ("redis", 1) == (session["protocol"], session["decision"]["denied"])
    told = [one["body"] for one in place.records(session["session"]) if one["kind"] in {"message", "verdict"}]
    asked = [one for one in told if one.get("type") == "command"]
    decided = [one for one in told if one.get("about") == "statement"]
    assert [one["exchange"] for one in asked] == [one["exchange"] for one in decided]
    outcomes = [(one["operation"], one["outcome"]) for one in decided][-4:]
    assert [("SET", "allow"), ("GET", "allow"), ("CONFIG|SET", "deny"), ("GET", "allow")] == outcomes
    wait_until(lambda: not place.witness()["flows"], "both have ended and were compared")
    found = place.witness()
    assert dict.fromkeys(ZERO, 0) == {name: found[name] for name in ZERO}
    again = [one["completeness"] for one in ended(place, "redis")]
    assert ["complete"] == [one["verdict"] for one in again], again


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_no_way_of_saying_it_is_an_alarm(place: Place, mode: str) -> None:
    """What is said plainly, with values, or prepared once and run again and again is decided each time, and no alarm."""
    script = place.capd.directory / "script.sql"
    script.write_text("\\set a random(1, 9)\nSELECT :a;\nSELECT :a + 1;\n", encoding="ascii")
    program = programs() / "pgbench"
    run(place, mode, program, "-n", "-M", mode, "-c", "2", "-t", str(TRANSACTIONS), "-f", script, login(place))
    sessions = ended(place, mode, 3)  # pgbench asks what there is over one of its own
    wait_until(lambda: not place.witness()["flows"], "both have ended and were compared")
    found = place.witness()
    assert dict.fromkeys(ZERO, 0) == {name: found[name] for name in ZERO}
    assert ["complete"] * 3 == [one["completeness"]["verdict"] for one in sessions], [one["completeness"] for one in sessions]
    told = [one["body"] for session in sessions for one in place.records(session["session"]) if one["kind"] == "verdict"]
    about = [one for one in told if one["about"] == "statement"]
    assert len(about) >= 2 * 2 * TRANSACTIONS
    assert [] == [one for one in about if one["exchange"] is None or one["outcome"] != "allow"]
