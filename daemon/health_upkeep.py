"""What needs somebody's hand some day: certificates that end, roles that an upgrade left running, a disk that fills.

What lives here: these rules, as health.py makes others. What must not: finding the facts (status.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from capd.daemon.alert_kinds import Alert
from capd.daemon.configuration_effect import UNITS
from capd.daemon.reason import Reason

EXPIRY_SECONDS: Final = 30 * 86_400.0
"""So long before its end a certificate is told of: who gets new ones by hand needs a week or two."""
SECONDS_A_DAY: Final = 86_400.0
NS: Final = 1e-9
UNTIL_FULL_SECONDS_MIN: Final = 3600.0
RENEWALS: Final = {
    "authority": "remove `authority.key` below `state_dir`/enforcer, then `systemctl restart capd capd-enforcer`: "
    "the daemon makes another, which agents must trust",
    "client": "put a new one into the file, then `systemctl restart capd-enforcer`",
    "listener": "put a new one into the file, then `systemctl restart capd-enforcer`",
}


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A certificate: its kind, what it is called, and its end in seconds since 1970."""

    kind: str
    name: str
    until: float


@dataclass(frozen=True, kw_only=True)
class UpkeepFacts:
    """What is known of such things.

    Attributes:
        certificates: that the enforcer goes by.
        version: of the capd that asks.
        versions: of roles that run, by name.
        seconds_until_full: when the disk will be full at the present rate; None: not known, or never.
    """

    certificates: tuple[Certificate, ...] = ()
    version: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds_until_full: float | None = None


def upkeep_reasons(facts: UpkeepFacts, now_ns: int) -> Iterator[Reason]:
    """Give what is wrong."""
    now = now_ns * NS
    over = [one for one in facts.certificates if one.until <= now]
    soon = [one for one in facts.certificates if now < one.until < now + EXPIRY_SECONDS]
    for alert, found in ((Alert.CERTIFICATE_EXPIRED, over), (Alert.CERTIFICATE_EXPIRING, soon)):
        if found:
            first = min(found, key=lambda one: one.until)
            others = f", and {len(found) - 1} more" if len(found) > 1 else ""
            days = abs(first.until - now) / SECONDS_A_DAY
            words = f"is over since {days:.0f} days" if alert is Alert.CERTIFICATE_EXPIRED else f"ends in {days:.0f} days"
            step = RENEWALS.get(first.kind, RENEWALS["client"])
            yield Reason(alert=alert, reason=f"{first.name} {words}{others}", next_step=step)
    old = {role: version for role, version in sorted(facts.versions.items()) if version != facts.version}
    if old:
        told = ", ".join(f"the {role} is {version}" for role, version in old.items())
        units = " ".join(UNITS[role] for role in old if role in UNITS)
        yield Reason(
            alert=Alert.VERSIONS_DIFFER,
            reason=f"roles run another version than {facts.version}, which is installed: {told}",
            next_step=f"`systemctl restart {units}`; nothing that waits in the journal is lost",
        )
    if facts.seconds_until_full is not None and facts.seconds_until_full < UNTIL_FULL_SECONDS_MIN:
        yield Reason(
            alert=Alert.DISK_FILLING,
            reason=f"the disk will be full in {facts.seconds_until_full / 60:.0f} minutes at the present rate",
            next_step="free space, or lower `local.days` or `local.bytes_max`: what is shipped need not stay here",
        )
