"""One side of a TLS connection, without a socket: ciphertext in, plaintext out, and back.

What lives here: `ssl.MemoryBIO` behind four calls. What must not: certificates, names, I/O.

asyncio's TLS cannot close one direction and keep the other; TLS 1.3 can (RFC 8446 6.1), and OpenSSL lets it. `ended` is what
tells a clean end from a cut: who cuts a connection must not pass for a peer that was finished.
"""

from __future__ import annotations

import ssl
from typing import Final

from capd.enforcer.tls.errors import TlsFailure

READ_BYTES: Final = 16_384
"""Plaintext taken at once: a record (RFC 8446 5.1). OpenSSL gives no more whatever is asked, and Python makes room for all that
is asked, which for 256 KiB takes three times as long as reading a record of one."""


class Endpoint:
    """One side.

    Attributes:
        established: the handshake is done.
        ended: the peer said close_notify: it will send nothing more.
    """

    __slots__ = ("_closed", "_incoming", "_outgoing", "_tls", "ended", "established")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None) -> None:
        """Begin; a client's first flight can be taken at once.

        Args:
            context: has certificate or trust, versions and application protocols.
            server_side: whether the peer is the client.
            server_name: of the server, for a client: what is asked for and verified.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name)
        self.established = self.ended = self._closed = False
        if not server_side:
            self._shake_hands()

    @property
    def application_protocol(self) -> str | None:
        """Give what ALPN agreed on."""
        return self._tls.selected_alpn_protocol()

    @property
    def certificate(self) -> bytes | None:
        """Give the peer's certificate, DER; None: it showed none."""
        return self._tls.getpeercert(binary_form=True)

    @property
    def version(self) -> str | None:
        """Give the version agreed on, such as `TLSv1.3`."""
        return self._tls.version()

    def receive(self, data: bytes) -> bytes:
        """Take ciphertext and give the plaintext that became whole.

        Raises:
            TlsFailure: the connection is broken; what `take` still gives is the alert for the peer.
        """
        self._incoming.write(data)
        if not self.established:
            self._shake_hands()
            if not self.established:
                return b""
        return self._read()

    def send(self, data: bytes) -> None:
        """Encrypt; `take` gives the ciphertext.

        Raises:
            TlsFailure: the connection is broken.
        """
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            raise _failure(error) from error

    def close(self) -> None:
        """Say close_notify; the peer may go on sending."""
        if self._closed or not self.established:
            return
        self._closed = True
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            return  # it waits for the peer's own, which need not come

    @property
    def due(self) -> bool:
        """Whether there is ciphertext for the peer."""
        return self._outgoing.pending > 0

    def take(self) -> bytes:
        """Give the ciphertext for the peer; empty when there is none."""
        return self._outgoing.read()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise _failure(error) from error
        self.established = True

    def _read(self) -> bytes:
        tls, incoming = self._tls, self._incoming
        parts = []
        try:
            while incoming.pending or tls.pending():
                part = tls.read(READ_BYTES)
                if not part:
                    self.ended = True
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            raise _failure(error) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _failure(error: ssl.SSLError | ssl.CertificateError) -> TlsFailure:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailure(error.verify_message, unverified=True)
    return TlsFailure((error.reason or str(error)).replace("_", " ").lower())
