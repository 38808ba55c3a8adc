"""No uprobe program may run on a stack that two threads share.

Uprobe programs can be preempted. Since Linux 6.13 the JIT may give a program a private stack for each CPU; a second thread on
that CPU would then overwrite the first one's. A tail call in the program forbids it.
"""

from __future__ import annotations

import ctypes
import os
import struct

import pytest

from capd.probes import bpf_call
from capd.probes.capture import Capture
from capd.probes.programs import PROGRAMS, Place, Tier
from tests.requirements import require

PRIVATE_STACK = bytes.fromhex("654c030c25")
"""add %gs:ADDRESS, %r9: how the x86-64 JIT finds the private stack of this CPU."""
JITED_BYTES_MAX = 1 << 20
STACK_USER = (
    "b400000001000000"  # w0 = 1
    + "".join(f"7b0a{(65536 - slot) & 0xFF:02x}{(65536 - slot) >> 8 & 0xFF:02x}00000000" for slot in range(8, 264, 8))
    + "b700000000000000"
    + "9500000000000000"
)
"""Writes 256 bytes of stack and returns 0."""


def jited(program: int) -> bytes:
    """Give the machine code of a loaded program."""
    code = ctypes.create_string_buffer(JITED_BYTES_MAX)
    info = ctypes.create_string_buffer(bytes(16) + struct.pack("<IIQ", JITED_BYTES_MAX, 0, ctypes.addressof(code)), 256)
    bpf_call._bpf(bpf_call.OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", program, len(info), ctypes.addressof(info)))
    return code.raw[: struct.unpack_from("<I", info.raw, 16)[0]]


@pytest.mark.kernel
def test_uprobe_programs_have_stacks_of_their_own(capture: Capture) -> None:
    """None of them uses the private stack, although this kernel's JIT gives one to a program without a tail call."""
    program = bpf_call.load(
        bpf_call.Program("stack", bytes.fromhex(STACK_USER), bpf_call.PROG_TYPE_KPROBE, bpf_call.ATTACH_UPROBE_MULTI)
    )
    control = jited(program)
    os.close(program)
    require(PRIVATE_STACK in control, "this kernel gives no private stacks, or does not show machine code")
    uprobes = [spec.name for spec in PROGRAMS[Tier(capture.tier)] if spec.place is Place.LIBRARY]
    assert uprobes
    assert [] == [name for name in uprobes if PRIVATE_STACK in jited(capture._loaded.programs[name])]
