"""The reading verbs on an encrypted recording: with an identity as on any other, without one an error that helps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyrage import x25519

from capd.recording.errors import CapdError, EncryptedError, IdentityFileError, WrongIdentityError
from tests.cli.conftest import Capd
from tests.cli.recorded import Recording, run_records
from tests.cli.spoken import over_http, over_postgresql


def identity_file(directory: Path, name: str) -> tuple[Path, str]:
    """Make an identity; give its file and its recipient."""
    identity = x25519.Identity.generate()
    path = directory / name
    path.write_text(f"{identity}\n")
    return path, str(identity.to_public())


@pytest.fixture
def identity(tmp_path: Path) -> tuple[Path, str]:
    """Give an identity file and its recipient."""
    return identity_file(tmp_path, "identity.txt")


@pytest.fixture
def recording(tmp_path: Path, identity: tuple[Path, str]) -> Iterator[Recording]:
    """Give an empty state directory that is encrypted to the identity."""
    made = Recording(tmp_path / "state", identity[1])
    yield made
    made.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Recording]:
    """Give the same recording without encryption."""
    made = Recording(tmp_path / "plain")
    run = run_records()
    made.write([*run[:5], *over_http().records])
    made.write([*over_postgresql().records, *run[5:]])
    yield made
    made.close()


READING = [
    ["replay", str(over_http().id)],
    ["replay", str(over_postgresql().id), "--format", "json"],
    ["replay", str(over_http().id), "--format", "raw", "--direction", "response"],
    ["replay", str(over_postgresql().id), "--at", "3"],
    ["show", str(over_http().id)],
    ["show", "nightly"],
    ["sessions", "--json"],
    ["runs"],
    ["search", "customers"],
    ["search", "customers", "--json"],
]


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_with_an_identity_everything_is_as_without_encryption(
    capd: Capd, recorded: Recording, plain: Recording, identity: tuple[Path, str], arguments: list[str]
) -> None:
    """Every verb prints to the byte what it prints of the same recording that was not encrypted."""
    opened = capd(*arguments, "--identity", str(identity[0]))
    assert opened.stdout == capd(*arguments, state_dir=plain.state_dir).stdout != ""


def test_the_environment_names_the_identity(
    capd: Capd, recorded: Recording, identity: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CAPD_IDENTITY does what --identity does."""
    monkeypatch.setenv("CAPD_IDENTITY", str(identity[0]))
    assert "customers" in capd("replay", str(over_postgresql().id)).stdout


def test_without_an_identity_the_error_says_what_to_give(capd: Capd, recorded: Recording, tmp_path: Path) -> None:
    """No identity, a wrong one and a file that is none are three errors, each with what to do."""
    wrong, _ = identity_file(tmp_path, "wrong.txt")
    (tmp_path / "none.txt").write_text("nothing\n")
    given = [([], EncryptedError), ([str(wrong)], WrongIdentityError), ([str(tmp_path / "none.txt")], IdentityFileError)]
    for path, error in given:
        found = capd("replay", str(over_http().id), *[word for one in path for word in ("--identity", one)]).exception
        assert isinstance(found, error)
        assert isinstance(found, CapdError)
        assert "ident" in found.hint


def test_search_says_why_it_finds_nothing(capd: Capd, recorded: Recording) -> None:
    """Without an identity nothing said is found, and standard error says that it is encrypted and what to give."""
    result = capd("search", "customers", "--json")
    assert ([], 1) == (json.loads(result.stdout), result.return_value)
    assert "encrypted" in result.stderr
    assert "--identity FILE" in result.stderr
    assert 2 == len(json.loads(capd("sessions", "--json").stdout))


def test_segments_alone_are_read_with_an_identity(
    capd: Capd, recorded: Recording, identity: tuple[Path, str], tmp_path: Path
) -> None:
    """A copy without index, as on a laptop, is found and read; without the identity it has segments and no sessions."""
    recorded.close()
    for path in (recorded.state_dir / "index").iterdir():
        path.unlink()
    assert 2 == len(json.loads(capd("sessions", "--json", "--identity", str(identity[0])).stdout))
    assert 1 == len(json.loads(capd("search", "customers", "--json", "--limit", "1", "--identity", str(identity[0])).stdout))
    assert [] == json.loads(capd("sessions", "--json").stdout)


def test_verify_needs_no_identity(capd: Capd, recorded: Recording, identity: tuple[Path, str]) -> None:
    """An encrypted recording is whole by its seals alone, also record by record as far as it is open; a change is found."""
    opened = ["--identity", str(identity[0])]
    for more in ([], ["--records"], ["--records", *opened], [str(over_http().id)], [str(over_http().id), *opened]):
        assert 0 == capd("verify", *more).return_value
    path = min((recorded.state_dir / "segments").glob("*.seg"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    assert 1 == capd("verify").return_value


@pytest.mark.parametrize("opened", [True, False])
def test_a_bundle_of_an_encrypted_recording(
    capd: Capd, recorded: Recording, identity: tuple[Path, str], tmp_path: Path, opened: bool
) -> None:
    """The segments are as they are; page, forms and messages are there with the identity, and else told of; both verify."""
    target = tmp_path / "bundle"
    key = ["--identity", str(identity[0])] if opened else []
    session = str(over_http().id)
    done = capd("export", session, "-o", str(target), *key)
    assert done.exception is None
    assert opened == (target / "replay.html").exists() == (target / "sessions" / f"{session}.har").exists()
    assert opened == bool(json.loads((target / "catalogue" / "messages.json").read_text()))
    assert opened == ("--identity FILE opens it" not in done.stderr)
    for arguments in ([], ["--identity", str(identity[0])]):
        told = json.loads(capd("verify", str(target), "--json", *arguments).stdout)
        assert "whole" == told["verdict"]
        assert bool(arguments) == (told["excerpt"]["notes"] == [])
    assert isinstance(capd("export", session, "--format", "har", "-o", str(tmp_path / "x")).exception, EncryptedError)
    assert not (tmp_path / "x").exists()
