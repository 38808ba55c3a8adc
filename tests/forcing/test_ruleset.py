"""The table in the kernel, against nft as the judge: the same rules from our bytes and from text, all or nothing, owned."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from capd.enforcer.forcing.plan import plan
from capd.enforcer.forcing.ruleset import ForcingError, Ruleset
from capd.enforcer.forcing.table import Chain, End, InSet, Verdict
from tests.forcing.yard import AGENT_USER, ENFORCER_USER, PROXY_PORT, RESOLVER_PORT, TABLE, Yard, inside
from tests.requirements import require_command

SETS = """
table inet NAME {
  counter refused_metadata { }
  counter refused_tcp { }
  counter refused_udp { }
  counter refused_icmp { }
  counter refused_other { }
  set agents_2 { type cgroupsv2; }
  set agent_users { type uid; elements = { USER } }
  set metadata4 { type ipv4_addr; elements = { 100.100.100.200, 168.63.129.16, 192.0.0.192 } }
  set metadata6 { type ipv6_addr; elements = { fd00:ec2::254, fd00:ec2::23, fd20:ce::254 } }
"""
CHAINS = """
  chain forbidden {
    ip daddr 169.254.0.0/16 meta l4proto tcp counter name "refused_metadata" reject with tcp reset
    ip daddr 169.254.0.0/16 counter name "refused_metadata" reject with icmpx admin-prohibited
    ip daddr @metadata4 meta l4proto tcp counter name "refused_metadata" reject with tcp reset
    ip daddr @metadata4 counter name "refused_metadata" reject with icmpx admin-prohibited
    ip6 daddr @metadata6 meta l4proto tcp counter name "refused_metadata" reject with tcp reset
    ip6 daddr @metadata6 counter name "refused_metadata" reject with icmpx admin-prohibited
  }
  chain redirected {
    udp dport 53 redirect to :RESOLVER
    tcp dport 53 redirect to :RESOLVER
    meta l4proto tcp redirect to :PROXY
  }
  chain judged {
    ip daddr 127.0.0.1 tcp dport PROXY ct status dnat accept
    ip6 daddr ::1 tcp dport PROXY ct status dnat accept
    ip daddr 127.0.0.1 tcp dport RESOLVER ct status dnat accept
    ip6 daddr ::1 tcp dport RESOLVER ct status dnat accept
    ip daddr 127.0.0.1 udp dport RESOLVER ct status dnat accept
    ip6 daddr ::1 udp dport RESOLVER ct status dnat accept
    oif lo meta l4proto tcp ct direction reply accept
    meta l4proto tcp counter name "refused_tcp" reject with tcp reset
    meta l4proto udp counter name "refused_udp" reject with icmpx admin-prohibited
    meta l4proto icmp counter name "refused_icmp" reject with icmpx admin-prohibited
    meta l4proto icmpv6 counter name "refused_icmp" reject with icmpx admin-prohibited
    counter name "refused_other" reject with icmpx admin-prohibited
  }
  chain astray {
    tcp dport PROXY ct status dnat counter name "refused_tcp" drop
    tcp dport RESOLVER ct status dnat counter name "refused_tcp" drop
    udp dport RESOLVER ct status dnat counter name "refused_udp" drop
  }
"""
LEAVE = """
  chain leave {
    type filter hook postrouting priority 10; policy accept;
    oif lo accept
    ip daddr 127.0.0.1 jump astray
    ip6 daddr ::1 jump astray
  }
"""
BASE = """
  chain CHAIN {
    type KIND hook output priority PRIORITY; policy accept;
    meta skuid OWN socket cgroupv2 level 2 "ENFORCER" accept
    socket cgroupv2 level 2 @agents_2 jump TARGET
    meta skuid @agent_users jump TARGET
  }
"""
BASES = (("early", "filter", "-150", "forbidden"), ("steer", "nat", "-110", "redirected"), ("guard", "filter", "10", "judged"))


def as_text(ground: Yard) -> str:
    """Write the table as an operator would."""
    text = SETS + CHAINS
    for name, kind, priority, target in BASES:
        chain = BASE.replace("CHAIN", name).replace("KIND", kind).replace("PRIORITY", priority).replace("TARGET", target)
        text += chain
    text += LEAVE
    words = {
        "NAME": "oracle",
        "USER": str(AGENT_USER),
        "OWN": str(ENFORCER_USER),
        "PROXY": str(PROXY_PORT),
        "RESOLVER": str(RESOLVER_PORT),
        "ENFORCER": str(ground.cgroups["enforcer"].relative_to(ground.root)),
    }
    for word, value in words.items():
        text = text.replace(word, value)
    return text + "}\n"


def nft(ground: Yard, *arguments: str, given: str | None = None) -> str:
    """Run nft on the host, where it finds the cgroup2 hierarchy."""
    script = f'mount --bind {ground.root} /sys/fs/cgroup && exec nft "$@"'
    command = ["nsenter", f"--net={ground.host}", "unshare", "-m", "sh", "-c", script, "nft", *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nft_writes_the_same_rules(ground: Yard, rules: Ruleset) -> None:
    """What nft makes of the text that an operator would write is, expression by expression, what our bytes make."""
    require_command("nft")
    planned = plan(ground.facts(users=(AGENT_USER,)))
    text = as_text(ground)
    nft(ground, "-f", "-", given=text)
    try:
        written = replace(planned, name="oracle")
        without = tuple(replace(each, elements=frozenset()) if each.name == "agents_2" else each for each in written.sets)
        assert None is rules.difference(replace(written, sets=without))
        rules.apply(planned)
        lines = [line for line in nft(ground, "list", "table", "inet", TABLE).splitlines() if "elements" not in line]
        expected = [line for line in nft(ground, "list", "table", "inet", "oracle").splitlines() if "elements" not in line]
        start = next(number for number, line in enumerate(lines) if "chain forbidden" in line)
        assert expected[-(len(lines) - start) :] == lines[start:]
    finally:
        nft(ground, "delete", "table", "inet", "oracle")


def test_all_or_nothing(ground: Yard, rules: Ruleset) -> None:
    """A table of which the kernel refuses one rule changes nothing: what stood before still does, and the words say why."""
    planned = plan(ground.facts())
    wrong = (InSet(name="no_such_set"), End(verdict=Verdict.ACCEPT))
    broken = replace(planned, chains=(*planned.chains, Chain(name="broken", rules=(wrong,))))
    with pytest.raises(ForcingError, match=f"cannot put the table {TABLE} into the kernel: No such file"):
        rules.apply(broken)
    assert None is rules.difference(planned)
    with pytest.raises(ForcingError, match="cannot change what the table"):
        rules.refill(replace(planned, name="capd_none"), ["agents_2"])


def test_two_instances_stand_side_by_side(ground: Yard, rules: Ruleset) -> None:
    """Each instance has a table by its own name, owned by its own process, and removes only that."""
    other = inside(ground.host, Ruleset)
    second = replace(plan(ground.facts()), name="capd_other")
    other.apply(second)
    assert (True, True) == (rules.owned, other.owned)
    assert other.remove("capd_other")
    assert not other.remove("capd_other")
    other.close()
    assert None is rules.difference(plan(ground.facts()))


def test_what_differs_is_named(ground: Yard, rules: Ruleset) -> None:
    """A table that is gone, lacks a rule or selects another cgroup is told from one that is as planned."""
    planned = plan(ground.facts())
    fewer = replace(planned, chains=(*planned.chains[:-1], replace(planned.chains[-1], rules=planned.chains[-1].rules[1:])))
    assert "chain leave differs" == rules.difference(fewer)
    assert "set agent_users differs" == rules.difference(plan(ground.facts(users=(1,))))
    assert "it is gone" == rules.difference(replace(planned, name="capd_none"))
    assert "its counters differ" == rules.difference(replace(planned, counters=("tcp",)))
