"""Statements of databases end to end: a real server, unmodified clients, the real enforcer, a person at a terminal.

What lives here: what agents and persons see of statements that are allowed, denied and held. What must not: the protocol
(test_proxy_postgresql.py).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from capd.daemon import control_client
from tests.e2e.postgres import PASSWORD, database, programs
from tests.enforcer.test_approvals_role import capd, until
from tests.enforcer.yard import ADDRESSES, Yard, yard
from tests.requirements import require_command, require_root
from tests.servers.mariadb import PASSWORD as MYSQL_PASSWORD
from tests.servers.mariadb import mariadb
from tests.servers.redis import redis_server

POLICY = """\
rules:
  - {id: reads, match: {protocols: postgresql, hosts: api.test, databases: postgres, users: agent,
      effects: [select, session]}, then: allow}
  - {id: writes, match: {protocols: postgresql, hosts: api.test, databases: postgres, users: agent,
      effects: [insert, update, delete]}, then: approve, reason: it changes money,
      approve: {hold_seconds: 60, scope: shape}}
  - {id: my-reads, match: {protocols: mysql, hosts: 198.51.100.7, databases: shop, users: agent,
      effects: [select, session]}, then: allow}
  - {id: my-writes, match: {protocols: mysql, hosts: 198.51.100.7, databases: shop, users: agent,
      effects: [insert, update, delete]}, then: approve, reason: it changes the shop,
      approve: {hold_seconds: 60, scope: shape}}
  - {id: kv-reads, match: {protocols: redis, hosts: 198.51.100.7, databases: "0", effects: [select, session]}, then: allow}
  - {id: kv-writes, match: {protocols: redis, hosts: 198.51.100.7, databases: "0", effects: [insert, update, delete]},
      then: approve, reason: it changes the cache, approve: {hold_seconds: 60}}
  - {id: tokens, match: {protocols: redis, resources: "token:*"}, then: deny, reason: tokens are nobody's}
  - {id: cards, match: {resources: [public.cards, shop.cards]}, then: deny, reason: nobody needs card numbers}
"""
TABLES = "CREATE TABLE pay (id int, note text); CREATE TABLE cards (number text); INSERT INTO cards VALUES ('4111111111111111')"
MYSQL_TABLES = (
    "CREATE TABLE shop.pay (id int, note text)",
    "CREATE TABLE shop.cards (number text)",
    "CREATE DATABASE hr",
    "CREATE TABLE hr.pay (id int, note text)",
)
INSERT = "INSERT INTO pay VALUES ({}, '{}')"
SECRET = "ghp_" + "a1B2" * 9
LOGIN = {"PGUSER": "agent", "PGPASSWORD": PASSWORD, "PGDATABASE": "postgres", "PGCONNECT_TIMEOUT": "20"}


@pytest.fixture(scope="module")
def place() -> Iterator[Yard]:
    """Make one for all tests here, with a server at the address of api.test."""
    require_root()
    require_command("nft", "nsenter", "setpriv", "psql", "openssl", "mariadb")
    programs()
    with TemporaryDirectory(prefix="capd-yard-") as name, yard(Path(name), POLICY) as made:
        served = database(made.directory / "server", made.certificates, through=made.within, address=ADDRESSES[0], port=5432)
        keys = redis_server("--protected-mode", "no", within=made.within, address=ADDRESSES[0], port=6379)
        with served, keys, mariadb(within=made.within, address=ADDRESSES[0], port=3306) as other:
            other.administer(*MYSQL_TABLES)
            psql = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(made.directory / "server"), "-c", TABLES]
            subprocess.run(psql, env={**LOGIN, "PATH": "/usr/bin:/bin"}, check=True)
            yield made


def psql(place: Yard, *words: str) -> list[str]:
    """Give an agent's command, in verified TLS."""
    trust = f"sslmode=verify-full sslrootcert={place.trust / 'bundle.pem'}"
    where = f"host=api.test hostaddr={ADDRESSES[0]} user=agent password='{PASSWORD.replace(chr(39), chr(92) + chr(39))}'"
    return ["psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", f"{where} dbname=postgres {trust}", *words]


def said(place: Yard, text: str) -> tuple[int, str, str]:
    """Have an agent say something; give status, what it read, and the errors and notices."""
    done = place.agent(*psql(place, "-c", text), seconds=60)
    return done.returncode, done.stdout.decode().strip(), done.stderr.decode()


@contextmanager
def saying(place: Yard, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have an agent say something that takes its time."""
    agent = place.start_agent(*psql(place, *words))
    try:
        yield agent
    finally:
        agent.kill()
        agent.communicate()


def waiting(place: Yard, operation: str) -> dict[str, Any]:
    """Wait until a statement waits for a person, and give it."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        shown = control_client.ask(place.directory / "run" / "enforcer" / "approvals.sock", "approvals")["approvals"]
        assert isinstance(shown, list)
        found[:] = [one for one in shown if (one["operation"], one["state"], one["clients"]) == (operation, "pending", 1)]
        return len(found) == 1

    until(there)
    return found[0]


def statements(place: Yard, since: int) -> list[dict[str, Any]]:
    """Give the decisions about statements."""
    return [entry for entry in place.entries()[since:] if entry.get("about") == "statement"]


def test_allowed_and_denied(place: Yard) -> None:
    """What is allowed is answered by the server; what is denied by the rule's reason, and never reaches it."""
    before = len(place.entries())
    assert (0, "1", "") == said(place, "SELECT 1")
    status, read, error = said(place, "SELECT number FROM cards")
    assert (1, "") == (status, read)
    assert "nobody needs card numbers" in error
    status, _, error = said(place, "DROP TABLE pay")
    assert (1, True) == (status, "no rule allows this" in error)
    opened = [entry for entry in place.entries()[before:] if entry.get("about") == "session"]
    assert {("agent", "postgres", True)} == {(one["user"], one["database"], one["allowed"]) for one in opened}
    told = [(one["operation"], one["allowed"], one["rule"]) for one in statements(place, before)]
    assert {("SELECT", True, "reads"), ("SELECT", False, "cards"), ("DROP", False, "")} <= set(told)
    assert "FROM" not in str(statements(place, before))


def test_a_statement_waits_is_seen_and_goes(place: Yard) -> None:
    """A person sees text without secrets, effects and relations; once approved it goes, and so does the next of its shape."""
    before = len(place.entries())
    with saying(place, "-c", INSERT.format(1, SECRET)) as agent:
        request = waiting(place, "INSERT")
        shown = capd(place, "approvals")
        for part in (
            "INSERT postgresql://agent@api.test:5432/postgres",
            INSERT.format(1, "*" * len(SECRET)),
            "public.pay (write)",
            "it changes money (writes)",
            "transaction",
            "1 waiting",
        ):
            assert part in shown, shown
        assert SECRET not in shown
        capd(place, "approve", request["id"], "--for", "shape")
        output, _ = agent.communicate(timeout=180)
    assert (b"INSERT 0 1", 0) == (output.strip(), agent.returncode)
    assert (0, "INSERT 0 1") == said(place, INSERT.format(2, "other"))[:2]
    held = [entry for entry in place.entries()[before:] if entry["kind"] == "held"]
    assert [request["id"]] == [one["approval"] for one in held]
    approved = [one["approval"]["id"] for one in statements(place, before) if one.get("approval")]
    assert [request["id"], request["id"]] == approved
    assert SECRET not in str(place.entries()[before:])


def test_another_shape_asks_again_and_is_denied(place: Yard) -> None:
    """What the shape does not cover waits for itself; a denial is the client's error, in the person's words; nothing ran."""
    status, before, _ = said(place, "SELECT count(*) FROM pay")
    assert 0 == status
    with saying(place, "-c", "\\set VERBOSITY verbose", "-c", "DELETE FROM pay") as agent:
        request = waiting(place, "DELETE")
        capd(place, "deny", request["id"], "--reason", "not on a Sunday")
        agent.communicate(timeout=180)
    assert 1 == agent.returncode
    status, _, error = said(place, "DELETE FROM pay")
    assert (1, True) == (status, "not on a Sunday" in error)
    assert before == said(place, "SELECT count(*) FROM pay")[1]


def test_held_in_a_transaction_says_so(place: Yard) -> None:
    """Who approves is told that a transaction is open; once approved it goes on in it, and is there after its end."""
    with saying(place, "-c", "BEGIN", "-c", "UPDATE pay SET note = 'x' WHERE id = 1", "-c", "COMMIT") as agent:
        request = waiting(place, "UPDATE")
        assert "open" == request["known"]["transaction"]
        capd(place, "approve", request["id"])
        output, _ = agent.communicate(timeout=180)
    assert b"BEGIN\nUPDATE 1\nCOMMIT" == output.strip()
    assert (0, "x") == said(place, "SELECT note FROM pay WHERE id = 1")[:2]


def test_a_person_is_asked_once_about_what_is_prepared(place: Yard) -> None:
    """What is prepared alone goes without a person, who is asked when it is to be run, with its values; and of others again."""
    before = len(place.entries())
    script = place.trust / "prepared.sql"
    said_ = "INSERT INTO pay (id, note) VALUES (:id, 'prepared');"
    script.write_text(f"\\set id random(1000, 2000000000)\n{said_}\n", encoding="ascii")
    script.chmod(0o644)
    agent = place.start_agent("pgbench", "-n", "-M", "prepared", "-t", "2", "-f", str(script), psql(place)[-1])
    try:
        first = waiting(place, "INSERT")
        assert "0" == said(place, "SELECT count(*) FROM pay WHERE note = 'prepared'")[1]
        capd(place, "approve", first["id"])
        until(lambda: said(place, "SELECT count(*) FROM pay WHERE note = 'prepared'")[1] == "1")
        second = waiting(place, "INSERT")
        assert first["id"] != second["id"]
        capd(place, "deny", second["id"], "--reason", "once is enough")
        agent.communicate(timeout=180)
    finally:
        agent.kill()
        agent.communicate()
    held = [entry["approval"] for entry in place.entries()[before:] if entry["kind"] == "held"]
    assert [first["id"], second["id"]] == held
    told_ = [(one["allowed"], one["reason"]) for one in statements(place, before) if one["operation"] == "INSERT"]
    assert [(True, "only_prepared"), (True, ""), (False, "denied_by_person")] == told_
    assert "1" == said(place, "SELECT count(*) FROM pay WHERE note = 'prepared'")[1]


def mysql(*words: str) -> list[str]:
    """Give an agent's command for MariaDB, in clear."""
    who = ["-h", ADDRESSES[0], "-u", "agent", f"-p{MYSQL_PASSWORD}", "shop"]
    return ["mariadb", "--no-defaults", "--skip-ssl", "-N", "-B", *who, *words]


def told(place: Yard, text: str) -> tuple[int, str, str]:
    """Have an agent say something to MariaDB; give status, what it read, and the error."""
    done = place.agent(*mysql("-e", text), seconds=60)
    return done.returncode, done.stdout.decode().strip(), done.stderr.decode()


def test_the_same_of_mariadb(place: Yard) -> None:
    """Statements are allowed, denied and held by what they do, in the database that the session is in by then."""
    before = len(place.entries())
    assert (0, "1") == told(place, "SELECT 1")[:2]
    for text in ("SELECT * FROM cards", "SELECT * FROM `shop`.`Cards`", "SELECT 1; SELECT * FROM cards"):
        status, _, error = told(place, text)
        assert (1, True) == (status, "nobody needs card numbers" in error), text
    status, _, error = told(place, "USE hr; SELECT * FROM pay")
    assert (1, True) == (status, "1142" in error)
    place_of = place.start_agent(*mysql("-e", INSERT.format(1, SECRET)))
    try:
        request = waiting(place, "INSERT")
        shown = capd(place, "approvals")
        for part in (f"INSERT mysql://agent@{ADDRESSES[0]}:3306/shop", "shop.pay (write)", "it changes the shop (my-writes)"):
            assert part in shown, shown
        assert SECRET not in shown
        capd(place, "approve", request["id"], "--for", "shape")
        place_of.communicate(timeout=180)
        assert 0 == place_of.returncode
    finally:
        place_of.kill()
        place_of.communicate()
    assert 0 == told(place, INSERT.format(2, "other"))[0]
    assert "2" == told(place, "SELECT count(*) FROM pay")[1]
    assert SECRET not in str(place.entries()[before:])
    decided = [(one["operation"], one["allowed"], one["database"]) for one in statements(place, before)]
    assert {("INSERT", True, "shop"), ("USE", True, "shop"), ("SELECT", False, "hr")} <= set(decided)


def keyed(place: Yard, *words: str) -> str:
    """Have an agent say a command to Redis; give what it read."""
    done = place.agent("redis-cli", "-h", ADDRESSES[0], *words, seconds=60)
    return done.stdout.decode().strip()


def test_the_same_of_redis(place: Yard) -> None:
    """Commands are allowed, denied and held by what they do to which keys; another database is another session."""
    before = len(place.entries())
    assert "" == keyed(place, "GET", "user:1")
    for words in (("GET", "token:1"), ("MGET", "user:1", "token:1"), ("KEYS", "*"), ("EVAL", "return 1", "0")):
        assert keyed(place, *words).startswith("NOPERM"), words
    assert "nobody" in keyed(place, "GET", "token:1")
    assert keyed(place, "FLUSHALL").startswith("NOPERM")
    assert keyed(place, "SELECT", "3").startswith("NOPERM")
    openings = [entry for entry in place.entries()[before:] if entry.get("about") == "session"]
    assert {("0", True), ("3", False)} == {(one["database"], one["allowed"]) for one in openings}
    agent = place.start_agent("redis-cli", "-h", ADDRESSES[0], "SET", "user:1", "ann")
    try:
        request = waiting(place, "SET")
        shown = capd(place, "approvals")
        for part in (f"SET redis://default@{ADDRESSES[0]}:6379/0", "user:1 (write)", "it changes the cache (kv-writes)"):
            assert part in shown, shown
        capd(place, "approve", request["id"])
        output, _ = agent.communicate(timeout=180)
        assert b"OK" == output.strip()
    finally:
        agent.kill()
        agent.communicate()
    assert "ann" == keyed(place, "GET", "user:1")
    told = [(one["operation"], one["allowed"], one["resources"], one["resources_count"]) for one in statements(place, before)]
    assert {("SET", True, None, 1), ("GET", True, None, 1), ("GET", False, None, 1)} <= set(told)
    assert "token" not in str(statements(place, before)).replace("tokens", "")


def test_a_policy_that_closes_the_session(place: Yard) -> None:
    """A connection whose opening the new policy does not allow is cut, though nothing is said in it."""
    with saying(place) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        agent.stdin.write(b"SELECT 'here';\n")
        agent.stdin.flush()
        assert b"here\n" == agent.stdout.readline()
        try:
            place.policy.write_text(POLICY.replace("users: agent", "users: nobody"), encoding="utf-8")
            until(lambda: any("does not allow it any more" in str(entry.get("reason")) for entry in place.entries()))
            agent.stdin.write(b"SELECT 'still';\n")
            agent.stdin.flush()
            output, _ = agent.communicate(timeout=180)
        finally:
            place.policy.write_text(POLICY, encoding="utf-8")
    assert b"still" not in output
