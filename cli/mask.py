"""`capd mask`: what a recording would hide, by the rules of a configuration.

What lives here: the two verbs and their screens. What must not: masking (enforcer/masking). A value is never printed, not even
to whom has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO, Final

import click

from capd.cli.line import EMPTY, Line, Span, Style
from capd.cli.options import Verb, config_option
from capd.cli.options import as_json as json_option
from capd.cli.screen import answer
from capd.daemon import configuration
from capd.daemon.masking import policy
from capd.daemon.masking.trial import trial
from capd.enforcer.masking.place import Place, joined
from capd.recording.record import Direction

RULES: Final = ("capd mask rules",)
TEST: Final = (
    "capd mask test request.txt",
    "capd mask test answer.bin --protocol postgresql --direction response",
    "printf 'password=hunter2\\n' | capd mask test -",
)
EXAMPLES: Final = "\n  ".join(("\b\nExamples:", *RULES, *TEST))
INPUT_BYTES_MAX: Final = 1 << 30
FULL: Final = "full"
MASKED: Final = "masked"


@click.group(name="mask", epilog=EXAMPLES)
def command() -> None:
    """Say what a recording would hide."""


@command.command(cls=Verb, examples=TEST)
@click.argument("file", type=click.File("rb"))
@click.option(
    "--protocol",
    type=click.Choice(["http1", "http2", "mysql", "postgresql", "redis", "unknown"]),
    help="What it is; else found out.",
)
@click.option(
    "--direction", type=click.Choice(["request", "response"]), default="request", show_default=True, help="Who says it."
)
@config_option
@json_option
def test(file: BinaryIO, protocol: str | None, direction: str, config: str | None, as_json: bool) -> int:
    """Show what would be masked in FILE, which is one direction of a conversation; `-` is standard input.

    Tells where, how long, of which kind, by which rule; never the value. Exit status: 0 something would be, 1 nothing, as where
    `recording.level` is `full`.
    """
    settings = configuration.load(config)
    rules, level = policy.rules(settings.masking), settings.recording.level
    data = file.read(INPUT_BYTES_MAX)
    known, found = trial(data, rules=rules, direction=Direction[direction.upper()], protocol=protocol)
    places = joined(found)
    told = [
        {"position": place.start, "length": place.end - place.start, "kind": place.kind, "rule": place.rule} for place in places
    ]
    masked = sum(place.end - place.start for place in places)
    counted = {"protocol": known, "direction": direction, "bytes": len(data), "level": level, "masked_bytes": masked}
    answer({**counted, "places": told}, _report(known, len(data), places, level), as_json=as_json)
    return int(not places or level == FULL)


def _report(protocol: str, size: int, places: list[Place], level: str) -> Iterator[Line]:
    yield (Span(f"{size:,} bytes, protocol {protocol}", Style.FAINT),)
    for place in places:
        where = f"{place.start:>10,} +{place.end - place.start:<7,}"
        yield (Span(where, Style.FAINT), Span(f" {place.kind:<11}", Style.STRONG), Span(place.rule))
    yield EMPTY
    counted = Counter(place.kind for place in places)
    words = ", ".join(f"{kind} {count} times" for kind, count in sorted(counted.items()))
    masked = sum(place.end - place.start for place in places)
    would = f"{masked:,} bytes would be masked: {words}" if places else "nothing would be masked"
    if level == MASKED:
        yield (Span(would, Style.STRONG),)
        return
    kept = "everything would be stored as it is" if level == FULL else "nothing of this would be stored"
    yield (Span(f"{kept}: recording.level is {level}", Style.STRONG),)
    yield (Span(f"where a scope says {MASKED}, {would}", Style.FAINT),)


@command.command(cls=Verb, examples=RULES)
@config_option
@json_option
def rules(config: str | None, as_json: bool) -> int:
    """List every rule that holds, and the recording level."""
    settings = configuration.load(config)
    listing = policy.rules(settings.masking).listing()
    scopes = [section.model_dump(exclude_none=True) for section in settings.recording.scope]
    lines = (
        (Span("recording level ", Style.FAINT), Span(settings.recording.level, Style.STRONG)),
        *((Span("scope           ", Style.FAINT), Span(str(scope))) for scope in scopes),
        *((Span(f"{kind:<11} ", Style.FAINT), Span(name)) for kind, name in listing),
    )
    answer([{"kind": kind, "name": name} for kind, name in listing], lines, as_json=as_json)
    return 0
