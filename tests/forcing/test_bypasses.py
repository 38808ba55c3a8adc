"""Ways around the proxy, each really tried by an agent that is root: redirected or refused, and no packet at the sink."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from capd.enforcer.forcing.plan import counter, plan
from capd.enforcer.forcing.ruleset import ForcingError, Ruleset
from capd.probes.barrier_pins import Barrier
from tests.forcing.yard import AGENT_USER, PATIENCE_SECONDS, PROXY_PORT, SHORT_SECONDS, TABLE, TARGET_PORT, Yard, inside

V6 = "socket.AF_INET6"
REFUSED = {"EPERM", "ECONNREFUSED", "EACCES"}

REDIRECTED = {
    'tcp("10.77.0.2", 80)': "proxy 10.77.0.2 80",
    'tcp("10.77.0.2", 5432)': "proxy 10.77.0.2 5432",
    f'tcp("fd77::2", 80, {V6})': "proxy fd77::2 80",
    f'tcp("::ffff:10.77.0.2", 80, {V6})': "proxy 10.77.0.2 80",
    'tcp("127.0.0.9", 5432)': "proxy 127.0.0.9 5432",
    f'tcp("::1", 5432, {V6})': "proxy ::1 5432",
    f'tcp("127.0.0.1", {TARGET_PORT})': f"proxy 127.0.0.1 {TARGET_PORT}",
    f'tcp("10.77.0.1", {TARGET_PORT})': f"proxy 10.77.0.1 {TARGET_PORT}",
    f'tcp("fd77::1", {TARGET_PORT}, {V6})': f"proxy fd77::1 {TARGET_PORT}",
    'tcp("10.77.0.2", 80, mark=0x2000)': "proxy 10.77.0.2 80",
    'tcp("10.77.0.2", 53)': "resolver 10.77.0.2 53",
    'udp("10.77.0.2", 53)': "resolver",
    f'udp("fd77::2", 53, {V6}, connected=True)': "resolver",
}
ECHO = 'b"\\x08\\0" + bytes(30)'
CRAFTED = 'bytes.fromhex("4500003400004000ff3b00000a4d00010a4d0002") + bytes(32)'
CRAFTED_TCP = 'raw("10.77.0.2", 6)'
REJECTED = [
    'udp("10.77.0.2", 443)',
    'udp("10.77.0.2", 443, connected=True)',
    f'udp("fd77::2", 443, {V6}, connected=True)',
    'udp("10.77.0.2", 443, mark=0x2000)',
    'udp("10.77.0.2", 853)',
    'udp("127.0.0.9", 5353)',
    f'raw("10.77.0.2", 1, {ECHO})',
    f'raw("10.77.0.2", 1, {ECHO}, kind=socket.SOCK_DGRAM)',
    f'raw("fd77::2", 58, b"\\x80\\0" + bytes(30), family={V6})',
    'raw("10.77.0.2", 132)',
    CRAFTED_TCP,
    f'raw("10.77.0.2", 255, {CRAFTED})',
]
METADATA = [
    'tcp("169.254.169.254", 80)',
    f'tcp("::ffff:169.254.169.254", 80, {V6})',
    'tcp("100.100.100.200", 80)',
    f'tcp("fd00:ec2::254", 80, {V6})',
    'udp("169.254.169.254", 53)',
]
DIRECT = [f'tcp("127.0.0.1", {PROXY_PORT})', f'tcp("::1", {PROXY_PORT}, {V6})']
ANSWERED = "proxy nothing 0"
"""What the listener says to a connection that was not redirected: it knows no destination, and goes no further."""


def outcomes(ground: Yard, attempts: list[str], patience: float = PATIENCE_SECONDS) -> dict[str, str]:
    """Try, and give what came of each; the sink must not have seen anything."""
    ground.seen()
    found = dict(zip(attempts, ground.attempt_all(attempts, patience=patience), strict=True))
    assert [] == ground.seen()
    return found


def test_without_rules_everything_arrives(ground: Yard) -> None:
    """The attempts are real: with no layer in place the sink sees a packet of each kind."""
    for attempt in [*list(REDIRECTED)[:3], *REJECTED[:3], REJECTED[6], REJECTED[8], *REJECTED[9:], *METADATA]:
        ground.seen()
        ground.attempt(attempt, patience=SHORT_SECONDS)
        assert ground.seen(), attempt


def test_both_layers_redirect_or_refuse(ground: Yard, rules: Ruleset, barrier: Barrier) -> None:
    """TCP and DNS of every kind and to every place reach capd's listeners, all else is refused at once."""
    assert REDIRECTED == outcomes(ground, list(REDIRECTED))
    assert {*REJECTED, *METADATA, *DIRECT} == {
        attempt for attempt, result in outcomes(ground, [*REJECTED, *METADATA, *DIRECT]).items() if result in REFUSED
    }
    counted = rules.counters(TABLE)
    assert (2, 3) == (counted["refused_tcp"], counted["refused_metadata"])
    assert 5 == barrier.counts()["socket"]


