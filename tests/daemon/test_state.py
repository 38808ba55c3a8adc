"""Directories, users, runs and notes: what an instance keeps on disk."""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.daemon import notes, processes, recorder_user, runs, state_directory
from capd.daemon.cgroups import RunCgroup
from capd.daemon.configuration import Configuration, JournalSection
from capd.daemon.errors import ConfigurationError, StateDirectoryFullError, TooManyRunsError
from capd.daemon.processes import Process
from capd.daemon.recorder_user import RecorderUser
from capd.daemon.runs import Registry, Run
from capd.recording.errors import StateDirectoryError
from tests.daemon.conftest import call, in_namespace

NOBODY = RecorderUser(uid=61190, gid=61190, name="61190", reason="a test")


def owners(configuration: Configuration) -> dict[str, tuple[int, int, str]]:
    """Give owner, group and mode of every directory of an instance."""
    above = configuration.state_dir.parent
    found = {}
    for path in sorted(path for path in above.rglob("*") if path.is_dir()):
        status = path.stat()
        found[str(path.relative_to(above))] = (status.st_uid, status.st_gid, oct(status.st_mode & 0o7777))
    return found


def test_directories_keep_the_roles_apart(configuration: Configuration, root: None) -> None:
    """Root owns the journal, which the recorder's group reads; the recorder owns what it writes, and nothing above it."""
    state_directory.prepare(configuration, NOBODY)
    expected = {
        "run": (0, 0, "0o755"),
        "run/recorder": (61190, 61190, "0o755"),
        "run/runs": (0, 0, "0o700"),
        "run/shipper": (61190, 61190, "0o755"),
        "run/metrics": (61190, 61190, "0o755"),
        "run/alerts": (61190, 61190, "0o755"),
        "state": (0, 0, "0o755"),
        "state/index": (61190, 61190, "0o750"),
        "state/journal": (0, 61190, "0o750"),
        "state/keys": (0, 61190, "0o750"),
        "state/probes": (0, 0, "0o700"),
        "state/quarantine": (61190, 61190, "0o750"),
        "state/recorder": (61190, 61190, "0o750"),
        "state/segments": (61190, 61190, "0o750"),
        "state/shipper": (61190, 61190, "0o750"),
        "state/shipper/deletions": (61190, 61190, "0o750"),
    }
    assert expected == owners(configuration)
    state_directory.prepare(configuration, NOBODY)
    assert expected == owners(configuration)


def test_new_user_takes_over_without_following_links(configuration: Configuration, root: None, tmp_path: Path) -> None:
    """When the recorder's user changes its files change hands, but nothing that a link there points to does."""
    state_directory.prepare(configuration, NOBODY)
    (configuration.segments_dir / "1.seg").write_bytes(b"x")
    os.chown(configuration.segments_dir / "1.seg", NOBODY.uid, NOBODY.gid)
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    (configuration.segments_dir / "trap").symlink_to(outside)
    state_directory.prepare(configuration, RecorderUser(uid=61191, gid=61191, name="61191", reason="a test"))
    assert (61191, 61191) == ((configuration.segments_dir / "1.seg").stat().st_uid, configuration.segments_dir.stat().st_gid)
    assert 0 == outside.stat().st_uid


def test_new_user_is_given_only_what_the_former_one_owned(configuration: Configuration, root: None, tmp_path: Path) -> None:
    """A hard link that the former user put there to another's file does not change hands, nor does a pipe."""
    state_directory.prepare(configuration, NOBODY)
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    os.link(outside, configuration.segments_dir / "2.seg")
    os.mkfifo(configuration.segments_dir / "pipe")
    (configuration.segments_dir / "below").mkdir()
    for name in ("pipe", "below"):
        os.chown(configuration.segments_dir / name, NOBODY.uid, NOBODY.gid)
    state_directory.prepare(configuration, RecorderUser(uid=61191, gid=61191, name="61191", reason="a test"))
    uids = {path.name: path.stat().st_uid for path in configuration.segments_dir.iterdir()}
    assert ({"2.seg": 0, "pipe": NOBODY.uid, "below": 61191}, 0) == (uids, outside.stat().st_uid)


