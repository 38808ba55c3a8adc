"""AWS Signature Version 4: a request that the agent signed with keys of no worth, signed anew.

What lives here: the algorithm (docs.aws.amazon.com, IAM user guide, "Create a signed AWS API request"), which signatures of an
agent can be replaced. What must not: keys' sources, other ways to put a credential in.

Region and service are the agent's: they stand in its own signature, and a wrong one is refused by AWS. Signed are Host, what
begins with `x-amz-`, Content-Type and Content-MD5, and what the agent signed and nothing on the way changes. A body that is
signed chunk by chunk would have to be written anew: it is refused, and so is a signature in the query, which is made to be
given to others.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from capd.enforcer.credentials.secret import Secret, usable
from capd.enforcer.obligations.obligation import CannotCarryOutError

ALGORITHM: Final = "AWS4-HMAC-SHA256"
PAYLOAD_FIELD: Final = "x-amz-content-sha256"
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
UNSIGNED_TRAILER: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
"""The body ends with checksums that nothing signs (Amazon S3, "Signature calculations: trailing headers")."""
_REPLACED: Final = frozenset({"authorization", "x-amz-date", "x-amz-security-token", "date"})
_SIGNED: Final = frozenset({"host", "content-type", "content-md5"})
_NEVER_SIGNED: Final = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "if-range", "range", "te", "transfer-encoding", "user-agent"}
    | {"authorization", "x-amzn-trace-id"}
)
"""What capd, or a proxy behind it, writes anew or leaves out."""
_PARTS: Final = re.compile(r"[,\s]+")
"""Between the words of a signature; one by one, so that what an agent writes there takes no longer than reading it."""
_CREDENTIAL: Final = re.compile(r"[^/]+/[0-9]{8}/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/aws4_request")
_NAMES: Final = re.compile(r"[!-~]{1,4096}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]+")
_IDENTITY: Final = re.compile(r"[A-Za-z0-9]{4,128}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_BLANKS: Final = re.compile(r" +")
_UNRESERVED: Final = "-_.~"
_ENCODED_ONCE: Final = frozenset({"s3", "s3-object-lambda", "s3-outposts", "s3express"})
"""Services whose canonical path is encoded once; with how it is sent, that of all others is twice."""

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys of AWS.

    Attributes:
        identity: id of the access key, which is no secret.
        secret: the secret access key.
        session: session token of temporary keys.
    """

    identity: str
    secret: Secret
    session: Secret | None = None


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What the agent's own signature was for.

    Attributes:
        region, service: as it says.
        signed: names of the fields that it covers, in lower case.
    """

    region: str
    service: str
    signed: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A signature.

    Attributes:
        fields: of the request as it is to be sent, without Host.
        signature: in hexadecimal; whoever has it can send this request again for some minutes.
    """

    fields: tuple[tuple[str, str], ...] = field(repr=False)
    signature: str = field(repr=False)


