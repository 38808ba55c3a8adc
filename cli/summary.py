"""A session or a run in short: target, process, size, verdict, as cells of a table and as the head of a transcript.

What lives here: presentation of the objects that `--json` prints (docs/json.md). What must not: records, files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from capd.cli import moments
from capd.cli.facts import Facts, mapping, number, sequence, text, text_of
from capd.cli.line import Line, Span, Style

SHORT_ID_MIN: Final = 18
"""`0197f3a4-b5c6-7abc`: the millisecond and 12 random bits; two sessions of one millisecond may need more."""
KIB: Final = 1024
UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
LABEL_COLUMNS: Final = 10
TIES: Final[Mapping[str, str]] = {
    "nested": "tied to its socket by the kernel",
    "ciphertext": "tied to its socket by its ciphertext",
    "none": "socket unknown",
}
VERDICTS: Final[Mapping[str, str]] = {
    "partial": "PARTIAL  something is missing:",
    "opaque": "OPAQUE  what was said could not be read:",
}
STILL_OPEN: Final = "still open"
"""The reason that every open session has: no defect, but no proof yet either."""
VERDICT_STYLES: Final[Mapping[str, Style]] = {"complete": Style.GOOD, "partial": Style.BAD, "opaque": Style.DOUBTFUL}


def short_ids(identities: Sequence[str]) -> dict[str, str]:
    """Give each id cut to the fewest characters, at least SHORT_ID_MIN, that tell it from its neighbours in the list."""
    ordered = sorted(set(identities))
    short: dict[str, str] = {}
    for index, one in enumerate(ordered):
        near = [ordered[other] for other in (index - 1, index + 1) if 0 <= other < len(ordered)]
        shared = max((_shared(one, other) for other in near), default=0)
        short[one] = one[: max(SHORT_ID_MIN, shared + 1)]
    return short


def size(count: int | None) -> str:
    """Give bytes as a person compares them: `812 B`, `1.4 MiB`."""
    if count is None:
        return "?"
    if count < KIB:
        return f"{count} B"
    amount = float(count)
    for unit in UNITS[1:]:
        amount /= KIB
        if amount < KIB or unit == UNITS[-1]:
            break
    return f"{amount:.1f} {unit}"


def target(session: Facts) -> str:
    """Give the peer: name if it is known, then address and port."""
    peer = mapping(session, "target")
    host, port, name = text(peer, "host"), text(peer, "port"), text(peer, "name")
    if name and name != host:
        return f"{name}:{port}" if port else name
    address = f"[{host}]" if ":" in host else host
    return f"{address}:{port}" if port else address or "?"


def process(session: Facts) -> str:
    """Give the program's name and pid."""
    about = mapping(session, "process")
    name = text(about, "exe").rpartition("/")[2] or text(about, "comm") or "?"
    return f"{name} {text(about, 'pid')}".rstrip()


def principal(owner: object) -> str:
    """Give whom a run acts for: `user alice`, `agent@example (verified)`."""
    if not isinstance(owner, Mapping):
        return text_of(owner) if isinstance(owner, str) else ""
    words = f"{text(owner, 'kind')} {text(owner, 'name') or text(owner, 'uid')}".strip()
    return f"{words} (verified)" if owner.get("verified") is True else words


def verdict(session: Facts) -> Span:
    """Give the completeness in one cell: never a partial session without its first reason."""
    about = mapping(session, "completeness")
    word = text(about, "verdict") or "unknown"
    reasons = [text_of(reason) for reason in sequence(about, "reasons")]
    reasons += [text_of(words).partition(":")[0] for words in sequence(about, "policy")]
    return Span(f"{word}: {'; '.join(reasons)}" if reasons else word, VERDICT_STYLES.get(word, Style.DOUBTFUL))


