"""Where an instance keeps its files: all of it follows from two directories.

What lives here: the paths. What must not: pydantic or anything else that is slow to import, who owns what (state_directory.py).
"""

from __future__ import annotations

from pathlib import Path

from capd.daemon import locations


class InstancePaths:
    """The paths of an instance; who is one has the two directories."""

    state_dir: Path
    runtime_dir: Path

    @property
    def host_file(self) -> Path:
        """Text: the UUID of this host."""
        return self.state_dir / "host"

    @property
    def keys_dir(self) -> Path:
        """The host's signing key and its public keys; root writes, the recorder's group reads."""
        return self.state_dir / "keys"

    @property
    def journal_dir(self) -> Path:
        """Raw capture; root writes, the recorder's group reads."""
        return self.state_dir / "journal"

    @property
    def probes_dir(self) -> Path:
        """Give where root keeps the compiled probes, so that the next start need not compile."""
        return self.state_dir / "probes"

    @property
    def recorder_dir(self) -> Path:
        """The recorder's own: its position in the journal and its lock."""
        return self.state_dir / "recorder"

    @property
    def position_file(self) -> Path:
        """Up to where the journal is in sealed segments; written by the recorder, read by the daemon."""
        return self.recorder_dir / "position"

    @property
    def shipper_dir(self) -> Path:
        """The shipper's own: what it knows to be in the bucket, and its lock."""
        return self.state_dir / "shipper"

    @property
    def deletions_dir(self) -> Path:
        """Copies of this host's records of deletion."""
        return self.shipper_dir / "deletions"

    @property
    def segments_dir(self) -> Path:
        """The recording."""
        return self.state_dir / "segments"

    @property
    def index_dir(self) -> Path:
        """Where the index lies."""
        return self.state_dir / "index"

    @property
    def index_file(self) -> Path:
        """SQLite; can be rebuilt from the segments."""
        return self.index_dir / "capd.db"

    @property
    def quarantine_dir(self) -> Path:
        """What the recorder could not read."""
        return self.state_dir / "quarantine"

    @property
    def reserve_file(self) -> Path:
        """Room that is given up when there is no other."""
        return self.state_dir / "reserve"

    @property
    def storage_file(self) -> Path:
        """JSON: the state of storage, for the recorder."""
        return self.runtime_dir / "storage.json"

    @property
    def drained_file(self) -> Path:
        """JSON: up to when all that the probes told is in the journal, for the recorder."""
        return self.runtime_dir / "drained.json"

    @property
    def frozen_file(self) -> Path:
        """JSON: cgroups of runs that are stopped."""
        return self.runtime_dir / "frozen.json"

    @property
    def control_socket(self) -> Path:
        """Where the daemon listens."""
        return self.runtime_dir / locations.CONTROL_SOCKET

    @property
    def lock_file(self) -> Path:
        """Held by the daemon as long as it lives."""
        return self.runtime_dir / "daemon.lock"

    @property
    def state_lock_file(self) -> Path:
        """Held besides: two instances with one state directory would overwrite each other."""
        return self.state_dir / "daemon.lock"

    @property
    def pid_file(self) -> Path:
        """Text: the daemon's pid."""
        return self.runtime_dir / "daemon.pid"

    @property
    def recorder_runtime_dir(self) -> Path:
        """The recorder's own corner: it must not be able to put a socket where clients look for the daemon."""
        return self.runtime_dir / "recorder"

    @property
    def recorder_status_file(self) -> Path:
        """JSON, replaced by the recorder every second."""
        return self.recorder_runtime_dir / "recorder.status.json"

    @property
    def decisions_done_file(self) -> Path:
        """JSON: files of the decision log that the recorder has done with, for whoever wrote them."""
        return self.recorder_runtime_dir / "decisions.done.json"

    @property
    def shipper_runtime_dir(self) -> Path:
        """The shipper's own corner."""
        return self.runtime_dir / "shipper"

    @property
    def shipper_status_file(self) -> Path:
        """JSON, replaced by the shipper every second."""
        return self.shipper_runtime_dir / "shipper.status.json"

    @property
    def catalogue_status_file(self) -> Path:
        """JSON, replaced whenever the catalogue was extended."""
        return self.shipper_runtime_dir / "catalogue.status.json"

    @property
    def enforcer_dir(self) -> Path:
        """The enforcer's own: the key of the authority, and what it decided."""
        return self.state_dir / "enforcer"

    @property
    def decisions_dir(self) -> Path:
        """The decision log."""
        return self.enforcer_dir / "decisions"

    @property
    def trust_dir(self) -> Path:
        """What agents trust; everybody may read it, root alone write."""
        return self.state_dir / "trust"

    @property
    def approvals_dir(self) -> Path:
        """What waits for persons, and what they decided."""
        return self.enforcer_dir / "approvals"

    @property
    def callbacks_dir(self) -> Path:
        """What webhooks were told."""
        return self.enforcer_dir / "callbacks"

    @property
    def enforcer_runtime_dir(self) -> Path:
        """The enforcer's own corner."""
        return self.runtime_dir / locations.ENFORCER_RUNTIME

    @property
    def enforcer_status_file(self) -> Path:
        """JSON, replaced by the enforcer every second."""
        return self.enforcer_runtime_dir / "enforcer.status.json"

    @property
    def metrics_runtime_dir(self) -> Path:
        """The corner of the role that watches health."""
        return self.runtime_dir / "metrics"

    @property
    def metrics_status_file(self) -> Path:
        """JSON, replaced by that role every two seconds."""
        return self.metrics_runtime_dir / "metrics.status.json"

    @property
    def alerts_dir(self) -> Path:
        """One JSON file for each alert, for as long as it lasts."""
        return self.runtime_dir / "alerts"

    @property
    def runs_dir(self) -> Path:
        """One JSON file for each live run."""
        return self.runtime_dir / "runs"


class InstanceAt(InstancePaths):
    """An instance of which the two directories are known, and nothing else."""

    def __init__(self, *, state_dir: Path, runtime_dir: Path) -> None:
        self.state_dir, self.runtime_dir = state_dir, runtime_dir
