"""HTTP/2 on its way to the disk: which bytes of a connection are hidden, and what stays."""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence
from itertools import accumulate

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.daemon.masking.levels import Levels
from capd.daemon.masking.stage import Stage
from capd.decoders.http2.frames import BLOCKS, HEADER_BYTES, PREFACE, Frame, Type, fragment, frame_at
from capd.enforcer.masking import http2
from capd.enforcer.masking.rules import Choice, Rules
from capd.recording.record import Kind, Record
from tests.assembly.world import REQUEST, RESPONSE, of_kind, stream
from tests.decoders import http2_bytes as h2
from tests.masking.test_stage import BODY, RULES, SECRETS, TOKEN, Talk, cycles, http2_talk, passed, stored

PART_BYTES = 8
"""So much of a block cannot be the same by accident."""
SIZES = (100_000, 41, 7, 1)
GET = (*h2.GET[:2], (":path", "/plain"), h2.GET[3])
Frames = list[tuple[int, Frame, bytes]]


def frames(data: bytes) -> Frames:
    """Give the frames of a direction: offset, head, payload."""
    found: Frames = []
    at = len(PREFACE) if data.startswith(PREFACE) else 0
    while at < len(data):
        head = frame_at(data, at)
        end = at + HEADER_BYTES + head.length
        found.append((at, head, data[at + HEADER_BYTES : end]))
        at = end
    return found


def shown(talk: Talk, rules: Rules = RULES, size: int = 100_000, **more: object) -> tuple[list[Record], list[Record]]:
    """Give the records of a conversation as they came, and as they are stored."""
    batches = cycles(talk, 8443, size, 3, **more)  # type: ignore[arg-type]
    return [record for batch in batches for record in batch], passed(Stage(rules, Levels()), batches)


def talk(*said: tuple[int, bytes]) -> Talk:
    """Give a conversation after its opening."""
    return [(REQUEST, h2.OPENING), (RESPONSE, h2.SETTINGS), *said]


def types(records: Sequence[Record], direction: int) -> list[object]:
    """Give the types of a direction's messages."""
    return [record.body["type"] for record in of_kind(records, Kind.MESSAGE) if record.direction == direction]


@pytest.mark.parametrize("size", SIZES)
def test_blocks(size: int) -> None:
    """Of a header block with a secret in it no byte is stored, of one without every byte; heads of frames stay."""
    plain, kept = shown(http2_talk(), size=size)
    hidden = 0
    for direction in (REQUEST, RESPONSE):
        before, after = frames(stream(plain, direction)), frames(stream(kept, direction))
        assert [(at, head) for at, head, _ in before] == [(at, head) for at, head, _ in after]
        for (_, head, said), (_, _, now) in zip(before, after, strict=True):
            if head.kind not in BLOCKS:
                continue
            part = fragment(head, said)
            assert part is not None
            covered = head.stream != 5
            hidden += covered
            assert (b"*" * (part[1] - part[0]) if covered else said[part[0] : part[1]]) == now[part[0] : part[1]]
    assert hidden > 5


def test_messages_tell_the_rest() -> None:
    """What is in a hidden block is in its message, field by field, with the secrets masked."""
    _, kept = shown(http2_talk())
    first = next(record for record in of_kind(kept, Kind.MESSAGE) if record.body["type"] == "request")
    assert "POST /v1?access_token=********* HTTP/2" == first.body["summary"]
    headers = dict(first.body["fields"]["headers"])  # type: ignore[call-overload, index, arg-type]
    assert ("api.example.org", "Bearer *******", "s=********") == tuple(
        headers[name] for name in (":authority", "authorization", "cookie")
    )


@pytest.mark.parametrize("size", SIZES)
def test_bodies_that_are_mixed(size: int) -> None:
    """Secrets in the bodies of two streams are hidden where they stand in the frames of each, and nothing else is."""
    plain, kept = shown(http2_talk(), size=size)
    for number in (1, 3):
        said = b"".join(part for _, head, part in frames(stream(plain, REQUEST)) if head.type == 0 and head.stream == number)
        now = b"".join(part for _, head, part in frames(stream(kept, REQUEST)) if head.type == 0 and head.stream == number)
        assert b'"user": {"ssn": "' in (now if number == 3 else now.replace(b"\3", b"").replace(b"\0", b""))
        assert len(said) == len(now)
        assert len(BODY) - 11 - 9 - len(TOKEN) == sum(a == b for a, b in zip(said, now, strict=True)) - (len(said) - len(BODY))
    texts = [record.body["text"] for record in of_kind(kept, Kind.MESSAGE) if record.body["type"] == "body"]
    assert [] == [text for text in texts if any(secret.decode() in str(text) for secret in SECRETS)]
    assert any("Ada" in str(text) or "A" in str(text) for text in texts)


