"""The page that replays a recording offline: what is in it, and what its script shows."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.cli.forms import page as page_form
from capd.cli.forms.page import page
from capd.cli.forms.spoken import Spoken
from capd.cli.payload import BRIEF
from capd.recording.record import Kind, Record, Value
from tests.cli.recorded import REQUEST, RESPONSE, START_NS, Conversation
from tests.cli.spoken import over_http, over_postgresql, over_terminal
from tests.cli.test_forms import SECRET, spoken, with_secrets
from tests.cli.test_transcript_hostile import RECORD
from tests.decoders import postgresql_bytes as pg
from tests.servers.node import node

DRIVER = Path(__file__).parent / "page_driver.js"
INJECTIONS = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "'\"><svg/onload=alert(1)>",
    "]]>\u2028\u2029&lt;b&gt;",
)
ALL = "".join(INJECTIONS)


class Seen(HTMLParser):
    """What a parser of HTML finds in a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag in {"script", "style"}:
            self.texts.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        """Note a text."""
        if self._open in {"script", "style"}:
            self.texts[self._open][-1] += data

    def handle_endtag(self, tag: str) -> None:
        """Note an end."""
        self._open = "" if tag == self._open else self._open


def seen_in(content: bytes) -> Seen:
    """Parse a page."""
    seen = Seen()
    seen.feed(content.decode("utf-8"))
    seen.close()
    return seen


def page_of(*sessions: Spoken, title: str = "it") -> bytes:
    """Give the page of some sessions."""
    return b"".join(page(sessions, BRIEF, title=title))


def data_of(content: bytes) -> dict[str, Any]:
    """Give what is embedded in a page."""
    data = json.loads(seen_in(content).texts["script"][0])
    assert isinstance(data, dict)
    return data


def shown(content: bytes, tmp_path: Path, *actions: str) -> dict[str, Any]:
    """Run the page's script, do something on the page, and give what it shows."""
    (tmp_path / "page.html").write_bytes(content)
    command = [str(node()), str(DRIVER), str(tmp_path / "page.html"), *actions]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    told = json.loads(done.stdout)
    assert isinstance(told, dict)
    return told


def hostile() -> Conversation:
    """Give a conversation with markup in every field that an agent or a peer chooses."""
    said = Conversation(b"hostile", port=80, target=ALL)
    opened = said.records[0]
    principal: dict[str, Value] = {"kind": ALL, "name": ALL, "uid": 1, "verified": False}
    process: dict[str, Value] = {"pid": 1, "start_ns": 1, "exe": ALL, "argv": [ALL], "user": ALL, "comm": ALL}
    body: dict[str, Value] = {**opened.body, "run_name": ALL, "labels": {ALL: ALL}, "principal": principal, "process": process}
    said.records[0] = Record(opened.kind, opened.session, opened.time_ns, None, body)
    head = f"GET /{ALL} HTTP/1.1\r\nHost: {ALL}\r\nX: {ALL}\r\nUser-Agent: {ALL}\r\nContent-Type: {ALL}\r\n"
    said.say(REQUEST, (head + f"Content-Length: {len(ALL.encode())}\r\n\r\n{ALL}").encode())
    said.add(Kind.GAP, RESPONSE, {"position": 0, "length": 1, "reason": ALL, "detail": ALL})
    said.add(Kind.MARKER, None, {"name": ALL, ALL: ALL})
    said.add(Kind.MASKED, REQUEST, {"kind": ALL, "rule": ALL, "layer": "application", "places": [[3, 4]]})
    for protocol in ("postgresql", ALL):
        fields: dict[str, Value] = {
            "sql": ALL,
            "statement": ALL,
            "columns": [{"name": ALL, "type": ALL}],
            "rows": [[ALL]],
            "detail": ALL,
        }
        for kind in ("Query", "Parse", "rows", "ErrorResponse", ALL):
            told: dict[str, Value] = {
                "protocol": protocol,
                "type": kind,
                "summary": ALL,
                "fields": fields,
                "ordinal": 9,
                "incomplete": ALL,
            }
            said.add(Kind.MESSAGE, RESPONSE, told)
    return said.close("partial", [ALL])


def test_a_page_fetches_nothing_and_says_so() -> None:
    """No element leads anywhere; the policy forbids everything but the script and the style that are in it."""
    content = page_of(spoken(over_http().records))
    seen = seen_in(content)
    assert [] == [one for one in seen.tags if {"src", "href", "action", "style"} & one[1].keys()]
    assert {"script", "style", "html", "head", "body"} < {tag for tag, _ in seen.tags}
    policy = next(attributes["content"] or "" for _, attributes in seen.tags if "http-equiv" in attributes)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    hashes = {
        kind: f"'sha256-{base64.b64encode(hashlib.sha256(seen.texts[kind][-1].encode()).digest()).decode()}'"
        for kind in ("script", "style")
    }
    assert rules == {
        "default-src": "'none'", "base-uri": "'none'", "form-action": "'none'",
        "script-src": hashes["script"], "style-src": hashes["style"],
    }  # fmt: skip


