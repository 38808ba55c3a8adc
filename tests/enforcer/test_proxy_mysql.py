"""MySQL through the proxy's core, against a model of its server: what is asked, what is heard, what the client reads.

What lives here: tables of packets. What must not: sockets, real servers (test_mysql_clients.py).
"""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest

from capd.decoders.mysql.login import greeting, login
from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.policy.glob import Glob
from capd.enforcer.proxy.commands import Close
from capd.enforcer.proxy.events import Ended, Side
from capd.enforcer.proxy.mysql.packets import KEPT
from capd.enforcer.proxy.question import Kind, Login, Question, Verdict
from tests.decoders import mysql_bytes as my
from tests.enforcer.mysql_model import Server, outline
from tests.enforcer.mysql_talk import Talk, allowing, by_text

SELECT, DENIED, OTHER = "select a from t", "select denied from t", "update t set a = 1"
VALUE = struct.pack("<I", 7)
CAPABILITIES = [my.BASE | my.NO_EOF, my.BASE, my.BASE | my.TRACK, my.BASE | my.NO_EOF | my.COMPRESS | my.QUERY_ATTRIBUTES]


def execute(statement: int = 1, value: bytes = VALUE, flags: int = 0) -> bytes:
    """COM_STMT_EXECUTE with one value."""
    return my.execute(statement, [(254, 0)], my.piece(value), flags=flags)


def test_begin() -> None:
    """Anybody's session is asked for before the server is dialled, the client's own before the server hears of it."""
    talk = Talk(judge=None)
    talk.run.silent()
    (question,) = talk.run.asked
    assert (Kind.SESSION, "mysql", Login(user=None, database=None)) == (question.kind, question.protocol, question.login)
    assert [] == talk.run.dials
    talk.decide()
    assert [question.number] == talk.run.dials
    talk.server_says(talk.server.greets())
    assert b"" == talk.run.upstream
    talk.says(my.login())
    (question,) = talk.run.asked
    assert (Kind.SESSION, Login(user="u", database="d")) == (question.kind, question.login)
    assert b"" == talk.run.upstream
    talk.decide()
    assert (1, {question.number}) == (talk.server.asked, set(talk.run.decisions))
    assert "2o" == outline(talk.new()[len(talk.server.greets()) :])


def test_what_is_agreed_on() -> None:
    """Client and server are told only what is followed; the scramble is the server's, so that proofs can be passed on."""
    talk = Talk(login=(1 << 32) - 1 & ~my.SSL & ~my.ATTRS & ~my.LENENC & ~(1 << 26)).dial()
    told = greeting(talk.new()[4:])
    offered = greeting(talk.server.greets()[4:])
    assert (offered.capabilities & KEPT, offered.scramble, offered.thread) == (told.capabilities, told.scramble, told.thread)
    talk.says(my.login(talk.login))
    said = login(talk.server.login)
    assert offered.capabilities & KEPT == said.capabilities
    assert not said.capabilities & (my.COMPRESS | my.QUERY_ATTRIBUTES | 1 << 7)
    assert ("u", "d", my.SECRET) == (said.user, said.database, said.response)


def test_a_denied_session() -> None:
    """It reads why, and the server hears nothing."""

    def judge(question: Question) -> Verdict:
        return replace(by_text(question), allowed=question.login == Login(user=None, database=None), reason="no")

    talk = Talk(judge=judge).dial()
    talk.new()
    talk.says(my.login())
    said = talk.new()
    assert ("2e", b"\x15\x04#28000", True) == (outline(said), said[5:13], b"reason=no" in said)
    assert (b"", Close()) == (talk.run.upstream, talk.run.closed)


