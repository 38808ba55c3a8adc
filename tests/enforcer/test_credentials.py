"""Credentials: where values come from, who may have written them, whom and where they are for, and that they show nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgpack
import pytest

from capd.daemon import configuration
from capd.daemon.credentials import credentials_of
from capd.daemon.errors import ConfigurationError
from capd.enforcer.credentials.credential import (
    CommandSource,
    Credential,
    EnvironmentSource,
    FileSource,
    Source,
    SystemdSource,
)
from capd.enforcer.credentials.errors import CredentialError
from capd.enforcer.credentials.guarded_file import CONTENT_BYTES_MAX
from capd.enforcer.credentials.keeper import AT_ONCE_MAX, Keeper, bind
from capd.enforcer.credentials.keeper_client import Values
from capd.enforcer.credentials.secret import CHARACTERS_MIN, HIDDEN, Secret, usable
from capd.enforcer.credentials.store import RETRY_SECONDS, Store
from capd.enforcer.policy.action import Principal
from capd.enforcer.policy.glob import Glob
from capd.enforcer.policy.host_pattern import HostPattern
from tests.requirements import require_root

VALUE = "s3cr3t-value"


@pytest.fixture
def kept() -> Iterator[Path]:
    """Give a directory that nobody but root can write, as those of pytest are not."""
    require_root()
    with TemporaryDirectory(prefix="capd-secrets-", dir="/root") as name:
        yield Path(name)


def store(
    source: Source, *, clock: list[float] | None = None, directory: Path | None = None, group: int | None = None
) -> Store:
    """Give a store with one credential, `it`."""
    now = clock or [0.0]
    credential = Credential(name="it", source=source, hosts=(HostPattern("a.test"),), ports=(443,))
    return Store({"it": credential}, lambda: now[0], directory=directory, group=group)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file."""
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_secret_does_not_show_itself() -> None:
    """Nothing that prints, logs, copies or looks a secret up gets its value; only `reveal` does."""
    secret = Secret(VALUE)
    for text in (repr(secret), str(secret), f"{secret}", f"{secret:>20}", repr([secret]), repr({"a": secret})):
        assert VALUE not in text
        assert HIDDEN in text
    for copy in (pickle.dumps, json.dumps, msgpack.packb, hash):
        with pytest.raises(TypeError):
            copy(secret)
    assert VALUE == secret.reveal()
    assert Secret(VALUE) == secret
    assert Secret("another-one") != secret
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize(
    "text",
    ["short", "a" * 9_000, "with\nline-end", "with\rreturn", "with\0nothing", "ünïcödé-text", " blank-before", "\x7fdelete-x"],
)
def test_values_that_could_become_something_else(text: str) -> None:
    """What could end a field, or has no one form on the wire, is no secret that can be used."""
    assert usable(text)
    assert CHARACTERS_MIN == len("12345678")
    assert usable("12345678") is None


def test_files(kept: Path) -> None:
    """A value is all of a file but its line end; what replaces the file counts at the next use."""
    path = write(kept / "it", VALUE + "\n")
    found = store(FileSource(path=path))
    assert Secret(VALUE) == found.value("it")
    write(kept / "new", "another-one\r\n").replace(path)
    assert Secret("another-one") == found.value("it")
    path.unlink()
    with pytest.raises(CredentialError, match="No such file"):
        found.value("it")
    with pytest.raises(CredentialError, match="there is no credential other"):
        found.value("other")


@pytest.mark.parametrize(
    ("mode", "owner", "group", "problem"),
    [
        (0o600, 0, 0, None),
        (0o400, 0, 0, None),
        (0o440, 0, 0, None),
        (0o640, 0, 61_234, None),
        (0o640, 0, 61_235, "group 61235 may read it"),
        (0o660, 0, 61_234, "mode 0660"),
        (0o604, 0, 0, "mode 0604"),
        (0o602, 0, 0, "mode 0602"),
        (0o644, 0, 0, "mode 0644"),
        (0o600, 61_234, 0, "belongs to user 61234"),
    ],
)
def test_only_root_may_have_written_a_file(kept: Path, mode: int, owner: int, group: int, problem: str | None) -> None:
    """A file that others can read or could have written is refused with what to do; the enforcer's group may read."""
    path = write(kept / "it", VALUE, mode)
    os.chown(path, owner, group)
    found = store(FileSource(path=path), group=61_234)
    if problem is None:
        assert Secret(VALUE) == found.value("it")
        return
    with pytest.raises(CredentialError, match=problem) as caught:
        found.value("it")
    assert VALUE not in str(caught.value)


