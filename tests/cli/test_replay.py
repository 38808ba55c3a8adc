"""`capd replay`: transcripts, records, raw bytes, following."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from capd.cli.options import CorrectedUsageError
from capd.cli.pattern import PatternError, PatternTooSlowError
from capd.cli.replay_forms import PAUSE_SECONDS_MAX, Pace
from capd.recording.errors import AmbiguousSessionError, CorruptSegmentError, UnknownSessionError
from tests.cli.conftest import Capd
from tests.cli.recorded import REQUEST, RESPONSE, START_NS, Conversation, Recording
from tests.cli.spoken import over_http, over_mysql, over_postgresql

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> list[str]:
    """Give the command line of a real capd process."""
    return [sys.executable, "-P", "-m", "capd.cli.main", *arguments]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


@pytest.mark.parametrize(("name", "said"), [("http", over_http), ("postgresql", over_postgresql)])
def test_the_transcript_reads_as_it_always_did(
    capd: Capd, recorded: Recording, name: str, said: Callable[[], Conversation]
) -> None:
    """A recording of real bytes, decoded and sealed by the real parts, gives exactly the golden transcript."""
    golden = GOLDEN / f"{name}.txt"
    assert golden.read_text(encoding="utf-8") == capd("replay", str(said().id)).output


def test_the_transcript_of_mysql(capd: Capd, recording: Recording) -> None:
    """So does one of MySQL."""
    recording.write(over_mysql().records)
    golden = GOLDEN / "mysql.txt"
    assert golden.read_text(encoding="utf-8") == capd("replay", str(over_mysql().id)).output


def test_a_partial_session_never_looks_clean(capd: Capd, recorded: Recording) -> None:
    """The verdict stands above and below the transcript, and the gap where it is, whatever is filtered out."""
    output = capd("replay", str(over_postgresql().id), "--direction", "request", "--grep", "DROP").output
    verdict = "PARTIAL  something is missing:"
    body = output.split(verdict)
    assert 3 == len(body)
    assert "GAP 120,331 bytes missing from the response" in body[1]
    assert "DROP TABLE customers" in body[1]
    assert "INSERT" not in body[1]


@pytest.mark.parametrize("direction", ["request", "response"])
def test_raw_is_the_exact_bytes(capd: Capd, recorded: Recording, direction: str) -> None:
    """`--format raw` writes what was exchanged in one direction, byte by byte, and exits 0."""
    said = over_http()
    expected = b"".join(
        record.body["payload"]  # type: ignore[misc]
        for record in said.records
        if record.direction is not None and record.direction.name.lower() == direction and "payload" in record.body
    )
    result = capd("replay", str(said.id), "--format", "raw", "--direction", direction)
    assert (expected, 0) == (result.stdout_bytes, result.return_value)


def test_raw_with_a_hole_fails_loudly(capd: Capd, recorded: Recording) -> None:
    """A gap adds nothing to the bytes, is told on standard error, and makes the exit status 1."""
    result = capd("replay", str(over_postgresql().id), "--format", "raw", "--direction", "response")
    assert 1 == result.return_value
    assert 337 == len(result.stdout_bytes)
    assert "capd: not whole: 120,331 bytes missing at byte 337: ring full\n" == result.stderr


def test_raw_notices_bytes_that_nobody_misses(capd: Capd, recording: Recording) -> None:
    """When the positions jump and no gap says so, raw still says that bytes are missing."""
    said = Conversation(b"jump")
    said.say(REQUEST, b"first ")
    said.positions[REQUEST] += 10
    said.say(REQUEST, b"second")
    recording.write(said.close().records)
    result = capd("replay", str(said.id), "--format", "raw")
    assert (b"first second", 1) == (result.stdout_bytes, result.return_value)
    assert "jumps from byte 6 to byte 16" in result.stderr


def test_raw_tells_a_hole_without_an_escape(capd: Capd, recording: Recording) -> None:
    """What a record says of a hole goes to standard error, which is a terminal, and so is made visible."""
    said = Conversation(b"escape")
    said.add(said.records[0].kind.GAP, REQUEST, {"position": 0, "length": 1, "reason": "\x1b]0;owned\x07"})
    recording.write(said.close().records)
    result = capd("replay", str(said.id), "--format", "raw", "--direction", "request")
    assert (True, False) == ("\\x1b]0;owned\\x07" in result.stderr, "\x1b" in result.stderr)


def test_raw_leaves_out_what_is_not_application_data(capd: Capd, recording: Recording) -> None:
    """Wire bytes kept as evidence are no part of the stream."""
    said = Conversation(b"wire")
    said.add(said.records[0].kind.DATA, REQUEST, {"position": 0, "payload": b"\x16\x03\x01", "layer": "wire"})
    said.say(REQUEST, b"plain")
    recording.write(said.close().records)
    assert b"plain" == capd("replay", str(said.id), "--format", "raw").stdout_bytes


def test_raw_of_two_directions_must_say_which(capd: Capd, recorded: Recording) -> None:
    """Without --direction the two streams are not mixed; the error shows what to write."""
    result = capd("replay", str(over_http().id), "--format", "raw")
    assert isinstance(result.exception, CorrectedUsageError)
    assert "--format raw --direction response" in result.exception.hint


def test_json_is_one_object_a_record(capd: Capd, recorded: Recording) -> None:
    """Every record comes as one line of JSON; bytes that are no text are base64."""
    objects = [json.loads(one) for one in capd("replay", str(over_http().id), "--format", "json").output.splitlines()]
    assert [record.kind.name.lower() for record in over_http().records] == [each["kind"] for each in objects]
    assert "nightly" == objects[0]["body"]["run_name"]
    assert {"utf8", "base64"} == {key for each in objects if each["kind"] == "data" for key in each["body"]["payload"]}


@pytest.mark.parametrize(
    ("arguments", "present", "absent"),
    [
        (["--from", "07:24:11.377"], ["DELETE /v1/customers/42"], ["POST", "logo.png"]),
        (["--until", "10ms"], ["POST /v1/chat"], ["DELETE", "200 OK"]),
        (["--at", "11"], ["before #11 is not shown", "DELETE /v1/customers/42"], ["POST", "logo.png"]),
        (["--at", "4"], ["#4 · body 121 bytes · application/json · gzip", '"id": 42,'], ["POST", "after 250 ms"]),
        (["--grep", "not yours"], ["not yours"], ["POST", "DELETE"]),
        (["--direction", "response"], ["403 Forbidden"], ["DELETE"]),
        (["--full"], ["Accept: */*", "0000f0  "], ["more header", "more bytes"]),
    ],
)
def test_a_part_can_be_chosen(
    capd: Capd, recorded: Recording, arguments: list[str], present: list[str], absent: list[str]
) -> None:
    """Options show the part that was asked for and nothing else."""
    output = capd("replay", str(over_http().id), *arguments).output
    assert ([], []) == ([one for one in present if one not in output], [one for one in absent if one in output])


def test_grep_finds_what_the_preview_cuts(capd: Capd, recording: Recording) -> None:
    """A match deep in a long body is shown with the lines around it and marks for the rest."""
    said = Conversation(b"long")
    body = b"".join(b"line %d\n" % number for number in range(500))
    said.say(
        REQUEST, b"PUT /f HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    recording.write(said.close().records)
    output = capd("replay", str(said.id), "--grep", "line 333$").output
    assert ["…", "line 332", "line 333", "line 334", "…"] == [line.strip() for line in output.splitlines()[-7:-2]]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--grep", "(unclosed"], PatternError),
        (["--grep", "x" * 2000], PatternError),
        (["--grep", "(a|a)*$"], PatternTooSlowError),
    ],
)
def test_a_bad_pattern_is_refused(capd: Capd, recording: Recording, arguments: list[str], error: type[Exception]) -> None:
    """What is no expression, or takes for ever on hostile text, ends in an error that says what to do."""
    said = Conversation(b"slow")
    said.say(REQUEST, b"a" * 60 + b"b")
    recording.write(said.close().records)
    assert error is type(capd("replay", str(said.id), *arguments).exception)


def test_nothing_found_exits_1(capd: Capd, recorded: Recording) -> None:
    """A pattern that matches nowhere and a message that is not there are negative answers."""
    session = str(over_http().id)
    assert [1, 1] == [capd("replay", session, *wanted).return_value for wanted in (["--grep", "nowhere"], ["--at", "999"])]


@pytest.mark.parametrize(
    ("identity", "error"), [("01a1fcfd", AmbiguousSessionError), ("ffff", UnknownSessionError), ("?", UnknownSessionError)]
)
def test_ids_are_found_by_their_beginning(capd: Capd, recorded: Recording, identity: str, error: type[Exception]) -> None:
    """A beginning that fits several sessions or none is refused."""
    assert error is type(capd("replay", identity).exception)


def test_the_short_id_of_the_table_is_enough(capd: Capd, recorded: Recording) -> None:
    """What `sessions` prints can be given to `replay`."""
    short = capd("sessions").output.splitlines()[1].split()[0]
    assert str(over_http().id).startswith(short)
    assert 0 == capd("replay", short).return_value


def test_a_damaged_segment_stops_the_replay_visibly(capd: Capd, recording: Recording) -> None:
    """What comes before the damage is shown, then the transcript says that the rest cannot be read."""
    said = Conversation(b"damaged")
    said.say(REQUEST, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    recording.write(said.records)
    before = len(said.records)
    said.say(RESPONSE, b"HTTP/1.1 204 No Content\r\n\r\n")
    recording.write(said.close().records[before:])
    second = sorted((recording.state_dir / "segments").iterdir())[1]
    data = bytearray(second.read_bytes())
    data[120] ^= 0xFF
    second.write_bytes(data)
    result = capd("replay", str(said.id))
    assert isinstance(result.exception, CorruptSegmentError)
    assert "GET / HTTP/1.1" in result.output
    assert "! the recording is damaged from here on" in result.output
    assert "does not hold" in result.output.splitlines()[-1]


def test_undecoded_bytes_are_shown_safely(capd: Capd, recording: Recording) -> None:
    """Bytes of an unknown protocol are text where they are text and hexadecimal where not."""
    said = Conversation(b"odd", port=9)
    said.say(REQUEST, b"\x00\x01\x02\xff" * 8 + b"\x1b]0;x\x07")
    said.say(RESPONSE, b"+OK hello \x1b[2J\r\n")
    recording.write(said.close().records)
    output = capd("replay", str(said.id)).output
    assert "000000  00 01 02 ff" in output
    assert r"+OK hello \x1b[2J" in output
    assert "\x1b" not in output


class Follower:
    """A real `capd replay --follow`, killed if it takes too long, so that a defect is a failure and no hanging test."""

    def __init__(self, session: str, state_dir: Path) -> None:
        arguments = command("replay", session, "--follow", "--state-dir", str(state_dir))
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self._alarm = threading.Timer(30, self.process.kill)
        self._alarm.start()
        self.text = ""

    def wait_for(self, words: str) -> None:
        """Read up to the line with these words."""
        assert self.process.stdout is not None
        while words not in self.text:
            line = self.process.stdout.readline()
            assert line, f"{words!r} never came, only:\n{self.text}"
            self.text += line

    def finish(self) -> tuple[int, str]:
        """Read on to the end; give exit status and standard error."""
        rest, errors = self.process.communicate()
        self._alarm.cancel()
        self.text += rest
        return self.process.returncode, errors


def test_following_shows_what_is_said_until_the_end(recording: Recording) -> None:
    """--follow gives history, then what is written while it runs, over the sealing of a segment, and ends with the session."""
    said = Conversation(b"live")
    said.say(REQUEST, b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
    recording.write(said.records, seal=False)
    follower = Follower(str(said.id), recording.state_dir)
    follower.wait_for("GET /one")
    told = len(said.records)
    said.say(RESPONSE, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    recording.write(said.records[told:], seal=True)
    told = len(said.records)
    follower.wait_for("200 OK")
    recording.write(said.close().records[told:], seal=False)
    assert (0, "") == follower.finish()
    assert [1, 1, 1] == [follower.text.count(part) for part in ("GET /one", "200 OK", "STILL OPEN")]
    assert follower.text.rstrip().endswith("COMPLETE  every byte that was exchanged was recorded")


def test_following_ends_cleanly_on_interrupt(recording: Recording) -> None:
    """Ctrl-C ends --follow with status 0 and the verdict."""
    said = Conversation(b"interrupted")
    said.say(REQUEST, b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
    recording.write(said.records, seal=False)
    follower = Follower(str(said.id), recording.state_dir)
    follower.wait_for("GET /one")
    follower.process.send_signal(signal.SIGINT)
    assert (0, "") == follower.finish()
    assert follower.text.endswith("STILL OPEN  nothing is missing so far\n")


def test_a_reader_who_leaves_is_no_error(recording: Recording) -> None:
    """`| head` ends the command silently."""
    said = Conversation(b"much")
    for number in range(3000):
        said.say(REQUEST, b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        said.say(RESPONSE, b"HTTP/1.1 204 No Content\r\n\r\n")
    recording.write(said.close().records)
    arguments = command("replay", str(said.id), "--state-dir", str(recording.state_dir))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert (b"", 0) == (process.stderr.read(), process.wait(timeout=20))


def test_raw_bytes_do_not_go_to_a_terminal(recorded: Recording) -> None:
    """Raw output to a terminal is refused with the command to run instead, and allowed by --force."""
    primary, secondary = os.openpty()
    arguments = [
        "replay",
        str(over_http().id),
        "--format",
        "raw",
        "--direction",
        "request",
        "--state-dir",
        str(recorded.state_dir),
    ]
    refused = subprocess.run(
        command(*arguments), stdout=secondary, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False
    )
    assert 2 == refused.returncode
    assert "> request.bin" in refused.stderr
    allowed = subprocess.run(
        command(*arguments, "--force"), stdout=secondary, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False
    )
    assert 0 == allowed.returncode
    assert b"POST /v1/chat" in os.read(primary, 4096)
    os.close(primary)
    os.close(secondary)


def test_colour_is_for_terminals_that_want_it(recorded: Recording) -> None:
    """A terminal gets colour, NO_COLOR takes it away, and its escapes are capd's own."""
    outputs = []
    for extra in ({"TERM": "xterm"}, {"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}):
        primary, secondary = os.openpty()
        process = subprocess.Popen(
            command("replay", str(over_postgresql().id), "--state-dir", str(recorded.state_dir)),
            stdout=secondary, env={**ENVIRONMENT, **extra},
        )  # fmt: skip
        os.close(secondary)
        output = bytearray()
        reader = threading.Thread(target=_drain, args=(primary, output))
        reader.start()
        process.wait(timeout=20)
        reader.join()
        os.close(primary)
        outputs.append(bytes(output))
    assert b"\x1b[1;31mGAP 120,331 bytes missing" in outputs[0]
    assert [False, False] == [b"\x1b" in output for output in outputs[1:]]


def _drain(terminal: int, output: bytearray) -> None:
    while True:
        try:
            output += os.read(terminal, 65536)
        except OSError:
            return


def test_speed_keeps_the_distance_of_messages() -> None:
    """--speed waits as long as it took, divided, and never longer than some seconds."""
    slept: list[float] = []
    pace = Pace(2.0, slept.append)
    for offset_s in (0, 1, 1, 3600):
        pace.keep(START_NS + offset_s * 1_000_000_000, lambda: None)
    assert [0.5, PAUSE_SECONDS_MAX] == slept


def test_the_hash_of_a_large_body_is_its_own(capd: Capd, recording: Recording) -> None:
    """Eight megabytes come out with the SHA-256 with which they went in."""
    said = Conversation(b"large", port=9)
    data = bytes(range(256)) * 32768
    said.say(RESPONSE, data, piece=1 << 20)
    recording.write(said.close().records)
    written = capd("replay", str(said.id), "--format", "raw").stdout_bytes
    assert hashlib.sha256(data).digest() == hashlib.sha256(written).digest()
