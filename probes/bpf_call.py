"""The bpf(2) and perf_event_open(2) system calls, as far as capd uses them.

What lives here: attribute layouts (include/uapi/linux/bpf.h, perf_event.h) and nothing that decides. What must not: BCC,
maps' meanings.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.probes.compiled import MapShape
from capd.probes.errors import AttachError, MapLayoutError

SYS_BPF: Final = 321
SYS_PERF_EVENT_OPEN: Final = 298
ATTRIBUTE_BYTES: Final = 160

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, PROG_LOAD, OBJ_PIN, OBJ_GET = 0, 1, 2, 3, 4, 5, 6, 7
OBJ_GET_INFO_BY_FD, RAW_TRACEPOINT_OPEN, BTF_LOAD, MAP_LOOKUP_BATCH, LINK_CREATE = 15, 17, 18, 24, 28

PROG_TYPE_KPROBE: Final = 2
PROG_TYPE_TRACEPOINT: Final = 5
PROG_TYPE_CGROUP_SKB: Final = 8
PROG_TYPE_CGROUP_SOCK: Final = 9
PROG_TYPE_RAW_TRACEPOINT: Final = 17
PROG_TYPE_CGROUP_SOCK_ADDR: Final = 18
PROG_TYPE_TRACING: Final = 26
ATTACH_INET_INGRESS: Final = 0
ATTACH_INET_EGRESS: Final = 1
ATTACH_INET_SOCK_CREATE: Final = 2
ATTACH_INET4_CONNECT: Final = 10
ATTACH_INET6_CONNECT: Final = 11
ATTACH_UDP4_SENDMSG: Final = 14
ATTACH_UDP6_SENDMSG: Final = 15
ATTACH_UDP4_RECVMSG: Final = 19
ATTACH_UDP6_RECVMSG: Final = 20
ATTACH_TRACE_RAW_TP: Final = 23
ATTACH_UPROBE_MULTI: Final = 48
ATTACH_UPROBE_SESSION: Final = 57
MAP_TYPE_ARRAY: Final = 2
MAP_TYPE_RINGBUF: Final = 27
MAP_TYPE_TASK_STORAGE: Final = 29
MAP_NO_PREALLOC: Final = 1
INFO_BYTES: Final = 256

VERIFIER_LOG_BYTES: Final = 1 << 20
"""Enough for the last pages of a refusal; the verifier keeps the end of what does not fit since Linux 6.4."""

PERF_TYPE_TRACEPOINT: Final = 2
PERF_FLAG_FD_CLOEXEC: Final = 8
PERF_EVENT_IOC_SET_BPF: Final = 0x40042408
PERF_EVENT_IOC_ENABLE: Final = 0x2400
PERF_ATTRIBUTE_BYTES: Final = 128

BATCH_ENTRIES: Final = 4096
"""Of a hash table, at once; at least as many as one bucket of it may hold."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attribute: bytes) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attribute, ATTRIBUTE_BYTES)
    result = _libc.syscall(SYS_BPF, command, buffer, ATTRIBUTE_BYTES)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result, buffer.raw


def create_ring(size: int) -> int:
    """Create a ring buffer map of `size` bytes, a power of two and a multiple of the page size. Returns its descriptor."""
    return _bpf(MAP_CREATE, struct.pack("<IIII", MAP_TYPE_RINGBUF, 0, 0, size))[0]


def create_map(shape: MapShape) -> int:
    """Create a map. Returns its descriptor."""
    values = (shape.kind, shape.key_bytes, shape.value_bytes, shape.entries, shape.flags)
    return _bpf(MAP_CREATE, struct.pack("<IIIII", *values))[0]


