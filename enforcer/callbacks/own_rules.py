"""Rules of capd's own that keep agents from the listener of links: no rule of an operator can allow them.

What lives here: their text. What must not: reading it (enforcer/policy).
"""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import urlsplit

from capd.enforcer.callbacks.address import port_of

REASON: Final = "agents do not come near what approves their requests"


def own_rules(base_url: str | None, listen: str | None) -> bytes:
    """Give the text of the rules; b"": there is no listener.

    Args:
        base_url: its public address.
        listen: where it listens, as it is configured.
    """
    if base_url is None or listen is None:
        return b""
    public = urlsplit(base_url)
    rules = [_rule("callbacks-name", "the public address of links", {"hosts": [public.hostname], "ports": [port_of(public)]})]
    host, _, port_text = listen.rpartition(":")
    if port_text.isdecimal():
        match = {"addresses": [host.strip("[]")], "ports": [int(port_text)]}
        rules.append(_rule("callbacks-address", "where links come in", match))
    return json.dumps({"rules": rules}).encode()


def _rule(name: str, description: str, match: dict[str, object]) -> dict[str, object]:
    return {"id": name, "description": description, "match": match, "then": "deny", "reason": REASON}
