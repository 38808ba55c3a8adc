"""What can go wrong in a role, each with the words for the user, what to do next, and the exit status.

What lives here: error classes. What must not: code that decides. docs/exit-statuses.md is held against these classes by a test.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from capd.recording.errors import CapdError, ExitStatus, StateDirectoryError

if TYPE_CHECKING:
    from capd.daemon.configuration_problems import Problem


class ConfigurationError(CapdError):
    """The configuration cannot be used; lists every problem, not the first."""

    exit_status: ClassVar[int] = ExitStatus.USAGE
    hint: ClassVar[str] = "mend the file named above; `capd config check` says what each key may be, and starts nothing"
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, problems: tuple[Problem, ...]) -> ConfigurationError:
        """Make one of problems that have a place."""
        error = cls("\n".join(map(str, problems)))
        error.problems = problems
        return error


class RequestRefusedError(CapdError):
    """What was asked of the daemon makes no sense to it: unknown verb, malformed or oversized request."""

    exit_status: ClassVar[int] = ExitStatus.USAGE
    hint: ClassVar[str] = "this client and the daemon may be of different versions; compare `capd --version` with `capd status`"


class NotRootError(CapdError):
    """A role that must be root is not."""

    exit_status: ClassVar[int] = ExitStatus.NOT_PERMITTED
    hint: ClassVar[str] = "start it with sudo, or install the package, whose unit capd.service runs as root"


class NotPermittedError(CapdError):
    """The daemon does not do this for that user."""

    exit_status: ClassVar[int] = ExitStatus.NOT_PERMITTED
    hint: ClassVar[str] = "repeat it as root"


class TooManyRunsError(CapdError):
    """There is no room for one more live run of this user, or of anybody."""

    exit_status: ClassVar[int] = ExitStatus.NOT_PERMITTED
    hint: ClassVar[str] = "end runs that are not needed any more: `capd status` lists the caller's; root may start more"


class NoCgroup2Error(CapdError):
    """No cgroup2 hierarchy is mounted where this process can see it."""

    exit_status: ClassVar[int] = ExitStatus.HOST
    hint: ClassVar[str] = (
        "mount one: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`; "
        "in a container, start it with the host's cgroup namespace and a writable cgroup2"
    )


class CgroupError(CapdError):
    """A cgroup cannot be made, entered or removed."""

    exit_status: ClassVar[int] = ExitStatus.HOST
    hint: ClassVar[str] = "`capd doctor` says which hierarchy is used; it must be mounted read-write"


class MountError(CapdError):
    """tracefs is missing and cannot be mounted."""

    exit_status: ClassVar[int] = ExitStatus.HOST
    hint: ClassVar[str] = "mount it by hand with the command above, or give the container CAP_SYS_ADMIN"


class KeeperError(CapdError):
    """The process that reads credentials cannot start, or has ended: without it no request gets its credential."""

    exit_status: ClassVar[int] = ExitStatus.NEGATIVE
    hint: ClassVar[str] = "the enforcer is started anew; the lines before this one in its log say what happened"


class EnforcingError(CapdError):
    """What forces agents' traffic cannot be taken away while the daemon that keeps it runs."""

    exit_status: ClassVar[int] = ExitStatus.ALREADY_RUNNING
    hint: ClassVar[str] = "set `enforcement.mode` to `off` and restart the daemon, or stop it, then repeat this"


class NotClosedError(CapdError):
    """What is to be forced through the enforcer could not be closed off before the daemon is there."""

    exit_status: ClassVar[int] = ExitStatus.HOST
    hint: ClassVar[str] = "no unit of capd-agents.slice starts meanwhile; `capd doctor` says what this host lacks for forcing"


class InheritedSocketError(CapdError):
    """A command that is to be forced through the enforcer would bring along a connection that cannot be."""

    exit_status: ClassVar[int] = ExitStatus.NOT_PERMITTED
    hint: ClassVar[str] = "close them before, or start it from a shell that has none: `capd run -- COMMAND 3>&-`"


