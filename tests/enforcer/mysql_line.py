"""Command lines of MySQL's own clients, from the root file system of its server.

What lives here: their options. What must not: running them.
"""

from __future__ import annotations

from pathlib import Path

from tests.servers.mysql import client


def command_line(name: str, *words: str, trust: Path | None) -> tuple[str, ...]:
    """Give the command line of one that connects to `api.test` as the agent.

    Args:
        name: of the program.
        words: further ones.
        trust: what it trusts in TLS, in which it has to be told to name the server; None: it speaks in clear, and asks for the
            server's key for its password.
    """
    if trust is None:
        tls = ["--ssl-mode=DISABLED", "--get-server-public-key"]
    else:
        tls = ["--ssl-mode=VERIFY_IDENTITY", f"--ssl-ca={trust}", "--tls-sni-servername=api.test"]
    return (*client(name), "--no-defaults", "--protocol=TCP", "--host=api.test", "--port=3306", "--user=agent", *tls, *words)
