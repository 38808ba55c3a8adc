"""Looking for credentials in what agents say: every form, over every cut, and by another process that alone has them."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.credentials.credential import CommandSource, Credential, FileSource
from capd.enforcer.credentials.errors import CredentialError
from capd.enforcer.credentials.given import VALUES_MAX, Given
from capd.enforcer.credentials.search import BEGUN_STEPS, Search
from capd.enforcer.credentials.search_client import Searcher
from capd.enforcer.credentials.search_server import QUESTION_BYTES_MAX, SearchServer, bind_for_all
from capd.enforcer.credentials.secret import Secret
from tests.requirements import require_root

VALUE = "s3cr3t/value+with=signs"
SEARCH = Search([("key", VALUE), ("other", "another-password")])
FORMS = {
    "as it is": VALUE,
    "percent": quote(VALUE, safe=""),
    "percent, small letters": quote(VALUE, safe="").lower().replace("s3cr3t", "s3cr3t"),
    "percent, all of it": "".join(f"%{ord(one):02X}" for one in VALUE),
    "hexadecimal": VALUE.encode().hex(),
    "hexadecimal, capitals": VALUE.encode().hex().upper(),
    "JSON": VALUE.replace("/", "\\/"),
    **{f"base64 at {at}": base64.b64encode(b"x" * at + VALUE.encode() + b"y" * 3).decode() for at in range(3)},
    "base64 of URLs": base64.urlsafe_b64encode(b"??" + VALUE.encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    """A value is found in any form, amid anything, and its credential named; without its last character it is not there."""
    said = b"\xff\0 before:" + FORMS[form].encode() + b":behind \xc3\xa4"
    found = SEARCH.find(said)
    assert {"key"} == {hit.name for hit in found}
    assert not SEARCH.find(said.replace(FORMS[form].encode(), FORMS[form].encode()[: len(FORMS[form]) // 2]))


@given(st.sampled_from(sorted(FORMS)), st.data())
def test_cuts(form: str, data: st.DataObject) -> None:
    """However a stream is cut, a value over the cuts is found if the last bytes that are asked for are given again."""
    said = b"before " + FORMS[form].encode() + b" behind"
    last, found = b"", False
    while said:
        size = data.draw(st.integers(1, len(said)))
        piece, said = last + said[:size], said[size:]
        found = found or bool(SEARCH.find(piece))
        last = piece[max(0, len(piece) - SEARCH.kept_bytes) :]
    assert found


@pytest.mark.parametrize("length", range(len(VALUE)))
def test_what_may_become_a_value(length: int) -> None:
    """A beginning at the end is told of from some characters on; less could be the beginning of anything."""
    said = b"before " + VALUE[:length].encode()
    assert (7 if length >= BEGUN_STEPS else len(said)) == SEARCH.begun(said)


@given(st.binary(max_size=300))
def test_other_bytes(said: bytes) -> None:
    """Nothing is found where nothing is, whatever the bytes."""
    assert not SEARCH.find(said)
    assert 0 <= SEARCH.begun(said) <= len(said)


def test_nothing_to_look_for() -> None:
    """Without values nothing is found; the search does not show its values."""
    nothing = Search([])
    assert ([], 4, 0) == (nothing.find(b"some"), nothing.begun(b"some"), nothing.kept_bytes)
    assert VALUE not in repr(SEARCH)


def test_what_was_given_is_remembered() -> None:
    """The last few values of each credential count, of keys in JSON those that are secret; what cannot be one does not."""
    kept = Given()
    for number in range(VALUES_MAX + 3):
        kept.add("key", Secret(f"a-long-value-{number}"))
    kept.add("key", Secret("a-long-value-10"))
    kept.add("aws", Secret('{"AccessKeyId": "AKID12345", "SecretAccessKey": "the-secret-key", "SessionToken": "the-token"}'))
    kept.add("odd", Secret("{no json"))
    found = kept.values()
    assert [("key", f"a-long-value-{number}") for number in range(3, VALUES_MAX + 3)] == found[:VALUES_MAX]
    assert {("aws", "the-secret-key"), ("aws", "the-token")} == set(found[VALUES_MAX:])
    before = kept.version
    kept.add("key", Secret("a-long-value-9"))
    assert before == kept.version


def test_files_are_known_before_they_are_used() -> None:
    """Values of files count from the start, programs are not run for it, and one that is not to be had stops no other."""

    def value(name: str) -> Secret:
        if name == "gone":
            raise CredentialError("it is gone")
        return Secret(f"the-value-of-{name}")

    def credential(name: str, source: FileSource | CommandSource) -> Credential:
        return Credential(name=name, source=source, hosts=(), ports=())

    program = CommandSource(words=("/bin/false",), timeout_seconds=1, ttl_seconds=1)
    named = {name: credential(name, FileSource(path=Path("/x"))) for name in ("gone", "here")}
    kept = Given()
    kept.add_files({**named, "program": credential("program", program)}, value)
    assert [("here", "the-value-of-here")] == kept.values()


@contextmanager
def keeping(kept: Given, uid: int = 0) -> Iterator[tuple[Path, list[str]]]:
    """Run a server; give where it listens, and what it said."""
    with TemporaryDirectory(prefix="capd-search-") as name:
        Path(name).chmod(0o755)
        path = Path(name) / "search.sock"
        listener = bind_for_all(path)
        gone, alive = os.pipe()
        said: list[str] = []
        server = SearchServer(listener, kept, uid, refresh=lambda: None, say=said.append)
        thread = threading.Thread(target=server.run, args=(gone,))
        thread.start()
        try:
            yield path, said
        finally:
            os.close(alive)
            thread.join(180)
            listener.close()
            os.close(gone)
            assert not thread.is_alive()


def test_another_process_looks() -> None:
    """Texts go there, places come back, also of many megabytes; a value that comes later is found from then on."""
    kept = Given()
    kept.add("key", Secret(VALUE))
    with keeping(kept) as (path, said):
        searcher = Searcher(path, time.monotonic)
        try:
            filler = b"x" * (QUESTION_BYTES_MAX // 2 + 1)
            pieces = [filler, b"--" + VALUE.encode(), filler, b"new-value-of-it", VALUE[:10].encode()]
            answer = searcher.search(pieces)
            assert answer is not None
            assert [(1, (2, 2 + len(VALUE), "key"))] == [(number, tuple(hit)) for number, hit in answer.found]
            assert (4, 0) in answer.begun
            kept.add("key", Secret("new-value-of-it"))
            answer = searcher.search(pieces)
            assert answer is not None
            assert {1, 3} == {number for number, _ in answer.found}
            assert answer.kept_bytes > len(VALUE)
        finally:
            searcher.close()
        assert ["capd enforcer: the credential key was found in what an agent said or heard: replace it"] == said
        assert VALUE not in str(said)


def test_only_the_recorder_is_answered() -> None:
    """Another user can connect, and is told nothing."""
    require_root()
    kept = Given()
    kept.add("key", Secret(VALUE))
    with keeping(kept, uid=61_001) as (path, said):
        outcomes = []
        for uid in (61_001, 61_002):
            child = os.fork()
            if child == 0:
                answer = None
                try:
                    os.setgroups([])
                    os.setresuid(uid, uid, uid)
                    answer = Searcher(path, time.monotonic).search([VALUE.encode()])
                finally:
                    os._exit(0 if answer is not None else 7)
            outcomes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert [0, 7] == outcomes
        assert 1 == len(said)


def test_nobody_answers() -> None:
    """It says so, does not try again at once, and goes on when somebody is there."""
    clock = [0.0]
    kept = Given()
    outcomes = []
    with keeping(kept) as (path, _):
        searcher = Searcher(path, lambda: clock[0])
        outcomes.append(searcher.search([b"text"]) is not None)
    outcomes.append(searcher.search([b"text"]) is not None)
    told = searcher.problem
    with keeping(kept) as (path, _):
        searcher._path = path
        outcomes.append(searcher.search([b"text"]) is not None)
        clock[0] = 2.0
        outcomes.append(searcher.search([b"text"]) is not None)
        searcher.close()
    assert [True, False, False, True] == outcomes
    assert told is not None
    assert searcher.problem is None
