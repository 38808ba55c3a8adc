"""Agent: POSTs each file with asyncio streams over TLS (memory BIOs), one connection for each, several at a time.

streams.py CA PORT PATH_PREFIX CONCURRENT FILE...
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path


async def post(context: ssl.SSLContext, port: int, path: str, body: bytes, slots: asyncio.Semaphore) -> None:
    """Send one request and read the answer to its end."""
    async with slots:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        answer = await reader.read(-1)
        assert len(answer.partition(b"\r\n\r\n")[2]) == len(body)
        writer.close()
        await writer.wait_closed()


async def main(ca: str, port: str, prefix: str, concurrent: str, bodies: list[bytes]) -> None:
    """Send each body on a connection of its own."""
    context = ssl.create_default_context(cafile=ca)
    slots = asyncio.Semaphore(int(concurrent))
    async with asyncio.TaskGroup() as group:
        for number, body in enumerate(bodies):
            group.create_task(post(context, int(port), f"{prefix}.{number}/{len(body)}", body, slots))


if __name__ == "__main__":
    _, ca_, port_, prefix_, concurrent_, *files = sys.argv
    asyncio.run(main(ca_, port_, prefix_, concurrent_, [Path(name).read_bytes() for name in files]))
