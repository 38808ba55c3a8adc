"""Compiles and loads the BPF programs in a child process that hands back descriptors, so that no compiler stays in the daemon.

What lives here: the parent's call (`load`), and the child's work (`python -m capd.probes.loader`). What must not: attaching.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from capd.probes import bpf_call, btf
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
CHILD_SECONDS_MAX: Final = 60
"""A compile takes 1 to 3 s; a loaded one-core machine may need ten times that."""
MANIFEST_BYTES_MAX: Final = 1 << 16
DESCRIPTORS_MAX: Final = 253
"""What one SCM_RIGHTS message can carry (SCM_MAX_FD in the kernel)."""
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
    """

    tier: Tier
    features: dict[str, bool]
    programs: dict[str, int]
    maps: dict[str, int]
    control: int
    data: int


def load(tier: str, control_bytes: int, data_bytes: int) -> Loaded:
    """Compile and load all programs of a tier.

    Args:
        tier: `modern`, `classic`, or `auto` for the best that this kernel can do.
        control_bytes: size of the ring for lifecycle events, a power of two, at least a page.
        data_bytes: size of the ring for payload, likewise.

    Raises:
        ProbeError: one of its subclasses; nothing stays loaded.
    """
    ours, theirs = socket.socketpair()
    request = json.dumps({"tier": tier, "control_bytes": control_bytes, "data_bytes": data_bytes})
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "capd.probes.loader", str(theirs.fileno()), request],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_child_environment(),
        )
        theirs.close()
        try:
            _, messages = child.communicate(timeout=CHILD_SECONDS_MAX)
        except subprocess.TimeoutExpired as error:
            child.kill()
            child.communicate()
            raise CompilerError(f"compiling the probes took more than {CHILD_SECONDS_MAX} s") from error
        manifest, descriptors = _receive(ours, messages)
    return _unpack(manifest, descriptors)


def _child_environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    paths = [path for path in sys.path if path]
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths or [root]), "BCC_KERNEL_SOURCE": str(BPF_FOLDER / "stub")}


def _receive(connection: socket.socket, messages: bytes) -> tuple[dict[str, Any], list[int]]:
    connection.settimeout(CHILD_SECONDS_MAX)
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


def _compile(tier: Tier, kernel: Kernel, control: int, data: int, data_bytes: int) -> Any:  # noqa: ANN401 - BCC has no types
    try:
        from bcc import BPF  # noqa: PLC0415 - only the child may carry a compiler
    except ImportError as error:
        raise CompilerError("BCC's Python package is missing") from error
    flags = [
        *kernel.flags(),
        f"-DCONTROL_RING_FD={control}",
        f"-DDATA_RING_FD={data}",
        f"-DMODERN={int(tier is Tier.MODERN)}",
        f"-DCHUNK_BYTES_MAX={chunk_bytes(tier, data_bytes)}",
        f"-DEMIT_STEPS_MAX={EMIT_STEPS_MAX[tier]}",
        f"-DTLS_CALL_BYTES={TLS_CALL_BYTES}",
        *([f"-DTHREAD_STORAGE_FD={bpf_call.create_task_storage(TLS_CALL_BYTES)}"] if tier is Tier.MODERN else []),
    ]
    try:
        return BPF(text=source(), cflags=flags)
    except Exception as error:  # BCC raises it bare
        raise CompilerError(f"BCC could not compile the probes: {error}") from error


def _load_program(module: Any, spec: ProgramSpec, kernel: Kernel) -> int:  # noqa: ANN401 - BCC has no types
    from bcc.libbcc import lib  # noqa: PLC0415 - only the child may carry a compiler

    start = lib.bpf_function_start(module.module, spec.name.encode())
    size = lib.bpf_function_size(module.module, spec.name.encode())
    if not start:
        raise CompilerError(f"the compiled probes hold no program {spec.name}")
    code = patch_kfuncs(ctypes.string_at(start, size), kernel.kfuncs)
    btf_id = kernel.tracepoints[spec.points[0]] if spec.kind == bpf_call.PROG_TYPE_TRACING else 0
    try:
        return bpf_call.load(bpf_call.Program(spec.name, code, spec.kind, spec.attach_type, btf_id))
    except bpf_call.VerifierError as error:
        if error.errno == 1:  # EPERM
            raise NotPermittedError(f"the kernel does not let this user load BPF programs ({error})") from error
        tail = "\n".join(error.log.strip().splitlines()[-5:])
        raise KernelTooOldError(f"the kernel refused {error}\n{tail}") from error


def _build(request: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
    kernel = inspect(btf.load())
    tier = choose_tier(request["tier"], kernel)
    try:
        control = bpf_call.create_ring(request["control_bytes"])
        data = bpf_call.create_ring(request["data_bytes"])
    except PermissionError as error:
        raise NotPermittedError("the kernel does not let this user create BPF maps") from error
    except OSError as error:
        raise KernelTooOldError(f"the kernel refused a ring of {request['data_bytes']} bytes: {error.strerror}") from error
    module = _compile(tier, kernel, control, data, request["data_bytes"])
    table = {"control": control, "data": data}
    table |= {f"p:{spec.name}": _load_program(module, spec, kernel) for spec in PROGRAMS[tier]}
    for array, program in TAIL_CALLS[tier].items():
        bpf_call.Map(module[array].map_fd, 4, 4).put(bytes(4), table[f"p:{program}"].to_bytes(4, "little"))
        table[f"m:{array}"] = module[array].map_fd
    table |= {f"m:{name}": module[name].map_fd for name in MAPS}
    return {"tier": tier.value, "features": kernel.features, "names": list(table)}, list(table.values())


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
