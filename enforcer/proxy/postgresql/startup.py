"""The packets before the first message: what a client wants to be, and which of its settings may go with that.

What lives here: reading them, and the list of settings. What must not: what follows (entrance.py).

A startup packet is written anew from what was read. `options` is taken apart into the settings that it names: a server gets no
switch that capd did not read. A setting goes only if all it does is known: how text is read, and where names are looked for,
the server tells capd before the first statement; others change formats and times. Those that change rights (`role`), or load
code, are statements in disguise: the client may say SET, which is judged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from capd.decoders.postgresql.wire import (
    CANCEL_REQUEST,
    GSSENC_REQUEST,
    LENGTH_BYTES,
    PROTOCOL_MAJOR,
    SSL_REQUEST,
    STARTUP_BYTES_MAX,
    STARTUP_BYTES_MIN,
)
from capd.enforcer.proxy.postgresql.messages import DENIED, NOT_SUPPORTED, PROTOCOL_VIOLATION, TOO_LONG
from capd.enforcer.proxy.postgresql.names import NAME_BYTES_MAX

MINOR_MAX: Final = 2
"""Protocol 3.2, of PostgreSQL 18; there is no 3.1."""
CANCEL_KEY_BYTES_MAX: Final = 256
"""Documentation 55.7, CancelRequest."""
PROTOCOL_OPTIONS: Final = b"_pq_."
SETTINGS: Final = frozenset(
    b"""
    application_name backslash_quote bytea_output client_encoding client_min_messages datestyle default_transaction_deferrable
    default_transaction_isolation default_transaction_read_only enable_seqscan escape_string_warning extra_float_digits
    fallback_application_name geqo idle_in_transaction_session_timeout idle_session_timeout intervalstyle jit lc_messages
    lc_monetary lc_numeric lc_time lock_timeout max_parallel_workers_per_gather quote_all_identifiers search_path
    standard_conforming_strings statement_timeout tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count
    tcp_user_timeout timezone transaction_timeout work_mem xmloption
    """.split()
)
"""In lower case. An agent may say SET to each of the others, and is judged by it."""
_SWITCH: Final = re.compile(rb"(?:--|-c)([A-Za-z_][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_OFF: Final = frozenset({b"false", b"off", b"no", b"0", b"f", b"n"})


class StartupRefusedError(Exception):
    """A startup packet that goes no further.

    Attributes:
        code: SQLSTATE.
    """

    def __init__(self, message: str, code: str = PROTOCOL_VIOLATION) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """What a client wants to be.

    Attributes:
        minor: of the protocol, as the client says.
        user, database: as it names them; without a database it is the user's name.
        settings: further parameters, in their order.
        unknown: options of the protocol that nobody knows.
    """

    minor: int
    user: bytes
    database: bytes
    settings: tuple[tuple[bytes, bytes], ...] = ()
    unknown: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """A CancelRequest: the process, and a key."""

    process: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Encryption:
    """A request for it; `tls`, else for GSSAPI's."""

    tls: bool


Packet = Startup | Cancel | Encryption


def read_packet(data: bytes | bytearray) -> tuple[Packet, int] | None:
    """Read the first packet; None: it is not whole yet.

    Returns:
        The packet, and how many bytes it has.

    Raises:
        StartupRefusedError: it is none, or asks for what is refused.
    """
    if data[:1] not in (b"", b"\0"):
        raise StartupRefusedError("this is no startup packet of PostgreSQL")
    if len(data) < STARTUP_BYTES_MIN:
        return None
    length = int.from_bytes(data[:LENGTH_BYTES], "big")
    if not STARTUP_BYTES_MIN <= length <= STARTUP_BYTES_MAX:
        raise StartupRefusedError(f"a startup packet cannot have {length} bytes")
    if len(data) < length:
        return None
    code, body = int.from_bytes(data[LENGTH_BYTES:STARTUP_BYTES_MIN], "big"), bytes(data[STARTUP_BYTES_MIN:length])
    return _packet(code, body), length