def read_keys(value: Secret, user: str | None, at: datetime) -> Keys:
    """Read keys: a secret access key whose id is the credential's user, or JSON as a `credential_process` prints it.

    Args:
        value: of the credential.
        user: of the credential.
        at: now, in UTC: keys that are over are refused.

    Raises:
        CannotCarryOutError: they are none.
    """
    text = value.reveal()
    if not text.lstrip().startswith("{"):
        if user is None:
            raise CannotCarryOutError("the credential has no `user`, which is the id of the access key")
        return Keys(identity=_identity(user), secret=_checked(text))
    try:
        found = json.loads(text)
        session = found.get("SessionToken")
        expires = found.get("Expiration")
        over = expires is not None and datetime.fromisoformat(str(expires)) <= at
        keys = Keys(
            identity=_identity(str(found["AccessKeyId"])),
            secret=_checked(str(found["SecretAccessKey"])),
            session=None if session is None else _checked(str(session)),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CannotCarryOutError("the credential is not what `credential_process` prints") from None
    if over:
        raise CannotCarryOutError("the credential is over")
    return keys


def _identity(text: str) -> str:
    if _IDENTITY.fullmatch(text) is None:
        raise CannotCarryOutError("the id of the access key is none")
    return text


def _checked(text: str) -> Secret:
    problem = usable(text)
    if problem is not None:
        raise CannotCarryOutError(f"a key of the credential cannot be used: {problem}")
    return Secret(text)


def scope_of(fields: Fields, query: str | None) -> Scope:
    """Give what a request was signed for by the agent.

    Raises:
        CannotCarryOutError: it is not signed, or in a way that cannot be replaced.
    """
    if any(name.lower().startswith("x-amz-") for name, _, _ in _parameters(query)):
        raise CannotCarryOutError("it is signed in its query, which is not signed anew")
    said = [value for name, value in fields if name.lower() == "authorization"]
    scope = _scope_said(said[0]) if len(said) == 1 else None
    if scope is None:
        raise CannotCarryOutError("it has no signature AWS4-HMAC-SHA256 that says region and service")
    payload = payload_of(fields)
    if payload is not None and payload not in {UNSIGNED, UNSIGNED_TRAILER} and _HASH.fullmatch(payload) is None:
        raise CannotCarryOutError("its body is signed chunk by chunk, which cannot be done anew")
    return scope


def _scope_said(authorization: str) -> Scope | None:
    """Read the value of an Authorization field; None: it is no signature, or says something twice."""
    algorithm, *words = _PARTS.split(authorization.strip())
    pairs = [word.partition("=") for word in words if word]
    named = {name: value for name, _, value in pairs}
    credential = _CREDENTIAL.fullmatch(named.get("Credential", ""))
    signed = _NAMES.fullmatch(named.get("SignedHeaders", ""))
    whole = algorithm == ALGORITHM and len(named) == len(pairs) and _SIGNATURE.fullmatch(named.get("Signature", "")) is not None
    if not whole or credential is None or signed is None:
        return None
    return Scope(region=credential[1], service=credential[2], signed=frozenset(signed[0].lower().split(";")))


def payload_of(fields: Fields) -> str | None:
    """Give what the request says of its body's hash; None: nothing, so the body has to be read.

    Raises:
        CannotCarryOutError: it says more than one thing.
    """
    said = [value for name, value in fields if name.lower() == PAYLOAD_FIELD]
    if len(said) > 1:
        raise CannotCarryOutError(f"it has more than one field {PAYLOAD_FIELD}")
    return said[0] if said else None


def sign(
    method: str,
    authority: str,
    path: str,
    query: str | None,
    fields: Fields,
    *,
    body: bytes | None,
    keys: Keys,
    scope: Scope,
    at: datetime,
) -> Signed:
    """Sign a request.

    Args:
        method: as it is sent.
        path: as it is sent.
        query: as it is sent.
        authority: value of the Host field as it is sent.
        fields: all others; the agent's own signature among them is left out.
        body: all of it; None where the request says its hash.
        keys: to sign with.
        scope: region and service.
        at: now, in UTC.
    """
    payload = payload_of(fields)
    if payload is None:
        assert body is not None
        payload = hashlib.sha256(body).hexdigest()
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    kept = [(name, value) for name, value in fields if name.lower() not in _REPLACED]
    kept.append(("x-amz-date", stamp))
    if keys.session is not None:
        kept.append(("x-amz-security-token", keys.session.reveal()))
    named = _canonical_fields([("host", authority), *kept], scope.signed)
    names = ";".join(named)
    canonical = "\n".join(
        (
            method,
            _canonical_path(path, scope.service),
            _canonical_query(query),
            "".join(f"{name}:{value}\n" for name, value in named.items()),
            names,
            payload,
        )
    )
    within = f"{stamp[:8]}/{scope.region}/{scope.service}/aws4_request"
    hashed = hashlib.sha256(canonical.encode("utf-8")).hexdigest()
    signature = hmac.new(_key(keys.secret, stamp[:8], scope), f"{ALGORITHM}\n{stamp}\n{within}\n{hashed}".encode(), "sha256")
    told = f"{ALGORITHM} Credential={keys.identity}/{within}, SignedHeaders={names}, Signature={signature.hexdigest()}"
    return Signed(fields=(*kept, ("authorization", told)), signature=signature.hexdigest())


def _key(secret: Secret, day: str, scope: Scope) -> bytes:
    key = f"AWS4{secret.reveal()}".encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        key = hmac.new(key, part.encode("ascii"), "sha256").digest()
    return key


def _canonical_fields(fields: Fields, signed: frozenset[str]) -> dict[str, str]:
    """Give what is signed: names in lower case and in order, values without blanks that mean nothing."""
    found: dict[str, list[str]] = {}
    wanted = (_SIGNED | signed) - _NEVER_SIGNED
    for name, value in fields:
        lower = name.lower()
        if lower in wanted or lower.startswith("x-amz-"):
            found.setdefault(lower, []).append(_BLANKS.sub(" ", value.strip(" \t")))
    return {name: ",".join(found[name]) for name in sorted(found)}


def _canonical_path(path: str, service: str) -> str:
    """Give a path as it is signed: as it is sent but for dots and empty segments, encoded once more; of S3 what was decoded.

    Source: "Create a canonical request" (AWS, Signature Version 4): all services but S3 normalise by RFC 3986.
    """
    return quote(unquote_to_bytes(path) if service in _ENCODED_ONCE else _normal(path), safe=f"/{_UNRESERVED}")


def _normal(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")


def _canonical_query(query: str | None) -> str:
    pairs = sorted((quote(key, safe=_UNRESERVED), quote(value, safe=_UNRESERVED)) for _, key, value in _parameters(query))
    return "&".join(f"{key}={value}" for key, value in pairs)


def _parameters(query: str | None) -> list[tuple[str, bytes, bytes]]:
    """Give parameters: the name as text, name and value decoded."""
    found: list[tuple[str, bytes, bytes]] = []
    for pair in (query or "").split("&"):
        if pair:
            key, _, value = pair.partition("=")
            name = unquote_to_bytes(key)
            found.append((name.decode("latin-1"), name, unquote_to_bytes(value)))
    return found
