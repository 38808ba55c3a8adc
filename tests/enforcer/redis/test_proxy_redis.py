"""Redis in the proxy's core: what is asked, what goes on, what the client is told, however bytes are cut."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from capd.decoders.redis.reader import Reader
from capd.decoders.stream import Stream
from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.policy.glob import Glob
from capd.enforcer.proxy.events import Data, Side
from capd.enforcer.proxy.question import Destination, Kind, Question, Verdict
from capd.enforcer.proxy.redis.server import DUE_MAX
from tests.decoders import redis_bytes as rd
from tests.enforcer.redis.redis_model import Model
from tests.enforcer.rehearsal import Rehearsal

HERE = Destination(address="192.0.2.1", port=6379)
DENIED = "-NOPERM capd: not this"


def judge(question: Question) -> Verdict:
    """Allow sessions but of `nobody`, and commands without `denied`."""
    statement, login = question.statement, question.login
    allowed = login is not None and (login.user != "nobody" if statement is None else b"denied" not in statement.content)
    reason = "" if allowed else "denied_by_policy"
    return Verdict(number=question.number, allowed=allowed, reason=reason, rule="r", policy="1", message="not this")


@dataclass
class Talk:
    """A client, the proxy's core, and the model of a server.

    Attributes:
        judge: answers questions at once; None: they wait.
        step: size of the pieces in which bytes come; 0: as they are said.
    """

    judge: Callable[[Question], Verdict] | None = judge
    step: int = 0
    server: Model = field(default_factory=Model)
    _taken: int = 0

    def __post_init__(self) -> None:
        self.run = Rehearsal(judge=self.judge, destination=HERE)

    def says(self, *said: bytes) -> Talk:
        """Have the client say something."""
        for piece in said:
            for at in range(0, len(piece), self.step or len(piece) or 1):
                if self.run.closed is None:
                    self.run.says(piece[at : at + (self.step or len(piece))])
                self.go()
        return self

    def go(self) -> Talk:
        """Carry what the server is sent, and what it answers."""
        while new := self.run.upstream[self._taken :]:
            self._taken += len(new)
            said = self.server.hears(new)
            for at in range(0, len(said), self.step or len(said) or 1):
                if self.run.closed is None:
                    self.run.tell(Data(Side.UPSTREAM, said[at : at + (self.step or len(said))]))
        return self

    def told(self) -> list[str]:
        """Give the answers that the client got: lines, or `(n bytes)` of what is none."""
        stream = Stream()
        reader = Reader(stream)
        stream.append(self.run.client)
        found = []
        while (answer := reader.read()) is not None:
            raw = self.run.client[answer.start : answer.end].decode("utf-8", "replace")
            found.append(raw.split(" (")[0].strip() if raw[0] in "+-" else repr(answer.value))
        assert not reader.inside
        return found


SCRIPT = [
    *[rd.command("HELLO", "3", "AUTH", "agent", "pw"), rd.PING + rd.command("SET", "k", "v") + rd.command("GET", "denied")],
    *[
        b"get k\r\n",
        rd.command("MULTI") + rd.command("SET", "a", "1") + rd.command("SET", "denied", "2") + rd.command("SET", "b", "3"),
    ],
    *[
        rd.command("EXEC") + rd.command("GET", "a"),
        rd.command("SELECT", "3") + rd.command("GET", "k"),
        rd.command("SELECT", "99"),
    ],
    *[rd.command("AUTH", "nobody", "x"), rd.command("CLIENT", "REPLY", "OFF"), rd.command("PSYNC", "?", "-1"), b"\r\n*0\r\n"],
    *[
        rd.command("MULTI") + rd.command("SELECT", "5") + rd.command("EXEC"),
        rd.command("SUBSCRIBE", "x", "y"),
        rd.command("QUIT"),
    ],
]
ANSWERS = [
    *["{'map': [['server', 'redis'], ['proto', 3]]}", "+PONG", "+OK", DENIED, "'v'", "+OK", "+QUEUED", DENIED, "+QUEUED"],
    *["-EXECABORT Transaction discarded because of previous errors.", "None", "+OK", "None", "-ERR DB index is out of range"],
    *[DENIED, "-NOPERM capd: CLIENT REPLY would leave answers out", "-NOPERM capd: replication is not for agents", "+OK"],
    *["-NOPERM capd: SELECT is not for transactions", "-EXECABORT Transaction discarded because of previous errors."],
    *["['subscribe', 'x', 1]", "['subscribe', 'y', 2]", "+OK"],
]
RAN = [
    ("default", 0, b"HELLO"),
    *[("agent", 0, name) for name in (b"PING", b"SET", b"get", b"GET", b"SELECT")],
    *[("agent", 3, name) for name in (b"GET", b"SELECT", b"SUBSCRIBE")],
]


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 50])
def test_however_bytes_are_cut(step: int) -> None:
    """Whatever the pieces, the same is asked, sent on and answered, each answer in the place of its command."""
    talk = Talk(step=step).says(*SCRIPT)
    assert ANSWERS == talk.told()
    assert RAN == [(user, database, words[0]) for user, database, words in talk.server.ran]
    whole = Talk().says(*SCRIPT)
    assert [one.statement for one in whole.run.questions] == [one.statement for one in talk.run.questions]
    assert [one.login for one in whole.run.questions] == [one.login for one in talk.run.questions]
    assert whole.run.upstream == talk.run.upstream
    assert talk.run.closed is not None


def test_all_at_once() -> None:
    """So when the client waits for no answer."""
    talk = Talk().says(b"".join(SCRIPT))
    assert ANSWERS == talk.told()


def test_nothing_is_dialled_or_sent_before_it_is_decided() -> None:
    """While a question waits, nothing of it goes on, and nothing behind it is asked."""
    talk = Talk(judge=None).says(rd.command("SET", "a", "1") + rd.command("SET", "b", "2"))
    assert ([], b"", [Kind.SESSION]) == (talk.run.dials, talk.run.upstream, [one.kind for one in talk.run.asked])
    talk.run.decide(judge)
    assert (1, b"", [Kind.STATEMENT]) == (len(talk.run.dials), talk.run.upstream, [one.kind for one in talk.run.asked])
    talk.run.decide(judge)
    assert rd.command("SET", "a", "1") == talk.run.upstream
    talk.run.decide(judge)
    assert rd.command("SET", "a", "1") + rd.command("SET", "b", "2") == talk.run.upstream


def test_a_session_that_is_denied() -> None:
    """It is told with NOPERM, nothing is dialled, and the connection ends."""
    talk = Talk().says(rd.command("AUTH", "nobody", "pw") + rd.PING)
    assert [DENIED] == talk.told()
    assert ([], True) == (talk.run.dials, talk.run.closed is not None)


def test_a_client_waits_while_it_is_asked() -> None:
    """A client that says more than may wait is not read on, and is when it was decided."""
    talk = Talk(judge=None).says(rd.PING)
    talk.says(rd.command("SET", "k", "x" * 100_000))
    assert talk.run.reading[Side.CLIENT] is False
    talk.run.decide(judge)
    talk.run.decide(judge)
    talk.run.decide(judge)
    assert talk.run.reading[Side.CLIENT] is True


def test_answers_that_are_due_are_bounded() -> None:
    """A client that never waits for answers is left to wait."""
    talk = Talk()
    talk.run.says(rd.PING * (DUE_MAX + 100))
    assert DUE_MAX == talk.run.upstream.count(b"PING")
    talk.go()
    assert DUE_MAX + 100 == len(talk.told())


@pytest.mark.parametrize("seed", range(40))
def test_any_commands(seed: int) -> None:
    """Of any commands exactly those that were allowed arrive, and every answer is in its command's place."""
    chance = random.Random(seed)
    names = ("SET", "GET", "PING", "MULTI", "EXEC", "DISCARD")
    said = [rd.PING]
    for _ in range(60):
        name = chance.choice(names)
        key = "denied" if chance.random() < 0.2 else chance.choice("abc")
        said.append(rd.command(name, *{"SET": (key, "1"), "GET": (key,)}.get(name, ())))
    talk = Talk(step=chance.choice((0, 1, 5)))
    talk.says(*said) if chance.random() < 0.5 else talk.says(b"".join(said))
    assert len(said) == len(talk.told())
    assert not [words for words in talk.server.heard if b"denied" in words]
    heard = [words[0] for words in talk.server.heard]
    allowed = [
        one.statement.operation.encode() for one in talk.run.questions if one.statement is not None and judge(one).allowed
    ]
    own = talk.told().count("-EXECABORT Transaction discarded because of previous errors.")
    assert len(heard) == len(allowed) + own
    for index, one in enumerate(said):
        assert (b"denied" in one) is (talk.told()[index] == DENIED)


