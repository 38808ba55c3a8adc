"""What the BPF programs must be told of the running kernel: struct offsets and which features it has.

What lives here: the list of members and its -D flags, and feature probing by trying. What must not: compiling, attaching.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from capd.probes.btf import Btf
from capd.probes.errors import KernelTooOldError

REQUIRED: Final = {
    "OFFSET_TASK_FILES": "task_struct.files",
    "OFFSET_TASK_STACK": "task_struct.stack",
    "OFFSET_TASK_TGID": "task_struct.tgid",
    "OFFSET_TASK_SIGNAL": "task_struct.signal",
    "OFFSET_TASK_EXIT_CODE": "task_struct.exit_code",
    "OFFSET_TASK_LEADER": "task_struct.group_leader",
    "OFFSET_TASK_START": "task_struct.start_boottime",
    "OFFSET_TASK_CGROUPS": "task_struct.cgroups",
    "OFFSET_TASK_MM": "task_struct.mm",
    "OFFSET_TASK_CRED": "task_struct.real_cred",
    "OFFSET_SIGNAL_LIVE": "signal_struct.live",
    "OFFSET_CRED_UID": "cred.uid",
    "OFFSET_CRED_GID": "cred.gid",
    "OFFSET_MM_ARG_START": "mm_struct.arg_start",
    "OFFSET_MM_ARG_END": "mm_struct.arg_end",
    "OFFSET_MM_EXE": "mm_struct.exe_file",
    "OFFSET_BINPRM_FILENAME": "linux_binprm.filename",
    "OFFSET_CSS_SET_CGROUP": "css_set.dfl_cgrp",
    "OFFSET_CGROUP_KN": "cgroup.kn",
    "OFFSET_CGROUP_LEVEL": "cgroup.level",
    "OFFSET_CGROUP_ROOT": "cgroup.root",
    "OFFSET_CGROUP_ROOT_HIERARCHY": "cgroup_root.hierarchy_id",
    "OFFSET_KERNFS_ID": "kernfs_node.id",
    "OFFSET_FILES_FDT": "files_struct.fdt",
    "OFFSET_FDT_MAX": "fdtable.max_fds",
    "OFFSET_FDT_FD": "fdtable.fd",
    "OFFSET_FILE_INODE": "file.f_inode",
    "OFFSET_FILE_PRIVATE": "file.private_data",
    "OFFSET_INODE_MODE": "inode.i_mode",
    "OFFSET_INODE_NUMBER": "inode.i_ino",
    "OFFSET_INODE_SB": "inode.i_sb",
    "OFFSET_SB_DEVICE": "super_block.s_dev",
    "OFFSET_SOCKET_SK": "socket.sk",
    "OFFSET_SOCKET_FILE": "socket.file",
    "OFFSET_SOCKET_INODE": "socket_alloc.vfs_inode",
    "OFFSET_SK_SOCKET": "sock.sk_socket",
    "OFFSET_SK_TYPE": "sock.sk_type",
    "OFFSET_SK_PROTOCOL": "sock.sk_protocol",
    "OFFSET_SK_SHUTDOWN": "sock.sk_shutdown",
    "OFFSET_SK_PEEK": "sock.sk_peek_off",
    "OFFSET_SK_FAMILY": "sock.__sk_common.skc_family",
    "OFFSET_SK_COOKIE": "sock.__sk_common.skc_cookie",
    "OFFSET_SK_NET": "sock.__sk_common.skc_net",
    "OFFSET_SK_NUM": "sock.__sk_common.skc_num",
    "OFFSET_SK_DPORT": "sock.__sk_common.skc_dport",
    "OFFSET_SK_DADDR": "sock.__sk_common.skc_daddr",
    "OFFSET_SK_RCV_SADDR": "sock.__sk_common.skc_rcv_saddr",
    "OFFSET_SK_V6_DADDR": "sock.__sk_common.skc_v6_daddr",
    "OFFSET_SK_V6_RCV_SADDR": "sock.__sk_common.skc_v6_rcv_saddr",
    "OFFSET_NET_INUM": "net.ns.inum",
    "OFFSET_TCP_WRITE_SEQ": "tcp_sock.write_seq",
    "OFFSET_TCP_COPIED_SEQ": "tcp_sock.copied_seq",
    "OFFSET_TCP_BYTES_ACKED": "tcp_sock.bytes_acked",
    "OFFSET_TCP_BYTES_RECEIVED": "tcp_sock.bytes_received",
    "OFFSET_TCP_SND_UNA": "tcp_sock.snd_una",
    "OFFSET_TCP_RCV_NXT": "tcp_sock.rcv_nxt",
    "OFFSET_UNIX_ADDR": "unix_sock.addr",
    "OFFSET_UNIX_PEER": "unix_sock.peer",
    "OFFSET_UNIX_NAME_BYTES": "unix_address.len",
    "OFFSET_UNIX_NAME": "unix_address.name",
}

ALTERNATIVES: Final = (
    # Pointers since Linux 6.0, ids before.
    {"OFFSET_CGROUP_ANCESTORS": "cgroup.ancestors", "OFFSET_CGROUP_ANCESTOR_IDS": "cgroup.ancestor_ids"},
    # A file_ref_t, which is 0 for one reference, since Linux 6.13.
    {"OFFSET_FILE_REF": "file.f_ref", "OFFSET_FILE_COUNT": "file.f_count"},
)
"""Of each group the first that this kernel has."""

OPTIONAL: Final = {
    "OFFSET_MM_XOL": "mm_struct.uprobes_state.xol_area",
    "OFFSET_XOL_ADDRESS": "xol_area.vaddr",
}
"""What a kernel may have been built without."""

KFUNCS: Final = {
    "KFUNC_READ_USER_DYNPTR": "bpf_probe_read_user_dynptr",
    "KFUNC_SESSION_IS_RETURN": "bpf_session_is_return",
    "KFUNC_ITER_NEW": "bpf_iter_num_new",
    "KFUNC_ITER_NEXT": "bpf_iter_num_next",
    "KFUNC_ITER_DESTROY": "bpf_iter_num_destroy",
}
"""Kernel functions of the modern tier.

