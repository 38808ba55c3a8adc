"""HTTP/2 of a real client and a real server, through probes, recorder and reader, against what both say it was."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.e2e.certificates import Certificates
from tests.e2e.http2 import http2_server
from tests.e2e.instance import Instance
from tests.e2e.truth import answer, noise, serving
from tests.requirements import require_command

pytestmark = pytest.mark.e2e

PATHS = ("/a/10", "/b/70000", "/c/300000", "/d/5001", "/e/1")
UPLOAD_BYTES = 200_000


def test_streams_of_curl(capd: Instance, trusted: Certificates, directory: Path) -> None:
    """Of five downloads at a time and an upload, on one connection, every body is recorded whole and byte by byte."""
    require_command("curl")
    body = noise("upload", UPLOAD_BYTES)
    (directory / "body").write_bytes(body)
    with serving(http2_server(trusted)) as server:
        here = f"https://localhost:{server.port}"
        curl = ["curl", "-sSf", "--http2", "--cacert", str(trusted.authority)]
        quiet = [word for path in PATHS for word in ("-o", "/dev/null", f"{here}{path}")]
        capd.run("http2", *curl, "-Z", "--parallel-max", "5", *quiet)
        capd.run("http2", *curl, "-o", "/dev/null", "--data-binary", f"@{directory / 'body'}", f"{here}/up/3")
        truth = server.ledger.take(2)
    sessions = capd.settled("http2", 2, transport="tcp", protocol="http2")
    assert ["complete", "complete"] == [session["completeness"]["verdict"] for session in sessions], sessions
    assert truth == {capd.pair(session): 1 for session in sessions}
    entries = [
        entry
        for session in sessions
        for entry in json.loads(capd.ask("replay", session["session"], "--format", "har", "--full").stdout)["log"]["entries"]
    ]
    found = {entry["request"]["url"].removeprefix(here): entry for entry in entries}
    assert {*PATHS, "/up/3"} == set(found)
    for path, entry in found.items():
        content = entry["response"]["content"]
        said = base64.b64decode(content["text"]) if content.get("encoding") == "base64" else content["text"].encode()
        assert answer(path) == said
        assert "comment" not in entry
        assert ["HTTP/2", 200] == [entry["request"]["httpVersion"], entry["response"]["status"]]
    assert body == base64.b64decode(found["/up/3"]["request"]["postData"]["text"])
