"""What a person is told when a bucket cannot be used: each mistake by its own name, asked of a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from capd.recording.bucket import Bucket, Kind, Options
from capd.recording.bucket.errors import (
    BucketClockError,
    BucketCredentialsError,
    BucketError,
    BucketMissingError,
    BucketTlsError,
    BucketUnreachableError,
    BucketUrlError,
    classify,
)
from capd.recording.bucket.location import parse, with_environment
from capd.recording.bucket.signed import ObjectLock, Retention, SignedRequests
from tests.daemon.conftest import in_namespace
from tests.servers.ceph import Ceph

QUICK = Options(timeout_seconds=5, retries=0)
NO_BUCKET = "s3://no-such-bucket-anywhere"


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        ({}, BucketMissingError, "there is no such bucket"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, BucketCredentialsError, "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "NOBODY"}, BucketCredentialsError, "InvalidAccessKeyId"),
        ({"AWS_CA_BUNDLE": ""}, BucketTlsError, "certificate is not trusted"),
        ({"AWS_CA_BUNDLE": "/nothing.pem"}, BucketTlsError, "cannot read the certificates in /nothing.pem"),
        ({"AWS_ENDPOINT_URL": "https://127.0.0.1:1"}, BucketUnreachableError, ""),
        ({"AWS_ENDPOINT_URL": "https://nothing.invalid"}, BucketUnreachableError, "name cannot be resolved"),
        ({"AWS_ENDPOINT_URL": "https://127.0.0.1:PLAIN"}, BucketTlsError, "does not speak TLS"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:PLAIN"}, BucketError, ""),
    ],
)
def test_each_mistake_has_its_name(
    ceph: Ceph, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], expected: type[BucketError], words: str
) -> None:
    """Every operation says the same: what is wrong, never the secret, and what to do."""
    for name, value in {**ceph.environment, **changes}.items():
        monkeypatch.setenv(name, value.replace("PLAIN", str(ceph.plain_port)))
    asks: list[Callable[[Bucket], object]] = [
        lambda bucket: bucket.list("a/"),
        lambda bucket: bucket.folders("a/"),
        lambda bucket: bucket.create("a", b"1"),
    ]
    for ask in asks:
        with pytest.raises(expected) as caught:
            ask(Bucket.open(NO_BUCKET, QUICK))
        assert words in str(caught.value)
        assert caught.value.hint
        assert "SKTEST" not in str(caught.value)


CREATES = """
from pathlib import Path
from capd.recording.bucket import Bucket
try: Bucket.open("file:///mnt").create("host=a/x", b"x")
except Exception as error: print(type(error).__name__, "ReadWritePaths=" in error.hint, error)
"""


def test_a_directory_that_is_closed_to_the_unit_has_its_name() -> None:
    """Where a unit may not write, as systemd has it of all that is not named, the reason says so, and where to name it."""
    done = in_namespace(CREATES, prepare="mount -t tmpfs -o ro none /mnt")
    assert ("", "BucketDirectoryError True /mnt: cannot create host=a/x: Read-only file system\n") == (done.stderr, done.stdout)


def test_a_wrong_clock_has_its_name(ceph: Ceph) -> None:
    """A host whose clock is an hour late is told that, and not that its key is wrong."""
    bucket = ceph.make("clock", lock=True)
    options = with_environment(QUICK, Kind.S3, ceph.environment)
    late = SignedRequests(parse(f"s3://{bucket}"), options, ceph.environment, now=lambda: 1_700_000_000.0)
    with pytest.raises(BucketClockError, match="clock"):
        late.object_lock()
    skewed = OSError("status code: 403 Forbidden: <Error><Code>RequestTimeTooSkewed</Code></Error>")
    assert BucketClockError is type(classify(skewed, "create x", "s3://b"))


def test_object_lock_is_seen(ceph: Ceph) -> None:
    """A bucket without lock, one with, and one that locks each object by default; an object's own retention and hold."""
    plain, bare, locked = ceph.make("plain"), ceph.make("bare", lock=True), ceph.make("locked", retention=("GOVERNANCE", 3))
    assert ObjectLock(enabled=False) == ceph.requests(plain).object_lock()
    assert ObjectLock(enabled=True) == ceph.requests(bare).object_lock()
    requests = ceph.requests(locked)
    assert ObjectLock(enabled=True, mode="GOVERNANCE", days=3) == requests.object_lock()
    assert "object lock, GOVERNANCE for 3 days" == str(requests.object_lock())
    assert 200 == requests.request("PUT", "a/b", {}, b"content").status
    retention = requests.retention("a/b")
    assert isinstance(retention, Retention)
    assert "GOVERNANCE" == retention.mode
    (version,) = requests.versions("a/b")
    with pytest.raises(BucketError, match="403"):
        requests.delete_version("a/b", version.name)
    assert not requests.held("a/b")
    requests.hold("a/b", on=True)
    assert requests.held("a/b")
    with pytest.raises(BucketError, match="403"):
        requests.delete_version("a/b", version.name, bypass=True)
    requests.hold("a/b", on=False)
    requests.delete_version("a/b", version.name, bypass=True)
    assert [] == requests.versions("a/b")
    for bucket in (plain, bare):
        assert 200 == ceph.requests(bucket).request("PUT", "a/b", {}, b"content").status
        assert None is ceph.requests(bucket).retention("a/b")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bucket",
        "ftp://x/y",
        "s3://",
        "s3:///x",
        "s3://b/../c",
        "s3://key:secret@b/x",
        "s3://b?x=1",
        "file://host/x",
        "az://",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    """What is no URL of a bucket is refused before anything is asked, and a secret in it is not repeated."""
    with pytest.raises(BucketUrlError) as caught:
        Bucket.open(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kind", "text"),
    [
        ("s3://b", Kind.S3, "s3://b"),
        ("s3a://b//x/y/", Kind.S3, "s3://b/x/y"),
        ("az://container/p", Kind.AZURE, "az://container/p"),
        ("gs://b/p%20q", Kind.GCS, "gs://b/p q"),
        ("file:///a/b%20c/", Kind.LOCAL, "file:///a/b%20c"),
        ("/a/b/", Kind.LOCAL, "file:///a/b"),
        ("file://localhost/a", Kind.LOCAL, "file:///a"),
    ],
)
def test_urls(url: str, kind: Kind, text: str) -> None:
    """Each way to write a bucket's place means one place."""
    assert (kind, text) == (parse(url).kind, str(parse(url)))


def test_options_come_before_the_environment(tmp_path: Path) -> None:
    """What is configured wins; what is not comes from the variables of that kind of bucket."""
    environment = {"AWS_ENDPOINT_URL": "https://e", "AWS_REGION": "r", "AWS_CA_BUNDLE": "/ca", "AWS_ALLOW_HTTP": "TRUE"}
    filled = with_environment(Options(), Kind.S3, environment)
    assert ("https://e", "r", Path("/ca"), True) == (filled.endpoint, filled.region, filled.ca_file, filled.allow_http)
    own = Options(endpoint="https://o", region="s", ca_file=tmp_path, allow_http=False)
    assert own == with_environment(own, Kind.S3, environment)
    assert (None, "us-east-1") == (
        with_environment(Options(), Kind.S3, {}).endpoint,
        with_environment(Options(), Kind.S3, {}).region,
    )
    assert None is with_environment(Options(), Kind.GCS, environment).endpoint
