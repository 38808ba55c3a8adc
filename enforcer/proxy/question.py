"""What is asked before anything goes on, and what is answered.

What lives here: the narrow gate between the proxy and the policy. What must not: the policy, protocols.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from capd.enforcer.approvals.hold import Hold
from capd.enforcer.obligations.obligation import NOTHING, Obligations
from capd.enforcer.obligations.provision import Provision

DEFAULT_PORTS: Final = {False: 80, True: 443}
"""By whether there is TLS."""


class Kind(Enum):
    """What is to be allowed."""

    PASSTHROUGH = "tls"
    """TLS that nobody opens: everything that will be said in it."""
    OPAQUE = "tcp"
    """A protocol that capd does not decode: everything that will be said in it."""
    REQUEST = "http"
    """One request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where the agent wanted to connect to, as the kernel says: an address in text, and a port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request as it will be sent.

    Attributes:
        method: as sent.
        host: that it is for, in lower case, without a port: a name or an address.
        path: canonical (http1/target.py).
        query: without the question mark; None: there is none.
        fields: end-to-end header fields, names as sent.
        upgrade: the protocol that it wants to change to and that a rule may allow, or None.
    """

    method: str
    host: str
    path: str
    query: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    upgrade: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What was read of a request's body.

    Attributes:
        content: its begin.
        complete: whether that is all.
    """

    content: bytes
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One thing to decide.

    Attributes:
        number: counted from 1 in a connection.
        kind: what.
        destination: where it would go.
        protocol: as its first bytes say (decoders/detect.py).
        server_name: that TLS asked for, normalised; None: none, or no TLS.
        inspected: whether it runs in TLS that capd opened: then the target will have to prove `server_name`.
        request: of kind REQUEST.
        body: None unless a verdict wanted it.
        carries_out: whether whoever asks masks answers and puts credentials in, as the verdict's obligations say.
        exchange: what the recorder's decoder numbers it by, where that is not the order of requests; else None.
    """

    number: int
    kind: Kind
    destination: Destination
    protocol: str
    server_name: str | None = None
    inspected: bool = False
    request: Request | None = None
    body: Body | None = None
    carries_out: bool = False
    exchange: int | None = None

    @property
    def authority(self) -> str:
        """Host, and port where it is not the scheme's own, as the request is sent."""
        assert self.request is not None
        return authority(self.request.host, self.destination.port, tls=self.inspected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer.

    Attributes:
        number: of the question.
        allowed: whether it may go on.
        reason: for whoever reads the refusal: machine-readable, such as `denied_by_policy`.
        rule: which rule decided; "" when none did.
        policy: version of the policy.
        message: for a person.
        body_bytes: nothing is decided before so much of the body, or all of it, is known; 0: it is decided.
        upgrade: this request may become a WebSocket.
        facts: further facts for the client, such as the id of an approval.
        held: what a person has to approve first; whoever gets the verdict has that decided before anything follows from it.
        approval: what the decision log is told of an approval: `id`, `outcome`, `by`, `via`.
        obligations: what must be done to a request that goes on, and to its answer.
        provision: what that takes; without it a request with obligations must not go on.
    """

    number: int
    allowed: bool
    reason: str = ""
    rule: str = ""
    policy: str = ""
    message: str = ""
    body_bytes: int = 0
    upgrade: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    held: Hold | None = None
    approval: Mapping[str, str] = field(default_factory=dict)
    obligations: Obligations = NOTHING
    provision: Provision | None = None


def authority(host: str, port: int, *, tls: bool) -> str:
    """Give the value of a Host field (RFC 9110 7.2).

    Args:
        host: normalised name or address.
        port: that is connected to.
        tls: whether the scheme is https.
    """
    named = f"[{host}]" if ":" in host else host
    return named if port == DEFAULT_PORTS[tls] else f"{named}:{port}"