@pytest.mark.parametrize("size", [100_000, 3])
def test_what_is_packed(size: int) -> None:
    """A packed body with a secret is hidden; and so is gRPC's when its messages are packed, whatever they hold."""
    encoder = Encoder()
    body = gzip.compress(b'{"key": "' + TOKEN + b'"}')
    packed = h2.headers(1, h2.block(encoder, [*h2.POST, ("content-encoding", "gzip")])) + h2.data(1, body, end=True)
    call = h2.headers(3, h2.block(encoder, [*h2.POST, ("content-type", "application/grpc"), ("grpc-encoding", "gzip")]))
    said = packed + call + h2.data(3, h2.grpc(body, compressed=True), end=True)
    plain_call = h2.headers(5, h2.block(encoder, [*h2.POST[:4], ("content-type", "application/grpc")]))
    said += plain_call + h2.data(5, h2.grpc(b"\x0a\x05hello"), end=True)
    _, kept = shown(talk((REQUEST, said)), size=size)
    contents = [part for _, head, part in frames(stream(kept, REQUEST)) if head.type == Type.DATA]
    assert [b"*" * len(body), b"*" * (len(body) + 5), h2.grpc(b"\x0a\x05hello")] == contents


@pytest.mark.parametrize("size", [100_000, 5, 1])
def test_nothing_hides_beside_the_content(size: int) -> None:
    """Padding that says something, promises, debug words, frames of unknown types: all of it is looked at or hidden."""
    secret = b"password=hunter2-0"
    padded = h2.frame(Type.HEADERS, bytes([len(secret)]) + h2.literal(*GET) + secret, 0x4 | 0x8, 1)
    data = h2.frame(Type.DATA, bytes([len(secret)]) + b"ab" + secret, 0x1 | 0x8, 1)
    unknown = h2.frame(0xC, secret) + h2.frame(0x40, secret * 1_000)
    promise = h2.frame(Type.PUSH_PROMISE, b"\0\0\0\2" + h2.literal(*GET, ("authorization", "Bearer hunter2-0")), 4, 1)
    answer = h2.headers(1, h2.literal(*h2.OK, ("x-secret-key", "hunter2-0"))) + h2.goaway(1, 2, secret)
    plain, kept = shown(talk((REQUEST, padded + data + unknown), (RESPONSE, promise + answer)), size=size)
    assert b"hunter2-0" in stream(plain, REQUEST)
    assert b"hunter2-0" in stream(plain, RESPONSE)
    assert b"hunter2-0" not in stored(kept)
    assert ["preface", "SETTINGS", "request", "body", "end", "extension"] == types(kept, REQUEST)
    assert b"ab" + b"*" * len(secret) in stream(kept, REQUEST)


@pytest.mark.parametrize("lost", range(1, 60, 2))
def test_what_cannot_be_decoded_is_hidden(lost: int) -> None:
    """Where bytes are lost every header block behind the gap is hidden, for nobody can say what is in it."""
    encoder = Encoder()
    said = b"".join(h2.headers(2 * at + 1, h2.block(encoder, [*GET, ("x-free", f"plain-{at}")]), end=True) for at in range(9))
    plain, kept = shown(talk((REQUEST, said)), size=6, lost=[lost])
    if not of_kind(plain, Kind.GAP):
        return
    gap = of_kind(plain, Kind.GAP)[0]
    blocks = [(at, at + HEADER_BYTES + head.length) for at, head, _ in frames(h2.OPENING + said) if head.type == Type.HEADERS]
    if gap.direction != REQUEST:
        return
    position = gap.body["position"]
    assert isinstance(position, int)
    after = {
        at: byte
        for record in of_kind(kept, Kind.DATA)
        if record.direction == REQUEST
        for at, byte in enumerate(record.body["payload"], start=record.body["position"])  # type: ignore[arg-type]
    }
    for begin, end in blocks:
        if begin > position:
            assert {ord("*")} >= {after[at] for at in range(begin + HEADER_BYTES, end) if at in after}


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_lost_bytes_uncover_no_block(chance: random.Random) -> None:
    """Whatever is lost, no part of a header block with a secret in it is stored, decoded or not."""
    lost = {chance.randrange(1, 60) for _ in range(chance.randrange(1, 5))}
    said = http2_talk()
    _, kept = shown(said, size=chance.choice([16, 29, 64, 150]), lost=lost)
    held = stored(kept)
    for direction in (REQUEST, RESPONSE):
        for _, head, payload in frames(b"".join(part for of, part in said if of == direction)):
            if head.kind in BLOCKS and head.stream != 5:
                assert [] == [at for at in range(len(payload) - PART_BYTES) if payload[at : at + PART_BYTES] in held]