SAID: dict[str, tuple[list[bytes], str | None, list[str] | None]] = {
    "allowed": ([my.query(SELECT)], "1....f", [SELECT]),
    "denied": ([my.query(DENIED)], "1e", []),
    "denied, then allowed": ([my.query(DENIED), my.query(SELECT)], "1e1....f", [SELECT]),
    "several at once": ([my.query(SELECT) + my.query(DENIED) + my.query(OTHER)], "1....f1e1o", [SELECT, OTHER]),
    "several in one message": ([my.query(f"{SELECT}; {OTHER}")], "1....fo", [SELECT, OTHER]),
    "one of several denied": ([my.query(f"{SELECT}; {DENIED}")], "1e", []),
    "the server refuses": ([my.query("fail"), my.query(SELECT)], "1e1....f", [SELECT]),
    "prepared and executed": ([my.prepare("select a from t where a = ?"), execute(), execute()], "1o..1..of1..of", None),
    "prepared and executed at once": (
        [my.prepare("select a from t where a = ?") + execute(0xFFFFFFFF)],
        "1o..1..of",
        ["select a from t where a = ?"],
    ),
    "denied when it is prepared": ([my.prepare(DENIED), execute()], "1e1e", []),
    "denied by a value": (
        [my.prepare("select a from t where a = ?"), execute(value=b"denied"), execute()],
        "1o..1e1..of",
        ["select a from t where a = ?"],
    ),
    "denied by a value sent before": (
        [
            my.prepare("select a from t where a = ?"),
            my.command(0x18, struct.pack("<IH", 1, 0) + b"den") + my.command(0x18, struct.pack("<IH", 1, 0) + b"ied"),
            my.execute(1, [(254, 0)]),
            execute(),
        ],
        "1o..1e1..of",
        ["select a from t where a = ?"],
    ),
    "a cursor": (
        [my.prepare("select a from t where a = ?"), execute(flags=1), my.command(0x1C, struct.pack("<II", 1, 2))],
        None,
        ["select a from t where a = ?"],
    ),
    "closed, then executed": (
        [my.prepare("select a from t where a = ?"), my.command(0x19, struct.pack("<I", 1)), execute()],
        "1o..1e",
        [],
    ),
    "of a number that is not there": ([execute(9), my.command(0x1A, struct.pack("<I", 9))], "1e1o", []),
    "another database": ([my.command(2, b"other"), my.query(SELECT)], "1o1....f", [SELECT]),
    "a denied database": ([my.command(2, b"denied"), my.query(SELECT)], "1e1....f", [SELECT]),
    "columns of a table": ([my.command(4, b"t\0")], "1.f", []),
    "columns of a denied table": ([my.command(4, b"denied\0")], "1e", []),
    "bookkeeping": ([my.PING, my.command(9), my.command(0x1B, b"\0\0"), my.command(0x1F)], "1o1.1o1o", []),
    "what is not passed on": (
        [my.command(number) for number in (0, 5, 6, 7, 8, 0x0A, 0x0C, 0x0D, 0x11, 0x12, 0x13, 0x15, 0x1E, 0x20, 0xFA, 0xFE)],
        "1e" * 16,
        [],
    ),
    "insides that do not add up": ([my.command(0x17, b"\1"), my.command(0x19), my.command(4, b"t")], "1e" * 3, []),
}


@pytest.mark.parametrize("step", [0, 1, 3, 7])
@pytest.mark.parametrize("name", SAID)
def test_messages(name: str, step: int) -> None:
    """What the client reads and what the server runs, however bytes are cut."""
    said, expected, ran = SAID[name]
    for capabilities in CAPABILITIES:
        talk = Talk(step=step, login=capabilities).begin()
        assert 1 == talk.server.asked
        talk.says(*said)
        if expected is not None and capabilities & my.NO_EOF:
            assert expected == outline(talk.new())
        if ran is not None:
            assert ran == [sql for sql, _ in talk.server.ran]
        assert not [text for text in talk.server.heard if "denied" in text]
        assert not talk.run.closed
        assert set(talk.server.commands) <= {1, 2, 3, 4, 9, 0x0E, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B, 0x1C, 0x1F}
        talk.says(my.QUIT)
        assert talk.server.over
        assert Close() == talk.run.closed


