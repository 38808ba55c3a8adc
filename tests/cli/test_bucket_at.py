"""A verb with --bucket reaches the configured bucket as the configuration says, and any other as the environment says."""

from __future__ import annotations

from pathlib import Path

import pytest

from capd.cli.bucket import bucket_at
from capd.daemon.errors import ConfigurationError

AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
SECTION = f'[bucket]\nendpoint = "https://ceph.example"\nregion = "r"\nca_file = "{AUTHORITIES}"\nallow_http = false\n'


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give what every client of S3 reads."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://elsewhere.example")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "SSL_CERT_FILE", "AWS_ALLOW_HTTP", "CAPD_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("configuration", "url", "endpoint", "region"),
    [
        (f'bucket_url = "s3://recordings"\n{SECTION}', "s3://recordings/fleet", "https://ceph.example", "r"),
        (f'bucket_url = "s3://recordings/fleet"\n{SECTION}', "s3://recordings", "https://ceph.example", "r"),
        (f'bucket_url = "s3://others"\n{SECTION}', "s3://recordings", "https://elsewhere.example", "us-east-1"),
        (f'bucket_url = "gs://recordings"\n{SECTION}', "s3://recordings", "https://elsewhere.example", "us-east-1"),
        (SECTION, "s3://recordings", "https://elsewhere.example", "us-east-1"),
        ('bucket_url = "s3://recordings"\n', "s3://recordings", "https://elsewhere.example", "us-east-1"),
    ],
)
def test_the_configured_bucket_is_reached_as_configured(
    tmp_path: Path, configuration: str, url: str, endpoint: str, region: str
) -> None:
    """`[bucket]` counts for the bucket that the configuration names, whatever the prefix, and for no other."""
    file = tmp_path / "capd.toml"
    file.write_text(configuration, encoding="utf-8")
    options = bucket_at(url, str(file)).options
    assert (endpoint, region) == (options.endpoint, options.region)
    assert options.ca_file == (Path(AUTHORITIES) if region == "r" else None)


@pytest.mark.parametrize("section", ['bucket = "x"\n', "[bucket]\nendpoint = 7\n", '[bucket]\nallow_http = "yes"\n'])
def test_a_section_that_cannot_be_used_is_told(tmp_path: Path, section: str) -> None:
    """A `[bucket]` that says something else than it can is an error of the configuration."""
    file = tmp_path / "capd.toml"
    file.write_text(f'bucket_url = "s3://recordings"\n{section}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"\[bucket\]"):
        bucket_at("s3://recordings", str(file))
