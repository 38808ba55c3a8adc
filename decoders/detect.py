"""Which protocol a conversation speaks, from its first bytes.

What lives here: one test for each protocol. What must not: decoding.

Bytes are the truth. A test says yes, no, or "could still be". The first yes wins; `unknown` is said when every test says
no, when `LOOKED_AT_BYTES` have not decided, or when both directions ended. The port is asked only when
the conversation ended, or went on too long, while several protocols were still possible.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from capd.decoders.http2.frames import PREFACE, Type
from capd.decoders.http2.resync import follow_each_other
from capd.decoders.tls import is_client_hello

LOOKED_AT_BYTES: Final = 4_096
"""At most this much of each direction is looked at."""
UNKNOWN: Final = "unknown"

_PORTS: Final = {
    22: "ssh",
    25: "smtp",
    587: "smtp",
    80: "http1",
    8080: "http1",
    3306: "mysql",
    5432: "postgresql",
    6379: "redis",
    27017: "mongodb",
}
_HTTP2_SETTINGS: Final = re.compile(rb"\x00[\x00-\x40][\x00-\xff]\x04\x00{5}")
_OPENING: Final = bytes([0, 0, 0, Type.SETTINGS, *bytes(5)])
_METHOD: Final = re.compile(rb"(?:\r\n)?([A-Z][A-Z-]{2,19}) ")
_METHOD_SO_FAR: Final = re.compile(rb"(?:\r|\r\n)?(?:[A-Z][A-Z-]{0,19})?")
_REQUEST_LINE: Final = re.compile(rb"(?:\r\n)?[A-Z][A-Z-]{2,19} [\x21-\x7e\x80-\xff]+ HTTP/1\.[01]\r?\n")
_TARGET_SO_FAR: Final = re.compile(rb"(?:\r\n)?[A-Z][A-Z-]{2,19} [\x21-\x7e\x80-\xff]*(?: [HTP/1.01\r]{0,9})?")
_STATUS: Final = b"HTTP/1."
_POSTGRESQL_CODES: Final = frozenset({80_877_102, 80_877_103, 80_877_104})
_POSTGRESQL_MAJOR: Final = 3
_POSTGRESQL_LENGTH_MAX: Final = 10_000
_POSTGRESQL_HEAD_BYTES: Final = 8
_SMTP: Final = re.compile(rb"220[ -][^\r\n]*(?:SMTP|smtp)")
_REDIS: Final = re.compile(rb"\*[1-9][0-9]{0,6}\r\n\$[0-9]{1,9}\r\n")
_REDIS_SO_FAR: Final = re.compile(rb"\*(?:[1-9][0-9]{0,6}(?:\r(?:\n(?:\$(?:[0-9]{1,9}\r?)?)?)?)?)?")
_REDIS_INLINE: Final = re.compile(
    rb"(?i:PING|ECHO|GET|SET|DEL|MGET|MSET|INCR|EXISTS|EXPIRE|TTL|TYPE|KEYS|SCAN|DBSIZE|INFO|SELECT|CONFIG|CLIENT|COMMAND"
    rb"|MONITOR|SUBSCRIBE|PSUBSCRIBE|PUBLISH|HGET|HSET|HGETALL|LPUSH|RPUSH|LRANGE|SADD|SMEMBERS|ZADD|ZRANGE|MULTI|EVAL"
    rb"|FLUSHALL|FLUSHDB|SAVE|BGSAVE|SLAVEOF|REPLICAOF|SHUTDOWN|MODULE|SCRIPT|ACL|DEBUG)(?:[ \t][^\0\r\n]*)?\r?\n"
)
"""Lines that no other protocol's client begins with, or whose servers answer in another way."""
_REDIS_INLINE_SO_FAR: Final = re.compile(rb"[A-Za-z]{1,12}(?:[ \t][^\0\r\n]*)?\r?")
_REDIS_ANSWER: Final = re.compile(rb"\+[A-Za-z]+\r\n|-[A-Z]{2,20} |:-?[0-9]{1,19}\r\n|[$*%][0-9]{1,10}\r\n|[$*]-1\r\n|_\r\n")
_REDIS_ANSWER_BYTES: Final = 24
_REDIS_LOGIN: Final = re.compile(rb"(?i:AUTH) [^ \0\r\n]+(?: [^ \0\r\n]+)?\r?\n")
_REDIS_LOGIN_ANSWER: Final = re.compile(
    rb"\+OK\r\n\Z|\+OK\r\n[+$:*%-]|-(?:WRONGPASS|NOAUTH|NOPERM) |-ERR (?:AUTH|Client sent AUTH)"
)
"""AUTH and +OK are POP3's words too, but its server speaks first and says more than +OK."""
_REDIS_ANSWERS_BEGIN: Final = frozenset({b"", b"+", b"-", b":", b"$", b"*", b"%", b"_"})
_REDIS_NAMES: Final = frozenset({b"AUTH", *re.findall(rb"[A-Z]{3,}", _REDIS_INLINE.pattern)})
_MONGODB_HEAD_BYTES: Final = 16
_MONGODB_CODES: Final = frozenset({2004, 2010, 2011, 2012, 2013})
_MONGODB_LENGTH_MAX: Final = 48_000_000
_MYSQL_HEAD_BYTES: Final = 6
_MYSQL_VERSION: Final = 10
_MYSQL_ERR: Final = 0xFF
_MYSQL_REFUSED: Final = re.compile(rb"..\0\0\xff[\0-\xff][\x03-\x0f]", re.DOTALL)
"""A short packet that begins with an ERR and its number, 768 to 4095."""