def test_what_was_denied_in_a_transaction_undoes_it() -> None:
    """Nothing of a transaction with a denied command is carried out."""
    talk = Talk().says(
        rd.PING, rd.command("MULTI"), rd.command("SET", "a", "1"), rd.command("SET", "denied", "1"), rd.command("EXEC")
    )
    assert [b"PING"] == [words[0] for _, _, words in talk.server.ran]
    assert [b"PING", b"MULTI", b"SET", b"DISCARD"] == [words[0] for words in talk.server.heard]


def injected(placeholder: str | None = None) -> Callable[[Question], Verdict]:
    """Give a judge that injects a credential."""
    sign_in = SignIn(credential="c", user="robot", secret=Secret("the-secret"), placeholder=placeholder)
    return lambda question: replace(judge(question), sign_in=sign_in if question.kind is Kind.SESSION else None)


@pytest.mark.parametrize(
    ("first", "answers"),
    [
        (rd.command("AUTH", "agents-own"), ["+OK"]),
        (rd.command("AUTH", "agent", "agents-own"), ["+OK"]),
        (
            rd.command("HELLO", "3", "AUTH", "agent", "agents-own", "SETNAME", "n"),
            ["{'map': [['server', 'redis'], ['proto', 3]]}"],
        ),
        (rd.command("GET", "k"), ["None"]),
    ],
)
def test_a_credential(first: bytes, answers: list[str]) -> None:
    """Capd signs in; the client is answered as if it had, and its password never goes on."""
    talk = Talk(judge=injected(), step=3).says(first + rd.PING)
    assert [*answers, "+PONG"] == talk.told()
    assert (b"AUTH", b"robot", b"the-secret") == talk.server.heard[0]
    assert b"agents-own" not in talk.run.upstream
    assert b"the-secret" not in talk.run.client
    assert "robot" == talk.server.ran[-1][0]


