"""Where a capd instance keeps things, known without reading the whole configuration.

What lives here: default paths, and the one key that a client needs to find its daemon. What must not: pydantic or anything else
that is slow to import, because `capd run` stands between an agent and its start.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from capd.daemon.errors import ConfigurationError
from capd.recording.durable import read_regular

CONFIGURATION: Final = Path("/etc/capd/capd.toml")
POLICY_DIRECTORY: Final = Path("/etc/capd/policy.d")
STATE_DIRECTORY: Final = Path("/var/lib/capd")
RUNTIME_DIRECTORY: Final = Path("/run/capd")
CONFIGURATION_BYTES_MAX: Final = 1 << 20
CONTROL_SOCKET: Final = "control.sock"
"""Name of the control socket in the runtime directory."""
ENFORCER_RUNTIME: Final = "enforcer"
"""The enforcer's corner of the runtime directory."""
APPROVALS_SOCKET: Final = "approvals.sock"
"""Name of the socket at which persons decide, in that corner."""
HOLDS_SOCKET: Final = "holds.sock"
"""Name of the one at which the enforcer's own processes say what waits."""
KEEPER_SOCKET: Final = "credentials.sock"
"""Name of the one at which they ask for credentials."""
NAMESPACES_SOCKET: Final = "namespaces.sock"
"""Name of the one in the runtime directory at which the daemon hands them sockets of other network namespaces."""

CALLBACKS_RUNTIME: Final = "callbacks"
"""The corner of the process of webhooks and links, below the enforcer's."""
LINKS_SOCKET: Final = "links.sock"
"""Name of the one at which the process of webhooks and links asks the desk."""


def configuration_file(given: str | None) -> Path | None:
    """Say which file holds the configuration: the given one, else CAPD_CONFIG, else the default if it exists and may be read.

    Returns:
        None when there is none and the defaults hold.
    """
    named = given or os.environ.get("CAPD_CONFIG")
    if named:
        return Path(named)
    return CONFIGURATION if os.access(CONFIGURATION, os.R_OK) else None


def control_socket(given: str | None) -> Path:
    """Say where the daemon listens, reading nothing but `runtime_dir` from the configuration.

    Raises:
        ConfigurationError: a configuration is named but cannot be read, or `runtime_dir` is not a path.
    """
    return runtime_directory(given) / CONTROL_SOCKET


def approvals_socket(given: str | None) -> Path:
    """Say where persons decide, reading and raising as `control_socket` does."""
    return runtime_directory(given) / ENFORCER_RUNTIME / APPROVALS_SOCKET


def runtime_directory(given: str | None) -> Path:
    """Say where sockets are, reading and raising as `control_socket` does."""
    path = configuration_file(given)
    if path is None:
        return RUNTIME_DIRECTORY
    directory = read_toml(path).get("runtime_dir", str(RUNTIME_DIRECTORY))
    if not isinstance(directory, str) or not directory.startswith("/"):
        raise ConfigurationError(f"{path}: runtime_dir must be an absolute path")
    return Path(directory)


def read_toml(path: Path) -> dict[str, object]:
    """Read a TOML file.

    Raises:
        ConfigurationError: it is not there, may not be read, or is not TOML.
    """
    import tomllib  # noqa: PLC0415 - who has no configuration must not pay for it

    try:
        # The null device is an empty file to whoever names it.
        content = b"" if path == Path(os.devnull) else read_regular(path, CONFIGURATION_BYTES_MAX)
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from error
