"""`[approvals]`: who is told beyond this host of what waits for a person, and where answers come in.

What lives here: the pydantic model of the section. What must not: reading secrets (callback_secrets.py), what follows.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from capd.daemon import metrics_address
from capd.daemon.section import AbsolutePath, Section

WEBHOOKS_MAX: Final = 16
USERS_MAX: Final = 256
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
SLACK_USER: Final = re.compile(r"[UW][A-Z0-9]{1,31}")
USER_CHARACTERS_MAX: Final = 32
"""Of a name of this host (useradd(8))."""


def check_url(value: str) -> str:
    """Let pass addresses to which nothing is said in clear over a network.

    Raises:
        ValueError: it is another; the address is not in the words.
    """
    found = urlsplit(value)
    try:
        host, _port = found.hostname or "", found.port
    except ValueError:
        raise ValueError("is no address") from None
    if found.scheme not in {"https", "http"} or not host or found.username is not None or found.fragment:
        raise ValueError("must be an address such as https://chat.example.com/hook, without user and fragment")
    if found.scheme == "http" and not _is_loopback(host):
        raise ValueError("must begin with https://: http:// is for loopback addresses alone")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be ASCII; what is not is written with %")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _base_url(value: str) -> str:
    check_url(value)
    if urlsplit(value).query or value.endswith("/"):
        raise ValueError("must have no query, and no slash at its end")
    return value


def _name(value: str) -> str:
    if NAME.fullmatch(value) is None:
        raise ValueError("must be 1 to 32 of a-z, 0-9, `_` and `-`, beginning with a letter or digit")
    return value


def _user(value: str) -> str:
    if not 0 < len(value) <= USER_CHARACTERS_MAX or value == "root":
        raise ValueError("must be the name of a user of this host, and not root, who decides on this host alone")
    return value


def _slack_users(value: dict[str, str]) -> dict[str, str]:
    for user, name in value.items():
        if SLACK_USER.fullmatch(user) is None:
            raise ValueError(f"{user!r} is no id of a user of Slack, such as U012AB3CD")
        _user(name)
    if len(value) > USERS_MAX:
        raise ValueError(f"at most {USERS_MAX} users")
    return value


def _listen(value: str) -> str:
    metrics_address.parse(value)
    return value


ListenAddress = Annotated[str, AfterValidator(_listen)]
Url = Annotated[str, AfterValidator(check_url)]


class WebhookSection(Section):
    """`[[approvals.webhooks]]`: a receiver of what waits for a person."""

    name: Annotated[str, AfterValidator(_name)] = Field(description="what status, links and records call it")
    format: Literal["generic", "slack"] = Field(default="generic", description="`generic`: signed JSON; `slack`: Block Kit")
    url: Url | None = Field(default=None, description="where it is posted to")
    url_file: AbsolutePath | None = Field(
        default=None, description="the same in a file, where the address is a secret, as Slack's is"
    )
    secret_file: AbsolutePath | None = Field(
        default=None,
        description="`generic`: the key of signatures, 16 bytes or more; `slack`: the app's signing secret, for buttons",
    )
    approver: Annotated[str, AfterValidator(_user)] | None = Field(
        default=None, description="`generic`: the user of this host for whom its links speak; none: it has no links"
    )
    slack_users: Annotated[dict[str, str], AfterValidator(_slack_users)] = Field(
        default={}, description="`slack`: by id of Slack, users of this host for whom they speak; none: there are no buttons"
    )
    rules: tuple[str, ...] = Field(default=(), description="ids of rules whose requests it is told of; none: all")
    groups: tuple[str, ...] = Field(default=(), description="groups whose decisions it is told of; none: all")
    timeout_seconds: float = Field(default=10, gt=0, le=60, description="for one try, from the name's look-up to the answer")
    ca_file: AbsolutePath | None = Field(default=None, description="certificates (PEM) beside the system's")

    @model_validator(mode="after")
    def _fits_its_format(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("needs one of url and url_file")
        slack = self.format == "slack"
        if not slack and self.secret_file is None:
            raise ValueError("needs secret_file: a receiver could not tell who sent it")
        if slack and self.slack_users and self.secret_file is None:
            raise ValueError("slack_users needs secret_file: nobody could tell whether Slack sent a press")
        if slack and self.approver is not None:
            raise ValueError("approver is for `generic`; `slack_users` says for whom users of Slack speak")
        if not slack and self.slack_users:
            raise ValueError("slack_users is for `slack`; `approver` says for whom links speak")
        return self

    @property
    def answers(self) -> bool:
        """Whether decisions can come back."""
        return self.approver is not None or bool(self.slack_users)


class ApprovalsSection(Section):
    """`[approvals]`: approvals beyond this host."""

    webhooks: tuple[WebhookSection, ...] = Field(
        default=(), max_length=WEBHOOKS_MAX, description="who is told of what waits, and of its end"
    )
    listen: ListenAddress | None = Field(
        default=None,
        description="where links and buttons come in: `unix:/path`, `127.0.0.1:PORT` or `[::1]:PORT`; none: nowhere",
    )
    base_url: Annotated[str, AfterValidator(_base_url)] | None = Field(
        default=None, description="public address of the same, as persons reach it through a reverse proxy"
    )
    certificate: AbsolutePath | None = Field(default=None, description="PEM with its chain: the listener speaks TLS")
    key: AbsolutePath | None = Field(default=None, description="PEM; its key")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [webhook.name for webhook in self.webhooks]
        if len(set(names)) != len(names):
            raise ValueError("two webhooks have the same name")
        if (self.listen is None) != (self.base_url is None):
            raise ValueError("listen and base_url go together: links need an address, and somebody who answers there")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        answering = [webhook.name for webhook in self.webhooks if webhook.answers]
        if answering and self.listen is None:
            raise ValueError(f"webhook {answering[0]} has links or buttons, which need listen and base_url")
        return self
