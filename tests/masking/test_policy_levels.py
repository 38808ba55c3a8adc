"""Recording levels that a policy sets: which session has which, what waits until that is known, what a new policy changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from capd.daemon.masking.levels import Level, Levels, Scope
from capd.daemon.masking.policy_levels import Policy
from capd.daemon.masking.stage import Stage
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.policy.policy import read_policy
from capd.enforcer.policy.session_scopes import SessionScopes
from capd.recording.projection import Projection
from capd.recording.record import Kind, Value
from tests.assembly.world import REQUEST, of_kind, stream
from tests.masking.test_stage import HTTP, RULES, SECRETS, cycles, http_talk, passed, postgresql_talk, stored

ALLOW = "rules: [{id: all, match: {hosts: '*'}, then: allow}]\n"
FACTS: dict[str, Value] = {
    "principal": {"name": "ann", "kind": "user", "verified": False},
    "run_name": "nightly",
    "labels": {"team": "hr"},
    "target": {"host": "192.0.2.7", "port": 80, "name": None},
}


def policy(*scopes: str, more: str = "") -> Policy:
    """Give what a policy with these scopes says of recording, as it comes to the recorder."""
    lines = "".join(f"  - {{id: s{number}, {scope}}}\n" for number, scope in enumerate(scopes))
    made = read_policy({"p.yaml": f"{ALLOW}{more}scopes:\n{lines}".encode()})
    scopes_made = SessionScopes(made.scopes, [one.match for one in made.passthrough])
    return Policy(version=made.version, scopes=SessionScopes.from_plain(scopes_made.plain()))


def levels(*scopes: str, more: str = "", default: Level = Level.MASKED, own: Sequence[Scope] = ()) -> Levels:
    """Give levels by such a policy."""
    return Levels(default=default, scopes=own, policy=policy(*scopes, more=more))


@pytest.mark.parametrize(
    ("scopes", "protocol", "expected"),
    [
        (["match: {principals: ann}, recording: full"], None, (Level.FULL, True)),
        (["match: {principals: bob}, recording: off"], None, (Level.MASKED, True)),
        (["match: {labels: {team: hr}}, recording: metadata"], None, (Level.METADATA, True)),
        (["match: {runs: 'night*', ports: 80}, recording: off"], None, (Level.OFF, True)),
        (["match: {ports: 81}, recording: off"], None, (Level.MASKED, True)),
        (["match: {addresses: 192.0.2.0/24}, recording: off"], None, (Level.OFF, True)),
        (["match: {protocols: postgresql}, recording: off"], None, (Level.OFF, False)),
        (["match: {protocols: postgresql}, recording: off"], "postgresql", (Level.OFF, True)),
        (["match: {protocols: postgresql}, recording: off"], "http1", (Level.MASKED, True)),
        (["match: {protocols: websocket}, recording: off"], "websocket", (Level.OFF, True)),
        (["match: {protocols: websocket}, recording: off"], "http1", (Level.MASKED, True)),
        (["match: {hosts: a.test}, recording: off"], None, (Level.OFF, False)),
        (["match: {hosts: a.test}, recording: off"], "http1", (Level.OFF, False)),
        (["match: {hosts: a.test}, recording: off"], "postgresql", (Level.MASKED, True)),
        (["match: {hosts: '*'}, recording: off"], None, (Level.OFF, True)),
        (["match: {principals: ann}, recording: full", "match: {ports: 80}, recording: off"], None, (Level.FULL, True)),
        (["match: {protocols: http}, recording: full", "match: {ports: 80}, recording: off"], None, (Level.OFF, False)),
        (["match: {protocols: http}, recording: full", "match: {ports: 80}, recording: off"], "http2", (Level.FULL, True)),
        (["match: {labels: {team: hr}}, mode: observe"], None, (Level.MASKED, True)),
    ],
)
def test_which_level(scopes: list[str], protocol: str | None, expected: tuple[Level, bool]) -> None:
    """The first scope that matches decides; one that may match yet makes it stricter, and uncertain while more may come."""
    assert expected == levels(*scopes).of(FACTS, protocol)


def test_what_stays_unknown_is_taken_strictly() -> None:
    """A scope that asks for what nobody will ever tell counts where it is stricter, never where it is laxer."""
    nobody = {**FACTS, "principal": None}
    assert (Level.OFF, True) == levels("match: {principals: ann}, recording: off").of(nobody, "tcp")
    assert (Level.MASKED, True) == levels("match: {principals: ann}, recording: full").of(nobody, "tcp")


def test_the_policy_comes_before_the_configuration() -> None:
    """A scope of the policy decides before those of the configuration, which decide where it has none."""
    own = [Scope(level=Level.OFF, labels={"team": "hr"})]
    assert Level.FULL is levels("match: {principals: ann}, recording: full", own=own).of(FACTS, None)[0]
    assert Level.OFF is levels("match: {principals: bob}, recording: full", own=own).of(FACTS, None)[0]


def test_tls_that_passes_is_another_protocol() -> None:
    """What is said in TLS that the proxy does not open is `tls` to a policy, also where probes can read it."""
    made = levels(
        "match: {protocols: tls}, recording: off",
        more="passthrough: [{id: p, hosts: pinned.test}]\n",
    )
    for name, expected in (("pinned.test", Level.OFF), ("open.test", Level.MASKED)):
        facts: dict[str, Value] = {
            **FACTS,
            "names": [name],
            "encrypted": True,
            "target": {"host": "192.0.2.7", "port": 443, "name": name},
        }
        assert (expected, True) == made.of(facts, "http1")


def test_a_run_has_the_level_of_scopes_about_runs() -> None:
    """What is told of a run itself is judged by scopes that ask for nothing of a session."""
    assert Level.OFF is levels("match: {labels: {team: hr}}, recording: off").of_run(FACTS)
    assert Level.MASKED is levels("match: {labels: {team: hr}, ports: 80}, recording: off").of_run(FACTS)


@pytest.mark.parametrize("size", [100_000, 7])
@pytest.mark.parametrize("word", ["off", "metadata"])
def test_a_name_that_is_heard_late_hides_what_came_before(word: str, size: int) -> None:
    """Of a conversation that names its target itself nothing is stored before that is known: not its first line either."""
    shown = passed(
        Stage(RULES, levels(f"match: {{hosts: api.example.org}}, recording: {word}")), cycles(http_talk(), 80, size, 1)
    )
    kept = stored(shown)
    assert [] == [secret for secret in (*SECRETS, b"/v1", b"Ada") if secret in kept]
    markers = [record.body["level"] for record in of_kind(shown, Kind.MARKER) if record.body["name"] == "recording"]
    assert [word] == markers
    projection = Projection()
    projection.receive(shown)
    (row,) = projection.changes().sessions
    assert 1 == len([one for one in row.policy if f"recording level {word}" in one])


@pytest.mark.parametrize("size", [100_000, 7])
def test_another_name_loses_nothing(size: int) -> None:
    """What waited for a name that turned out to be another is stored as it would have been, and nothing is said of it."""
    plain = passed(Stage(RULES, Levels()), cycles(http_talk(), 80, size, 1))
    shown = passed(Stage(RULES, levels("match: {hosts: other.test}, recording: off")), cycles(http_talk(), 80, size, 1))
    assert stream(plain, REQUEST) == stream(shown, REQUEST)
    assert [record.body for record in of_kind(plain, Kind.CLOSE)] == [record.body for record in of_kind(shown, Kind.CLOSE)]


def test_what_waits_for_a_name_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is not named in time is stored as the strictest scope would have it."""
    monkeypatch.setattr("capd.daemon.masking.stage.HELD_BYTES_MAX", 20)
    stage = Stage(RULES, levels("match: {hosts: other.test, protocols: http}, recording: metadata"))
    shown = passed(stage, cycles(http_talk(), 80, 10, 1))
    sizes = [len(record.body["payload"]) for record in of_kind(shown, Kind.DATA)]  # type: ignore[arg-type]
    assert 0 == sizes[0] < sizes[-1]
    words = [record.body["level"] for record in of_kind(shown, Kind.MARKER) if record.body["name"] == "recording"]
    assert ["metadata", "masked"] == words


