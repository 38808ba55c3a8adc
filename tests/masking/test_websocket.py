"""WebSocket on its way to the disk: which bytes are hidden, in payload, content and text."""

from __future__ import annotations

import pytest

from capd.daemon.masking.levels import Level, Levels
from capd.daemon.masking.stage import Stage
from capd.decoders.websocket.frames import head_at, unmasked
from capd.enforcer.masking.rules import Choice, Rules
from capd.recording.record import Kind, Record
from tests.assembly.world import REQUEST, RESPONSE, of_kind, stream
from tests.decoders.test_websocket import PACKS, client, frame, packed
from tests.masking.test_stage import RULES, SECRETS, TOKEN, Talk, cycles, passed, stored

UPGRADE = (
    b"GET /ws?access_token=hunter2-0 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n"
AGREED = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=15\r\n"
SECRET = b'{"password": "hunter2-0", "user": {"ssn": "123-45-6789"}, "note": "' + TOKEN + b'", "free": "stays"}'
HIDDEN = SECRET.replace(b"hunter2-0", b"*" * 9).replace(b"123-45-6789", b"*" * 11).replace(TOKEN, b"*" * len(TOKEN))
FREE = b'{"nothing": "to see"}'
assert PACKS == "permessage-deflate"


def talk(*said: tuple[int, bytes], extensions: bytes = b"") -> Talk:
    """Give a conversation after its handshake."""
    return [(REQUEST, UPGRADE), (RESPONSE, ANSWER % extensions), *said]


def shown(said: Talk, size: int, rules: Rules = RULES) -> tuple[list[Record], list[Record]]:
    """Give the records of a conversation as they came, and as they are stored."""
    batches = cycles(said, 80, size, 3)
    return [record for batch in batches for record in batch], passed(Stage(rules, Levels()), batches)


def payloads(records: list[Record], direction: int) -> list[bytes]:
    """Give the payloads of a direction's frames, unscrambled."""
    said = stream(records, direction)
    at = said.index(b"\r\n\r\n") + 4
    found = []
    while at < len(said):
        head = head_at(said, at)
        assert head is not None
        begin = at + head.size
        at = begin + head.length
        found.append(unmasked(said[begin:at], head.key, 0))
    return found


def scrambled(shown: bytes, said: bytes) -> bytes:
    """Give what a reader unscrambles where a payload is filled: the filler, scrambled."""
    filler = unmasked(b"*" * len(said), b"key!", 0)
    return bytes(fill if now == ord("*") != was else was for fill, now, was in zip(filler, shown, said, strict=True))


def messages(records: list[Record], direction: int) -> list[tuple[object, ...]]:
    """Give type, text and content of a direction's messages of WebSocket."""
    told = [record.body for record in of_kind(records, Kind.MESSAGE) if record.direction == direction]
    return [(body["type"], body["text"], body.get("content")) for body in told if body["protocol"] == "websocket"]


@pytest.mark.parametrize("size", [100_000, 64, 7, 1])
def test_both_directions(size: int) -> None:
    """Secrets are hidden exactly where they stand, scrambled or not, in one frame or several; and in what is told."""
    cut = client(1, SECRET[:20], fin=False) + client(0, SECRET[20:])
    said = talk(
        (REQUEST, client(1, SECRET) + cut + client(1, FREE)), (RESPONSE, frame(1, SECRET) + frame(9, b"password=hunter2-0"))
    )
    plain, kept = shown(said, size)
    assert b"websocket" in stored(kept)
    assert [] == [secret for secret in SECRETS if secret in stored(kept)]
    assert b"hunter2-0" in stored(plain)
    first, *parts, free = payloads(kept, REQUEST)
    assert (scrambled(HIDDEN, SECRET), FREE) == (first, free)
    assert scrambled(HIDDEN[:20], SECRET[:20]) == parts[0]
    assert [HIDDEN, b"password=*********"] == payloads(kept, RESPONSE)
    text = HIDDEN.decode()
    assert [("text", text, HIDDEN), ("text", text, HIDDEN), ("text", FREE.decode(), FREE)] == messages(kept, REQUEST)
    assert [("text", text, None), ("ping", "password=*********", None)] == messages(kept, RESPONSE)


@pytest.mark.parametrize("size", [100_000, 9])
def test_packed(size: int) -> None:
    """A packed message with a secret is hidden whole, one without stays, also behind it; what it says is told, masked."""
    first, second, third = packed(SECRET, FREE, b"again: " + SECRET)
    said = b"".join(frame(1, part, bits=4) for part in (first, second, third))
    plain, kept = shown(talk((RESPONSE, said), extensions=AGREED), size)
    assert [b"*" * len(first), second, b"*" * len(third)] == payloads(kept, RESPONSE)
    assert [HIDDEN, FREE, b"again: " + HIDDEN] == [content for _, _, content in messages(kept, RESPONSE)]
    assert [] == [secret for secret in SECRETS if secret in stored(kept)]
    assert first in stream(plain, RESPONSE)


@pytest.mark.parametrize("size", [100_000, 30])
def test_parts(size: int) -> None:
    """A secret in two parts of a message, with a ping between them, is hidden, and what follows it for a while."""
    said = client(1, b"a password=hun", fin=False) + client(9) + client(0, b"ter2-0 " + b"x " * 300)
    _, kept = shown(talk((REQUEST, said)), size, Rules(Choice()))
    assert b"hun" not in stored(kept)
    assert b"ter2-0" not in stored(kept)
    parts = [content for kind, _, content in messages(kept, REQUEST) if kind == "text"]
    assert [True, True] == [isinstance(part, bytes) and b"*" in part for part in parts]
    assert b"x " * 50 in stored(kept)


@pytest.mark.parametrize("lost", range(8, 40, 3))
def test_lost_bytes_uncover_nothing(lost: int) -> None:
    """Where bytes are lost no secret is stored before or behind the gap, packed or not."""
    (one,) = packed(SECRET)
    said = talk((REQUEST, client(1, SECRET) * 3), (RESPONSE, frame(1, one, bits=4) * 2), extensions=AGREED)
    batches = cycles(said, 80, 31, 3, lost=[lost])
    kept = passed(Stage(RULES, Levels()), batches)
    assert [] == [secret for secret in SECRETS if secret in stored(kept)]
    for part in payloads_anyhow(kept):
        assert b"hunter2-0" not in part


def payloads_anyhow(records: list[Record]) -> list[bytes]:
    """Give what the client's bytes are when they are unscrambled from any place on."""
    said = stream(records, REQUEST)
    return [unmasked(said, b"key!", phase) for phase in range(4)]


def test_levels() -> None:
    """At `metadata` nothing of what was said is stored, at `full` all of it; without rules it is as it was."""
    batches = cycles(talk((REQUEST, client(1, FREE))), 80, 100_000, 3)
    bare = passed(Stage(RULES, Levels(default=Level.METADATA)), batches)
    assert b"to see" not in stored(bare)
    assert "text" in {record.body["type"] for record in of_kind(bare, Kind.MESSAGE)}
    full = passed(Stage(RULES, Levels(default=Level.FULL)), batches)
    assert b"to see" in stored(full)
    assert full == passed(Stage(Rules(Choice(builtin=False, identifiers=())), Levels()), batches)


@pytest.mark.parametrize("size", [100_000, 23])
def test_a_killed_recorder_goes_on(size: int) -> None:
    """A stage that was saved and restored between any two cycles gives what one gives that never ended."""
    batches = cycles(talk((REQUEST, client(1, SECRET) + client(1, FREE)), (RESPONSE, frame(1, SECRET))), 80, size, 1)
    whole = passed(Stage(RULES, Levels()), batches)
    for at in range(len(batches)):
        first, second = Stage(RULES, Levels()), Stage(RULES, Levels())
        before = passed(first, batches[:at])
        assert second.restore(first.save())
        assert whole == [*before, *passed(second, batches[at:])]
