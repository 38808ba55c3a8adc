"""`[approvals]`: what may be configured, what is refused and why, and secrets that others could read.

What lives here: configurations as values, files of secrets. What must not: the process (tests/enforcer/test_callbacks_role.py).
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from capd.daemon import callback_parts, configuration, settled
from capd.daemon.callback_parts import callback_parts as parts_of
from capd.daemon.callback_secrets import read_secret
from capd.daemon.errors import CannotListenError, ConfigurationError
from tests.e2e.certificates import make
from tests.requirements import require_command, require_root

LISTEN = {"listen": "127.0.0.1:9478", "base_url": "https://approve.test"}
BOT = {"name": "bot", "url": "https://bot.test/hook", "secret_file": "/etc/capd/bot"}
CHAT = {"name": "chat", "format": "slack", "url_file": "/etc/capd/url", "secret_file": "/etc/capd/chat"}


def read(approvals: dict[str, Any]) -> configuration.Configuration:
    """Read a configuration."""
    return configuration.parse({"approvals": approvals}, "test")


@pytest.mark.parametrize(
    "approvals",
    [
        {},
        {"webhooks": [BOT]},
        {"webhooks": [CHAT]},
        {"webhooks": [{**CHAT, "secret_file": None}]},
        {"webhooks": [{**BOT, "url": "http://127.0.0.1:8080/x"}]},
        {**LISTEN, "webhooks": [BOT | {"approver": "ann"}, CHAT | {"slack_users": {"U012AB3CD": "ann", "W1X": "ben"}}]},
        {**LISTEN, "base_url": "https://approve.test:8443/capd"},
        {**LISTEN, "listen": "unix:/run/capd/links", "certificate": "/a", "key": "/b"},
    ],
    ids=range(8),
)
def test_what_is_taken(approvals: dict[str, Any]) -> None:
    """What makes sense is taken."""
    read(approvals)


@pytest.mark.parametrize(
    ("approvals", "problem"),
    [
        ({"webhooks": [BOT, BOT]}, "two webhooks have the same name"),
        ({"webhooks": [BOT | {"name": "A"}]}, "webhooks[0].name: must be 1 to 32 of a-z"),
        ({"webhooks": [BOT | {"url": "http://bot.test/"}]}, "must begin with https://"),
        ({"webhooks": [BOT | {"url": "http://localhost/"}]}, "must begin with https://"),
        ({"webhooks": [BOT | {"url": "https://ann:pw@bot.test/"}]}, "without user and fragment"),
        ({"webhooks": [BOT | {"url": "ftp://bot.test/"}]}, "must be an address such as"),
        ({"webhooks": [BOT | {"url": "https://bot.test:x/"}]}, "is no address"),
        ({"webhooks": [BOT | {"url": "https://bot.test/a b"}]}, "must be ASCII"),
        ({"webhooks": [BOT | {"url": "https://bot.test/\u00e4"}]}, "must be ASCII"),
        ({"webhooks": [BOT | {"url_file": "/x"}]}, "needs one of url and url_file"),
        ({"webhooks": [BOT | {"url": None}]}, "needs one of url and url_file"),
        ({"webhooks": [BOT | {"secret_file": None}]}, "needs secret_file"),
        ({"webhooks": [BOT | {"secret_file": "x"}]}, "must be an absolute path"),
        ({"webhooks": [BOT | {"approver": "root"}], **LISTEN}, "and not root"),
        ({"webhooks": [BOT | {"approver": "ann"}]}, "webhook bot has links or buttons, which need listen and base_url"),
        ({"webhooks": [BOT | {"slack_users": {"U1A": "ann"}}], **LISTEN}, "slack_users is for `slack`"),
        ({"webhooks": [CHAT | {"approver": "ann"}], **LISTEN}, "approver is for `generic`"),
        ({"webhooks": [CHAT | {"slack_users": {"ann": "ann"}}], **LISTEN}, "is no id of a user of Slack"),
        ({"webhooks": [CHAT | {"slack_users": {"U1A": "root"}}], **LISTEN}, "and not root"),
        (
            {"webhooks": [CHAT | {"slack_users": {"U1A": "ann"}, "secret_file": None}], **LISTEN},
            "slack_users needs secret_file",
        ),
        ({"webhooks": [CHAT | {"timeout_seconds": 0}]}, "greater than 0"),
        ({"webhooks": [BOT | {"name": f"a{number}"} for number in range(17)]}, "at most 16 items"),
        ({"listen": "127.0.0.1:9478"}, "listen and base_url go together"),
        (LISTEN | {"listen": "0.0.0.0:9478"}, "can be reached from other hosts"),
        (LISTEN | {"listen": "approve.test:9478"}, "is no address"),
        (LISTEN | {"base_url": "http://approve.test"}, "must begin with https://"),
        (LISTEN | {"base_url": "https://approve.test/"}, "no slash at its end"),
        (LISTEN | {"base_url": "https://approve.test?a"}, "must have no query"),
        (LISTEN | {"certificate": "/a"}, "certificate and key go together"),
    ],
    ids=range(29),
)
def test_what_is_refused(approvals: dict[str, Any], problem: str) -> None:
    """What could not work, or would let out or in what must not, is refused with the reason."""
    with pytest.raises(ConfigurationError) as caught:
        read(approvals)
    assert problem in str(caught.value)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o644, 0o666, 0o601])
def test_secrets_that_others_could_read(tmp_path: Path, mode: int) -> None:
    """A secret that others could read, or the group write, is refused, and not told."""
    path = tmp_path / "secret"
    path.write_bytes(b"0123456789abcdef")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="closed to others") as caught:
        read_secret(path, "key")
    assert "0123456789abcdef" not in str(caught.value)


def test_secrets_of_others(tmp_path: Path) -> None:
    """A secret that belongs to another user than root and oneself is refused."""
    require_root()
    path = tmp_path / "secret"
    path.write_bytes(b"0123456789abcdef")
    path.chmod(0o600)
    os.chown(path, 61_001, 0)
    with pytest.raises(ConfigurationError, match="user 61001"):
        read_secret(path, "key")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_secrets_that_are_kept(tmp_path: Path, mode: int) -> None:
    """A secret is read without the line's end."""
    path = tmp_path / "secret"
    path.write_bytes(b"0123456789abcdef\n")
    path.chmod(mode)
    assert b"0123456789abcdef" == read_secret(path, "key")


