"""`capd runs`, `sessions`, `show`, `search` and `verify`, and what all reading verbs have in common."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest

from capd.cli.options import CorrectedUsageError
from capd.daemon.errors import ConfigurationError
from capd.recording.errors import (
    ExitStatus,
    IndexUnusableError,
    NothingRecordedError,
    NothingSealedError,
    NotTextError,
    UnknownSessionError,
)
from capd.recording.keys import HostKey
from capd.recording.record import Kind, Record, Value
from capd.recording.segment import SegmentReader
from tests.cli.conftest import VERBS, Capd
from tests.cli.recorded import HOST, REQUEST, RUN, START_NS, Conversation, Recording, run_records
from tests.cli.spoken import over_http, over_postgresql

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["http1", "postgresql"]),
        (["--protocol", "http1"], ["http1"]),
        (["--target", "db.internal"], ["postgresql"]),
        (["--run", "nightly"], ["http1", "postgresql"]),
        (["--principal", "ann"], ["http1", "postgresql"]),
        (["--principal", "an"], []),
        (["--host", "00000000-0000-0000-0000-000000000009"], []),
        (["--since", "2026-11-21T07:24:12Z"], ["postgresql"]),
        (["--until", "2026-11-21T07:24:12Z"], ["http1"]),
        (["--state", "open"], []),
        (["--completeness", "partial"], ["postgresql"]),
        (["--limit", "1"], ["postgresql"]),
    ],
)
def test_sessions_are_chosen(capd: Capd, recorded: Recording, arguments: list[str], expected: list[str]) -> None:
    """Each filter leaves the sessions that it names, the latest last, in the table and as JSON."""
    listed = json.loads(capd("sessions", *arguments, "--json").output)
    assert expected == [session["protocol"] for session in listed]
    table = capd("sessions", *arguments).stdout.splitlines()[1:]
    assert expected == [line.split()[3] for line in table]


def test_the_table_says_what_is_not_whole(capd: Capd, recorded: Recording) -> None:
    """A partial session shows its reason in the list already."""
    assert "partial: ring full: 120331 bytes of the response" in capd("sessions").output


def test_runs_are_judged_by_their_sessions(capd: Capd, recorded: Recording) -> None:
    """A run shows processes, sessions, and the worst verdict of its sessions."""
    (run,) = json.loads(capd("runs", "--json").output)
    assert (str(RUN), "nightly", 3, 2, "partial") == (
        run["run"], run["name"], run["processes"], run["sessions"], run["completeness"]["verdict"],
    )  # fmt: skip
    assert "partial: ring full" in capd("runs").output


def test_show_tells_a_run_as_a_tree(capd: Capd, recorded: Recording) -> None:
    """The processes of a run stand below those that forked them, with how they ended."""
    lines = capd("show", "nightly").output.splitlines()
    start = lines.index("processes") + 1
    assert [
        "07:24:11.024 4200 sh nightly.sh  exit 3",
        "07:24:11.025   4242 python3 agent.py  exit 0",
        "07:24:11.027     4250 (forked, same program)  killed by SIGKILL",
    ] == lines[start : start + 3]


def test_show_tells_a_session_without_what_was_said(capd: Capd, recorded: Recording) -> None:
    """A session's target, gaps, and verdict with its reasons are shown, and the next command."""
    output = capd("show", str(over_postgresql().id)).output
    wanted = [
        "db.internal:5432",
        "GAP 120,331 bytes missing",
        "PARTIAL",
        "- ring full",
        f"next: capd replay {over_postgresql().id}",
    ]
    assert [] == [words for words in wanted if words not in output]
    assert "SELECT" not in output


def test_search_gives_the_command_to_run_next(capd: Capd, recorded: Recording) -> None:
    """A hit says where it is and how to replay it, and that command shows it."""
    output = capd("search", '"drop table"').output
    command = next(line.split() for line in output.splitlines() if "capd replay" in line)
    assert ["capd", "replay", "--at"] == [*command[:2], command[3]]
    assert "DROP TABLE customers" in capd("replay", *command[2:]).output


def test_search_in_vain_exits_1(capd: Capd, recorded: Recording) -> None:
    """Nothing found is a negative answer, also as JSON."""
    assert [1, 1] == [capd("search", "unicorn", *more).return_value for more in ([], ["--json"])]
    assert [] == json.loads(capd("search", "unicorn", "--json").stdout)


