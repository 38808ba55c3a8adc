"""From the proxy's questions to the policy's decisions and back.

What lives here: real policies, and what comes of them. What must not: bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256

import msgpack
import pytest

from capd.enforcer.policy.action import Principal, Run
from capd.enforcer.policy.lookups import lookups
from capd.enforcer.policy.policy import Policy, read_policy
from capd.enforcer.proxy.judge import BODY_BYTES_MAX, Agent, judge, needs_proof, observed
from capd.enforcer.proxy.names import ADDRESSES_MAX, NAMES_MAX, Names
from capd.enforcer.proxy.question import Body, Destination, Kind, Question, Request, Verdict

AGENT = Agent(run=Run(name="nightly", id="r"), principal=Principal(name="alice"))
HERE = Destination(address="192.0.2.1", port=443)


def policy(text: str) -> Policy:
    """Read one."""
    return read_policy({"test.yaml": text.encode()})


API = policy(
    """
passthrough:
  - id: pinned
    hosts: [pinned.test]
rules:
  - {id: pinned, match: {protocols: [tls], hosts: [pinned.test]}, then: allow}
  - {id: api, match: {protocols: [http], hosts: [api.test]}, then: allow}
  - {id: no-delete, match: {protocols: [http], methods: [DELETE]}, then: deny, reason: nothing is deleted}
  - {id: ask, match: {protocols: [http], hosts: [api.test], methods: [PUT]}, then: approve}
  - {id: hide, match: {protocols: [http], hosts: [api.test], paths: [/hidden]}, then: mask, mask: {headers: [x-key]}}
  - {id: words, match: {protocols: [http], methods: [POST], text_regex: DROP}, then: deny}
  - {id: sockets, match: {protocols: [tcp], hosts: [api.test]}, then: allow}