@pytest.mark.parametrize("name", ["decisions", "approvals", "callbacks"])
def test_a_link_that_a_role_put_there_leads_nowhere(
    configuration: Configuration, root: None, tmp_path: Path, name: str
) -> None:
    """What the enforcer puts in the place of one of its directories has nothing of others' changed; root may put a link."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o751)
    state_directory.prepare(configuration, NOBODY)
    state_directory.prepare_enforcer(configuration, 61192, 61192, NOBODY.gid)
    place = configuration.enforcer_dir / name
    place.rmdir()
    place.symlink_to(outside)
    os.chown(place, 61192, 61192, follow_symlinks=False)
    with pytest.raises(StateDirectoryError, match=f"{place}: "):
        state_directory.prepare_enforcer(configuration, 61192, 61192, NOBODY.gid)
    assert (0, 0o751) == (outside.stat().st_uid, outside.stat().st_mode & 0o7777)
    place.unlink()
    configuration.segments_dir.rmdir()
    configuration.segments_dir.symlink_to(outside)
    state_directory.prepare(configuration, NOBODY)
    assert (NOBODY.uid, 0o750) == (outside.stat().st_uid, outside.stat().st_mode & 0o7777)


def test_no_room_is_a_clear_error(configuration: Configuration, root: None) -> None:
    """With less free than free_bytes_min the error names the directory, both figures and has exit status 5."""
    state_directory.prepare(configuration, NOBODY)
    greedy = configuration.model_copy(update={"journal": JournalSection(free_bytes_min=1 << 60)})
    with pytest.raises(StateDirectoryFullError, match=f"{configuration.state_dir} has .* MiB free, .* wants") as caught:
        state_directory.check_room(greedy)
    assert 5 == caught.value.exit_status
    state_directory.check_room(configuration.model_copy(update={"journal": JournalSection(free_bytes_min=0)}))


READ_ONLY = """
from pathlib import Path
from capd.daemon.configuration import Configuration
from capd.daemon.recorder_user import RecorderUser
from capd.daemon import state_directory
try: state_directory.prepare(Configuration(state_dir=Path("/mnt/state"), runtime_dir=Path("/mnt/run")),
    RecorderUser(uid=61190, gid=61190, name="", reason=""))
except Exception as error: print(error.exit_status, error)
"""


def test_read_only_state_directory_is_a_clear_error() -> None:
    """On a read-only file system the error names the path and has exit status 5."""
    done = in_namespace(READ_ONLY, prepare="mount -t tmpfs -o ro none /mnt")
    assert ("", "5 cannot make /mnt/state: Read-only file system\n") == (done.stderr, done.stdout)


@pytest.mark.parametrize("name", ["state", "run"])
def test_a_file_in_place_of_a_directory_is_a_clear_error(instance_dir: Path, name: str, root: None) -> None:
    """A file where a directory of the instance belongs is named as such by `up`, and by `doctor`; nothing is overwritten."""
    config, place = instance_dir / "capd.toml", instance_dir / name
    config.write_text(f'state_dir = "{instance_dir}/state"\nruntime_dir = "{instance_dir}/run"\n')
    place.write_text("precious")
    done = call("up", "--config", config)
    assert (5, f"capd: cannot make {place}: there is something else, which is no directory") == (
        done.returncode,
        done.stderr.splitlines()[0],
    )
    assert 1 == call("doctor", "--config", config).returncode
    assert "precious" == place.read_text()


def test_host_id_stays(tmp_path: Path) -> None:
    """The first call makes an id, later ones give the same; anything else in the file is an error, not a new id."""
    file = tmp_path / "host"
    made = state_directory.host_id(file)
    assert (made, made) == (state_directory.host_id(file), UUID(file.read_text().strip()))
    for content, words in ((b"", "no UUID"), (b"no id", "no UUID"), (b"\xff" * 100, "larger than 64 bytes")):
        file.write_bytes(content)
        with pytest.raises(StateDirectoryError, match=words) as caught:
            state_directory.host_id(file)
        assert ("remove the file" in caught.value.hint) == (words == "no UUID")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(StateDirectoryError, match="no regular file"):
        state_directory.host_id(file)


def test_recorder_user_in_order(configuration: Configuration, root: None) -> None:
    """Configured beats found; found segments beat a free number; a free number is nobody's; root and strangers are refused."""
    assert recorder_user.choose("65534", configuration.segments_dir).uid == 65534
    if "capd" not in {entry.pw_name for entry in pwd.getpwall()}:
        free = recorder_user.choose(None, configuration.segments_dir)
        assert free.uid in recorder_user.FREE_IDS
        assert free.uid not in {entry.pw_uid for entry in pwd.getpwall()}
        configuration.segments_dir.mkdir(parents=True)
        os.chown(configuration.segments_dir, 61200, 61201)
        found = recorder_user.choose(None, configuration.segments_dir)
        assert (61200, 61201, "owns the segments already there") == (found.uid, found.gid, found.reason)
        os.chown(configuration.segments_dir, 0, 0)
        assert free == recorder_user.choose(None, configuration.segments_dir)
    for wrong in ("root", "0", "no-such-user"):
        with pytest.raises(ConfigurationError, match=r"recorder\.user"):
            recorder_user.choose(wrong, configuration.segments_dir)


def run(number: int = 1, **changes: object) -> Run:
    """Give a run."""
    values: dict[str, object] = {
        "id": UUID(int=number),
        "name": "nightly",
        "labels": {"team": "data"},
        "principal": runs.user_principal(0),
        "cgroup": RunCgroup(path=f"/capd/{number}", id=number, unit=None),
        "command": ["agent", "\udcff"],
        "cwd": "/",
        "started_ns": 5,
        **changes,
    }
    return Run(**values)  # type: ignore[arg-type]  # a table of fields


