"""The begin of a connection: the greeting, encryption, who the client wants to be, the decision, and signing in.

What lives here: that order. What must not: authentication itself (signing_in.py), commands.

The server speaks first, so it is dialled before anything is known of the client, where a session with it may be opened at all.
It hears nothing before the session that the client wants is allowed. The client is greeted with what of the server's greeting
may be agreed on.

What one side has, the other has: a client in TLS reaches only a server that proves the client's name for it, in TLS; a client
in clear reaches the server in clear. TLS is offered where the server offers it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import Final

from capd.decoders.mysql import login as logins
from capd.decoders.mysql import packets as read
from capd.decoders.mysql.collations import character_set, codec
from capd.decoders.mysql.wire import CONTROL_BYTES_MAX, ERR, Capability, Fields, MalformedError
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.proxy.commands import Arm, Close, Secure
from capd.enforcer.proxy.events import DialFailed, Secured, Side, Timer
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.mysql import packets
from capd.enforcer.proxy.mysql.frames import Frames, UnreadableError
from capd.enforcer.proxy.mysql.judging import Judging
from capd.enforcer.proxy.mysql.signing_in import SigningIn
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.question import Login, Verdict
from capd.enforcer.sign_in.channel import Channel
from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.mysql_methods import CHALLENGE_BYTES
from capd.enforcer.sign_in.mysql_server import MysqlServer

ENTRANCE_SECONDS: Final = 60.0
"""From the greeting to being signed in; servers wait for ten."""
_NEEDED: Final = Capability.PROTOCOL_41 | Capability.SECURE_CONNECTION | Capability.PLUGIN_AUTH
NOT_VERIFIED: Final = "target_not_verified"
USER_CHARACTERS_MAX: Final = 80
"""Servers cut longer names: MariaDB at 128 characters, before 10.3 at 80. MySQL has none of more than 32, and refuses them.

