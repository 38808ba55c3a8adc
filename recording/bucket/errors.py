"""What can go wrong with a bucket, and which of it an obstore error is.

What lives here: the error classes, the classification of what obstore raises. What must not: requests, retries.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from capd.recording.errors import CapdError, ExitStatus

TEXT_CHARACTERS_MAX: Final = 300
"""Of a server's answer in one of our messages."""
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_DEBUG: Final = "\n\nDebug source:"
_CREDENTIAL_CODES: Final = frozenset(
    {
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "AuthenticationFailed",
        "ExpiredToken",
        "InvalidToken",
        "InvalidAuthenticationInfo",
    }
)
_NO_BUCKET_CODES: Final = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"})
_SKEW_CODES: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_TLS_WORDS: Final = (
    "InvalidCertificate",
    "corrupt message",
    "InvalidMessage",
    "HandshakeFailure",
    "PeerIncompatible",
    "AlertReceived",
    "NotValidForName",
)
_TIMEOUT_WORDS: Final = ("kind: Timeout", "TimedOut", "operation timed out")
_NO_CREDENTIALS_WORDS: Final = ("169.254.169.254", "metadata.google.internal", "MissingCredential", "missing credentials")
_BEHIND_THE_END_WORDS: Final = ("Wanted range starting at", '"bytes 0--1/0"')
"""obstore's, where the server sends the object's end; azurite's, for an object of no length."""
_BUSY_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class BucketError(CapdError):
    """The bucket refused a request, for a reason that has no class of its own.

    Attributes:
        transient: whether the same request may succeed later with nobody doing anything.
    """

    exit_status = ExitStatus.BUCKET
    hint = "the message is the server's; `bucket_url` and `[bucket]` in the configuration say which bucket and how"
    transient: ClassVar[bool] = False


class BucketUrlError(BucketError):
    """A bucket's URL is none that capd understands."""

    exit_status = ExitStatus.USAGE
    hint = "s3://BUCKET[/PREFIX], az://CONTAINER[/PREFIX], gs://BUCKET[/PREFIX], file:///DIRECTORY or a directory's path"


class BucketMissingError(BucketError):
    """There is no such bucket, container or directory."""

    hint = "create it, or correct `bucket_url`; capd never creates a bucket"


class ObjectMissingError(BucketError):
    """The bucket has no object of that name."""

    hint = "list the bucket; a retention policy may have removed it"


class BucketCredentialsError(BucketError):
    """The bucket does not accept the credentials."""

    hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_ACCOUNT_KEY, or GOOGLE_APPLICATION_CREDENTIALS"


class BucketForbiddenError(BucketError):
    """The credentials are good and do not allow this."""

    hint = "the shipper needs to list, read and create objects, and to delete them where a retention policy is configured"


class BucketDirectoryError(BucketForbiddenError):
    """The bucket is a directory, and this user, or this unit, may not write there."""

    hint = (
        "the directory must belong to the shipper's user; under systemd name it in `ReadWritePaths=` of capd-shipper and "
        "capd-catalogue: docs/operations.md, under Shipping, has the commands"
    )


class BucketClockError(BucketError):
    """The clocks of this host and of the bucket differ too much for signed requests."""

    hint = "set this host's clock (chrony, systemd-timesyncd); servers allow 15 minutes"


class BucketTlsError(BucketError):
    """No TLS connection to the bucket can be trusted."""

    hint = "give the authority's certificate in `bucket.ca_file` or AWS_CA_BUNDLE, and check the endpoint's name and scheme"


class BucketUnreachableError(BucketError):
    """Nobody answers at the bucket's address, or the connection broke."""

    hint = "check network, name and port of the endpoint; what is not shipped waits on this host"
    transient = True


class BucketTimeoutError(BucketUnreachableError):
    """The bucket did not finish an answer in the time it was given."""

    hint = "the bucket or the way to it is slow or dead; what is not shipped waits on this host"


class BucketBusyError(BucketError):
    """The bucket says that it cannot do this now."""

    hint = "nothing to do: it is tried again"
    transient = True


def classify(error: Exception, what: str, url: str) -> BucketError:
    """Give the class for an exception of obstore.

    Args:
        error: what obstore raised.
        what: what was tried, as "create host=.../x.seg".
        url: the bucket, for the message.
    """
    text = str(error)
    head = " ".join(text.split(_DEBUG, 1)[0].split())
    code = found[1] if (found := _CODE.search(text)) else ""
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    place = f"{url}: cannot {what}: "
    if any(word in text for word in _NO_CREDENTIALS_WORDS):  # it asked the cloud's metadata service, in vain
        return BucketCredentialsError(place + "no credentials are set")
    for matches, kind, words in _rules(error, text, code, status):
        if matches:
            return kind(place + (words or _brief(head, code, status)))
    return BucketError(place + _brief(head, code, status))


def is_behind_the_end(error: BaseException | None) -> bool:
    """Tell whether what obstore raised says that an object ends before the range that was asked for (RFC 9110, 15.5.17)."""
    text = str(error)
    status = _STATUS.search(text)
    return (status is not None and status[1] == "416") or any(words in text for words in _BEHIND_THE_END_WORDS)


def answered(status: int, body: bytes, what: str, url: str) -> BucketError:
    """Give the class for an answer of a server that we asked without obstore."""
    text = body.decode("utf-8", "replace")
    return classify(OSError(f"status code: {status} {text}"), what, url)


def _rules(error: Exception, text: str, code: str, status: int) -> list[tuple[bool, type[BucketError], str]]:
    """Give the rules in order: whether one holds, its class, and words where the server's would say less."""
    kind = type(error).__name__
    connect = "kind: Connect" in text
    return [
        (code in _NO_BUCKET_CODES, BucketMissingError, "there is no such bucket"),
        (isinstance(error, FileNotFoundError), ObjectMissingError, "there is no such object"),
        (code in _SKEW_CODES, BucketClockError, "the server's clock differs too much from this host's"),
        (code in _CREDENTIAL_CODES or kind == "UnauthenticatedError" or status == 401, BucketCredentialsError, ""),  # noqa: PLR2004 - HTTP
        (kind == "PermissionDeniedError" or status == 403, BucketForbiddenError, ""),  # noqa: PLR2004 - HTTP
        (any(word in text for word in _TLS_WORDS), BucketTlsError, _cause(text) or "the TLS handshake failed"),
        (any(word in text for word in _TIMEOUT_WORDS), BucketTimeoutError, "no answer in time"),
        ("dns error" in text, BucketUnreachableError, "the endpoint's name cannot be resolved"),
        (connect, BucketUnreachableError, _cause(text) or "no connection"),
        (status in _BUSY_STATUSES, BucketBusyError, ""),
        ("HTTP error" in text or "kind: Request" in text, BucketUnreachableError, "the connection broke"),
        (
            "no credentials" in text.lower() or "IMDS" in text or "169.254." in text,
            BucketCredentialsError,
            "no credentials are set",
        ),
    ]


def _cause(text: str) -> str:
    """Give the innermost message of a connection's failure."""
    if found := re.search(r"InvalidCertificate\(\s*(\w+)", text):
        return f"the server's certificate is not trusted: {found[1]}"
    if "corrupt message" in text or "InvalidMessage" in text:
        return "the server does not speak TLS there"
    quoted: list[str] = re.findall(r'message: "([^"]+)"', text)
    return quoted[-1] if quoted else ""


def _brief(head: str, code: str, status: int) -> str:
    if code or status:
        return f"the server says {' '.join(part for part in (str(status or ''), code) if part)}"
    return head[:TEXT_CHARACTERS_MAX]
