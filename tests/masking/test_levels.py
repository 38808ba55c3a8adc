"""Recording levels of the configuration, and what an OPEN record says of a process at each."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from capd.daemon.masking.levels import Level, Levels, Scope
from capd.daemon.masking.shown import Shown
from capd.enforcer.masking.values import Values
from capd.recording.record import Kind, Record, Value
from tests.masking.test_policy_levels import FACTS
from tests.masking.test_stage import RULES

NAMED: dict[str, Value] = {**FACTS, "target": {"host": "192.0.2.7", "port": 80, "name": "a.test"}}
OFF = Scope(level=Level.OFF)


@pytest.mark.parametrize(
    ("scope", "facts", "protocol", "expected"),
    [
        (replace(OFF, host="a.test"), FACTS, None, (Level.OFF, False)),
        (replace(OFF, host="a.test"), FACTS, "http1", (Level.OFF, False)),
        (replace(OFF, host="a.test"), FACTS, "opaque", (Level.MASKED, True)),
        (replace(OFF, host="a.test"), NAMED, "http1", (Level.OFF, True)),
        (replace(OFF, host="b.test"), NAMED, "http1", (Level.MASKED, True)),
        (replace(OFF, host="b.test"), NAMED, None, (Level.MASKED, True)),
        (replace(OFF, host="192.0.2.*"), FACTS, "http1", (Level.OFF, True)),
        (replace(OFF, host="a.test", run="other"), FACTS, "http1", (Level.MASKED, True)),
        (replace(OFF, host="a.test", port=81), FACTS, None, (Level.MASKED, True)),
        (replace(OFF, host="a.test", protocol="http1"), FACTS, None, (Level.OFF, False)),
        (replace(OFF, host="a.test", protocol="http1"), FACTS, "http2", (Level.MASKED, True)),
        (replace(OFF, host="a.test", protocol="opaque"), FACTS, None, (Level.MASKED, True)),
        (replace(OFF, protocol="http1"), NAMED, None, (Level.OFF, False)),
    ],
)
def test_a_name_that_is_still_to_come_may_decide(
    scope: Scope, facts: dict[str, Value], protocol: str | None, expected: tuple[Level, bool]
) -> None:
    """As long as a name may be told that a scope asks for, the session is as strict as that scope, and waits."""
    assert expected == Levels(scopes=[scope]).of(facts, protocol)


ARGUMENTS: list[Value] = ["psql", "--host", "db", "what a person wrote"]


@pytest.mark.parametrize(
    ("level", "kept"), [(Level.MASKED, ARGUMENTS), (Level.METADATA, ARGUMENTS[:1]), (Level.OFF, ARGUMENTS[:1])]
)
def test_an_open_record_says_no_more_than_its_level(level: Level, kept: list[Value]) -> None:
    """Where nothing that was said is stored, nor is what a program was started with, but its name."""
    facts: dict[str, Value] = {"process": {"pid": 1, "exe": "/usr/bin/psql", "argv": ARGUMENTS}, "run_name": "r"}
    record = Record(Kind.OPEN, UUID(int=1), 1, None, facts)
    shown = Shown(Values(RULES)).opened(record, level)
    assert {"pid": 1, "exe": "/usr/bin/psql", "argv": kept} == shown.body["process"]
