"""The guard: closes off what is to be forced, before the daemon is there and where it cannot be.

What lives here: what is to be closed, by the configuration alone, also by one that is wrong; and closing it. What must not:
rules (enforcer/forcing), programs (probes/barrier.py), probes, the service manager's bus, which is not there so early.

Both layers are those of the daemon, which takes them over in one moment: until then they let nothing of a selected cgroup or
user out, since nobody listens at the proxy's port.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from capd.daemon import configuration_files, enforcement_standing, enforcer_user, locations, mounts
from capd.daemon.cgroups import Hierarchy, has_systemd
from capd.daemon.enforcement_names import names_of
from capd.daemon.errors import AnotherCapdError, ConfigurationError, NotClosedError
from capd.recording.errors import CapdError

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from pydantic import BaseModel

    from capd.daemon.configuration import Configuration

WANTED: Final = re.compile(r"^[^#\n]*\bmode\s*=\s*[\"']enforce[\"']", re.MULTILINE)
"""In a file that is not TOML, what wants enforcement."""
AGENTS: Final = ("capd-agents.slice",)
"""Closed off in any case where it is not known all that is to be: `capd run` puts its scopes there."""
SECTIONS: Final = ("runtime_dir", "selection", "enforcement")
"""Of the configuration, what the two layers follow from."""

Say = Callable[[str], None]
_Model = TypeVar("_Model", bound="BaseModel")


def close(configuration: Configuration, say: Say) -> list[str]:
    """Close off what a sound configuration wants to have forced, unless that has been done. Gives what stands then.

    Args:
        configuration: of the instance.
        say: tells the operator one line.

    Raises:
        NotClosedError: a layer is not in place; the other one, if it could be, is.
        CapdError: neither is.
    """
    from capd.daemon.enforcement import Enforcement  # noqa: PLC0415 - netlink takes memory that only who enforces has
    from capd.daemon.runs import Registry  # noqa: PLC0415 - as above

    names = names_of(configuration.runtime_dir, systemd=has_systemd(), enforcer=configuration.enforcement.cgroup)
    before = enforcement_standing.standing(names)
    if len(before) == enforcement_standing.LAYERS:
        return before
    mounts.mount_bpffs()
    # Cgroups are made by hand: systemd takes over those of its slices when it starts them.
    hierarchy = Hierarchy(systemd=False, owner=str(configuration.runtime_dir), parent=names.parent)
    enforcement = Enforcement(configuration.enforcement, configuration.selection, hierarchy, names, say)
    try:
        enforcement.follow(Registry(configuration.runs_dir).cgroups_left(hierarchy.id_of))
    finally:
        enforcement.close()
    if enforcement.problem is not None:
        raise NotClosedError(f"what is to be forced is not closed off: {enforcement.problem}")
    return enforcement_standing.standing(names)


def close_after(error: Exception, given: str | None, say: Say) -> None:
    """Close off what a daemon that cannot start was to force, and was not able to by what raised the error.

    Args:
        error: that kept it from starting.
        given: the configuration file, as the command line has it.
        say: tells the operator one line.
    """
    if isinstance(error, AnotherCapdError):
        return  # it looks after that
    try:
        wanted = understood(given)
        if wanted is not None and (found := close(wanted, say)):
            say(f"agents are closed off until the daemon starts: by {' and '.join(found)}")
    except (CapdError, OSError) as problem:
        say(f"agents may not be closed off: {problem}")


def understood(given: str | None) -> Configuration | None:
    """Give what can be understood of a configuration that wants enforcement, sound or not; None if it wants none.

    What cannot is left out: a key that is wrong, a user who does not exist. What is left closes off less than was meant, and
    never nothing.

    Args:
        given: the configuration file, as the command line has it.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    from capd.daemon.configuration import Configuration, SelectionSection  # noqa: PLC0415 - only what failed pays for it
    from capd.daemon.enforcement_section import EnforcementSection  # noqa: PLC0415 - as above

    values = _values(given)
    if not wants(values):
        return None
    enforcement = _sound(EnforcementSection, {**_table(values, "enforcement"), "mode": "enforce"})
    known = tuple(user for user in enforcement.users if _exists(user))
    found: dict[str, object] = {
        "selection": _sound(SelectionSection, _table(values, "selection")).model_dump(),
        "enforcement": {**enforcement.model_dump(), "users": known, "user": _own(enforcement.user)},
    }
    with suppress(ValueError):
        return Configuration.model_validate({**found, "runtime_dir": values.get("runtime_dir", locations.RUNTIME_DIRECTORY)})
    return Configuration.model_validate(found)


def mode(given: str | None) -> str:
    """Say what a configuration wants, sound or not, without judging all of it: `off`, `observe` or `enforce`.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    values = _values(given)
    return "enforce" if wants(values) else str(_table(values, "enforcement").get("mode", "off"))


def wants(values: Mapping[str, object]) -> bool:
    """Say whether a configuration wants enforcement, or means something like it: any mode but those that refuse nothing."""
    section = values.get("enforcement", {})
    if not isinstance(section, dict):
        return True
    return section.get("mode", "off") not in ("off", "observe")  # no set: what stands there may have no hash


def _values(given: str | None) -> dict[str, object]:
    values, others = configuration_files.read_leniently(given)
    if not others:
        return values
    if not wants(values) and any(WANTED.search(text) for text in others):
        values = {**values, "enforcement": {**_table(values, "enforcement"), "mode": "enforce"}}
    # A line that was left out may have named the slice of all agents.
    selection = _table(values, "selection")
    slices = selection.get("slices", [])
    named = slices if isinstance(slices, list) else []
    return {**values, "selection": {**selection, "slices": list(dict.fromkeys([*map(str, named), *AGENTS]))}}


def _table(values: Mapping[str, object], name: str) -> dict[str, object]:
    found = values.get(name, {})
    return found if isinstance(found, dict) else {}


def _sound(model: type[_Model], values: Mapping[str, object]) -> _Model:
    """Give a section with those of its keys that are right."""
    right: dict[str, object] = {}
    for key, value in values.items():
        with suppress(ValueError):
            model.model_validate({**right, key: value})
            right[key] = value
    return model.model_validate(right)


def _exists(user: str) -> bool:
    try:
        return enforcer_user.number_of(user, "enforcement.users") != 0
    except ConfigurationError:
        return False


def _own(user: str | None) -> str | None:
    """Give the enforcer's user as it is configured, unless there is none of that name."""
    return user if user is not None and _exists(user) else None