def test_a_placeholder() -> None:
    """Until the client has said it nothing goes on; then everything."""
    talk = Talk(judge=injected("x")).says(rd.PING + rd.command("AUTH", "y") + rd.PING + rd.command("AUTH", "x") + rd.PING)
    assert [
        "-NOAUTH Authentication required.",
        "-WRONGPASS invalid username-password pair or user is disabled.",
    ] == talk.told()[:2]
    assert ["-NOAUTH Authentication required.", "+OK", "+PONG"] == talk.told()[2:]
    assert [b"AUTH", b"PING"] == [words[0] for words in talk.server.heard]


@pytest.mark.parametrize("bound", [True, False])
def test_a_credential_stays_in_its_databases(*, bound: bool) -> None:
    """Neither its own databases nor those of the rule that injects it are left with it."""
    sign_in = SignIn(credential="c", user="robot", secret=Secret("s"), databases=(Glob("0"),) if bound else ())

    def judging(question: Question) -> Verdict:
        assert question.login is not None
        injected = question.kind is Kind.SESSION and (bound or question.login.database == "0")
        return replace(judge(question), sign_in=sign_in if injected else None)

    talk = Talk(judge=judging).says(rd.PING, rd.command("SELECT", "3"), rd.command("GET", "k"))
    assert ["+PONG", "-NOPERM capd: the credential is not for this database", "None"] == talk.told()
    assert [("robot", 0)] * 2 == [
        (user, database) for user, database, words in talk.server.ran if words[0] in (b"PING", b"GET")
    ]


