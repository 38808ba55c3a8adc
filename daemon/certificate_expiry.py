"""Until when the certificates are good that the enforcer goes by: its authority's, its own, those it shows to targets.

What lives here: reading that off the files, as root, when the enforcer starts and reads them too. What must not: using them,
judging (health_upkeep.py). The key that signs segments is none of these: it does not expire.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509

from capd.daemon import trust
from capd.recording.durable import read_regular

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

BYTES_MAX: Final = 1 << 20
"""A chain has some KB."""
KINDS: Final = ("authority", "client", "listener")
"""What agents trust; what is shown to a target; what the listener of links shows."""


def expiries(configuration: Configuration) -> list[dict[str, object]]:
    """Give each certificate: `kind`, `name`, `until` (s since 1970). One that cannot be read is not here; its user says so."""
    return [{"kind": kind, "name": name, "until": until} for kind, name, until in _found(configuration)]


def _found(configuration: Configuration) -> Iterator[tuple[str, str, float]]:
    files = [("authority", "capd's authority", trust.authority_file(configuration))]
    shown = configuration.enforcement.client_certificates
    files += [("client", f"the certificate for {one.host}", Path(one.certificate)) for one in shown]
    if configuration.approvals.certificate is not None:
        files.append(("listener", "the certificate of links", Path(configuration.approvals.certificate)))
    for kind, name, path in files:
        with suppress(OSError, ValueError):
            # The first of a chain is its own; those above it are others' to renew.
            first = x509.load_pem_x509_certificates(read_regular(path.resolve(), BYTES_MAX))[0]
            yield kind, f"{name} ({path})", first.not_valid_after_utc.timestamp()