"""
)


def request(
    method: str = "GET", host: str = "api.test", *, inspected: bool = True, body: Body | None = None, **more: object
) -> Question:
    """Give a question about a request."""
    fields = {"path": "/x", **more}
    return Question(
        number=1,
        kind=Kind.REQUEST,
        destination=HERE,
        protocol="http1",
        server_name=host if inspected else None,
        inspected=inspected,
        request=Request(method=method, host=host, **fields),  # type: ignore[arg-type] # as the case has it
        body=body if body is not None else Body(content=b"", complete=True),
    )


def connection(kind: Kind, host: str | None = "api.test") -> Question:
    """Give a question about a connection."""
    return Question(number=1, kind=kind, destination=HERE, protocol="x", server_name=host, inspected=kind is Kind.OPAQUE)


@pytest.mark.parametrize(
    ("question", "allowed", "reason", "rule"),
    [
        (request(), True, "", "api"),
        (request(host="evil.test"), False, "allowed_by_no_rule", ""),
        (request("DELETE"), False, "denied_by_policy", "no-delete"),
        (request("PUT"), False, "approval_needed", "ask"),
        (request(path="/hidden"), False, "cannot_be_carried_out", "api"),
        (request("POST", body=Body(content=b"DROP it", complete=True)), False, "denied_by_policy", "words"),
        (request("POST", body=Body(content=b"harmless", complete=True)), True, "", "api"),
        (request("POST", body=Body(content=b"harmless", complete=False)), False, "denied_by_policy", "words"),
        (connection(Kind.OPAQUE), True, "", "sockets"),
        (connection(Kind.OPAQUE, "evil.test"), False, "allowed_by_no_rule", ""),
        (connection(Kind.PASSTHROUGH), False, "inspected", ""),
        (connection(Kind.PASSTHROUGH, "pinned.test"), True, "", "pinned"),
        (request(host="169.254.169.254"), False, "denied_by_policy", "capd:cloud-metadata-name"),
    ],
)
def test_verdicts(question: Question, allowed: bool, reason: str, rule: str) -> None:
    """What the policy decides is carried out, and what cannot be carried out is denied, each with its own reason."""
    verdict = judge(API, AGENT, question, proven=True)
    assert (allowed, reason, rule, 0) == (verdict.allowed, verdict.reason, verdict.rule, verdict.body_bytes)


def test_without_a_policy_nothing_is_allowed() -> None:
    """No policy is no permission."""
    assert (False, "no_policy") == ((verdict := judge(None, AGENT, request(), proven=True)).allowed, verdict.reason)


def test_a_body_is_asked_for_only_where_it_decides() -> None:
    """What is allowed whatever the body says goes on unread; what rules may find in it is held first."""
    unread = replace(request("PATCH"), body=None)
    assert judge(API, AGENT, unread, proven=True).allowed
    looked_at = replace(request("POST"), body=None)
    assert (False, BODY_BYTES_MAX) == ((verdict := judge(API, AGENT, looked_at, proven=True)).allowed, verdict.body_bytes)


@pytest.mark.parametrize(
    ("content", "field", "allowed"),
    [
        (b"\x1f\x8b", ("Content-Encoding", "gzip"), False),
        (b"x", ("Content-Encoding", "Identity"), True),
        ('{"say": "DROP it"}'.encode("utf-16-be"), ("Content-Type", "application/json"), False),
        ('{"say": "DROP it"}'.encode("utf-32-le"), ("Content-Type", "application/json"), False),
        ('\ufeff{"say": "DROP it"}'.encode("utf-16"), ("Content-Type", "application/json"), False),
        (b"+AEQAUgBPAFA- it", ("Content-Type", "text/plain; charset=UTF-7"), False),
        (b"x", ("content-type", 'text/plain; a=b ;Charset="iso-8859-15"'), True),
        (b"x", ("content-type", "text/plain; charset=utf-8"), True),
        (b"x", ("content-type", "text/plain; charset*=utf-8''ebcdic-cp-us"), False),
        (b"", ("content-type", "text/plain; charset=utf-16"), True),
        (b"\0\0\0\0\4safe\0\0\0\0\4safe", ("content-type", "application/grpc+proto"), True),
        (b"\0\0\0\0\4DROP", ("content-type", "application/grpc"), False),
        (b"\1\0\0\0\4safe", ("content-type", "application/grpc"), False),
        (b"\0\0\0\0\5safe", ("content-type", "application/grpc"), False),
        (b"\0\0\0\0\4safe", ("content-type", "application/json"), False),
    ],
)
def test_a_rule_that_looks_for_words_stops_a_body_that_it_cannot_read(
    content: bytes, field: tuple[str, str], allowed: bool
) -> None:
    """What is compressed, or in a charset in which words have other bytes, is not taken for harmless."""
    question = request("POST", body=Body(content=content, complete=True), fields=(field,))
    assert allowed is judge(API, AGENT, question, proven=True).allowed


def test_what_was_not_read_to_its_end_is_allowed_by_no_word_in_it() -> None:
    """A rule that allows for a word does not count where more follows; one that asks whether more follows knows it."""
    reads = policy(
        "rules:\n"
        "  - {id: reads, match: {hosts: api.test, text_regex: ^read}, then: allow}\n"
        "  - {id: long, match: {hosts: api.test, methods: PUT, facts: {http.body_truncated: true}}, then: allow}\n"
    )
    for method, complete, allowed in (("POST", True, True), ("POST", False, False), ("PUT", False, True), ("PUT", True, True)):
        question = request(method, body=Body(content=b"read", complete=complete))
        assert allowed is judge(reads, AGENT, question, proven=True).allowed, (method, complete)


def test_a_name_that_leads_elsewhere_permits_nothing() -> None:
    """Where nobody vouches for a name, a rule must permit the address too; a rule that denies the name still does."""
    question = request(inspected=False)
    assert judge(API, AGENT, question, proven=True).allowed
    assert not judge(API, AGENT, question, proven=False).allowed
    both = policy("rules: [{id: both, match: {hosts: [api.test, 192.0.2.1]}, then: allow}]")
    assert judge(both, AGENT, question, proven=False).allowed
    named = policy("rules: [{id: all, then: allow}, {id: not, match: {hosts: [api.test]}, then: deny}]")
    assert not judge(named, AGENT, question, proven=False).allowed


@pytest.mark.parametrize(
    ("question", "needed"),
    [
        (request(inspected=False), True),
        (request(inspected=False, host="c2VjcmV0.evil.test"), False),
        (request("DELETE", inspected=False), False),
        (request("PUT", inspected=False), True),
        (connection(Kind.PASSTHROUGH, "pinned.test"), True),
        (connection(Kind.PASSTHROUGH, "c2VjcmV0.evil.test"), False),
        (connection(Kind.PASSTHROUGH), False),
    ],
)
def test_a_name_is_asked_for_only_where_it_decides(question: Question, needed: bool) -> None:
    """The resolver is not asked for a name of the agent's that nothing would be allowed for: that would send it out."""
    assert needed is needs_proof(API, AGENT, question)
    assert not needs_proof(None, AGENT, question)


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("{protocols: [http, websocket], hosts: [api.test]}", True),
        ("{hosts: [api.test]}", True),
        ("{protocols: [http], hosts: [api.test]}", False),
        ("{protocols: [http, tcp], hosts: [api.test]}", False),
        ("{methods: GET, hosts: [api.test]}", False),
    ],
)
def test_upgrades_need_a_rule_for_websocket(match: str, expected: bool) -> None:
    """A request that may become a WebSocket needs both: the request, and the connection that it becomes."""
    verdict = judge(
        policy(f"rules: [{{id: api, match: {match}, then: allow}}]"), AGENT, request(upgrade="websocket"), proven=True
    )
    assert (True, expected) == (verdict.allowed, verdict.upgrade)


