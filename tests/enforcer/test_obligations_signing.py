"""Signatures: those that AWS publishes, those of another implementation, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.obligation import CannotCarryOutError
from capd.enforcer.obligations.signing import Keys, Scope, read_keys, scope_of, sign

SUITE_KEYS = Keys(identity="AKIDEXAMPLE", secret=Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
SUITE_TIME = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FORM = ("Content-Type", "application/x-www-form-urlencoded")
SUITE = {
    "get-vanilla": ("GET", "/", None, (), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "post-vanilla": ("POST", "/", None, (), "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    "get-vanilla-query-order-key-case": (
        "GET",
        "/",
        "Param2=value2&Param1=value1",
        (),
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "get-header-value-trim": (
        "GET",
        "/",
        None,
        (("My-Header1", " value1"), ("My-Header2", ' "a   b   c"')),
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    "get-utf8": ("GET", "/ሴ", None, (), "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
    "get-space": ("GET", "/example space/", None, (), "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"),
    "get-unreserved": (
        "GET",
        f"/{UNRESERVED}",
        None,
        (),
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    "get-vanilla-query-unreserved": (
        "GET",
        "/",
        f"{UNRESERVED}={UNRESERVED}",
        (),
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    "post-x-www-form-urlencoded": (
        "POST",
        "/",
        None,
        (FORM,),
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
}
"""Of aws-sig-v4-test-suite, as AWS publishes it: method, path, query, fields, signature."""
S3_KEYS = Keys(identity="AKIAIOSFODNN7EXAMPLE", secret=Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))
S3_TIME = datetime(2013, 5, 24, tzinfo=UTC)
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
S3 = {
    "lifecycle=": "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    "max-keys=2&prefix=J": "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
}
"""Of "Authenticating requests: using the Authorization header" in the documentation of Amazon S3: query, signature."""


@pytest.mark.parametrize("name", SUITE)
def test_the_published_suite(name: str) -> None:
    """Each request of the suite gets the signature that AWS gives for it."""
    method, path, query, fields, signature = SUITE[name]
    scope = Scope(region="us-east-1", service="service", signed=frozenset(one.lower() for one, _ in fields))
    body = b"Param1=value1" if fields == (FORM,) else b""
    signed = sign(method, "example.amazonaws.com", path, query, fields, body=body, keys=SUITE_KEYS, scope=scope, at=SUITE_TIME)
    assert signature == signed.signature


@pytest.mark.parametrize("query", S3)
def test_the_published_examples_of_s3(query: str) -> None:
    """Each example of the documentation gets the signature that stands there."""
    fields = (("x-amz-content-sha256", EMPTY),)
    scope = Scope(region="us-east-1", service="s3")
    signed = sign("GET", "examplebucket.s3.amazonaws.com", "/", query, fields, body=None, keys=S3_KEYS, scope=scope, at=S3_TIME)
    assert S3[query] == signed.signature


WORDS = st.text("abcXYZ019-_.~", min_size=1, max_size=6)
DOTS = st.sampled_from(["", ".", ".."])
ENCODED = st.lists(WORDS | st.sampled_from(["%20", "%C3%A9", "%2B", "%3A"]), min_size=1, max_size=3).map("".join)
PATHS = st.lists(ENCODED | DOTS, max_size=6).map(lambda parts: "/" + "/".join(parts))
QUERIES = st.none() | st.lists(st.tuples(ENCODED, ENCODED), min_size=1, max_size=4).map(
    lambda pairs: "&".join(f"{key}={value}" for key, value in pairs)
)


@given(st.sampled_from(["GET", "PUT", "POST", "DELETE"]), PATHS, QUERIES, st.booleans(), st.booleans(), st.binary(max_size=40))
def test_another_implementation_agrees(  # noqa: PLR0917 - drawn
    method: str, path: str, query: str | None, s3: bool, session: bool, body: bytes
) -> None:
    """Whatever is signed, by a botocore with keys of no worth first, gets the signature of a botocore with the true ones."""
    service, host = ("s3", "b.s3.eu-west-1.amazonaws.com") if s3 else ("sqs", "sqs.eu-west-1.amazonaws.com")
    address = f"https://{host}{path}" + ("" if query is None else f"?{query}")
    token = "session/token+" if session else None

    def request(credentials: Credentials) -> AWSRequest:
        made = AWSRequest(method=method, url=address, data=body, headers={"Content-Type": "text/plain", "X-Amz-Meta-A": "1  2"})
        (S3SigV4Auth if s3 else SigV4Auth)(credentials, service, "eu-west-1").add_auth(made)
        return made

    sent = request(Credentials("PLACEHOLDER", "placeholder-secret", None))
    fields = tuple((str(name), str(value)) for name, value in sent.headers.items())
    keys = Keys(identity="AKIDTRUE", secret=Secret("true-secret-key"), session=None if token is None else Secret(token))
    signed = dict(
        sign(
            method,
            host,
            path,
            query,
            fields,
            body=body,
            keys=keys,
            scope=scope_of(fields, query),
            at=datetime.strptime(sent.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        ).fields
    )
    theirs = AWSRequest(method=method, url=address, data=body, headers={"Content-Type": "text/plain", "X-Amz-Meta-A": "1  2"})
    signer = (S3SigV4Auth if s3 else SigV4Auth)(Credentials("AKIDTRUE", "true-secret-key", token), service, "eu-west-1")
    theirs.context["timestamp"] = signed["x-amz-date"]
    for name, value in sent.headers.items():
        if name.lower() == "x-amz-content-sha256":
            theirs.headers[name] = value
    if token is not None:
        theirs.headers["X-Amz-Security-Token"] = token
    theirs.headers["X-Amz-Date"] = signed["x-amz-date"]
    said = signer.signature(signer.string_to_sign(theirs, signer.canonical_request(theirs)), theirs)
    assert signed["authorization"].endswith(f"Signature={said}")
    assert "PLACEHOLDER" not in str(signed)


AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=X/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=ab12"
)
WRONG = {
    "not signed": ([], None),
    "another scheme": ([("Authorization", "Bearer x")], None),
    "signed twice": ([("Authorization", AUTHORIZATION)] * 2, None),
    "two credentials": ([("Authorization", f"{AUTHORIZATION}, Credential=Y/20130524/eu-west-1/s3/aws4_request")], None),
    "words without end": ([("Authorization", f"AWS4-HMAC-SHA256{' ' * 8_000}{'Credential=' * 2_000}")], None),
    "another algorithm": ([("Authorization", AUTHORIZATION.replace("HMAC-SHA256", "ECDSA-P256-SHA256"))], None),
    "in the query": ([("Authorization", AUTHORIZATION)], "X-Amz-Signature=1"),
    "in the query, encoded": ([("Authorization", AUTHORIZATION)], "a=b&x%2Damz-algorithm=1"),
    "by chunks": (
        [("Authorization", AUTHORIZATION), ("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")],
        None,
    ),
    "by chunks, with trailers": (
        [("Authorization", AUTHORIZATION), ("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")],
        None,
    ),
    "two hashes": ([("Authorization", AUTHORIZATION), *[("x-amz-content-sha256", EMPTY)] * 2], None),
    "no hash": ([("Authorization", AUTHORIZATION), ("x-amz-content-sha256", "abc")], None),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_signed_anew(name: str) -> None:
    """A request that is not signed, or in a way that cannot be replaced, is refused."""
    fields, query = WRONG[name]
    with pytest.raises(CannotCarryOutError):
        scope_of(fields, query)


@pytest.mark.parametrize("payload", ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", EMPTY])
def test_what_can_be_signed_anew(payload: str) -> None:
    """Region and service are the agent's; what it says of the body's hash is kept."""
    found = scope_of([("authorization", AUTHORIZATION), ("x-amz-content-sha256", payload)], "list-type=2")
    assert ("us-east-1", "s3", frozenset({"host", "x-amz-date"})) == (found.region, found.service, found.signed)


NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = {"AccessKeyId": "AKID", "SecretAccessKey": "secret-secret", "SessionToken": "token-token"}


def test_keys_are_read() -> None:
    """A secret alone needs the id beside it; what `credential_process` prints has all of it."""
    assert Keys(identity="AKID", secret=Secret("secret-secret")) == read_keys(Secret("secret-secret"), "AKID", NOW)
    found = read_keys(Secret(json.dumps({**GOOD, "Expiration": "2026-01-01T00:00:01Z"})), None, NOW)
    assert Keys(identity="AKID", secret=Secret("secret-secret"), session=Secret("token-token")) == found


@pytest.mark.parametrize(
    "text",
    [
        "secret-secret",
        "{",
        "{}",
        json.dumps({**GOOD, "SecretAccessKey": "a\nb" * 9}),
        json.dumps({**GOOD, "SecretAccessKey": "short"}),
        json.dumps({**GOOD, "AccessKeyId": "AKID\r\nx: y"}),
        json.dumps({**GOOD, "Expiration": "2025-12-31T23:59:59Z"}),
        json.dumps({**GOOD, "Expiration": "soon"}),
    ],
)
def test_keys_that_are_none(text: str) -> None:
    """What is no key, or is over, is refused without being said."""
    with pytest.raises(CannotCarryOutError) as caught:
        read_keys(Secret(text), None, NOW)
    assert "secret-secret" not in str(caught.value)
