"""Agent: POSTs each file with http.client over blocking ssl, and asks for as many bytes back.

blocking.py CA PORT PATH_PREFIX [--keep-alive] FILE...
"""

from __future__ import annotations

import http.client
import ssl
import sys
from pathlib import Path


def main(ca: str, port: str, prefix: str, *files: str) -> None:
    """Send each file, on a connection of its own or on one for all."""
    keep = files[0] == "--keep-alive"
    connection = None
    for name in files[keep:]:
        body = Path(name).read_bytes()
        if connection is None:
            context = ssl.create_default_context(cafile=ca)
            connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context)
        connection.request("POST", f"{prefix}/{len(body)}", body=body)
        assert len(connection.getresponse().read()) == len(body)
        if not keep:
            connection.close()
            connection = None


if __name__ == "__main__":
    main(*sys.argv[1:])
