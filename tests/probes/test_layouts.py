"""The C side and the Python side of the rings' events agree, byte for byte."""

from __future__ import annotations

import ctypes
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.probes import capture, counters, layouts, sites
from capd.probes.loader import BPF_FOLDER

TYPES = {"u8": ctypes.c_uint8, "u16": ctypes.c_uint16, "u32": ctypes.c_uint32, "u64": ctypes.c_uint64, "char": ctypes.c_char}
FIELD = re.compile(r"^\t(struct \w+|\w+) (\w+)(?:\[(\w+)\])?;$", re.MULTILINE)


def structures() -> dict[str, type[ctypes.Structure]]:
    """Build ctypes structures, laid out as the C compiler does, from `events.h` and `maps.h`."""
    text = "".join((BPF_FOLDER / name).read_text() for name in ("events.h", "maps.h"))
    sizes = {name: int(value) for name, value in re.findall(r"#define (\w+_BYTES) (\d+)", text)}
    found: dict[str, type[ctypes.Structure]] = {}
    for name, body in re.findall(r"^struct (\w+) \{\n(.*?)^\};", text, re.DOTALL | re.MULTILINE):
        fields: list[tuple[str, Any]] = []
        for kind, field, count in FIELD.findall(body):
            base: Any = found[kind.removeprefix("struct ")] if kind.startswith("struct ") else TYPES[kind]
            number = int(count) if count.isdigit() else sizes.get(count, 0)
            fields.append((field, base * number if count else base))
        found[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return found


@pytest.mark.parametrize(
    ("name", "fixed"),
    [
        ("data_event", layouts.DATA),
        ("socket_open_event", layouts.SOCKET_OPEN),
        ("socket_close_event", layouts.SOCKET_CLOSE),
        ("tls_open_event", layouts.TLS_OPEN),
        ("tls_close_event", layouts.TLS_CLOSE),
        ("fork_event", layouts.FORK),
        ("exec_event", layouts.EXEC),
        ("exit_event", layouts.EXIT),
        ("file_mapped_event", layouts.FILE_MAPPED),
    ],
)
def test_fixed_parts_have_the_same_fields_at_the_same_places(name: str, fixed: struct.Struct) -> None:
    """Every field that C writes is read at the same offset with the same size."""
    structure = structures()[name]
    fields = [(field, getattr(structure, field)) for field, *_ in structure._fields_][1:]
    assert layouts.HEADER.size == structure.header.size
    assert fixed.size + layouts.HEADER.size == ctypes.sizeof(structure)
    # Each byte of a field in turn: unpacking must change exactly the value that the C field stands for.
    for field, place in fields:
        raw = bytearray(fixed.size)
        zero = fixed.unpack(bytes(raw))
        start = place.offset - layouts.HEADER.size
        raw[start : start + place.size] = b"\xff" * place.size
        changed = [index for index, (a, b) in enumerate(zip(zero, fixed.unpack(bytes(raw)), strict=True)) if a != b]
        count = place.size // 8 if field in ("position", "kernel_bytes") else 1
        assert (0 if field == "pad" else count) == len(changed), field


@pytest.mark.parametrize(
    ("name", "fixed"),
    [
        ("member", capture._MEMBER),
        ("socket_state", capture._SOCKET_STATE),
        ("tls_key", capture._TLS_KEY),
        ("tls_stream", capture._TLS_STREAM),
        ("loss_key", capture._LOSS_KEY),
        ("file_key", capture._FILE_KEY),
    ],
)
def test_what_maps_hold_is_held_whole(name: str, fixed: struct.Struct) -> None:
    """The kernel writes whole keys and values: into less room they would overwrite the daemon's memory."""
    assert ctypes.sizeof(structures()[name]) == fixed.size


def test_a_sockets_state_is_read_where_it_is_written() -> None:
    """Its run, its process and its flags, which decide what is forgotten."""
    structure = structures()["socket_state"]
    for at, (offset, size) in {0: (0, 8), 2: (structure.pid.offset, 4), 3: (structure.flags.offset, 4)}.items():
        raw = bytearray(capture._SOCKET_STATE.size)
        raw[offset : offset + size] = b"\xff" * size
        assert (1 << 8 * size) - 1 == capture._SOCKET_STATE.unpack(bytes(raw))[at]


def test_header_and_peer_have_their_c_sizes() -> None:
    """The header and the datagram address are read as they are written."""
    found = structures()
    assert ctypes.sizeof(found["event_header"]) == layouts.HEADER.size
    assert ctypes.sizeof(found["peer_address"]) == layouts.PEER.size == layouts.WIRE.size
    assert (0, 8) == (found["wire"].position.offset, found["wire"].bytes.offset)


@pytest.mark.parametrize(
    ("file", "prefix", "names"),
    [
        ("events.h", "", {kind.name: kind.value for kind in layouts.EventKind}),
        ("events.h", "TIE_", {f"TIE_{tie.name}": tie.value for tie in layouts.Tie}),
        ("events.h", "ABSENCE_", {f"ABSENCE_{absence.name}": absence.value for absence in layouts.Absence}),
        ("events.h", "ROLE_", {f"ROLE_{role.name}": role.value for role in layouts.Role}),
        ("events.h", "LIBRARY_", {f"LIBRARY_{library.name}": library.value for library in layouts.Library}),
        ("tls.bpf.c", "RESULT_", {f"RESULT_{result.name}": result.value for result in sites.Result}),
    ],
)
def test_enumerations_have_the_same_numbers(file: str, prefix: str, names: dict[str, int]) -> None:
    """A number means the same on both sides, and neither side knows one that the other does not."""
    text = (BPF_FOLDER / file).read_text()
    written = {name: int(value) for name, value in re.findall(r"\b([A-Z][A-Z0-9_]+) = (\d+)", text)}
    assert names == {name: written.get(name) for name in names}
    if prefix:
        assert set(names) == {name for name in written if name.startswith(prefix)}


def test_counters_have_the_same_order() -> None:
    """The names of the counters are those of `enum counter`, in its order."""
    text = (BPF_FOLDER / "maps.h").read_text()
    body = re.search(r"enum counter \{(.*?)COUNTERS", text, re.DOTALL)
    assert body is not None
    assert list(counters.COUNTERS) == [name.lower() for name in re.findall(r"COUNT_(\w+)", body[1])]


def ring_record(kind: int, body: bytes, flags: int = 0) -> bytes:
    """Build a ring record as the kernel lays it out."""
    event = layouts.HEADER.pack(5, 6, 7, 8, 9, kind, 0, len(body)) + body
    return struct.pack("<II", len(event) | flags, 0) + event + bytes(-len(event) % 8)


def data_body(payload: bytes, peer: bytes = b"") -> bytes:
    """Build the body of a SOCKET_DATA event."""
    return layouts.DATA.pack(1, 2, 1, len(payload), len(payload), 0, 0, 0, 0, len(peer)) + peer + payload


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_a_span_gives_its_events_in_order_and_passes_over_discarded_ones(payloads: list[bytes]) -> None:
    """Whatever the payloads' lengths, a span parses to exactly them."""
    records = [ring_record(layouts.EventKind.SOCKET_DATA, data_body(payload)) for payload in payloads]
    discarded = ring_record(layouts.EventKind.SOCKET_DATA, data_body(b"never"), layouts.RING_DISCARD)
    span = memoryview(discarded.join([b"", *records, b""]))
    found = [bytes(body.payload) for _, body in layouts.events(span) if isinstance(body, layouts.DataEvent)]
    assert payloads == found


def test_a_peer_of_no_family_is_no_peer() -> None:
    """The classic tier leaves room for an address even where there is none."""
    body = data_body(b"x", layouts.PEER.pack(0, 0, bytes(16)))
    (_, event), *_ = layouts.events(memoryview(ring_record(layouts.EventKind.SOCKET_DATA, body)))
    assert isinstance(event, layouts.DataEvent)
    assert event.peer is None
    assert b"x" == bytes(event.payload)


def test_ciphertext_beside_plaintext_is_an_event_of_its_own() -> None:
    """What a TLS call sent is told with the socket's position, before the plaintext; 0 bytes are none."""
    for size in (0, 22):
        record = layouts.DATA.pack(1, 2, 3, 1, 1, 0, 1, 0, 1, layouts.WIRE.size) + layouts.WIRE.pack(900, size) + b"x"
        span = memoryview(ring_record(layouts.EventKind.TLS_DATA, record))
        told = [(header, body) for header, body in layouts.events(span) if isinstance(body, layouts.DataEvent)]
        assert (layouts.EventKind.TLS_DATA, b"x") == (told[-1][0].kind, bytes(told[-1][1].payload))
        assert (2 if size else 1) == len(told)
        for header, sent in told[:-1]:
            assert (layouts.EventKind.SOCKET_DATA, layouts.Absence.CIPHERTEXT) == (header.kind, sent.absence)
            assert (3, 900, 3, 22) == (sent.stream, sent.position, sent.socket, sent.length)
            assert (0, 0) == (sent.captured, sent.direction)


@given(st.binary(max_size=300))
def test_any_bytes_are_events_or_malformed(raw: bytes) -> None:
    """A damaged span raises the parser's own error and nothing else."""
    try:
        list(layouts.events(memoryview(raw)))
    except layouts.MalformedEventError:
        return


def test_the_sources_are_all_loaded() -> None:
    """No BPF source lies in the folder without being compiled."""
    from capd.probes.programs import BPF_SOURCES  # noqa: PLC0415 - the table under test

    assert {path.name for path in Path(BPF_FOLDER).iterdir() if path.is_file()} == set(BPF_SOURCES)