def test_a_policy_that_nobody_can_read_lets_no_word_through() -> None:
    """While it is not known what the policy says, sizes and types are stored, whatever the configuration says."""
    unknown = Levels(default=Level.FULL, policy=Policy(known=False))
    shown = passed(Stage(RULES, unknown), cycles(postgresql_talk(), 5432, 100, 1))
    assert [] == [secret for secret in (*SECRETS, b"INSERT") if secret in stored(shown)]


@pytest.mark.parametrize("default", [Level.FULL, Level.MASKED])
@pytest.mark.parametrize("rules", [RULES, Rules(Choice(builtin=False, identifiers=()))])
@pytest.mark.parametrize("word", ["off", "metadata", "masked"])
def test_a_new_policy_counts_in_open_sessions(default: Level, rules: Rules, word: str) -> None:
    """From the moment on at which a stricter policy is in force, nothing that it hides is stored, of no session."""
    batches = cycles(http_talk(), 80, 40, 1)
    half = len(batches) // 2
    stage = Stage(rules, Levels(default=default))
    before = passed(stage, batches[:half])
    stage.judge_by(policy(f"match: {{ports: 80}}, recording: {word}"))
    after = passed(stage, batches[half:])
    assert of_kind(before, Kind.DATA)
    if word != "masked" or default is Level.FULL:
        assert [] == [record.body["payload"] for record in of_kind(after, Kind.DATA) if record.body["payload"]]
    if rules is RULES:
        assert [] == [secret for secret in SECRETS if secret in stored(after)]
    assert 1 == len(of_kind(after, Kind.CLOSE))


def test_a_laxer_policy_does_not_count_in_open_sessions() -> None:
    """A session that something was left out of goes on so, for half of a conversation cannot be masked."""
    batches = cycles(http_talk(), 80, 40, 1)
    half = len(batches) // 2
    stage = Stage(RULES, levels("match: {ports: 80}, recording: off"))
    passed(stage, batches[:half])
    stage.judge_by(Policy())
    assert [] == of_kind(passed(stage, batches[half:]), Kind.DATA)


def test_what_waits_outlives_the_recorder_and_is_judged_by_the_same_policy() -> None:
    """A stage that was saved while a session waited goes on by the policy that it was saved with, until it gets another."""
    batches = cycles([(REQUEST, HTTP % (2, b"{}"))], 80, 10, 1)
    first = Stage(RULES, levels("match: {hosts: api.example.org}, recording: off"))
    shown = passed(first, batches[:5])
    second = Stage(RULES, Levels())
    assert second.restore(first.save())
    shown += passed(second, batches[5:])
    assert [] == of_kind(shown, Kind.DATA)
    assert first.policy.same(second.policy)
    assert not second.restore(b"\x93\x90\x90\x93")
    assert replace(Policy(), version="").same(Stage(RULES, Levels()).policy)
