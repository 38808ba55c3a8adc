"""When a changed key takes effect: at a reload, at the next errand, or when roles are started anew.

What lives here: the table. What must not: reloading (reloading.py), what a key means (configuration.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

ALL: Final = ("daemon", "recorder", "enforcer", "shipper", "metrics")
DERIVED: Final = frozenset({"encryption.journal_key_in_memory"})
"""What follows from keys and is said by the model beside them."""
UNITS: Final = {"daemon": "capd", **{role: f"capd-{role}" for role in ALL[1:]}}
"""What systemd calls a role."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """When a key takes effect.

    Attributes:
        roles: that have to be started anew; none: a reload, or nothing, is enough.
        words: for people, where no role has to be.
    """

    roles: tuple[str, ...] = ()
    words: str = ""

    @property
    def described(self) -> str:
        """In words."""
        if not self.roles:
            return self.words
        return "restart: all" if self.roles == ALL else f"restart: {', '.join(self.roles)}"


RELOAD: Final = Effect(words="reload")
NEXT: Final = Effect(words="the next time it is done")
EFFECTS: Final[Mapping[str, Effect]] = {
    "state_dir": Effect(roles=ALL),
    "runtime_dir": Effect(roles=ALL),
    "bucket_url": Effect(roles=("shipper",)),
    "policy_dir": Effect(roles=("recorder", "enforcer")),
    "capture": Effect(roles=("daemon",)),
    "journal": RELOAD,
    "journal.compression": Effect(roles=("daemon",)),
    "storage": RELOAD,
    "recorder": Effect(roles=ALL),
    "encryption": Effect(roles=("daemon", "recorder")),
    "selection": RELOAD,
    "enforcement": Effect(roles=("daemon", "enforcer")),
    "enforcement.mode": Effect(roles=("daemon", "recorder", "enforcer")),
    "enforcement.users": RELOAD,
    "enforcement.helpers": Effect(roles=("recorder",)),
    "enforcement.approvers": Effect(roles=("enforcer",)),
    "enforcement.workers": Effect(roles=("enforcer",)),
    "enforcement.ca_file": Effect(roles=("enforcer",)),
    "enforcement.client_certificates": Effect(roles=("enforcer",)),
    "approvals": Effect(roles=("enforcer",)),
    "credentials": Effect(roles=("recorder", "enforcer")),
    "bucket": Effect(roles=("shipper",)),
    "shipper": Effect(roles=("shipper",)),
    "shipper.late_seconds": RELOAD,
    "catalogue": NEXT,
    "local": Effect(roles=("shipper",)),
    "metrics": Effect(roles=("metrics",)),
    "alerts": RELOAD,
    "recording": Effect(roles=("recorder",)),
    "masking": Effect(roles=("recorder", "enforcer")),
    "retention": Effect(roles=("shipper",)),
}
"""By key or table; the longest that fits counts."""


def effect_of(key: str) -> Effect:
    """Give when a key takes effect.

    Args:
        key: in words: `storage.low_bytes`, `retention[0].name`, `credentials.NAME.hosts`.
    """
    parts = key.replace("[", ".").split(".")
    for length in range(len(parts), 0, -1):
        found = EFFECTS.get(".".join(parts[:length]))
        if found is not None:
            return found
    raise KeyError(key)


def changed_keys(before: object, after: object) -> list[str]:
    """Give the keys that differ between two configurations, as `settled` gives them: of arrays, and tables by name, the whole.

    Args:
        before: a namespace of keys and paths; paths that follow from keys are passed over.
        after: another one.
    """
    return list(_changed(vars(before), vars(after), ""))


def _changed(before: Mapping[str, object], after: Mapping[str, object], above: str) -> Iterator[str]:
    for name in after:
        key, one, other = f"{above}{name}", before.get(name), after[name]
        if one == other or not _known(key):
            continue
        if hasattr(other, "__dict__") and hasattr(one, "__dict__") and not isinstance(other, Sequence):
            yield from _changed(vars(one), vars(other), f"{key}.")
        else:
            yield key


def _known(key: str) -> bool:
    if key in DERIVED:
        return False
    try:
        effect_of(key)
    except KeyError:
        return False
    return True
