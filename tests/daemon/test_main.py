"""The command line as a whole: verbs, help, errors, exit statuses, and what is not imported."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import os
import pkgutil
import pty
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from capd.cli import main
from capd.daemon.version import VERSION
from tests.daemon.conftest import ENVIRONMENT, PYTHON, REPOSITORY, call, capd
from tests.requirements import require_root
from tests.test_tidy import PACKAGES

TABLE_HEAD = "| status | class | meaning | what to do |\n|---|---|---|---|\n"
MINE = ("up", "run", "status", "doctor", "daemon", "recorder", "shipper", "hold")
"""The verbs of the roles; those that read are tested in tests/cli."""


def test_version_is_the_packages() -> None:
    """`capd --version` says what pyproject.toml says."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (project["version"], f"capd {VERSION}\n") == (VERSION, call("--version").stdout)


@pytest.mark.parametrize("verb", main.VERBS)
def test_verbs_help_begins_with_its_line_in_the_table(verb: str) -> None:
    """What `capd --help` says of a verb is the first line of the verb's own help, which has an example."""
    command = importlib.import_module(f"capd.cli.{verb}").command
    assert isinstance(command, click.Command)
    text = command.get_help(click.Context(command, info_name=f"capd {verb}"))
    assert f"capd {verb}" in text.split("xample", 1)[-1]
    if verb in MINE:
        assert main.VERBS[verb] == (command.help or "").splitlines()[0]


def commands() -> dict[str, click.Command]:
    """Give all commands that are no group of others, with all words that lead to them."""
    found: dict[str, click.Command] = {}
    waiting: list[tuple[str, click.Command]] = [("capd", main.capd)]
    while waiting:
        words, command = waiting.pop()
        if isinstance(command, click.Group):
            context = click.Context(command)
            below = {name: command.get_command(context, name) for name in command.list_commands(context)}
            waiting += [(f"{words} {name}", one) for name, one in below.items() if one is not None]
        else:
            found[words] = command
    return found


@pytest.mark.parametrize("words", sorted(commands()))
def test_every_command_has_examples_that_can_be_typed(words: str) -> None:
    """The help of each command has examples, and a shell and capd take every word of them."""
    command = commands()[words]
    text = command.get_help(click.Context(command, info_name=words, terminal_width=1000))
    lines = [line.strip() for line in text.partition("Examples:")[2].splitlines() if line.strip()]
    typed = [shlex.split(re.sub(r"\$\([^)]*\)", "1", line), comments=True) for line in lines]
    own = [example for example in typed if f"capd {words.removeprefix('capd ')}" in " ".join(example)]
    assert own, text
    for example in own:
        begin = example.index("capd") + len(words.split())
        given = list(
            itertools.takewhile(lambda word: word not in {"|", "&&", ">"} and not word.startswith(">"), example[begin:])
        )
        context = click.Context(command, info_name=words, resilient_parsing=True)
        _values, left, _order = command.make_parser(context).parse_args(given)
        assert [] == left, example


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sesions"], "capd: No such command 'sesions'.\n  try: capd sessions\n"),
        (["zz\x1b[31m"], "capd: No such command 'zz\\x1b[31m'.\n  try: capd --help\n"),
        (["run"], "capd: Missing argument '-- CMD...'.\n  try: capd run -- python3 agent.py\n"),
        (["mask", "tets"], "capd: No such command 'tets'.\n  try: capd mask rules\n"),
        (
            ["mask", "test", "/none"],
            "capd: Invalid value for 'FILE': '/none': No such file or directory\n  try: capd mask test request.txt\n",
        ),
        (["policy", "chek"], "capd: No such command 'chek'.\n  try: capd policy check\n"),
    ],
)
def test_whoever_errs_is_shown_what_would_be_right(words: list[str], said: str) -> None:
    """A verb that is misspelt, or used wrongly, is answered in two lines, of which the second can be typed."""
    done = call(*words)
    message, hint = said.splitlines()
    assert (2, "", hint) == (done.returncode, done.stdout, done.stderr.splitlines()[-1])
    assert done.stderr.startswith(message)


