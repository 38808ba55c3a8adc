"""How the enforcer shows itself to agents, and whom it trusts among servers: contexts of OpenSSL, made once, bounded.

What lives here: versions, tickets, application protocols, verification, leaves with their cache. What must not: connections.

Python loads certificates from files only; a leaf goes through a file in memory, so that no key is ever on a disk.
"""

from __future__ import annotations

import os
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from capd.enforcer.proxy.question import Destination
from capd.enforcer.tls.authority import LEAF_DAYS, Authority, mint
from capd.enforcer.tls.errors import TrustStoreError
from capd.enforcer.tls.target_protocols import TargetProtocols

LEAVES_MAX: Final = 512
"""Names that one process keeps a leaf for; a leaf with its context has about 20 KiB, and a new one costs a millisecond."""
LEAF_AGE_MAX: Final = timedelta(days=LEAF_DAYS / 2)
"""A leaf is made anew long before it is over: an agent may keep a connection for days."""
UPSTREAM_CONTEXTS_MAX: Final = 16
"""An agent chooses application protocols, and each list of them has the whole trust store in a context of its own."""


@dataclass(frozen=True, kw_only=True)
class ClientCertificate:
    """What the enforcer shows to servers that ask for a certificate.

    Attributes:
        certificate: PEM, with its chain.
        key: PEM.
    """

    certificate: Path
    key: Path


class LeafContext(ssl.SSLContext):
    """One that shows a leaf.

    Attributes:
        certificate: the leaf, DER: OpenSSL's own does not tell what it shows.
    """

    certificate: bytes = b""


class Leaves:
    """Contexts for the side of the agent, by name and application protocol."""

    def __init__(self, authority: Authority, clock: Callable[[], datetime]) -> None:
        """Make the key that all leaves of this process share."""
        self._authority, self._clock = authority, clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._key_pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._known: OrderedDict[tuple[str, str | None], tuple[datetime, LeafContext]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def context(self, name: str, application_protocol: str | None) -> LeafContext:
        """Give the context for a name or an address.

        Raises:
            ValueError: the name cannot stand in a certificate.
        """
        wanted, now = (name, application_protocol), self._clock()
        found = self._known.get(wanted)
        if found is not None and now - found[0] < LEAF_AGE_MAX:
            self._known.move_to_end(wanted)
            return found[1]
        context = self._make(name, application_protocol, now)
        self._known[wanted] = (now, context)
        self._known.move_to_end(wanted)
        if len(self._known) > LEAVES_MAX:
            self._known.popitem(last=False)
        return context

    def _make(self, name: str, application_protocol: str | None, now: datetime) -> LeafContext:
        leaf = mint(self._authority, name, self._key.public_key(), now)
        context = LeafContext(ssl.PROTOCOL_TLS_SERVER)
        context.certificate = leaf.public_bytes(Encoding.DER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Resuming would carry an agent's session from one decision to the next; early data could be said twice.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        if application_protocol is not None:
            context.set_alpn_protocols([application_protocol])
        descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(leaf.public_bytes(Encoding.PEM) + self._key_pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return context


class Upstreams:
    """Contexts for the side of the servers, all of which verify."""

    def __init__(self, *, ca_file: Path | None = None, certificates: Mapping[str, ClientCertificate] | None = None) -> None:
        """Take what is trusted beside the system's store, and certificates to show by the name of the server.

        Raises:
            TrustStoreError: there is nothing to trust, or a file cannot be used.
        """
        self._ca_file, self._certificates = ca_file, dict(certificates or {})
        self._known: OrderedDict[tuple[tuple[str, ...], str | None], ssl.SSLContext] = OrderedDict()
        for name in (None, *self._certificates):
            self._context((), name)

    def context(self, application_protocols: Sequence[str], name: str | None) -> ssl.SSLContext:
        """Give the context that offers these protocols, and shows what was configured for the server's name."""
        return self._context(tuple(application_protocols), name if name in self._certificates else None)

    def _context(self, application_protocols: tuple[str, ...], shown: str | None) -> ssl.SSLContext:
        wanted = (application_protocols, shown)
        found = self._known.get(wanted)
        if found is None:
            found = self._known[wanted] = self._make(application_protocols, shown)
            if len(self._known) > UPSTREAM_CONTEXTS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(wanted)
        return found

    def _make(self, application_protocols: tuple[str, ...], shown: str | None) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context()
            if self._ca_file is not None:
                context.load_verify_locations(self._ca_file)
            if shown is not None:
                context.load_cert_chain(self._certificates[shown].certificate, self._certificates[shown].key)
        except (OSError, ssl.SSLError) as error:
            raise TrustStoreError(f"{self._ca_file or 'the trust store'}: {error}") from error
        if not context.get_ca_certs() and not _store_is_there():
            raise TrustStoreError("this host trusts no certificate authority at all")
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET
        if application_protocols:
            context.set_alpn_protocols(list(application_protocols))
        return context


@dataclass(frozen=True, kw_only=True)
class TlsContexts:
    """Both sides together, as the proxy asks for them."""

    leaves: Leaves
    upstreams: Upstreams
    protocols: TargetProtocols = field(default_factory=TargetProtocols)

    def leaf(self, name: str, application_protocol: str | None) -> LeafContext:
        """Give what to show to an agent.

        Raises:
            ValueError: the name cannot stand in a certificate.
        """
        return self.leaves.context(name, application_protocol)

    def upstream(self, application_protocols: Sequence[str], name: str | None) -> ssl.SSLContext:
        """Give what to verify a target with."""
        return self.upstreams.context(application_protocols, name)

    def speaks_http2(self, name: str, destination: Destination) -> bool:
        """Say whether a target may speak HTTP/2, as far as it is known."""
        return self.protocols.speaks_http2((name, destination.address, destination.port))

    def learn(self, name: str, destination: Destination, *, http2: bool) -> None:
        """Remember what a target chose."""
        self.protocols.learn((name, destination.address, destination.port), http2=http2)


def _store_is_there() -> bool:
    """Say whether OpenSSL finds the system's store; a directory of it is looked into only when a server is verified."""
    paths = ssl.get_default_verify_paths()
    return any(path and Path(path).exists() for path in (paths.cafile, paths.capath))
