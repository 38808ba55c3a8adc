"""The environment variables by which runtimes trust the authority of this host.

What lives here: which variables there are, and where they point. What must not: making the files (trust.py), slow imports:
`capd run` sets them between an agent and its start.

Some variables replace what a runtime trusts, others add to it: the former point at a bundle of the system's authorities and
ours, the latter at ours alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

AUTHORITY: Final = "authority.pem"
"""Our authority alone."""
STORE_PASSWORD: Final = "changeit"  # noqa: S105 - Java wants one for a store of public certificates, and this is everybody's
REPLACING: Final = (
    "SSL_CERT_FILE",  # OpenSSL, Go, Ruby, uv, Rust's native certificates
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "NPM_CONFIG_CAFILE",  # what an npmrc names would have npm pass over NODE_EXTRA_CA_CERTS
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HEX_CACERTS_PATH",
    "NIX_SSL_CERT_FILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
)
"""Variables that replace what a runtime trusts; they point at the bundle."""
ADDING: Final = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
"""Variables that add to it; they point at our authority alone."""


def bundle_file(trust_dir: Path) -> Path:
    """Give where the system's authorities and ours are together."""
    return trust_dir / "bundle.pem"


def java_store_file(trust_dir: Path) -> Path:
    """Give the same for Java."""
    return trust_dir / "truststore.p12"


def wget_file(trust_dir: Path) -> Path:
    """Give the settings of wget, which knows no variable for what it trusts, but one for its system-wide settings."""
    return trust_dir / "wgetrc"


def variables(trust_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Give the environment variables by which runtimes trust our authority.

    Args:
        trust_dir: where the files are.
        environment: as it is; Java's options are added to.
    """
    store = java_store_file(trust_dir)
    options = (
        f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStoreType=PKCS12"
        f" -Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}"
    )
    java = environment.get("JAVA_TOOL_OPTIONS", "")
    return {
        **dict.fromkeys(REPLACING, str(bundle_file(trust_dir))),
        **dict.fromkeys(ADDING, str(trust_dir / AUTHORITY)),
        "SYSTEM_WGETRC": str(wget_file(trust_dir)),
        "JAVA_TOOL_OPTIONS": f"{java} {options}".strip(),
    }
