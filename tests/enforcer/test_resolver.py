"""What DNS queries come to: only names that a rule could allow are looked up, only addresses come back, nothing raises."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.resolver import bindings, core, telling
from capd.enforcer.resolver.binding import Address, Binding
from capd.enforcer.resolver.bindings import Bindings
from capd.enforcer.resolver.core import Answer, Lookup, Resolved
from capd.enforcer.resolver.telling import Teller, Told
from capd.enforcer.resolver.upstream import Server, servers

ALLOWED = {"api.example.com", "xn--bcher-kva.example"}


def asked(name: str, kind: str = "A", payload: int | None = None) -> Answer | Lookup | None:
    """Ask for a name, with room for an answer of so many bytes."""
    query = dns.message.make_query(name, kind, use_edns=None if payload is None else 0, payload=payload)
    return core.receive(query.to_wire(), ALLOWED.__contains__, 4711)


def lookup(name: str = "api.example.com", kind: str = "A", payload: int | None = None) -> Lookup:
    """Ask for a name that is looked up."""
    found = asked(name, kind, payload)
    assert isinstance(found, Lookup)
    return found


def answered(wire: bytes) -> tuple[str, list[str]]:
    """Give an answer's code and addresses."""
    message = dns.message.from_wire(wire)
    assert message.flags & dns.flags.QR
    return dns.rcode.to_text(message.rcode()), sorted(record.to_text() for part in message.answer for record in part)


def upstream(found: Lookup, *records: str, code: int = 0, flags: int = 0, name: str | None = None) -> Resolved | None:
    """Give what comes of an upstream's answer."""
    response = dns.message.make_response(dns.message.from_wire(found.wire))
    if name is not None:
        response.question[0].name = dns.name.from_text(name)
    response.set_rcode(dns.rcode.Rcode(code))
    response.flags |= flags
    for record in records:
        owner, seconds, kind, text = record.split(maxsplit=3)
        response.answer.append(dns.rrset.from_text(owner, int(seconds), "IN", kind, text))
    return core.complete(found, response.to_wire(), core.is_ordinary)


DENIED = [
    "secret.evil.example",
    "api.example.com.evil.example",
    "a.api.example.com",
    "com",
    ".",
    "a\\.b.example.com",
    "\\255.example.com",
]


@pytest.mark.parametrize("name", DENIED)
@pytest.mark.parametrize("kind", ["A", "AAAA", "TXT", "HTTPS", "ANY"])
def test_what_no_rule_allows_does_not_exist(name: str, kind: str) -> None:
    """A name that no rule could allow, and one that no host has, is NXDOMAIN without a lookup, whatever is asked of it."""
    found = asked(name, kind)
    assert isinstance(found, Answer)
    assert ("denied", ("NXDOMAIN", [])) == (found.reason, answered(found.wire))


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB", "TXT", "NULL", "MX", "SRV", "NS", "ANY", "CNAME", "DNSKEY"])
def test_only_addresses_are_looked_up(kind: str) -> None:
    """Records that carry ECH, QUIC or payload have no data even for an allowed name, and nobody is asked for them."""
    found = asked("api.example.com", kind)
    assert isinstance(found, Answer)
    assert ("no_data", ("NOERROR", [])) == (found.reason, answered(found.wire))


def test_a_name_is_what_rules_call_it() -> None:
    """Case and the last dot make no difference, and the question that is sent on has the id that was given."""
    found = lookup("API.Example.COM.")
    assert ("api.example.com", 4711) == (found.name, dns.message.from_wire(found.wire).id)


def test_aliases_are_followed_and_left_out() -> None:
    """The addresses at the end of a chain are given as the name's own, with the shortest time to live."""
    found = upstream(
        lookup(),
        "api.example.com. 300 CNAME edge.cdn.example.",
        "edge.cdn.example. 20 CNAME node.cdn.example.",
        "node.cdn.example. 90 A 192.0.2.7",
        "other.example. 90 A 192.0.2.8",
    )
    assert found is not None
    assert (("NOERROR", ["192.0.2.7"]), 20) == (answered(found.wire), found.seconds)
    assert (ip_address("192.0.2.7"),) == found.addresses
    assert 1 == len(dns.message.from_wire(found.wire).answer)


STRANGE = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"]


