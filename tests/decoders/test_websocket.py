"""WebSocket: bytes in, events out, with and without something missing."""

from __future__ import annotations

import random
import zlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

from capd.decoders.message import Gap, Message, ProtocolError, Skipped
from capd.decoders.websocket import WebsocketDecoder
from capd.decoders.websocket.frames import unmasked
from capd.decoders.websocket.packing import UNPACKED_BYTES_MAX
from capd.decoders.websocket.side import PART_BYTES, PIECES_MAX
from tests.decoders.feeding import (
    REQUEST,
    RESPONSE,
    Arrival,
    all_ways,
    byte_by_byte,
    check_spans,
    drain,
    feed,
    normal,
    outline,
    split_at,
)

KEY = b"key!"
PACKS = "permessage-deflate"
FORGETS = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
LOST = Gap(length=4, reason="ring full")
UNKNOWN = Gap(length=None, reason="ring full")
NOTHING = "no frame boundary can be known after"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, key: bytes = b"", bits: int = 0) -> bytes:
    """Give a frame."""
    size = len(payload)
    length, more = (
        (size, b"") if size < 126 else (126, size.to_bytes(2, "big")) if size < 65_536 else (127, size.to_bytes(8, "big"))
    )
    return bytes([fin << 7 | bits << 4 | opcode, bool(key) << 7 | length]) + more + key + unmasked(payload, key, 0)


def client(opcode: int, payload: bytes = b"", *, fin: bool = True, bits: int = 0) -> bytes:
    """Give a frame of a client."""
    return frame(opcode, payload, fin=fin, key=KEY, bits=bits)


def packed(*texts: bytes, forgets: bool = False) -> list[bytes]:
    """Give payloads of packed messages that follow each other."""
    given = []
    packer = zlib.compressobj(wbits=-15)
    for text in texts:
        given.append((packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4])
        packer = zlib.compressobj(wbits=-15) if forgets else packer
    return given


