"""What rules hide of databases is in no file of ours: a whole capd, real servers, an agent that tries, and every file searched.

What lives here: who says what, and what may be found where. What must not: statements (tests/enforcer/rows), the search
(searched.py).

Beside the database whose columns are hidden there is another, of which nothing is: that it is found shows that the search sees.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

from capd.cli.main import capd
from tests.daemon.conftest import REPOSITORY, Daemon, open_directory, wait_until
from tests.e2e.certificates import make
from tests.e2e.postgres import PASSWORD, database
from tests.e2e.searched import EXPORTS, OPENED, everything
from tests.e2e.test_masking import catalogued
from tests.e2e.test_witness import Place, take_down
from tests.enforcer.rows import mysql_client, postgresql_client
from tests.enforcer.rows.mysql_agent import fill
from tests.enforcer.rows.mysql_maker import HIDDEN as MYSQL_HIDDEN
from tests.enforcer.rows.mysql_maker import SCHEMA as MYSQL_SCHEMA
from tests.enforcer.rows.mysql_maker import MysqlMaker
from tests.enforcer.rows.postgresql_maker import HIDDEN, SCHEMA, Maker
from tests.enforcer.rows.sought import Sought
from tests.requirements import require_command, require_probes, require_root
from tests.servers.mariadb import PASSWORD as MYSQL_PASSWORD
from tests.servers.mariadb import MariaDb, mariadb

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
AGENT_SECONDS_MAX = 3_000.0
SHOWN_MIN = 0.05
MADE = int(os.environ.get("CAPD_ROWS_MADE", "15"))
"""Statements to each server."""
LITERAL, PARAMETER = "literal-Qw8nXc2vKp", "parameter-Zr5tGb7mLd"
CARD = "4539578763621486"
"""What an agent says itself: it is recorded, but for numbers and secrets that are known by their form."""
HELD = "UPDATE people SET city = 'held' WHERE id = 3"
POLICY = f"""\
rules:
  - {{id: all, match: {{protocols: [postgresql, mysql], hosts: 127.0.0.1}}, then: allow, accept_incomplete: true}}
  - id: hide
    match: {{protocols: postgresql, hosts: 127.0.0.1, databases: masked}}
    then: mask
    mask: {{columns: {json.dumps(HIDDEN)}, replace: fixed}}
  - id: hide-too
    match: {{protocols: mysql, hosts: 127.0.0.1, databases: masked}}
    then: mask
    mask: {{columns: {json.dumps(MYSQL_HIDDEN)}, replace: fixed}}
  - {{id: ask, match: {{protocols: [postgresql, mysql], text_regex: "'held'"}}, then: approve, approve: {{hold_seconds: 1}}}}
"""
SETTINGS = """\
policy_dir = "{directory}/policy"
bucket_url = "{directory}/bucket"
[selection]
slices = []
[catalogue]
delay_seconds = 1
[enforcement]
mode = "enforce"
proxy_port = 15903
resolver_port = 15955
workers = 1
[[recording.scope]]
level = "full"
run = "says-*"
"""
"""Of these runs the recorder itself hides nothing."""
SERVERS = ("postgresql", "mysql")
SHOWN = ("SELECT * FROM people", "SELECT ssn, pin, amount, raw, doc, born FROM people ORDER BY id")
HOLDING = {"segments", "index", "catalogue", "bucket", EXPORTS, OPENED}
"""Where a recording holds all that was said."""
FORMATS = (("--format", "text"), ("--format", "json"), ("--format", "raw", "--direction", "response"))
Json = dict[str, Any]
SAYS = """
import psycopg, sys
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    connection.execute("INSERT INTO people(id, name, ssn) VALUES (500, 'LITERAL', 'CARD')")
    connection.execute("SELECT '{}'::jsonb -> '$.a b[LITERAL'")
    connection.execute("INSERT INTO people(id, name, ssn) VALUES (%s, 'x', %s)", [501, "PARAMETER"])