BCC cannot call them; it compiles calls to the numbers below, and the loader puts in the BTF ids.
"""
KFUNC_PLACEHOLDER: Final = 0x7FFF0001

MODERN_TRACEPOINTS: Final = ("sock_send_length", "sock_recv_length", "inet_sock_set_state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What one kernel offers.

    Attributes:
        offsets: -D flag name to byte offset.
        kfuncs: placeholder number in a compiled call to BTF id.
        tracepoints: tracepoint name to the BTF id of its typedef, for programs that get typed arguments.
        features: each feature of the modern tier and whether it is there.
        task_registers: whether programs may ask for a task's registers (Linux 5.15).
    """

    offsets: dict[str, int]
    kfuncs: dict[int, int]
    tracepoints: dict[str, int]
    features: dict[str, bool]
    task_registers: bool

    @property
    def modern(self) -> bool:
        """Tell whether all of the modern tier's features are there."""
        return all(self.features.values())

    def flags(self) -> list[str]:
        """Give the compiler's -D flags."""
        placeholders = {name: KFUNC_PLACEHOLDER + index for index, name in enumerate(KFUNCS)}
        helper = {"HAVE_TASK_PT_REGS": int(self.task_registers)}
        return [f"-D{name}={value}" for name, value in {**self.offsets, **placeholders, **helper}.items()]


def inspect(btf: Btf) -> Kernel:
    """Find everything in the kernel's types.

    Raises:
        KernelTooOldError: a struct member that both tiers need does not exist.
    """
    offsets = {flag: btf.offset(path) for flag, path in REQUIRED.items()}
    missing = [path for flag, path in REQUIRED.items() if offsets[flag] is None]
    found = {flag: offset for flag, offset in offsets.items() if offset is not None}
    for group in ALTERNATIVES:
        chosen = next(((flag, btf.offset(path)) for flag, path in group.items() if btf.offset(path) is not None), None)
        if chosen is None or chosen[1] is None:
            missing.append(" or ".join(group.values()))
        else:
            found[chosen[0]] = chosen[1]
    found |= {flag: offset for flag, path in OPTIONAL.items() if (offset := btf.offset(path)) is not None}
    if missing:
        raise KernelTooOldError(f"this kernel's types lack {', '.join(missing)}")
    ids = {index: btf.function(name) for index, name in enumerate(KFUNCS.values())}
    tracepoints = {name: btf.typedef(f"btf_trace_{name}") for name in MODERN_TRACEPOINTS}
    features = {name: ids[index] is not None for index, name in enumerate(KFUNCS.values())}
    features |= {f"tracepoint {name}": number is not None for name, number in tracepoints.items()}
    return Kernel(
        offsets=found,
        kfuncs={KFUNC_PLACEHOLDER + index: number for index, number in ids.items() if number is not None},
        tracepoints={name: number for name, number in tracepoints.items() if number is not None},
        features=features,
        task_registers=btf.function("bpf_task_pt_regs") is not None,
    )
