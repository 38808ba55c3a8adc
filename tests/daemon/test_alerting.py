"""Alerts: told once when they begin and once when they end, as a line, to journald, and as a file."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.daemon import alert_files, journald
from capd.daemon.alert_kinds import KINDS, Alert
from capd.daemon.alert_log import AlertLog, fields, message
from capd.daemon.alerting import Active, Alerts, Change, Patience, follow
from capd.daemon.configuration import AlertsSection, Configuration
from capd.daemon.health import Health, Verdict
from capd.daemon.metrics_role import Watch
from capd.daemon.reason import Reason

LATE = Alert.SHIPPER_LATE
LOST = Alert.BYTES_LOST
HOSTILE = "a\nMESSAGE_ID=0\r\x1b[2J\u202e"


def judged(*alerts: Alert, verdict: Verdict | None = None) -> Health:
    """Give a judgement with these causes."""
    reasons = tuple(Reason(alert=alert, reason=f"{alert}!", next_step="do") for alert in alerts)
    return Health(verdict=verdict or (Verdict.DEGRADED if reasons else Verdict.HEALTHY), reasons=reasons)


DOWN = judged(Alert.DAEMON_DOWN, verdict=Verdict.DOWN)

CASES: list[tuple[str, Patience, list[tuple[float, Health]], list[tuple[float, str]]]] = [
    ("nothing", Patience(begin_seconds=0, end_seconds=0), [(0, judged()), (9, judged())], []),
    (
        "once, however often it is seen",
        Patience(begin_seconds=0, end_seconds=0),
        [(0, judged(LATE)), (1, judged(LATE)), (2, judged(LATE)), (3, judged()), (4, judged())],
        [(0, "+shipper-late"), (3, "-shipper-late")],
    ),
    (
        "what is short is not told",
        Patience(begin_seconds=5, end_seconds=0),
        [(0, judged(LATE)), (4, judged(LATE)), (4.5, judged()), (6, judged(LATE)), (10, judged(LATE)), (11, judged(LATE))],
        [(11, "+shipper-late")],
    ),
    (
        "what comes back soon never went",
        Patience(begin_seconds=0, end_seconds=5),
        [(0, judged(LATE)), (1, judged()), (5, judged(LATE)), (6, judged()), (10, judged()), (11, judged())],
        [(0, "+shipper-late"), (11, "-shipper-late")],
    ),
    (
        "each for itself",
        Patience(begin_seconds=0, end_seconds=0),
        [(0, judged(LATE)), (1, judged(LATE, LOST)), (2, judged(LOST)), (3, judged())],
        [(0, "+shipper-late"), (1, "+bytes-lost"), (2, "-shipper-late"), (3, "-bytes-lost")],
    ),
    (
        "nothing ends while nobody knows",
        Patience(begin_seconds=0, end_seconds=2),
        [(0, judged(LOST)), (1, judged()), (2, DOWN), (9, DOWN), (10, judged()), (12, judged())],
        [(0, "+bytes-lost"), (2, "+daemon-down"), (12, "-bytes-lost"), (12, "-daemon-down")],
    ),
]


def told(patience: Patience, judgements: list[tuple[float, Health]]) -> list[tuple[float, str]]:
    """Give what is told, and when."""
    alerts, found = Alerts(), []
    for now, health in judgements:
        alerts, changes = follow(alerts, health, patience, now=now, wall=1000 + now)
        found += [(now, f"{'+' if change.begins else '-'}{change.active.reason.alert}") for change in changes]
    return found


@pytest.mark.parametrize(("patience", "judgements", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_beginnings_and_ends(
    patience: Patience, judgements: list[tuple[float, Health]], expected: list[tuple[float, str]]
) -> None:
    """A cause is told once when it has been there long enough, and once when it has been gone long enough."""
    assert expected == told(patience, judgements)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.sets(st.sampled_from([LATE, LOST])), st.booleans())),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.sampled_from([0.0, 1.0, 2.0]),
)
def test_beginnings_and_ends_alternate(steps: list[tuple[float, set[Alert], bool]], begin: float, end: float) -> None:
    """Whatever comes and goes, of each alert every end follows a beginning and every beginning but the first an end."""
    now, judgements = 0.0, []
    for seconds, causes, down in steps:
        now += seconds
        judgements.append((now, DOWN if down else judged(*sorted(causes))))
    words = [word for _, word in told(Patience(begin_seconds=begin, end_seconds=end), judgements)]
    for alert in (LATE, LOST, Alert.DAEMON_DOWN):
        signs = [word[0] for word in words if word[1:] == alert]
        assert ["+", "-"] * (len(signs) // 2) + ["+"] * (len(signs) % 2) == signs


def change(*, begins: bool = True, reason: str = "3 segments wait") -> Change:
    """Give a change to tell."""
    active = Active(since=1000.5, reason=Reason(alert=LATE, reason=reason, next_step="look"))
    return Change(begins=begins, active=active, seconds=61.7)


def test_lines() -> None:
    """The beginning says what is wrong and what to do, the end how long it was."""
    assert "alert shipper-late begins (warning): 3 segments wait; look" == message(change())
    assert "alert shipper-late ends after 62 s; it was: 3 segments wait" == message(change(begins=False))


def test_a_reason_cannot_make_lines_or_steer_a_terminal() -> None:
    """A reason that quotes a bucket stays in its line and in its field, visible, and is not longer than a line may be."""
    for begins in (True, False):
        assert message(change(begins=begins, reason=HOSTILE)).isprintable()
    assert all(value.isprintable() for value in fields(change(reason=HOSTILE)).values())
    assert len(message(change(reason="x" * 100_000))) <= 1000


def parsed(datagram: bytes) -> dict[str, bytes]:
    """Read an entry as journald does (journal-importer.c knows both forms of a field)."""
    found: dict[str, bytes] = {}
    while datagram:
        name, separator, datagram = datagram.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
        else:
            key, (length,) = name, struct.unpack_from("<Q", datagram)
            value, datagram = datagram[8 : 8 + length], datagram[8 + length + 1 :]
        assert separator
        found[key.decode("ascii")] = value
    return found


@pytest.mark.parametrize("value", ["", "a", "a=b", "a\nb", "\n", "ä\U0001f600", "x" * 10_000, "\udcff"])
def test_any_value_stays_in_its_field(value: str) -> None:
    """The reader of an entry finds each field with what was given for it, cut where it is too long."""
    expected = value.encode("utf-8", "replace")[: journald.VALUE_BYTES_MAX]
    assert {"A": expected, "B_2": b"end"} == parsed(journald.entry({"A": value, "B_2": "end"}))


@pytest.mark.parametrize("name", ["", "a", "_A", "A=B", "A\nB", "1A", "A" * 65])
def test_no_other_field_names(name: str) -> None:
    """What journald would drop, or take for its own, is refused."""
    with pytest.raises(ValueError, match="is no name of a field"):
        journald.entry({name: "x"})


def stream_of(descriptor: int) -> str:
    """Give what systemd would put into JOURNAL_STREAM."""
    found = os.fstat(descriptor)
    return f"{found.st_dev}:{found.st_ino}"


def test_to_journald_when_standard_error_is_its_stream(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An alert is one entry with its message id where standard error goes to journald, and no line then."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "socket"))
        log = AlertLog(stream_of(sys.stderr.fileno()), lambda entry: journald.send(entry, tmp_path / "socket"))
        log.write(change())
        found = parsed(receiver.recv(1 << 16))
    assert (KINDS[LATE].message_id.hex.encode(), b"4", b"begins") == tuple(
        found[key] for key in ("MESSAGE_ID", "PRIORITY", "CAPD_ALERT_STATE")
    )
    assert "" == capfd.readouterr().err


@pytest.mark.parametrize("stream", [None, "", "1:2", "own"])
def test_to_standard_error_otherwise(stream: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An alert is a line where standard error is something else, or journald does not take it."""
    own = stream_of(sys.stderr.fileno()) if stream == "own" else stream
    AlertLog(own, lambda entry: journald.send(entry, tmp_path / "nobody")).write(change())
    assert "capd: alert shipper-late begins (warning): 3 segments wait; look\n" == capfd.readouterr().err


