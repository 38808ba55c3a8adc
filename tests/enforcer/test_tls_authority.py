"""The authority and its leaves, as the verifiers of others see them.

What lives here: certificates on disk, judged by OpenSSL, GnuTLS, Java and Python. What must not: connections (test_tls.py).
"""

from __future__ import annotations

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store

from capd.enforcer.tls.authority import AUTHORITY_DAYS, LEAF_DAYS, Authority, load_authority, make_authority, mint
from capd.enforcer.tls.contexts import LEAF_AGE_MAX, LEAVES_MAX, Leaves
from capd.enforcer.tls.errors import AuthorityUnusableError
from tests.requirements import require_command

NOW = datetime.now(UTC).replace(microsecond=0)
KEY = ec.generate_private_key(ec.SECP256R1())
NAMES = ("api.test", "*.wild.test", "192.0.2.1", "2001:db8::1", ".".join(["label" * 12] * 4))


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Make one."""
    return make_authority("host", NOW)


@pytest.mark.parametrize("name", NAMES)
def test_openssl_is_strict_and_content(authority: Authority, name: str, tmp_path: Path) -> None:
    """OpenSSL with -x509_strict, which Python 3.13 asks for, verifies leaves of names and addresses."""
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    leaf = mint(authority, name, KEY.public_key(), NOW)
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    words = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.pem", "leaf.pem"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    assert (0, b"leaf.pem: OK\n") == (done.returncode, done.stdout), done.stderr


def test_gnutls_is_content(authority: Authority, tmp_path: Path) -> None:
    """GnuTLS, which wget speaks, verifies a leaf for its name."""
    require_command("certtool")
    leaf = mint(authority, "api.test", KEY.public_key(), NOW)
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    chain = leaf.public_bytes(Encoding.PEM) + authority.certificate_pem
    words = [
        "certtool",
        "--verify",
        "--load-ca-certificate",
        "ca.pem",
        "--verify-hostname",
        "api.test",
        "--verify-profile",
        "medium",
    ]
    done = subprocess.run(words, cwd=tmp_path, input=chain, capture_output=True, check=False)
    assert 0 == done.returncode, done.stdout
    assert b"The certificate is trusted." in done.stdout


def test_rustls_like_rules_are_met(authority: Authority) -> None:
    """The web PKI's profile, which webpki and cryptography hold certificates against, is met."""
    store = Store([authority.certificate])
    verifier = PolicyBuilder().store(store).time(NOW).build_server_verifier(x509.DNSName("api.test"))
    assert 2 == len(verifier.verify(mint(authority, "api.test", KEY.public_key(), NOW), []))


def test_times_are_short_and_inside(authority: Authority) -> None:
    """A leaf is short, begins before now for clocks that are late, and never outlives its authority."""
    leaf = mint(authority, "api.test", KEY.public_key(), NOW)
    assert leaf.not_valid_before_utc < NOW < leaf.not_valid_after_utc <= NOW + timedelta(days=LEAF_DAYS)
    late = NOW + timedelta(days=AUTHORITY_DAYS - 1)
    assert authority.certificate.not_valid_after_utc == mint(authority, "a", KEY.public_key(), late).not_valid_after_utc


def test_the_authority_signs_nothing_but_leaves(authority: Authority) -> None:
    """A leaf is no authority, and no authority can be made below ours."""
    constraints = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (True, True, 0) == (constraints.critical, constraints.value.ca, constraints.value.path_length)
    leaf = mint(authority, "api.test", KEY.public_key(), NOW)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_it_comes_back_from_disk(authority: Authority) -> None:
    """What was written is read; another's key, damage and an end of its time are told."""
    again = load_authority(authority.certificate_pem, authority.key_pem, NOW)
    assert authority.certificate == again.certificate
    other = make_authority("host", NOW)
    over = NOW + timedelta(days=AUTHORITY_DAYS + 1)
    for certificate, key, now in (
        (authority.certificate_pem, other.key_pem, NOW),
        (authority.certificate_pem[:-80], authority.key_pem, NOW),
        (b"", authority.key_pem, NOW),
        (authority.certificate_pem, b"", NOW),
        (authority.certificate_pem, authority.key_pem, over),
    ):
        with pytest.raises(AuthorityUnusableError):
            load_authority(certificate, key, now)


def test_leaves_are_remembered_and_forgotten(authority: Authority) -> None:
    """A name has one leaf until half its time is over, and names that an agent invents push out one another."""
    now = NOW
    leaves = Leaves(authority, lambda: now)
    first = leaves.context("api.test", "http/1.1")
    assert first is leaves.context("api.test", "http/1.1")
    assert first is not leaves.context("api.test", None)
    now += LEAF_AGE_MAX
    assert first is not leaves.context("api.test", "http/1.1")
    for number in range(LEAVES_MAX):
        leaves._known[f"{number}.test", None] = (now, first)
    leaves.context("last.test", None)
    assert len(leaves) <= LEAVES_MAX + 2


@pytest.mark.parametrize("name", ["", "a b", "ä.test", "a" * 70 + ".test"])
def test_names_that_are_none_get_no_leaf(authority: Authority, name: str) -> None:
    """A name is refused, or has a leaf that is only for it."""
    try:
        leaf = mint(authority, name, KEY.public_key(), NOW)
    except ValueError:
        return
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name] == names.get_values_for_type(x509.DNSName)


def test_no_key_touches_a_disk(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaf's key goes to OpenSSL through memory."""
    asked: list[str] = []
    load = ssl.SSLContext.load_cert_chain

    def noted(context: ssl.SSLContext, certfile: str, *rest: str) -> None:
        asked.append(str(Path(certfile).readlink()))
        load(context, certfile, *rest)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", noted)
    Leaves(authority, lambda: NOW).context("api.test", None)
    assert ["/memfd:leaf (deleted)"] == asked
