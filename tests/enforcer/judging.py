"""Streams on their way through a decoder and the masking of its protocol, as the recorder will do it.

What lives here: the loop. What must not: expectations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from capd.decoders.http1 import Http1Decoder
from capd.decoders.message import NEED_DATA, Decoder, Direction, Message
from capd.decoders.mysql import MysqlDecoder
from capd.decoders.postgresql import PostgresqlDecoder
from capd.enforcer.masking.database import DatabaseMask
from capd.enforcer.masking.http import HttpMask
from capd.enforcer.masking.mysql import MysqlMask
from capd.enforcer.masking.place import Place, filled, joined
from capd.enforcer.masking.postgresql import PostgresqlMask
from capd.enforcer.masking.rules import Rules

Turn = tuple[Direction, bytes]


def pieces(turns: Iterable[Turn], size: int) -> list[Turn]:
    """Cut what is said into pieces of so many bytes; 0 for not at all."""
    return [
        (direction, data[at : at + (size or len(data))])
        for direction, data in turns
        for at in range(0, len(data), size or len(data) or 1)
    ]


def http_shown(rules: Rules, turns: Sequence[Turn], *, judge_often: bool = True) -> tuple[bytes, bytes]:
    """Give both directions of a connection as they would be recorded."""
    decoder = Http1Decoder()
    masks = (HttpMask(rules), HttpMask(rules))
    said = [bytearray(), bytearray()]
    found: list[list[Place]] = [[], []]
    for direction, data in turns:
        said[direction] += data
        decoder.receive(direction, data)
        while (event := decoder.next_event()) is not NEED_DATA:
            assert isinstance(event, Message)
            at, raw = event.direction, bytes(said[event.direction][event.start : event.end])
            found[at] += masks[at].message(event.type, event.fields, raw, event.start)
        if judge_often:
            for at in Direction:
                before = masks[at].decided
                now = masks[at].judge()
                assert all(place.start >= before or place.kind in {"json", "compressed"} for place in now)
                found[at] += now
    for at in Direction:
        found[at] += masks[at].end()
    return filled(bytes(said[0]), joined(found[0])), filled(bytes(said[1]), joined(found[1]))


def postgresql_shown(rules: Rules, turns: Sequence[Turn]) -> tuple[bytes, bytes]:
    """Give both directions of a connection to PostgreSQL as they would be recorded."""
    return _shown(PostgresqlDecoder(), PostgresqlMask(rules), turns)


def mysql_shown(rules: Rules, turns: Sequence[Turn]) -> tuple[bytes, bytes]:
    """Give both directions of a connection to MySQL as they would be recorded."""
    return _shown(MysqlDecoder(), MysqlMask(rules), turns)


def _shown(decoder: Decoder, mask: DatabaseMask, turns: Sequence[Turn]) -> tuple[bytes, bytes]:
    said = [bytearray(), bytearray()]
    found: list[list[Place]] = [[], []]
    for direction, data in turns:
        said[direction] += data
        decoder.receive(direction, data)
        while (event := decoder.next_event()) is not NEED_DATA:
            assert isinstance(event, Message)
            raw = bytes(said[event.direction][event.start : event.end])
            found[event.direction] += mask.message(event.type, event.fields, raw, event.start)
    return filled(bytes(said[0]), joined(found[0])), filled(bytes(said[1]), joined(found[1]))
