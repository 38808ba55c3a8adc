"""The begin of a connection: encryption, what the client wants to be, the decision, the server, and signing in to it.

What lives here: that order. What must not: settings (startup.py), authentication itself (signing_in.py), statements.

What one side has, the other has: a client in TLS reaches only a server that proves the client's name for it; a client in clear
reaches the server in clear. Encryption is asked for in each side's own bytes: behind a request for it nothing may come before
it was answered (CVE-2021-23214, CVE-2021-23222). Nothing is dialled before the session is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import Final

from capd.decoders.postgresql.wire import CONTROL_BYTES_MAX, HEADER, HEADER_BYTES
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.proxy.commands import Arm, Ask, Close, Dial, Finish, Refused, Secure
from capd.enforcer.proxy.events import DialFailed, Dialled, Secured, Side, Timer
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.postgresql import messages
from capd.enforcer.proxy.postgresql.frames import ClientFrames, UnreadableError
from capd.enforcer.proxy.postgresql.judging import PROTOCOL, Judging
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.postgresql.shared import Shared
from capd.enforcer.proxy.postgresql.signing_in import LettingIn, SigningIn
from capd.enforcer.proxy.postgresql.startup import (
    MINOR_MAX,
    Cancel,
    Encryption,
    Startup,
    StartupRefusedError,
    read_packet,
)
from capd.enforcer.proxy.question import Kind, Login, Question, Verdict
from capd.enforcer.sign_in.channel import Channel
from capd.enforcer.sign_in.errors import SignInError

ENTRANCE_SECONDS: Final = 60.0
"""From the first byte to being signed in; as the server's own authentication_timeout."""
CANCEL_SECONDS: Final = 10.0
"""For a server to take a CancelRequest; as long as dialling it may take."""
PASSWORD: Final = ord("p")
PROCESS_BYTES: Final = 4
NOT_VERIFIED: Final = "target_not_verified"
_NO_TLS: Final = "the client speaks TLS, and the target does not"


class Stage(Enum):
    """What is waited for."""

    PACKET = auto()
    CLIENT_TLS = auto()
    VERDICT = auto()
    CLIENT_PROOF = auto()
    DIALLED = auto()
    TLS_GRANTED = auto()
    SERVER_TLS = auto()
    SIGNING_IN = auto()
    CANCELLED = auto()
    """That the server takes a CancelRequest."""
    OVER = auto()