def test_a_full_disk_behind_the_output_is_told() -> None:
    """What cannot be written where the output goes is no defect: it is said in one line, with what to do."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            capd("mask", "rules", "--config", os.devnull), env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, check=False
        )
    said = "capd: cannot write the output: No space left on device\n  make room where it goes, or let it go elsewhere\n"
    assert (1, said) == (done.returncode, done.stderr.decode())


@pytest.mark.parametrize("library", ["pyarrow", "duckdb"])
@pytest.mark.parametrize(("words", "status"), [("--version", 0), ("sessions --state-dir /nonexistent", 5)])
def test_a_library_that_ends_badly_spoils_no_status(library: str, words: str, status: int) -> None:
    """Threads of pyarrow and duckdb may abort a process that has done all its work: it is not taken down in order."""
    pytest.importorskip(library, reason="the fleet extra is not installed")
    script = f"import {library}, atexit, os, sys; atexit.register(os.abort); from capd.cli.main import main; main()"
    command = [sys.executable, "-P", "-c", script, *words.split()]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert status == done.returncode
    assert (done.stderr if status else done.stdout).startswith("capd")


def test_a_closed_directory_is_told(tmp_path: Path) -> None:
    """Who may not look into a recording is told so by `verify` as by the others."""
    require_root()
    tmp_path.chmod(0o700)
    theirs = {**ENVIRONMENT, "HOME": "/nonexistent", "XDG_STATE_HOME": "/nonexistent"}  # root's may be closed too
    for verb in ("verify", "sessions"):
        done = call(verb, "--state-dir", tmp_path / "state", user=65534, cwd="/", env=theirs)
        assert (3, f"capd: cannot read {tmp_path / 'state'}") == (
            done.returncode,
            done.stderr[: 18 + len(str(tmp_path / "state"))],
        )


def test_top_help_lists_all_verbs() -> None:
    """Both -h and --help list every verb."""
    texts = {call(flag).stdout for flag in ("-h", "--help")}
    assert 1 == len(texts)
    assert [] == [verb for verb, words in main.VERBS.items() if f"  {verb} " not in next(iter(texts)) or not words]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["run", "--config", "/dev/null", "--", "true"]], ids=" ".join
)
def test_slow_libraries_are_not_imported(arguments: list[str]) -> None:
    """What stands between an agent and its start, or a person and the help, imports no slow library."""
    script = f"""
import sys
from capd.cli.main import main
sys.argv = ["capd", *{arguments!r}]
try:
    main()
except SystemExit:
    slow = {{"pydantic", "rich", "zstandard", "sqlite_utils", "msgpack", "subprocess", "asyncio"}} & set(sys.modules)
    print(sorted(slow), file=sys.stderr)
"""
    done = subprocess.run([PYTHON, "-P", "-c", script], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert "[]" == done.stderr.splitlines()[-1]


def test_run_without_a_daemon_runs_nothing(tmp_path: Path) -> None:
    """Without a daemon the command is not started; two lines say what is wrong and what to do, and the status is 8."""
    config, marker = tmp_path / "capd.toml", tmp_path / "marker"
    config.write_text(f'runtime_dir = "{tmp_path}/run"\n')
    done = call("run", "--config", config, "--", "touch", marker)
    message, hint = done.stderr.splitlines()
    assert (8, "", False) == (done.returncode, done.stdout, marker.exists())
    assert message.startswith(f"capd: no capd daemon answers at {tmp_path}/run/control.sock")
    assert "capd up" in hint


def test_status_without_a_daemon_is_down(tmp_path: Path) -> None:
    """Without a daemon status says down and what to do, in both forms, with exit status 2."""
    config = tmp_path / "capd.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\nruntime_dir = "{tmp_path}/run"\n')
    text, parsed = call("status", "--config", config), call("status", "--config", config, "--json")
    assert (2, 2) == (text.returncode, parsed.returncode)
    assert text.stdout.startswith("capd is down\n")
    found = json.loads(parsed.stdout)
    assert ("down", "down", None) == (found["health"], found["roles"]["daemon"]["state"], found["roles"]["daemon"]["pid"])
    assert "capd up" in found["reasons"][0]["next_step"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "Missing argument"),
        (["run", "--label", "novalue", "--", "true"], "KEY=VALUE"),
        (["run", "--label", "=x", "--", "true"], "KEY=VALUE"),
        (["runn"], "No such command 'runn'"),
        (["status", "--nothing"], "No such option"),
        (["doctor", "0"], "neither a process id nor `tls`"),
        (["status", "--config", "/nonexistent/capd.toml"], "/nonexistent/capd.toml: No such file or directory"),
    ],
)
def test_wrong_use_has_status_2(arguments: list[str], words: str) -> None:
    """Wrong use says what is wrong, on standard error, with exit status 2."""
    done = call(*arguments)
    assert (2, "") == (done.returncode, done.stdout)
    assert words in done.stderr


@pytest.mark.parametrize(
    ("name", "words"), [("pipe", "it is no regular file"), ("/dev/zero", "it is no regular file"), (".", "")]
)
def test_what_is_no_file_is_no_configuration(tmp_path: Path, name: str, words: str) -> None:
    """A pipe, an endless device or a directory as --config is refused at once by whoever reads it."""
    os.mkfifo(tmp_path / "pipe")
    for arguments in (["status"], ["run", "--", "true"], ["sessions"]):
        place = [*arguments[:1], "--config", str(tmp_path / name), *arguments[1:]]
        done = call(*place)
        assert (2, True) == (done.returncode, words in done.stderr and str(tmp_path / name) in done.stderr), done.stderr


def test_all_problems_of_a_configuration_are_told(tmp_path: Path) -> None:
    """Each problem is a line, under one `capd:`, and nothing of a traceback."""
    config = tmp_path / "capd.toml"
    config.write_text("a = 1\nb = 2\n")
    done = call("config", "show", "--config", config)
    lines = done.stderr.splitlines()
    assert (2, 3) == (done.returncode, len(lines))
    assert [f"capd: {config}:1: a", f"      {config}:2: b"] == [line.split(": no such")[0] for line in lines[:2]]


@pytest.mark.parametrize("verb", ["up", "daemon"])
def test_not_root_is_said_first(verb: str) -> None:
    """A user who is not root is told so, whatever else is wrong, with exit status 3."""
    require_root()
    done = call(verb, "--config", "/nonexistent", user=65534, group=65534, extra_groups=[])
    assert 3 == done.returncode
    assert "only root may" in done.stderr
    assert "sudo" in done.stderr


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_only_on_a_terminal_that_wants_it(environment: dict[str, str], coloured: bool) -> None:
    """On a terminal errors are coloured, unless NO_COLOR or a dumb terminal says otherwise; into a pipe never."""
    ours, theirs = pty.openpty()
    clean = {key: value for key, value in ENVIRONMENT.items() if key != "NO_COLOR"}
    command = capd("status", "--config", "/nonexistent")
    with subprocess.Popen(command, stderr=theirs, stdout=theirs, env={**clean, "TERM": "xterm", **environment}) as process:
        os.close(theirs)
        process.wait(180)
    said = os.read(ours, 4096)
    os.close(ours)
    assert coloured == (b"\x1b[" in said)
    piped = subprocess.run(command, capture_output=True, check=False, env={**clean, "TERM": "xterm"})
    assert b"\x1b[" not in piped.stderr


def test_error_text_cannot_reach_the_terminal_as_an_escape(tmp_path: Path) -> None:
    """An escape sequence in a name that an error quotes is shown, not sent."""
    done = call("status", "--config", f"{tmp_path}/\x1b]0;owned\x07.toml")
    assert 2 == done.returncode
    assert "\x1b" not in done.stderr
    assert "owned" in done.stderr


def test_a_defects_text_cannot_reach_the_terminal_as_an_escape(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception that nobody expected is told with its place, and an escape sequence that it quotes is shown, not sent."""

    def fail(**_settings: object) -> None:
        raise RuntimeError("\x1b]0;owned\x07")

    monkeypatch.setattr(main.capd, "main", fail)
    with pytest.raises(SystemExit) as caught:
        main.main()
    said = capsys.readouterr().err
    assert (1, True, False) == (caught.value.code, "in fail" in said and "\\x1b]0;owned" in said, "\x1b" in said)


