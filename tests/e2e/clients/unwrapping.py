"""Agent: speaks TLS on a connection, ends it, and goes on in clear on the same connection.

unwrapping.py farewell PORT AUTHORITY ROUNDS    clear, STARTTLS, TLS, unwrap, clear, and that ROUNDS times
unwrapping.py drop PORT AUTHORITY ROUNDS        the same without a farewell: both sides free their TLS, and know when
unwrapping.py exec PORT AUTHORITY               TLS, then another program speaks on the descriptor
unwrapping.py starttls PORT AUTHORITY           clear, STARTTLS, TLS, close, as smtplib does
"""

from __future__ import annotations

import os
import socket
import ssl
import sys


def ask(connection: socket.socket, said: bytes) -> None:
    """Say a line, and wait for the same line."""
    connection.sendall(said + b"\n")
    left = len(said) + 1
    while left:
        heard = connection.recv(left)
        assert heard, "the peer ended early"
        left -= len(heard)


def main(how: str, port: str, authority: str, rounds: str = "1") -> None:
    """Speak."""
    context = ssl.create_default_context(cafile=authority)
    plain = socket.create_connection(("127.0.0.1", int(port)))
    for number in range(int(rounds)):
        ask(plain, b"clear text before %d" % number)
        ask(plain, b"STARTTLS")
        secure = context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
        for size in (1, 100, 40_000):
            ask(secure, b"%d" % (number % 10) * size)
        if how == "starttls":
            secure.close()
            return
        if how == "exec":
            os.dup2(secure.fileno(), 3)
            os.set_inheritable(3, True)
            os.execv("/bin/sh", ["sh", "-c", "printf 'from another program\\nEND\\n' >&3"])  # noqa: S606  # replacing itself is the point
        if how == "drop":
            ask(secure, b"DROP")
            plain = socket.socket(fileno=secure.detach())
            del secure
        else:
            ask(secure, b"UNWRAP")
            plain = secure.unwrap()
        ask(plain, b"clear text behind %d" % number * 1_000)
    plain.sendall(b"END\n")
    plain.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
