"""The encrypted journal: whole for who has the key, damage for who has not, and keys that outlive what they must."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.recording.journal import Block, JournalDamage, JournalKey, JournalKeys, JournalReader, JournalWriter, Source
from capd.recording.journal.block import HEADER_BYTES, BlockHeader, Codec
from capd.recording.journal.cipher import KEYS_KEPT, OVERHEAD_BYTES, AlteredError, read_keys, renew

BOOT = UUID(int=5)
SECRET = b"Authorization: Bearer 4711-ZEBRA "
PAYLOADS = [b"", SECRET, SECRET * 100, bytes(range(256)) * 1000]


@pytest.fixture
def key(tmp_path: Path) -> JournalKey:
    """Give a key that is in a file."""
    return renew(tmp_path / "journal.key", tmp_path / "other.key", boot=BOOT, group=None)


@pytest.fixture
def keys(tmp_path: Path, key: JournalKey) -> JournalKeys:
    """Give the keys as the recorder reads them."""
    return JournalKeys(tmp_path / "journal.key")


def write(directory: Path, key: JournalKey | None, payloads: list[bytes]) -> None:
    """Append payloads."""
    with JournalWriter(directory, key=key) as writer:
        for number, payload in enumerate(payloads):
            writer.append(Source.DATA, payload, count=number, boottime_ns=number, realtime_ns=number)


def read(directory: Path, keys: JournalKeys | None) -> list[Block | JournalDamage]:
    """Read all there is."""
    found = []
    with JournalReader(directory, None, keys) as reader:
        while (block := reader.read()) is not None:
            found.append(block)
    return found


def test_blocks_come_back_as_they_were(tmp_path: Path, key: JournalKey, keys: JournalKeys) -> None:
    """Compressed or not, empty or not, encrypted and plain ones mixed: every payload is read as it was appended."""
    for each in (key, None, key):
        write(tmp_path / "journal", each, PAYLOADS)
    assert PAYLOADS * 3 == [bytes(block.payload) for block in read(tmp_path / "journal", keys) if isinstance(block, Block)]


@pytest.mark.parametrize("encrypted", [True, False])
def test_nothing_that_was_captured_is_on_the_disk(tmp_path: Path, key: JournalKey, encrypted: bool) -> None:
    """A secret is nowhere in the files; without encryption it is, which shows that this test can see it."""
    write(tmp_path / "journal", key if encrypted else None, [SECRET, b"x" + SECRET * 3])
    data = b"".join(path.read_bytes() for path in (tmp_path / "journal").iterdir())
    assert encrypted != (SECRET in data)


def test_any_changed_byte_is_damage(tmp_path: Path, key: JournalKey, keys: JournalKeys) -> None:
    """Whatever byte of an encrypted block is changed, the block is not taken for what was captured, and the next is read."""
    write(tmp_path / "journal", key, [SECRET, b"next"])
    (path,) = (tmp_path / "journal").iterdir()
    whole = path.read_bytes()
    end = HEADER_BYTES + len(SECRET) + OVERHEAD_BYTES
    for offset in range(end):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1 << offset % 8]) + whole[offset + 1 :])
        found = read(path.parent, keys)
        assert SECRET not in [bytes(block.payload) for block in found if isinstance(block, Block)]
        if offset >= HEADER_BYTES:
            assert isinstance(found[0], JournalDamage)
            assert isinstance(found[1], Block)


def test_a_cut_anywhere_costs_the_block_that_is_cut(tmp_path: Path, key: JournalKey, keys: JournalKeys) -> None:
    """Of a file cut at any byte the whole blocks before it are read."""
    write(tmp_path / "journal", key, [SECRET, b"second", b"third"])
    (path,) = (tmp_path / "journal").iterdir()
    whole = path.read_bytes()
    sizes = [HEADER_BYTES + len(payload) + OVERHEAD_BYTES for payload in (SECRET, b"second", b"third")]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        expected = sum(sum(sizes[: number + 1]) <= size for number in range(3))
        assert expected == len(read(path.parent, keys))


@pytest.mark.parametrize("known", [False, True])
def test_a_key_that_is_gone_is_told_as_damage(tmp_path: Path, key: JournalKey, known: bool) -> None:
    """Blocks of a key that was lost with the host's memory are damage that says so, one for one; later ones are read."""
    write(tmp_path / "journal", key, [SECRET, SECRET])
    (tmp_path / "journal.key").unlink()
    later = renew(tmp_path / "journal.key", tmp_path / "other.key", boot=UUID(int=6), group=None)
    write(tmp_path / "journal", later, [b"later"])
    found = read(tmp_path / "journal", JournalKeys(tmp_path / "journal.key") if known else None)
    reasons = [block.reason for block in found if isinstance(block, JournalDamage)]
    assert (2 if known else 3) == len(reasons)
    assert f"it is encrypted with key {key.id:08x}, which is gone: it was only in memory, or was removed" == reasons[0]
    assert ([b"later"] if known else []) == [bytes(block.payload) for block in found if isinstance(block, Block)]