@pytest.mark.parametrize("size", [100_000, 50])
def test_a_connection_that_began_before(size: int) -> None:
    """Of a connection whose beginning was not seen no header block is stored, and what is certain is told."""
    encoder = Encoder()
    early = h2.block(encoder, [*GET, ("authorization", "Bearer a.b.c-d")])
    again = h2.headers(9, h2.block(encoder, [*GET, ("authorization", "Bearer a.b.c-d")]), end=True)
    said = h2.data(7, b"abc", end=True) + h2.headers(5, early, end=True) + again + h2.frame(Type.PING, bytes(8))
    plain, kept = shown([(REQUEST, said)], size=size, mid_stream=1)
    assert "http2" in {record.body.get("protocol") for record in of_kind(kept, Kind.MARKER)}
    assert early in stream(plain, REQUEST)
    assert early not in stream(kept, REQUEST)
    assert ["body", "end", "headers", "end", "headers", "end", "PING"] == types(kept, REQUEST)


def test_a_connection_whose_beginning_was_lost() -> None:
    """When the first bytes were lost, those behind them still tell that it is HTTP/2, and what of it can be decoded."""
    block = h2.block(Encoder(), [*GET, ("authorization", "Bearer a.b.c-d")])
    asked = h2.headers(1, block, end=True) + h2.frame(Type.PING, bytes(8))
    plain, kept = shown(talk((REQUEST, asked), (RESPONSE, h2.headers(1, h2.block(Encoder(), h2.OK), end=True))), lost=[1])
    assert [33] == [record.body["length"] for record in of_kind(kept, Kind.GAP)]
    assert block in stream(plain, REQUEST)
    assert block not in stream(kept, REQUEST)
    assert (["headers", "end", "PING"], ["SETTINGS", "response", "end"]) == (types(kept, REQUEST), types(kept, RESPONSE))


