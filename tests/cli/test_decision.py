"""Decisions as a person is told of them."""

from __future__ import annotations

from uuid import UUID

import pytest

from capd.cli.decision import decision_line, is_stopped
from capd.cli.facts import Facts
from capd.cli.line import Style
from capd.cli.payload import Limits
from capd.cli.session_story import Story
from capd.cli.transcript import Transcript
from capd.recording.record import Direction, Kind, Record

DENIED: Facts = {
    "decision": "0199/2",
    "outcome": "deny",
    "about": "http",
    "exchange": 1,
    "reason": "denied_by_policy",
    "rule": "no-secrets",
    "policy": "v1",
    "method": "GET",
    "host": "api.test",
}
NOTHING = dict.fromkeys(("method", "rule", "reason", "policy"), "")


@pytest.mark.parametrize(
    ("changes", "words", "style", "stopped"),
    [
        pytest.param(
            {},
            "DENIED GET to api.test (request 2): rule no-secrets, denied_by_policy, policy v1, decision 0199/2",
            Style.BAD,
            True,
            id="denied",
        ),
        pytest.param(
            {"outcome": "allow", "reason": "", "exchange": 0},
            "ALLOWED GET to api.test (request 1): rule no-secrets, policy v1, decision 0199/2",
            Style.GOOD,
            False,
            id="allowed",
        ),
        pytest.param(
            {"outcome": "allow", "reason": "", "obligations": {"masks": ["hide"], "credentials": [["put", "key"]]}},
            "ALLOWED GET to api.test (request 2): rule no-secrets, policy v1, decision 0199/2, "
            "credential key put in, answer masked by hide",
            Style.GOOD,
            False,
            id="with obligations",
        ),
        pytest.param(
            {"protocol": "http2", "exchange": 5},
            "DENIED GET to api.test (stream 5): rule no-secrets, denied_by_policy, policy v1, decision 0199/2",
            Style.BAD,
            True,
            id="a stream",
        ),
        pytest.param(
            {"outcome": "held", "rule": "", "policy": ""},
            "HELD GET to api.test (request 2): denied_by_policy, decision 0199/2",
            Style.DOUBTFUL,
            True,
            id="held",
        ),
        pytest.param(
            {**NOTHING, "about": "tls", "server_name": "x.test", "outcome": "inspect"},
            "INSPECTED tls to x.test: decision 0199/2",
            Style.FAINT,
            False,
            id="TLS that was opened",
        ),
    ],
)  # fmt: skip
def test_a_decision_is_one_line(changes: Facts, words: str, style: Style, stopped: bool) -> None:
    """Outcome, request, rule, reason, policy and id, coloured by the outcome."""
    line = decision_line({**DENIED, **changes})
    assert (words, style) == ("".join(span.text for span in line), line[0].style)
    assert stopped is is_stopped({**DENIED, **changes})


def test_decisions_and_findings_are_told() -> None:
    """A transcript and `show` tell of decisions and of what the witnesses found; no filter hides what was stopped."""
    session = UUID(int=1)
    verdict = Record(Kind.VERDICT, session, 1, Direction.REQUEST, DENIED)
    alarm = Record(Kind.MARKER, session, 2, None, {"name": "witness", "alarm": True, "finding": "undecided flow: x"})
    transcript, story = Transcript(Limits()), Story()
    blocks = [block for record in (verdict, alarm) for block in transcript.feed(record)]
    assert [True, True] == [block.warning for block in blocks]
    assert ("WITNESS undecided flow: x", Style.BAD) == (blocks[1].lines[0][0].text, blocks[1].lines[0][0].style)
    story.feed(verdict)
    story.feed(alarm)
    told = "\n".join("".join(span.text for span in line) for line in story.lines())
    assert "decisions " in told
    assert "WITNESS undecided flow: x" in told
    found = story.as_json()["decisions"]
    assert isinstance(found, list)
    assert 1 == len(found)
