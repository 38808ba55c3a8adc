"""A whole capd of its own: the installed command, started in temporary directories.

What lives here: starting, asking and stopping it, as a person would. What must not: knowledge of how capd does anything.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from capd.cli.main import capd
from capd.recording.journal import Block, JournalKeys, JournalReader
from capd.recording.record import pack
from capd.recording.segment import SegmentReader
from tests import kept_probes
from tests.daemon.conftest import wait_until
from tests.e2e.truth import Hash, Pair

CAPD = Path(sys.executable).parent / "capd"
CLIENTS = Path(__file__).parent / "clients"
PYTHON = "/usr/bin/python3"
"""The agents' Python: the distribution's, with the distribution's OpenSSL."""

STOP_SECONDS = 30

SESSIONS_MAX = "100000"
"""Of one instance in all tests together."""
PROCESSES_MAX = 20
"""Up to so many sessions are replayed by the installed command; more of them by the same command within this process."""

Session = Mapping[str, Any]
"""An object of `capd sessions --json`."""


def _told(session: Session) -> str:
    """Say in a few words how a session stands."""
    completeness = session["completeness"] or {}
    return f"{session['transport']} {session['state']} {completeness.get('verdict')} {completeness.get('reasons')}"


class Instance:
    """A running `capd up` and the questions one asks it.

    Attributes:
        directory: where everything of it is.
        config: its capd.toml.
        tier: the set of probes that was asked for.
    """

    tier = "auto"

    def __init__(self, directory: Path, settings: str = "", before: str = "", level: str = "full") -> None:
        """Prepare.

        Args:
            directory: an empty one.
            settings: TOML beside the two directories.
            before: shell commands to run first in a mount namespace of capd's own; empty: it has none.
            level: how much is recorded; most cases compare all bytes.
        """
        self.directory = directory
        self.config = directory / "capd.toml"
        self.state = directory / "state"
        places = f'state_dir = "{self.state}"\nruntime_dir = "{directory / "run"}"\n'
        self.config.write_text(f'{places}{settings}\n[recording]\nlevel = "{level}"\n', encoding="utf-8")
        self._before = before
        self._log = directory / "up.log"
        self._up: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start `capd up` and wait until `capd status` calls it healthy.

        Raises:
            AssertionError: it ended or did not get ready; with what it said.
        """
        command = [str(CAPD), "up", "--config", str(self.config)]
        if self._before:
            script = f'{self._before}\nexec "$@"'
            command = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", script, "sh", *command]
        kept_probes.bring(self.state)
        with self._log.open("ab") as log:
            self._up = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._ready, "capd is ready")
        kept_probes.keep(self.state)

    def _ready(self) -> bool:
        assert self.alive(), f"capd up ended with {self.ended_with()}:\n{self.said()}"
        answers = (self.directory / "run" / "control.sock").exists()  # before that, a whole command would ask nobody
        return answers and self.ask("status", check=False).returncode == 0

    def alive(self) -> bool:
        """Tell whether `capd up` runs."""
        return self._up is not None and self._up.poll() is None

    def ended_with(self) -> int | None:
        """Give the exit status of `capd up`, None while it runs."""
        return None if self._up is None else self._up.poll()

    def said(self) -> str:
        """Give all that `capd up` printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> int:
        """Ask `capd up` to end; give its exit status.

        Raises:
            AssertionError: it did not end in time.
        """
        up = self._up
        if up is None:
            return 0
        self._up = None
        if up.poll() is None:
            up.terminate()
        try:
            return up.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(up.pid, signal.SIGKILL)
            up.wait()
            raise AssertionError(f"capd up did not stop within {STOP_SECONDS} s:\n{self.said()}") from None

    def ask(self, verb: str, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run another verb against this instance; give what it printed, as bytes."""
        command = [str(CAPD), verb, "--config", str(self.config), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=120, stdin=subprocess.DEVNULL)
        said = done.stderr.decode(errors="replace")
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}: {said}"
        return done

    def run(self, name: str, *command: str | Path, environment: Mapping[str, str] | None = None, status: int = 0) -> bytes:
        """Run a command as an agent, under a run's name; give what it printed."""
        done = subprocess.run(
            [str(CAPD), "run", "--config", str(self.config), "--name", name, "--", *map(str, command)],
            capture_output=True,
            check=False,
            timeout=300,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        assert status == done.returncode, f"{command[:4]} ended with {done.returncode}: {done.stderr.decode()[-2000:]}"
        return done.stdout

    def sessions(self, run_name: str | None = None) -> list[Session]:
        """Give all sessions, or those of the runs with a name."""
        listed: list[Session] = json.loads(self.ask("sessions", "--json", "--limit", SESSIONS_MAX).stdout)
        return [session for session in listed if run_name in (None, session["run_name"])]

    def settled(self, run_name: str, count: int, **fields: object) -> list[Session]:
        """Wait until a run has exactly this many sessions with such fields and all are closed; give them.

        Raises:
            AssertionError: it did not come to that; says what there was.
        """
        seen: list[Session] = []

        def enough() -> bool:
            seen[:] = [session for session in self.sessions(run_name) if fields.items() <= session.items()]
            return len(seen) >= count and all(session["state"] != "open" for session in seen)

        try:
            wait_until(enough, f"{count} sessions of {run_name} are closed")
        except AssertionError as error:
            raise AssertionError(f"{error}: {[_told(session) for session in self.sessions(run_name)]}") from None
        assert count == len(seen), f"{run_name}: {len(seen)} sessions instead of {count}: {[_told(one) for one in seen[:20]]}"
        return seen

    def raw(self, session: Session, direction: str, *, whole: bool = True, inside: bool = False) -> bytes:
        """Give the bytes of one direction, as `capd replay --format raw` writes them.

        Args:
            session: which.
            direction: request or response.
            whole: that nothing is missing, which the command says by its exit status; else that something is.
            inside: as in `pair`.
        """
        words, status = [str(session["session"]), "--format", "raw", "--direction", direction], 0 if whole else 1
        if inside:
            return self._inside("replay", *words, status=status)
        done = self.ask("replay", *words, check=False)
        assert status == done.returncode, done.stderr.decode(errors="replace")
        return done.stdout

    def pair(self, session: Session, *, inside: bool = False) -> Pair:
        """Hash both directions of a session.

        Args:
            session: which.
            inside: run the command within this process, which spares a thousand starts.
        """
        requests, responses = (self.raw(session, direction, inside=inside) for direction in ("request", "response"))
        return Hash.of(requests), Hash.of(responses)

    def _inside(self, verb: str, *words: str, status: int = 0) -> bytes:
        done = CliRunner().invoke(capd, [verb, "--config", str(self.config), *words], standalone_mode=False)
        found = (done.return_value or 0) if done.exception is None else getattr(done.exception, "exit_status", None)
        assert status == found, done.exception
        return done.stdout_bytes

    def records(self, session: Session, *, inside: bool = False) -> list[dict[str, Any]]:
        """Give the records of a session, as `capd replay --format json` prints them, one to a line; `inside` as in `pair`."""
        words = [str(session["session"]), "--format", "json"]
        printed = self._inside("replay", *words) if inside else self.ask("replay", *words).stdout
        return [json.loads(line) for line in printed.splitlines()]

    def wait_sealed(self) -> None:
        """Wait until no segment is being written."""
        segments = self.state / "segments"

        def sealed() -> bool:
            return any(segments.glob("*.seg")) and not any(segments.glob("*.open"))

        wait_until(sealed, "the recorder has sealed all segments")

    def containing(self, needle: bytes) -> list[str]:
        """Name the sessions and journal blocks in which bytes occur, uncompressed."""
        self.wait_sealed()
        readers = (SegmentReader(path) for path in sorted((self.state / "segments").glob("*.seg")))
        found = [str(record.session) for reader in readers for record in reader.records() if needle in pack(record)]
        journal = JournalReader(self.state / "journal", None, JournalKeys(self.state / "keys" / "journal.key"))
        while (block := journal.read()) is not None:
            if isinstance(block, Block) and needle in bytes(block.payload):
                found.append(f"journal block {block.sequence}")
        return found

    def kill_all(self) -> None:
        """Kill -9 of the daemon, the recorder and what holds them together, at once."""
        assert self._up is not None
        os.killpg(self._up.pid, signal.SIGKILL)
        self._up.wait()
        self._up = None

    def assert_recorded(
        self, run_name: str, truth: Counter[Pair], *, transport: str = "tcp", **expected: object
    ) -> list[Session]:
        """Hold a run against what its servers know: the same conversations, byte for byte, each of them complete.

        Args:
            run_name: whose sessions.
            truth: what the ledger gave.
            transport: of the server; a run may have other sessions, such as socket pairs between its processes.
            expected: fields that each session must have, such as protocol="http1".
        """
        sessions = self.settled(run_name, truth.total(), transport=transport)
        verdicts = Counter((session["completeness"]["verdict"], *session["completeness"]["reasons"]) for session in sessions)
        assert Counter({("complete",): len(sessions)}) == verdicts, verdicts
        replayed = Counter(self.pair(session, inside=len(sessions) > PROCESSES_MAX) for session in sessions)
        assert truth == replayed, f"exchanged {truth - replayed}, replayed {replayed - truth}"
        for field, value in expected.items():
            found = Counter(session[field] for session in sessions)
            assert {value} == found.keys(), f"{field}: {found}"
        return sessions


@contextmanager
def running(directory: Path, settings: str = "", *, before: str = "") -> Iterator[Instance]:
    """Run an instance; it must stop in good order."""
    instance = Instance(directory, settings, before)
    try:
        instance.start()
        yield instance
    finally:
        instance.stop()