@pytest.mark.parametrize(
    ("rules", "name", "expected"),
    [
        ("[{id: a, match: {hosts: [api.test]}, then: allow}]", "api.test", True),
        ("[{id: a, match: {hosts: [api.test]}, then: allow}]", "secret.evil.test", False),
        ("[{id: a, match: {hosts: ['*.wild.test']}, then: approve}]", "x.wild.test", True),
        ("[{id: a, match: {ports: [25]}, then: allow}]", "any.test", True),
        ("[{id: a, match: {hosts: [api.test]}, then: deny}]", "api.test", False),
        ("[{id: a, match: {hosts: [api.test]}, then: allow, stage: observe}]", "api.test", False),
        ("[{id: a, match: {hosts: [api.test], principals: [alice]}, then: allow}]", "api.test", True),
        ("[{id: a, match: {hosts: [api.test], principals: [bob]}, then: allow}]", "api.test", False),
        ("[{id: a, match: {hosts: [api.test], runs: [nightly]}, then: approve}]", "api.test", True),
        ("[{id: a, match: {hosts: [api.test], labels: {team: shop}}, then: allow}]", "api.test", False),
        ("[]\nscopes: [{id: s, match: {runs: [nightly]}, mode: observe}]", "any.test", True),
        ("[]\nscopes: [{id: s, match: {runs: [daily]}, mode: observe}]", "any.test", False),
        ("[]\nscopes: [{id: s, match: {hosts: [api.test], ports: [80]}, mode: observe}]", "api.test", True),
        ("[]\nscopes: [{id: s, match: {hosts: [api.test]}, mode: observe}]", "any.test", False),
        ("[]\nscopes: [{id: s, mode: observe}, {id: e, match: {hosts: [api.test]}, mode: enforce}]", "api.test", False),
        (
            "[]\nscopes: [{id: s, mode: observe}, {id: e, match: {hosts: [api.test], ports: [80]}, mode: enforce}]",
            "api.test",
            True,
        ),
    ],
)
def test_names_that_no_rule_could_allow(rules: str, name: str, expected: bool) -> None:
    """A name is resolved only if a rule in force could permit something there to this run, or it may be observed only."""
    assert expected is lookups(policy(f"rules: {rules}"), AGENT.principal, AGENT.run)(name)
    assert not lookups(None, AGENT.principal, AGENT.run)(name)


def test_what_is_not_known_of_a_run_opens_no_name_but_where_a_person_is_asked() -> None:
    """As with messages: without a principal a rule for one allows nothing, and one that wants an approval holds all."""
    for effect, expected in (("allow", False), ("approve", True)):
        rules = f"rules: [{{id: a, match: {{hosts: [api.test], principals: [bob]}}, then: {effect}}}]"
        assert expected is lookups(policy(rules), None, AGENT.run)("api.test")


def test_observing_lets_through_and_says_so() -> None:
    """What would be denied goes on, and the reason says what it would have been."""
    assert Verdict(number=1, allowed=True, upgrade=True, reason="would_be_x") == observed(
        Verdict(number=1, allowed=False, reason="x")
    )


@pytest.mark.parametrize(
    ("rule", "proven", "allowed"),
    [
        ("match: {protocols: [http, tcp], facts: {target.name_bound: true}}, then: allow", True, True),
        ("match: {protocols: [http, tcp], facts: {target.name_bound: true}}, then: allow", False, False),
        ("match: {protocols: [http, tcp]}, when: target.name_bound, then: allow", True, True),
        ("match: {protocols: [http, tcp]}, when: target.name_bound, then: allow", False, False),
        ("match: {protocols: [http, tcp], facts: {target.name_bound: false}}, then: allow", False, True),
    ],
)
@pytest.mark.parametrize("question", [request(inspected=False), connection(Kind.OPAQUE)])
def test_whether_a_name_is_proven_is_a_fact(rule: str, proven: bool, allowed: bool, question: Question) -> None:
    """A rule may ask whether the agent's name is proven for the address or only its word, and the resolver is asked for it."""
    only = policy(f"rules: [{{id: bound, {rule}}}]")
    assert allowed is judge(only, AGENT, question, proven=proven).allowed
    assert needs_proof(only, AGENT, question)