def test_search_snippets_do_not_steer(capd: Capd, recording: Recording) -> None:
    """What was found is shown with its escapes spelled out."""
    said = Conversation(b"evil")
    body = b"needle \x1b]52;c;AAAA\x07 \xe2\x80\xae"
    said.say(REQUEST, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    recording.write(said.close().records)
    output = capd("search", "needle").output
    assert r"needle \x1b]52;c;AAAA\x07 \u202e" in output


def test_a_whole_recording_verifies(capd: Capd, recorded: Recording) -> None:
    """Untouched segments are whole: all of them, one file, one directory, one session, one run."""
    places = [[], [str(recorded.state_dir)], [str(recorded.state_dir / "segments")], [str(over_http().id)], ["nightly"]]
    assert [0] * len(places) == [capd("verify", *place).return_value for place in places]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [_flip, Path.unlink, lambda path: os.truncate(path, path.stat().st_size - 10)])
def test_harm_is_found(capd: Capd, recorded: Recording, harm: object) -> None:
    """A changed byte, a missing segment and a cut one make verify exit 1, for everything and for a session in it."""
    recorded.write(Conversation(b"third").close().records)
    assert callable(harm)
    harm(sorted((recorded.state_dir / "segments").iterdir())[1])
    assert [1, 1, 0] == [
        capd("verify", *which).return_value for which in ([], [str(over_postgresql().id)], [str(over_http().id)])
    ]
    assert "damaged" == json.loads(capd("verify", "--json").stdout)["verdict"]


def test_a_segment_that_a_stranger_signed_is_no_proof_of_a_session(capd: Capd, recorded: Recording) -> None:
    """Of one session or run the signatures count as they do of everything."""
    path = min((recorded.state_dir / "segments").iterdir())
    with SegmentReader(path) as reader:
        footer = reader.footer
    assert footer is not None
    end = footer.frames[-1].offset + footer.frames[-1].length
    path.write_bytes(path.read_bytes()[:end] + footer.pack(HostKey.new())[0])
    for which in (str(over_http().id), "nightly"):
        done = capd("verify", which)
        assert (1, True) == (done.return_value, "unknown key" in done.stdout)
    assert 0 == capd("verify", str(over_postgresql().id)).return_value


def test_what_an_index_was_made_to_forget_is_missed(capd: Capd, recording: Recording) -> None:
    """Without its middle a session is not whole, and without its end not ended, whatever the index knows of it."""
    parts = over_http().records
    cut = len(parts) // 3
    for part in (parts[:cut], parts[cut : 2 * cut], parts[2 * cut :]):
        recording.write(part)
    recording.close()
    session = str(over_http().id)
    whole = capd("verify", session)
    assert (0, False) == (whole.return_value, "note:" in whole.stdout)
    database = sqlite3.connect(recording.state_dir / "index" / "capd.db")
    with database:
        database.execute("DELETE FROM session_segments WHERE sequence > 1")
    database.close()
    assert json.loads(capd("verify", session, "--json").stdout)["segments"][1:] != []
    (recording.state_dir / "segments" / "000000000002.seg").unlink()
    assert 1 == capd("verify", session).return_value
    (recording.state_dir / "segments" / "000000000003.seg").unlink()
    assert "its end is missing" in capd("verify", session).stdout
    shutil.rmtree(recording.state_dir / "index")
    done = capd("verify", session)
    assert (0, True) == (done.return_value, "note: it had not ended" in done.stdout)


@pytest.mark.parametrize("verb", ["runs", "sessions"])
def test_an_empty_recording_lists_nothing(capd: Capd, recording: Recording, verb: str) -> None:
    """Before anything was recorded, lists are empty, not an error, and say so."""
    result = capd(verb)
    assert ("", True) == (result.stdout, result.stderr.startswith("capd: no "))
    assert [] == json.loads(capd(verb, "--json").stdout)


def test_an_empty_recording_is_no_whole_one(capd: Capd, recording: Recording) -> None:
    """Whoever removed all of it must not be told that nothing is missing."""
    recording.close()
    for path in (recording.state_dir / "segments").iterdir():
        path.unlink()
    for arguments in ([], ["--json"], [str(recording.state_dir)]):
        done = capd("verify", *arguments)
        assert ("", True) == (done.stdout, isinstance(done.exception, NothingSealedError))