def test_values_are_part_of_what_is_judged() -> None:
    """The question about an execution has the values, those sent before and the types of an earlier one among them."""
    sql = "select a from t where a = ?"
    talk = Talk().begin().says(my.prepare(sql), execute(value=b"seven"))
    talk.says(my.command(0x18, struct.pack("<IH", 1, 0) + b"before"), my.execute(1, None))
    contents = [one.statement.content for one in talk.run.questions if one.statement is not None]
    assert [sql] * 3 == talk.statements
    assert [False, True, False] == [b"seven" in content for content in contents]
    assert [False, False, True] == [b"before" in content for content in contents]
    assert b"\xfe\0" in contents[2]
    assert [True, True] == [b"seven" in talk.server.ran[0][1], b"before" in talk.server.ran[1][1]]
    other = execute(value=b"denied").replace(b"\xfe\0", b"\xfd\0")  # the server hears no types of what is denied
    talk.says(other, my.execute(1, None))
    last = talk.run.questions[-1].statement
    assert last is not None
    assert (False, True) == (b"\xfd\0" in last.content, b"\xfe\0" in last.content)


def test_nothing_is_sent_while_a_question_waits() -> None:
    """Whatever the client says behind it, the server gets nothing before the decision; then everything in order."""
    talk = Talk(judge=None).dial()
    talk.decide().server_says(talk.server.greets())
    talk.says(my.login()).decide()
    before = talk.run.upstream
    talk.says(my.query(SELECT) + my.query(OTHER))
    assert before == talk.run.upstream
    talk.decide(allowing)
    assert [SELECT] == [sql for sql, _ in talk.server.ran]
    talk.decide(allowing)
    assert [SELECT, OTHER] == [sql for sql, _ in talk.server.ran]


def test_a_client_that_leaves_while_a_question_waits() -> None:
    """The question is withdrawn, and nothing was sent."""
    talk = Talk(judge=None).dial()
    talk.decide().server_says(talk.server.greets())
    talk.says(my.login()).decide().says(my.query(SELECT))
    number = talk.run.asked[0].number
    talk.run.ends(Side.CLIENT)
    assert ([number], []) == (talk.run.withdrawn, talk.server.ran)


def test_each_statement_goes_under_its_own_decision() -> None:
    """Bytes for the server carry the number of the decision that allowed them."""
    talk = Talk().begin().says(my.query(SELECT), my.query(OTHER))
    numbers = [one.number for one in talk.run.questions if one.statement is not None]
    assert numbers == talk.run.decisions[-2:]


def test_the_server_is_asked_when_it_is_not_known_how_it_reads() -> None:
    """After what was not understood it is asked before the next statement, and the answer decides what that means."""
    talk = Talk().begin()
    talk.server.schema = b"other"
    talk.says(my.query("call p()"))
    assert 1 == talk.server.asked
    talk.says(my.query(SELECT), my.query(SELECT))
    assert 2 == talk.server.asked
    resources = [one.statement.resources for one in talk.run.questions if one.statement is not None]
    assert [(("other.t", "read"),)] * 2 == resources[1:]


@pytest.mark.parametrize(
    ("mode", "problems"), [(b"STRICT_TRANS_TABLES", False), (b"NO_BACKSLASH_ESCAPES", False), (b"ORACLE", True)]
)
def test_how_text_is_read(mode: bytes, problems: bool) -> None:
    """A statement is read as the server does by its sql_mode; where nobody can, it is not complete."""
    talk = Talk()
    talk.server.mode = mode
    talk.begin().says(my.query("select a from t where b = 'x'"))
    (statement,) = [one.statement for one in talk.run.questions if one.statement is not None]
    assert problems == bool(statement.problems)


