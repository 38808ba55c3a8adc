"""The keys of encrypted segments that the recorder keeps, because it may have to read them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from capd.daemon.recorder_sealing import KeyRing, Seals


@pytest.mark.parametrize(
    ("needed", "known", "kept"),
    [
        (set(), 4, []),
        ({2}, 4, [2]),
        ({2}, 2, [2, 3, 4]),
        (set(), 0, [1, 2, 3, 4]),
    ],
)
def test_of_what_the_index_does_not_know_keys_stay(tmp_path: Path, needed: set[int], known: int, kept: list[int]) -> None:
    """Keys go that the index says nobody needs; it cannot say so of segments that a full disk kept out of it."""
    seals = Seals(signer=None, recipients=["age1"], ring=KeyRing(tmp_path))
    for sequence in range(1, 5):
        (tmp_path / f"{sequence:012d}.key").touch()
    seals.sealed(4)
    seals.forget(needed, known)
    assert kept == sorted(int(path.stem) for path in tmp_path.iterdir())