def test_names_are_proven_by_the_resolver_for_a_while() -> None:
    """A name leads where the resolver says, for some seconds, and what is remembered is bounded."""
    now = 0.0
    answers = {"api.test": ["192.0.2.1"], "many.test": [f"192.0.2.{number}" for number in range(2 * ADDRESSES_MAX)]}

    async def resolve(name: str) -> Iterable[str]:
        return answers.get(name, [])

    async def story() -> None:
        nonlocal now
        names = Names(resolve, lambda: now)
        assert not names.remembers("api.test", "192.0.2.1")
        assert await names.leads_to("api.test", "192.0.2.1")
        assert names.remembers("api.test", "192.0.2.1")
        assert not await names.leads_to("api.test", "192.0.2.2")
        now += 60.0
        assert not names.remembers("api.test", "192.0.2.1")
        await names.leads_to("many.test", "0")
        for number in range(NAMES_MAX + 5):
            await names.leads_to(f"{number}.test", "x")
        assert len(names._known) <= NAMES_MAX

    asyncio.run(story())


@pytest.mark.parametrize(
    ("name", "address", "proven"),
    [
        ("evil.test", "127.0.0.1", False),
        ("evil.test", "127.9.9.9", False),
        ("evil.test", "::1", False),
        ("evil.test", "169.254.169.254", False),
        ("evil.test", "fe80::1", False),
        ("evil.test", "0.0.0.0", False),
        ("evil.test", "::ffff:127.0.0.1", False),
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("localhost", "169.254.169.254", False),
        ("evil.test", "10.0.0.1", True),
    ],
)
def test_a_name_that_is_bound_anew_proves_nothing_on_this_host(name: str, address: str, proven: bool) -> None:
    """Whoever serves a zone cannot make an allowed name lead to loopback or to cloud metadata."""

    async def resolve(_: str) -> Iterable[str]:
        return [address]

    assert proven is asyncio.run(Names(resolve).leads_to(name, address))


def test_a_person_is_shown_every_field_and_all_of_it() -> None:
    """An approval is for what was shown: nothing hides behind a long value or many fields, and credentials are no exception."""
    many = tuple((f"x-{number}", "1") for number in range(200))
    fields = (*many, ("Authorization", "Bearer " + "t" * 900), ("x-long", "a" * 900 + "delete"), ("x-amz-target", "Delete"))
    verdict = judge(API, AGENT, request("PUT", fields=fields), proven=True)
    assert verdict.held is not None
    shown = [*many, ("Authorization", "Bearer " + "*" * 900), *fields[-2:]]
    assert ([list(pair) for pair in shown], 0) == (verdict.held.shown["fields"], verdict.held.shown["fields_left_out"])


def test_what_stays_of_what_was_asked_has_no_secrets() -> None:
    """The store gets of address, fields, name and labels of a run what a recording would; the person sees all, meanwhile."""
    fields = (("Referer", "https://ann:s3cret-pw@h/?sig=s3cret-sg"), ("X-Note", "password=s3cret-pw"), ("Accept", "*/*"))
    run = replace(AGENT.run, name="token=s3cret-tk", labels={"note": "api_key=s3cret-ak"})
    asked = request("PUT", fields=fields, path="/x", query="token=s3cret-tk&n=1")
    verdict = judge(API, replace(AGENT, run=run), asked, proven=True)
    assert verdict.held is not None
    stays = msgpack.packb(verdict.held.shown)
    assert b"s3cret" not in stays
    assert b"token=" + b"*" * 9 + b"&n=1" in stays
    assert {
        "url": "https://api.test:443/x?token=s3cret-tk&n=1",
        "fields": [list(pair) for pair in fields],
        "run_name": "token=s3cret-tk",
        "labels": {"note": "api_key=s3cret-ak"},
        "body_hash": sha256(b"").hexdigest(),
    } == verdict.held.exact
    assert "" == verdict.held.shown["body_hash"]


@pytest.mark.parametrize("fields", [(("x", "1"),) * 257, (("x", "\xe9" * 20_000),)])
def test_what_has_too_much_to_be_shown_is_not_approved(fields: tuple[tuple[str, str], ...]) -> None:
    """Fields that nobody would read are a denial."""
    verdict = judge(API, AGENT, request("PUT", fields=fields), proven=True)
    assert (None, "cannot_be_approved") == (verdict.held, verdict.reason)