def test_the_table_alone_holds_on_this_host(ground: Yard, rules: Ruleset) -> None:
    """Without the programs the result is the same, and each refusal is counted by its kind."""
    assert REDIRECTED == outcomes(ground, list(REDIRECTED))
    found = outcomes(ground, [*REJECTED, *METADATA, *DIRECT])
    # Raw TCP is redirected as any other: it gets as far as the proxy's port, and is no connection there.
    assert {"sent"} == set(found.values()) - REFUSED
    assert "sent" == found[CRAFTED_TCP]
    counted = {"metadata": 5, "tcp": 2, "udp": 6, "icmp": 2, "other": 2}
    assert {counter(kind): count for kind, count in counted.items()} == rules.counters(TABLE)


def test_the_programs_alone_let_nothing_out(ground: Yard, barrier: Barrier) -> None:
    """Without the table nothing arrives anywhere but at capd's own listener, which then knows no destination."""
    found = outcomes(ground, [*list(REDIRECTED)[:10], *REJECTED, *METADATA[:2], METADATA[4]], SHORT_SECONDS)
    assert set() == set(found.values()) - REFUSED - {"timeout"}
    assert {ANSWERED} == set(outcomes(ground, DIRECT).values())


def test_what_comes_from_elsewhere_is_not_heard(ground: Yard, barrier: Barrier) -> None:
    """A datagram that another host sends to an agent does not arrive, one from this host does."""
    hear = "server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nserver.bind(('', 15998))\nserver.settimeout(20)\n"
    receiver = ground.begin(f"{hear}print('ready', flush=True)\nreturn server.recv(100).decode()")
    try:
        send = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto({}, ('10.77.0.1', 15998))"
        ground.attempt(send.format("b'from elsewhere'"), "outside", namespace=ground.sink)
        ground.attempt(send.format("b'from here'"), "outside")
    finally:
        said = receiver.communicate()[0]
    assert "from here" == said.strip()
    assert 1 == barrier.counts()["ingress"]


def test_another_namespace_is_no_way_out(ground: Yard, rules: Ruleset, barrier: Barrier) -> None:
    """An agent that gets into a network namespace that has a way out, by whatever means, sends nothing there."""
    enter = f'namespace("{ground.sink}") or '
    attempts = ['tcp("10.77.0.1", 80)', 'udp("10.77.0.1", 443)', 'udp("10.77.0.1", 53)', f'raw("10.77.0.1", 1, {ECHO})']
    found = outcomes(ground, [enter + attempt for attempt in attempts], SHORT_SECONDS)
    assert set() == set(found.values()) - REFUSED - {"timeout"}


def test_a_socket_stays_selected_when_its_process_leaves(ground: Yard, rules: Ruleset, barrier: Barrier) -> None:
    """A process that takes itself out of the run's cgroup has its sockets still redirected, and no longer its new ones."""
    leave = f'join("{ground.cgroups["outside"]}")'
    kept = f'made = socket.socket()\n{leave}\nreturn tcp("10.77.0.2", 80, made=made)'
    assert "proxy 10.77.0.2 80" == ground.attempt(kept)
    assert [] == ground.seen()
    assert "ECONNREFUSED" == ground.attempt(f'{leave}\nreturn tcp("10.77.0.2", 80)')
    assert [] != ground.seen()


