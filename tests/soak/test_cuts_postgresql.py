"""PostgreSQL behind the proxy, cut (cuts.py): simple and extended protocol, a pipeline, COPY, a cursor, hidden columns."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.policy.rule import Mask, Replace
from capd.enforcer.proxy.question import Kind, Question, Verdict
from tests.e2e.certificates import make
from tests.e2e.postgres import PASSWORD, database
from tests.enforcer.postgresql_model import (
    FLUSH,
    SYNC,
    TERMINATE,
    bind,
    close,
    describe,
    error_fields,
    execute,
    message,
    parse,
    query,
    startup,
)
from tests.enforcer.postgresql_talk import by_text
from tests.enforcer.proxied import proxied
from tests.requirements import require_root
from tests.soak.cuts import Language, Yard, cut_many
from tests.soak.cutting import SECONDS_MAX, Place, Step, relay

COUNTED, DENIED = range(1, 14), range(14, 18)
"""Sequences: each statement moves one of its own, and nothing takes that back."""
COPIED_ROWS = 3
MOVED = {**dict.fromkeys(COUNTED, 1), 13: COPIED_ROWS, **dict.fromkeys(DENIED, 0)}
SETUP = "; ".join(
    [
        *(f"create sequence s{number}" for number in (*COUNTED, *DENIED)),
        "create table kept (a int, n bigint default nextval('s13'))",
        "create table people (id int, secret text)",
        "insert into people select n, 'hidden ' || n from generate_series(1, 30) n",
        "alter system set log_statement to 'none'",
    ]
)
MASKS = (("hide", Mask(columns=("public.people.secret",), replace=Replace.PARTIAL)),)
ROW_BYTES = 2_000


def moved(number: int, more: str = "") -> str:
    """Give a statement that moves a sequence."""
    return f"select nextval('s{number}'), '{'x' * 40}' {more}"


def copied(rows: int) -> bytes:
    """Give rows for COPY, one in two messages."""
    one = message("d", b"1\n") * (rows - 1)
    return one + message("d", b"2") + message("d", b"\n")


STEPS = (
    Step(said=startup(b"\0\3\0\0user\0agent\0database\0postgres\0application_name\0cuts\0\0"), until="Z"),
    Step(said=query(moved(1)), until="Z"),
    Step(said=query(moved(14, "/* denied */")), until="Z"),
    Step(said=query("select id, secret from people where id < 5 order by id"), until="Z"),
    Step(said=query(f"{moved(2)}; {moved(3)}"), until="Z"),
    Step(said=query("begin"), until="Z"),
    Step(said=query(moved(4)), until="Z"),
    Step(said=query(moved(15, "/* denied */")), until="Z"),
    Step(said=query("rollback"), until="Z"),
    Step(said=parse(moved(5, "where $1 <> 'y'"), "named") + describe("S", "named") + FLUSH, until="T"),
    Step(said=bind("named", value="x") + execute() + bind("named", value="y") + execute() + SYNC, until="Z"),
    Step(
        said=parse(moved(6)) + bind() + execute() + parse(moved(16, "/* denied */")) + bind() + execute() + SYNC,
        until="Z",
    ),
    Step(said=parse("select secret from people") + bind() + describe() + execute(rows=4) + SYNC, until="Z"),
    Step(said=b"".join(parse(moved(number)) + bind() + execute() + SYNC for number in (7, 8)), until="Z", times=2),
    Step(said=close("S", "named") + SYNC, until="Z"),
    Step(said=query("copy kept (a) from stdin"), until="G"),
    Step(said=copied(COPIED_ROWS) + message("c"), until="Z"),
    Step(said=query("copy (select nextval('s9'), repeat('z', 50) from generate_series(1, 1)) to stdout"), until="Z"),
    Step(said=query(f"copy ({moved(17, '/* denied */')}) to stdout"), until="Z"),
    Step(said=query("begin"), until="Z"),
    Step(said=query("declare c cursor for select id, secret from people order by id"), until="Z"),
    Step(said=query("fetch 5 from c"), until="Z"),
    Step(said=query(moved(10)), until="Z"),
    Step(said=query("fetch 5 from c"), until="Z"),
    Step(said=query("close c"), until="Z"),
    Step(said=query("commit"), until="Z"),
    Step(said=query(f"select nextval('s11'), repeat('w', {ROW_BYTES})"), until="Z"),
    Step(said=query(moved(12)), until="Z"),
    Step(said=TERMINATE),
)
AT_ONCE = (
    STEPS[0],
    Step(
        said=b"".join(step.said for step in STEPS[1:-1]),
        until="Z",
        times=sum(step.times for step in STEPS[1:-1] if step.until == "Z"),
    ),
    STEPS[-1],
)


def masking(question: Question) -> Verdict:
    """Allow what has no `denied` in it, with columns hidden."""
    verdict = by_text(question)
    if question.kind is Kind.STATEMENT and verdict.allowed:
        return replace(verdict, obligations=Obligations(masks=MASKS))
    return verdict


JUDGES = {"plain": by_text, "masked": masking}
PACES = {"step by step": STEPS, "at once": AT_ONCE}


def edges(data: bytes, place: Place) -> list[int]:
    """Tell where messages begin: of what a client says the first has no code."""
    found, at = [], 0
    while at < len(data):
        found.append(at)
        begins = at if not at and place in {Place.SAID, Place.ASKED} else at + 1
        at = begins + int.from_bytes(data[begins : begins + 4], "big")
    return [*found, at]


def same(one: bytes) -> bytes:
    """Give a message without what is another in each session: the key of cancelling, our session's name."""
    if one[:1] == b"K":
        return b"K"
    return b"E" + bytes(4) + re.sub(rb"session=s\d+", b"", one[5:]) if one[:1] == b"E" else one


