"""`capd mask`: what would be hidden is told, and is not shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from capd.cli.main import capd
from capd.enforcer.masking import scanner

SECRETS = ("abcdefghij", "x-y-z", "pw-123", "4711")
REQUEST = (
    b"POST /x?token=abcdefghij HTTP/1.1\r\nAuthorization: Bearer x-y-z\r\nCookie: sid=4711\r\n"
    b'Content-Length: 22\r\n\r\n{"password": "pw-123"}'
)
ROWS = b"Q\0\0\0\x1bSELECT id, ssn FROM people\0"


def run(tmp_path: Path, *arguments: str, data: bytes = REQUEST, config: str = "") -> tuple[int, str]:
    """Run the verb with a file; give exit status and output."""
    (tmp_path / "said").write_bytes(data)
    (tmp_path / "capd.toml").write_text(config)
    settings = ["--config", str(tmp_path / "capd.toml")]
    done = CliRunner().invoke(capd, ["mask", *arguments, *settings], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return int(done.return_value or 0), done.stdout


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_places_are_told_without_their_values(tmp_path: Path, form: list[str]) -> None:
    """Kinds, rules, lengths and places are printed; no value is."""
    status, text = run(tmp_path, "test", str(tmp_path / "said"), *form)
    assert 0 == status
    assert [] == [secret for secret in SECRETS if secret in text]
    for word in ("key token", "header authorization", "header cookie", "key password", "credential", "cookie"):
        assert word in text


def test_json_has_the_exact_places(tmp_path: Path) -> None:
    """Positions and lengths are those of the values in the file."""
    _, text = run(tmp_path, "test", str(tmp_path / "said"), "--json")
    told = json.loads(text)
    assert ("http1", "request", len(REQUEST)) == (told["protocol"], told["direction"], told["bytes"])
    hidden = [REQUEST[place["position"] : place["position"] + place["length"]].decode() for place in told["places"]]
    assert list(SECRETS) == sorted(hidden, key=SECRETS.index)
    assert sum(map(len, SECRETS)) == told["masked_bytes"]


def test_nothing_to_hide(tmp_path: Path) -> None:
    """A file in which nothing would be hidden gives exit status 1 and says so."""
    status, text = run(tmp_path, "test", str(tmp_path / "said"), data=b"hello\n")
    assert (1, True) == (status, "nothing would be masked" in text)


def test_a_failure_is_not_taken_for_nothing_to_hide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where masking itself fails nothing of a session is stored, and that is what is said."""
    monkeypatch.setattr(scanner, "valid", lambda _rule, _found: 1 // 0)
    status, text = run(tmp_path, "test", str(tmp_path / "said"), data=b"card 4111111111111111\n")
    assert (0, True) == (status, "masking failed" in text and "22 bytes would be masked" in text)


def test_the_configuration_counts(tmp_path: Path) -> None:
    """Rules of the configuration are used, and listed with the level and its scopes."""
    config = '[masking]\nbuiltin = false\nidentifiers = []\nkeys = ["colour"]\n[[recording.scope]]\nlevel = "off"\nport = 25\n'
    status, text = run(tmp_path, "test", str(tmp_path / "said"), data=b"colour=red&password=x", config=config)
    assert (0, True, False) == (status, "key colour" in text, "password" in text)
    _, text = run(tmp_path, "rules", config=config)
    assert "masked" in text.splitlines()[0]
    assert "25" in text.splitlines()[1]
    assert [["key", "colour"]] == [line.split() for line in text.splitlines()[2:]]


@pytest.mark.parametrize(
    ("level", "expected", "words"),
    [
        ("full", 1, "everything would be stored as it is: recording.level is full"),
        ("metadata", 0, "nothing of this would be stored: recording.level is metadata"),
        ("off", 0, "nothing of this would be stored: recording.level is off"),
    ],
)
def test_the_level_counts(tmp_path: Path, level: str, expected: int, words: str) -> None:
    """Where nothing is masked, or nothing stored, that is what is said; what the rules cover is told for scopes that mask."""
    config = f'[recording]\nlevel = "{level}"\n'
    status, text = run(tmp_path, "test", str(tmp_path / "said"), config=config)
    assert (expected, True) == (status, words in text)
    assert "where a scope says masked, 25 bytes would be masked" in text
    status, text = run(tmp_path, "test", str(tmp_path / "said"), "--json", config=config)
    assert (expected, level) == (status, json.loads(text)["level"])


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ('[masking]\nkey = ["a"]\n', "masking.key: no such key"),
        ('[[masking.pattern]]\nname = "a"\npattern = "(a+)+"\n', "masking.pattern[0].pattern: it can match more"),
        ('[masking]\nidentifiers = ["xx"]\n', "there is no identifier"),
        ('[masking]\njson_paths = ["a.b"]\n', "no path"),
        ('[[recording.scope]]\nlevel = "off"\n', "needs a condition"),
        ('[recording]\nlevel = "some"\n', "recording.level"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, config: str, problem: str) -> None:
    """A mistake in the two sections is refused with the key and the reason."""
    with pytest.raises(Exception, match=re.escape(problem)):
        run(tmp_path, "rules", config=config)
