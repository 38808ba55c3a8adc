"""Obligations in HTTP/1.1 without sockets: what the target gets, what of the answer comes out, what is judged."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from capd.enforcer.credentials.credential import Credential, FileSource
from capd.enforcer.credentials.errors import CredentialError
from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.equipment import Equipment
from capd.enforcer.obligations.obligation import CarriedOut, Obligations
from capd.enforcer.obligations.provision import Provision
from capd.enforcer.policy.action import Run
from capd.enforcer.policy.host_pattern import HostPattern
from capd.enforcer.policy.policy import Policy, read_policy
from capd.enforcer.policy.rule import Form, Injection, Mask
from capd.enforcer.proxy.events import Side
from capd.enforcer.proxy.judge import BODY_BYTES_MAX, Agent, judge, needs_proof, observed
from capd.enforcer.proxy.question import Body, Destination, Kind, Question, Request, Verdict
from tests.enforcer.rehearsal import Rehearsal, allow

SECRET = "sk-very-secret-1"
BEARER = Injection(credential="key", form=Form.BEARER)
MASKS = (("hide", Mask(json_paths=("$.ssn",), headers=("x-ssn",))),)
HELLO = b"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n"


def obliged(
    masks: tuple[tuple[str, Mask], ...] = MASKS, *, ready: bool = True, strict: bool = True
) -> Callable[[Question], Verdict]:
    """Give a judge that allows everything with obligations."""

    def judge_it(question: Question) -> Verdict:
        assert question.request is not None
        provision = Provision(
            fields=(("authorization", f"Bearer {SECRET}"),), query="k=v", secrets={"key": (SECRET,)}, strict=strict
        )
        return replace(
            allow(question),
            obligations=Obligations(masks=masks, injections=(("put", BEARER),)),
            provision=provision if ready else None,
        )

    return judge_it


def answer(*fields: str, body: bytes = b"", status: str = "200 OK") -> bytes:
    """Write an answer."""
    lines = [f"HTTP/1.1 {status}", *fields, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def test_what_is_not_made_ready_does_not_go() -> None:
    """A verdict with obligations that nobody made ready is no permission, whatever else it says."""
    run = Rehearsal(judge=obliged(ready=False)).says(HELLO + b"\r\n")
    assert b"" == run.upstream
    assert run.client.startswith(b"HTTP/1.1 403 ")
    assert b"cannot_be_carried_out" in run.client


def test_the_request_is_the_one_that_was_made_ready() -> None:
    """Fields and query that the target sees are those with the credential in them."""
    run = Rehearsal(judge=obliged()).says(HELLO + b"Authorization: mine\r\n\r\n")
    assert f"GET /?k=v HTTP/1.1\r\nhost: 192.0.2.1\r\nauthorization: Bearer {SECRET}\r\n\r\n".encode() == run.upstream


@pytest.mark.parametrize("step", [0, 1, 5])
def test_everything_of_an_answer_is_looked_at(step: int) -> None:
    """Reason, fields, interim answers, body and trailers are without the secret and what is masked; tags are gone."""
    run = Rehearsal(judge=obliged()).says(HELLO + b"\r\n")
    body = json.dumps({"ssn": "123", "echo": SECRET}).encode()
    run.answers(f"HTTP/1.1 103 Early\r\nlink: <{SECRET}>\r\n\r\n".encode(), step=step)
    head = (
        f"HTTP/1.1 200 {SECRET}\r\ncontent-type: application/json\r\nx-ssn: 123\r\nx-key: {SECRET}\r\netag: x\r\ndigest: y\r\n"
    )
    head += f"x-{SECRET}: y\r\n"
    run.answers(head.encode() + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body), step=step)
    run.answers(f"0\r\nx-last: {SECRET}\r\n\r\n".encode(), step=step)
    said = run.client
    assert SECRET.encode() not in said
    assert b"123" not in said
    assert b"etag" not in said
    assert b"digest" not in said
    assert 6 == said.count(b"*" * len(SECRET))
    assert said.endswith(b"0\r\nx-last: " + b"*" * len(SECRET) + b"\r\n\r\n")
    assert [CarriedOut(masked={"hide": 2}, reflected={"key": 6})] == [one.carried_out for one in run.reports]


def test_a_length_stays_true() -> None:
    """What is hidden has the length that it had, so that the next answer on the connection begins where it should."""
    run = Rehearsal(judge=obliged()).says(HELLO + b"\r\n")
    body = f'{{"ssn": 1, "x": "{SECRET}"}}'.encode()
    run.answers(answer("content-type: application/json", body=body))
    head, _, shown = run.client.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert {"ssn": 0, "x": "*" * len(SECRET)} == json.loads(shown)
    run.says(HELLO + b"\r\n").answers(answer("content-type: application/json", body=b"{}"))
    assert run.client.endswith(b"content-length: 2\r\n\r\n{}")


FIELDS = [
    (Mask(cookies=("sid",)), "set-cookie: sid=abc; Path=/", "set-cookie: sid=***; Path=/"),
    (Mask(cookies=("sid",)), "set-cookie: other=abc; Path=/", "set-cookie: other=abc; Path=/"),
    (Mask(headers=("set-cookie",)), "set-cookie: other=abc", "set-cookie: other=***"),
    (Mask(headers=("x-key",)), "X-Key: Bearer abc", "X-Key: Bearer ***"),
    (Mask(keys=("token",)), "location: https://a.test/?token=abc&b=1", "location: https://a.test/?token=***&b=1"),
    (Mask(keys=("x-token",)), "X-Token: abc", "X-Token: ***"),
    (Mask(identifiers=("iban",)), "link: </GR1601101050000010547023795>", "link: </***************************>"),
    (
        Mask(formats=True),
        "x-made: ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "x-made: ****************************************",
    ),
]


@pytest.mark.parametrize(("mask", "field", "shown"), FIELDS)
def test_fields_are_masked(mask: Mask, field: str, shown: str) -> None:
    """A field is hidden by its own name, by cookie, by the name of a parameter in it, by checksum and by form."""
    run = Rehearsal(judge=obliged((("hide", mask),))).says(HELLO + b"\r\n").answers(answer(field))
    assert f"\r\n{shown}\r\n".encode() in run.client
    assert [{"hide": 1} if "*" in shown else {}] == [one.carried_out.masked for one in run.reports]


REFUSED = {
    "compressed": ("content-encoding: gzip", "content-type: application/json"),
    "compressed twice": ("content-encoding: identity", "content-encoding: br", "content-type: application/json"),
    "packed messages": ("grpc-encoding: gzip", "content-type: application/json"),
    "a part": ("content-range: bytes 0-1/9", "content-type: application/json"),
    "no type": (),
    "another type": ("content-type: text/plain",),
    "two types": ("content-type: application/json", "content-type: text/html"),
    "another charset": ("content-type: application/json; charset=utf-16le",),
    "a charset with a backslash in characters": ("content-type: application/json; charset=Shift_JIS",),
    "the same by another name": ("content-type: application/json; charset=windows-31j",),
    "brackets in characters": ('content-type: application/json; charset="gb18030"',),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_looked_into_is_refused(name: str) -> None:
    """An answer that could hide what must be masked is not sent on, with no byte of it, and that is written down."""
    run = Rehearsal(judge=obliged()).says(HELLO + b"\r\n").answers(answer(*REFUSED[name], body=b'{"ssn": "123"}'))
    assert run.client.startswith(b"HTTP/1.1 502 ")
    assert b"answer_not_masked" in run.client
    assert b"123" not in run.client
    assert 1 == len(run.refused)


@pytest.mark.parametrize("name", REFUSED)
def test_an_answer_without_a_body_needs_no_look(name: str) -> None:
    """Where nothing follows the head there is nothing that could hide something."""
    run = Rehearsal(judge=obliged()).says(HELLO + b"\r\n").answers(answer(*REFUSED[name]))
    assert run.client.startswith(b"HTTP/1.1 200 OK\r\n")


HASHES = [
    *(
        "ETag",
        "Content-MD5",
        "Digest",
        "Content-Digest",
        "Repr-Digest",
        "x-amz-checksum-sha256",
        "x-goog-hash",
        "X-Checksum-Sha1",
    ),
    *("x-ms-content-crc64", "x-ms-blob-content-md5", "Docker-Content-Digest", "x-oss-hash-crc64ecma", "X-Content-Hash"),
]


@pytest.mark.parametrize("name", HASHES)
def test_no_hash_of_what_is_masked_is_told(name: str) -> None:
    """A field with a hash of the whole answer is in no head, with a body or without, and in no trailer."""
    field = f"{name}: 0123456789"
    begun = Rehearsal(judge=obliged()).says(b"HEAD / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n").answers(answer(field))
    begun.says(HELLO + b"\r\n").answers(f"HTTP/1.1 304 Not Modified\r\n{field}\r\n\r\n".encode())
    begun.says(HELLO + b"\r\n").answers(f"HTTP/1.1 103 Early\r\n{field}\r\n\r\n".encode())
    body = b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    begun.answers(b"HTTP/1.1 200 OK\r\n" + field.encode() + b"\r\n" + body + field.encode() + b"\r\n\r\n")
    assert b"0123456789" not in begun.client
    assert 4 == begun.client.count(b"HTTP/1.1 ")


def test_a_tag_stays_where_nothing_is_masked() -> None:
    """A credential alone makes no other body of an answer."""
    run = Rehearsal(judge=obliged(())).says(HELLO + b"\r\n").answers(answer("etag: x"))
    assert b"etag: x" in run.client


@pytest.mark.parametrize(("method", "kept"), [("GET", 0), ("HEAD", 0), ("PUT", 2)])
def test_guesses_are_not_asked(method: str, kept: int) -> None:
    """Whether the tag of a guess is right is not asked of a target whose answer is masked; writers keep what guards them."""
    asked = question(method=method, fields=(("If-None-Match", '"a"'), ("if-match", '"b"')))
    verdict = Verdict(number=1, allowed=True, obligations=Obligations(masks=MASKS))
    made = asyncio.run(Equipment({}, _nothing, lambda: NOW).equip(None, asked, verdict)).provision
    assert made is not None
    assert kept == sum(name.lower().startswith("if-") for name, _ in made.fields)


async def _nothing(name: str) -> Secret:
    raise CredentialError(name)


def test_what_turns_out_unreadable_is_cut() -> None:
    """A body that cannot be judged any more ends as one that is not whole, and that is written down."""
    run = Rehearsal(judge=obliged()).says(HELLO + b"\r\n")
    run.answers(answer("content-type: application/json", body=b'{"ssn": "123", "x": "\0"}'))
    assert run.closed is not None
    assert run.closed.abort
    assert b"123" not in run.client
    assert 1 == len(run.refused)
    assert 1 == len(run.reports)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("coding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("masks", [(("hide", Mask(formats=True)),), ()], ids=["masked", "credential"])
def test_utf16_that_nobody_announced_is_cut(masks: tuple[tuple[str, Mask], ...], coding: str, step: int) -> None:
    """A text that begins as UTF-16 or UTF-32 does is not sent on: nothing would be found in it."""
    run = Rehearsal(judge=obliged(masks)).says(HELLO + b"\r\n")
    run.answers(answer("content-type: text/plain", body=SECRET.encode(coding)), step=step)
    assert run.closed is not None
    assert run.closed.abort
    assert run.client.rpartition(b"\r\n\r\n")[2] in {b"", b"\xff"}


def test_a_target_that_leaves_early_is_told_as_before() -> None:
    """An answer that breaks off is cut, also for who speaks HTTP/1.0; one that ends with its connection is whole."""
    for clean in (False, True):
        run = Rehearsal(judge=obliged()).says(b"GET / HTTP/1.0\r\nHost: 192.0.2.1\r\n\r\n")
        run.answers(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"ssn": "12').answers(b'3"}')
        run.ends(Side.UPSTREAM, clean=clean)
        assert (run.closed is not None and run.closed.abort) is not clean
        assert (Side.CLIENT in run.finished) is clean
        assert run.client.endswith(b'{"ssn": "***"}')


def test_nothing_prints_a_secret() -> None:
    """A verdict that carries secrets, and a request with one, do not show them when they are printed or logged."""
    verdict = obliged()(question())
    logging.getLogger(__name__).info("%r", verdict)
    assert SECRET not in repr(verdict)


# -- judged -------------------------------------------------------------------------------------------------------------------

AGENT = Agent(run=Run(name="nightly", id="r"), principal=None)
HERE = Destination(address="192.0.2.1", port=443)
SIGNED = (
    ("authorization", "AWS4-HMAC-SHA256 Credential=X/20130524/r/s3/aws4_request, SignedHeaders=host, Signature=ab12"),
    ("x-amz-date", "20130524T000000Z"),
)
RULES = """\
rules:
  - {{id: all, match: {{protocols: [http]}}, then: allow}}
  - {{id: socket, match: {{protocols: [tcp]}}, then: allow}}
  - id: put
    match: {{protocols: [http], hosts: [api.test], ports: [443, 80]}}
    then: inject
    inject: {{credential: key, {form}}}