Verdict = bool | None
"""Yes, no, or not yet."""


def detect(request_prefix: bytes, response_prefix: bytes, port: int | None, *, ended: bool) -> str | None:
    """Name the protocol of a conversation.

    Args:
        request_prefix: first bytes of the side that opened the connection.
        response_prefix: first bytes of the other side.
        port: the port connected to, or None.
        ended: nothing more will come.

    Returns:
        `http1`, `http2`, `postgresql`, `tls`, `ssh`, `smtp`, `mysql`, `redis`, `mongodb` or `unknown`; None: more bytes are
        needed.
    """
    request, response = request_prefix[:LOOKED_AT_BYTES], response_prefix[:LOOKED_AT_BYTES]
    verdicts = {name: test(request, response) for name, test in _TESTS.items()}
    for name, verdict in verdicts.items():
        if verdict:
            return name
    possible = [name for name, verdict in verdicts.items() if verdict is None]
    exhausted = len(request) == LOOKED_AT_BYTES or len(response) == LOOKED_AT_BYTES
    if possible and not ended and not exhausted:
        return None
    by_port = _PORTS.get(port) if port is not None else None
    return by_port if by_port in possible and (request or response) else UNKNOWN


def candidates(request_prefix: bytes, response_prefix: bytes) -> frozenset[str]:
    """Name the protocols that a conversation may still turn out to be, or is."""
    request, response = request_prefix[:LOOKED_AT_BYTES], response_prefix[:LOOKED_AT_BYTES]
    return frozenset(name for name, test in _TESTS.items() if test(request, response) is not False)


def _starts(data: bytes, expected: bytes) -> Verdict:
    if data.startswith(expected):
        return True
    return None if expected.startswith(data) else False


def _client_first(test: Callable[[bytes], Verdict]) -> Callable[[bytes, bytes], Verdict]:
    """A protocol in which the server says nothing before the client has said what the test looks at."""

    def check(request: bytes, response: bytes) -> Verdict:
        verdict = test(request)
        return False if verdict is None and response else verdict

    return check


def _http2(request: bytes, response: bytes) -> Verdict:
    """A server may say its SETTINGS before it has read anything (RFC 9113 section 3.4).

    Where the beginning was not seen there is no preface; two frames in a row are enough (resync.py says why).
    """
    begun = _starts(request, PREFACE)
    midway = [follow_each_other(said) for said in (request, response) if said]
    if begun or True in midway:
        return True
    if None in midway:
        return None
    if begun is None and response:
        return None if _HTTP2_SETTINGS.match(response + _OPENING[len(response) :]) else False
    return begun


