"""What is said of a session's record at each recording level: what policy left out is not missing, and what is gone is."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

from capd.cli.seams import Seams
from capd.cli.verify_thread import follow
from capd.daemon.masking.levels import Level, Levels
from capd.daemon.masking.stage import Stage
from capd.enforcer.masking.rules import Choice, Rules
from capd.recording.record import Kind, Record
from tests.cli.conftest import Capd
from tests.cli.recorded import REQUEST, RESPONSE, Conversation, Recording
from tests.cli.test_export import drop, verified


def kept(level: Level) -> list[Record]:
    """Give what a recorder stores of a session in which something is masked."""
    said = Conversation(b"kept", port=80)
    for number in range(3):
        said.say(REQUEST, b"GET /%d HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer abcdefghijk\r\n\r\n" % number)
        said.say(RESPONSE, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    return list(Stage(Rules(Choice()), Levels(default=level)).take(said.close().records))


def write(recording: Recording, records: list[Record]) -> str:
    """Write it in three segments, the second with the last answer, the third with nothing but the end; give its id."""
    last = max((at for at, record in enumerate(records) if record.direction is REQUEST), default=0)
    for part in (records[: last + 1], records[last + 1 : -1], records[-1:]):
        recording.write(part)
    recording.close()
    assert Kind.CLOSE is records[-1].kind
    return str(records[0].session)


@pytest.mark.parametrize("level", Level)
def test_what_a_level_leaves_out_is_not_missing(capd: Capd, recording: Recording, tmp_path: Path, level: Level) -> None:
    """A session is whole at every level for who verifies it, or a bundle of it, and for who looks at it."""
    session = write(recording, kept(level))
    assert "whole" == verified(capd, Path(session))["verdict"]
    assert 0 == capd("show", session).return_value
    assert 0 == capd("export", session, "-o", str(tmp_path / "bundle")).return_value
    told = verified(capd, tmp_path / "bundle")
    assert ("whole", []) == (told["verdict"], told["missing"])


@pytest.mark.parametrize("level", [Level.FULL, Level.MASKED, Level.METADATA])
def test_what_is_gone_is_missing(capd: Capd, recording: Recording, tmp_path: Path, level: Level) -> None:
    """The last answer is taken out: nothing jumps, and the sums of the end tell, whatever of it was masked or left out."""
    session = write(recording, kept(level))
    capd("export", session, "-o", str(tmp_path / "bundle"))
    drop(tmp_path / "bundle", 2)
    assert "damaged" == verified(capd, tmp_path / "bundle")["verdict"]
    (recording.state_dir / "segments" / f"{2:012d}.seg").unlink()
    shutil.rmtree(recording.state_dir / "index")
    done = capd("show", session)
    assert (1, True) == (done.return_value, "NOT WHOLE HERE" in done.stdout)


def test_forms_say_what_the_level_left_out(capd: Capd, recording: Recording, tmp_path: Path) -> None:
    """In HAR bodies say why they are empty, and in packets the bytes have their numbers: nobody reads that nothing was said."""
    session = write(recording, kept(Level.METADATA))
    (log,) = json.loads(capd("replay", session, "--format", "har", "--full").stdout).values()
    comments = [entry["response"]["content"]["comment"] for entry in log["entries"]]
    assert ["not recorded: recording level metadata"] * 3 == comments
    capd("export", session, "--format", "pcap", "-o", str(tmp_path / "packets"))
    content = (tmp_path / "packets").read_bytes()
    assert 6 == content.count(b"bytes not recorded: recording level metadata")
    moved = json.loads(capd("show", session, "--json").stdout)["bytes"]
    numbers = [(packet[4:8], packet[8:12]) for packet in packets(content) if packet[13] & FIN]
    ends = [moved["request"] + 1, moved["response"] + 1]
    assert [ends, [ends[1], ends[0] + 1]] == [[int.from_bytes(number) for number in both] for both in numbers]


@pytest.mark.parametrize("before", [0, 40])
def test_what_follows_a_time_without_recording_is_not_said_to_be_behind_a_hole(before: int) -> None:
    """While a scope may still say `off` nothing is kept of what there is no room for; what is kept then begins behind it."""
    said = Conversation(b"late", port=80)
    if before:
        said.add(Kind.DATA, REQUEST, {"position": 0, "payload": bytes(before)})
    for level in ("off", "masked"):
        said.add(Kind.MARKER, None, {"name": "recording", "level": level})
    said.positions[REQUEST] = 100
    said.add(Kind.DATA, REQUEST, {"position": 100, "payload": bytes(10)})
    said.add(Kind.DATA, REQUEST, {"position": 120, "payload": bytes(10)})
    records = [*said.records, list(Stage(Rules(Choice()), Levels(default=Level.OFF)).take(said.close().records))[-1]]
    seams = Seams()
    gaps = [record.body["position"] for record in seams.follow(records) if record.kind is Kind.GAP]
    assert ([110], 1) == (gaps, len(follow(records)[0])), "only the later one is a hole"


def test_exact_bytes_of_what_was_not_recorded_are_told_to_be_none(capd: Capd, recording: Recording) -> None:
    """Who reads the bytes of a session of the level `off` does not take the empty answer for all that was said."""
    session = write(recording, kept(Level.OFF))
    done = capd("replay", session, "--format", "raw", "--direction", "request")
    assert (1, "") == (done.return_value, done.stdout)
    assert "not whole: not recorded: recording level off" in done.stderr


FIN = 1


def packets(content: bytes) -> list[bytes]:
    """Give the TCP headers of a pcapng file with packets of IPv4."""
    found, at = [], 0
    while at < len(content):
        kind, length = struct.unpack_from("<II", content, at)
        if kind == 6:
            found.append(content[at + 28 + 20 : at + length])
        at += length
    return found


def test_a_jump_between_what_a_level_leaves_out_is_told(capd: Capd, recording: Recording, tmp_path: Path) -> None:
    """Lengths without payload have positions too."""
    records = kept(Level.METADATA)
    at = [number for number, record in enumerate(records) if record.kind is Kind.DATA and record.direction is REQUEST][1]
    for part in (records[:at], records[at : at + 1], records[at + 1 :]):
        recording.write(part)
    recording.close()
    capd("export", str(records[0].session), "-o", str(tmp_path / "bundle"))
    drop(tmp_path / "bundle", 2)
    assert any("jumps" in words for words in verified(capd, tmp_path / "bundle")["missing"])