UPGRADE = (
    b"GET /first HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@pytest.mark.parametrize("size", SIZES)
def test_an_upgrade(size: int) -> None:
    """What follows an upgrade to HTTP/2 is decoded and masked as such, and the first answer is that of the request before."""
    client, server = Encoder(), Encoder()
    answer = h2.headers(1, h2.block(server, [*h2.OK, ("set-cookie", "s=sid-4711")])) + h2.data(1, b"hello", end=True)
    second = h2.headers(3, h2.block(client, [*GET, ("authorization", "Bearer a.b.c-d")]), end=True)
    said: Talk = [(REQUEST, UPGRADE), (RESPONSE, SWITCHING + h2.SETTINGS + answer), (REQUEST, h2.OPENING + second)]
    said.append((RESPONSE, h2.headers(3, h2.block(server, h2.OK), end=True)))
    plain, kept = shown(said, size=size)
    assert ["http1", "http2"] == [r.body["protocol"] for r in of_kind(kept, Kind.MARKER) if r.body["name"] == "protocol"]
    assert ["request", "end", "preface", "SETTINGS", "request", "end"] == types(kept, REQUEST)
    assert [
        "response",
        "SETTINGS",
        "response",
        *["body"] * (len(types(kept, RESPONSE)) - 6),
        "end",
        "response",
        "end",
    ] == types(kept, RESPONSE)
    heads = [r.body for r in of_kind(kept, Kind.MESSAGE) if r.body["type"] in ("request", "response")]
    assert [0, 0, 0, 2, 2] == [head["exchange"] for head in heads]
    spans = [(r.body["start"], r.body["end"]) for r in of_kind(kept, Kind.MESSAGE) if r.direction == REQUEST]
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    for secret in (b"a.b.c-d", b"sid-4711"):
        assert secret not in stored(kept)
    for block in (answer, second):
        _, _, payload = frames(block)[0]
        assert payload in stream(plain, REQUEST) + stream(plain, RESPONSE)
        assert payload not in stream(kept, REQUEST) + stream(kept, RESPONSE)


@pytest.mark.parametrize("size", [100_000, 61, 9])
def test_a_proxy(size: int) -> None:
    """HTTP/2 in the clear behind a proxy's CONNECT is not decoded, and so it is not stored."""
    secret = h2.headers(1, h2.block(Encoder(), [*GET, ("authorization", "Bearer a.b.c-d")]), end=True)
    said: Talk = [(REQUEST, b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n"), (RESPONSE, b"HTTP/1.1 200 OK\r\n\r\n")]
    said += [(RESPONSE, h2.SETTINGS + h2.ACKED), (REQUEST, h2.OPENING + secret)]
    _, kept = shown(said, size=size)
    assert secret[HEADER_BYTES:] not in stream(kept, REQUEST)
    assert stream(kept, REQUEST).endswith(b"*" * len(secret))


@pytest.mark.parametrize("size", [100_000, 7])
def test_websocket_in_a_stream(size: int) -> None:
    """What runs in a CONNECT with a protocol is scrambled or packed, and not decoded, and so it is not stored."""
    head = [(":method", "CONNECT"), (":protocol", "websocket"), *h2.GET[1:]]
    asked = h2.headers(1, h2.literal(*head)) + h2.data(1, b"\x81\x85keys\0\0\0\0\0", end=True)
    answer = h2.headers(1, h2.literal(*h2.OK)) + h2.data(1, b"\x81\5plain", end=True)
    plain, kept = shown(talk((REQUEST, asked), (RESPONSE, answer)), size=size)
    for direction in (REQUEST, RESPONSE):
        (said,), (now,) = (
            [part for _, head, part in frames(stream(records, direction)) if head.type == Type.DATA]
            for records in (plain, kept)
        )
        assert b"*" * len(said) == now


@pytest.mark.parametrize("text", [True, False])
def test_a_body_without_its_head(text: bool) -> None:
    """What nobody can say how it is packed is stored if it is text, and masked as such; else it is hidden."""
    content = b'{"note": "' + TOKEN + b'", "free": "stays"}'
    said = h2.frame(Type.PING, bytes(8)) + h2.data(7, content if text else gzip.compress(content), end=True) + h2.data(9, b"x")
    _, kept = shown([(REQUEST, said)], mid_stream=1)
    contents = [part for _, head, part in frames(stream(kept, REQUEST)) if head.type == Type.DATA]
    if text:
        assert [content.replace(TOKEN, b"*" * len(TOKEN)), b"*"] == contents
    else:
        assert {ord("*")} == set(contents[0])


@pytest.mark.parametrize("size", [1 << 20, 9_000])
def test_large_packed_bodies(size: int) -> None:
    """Packed bodies that are mixed stay as they are, however large, when nothing is in them."""
    noise = random.Random(1).randbytes(300_000).hex().encode()
    body = gzip.compress(b" ".join(noise[at : at + 7] for at in range(0, 300_000, 7)), 1)
    head = h2.literal(*h2.OK, ("content-encoding", "gzip"))
    asked = h2.headers(1, h2.literal(*GET), end=True) + h2.headers(3, h2.literal(*GET), end=True)
    parts = [body[at : at + 16_384] for at in range(0, len(body), 16_384)]
    said = h2.headers(1, head) + h2.headers(3, head) + b"".join(h2.data(1, part) + h2.data(3, part) for part in parts)
    ends = h2.data(1, b"", end=True) + h2.data(3, b"", end=True)
    plain, kept = shown(talk((REQUEST, asked), (RESPONSE, said + ends)), Rules(Choice(identifiers=())), size)
    assert len(body) > 2 * 65_536
    assert stream(plain, RESPONSE) == stream(kept, RESPONSE)


def test_a_stream_that_waits_does_not_hold_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be the beginning of something in one stream is hidden when too much comes behind it; and its rest too."""
    monkeypatch.setattr(http2, "BEHIND_BYTES_MAX", 65_536)
    asked = h2.headers(1, h2.literal(*GET)) + h2.data(1, b"a password=hun")
    other = h2.headers(3, h2.literal(*GET)) + b"".join(h2.data(3, bytes([40 + at % 5]) * 9_000) for at in range(12))
    rest = h2.data(1, b"ter2-0 and more", end=True)
    batches = cycles(talk((REQUEST, asked), (REQUEST, other), (REQUEST, rest)), 8443, 200_000, 1)
    stage = Stage(RULES, Levels())
    before = [record for batch in batches[:-3] for record in stage.take(batch)]
    assert len(h2.OPENING + asked + other) <= len(stream(before, REQUEST))
    kept = [*before, *(record for batch in batches[-3:] for record in stage.take(batch))]
    assert b"hun" not in stream(kept, REQUEST)
    assert b"ter2-0" not in stream(kept, REQUEST)
    assert b"(" * 9_000 in stream(kept, REQUEST)


def test_a_field_that_a_key_names() -> None:
    """A field whose name is a key's is hidden in its block and in its message; without rules it is stored."""
    said = h2.headers(1, h2.block(Encoder(), [*GET, ("x-db-password", "hunter2-0"), ("x-free", "stays")]), end=True)
    plain, kept = shown(talk((REQUEST, said)))
    assert b"hunter2-0" in stored(plain)
    assert b"hunter2-0" not in stored(kept)
    assert b"stays" in stored(kept)
    assert said in stream(shown(talk((REQUEST, said)), Rules(Choice(builtin=False, identifiers=())))[1], REQUEST)


def test_positions_stay() -> None:
    """Every part of every payload keeps its place and its length."""
    plain, kept = shown(http2_talk(), size=19)
    lengths = [len(record.body["payload"]) for record in of_kind(plain, Kind.DATA)]  # type: ignore[arg-type]
    assert list(accumulate(lengths)) == list(accumulate(len(r.body["payload"]) for r in of_kind(kept, Kind.DATA)))  # type: ignore[arg-type]