def _http1(request: bytes, response: bytes) -> Verdict:
    if _REQUEST_LINE.match(request):
        return not request.startswith(b"PRI ")
    if request and not (_TARGET_SO_FAR.fullmatch(request) or _METHOD_SO_FAR.fullmatch(request)):
        # The answer may still say so: a request cut by a gap, or one that the server refuses as malformed.
        return bool(response.startswith(_STATUS) and _METHOD.match(request))
    answered = _starts(response, _STATUS)
    if answered is False:
        return False
    return True if answered and response else None


def _postgresql(request: bytes) -> Verdict:
    head = request[:_POSTGRESQL_HEAD_BYTES]
    if head[:2].strip(b"\0"):
        return False
    if len(head) < _POSTGRESQL_HEAD_BYTES:
        return None
    length, code = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
    if not _POSTGRESQL_HEAD_BYTES <= length <= _POSTGRESQL_LENGTH_MAX:
        return False
    return code in _POSTGRESQL_CODES or code >> 16 == _POSTGRESQL_MAJOR


def _ssh(request: bytes, response: bytes) -> Verdict:
    """Either side may speak first."""
    verdicts = {_starts(side, b"SSH-") for side in (request, response)}
    return False if False in verdicts else True in verdicts or None


def _smtp(request: bytes, response: bytes) -> Verdict:
    """The server speaks first."""
    if _SMTP.match(response):
        return True
    if b"\n" in response or not b"220".startswith(response[:3]) or (request and not response):
        return False
    return None


def _mysql(request: bytes, response: bytes) -> Verdict:
    """The server speaks first: length (3), sequence 0, protocol version 10, then a version string; or it refuses."""
    head = response[:_MYSQL_HEAD_BYTES]
    if len(head) < _MYSQL_HEAD_BYTES:
        return None if not request and not head[3:4].strip(b"\0") else False
    if head[4] == _MYSQL_ERR:
        if len(response) == _MYSQL_HEAD_BYTES:
            return None
        return _MYSQL_REFUSED.match(response) is not None and len(response) <= int.from_bytes(head[:3], "little") + 4
    length = int.from_bytes(head[:3], "little")
    return head[3] == 0 and head[4] == _MYSQL_VERSION and chr(head[5]).isdigit() and len(head) <= length + 4


def _redis(request: bytes, response: bytes) -> Verdict:
    """A command is an array; or a line, which only with its answer tells Redis from other protocols."""
    if _REDIS.match(request):
        return True
    if not request or _REDIS_SO_FAR.fullmatch(request):
        return False if response else None
    for line, answer in ((_REDIS_INLINE, _REDIS_ANSWER), (_REDIS_LOGIN, _REDIS_LOGIN_ANSWER)):
        if line.match(request):
            if answer.match(response):
                return True
            more = len(response) < _REDIS_ANSWER_BYTES and b"\n" not in response
            return None if more and response[:1] in _REDIS_ANSWERS_BEGIN else False
    return None if not response and _REDIS_INLINE_SO_FAR.fullmatch(request) and _redis_word(request) else False


def _redis_word(request: bytes) -> bool:
    """Whether a line that is not whole may become one of Redis."""
    word, blank, _ = request.partition(b" ")
    if blank:
        return bool(_REDIS_INLINE.match(word + b"\n") or word.upper() == b"AUTH")
    return any(name.startswith(word.rstrip(b"\r").upper()) for name in _REDIS_NAMES)


def _mongodb(request: bytes) -> Verdict:
    head = request[:_MONGODB_HEAD_BYTES]
    if len(head) < _MONGODB_HEAD_BYTES:
        # Operation codes have two bytes; the third and fourth of the length are below 3.
        return False if head[3:4] > b"\x02" else None
    length, answer_to, code = (int.from_bytes(head[at : at + 4], "little") for at in (0, 8, 12))
    return _MONGODB_HEAD_BYTES < length <= _MONGODB_LENGTH_MAX and answer_to == 0 and code in _MONGODB_CODES


_TESTS: Final[dict[str, Callable[[bytes, bytes], Verdict]]] = {
    "tls": _client_first(is_client_hello),
    "http2": _http2,
    "http1": _http1,
    "postgresql": _client_first(_postgresql),
    "ssh": _ssh,
    "smtp": _smtp,
    "mysql": _mysql,
    "redis": _redis,
    "mongodb": _client_first(_mongodb),
}
