"""The attach planner: which places of a TLS library's file to probe, and what each tells.

What lives here: knowledge of OpenSSL, GnuTLS and of x86-64 function starts; pure. What must not: attaching, the kernel.

A breakpoint on `push` is emulated by the kernel; most other first instructions are stepped out of line, which costs ten times
as much. So the planner looks for OpenSSL's internal functions, which begin with `push` and where all exported variants meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from capd.probes.elf import Elf, Symbol
from capd.probes.layouts import Library

REQUEST, RESPONSE = 0, 1
ENDBR64: Final = b"\xf3\x0f\x1e\xfa"
CALL_REL32: Final = 0xE8
PUSH: Final = frozenset(bytes([code]) for code in range(0x50, 0x58))
"""One byte each, for the eight old registers; the eight new ones have REX_B before it."""
REX_B: Final = b"\x41"
FUNCTION_BYTES_MAX: Final = 4096
"""How much of an exported wrapper is looked through for calls; OpenSSL's have some 200 bytes."""
BIO_WRITE_OLD_OFFSET: Final = 24
BIO_READ_OLD_OFFSET: Final = 40
"""In BIO_METHOD since OpenSSL 1.1: type, name, bwrite, bwrite_old, bread, bread_old (crypto/bio/bio_local.h)."""


class Result(IntEnum):
    """How a function tells the bytes it moved, as `enum result` in `bpf/tls.bpf.c`."""

    RETURNED = 0
    FOURTH = 1
    FIFTH = 2
    ELSEWHERE = 3


class Purpose(IntEnum):
    """What a place is probed for."""

    CALL = 0
    FREE = 1
    BIO_WRITE = 2
    BIO_READ = 3


@dataclass(frozen=True, slots=True)
class Site:
    """One place to probe.

    Attributes:
        function: its name; `SSL_read_ex -> internal` for a static function.
        offset: in the file.
        purpose: what for.
        library: whose.
        direction: 0 agent to peer, 1 peer to agent.
        result: how it tells the bytes it moved.
        peeks: the bytes stay where they are.
    """

    function: str
    offset: int
    purpose: Purpose
    library: Library
    direction: int = REQUEST
    result: Result = Result.RETURNED
    peeks: bool = False

    @property
    def cookie(self) -> int:
        """Give the attach cookie, as `on_tls_call` in `bpf/tls.bpf.c` reads it."""
        return self.direction | self.result << 1 | self.peeks << 3 | self.library << 8


OPENSSL_CALLS: Final = {
    "SSL_read": (RESPONSE, Result.RETURNED),
    "SSL_read_ex": (RESPONSE, Result.FOURTH),
    "SSL_write": (REQUEST, Result.RETURNED),
    "SSL_write_ex": (REQUEST, Result.FOURTH),
    "SSL_write_ex2": (REQUEST, Result.FIFTH),
}
OPENSSL_PEEKS: Final = {"SSL_peek": Result.RETURNED, "SSL_peek_ex": Result.FOURTH}
GNUTLS_CALLS: Final = {
    "gnutls_record_recv": (RESPONSE, Result.RETURNED),
    "gnutls_record_recv_seq": (RESPONSE, Result.RETURNED),
    "gnutls_record_recv_packet": (RESPONSE, Result.ELSEWHERE),
    "gnutls_record_send": (REQUEST, Result.RETURNED),
    "gnutls_record_send2": (REQUEST, Result.RETURNED),
    "gnutls_record_send_range": (REQUEST, Result.RETURNED),
}
NODE_BIOS: Final = {
    "_ZN4node6crypto7NodeBIO5WriteEP6bio_stPKci": Purpose.BIO_WRITE,
    "_ZN4node6crypto7NodeBIO4ReadEP6bio_stPci": Purpose.BIO_READ,
}
"""Node.js has a memory BIO of its own, with the arguments of OpenSSL's (src/crypto/crypto_bio.h): NodeBIO::Write and ::Read."""
FREES: Final = {"SSL_free": Library.OPENSSL, "gnutls_deinit": Library.GNUTLS}
WANTED: Final = frozenset({*OPENSSL_CALLS, *OPENSSL_PEEKS, *GNUTLS_CALLS, *NODE_BIOS, *FREES, "BIO_s_mem"})


def plan(elf: Elf) -> list[Site]:
    """Give all places of a file to probe; none if it holds no TLS library that capd knows."""
    functions = elf.functions(WANTED)
    return [*_openssl(elf, functions), *_gnutls(elf, functions), *_frees(elf, functions), *_memory_bios(elf, functions)]


def _entry(elf: Elf, address: int) -> int | None:
    """Give the file offset to probe for a function: behind `endbr64`, whose breakpoint could not be emulated."""
    skip = len(ENDBR64) if elf.read(address, 4) == ENDBR64 else 0
    return elf.file_offset(address + skip)