def test_the_way_to_a_file_counts(kept: Path) -> None:
    """A directory that others can write, a link out of it, a pipe, and a file without end are refused."""
    open_to_all = kept / "open"
    open_to_all.mkdir()
    path = write(open_to_all / "it", VALUE)
    open_to_all.chmod(0o777)
    (kept / "link").symlink_to(path)
    for one in (path, kept / "link"):
        with pytest.raises(CredentialError, match="others may write the directory"):
            store(FileSource(path=one)).value("it")
    open_to_all.chmod(0o755)
    assert Secret(VALUE) == store(FileSource(path=kept / "link")).value("it")
    os.mkfifo(kept / "pipe", 0o600)
    with pytest.raises(CredentialError, match="no regular file"):
        store(FileSource(path=kept / "pipe")).value("it")
    write(kept / "long", "x" * (CONTENT_BYTES_MAX + 1))
    with pytest.raises(CredentialError, match="more than"):
        store(FileSource(path=kept / "long")).value("it")


def test_systemd(kept: Path) -> None:
    """A credential of systemd is a file of the directory that the unit was given; without one it says so."""
    write(kept / "name", VALUE, 0o400)
    assert Secret(VALUE) == store(SystemdSource(name="name"), directory=kept).value("it")
    with pytest.raises(CredentialError, match="systemd gave this process no credentials"):
        store(SystemdSource(name="name")).value("it")


@pytest.mark.parametrize(
    ("mode", "owner", "group", "allowed"),
    [(0o640, 0, 61_234, True), (0o400, 61_234, 61_234, True), (0o600, 0, 0, False)],
    ids=["of the group", "of the unit", "of root alone"],
)
def test_in_a_unit_without_root(mode: int, owner: int, group: int, allowed: bool) -> None:
    """As the enforcer's user the keeper reads what systemd made for it, and what root gave to its group; nothing else."""
    require_root()
    with TemporaryDirectory(prefix="capd-secrets-") as name:
        directory = Path(name)
        os.chown(directory, owner, 61_234)
        directory.chmod(0o550)
        os.chown(write(directory / "it", VALUE, mode), owner, group)
        child = os.fork()
        if child == 0:
            found = None
            with contextlib.suppress(CredentialError):
                os.setgroups([])
                os.setresgid(61_234, 61_234, 61_234)
                os.setresuid(61_234, 61_234, 61_234)
                source: Source = SystemdSource(name="it") if owner else FileSource(path=directory / "it")
                credential = Credential(name="it", source=source, hosts=(), ports=())
                made = Store({"it": credential}, lambda: 0.0, directory=directory, group=61_234, owner=61_234)
                found = made.value("it")
            os._exit(found == Secret(VALUE))
        assert allowed is bool(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("KEY=the-value", "the-value"),
        ("# KEY=no\nOTHER=x\nexport KEY='the value'\n", "the value"),
        ('KEY="first"\nKEY="a=b=c=d=e"\n', "a=b=c=d=e"),
        ("KEY=  spaced-out  ", "spaced-out"),
        ("KEYS=no\nMY_KEY=no", None),
        ("", None),
    ],
)
def test_files_of_variables(kept: Path, text: str, value: str | None) -> None:
    """The last line of the name counts, without quotes around its value."""
    found = store(EnvironmentSource(path=write(kept / "env", text), variable="KEY"))
    if value is None:
        with pytest.raises(CredentialError, match="no line KEY="):
            found.value("it")
    else:
        assert value == found.value("it").reveal()


def command(kept: Path, script: str, *, timeout: float = 20, ttl: float = 60) -> CommandSource:
    """Give a source that is a script of the shell, which notes each run."""
    program = write(kept / "program", f"#!/bin/sh\necho run >> {kept}/runs\n{script}\n", 0o700)
    return CommandSource(words=(str(program), "$HOME"), timeout_seconds=timeout, ttl_seconds=ttl)