def shape_of(descriptor: int) -> MapShape:
    """Give what a map was made as (bpf_map_info, Linux 4.13)."""
    info = ctypes.create_string_buffer(INFO_BYTES)
    _bpf(OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", descriptor, len(info), ctypes.addressof(info)))
    kind, _, key_bytes, value_bytes, entries, flags = struct.unpack_from("<IIIIII", info.raw)
    return MapShape(kind, key_bytes, value_bytes, entries, flags)


def create_task_storage(value_bytes: int) -> int:
    """Create a map that keeps `value_bytes` bytes, a multiple of 8, with each thread (Linux 5.11). Returns its descriptor."""
    types = _load_btf(_storage_types(value_bytes))
    try:
        name = b"tls_calls"
        attribute = struct.pack(
            "<IIIIIII16sIIII", MAP_TYPE_TASK_STORAGE, 4, value_bytes, 0, MAP_NO_PREALLOC, 0, 0, name, 0, types, 1, 3
        )
        return _bpf(MAP_CREATE, attribute)[0]
    finally:
        os.close(types)


def _storage_types(value_bytes: int) -> bytes:
    """Describe key and value, without which the kernel makes no such map: int (1), u64 (2), array of it (3)."""
    names = b"\0int\0u64\0"
    kind_int, kind_array = 1 << 24, 3 << 24
    types = struct.pack("<IIII", 1, kind_int, 4, 1 << 24 | 32)  # signed, 32 bits
    types += struct.pack("<IIII", 5, kind_int, 8, 64)
    types += struct.pack("<IIIIII", 0, kind_array, 0, 2, 1, value_bytes // 8)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names)) + types + names


def _load_btf(raw: bytes) -> int:
    text = ctypes.create_string_buffer(raw, len(raw))
    return _bpf(BTF_LOAD, struct.pack("<QQIII", ctypes.addressof(text), 0, len(raw), 0, 0))[0]


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled program on its way to the kernel.

    Attributes:
        name: at most 15 bytes are kept by the kernel.
        instructions: 8 bytes each, map descriptors in place.
        kind: a PROG_TYPE_*.
        attach_type: an ATTACH_*, or 0.
        attach_btf_id: for typed tracepoints, else 0.
    """

    name: str
    instructions: bytes
    kind: int
    attach_type: int = 0
    attach_btf_id: int = 0


class VerifierError(OSError):
    """The kernel's verifier refused a program; `log` says why."""

    def __init__(self, program: str, number: int, log: str) -> None:
        super().__init__(number, f"program {program}: {os.strerror(number)}")
        self.log = log


def load(program: Program) -> int:
    """Load a program and give its descriptor.

    Raises:
        VerifierError: the kernel refused it.
    """
    code = ctypes.create_string_buffer(program.instructions, len(program.instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    name = program.name.encode()[:15]
    for log_bytes in (0, VERIFIER_LOG_BYTES):
        log = ctypes.create_string_buffer(log_bytes or 1)
        attribute = struct.pack(
            "<IIQQIIQII16sIIIIQIIQII",
            program.kind,
            len(program.instructions) // 8,
            ctypes.addressof(code),
            ctypes.addressof(licence),
            1 if log_bytes else 0,
            log_bytes,
            ctypes.addressof(log) if log_bytes else 0,
            0,
            0,
            name,
            0,
            program.attach_type,
            *(0, 0, 0, 0, 0, 0, 0),  # the program's own BTF, which BCC's output has none of
            program.attach_btf_id,
        )
        try:
            return _bpf(PROG_LOAD, attribute)[0]
        except OSError as error:
            refused = VerifierError(program.name, error.errno or 0, log.value.decode(errors="replace"))
    raise refused


def attach_raw_tracepoint(program: int, name: str | None) -> int:
    """Attach a raw tracepoint program by tracepoint name, or a typed one (name None). Returns the link's descriptor."""
    text = ctypes.create_string_buffer((name or "").encode())
    return _bpf(RAW_TRACEPOINT_OPEN, struct.pack("<QI", ctypes.addressof(text) if name else 0, program))[0]


def attach_uprobes(program: int, path: str, offsets: Sequence[int], cookies: Sequence[int], attach_type: int) -> int:
    """Attach a program to file offsets of one file, each with a cookie (uprobe_multi, Linux 6.6).

    Returns the link's descriptor.
    """
    file_name = ctypes.create_string_buffer(os.fsencode(path))
    places = (ctypes.c_uint64 * len(offsets))(*offsets)
    marks = (ctypes.c_uint64 * len(cookies))(*cookies)
    attribute = struct.pack(
        "<IIIIQQQQIII",
        program,
        0,
        attach_type,
        0,
        ctypes.addressof(file_name),
        ctypes.addressof(places),
        0,
        ctypes.addressof(marks),
        len(offsets),
        0,
        0,
    )
    return _bpf(LINK_CREATE, attribute)[0]


def attach_cgroup(program: int, cgroup: int, attach_type: int) -> int:
    """Attach a program to an open cgroup directory and all cgroups below it. Returns the link's descriptor."""
    return _bpf(LINK_CREATE, struct.pack("<IIII", program, cgroup, attach_type, 0))[0]


@dataclass(frozen=True, slots=True)
class CgroupLink:
    """Where a program stands (bpf_link_info, Linux 5.8).

    Attributes:
        program: the kernel's number of the program.
        cgroup: the kernel's number of the cgroup; 0 when that is gone, and the program with it.
        attach_type: an ATTACH_*.
    """

    program: int
    cgroup: int
    attach_type: int


def cgroup_link(descriptor: int) -> CgroupLink:
    """Say where the link of a cgroup program holds it.

    Raises:
        OSError: the descriptor is none of a link.
    """
    info = ctypes.create_string_buffer(INFO_BYTES)
    _bpf(OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", descriptor, len(info), ctypes.addressof(info)))
    _kind, _id, program, cgroup, attach_type = struct.unpack_from("<III4xQI", info.raw)
    return CgroupLink(program, cgroup, attach_type)


def pin(descriptor: int, path: Path) -> None:
    """Give a program, map or link a name in bpffs, where it stays when this process is gone."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    _bpf(OBJ_PIN, struct.pack("<QII", ctypes.addressof(name), descriptor, 0))


def pinned(path: Path) -> int:
    """Open what has a name in bpffs. Returns its descriptor."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _bpf(OBJ_GET, struct.pack("<QII", ctypes.addressof(name), 0, 0))[0]


def _perf_event(kind: int, config: int, config1: int = 0, config2: int = 0, cpu: int = 0) -> int:
    attribute = bytearray(PERF_ATTRIBUTE_BYTES)
    struct.pack_into("<IIQQQQ", attribute, 0, kind, PERF_ATTRIBUTE_BYTES, config, 1, 0, 0)
    struct.pack_into("<I", attribute, 48, 1)
    struct.pack_into("<QQ", attribute, 56, config1, config2)
    buffer = ctypes.create_string_buffer(bytes(attribute), PERF_ATTRIBUTE_BYTES)
    descriptor = _libc.syscall(SYS_PERF_EVENT_OPEN, buffer, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(descriptor)


def _arm(descriptor: int, program: int) -> int:
    try:
        fcntl.ioctl(descriptor, PERF_EVENT_IOC_SET_BPF, program)
        fcntl.ioctl(descriptor, PERF_EVENT_IOC_ENABLE, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def attach_tracepoint(program: int, tracefs: Path, category: str, name: str) -> int:
    """Attach a tracepoint program for all processes. Returns the event's descriptor."""
    number = int((tracefs / "events" / category / name / "id").read_text())
    return _arm(_perf_event(PERF_TYPE_TRACEPOINT, number), program)


def uprobe_type() -> tuple[int, int]:
    """Give perf's type number of uprobes and the config bit that makes one a return probe.

    Raises:
        AttachError: the kernel has no uprobes.
    """
    base = Path("/sys/bus/event_source/devices/uprobe")
    try:
        bit = int((base / "format" / "retprobe").read_text().split(":")[1])
        return int((base / "type").read_text()), 1 << bit
    except (OSError, ValueError, IndexError) as error:
        raise AttachError(f"the kernel offers no uprobes: {error}") from error


def attach_uprobe(program: int, path: str, offset: int, *, returns: bool) -> int:
    """Attach a program to one file offset through perf (Linux 4.17). Returns the event's descriptor."""
    kind, return_bit = uprobe_type()
    file_name = ctypes.create_string_buffer(os.fsencode(path))
    return _arm(_perf_event(kind, return_bit if returns else 0, ctypes.addressof(file_name), offset), program)


def recursion_misses(program: int) -> int:
    """Give how often the kernel skipped a program because it was running on that CPU already (bpf_prog_info, Linux 5.12)."""
    info = ctypes.create_string_buffer(INFO_BYTES)
    _bpf(OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", program, len(info), ctypes.addressof(info)))
    return int(struct.unpack_from("<Q", info.raw, 208)[0])


class Map:
    """A map's entries as bytes.

    Args:
        descriptor: of the map; stays the caller's.
        key_bytes, value_bytes: sizes of one key and one value.

    Raises:
        MapLayoutError: the map has other sizes. The kernel writes whole values, so that memory behind less room would change.
    """

    def __init__(self, descriptor: int, key_bytes: int, value_bytes: int) -> None:
        shape = shape_of(descriptor)
        if (shape.key_bytes, shape.value_bytes) != (key_bytes, value_bytes):
            has, read = f"{shape.key_bytes} and {shape.value_bytes}", f"{key_bytes} and {value_bytes}"
            raise MapLayoutError(f"a map has keys and values of {has} bytes, and is read as {read}")
        self.descriptor = descriptor
        self._key_bytes = key_bytes
        self._value_bytes = value_bytes

    def _element(self, command: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None) -> None:
        place = ctypes.create_string_buffer(key, self._key_bytes)
        pointer = ctypes.addressof(value) if value is not None else 0
        _bpf(command, struct.pack("<I4xQQQ", self.descriptor, ctypes.addressof(place), pointer, 0))

    def get(self, key: bytes) -> bytes | None:
        """Give the value of a key, or None."""
        value = ctypes.create_string_buffer(self._value_bytes)
        try:
            self._element(MAP_LOOKUP, key, value)
        except FileNotFoundError:
            return None
        return value.raw

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        self._element(MAP_UPDATE, key, ctypes.create_string_buffer(value, self._value_bytes))

    def remove(self, key: bytes) -> None:
        """Delete a key if it is there."""
        try:
            self._element(MAP_DELETE, key, None)
        except FileNotFoundError:
            return

    def walk(self) -> Iterator[bytes]:
        """Walk the keys.

        An entry that is deleted during the walk may make it start again: entries may come twice, none is left out.
        """
        key: bytes | None = None
        following = ctypes.create_string_buffer(self._key_bytes)
        while True:
            place = ctypes.create_string_buffer(key, self._key_bytes) if key is not None else None
            pointer = ctypes.addressof(place) if place is not None else 0
            try:
                _bpf(MAP_NEXT_KEY, struct.pack("<I4xQQ", self.descriptor, pointer, ctypes.addressof(following)))
            except FileNotFoundError:
                return
            key = following.raw
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Give a hash table's entries, thousands with one system call (Linux 5.6).

        An entry that is added or deleted meanwhile may be given or not; all others are given once.
        """
        keys = ctypes.create_string_buffer(BATCH_ENTRIES * self._key_bytes)
        values = ctypes.create_string_buffer(BATCH_ENTRIES * self._value_bytes)
        place = ctypes.create_string_buffer(max(8, self._key_bytes))
        begun, more = 0, True
        while more:
            addresses = begun, ctypes.addressof(place), ctypes.addressof(keys), ctypes.addressof(values)
            attribute = struct.pack("<QQQQIIQQ", *addresses, BATCH_ENTRIES, self.descriptor, 0, 0)
            count, more = self._batch(attribute)
            begun = ctypes.addressof(place)
            found = keys.raw[: count * self._key_bytes], values.raw[: count * self._value_bytes]
            for at in range(count):
                key_at, value_at = at * self._key_bytes, at * self._value_bytes
                yield found[0][key_at : key_at + self._key_bytes], found[1][value_at : value_at + self._value_bytes]

    @staticmethod
    def _batch(attribute: bytes) -> tuple[int, bool]:
        """Ask for a batch. Gives how many entries came, and whether there may be more."""
        buffer = ctypes.create_string_buffer(attribute, ATTRIBUTE_BYTES)
        failed = _libc.syscall(SYS_BPF, MAP_LOOKUP_BATCH, buffer, ATTRIBUTE_BYTES) < 0
        number = ctypes.get_errno()
        if failed and number != errno.ENOENT:
            raise OSError(number, os.strerror(number))
        return int(struct.unpack_from("<I", buffer.raw, 32)[0]), not failed
