"""Why capd does not work on this host, or why a process is not recorded: one finding at a time, each with what to do.

What lives here: looking and judging. What must not: the screen (cli/doctor.py), changing anything on the host.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

from capd.daemon import (
    catalogue_status,
    cgroups,
    clock,
    configuration_files,
    configuration_salvage,
    control_client,
    locations,
    lock,
    mountinfo,
    mounts,
    processes,
    recorder_user,
    state_directory,
    status,
)
from capd.daemon.configuration import MIB, Configuration
from capd.daemon.errors import ConfigurationError, FleetExtraMissingError
from capd.daemon.finding import Finding, Mark
from capd.daemon.health import Verdict
from capd.probes import btf, kernel
from capd.probes.errors import ProbeError
from capd.recording.durable import OTHERS_WRITE
from capd.recording.errors import CapdError

KERNEL_MIN: Final = (5, 8)
"""Ring buffers, which both tiers need."""
START: Final = "start it: `systemctl start capd` or `sudo capd up`"


def check_host(config: str | None) -> list[Finding]:
    """Look at everything that capd needs of the host, and at capd itself."""
    findings = [_user(), _kernel_version(), _compiler(), *_kernel(), *_mounts(), _cgroup2()]
    try:
        understood = configuration_salvage.understand(config)
    except ConfigurationError as error:  # there is nothing in what was named that could be understood
        return [*findings, *problems(error)]
    settings = understood.settings
    if understood.problem is not None:
        findings += problems(understood.problem)
    else:
        findings += _files(configuration_files.read_layered(config).files)
    return [
        *findings,
        _clock(),
        *_state(settings),
        *_catalogue(settings),
        *_selection(settings),
        *_enforcement(settings),
        *_roles(settings),
    ]


def problems(error: ConfigurationError) -> Iterator[Finding]:
    """Give what is wrong with the configuration."""
    for problem in error.problems:
        yield _bad("configuration", str(problem), problem.next_step)
    if not error.problems:
        yield from (_bad("configuration", line, error.hint) for line in str(error).splitlines())


def _files(files: Sequence[Path]) -> Iterator[Finding]:
    """Look at who can write the configuration: whoever can decides what is recorded."""
    mine = {0, os.geteuid()}
    for path in files:
        found = path.stat()
        if found.st_uid not in mine or (found.st_mode & OTHERS_WRITE and stat.S_ISREG(found.st_mode)):
            step = f"`chown root: {path}` and `chmod go-w {path}`, once you have seen what is in it"
            yield _bad("configuration", f"{path} can be written by others than root", step)
        elif os.geteuid() == 0 and not found.st_mode & stat.S_IROTH:
            step = f"`chmod go+r {path}`: it holds no secrets; under `capd up` it need not be"
            words = f"{path} can be read by root alone: roles that systemd starts as other users do not start"
            yield Finding(subject="configuration", mark=Mark.NOTE, found=words, next_step=step)
    names = ", ".join(map(str, files)) or "there is no file, so the defaults hold"
    yield Finding(subject="configuration", mark=Mark.GOOD, found=names)


def _clock() -> Finding:
    kept = clock.facts()["synchronised"]
    if kept is True:
        return Finding(subject="clock", mark=Mark.GOOD, found="kept right")
    found = "not kept right: times in the record may be off" if kept is False else "the kernel does not say whether it is kept"
    step = "`timedatectl set-ntp true`, or install chrony; a bucket refuses requests of a clock that is far off"
    return Finding(subject="clock", mark=Mark.NOTE, found=found, next_step=step)


def check_process(config: str | None, pid: int) -> list[Finding]:
    """Say why a process is recorded or not, and what of it can be read.

    Raises:
        ConfigurationError: the configuration does not say whom to ask.
    """
    process = processes.read(pid)
    if process is None:
        return [_bad("process", f"there is no process {pid}, or it is dead", "`pgrep -a NAME` finds the number of a program")]
    found = f"{process.exe or '(executable not readable)'} {' '.join(process.argv[1:4])}"
    findings = [Finding(subject="process", mark=Mark.GOOD, found=f"{pid}: {found.strip()}")]
    try:
        answer = control_client.ask(locations.likely_runtime_directory(config) / locations.CONTROL_SOCKET, "explain", pid=pid)
    except CapdError as error:
        return [*findings, _bad("daemon", str(error), error.hint)]
    return [*findings, *_explained(pid, cast("Mapping[str, object]", answer["explanation"]), answer)]


def _explained(pid: int, explanation: Mapping[str, object], answer: Mapping[str, object]) -> Iterator[Finding]:
    if explanation["selected"]:
        yield Finding(subject="selection", mark=Mark.GOOD, found=f"recorded as part of run {answer.get('run') or '(ending)'}")
    else:
        yield _not_selected(pid)
    libraries = cast("list[Mapping[str, object]]", explanation["libraries"])
    for library in libraries:
        if library["attached"]:
            functions = ", ".join(cast("list[str]", library["functions"]))
            yield Finding(subject="TLS", mark=Mark.GOOD, found=f"{library['path']} is watched: {functions}")
        elif explanation["selected"]:
            step = "`capd status` has the reason; its encrypted sessions are `opaque`"
            yield _bad("TLS", f"{library['path']} is not watched", step)
        else:
            found = f"{library['path']} is not watched; it will be when a recorded process maps it"
            yield Finding(subject="TLS", mark=Mark.NOTE, found=found)
    if not libraries:
        yield Finding(
            subject="TLS",
            mark=Mark.NOTE,
            found="no TLS library of a kind that capd knows is mapped: clear traffic is read, encrypted traffic is `opaque`",
            next_step="a program with TLS built in (Go, Rust, Java, Node) cannot be read yet",
        )


def _not_selected(pid: int) -> Finding:
    hierarchy = cgroups.Hierarchy()
    own = hierarchy.path_of(pid) or "?"
    return _bad(
        "selection",
        f"not recorded: it belongs to no run (cgroup {own})",
        "start it with `capd run -- COMMAND`, or as a unit with Slice=capd-agents.slice, or name its cgroup in [selection]",
    )


def _user() -> Finding:
    if os.geteuid() == 0:
        return Finding(subject="user", mark=Mark.GOOD, found="root")
    found = f"uid {os.geteuid()}: this look at the host is not a whole one, and the daemon needs root"
    return Finding(subject="user", mark=Mark.NOTE, found=found, next_step="repeat it as root: `sudo capd doctor`")


def _kernel_version() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < KERNEL_MIN:
        return _bad("kernel", f"{release}", "capd needs Linux 5.8 or later")
    return Finding(subject="kernel", mark=Mark.GOOD, found=release)


def _compiler() -> Finding:
    if importlib.util.find_spec("bcc") is None:
        return _bad("compiler", "BCC's Python module is missing", "install python3-bpfcc (Debian) or python3-bcc (Fedora)")
    return Finding(subject="compiler", mark=Mark.GOOD, found="BCC")


def _kernel() -> Iterator[Finding]:
    try:
        found = kernel.inspect(btf.load())
    except ProbeError as error:
        yield _bad("BTF", str(error), error.hint)
        return
    yield Finding(subject="BTF", mark=Mark.GOOD, found="/sys/kernel/btf/vmlinux")
    missing = [name for name, there in found.features.items() if not there]
    if missing:
        found_text = f"classic; modern lacks {', '.join(missing)}"
        yield Finding(subject="tier", mark=Mark.NOTE, found=found_text)
    else:
        yield Finding(subject="tier", mark=Mark.GOOD, found="modern")


def _mounts() -> Iterator[Finding]:
    missing = mounts.missing()
    for kind, point in mounts.WANTED.items():
        if kind in missing:
            step = f"none: the daemon mounts it when it starts, if it can (`mount -t {kind} {kind} {point}`)"
            yield Finding(subject=kind, mark=Mark.NOTE, found=f"not mounted at {point}", next_step=step)
        else:
            yield Finding(subject=kind, mark=Mark.GOOD, found=str(point))


def _cgroup2() -> Finding:
    try:
        root = cgroups.find_root()
    except CapdError as error:
        return _bad("cgroup2", str(error), error.hint)
    found = f"{root} ({cgroups.shape(root)}), {'systemd makes' if cgroups.has_systemd() else 'capd makes'} the cgroups of runs"
    if not any(mount.point == root and mount.writable for mount in mountinfo.mounted("cgroup2")):
        return _bad("cgroup2", f"{found}, but it is mounted read-only", f"`mount -o remount,rw {root}`")
    return Finding(subject="cgroup2", mark=Mark.GOOD, found=found)


def _state(settings: Configuration) -> Iterator[Finding]:
    directory = settings.state_dir
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if directory.exists() and not directory.is_dir():
        yield _bad("state_dir", f"{directory} is not a directory", "move it away, or set `state_dir` elsewhere")
    elif _read_only(existing):
        yield _bad("state_dir", f"{directory} is on a read-only file system", "remount it, or set `state_dir` elsewhere")
    else:
        yield _look("state_dir", lambda: _room(settings, existing))
    if os.geteuid() == 0:  # who looks without being root would be told that it is himself
        yield _look("recorder", lambda: f"user {recorder_user.choose(settings.recorder.user, settings.segments_dir)}")


def _catalogue(settings: Configuration) -> Iterator[Finding]:
    """Look whether this host can write the catalogue of its bucket: what it ships is safe without, but not found there."""
    if settings.bucket_url is None or not settings.catalogue.enabled:
        return
    if catalogue_status.possible():
        yield Finding(subject="catalogue", mark=Mark.GOOD, found="what is shipped can be made searchable")
    else:
        found = "what is shipped cannot be made searchable: the libraries for it are not installed"
        yield Finding(subject="catalogue", mark=Mark.NOTE, found=found, next_step=FleetExtraMissingError.hint)


def _selection(settings: Configuration) -> Iterator[Finding]:
    """Name the selectors for which nothing is there: it may come, or the name may be wrong."""
    try:
        hierarchy = cgroups.Hierarchy()
    except CapdError:  # told of besides
        return
    chosen = [cgroups.slice_path(name) for name in settings.selection.slices if name != cgroups.AGENTS_SLICE]
    for path in (*chosen, *(f"/{path.strip('/')}" for path in settings.selection.cgroups)):
        if hierarchy.id_of(path) is None:
            step = "none, if it is to come; `systemd-cgls` shows paths: a service is /system.slice/NAME.service"
            yield Finding(subject="selection", mark=Mark.NOTE, found=f"there is no cgroup {path} now", next_step=step)


def _enforcement(settings: Configuration) -> list[Finding]:
    from capd.daemon import doctor_enforcement  # noqa: PLC0415 - policies take time to import

    return doctor_enforcement.check_enforcement(settings)


def _room(settings: Configuration, existing: Path) -> str:
    free, wanted = state_directory.free_bytes(existing), settings.journal.free_bytes_min
    if free < wanted:
        state_directory.check_room(settings.model_copy(update={"state_dir": existing}))
    return f"{settings.state_dir}, {free // MIB} MiB free"


def _read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _roles(settings: Configuration) -> Iterator[Finding]:
    found, judged = status.gather(settings)
    if judged.verdict is Verdict.DOWN:
        last = lock.holder(settings.lock_file)
        if last is not None and processes.exists(last):
            found_text = f"pid {last} holds {settings.lock_file}, but {judged.reasons[0].reason}"
            yield _bad("daemon", found_text, "see its log; end it with `kill`")
        else:
            yield _bad("daemon", judged.reasons[0].reason, START)
        return
    roles = cast("Mapping[str, Mapping[str, object]]", found["roles"])
    yield Finding(subject="daemon", mark=Mark.GOOD, found=f"pid {roles['daemon']['pid']}, tier {found['tier']}")
    for reason in judged.reasons:
        yield _bad("health", reason.reason, reason.next_step)
    attached = cast("list[Mapping[str, object]]", found["attachments"])
    names = ", ".join(str(library["path"]) for library in attached)
    yield Finding(subject="TLS", mark=Mark.GOOD if names else Mark.NOTE, found=names or "no TLS library was found on this host")


def _look(subject: str, look: Callable[[], str]) -> Finding:
    """Turn an error into a finding."""
    try:
        return Finding(subject=subject, mark=Mark.GOOD, found=look())
    except CapdError as error:
        return _bad(subject, str(error), error.hint)


def _bad(subject: str, found: str, next_step: str) -> Finding:
    return Finding(subject=subject, mark=Mark.BAD, found=found, next_step=next_step)