def test_a_key_made_while_reading_is_found(tmp_path: Path, key: JournalKey, keys: JournalKeys) -> None:
    """A reader that runs learns of the key of a daemon that was started after it."""
    assert keys.key(key.id).raw == key.raw
    later = renew(tmp_path / "journal.key", tmp_path / "other.key", boot=UUID(int=6), group=None)
    assert [key.raw, later.raw] == [keys.key(each.id).raw for each in (key, later)]


def test_one_key_for_each_start_of_the_host(tmp_path: Path, key: JournalKey) -> None:
    """Starts of the daemon share a key, starts of the host do not; a few old keys stay for what waits in the journal."""
    path, other = tmp_path / "journal.key", tmp_path / "other.key"
    assert key.raw == renew(path, other, boot=BOOT, group=None).raw
    made = [key, *(renew(path, other, boot=UUID(int=10 + number), group=None) for number in range(KEYS_KEPT))]
    assert [each.raw for each in made[1:]] == [each.raw for each in read_keys(path)]
    assert 0o640 == path.stat().st_mode & 0o777


def test_keys_move_to_where_the_configuration_wants_them(tmp_path: Path, key: JournalKey) -> None:
    """When recipients are configured the key leaves the disk, and what waits in the journal can still be read."""
    disk, memory = tmp_path / "journal.key", tmp_path / "memory.key"
    assert key.raw == renew(memory, disk, boot=BOOT, group=None).raw
    assert (False, [key.raw]) == (disk.exists(), [each.raw for each in read_keys(memory)])


def test_a_payload_is_bound_to_its_header(key: JournalKey) -> None:
    """Ciphertext under another header does not decrypt: no block passes for one of another time or source."""
    facts = {"codec": Codec.NONE, "sequence": 1, "raw_bytes": 3, "stored_bytes": 31, "boottime_ns": 1, "realtime_ns": 1}
    header = BlockHeader(source=Source.DATA, count=1, stored_crc=0, key=key.id, **facts)  # type: ignore[arg-type]
    other = BlockHeader(source=Source.CONTROL, count=1, stored_crc=0, key=key.id, **facts)  # type: ignore[arg-type]
    stored = bytes(key.encrypt(b"abc", header.bound))
    assert b"abc" == key.decrypt(stored, header.bound)
    with pytest.raises(AlteredError):
        key.decrypt(stored, other.bound)


@given(stored=st.binary(max_size=200))
def test_random_bytes_do_not_decrypt(stored: bytes) -> None:
    """Whatever is in the place of a payload, the answer is our own error."""
    with pytest.raises(AlteredError):
        JournalKey(BOOT, bytes(32)).decrypt(stored, b"")


def test_no_nonce_is_used_twice(key: JournalKey) -> None:
    """The same payload is another ciphertext each time: a block that is taken back and written again gives nothing away."""
    assert 100 == len({bytes(key.encrypt(b"abc", b"")) for _ in range(100)})