class NoBucketError(CapdError):
    """There is nowhere to ship to."""

    exit_status: ClassVar[int] = ExitStatus.USAGE
    hint: ClassVar[str] = "set `bucket_url` in the configuration; without it segments stay in `state_dir`"


class CannotListenError(CapdError):
    """Metrics, or links, cannot be served where the configuration says."""

    exit_status: ClassVar[int] = ExitStatus.HOST
    hint: ClassVar[str] = (
        "see who has it (`ss -lxtp`), or set another `listen`; a unix socket needs a directory that the role's user may write, "
        "such as `runtime_dir`/metrics or `runtime_dir`/enforcer"
    )


class NothingToCatalogueError(CapdError):
    """There is no recording on this host whose catalogue could be written."""

    exit_status: ClassVar[int] = ExitStatus.STATE
    hint: ClassVar[str] = "start capd: it makes the host's id, and what it records and ships gets a catalogue"

    def __init__(self) -> None:
        super().__init__("nothing was recorded on this host yet")


class SandboxError(CapdError):
    """The kernel refused a step of confining a role, which therefore does not start."""

    exit_status: ClassVar[int] = ExitStatus.HOST
    hint: ClassVar[str] = "the kernel needs CONFIG_SECCOMP_FILTER=y; a container must not forbid prctl, setuid or seccomp"


class HostIdError(StateDirectoryError):
    """The file with this host's id holds something else."""

    hint = "put back the id (`capd verify` names it), or remove the file: what is recorded from then on is of a new host"


class RoleIsRootError(CapdError):
    """A role that decodes or ships would run as root, or in root's group."""

    exit_status: ClassVar[int] = ExitStatus.HOST
    hint: ClassVar[str] = (
        "start it as root, which then picks a user, or as a user with a group of its own, as its systemd unit does"
    )


class PortTakenError(CapdError):
    """Somebody listens where the enforcer has to."""

    exit_status: ClassVar[int] = ExitStatus.ALREADY_RUNNING
    hint: ClassVar[str] = "`ss -ltnp` says who listens there; end it, or set `enforcement.proxy_port`"

    def __init__(self, address: str, port: int, error: OSError) -> None:
        super().__init__(f"cannot listen on {address} port {port}: {error.strerror}")


class FleetExtraMissingError(CapdError):
    """The libraries that write and ask the catalogue of a bucket are not installed."""

    exit_status: ClassVar[int] = ExitStatus.USAGE
    hint: ClassVar[str] = "install capd-fleet, or, where pip brought capd: pip install 'capd[fleet]'"

    def __init__(self, module: str) -> None:
        super().__init__(f"the catalogue of a bucket needs {module}, which is not installed")


class EnforcementOffError(CapdError):
    """There is nothing for the enforcer to do."""

    exit_status: ClassVar[int] = ExitStatus.USAGE
    hint: ClassVar[str] = "set `mode` in `[enforcement]` to `observe` or `enforce`"


class StateDirectoryFullError(CapdError):
    """The file system of the state directory has no room for a recording."""

    exit_status: ClassVar[int] = ExitStatus.STATE
    hint: ClassVar[str] = "free space there, mount more (docs/operations.md, More room), or lower `journal.free_bytes_min`"


class NotRecordingError(CapdError):
    """The daemon is alive but cannot write: a run started now would not be recorded, so it is not started."""

    exit_status: ClassVar[int] = ExitStatus.STATE
    hint: ClassVar[str] = "`capd status` says what is full and what to do"


class AnotherCapdError(CapdError):
    """Another capd works on the same directories."""

    exit_status: ClassVar[int] = ExitStatus.ALREADY_RUNNING
    hint: ClassVar[str] = "stop it first, or give this one its own `state_dir` and `runtime_dir` in the configuration"

    def __init__(self, place: Path, pid: int | None) -> None:
        holder = f" (pid {pid})" if pid else ""
        super().__init__(f"another capd is running{holder}: it holds {place}")


class DaemonUnreachableError(CapdError):
    """Nobody answers on the control socket."""

    exit_status: ClassVar[int] = ExitStatus.UNREACHABLE
    hint: ClassVar[str] = "start it with `systemctl start capd` or `sudo capd up`; if it has a --config, give the same"