def test_files_that_are_not_watched_are_shown_with_their_run(capd: Capd, recording: Recording) -> None:
    """`show` of a run names the files through which it may have spoken TLS unread."""
    body: dict[str, Value] = {"name": "coverage_gap", "path": "/opt/libssl.so", "reason": "why", "device": 1, "inode": 2}
    recording.write([*run_records()[:3], Record(Kind.MARKER, RUN, START_NS, None, body)])
    (gap,) = json.loads(capd("show", "nightly", "--json").stdout)["coverage_gaps"]
    assert ("/opt/libssl.so", "why") == (gap["path"], gap["reason"])
    assert "/opt/libssl.so: why" in capd("show", "nightly").stdout


@pytest.mark.parametrize("verb", ["runs", "sessions"])
def test_right_after_the_first_start_lists_are_empty(capd: Capd, tmp_path: Path, verb: str) -> None:
    """With the directories just made, and neither segment nor index in them, nothing was recorded: no error, no notice."""
    (tmp_path / "new" / "segments").mkdir(parents=True)
    result = capd(verb, "--json", state_dir=tmp_path / "new")
    assert (0, [], "") == (result.exit_code, json.loads(result.stdout), result.stderr)
    assert ["segments"] == [path.name for path in (tmp_path / "new").iterdir()]


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("show", ["\udcff"]),
        ("verify", ["\udcff"]),
        ("sessions", ["--run", "\udcff"]),
        ("sessions", ["--target", "\udcff"]),
        ("sessions", ["--protocol", "\udcff"]),
        ("search", ["word", "--target", "\udcff"]),
        ("search", ["word", "--run", "\udcff"]),
    ],
)
def test_bytes_that_are_no_text_are_a_clear_error(capd: Capd, recorded: Recording, verb: str, arguments: list[str]) -> None:
    """An argument that is not UTF-8 is named, with exit status 2, and is no defect of capd."""
    error = capd(verb, *arguments).exception
    assert isinstance(error, NotTextError)
    assert (ExitStatus.USAGE, True) == (error.exit_status, "'\\udcff' is no text in UTF-8" in str(error))


@pytest.mark.parametrize("verb", ["runs", "sessions", "show", "search", "replay", "verify"])
def test_no_recording_is_said(capd: Capd, tmp_path: Path, verb: str) -> None:
    """A directory that is not there or holds no recording is named in the error."""
    arguments = ["x"] if verb in {"show", "search", "replay"} else []
    for place in (tmp_path / "nowhere", tmp_path):
        error = capd(verb, *arguments, state_dir=place).exception
        assert isinstance(error, NothingRecordedError)
        assert str(place) in str(error)


