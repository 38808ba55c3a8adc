"""From the configuration's `[recording]` and `[masking]` to the rules and levels that the stage asks.

What lives here: that step. What must not: what may be configured (recording_policy.py): its library stays out of the recorder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capd.daemon.masking.levels import Level, Levels, Scope
from capd.daemon.masking.policy_levels import Policy
from capd.daemon.masking.stage import Stage
from capd.enforcer.masking.rules import Choice, Rules

if TYPE_CHECKING:  # the models' library is to stay out of a role (settled.py)
    from capd.daemon.recording_policy import MaskingSection, RecordingSection


def stage(masking: MaskingSection, recording: RecordingSection, policy: Policy) -> Stage:
    """Give the stage that all records pass."""
    return Stage(rules(masking), levels(recording, policy))


def rules(masking: MaskingSection) -> Rules:
    """Give the rules, ready to be used."""
    return Rules(
        Choice(
            builtin=masking.builtin,
            headers=masking.headers,
            cookies=masking.cookies,
            keys=masking.keys,
            json_paths=masking.json_paths,
            columns=masking.columns,
            redis_keys=masking.redis_keys,
            identifiers=masking.identifiers,
            patterns={section.name: section.pattern for section in masking.pattern},
            unreadable=masking.unreadable == "mask",
        )
    )


def levels(recording: RecordingSection, policy: Policy) -> Levels:
    """Give the levels, ready to be asked."""
    scopes = [
        Scope(
            level=Level[section.level.upper()],
            principal=section.principal,
            run=section.run,
            labels=section.labels,
            host=section.host,
            port=section.port,
            protocol=section.protocol,
        )
        for section in recording.scope
    ]
    return Levels(default=Level[recording.level.upper()], scopes=scopes, policy=policy)
