"""How near each program is to what the kernel's verifier is willing to look at."""

from __future__ import annotations

import ctypes
import struct

import pytest

from capd.probes import bpf_call
from capd.probes.capture import Capture

INSTRUCTIONS_MAX = 1_000_000
"""BPF_COMPLEXITY_LIMIT_INSNS of every kernel since 5.2."""
SHARE_MAX = 0.8
"""Other kernels need more for the same program: so much is left to them, and to the next change."""
VERIFIED_AT = 216
"""`verified_insns` of struct bpf_prog_info (Linux 5.16)."""


def verified(program: int) -> int:
    """Give how many instructions the verifier went through, 0 where the kernel does not say."""
    info = ctypes.create_string_buffer(256)
    bpf_call._bpf(bpf_call.OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", program, len(info), ctypes.addressof(info)))
    return int(struct.unpack_from("<I", info.raw, VERIFIED_AT)[0])


@pytest.mark.kernel
def test_no_program_is_near_the_limit_of_the_verifier(capture: Capture) -> None:
    """Each program of each tier leaves a fifth of the limit free."""
    counts = {name: verified(program) for name, program in capture._loaded.programs.items()}
    for name, count in sorted(counts.items(), key=lambda entry: -entry[1]):
        print(f"{capture.tier:8} {name:24} {count:9,}")  # noqa: T201  # pytest shows it when the test fails, or with -s
    assert max(counts.values()) > 0
    assert {} == {name: count for name, count in counts.items() if count > SHARE_MAX * INSTRUCTIONS_MAX}
