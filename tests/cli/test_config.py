"""`capd config`: everything that is wrong is told with its place, and every value with where it is from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from capd.cli import config

SECRETS = """
[approvals]
listen = "127.0.0.1:9"
base_url = "https://capd.example"
[[approvals.webhooks]]
name = "chat"
format = "slack"
url = "https://hooks.example.com/services/SECRET-PATH?token=SECRET-QUERY"

[bucket]
endpoint = "https://user:SECRET-WORD@ceph.example/x?SECRET-QUERY"

[credentials.github]
command = ["/usr/bin/vault", "--token", "SECRET-ARGUMENT"]
hosts = ["api.github.com"]
ports = [443]
"""


def run(*arguments: str, env: Mapping[str, str | None] | None = None) -> tuple[int, str]:
    """Run a verb below `capd config`; give its exit status and output."""
    done = CliRunner().invoke(config.command, arguments, env={"AWS_CA_BUNDLE": None, **(env or {})}, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value, done.stdout


def write(directory: Path, text: str, **dropped: str) -> str:
    """Write capd.toml and files of conf.d."""
    (directory / "conf.d").mkdir(exist_ok=True)
    (directory / "capd.toml").write_text(text)
    for name, more in dropped.items():
        (directory / "conf.d" / f"{name}.toml").write_text(more)
    return str(directory / "capd.toml")


@pytest.mark.parametrize(
    ("text", "place", "problem", "step"),
    [
        ("\nstat_dir = 1", (2, "stat_dir"), "no such key; is `state_dir` meant?", "man capd.toml"),
        ("[capture]\ntire = 'auto'", (2, "capture.tire"), "is `capture.tier` meant?", "man capd.toml"),
        ("[capture]\nlate_seconds = 1", (2, "capture.late_seconds"), "is `shipper.late_seconds` meant?", ""),
        ("[qqqq]\n", (1, "qqqq"), "no such key", "man capd.toml"),
        ("[capture]\n\ntier = 'x'", (3, "capture.tier"), "'auto', 'modern' or 'classic'", 'without it: "auto"'),
        ("capture = 1", (1, "capture"), "must be a table", ""),
        (
            "[shipper]\nlate_seconds = 'ten'",
            (2, "shipper.late_seconds"),
            "must be a whole number",
            "in seconds, at least 1",
        ),
        ("selection.slices = 'x'", (1, "selection.slices"), "must be an array", "array of strings"),
        ("selection.slices = ['x',\n 3]", (2, "selection.slices[1]"), "must be a string", ""),
        (
            "[[retention]]\nname = 'a'\n[[retention]]\nhot_days = 1",
            (3, "retention[1].name"),
            "is missing",
            "records of deletion",
        ),
        ("[[retention]]\nnam = 'a'", (2, "retention[0].nam"), "is `retention[0].name` meant?", ""),
        ("[credentials.x]\nhosts = ['*']\nports = [1]\nfile = '/x'", (2, "credentials.x.hosts[0]"), "would be all of them", ""),
        ("[credentials.x]\nhosts = ['a']\nports = [1]", (1, "credentials.x"), "says one of file, systemd", ""),
        ("[enforcement]\nproxy_port = 5\nresolver_port = 5", (1, "enforcement"), "must be two ports", ""),
        ("state_dir = '/a'\nruntime_dir = '/a'", (None, ""), "must be two directories", ""),
        ("state_dir = [", (1, ""), "not TOML", "config check"),
        ("a = 1\nb = = 2\n", (2, ""), "not TOML: Invalid value, at column 5", "config check"),
    ],
)
def test_each_problem_has_its_place(tmp_path: Path, text: str, place: tuple[int | None, str], problem: str, step: str) -> None:
    """A problem is told with file, line, key and what may be there, in both forms, with exit status 2."""
    path, (line, key) = write(tmp_path, text), place
    status, told = run("check", "--config", path, "--json")
    found = json.loads(told)
    assert (2, False) == (status, found["sound"])
    assert [(path, line, key)] == [
        (one["file"], one["line"], one["key"]) for one in found["problems"] if problem in one["problem"]
    ], found
    assert step in next(one["next_step"] for one in found["problems"] if problem in one["problem"])
    status, told = run("check", "--config", path)
    assert (2, True) == (status, f"{path}{'' if line is None else f':{line}'}: {key}" in told)


def test_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    """Problems of several files are told together, in the order of the files and lines."""
    path = write(tmp_path, "b = 1\na = 2\n", x="[capture]\ntire = 1\n", y="[journal]\nbytes_max = 'x'\n")
    places = [
        (Path(one["file"]).name, one["line"]) for one in json.loads(run("check", "--config", path, "--json")[1])["problems"]
    ]
    assert [("capd.toml", 1), ("capd.toml", 2), ("x.toml", 2), ("y.toml", 2)] == places


@pytest.mark.parametrize("text", ["", "[capture]\ntier = 'auto'\n"])
def test_a_sound_one_is_said_to_be(tmp_path: Path, text: str) -> None:
    """A configuration that can be used has exit status 0, an empty one too."""
    path = write(tmp_path, text)
    assert (0, {"sound": True, "files": [path], "problems": []}) == (
        (answer := run("check", "--config", path, "--json"))[0],
        json.loads(answer[1]),
    )
    assert 0 == run("check", "--config", path)[0]


def test_every_value_has_its_source(tmp_path: Path) -> None:
    """A value is from a line of a file, from the environment, or the default; defaults are shown when asked for."""
    path = write(tmp_path, '[shipper]\nlate_seconds = 5\n[bucket]\nregion = "r"', x="\n[shipper]\nlate_seconds = 6\n")
    env = {"AWS_ENDPOINT_URL": "https://e.example", "AWS_REGION": "other"}
    told = json.loads(run("show", "--config", path, "--json", env=env)[1])
    assert {
        "shipper.late_seconds": (6, "file", "x.toml", 3, None),
        "bucket.region": ("r", "file", "capd.toml", 4, None),
        "bucket.endpoint": ("https://e.example", "environment", None, None, "AWS_ENDPOINT_URL"),
    } == {
        one["key"]: (one["value"], one["source"], one["file"] and Path(one["file"]).name, one["line"], one["variable"])
        for one in told["values"]
    }
    everything = {one["key"]: one for one in json.loads(run("show", "--config", path, "--defaults", "--json")[1])["values"]}
    assert ("auto", "default") == (everything["capture.tier"]["value"], everything["capture.tier"]["source"])
    assert len(everything) > 60
    words = run("show", "--config", path, "--defaults")[1]
    assert [] == [key for key in everything if key not in words]


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    """What may be a secret is in no output: not when values are shown, and not when they are wrong."""
    path = write(tmp_path, SECRETS)
    wrong = SECRETS.replace("127.0.0.1:9", "SECRET-WORD").replace('"api.github.com"', '"SECRET-WORD/x"')
    misplaced = '[credentials.github]\nvalue = "SECRET-VALUE"\nfile = "SECRET-FILE"'
    wrong = wrong.replace("[credentials.github]", misplaced)
    wrong = f'bucket_url = "s3://KEY:SECRET-WORD@x?SECRET-QUERY"\n{wrong}'
    wrong += '[encryption]\nrecipients = ["AGE-SECRET-KEY-1QQQ"]\n[masking]\nidentifiers = ["SECRET-WORD"]\n'
    for arguments in (["show"], ["show", "--defaults"], ["show", "--json"]):
        status, told = run(*arguments, "--config", path)
        assert (0, True, False) == (status, "hooks.example.com" in told and "/usr/bin/vault" in told, "SECRET" in told)
    write(tmp_path, wrong)
    for form in ([], ["--json"]):
        status, told = run("check", "--config", path, *form)
        assert (2, True, False) == (status, "credentials.github.value" in told, "SECRET-" in told.upper())