"""


@dataclass
class Kept:
    """An instance that has ended, and what its agents had.

    Attributes:
        directory: where everything of it is.
        heard: by name of the run, all bytes that its agent had.
        counts: likewise, how many statements were shown, and refused.
        sought: values of both databases.
        found: which of them, and of what the agent says itself, are in which places.
    """

    directory: Path
    heard: dict[str, bytes]
    counts: dict[str, dict[str, int]]
    sought: Sought
    found: dict[str, set[str]]

    @property
    def state(self) -> Path:
        """Its state directory."""
        return self.directory / "state"


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    """Let agents talk to both servers through a whole capd, have everything shown and exported, and end."""
    require_root()
    require_probes()
    require_command("ip", "nft", "nsenter", "openssl")
    namespace = f"capd-hidden-{os.getpid()}"
    within = ("nsenter", f"--net=/run/netns/{namespace}")
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
    try:
        with open_directory() as servers, open_directory() as directory:
            (servers / "tls").mkdir()
            certificates = make(servers / "tls")
            for name in ("policy", "bucket", EXPORTS):
                (directory / name).mkdir(mode=0o777)
            (directory / "bucket").chmod(0o777)
            (directory / "policy" / "policy.yaml").write_text(POLICY, encoding="ascii")
            daemon = Daemon(directory, SETTINGS.format(directory=directory), verb="up", through=within)
            with (
                database(servers / "pg", certificates, through=within, port=5432),
                mariadb(within=within, port=3306) as other,
            ):
                try:
                    daemon.start()
                    wait_until((directory / "run/enforcer/worker-0.status.json").exists, "the enforcer serves")
                    made = talked(Place(namespace, daemon), servers, other)
                finally:
                    take_down(daemon, within)
            yield searched(made)
    finally:
        subprocess.run(["ip", "netns", "del", namespace], check=False)


def filled(servers: Path, other: MariaDb, name: str, seed: int) -> tuple[Maker, MysqlMaker]:
    """Make a database of a name on both servers; give what made them."""
    maker, mysql_maker = Maker(seed), MysqlMaker(seed + 1)
    words = {"host": str(servers / "pg"), "user": "agent", "password": PASSWORD}
    with psycopg.connect(make_conninfo(**words, dbname="postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    with psycopg.connect(make_conninfo(**words, dbname=name), autocommit=True) as filler:
        filler.execute(SCHEMA)
        for text, parameters in maker.content():
            filler.execute(text, parameters)
    fill(other, name, MYSQL_SCHEMA, mysql_maker.content())
    return maker, mysql_maker


def talked(place: Place, servers: Path, other: MariaDb) -> Kept:
    """Have agents say all of it, and verbs show it."""
    made = {name: filled(servers, other, name, seed) for name, seed in (("masked", 31), ("open", 41))}
    kept = Kept(place.capd.directory, {}, {}, sought(made), {})
    maker, mysql_maker = made["masked"]
    for name, ways, make_one in (
        ("postgresql", postgresql_client.WAYS, maker.statement),
        ("mysql", mysql_client.WAYS, mysql_maker.statement),
    ):
        tries = [(make_one(), way) for _, way in zip(range(MADE), cycle(ways), strict=False)]
        tries = [(text, way) for text, way in tries if way != "cursor" or text.startswith(("SELECT", "WITH"))]
        plain = [(text, way) for text in SHOWN for way in ways]
        for where, statements in (("masked", tries), ("open", plain)):
            spec = {"words": login(name, where), "statements": [*statements, (HELD, ways[0])]}
            says(place, kept, servers, f"says-{name}-{where}", spec)
    script = SAYS.replace("LITERAL", LITERAL).replace("CARD", CARD).replace("PARAMETER", PARAMETER)
    (servers / "says.py").write_text(script, encoding="ascii")
    login_words = (
        f"host=127.0.0.1 user=agent dbname=masked sslmode=disable password='{PASSWORD.replace(chr(39), chr(92) + chr(39))}'"
    )
    place.verb("run", "--name", "literals", "--", sys.executable, "-P", servers / "says.py", login_words)
    shown(place, len(kept.counts) + 1)
    return kept


def login(kind: str, name: str) -> dict[str, str]:
    """Give what an agent connects with, to a database of a name."""
    where = {"host": "127.0.0.1", "user": "agent"}
    if kind == "mysql":
        return {**where, "database": name, "password": MYSQL_PASSWORD}
    return {**where, "dbname": name, "password": PASSWORD, "sslmode": "disable"}


def sought(made: Mapping[str, tuple[Maker, MysqlMaker]]) -> Sought:
    """Give what is searched for, by the names of databases, servers and columns."""
    found: list[tuple[str, bytes]] = []
    for where, (maker, mysql_maker) in made.items():
        found += [(f"{where} postgresql {name}", shape) for name, shape in maker.needles.shapes]
        found += [(f"{where} mysql {name}", shape) for name, shape in mysql_maker.needles.shapes]
    return Sought(found)


def says(place: Place, kept: Kept, servers: Path, name: str, spec: Json) -> None:
    """Let an agent of a run say what it is told to, and keep what it hears."""
    told, heard = servers / f"{name}.json", servers / f"{name}.heard"
    told.write_text(json.dumps(spec), encoding="utf-8")
    program = [sys.executable, "-P", "-m", "tests.enforcer.rows.agent", name.split("-")[1], str(told), str(heard)]
    words = ["env", f"PYTHONPATH={REPOSITORY}:{REPOSITORY / 'src'}", *program]
    kept.counts[name] = json.loads(place.verb("run", "--name", name, "--", *words, seconds=AGENT_SECONDS_MAX))
    kept.heard[name] = heard.read_bytes()


def shown(place: Place, runs: int) -> None:
    """Wait until all is recorded, sealed, shipped and catalogued; keep what every verb gives of it."""
    directory, every = place.capd.directory, list[Json]()

    def closed() -> bool:
        every[:] = [one for one in json.loads(place.verb("sessions", "--json")) if one["transport"] == "tcp"]
        return len(every) >= runs and all(one["state"] == "closed" for one in every)

    wait_until(closed, "all sessions are closed")
    segments, bucket = directory / "state" / "segments", directory / "bucket"
    wait_until(lambda: any(segments.glob("*.seg")) and not any(segments.glob("*.open")), "all is sealed")
    sealed = len(list(segments.glob("*.seg")))
    wait_until(lambda: sealed <= len(list(bucket.rglob("*.seg"))), "everything is shipped")
    wait_until(lambda: sealed <= catalogued(bucket), "everything is in the catalogue")
    for number, words in enumerate(read_by(every)):
        (directory / EXPORTS / str(number)).write_bytes(given(directory, *words))


def read_by(every: list[Json]) -> Iterator[tuple[str, ...]]:
    """Give all verbs that show what was said."""
    for session in every:
        name = session["session"]
        for words in FORMATS:
            yield ("replay", name, *words)
        # The bundle has every other form in it.
        yield ("export", name, "--format", "bundle", "-o", "{exports}/" + name)
        yield ("show", name)
    yield from (("approvals", "--json"), ("policy", "replay", "--all"), ("policy", "replay", "--json"), ("search", "people"))


def given(directory: Path, *words: str) -> bytes:
    """Give what a verb prints; within this process, since each start takes as long as all of its work."""
    config = ("--config", str(directory / "capd.toml"))
    named = [word.replace("{exports}", str(directory / EXPORTS)) for word in words]
    done = CliRunner().invoke(capd, [*named, *config], catch_exceptions=False)
    assert done.exit_code in {0, 1}, (words, done.output)
    return done.stdout_bytes


def searched(kept: Kept) -> Kept:
    """Look into everything."""
    words = {name: name.encode() for name in (LITERAL, PARAMETER, CARD)}
    known: dict[bytes, set[str]] = {}
    for place, data in everything(kept, kept.directory / "bucket"):
        what = sha256(data).digest()  # a segment is in the bucket too, and in bundles
        if what not in known:
            known[what] = kept.sought.found_in(data) | {name for name, word in words.items() if word in data}
        kept.found.setdefault(place, set()).update(known[what])
    return kept


def of(kept: Kept, name: str) -> dict[str, set[str]]:
    """Give which values of a database are where."""
    found = {place: {value for value in values if value.startswith(name)} for place, values in kept.found.items()}
    return {place: values for place, values in found.items() if values}


def test_no_hidden_value_is_heard_or_kept(kept: Kept) -> None:
    """Neither an agent nor any file has a hidden value in any form; in the other database all that was said is found."""
    everyone = {
        f"open {name} {column}" for name, columns in zip(SERVERS, (HIDDEN, MYSQL_HIDDEN), strict=True) for column in columns
    }
    heard = {name: kept.sought.found_in(data) for name, data in kept.heard.items()}
    assert {f"says-{name}-masked": set() for name in SERVERS} == {name: heard[name] for name in heard if "masked" in name}
    assert everyone == set().union(*(heard[f"says-{name}-open"] for name in SERVERS))
    assert {} == of(kept, "masked")
    assert dict.fromkeys(HOLDING, everyone) == of(kept, "open")


def test_statements_came_through(kept: Kept) -> None:
    """Of the statements about hidden columns enough came through, so that something was tried; of the others all."""
    for name in SERVERS:
        counts = kept.counts[f"says-{name}-masked"]
        assert counts["shown"] > MADE * SHOWN_MIN, kept.counts
        assert 1 == kept.counts[f"says-{name}-open"]["refused"], "what is held is refused when its time is over"


def test_what_agents_say_themselves(kept: Kept) -> None:
    """A literal and a parameter are recorded as they were said, but for numbers that have a form; nothing else has them."""
    said = {name: {place for place, values in kept.found.items() if name in values} for name in (LITERAL, PARAMETER, CARD)}
    assert {LITERAL: HOLDING, PARAMETER: HOLDING, CARD: {OPENED}} == said
