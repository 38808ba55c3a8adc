"""The statements made at random, by libpq through the enforcer's own proxy, to a real PostgreSQL: nothing hidden arrives.

What lives here: every way of the protocol, and every byte that libpq has of it. What must not: the proxy's inside.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.policy.rule import Mask, Predicates, Replace
from tests.e2e.certificates import make
from tests.e2e.postgres import PASSWORD, database
from tests.enforcer.proxied import ADDRESS, proxied
from tests.enforcer.rows.hides import Hides
from tests.enforcer.rows.postgresql_client import ROWS_STATUS, WAYS, Client
from tests.enforcer.rows.postgresql_maker import HIDDEN, SCHEMA, Maker
from tests.requirements import require_root

MADE = int(os.environ.get("CAPD_ROWS_MADE", "250"))
"""Statements of a run; ten thousand take minutes."""
SHOWN_MIN = 0.03


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Client, Maker, Hides]]:
    """Make a filled server, the proxy before it, and a client of it."""
    require_root()
    maker, hides = Maker(11), Hides()
    with TemporaryDirectory(prefix="capd-rows-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "tls").mkdir()
        certificates = make(directory / "tls")
        words = {"user": "agent", "password": PASSWORD, "dbname": "postgres", "host": "localhost", "client_encoding": "utf8"}
        with database(directory / "pg", certificates) as server, proxied(directory, server.port, certificates, hides) as proxy:
            port = {"port": str(server.port)}
            direct = {**words, **port, "hostaddr": "127.0.0.1", "sslmode": "disable"}
            with psycopg.connect(**direct, autocommit=True) as filler:  # type: ignore[arg-type] # of libpq's own words
                filler.execute(SCHEMA)
                for text, parameters in maker.content():
                    filler.execute(text, parameters)
                filler.execute("ALTER SYSTEM SET statement_timeout = '5s'")
                filler.execute("SELECT pg_reload_conf()")
            through = {**words, "port": str(proxy.port), "hostaddr": ADDRESS, "sslmode": "disable"}
            client = Client(through)
            yield client, maker, hides
            client.close()
            assert [] == proxy.mistakes
            assert 0 == proxy.counters.defects


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("predicates", list(Predicates))
def test_no_hidden_value_arrives(place: tuple[Client, Maker, Hides], predicates: Predicates, way: str) -> None:
    """In every way of the protocol no hidden value arrives, and after each statement client and server are in step."""
    client, maker, hides = place
    mask = Mask(columns=HIDDEN, replace=Replace.FIXED, predicates=predicates)
    hides.masks = Obligations(masks=(("hide", mask),))
    maker.chance.seed(f"{predicates} {way}")
    found: list[str] = []
    counts: Counter[str] = Counter()
    for text in (maker.statement() for _ in range(MADE)):
        if way == "cursor" and not text.startswith(("SELECT", "WITH", "COPY")):
            continue
        heard = client.run(text, way)
        found += [f"{text}\n    {leak}" for one in heard.said if (leak := maker.needles.found_in(one)) is not None]
        counts["shown" if heard.status in ROWS_STATUS else "refused"] += 1
    assert [] == found, counts
    assert counts["shown"] > MADE * SHOWN_MIN, counts