def verdict_lines(session: Facts) -> list[Line]:
    """Give the verdict as lines that cannot be overlooked, one for each reason."""
    about = mapping(session, "completeness")
    word = text(about, "verdict") or "unknown"
    style = VERDICT_STYLES.get(word, Style.DOUBTFUL)
    reasons = [text_of(reason) for reason in sequence(about, "reasons")]
    policy: list[Line] = [(Span(f"  - by policy: {text_of(words)}", Style.DOUBTFUL),) for words in sequence(about, "policy")]
    if word == "complete":
        meaning = "COMPLETE  nothing was lost" if policy else "COMPLETE  every byte that was exchanged was recorded"
        return [(Span(meaning, style),), *policy]
    if word == "partial" and reasons == [STILL_OPEN]:
        return [(Span("STILL OPEN  nothing is missing so far", Style.DOUBTFUL),), *policy]
    meaning = VERDICTS.get(word, f"COMPLETENESS {word}")
    lost: list[Line] = [(Span("  - " + reason, style),) for reason in reasons or ["no reason recorded"]]
    return [(Span(meaning, style),), *lost, *policy]


def session_head(session: Facts) -> list[Line]:
    """Give the lines above a transcript."""
    sizes = mapping(session, "bytes")
    run = text(session, "run")
    name = text(session, "run_name")
    protocol = text(session, "protocol") or "unknown protocol"
    sent, received = size(number(sizes, "request")), size(number(sizes, "response"))
    lines = [
        _labelled("session", f"{text(session, 'session')}  {protocol} to {peer(session)}"),
        _labelled("run", f"{run}{f' {name}' if name else ''}  for {principal(session.get('principal')) or 'nobody known'}"),
        _labelled("process", process_line(session)),
        _labelled("time", period(session)),
        _labelled("size", f"→ {sent}  ← {received}  {text(session, 'messages')} messages"),
    ]
    tie = text(session, "tie")
    return [*lines, _labelled("tls", tls_words("", tie))] if tie else lines


def peer(session: Facts) -> str:
    """Give the target with its address where the name alone was said."""
    said = target(session)
    host = text(mapping(session, "target"), "host")
    shown = said if not host or host in said else f"{said} ({host})"
    role = text(session, "role")
    return f"{shown}, the agent is the server" if role == "server" else shown


def process_line(session: Facts) -> str:
    """Give pid, user and command line."""
    about = mapping(session, "process")
    argv = " ".join(text_of(word) for word in sequence(about, "argv")) or text(about, "exe")
    user = text(about, "user")
    return f"{text(about, 'pid') or '?'}{f' ({user})' if user else ''}  {argv}"


def period(session: Facts) -> str:
    """Give start, end and how long it took."""
    started, ended = text(session, "started"), text(session, "ended")
    state = text(session, "state")
    if not ended:
        return f"{started}  {state}"
    try:
        length = moments.parse(ended, origin_ns=0, back=False) - moments.parse(started, origin_ns=0, back=False)
    except moments.UnreadableTimeError:
        return f"{started} to {ended}  {state}"
    return f"{started}  {moments.span(length)}  {state}"


def tls_words(library: str, tie: str) -> str:
    """Give how encrypted bytes became readable, and how sure it is that they belong to this connection."""
    words = [f"plaintext from {library}" if library else "plaintext", TIES.get(tie, tie)]
    return ", ".join(word for word in words if word)


def to_json(value: object, *, indent: int | None = None) -> str:
    """Give JSON in ASCII, so that no byte of it can steer a terminal."""
    return json.dumps(value, ensure_ascii=True, indent=indent).replace("\x7f", "\\u007f")


def json_array(values: Sequence[object]) -> str:
    """Give one JSON array with one element a line, for jq and for grep alike."""
    return "[\n" + ",\n".join(to_json(value) for value in values) + "\n]" if values else "[]"


def _labelled(label: str, words: str) -> Line:
    return (Span(f"{label:<{LABEL_COLUMNS}}", Style.FAINT), Span(words))


def _shared(one: str, other: str) -> int:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