def test_the_user_holds_who_left(ground: Yard, rules: Ruleset) -> None:
    """Where the agents' user is selected too, a socket is redirected wherever it was made, and datagrams are refused."""
    rules.apply(plan(ground.facts(users=(AGENT_USER,))))
    for cgroup in ("outside", "run"):
        assert "proxy 10.77.0.2 80" == ground.attempt('tcp("10.77.0.2", 80)', cgroup, user=AGENT_USER)
        assert "EPERM" == ground.attempt('udp("10.77.0.2", 443)', cgroup, user=AGENT_USER)
    assert [] == ground.seen()


def test_a_users_mark_cannot_be_forged(ground: Yard, rules: Ruleset) -> None:
    """An agent that is not root may not set a mark at all, and one that is gets nothing by it."""
    assert "EPERM" == ground.attempt('tcp("10.77.0.2", 80, mark=0x2000)', user=AGENT_USER)
    assert "proxy 10.77.0.2 80" == ground.attempt('tcp("10.77.0.2", 80, mark=0x2000)')


BY_DEVICE = [
    'tcp("10.77.0.2", 80, made=device())',
    'tcp("10.77.0.2", 53, made=device())',
    f'tcp("fd77::2", 80, made=device(family={V6}))',
    'udp("10.77.0.2", 53, made=device(socket.SOCK_DGRAM))',
    f'udp("fd77::2", 53, made=device(socket.SOCK_DGRAM, {V6}))',
]
"""What is redirected keeps the device that its socket is bound to, which any user may do."""


@pytest.mark.parametrize("user", [0, AGENT_USER])
@pytest.mark.parametrize("layers", ["both", "table", "user"])
def test_a_device_is_no_way_out(ground: Yard, rules: Ruleset, request: pytest.FixtureRequest, layers: str, user: int) -> None:
    """What a socket that is bound to a device sends to capd's listener does not leave by that device."""
    if layers == "both":
        request.getfixturevalue("barrier")
    if layers == "user":
        rules.apply(plan(ground.facts(users=(user,))))
    ground.seen()
    cgroup = "outside" if layers == "user" else "run"
    for attempt in BY_DEVICE:
        found = ground.attempt(attempt, cgroup, user=user, patience=SHORT_SECONDS)
        assert found in {*REFUSED, "timeout"}, attempt
        assert [] == ground.seen(), attempt


def test_a_cgroup_made_anew_is_found_again(ground: Yard, rules: Ruleset, barrier: Barrier) -> None:
    """The kernel knows cgroups by number: a parent that was removed and made anew is selected once both layers are refilled."""
    ground.cgroups["run"].rmdir()
    ground.cgroups["agents"].rmdir()
    ground.cgroups["run"].mkdir(parents=True)
    assert [] != barrier.missing(ground.numbered("agents"))
    planned = plan(ground.facts())
    assert "set agents_2 differs" == rules.difference(planned)
    rules.refill(planned, ["agents_2"])
    barrier.hold(ground.numbered("agents"))
    assert (None, []) == (rules.difference(planned), barrier.missing(ground.numbered("agents")))
    assert REDIRECTED == outcomes(ground, list(REDIRECTED))
    assert {"EPERM"} == set(outcomes(ground, REJECTED[:2]).values())


TRACK = (
    "add table inet track; add chain inet track c { type filter hook output priority 0; }; add rule inet track c ct state new"
)


