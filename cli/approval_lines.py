"""Requests for approval on the screen: what a person needs who has little time, and nothing that could deceive.

What lives here: lines from the objects that `--json` prints (docs/json.md). What must not: asking, deciding. All text goes
through `visible` on its way out, so that nothing an agent wrote can move the cursor, turn direction or hide.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from capd.cli import moments
from capd.cli.line import EMPTY, Line, Span, Style
from capd.cli.safe_text import from_bytes, visible_lines
from capd.cli.summary import size
from capd.enforcer.policy.protocol import OF_DATABASES

LABEL_COLUMNS: Final = 10
BODY_LINES_MAX: Final = 12
BODY_CHARACTERS_MAX: Final = 1_000
"""Of a body in a list; `capd approvals ID` has all of it."""
FIELD_NAMES_ALWAYS: Final = ("content-type", "content-encoding", "authorization")
"""Shown in a list; `capd approvals ID` has all."""
STATES: Final = {
    "pending": Style.DOUBTFUL,
    "approved": Style.GOOD,
    "used": Style.GOOD,
    "denied": Style.BAD,
    "expired": Style.BAD,
}
SCOPES: Final = {
    "once": "once",
    "shape": "for the same but for numbers, or a statement's literals",
    "run": "for all that these rules hold in this run",
}
NS_PER_SECOND: Final = 1_000_000_000

Facts = Mapping[str, Any]


def list_lines(found: Sequence[Facts], now_ns: int) -> Iterator[Line]:
    """Give what waits in full, and of what does not a line each."""
    if not found:
        yield (Span("nothing waits for approval", Style.FAINT),)
    for number, one in enumerate(found):
        if one["state"] == "pending":
            if number:
                yield EMPTY
            yield from detail_lines(one, now_ns, whole=False)
        else:
            yield change_line(one, now_ns)


def detail_lines(one: Facts, now_ns: int, *, whole: bool) -> Iterator[Line]:
    """Give one request.

    Args:
        one: the request.
        now_ns: the time.
        whole: all of its body and header fields, not what fits a screen.
    """
    yield (
        Span(str(one["id"]), Style.STRONG),
        Span("  "),
        Span(str(one["state"]).replace("_", " "), STATES.get(one["state"], Style.PLAIN)),
        Span(_left(one), Style.FAINT),
    )
    yield (Span("  "), Span(f"{one['operation']} {one['url']}", Style.STRONG))
    yield from _said(one, whole=whole)
    if one["upgrade"]:
        yield _label("becomes", f"{one['upgrade']}: what follows is not judged")
    yield from _what(one, whole=whole)
    yield _label("effects", ", ".join(one["effects"]) if one["effects"] else "not known")
    if one["protocol"] in OF_DATABASES:
        yield _label("touches", "not known" if one["resources"] is None else ", ".join(one["resources"]) or "nothing named")
        yield from (_label(name.replace("_", " "), str(value)) for name, value in one["known"].items())
    yield from (_label("unread", problem, Style.BAD) for problem in one["problems"])
    yield _label("why", f"{one['why']} ({', '.join(one['rules'])})")
    # What was asked before an upgrade of capd has neither.
    yield from (_label("put in", f"the credential {name}") for name in one.get("credentials", ()))
    yield from (_label("hidden", f"parts of the answer, by {rule}") for rule in one.get("masked_by", ()))
    yield from _who(one)
    yield from _before(one, now_ns)
    yield from _processes(one)
    yield from _decision(one)


def change_line(one: Facts, now_ns: int) -> Line:
    """Give one request in short: what became of it, and what it was."""
    ago = moments.span(max(now_ns - one["changed_ns"], 0))
    return (
        Span(f"{one['id']}  "),
        Span(_became(one), STATES.get(one["state"], Style.PLAIN)),
        Span(f"  {ago} ago  ", Style.FAINT),
        Span(f"{one['operation']} {one['url']}"),
    )


def decided_lines(one: Facts, now_ns: int) -> Iterator[Line]:
    """Give what became of a request after a person spoke."""
    yield change_line(one, now_ns)
    if one["state"] == "pending":
        yield from (_label("missing", words) for words in _missing(one))
    elif one["state"] == "approved":
        yield _label("", f"good {SCOPES[one['approved_for']]}, {_left(one).strip(' ,')}; `capd deny {one['id']}` takes it back")
    elif one["state"] == "used":
        yield _label("", "it waited, and went out")
    elif one["state"] == "denied":
        yield _label("", "the same asked again is denied with this reason for a while")


def _left(one: Facts) -> str:
    if one["seconds_left"] is None:
        return ""
    waits = (
        "" if one["state"] != "pending" else f", {one['clients']} waiting" if one["clients"] else ", its client will come again"
    )
    return f"  {moments.span(int(one['seconds_left']) * NS_PER_SECOND)} left{waits}"


def _became(one: Facts) -> str:
    words = str(one["state"]).replace("_", " ")
    if one["denied_by"]:
        return f"{words} by {one['denied_by']}{_how(one)}: {one['reason']}"
    if one["state"] in {"approved", "used"}:
        return f"{words}, approved by {', '.join(one['approved_by'])}{_how(one)}"
    return f"{words}: {one['reason']}" if one["reason"] else words


def _how(one: Facts) -> str:
    """Say who used a link or a button."""
    ways = [
        f"{way['by']} by webhook {way['webhook']}" + (f" as {way['user']}" if way["user"] else "") for way in one["channels"]
    ]
    return f" ({', '.join(ways)})" if ways else ""


def _said(one: Facts, *, whole: bool) -> Iterator[Line]:
    """Give the text of a statement; what was held before an upgrade of capd is none."""
    if one.get("statement") is None:
        return
    lines = visible_lines(one["statement"])
    shown = lines if whole else lines[:BODY_LINES_MAX]
    for number, line in enumerate(shown):
        yield _label("" if number else "statement", line)
    if len(lines) > len(shown):
        yield _label("", f"cut: {len(lines)} lines in all; `capd approvals {one['id']}` shows them", Style.BAD)


def _what(one: Facts, *, whole: bool) -> Iterator[Line]:
    """Give header fields and body; of a statement all that it is made of, where all is asked for."""
    if one.get("statement") is not None and not whole:
        return
    for name, value in one["fields"]:
        if whole or name.lower() in FIELD_NAMES_ALWAYS:
            yield _label("", f"{name}: {value}", Style.FAINT)
    if whole and one["fields_left_out"]:
        yield _label("", f"and {one['fields_left_out']} more header fields, which are bound as well", Style.BAD)
    if not one["body_bytes"]:
        return
    if one["body"] is None:
        yield _label("body", f"{size(one['body_bytes'])}, which is not kept any more")
        return
    content = b64decode(one["body"])
    text = from_bytes(content)
    lines = visible_lines(text if whole else text[:BODY_CHARACTERS_MAX])
    shown = lines if whole else lines[:BODY_LINES_MAX]
    for number, line in enumerate(shown):
        yield _label("body" if not number else "", line)
    if len(content) < one["body_bytes"] or (not whole and (len(lines) > len(shown) or len(text) > BODY_CHARACTERS_MAX)):
        words = f"cut: {one['body_bytes']} bytes in all; `capd approvals {one['id']}` shows them"
        yield _label("", words, Style.BAD)


def _who(one: Facts) -> Iterator[Line]:
    run, principal = one["run"], one["principal"]
    name = f"{one['run_name']}, " if one["run_name"] else ""
    yield _label("run", f"{name}{run['id']}, user {run['uid']}")
    yield _label("for", "not known" if principal is None else f"{principal['kind']} {principal['name']}")
    if one["labels"]:
        yield _label("labels", ", ".join(f"{key}={value}" for key, value in sorted(one["labels"].items())))


def _before(one: Facts, now_ns: int) -> Iterator[Line]:
    for number, message in enumerate(one["previous"]):
        ago = moments.span(max(now_ns - message["at_ns"], 0))
        yield _label("before" if not number else "", f"{ago} ago  {message['said']}  {message['outcome']}", Style.FAINT)


def _processes(one: Facts) -> Iterator[Line]:
    if one["processes"] is None:
        yield _label("processes", "not known", Style.FAINT)
        return
    for number, process in enumerate(one["processes"]):
        words = f"{process['pid']} {process['name']}, of {process['parent']}, user {process['uid']}"
        yield _label("processes" if not number else "", words, Style.FAINT)


def _decision(one: Facts) -> Iterator[Line]:
    if one["state"] != "pending":
        yield _label("", _became(one))
        return
    yield from (_label("needs", words) for words in _missing(one))
    wider = "" if one["scope"] == "once" else f" [--for {one['scope']}]"
    yield _label("decide", f"capd approve {one['id']}{wider}   |   capd deny {one['id']} --reason TEXT", Style.STRONG)


def _missing(one: Facts) -> Iterator[str]:
    for demand in one["demands"]:
        left = demand["quorum"] - demand["yeses"]
        if left > 0:
            groups = f" of {' or '.join(demand['groups'])}" if demand["groups"] else ""
            yield f"{left} {'person' if left == 1 else 'persons'}{groups} (rule {demand['rule']})"


def _label(name: str, text: str, style: Style = Style.PLAIN) -> Line:
    return (Span(f"  {name:<{LABEL_COLUMNS - 1}} ", Style.FAINT), Span(text, style))
