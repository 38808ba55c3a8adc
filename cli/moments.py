"""Times as people write and read them.

What lives here: wall time in nanoseconds since 1970 to text and back. What must not: asking what time it is.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

NS_PER_SECOND: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
SECONDS_PER_DAY: Final = 86_400
UNIT_NS: Final = {
    "ms": NS_PER_MS,
    "s": NS_PER_SECOND,
    "m": 60 * NS_PER_SECOND,
    "h": 3600 * NS_PER_SECOND,
    "d": SECONDS_PER_DAY * NS_PER_SECOND,
}
# datetime ends with the year 9999; a time beyond is a defect of the record, shown as its number.
NS_MAX: Final = 253_402_300_799 * NS_PER_SECOND

DURATION: Final = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h|d))+", re.ASCII)
DURATION_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)
CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?", re.ASCII)
STAMP: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(Z|[+-]\d{2}:\d{2})?)?", re.ASCII | re.IGNORECASE
)


class UnreadableTimeError(ValueError):
    """The text is no time of a form that is understood."""


def rfc3339(time_ns: int) -> str:
    """Give `2026-11-21T07:24:11.123456789Z` (RFC 3339 section 5.6, UTC)."""
    if not 0 <= time_ns <= NS_MAX:
        return str(time_ns)
    seconds, fraction = divmod(time_ns, NS_PER_SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def day(time_ns: int) -> str:
    """Give `2026-11-21`."""
    return rfc3339(time_ns)[:10]


def clock(time_ns: int) -> str:
    """Give `07:24:11.123`, cut to milliseconds."""
    return rfc3339(time_ns)[11:23] if 0 <= time_ns <= NS_MAX else str(time_ns)


def to_second(time_ns: int) -> str:
    """Give `2026-11-21 07:24:11`."""
    return rfc3339(time_ns)[:19].replace("T", " ")


def span(duration_ns: int) -> str:
    """Give a duration with the unit that a person would take: `3 ms`, `1.25 s`, `2 min 5 s`, `3 h 10 min`."""
    if duration_ns < NS_PER_MS:
        return f"{max(duration_ns, 0) // 1000} µs"
    if duration_ns < NS_PER_SECOND:
        return f"{duration_ns // NS_PER_MS} ms"
    seconds = duration_ns / NS_PER_SECOND
    if seconds < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{seconds:.2f} s"
    minutes, rest = divmod(duration_ns // NS_PER_SECOND, 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def parse(text: str, *, origin_ns: int, back: bool) -> int:
    """Read a time that a person typed.

    Args:
        text: `2026-11-21T07:24:11.5Z`, `2026-11-21 07:24`, `2026-11-21`, `07:24[:11.5]` (on the origin's day), or a duration
            such as `90s`, `1m30s`, `+2h`. Without a zone it is UTC.
        origin_ns: where durations count from.
        back: whether durations count back from there (`--since 2h`) or onwards (`--from 90s`).

    Raises:
        UnreadableTimeError: it is none of these.
    """
    asked = text.strip()
    bare = asked.removeprefix("+")
    if DURATION.fullmatch(bare):
        length = sum(_scaled(number, UNIT_NS[unit]) for number, unit in DURATION_PART.findall(bare))
        return origin_ns - length if back else origin_ns + length
    if match := CLOCK.fullmatch(asked):
        hour, minute, second, fraction = match.groups()
        return _moment(f"{day(origin_ns)}T{int(hour):02d}:{minute}:{second or '00'}+00:00", fraction, text)
    if match := STAMP.fullmatch(asked):
        date, clock_text, second, fraction, zone = match.groups()
        offset = "+00:00" if zone is None or zone.upper() == "Z" else zone
        return _moment(f"{date}T{clock_text or '00:00'}:{second or '00'}{offset}", fraction, text)
    raise UnreadableTimeError(text)


def _scaled(number: str, unit_ns: int) -> int:
    whole, _, fraction = number.partition(".")
    return int(whole) * unit_ns + (int(fraction) * unit_ns // 10 ** len(fraction) if fraction else 0)


def _moment(iso: str, fraction: str | None, asked: str) -> int:
    try:
        seconds = round(datetime.fromisoformat(iso).timestamp())
    except (ValueError, OverflowError) as error:
        raise UnreadableTimeError(asked) from error
    return seconds * NS_PER_SECOND + int((fraction or "0").ljust(9, "0"))
