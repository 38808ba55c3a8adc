"""Agent: shakes hands in a parent, then speaks TLS on the same connection in a forked child, then in the parent again.

forked.py CA PORT PATH_PREFIX FILE...
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from pathlib import Path


def main(ca: str, port: str, prefix: str, *files: str) -> None:
    """Send each file on a new connection that a child uses after fork."""
    context = ssl.create_default_context(cafile=ca)
    for name in files:
        body = Path(name).read_bytes()
        connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context)
        connection.connect()
        child = os.fork()
        if child == 0:
            connection.request("POST", f"{prefix}.child/{len(body)}", body=body)
            good = len(connection.getresponse().read()) == len(body)
            os._exit(0 if good else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        # The parent's TLS state did not see what the child sent: it may only close.
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
