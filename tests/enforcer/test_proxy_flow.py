"""Whose a connection is, and that all of it is read: real sockets on loopback."""

from __future__ import annotations

import socket

from capd.enforcer.proxy.flow import Owner, SocketOwners
from capd.enforcer.proxy.socket_options import reset
from tests.enforcer.test_proxy_shell import OWNER, REQUEST, run, scene, until


def test_urgent_bytes_stand_where_they_were_sent() -> None:
    """What an agent sends out of band is recorded in its place, so there it is read: not left out of what is judged."""

    async def story() -> None:
        async with scene() as made:
            reader, writer = await made.connect()
            with socket.socket(fileno=writer.get_extra_info("socket").dup().detach()) as agent:
                for part, flags in ((b"GET /a", 0), (b"b", socket.MSG_OOB), (b"c", socket.MSG_OOB), (b"d HTTP/1.1\r\n", 0)):
                    agent.send(part, flags)
            writer.write(b"Host: 127.0.0.1:%d\r\n\r\n" % made.target_port)
            assert (await reader.read(65536)).endswith(b"ok")
            assert made.target.startswith(b"GET /abcd HTTP/1.1\r\n")
            writer.close()

    run(story)


def test_who_left_before_it_was_known_is_not_taken_for_another() -> None:
    """A connection that was reset gives its ends free: whoever has them when the kernel is asked may be another run."""

    async def story() -> None:
        agents: list[socket.socket] = []

        def owner(peer: tuple[str, int], _wanted: tuple[str, int]) -> Owner:
            reset(agents.pop())
            owners = SocketOwners()
            while owners.find(("127.0.0.1", made.port), peer) is not None:  # the proxy's own socket has heard of it
                pass
            owners.close()
            return OWNER

        async with scene(owner=owner) as made:
            agents.append(socket.create_connection(("127.0.0.1", made.port)))
            agents[0].sendall(REQUEST % made.target_port)
            await until(lambda: made.shell.counters.turned_away)
            assert {"left before it was known whose it is": 1} == made.shell.counters.turned_away
        assert not made.target

    run(story)


def test_sockets_have_owners() -> None:
    """The kernel tells whose socket it is, by its ends; of one that does not exist, nothing."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with (
            socket.create_server((address, 0), family=family) as server,
            socket.create_connection(server.getsockname()[:2]) as client,
        ):
            owners = SocketOwners()
            found = owners.find(client.getsockname()[:2], client.getpeername()[:2])
            assert found is not None
            cookie = int.from_bytes(client.getsockopt(socket.SOL_SOCKET, 57, 8), "little")  # SO_COOKIE
            assert (cookie, True) == (found.cookie, found.cgroup > 0)
            assert owners.find(client.getsockname()[:2], (address, 1)) is None
            owners.close()


def test_one_that_only_tries_to_connect_owns_nothing() -> None:
    """Who wants the ends of a connection that another has just left is not whose that connection was."""
    with socket.socket() as bound, socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        fill = [socket.socket() for _ in range(3)]
        for one in (*fill, bound):
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        owners = SocketOwners()
        state = bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        assert (2, None) == (state, owners.find(bound.getsockname(), server.getsockname())), "SYN_SENT"
        owners.close()
        for one in fill:
            one.close()