@pytest.mark.parametrize(
    ("content", "problem"), [(b"short\n", "less than 16 bytes"), (b"x" * 5_000, "larger"), (None, "No such")]
)
def test_secrets_that_are_none(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """A secret that could be guessed, or is none, is refused."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=problem):
        read_secret(path, "key")


def whole(
    tmp_path: Path, listen: str, url: bytes = b"https://hooks.test/services/s3cret", more: str = ""
) -> configuration.Configuration:
    """Give a configuration whose files are there, as a role has it."""
    for name, content in (("secret", b"0123456789abcdef"), ("url", url)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    text = f"""
state_dir = "{tmp_path}/state"
runtime_dir = "{tmp_path}/run"
[approvals]
listen = "{listen}"
base_url = "https://approve.test"
{more}
[[approvals.webhooks]]
name = "chat"
format = "slack"
url_file = "{tmp_path}/url"
secret_file = "{tmp_path}/secret"
slack_users = {{U1A = "ann"}}
"""
    (tmp_path / "capd.toml").write_text(text, encoding="utf-8")
    return settled.load(str(tmp_path / "capd.toml"))


def test_what_the_process_is_given(tmp_path: Path) -> None:
    """What is configured comes whole to the process, with its secrets and its socket."""
    found = parts_of(whole(tmp_path, f"unix:{tmp_path}/links"))
    assert found is not None
    assert found.listening is not None
    (receiver,), (webhook,) = found.receivers, found.links.webhooks
    assert ("https://hooks.test/services/s3cret", True, b"0123456789abcdef") == (receiver.url, receiver.slack, receiver.secret)
    assert ({"U1A": "ann"}, {"chat": b"0123456789abcdef"}) == (webhook.users, found.slack_secrets)
    assert str(tmp_path / "links") == found.listening.getsockname()
    found.listening.close()


def test_the_listeners_own_tls(tmp_path: Path) -> None:
    """With a certificate the listener speaks TLS; one that is none is told by its name."""
    require_command("openssl")
    (tmp_path / "tls").mkdir()
    made = make(tmp_path / "tls")
    for certificate, good in ((made.certificate, True), (tmp_path / "none", False), (tmp_path / "secret", False)):
        keys = f'certificate = "{certificate}"\nkey = "{made.key}"\n'
        settings = whole(tmp_path, f"unix:{tmp_path}/links", more=keys)
        if good:
            found = parts_of(settings)
            assert found is not None
            assert (found.tls is not None, found.listening is not None) == (True, True)
            if found.listening is not None:
                found.listening.close()
            continue
        with pytest.raises(ConfigurationError, match=r"approvals\.certificate"):
            parts_of(settings)


@pytest.mark.parametrize("url", [b"http://hooks.test/s3cret-s3cret", "https://hooks.test/s3cret-\u00e4".encode()], ids=range(2))
def test_a_secret_address_is_not_told(tmp_path: Path, url: bytes) -> None:
    """What is wrong with an address that is a secret is told without it."""
    with pytest.raises(ConfigurationError) as caught:
        parts_of(whole(tmp_path, f"unix:{tmp_path}/links", url))
    assert "s3cret" not in str(caught.value)
    assert "url_file" in str(caught.value)


def test_somebody_else_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody else listens the enforcer waits a moment, then says so."""
    monkeypatch.setattr(callback_parts, "LISTEN_SECONDS_MAX", 0.2)
    other = socket.create_server(("127.0.0.1", 0))
    with other, pytest.raises(CannotListenError, match="cannot serve links at 127"):
        parts_of(whole(tmp_path, f"127.0.0.1:{other.getsockname()[1]}"))


def test_without_webhooks_there_is_nothing(tmp_path: Path) -> None:
    """Where nobody is to be told there is no process."""
    (tmp_path / "capd.toml").write_text("", encoding="utf-8")
    assert parts_of(settled.load(str(tmp_path / "capd.toml"))) is None