def test_another_user_of_a_credential() -> None:
    """Where the agent names the user, capd signs in anew for another; a wrong placeholder changes nothing, here and there."""
    sign_in = SignIn(credential="c", user=None, secret=Secret("s"), placeholder="x")

    def judging(question: Question) -> Verdict:
        return replace(judge(question), sign_in=sign_in if question.kind is Kind.SESSION else None)

    talk = Talk(judge=judging)
    talk.says(
        rd.command("AUTH", "a", "x"), rd.PING, rd.command("AUTH", "b", "wrong"), rd.PING, rd.command("AUTH", "b", "x"), rd.PING
    )
    assert [
        "+OK",
        "+PONG",
        "-WRONGPASS invalid username-password pair or user is disabled.",
        "+PONG",
        "+OK",
        "+PONG",
    ] == talk.told()
    assert [("a", b"PING"), ("a", b"PING"), ("b", b"PING")] == [
        (user, words[0]) for user, _, words in talk.server.ran if words[0] == b"PING"
    ]
    assert ["a", "a", "b"] == [
        one.login.user for one in talk.run.questions if one.statement is not None and one.login is not None
    ]


def as_whom(talk: Talk) -> tuple[list[str | None], list[str]]:
    """Give as whom commands were judged, and as whom those that were sent were carried out."""
    asked = [one.login.user for one in talk.run.questions if one.statement is not None and one.login is not None]
    return asked, [user for user, _, words in talk.server.ran if words[0].upper() not in (b"AUTH", b"HELLO", b"SELECT")]


@pytest.mark.parametrize(
    "first",
    [
        [rd.command("AUTH", "reader", "wrong")],
        [rd.command("HELLO", "3", "AUTH", "reader", "wrong")],
        [rd.PING, rd.command("AUTH", "reader", "wrong")],
        [rd.command("AUTH", "reader", "wrong"), rd.command("HELLO", "3")],
        [rd.command("AUTH", "reader", "pw"), rd.command("AUTH", "other", "wrong")],
        [rd.command("AUTH", "reader", "pw"), rd.command("HELLO", "3", "AUTH", "other", "pw", "SETNAME", "a b")],
    ],
)
def test_a_client_is_who_the_server_takes_it_for(first: list[bytes]) -> None:
    """What is said behind a sign-in that the server did not take is judged as what it runs as."""
    talk = Talk().says(*first, rd.command("SET", "k", "v"), rd.PING)
    asked, ran = as_whom(talk)
    assert asked == ran
    assert len(ran) >= len(("SET", "PING"))


def test_the_default_user_is_asked_about_when_a_sign_in_failed() -> None:
    """A client that names a user who may open a session, and is not let in as that one, says nothing as another."""

    def judging(question: Question) -> Verdict:
        assert question.login is not None
        return replace(judge(question), allowed=question.login.user == "reader")

    talk = Talk(judge=judging).says(rd.command("AUTH", "reader", "wrong"), rd.command("FLUSHALL"), rd.command("SELECT", "1"))
    assert ["-WRONGPASS invalid username-password pair or user is disabled.", DENIED, DENIED] == talk.told()
    assert [b"AUTH"] == [words[0] for words in talk.server.heard]
    talk.says(rd.command("AUTH", "reader", "pw"), rd.PING)
    assert ["+OK", "+PONG"] == talk.told()[3:]