def runs(kept: Path) -> int:
    """Count the runs."""
    return len((kept / "runs").read_text().split())


def test_programs(kept: Path) -> None:
    """What a program printed is used until it is too old; no shell reads its arguments, and capd's variables are not its."""
    clock = [0.0]
    os.environ["AWS_SECRET_ACCESS_KEY"] = "ours"
    try:
        found = store(command(kept, 'echo "variables: $1-$(env | grep -c AWS)"'), clock=clock)
        for now, count in ((0, 1), (59, 1), (60, 2), (61, 2)):
            clock[0] = now
            assert "variables: $HOME-0" == found.value("it").reveal()
            assert count == runs(kept)
    finally:
        del os.environ["AWS_SECRET_ACCESS_KEY"]


@pytest.mark.parametrize(
    ("script", "timeout", "problem"),
    [
        (f"echo {VALUE}; exit 3", 20, "status 3"),
        (f"echo {VALUE} >&2; kill -9 $$", 20, "status -9"),
        (f"echo {VALUE}; exec sleep 1000", 0.3, "too long"),
        (f"echo {VALUE}; sleep 1000 & sleep 1000", 0.3, "too long"),
        ("exec yes", 20, "more than"),
        ("printf '\\377'", 20, "no text"),
    ],
    ids=["status", "killed", "slow", "children", "endless", "binary"],
)
def test_programs_that_fail(kept: Path, script: str, timeout: float, problem: str) -> None:
    """A program that fails gives nothing, not what it printed before either, and is not run again at once."""
    clock = [0.0]
    found = store(command(kept, script, timeout=timeout), clock=clock)
    for now, count in ((0.0, 1), (RETRY_SECONDS / 2, 1), (RETRY_SECONDS, 2)):
        clock[0] = now
        with pytest.raises(CredentialError, match=problem) as caught:
            found.value("it")
        assert VALUE not in str(caught.value)
        assert count == runs(kept)


def test_a_value_that_is_over_is_not_used_again(kept: Path) -> None:
    """When a program fails after its value became too old, there is no value."""
    clock = [0.0]
    found = store(command(kept, f"test -e {kept}/broken && exit 1; echo {VALUE}"), clock=clock)
    assert Secret(VALUE) == found.value("it")
    write(kept / "broken", "")
    clock[0] = 60
    with pytest.raises(CredentialError, match="status 1"):
        found.value("it")


def test_a_program_that_others_can_write_is_not_run(kept: Path) -> None:
    """Whoever can write a program that root runs is root."""
    source = command(kept, f"echo {VALUE}")
    (kept / "program").chmod(0o777)
    with pytest.raises(CredentialError, match="others than root"):
        store(source).value("it")
    assert not (kept / "runs").exists()


ANN, BOB = Principal(name="ann"), Principal(name="ann", kind="oidc")
USES = [
    (ANN, "api.test", 443, True),
    (ANN, "x.cloud.test", 443, True),
    (ANN, "cloud.test", 443, False),
    (ANN, "api.test.evil", 443, False),
    (ANN, "api.test", 80, False),
    (BOB, "api.test", 443, True),
    (Principal(name="oidc:zoe"), "api.test", 443, False),
    (Principal(name="zoe", kind="oidc"), "api.test", 443, True),
    (Principal(name="zoe"), "api.test", 443, False),
    (None, "api.test", 443, False),
]


@pytest.mark.parametrize(("principal", "host", "port", "allowed"), USES)
def test_bindings(principal: Principal | None, host: str, port: int, allowed: bool) -> None:
    """A credential is for its hosts, ports and principals, and for nothing else."""
    credential = Credential(
        name="it",
        source=FileSource(path=Path("/x")),
        hosts=(HostPattern("api.test"), HostPattern("*.cloud.test")),
        ports=(443,),
        principals=(Glob("ann"), Glob("oidc:zoe")),
    )
    if allowed:
        credential.check(principal, host, port)
    else:
        with pytest.raises(CredentialError) as caught:
            credential.check(principal, host, port)
        assert "credential_not_bound" == caught.value.reason


