"""What can go wrong with the kernel side, in words for the operator.

What lives here: the error classes of `probes`. What must not: anything else. `exit_status` and `hint` are read by the command
line.
"""

from __future__ import annotations

from typing import ClassVar


class ProbeError(Exception):
    """Capture cannot start or go on."""

    exit_status: ClassVar[int] = 4
    hint: ClassVar[str] = "run 'capd doctor' to see what this host lacks"


class NotPermittedError(ProbeError):
    """The process may not load BPF programs."""

    exit_status = 3
    hint = "run as root: 'sudo capd up'"


class BtfMissingError(ProbeError):
    """The kernel gives no type information."""

    hint = "capd needs a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian 11 and later, RHEL 8.2 and later)"


class KernelTooOldError(ProbeError):
    """The kernel lacks what even the classic tier needs."""

    hint = "capd needs Linux 5.8 or later; 6.16 or later for the modern tier"


class MapLayoutError(ProbeError):
    """A map's keys or values have another size than what they are read into, which the kernel would write past."""

    hint = "this is a defect of capd: report it with the message above, and go back to the version before"


class CompilerError(ProbeError):
    """BCC is missing or could not compile or load the programs."""

    hint = "install the distribution's python3-bpfcc; the message above is the compiler's"


class TracingMissingError(ProbeError):
    """tracefs is not mounted, so tracepoints have no numbers."""

    hint = "mount -t tracefs tracefs /sys/kernel/tracing"


class AttachError(ProbeError):
    """The kernel refused to attach a loaded program."""

    hint = "run 'capd doctor'; a kernel lockdown or another security module may forbid it"
