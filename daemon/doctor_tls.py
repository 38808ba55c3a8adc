"""Whether runtimes on this host trust what the enforcer shows them: each is tried, with the environment that `capd run` gives.

What lives here: looking, and trying. What must not: the screen (cli/doctor.py), mending.

A server on loopback shows a leaf of the authority; every runtime that is found on PATH fetches a page from it. Nothing of it is
redirected: whoever calls the doctor is in no run.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509

from capd.daemon import trust, trust_environment
from capd.daemon.finding import Finding, Mark
from capd.enforcer.tls.authority import Authority
from capd.enforcer.tls.contexts import Leaves
from capd.enforcer.tls.errors import AuthorityUnusableError
from capd.recording.durable import read_regular

if TYPE_CHECKING:  # its library takes time that only who needs it should spend
    from capd.daemon.configuration import Configuration

TRY_SECONDS_MAX: Final = 20.0
"""A Java that starts on a slow machine; the others take a tenth of it."""
RENEWAL_DAYS: Final = 30
PAGE: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
SYSTEM_WIDE: Final = (
    "it does not heed SYSTEM_WGETRC and reads the system's store only: "
    "copy authority.pem to /usr/local/share/ca-certificates/capd.crt and run "
    "`update-ca-certificates` (Debian), or `trust anchor --store authority.pem` (Fedora)"
)
_NODE: Final = "fetch(process.argv[1]).then(r => r.text(), e => { console.error(e.cause || e); process.exit(1) })"
_RUBY: Final = "require 'open-uri'; URI.open(ARGV[0]).read"
_PYTHON: Final = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()"
_REQUESTS: Final = "import sys, requests; requests.get(sys.argv[1])"
_DENO: Final = "await (await fetch(Deno.args[0])).text()"


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Something that speaks TLS.

    Attributes:
        name: for the operator.
        command: words; the URL comes last.
        needs: what must succeed for it to be there at all.
        next_step: what to do when it does not trust us.
    """

    name: str
    command: Sequence[str]
    needs: Sequence[str] = ()
    next_step: str = "see which variable it reads, and point it at bundle.pem"


RUNTIMES: Final = (
    Runtime(name="curl", command=("curl", "-sS", "-o", os.devnull)),
    Runtime(name="python3", command=("python3", "-c", _PYTHON)),
    Runtime(name="requests", command=("python3", "-c", _REQUESTS), needs=("python3", "-c", "import requests")),
    Runtime(name="node", command=("node", "-e", _NODE)),
    Runtime(name="deno", command=("deno", "eval", _DENO)),
    Runtime(name="ruby", command=("ruby", "-e", _RUBY)),
    Runtime(name="wget", command=("wget", "-q", "-O", os.devnull), next_step=SYSTEM_WIDE),
)


def check_tls(configuration: Configuration) -> list[Finding]:
    """Look at the authority and its stores, and try the runtimes that are there."""
    if configuration.enforcement.mode == "off":
        return [
            Finding(subject="enforcement", mark=Mark.NOTE, found="off: nobody opens agents' TLS, there is nothing to trust")
        ]
    findings = [*_files(configuration)]
    try:
        authority = trust.load(configuration, datetime.now(UTC))
    except AuthorityUnusableError as error:
        step = "repeat it as root: runtimes are tried with a leaf, which needs the key" if os.geteuid() != 0 else error.hint
        return [*findings, Finding(subject="authority", mark=Mark.BAD, found=str(error), next_step=step)]
    with _server(authority) as port:
        return [*findings, *_tried(configuration, f"https://localhost:{port}/")]


def _files(configuration: Configuration) -> Iterator[Finding]:
    try:
        pem = read_regular(trust.authority_file(configuration), trust.KEY_BYTES_MAX)
        certificate = x509.load_pem_x509_certificate(pem)
        bundle = read_regular(trust_environment.bundle_file(configuration.trust_dir), trust.BUNDLE_BYTES_MAX)
    except (OSError, ValueError) as error:
        yield Finding(subject="authority", mark=Mark.BAD, found=str(error), next_step="start capd: it makes what is missing")
        return
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    over = left < timedelta(days=RENEWAL_DAYS)
    step = "remove `authority.key` from `state_dir`/enforcer and restart capd when agents can take up a new one" if over else ""
    yield Finding(
        subject="authority", mark=Mark.BAD if over else Mark.GOOD, found=f"valid for {left.days} more days", next_step=step
    )
    if pem.strip() in bundle:
        yield Finding(
            subject="bundle", mark=Mark.GOOD, found=f"{bundle.count(b'BEGIN CERTIFICATE')} authorities, ours among them"
        )
    else:
        yield Finding(subject="bundle", mark=Mark.BAD, found="ours is not in it", next_step="restart capd: it writes it anew")
    with suppress(OSError):
        key = trust.authority_key_file(configuration).stat()
        if key.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            found = f"others than its owner may read it (mode {key.st_mode & 0o777:o})"
            yield Finding(subject="key", mark=Mark.BAD, found=found, next_step="`chmod 400` it, and make a new one")
        else:
            yield Finding(subject="key", mark=Mark.GOOD, found=f"readable to user {key.st_uid} alone")


def _tried(configuration: Configuration, url: str) -> Iterator[Finding]:
    environment = {**os.environ, **trust_environment.variables(configuration.trust_dir, os.environ)}
    for runtime in RUNTIMES:
        if shutil.which(runtime.command[0]) is None:
            continue
        if runtime.needs and _run(runtime.needs, environment) is not None:
            continue
        problem = _run([*runtime.command, url], environment)
        if problem is None:
            yield Finding(subject=runtime.name, mark=Mark.GOOD, found="trusts us")
        else:
            yield Finding(
                subject=runtime.name, mark=Mark.BAD, found=f"does not trust us: {problem}", next_step=runtime.next_step
            )


def _run(words: Sequence[str], environment: dict[str, str]) -> str | None:
    """Run a command; give its last word on what went wrong, or None."""
    try:
        done = subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRY_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return said[-1].strip() if said else f"status {done.returncode}"


@contextmanager
def _server(authority: Authority) -> Iterator[int]:
    """Serve pages with a leaf for localhost; gives the port."""
    context = Leaves(authority, lambda: datetime.now(UTC)).context("localhost", None)
    with socket.create_server(("localhost", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, context), daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as secured:
            secured.settimeout(TRY_SECONDS_MAX)
            secured.recv(65_536)
            secured.sendall(PAGE)
            secured.unwrap()
