"""What S3 can do and obstore cannot ask for: object lock, retention, legal hold, stored checksums.

What lives here: AWS Signature Version 4 over the standard library's HTTP client, and those requests. What must not: transfer of
objects' content.

Credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; without them, as with an instance's role, these questions
cannot be asked and the answer is "not known".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

from capd.recording.bucket.errors import (
    BucketCredentialsError,
    BucketError,
    BucketTimeoutError,
    BucketTlsError,
    BucketUnreachableError,
    ObjectMissingError,
    answered,
)
from capd.recording.bucket.location import Kind, Location, Options

ANSWER_BYTES_MAX: Final = 1 << 20
AMAZON: Final = "AmazonS3"
OK: Final = frozenset({200, 204})
_UNRESERVED: Final = "-._~"
_LOCK_ABSENT: Final = frozenset({"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"})
_NOT_LOCKED: Final = ("NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest")
"""An object without retention; one in a bucket that locks nothing, in the words of Amazon or of Ceph."""
_FRACTION: Final = re.compile(r"\.(\d{6})\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectLock:
    """How a bucket protects what is in it.

    Attributes:
        enabled: whether objects can be locked at all.
        mode: of the default retention: `GOVERNANCE` or `COMPLIANCE`; None: there is no default.
        days: of the default retention, years counted as 365 days; None: there is no default.
    """

    enabled: bool
    mode: str | None = None
    days: int | None = None

    def __str__(self) -> str:
        """Give a phrase for a person."""
        if not self.enabled:
            return "no object lock"
        return f"object lock, {self.mode} for {self.days} days" if self.mode else "object lock, no default retention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long one object is locked.

    Attributes:
        mode: `GOVERNANCE` or `COMPLIANCE`.
        until_ns: wall time up to which nobody may delete it.
    """

    mode: str
    until_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a server says of an object.

    Attributes:
        size: its length.
        sha256: of its content; None: the server keeps none, or one of the parts that it came in.
    """

    size: int
    sha256: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of an object.

    Attributes:
        name: its id.
        content: what the server calls its bytes, and their number: equal where the bytes are.
    """

    name: str
    content: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class SignedRequests:
    """Requests to one S3 bucket, signed by hand, from one thread at a time."""

    def __init__(
        self, location: Location, options: Options, environment: Mapping[str, str], now: Callable[[], float] = time.time
    ) -> None:
        """Prepare; nothing is sent.

        Raises:
            BucketCredentialsError: there are no static credentials.
        """
        assert location.kind is Kind.S3
        self._location, self._options, self._now = location, options, now
        self._region = options.region or "us-east-1"
        self._key = environment.get("AWS_ACCESS_KEY_ID", "")
        self._secret = environment.get("AWS_SECRET_ACCESS_KEY", "")
        self._token = environment.get("AWS_SESSION_TOKEN", "")
        if not self._key or not self._secret:
            raise BucketCredentialsError(f"{location}: object lock can only be asked for with an access key in the environment")
        self._idle: http.client.HTTPConnection | None = None
        default = f"https://s3.{self._region}.amazonaws.com"
        parts = urlsplit(options.endpoint or default)
        self._scheme, self._host, self._path = parts.scheme, parts.netloc, parts.path.rstrip("/")

    def __del__(self) -> None:
        """Close the connection that is kept for the next request."""
        idle: http.client.HTTPConnection | None = getattr(self, "_idle", None)
        if idle is not None:
            idle.close()

    # -- questions -------------------------------------------------------------------------------------------------------------

    def object_lock(self) -> ObjectLock:
        """Ask whether the bucket locks objects, and for how long by default.

        Raises:
            BucketError: it could not be asked, or may not.
        """
        answer = self.request("GET", None, {"object-lock": ""})
        if answer.status not in OK:
            error = answered(answer.status, answer.body, "ask for the object lock", str(self._location))
            if any(code in str(error) for code in _LOCK_ABSENT):
                return ObjectLock(enabled=False)
            raise error
        found = _fields(answer.body)
        days = int(found["Days"]) if "Days" in found else int(found["Years"]) * 365 if "Years" in found else None
        return ObjectLock(enabled=found.get("ObjectLockEnabled") == "Enabled", mode=found.get("Mode"), days=days)

    def retention(self, key: str) -> Retention | None:
        """Ask how long an object is locked; None: not at all.

        Raises:
            BucketError: it could not be asked, or may not.
        """
        answer = self.request("GET", key, {"retention": ""})
        if answer.status not in OK:
            error = answered(answer.status, answer.body, f"ask for the retention of {key}", str(self._location))
            if any(code in str(error) for code in _NOT_LOCKED):
                return None
            raise error
        found = _fields(answer.body)
        if "Mode" not in found or "RetainUntilDate" not in found:
            return None
        until = datetime.fromisoformat(_FRACTION.sub(r".\1", found["RetainUntilDate"]))
        return Retention(mode=found["Mode"], until_ns=int(until.timestamp()) * 1_000_000_000)

    def hold(self, key: str, *, on: bool) -> None:
        """Set or release an object's legal hold.

        Raises:
            BucketError: the bucket has no object lock, or does not allow it.
        """
        body = f"<LegalHold><Status>{'ON' if on else 'OFF'}</Status></LegalHold>".encode()
        self._expect(self.request("PUT", key, {"legal-hold": ""}, body), f"set the legal hold of {key}")

    def held(self, key: str) -> bool:
        """Ask whether an object is under legal hold.

        Raises:
            BucketError: it could not be asked.
        """
        answer = self.request("GET", key, {"legal-hold": ""})
        if answer.status == http.client.NOT_FOUND and b"NoSuchKey" not in answer.body:
            return False
        self._expect(answer, f"ask for the legal hold of {key}")
        return _fields(answer.body).get("Status") == "ON"

    def stored(self, key: str) -> Stored:
        """Give an object's length, and the SHA-256 that the server checked it against when it took it.

        Raises:
            ObjectMissingError: there is none.
            BucketError: it could not be asked.
        """
        answer = self.request("HEAD", key, {}, headers={"x-amz-checksum-mode": "ENABLED"})
        if answer.status == http.client.NOT_FOUND:
            raise ObjectMissingError(f"{self._location}: cannot look at {key}: there is no such object")
        self._expect(answer, f"look at {key}")
        found = answer.headers.get("x-amz-checksum-sha256", "")
        whole = "-" not in found and answer.headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT"
        size = int(answer.headers.get("content-length", "-1"))
        return Stored(size=size, sha256=base64.b64decode(found) if found and whole else None)

    def overwrites(self) -> bool:
        """Ask whether `If-None-Match: *` may go unheeded: the bucket has versions, and the server is not Amazon's.

        Ceph before version 20 refuses to replace an object of a plain bucket, and puts another version over one of a bucket
        with versions, which every bucket with object lock is.

        Raises:
            BucketError: it could not be asked.
        """
        answer = self.request("GET", None, {"versioning": ""})
        self._expect(answer, "ask for the versioning")
        return _fields(answer.body).get("Status") == "Enabled" and answer.headers.get("server") != AMAZON

    def versions(self, key: str, *, deleted: bool = False) -> list[Version]:
        """Give an object's versions since it was last deleted, the oldest first.

        Args:
            key: of the object.
            deleted: also what is behind a marker of deletion, and the markers.

        Raises:
            BucketError: it could not be asked.
        """
        name = self._name(key)
        answer = self.request("GET", None, {"versions": "", "prefix": name})
        self._expect(answer, f"list the versions of {key}")
        found = []
        for element in _parsed(answer.body):  # the newest first
            kind, fields = element.tag.rpartition("}")[2], {child.tag.rpartition("}")[2]: child.text or "" for child in element}
            if fields.get("Key") != name:
                continue
            if kind == "DeleteMarker" and not deleted:
                break
            if kind in {"Version", "DeleteMarker"}:
                content = (fields.get("ETag", ""), fields.get("Size", ""))
                found.append(Version(name=fields["VersionId"], content=content))
        return found[::-1]

    def delete_version(self, key: str, version: str, *, bypass: bool = False) -> None:
        """Delete one version of an object for ever.

        Args:
            key: of the object.
            version: its id.
            bypass: also if it is locked in GOVERNANCE mode, where the credentials allow that.

        Raises:
            BucketForbiddenError: it is locked.
            BucketError: it could not be deleted.
        """
        headers = {"x-amz-bypass-governance-retention": "true"} if bypass else {}
        answer = self.request("DELETE", key, {"versionId": version}, headers=headers)
        if answer.status != http.client.NOT_FOUND:
            self._expect(answer, f"delete a version of {key}")

    def _expect(self, answer: Answer, what: str) -> None:
        if answer.status not in OK:
            raise answered(answer.status, answer.body, what, str(self._location))

    # -- how -------------------------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        key: str | None,
        query: Mapping[str, str],
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one signed request about the bucket (key None) or one object in it, and give the answer, whatever it says.

        Raises:
            BucketUnreachableError, BucketTlsError: there was none.
        """
        name = "" if key is None else self._name(key)
        path = f"{self._path}/{quote(self._location.name, _UNRESERVED)}" + (
            f"/{quote(name, '/' + _UNRESERVED)}" if name else ""
        )
        sent = dict(headers or {})
        if body:
            sent["content-md5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        text = "&".join(f"{quote(word, _UNRESERVED)}={quote(value, _UNRESERVED)}" for word, value in sorted(query.items()))
        sent = self._sign(method, path, text, body, sent)
        try:
            return self._exchange(method, path + (f"?{text}" if text else ""), body, sent)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise BucketUnreachableError(f"{self._location}: the connection broke") from error
        except ssl.SSLError as error:
            raise BucketTlsError(f"{self._location}: {_tls_words(error)}") from error
        except TimeoutError as error:
            raise BucketTimeoutError(f"{self._location}: no answer in time") from error
        except socket.gaierror as error:
            raise BucketUnreachableError(f"{self._location}: the endpoint's name cannot be resolved") from error
        except (OSError, http.client.HTTPException) as error:
            raise BucketUnreachableError(f"{self._location}: {error}") from error

    def _exchange(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a request and read its answer; over a connection that the server may have closed meanwhile, once more."""
        while True:
            connection, used = self._idle or self._connect(), self._idle is not None
            self._idle = None
            try:
                connection.request(method, target, body or None, dict(headers))
                response = connection.getresponse()
                content = response.read(ANSWER_BYTES_MAX)
            except BaseException as error:
                connection.close()
                if used and isinstance(error, ConnectionError | http.client.BadStatusLine):
                    continue
                raise
            if response.isclosed() and not response.will_close:
                self._idle = connection
            else:
                connection.close()
            return Answer(
                status=response.status, headers={word.lower(): value for word, value in response.getheaders()}, body=content
            )

    def _name(self, key: str) -> str:
        return "/".join(part for part in (self._location.prefix, key) if part)

    def _connect(self) -> http.client.HTTPConnection:
        if self._scheme == "http":
            if not self._options.allow_http:
                raise BucketError(f"{self._location}: the endpoint has no TLS, and `bucket.allow_http` is not set")
            return http.client.HTTPConnection(self._host, timeout=self._options.timeout_seconds)
        try:
            context = ssl.create_default_context()
            if self._options.ca_file is not None:
                context.load_verify_locations(self._options.ca_file)
        except OSError as error:
            raise BucketTlsError(f"cannot use the certificates in {self._options.ca_file}: {error}") from error
        return http.client.HTTPSConnection(self._host, timeout=self._options.timeout_seconds, context=context)

    def _sign(self, method: str, path: str, query: str, body: bytes, headers: Mapping[str, str]) -> dict[str, str]:
        """Give the headers with a signature over all of them: docs.aws.amazon.com, Signature Version 4."""
        time_ = datetime.fromtimestamp(self._now(), UTC).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        signed = {"host": self._host, "x-amz-date": time_, "x-amz-content-sha256": digest, **headers}
        if self._token:
            signed["x-amz-security-token"] = self._token
        names = ";".join(sorted(signed))
        lines = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
        scope = f"{time_[:8]}/{self._region}/s3/aws4_request"
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{digest}"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", time_, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self._secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        credential = f"Credential={self._key}/{scope}, SignedHeaders={names}, Signature={signature}"
        return {**signed, "authorization": f"AWS4-HMAC-SHA256 {credential}"}


def _tls_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    if error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}:
        return "the server does not speak TLS there"
    return f"the TLS handshake failed: {error.reason or error}"


def _fields(body: bytes) -> dict[str, str]:
    """Give the leaves of an answer by their names without namespaces; the answers asked for here repeat none."""
    root = _parsed(body)
    return {element.tag.rpartition("}")[2]: (element.text or "").strip() for element in root.iter() if len(element) == 0}


def _parsed(body: bytes) -> ET.Element:
    try:
        return ET.fromstring(body)  # noqa: S314 - expat 2.4.1 and later bounds entities; the answer is bounded and the server chosen
    except ET.ParseError as error:
        raise BucketError(f"the server's answer is no XML: {error}") from error
