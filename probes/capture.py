"""Capture: the loaded programs at work, and all that the daemon may ask of them.

What lives here: starting, selecting who is recorded, libraries that appear, counters, stopping. What must not: the journal,
runs' names, policy.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from capd.probes import bpf_call, libraries, loader
from capd.probes.attachments import Attachment, Attachments, NotWatchedError
from capd.probes.bpf_call import Map
from capd.probes.budget import Claim
from capd.probes.counters import COUNTERS, LOST
from capd.probes.errors import AttachError, TracingMissingError
from capd.probes.programs import PROGRAMS, Place, ProgramSpec, Tier
from capd.probes.ring import Ring
from capd.probes.standing import Left, Standing, Store, Taken, key_of, take, take_to_end

TRACEFS_PLACES: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))

RELEASE_SECONDS: Final = 10.0
"""How often at most files are looked for whose probes nobody needs, which means reading all recorded processes' maps."""

_MEMBER: Final = struct.Struct("<QQ")
_LOSS_KEY: Final = struct.Struct("<QQBBB5x")
_FILE_KEY: Final = struct.Struct("<QQ")
_TLS_KEY: Final = struct.Struct("<QI4x")
_SOCKET_STATE: Final = struct.Struct("<QQII16x8x8x8xHHI")
_U64: Final = struct.Struct("<Q")
_U32: Final = struct.Struct("<I")
_TLS_STREAM: Final = struct.Struct("<Q40x")
_SOCKET_TCP: Final = 2
_LOST_AT: Final = tuple(at for at, name in enumerate(COUNTERS) if name in LOST)