NOT_IN_THE_TABLE = {"CapdError", "ProbeError", "RefusedError"}
"""Two bases, and what a client raises in place of the daemon's own class, whose message, hint and status it has."""


def error_classes() -> list[type[Exception]]:
    """Give every error class that carries an exit status, of all modules of all packages, wherever it is defined."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages([str(REPOSITORY / package)], f"capd.{package}."):
            importlib.import_module(module.name)
    found = {
        item
        for name, module in sys.modules.items()
        if name.startswith("capd.")
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, Exception) and item.__module__.startswith("capd.")
    }
    told = [item for item in found if hasattr(item, "exit_status") and item.__name__ not in NOT_IN_THE_TABLE]
    return sorted(told, key=lambda item: (item.exit_status, item.__name__, item.__module__))


def _cell(text: str | None) -> str:
    """Give the first line of a text as a cell of a Markdown table."""
    return (text or "").split("\n")[0].replace("|", "\\|")


def test_exit_status_page_lists_every_error_class() -> None:
    """docs/exit-statuses.md has one row for each error class: status, name, meaning, what to do."""
    rows = [
        f"| {int(item.exit_status)} | `{item.__name__}` | {_cell(item.__doc__)} | {_cell(item.hint)} |"  # type: ignore[attr-defined]
        for item in error_classes()
    ]
    page = REPOSITORY / "docs" / "exit-statuses.md"
    text = page.read_text(encoding="utf-8")
    if os.environ.get("CAPD_WRITE_DOCS"):
        page.write_text(text[: text.index(TABLE_HEAD)] + TABLE_HEAD + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    assert rows == text[text.index(TABLE_HEAD) + len(TABLE_HEAD) :].splitlines(), "CAPD_WRITE_DOCS=1 writes it anew"


def test_every_error_class_says_what_to_do() -> None:
    """Every class that a person of the daemon's side may meet has a hint and a documented status."""
    classes = [item for item in error_classes() if item.__module__ != "capd.recording.errors"]
    assert [] == [item.__name__ for item in classes if not item.hint]  # type: ignore[attr-defined]
    assert {int(item.exit_status) for item in error_classes()} <= set(range(1, 10))  # type: ignore[attr-defined]