FIRST, SECOND, THIRD = packed(b"hello hello hello", b"hello again, hello", b"hello for the last time")
LONG = bytes(range(256)) * 1_025
CASES: dict[str, tuple[str, list[Arrival], list[str]]] = {
    "both ways": (
        "",
        [(REQUEST, client(1, b"hello") + client(2, b"\0\1")), (RESPONSE, frame(1, "Zoë".encode()) + frame(1))],
        ["> text None hello", "> binary None \0\1", "< text None Zo\xc3\xab", "< text None text 0 bytes"],
    ),
    "in parts": (
        "",
        [(REQUEST, client(1, b"a", fin=False) + client(0, b"", fin=False) + client(0, b"bc") + client(1, b"d"))],
        ["> text None abc", "> text None d"],
    ),
    "a ping in the middle": (
        "",
        [(RESPONSE, frame(1, b"ab", fin=False) + frame(9, b"?") + frame(0, b"c")), (REQUEST, client(10, b"?"))],
        ["< text None ab", "< ping None ?", "< text None c", "> pong None ?"],
    ),
    "the end": (
        "",
        [(REQUEST, client(8, b"\x03\xe8bye")), (RESPONSE, frame(8)), (REQUEST, b""), (RESPONSE, b"")],
        ["> close None \x03\xe8bye", "< close None close"],
    ),
    "packed": (
        PACKS,
        [
            (
                RESPONSE,
                frame(1, FIRST, bits=4) + frame(1, SECOND[:3], bits=4, fin=False) + frame(0, SECOND[3:]) + frame(1, b"plain"),
            )
        ],
        ["< text None hello hello hello", "< text None hello again, hello", "< text None plain"],
    ),
    "packed, a ping in the middle": (
        PACKS,
        [(RESPONSE, frame(1, FIRST[:5], bits=4, fin=False) + frame(9) + frame(0, FIRST[5:]) + frame(1, SECOND, bits=4))],
        ["< text None hell", "< ping None ping", "< text None o hello hello", "< text None hello again, hello"],
    ),
    "cut off": (
        "",
        [(REQUEST, client(1, b"hello")[:-2]), (RESPONSE, frame(1, b"a", fin=False)), (RESPONSE, b""), (REQUEST, b"")],
        [
            "< text None a (the direction ended inside a message)",
            "> text None hel (the direction ended inside a message)",
        ],
    ),
    "cut off in a head": (
        "",
        [(REQUEST, client(1, b"hello")[:1]), (REQUEST, b"")],
        ["> ~ 0..1: the direction ended inside a message"],
    ),
    "lost inside a message": (
        "",
        [(REQUEST, client(1, b"0123456789")[:8]), (REQUEST, LOST), (REQUEST, client(1, b"0123456789")[12:] + client(1, b"x"))],
        ["> text None 01 (4 bytes lost: ring full)", "> text None 6789 (4 bytes lost: ring full)", "> text None x"],
    ),
    "lost inside a packed message": (
        PACKS,
        [
            (RESPONSE, frame(1, FIRST, bits=4)[:6]),
            (RESPONSE, LOST),
            (RESPONSE, frame(1, FIRST, bits=4)[10:] + frame(1, SECOND, bits=4) + frame(1, b"plain")),
        ],
        [
            "< text None hel (4 bytes lost: ring full)",
            f"< text None text {len(FIRST) - 8} bytes, part 1 (not unpacked: 4 bytes lost: ring full)",
            f"< text None text {len(SECOND)} bytes (not unpacked: 4 bytes lost: ring full)",
            "< text None plain",
        ],
    ),
    "lost, but each message is packed by itself": (
        FORGETS,
        [
            (RESPONSE, frame(1, FIRST, bits=4)[:4]),
            (RESPONSE, LOST),
            (RESPONSE, frame(1, FIRST, bits=4)[8:] + frame(1, FIRST, bits=4)),
        ],
        [
            "< text None h (4 bytes lost: ring full)",
            f"< text None text {len(FIRST) - 6} bytes, part 1 (not unpacked: 4 bytes lost: ring full)",
            "< text None hello hello hello",
        ],
    ),
    "lost between frames": (
        "",
        [(RESPONSE, frame(1, b"a")), (RESPONSE, LOST), (RESPONSE, frame(1, b"b")), (REQUEST, client(1, b"c"))],
        ["< text None a", f"< ~ 7..10: {NOTHING} 4 bytes lost: ring full", "> text None c"],
    ),
    "nobody knows how much": (
        "",
        [(RESPONSE, frame(1, b"abc")[:3]), (RESPONSE, UNKNOWN), (RESPONSE, b"x")],
        ["< text None a (bytes lost: ring full)", f"< ~ 3..4: {NOTHING} bytes lost: ring full"],
    ),
    "does not unpack": (
        PACKS,
        [(RESPONSE, frame(1, b"\xff\xff\xff", bits=4) + frame(1, FIRST, bits=4))],
        [
            "< text None text 3 bytes (not unpacked: a message does not unpack)",
            f"< text None text {len(FIRST)} bytes (not unpacked: a message does not unpack)",
        ],
    ),
}
ERRORS = {
    "a client that does not scramble": (REQUEST, "", frame(1, b"x"), "payload not masked"),
    "a server that does": (RESPONSE, "", client(1, b"x"), "masked payload"),
    "an unknown opcode": (RESPONSE, "", frame(3), "opcode 3"),
    "packed without agreement": (RESPONSE, "", frame(1, FIRST, bits=4), "reserved bits"),
    "a reserved bit": (RESPONSE, PACKS, frame(1, b"", bits=2), "reserved bits"),
    "a packed ping": (RESPONSE, PACKS, frame(9, b"", bits=4), "reserved bits"),
    "a ping in parts": (RESPONSE, "", frame(9, b"", fin=False), "control frame in parts"),
    "a long ping": (RESPONSE, "", frame(9, bytes(126)), "control frame of 126 bytes"),
    "a continuation of nothing": (RESPONSE, "", frame(0, b"x"), "continuation of no message"),
    "a length of 64 bits": (RESPONSE, "", b"\x82\x7f" + b"\xff" * 8, "length of 64 bits"),
}


@pytest.mark.parametrize("name", CASES)
def test_conversation(name: str) -> None:
    """A conversation gives these messages, however it is cut, and each byte is in one of them."""
    extensions, arrivals, expected = CASES[name]
    seen = all_ways(lambda: WebsocketDecoder(extensions), arrivals)
    assert expected == outline(seen)
    check_spans(arrivals, seen, ended=False)


@pytest.mark.parametrize("name", ERRORS)
def test_error(name: str) -> None:
    """What breaks the protocol is an error with its place, and the rest is skipped."""
    direction, extensions, said, reason = ERRORS[name]
    before = frame(1, b"ok", key=KEY if direction is REQUEST else b"")
    seen = all_ways(lambda: WebsocketDecoder(extensions), [(direction, before + said)])
    assert f"{'><'[direction]} ! {len(before)}: {reason}" == outline(seen)[1]
    assert all(isinstance(event, Skipped) for event in seen[2:])


