"""The table that forces traffic, as values and as bytes: what is planned, and that what is written is read."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.forcing import messages
from capd.enforcer.forcing.attributes import attribute, by_kind, nested, number, text, walk
from capd.enforcer.forcing.expressions import read_rule, write_rule
from capd.enforcer.forcing.plan import CgroupAt, Facts, plan
from capd.enforcer.forcing.table import (
    Chain,
    Compare,
    Conntrack,
    Count,
    End,
    Expression,
    Header,
    Hook,
    InSet,
    KeyType,
    LoadCgroup,
    LoadConntrack,
    LoadHeader,
    LoadMeta,
    Mask,
    Meta,
    Place,
    Redirect,
    Refusal,
    Reject,
    Set,
    Table,
    Unknown,
    Verdict,
)

FACTS = Facts(
    name="capd",
    mode="enforce",
    agents=(CgroupAt(level=1, id=77), CgroupAt(level=2, id=1 << 40)),
    users=(1001,),
    enforcer_user=999,
    enforcer_cgroup=CgroupAt(level=1, id=5),
    proxy_port=15001,
    resolver_port=15053,
)
SMALL = Table(
    name="t",
    counters=("n",),
    sets=(Set(name="s", key=KeyType.CGROUP, elements=frozenset({(7).to_bytes(8, "little")})),),
    chains=(
        Chain(
            name="c",
            hook=Hook(kind="nat", priority=-110),
            rules=((LoadCgroup(level=2), InSet(name="s"), Count(name="n"), Redirect(port=15001)),),
        ),
    ),
)
GOLDEN = (
    # begin
    "140000001000010001000000000000000000000a"
    # table t: owner, persist
    "24000000000a050402000000000000000100000006000100740000000800020000000006"
    # counter n
    "30000000120a05040300000000000000010000000600010074000000060002006e000000080003000000000104000480"
    # set s of cgroups
    "50000000090a0504040000000000000001000000060001007400000006000200730000000800030000000000080004000000002e08000500"
    "0000000808000a00000000010a000d000004010000000000"
    # its element 7
    "3c0000000c0a0504050000000000000001000000060001007400000006000200730000001800038014000180100001800c00010007000000"
    "00000000"
    # chain c: nat, output, -110
    "48000000030a05040600000000000000010000000600010074000000060003006300000014000480080001000000000308000200ffffff92"
    "0800050000000001080007006e617400"
    # rule: socket cgroupv2 level 2 @s counter name n redirect to :15001
    "f4000000060a050c07000000000000000100000006000100740000000600020063000000d00004802c0001800b000100736f636b65740000"
    "1c000280080001000000000308000200000000010800030000000002240001800b0001006c6f6f6b75700000140002800600010073000000"
    "0800020000000001240001800b0001006f626a7265660000140002800800010000000001060002006e0000002c0001800e000100696d6d65"
    "64696174650000001800028008000100000000010c000280060001003a9900002c0001800a00010072656469720000001c00028008000100"
    "0000000108000200000000010800030000000002"
    # end
    "140000001100010008000000000000000000000a"
)
KINDS: list[Expression] = [
    *(LoadMeta(key=key) for key in Meta),
    LoadCgroup(level=3),
    *(LoadConntrack(key=key) for key in Conntrack),
    LoadHeader(header=Header.TRANSPORT, offset=2, length=2),
    Mask(bits=b"\x20\0\0\0"),
    Compare(value=b"\0\x35"),
    Compare(value=b"12345678", equal=False),
    InSet(name="agents_1"),
    Count(name="tcp"),
    End(verdict=Verdict.ACCEPT),
    End(verdict=Verdict.DROP),
    End(verdict=Verdict.JUMP, chain="judged"),
    Redirect(port=15001),
    *(Reject(refusal=refusal) for refusal in Refusal),
]


def encoded(batch: list[messages.Message]) -> bytes:
    """Give the bytes of a transaction, numbered from one."""
    return b"".join(message.encode(number) for number, message in enumerate(batch, 1))


def test_bytes_are_golden() -> None:
    """A table's transaction is these bytes and no others: header, family, attributes, as nf_tables.h lays them out."""
    made = encoded(messages.replace(SMALL, flags=messages.TABLE_OWNER | messages.TABLE_PERSIST, exists=False))
    assert GOLDEN == made.hex()


