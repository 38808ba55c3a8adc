"""An Azure Blob Storage server: azurite, on a free loopback port.

What lives here: starting and stopping it. What must not: cases.

`make env-test` puts it into the environment (packaging/npm).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from tests.requirements import require
from tests.servers.node import node

MAIN = Path(sys.prefix) / "azurite/node_modules/azurite/dist/src/blob/main.js"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""azurite's own, printed in its manual."""
START_SECONDS_MAX = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Azurite:
    """A running server."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{self.port}/{ACCOUNT}",
            "AZURE_ALLOW_HTTP": "true",
        }

    def url(self) -> str:
        """Give the URL of an empty part of a new container."""
        return f"{self.make()}/a/prefix"

    def make(self) -> str:
        """Make a container and give its URL; obstore has no call for that."""
        name = f"c{uuid.uuid4().hex[:12]}"
        path = f"/{ACCOUNT}/{name}"
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        lines = "".join(f"{word}:{headers[word]}\n" for word in sorted(headers))
        text = "PUT" + "\n" * 12 + f"{lines}/{ACCOUNT}{path}\nrestype:container"
        signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers |= {"Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": "0"}
        connection.request("PUT", f"{path}?restype=container", headers=headers)
        response = connection.getresponse()
        assert response.status == 201, response.read()
        connection.close()
        return f"az://{name}"


@contextmanager
def server(directory: Path) -> Iterator[Azurite]:
    """Run it with its files in a directory; stop it at the end. Takes about a second to start."""
    program = node()
    require(MAIN.exists(), "needs azurite; `make env-test` brings it")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    place = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(directory)]
    quiet = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    process = subprocess.Popen([program, MAIN, *place, *quiet], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_SECONDS_MAX
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            assert time.monotonic() < end, "azurite did not start"
            time.sleep(0.1)
        yield Azurite(port=port)
    finally:
        process.terminate()
        process.wait()
