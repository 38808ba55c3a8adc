"""Agent: POSTs the same file many times on one connection, ten times a second.

paced.py CA PORT PATH_PREFIX COUNT FILE
"""

from __future__ import annotations

import http.client
import ssl
import sys
import time
from pathlib import Path


def main(ca: str, port: str, prefix: str, count: str, name: str) -> None:
    """Talk for COUNT tenths of a second."""
    body = Path(name).read_bytes()
    connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=ssl.create_default_context(cafile=ca))
    for number in range(int(count)):
        connection.request("POST", f"{prefix}.{number}/{len(body)}", body=body)
        connection.getresponse().read()
        time.sleep(0.1)
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
