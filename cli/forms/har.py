"""HTTP sessions as HAR 1.2 (http://www.softwareishard.com/blog/har-12-spec/), which browsers' tools read.

What lives here: the objects of that format. What must not: which request belongs to which answer (http_exchanges).

Every text of it is ASCII JSON. Credentials in headers stand as replay shows them. Names of ours begin with an underscore.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote_plus

from capd.cli import facts, moments
from capd.cli.forms.http_exchanges import Exchange, Half, HttpExchanges
from capd.cli.forms.spoken import Spoken, head_words
from capd.cli.line import plain
from capd.cli.payload import Limits, is_text, unpack
from capd.cli.raw_stream import LEFT_OUT
from capd.cli.record_json import Json
from capd.cli.summary import to_json
from capd.cli.transcript import gap_line, masked_line
from capd.cli.veil import pair_of, veiled
from capd.daemon.version import VERSION
from capd.recording.record import Direction, Kind, Record
from capd.recording.rows import SessionRow

HAR_VERSION: Final = "1.2"
NS_PER_MS: Final = 1_000_000
NOT_RECORDED: Final = "not in the recording"
PORTS: Final = {"http": 80, "https": 443}
QUERY_PAIRS_MAX: Final = 10_000


def har(sessions: Iterable[Spoken], limits: Limits) -> Iterator[bytes]:
    """Give the pieces of one HAR file of some sessions of HTTP.

    Args:
        sessions: in the order in which they are to stand.
        limits: how much of a body is kept.
    """
    creator = {"name": "capd", "version": VERSION}
    yield b'{"log": {"version": "%s", "creator": %s, "pages": [], "entries": [' % (HAR_VERSION.encode(), _packed(creator))
    comments: list[Json] = []
    separator = b"\n"
    for spoken in sessions:
        comments.append({"session": str(spoken.row.session), "about": list(head_words(spoken.row))})
        for entry in _entries(spoken, limits):
            yield separator + _packed(entry)
            separator = b",\n"
    yield b'\n], "comment": %s, "_sessions": %s}}\n' % (
        _packed("recorded by capd; credentials are not in here"),
        _packed(comments),
    )


def _packed(value: Json) -> bytes:
    return to_json(value).encode("ascii")


def _entries(spoken: Spoken, limits: Limits) -> Iterator[dict[str, Json]]:
    exchanges = HttpExchanges(limits.body_bytes)
    row = spoken.row
    for record in spoken.records():
        words = _missing(record)
        if words:
            exchanges.note(words)
        for exchange in exchanges.feed(record):
            yield _entry(exchange, row, limits)
    for exchange in exchanges.finish():
        yield _entry(exchange, row, limits)


def _missing(record: Record) -> str:
    """Say in words what a record tells of something that is missing or hidden; empty when it tells of neither."""
    if record.kind is Kind.GAP:
        return plain(gap_line(record.direction, record.body, layer=facts.text(record.body, "layer")))
    return plain(masked_line(record.direction, record.body)) if record.kind is Kind.MASKED else ""


def _entry(exchange: Exchange, row: SessionRow, limits: Limits) -> dict[str, Json]:
    request = exchange.halves.get(Direction.REQUEST)
    response = exchange.halves.get(Direction.RESPONSE)
    known = [half for half in (request, response) if half is not None]
    begun = min((half.head_ns for half in known), default=row.started_ns)
    timings = _timings(request, response)
    notes = list(exchange.notes)
    notes += [] if request is not None else [f"the request is {NOT_RECORDED}"]
    notes += [] if response is not None else [f"the response is {NOT_RECORDED}"]
    notes += [f"{half.told.get('type')}: {note}" for half in known for note in dict.fromkeys(half.body.notes)]
    entry: dict[str, Json] = {
        "startedDateTime": _stamp(begun),
        "time": sum(timings.values()),
        "request": _request(request, row, limits),
        "response": _response(response, limits),
        "cache": {},
        "timings": dict(timings),
        "connection": str(row.session),
        "_session": str(row.session),
        "_exchange": exchange.number,
    }
    if row.target.host:
        entry["serverIPAddress"] = row.target.host
    if exchange.interim:
        entry["_interim"] = list(exchange.interim)
    if notes:
        entry["comment"] = "; ".join(facts.text_of(note) for note in notes)
    return entry


def _timings(request: Half | None, response: Half | None) -> dict[str, float]:
    """Give send, wait and receive in milliseconds; what is not known took none."""
    sent = 0 if request is None else request.end_ns - request.head_ns
    waited = 0 if request is None or response is None else response.head_ns - request.end_ns
    received = 0 if response is None else response.end_ns - response.head_ns
    return {name: max(ns, 0) / NS_PER_MS for name, ns in (("send", sent), ("wait", waited), ("receive", received))}


def _stamp(time_ns: int) -> str:
    """Give a time that any reader of ISO 8601 takes, also for one that no calendar holds."""
    return moments.rfc3339(min(max(time_ns, 0), moments.NS_MAX))


def _request(half: Half | None, row: SessionRow, limits: Limits) -> dict[str, Json]:
    if half is None:
        return {
            "method": "", "url": _url("", "", row), "httpVersion": "", "cookies": [], "headers": [], "queryString": [],
            "headersSize": -1, "bodySize": -1, "comment": NOT_RECORDED,
        }  # fmt: skip
    target = facts.text(half.fields, "target")
    given: dict[str, Json] = {
        "method": facts.text(half.fields, "method"),
        "url": _url(target, facts.text(half.fields, "host"), row),
        "httpVersion": _version(half),
        "cookies": _cookies(half, "cookie"),
        "headers": _headers(half),
        "queryString": _query(target),
        "headersSize": half.head_bytes,
        "bodySize": half.body.length,
    }
    if half.body.length or half.body.notes:
        content = _content(half, limits)
        post: dict[str, Json] = {"mimeType": half.body.media_type, "text": content["text"]}
        if "encoding" in content:
            post["_encoding"] = content["encoding"]
        if "comment" in content:
            post["comment"] = content["comment"]
        given["postData"] = post
    return given


def _response(half: Half | None, limits: Limits) -> dict[str, Json]:
    if half is None:
        return {
            "status": 0, "statusText": "", "httpVersion": "", "cookies": [], "headers": [],
            "content": {"size": 0, "mimeType": ""}, "redirectURL": "", "headersSize": -1, "bodySize": -1,
            "comment": NOT_RECORDED,
        }  # fmt: skip
    headers = {name.lower(): value for name, value in _pairs(half)}
    return {
        "status": facts.number(half.fields, "status") or 0,
        "statusText": facts.text(half.fields, "reason"),
        "httpVersion": _version(half),
        "cookies": _cookies(half, "set-cookie"),
        "headers": _headers(half),
        "content": _content(half, limits),
        "redirectURL": headers.get("location", ""),
        "headersSize": half.head_bytes,
        "bodySize": half.body.length,
    }


def _content(half: Half, limits: Limits) -> dict[str, Json]:
    body = half.body
    unpacked = unpack(bytes(body.kept), body.codings, whole=body.whole, bytes_max=limits.body_bytes)
    content: dict[str, Json] = {"size": len(unpacked.data), "mimeType": body.media_type}
    if body.codings and unpacked.note is None:
        content["compression"] = len(unpacked.data) - body.length
    if is_text(unpacked.data) and _is_utf8(unpacked.data):
        content["text"] = unpacked.data.decode("utf-8")
    else:
        content["text"], content["encoding"] = base64.b64encode(unpacked.data).decode("ascii"), "base64"
    notes = [unpacked.note] if unpacked.note else []
    if body.left_out:
        notes.append(LEFT_OUT)
    elif len(body.kept) < body.length:
        notes.append(f"the first {len(body.kept):,} of {body.length:,} bytes; --full gives more")
    if notes:
        content["comment"] = "; ".join(notes)
    return content


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _version(half: Half) -> str:
    version = facts.text(half.fields, "version")
    return f"HTTP/{version}" if version else ""


def _pairs(half: Half) -> list[tuple[str, str]]:
    return [pair_of(pair) for pair in facts.sequence(half.fields, "headers")]


def _headers(half: Half) -> list[Json]:
    return [{"name": name, "value": veiled(name, value)} for name, value in _pairs(half)]


def _cookies(half: Half, header: str) -> list[Json]:
    """Give the names of the cookies; their values open doors."""
    found: list[Json] = []
    for name, value in _pairs(half):
        if name.lower() != header:
            continue
        for part in value.split(";") if header == "cookie" else [value.partition(";")[0]]:
            key, equals, secret = part.strip().partition("=")
            words = f"… ({len(secret if equals else key)} characters not shown)"
            found.append({"name": key if equals else "", "value": words})
    return found


def _query(target: str) -> list[Json]:
    query = target.partition("?")[2].partition("#")[0]
    pairs = (part.partition("=") for part in query.split("&")[:QUERY_PAIRS_MAX] if part)
    return [{"name": unquote_plus(name), "value": unquote_plus(value)} for name, _, value in pairs]


def _url(target: str, host: str, row: SessionRow) -> str:
    """Give the whole URL: the scheme by whether it was said in TLS, the host as the client named it."""
    if "://" in target.partition("?")[0]:
        return target
    scheme = "http" if row.tie is None else "https"
    if not host:
        named = row.target.name or row.target.host or "unknown"
        host = f"[{named}]" if ":" in named else named
        if row.target.port not in {None, PORTS[scheme]}:
            host = f"{host}:{row.target.port}"
    return f"{scheme}://{host}{target if target.startswith('/') else '/' + target}"
