"""The questions of a connection to Redis: about its session, and about each command.

What lives here: one question at a time, and who the session is of. What must not: bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from capd.decoders.redis import values
from capd.decoders.redis.secret_arguments import secrets_of
from capd.enforcer.proxy.commands import Ask
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.question import Kind, Login, Question, Statement, Verdict
from capd.enforcer.proxy.redis import words
from capd.enforcer.redis.command import read

PROTOCOL: Final = "redis"
TEXT_BYTES_MAX: Final = 65_536
"""Of a command that rules for text are asked about; a longer one has none."""
Then = Callable[[Verdict], None]


@dataclass(slots=True)
class Asking:
    """Of one connection.

    Attributes:
        around: where it goes.
        outbox: what is to be done.
        user, database: of the session; None: not known yet.
    """

    around: Surroundings
    outbox: Outbox
    user: str | None = None
    database: str = "0"
    _number: int = 0
    _then: Then | None = None

    @property
    def waits(self) -> bool:
        """Whether a question is open."""
        return self._then is not None

    def session(self, user: str, database: str | None, then: Then) -> None:
        """Ask whether there may be a session of a user, in a database; None: it may yet choose one."""
        self._ask(Kind.SESSION, Login(user=user, database=database), None, then, carries_out=True)

    def statement(self, arguments: Sequence[bytes], raw: bytes, *, transaction: bool, then: Then) -> None:
        """Ask whether a command may be sent.

        Args:
            arguments: its words.
            raw: its bytes.
            transaction: whether one is open.
            then: is told the verdict.
        """
        found = read(arguments)
        statement = Statement(
            operation=found.name,
            content=raw,
            text=_text(arguments, raw),
            effects=found.effects,
            resources=found.resources,
            problems=found.problems,
            shown={"transaction": "open" if transaction else "none"},
        )
        login = Login(user=self.user, database=self.database)
        self._ask(Kind.STATEMENT, login, statement, then, carries_out=False)

    def _ask(self, kind: Kind, login: Login, statement: Statement | None, then: Then, *, carries_out: bool) -> None:
        around = self.around
        self._number, self._then = next(around.numbers), then
        question = Question(
            number=self._number,
            kind=kind,
            destination=around.destination,
            protocol=PROTOCOL,
            server_name=around.server_name,
            inspected=around.inspected,
            login=login,
            statement=statement,
            carries_out=carries_out,
        )
        self.outbox.do(Ask(question))

    def decided(self, verdict: Verdict) -> None:
        """Take a verdict, if it is the one that is waited for."""
        if self._then is None or verdict.number != self._number:
            return
        then, self._then = self._then, None
        if verdict.allowed:
            self.outbox.allow(verdict.number)
        then(verdict)

    def denial(self, verdict: Verdict) -> bytes:
        """Give what the client is told of a verdict that denies."""
        facts = {"reason": verdict.reason, "rule": verdict.rule or "default", **verdict.facts}
        told = {**facts, "session": self.around.session}
        return words.error(words.NOPERM, f"capd: {verdict.message or verdict.reason}", told)


def undoable(verdict: Verdict) -> bool:
    """Whether a verdict wants done what this protocol's layer cannot do."""
    return bool(verdict.obligations.masks) or (verdict.sign_in is None and bool(verdict.obligations.injections))


def _text(arguments: Sequence[bytes], raw: bytes) -> str | None:
    """Give a command as redis-cli takes it, without passwords."""
    if len(raw) > TEXT_BYTES_MAX:
        return None
    try:
        said = [argument.decode() for argument in arguments]
    except UnicodeDecodeError:
        return None
    secret = secrets_of(arguments)
    return " ".join("(hidden)" if index in secret else values.word(word) for index, word in enumerate(said))