def test_pieces() -> None:
    """A message says where its payload is as it was sent."""
    (message,) = feed(WebsocketDecoder(), [(REQUEST, client(1, b"abc", fin=False) + client(0, b"de"))])
    assert isinstance(message, Message)
    assert [[6, 3], [15, 2]] == message.fields["pieces"]
    assert {"part": 0, "final": True, "packed": False, "masked": True} == {
        key: value for key, value in message.fields.items() if key != "pieces"
    }


@pytest.mark.parametrize("step", [1 << 20, 4_001])
def test_what_is_long_comes_in_parts(step: int) -> None:
    """Neither a long message, nor one of very many frames, nor one that unpacks to very much is held."""
    for said, count, whole in (
        (client(2, LONG), 2, len(LONG)),
        (client(1, b"", fin=False) + client(0, b"", fin=False) * (3 * PIECES_MAX) + client(0, b"x"), 4, 1),
    ):
        seen = feed(WebsocketDecoder(), split_at([(REQUEST, said)], range(0, len(said), step)))
        contents = [event.content for event in seen if isinstance(event, Message)]
        assert (count, whole) == (len(contents), len(b"".join(contents)))
        assert all(len(content) <= PART_BYTES for content in contents)
    (bomb,) = packed(bytes(UNPACKED_BYTES_MAX + 1))
    (message,) = feed(WebsocketDecoder(PACKS), [(RESPONSE, frame(2, bomb, bits=4))])
    assert isinstance(message, Message)
    assert f"not unpacked: a message unpacks to more than {UNPACKED_BYTES_MAX} bytes" == message.incomplete


@pytest.mark.parametrize("name", CASES)
def test_saved_and_restored_anywhere(name: str) -> None:
    """A decoder that is saved and restored behind every byte gives what one gives that goes on, where windows allow it."""
    extensions, arrivals, _ = CASES[name]
    decoder, seen = WebsocketDecoder(extensions), []
    for direction, part in byte_by_byte(arrivals):
        decoder.receive(direction, part)
        seen += drain(decoder)
        saved = msgpack.unpackb(msgpack.packb(decoder.save()), use_list=False)
        decoder = WebsocketDecoder()
        decoder.restore(saved)
    expected = feed(WebsocketDecoder(extensions), arrivals)
    assert normal(expected) == normal(seen) or ("packed" in name and "not unpacked" in repr(seen))


def spoken(chance: random.Random, *, packs: bool) -> tuple[list[Arrival], dict[int, list[object]]]:
    """Give what two ends of wsproto say to each other, and what each was told."""
    ends = []
    for kind in (ConnectionType.CLIENT, ConnectionType.SERVER):
        deflate = PerMessageDeflate()
        deflate._enabled = True
        ends.append(Connection(kind, [deflate] if packs else [], trailing_data=b""))
    arrivals: list[Arrival] = []
    told: dict[int, list[object]] = {REQUEST: [], RESPONSE: []}
    for _ in range(chance.randint(1, 12)):
        direction = chance.choice([REQUEST, RESPONSE])
        words = "".join(chance.choices("abc hello \xe9", k=chance.randint(0, 300)))
        events: list[TextMessage | BytesMessage | Ping | Pong] = [TextMessage(words), BytesMessage(chance.randbytes(50))]
        event = chance.choice([*events, Ping(b"p"), Pong(b"")])
        if isinstance(event, TextMessage) and chance.random() < 0.3:
            said = ends[direction].send(TextMessage(words, message_finished=False)) + ends[direction].send(TextMessage("end"))
        else:
            said = ends[direction].send(event)
        arrivals.append((direction, said))
        ends[1 - direction].receive_data(said)
        told[direction] += ends[1 - direction].events()
    return arrivals, told


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), packs=st.booleans())
def test_two_ends_of_wsproto(seed: int, packs: bool) -> None:
    """What another implementation says and hears is what is decoded, packed or not, however cut."""
    arrivals, told = spoken(random.Random(seed), packs=packs)
    extensions = PACKS if packs else ""
    seen = feed(WebsocketDecoder(extensions), arrivals)
    assert [] == [event for event in seen if isinstance(event, Skipped | ProtocolError)]
    assert normal(seen) == normal(feed(WebsocketDecoder(extensions), split_at(arrivals, range(0, 9_999, 5))))
    for direction in (REQUEST, RESPONSE):
        expected, parts = [], b""
        for one in told[direction]:
            assert isinstance(one, TextMessage | BytesMessage | Ping | Pong)
            data = one.payload if isinstance(one, Ping | Pong) else one.data
            parts += data.encode() if isinstance(data, str) else bytes(data)
            if isinstance(one, Ping | Pong) or one.message_finished:
                expected.append(parts)
                parts = b""
        assert expected == [event.content for event in seen if isinstance(event, Message) and event.direction is direction]