def _packet(code: int, body: bytes) -> Packet:
    if code in (SSL_REQUEST, GSSENC_REQUEST):
        if body:
            raise StartupRefusedError("a request for encryption has nothing in it")
        return Encryption(tls=code == SSL_REQUEST)
    if code == CANCEL_REQUEST:
        if not LENGTH_BYTES < len(body) <= LENGTH_BYTES + CANCEL_KEY_BYTES_MAX:
            raise StartupRefusedError("this is no key to cancel with")
        return Cancel(process=body[:LENGTH_BYTES], key=body[LENGTH_BYTES:])
    if code >> 16 != PROTOCOL_MAJOR:
        raise StartupRefusedError(f"protocol {code >> 16}.{code & 0xFFFF} is not spoken here", NOT_SUPPORTED)
    return _startup(code & 0xFFFF, _parameters(body))


def _parameters(body: bytes) -> list[tuple[bytes, bytes]]:
    if not body.endswith(b"\0"):
        raise StartupRefusedError("the startup packet has no end")
    parts = body[:-1].split(b"\0")
    if parts.pop() != b"" or len(parts) % 2 or b"" in parts[::2]:
        raise StartupRefusedError("the startup packet cannot be read")
    return list(zip(parts[::2], parts[1::2], strict=True))


def _startup(minor: int, parameters: list[tuple[bytes, bytes]]) -> Startup:
    user = database = b""
    settings: list[tuple[bytes, bytes]] = []
    options: list[tuple[bytes, bytes]] = []
    unknown: list[bytes] = []
    for name, value in parameters:
        if name == b"user":
            user = value
        elif name == b"database":
            database = value
        elif name == b"replication":
            _no_replication(value)
        elif name == b"options":
            options = switches(value)
        elif name.startswith(PROTOCOL_OPTIONS):
            unknown.append(name)
        else:
            settings.append((_known(name), value))
    if not user:
        raise StartupRefusedError("the startup packet names no user", "28000")
    if max(len(user), len(database)) > NAME_BYTES_MAX:
        raise StartupRefusedError(f"a name of more than {NAME_BYTES_MAX} bytes, which servers cut", TOO_LONG)
    if not (_is_text(user) and _is_text(database)):
        raise StartupRefusedError("a name that is not UTF-8 cannot be judged", NOT_SUPPORTED)
    return Startup(minor=minor, user=user, database=database or user, settings=(*options, *settings), unknown=tuple(unknown))


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _no_replication(value: bytes) -> None:
    if value.lower() not in _OFF:
        raise StartupRefusedError("replication reads everything, and nothing of it can be judged", DENIED)


def _known(name: bytes) -> bytes:
    if name.lower() not in SETTINGS:
        raise StartupRefusedError(f"the setting {name.decode('utf-8', 'replace')} cannot be made at startup: say SET", DENIED)
    return name


def switches(options: bytes) -> list[tuple[bytes, bytes]]:
    """Take `options` apart as the server does (pg_split_opts, process_postgres_switches): settings and nothing else."""
    words = _words(options)
    found: list[tuple[bytes, bytes]] = []
    while words:
        word = words.pop(0)
        if word == b"-c" and words:
            word += words.pop(0)
        matched = _SWITCH.fullmatch(word)
        if matched is None:
            raise StartupRefusedError("`options` can only make settings: -c name=value", DENIED)
        found.append((_known(matched[1].replace(b"-", b"_")), matched[2]))
    return found


def _words(options: bytes) -> list[bytes]:
    """Split at blanks; a backslash takes the next character as it is."""
    words: list[bytes] = []
    word, at = bytearray(), 0
    begun = False
    while at < len(options):
        byte = options[at : at + 1]
        if byte in (b" ", b"\t", b"\n", b"\v", b"\f", b"\r"):
            if begun:
                words.append(bytes(word))
            word, begun = bytearray(), False
        else:
            if byte == b"\\":
                at += 1
                byte = options[at : at + 1]
            word += byte
            begun = True
        at += 1
    return [*words, bytes(word)] if begun else words