def _openssl(elf: Elf, functions: dict[str, Symbol]) -> Iterator[Site]:
    internal = _internals(elf, functions)
    for direction, name in ((RESPONSE, "SSL_read_ex"), (REQUEST, "SSL_write_ex")):
        offset = _entry(elf, internal[direction]) if internal else None
        if offset is not None:
            # Since OpenSSL 3.3 the internal write has a flags argument, as SSL_write_ex2 has.
            fifth = direction == REQUEST and "SSL_write_ex2" in functions
            result = Result.FIFTH if fifth else Result.FOURTH
            yield Site(f"{name} -> internal", offset, Purpose.CALL, Library.OPENSSL, direction, result)
    for name, (direction, result) in OPENSSL_CALLS.items():
        offset = _entry(elf, functions[name].address) if name in functions and not internal else None
        if offset is not None:
            yield Site(name, offset, Purpose.CALL, Library.OPENSSL, direction, result)
    for name, result in OPENSSL_PEEKS.items():
        offset = _entry(elf, functions[name].address) if name in functions else None
        if offset is not None:
            yield Site(name, offset, Purpose.CALL, Library.OPENSSL, RESPONSE, result, peeks=True)


def _internals(elf: Elf, functions: dict[str, Symbol]) -> dict[int, int] | None:
    """Give the static functions behind reading and writing: what both exports of a direction call, and not the other's."""
    if not {"SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex"} <= functions.keys():
        return None
    exported = {symbol.address for symbol in functions.values()}
    read = set(_callees(elf, functions["SSL_read"])) & set(_callees(elf, functions["SSL_read_ex"])) - exported
    write = set(_callees(elf, functions["SSL_write"])) & set(_callees(elf, functions["SSL_write_ex"])) - exported
    chosen = {RESPONSE: read - write, REQUEST: write - read}
    if any(len(found) != 1 or not _begins_with_push(elf, *found) for found in chosen.values()):
        return None
    return {direction: found.pop() for direction, found in chosen.items()}


def _callees(elf: Elf, function: Symbol) -> Iterator[int]:
    text = elf.section(".text")
    if text is None:
        return
    code = elf.read(function.address, min(function.size or 256, FUNCTION_BYTES_MAX))
    for at in range(len(code) - 4):
        if code[at] == CALL_REL32:
            target = function.address + at + 5 + int.from_bytes(code[at + 1 : at + 5], "little", signed=True)
            if text.address <= target < text.address + text.size and target % 16 == 0:
                yield target


def _begins_with_push(elf: Elf, address: int) -> bool:
    code = elf.read(address, 8)
    if code.startswith(ENDBR64):
        code = code[4:]
    return code[:1] in PUSH or (code[:1] == REX_B and code[1:2] in PUSH)


def _gnutls(elf: Elf, functions: dict[str, Symbol]) -> Iterator[Site]:
    for name, (direction, result) in GNUTLS_CALLS.items():
        offset = _entry(elf, functions[name].address) if name in functions else None
        if offset is not None:
            yield Site(name, offset, Purpose.CALL, Library.GNUTLS, direction, result)


def _frees(elf: Elf, functions: dict[str, Symbol]) -> Iterator[Site]:
    for name, library in FREES.items():
        offset = _entry(elf, functions[name].address) if name in functions else None
        if offset is not None:
            yield Site(name, offset, Purpose.FREE, library)


def _memory_bios(elf: Elf, functions: dict[str, Symbol]) -> Iterator[Site]:
    """Find mem_write and mem_read through the method table that BIO_s_mem() returns: `lea table(%rip), %rax; ret`."""
    for name, purpose in NODE_BIOS.items():
        offset = _entry(elf, functions[name].address) if name in functions else None
        if offset is not None:
            yield Site("NodeBIO " + purpose.name[4:].lower(), offset, purpose, Library.OPENSSL)
    if "BIO_s_mem" not in functions:
        return
    address = functions["BIO_s_mem"].address
    code = elf.read(address, 16)
    if code.startswith(ENDBR64):
        address, code = address + 4, code[4:]
    if code[:3] != b"\x48\x8d\x05":
        return
    table = address + 7 + int.from_bytes(code[3:7], "little", signed=True)
    for purpose, place in ((Purpose.BIO_WRITE, BIO_WRITE_OLD_OFFSET), (Purpose.BIO_READ, BIO_READ_OLD_OFFSET)):
        target = elf.relative(table + place)
        offset = _entry(elf, target) if target is not None else None
        if offset is not None:
            yield Site(f"memory BIO {purpose.name[4:].lower()}", offset, purpose, Library.OPENSSL)
