"""Reads the kernel's own type information: ids of functions and typedefs, offsets of struct members.

What lives here: the BTF format (Documentation/bpf/btf.rst, stable since Linux 4.18). What must not: which members capd wants.
One pass over 5 MB; names are found by their offset in the string section, so that no name is built that nobody asked for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.probes.errors import BtfMissingError

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
MAGIC: Final = 0xEB9F
HEADER_BYTES: Final = 24

KIND_INT, KIND_PTR, KIND_ARRAY, KIND_STRUCT, KIND_UNION, KIND_ENUM = 1, 2, 3, 4, 5, 6
KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT, KIND_FUNC, KIND_FUNC_PROTO = 8, 9, 10, 11, 12, 13
KIND_VAR, KIND_DATASEC, KIND_DECL_TAG, KIND_TYPE_TAG, KIND_ENUM64 = 14, 15, 17, 18, 19

_TRANSPARENT: Final = {KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT, KIND_TYPE_TAG}
_MEMBER_BYTES: Final = {
    KIND_ENUM: 8,
    KIND_STRUCT: 12,
    KIND_UNION: 12,
    KIND_FUNC_PROTO: 8,
    KIND_DATASEC: 12,
    KIND_ENUM64: 12,
}
_FIXED_BYTES: Final = {KIND_INT: 4, KIND_ARRAY: 12, KIND_VAR: 4, KIND_DECL_TAG: 4}
_NAMED: Final = {KIND_STRUCT, KIND_UNION, KIND_TYPEDEF, KIND_FUNC}
_TYPE: Final = struct.Struct("<III")


@dataclass(frozen=True, slots=True)
class _Type:
    name: int
    kind: int
    members: int
    bitfields: bool
    reference: int
    position: int


class Btf:
    """The types of one BTF blob.

    Args:
        blob: the file's bytes.

    Raises:
        BtfMissingError: the bytes are not BTF.
    """

    def __init__(self, blob: bytes) -> None:
        if len(blob) < HEADER_BYTES or struct.unpack_from("<H", blob)[0] != MAGIC:
            raise BtfMissingError("the kernel's type information is not in BTF format")
        header_bytes, type_start, type_bytes, string_start, string_bytes = struct.unpack_from("<IIIII", blob, 4)
        self._blob = blob
        self._strings = blob[header_bytes + string_start : header_bytes + string_start + string_bytes]
        self._positions: list[int] = [0]
        self._by_name: dict[tuple[int, int], int] = {}
        self._scan(header_bytes + type_start, header_bytes + type_start + type_bytes)

    def _scan(self, position: int, end: int) -> None:
        blob, positions, by_name, unpack = self._blob, self._positions, self._by_name, _TYPE.unpack_from
        fixed, member, named = _FIXED_BYTES, _MEMBER_BYTES, _NAMED
        while position < end:
            name, info, _ = unpack(blob, position)
            kind = info >> 24 & 0x1F
            if name and kind in named:
                by_name.setdefault((kind, name), len(positions))
            positions.append(position)
            position += 12 + fixed.get(kind, 0) + member.get(kind, 0) * (info & 0xFFFF)

    def _name_offset(self, name: str) -> int | None:
        found = self._strings.find(b"\0" + name.encode() + b"\0")
        return None if found < 0 else found + 1

    def _find(self, kind: int, name: str) -> int | None:
        offset = self._name_offset(name)
        return None if offset is None else self._by_name.get((kind, offset))

    def _type(self, type_id: int) -> _Type:
        position = self._positions[type_id]
        name, info, reference = _TYPE.unpack_from(self._blob, position)
        return _Type(name, info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31), reference, position)

    def function(self, name: str) -> int | None:
        """Give the BTF id of a function (or kfunc), or None."""
        return self._find(KIND_FUNC, name)

    def typedef(self, name: str) -> int | None:
        """Give the BTF id of a typedef, or None."""
        return self._find(KIND_TYPEDEF, name)

    def offset(self, path: str) -> int | None:
        """Give the byte offset of a member, such as `sock.__sk_common.skc_cookie`; anonymous members are looked through.

        Returns:
            The offset in bytes, or None if the struct or a member does not exist in this kernel.
        """
        struct_name, *members = path.split(".")
        type_id = self._find(KIND_STRUCT, struct_name)
        total = 0
        for member in members:
            if type_id is None:
                return None
            found = self._member(type_id, member)
            if found is None:
                return None
            total, type_id = total + found[0], found[1]
        return total

    def _member(self, type_id: int, name: str) -> tuple[int, int] | None:
        """Give (byte offset, type id) of a member of the struct that `type_id` stands for."""
        kind = self._type(type_id)
        while kind.kind in _TRANSPARENT:
            type_id = kind.reference
            kind = self._type(type_id)
        if kind.kind not in (KIND_STRUCT, KIND_UNION):
            return None
        wanted = self._name_offset(name)
        for index in range(kind.members):
            member_name, member_type, bits = _TYPE.unpack_from(self._blob, kind.position + 12 + 12 * index)
            byte = (bits & 0xFFFFFF if kind.bitfields else bits) // 8
            if member_name and member_name == wanted:
                return byte, member_type
            if not member_name:
                nested = self._member(member_type, name)
                if nested is not None:
                    return byte + nested[0], nested[1]
        return None


def load(path: Path = VMLINUX) -> Btf:
    """Read the running kernel's types.

    Raises:
        BtfMissingError: the kernel has none.
    """
    try:
        return Btf(path.read_bytes())
    except OSError as error:
        raise BtfMissingError(f"no kernel type information at {path}: {error.strerror}") from error