def test_runs_survive_the_daemon(tmp_path: Path) -> None:
    """What a registry took in, the next one finds, equal in every field and with the same key; what ended it does not find."""
    first = Registry(tmp_path)
    kept, ended = run(1), run(2, name=None, adopted=True, cwd=None)
    first.add(kept)
    first.add(ended)
    assert [kept, ended] == Registry(tmp_path).load()
    first.remove(ended)
    assert ([kept], [kept.key]) == (Registry(tmp_path).load(), [found.key for found in Registry(tmp_path).load()])


def test_no_crowd_keeps_others_from_a_run(tmp_path: Path) -> None:
    """Users who each take all they get leave a run for a newcomer, and for root as many as are reserved; then it is said."""
    registry = Registry(tmp_path)
    numbers = iter(range(10, 10_000))

    def take(uid: int) -> int:
        for taken in range(runs.LIVE_MAX + 1):
            try:
                registry.check_room(uid)
            except TooManyRunsError:
                return taken
            found = replace(run(next(numbers)), principal={"kind": "user", "name": str(uid), "uid": uid})
            registry._runs[found.key] = found
        raise AssertionError

    shares = [take(uid) for uid in range(1000, 1012)]
    assert [runs.LIVE_PER_USER_MAX] * 5 == shares[:5]
    assert min(shares) > 0
    with pytest.raises(TooManyRunsError, match=r"all users together have so many live runs that user 1011, with \d+, gets no"):
        registry.check_room(1011)
    assert take(0) >= runs.LIVE_RESERVED
    with pytest.raises(TooManyRunsError, match="4096 runs are live, and no more can be"):
        registry.check_room(None)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"id": 1}', '{"id": "x"}', "\x00", json.dumps({"id": str(UUID(int=1))})])
def test_damaged_run_file_is_removed(tmp_path: Path, content: str) -> None:
    """A file that is no run is no obstacle to the start, and is gone afterwards."""
    (tmp_path / "x.json").write_text(content)
    os.mkfifo(tmp_path / "y.json")
    assert ([], []) == (Registry(tmp_path).load(), list(tmp_path.iterdir()))


def test_run_of_a_cgroup(tmp_path: Path) -> None:
    """A cgroup belongs to the run at it or nearest above it; a name that only begins alike is another."""
    registry = Registry(tmp_path)
    outer, inner = run(1, cgroup=RunCgroup(path="/a", id=1, unit=None)), run(2, cgroup=RunCgroup(path="/a/b", id=2, unit=None))
    registry.add(outer)
    registry.add(inner)
    found = [registry.by_cgroup(path) for path in ("/a", "/a/c", "/a/b/d", "/ab", "/")]
    assert [outer, outer, inner, None, None] == found


@given(st.uuids())
def test_run_key_is_a_nonzero_64_bit_number(identity: UUID) -> None:
    """Every run id gives a key that fits the kernel's field and is not the kernel's `nobody`."""
    key = run(identity.int).key
    assert 0 < key < 1 << 64
    assert key == run(identity.int).key


@given(st.lists(st.binary(max_size=20)), st.binary(max_size=20))
def test_notes_are_utf8_whatever_a_process_is_called(arguments: list[bytes], exe: bytes) -> None:
    """Any bytes as arguments and path give a note that a strict reader of msgpack reads."""
    process = Process(
        pid=1, start_ns=2, parent=0, uid=0, exe=os.fsdecode(exe), argv=[os.fsdecode(argument) for argument in arguments]
    )
    note = msgpack.unpackb(notes.pack(notes.process(process, run=1 << 63, boottime_ns=4)))
    assert (len(arguments), 1 << 63) == (len(note["argv"]), note["run"])


@given(st.text(st.characters(categories=["Cs", "L"])))
def test_notes_are_utf8_whatever_a_client_asks_for(text: str) -> None:
    """Any name, label and command that JSON can carry, lone surrogates too, give a note that a strict reader reads."""
    asked = replace(run(1), name=text, labels={text: text}, command=["x", text])
    note = msgpack.unpackb(notes.pack(notes.run_started(asked, boottime_ns=1)))
    assert (1, 2) == (len(note["labels"]), len(note["command"]))


def test_own_process_as_proc_tells_it() -> None:
    """Our own process is read with its parent, user, executable and arguments; a number that nobody has gives nothing."""
    found = processes.read(os.getpid())
    assert found is not None
    assert (os.getppid(), os.getuid(), str(Path("/proc/self/exe").readlink())) == (found.parent, found.uid, found.exe)
    assert found.argv != []
    assert processes.read(1 << 22) is None
    assert [os.getpid(), os.getppid()] == list(processes.ancestors(os.getpid()))[:2]
