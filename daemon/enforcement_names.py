"""What the parts of an instance's enforcement are called in the kernel, so that two instances never touch each other's.

What lives here: names that follow from the runtime directory. What must not: making any of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from capd.daemon import locations
from capd.daemon.cgroups import AGENTS_SLICE

TAG_BYTES: Final = 4
BPFFS: Final = Path("/sys/fs/bpf")
UNIT_CGROUP: Final = "/system.slice/capd-enforcer.service"


@dataclass(frozen=True, kw_only=True)
class EnforcementNames:
    """Names of one instance.

    Attributes:
        table: of nftables.
        parent: the slice (with systemd) or cgroup below which all runs are.
        enforcer: the enforcer's cgroup.
        pins: where the programs' links are.
    """

    table: str
    parent: str
    enforcer: str
    pins: Path


def names_of(runtime_dir: Path, *, systemd: bool, enforcer: str | None = None) -> EnforcementNames:
    """Give the names: plain ones for the installed instance, others with a hash of its directory.

    Args:
        runtime_dir: of the instance.
        systemd: whether slices are asked of systemd.
        enforcer: the cgroup of the enforcer, where one is configured.
    """
    installed = runtime_dir == locations.RUNTIME_DIRECTORY
    tag = "" if installed else blake2b(str(runtime_dir).encode(), digest_size=TAG_BYTES).hexdigest()
    dash = f"-{tag}" if tag else ""
    own = UNIT_CGROUP if systemd and installed else f"/capd-enforcer{dash}"
    return EnforcementNames(
        table=f"capd_{tag}" if tag else "capd",
        parent=_slice(tag) if systemd else f"/capd-agents{dash}",
        enforcer=own if enforcer is None else f"/{enforcer.strip('/')}",
        pins=BPFFS / (f"capd_{tag}" if tag else "capd"),
    )


def _slice(tag: str) -> str:
    """Name the slice; another instance's is none below the installed one's, which would take it for a run."""
    return f"capd_{tag}.slice" if tag else AGENTS_SLICE