def test_a_character_set_in_which_quotes_may_hide() -> None:
    """With it no statement is complete."""
    talk = Talk()
    talk.server.charset = b"gbk"
    talk.begin().says(my.query(SELECT))
    (statement,) = [one.statement for one in talk.run.questions if one.statement is not None]
    assert statement.problems


def test_a_changed_schema_is_followed() -> None:
    """USE, COM_INIT_DB and what the server tells by itself decide where names are looked for."""
    talk = Talk().begin().says(my.query("use a"), my.query(SELECT), my.command(2, b"b"), my.query(SELECT))
    resources = [one.statement.resources for one in talk.run.questions if one.statement is not None]
    assert [(("a.t", "read"),), (("b.t", "read"),)] == [resources[1], resources[3]]


SIGN_IN = SignIn(credential="c", user="boss", secret=Secret("hunter2"), databases=(Glob("d*"),))


def signed(question: Question) -> Verdict:
    """Put a credential in."""
    known = question.login is not None and question.login.user is not None
    return replace(by_text(question), sign_in=SIGN_IN if question.kind is Kind.SESSION and known else None)


@pytest.mark.parametrize("step", [0, 1])
def test_a_credential(step: int) -> None:
    """The client is let in with whatever it has; the server gets the credential's user and proof, and the client no secret."""
    talk = Talk(judge=signed, step=step).begin()
    said = login(talk.server.login)
    assert ("boss", "d", 20) == (said.user, said.database, len(said.response))
    assert my.SECRET not in talk.run.upstream
    assert b"hunter2" not in talk.run.upstream + talk.run.client
    talk.says(my.query(SELECT))
    assert [SELECT] == [sql for sql, _ in talk.server.ran]


@pytest.mark.parametrize("said", [my.query("use other"), my.command(2, b"other"), my.query("select 1; use other")])
def test_a_credential_stays_in_its_database(said: bytes) -> None:
    """A session with a credential goes into no database that the credential is not for."""
    talk = Talk(judge=signed).begin().says(said)
    assert "1e" == outline(talk.new())
    assert [] == talk.server.ran
    assert "1o" == outline(talk.says(my.query("use data")).new())


def test_a_credential_for_another_database() -> None:
    """Nobody is signed in."""
    talk = Talk(judge=signed).dial()
    talk.new()
    talk.says(my.login(database="other"))
    assert ("2e", b"") == (outline(talk.new()), talk.run.upstream)


@pytest.mark.parametrize("collation", [35, 54, 56, 60, 101, 128, 160])
def test_a_name_in_which_ascii_is_something_else(collation: int) -> None:
    """A server that takes no character set of the client reads such a name in its own: it would sign in another user."""
    said = bytearray(my.login(user="root", database="mysql"))
    said[12] = collation
    talk = Talk().dial()
    talk.new()
    talk.says(bytes(said))
    assert ("2e", b"") == (outline(talk.new()), talk.run.upstream)
    assert [None] == [question.login.user for question in talk.run.questions if question.login is not None]


@pytest.mark.parametrize(("user", "told"), [("'root'", "2e"), ("'", "2o"), ("'root", "2o"), ("r" * 80, "2o"), ("r" * 81, "2e")])
def test_a_name_that_servers_change(user: str, told: str) -> None:
    """Servers take quotes from around a user's name, and cut long ones: it would be judged as another user."""
    talk = Talk().dial()
    talk.new()
    talk.says(my.login(user=user))
    assert (told, told == "2o") == (outline(talk.new()), bool(talk.run.upstream))


@pytest.mark.parametrize(("offered", "size", "told"), [(my.LENENC, 300, "2o"), (0, 300, "2e"), (my.LENENC, 70_000, "2e")])
def test_a_long_proof(offered: int, size: int, told: str) -> None:
    """A token as a password has a thousand bytes: it goes across where both sides can say so."""
    proof = b"t" * size
    talk = Talk(server=Server(capabilities=my.BASE | my.NO_EOF | offered)).dial()
    talk.new()
    head, tail = my.login(my.BASE | my.NO_EOF | my.LENENC)[4:].split(bytes([len(my.SECRET)]) + my.SECRET)
    talk.says(my.packet(1, head + my.piece(proof) + tail))
    assert (told, told == "2o") == (outline(talk.new()), proof in talk.run.upstream)


