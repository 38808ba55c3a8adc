"""Agent: two TLS connections used in turns by one thread; the peer echoes.

alternating.py blocking|memory CA PORT ROUNDS
"""

from __future__ import annotations

import socket
import ssl
import sys

RECEIVE_BYTES = 1 << 16


class Memory:
    """TLS in memory BIOs over a socket of our own."""

    def __init__(self, context: ssl.SSLContext, connection: socket.socket) -> None:
        """Do the handshake."""
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._incoming.write(connection.recv(RECEIVE_BYTES))
            else:
                self._flush()
                return

    def _flush(self) -> None:
        self._connection.sendall(self._outgoing.read())

    def sendall(self, data: bytes) -> None:
        """Encrypt all, then send it."""
        self._tls.write(data)
        self._flush()

    def recv(self, size: int) -> bytes:
        """Give what can be decrypted next."""
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._incoming.write(self._connection.recv(RECEIVE_BYTES))

    def close(self) -> None:
        """Close without a farewell."""
        self._connection.close()


def main(how: str, ca: str, port: str, rounds: str) -> None:
    """Send on one, then on the other; only then read both echoes, in the other order."""
    context = ssl.create_default_context(cafile=ca)
    sockets = [socket.create_connection(("127.0.0.1", int(port))) for _ in range(2)]
    if how == "memory":
        streams: list[Memory | ssl.SSLSocket] = [Memory(context, plain) for plain in sockets]
    else:
        streams = [context.wrap_socket(plain, server_hostname="localhost") for plain in sockets]
    for turn in range(int(rounds)):
        texts = [b"%d of stream %d;" % (turn, number) * (turn + 1) for number in range(2)]
        for stream, text in zip(streams, texts, strict=True):
            stream.sendall(text)
        for stream, text in zip(reversed(streams), reversed(texts), strict=True):
            left = len(text)
            while left:
                left -= len(stream.recv(left))
    for stream in streams:
        stream.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