@pytest.mark.parametrize("expression", KINDS, ids=repr)
def test_what_is_written_is_read(expression: Expression) -> None:
    """Every expression that a plan may have is read back as itself."""
    assert (expression,) == read_rule(b"".join(write_rule((expression,))))


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_a_plan_survives_bytes(mode: str) -> None:
    """All rules of a plan are read back as they were written, so that a comparison with the kernel's means something."""
    for chain in plan(Facts(**{**vars(FACTS), "mode": mode})).chains:
        for rule in chain.rules:
            assert rule == read_rule(b"".join(write_rule(rule)))


def test_what_no_plan_has_is_unknown() -> None:
    """A rule with another expression, or one that is cut short, is not taken for what was planned."""
    foreign = nested(1, text(1, "log"), nested(2, number(1, 1)))
    cut = nested(1, text(1, "meta"), nested(2, number(1, 1)))
    assert [True, True] == [isinstance(found, Unknown) for found in read_rule(foreign + cut)]


@given(st.binary(max_size=200))
def test_reading_raises_nothing(data: bytes) -> None:
    """Whatever bytes come, they are read as some rule, and what is walked lies within them."""
    read_rule(data)
    assert sum(len(payload) for _kind, payload in walk(data)) <= len(data)


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_come_back(pairs: list[tuple[int, bytes]]) -> None:
    """Attributes that were written are walked in order with their payload, whatever its length."""
    assert pairs == list(walk(b"".join(attribute(kind, payload) for kind, payload in pairs)))


def asks_who(chain: Chain) -> bool:
    """Say whether a chain is one of those that look for whose packets come by."""
    return chain.hook is not None and chain.hook.place is Place.OUTPUT


def test_only_capds_own_passes_first() -> None:
    """The first rule of each base chain that asks who sends wants capd's user and its cgroup both; without one none passes."""
    base = [chain for chain in plan(FACTS).chains if asks_who(chain)]
    own = (
        LoadMeta(key=Meta.USER),
        Compare(value=struct.pack("=I", 999)),
        LoadCgroup(level=1),
        Compare(value=struct.pack("=Q", 5)),
        End(verdict=Verdict.ACCEPT),
    )
    assert [own] * 3 == [chain.rules[0] for chain in base]
    without = plan(Facts(**{**vars(FACTS), "enforcer_cgroup": None}))
    accepted = [
        rule for chain in without.chains if asks_who(chain) for rule in chain.rules if End(verdict=Verdict.ACCEPT) in rule
    ]
    assert [] == accepted


def test_no_rule_looks_at_a_mark() -> None:
    """Nothing that an agent with CAP_NET_ADMIN could set on a packet selects it or frees it."""
    keys = {part.key for chain in plan(FACTS).chains for rule in chain.rules for part in rule if isinstance(part, LoadMeta)}
    assert {Meta.FAMILY, Meta.TRANSPORT, Meta.USER, Meta.OUT_INTERFACE} == keys


def test_observing_refuses_nothing() -> None:
    """In mode `observe` what would be refused is counted and goes on, and DNS is left alone."""
    observed = plan(Facts(**{**vars(FACTS), "mode": "observe"}))
    parts = [part for chain in observed.chains for rule in chain.rules for part in rule]
    assert [] == [part for part in parts if isinstance(part, Reject) or part == End(verdict=Verdict.DROP)]
    assert [Redirect(port=15001)] == [part for part in parts if isinstance(part, Redirect)]
    assert set(observed.counters) == {part.name for part in parts if isinstance(part, Count)}


def test_metadata_may_be_judged() -> None:
    """With `metadata = "judge"` no address is refused before the proxy sees it."""
    judged = plan(Facts(**{**vars(FACTS), "metadata": "judge"}))
    assert [()] == [chain.rules for chain in judged.chains if chain.name == "forbidden"]


def test_refilling_leaves_rules_alone() -> None:
    """What changes the selected cgroups touches their sets only, so that counters go on."""
    batch = messages.refill(plan(FACTS), ["agents_1"])
    kinds = [message.kind & 0xFF for message in batch[1:-1]]
    assert [messages.DELETE_ELEMENT, messages.NEW_ELEMENT] == kinds
    assert {b"agents_1\0"} == {by_kind(message.payload)[2] for message in batch[1:-1]}