def test_addresses_that_a_name_must_not_give_are_left_out() -> None:
    """A name that points to loopback, to the link or to cloud metadata gives and binds its other addresses."""
    found = upstream(lookup(), *(f"api.example.com. 5 A {address}" for address in (*STRANGE, "192.0.2.1", "10.0.0.1")))
    assert found is not None
    assert ("NOERROR", ["10.0.0.1", "192.0.2.1"]) == answered(found.wire)
    six = upstream(lookup(kind="AAAA"), "api.example.com. 5 AAAA ::1", "api.example.com. 5 AAAA ::ffff:169.254.169.254")
    assert six is not None
    assert (("NOERROR", []), ()) == (answered(six.wire), six.addresses)


def test_what_is_no_answer_is_passed_over() -> None:
    """An answer to another question, with another id, or that is a question is none, so that nobody can slip one in."""
    found = lookup()
    assert None is upstream(found, name="other.example.com")
    wrong = dns.message.make_response(dns.message.from_wire(found.wire))
    wrong.id = 1
    assert None is core.complete(found, wrong.to_wire(), core.is_ordinary)
    assert None is core.complete(found, found.wire, core.is_ordinary)
    assert None is core.complete(found, b"", core.is_ordinary)


def test_codes_are_told_apart() -> None:
    """No such name is told as that, a server that cannot say is not believed, and a cut answer is to be asked for again."""
    for code, expected, failed in ((3, "NXDOMAIN", False), (2, "SERVFAIL", True), (5, "SERVFAIL", True)):
        found = upstream(lookup(), code=code)
        assert found is not None
        assert (expected, failed) == (answered(found.wire)[0], found.failed)
    cut = upstream(lookup(), flags=dns.flags.TC)
    assert cut is not None
    assert cut.truncated


def test_an_answer_fits_where_it_goes() -> None:
    """What does not fit into the datagram that the query allows is cut and says so; with EDNS more fits, and over TCP all."""
    records = [f"api.example.com. 5 A 192.0.2.{number}" for number in range(64)]
    for found, cut in ((lookup(), True), (lookup(payload=4096), False)):
        done = upstream(found, *records)
        assert done is not None
        message = dns.message.from_wire(done.wire)
        assert cut == bool(message.flags & dns.flags.TC)
        assert len(done.wire) <= core.EDNS_BYTES_MAX
        assert 64 == len(done.addresses)


