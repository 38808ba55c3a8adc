"""The files that the configuration is in, and what they say together.

What lives here: which files there are, in which order they count, and where each value is from. What must not: which keys there
are (configuration.py), and pydantic or anything else that is slow to import: `capd run` stands between an agent and its start.

There is one file and, in a directory `conf.d` beside it, what others dropped in: packages, a tool that manages hosts. Files of
`conf.d` count in the order of their names, after the file, and a later one wins: tables are put together, key by key; an array
of tables is continued; any other value, other arrays too, takes the place of the earlier one. So does an empty array, which is
how a file takes away what earlier ones continued.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capd.daemon.errors import ConfigurationError
from capd.recording.durable import OTHERS_WRITE, read_regular

if TYPE_CHECKING:
    from capd.daemon.configuration_problems import Problem

CONFIGURATION: Final = Path("/etc/capd/capd.toml")
DIRECTORY: Final = "conf.d"
"""Beside the file."""
SUFFIX: Final = ".toml"
BYTES_MAX: Final = 1 << 20
"""Of one file: a configuration of a thousand rules has a tenth of it."""
FILES_MAX: Final = 256
"""In conf.d: each is read at every start of everything."""

Key = tuple[str | int, ...]
"""Names of tables and keys, and numbers of elements of arrays, from 0."""


@dataclass(frozen=True, kw_only=True, order=True)
class Origin:
    """Where a value is from: a file and a line of it, from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Layered:
    """What the files say together.

    Attributes:
        files: that were read, in the order in which they count.
        values: as tomllib gives them.
        origins: of every table, key and element.
    """

    files: tuple[Path, ...] = ()
    values: Mapping[str, object] = field(default_factory=dict)
    origins: Mapping[Key, Origin] = field(default_factory=dict)


def configuration_file(given: str | None) -> Path | None:
    """Say which file holds the configuration: the given one, else CAPD_CONFIG, else the default if it exists and may be read.

    Returns:
        None when there is none and the defaults hold.
    """
    named = given or os.environ.get("CAPD_CONFIG")
    if named:
        return Path(named)
    return CONFIGURATION if os.access(CONFIGURATION, os.R_OK) else None


def read_values(given: str | None) -> dict[str, object]:
    """Give what the files say together, for clients: what they may not read says nothing to them, unless they named it.

    Raises:
        ConfigurationError: a file cannot be read, or is not TOML.
    """
    merged: dict[str, object] = {}
    for path in _files(given, strict=False):
        _merge(merged, read_toml(path))
    return merged


