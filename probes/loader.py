"""Compiles and loads the BPF programs in a child process that hands back descriptors, so that no compiler stays in the daemon.

What lives here: the parent's call (`load`), and the child's work (`python -m capd.probes.loader`). What must not: attaching.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from capd.probes import bpf_call, btf, compiled
from capd.probes.compiled import Compiled
from capd.probes.errors import BtfMissingError, CompilerError, KernelTooOldError, NotPermittedError, ProbeError
from capd.probes.kernel import Kernel, inspect
from capd.probes.programs import (
    BPF_SOURCES,
    CHUNK_BYTES_MAX,
    EMIT_STEPS_MAX,
    MAPS,
    PROGRAMS,
    TAIL_CALLS,
    TLS_CALL_BYTES,
    ProgramSpec,
    Tier,
)

BPF_FOLDER: Final = Path(__file__).resolve().parent / "bpf"
CHILD_CPU_SECONDS_MAX: Final = 240
"""Compiling and loading take 5 s of a processor, some 30 of a slow one. How long that is by the clock depends on what
else runs: with twelve others on two cores it was more than a minute."""
CHILD_IDLE_SECONDS_MAX: Final = 240
"""For the child to get any time of a processor: one that waits for something else waits in vain."""
LOOK_SECONDS: Final = 1.0
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
ANSWER_SECONDS_MAX: Final = 240
"""For what the child sent before it ended, so that it is there, or never comes."""
MANIFEST_BYTES_MAX: Final = 1 << 16
DESCRIPTORS_MAX: Final = 253
"""What one SCM_RIGHTS message can carry (SCM_MAX_FD in the kernel)."""
KEPT_MAX: Final = 4
"""Compiled sets that are kept: of two tiers, and of the kernel or version before."""
CALL_KFUNC: Final = 0x85
PSEUDO_KFUNC_CALL: Final = 2


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the child handed back.

    Attributes:
        tier: which set of programs.
        features: features of the modern tier, found or not.
        programs: program name to descriptor.
        maps: map name to descriptor.
        control, data: the two rings' descriptors.
        cached: whether they were compiled at an earlier start.
    """

    tier: Tier
    features: dict[str, bool]
    programs: dict[str, int]
    maps: dict[str, int]
    control: int
    data: int
    cached: bool


def load(
    tier: str,
    control_bytes: int,
    data_bytes: int,
    cache: Path | None = None,
    *,
    goes_on: Callable[[], None] = lambda: None,
) -> Loaded:
    """Compile and load all programs of a tier.

    Args:
        tier: `modern`, `classic`, or `auto` for the best that this kernel can do.
        control_bytes: size of the ring for lifecycle events, a power of two, at least a page.
        data_bytes: size of the ring for payload, likewise.
        cache: a directory for what was compiled, made if it is missing; None to compile always.
        goes_on: is called again and again while it gets on.

    Raises:
        ProbeError: one of its subclasses; nothing stays loaded.
    """
    ours, theirs = socket.socketpair()
    request = json.dumps({"tier": tier, "control_bytes": control_bytes, "data_bytes": data_bytes, "cache": str(cache or "")})
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "capd.probes.loader", str(theirs.fileno()), request],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_child_environment(),
        )
        theirs.close()
        messages = wait_for(child, goes_on)
        manifest, descriptors = _receive(ours, messages)
    return _unpack(manifest, descriptors)


def wait_for(child: subprocess.Popen[bytes], goes_on: Callable[[], None]) -> bytes:
    """Wait for the end of a child for as long as it gets on, however slow the machine is.

    Args:
        child: whose standard error is a pipe.
        goes_on: is called after each second in which it had time of a processor.

    Returns:
        What it said on standard error.

    Raises:
        CompilerError: it got nothing done for too long, or took too much time of a processor; it is ended.
    """
    used, since = 0.0, time.monotonic()
    while used < CHILD_CPU_SECONDS_MAX and time.monotonic() - since < CHILD_IDLE_SECONDS_MAX:
        try:
            return child.communicate(timeout=LOOK_SECONDS)[1]
        except subprocess.TimeoutExpired:
            before, used = used, processor_seconds(child.pid)
        if used > before:
            since = time.monotonic()
            goes_on()
    child.kill()
    child.communicate()
    if used < CHILD_CPU_SECONDS_MAX:
        raise CompilerError(f"the probe compiler got nothing done for {CHILD_IDLE_SECONDS_MAX} s")
    raise CompilerError(f"compiling the probes took more than {CHILD_CPU_SECONDS_MAX} s of processor time")