@pytest.mark.parametrize("tracked", [True, False])
def test_a_connection_from_before_is_cut(ground: Yard, tmp_path: Path, tracked: bool) -> None:
    """What an agent sends over a connection that it had before it was selected does not arrive."""
    if tracked:
        _nft(ground, TRACK)
    serve = "server = socket.create_server(('127.0.0.1', 15997))\nprint('ready', flush=True)\npeer, _ = server.accept()"
    server = ground.begin(f"{serve}\npeer.settimeout(0.6)\nreturn peer.recv(9).decode()", "outside")
    connect = "client = socket.create_connection(('127.0.0.1', 15997))\nprint('ready', flush=True)"
    wait = f"while not os.path.exists('{tmp_path}/go'): time.sleep(0.01)"
    again = "for _ in range(100):\n    time.sleep(0.05)\n    client.send(b'again')"
    agent = ground.begin(f"{connect}\n{wait}\nclient.send(b'late')\n{again}\nreturn 'sent'")
    rules = inside(ground.host, Ruleset)
    try:
        rules.apply(plan(ground.facts()))
        (tmp_path / "go").touch()
        assert agent.communicate()[0].strip() in {"ECONNRESET", "EPIPE"}
        assert "timeout" == server.communicate()[0].strip()
        # What was not tracked is new to NAT, and so redirected, to where nobody knows the connection.
        assert tracked == bool(rules.counters(TABLE)[counter("tcp")])
    finally:
        _nft(ground, "delete table inet track")
        rules.remove(TABLE)
        rules.close()


def test_no_other_process_changes_the_table(ground: Yard, rules: Ruleset) -> None:
    """`nft flush ruleset` by root passes over the table, and deleting it or adding a rule to it is refused."""
    for command in (f"delete table inet {TABLE}", f"insert rule inet {TABLE} early accept", "flush ruleset"):
        _nft(ground, command)
    assert None is rules.difference(plan(ground.facts()))
    second = inside(ground.host, Ruleset)
    with pytest.raises(ForcingError, match="Operation not permitted"):
        second.apply(plan(ground.facts()))
    second.close()
    assert "proxy 10.77.0.2 80" == ground.attempt('tcp("10.77.0.2", 80)')


def test_what_stands_outlives_capd_and_is_taken_over(ground: Yard, rules: Ruleset, barrier: Barrier) -> None:
    """With its owner gone the table forces on; if root flushes it then, nothing gets out; the next owner makes it whole."""
    rules.close()
    barrier.close()
    assert "proxy 10.77.0.2 80" == ground.attempt('tcp("10.77.0.2", 80)')
    assert "EPERM" == ground.attempt('udp("10.77.0.2", 443)')
    _nft(ground, "flush ruleset")
    found = outcomes(ground, ['tcp("10.77.0.2", 80)', 'udp("10.77.0.2", 443)', 'udp("10.77.0.2", 53)'], SHORT_SECONDS)
    assert set() == set(found.values()) - REFUSED - {"timeout"}
    for _daemon in range(2):
        following = inside(ground.host, Ruleset)
        following.apply(plan(ground.facts()))
        assert following.owned
        assert "proxy 10.77.0.2 80" == ground.attempt('tcp("10.77.0.2", 80)')
        following.close()


def test_a_runs_own_server_answers_the_proxy_and_not_the_network(ground: Yard, rules: Ruleset, barrier: Barrier) -> None:
    """A server of a run is reached on this host through the proxy; a caller from elsewhere hears nothing of it."""
    serve = "server = socket.create_server(('', 15999)); server.settimeout(20)\n"
    answer = "threading.Thread(target=lambda: server.accept()[0].sendall(b'own server'), daemon=True).start()\n"
    assert "through own server" == ground.attempt(f'{serve}{answer}return tcp("127.0.0.1", 15999, seconds=20)')
    call = 'threading.Thread(target=called, daemon=True).start()\nserver.accept()\nreturn "called"'
    called = f"""
def called():
    namespace("{ground.sink}"); tcp("10.77.0.1", 15999)
"""
    assert "timeout" == ground.attempt(f"{serve.replace('20)', '0.5)')}exec({called!r}, globals())\n{call}")


def _nft(ground: Yard, command: str) -> None:
    subprocess.run(["ip", "netns", "exec", ground.host.name, "nft", command], check=False, capture_output=True)
