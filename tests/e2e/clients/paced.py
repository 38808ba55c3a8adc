"""Agent: POSTs the same file many times on one connection, ten times a second.

paced.py CA PORT PATH_PREFIX COUNT FILE [ENOUGH]
"""

from __future__ import annotations

import http.client
import ssl
import sys
import time
from pathlib import Path


def main(ca: str, port: str, prefix: str, count: str, name: str, *more: str) -> None:
    """Talk for COUNT tenths of a second, or, where ENOUGH is given, until there is such a file, and then a last time."""
    body, enough = Path(name).read_bytes(), [Path(one) for one in more]
    connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=ssl.create_default_context(cafile=ca))

    def post(number: int | str) -> None:
        connection.request("POST", f"{prefix}.{number}/{len(body)}", body=body)
        connection.getresponse().read()

    for number in range(int(count)):
        if any(one.exists() for one in enough):
            break
        post(number)
        time.sleep(0.1)
    if enough:
        post("last")
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