class Entrance:
    """Of one connection.

    Attributes:
        around: with what TLS said.
        judging: what is known of the session; None until it is known who wants to be what.
        key: the session's place, process and key, as its client has them; None: there is none.
    """

    def __init__(self, around: Surroundings, outbox: Outbox, shared: Shared, frames: ClientFrames, *, dialled: bool) -> None:
        self.around, self._outbox, self._frames = around, outbox, frames
        self._cancels, self._functions = shared.cancels, shared.functions
        self._dialled = dialled
        self._inspected = around.inspected
        """TLS from the first byte: then the target has it too, once it is dialled."""
        self._stage = Stage.PACKET
        self._data = bytearray()
        self._asked_tls = False
        self._packet: Startup | Cancel | None = None
        self._number = 0
        self._sign_in: SignIn | None = None
        self._letting: LettingIn | None = None
        self._signing: SigningIn | None = None
        self._certificate: bytes | None = None
        self._shown: bytes | None = None
        """What the client was shown in TLS, which it may bind its proof to."""
        self._server = bytearray()
        self._negotiated = False
        self._minor = 0
        self.judging: Judging | None = None
        self.key: tuple[str, bytes, bytes] | None = None
        self._ready: Callable[[], None] | None = None

    def begin(self, ready: Callable[[], None]) -> None:
        """Take what is done when the server is ready for the first statement."""
        self._ready = ready
        self._outbox.do(Arm(Timer.DEADLINE, ENTRANCE_SECONDS))

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of either side are not read yet."""
        return len(self._data) + len(self._server)

    @property
    def room(self) -> bool:
        """Whether there is room for more of the client."""
        return self._stage in (Stage.PACKET, Stage.CLIENT_PROOF, Stage.SIGNING_IN) or len(self._data) < HEADER_BYTES

    # -- packets ---------------------------------------------------------------------------------------------------------------

    def client_said(self, data: bytes) -> None:
        """Take bytes of the client."""
        try:
            if self._packet is not None:
                self._frames.add(data)
                self._passwords()
                return
            self._data += data
            while self._stage is Stage.PACKET and (found := read_packet(self._data)) is not None:
                packet, length = found
                del self._data[:length]
                self._packeted(packet)
        except StartupRefusedError as error:
            self.refuse(error.code, str(error))
        except (SignInError, UnreadableError) as error:
            self.refuse(messages.NO_AUTHORIZATION, str(error))

    def _packeted(self, packet: Startup | Cancel | Encryption) -> None:
        if isinstance(packet, Encryption):
            self._encrypt(packet)
            return
        self._packet = packet
        login = Login(user=None, database=None)
        if isinstance(packet, Startup):
            login = Login(user=packet.user.decode(), database=packet.database.decode())
            self.judging = Judging(self.around, login, self._outbox, self._functions)
        rest, self._data = bytes(self._data), bytearray()
        if rest:
            self._frames.add(rest)
        self._ask(login)

    def _encrypt(self, packet: Encryption) -> None:
        if self._data:
            raise StartupRefusedError("bytes came behind a request for encryption, before it was answered")
        if not packet.tls:
            self._outbox.down(messages.NO)
        elif self._asked_tls or self._inspected:
            raise StartupRefusedError("TLS is asked for within TLS")
        else:
            self._asked_tls = True
            self._stage = Stage.CLIENT_TLS
            self._outbox.down(messages.YES)
            self._outbox.in_order(Secure(Side.CLIENT))

    def secured(self, event: Secured) -> None:
        """Take that a side speaks TLS."""
        if event.side is Side.CLIENT:
            self._stage = Stage.PACKET
            self._shown = event.certificate
            self.around = replace(self.around, inspected=True, server_name=event.server_name)
        else:
            self._certificate = event.certificate
            self._start()

    def _ask(self, login: Login) -> None:
        self._stage = Stage.VERDICT
        self._number = next(self.around.numbers)
        question = Question(
            number=self._number,
            kind=Kind.SESSION,
            destination=self.around.destination,
            protocol=PROTOCOL,
            server_name=self.around.server_name,
            inspected=self.around.inspected,
            login=login,
            carries_out=True,
        )
        self._outbox.do(Ask(question))

    # -- the server ------------------------------------------------------------------------------------------------------------

    def decided(self, verdict: Verdict) -> None:
        """Take the verdict about the session."""
        if self._stage is not Stage.VERDICT or verdict.number != self._number:
            return
        if not verdict.allowed:
            facts = {"reason": verdict.reason, "rule": verdict.rule or "default", **verdict.facts}
            self._deny(verdict.message or verdict.reason, messages.facts_text({**facts, "session": self.around.session}))
            return
        self._outbox.join(verdict.number)
        self._sign_in = verdict.sign_in
        if verdict.sign_in is not None and isinstance(self._packet, Startup):
            channel = Channel(encrypted=self.around.inspected, certificate=self._shown)
            self._letting = LettingIn(verdict.sign_in, channel, self.around.random)
            if not self._letting.done:
                self._stage = Stage.CLIENT_PROOF
                self._outbox.down(b"".join(self._letting.begin()))
                return
        self._dial()

    def _dial(self) -> None:
        self._stage = Stage.DIALLED
        if self._dialled:
            self.was_dialled(Dialled())
        else:
            self._outbox.do(Dial(self._outbox.decision))

    def was_dialled(self, event: Dialled) -> None:
        """Take that the server can be spoken to."""
        if self._stage is not Stage.DIALLED:
            return
        self._certificate = event.certificate
        if self._asked_tls:
            self._stage = Stage.TLS_GRANTED
            self._outbox.up(messages.SSL)
        else:
            self._start()

    def failed(self, event: DialFailed) -> None:
        """Take that it cannot."""
        reason = NOT_VERIFIED if event.refused else "target_not_reached"
        self.refuse(messages.CANNOT_CONNECT, f"{reason}: {event.reason}")

    def _granted(self, data: bytes) -> None:
        if data == messages.YES:
            self._stage = Stage.SERVER_TLS
            self._outbox.in_order(Secure(Side.UPSTREAM, self._outbox.decision, self.around.server_name))
        elif data == messages.NO:
            self.refuse(messages.CANNOT_CONNECT, f"{NOT_VERIFIED}: {_NO_TLS}")
        else:
            self.refuse(messages.CANNOT_CONNECT, f"{NOT_VERIFIED}: it answers the request for TLS with something else")

    def _start(self) -> None:
        """Say to the server what the client wants to be, or to cancel."""
        packet = self._packet
        if isinstance(packet, Cancel):
            key = self._cancels.masked(self._place, packet.process, packet.key)
            if not self._cancels.interrupt(self._place, packet.process, packet.key):
                self._cancels.elsewhere(self._place, packet.process, packet.key)
            self._stage = Stage.CANCELLED
            self._outbox.up(messages.cancel(packet.process, key))
            return
        assert packet is not None
        self._stage = Stage.SIGNING_IN
        user = packet.user if self._sign_in is None or self._sign_in.user is None else self._sign_in.user.encode()
        encrypted = self.around.inspected
        proven = encrypted and self.around.server_name is not None
        channel = Channel(encrypted=encrypted, proven=proven, certificate=self._certificate)
        self._signing = SigningIn(self._sign_in, user.decode(), channel, self.around.random)
        parameters = [(b"user", user), (b"database", packet.database), *packet.settings]
        self._minor = min(packet.minor, MINOR_MAX)
        self._outbox.up(messages.startup(self._minor, parameters))

    @property
    def _place(self) -> str:
        to = self.around.destination
        return f"{self.around.run}|{to.address}|{to.port}"

    # -- signing in ------------------------------------------------------------------------------------------------------------

    def _passwords(self) -> None:
        """Take what the client says of its password, when it is asked."""
        while self._stage in (Stage.CLIENT_PROOF, Stage.SIGNING_IN):
            found = self._frames.next()
            if found is None:
                return
            code, frame = found
            if code != PASSWORD:
                raise SignInError("the client says something before it is signed in")
            self._proves(frame[HEADER_BYTES:])

    def _proves(self, answer: bytes) -> None:
        if self._stage is Stage.SIGNING_IN:
            assert self._signing is not None
            self._signing.client_answers(answer)
            self._told()
            return
        assert self._letting is not None
        self._outbox.down(b"".join(self._letting.client_answers(answer)))
        if self._letting.done:
            self._dial()

    def _told(self) -> None:
        assert self._signing is not None
        for message in self._signing.to_client:
            self._outbox.down(message)
        for message in self._signing.to_server:
            self._outbox.up(message)
        self._signing.to_client, self._signing.to_server = [], []

    def server_said(self, data: bytes) -> bytes:
        """Take bytes of the server; give what comes behind its being ready."""
        if self._stage is Stage.TLS_GRANTED:
            self._granted(data)
            return b""
        if self._stage is not Stage.SIGNING_IN:
            return b""
        self._server += data
        try:
            return self._signs_in()
        except SignInError as error:
            self.refuse(messages.NO_AUTHORIZATION, f"{error.reason}: {error}")
        except UnreadableError as error:
            self.refuse(messages.PROTOCOL_VIOLATION, str(error))
        return b""

    def _signs_in(self) -> bytes:
        while self._stage is Stage.SIGNING_IN and len(self._server) >= HEADER_BYTES:
            code, length = HEADER.unpack_from(self._server)
            if not HEADER_BYTES - 1 <= length <= CONTROL_BYTES_MAX:
                raise UnreadableError(f"a message {code:#x} of {length} bytes cannot be followed")
            if len(self._server) <= length:
                break
            frame = bytes(self._server[: length + 1])
            del self._server[: length + 1]
            self._take(chr(code), frame, frame[HEADER_BYTES:])
        if self._stage is Stage.OVER:
            return bytes(self._server)
        return b""

    def _take(self, code: str, frame: bytes, body: bytes) -> None:
        assert self._signing is not None
        if code == "v" and not self._negotiated and len(body) >= PROCESS_BYTES:
            self._minor = min(self._minor, int.from_bytes(body[2:PROCESS_BYTES], "big"))
            return
        if code == "E":
            self._outbox.down(frame)
            self._close()
            return
        self._negotiate()
        if code == "R" and not self._signing.done:
            self._signing.server_asks(body)
            self._told()
        elif code in "SN":
            self._reported(code, body)
            self._outbox.down(frame)
        elif code == "K" and self._signing.done and len(body) > PROCESS_BYTES:
            self._keyed(body[:PROCESS_BYTES], body[PROCESS_BYTES:])
        elif code == "Z" and self._signing.done:
            self._is_ready()
        else:
            raise UnreadableError(f"the server says {code!r} where it signs in")

    def _negotiate(self) -> None:
        """Tell the client once what of its protocol is not spoken."""
        assert isinstance(self._packet, Startup)
        if not self._negotiated and (self._minor != self._packet.minor or self._packet.unknown):
            self._outbox.down(messages.negotiate(self._minor, self._packet.unknown))
        self._negotiated = True

    def _reported(self, code: str, body: bytes) -> None:
        if code == "S" and self.judging is not None:
            name, _, value = body.partition(b"\0")
            self.judging.reported(name.decode("latin-1"), value[:-1].decode("latin-1"))

    def _keyed(self, process: bytes, key: bytes) -> None:
        mine = self._cancels.masked(self._place, process, key)
        self.key = (self._place, process, mine)
        self._outbox.down(messages.frame(b"K", process + mine))

    def _is_ready(self) -> None:
        self._stage = Stage.OVER
        self._outbox.do(Arm(Timer.DEADLINE, None))
        assert self._ready is not None
        self._ready()

    def cancel(self) -> None:
        """Cancel what the server still runs for the session, on a connection in the place of the session's."""
        if self.key is None:
            self._close()
            return
        _, process, key = self.key
        self._packet, self._stage = Cancel(process=process, key=key), Stage.DIALLED
        self._outbox.do(Finish(Side.CLIENT), Arm(Timer.DEADLINE, CANCEL_SECONDS), Dial(self._outbox.decision))

    # -- ends ------------------------------------------------------------------------------------------------------------------

    def too_long(self) -> None:
        """Take that the time is over."""
        self.refuse(messages.NO_AUTHORIZATION, "it was not signed in within the time for that")

    def refuse(self, code: str, reason: str) -> None:
        """Refuse what no policy could have allowed."""
        if self._stage is Stage.OVER:
            return
        if not (isinstance(self._packet, Cancel) or self._stage is Stage.CLIENT_TLS):
            self._outbox.down(messages.error(code, f"capd: {reason}", severity=messages.FATAL))
        self._outbox.do(Refused(next(self.around.numbers), reason, ""))
        self._close()

    def _deny(self, message: str, detail: str) -> None:
        if not isinstance(self._packet, Cancel):
            self._outbox.down(messages.error(messages.DENIED, f"capd: {message}", severity=messages.FATAL, detail=detail))
        self._close()

    def _close(self) -> None:
        self._stage = Stage.OVER
        self._outbox.do(Close())
