"""The resolver's process with a policy on disk that has changed since its parent read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from capd.daemon import enforcer_resolver
from capd.daemon.enforcer_resolver import ResolverParts
from capd.enforcer.policy.directory import load_policy
from capd.enforcer.policy.policy_set import PolicySet
from capd.enforcer.policy.policy_stamp import stamp

TEXT = "rules:\n  - id: a\n    match: {hosts: [%s]}\n    then: allow\n"


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
    process = enforcer_resolver._Process(
        ResolverParts(
            sockets=(),
            workers=(),
            policies=policies,
            stamp=lambda: stamp(directory),
            loaded=loaded,
            runs=tmp_path,
            hierarchy=tmp_path,
            status=tmp_path / "status.json",
            namespaces=tmp_path / "s",
            observe=False,
        )
    )
    process._every()
    assert (2 if changed else 1) == len(loads)
    assert process._allows("new.example.com") is changed