def test_a_way_of_signing_in_whose_name_is_none() -> None:
    """It is no mistake of capd's: the client is told."""
    talk = Talk().dial()
    talk.new()
    body = my.login()[4:].replace(b"mysql_native_password", "mysql_native_pa\u0142word".encode())
    talk.says(my.packet(1, body))
    assert ("2e", b"") == (outline(talk.new()), talk.run.upstream)


SWITCHES: dict[str, tuple[bytes, str]] = {
    "native": (my.packet(2, b"\xfemysql_native_password\0" + my.SCRAMBLE + b"\0"), "2f4o"),
    "caching_sha2": (my.packet(2, b"\xfecaching_sha2_password\0" + my.SCRAMBLE + b"\0"), "2f4o"),
    "clear": (my.packet(2, b"\xfemysql_clear_password\0"), "2e"),
    "unknown": (my.packet(2, b"\xfeevil\0"), "2e"),
    "old": (my.packet(2, b"\xfe"), "2e"),
    "a second factor": (my.packet(2, b"\x02webauthn\0"), "2e"),
    "refused": (my.err(2, 1045, "28000", "Access denied"), "2e"),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_another_way_to_sign_in(name: str) -> None:
    """The client's own proof goes across; what would tell a password in clear, or nobody knows, is not asked for."""
    asked, expected = SWITCHES[name]

    class Switching(Server):
        def hears(self, data: bytes) -> bytes:
            if not self.login:
                super().hears(data)
                return asked
            if b"proof-of-switch" in data:
                return my.ok(4)
            return super().hears(data)

    talk = Talk(server=Switching()).dial()
    talk.new()
    talk.says(my.login())
    if talk.run.closed is None:
        talk.says(my.packet(3, b"proof-of-switch"))
        assert b"proof-of-switch" in talk.run.upstream
    assert expected == outline(talk.new())


NOT_FOLLOWED = {
    "a proof behind the login": my.packet(0, b""),
    "no command": my.packet(1, b"\x0e"),
    "more than one packet": my.packet(0, b"\x03" + b" " * 10)[:0] + b"\xff\xff\xff\0\x03",
}


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_what_cannot_be_followed_ends_the_session(name: str) -> None:
    """The client reads why, the server heard nothing of it, and it is written down."""
    talk = Talk().begin()
    before = talk.run.upstream
    talk.says(NOT_FOLLOWED[name])
    assert ("1e", True) == (outline(talk.new()), bool(talk.run.refused))
    assert (before, Close()) == (talk.run.upstream, talk.run.closed)


@pytest.mark.parametrize(
    "said",
    [my.ok(1), my.eof(1), my.packet(1, b"\1"), my.packet(1), b"\xff\xff\xff\1\1", my.packet(1, b"\xfb/etc/passwd")],
)
def test_a_server_out_of_step_ends_the_session(said: bytes) -> None:
    """What answers nothing that was asked is not passed on as an answer to what comes next."""
    talk = Talk().begin()
    talk.server_says(said)
    assert Close() == talk.run.closed


def test_a_file_of_the_client_is_never_asked_for() -> None:
    """A server that wants one though it was not agreed on ends the session; its request does not reach the client."""

    class Wanting(Server):
        def _query(self, body: bytes) -> bytes:
            return my.packet(1, b"\xfb/etc/passwd") if b"load" in body else super()._query(body)

    talk = Talk(server=Wanting()).begin()
    talk.says(my.query("load data local infile 'x' into table t"))
    said = talk.new()
    assert (Close(), b"/etc/passwd") == (talk.run.closed, b"/etc/passwd" if b"/etc/passwd" not in said else b"")


def test_a_long_row_is_passed_on_as_it_comes() -> None:
    """A row of several packets is not held, and what follows it is followed."""

    class Long(Server):
        def _query(self, body: bytes) -> bytes:
            if b"long" not in body:
                return super()._query(body)
            row = b"\xfd" + (0xFFFFFE).to_bytes(3, "little") + b"x" * 0xFFFFFE
            cut = my.packet(3, b"")[:0] + b"\xff\xff\xff\3" + row[:0xFFFFFF] + my.packet(4, row[0xFFFFFF:])
            return my.packet(1, b"\1") + my.column(2, "a") + cut + my.end(5)

    talk = Talk(server=Long()).begin().says(my.query("select long from t"), my.query(OTHER))
    assert talk.new().endswith(my.end(5) + my.ok(1, 1))
    assert not talk.run.closed


def _script(chance: random.Random) -> list[bytes]:
    return [data for _ in range(4) for data in SAID[chance.choice(sorted(SAID))][0]]


@pytest.mark.parametrize("seed", range(40))
def test_any_order_and_any_cut(seed: int) -> None:
    """However commands follow each other and bytes are cut, the same comes out, and nothing that is denied is heard."""
    whole, cut = Talk().begin(), Talk(step=random.Random(seed).choice([1, 2, 5, 11])).begin()
    said = _script(random.Random(seed))
    whole.says(*said)
    cut.says(b"".join(said))
    assert (whole.new(), whole.server.ran, whole.statements) == (cut.new(), cut.server.ran, cut.statements)
    assert not [text for text in whole.server.heard if "denied" in text]
    allowed = {one.number for one in whole.run.questions if by_text(one).allowed}
    assert set(whole.run.decisions) <= allowed


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("clean", [True, False])
def test_cut_anywhere(side: Side, clean: bool) -> None:
    """Whenever a side is cut, at a packet's end or within, the connection is over, and nothing denied or twice was run."""
    said = b"".join([my.query(SELECT), my.query(DENIED), my.prepare("select a from t where a = ?"), execute(), my.query(OTHER)])
    for at in range(len(my.login()) + len(said)):
        talk = Talk(step=1).dial()
        everything = my.login(talk.login) + said
        talk.says(everything[:at])
        if talk.run.closed is None:
            talk.run.tell(Ended(side, clean))
        assert talk.run.closed is not None
        ran = [sql for sql, _ in talk.server.ran]
        assert ran == [SELECT, "select a from t where a = ?", OTHER][: len(ran)]


@pytest.mark.parametrize("seed", range(60))
def test_any_bytes(seed: int) -> None:
    """Whatever either side says, nothing raises, and nothing reaches the server without a decision."""
    chance = random.Random(seed)
    talk = Talk(step=chance.choice([0, 3])).begin() if seed % 3 else Talk().dial()
    pieces = [
        *(data for name in sorted(SAID) for data in SAID[name][0]),
        my.login(),
        my.ssl_request()[:20],
        b"\xff\xff\xff",
        b"\0",
    ]
    for _ in range(20):
        piece = bytearray(chance.choice(pieces))
        for _ in range(chance.randint(0, 2)):
            piece[chance.randrange(len(piece))] = chance.randrange(256)
        if chance.random() < 0.7:
            talk.says(bytes(piece))
        elif chance.random() < 0.3:
            talk.server_says(bytes(piece))
    assert not [text for text in talk.server.heard if "denied" in text]


def test_where_a_statement_is_said() -> None:
    """Each statement is asked about with the database that it is said in, which is another one after USE."""
    talk = Talk().begin()
    talk.says(my.query("SELECT 1"), my.query("use hr"), my.query("SELECT 2"), my.query("SELECT 3; use shop; SELECT 4"))
    asked = [one for one in talk.run.questions if one.statement is not None]
    assert ["shop", "shop", "hr", None] == [None if one.login is None else one.login.database for one in asked]