"""


EMPTY = Body(content=b"", complete=True)


def question(*, inspected: bool = True, carries_out: bool = True, body: Body | None = EMPTY, **more: object) -> Question:
    """Give a question about a request."""
    return Question(
        number=1,
        kind=Kind.REQUEST,
        destination=HERE if inspected else replace(HERE, port=80),
        protocol="http1",
        server_name="api.test" if inspected else None,
        inspected=inspected,
        request=Request(**{"method": "GET", "host": "api.test", "path": "/x", **more}),  # type: ignore[arg-type] # as the case has it
        body=body,
        carries_out=carries_out,
    )


def policy(form: str) -> Policy:
    """Give a policy that puts a credential in."""
    return read_policy({"test.yaml": RULES.format(form=form).encode()})


JUDGED = [
    ("form: bearer", question(), True),
    ("form: bearer", question(carries_out=False), False),
    ("form: bearer", question(inspected=False), False),
    ("form: bearer, cleartext: true", question(inspected=False), True),
    ("form: bearer", question(upgrade="websocket"), False),
    ("form: query, parameter: key", question(query="a=1;KEY=2"), False),
    ("form: query, parameter: key", question(query="a=1&KEY=2"), True),
    ("form: aws-sigv4", question(), False),
    ("form: aws-sigv4", question(fields=SIGNED), True),
    ("form: aws-sigv4", question(fields=SIGNED, body=Body(content=b"x", complete=False)), False),
    ("form: aws-sigv4", question(fields=(*SIGNED, ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"))), False),
]


@pytest.mark.parametrize(("form", "asked", "allowed"), JUDGED)
def test_what_cannot_be_carried_out_is_denied(form: str, asked: Question, allowed: bool) -> None:
    """Before anything is fetched it is known what cannot be done: then the request is denied, and says why."""
    verdict = judge(policy(form), AGENT, asked, proven=True)
    assert (allowed, "" if allowed else "cannot_be_carried_out") == (verdict.allowed, verdict.reason)
    assert verdict.message
    assert bool(verdict.obligations)


def test_a_body_that_is_signed_is_held() -> None:
    """Where the request does not say its hash, the body is read first, up to a limit."""
    unread = question(fields=SIGNED, body=None)
    assert BODY_BYTES_MAX == judge(policy("form: aws-sigv4"), AGENT, unread, proven=True).body_bytes
    told = question(fields=(*SIGNED, ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")), body=None)
    assert judge(policy("form: aws-sigv4"), AGENT, told, proven=True).allowed


def test_where_nothing_is_stopped_nothing_is_put_in() -> None:
    """Enforcement that only observes neither masks nor injects."""
    for asked in (question(), question(carries_out=False)):
        verdict = observed(judge(policy("form: bearer"), AGENT, asked, proven=True))
        assert verdict.allowed
        assert not verdict.obligations


def test_a_name_is_proven_before_a_secret_goes_there() -> None:
    """Where it hangs on the name whether a credential is put in, the name is looked up."""
    assert needs_proof(policy("form: bearer, cleartext: true"), AGENT, question(inspected=False))


# -- made ready ---------------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def equipped(
    *injections: Injection, value: str = SECRET, asked: Question | None = None, host: str = "api.test", user: str | None = "ann"
) -> Verdict:
    """Give what becomes of a verdict with injections."""
    credential = Credential(name="key", source=FileSource(path=Path("/x")), hosts=(HostPattern(host),), ports=(443,), user=user)

    async def fetch(name: str) -> Secret:
        if name != "key" or not value:
            raise CredentialError("it is not there")
        return Secret(value)

    obligations = Obligations(injections=tuple((f"r{number}", one) for number, one in enumerate(injections)))
    verdict = Verdict(number=1, allowed=True, obligations=obligations)
    return asyncio.run(
        Equipment({"key": credential}, fetch, lambda: NOW).equip(
            None, asked or question(fields=(("Range", "bytes=1-"),)), verdict
        )
    )


def test_the_answer_is_asked_for_in_a_form_that_can_be_read() -> None:
    """Whoever has to look at an answer asks for all of it, and not compressed."""
    made = equipped(BEARER).provision
    assert made is not None
    assert (("accept-encoding", "identity"), ("authorization", f"Bearer {SECRET}")) == made.fields
    assert {"key": (SECRET,)} == made.secrets


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (equipped(BEARER, value=""), "credential_unavailable"),
        (equipped(BEARER, value="short"), "credential_unavailable"),
        (equipped(BEARER, value="with\r\nx-evil: 1"), "credential_unavailable"),
        (equipped(BEARER, host="other.test"), "credential_not_bound"),
        (equipped(replace(BEARER, credential="other")), "credential_unknown"),
        (equipped(replace(BEARER, form=Form.BASIC), user=None), "cannot_be_carried_out"),
        (equipped(replace(BEARER, form=Form.BASIC), user="a:b"), "cannot_be_carried_out"),
        (equipped(replace(BEARER, form=Form.AWS_SIGV4), asked=question(fields=SIGNED), user=None), "cannot_be_carried_out"),
    ],
)
def test_what_is_not_to_be_had_is_denied(verdict: Verdict, reason: str) -> None:
    """A credential that is missing, cannot be used, or is not for that place has the request denied, without any value."""
    assert (False, reason, None) == (verdict.allowed, verdict.reason, verdict.provision)
    assert "evil" not in verdict.message


def test_a_signature_is_over_what_else_is_put_in() -> None:
    """Signed last, over the body that was held, with a session token that is hidden too; a range may stay."""
    keys = json.dumps({"AccessKeyId": "AKID", "SecretAccessKey": "secret-secret", "SessionToken": "token-token"})
    asked = question(fields=(*SIGNED, ("Range", "bytes=1-")), body=Body(content=b"body", complete=True))
    made = equipped(replace(BEARER, form=Form.AWS_SIGV4), value=keys, asked=asked).provision
    assert made is not None
    fields = dict(made.fields)
    assert {"Range", "x-amz-date", "x-amz-security-token", "authorization"} == set(fields)
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token" in fields["authorization"]
    assert "Credential=AKID/20260101/r/s3/aws4_request" in fields["authorization"]
    assert not made.strict
    assert "token-token" in made.secrets["key"]
    other = equipped(
        replace(BEARER, form=Form.AWS_SIGV4),
        value=keys,
        asked=replace(asked, body=Body(content=b"another", complete=True)),
    ).provision
    assert other is not None
    assert fields["authorization"] != dict(other.fields)["authorization"]
    said = (("x-amz-content-sha256", hashlib.sha256(b"body").hexdigest()),)
    assert asked.request is not None
    with_hash = replace(asked, request=replace(asked.request, fields=(*asked.request.fields, *said)), body=None)
    assert equipped(replace(BEARER, form=Form.AWS_SIGV4), value=keys, asked=with_hash).allowed
