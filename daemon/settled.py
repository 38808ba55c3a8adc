"""The configuration as a role holds it for as long as it lives: its values, without the model that judged them.

What lives here: judging in a child process, and handing the values over. What must not: keys, limits, paths (configuration.py).

The model and the library behind it take 10 MB of every process that has imported them, and are needed once. So a role lets a
child of its own read the file, and keeps what came of it.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from capd.daemon.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from capd.daemon.configuration import Configuration


def load(given: str | None = None) -> Configuration:
    """Read the configuration file that `locations.configuration_file` names: every key and path, and no method of a model.

    Raises:
        ConfigurationError: the file cannot be read, or is wrong; the message names every problem.
    """
    return begin(given)()


def begin(given: str | None = None) -> Callable[[], Configuration]:
    """Begin to read it, as `load` does; what is given waits for it. Meanwhile the caller may do something else."""
    if threading.active_count() > 1:  # a child of a process with threads may wait for a lock that nobody in it holds
        return lambda: cast("Configuration", _judged(given))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _tell(given, writing)
    os.close(writing)
    return lambda: _told(given, child, reading)


def _told(given: str | None, child: int, reading: int) -> Configuration:
    with open(reading, "rb") as answer:
        told = answer.read()
    os.waitpid(child, 0)
    # What a child cannot tell, such as why it was killed, shows itself here too.
    return understood(told) or cast("Configuration", _judged(given))


def understood(told: bytes) -> Configuration | None:
    """Give what a child that judged has written; None: it was ended before it was done.

    Raises:
        ConfigurationError: what it found wrong.
    """
    try:
        found = pickle.loads(told)  # noqa: S301 - from our own child, over a pipe nobody else has
    except (EOFError, pickle.UnpicklingError):
        return None
    if isinstance(found, ConfigurationError):
        raise found
    return cast("Configuration", found)


def _tell(given: str | None, writing: int) -> None:
    """Be the child: write the values or the error, and end without what an interpreter does at its end."""
    try:
        try:
            found: object = _judged(given)
        except ConfigurationError as error:
            found = error
        with open(writing, "wb") as answer:
            answer.write(pickle.dumps(found))
    finally:
        os._exit(0)


def _judged(given: str | None) -> SimpleNamespace:
    from capd.daemon import configuration  # noqa: PLC0415 - the library that is to stay out of a role

    return _values(configuration.load(given))


def _values(model: BaseModel) -> SimpleNamespace:
    """Give the fields of a model, and what its properties say."""
    kind = type(model)
    ours = [one for one in kind.__mro__ if one.__module__.startswith("capd.")]
    properties = [name for one in ours for name, value in vars(one).items() if isinstance(value, property)]
    return SimpleNamespace(**{name: _value(getattr(model, name)) for name in (*kind.model_fields, *properties)})


def _value(value: object) -> object:
    from pydantic import BaseModel  # noqa: PLC0415 - as above

    if isinstance(value, BaseModel):
        return _values(value)
    if isinstance(value, dict):
        return {key: _value(one) for key, one in value.items()}
    return tuple(map(_value, value)) if isinstance(value, tuple) else value


def _main() -> None:
    """Be the judge of a process that has threads, or wants to do something else meanwhile: tell it on standard output."""
    told = sys.argv[1:]
    try:
        found: object = _judged(told[0] if told else None)
    except ConfigurationError as error:
        found = error
    sys.stdout.buffer.write(pickle.dumps(found))


if __name__ == "__main__":
    _main()
