"""Expressions of rules as netlink attributes, both ways.

What lives here: the layouts of NFTA_EXPR_DATA for the expressions that a plan has (nf_tables.h). What must not: messages.
All load into register 1 and read from it, as nft itself writes such rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from capd.enforcer.forcing.attributes import attribute, by_kind, nested, number, text, walk
from capd.enforcer.forcing.table import (
    Compare,
    Conntrack,
    Count,
    End,
    Expression,
    Header,
    InSet,
    LoadCgroup,
    LoadConntrack,
    LoadHeader,
    LoadMeta,
    Mask,
    Meta,
    Redirect,
    Refusal,
    Reject,
    Rule,
    Unknown,
    Verdict,
)

_REGISTER: Final = 1
_VERDICT_REGISTER: Final = 0
_SOCKET_CGROUP: Final = 3
"""NFT_SOCKET_CGROUPV2 (Linux 5.13)."""
_EQUAL, _DIFFERENT = 0, 1
_PORT_GIVEN: Final = 2
"""NF_NAT_RANGE_PROTO_SPECIFIED."""
_OBJECT_COUNTER: Final = 1
_PROHIBITED_CODE: Final = 3
"""NFT_REJECT_ICMPX_ADMIN_PROHIBITED."""


def write_rule(rule: Rule) -> Iterator[bytes]:
    """Give the list elements that a rule's expressions are."""
    for expression in rule:
        if isinstance(expression, Redirect):
            port = nested(2, attribute(1, expression.port.to_bytes(2, "big")))
            yield _element("immediate", number(1, _REGISTER) + port)
        yield _element(*_written(expression))


def read_rule(raw: bytes) -> Rule:
    """Give the expressions of a rule as the kernel tells it; what no plan has comes as `Unknown`."""
    found: list[Expression] = []
    port = 0
    for _, element in walk(raw):
        parts = by_kind(element)
        name = parts.get(1, b"").rstrip(b"\0").decode("ascii", "replace")
        data = by_kind(parts.get(2, b""))
        if name == "immediate" and _integer(data, 1) == _REGISTER:
            port = int.from_bytes(by_kind(data.get(2, b"")).get(1, b""), "big")
            continue
        found.append(_read(name, data, port) or Unknown(name=name, data=parts.get(2, b"")))
    return tuple(found)


def _integer(data: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(data[kind], "big")


def _constant(data: dict[int, bytes], kind: int) -> bytes:
    return by_kind(data[kind])[1]


def _element(name: str, data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, data))


def _written(expression: Expression) -> tuple[str, bytes]:
    """Give the kernel's name of an expression and its attributes."""
    into, out_of = number(2, _REGISTER), number(1, _REGISTER)
    match expression:
        case LoadMeta(key=key):
            return "meta", out_of + number(2, key)
        case LoadCgroup(level=level):
            return "socket", number(1, _SOCKET_CGROUP) + into + number(3, level)
        case LoadConntrack(key=selected):
            return "ct", out_of + number(2, selected)
        case LoadHeader(header=header, offset=offset, length=length):
            return "payload", out_of + number(2, header) + number(3, offset) + number(4, length)
        case Mask(bits=bits):
            lengths = number(3, len(bits))
            masks = nested(4, attribute(1, bits)) + nested(5, attribute(1, bytes(len(bits))))
            return "bitwise", out_of + into + lengths + masks
        case Compare(value=value, equal=equal):
            return "cmp", out_of + number(2, _EQUAL if equal else _DIFFERENT) + nested(3, attribute(1, value))
        case InSet(name=name):
            return "lookup", text(1, name) + into
        case _:
            return _written_statement(expression)


def _written_statement(expression: Expression) -> tuple[str, bytes]:
    """Give those that do something instead of looking."""
    match expression:
        case Count(name=name):
            return "objref", number(1, _OBJECT_COUNTER) + text(2, name)
        case End(verdict=verdict, chain=chain):
            code = number(1, verdict & 0xFFFFFFFF) + (b"" if chain is None else text(2, chain))
            return "immediate", number(1, _VERDICT_REGISTER) + nested(2, nested(2, code))
        case Redirect():
            return "redir", number(1, _REGISTER) + number(2, _REGISTER) + number(3, _PORT_GIVEN)
        case Reject(refusal=refusal):
            code = bytes([0 if refusal is Refusal.TCP_RESET else _PROHIBITED_CODE])
            return "reject", number(1, refusal) + attribute(2, code)
        case _:
            raise TypeError(f"no plan has {expression}")


def _read(name: str, data: dict[int, bytes], port: int) -> Expression | None:
    """Give an expression of the kernel's, None for one that no plan has."""
    reader = _READERS.get(name)
    try:
        return None if reader is None else reader(data, port)
    except (KeyError, ValueError):
        return None


def _read_header(data: dict[int, bytes], _port: int) -> Expression:
    return LoadHeader(header=Header(_integer(data, 2)), offset=_integer(data, 3), length=_integer(data, 4))


def _read_socket(data: dict[int, bytes], _port: int) -> Expression | None:
    return LoadCgroup(level=_integer(data, 3)) if _integer(data, 1) == _SOCKET_CGROUP else None


def _read_mask(data: dict[int, bytes], _port: int) -> Expression | None:
    plain = not any(_constant(data, 5)) and not any(data.get(6, b""))
    return Mask(bits=_constant(data, 4)) if plain else None


def _read_compare(data: dict[int, bytes], _port: int) -> Expression | None:
    operation = _integer(data, 2)
    return Compare(value=_constant(data, 3), equal=operation == _EQUAL) if operation <= _DIFFERENT else None


def _read_verdict(data: dict[int, bytes], _port: int) -> Expression:
    code = by_kind(by_kind(data[2])[2])
    verdict = Verdict(int.from_bytes(code[1], "big", signed=True))
    return End(verdict=verdict, chain=_text(code, 2) if verdict is Verdict.JUMP else None)


def _read_redirect(data: dict[int, bytes], port: int) -> Expression | None:
    exact = (_integer(data, 1), _integer(data, 3)) == (_REGISTER, _PORT_GIVEN)
    return Redirect(port=port) if exact else None


def _read_reject(data: dict[int, bytes], _port: int) -> Expression | None:
    refusal = Refusal(_integer(data, 1))
    prohibited = data.get(2, b"\0") == bytes([_PROHIBITED_CODE])
    return Reject(refusal=refusal) if prohibited == (refusal is Refusal.PROHIBITED) else None


def _text(data: dict[int, bytes], kind: int) -> str:
    return data[kind].rstrip(b"\0").decode("ascii", "replace")


_READERS: Final[dict[str, Callable[[dict[int, bytes], int], Expression | None]]] = {
    "meta": lambda data, _port: LoadMeta(key=Meta(_integer(data, 2))),
    "socket": _read_socket,
    "ct": lambda data, _port: LoadConntrack(key=Conntrack(_integer(data, 2))),
    "payload": _read_header,
    "bitwise": _read_mask,
    "cmp": _read_compare,
    "lookup": lambda data, _port: InSet(name=_text(data, 1)) if not any(data.get(5, b"")) else None,
    "objref": lambda data, _port: Count(name=_text(data, 2)) if _integer(data, 1) == _OBJECT_COUNTER else None,
    "immediate": _read_verdict,
    "redir": _read_redirect,
    "reject": _read_reject,
}
