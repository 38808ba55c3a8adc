"""What the process of webhooks and links is given, read while its parent may still read it: secrets, certificates, its socket.

What lives here: that, out of the configuration. What must not: the process (callbacks_role.py).
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capd.daemon import metrics_address
from capd.daemon.approvals_links import LinkParts
from capd.daemon.callback_secrets import read_secret
from capd.daemon.errors import CannotListenError, ConfigurationError
from capd.daemon.locations import CALLBACKS_RUNTIME, LINKS_SOCKET
from capd.daemon.masking.policy import rules
from capd.enforcer.callbacks.webhook import Webhook

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.approvals_section import ApprovalsSection, WebhookSection
    from capd.daemon.configuration import Configuration

STATUS: Final = "status.json"
TOLD: Final = "told.json"
LISTEN_SECONDS_MAX: Final = 5.0
"""A killed enforcer's children end at once, but not in the same moment."""
LISTEN_AGAIN_SECONDS: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """A webhook as it is sent to.

    Attributes:
        name: how it is called.
        slack: whether it takes Slack's form.
        url: where.
        secret: the key of our signatures, or Slack's signing secret; b"": none.
        approver: for whom its links speak; "": for nobody.
        seconds: for one try.
        tls: whom to trust.
    """

    name: str
    slack: bool
    url: str
    secret: bytes
    approver: str
    seconds: float
    tls: ssl.SSLContext


@dataclass(frozen=True, kw_only=True)
class CallbackParts:
    """All of it.

    Attributes:
        receivers: who is told.
        listening: where links come in; None: nowhere.
        tls: of the listener; None: in clear.
        base_url: its public address; "" without a listener.
        links: what the desk is given.
        host: name of this host.
        directory: its own.
        status: file for its counters.
        runs: directory of the files of live runs.
    """

    receivers: tuple[Receiver, ...]
    listening: socket.socket | None
    tls: ssl.SSLContext | None
    base_url: str
    links: LinkParts
    host: str
    directory: Path
    status: Path
    runs: Path

    @property
    def slack_secrets(self) -> Mapping[str, bytes]:
        """Give the signing secrets by webhook."""
        return {one.name: one.secret for one in self.receivers if one.slack and one.secret}


def callback_parts(configuration: Configuration) -> CallbackParts | None:
    """Give what the process needs; None: nobody is to be told anything, and nobody may answer.

    Raises:
        CapdError: a secret or a certificate cannot be used, or the address is taken.
    """
    section = configuration.approvals
    if not section.webhooks:
        return None
    runtime = configuration.enforcer_runtime_dir
    webhooks = tuple(map(_webhook, section.webhooks))
    return CallbackParts(
        receivers=tuple(map(_receiver, section.webhooks)),
        tls=_own_tls(section),
        listening=None if section.listen is None else _listen(section.listen),
        base_url=section.base_url or "",
        links=LinkParts(socket=runtime / LINKS_SOCKET, webhooks=webhooks, masking=rules(configuration.masking)),
        host=socket.gethostname(),
        directory=configuration.callbacks_dir,
        status=runtime / CALLBACKS_RUNTIME / STATUS,
        runs=configuration.runs_dir,
    )


def _listen(text: str) -> socket.socket:
    """Listen, once the process of an earlier enforcer, which was killed, has let go.

    Raises:
        CannotListenError: it, or somebody else, does not.
    """
    address, deadline = metrics_address.parse(text), time.monotonic() + LISTEN_SECONDS_MAX
    while True:
        try:
            return metrics_address.listen(address, "links")
        except CannotListenError:
            if time.monotonic() > deadline:
                raise
        time.sleep(LISTEN_AGAIN_SECONDS)


def _webhook(section: WebhookSection) -> Webhook:
    return Webhook(
        name=section.name,
        approver=section.approver,
        users=section.slack_users,
        rules=section.rules,
        groups=section.groups,
    )


def _receiver(section: WebhookSection) -> Receiver:
    key = f"approvals.webhooks.{section.name}"
    return Receiver(
        name=section.name,
        slack=section.format == "slack",
        url=section.url or _url(section, key),
        secret=b"" if section.secret_file is None else read_secret(section.secret_file, f"{key}.secret_file"),
        approver=section.approver or "",
        seconds=section.timeout_seconds,
        tls=_trust(section, key),
    )


def _url(section: WebhookSection, key: str) -> str:
    from capd.daemon.approvals_section import check_url  # noqa: PLC0415 - its library is to stay out of a role

    assert section.url_file is not None
    try:
        return check_url(read_secret(section.url_file, f"{key}.url_file").decode("ascii"))
    except ValueError as error:
        # Not what is in it: the address is a secret.
        reason = "not ASCII" if isinstance(error, UnicodeError) else str(error)
        raise ConfigurationError(f"{key}.url_file: {section.url_file}: {reason}") from None


def _trust(section: WebhookSection, key: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if section.ca_file is not None:
        try:
            context.load_verify_locations(cafile=section.ca_file)
        except OSError as error:
            raise ConfigurationError(f"{key}.ca_file: {section.ca_file}: {error.strerror or error}") from error
    return context


def _own_tls(section: ApprovalsSection) -> ssl.SSLContext | None:
    if section.certificate is None or section.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(section.certificate, section.key)
    except OSError as error:
        raise ConfigurationError(f"approvals.certificate: {section.certificate}: {error.strerror or error}") from error
    return context