def test_files_are_there_while_an_alert_lasts(tmp_path: Path) -> None:
    """The file of an alert gives it back to a restarted role, and is gone with its end."""
    active = Active(since=1000.5, reason=Reason(alert=LATE, reason="r", next_step="n"))
    alert_files.write(tmp_path, active)
    assert {LATE: active} == alert_files.load(tmp_path)
    assert {"alert", "severity", "since", "reason", "next_step", "message_id"} == set(
        json.loads((tmp_path / "shipper-late.json").read_bytes())
    )
    alert_files.remove(tmp_path, LATE)
    assert ([], {}) == (list(tmp_path.iterdir()), alert_files.load(tmp_path))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"since": "x", "reason": 1}', b"[" * 100_000, b"x" * 100_000])
def test_a_file_of_another_shape_is_no_alert(tmp_path: Path, content: bytes) -> None:
    """What somebody else left in the directory changes nothing."""
    (tmp_path / "shipper-late.json").write_bytes(content)
    assert {} == alert_files.load(tmp_path)


def test_who_wants_no_alerts_has_none(tmp_path: Path) -> None:
    """Alerts that are switched off leave no file that looks as if something lasted; what is down is told until then."""
    left = []
    for enabled in (True, False):
        wanted = AlertsSection(enabled=enabled, begin_seconds=0)
        settings = Configuration(state_dir=tmp_path / "state", runtime_dir=tmp_path / "run", alerts=wanted)
        settings.alerts_dir.mkdir(parents=True, exist_ok=True)
        Watch(settings, AlertLog(None)).check()
        left.append([path.name for path in settings.alerts_dir.iterdir()])
    assert [["daemon-down.json"], []] == left
