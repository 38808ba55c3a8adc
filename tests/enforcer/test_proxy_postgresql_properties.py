"""PostgreSQL through the proxy's core: whatever a client says, and wherever it is cut, only what was judged is run.

What lives here: conversations made at random against the model of a server. What must not: tables (test_proxy_postgresql.py).
"""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from capd.enforcer.proxy.events import Side
from tests.enforcer.postgresql_model import FLUSH, SYNC, Server, bind, close, describe, execute, kinds, parse, query, startup
from tests.enforcer.postgresql_talk import Talk

SELECT, DENIED = "select a from t", "select denied from t"
OTHER = "select b from t"


def _random_said(chance: random.Random) -> list[bytes]:
    """Give what a client might say: groups of messages, with names that collide, that fail, and that are denied."""
    sqls = [SELECT, OTHER, DENIED, "begin", "rollback", "commit", "fail", "wrong", "set x to 1", "deallocate s"]
    said: list[bytes] = []
    for _ in range(chance.randrange(3, 12)):
        if chance.random() < 0.25:
            said.append(query(chance.choice(sqls[:-1] if chance.random() < 0.9 else sqls)))
            continue
        group = b""
        for _ in range(chance.randrange(1, 8)):
            name, portal = chance.choice(["", "", "s", "r"]), chance.choice(["", "", "p"])
            value = chance.choice([None, None, "7", "denied"])
            group += chance.choice(
                [
                    parse(chance.choice(sqls), name),
                    bind(name, portal, value),
                    bind(name, portal, value) + execute(portal),
                    parse(chance.choice(sqls), name) + bind(name, portal, value) + execute(portal),
                    execute(portal),
                    describe("P", portal),
                    close(chance.choice("SP"), chance.choice([name, portal])),
                    FLUSH,
                    SYNC if chance.random() < 0.3 else FLUSH,
                ]
            )
        said.append(group + SYNC)
    return said


def _assert_each_was_allowed(talk: Talk) -> None:
    """Each statement that ran has a decision of its own, with its text and value, behind that of the one before."""
    asked = [one.statement for one in talk.run.questions if one.statement is not None]
    allowed = iter([one for one in asked if b"denied" not in one.content])
    for sql, value in talk.server.ran:
        assert "denied" not in sql + (value or "")
        assert any(one.text == sql and (value is None or value.encode() in one.content) for one in allowed), (sql, value)


@pytest.mark.parametrize("seed", range(300))
def test_only_what_was_judged_is_run(seed: int) -> None:
    """Each statement that runs was allowed by its very text and value, in order, and none twice on one decision."""
    said = _random_said(random.Random(seed))
    talks = []
    for step in (0, 1 + seed % 9):
        talk = Talk(step=step).begin()
        talk.says(*said)
        talks.append(talk)
        _assert_each_was_allowed(talk)
        assert not [text for text in talk.server.heard if "denied" in text]
    assert kinds(talks[0].new()) == kinds(talks[1].new())
    assert talks[0].server.ran == talks[1].server.ran
    assert talks[0].run.closed is None


@pytest.mark.parametrize("seed", range(60))
def test_a_cut_at_any_place(seed: int) -> None:
    """Either side is cut anywhere, inside of messages too: nothing hangs, nothing denied was heard, nothing ran unallowed."""
    chance = random.Random(seed)
    said = b"".join(_random_said(chance))
    whole = Talk().begin()
    whole.says(said)
    client = chance.random() < 0.5
    at = chance.randrange(len(said) if client else len(whole.run.client) or 1)
    talk = Talk(step=chance.randrange(1, 40), cut=None if client else at)
    talk.begin()
    talk.says(said[:at] if client else said)
    clean = chance.random() < 0.5
    if talk.run.closed is None:
        talk.run.ends(Side.CLIENT if client else Side.UPSTREAM, clean=clean)
    assert talk.run.closed is not None
    _assert_each_was_allowed(talk)
    assert not [text for text in talk.server.heard if "denied" in text]


class Damaged(Server):
    """A server of whose words a few bytes are others, if it is given to chance; it is silent about what it cannot read."""

    chance: random.Random | None = None

    def hears(self, data: bytes) -> bytes:
        """Answer, damaged or not."""
        said = bytearray()
        with suppress(UnicodeDecodeError, LookupError, ValueError, AssertionError):
            said += super().hears(data)
        while said and self.chance is not None and self.chance.random() < 0.3:
            said[self.chance.randrange(len(said))] = self.chance.randrange(256)
        return bytes(said)


@pytest.mark.parametrize("seed", range(200))
def test_damage_is_never_a_mistake_of_ours(seed: int) -> None:
    """Whatever bytes either side sends, from the first packet on: the session goes on or ends, and nothing else is raised."""
    chance = random.Random(seed)
    said = bytearray(startup() + b"".join(_random_said(chance)))
    server = Damaged()
    talk = Talk(step=chance.randrange(0, 20), server=server)
    if seed % 2:
        server.chance = chance
    else:
        for _ in range(chance.randrange(1, 6)):
            said[chance.randrange(len(said) if chance.random() < 0.7 else 40)] = chance.randrange(256)
    for at in range(0, len(said), 50):
        if talk.run.closed is None:
            talk.says(bytes(said[at : at + 50]))
    if talk.run.closed is None:
        talk.run.ends(Side.CLIENT)
    assert talk.run.closed is not None