def read_leniently(given: str | None) -> tuple[dict[str, object], list[str]]:
    """Give what the files say together but for lines that are not TOML, and the texts of files that have such lines.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    from capd.daemon.toml_faults import salvaged  # noqa: PLC0415 - only where something may be wrong

    merged: dict[str, object] = {}
    others: list[str] = []
    for path in _files(given, strict=True):
        text = _text(path, errors="replace")
        try:
            _merge(merged, _parsed(text, path))
        except ConfigurationError:
            _merge(merged, salvaged(text))
            others.append(text)
    return merged, others


def read_likely(given: str | None) -> dict[str, object]:
    """Give what the files say together, as far as they can be read and are TOML; what others can write says nothing.

    Raises:
        ConfigurationError: the file that was named cannot be read.
    """
    from capd.daemon.toml_faults import salvaged  # noqa: PLC0415 - as above

    merged: dict[str, object] = {}
    named = configuration_file(given)
    for path in _trusted(_files(given, strict=False)):
        try:
            text = _text(path, errors="replace")
        except ConfigurationError:
            if path == named:
                raise
            continue
        try:
            _merge(merged, _parsed(text, path))
        except ConfigurationError:
            _merge(merged, salvaged(text))
    return merged


def may_read_all(given: str | None) -> bool:
    """Say whether the caller may read all that a role would; who may not cannot say what is wrong."""
    try:
        return all(os.access(path, os.R_OK) for path in _files(given, strict=True))
    except ConfigurationError:
        return os.geteuid() == 0


def read_layered(given: str | None) -> Layered:
    """Give what the files say together, and where it is from, for who goes by it: all of it must be readable.

    Raises:
        ConfigurationError: files cannot be read, or are not TOML; the message names every one.
    """
    from capd.daemon.toml_lines import lines_of  # noqa: PLC0415 - only who tells where something is

    files = tuple(_files(given, strict=True))
    values: dict[str, object] = {}
    origins: dict[Key, Origin] = {}
    problems: list[Problem] = []
    for path in files:
        try:
            text = _text(path)
            found = _parsed(text, path)
        except ConfigurationError as error:
            problems += error.problems
            continue
        said = {key: Origin(file=str(path), line=line) for key, line in lines_of(text).items()}
        _merge(values, found, origins, said)
    if problems:
        raise ConfigurationError.of(tuple(problems))
    return Layered(files=files, values=values, origins=origins)


def read_toml(path: Path) -> dict[str, object]:
    """Read a TOML file.

    Raises:
        ConfigurationError: it is not there, may not be read, or is not TOML.
    """
    return _parsed(_text(path), path)


def stamp(given: str | None) -> tuple[tuple[str, int, int, int], ...]:
    """Give something that is another one when a file was changed, came or went; what cannot be looked at counts as gone."""
    found = []
    try:
        files = list(_files(given, strict=True))
    except ConfigurationError:
        files = []
    for path in files:
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _files(given: str | None, *, strict: bool) -> Iterator[Path]:
    path = configuration_file(given)
    if path is not None:
        yield path
    elif strict and not _missing(CONFIGURATION):
        yield CONFIGURATION  # which cannot be read, and must not be taken for one that says nothing
    if path != Path(os.devnull):
        yield from _dropped(CONFIGURATION if path is None else path, strict=strict)


def _trusted(paths: Iterable[Path]) -> Iterator[Path]:
    """Give paths up to the first that others can write."""
    with suppress(ConfigurationError):
        yield from paths


def _missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _dropped(beside: Path, *, strict: bool) -> Iterator[Path]:
    """Give the files of conf.d. Who names a file names what stands beside it, too; so nobody else may have put it there.

    Raises:
        ConfigurationError: somebody else may have, or it cannot be looked at.
    """
    directory = beside.parent / DIRECTORY
    owners = {0, os.geteuid(), *_owner(beside)}
    try:
        found = [path.name for path in directory.iterdir()]
        _guarded(directory, owners)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if strict:
            raise _wrong(directory, str(error.strerror)) from error
        return
    names = sorted(name for name in found if name.endswith(SUFFIX) and not name.startswith("."))
    if len(names) > FILES_MAX:
        raise _wrong(directory, f"{len(names)} files; at most {FILES_MAX} are read")
    for name in names:
        path = directory / name
        if strict or os.access(path, os.R_OK):
            with suppress(OSError):  # whoever reads it says so
                _guarded(path, owners)
            yield path


def _owner(path: Path) -> Iterator[int]:
    with suppress(OSError):
        yield path.stat().st_uid


def _guarded(path: Path, owners: set[int]) -> None:
    found = path.stat()
    if found.st_uid not in owners:
        raise _wrong(path, f"belongs to user {found.st_uid}, who could change what capd does; chown it to root")
    if found.st_mode & OTHERS_WRITE:
        raise _wrong(path, "may be written by others, who could change what capd does; chmod go-w")


def _text(path: Path, errors: str = "strict") -> str:
    try:
        # The null device is an empty file to whoever names it.
        content = b"" if path == Path(os.devnull) else read_regular(path, BYTES_MAX)
        return content.decode("utf-8", errors)
    except OSError as error:
        raise _wrong(path, str(error.strerror)) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _wrong(path, f"not TOML: no UTF-8: {error.reason}", line) from error


def _parsed(text: str, path: Path) -> dict[str, object]:
    import tomllib  # noqa: PLC0415 - who has no configuration must not pay for it

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        from capd.daemon.toml_faults import fault  # noqa: PLC0415 - as above

        line, words = fault(error, text)
        raise _wrong(path, f"not TOML: {words}", line) from error
    except RecursionError as error:
        raise _wrong(path, "nested too deeply") from error


def _wrong(path: Path, problem: str, line: int | None = None) -> ConfigurationError:
    from capd.daemon.configuration_problems import Problem  # noqa: PLC0415 - it imports this

    origin = None if line is None else Origin(file=str(path), line=line)
    step = ConfigurationError.hint
    return ConfigurationError.of((Problem(origin=origin, file=str(path), key="", problem=problem, next_step=step),))


def _merge(
    into: dict[str, object],
    new: Mapping[str, object],
    origins: dict[Key, Origin] | None = None,
    said: Mapping[Key, Origin] | None = None,
    at: Key = (),
) -> None:
    """Put what a later file says over what earlier ones said."""
    for name, value in new.items():
        key, before = (*at, name), into.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            _merge(before, value, origins, said, key)
            _settle(origins, said, key, only=key)
        elif _tables(value) and _tables(before):
            assert isinstance(value, list)
            assert isinstance(before, list)
            _settle(origins, said, key, offset=len(before))
            before.extend(value)
        else:
            into[name] = value
            if origins is not None:
                for gone in [one for one in origins if one[: len(key)] == key]:
                    del origins[gone]
            _settle(origins, said, key)


def _tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _settle(
    origins: dict[Key, Origin] | None,
    said: Mapping[Key, Origin] | None,
    key: Key,
    *,
    offset: int = 0,
    only: Key | None = None,
) -> None:
    """Say where what is at `key` and below is from; elements of an array that is continued have other numbers there."""
    if origins is None or said is None:
        return
    for one, origin in said.items():
        if one[: len(key)] != key or (only is not None and one != only):
            continue
        rest = one[len(key) :]
        if rest and offset and isinstance(rest[0], int):
            rest = (rest[0] + offset, *rest[1:])
        origins[*key, *rest] = origin
