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
from capd.enforcer.obligations.sign_in import SignIn

DEFAULT_PORTS: Final = {False: 80, True: 443}
"""By whether there is TLS."""
_NEW: Final = object.__new__


class Kind(Enum):
    """What is to be allowed.

    Attributes:
        word: for it; `value` is slow to ask for.
    """

    word: str

    PASSTHROUGH = "tls"
    """TLS that nobody opens: everything that will be said in it."""
    OPAQUE = "tcp"
    """A protocol that capd does not decode: everything that will be said in it."""
    REQUEST = "http"
    """One request."""
    SESSION = "session"
    """A connection to a database, as one of its users: what is said in it is judged message by message."""
    STATEMENT = "statement"
    """One message to a database."""

    def __init__(self, word: str) -> None:
        self.word = word


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where the agent wanted to connect to, as the kernel says: an address in text, and a port."""

    address: str
    port: int


@dataclass(slots=True, kw_only=True)
class Request:
    """An HTTP request as it will be sent. Nobody changes it; a frozen class takes three times as long to build.

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
class Login:
    """As whom, and where in a database's server, a session is.

    Attributes:
        user: as the client names it; None: it did not say yet.
        database: likewise; of Redis its number.
    """

    user: str | None
    database: str | None


NOBODY: Final = Login(user=None, database=None)


class Kin:
    """What the questions about one statement that is said again and again in a session have in common.

    That is everything but number, content and text. Whoever answers such questions, or writes the answers down, keeps here what
    follows from that; whoever asks makes another one when anything else differs.

    Attributes:
        judged: remembered.py's.
        told: of an entry of the log what it was made of, and its form (decision_form.py).
        said: text and its hash.
    """

    __slots__ = ("judged", "said", "told")

    def __init__(self) -> None:
        self.judged: object = None
        self.told: object = None
        self.said: tuple[str, bytes | None] | None = None


@dataclass(slots=True, kw_only=True)
class Statement:
    """A message to a database, as it will be sent, and what it does. Nobody changes it, as above.

    Attributes:
        operation: first words of its statements, each once, with COMMANDS between (policy/action.py).
        content: every byte that decides what it does, values among them: an approval is bound to it.
        text: what rules look at; None: it is no text.
        effects: as policy/protocol.EFFECTS says; None: not known.
        resources: names, and `read` or `write`; None: not known.
        facts: by name in policy/protocol.FACTS.
        problems: why that is not all; none: it is.
        shape: the text without its literals; "": it has none.
        shown: further facts for a person, as JSON has them: whether a transaction is open, an estimate.
        estimable: whoever asks can find out how much it is about before a person is asked, and has not yet.
        prepares: nothing is run of it before it is asked about again, with its values: a person is asked then.
        approved: version of the policy under which a person approved this very content, of which it is the rest; "": nobody.
    """

    operation: str
    content: bytes = field(repr=False)
    text: str | None
    effects: frozenset[str] | None = None
    resources: tuple[tuple[str, str], ...] | None = None
    facts: Mapping[str, bool | None] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    shape: str = ""
    shown: Mapping[str, object] = field(default_factory=dict)
    estimable: bool = False
    prepares: bool = False
    approved: str = ""

    def again(self, content: bytes, text: str | None) -> Statement:
        """Give the same with other values. By hand: thrice as fast as from keywords, for each statement."""
        made = _NEW(Statement)
        made.operation, made.content, made.text = self.operation, content, text
        made.effects, made.resources, made.facts = self.effects, self.resources, self.facts
        made.problems, made.shape, made.shown = self.problems, self.shape, self.shown
        made.estimable, made.prepares, made.approved = self.estimable, self.prepares, self.approved
        return made


@dataclass(slots=True, kw_only=True)
class Question:
    """One thing to decide. Nobody changes it, as above.

    Attributes:
        number: counted from 1 in a connection.
        kind: what.
        destination: where it would go.
        protocol: as its first bytes say (decoders/detect.py).
        server_name: that TLS asked for, normalised; None: none, or no TLS.
        inspected: whether it runs in TLS that capd opened: then the target will have to prove `server_name`.
        request: of kind REQUEST.
        body: None unless a verdict wanted it.
        login: of kinds SESSION and STATEMENT.
        statement: of kind STATEMENT.
        carries_out: whether whoever asks masks answers and puts credentials in, as the verdict's obligations say.
        exchange: what the recorder's decoder numbers it by, where that is not the order of requests; else None.
        kin: that it has in common with others; None: nothing is known of others. Only of kind STATEMENT, without `exchange`.
    """

    number: int
    kind: Kind
    destination: Destination
    protocol: str
    server_name: str | None = None
    inspected: bool = False
    request: Request | None = None
    body: Body | None = None
    login: Login | None = None
    statement: Statement | None = None
    carries_out: bool = False
    exchange: int | None = None
    kin: Kin | None = field(default=None, compare=False, repr=False)

    def again(self, number: int, statement: Statement) -> Question:
        """Give the question about one of its kin."""
        made = _NEW(Question)
        made.number, made.kind, made.destination, made.protocol = number, self.kind, self.destination, self.protocol
        made.server_name, made.inspected = self.server_name, self.inspected
        made.request, made.body, made.login, made.statement = self.request, self.body, self.login, statement
        made.carries_out, made.exchange, made.kin = self.carries_out, self.exchange, self.kin
        return made

    @property
    def tentative(self) -> bool:
        """Whether it only asks which way to go: a denial of it denies nobody anything."""
        return self.kind is Kind.PASSTHROUGH or (
            self.kind is Kind.SESSION and self.protocol == "mysql" and self.login == NOBODY
        )

    @property
    def authority(self) -> str:
        """Host, and port where it is not the scheme's own, as the request is sent."""
        assert self.request is not None
        return authority(self.request.host, self.destination.port, tls=self.inspected)


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The answer. Nobody changes it, as above.

    Attributes:
        number: of the question.
        allowed: whether it may go on.
        reason: for whoever reads the refusal: machine-readable, such as `denied_by_policy`.
        rule: which rule decided; "" when none did.
        policy: version of the policy.
        message: for a person.
        body_bytes: nothing is decided before so much of the body, or all of it, is known; 0: it is decided. Of a statement:
            before its estimate is.
        upgrade: this request may become a WebSocket.
        facts: further facts for the client, such as the id of an approval.
        held: what a person has to approve first; whoever gets the verdict has that decided before anything follows from it.
        approval: what the decision log is told of an approval: `id`, `outcome`, `by`, `via`.
        obligations: what must be done to a request that goes on, and to its answer.
        provision: what that takes; without it a request with obligations must not go on.
        sign_in: of a session: as whom the target is signed in to; None: the client's own authentication goes across.
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
    sign_in: SignIn | None = None

    def again(self, number: int) -> Verdict:
        """Give the answer to another question for which it is the same."""
        made = _NEW(Verdict)
        made.number, made.allowed, made.reason, made.rule = number, self.allowed, self.reason, self.rule
        made.policy, made.message, made.body_bytes, made.upgrade = self.policy, self.message, self.body_bytes, self.upgrade
        made.facts, made.held, made.approval = self.facts, self.held, self.approval
        made.obligations, made.provision, made.sign_in = self.obligations, self.provision, self.sign_in
        return made


def authority(host: str, port: int, *, tls: bool) -> str:
    """Give the value of a Host field (RFC 9110 7.2).

    Args:
        host: normalised name or address.
        port: that is connected to.
        tls: whether the scheme is https.
    """
    named = f"[{host}]" if ":" in host else host
    return named if port == DEFAULT_PORTS[tls] else f"{named}:{port}"