def test_markup_in_a_recording_stays_text() -> None:
    """A parser finds the same elements whatever was recorded, and the text comes back out of the data unharmed."""
    harmless = [tag for tag, _ in seen_in(page_of(spoken(over_http().records))).tags]
    content = page_of(spoken(hostile().records), title=ALL)
    assert harmless == [tag for tag, _ in seen_in(content).tags]
    data = content[content.index(b'id="recording">') :]
    data = data[: data.index(b"</script>")][15:]
    assert re.search(rb"[<>&\x80-\xff]", data) is None
    for injection in INJECTIONS[:4]:
        assert json.dumps(injection)[1:-1] in json.dumps(data_of(content))


@settings(max_examples=100, deadline=None)
@given(st.lists(RECORD, max_size=12))
def test_no_record_breaks_a_page(records: list[Record]) -> None:
    """For any records: the elements of a page, JSON that can be read, blocks in the order of time."""
    row = spoken(over_http().records).row
    content = page_of(Spoken(row=row, records=lambda: iter(records)))
    assert 2 == len(seen_in(content).texts["script"])
    times = [block[0] for block in data_of(content)["sessions"][0]["blocks"]]
    assert times == sorted(times)


def test_a_page_holds_no_credential() -> None:
    """What replay does not show is not in it, nor the same in bytes that no decoder understood."""
    content = page_of(*(spoken(said.records) for said in with_secrets()))
    assert SECRET not in json.dumps(data_of(content))


@pytest.mark.parametrize("said", [over_http, over_postgresql, over_terminal, hostile])
def test_the_script_shows_what_was_said(said: Any, tmp_path: Path) -> None:  # noqa: ANN401 - one of several builders
    """All blocks are shown as text, those after the slider faint; the verdict, gaps and masked places stand by themselves."""
    conversation = said()
    content = page_of(spoken(conversation.records))
    told, moved = shown(content, tmp_path), shown(content, tmp_path, "end")
    blocks = data_of(content)["sessions"][0]["blocks"]
    assert len(blocks) == len(told["blocks"]) == len(moved["blocks"])
    assert (moved["later"], moved["now"].split(", ")[1]) == (0, f"{len(blocks)} of {len(blocks)}")
    assert told["later"] > 0
    assert {"span", "div", "pre"} <= set(told["tags"]) <= {"span", "div", "pre", "button", "option", "p"}
    assert ("COMPLETE" in told["verdict"]) == (said is over_http)
    assert (said is not over_http) == any("GAP" in mark for mark in told["marks"])
    assert (said is hostile) == any("MASKED" in mark and "4 bytes of the request at byte 3" in mark for mark in told["marks"])


def test_the_script_plays(tmp_path: Path) -> None:
    """Played, it comes to its end and stops; a slider in the middle shows what was said by then; marks lead to their place."""
    content = page_of(spoken(over_postgresql().records), spoken(over_http().records))
    played = shown(content, tmp_path, "play")
    assert (played["playing"], played["later"]) == (False, 0)
    half = shown(content, tmp_path, "slider=10")
    assert 0 < half["later"] < len(half["blocks"])
    other = shown(content, tmp_path, "session=1", "end")
    assert "http1 to api.example.org" in other["head"]
    assert 2 == len(other["sessions"])


@pytest.mark.slow
def test_a_hundred_thousand_messages(tmp_path: Path) -> None:
    """A page of 100,000 messages is made in seconds, and only some of it is in the document at once."""
    said = Conversation(b"long", port=5432)
    said.say(REQUEST, pg.startup(user="ann", database="shop"))
    for number in range(50_000):
        body: dict[str, Value] = {"protocol": "postgresql", "ordinal": 2 * number, "exchange": number, "start": 0, "end": 0}
        query: dict[str, Value] = {
            **body,
            "type": "Query",
            "summary": f"SELECT {number}",
            "fields": {"sql": f"SELECT {number}"},
        }
        said.records.append(Record(Kind.MESSAGE, said.id, START_NS + number * 1000, REQUEST, query))
        done: dict[str, Value] = {**body, "type": "CommandComplete", "summary": "SELECT 1", "ordinal": 2 * number + 1}
        said.records.append(Record(Kind.MESSAGE, said.id, START_NS + number * 1000 + 500, RESPONSE, done))
    begun = time.process_time()
    content = page_of(spoken(said.close().records))
    assert time.process_time() - begun < 60
    assert len(content) < 20 << 20
    told = shown(content, tmp_path, "slider=25")
    assert 400 < len(told["blocks"]) < 410
    assert "SELECT 25000" in "".join(told["blocks"])


def test_a_page_that_would_be_too_large_says_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is counted, and gaps are told all the same."""
    monkeypatch.setattr(page_form, "PAGE_BYTES_MAX", 600)
    session = data_of(page_of(spoken(over_postgresql().records)))["sessions"][0]
    assert "more are in the recording and not in this page" in session["more"]
    assert ["GAP"] == [block[5][0][0][0][:3] for block in session["blocks"] if block[4]]
