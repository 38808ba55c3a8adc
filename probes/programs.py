"""Which BPF programs a tier has, of what kind they are and where each attaches.

What lives here: tables. What must not: loading or attaching (loader, capture).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from capd.probes import bpf_call

BPF_SOURCES: Final = ("events.h", "kernel.h", "maps.h", "emit.h", "lineage.bpf.c", "sockets.bpf.c", "tls.bpf.c")
"""In the order in which they are joined: BCC rewrites map access in the main file only."""


class Tier(Enum):
    """Which of the two sets of programs is loaded."""

    MODERN = "modern"
    CLASSIC = "classic"


class Place(Enum):
    """What kind of place a program attaches to."""

    RAW_TRACEPOINT = "raw tracepoint"
    TYPED_TRACEPOINT = "typed tracepoint"
    TRACEPOINT = "tracepoint"
    CGROUP = "cgroup"
    LIBRARY = "library"


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """One program.

    Attributes:
        name: of its C function.
        place: kind of place.
        points: tracepoint names; none for libraries and cgroups, whose places are found at run time.
        attach_type: an ATTACH_* of `bpf_call`, or 0.
        optional: a kernel may have been built without the points.
    """

    name: str
    place: Place
    points: tuple[str, ...] = ()
    attach_type: int = 0
    optional: bool = False

    @property
    def kind(self) -> int:
        """Give the PROG_TYPE_* of `bpf_call`."""
        return _KINDS[self.place]


_KINDS: Final = {
    Place.RAW_TRACEPOINT: bpf_call.PROG_TYPE_RAW_TRACEPOINT,
    Place.TYPED_TRACEPOINT: bpf_call.PROG_TYPE_TRACING,
    Place.TRACEPOINT: bpf_call.PROG_TYPE_TRACEPOINT,
    Place.CGROUP: bpf_call.PROG_TYPE_CGROUP_SOCK_ADDR,
    Place.LIBRARY: bpf_call.PROG_TYPE_KPROBE,
}

_BOTH: Final = (
    ProgramSpec("on_fork", Place.RAW_TRACEPOINT, ("sched_process_fork",)),
    ProgramSpec("on_exec", Place.RAW_TRACEPOINT, ("sched_process_exec",)),
    ProgramSpec("on_exit", Place.RAW_TRACEPOINT, ("sched_process_exit",)),
    ProgramSpec("on_cgroup_attach", Place.RAW_TRACEPOINT, ("cgroup_attach_task",)),
    ProgramSpec("on_mmap", Place.TRACEPOINT, ("sys_enter_mmap",)),
    ProgramSpec("on_close", Place.TRACEPOINT, ("sys_enter_close",)),
    ProgramSpec("on_tcp_destroy", Place.RAW_TRACEPOINT, ("tcp_destroy_sock",)),
    ProgramSpec("on_socket", Place.TRACEPOINT, ("sys_exit_socket",)),
    ProgramSpec("on_socketpair", Place.TRACEPOINT, ("sys_exit_socketpair",)),
    ProgramSpec("on_accept", Place.TRACEPOINT, ("sys_exit_accept", "sys_exit_accept4")),
)

_MODERN: Final = (
    ProgramSpec("on_tcp_state", Place.TYPED_TRACEPOINT, ("inet_sock_set_state",), bpf_call.ATTACH_TRACE_RAW_TP),
    ProgramSpec("on_sock_send", Place.TYPED_TRACEPOINT, ("sock_send_length",), bpf_call.ATTACH_TRACE_RAW_TP),
    ProgramSpec("on_sock_recv", Place.TYPED_TRACEPOINT, ("sock_recv_length",), bpf_call.ATTACH_TRACE_RAW_TP),
    ProgramSpec("on_many_messages", Place.TRACEPOINT, ("sys_enter_sendmmsg", "sys_enter_recvmmsg")),
    ProgramSpec("on_splice", Place.TRACEPOINT, ("sys_exit_splice",)),
    ProgramSpec("on_recvmsg4", Place.CGROUP, (), bpf_call.ATTACH_UDP4_RECVMSG),
    ProgramSpec("on_recvmsg6", Place.CGROUP, (), bpf_call.ATTACH_UDP6_RECVMSG),
    ProgramSpec("on_tls_call", Place.LIBRARY, (), bpf_call.ATTACH_UPROBE_SESSION),
    ProgramSpec("on_tls_free", Place.LIBRARY, (), bpf_call.ATTACH_UPROBE_MULTI),
    ProgramSpec("on_bio_write", Place.LIBRARY, (), bpf_call.ATTACH_UPROBE_MULTI),
    ProgramSpec("on_bio_read", Place.LIBRARY, (), bpf_call.ATTACH_UPROBE_MULTI),
)

CLASSIC_CALLS: Final = (
    *("read", "write", "readv", "writev", "recvfrom", "sendto", "recvmsg", "sendmsg"),
    *("recvmmsg", "sendmmsg", "sendfile64", "splice", "preadv2", "pwritev2"),
)

_CLASSIC: Final = (
    ProgramSpec("on_tcp_state", Place.RAW_TRACEPOINT, ("inet_sock_set_state",)),
    ProgramSpec("on_call_enter", Place.TRACEPOINT, tuple(f"sys_enter_{name}" for name in CLASSIC_CALLS)),
    ProgramSpec("on_call_exit", Place.TRACEPOINT, tuple(f"sys_exit_{name}" for name in CLASSIC_CALLS)),
    ProgramSpec("on_message", Place.TRACEPOINT),
    ProgramSpec("on_uring_made", Place.TRACEPOINT, ("sys_exit_io_uring_setup",), optional=True),
    ProgramSpec("on_uring_entered", Place.TRACEPOINT, ("sys_enter_io_uring_enter",), optional=True),
    ProgramSpec("on_openssl_read", Place.LIBRARY),
    ProgramSpec("on_openssl_write", Place.LIBRARY),
    ProgramSpec("on_openssl_read_fourth", Place.LIBRARY),
    ProgramSpec("on_openssl_write_fourth", Place.LIBRARY),
    ProgramSpec("on_openssl_write_fifth", Place.LIBRARY),
    ProgramSpec("on_openssl_peek", Place.LIBRARY),
    ProgramSpec("on_openssl_peek_fourth", Place.LIBRARY),
    ProgramSpec("on_gnutls_read", Place.LIBRARY),
    ProgramSpec("on_gnutls_packet", Place.LIBRARY),
    ProgramSpec("on_gnutls_write", Place.LIBRARY),
    ProgramSpec("on_tls_return", Place.LIBRARY),
    ProgramSpec("on_tls_free", Place.LIBRARY),
    ProgramSpec("on_bio_write", Place.LIBRARY),
    ProgramSpec("on_bio_read", Place.LIBRARY),
)

PROGRAMS: Final = {Tier.MODERN: _BOTH + _MODERN, Tier.CLASSIC: _BOTH + _CLASSIC}

MAPS: Final = ("lineage", "selected_cgroups", "sockets", "tls_streams", "losses", "counters", "known_files")
"""Maps that user space reads or writes."""

TAIL_CALLS: Final[dict[Tier, dict[str, str]]] = {Tier.MODERN: {}, Tier.CLASSIC: {"next_message": "on_message"}}
"""Program array to the program that its only entry holds."""

CHUNK_BYTES_MAX: Final = {Tier.MODERN: 1 << 20, Tier.CLASSIC: 64 << 10}
"""Payload of one ring record. Modern: a larger one would need more room in one piece. Classic: slots have constant sizes."""
TLS_CALL_BYTES: Final = 96
"""Of `struct tls_call`, of which the modern tier keeps one in each thread's storage."""
EMIT_STEPS_MAX: Final = {Tier.MODERN: 2048, Tier.CLASSIC: 160}
"""Chunks and vector entries of one call. Modern: all 1,024 entries of a vector, or 2 GiB. Classic: 10 MiB, what the verifier
can follow."""