And both take quotes (`'`) from around a name.
"""
_WIDE: Final = frozenset({"ucs2", "utf16", "utf16le", "utf32"})
"""Servers refuse them, unless they look at no client's character set: then they read a user's name in one of their own."""


class Stage(Enum):
    """What is waited for."""

    GREETING = auto()
    LOGIN = auto()
    CLIENT_TLS = auto()
    VERDICT = auto()
    CLIENT_PROOF = auto()
    SERVER_TLS = auto()
    SIGNING_IN = auto()
    OVER = auto()


class Entrance:
    """Of one connection.

    Attributes:
        around: with what TLS said.
        judging: what is known of the session; None until it is known who wants to be what.
        capabilities: that were agreed on.
        sign_in: what a rule puts in; None: nothing.
    """

    def __init__(self, around: Surroundings, outbox: Outbox, frames: Frames) -> None:
        self.around, self._outbox, self._frames = around, outbox, frames
        self._stage = Stage.GREETING
        self._server = Frames(CONTROL_BYTES_MAX)
        self._greeting: logins.Greeting | None = None
        self._login: logins.Login | None = None
        self._down = self._up = 0
        """Sequence of the next packet for either side."""
        self._letting: MysqlServer | None = None
        self._signing: SigningIn | None = None
        self._ok = b""
        self.judging: Judging | None = None
        self.capabilities = 0
        self.sign_in: SignIn | None = None
        self._ready: Callable[[], None] | None = None

    def begin(self, ready: Callable[[], None]) -> None:
        """Take what is done when the server has let the session in."""
        self._ready = ready
        self._outbox.do(Arm(Timer.DEADLINE, ENTRANCE_SECONDS))

    @property
    def room(self) -> bool:
        """Whether there is room for more of the client."""
        return len(self._frames) < CONTROL_BYTES_MAX

    # -- the client ------------------------------------------------------------------------------------------------------------

    def client_said(self, data: bytes) -> None:
        """Take bytes of the client."""
        self._frames.add(data)
        try:
            while self._stage in (Stage.LOGIN, Stage.CLIENT_PROOF) or (self._signing is not None and self._signing.asked):
                found = self._frames.next()
                if found is None:
                    return
                self._client_packet(*found)
        except SignInError as error:
            self.refuse(packets.NOT_LET_IN, f"{error.reason}: {error}")
        except (UnreadableError, MalformedError) as error:
            self.refuse(packets.NOT_UNDERSTOOD, f"the login cannot be read: {error}")

    def _client_packet(self, sequence: int, body: bytes) -> None:
        self._down = sequence + 1
        if self._stage is Stage.LOGIN:
            self._logs_in(body)
        elif self._stage is Stage.CLIENT_PROOF:
            assert self._letting is not None
            self._tell(*self._letting.answer(body))
            self._sign()
        else:
            assert self._signing is not None
            self._signing.client_answers()
            self._say(body)

    def _logs_in(self, body: bytes) -> None:
        if len(body) == logins.SSL_REQUEST_BYTES and logins.client_capabilities(Fields(body))[0] & Capability.SSL:
            self._encrypt()
            return
        greeting = self._greeting
        assert greeting is not None
        told = logins.login(body)
        if not told.capabilities & Capability.SECURE_CONNECTION:
            raise MalformedError("proofs of before MySQL 4.1")
        if character_set(told.collation) in _WIDE:
            raise MalformedError("its names are in a character set in which ASCII is something else")
        if not told.plugin.isascii():
            raise MalformedError("its way of signing in has no name that can be")
        if len(told.user) > USER_CHARACTERS_MAX or (told.user[:1], told.user[1:][-1:]) == ("'", "'"):
            raise MalformedError("servers take its user's name for another one")
        self._login = packets.agreed(told, greeting.capabilities, encrypted=self.around.inspected)
        self.capabilities = self._login.capabilities
        if len(told.response) > packets.response_bytes_max(self.capabilities):
            raise MalformedError("its proof is too long")
        self.judging = Judging(self.around, Login(user=told.user, database=told.database), self._outbox, greeting.version)
        self.judging.began(told.collation)
        self._stage = Stage.VERDICT
        self.judging.ask_session(self._decided)

    def _encrypt(self) -> None:
        greeting = self._greeting
        assert greeting is not None
        if self.around.inspected or not greeting.capabilities & Capability.SSL:
            raise UnreadableError("TLS is asked for, and was not offered")
        self._stage = Stage.CLIENT_TLS
        # A client does not wait for an answer: what comes behind is its ClientHello.
        self._outbox.in_order(Secure(Side.CLIENT, data=self._frames.take()))

    def secured(self, event: Secured) -> None:
        """Take that a side speaks TLS."""
        if event.side is Side.CLIENT:
            self._stage = Stage.LOGIN
            self.around = replace(self.around, inspected=True, server_name=event.server_name)
        elif self._stage is Stage.SERVER_TLS:
            self._up = 2
            self._start(event.certificate)

    # -- the decision ----------------------------------------------------------------------------------------------------------

    def decided(self, verdict: Verdict) -> None:
        """Take a verdict."""
        if self.judging is None:
            return
        try:
            self.judging.decided(verdict)
        except SignInError as error:
            self.refuse(packets.NOT_LET_IN, f"{error.reason}: {error}")

    def _decided(self, verdict: Verdict) -> None:
        login, greeting = self._login, self._greeting
        assert login is not None
        assert greeting is not None
        if not verdict.allowed:
            facts = {"reason": verdict.reason, "rule": verdict.rule or "default", **verdict.facts}
            self.refuse(
                packets.NOT_LET_IN,
                packets.facts_text(verdict.message or verdict.reason, {**facts, "session": self.around.session}),
                whole=True,
            )
            return
        self.sign_in = verdict.sign_in
        if self.sign_in is None:
            self._sign()
            return
        if not self.sign_in.admits(login.database) and login.database is not None:
            raise SignInError("the credential of this session is not for that database")
        self._letting = MysqlServer(greeting.plugin, greeting.scramble)
        self._tell(*self._letting.begin(login.plugin or None, login.response))
        if self._letting.done:
            self._sign()
        else:
            self._stage = Stage.CLIENT_PROOF

    # -- the server ------------------------------------------------------------------------------------------------------------

    def server_said(self, data: bytes) -> None:
        """Take bytes of the server."""
        if self._stage not in (Stage.GREETING, Stage.SIGNING_IN):
            self.refuse(packets.NOT_UNDERSTOOD, "the target says something that nobody asked for")
            return
        self._server.add(data)
        try:
            while (found := self._server.next()) is not None:
                if self._server_packet(*found):
                    return
        except SignInError as error:
            self.refuse(packets.NOT_LET_IN, f"{error.reason}: {error}")
        except (UnreadableError, MalformedError) as error:
            self.refuse(packets.NOT_UNDERSTOOD, f"the target cannot be followed: {error}")

    def _server_packet(self, sequence: int, body: bytes) -> bool:
        """Take a packet, and say whether it is the last one."""
        if self._stage is Stage.GREETING:
            if len(self._server):
                raise UnreadableError("it says more than its greeting")
            self._greets(body)
            return True
        assert self._signing is not None
        self._up = sequence + 1
        to_client, to_server = self._signing.server_says(body)
        if to_client is not None:
            self._tell(to_client)
        if to_server is not None:
            self._say(to_server)
        if self._signing.refused:
            self._close()
        elif self._signing.done:
            if len(self._server):
                raise UnreadableError("it says more than that the client is let in")
            self._let_in(body)
        return self._signing.refused or self._signing.done

    def _greets(self, body: bytes) -> None:
        if body[:1] == bytes([ERR]):
            self._tell(body)
            self._close()
            return
        found = logins.greeting(body)
        if found.capabilities & _NEEDED != _NEEDED or len(found.scramble) != CHALLENGE_BYTES or 0 in found.scramble:
            raise MalformedError("a greeting of a server that is too old")
        self._greeting = found
        self._stage = Stage.LOGIN
        self._outbox.down(packets.greeting(found))
        self._down = 1

    def _sign(self) -> None:
        """Say to the server who it is."""
        assert self._login is not None
        self._up = 1
        if self.around.inspected:
            self._stage = Stage.SERVER_TLS
            self._outbox.up(packets.ssl_request(self._login))
            self._outbox.in_order(Secure(Side.UPSTREAM, self._outbox.decision, self.around.server_name))
        else:
            self._start(None)

    def _start(self, certificate: bytes | None) -> None:
        login, greeting = self._login, self._greeting
        assert login is not None
        assert greeting is not None
        self._stage = Stage.SIGNING_IN
        encrypted = self.around.inspected
        proven = encrypted and self.around.server_name is not None
        self._signing = SigningIn(self.sign_in, Channel(encrypted=encrypted, proven=proven, certificate=certificate))
        own = (login.plugin or greeting.plugin, login.response)
        plugin, response = self._signing.begin(greeting.plugin, greeting.scramble, own)
        name = codec(login.collation)
        user = login.user if self.sign_in is None or self.sign_in.user is None else self.sign_in.user
        pairs = b"".join(_piece(word.encode(name)) for pair in login.attributes for word in pair)
        wanted = packets.Wanted(
            user=user.encode(name),
            database=None if login.database is None else login.database.encode(name),
            attributes=_piece(pairs),
        )
        self._outbox.up(packets.login(self._up, login, wanted, plugin, response))

    def _let_in(self, body: bytes) -> None:
        """The server has let the session in; the client is told when it is known how the server reads."""
        read.ok(body, self.capabilities)
        self._ok = body
        self._stage = Stage.OVER
        self._outbox.do(Arm(Timer.DEADLINE, None))
        assert self._ready is not None
        self._ready()

    def tell_let_in(self) -> None:
        """Tell the client."""
        self._tell(self._ok)

    # -- saying ----------------------------------------------------------------------------------------------------------------

    def _tell(self, *bodies: bytes) -> None:
        for body in bodies:
            self._outbox.down(packets.packet(self._down, body))
            self._down += 1

    def _say(self, body: bytes) -> None:
        self._outbox.up(packets.packet(self._up, body))
        self._up += 1

    def failed(self, event: DialFailed) -> None:
        """Take that the server did not prove its name, or is gone."""
        reason = NOT_VERIFIED if event.refused else "target_not_reached"
        self.refuse(packets.NOT_REACHED, f"{reason}: {event.reason}")

    def too_long(self) -> None:
        """Take that it took too long."""
        self.refuse(packets.NOT_UNDERSTOOD, "the login took too long")

    def refuse(self, error: tuple[int, str], message: str, *, whole: bool = False) -> None:
        """Tell the client why it is not let in, and end."""
        words = message if whole else f"capd: {message}"
        make = packets.err if self.judging is not None else packets.early_err
        self._outbox.down(make(self._down, error, words))
        self._close()

    def _close(self) -> None:
        self._stage = Stage.OVER
        if self.judging is not None:
            self.judging.withdraw()
        self._outbox.do(Close())


def _piece(data: bytes) -> bytes:
    length = len(data)
    head = bytes([length]) if length < 251 else b"\xfd" + length.to_bytes(3, "little")  # noqa: PLR2004 - longer has a sign before
    return head + data