def processor_seconds(pid: int) -> float:
    """Give the time of a processor that a child, which was not waited for yet, has had (utime and stime of proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _child_environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    paths = [path for path in sys.path if path]
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths or [root]), "BCC_KERNEL_SOURCE": str(BPF_FOLDER / "stub")}


def _receive(connection: socket.socket, messages: bytes) -> tuple[dict[str, Any], list[int]]:
    connection.settimeout(ANSWER_SECONDS_MAX)
    text, descriptors, _, _ = socket.recv_fds(connection, MANIFEST_BYTES_MAX, DESCRIPTORS_MAX)
    if not text:
        raise CompilerError(f"the probe compiler ended without an answer: {messages.decode(errors='replace').strip()[-2000:]}")
    manifest: dict[str, Any] = json.loads(text)
    if "error" in manifest:
        kinds = {kind.__name__: kind for kind in (CompilerError, KernelTooOldError, NotPermittedError, BtfMissingError)}
        raise kinds.get(manifest["error"], ProbeError)(manifest["message"])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return manifest, descriptors


def _unpack(manifest: Mapping[str, Any], descriptors: list[int]) -> Loaded:
    names = manifest["names"]
    table = dict(zip(names, descriptors, strict=True))
    return Loaded(
        tier=Tier(manifest["tier"]),
        features=manifest["features"],
        programs={name[2:]: number for name, number in table.items() if name.startswith("p:")},
        maps={name[2:]: number for name, number in table.items() if name.startswith("m:")},
        control=table["control"],
        data=table["data"],
        cached=manifest["cached"],
    )


def choose_tier(wanted: str, kernel: Kernel) -> Tier:
    """Decide which tier to load.

    Raises:
        KernelTooOldError: `modern` was asked for and the kernel lacks part of it.
    """
    if wanted == "auto":
        return Tier.MODERN if kernel.modern else Tier.CLASSIC
    tier = Tier(wanted)
    if tier is Tier.MODERN and not kernel.modern:
        missing = ", ".join(name for name, there in kernel.features.items() if not there)
        raise KernelTooOldError(f"the modern tier was asked for, but this kernel lacks {missing}")
    return tier


def source() -> str:
    """Give the whole C text."""
    return "#include <uapi/linux/ptrace.h>\n" + "".join((BPF_FOLDER / name).read_text() for name in BPF_SOURCES)


def patch_kfuncs(instructions: bytes, kfuncs: Mapping[int, int]) -> bytes:
    """Turn calls to placeholder numbers into kernel-function calls.

    Args:
        instructions: compiled program, 8 bytes each.
        kfuncs: placeholder number to BTF id.
    """
    code = bytearray(instructions)
    for offset in range(0, len(code), 8):
        operation, registers, _, immediate = struct.unpack_from("<BBhi", code, offset)
        if operation == CALL_KFUNC and immediate in kfuncs:
            struct.pack_into("<BBhi", code, offset, operation, PSEUDO_KFUNC_CALL << 4 | registers & 15, 0, kfuncs[immediate])
    return bytes(code)


def chunk_bytes(tier: Tier, data_bytes: int) -> int:
    """Give the payload limit of one record: a quarter of the ring at most, so that one record never needs an empty ring."""
    return CHUNK_BYTES_MAX[tier] if tier is Tier.CLASSIC else min(CHUNK_BYTES_MAX[tier], data_bytes // 4)


def _compiler_flags(tier: Tier, kernel: Kernel, data_bytes: int) -> list[str]:
    """Give what the programs must be told, but for descriptors."""
    return [
        *kernel.flags(),
        f"-DMODERN={int(tier is Tier.MODERN)}",
        f"-DCHUNK_BYTES_MAX={chunk_bytes(tier, data_bytes)}",
        f"-DEMIT_STEPS_MAX={EMIT_STEPS_MAX[tier]}",
        f"-DTLS_CALL_BYTES={TLS_CALL_BYTES}",
    ]


def _compile(tier: Tier, flags: list[str], given: Mapping[str, int]) -> Compiled:
    """Compile all programs of a tier.

    Args:
        tier: which.
        flags: what they are told.
        given: descriptors of maps that are there, which the programs know by number.
    """
    try:
        from bcc import BPF  # noqa: PLC0415 - only the child may carry a compiler
        from bcc.libbcc import lib  # noqa: PLC0415 - only the child may carry a compiler
    except ImportError as error:
        raise CompilerError("BCC's Python package is missing") from error
    numbers = [f"-D{name.upper()}_FD={descriptor}" for name, descriptor in given.items()]
    try:
        module = BPF(text=source(), cflags=[*flags, *numbers])
    except Exception as error:  # BCC raises it bare
        raise CompilerError(f"BCC could not compile the probes: {error}") from error
    programs: dict[str, bytes] = {}
    for spec in PROGRAMS[tier]:
        start = lib.bpf_function_start(module.module, spec.name.encode())
        if not start:
            raise CompilerError(f"the compiled probes hold no program {spec.name}")
        programs[spec.name] = ctypes.string_at(start, lib.bpf_function_size(module.module, spec.name.encode()))
    made = _tables(lib, module)
    shapes = {name: bpf_call.shape_of(descriptor) for name, descriptor in made.items()}
    return compiled.unlinked(programs, {**given, **made}, shapes)


def _tables(lib: Any, module: Any) -> dict[str, int]:  # noqa: ANN401 - BCC has no types
    """Give the descriptors of the maps that BCC made, by name. Its Python does not say what these functions take."""
    count, name, descriptor = lib.bpf_num_tables, lib.bpf_table_name, lib.bpf_table_fd_id
    count.argtypes, count.restype = [ctypes.c_void_p], ctypes.c_size_t
    for function, result in ((name, ctypes.c_char_p), (descriptor, ctypes.c_int)):
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t], result
    return {name(module.module, at).decode(): descriptor(module.module, at) for at in range(count(module.module))}


def _load_program(spec: ProgramSpec, instructions: bytes, kernel: Kernel) -> int:
    code = patch_kfuncs(instructions, kernel.kfuncs)
    btf_id = kernel.tracepoints[spec.points[0]] if spec.kind == bpf_call.PROG_TYPE_TRACING else 0
    try:
        return bpf_call.load(bpf_call.Program(spec.name, code, spec.kind, spec.attach_type, btf_id))
    except bpf_call.VerifierError as error:
        if error.errno == 1:  # EPERM
            raise NotPermittedError(f"the kernel does not let this user load BPF programs ({error})") from error
        tail = "\n".join(error.log.strip().splitlines()[-5:])
        raise KernelTooOldError(f"the kernel refused {error}\n{tail}") from error


def _load_all(tier: Tier, kernel: Kernel, programs: Compiled, given: Mapping[str, int]) -> dict[str, int]:
    """Make the maps and load the programs: descriptors by the names that the parent knows them by."""
    maps = {**given, **{name: bpf_call.create_map(shape) for name, shape in programs.maps.items()}}
    table = {f"p:{spec.name}": _load_program(spec, programs.linked(spec.name, maps), kernel) for spec in PROGRAMS[tier]}
    for array, program in TAIL_CALLS[tier].items():
        bpf_call.Map(maps[array], 4, 4).put(bytes(4), table[f"p:{program}"].to_bytes(4, "little"))
    return table | {f"m:{name}": maps[name] for name in (*MAPS, *TAIL_CALLS[tier])}


def _given(tier: Tier, request: Mapping[str, Any]) -> dict[str, int]:
    """Make the maps that BCC cannot make."""
    try:
        given = {
            name: bpf_call.create_ring(request[f"{name.removesuffix('_ring')}_bytes"]) for name in ("control_ring", "data_ring")
        }
    except PermissionError as error:
        raise NotPermittedError("the kernel does not let this user create BPF maps") from error
    except OSError as error:
        raise KernelTooOldError(f"the kernel refused a ring of {request['data_bytes']} bytes: {error.strerror}") from error
    if tier is Tier.MODERN:
        given["thread_storage"] = bpf_call.create_task_storage(TLS_CALL_BYTES)
    return given


def _build(request: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
    kernel = inspect(btf.load())
    tier = choose_tier(request["tier"], kernel)
    given = _given(tier, request)
    flags = _compiler_flags(tier, kernel, request["data_bytes"])
    folder = Path(request["cache"]) if request.get("cache") else None
    name = compiled.key([source(), *flags, *os.uname()])
    table: dict[str, int] | None = None
    found = compiled.kept(folder, name) if folder else None
    if found is not None:
        # What was kept and cannot be used after all is as good as not kept.
        with contextlib.suppress(compiled.DamagedError, KernelTooOldError, KeyError, OSError):
            table = _load_all(tier, kernel, found, given)
    cached = table is not None
    if table is None:
        fresh = _compile(tier, flags, given)
        table = _load_all(tier, kernel, fresh, given)
        if folder:
            compiled.keep(folder, name, fresh, files_max=KEPT_MAX)
    table = {"control": given["control_ring"], "data": given["data_ring"], **table}
    manifest = {"tier": tier.value, "features": kernel.features, "cached": cached, "names": list(table)}
    return manifest, list(table.values())


def main() -> None:
    """Do the child's work: answer on the socket whose number is the first argument."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        manifest, descriptors = _build(json.loads(sys.argv[2]))
    except ProbeError as error:
        manifest, descriptors = {"error": type(error).__name__, "message": str(error)}, []
    socket.send_fds(connection, [json.dumps(manifest).encode()], descriptors)


if __name__ == "__main__":
    main()