def test_the_keeper_answers(kept: Path) -> None:
    """One process asks another for a value; what is wrong comes back as words, and many ask at a time."""
    path = kept / "keeper.sock"
    listener = bind(path, 0)
    assert 0o600 == path.stat().st_mode & 0o777
    gone, alive = os.pipe()
    said: list[str] = []
    served = store(FileSource(path=write(kept / "it", VALUE)))
    keeper = threading.Thread(target=Keeper(listener, served, 0, said.append).run, args=(gone,))
    keeper.start()

    async def ask() -> None:
        values = Values(path)
        found = await asyncio.gather(*(values.value("it") for _ in range(20 * AT_ONCE_MAX)))
        assert all(one == Secret(VALUE) for one in found)
        with pytest.raises(CredentialError, match="no credential other") as caught:
            await values.value("other")
        assert "credential_unknown" == caught.value.reason
        with pytest.raises(CredentialError, match="does not answer"):
            await values.value("x" * 1000)

    asyncio.run(ask())
    (kept / "it").chmod(0o644)
    for _ in range(2):
        with pytest.raises(CredentialError, match="the enforcer's log says why"):
            asyncio.run(Values(path).value("it"))
    assert 1 == len(said)
    assert "mode 0644" in said[0]
    os.close(alive)
    keeper.join(180)
    assert not keeper.is_alive()
    listener.close()
    os.close(gone)
    with pytest.raises(CredentialError, match="does not answer"):
        asyncio.run(Values(path).value("it"))


GOOD = 'hosts = ["a.test"]\nports = [443]\n'
CONFIGURATIONS = [
    ("", "says one of file, systemd, environment_file, command"),
    ('file = "/a"\nsystemd = "b"', "says one of"),
    ('file = "a"', "absolute path"),
    ('environment_file = "/a"', "environment_file and variable go together"),
    ('file = "/a"\nvariable = "B"', "environment_file and variable go together"),
    ('command = ["vault"]', "absolute path of a program"),
    ("command = []", "absolute path of a program"),
    ('systemd = "../key"', "match"),
    ('file = "/a"\nuser = "a\\nb"', "user must be ASCII"),
    ('file = "/a"\nttl = 1', "no such key"),
]


@pytest.mark.parametrize(("text", "problem"), CONFIGURATIONS)
def test_configurations_that_are_wrong(tmp_path: Path, text: str, problem: str) -> None:
    """A credential with no source, two of them, or one that cannot be, is refused when the configuration is read."""
    path = tmp_path / "capd.toml"
    path.write_text(f"[credentials.it]\n{GOOD}{text}\n")
    with pytest.raises(ConfigurationError, match=problem):
        configuration.load(str(path))


@pytest.mark.parametrize(
    "text", ['ports = [443]\nfile = "/a"', 'hosts = ["*"]\nports = [443]\nfile = "/a"', 'hosts = ["a.test"]\nfile = "/a"']
)
def test_credentials_are_bound(tmp_path: Path, text: str) -> None:
    """A credential without hosts or ports, or for every host, is refused."""
    path = tmp_path / "capd.toml"
    path.write_text(f"[credentials.it]\n{text}\n")
    with pytest.raises(ConfigurationError):
        configuration.load(str(path))


def test_configurations_that_are_good() -> None:
    """The examples of docs/credentials.md are read, each with its source and binding."""
    page = (Path(__file__).parents[2] / "docs" / "credentials.md").read_text(encoding="utf-8")
    text = page.split("```toml\n", 1)[1].split("```", 1)[0]
    import tomllib  # noqa: PLC0415 - for this one

    found = credentials_of(configuration.parse(tomllib.loads(text), "example").credentials)
    assert ["llm-key", "crm", "billing", "objects"] == list(found)
    assert (
        CommandSource(words=("/usr/local/bin/assume-role", "agents"), timeout_seconds=10, ttl_seconds=900)
        == found["objects"].source
    )
    found["crm"].check(Principal(name="zoe@corp.example", kind="oidc"), "crm.corp.example", 443)