LAYER_SOCKET, LAYER_TLS, LAYER_CONTROL = 0, 1, 2
"""Of a loss: in a socket's bytes, in a TLS stream's, or of control events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """How to capture.

    Attributes:
        tier: `auto`, `modern` or `classic`.
        data_ring_bytes: room for payload, a power of two; 64 MiB last 60 ms at 1 GB/s, half as much lost one byte in 7,000.
        control_ring_bytes: room for lifecycle events. A power of two.
        tracefs: where tracefs is mounted; None to look in the usual places.
        cgroup_root: the unified hierarchy's mount point, to learn the senders of datagrams; None to do without.
        cache: where the compiled programs are kept for the next start; None to compile always.
    """

    tier: str = "auto"
    data_ring_bytes: int = 64 << 20
    control_ring_bytes: int = 4 << 20
    tracefs: Path | None = None
    cgroup_root: Path | None = None
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """What was lost of one stream since capture started.

    Attributes:
        stream: socket id or TLS stream id; of layer 2 the run.
        layer: 0 socket, 1 TLS, 2 control events.
        direction: 0 agent to peer, 1 peer to agent.
        amount: bytes; of layer 2 events.
        cause: an `Absence` of `layouts`.
        run: who lost it.
    """

    stream: int
    layer: int
    direction: int
    amount: int
    cause: int
    run: int


class Capture:
    """Loaded and attached programs. Use as a context manager, or call `close`."""

    def __init__(self, loaded: loader.Loaded, settings: CaptureSettings, taken: Taken | None = None) -> None:
        self._loaded = loaded
        self._settings = settings
        self._links = [] if taken is None else taken.links
        self.continued = taken is not None
        """Whether these are an earlier process's programs, which stood since."""
        self.tier = loaded.tier.value
        self.features = loaded.features
        self.warnings: list[str] = []
        self.control = Ring(loaded.control, settings.control_ring_bytes)
        self.data = Ring(loaded.data, settings.data_ring_bytes)
        self._attachments = Attachments(loaded, () if taken is None else taken.attachments)
        self.refused: list[str] = []
        """Installed TLS libraries that cannot be watched, each with the reason."""
        self._released_at = -RELEASE_SECONDS
        maps = loaded.maps
        self._lineage = Map(maps["lineage"], 4, _MEMBER.size)
        self._cgroups = Map(maps["selected_cgroups"], 8, 8)
        self._sockets = Map(maps["sockets"], 8, _SOCKET_STATE.size)
        self._tls_streams = Map(maps["tls_streams"], _TLS_KEY.size, _TLS_STREAM.size)
        self._losses = Map(maps["losses"], _LOSS_KEY.size, 8)
        self._counters_page = mmap.mmap(maps["counters"], mmap.PAGESIZE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        self._counters = memoryview(self._counters_page)[: 8 * len(COUNTERS)].cast("Q")
        self._known_files = Map(maps["known_files"], _FILE_KEY.size, 1)

    @classmethod
    def start(
        cls,
        settings: CaptureSettings,
        store: Store | None = None,
        left: Left | None = None,
        *,
        goes_on: Callable[[], None] = lambda: None,
    ) -> Self:
        """Go on with what an earlier process left, if it is whole and the same; else compile, load and attach everything.

        Args:
            settings: how to capture.
            store: keeps it beyond the death of this process; None: it ends with it.
            left: by an earlier process; if it is not taken over it stays the caller's.
            goes_on: is called again and again while new ones are compiled.

        Raises:
            ProbeError: one of its subclasses; nothing stays behind but what the store keeps.
        """
        standing = None if store is None else Standing(store, key_of(settings))
        taken = None if standing is None or left is None else take(left, key_of(settings))
        capture = cls._fresh(settings, goes_on) if taken is None else cls(taken.loaded, settings, taken)
        if standing is not None:
            capture.stand(standing, taken)
        return capture

    @classmethod
    def outgoing(cls, left: Left, settings: CaptureSettings) -> Self | None:
        """Take what an earlier process left and what is not gone on with, to read it to its end; None if it cannot be read.

        Its descriptors are the result's.

        Args:
            left: by an earlier process.
            settings: of this one.
        """
        found = take_to_end(left)
        if found is None:
            return None
        taken, (control_bytes, data_bytes) = found
        return cls(taken.loaded, replace(settings, control_ring_bytes=control_bytes, data_ring_bytes=data_bytes), taken)

    def deselect(self) -> None:
        """Record nobody: first no cgroup, so that nobody comes in any more, then no process."""
        for table in (self._cgroups, self._lineage):
            while keys := list(table.walk()):
                for key in keys:
                    table.remove(key)

    @classmethod
    def _fresh(cls, settings: CaptureSettings, goes_on: Callable[[], None]) -> Self:
        tracefs = settings.tracefs or _find_tracefs()
        rings = settings.control_ring_bytes, settings.data_ring_bytes
        loaded = loader.load(settings.tier, *rings, settings.cache, goes_on=goes_on)
        capture = cls(loaded, settings)
        try:
            for spec in PROGRAMS[Tier(capture.tier)]:
                capture._attach(spec, tracefs)
            capture._attach_installed()
        except OSError as error:
            capture.close()
            raise AttachError(f"the kernel refused to attach a probe: {error.strerror}") from error
        except BaseException:
            capture.close()
            raise
        capture._attachments.late = True
        return capture

    def stand(self, standing: Standing, taken: Taken | None) -> None:
        """Have all that is attached, and what will be, kept for the next process."""
        if taken is None:
            standing.begin(self._loaded, self._links, self.attachments, (self.control.size, self.data.size))
            self._attachments.changes = standing
            return
        standing.go_on(taken)
        self._attachments.changes = standing
        self._attachments.late = True
        self._attach_installed()

    def _attach_installed(self) -> None:
        for path in libraries.installed():
            try:
                self._attachments.attach(path)
            except NotWatchedError as error:
                self.refused.append(f"{path}: {error}")

    def _attach(self, spec: ProgramSpec, tracefs: Path) -> None:
        program = self._loaded.programs[spec.name]
        for point in spec.points:
            if spec.place is Place.RAW_TRACEPOINT:
                self._links.append(bpf_call.attach_raw_tracepoint(program, point))
            elif spec.place is Place.TYPED_TRACEPOINT:
                self._links.append(bpf_call.attach_raw_tracepoint(program, None))
            elif not spec.optional or (tracefs / "events/syscalls" / point).is_dir():
                self._links.append(bpf_call.attach_tracepoint(program, tracefs, "syscalls", point))
        if spec.place is Place.CGROUP:
            self._attach_cgroup(spec, program)

    def _attach_cgroup(self, spec: ProgramSpec, program: int) -> None:
        root = self._settings.cgroup_root
        if root is None:
            self.warnings.append("no cgroup2 hierarchy: senders of datagrams on unconnected sockets are not known")
            return
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._links.append(bpf_call.attach_cgroup(program, descriptor, spec.attach_type))
        finally:
            os.close(descriptor)

    @property
    def attachments(self) -> list[Attachment]:
        """Give the TLS libraries with probes."""
        return self._attachments.all()

    def select_cgroup(self, cgroup_id: int, run: int) -> None:
        """Record every process that is started in, or moved into, a cgroup or one below it."""
        self._cgroups.put(_U64.pack(cgroup_id), _U64.pack(run))

    def unselect_cgroup(self, cgroup_id: int) -> None:
        """Record no further process for being in a cgroup. Those that are recorded stay so."""
        self._cgroups.remove(_U64.pack(cgroup_id))

    def select_process(self, pid: int, run: int) -> None:
        """Record a running process and all its later descendants.

        A process that is recorded for this run already is left as it is.
        """
        known = self._lineage.get(_U32.pack(pid))
        if known is None or _MEMBER.unpack(known)[0] != run:
            self._lineage.put(_U32.pack(pid), _MEMBER.pack(run, process_start_ns(pid)))

    def release_process(self, pid: int, run: int) -> None:
        """Record a process no longer, if it was selected for this run: its number was meant for one that is gone."""
        known = self._lineage.get(_U32.pack(pid))
        if known is not None and _MEMBER.unpack(known)[0] == run:
            self._lineage.remove(_U32.pack(pid))

    def selected(self) -> dict[int, int]:
        """Give the recorded processes: pid to run key."""
        found = {}
        for key in self._lineage.walk():
            value = self._lineage.get(key)
            if value is not None:
                found[_U32.unpack(key)[0]] = _MEMBER.unpack(value)[0]
        return found

    def run_of(self, pid: int) -> int | None:
        """Give the key of the run that a process is recorded for, or None."""
        value = self._lineage.get(_U32.pack(pid))
        return None if value is None else int(_MEMBER.unpack(value)[0])

    def start_of(self, pid: int) -> int | None:
        """Give the start time (boot clock, ns) by which events name a recorded process, or None."""
        value = self._lineage.get(_U32.pack(pid))
        return None if value is None else int(_MEMBER.unpack(value)[1])

    def counters(self) -> dict[str, int]:
        """Give the probes' counters since the start, as `counters.COUNTERS` names them. No system call."""
        return dict(zip(COUNTERS, self._counters, strict=True))

    def lost(self) -> tuple[int, ...]:
        """Give those of the counters that count losses. No system call.

        What they count is in `losses` by then, and who finds an event in a ring finds the losses before it counted.
        """
        counters = self._counters
        return tuple(counters[at] for at in _LOST_AT)

    def programs_skipped(self) -> int:
        """Ask the kernel how often it did not run a program, because that was running on the same processor already."""
        return sum(map(bpf_call.recursion_misses, self._loaded.programs.values()))

    def losses(self) -> list[Loss]:
        """Give what each stream lost since the start, or since it was forgotten."""
        found = []
        for key, value in self._losses.items():
            stream, run, layer, direction, cause = _LOSS_KEY.unpack(key)
            found.append(Loss(stream, layer, direction, _U64.unpack(value)[0], cause, run))
        return found

    def forget_losses(self, told: Callable[[Loss], bool]) -> list[Loss]:
        """Make room for losses of others: forget those of sockets and TLS streams that are over.

        Args:
            told: whether so much is written down; only then it is forgotten.

        Returns:
            What was forgotten.
        """
        lost = self.losses()
        sockets = {_U64.unpack(key)[0] for key, _ in self._sockets.items()}
        streams = {_TLS_STREAM.unpack(value)[0] for _, value in self._tls_streams.items()}
        live = {LAYER_SOCKET: sockets, LAYER_TLS: streams}
        gone = [loss for loss in lost if loss.layer in live and loss.stream not in live[loss.layer] and told(loss)]
        for loss in gone:
            self._losses.remove(_LOSS_KEY.pack(loss.stream, loss.run, loss.layer, loss.direction, loss.cause))
        return gone

    def on_file_mapped(self, pid: int, device: int, inode: int, claim: Claim | None = None) -> Attachment | None:
        """Look at a file that a recorded process mapped or runs.

        Args:
            pid: the process.
            device: in the kernel's form, as FILE_MAPPED and PROCESS_EXEC events give it.
            inode: its number.
            claim: for whom it would be watched.

        Returns:
            What was attached, or None: no TLS library, known before, or gone already (then it is told again at its next
            mapping).

        Raises:
            NotWatchedError: it holds a TLS library and cannot be watched. It is told again at its next mapping.
        """
        for file in libraries.mapped(pid):
            if (file.device, file.inode) == (device, inode):
                path = libraries.reachable(pid, file)
                if path is None:
                    return None
                try:
                    return self._attach_mapped(path, claim, (device, inode))
                except NotWatchedError:
                    self._known_files.remove(_FILE_KEY.pack(device, inode))
                    raise
        self._known_files.remove(_FILE_KEY.pack(device, inode))
        return None

    def _attach_mapped(self, path: Path, claim: Claim | None, mapped_as: tuple[int, int]) -> Attachment | None:
        try:
            return self._attachments.attach(path, claim, mapped_as)
        except NotWatchedError:
            if not self._release_unused():
                raise
            return self._attachments.attach(path, claim, mapped_as)

    def _release_unused(self) -> bool:
        """Make room: take the probes off files of runs that are over and that no recorded process has mapped any more."""
        now = time.monotonic()
        if now - self._released_at < RELEASE_SECONDS:
            return False
        self._released_at = now
        members = self.selected()
        runs = set(members.values())
        over = {item.mapped_as for item in self.attachments if item.claim is not None and item.claim.run not in runs}
        if over:
            over -= {(file.device, file.inode) for pid in members for file in libraries.mapped(pid)}
        for released in self._attachments.release(lambda item: item.claim is not None and item.mapped_as in over):
            self._known_files.remove(_FILE_KEY.pack(*released.mapped_as))
        return bool(over)

    def unwatched(self) -> list[tuple[int, int, int]]:
        """Give the files that recorded processes have mapped and that have no probes: a process of each, device, inode.

        After a process that watched was replaced by one: what it was told last it may not have looked at.
        """
        watched = {attachment.mapped_as for attachment in self.attachments}
        found: dict[tuple[int, int], int] = {}
        for pid in self.selected():
            for file in libraries.mapped(pid):
                if (file.device, file.inode) not in watched:
                    found.setdefault((file.device, file.inode), pid)
        return [(pid, device, inode) for (device, inode), pid in found.items()]

    def forget_file(self, device: int, inode: int) -> None:
        """Have a file told again at its next mapping."""
        self._known_files.remove(_FILE_KEY.pack(device, inode))

    def mapped_path(self, pid: int, device: int, inode: int) -> str | None:
        """Give the path by which a process has mapped a file, as it sees it; None when it has it no more."""
        files = libraries.mapped(pid)
        return next((file.path for file in files if (file.device, file.inode) == (device, inode)), None)

    def sweep(self) -> None:
        """Forget TLS streams of processes that are gone, and unconnected sockets of runs that have none left."""
        members = self.selected()
        runs = set(members.values())
        for key in list(self._tls_streams.walk()):
            if _TLS_KEY.unpack(key)[1] not in members:
                self._tls_streams.remove(key)
        for key in list(self._sockets.walk()):
            value = self._sockets.get(key)
            if value is not None:
                run, _, _, flags, *_ = _SOCKET_STATE.unpack(value)
                if run not in runs and not flags & _SOCKET_TCP:
                    self._sockets.remove(key)

    def explain(self, pid: int) -> dict[str, object]:
        """Tell why a process is recorded or not: its run, and each TLS library it has mapped with its state."""
        run = self.selected().get(pid)
        attached = {(item.device, item.inode): item for item in self.attachments}
        found = []
        for file in libraries.mapped(pid):
            path = libraries.reachable(pid, file)
            if path is None:
                continue
            try:
                status = path.stat()
            except OSError:
                continue
            item = attached.get((status.st_dev, status.st_ino))
            if item or libraries.LIBRARY_NAME.fullmatch(Path(file.path).name):
                found.append({"path": file.path, "attached": bool(item), "functions": list(item.functions) if item else []})
        return {"pid": pid, "selected": run is not None, "run": run, "libraries": found}

    def close(self) -> None:
        """Let everything go; what no store keeps is detached and unloaded."""
        self._attachments.close()
        for descriptor in (*self._links, *self._loaded.programs.values(), *self._loaded.maps.values()):
            os.close(descriptor)
        self._links = []
        self._counters.release()
        self._counters_page.close()
        self.control.close()
        self.data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def process_start_ns(pid: int) -> int:
    """Give a process's start on the boot clock in ns, to the precision of /proc/PID/stat (a clock tick); 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _find_tracefs() -> Path:
    for place in TRACEFS_PLACES:
        if (place / "events" / "syscalls").is_dir():
            return place
    raise TracingMissingError("tracefs is not mounted")
