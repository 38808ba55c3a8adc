"""Whether and how a payload is compressed before it goes to the journal.

What lives here: the choice between speed and size. What must not: files, block layouts.
"""

from __future__ import annotations

from typing import Final

import zstandard

from capd.recording.journal.block import Codec

PAYLOAD_BYTES_MIN: Final = 512
"""Smaller payloads (notes, idle spans) are stored as they are: they save nothing worth a call of the compressor."""
RATIO_MAX: Final = 0.85
"""Compression that leaves more than this of a payload costs more time, on both sides, than the disk would."""
SAMPLE_BYTES: Final = 16 << 10
SAMPLES: Final = 4
"""Spans are judged by pieces from all over them: one connection's random bytes may sit next to another's text."""
SAMPLED_FROM_BYTES: Final = SAMPLES * SAMPLE_BYTES * 2
"""Below this, compressing all of it is as cheap as judging samples."""


LEVEL: Final = -6
"""Default: at least 1 GB/s on text, which leaves the disk a sixth of it (docs/formats/journal.md has the figures)."""
WINDOW_LOG: Final = 18
HASH_LOG: Final = 13
"""Window and table of the fast levels fit into a core's cache: half as fast again as zstd's own at the same size."""
MATCH_BYTES_MIN: Final = 6


class Compression:
    """Compresses payloads that gain from it and leaves the others alone."""

    def __init__(self, level: int | None) -> None:
        """Take the zstd level: from 1 on as in zstd's manual, 0 and below ever faster and larger; None never compresses."""
        self._compressor = None if level is None else _compressor(level)

    def store(self, payload: bytes | memoryview) -> tuple[Codec, bytes | memoryview]:
        """Give the codec and the bytes to store: the payload itself, not a copy, when it is not worth compressing."""
        compressor = self._compressor
        if compressor is None or len(payload) < PAYLOAD_BYTES_MIN:
            return Codec.NONE, payload
        if len(payload) >= SAMPLED_FROM_BYTES and not _promising(payload, compressor):
            return Codec.NONE, payload
        compressed = compressor.compress(payload)
        if len(compressed) > RATIO_MAX * len(payload):
            return Codec.NONE, payload
        return Codec.ZSTD, compressed


def _compressor(level: int) -> zstandard.ZstdCompressor:
    if level > 0:
        return zstandard.ZstdCompressor(level=level)
    parameters = zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_FAST,
        window_log=WINDOW_LOG,
        hash_log=HASH_LOG,
        min_match=MATCH_BYTES_MIN,
        target_length=max(1, -level),
        write_content_size=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def _promising(payload: bytes | memoryview, compressor: zstandard.ZstdCompressor) -> bool:
    view = memoryview(payload)
    stride = (len(view) - SAMPLE_BYTES) // (SAMPLES - 1)
    pieces = (view[start : start + SAMPLE_BYTES] for start in range(0, stride * SAMPLES, stride))
    return sum(len(compressor.compress(piece)) for piece in pieces) <= RATIO_MAX * SAMPLES * SAMPLE_BYTES