def test_a_sign_in_that_failed_leaves_the_credential_bound() -> None:
    """A database for which no rule injects a credential is not selected with it, whatever the client tried before."""
    sign_in = SignIn(credential="c", user="robot", secret=Secret("s"))

    def judging(question: Question) -> Verdict:
        assert question.login is not None
        injected = question.kind is Kind.SESSION and (question.login.user, question.login.database) == ("default", "0")
        return replace(judge(question), sign_in=sign_in if injected else None)

    talk = Talk(judge=judging).says(
        rd.PING, rd.command("AUTH", "bob", "wrong"), rd.command("SELECT", "3"), rd.command("GET", "k")
    )
    assert "-NOPERM capd: the credential is not for this database" == talk.told()[2]
    assert ("robot", 0) == next((user, database) for user, database, words in talk.server.ran if words[0] == b"GET")
    talk.says(rd.command("AUTH", "bob", "pw"), rd.command("SELECT", "3"), rd.command("GET", "k"))
    assert ("bob", 3) == talk.server.ran[-1][:2]


@pytest.mark.parametrize("index", ["01", "+1", " 1", "1\0", "x", ""])
def test_a_database_that_cannot_be_read_is_not_selected(index: str) -> None:
    """Servers differ in what they take for a number."""
    talk = Talk().says(rd.PING, rd.command("SELECT", index), rd.PING)
    assert [b"PING", b"PING"] == [words[0] for words in talk.server.heard]
    assert talk.told()[1].startswith("-ERR capd: ")


def test_answers_are_left_out_for_nobody() -> None:
    """Old servers compare subcommands up to a zero byte."""
    talk = Talk().says(rd.PING, rd.command("CLIENT", "reply\0x", "OFF"), rd.PING)
    assert [b"PING", b"PING"] == [words[0] for words in talk.server.heard]


@pytest.mark.parametrize(
    ("bytes_", "told"),
    [
        (b"*1\r\n:1\r\n", "-ERR Protocol error: an argument begins with ':', not with '$'"),
        (b"POST / HTTP/1.1\r\n", "-ERR capd: a request of HTTP, not a command of Redis"),
        (b"GET 'x\r\n", "-ERR Protocol error: unbalanced quotes in an inline command"),
    ],
)
def test_what_is_no_redis_ends_it(bytes_: bytes, told: str) -> None:
    """It is told, written down, and the connection ends."""
    talk = Talk().says(rd.PING, bytes_)
    assert ["+PONG", told] == talk.told()
    assert talk.run.refused
    assert talk.run.closed is not None


@pytest.mark.parametrize("said", [b":1\r\n", b"?\r\n", b"+OK\r\n+OK\r\n", b"$-5\r\n"])
def test_a_server_that_cannot_be_followed_ends_it(said: bytes) -> None:
    """Answers that nobody asked for, and bytes that are none, end the session."""
    talk = Talk().says(rd.PING)
    talk.run.answers(said)
    assert talk.run.closed is not None
    assert talk.run.refused


def test_pushes_pass_in_between() -> None:
    """What the server pushes comes in its own time; what is denied meanwhile is told behind a push that has begun."""
    talk = Talk().says(rd.command("HELLO", "3"), rd.command("SUBSCRIBE", "a"))
    push = rd.published(b"a", b"m" * 5_000, b">")
    before = len(talk.run.client)
    talk.run.answers(push[:40])
    talk.says(rd.command("GET", "denied"))
    talk.run.answers(push[40:] + push)
    after = talk.run.client[before:]
    assert after.startswith(push)
    assert after.endswith(push)
    assert DENIED.encode() in after


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("clean", [True, False])
def test_a_side_that_ends_anywhere(side: Side, *, clean: bool) -> None:
    """Wherever a side ends, nothing that was not allowed was sent, nothing twice, and the connection ends or is told so."""
    said = b"".join(SCRIPT[:6])
    for at in range(5, len(said), 5):
        talk = Talk().says(said[:at])
        if talk.run.closed is None:
            talk.run.ends(side, clean=clean)
            talk.go()
        assert talk.run.closed is not None or side is Side.CLIENT
        assert not [words for words in talk.server.heard if b"denied" in words]
        assert len(talk.server.heard) <= len(SCRIPT) * 4
        if side is Side.CLIENT and clean and talk.run.closed is None:
            assert Side.UPSTREAM in talk.run.finished
