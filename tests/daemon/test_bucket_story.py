"""A recording's way: off the host by a real shipper over a way that fails, found and read from the bucket alone, and let go."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from capd.recording.bucket import Bucket, Outcome
from tests.cli.recorded import HOST, Recording, run_records
from tests.cli.spoken import over_http, over_postgresql
from tests.cli.test_bucket import from_bucket
from tests.daemon.conftest import call, open_directory
from tests.daemon.test_shipper import QUICK, Host, everything, failing
from tests.requirements import require_root
from tests.servers.azurite import Azurite
from tests.servers.ceph import Ceph
from tests.servers.kinds import LOCKING, empty_bucket
from tests.servers.lossy import Lossy, lossy

LET_GO = QUICK + '[[retention]]\nname = "nightly"\nlabel = "team=data"\nhot_days = 0\narchive_days = 0\n'


class Story:
    """A host that recorded two sessions, a bucket, and the way between the two."""

    def __init__(self, host: Host, url: str, way: Lossy) -> None:
        self.host, self.url, self.way = host, url, way

    def read(self, verb: str, *arguments: str) -> str:
        """Give what a verb says of the bucket; it knows nothing of the host."""
        done = from_bucket(Bucket.open(self.url), verb, *arguments)
        assert done.exception is None, done.stderr
        return done.stdout

    def verdict(self) -> str:
        """Give what `capd verify` says of the bucket."""
        return str(json.loads(self.read("verify", "--json"))["verdict"])

    def is_told_whole(self) -> None:
        """Find, read and verify what was recorded."""
        assert "whole" == self.verdict()
        sessions = json.loads(self.read("sessions", "--json"))
        assert [str(over_http().id), str(over_postgresql().id)] == [row["session"] for row in sessions]
        assert "SELECT id, name, email" in self.read("search", "customers")
        assert "list customers" in self.read("replay", sessions[0]["session"])


@pytest.fixture(params=["azure", LOCKING])
def story(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Story]:
    """Give the host before it shipped anything; its shippers end with the test."""
    require_root()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    url = empty_bucket(request.param, request, monkeypatch, tmp_path)
    server: Azurite | Ceph = request.getfixturevalue("azurite" if request.param == "azure" else "ceph")
    with open_directory() as directory, lossy(server.port) as way:
        environment = {name: value.replace(f":{server.port}", f":{way.port}") for name, value in server.environment.items()}
        if isinstance(server, Ceph):  # where pytest keeps its files, other users may not pass
            environment["AWS_CA_BUNDLE"] = str(shutil.copy(server.authority, directory / "ca.pem"))
        host = Host(directory, {**environment, "XDG_STATE_HOME": str(tmp_path)})
        (directory / "state" / "host").write_text(f"{HOST}\n", encoding="ascii")
        run, recording = run_records(), Recording(directory / "state")
        recording.write([*run[:5], *over_http().records])
        recording.write([*over_postgresql().records, *run[5:]])
        recording.close()
        yield Story(host, url, way)
        host.end()


def test_a_recording_goes_its_way(story: Story) -> None:
    """Shipped once whatever fails, whole and readable from the bucket alone, never replaced, let go with the host's word."""
    host = story.host
    story.way.become(refuse=True)
    shipper = host.start(story.url)
    host.wait(lambda status: failing(status, "reset", "connection", "Connection"), "told that nobody answers")
    story.way.become()
    host.wait(everything, "shipped")
    shipper.kill()
    shipper.wait()
    bucket = Bucket.open(story.url)
    segments = {key: bucket.read(key) for key in sorted(entry.key for entry in bucket.list() if entry.key.endswith(".seg"))}
    assert [path.read_bytes() for path in sorted(host.segments.glob("*.seg"))] == list(segments.values())
    assert {Outcome.EXISTS_DIFFERENT} == {bucket.create(key, content[:-1] + b"!") for key, content in segments.items()}
    assert 0 == call("catalogue", "--config", host.directory / "capd.toml", env=host.environment).returncode
    story.is_told_whole()
    (host.directory / "state" / "shipper" / "shipped.json").unlink()
    for path in (host.directory / "state" / "keys").iterdir():  # a recorder would have made them as its user
        os.chown(path, host.segments.stat().st_uid, -1)
    host.start(story.url, LET_GO)
    host.wait(lambda status: status.get("retention", {}).get("segments") == 2, "let go of what is over")
    assert "whole" == story.verdict()
    assert [] == [entry.key for entry in bucket.list() if entry.key.endswith(".seg")]
