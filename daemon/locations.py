"""Where a capd instance keeps things, known without reading the whole configuration.

What lives here: default paths, and the one key that a client needs to find its daemon. What must not: pydantic or anything else
that is slow to import, because `capd run` stands between an agent and its start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from capd.daemon import configuration_files
from capd.daemon.configuration_files import read_likely, read_values
from capd.daemon.errors import ConfigurationError

POLICY_DIRECTORY: Final = Path("/etc/capd/policy.d")
STATE_DIRECTORY: Final = Path("/var/lib/capd")
RUNTIME_DIRECTORY: Final = Path("/run/capd")
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
SEARCH_SOCKET: Final = "credentials-search.sock"
"""Name of the one at which the recorder asks whether a credential is in what agents say."""
NAMESPACES_SOCKET: Final = "namespaces.sock"
"""Name of the one in the runtime directory at which the daemon hands them sockets of other network namespaces."""

CALLBACKS_RUNTIME: Final = "callbacks"
"""The corner of the process of webhooks and links, below the enforcer's."""
LINKS_SOCKET: Final = "links.sock"
"""Name of the one at which the process of webhooks and links asks the desk."""


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
    return _directory(given, "runtime_dir", RUNTIME_DIRECTORY)


def likely_runtime_directory(given: str | None) -> Path:
    """Say where sockets are for who asks how capd is: also where files are wrong, as far as they can be understood.

    Raises:
        ConfigurationError: the file that was named cannot be read, or has a `runtime_dir` that is no path: whom it means is
            not known then, and another instance must not be taken for it.
    """
    directory = read_likely(given).get("runtime_dir", str(RUNTIME_DIRECTORY))
    if isinstance(directory, str) and directory.startswith("/"):
        return Path(directory)
    if configuration_files.configuration_file(given) == configuration_files.CONFIGURATION:
        return RUNTIME_DIRECTORY
    raise ConfigurationError("runtime_dir must be an absolute path")


def state_directory(given: str | None) -> Path:
    """Say where the recording is, reading nothing but `state_dir`, and raising as `control_socket` does."""
    return _directory(given, "state_dir", STATE_DIRECTORY)


def _directory(given: str | None, key: str, default: Path) -> Path:
    directory = read_values(given).get(key, str(default))
    if not isinstance(directory, str) or not directory.startswith("/"):
        raise ConfigurationError(f"{key} must be an absolute path")
    return Path(directory)