def test_a_recording_of_others_is_named(recorded: Recording) -> None:
    """Who may not read the recording is told so with exit status 3, not with a stack trace."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    recorded.state_dir.chmod(0o700)
    command = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-P", "-m", "capd.cli.main", "sessions"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*command, "--state-dir", str(recorded.state_dir)], capture_output=True, text=True, env=environment, check=False
    )
    assert (ExitStatus.NOT_PERMITTED, "") == (done.returncode, done.stdout)
    assert [2, "Permission denied"] == [len(done.stderr.splitlines()), done.stderr.splitlines()[0].rpartition(": ")[2]]


def test_segments_alone_are_enough(capd: Capd, recorded: Recording, tmp_path: Path) -> None:
    """A laptop with nothing but the segments can list, search and replay."""
    shutil.copytree(recorded.state_dir / "segments", tmp_path / "copy" / "segments")
    listed = capd("sessions", "--json", state_dir=tmp_path / "copy")
    assert 2 == len(json.loads(listed.stdout))
    assert "making one of its segments" in listed.stderr
    assert "DROP TABLE" in capd("replay", str(over_postgresql().id), state_dir=tmp_path / "copy").stdout
    assert ["segments"] == [path.name for path in (tmp_path / "copy").iterdir()]


def test_an_index_that_is_none_is_named(capd: Capd, recorded: Recording) -> None:
    """A broken index is an error with a next step."""
    recorded.index.close()
    recorded.index = recorded.index.open(recorded.state_dir / "elsewhere.db")
    for path in (recorded.state_dir / "index").iterdir():
        path.write_bytes(b"this is no database " * 100)
    assert isinstance(capd("sessions").exception, IndexUnusableError)


def test_the_configuration_names_the_recording(capd: Capd, recorded: Recording, tmp_path: Path) -> None:
    """--config FILE leads to the state directory in it; a wrong one is an error."""
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(f'state_dir = "{recorded.state_dir}"\n')
    bad.write_text("state_dir = 7\n")
    assert 2 == len(json.loads(capd("sessions", "--json", "--config", str(good), state_dir=None).stdout))
    assert isinstance(capd("sessions", "--config", str(bad), state_dir=None).exception, ConfigurationError)


def test_unknown_ids_are_negative_answers(capd: Capd, recorded: Recording) -> None:
    """An id that fits nothing is said by every verb that takes one."""
    results = [capd("show", "fff0"), capd("replay", "fff0"), capd("verify", "fff0"), capd("sessions", "--run", "fff0")]
    results += [capd("show", ""), capd("replay", ""), capd("verify", "")]  # of a variable that is not set: not all that is here
    assert [UnknownSessionError] * len(results) == [type(result.exception) for result in results]


@pytest.mark.parametrize(
    ("verb", "arguments", "corrected"),
    [
        ("sessions", ["--bogus"], "capd sessions --"),
        ("sessions", ["--since", "yesterday"], "capd sessions --"),
        ("sessions", ["--state", "asleep"], "capd sessions --"),
        ("runs", ["extra"], "capd runs --"),
        ("show", [], "capd show "),
        ("search", [], "capd search "),
        ("replay", [], "capd replay "),
        ("replay", ["x", "--format", "zip"], "capd replay "),
        ("export", [], "capd export "),
        ("export", ["x", "--format", "zip"], "capd export "),
        ("replay", ["x", "--format", "har", "--at", "3"], "capd replay x --at 3"),
        ("replay", ["x", "--at", "-1"], "capd replay "),
        ("replay", ["x", "--format", "raw", "--grep", "y"], "capd replay x --grep y"),
        ("replay", ["x", "--format", "raw", "--at", "3"], "capd replay x --at 3"),
        ("replay", ["x", "--follow", "--until", "5s"], "capd replay x --follow"),
        ("verify", ["a", "b"], "capd verify"),
    ],
)
def test_usage_errors_show_a_corrected_command(capd: Capd, verb: str, arguments: list[str], corrected: str) -> None:
    """Whoever uses a verb wrongly is shown on the second line what would have been right, and the exit status is 2."""
    error = capd(verb, *arguments).exception
    assert isinstance(error, CorrectedUsageError)
    assert (2, f"try: {corrected}") == (error.exit_code, error.hint[: len(corrected) + 5])


@pytest.mark.parametrize("verb", list(VERBS))
def test_help_has_an_example(verb: str) -> None:
    """The help of each verb ends in examples that name it, and its first line says what it is for."""
    with click.Context(VERBS[verb], info_name=f"capd {verb}") as context:
        text = VERBS[verb].get_help(context)
    examples = [line.strip() for line in text.partition("Examples:")[2].splitlines() if line.strip()]
    assert examples
    assert [] == [example for example in examples if not example.startswith(f"capd {verb}")]


def test_a_key_is_rotated_and_verify_follows(capd: Capd, recorded: Recording) -> None:
    """`keys` lists the keys in their order; a rotated one is signed by the one before, and the recording stays whole."""
    (recorded.state_dir / "host").write_text(f"{HOST}\n")
    (first,) = json.loads(capd("keys", "--json").stdout)
    assert [True, None] == [first["present"], first["follows"]]
    assert "restart the recorder" in capd("keys", "--rotate").stderr
    listed = json.loads(capd("keys", "--json").stdout)
    assert [(first["key"], False, None), (listed[1]["key"], True, first["key"])] == [
        (key["key"], key["present"], key["follows"]) for key in listed
    ]
    assert [0, 0] == [capd("verify", *more).return_value for more in ([], ["--key", first["file"]])]
    assert 1 == capd("verify", "--key", listed[1]["file"]).return_value