def taken_apart(data: bytes) -> tuple[list[bytes], bytes]:
    """Give what the server said in whole messages, and what is left."""
    found, at = [], 0
    while at + 5 <= len(data) and at + 1 + int.from_bytes(data[at + 1 : at + 5], "big") <= len(data):
        end = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
        found.append(same(data[at:end]))
        at = end
    return found, data[at:]


def seen(data: bytes, code: str) -> int:
    """Tell how many messages of a code there are."""
    return sum(one[:1] == code.encode() for one in taken_apart(data)[0])


LANGUAGE = Language(
    edges=edges,
    taken_apart=taken_apart,
    seen=seen,
    ends_it=lambda one: one[:1] == b"E" and error_fields(one[5:])["S"] == "FATAL",
    differs=lambda one: one[:1] in {b"K", b"E"},
)


@dataclass(frozen=True)
class Sequences:
    """What statements move."""

    admin: psycopg.Connection[tuple[int, ...]]

    def connected(self) -> int:
        """Tell how many sessions of the client's the server has."""
        found = self.admin.execute("select count(*) from pg_stat_activity where application_name = 'cuts'").fetchone()
        assert found is not None
        return found[0]

    def reset(self) -> None:
        """Put all of them back."""
        self.admin.execute(f"select {', '.join(f'setval($$s{one}$$, 1, false)' for one in (*COUNTED, *DENIED))}")

    def counts(self) -> dict[int, int]:
        """Tell how often each was moved."""
        rows = self.admin.execute("select substr(sequencename, 2)::int, coalesce(last_value, 0) from pg_sequences").fetchall()
        return {row[0]: row[1] for row in rows}


@pytest.fixture(scope="module")
def yard() -> Iterator[Yard]:
    """Make one."""
    require_root()
    with TemporaryDirectory(prefix="capd-cuts-") as name, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "tls").mkdir()
        server = stack.enter_context(database(directory / "pg", make(directory / "tls")))
        rules = directory / "pg" / "data" / "pg_hba.conf"
        rules.write_text("host all all 127.0.0.1/32 trust\nlocal all all scram-sha-256\n", encoding="ascii")
        words = f"host={directory / 'pg'} port={server.port} user=agent dbname=postgres"
        admin = stack.enter_context(psycopg.connect(words, password=PASSWORD, autocommit=True, prepare_threshold=None))
        for statement in SETUP.split("; "):
            admin.execute(statement)
        _reload(admin)
        running = stack.enter_context(relay(server.port))
        yield Yard(relay=running, sequences=Sequences(admin), language=LANGUAGE)


def _reload(admin: psycopg.Connection[tuple[int, ...]]) -> None:
    """Have the server read its files; it lets nobody in before it has."""
    before = admin.execute("select pg_conf_load_time()").fetchone()
    admin.execute("select pg_reload_conf()")
    deadline = time.monotonic() + SECONDS_MAX
    while admin.execute("select pg_conf_load_time()").fetchone() == before:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("judge", JUDGES)
def test_cut(yard: Yard, judge: str, pace: str) -> None:
    """Everything ends, and nothing has run that must not have."""
    with TemporaryDirectory(prefix="capd-cuts-") as name:
        directory = Path(name)
        (directory / "tls").mkdir()
        with proxied(directory, yard.relay.port, make(directory / "tls"), JUDGES[judge]) as proxy:
            told = cut_many(
                yard, proxy, PACES[pace], {**dict.fromkeys(COUNTED, 1), 13: COPIED_ROWS, **dict.fromkeys(DENIED, 0)}
            )
    assert (b"hidden 1" in told) == (judge == "plain")
