"""What can be understood of a configuration that is wrong, for who shows how capd is and what to mend.

What lives here: that. What must not: anything that a role goes by: a role refuses such a configuration as a whole.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from capd.daemon import configuration, configuration_files, enforcement_guard
from capd.daemon.configuration import Configuration
from capd.daemon.configuration_files import Key
from capd.daemon.errors import ConfigurationError

WRONG_MAX: Final = 100
"""Values that are left out at most; above that the defaults are shown."""


@dataclass(frozen=True, kw_only=True)
class Understood:
    """What was understood.

    Attributes:
        settings: what is right, and defaults for the rest.
        problem: all that is wrong; None: nothing.
        whole: whether the caller may read all that a role would; if not, that may be what is wrong.
    """

    settings: Configuration
    problem: ConfigurationError | None = None
    whole: bool = True


def understand(given: str | None) -> Understood:
    """Read the files that `configuration_files` names, right or wrong.

    Raises:
        ConfigurationError: the file that was named cannot be read: there is nothing to be understood.
    """
    try:
        return Understood(settings=configuration.load(given))
    except ConfigurationError as error:
        settings = _as_guarded(sound(configuration_files.read_likely(given)), given)
        return Understood(settings=settings, problem=error, whole=configuration_files.may_read_all(given))


def sound(values: dict[str, object]) -> Configuration:
    """Give a configuration with those of the values that are right."""
    left = deepcopy(values)
    for _ in range(WRONG_MAX):
        try:
            return Configuration.model_validate(left)
        except ValidationError as error:
            # One at a time: what is left out of an array gives those behind it other numbers.
            if not _left_out(left, error.errors(include_url=False)[0]["loc"]):
                break
    return Configuration()


def _left_out(values: object, location: Key) -> bool:
    """Leave out what is at a location, or the deepest that there is of it. Says whether there was anything."""
    match values, location:
        case dict() as table, (name, *below) if name in table:
            if not _left_out(table[name], tuple(below)):
                del table[name]
            return True
        case list() as array, (int(number), *below) if number in range(len(array)):
            if not _left_out(array[number], tuple(below)):
                del array[number]
            return True
    return False


def _as_guarded(settings: Configuration, given: str | None) -> Configuration:
    """Have it enforce where the guard understands that it is to: agents are closed off then, whatever else is wrong."""
    try:
        enforces = enforcement_guard.mode(given) == "enforce"
    except ConfigurationError:
        return settings
    if not enforces:
        return settings
    return settings.model_copy(update={"enforcement": settings.enforcement.model_copy(update={"mode": "enforce"})})