def test_malformed_queries_are_told_or_ignored() -> None:
    """What is no query is answered with its id and FORMERR; an answer, or what has no header, is not answered."""
    two = dns.message.make_query("api.example.com", "A")
    two.question.append(two.question[0])
    for wire in (two.to_wire(), b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\xff", b"\x12\x34\x28" + bytes(9)):
        found = core.receive(wire, ALLOWED.__contains__, 1)
        assert isinstance(found, Answer)
        assert (wire[:2], "malformed", 1) == (found.wire[:2], found.reason, found.wire[3] & 0xF)
    assert None is core.receive(bytes(11), ALLOWED.__contains__, 1)
    assert None is core.receive(b"\0\0\x80" + bytes(9), ALLOWED.__contains__, 1)
    chaos = dns.message.make_query("api.example.com", "A", "CH").to_wire()
    refused = core.receive(chaos, ALLOWED.__contains__, 1)
    assert isinstance(refused, Answer)
    assert ("refused", "REFUSED") == (refused.reason, answered(refused.wire)[0])


def mutations(wire: bytes) -> st.SearchStrategy[bytes]:
    """Give a message with up to three bytes put elsewhere."""
    places = st.tuples(st.integers(0, len(wire) - 1), st.binary(max_size=3))
    return places.map(lambda at: wire[: at[0]] + at[1] + wire[at[0] + len(at[1]) :])


QUERY = dns.message.make_query("api.example.com", "A", use_edns=0).to_wire()


@given(st.binary(max_size=300) | mutations(QUERY))
def test_no_query_raises(wire: bytes) -> None:
    """Whatever a run sends, it is answered, looked up or ignored, and an answer carries its id."""
    found = core.receive(wire, lambda _name: True, 7)
    if isinstance(found, Answer):
        assert wire[:2] == found.wire[:2]


RESPONSE = dns.message.make_response(dns.message.from_wire(lookup().wire))
RESPONSE.answer.append(dns.rrset.from_text("api.example.com.", 60, "IN", "CNAME", "b.example."))
RESPONSE.answer.append(dns.rrset.from_text("b.example.", 60, "IN", "A", "192.0.2.1"))
ANSWER = RESPONSE.to_wire()


@given(st.binary(max_size=300) | mutations(ANSWER))
def test_no_answer_raises(wire: bytes) -> None:
    """Whatever an upstream server sends, it is an answer or none, and what comes of it can be read."""
    found = core.complete(lookup(), wire, core.is_ordinary)
    if found is not None:
        answered(found.wire)


ADDRESS = ip_address("192.0.2.1")


def bound(run: str, name: str, addresses: Sequence[Address], seconds: int) -> Binding:
    """Give what a run was told."""
    return Binding(run=run, name=name, addresses=tuple(addresses), seconds=seconds)


def test_names_are_bound_to_a_run_for_a_time() -> None:
    """A run's names of an address come latest first, other runs have none, and each is forgotten when its time is over."""
    known = Bindings()
    known.bind(bound("a", "one.example", [ADDRESS], 100), 0.0)
    known.bind(bound("a", "two.example", [ADDRESS], 10), 1.0)
    assert ("two.example", "one.example") == known.names_of("a", ADDRESS, 2.0)
    assert () == known.names_of("b", ADDRESS, 2.0)
    assert ("one.example",) == known.names_of("a", ADDRESS, 1.0 + bindings.SECONDS_MIN)
    assert () == known.names_of("a", ADDRESS, 100.0)
    known.bind(bound("a", "one.example", [ADDRESS], 10**9), 0.0)
    assert () == known.names_of("a", ADDRESS, bindings.SECONDS_MAX)


def test_bindings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run and no number of runs makes the memory grow: what was bound longest ago goes."""
    for limit in ("ADDRESSES_PER_RUN_MAX", "NAMES_PER_ADDRESS_MAX", "RUNS_MAX"):
        monkeypatch.setattr(bindings, limit, 2)
    known = Bindings()
    addresses = [ip_address(f"192.0.2.{number}") for number in range(4)]
    for number, address in enumerate(addresses):
        known.bind(bound("a", f"{number}.example", [address, ADDRESS], 60), 0.0)
    assert ("3.example", "2.example") == known.names_of("a", ADDRESS, 0.0)
    assert [(), ("3.example",)] == [known.names_of("a", address, 0.0) for address in (addresses[2], addresses[3])]
    known.bind(bound("b", "x", [ADDRESS], 60), 0.0)
    known.bind(bound("c", "x", [ADDRESS], 60), 0.0)
    assert () == known.names_of("a", ADDRESS, 0.0)


def test_a_worker_is_told_before_the_run_is() -> None:
    """What was sent waits for whoever judges: for the run, the name, the address that it is about, and for its time alone."""
    now = [0.0]
    tells, hears = telling.channel()
    with tells, hears:
        teller, told = Teller([tells]), Told(hears, lambda: now[0])
        teller.tell(bound("a", "one.example", [ADDRESS, ip_address("2001:db8::1")], 100))
        asked = [("a", "one.example", ADDRESS), ("b", "one.example", ADDRESS), ("a", "two.example", ADDRESS)]
        assert [True, False, False] == [told.gave(*one) for one in asked]
        assert told.gave("a", "one.example", ip_address("2001:db8::1"))
        assert not told.gave("a", "one.example", None)
        now[0] = 100.0
        assert not told.gave("a", "one.example", ADDRESS)


def test_a_worker_without_room_is_not_waited_for() -> None:
    """A worker that takes nothing costs the resolver no time; what it was not told is counted, what it was told holds."""
    tells, hears = telling.channel()
    with tells, hears:
        teller, told = Teller([tells]), Told(hears)
        sent = 0
        while not teller.untold:
            teller.tell(bound("a", f"{sent}.example", [ADDRESS], 60))
            sent += 1
        assert told.gave("a", f"{sent - 2}.example", ADDRESS)
        assert not told.gave("a", f"{sent - 1}.example", ADDRESS)


@given(st.binary(max_size=200) | mutations(Binding(run="a", name="b.example", addresses=(ADDRESS,), seconds=60).encode()))
def test_what_tells_of_no_binding_is_refused_as_that(data: bytes) -> None:
    """Any bytes are a binding, which comes back the same, or a ValueError."""
    try:
        found = Binding.decode(data)
    except ValueError:
        return
    assert found == Binding.decode(found.encode())


def test_resolv_conf_is_read() -> None:
    """Name servers come in order and at most three; what is none is passed over; none at all means this host."""
    text = "search x\nnameserver 192.0.2.1 # first\nnameserver fe80::1%eth0\nnameserver none\nnameserver ::2\nnameserver ::3\n"
    assert ("192.0.2.1", "fe80::1%eth0", "::2") == tuple(server.host for server in servers(text))
    assert (Server(host="127.0.0.1"),) == servers("# nothing\n")
