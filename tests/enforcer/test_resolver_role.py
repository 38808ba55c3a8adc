"""The resolver's process: it has the policy that is in force, and asks it for each run by itself."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import pytest

from capd.daemon.cgroups import RunCgroup
from capd.daemon.enforcer_resolver import ResolverParts, _Process
from capd.daemon.runs import Run
from capd.enforcer.policy.directory import load_policy
from capd.enforcer.policy.policy_set import PolicySet
from capd.enforcer.policy.policy_stamp import stamp

TEXT = "rules:\n  - id: a\n    match: {hosts: [%s]}\n    then: allow\n"


def process(tmp_path: Path, policies: PolicySet, loaded: object) -> _Process:
    """Give one that does not run, with a run for each value of the label `team`."""
    for number, team in enumerate(TEAMS):
        run = Run(
            id=UUID(int=number),
            name=None,
            labels={"team": team},
            principal={"kind": "user", "name": "ann", "verified": True},
            cgroup=RunCgroup(path=f"/{team}", id=number, unit=None),
            started_ns=0,
        )
        (tmp_path / f"{number}.json").write_text(json.dumps(run.to_json()), encoding="ascii")
    return _Process(
        ResolverParts(
            sockets=(),
            workers=(),
            policies=policies,
            stamp=lambda: stamp(tmp_path / "policy.d"),
            loaded=loaded,
            runs=tmp_path,
            hierarchy=tmp_path,
            status=tmp_path / "status.json",
            namespaces=tmp_path / "s",
            observe=False,
        )
    )


TEAMS = ("shop", "press", "tried")


def asks(made: _Process, team: str, name: str) -> bool:
    """Say whether a run may ask for a name."""
    return made._resolver._rules.could_allow(str(UUID(int=TEAMS.index(team))), name)


@pytest.mark.parametrize("changed", [True, False])
def test_a_resolver_that_is_started_anew_has_the_policy_in_force(tmp_path: Path, changed: bool) -> None:
    """It reads the policy again if that changed after its parent had read it, and only then."""
    directory = tmp_path / "policy.d"
    directory.mkdir()
    file = directory / "a.yaml"
    file.write_text(TEXT % "old.example.com", encoding="utf-8")
    loads = []

    def load() -> object:
        loads.append(1)
        return load_policy(directory, owners=frozenset({file.stat().st_uid}), own=b"")

    policies = PolicySet(load)  # type: ignore[arg-type] # as the enforcer's
    loaded = stamp(directory)
    policies.reload()
    if changed:
        file.write_text(TEXT % "new.example.com", encoding="utf-8")
    made = process(tmp_path, policies, loaded)
    before = asks(made, "shop", "old.example.com")
    made._every()
    assert (2 if changed else 1) == len(loads)
    assert (True, changed, not changed) == (before, *(asks(made, "shop", f"{age}.example.com") for age in ("new", "old")))


OF_RUNS = """
scopes:
  - {id: tried, match: {labels: {team: tried}}, mode: observe}
rules:
  - {id: all, match: {hosts: [all.test]}, then: allow}
  - {id: shop, match: {hosts: ["*.shop.test"], labels: {team: shop}}, then: approve}
  - {id: later, match: {hosts: [later.test]}, then: allow, stage: observe}
"""


def test_names_are_asked_for_by_those_for_whom_something_could_be_allowed(tmp_path: Path) -> None:
    """A rule for other runs, or one that is not in force, opens no name; a run that is only observed asks for all it likes."""
    directory = tmp_path / "policy.d"
    directory.mkdir()
    (directory / "a.yaml").write_text(OF_RUNS, encoding="utf-8")
    owners = frozenset({directory.stat().st_uid})
    policies = PolicySet(lambda: load_policy(directory, owners=owners, own=b""))
    policies.reload()
    made = process(tmp_path, policies, stamp(directory))
    names = ("all.test", "a.shop.test", "later.test", "any.test")
    found = {team: [name for name in names if asks(made, team, name)] for team in TEAMS}
    assert {"shop": ["all.test", "a.shop.test"], "press": ["all.test"], "tried": list(names)} == found
    assert not made._resolver._rules.could_allow(str(UUID(int=9)), "all.test"), "a run that is over"
