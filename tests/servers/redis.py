"""A real Redis on a free loopback port, in a temporary directory.

What lives here: starting and stopping it. What must not: anything of a test.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.decoders.relay import free_port
from tests.requirements import require, require_command

START_SECONDS_MAX: Final = 180.0
STOP_SECONDS_MAX: Final = 90.0
PASSWORD: Final = "correct-horse-battery"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    """A running server.

    Attributes:
        port: on 127.0.0.1.
        directory: its own.
        options: of clients on a command line, to reach it.
    """

    port: int
    directory: Path

    @property
    def options(self) -> list[str]:
        """What redis-cli and redis-benchmark need to reach it."""
        return ["-h", "127.0.0.1", "-p", str(self.port)]


@contextmanager
def redis_server(
    *options: str, tls: Sequence[Path] = (), within: Sequence[str] = (), address: str = "127.0.0.1", port: int = 0
) -> Iterator[RedisServer]:
    """Run a server that keeps nothing.

    Args:
        options: further ones of redis-server, in pairs.
        tls: files of its authority, its certificate and its key: it then speaks TLS only.
        within: what its command begins with, such as what enters a network namespace.
        address: on which it listens, there.
        port: likewise; 0: a free one.
    """
    require_command("redis-cli", "redis-benchmark")
    program = shutil.which("redis-check-rdb")
    require(program, "needs a Redis server: redis-check-rdb of redis-tools, which is redis-server by another name")
    assert program is not None
    with TemporaryDirectory(prefix="capd-redis-") as directory:
        port = port or free_port()
        listen = ["--port", str(port)]
        if tls:
            names = ("--tls-ca-cert-file", "--tls-cert-file", "--tls-key-file")
            files = [word for name, file in zip(names, tls, strict=True) for word in (name, str(file))]
            listen = ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", *files]
        kept = ["--save", "", "--appendonly", "no", "--dir", directory, "--bind", address, "--daemonize", "no"]
        command = ["redis-server", *listen, *kept, "--logfile", f"{directory}/log", *options]
        # By its name it knows that it is the server.
        named = [*within, "bash", "-c", 'exec -a redis-server "$0" "$@"', program, *command[1:]]
        process = subprocess.Popen(named, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            _wait(process, Path(directory) / "log")
            yield RedisServer(port=port, directory=Path(directory))
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS_MAX
    while True:
        with suppress(OSError):
            if b"Ready to accept connections" in log.read_bytes():
                return
        assert process.poll() is None, log.read_text(encoding="utf-8") if log.exists() else "redis-server ended"
        assert time.monotonic() < end, "redis-server did not start"
        time.sleep(0.02)
