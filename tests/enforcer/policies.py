"""Policies and actions for tests.

What lives here: builders, and what hypothesis draws. What must not: expectations.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from capd.enforcer.policy.action import Action, Principal, Run, Target, Tls
from capd.enforcer.policy.address_range import address
from capd.enforcer.policy.condition import ConditionError, compile_condition
from capd.enforcer.policy.glob import Glob, PathGlob
from capd.enforcer.policy.host_pattern import HostPattern
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.match_reading import about
from capd.enforcer.policy.policy import Policy, read_policy
from capd.enforcer.policy.port_range import PortRange
from capd.enforcer.policy.rule import Approval, Effect, Injection, Mask, Rule, Stage
from capd.enforcer.policy.written_action import Circumstances, written_action

HOSTS = ("a.example.com", "b.example.com", "example.com", "example.com.evil", "10.0.0.7", "?")
HOST_PATTERNS = ("*", "*.example.com", "example.com", "a.example.com", "a*.example.com", "10.0.0.7")
DATABASES = ("postgresql", "mysql", "redis")
OTHERS = (*DATABASES, "tcp")
METHODS = ("GET", "POST", "DELETE")
PATHS = ("/", "/v1", "/v1/x", "/v1/x/y", "/admin")
PATH_PATTERNS = ("/**", "/v1/**", "/v1/*", "/v1", "/admin")
CONDITIONS = (
    "http.method == 'GET'",
    "http.path.startsWith('/v1')",
    "labels.team == 'data'",
    "labels['missing'] == 'x'",
    "target.port == 443 || http.query == 'x'",
    "!sql.has_where",
    "sql.effects.exists(e, e == 'delete')",
    "text.contains('secret')",
    "session.user == 'app'",
    "session.database != 'prod' && sql.has_where",
    "session.user == 'app' || redis.command == 'GET'",
    "principal.name == 'ann' && run.name != 'nightly'",
    "1 / (target.port - 443) == 1",
    "complete",
)


def policy(*texts: str) -> Policy:
    """Read a policy from files."""
    return read_policy({f"{number}.yaml": text.encode() for number, text in enumerate(texts)})


def action(
    text: str, *, principal: str | None = None, labels: dict[str, str] | None = None, where: str | None = None
) -> Action:
    """Give an action as it is written, with an address, if one is given."""
    known = Circumstances(
        principal=None if principal is None else Principal(name=principal),
        run=Run(name="nightly", labels=labels or {}),
        address=None if where is None else address(where),
    )
    return written_action(text, known)


def subset(*values: str) -> st.SearchStrategy[tuple[str, ...]]:
    """Draw none, some or all of some values, sorted."""
    return st.lists(st.sampled_from(values), unique=True, max_size=3).map(lambda found: tuple(sorted(found)))


@st.composite
def matches(draw: st.DrawFn) -> Match:
    """Draw what a rule is about; it may be one that loading would refuse, as long as it can be asked."""
    http = draw(st.booleans())
    return Match(
        principals=tuple(Glob(one) for one in draw(subset("ann", "b*", "u*", "user:*", "oidc:ann"))),
        labels=draw(st.sampled_from([(), (("team", (Glob("d*"),)),)])),
        protocols=draw(st.sampled_from([(), ("http",), ("http", "postgresql")])) if http else draw(subset(*OTHERS)),
        hosts=tuple(HostPattern(one) for one in draw(subset(*HOST_PATTERNS))),
        ports=tuple(PortRange.parse(one) for one in draw(subset("443", "5000-6000"))),
        databases=() if http else tuple(Glob(one) for one in draw(subset("shop", "p*", "Prod"))),
        users=() if http else tuple(Glob(one) for one in draw(subset("app", "r*"))),
        methods=draw(subset(*METHODS)) if http else (),
        paths=tuple(PathGlob(one) for one in draw(subset(*PATH_PATTERNS))) if http else (),
        effects=draw(subset("select", "delete", "drop")) if not http else (),
        facts=draw(st.sampled_from([(), (("target.names_agree", True),), (("target.name_bound", True),)])),
    )


@st.composite
def rules(draw: st.DrawFn, effects: tuple[Effect, ...] = tuple(Effect), stages: tuple[Stage, ...] = tuple(Stage)) -> Rule:
    """Draw a rule without a name."""
    effect = draw(st.sampled_from(effects))
    when = draw(st.sampled_from([None, None, *CONDITIONS]))
    match = about(draw(matches()), when)
    usable = when if when is None or _fits(when, match) else None
    return Rule(
        id="",
        then=effect,
        match=match,
        when=usable,
        stage=draw(st.sampled_from(stages)),
        approval=Approval() if effect is Effect.APPROVE else None,
        mask=Mask(keys=("ssn",)) if effect is Effect.MASK else None,
        injection=Injection(credential=draw(st.sampled_from("xy")), header="authorization")
        if effect is Effect.INJECT
        else None,
        accept_incomplete=draw(st.booleans()) if effect is Effect.ALLOW and usable is None and not match.content else False,
    )


def _fits(when: str, match: Match) -> bool:
    spoken = match.of_protocols
    try:
        compile_condition(when, spoken)
    except ConditionError:
        return False
    return bool(spoken)


@st.composite
def actions(draw: st.DrawFn) -> Action:
    """Draw an action, of which any part may be unknown."""
    protocol = draw(st.sampled_from(["http", "http", *OTHERS]))
    host, *aliases = draw(st.lists(st.sampled_from(HOSTS), min_size=1, max_size=2, unique=True))
    http = protocol == "http"
    return Action(
        principal=draw(
            st.sampled_from(
                [None, Principal(name="ann"), Principal(name="bob", kind="oidc"), Principal(name="user:ann", kind="oidc")]
            )
        ),
        run=Run(name=draw(st.sampled_from([None, "nightly"])), labels=draw(st.sampled_from([{}, {"team": "data"}]))),
        target=Target(
            host=host,
            aliases=tuple(aliases),
            port=draw(st.sampled_from([443, 5432])),
            address=address("10.0.0.7"),
            tls=draw(st.sampled_from(list(Tls))),
        ),
        protocol=protocol,
        operation=draw(st.sampled_from(METHODS)) if http else "SELECT",
        database=draw(st.sampled_from([None, "", "shop", "prod"])) if protocol in DATABASES else None,
        user=draw(st.sampled_from([None, "app", "root"])) if protocol in DATABASES else None,
        path=draw(st.sampled_from([None, *PATHS])) if http else None,
        query=draw(st.sampled_from([None, "", "x"])) if http else None,
        effects=None
        if http
        else draw(st.sampled_from([None, frozenset(), frozenset({"select"}), frozenset({"select", "delete"})])),
        resources=(),
        text=draw(st.sampled_from([None, "", "a secret", "\udcff"])),
        facts=draw(st.sampled_from([{}, {"target.names_agree": True}, {"sql.has_where": False}, {"target.name_bound": False}])),
        problems=draw(st.sampled_from([(), (), ("cut",)])),
    )


def named(drawn: list[Rule]) -> list[Rule]:
    """Give drawn rules names of their own."""
    return [replace(rule, id=f"r{number:02}") for number, rule in enumerate(drawn)]
