"""The shipper: the role that brings the recording off this host.

What lives here: its process: confinement, signals, the thread that works, its status. What must not: the work (shipping.py),
how a bucket is talked to (recording/bucket/).

It reads sealed segments, asks the bucket, and writes its own directory; it may remove segments, and nothing else of the
recording can it change. It holds nothing that it could not find again after `kill -9`. The thread that works may hang in a
request for as long as the network lets it; the other one writes the status and ends the process when it is told to.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Final
from uuid import UUID

from capd.daemon import recorder_user
from capd.daemon.companions import Companions
from capd.daemon.confinement import INTERNET, confine
from capd.daemon.deletion_copies import DeletionCopies
from capd.daemon.errors import SandboxError
from capd.daemon.expiry import Expiry
from capd.daemon.heartbeat import Heartbeat
from capd.daemon.landlock import KEEP_FILES, KEEP_TREE, REMOVE, restrict
from capd.daemon.lock import InstanceLock
from capd.daemon.needed import needed_from
from capd.daemon.retention import DAY_NS, Rule
from capd.daemon.shipper_local import Limits, Memory
from capd.daemon.shipper_pace import Backoff, DiskTrend, Throttle
from capd.daemon.shipper_status import describe
from capd.daemon.shipping import Progress, Shipping, failed, succeeded
from capd.daemon.state_directory import read_host
from capd.daemon.steady_clock import JUMPED, SteadyClock
from capd.daemon.version import VERSION
from capd.recording.bucket import Bucket, Kind, Options
from capd.recording.bucket.errors import BucketError
from capd.recording.bucket.signed import ObjectLock
from capd.recording.durable import replace_content
from capd.recording.errors import CapdError
from capd.recording.index import Index
from capd.recording.keys import HostKey

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

POLL_SECONDS: Final = 1.0
STATUS_SECONDS: Final = 1.0
LOCK_SECONDS: Final = 3600.0
"""How often the bucket is asked for its object lock."""
STOP_SECONDS_MAX: Final = 5.0
"""How long a request under way is waited for at the end; what it created is found by the next shipper."""
EXPIRY_SECONDS: Final = 3600.0
"""How often it is looked for what is over, and for holds."""


class Shipper:
    """One shipper at work for one configuration."""

    def __init__(self, configuration: Configuration, bucket: Bucket, *, host: UUID, confinement: str) -> None:
        """Prepare; nothing is asked of the bucket yet."""
        settings = configuration.shipper
        self._configuration, self._bucket, self._confinement = configuration, bucket, confinement
        self._stopping = threading.Event()
        self._memory = Memory(configuration.shipper_dir / "shipped.json", str(bucket), host)
        self._memory.load()
        self._backoff = Backoff(settings.retry_seconds_max, random.random)
        self._trend = DiskTrend()
        self._retry_at: float | None = None
        self._object_lock: ObjectLock | BucketError | None = None
        self._locked_at: float | None = None
        keys, heads = configuration.keys_dir, configuration.segments_dir
        companions = Companions(bucket, self._memory, host=host, keys=keys, heads=heads)
        self._shipping = Shipping(
            bucket=bucket,
            segments=configuration.segments_dir,
            memory=self._memory,
            companions=companions,
            limits=limits(configuration),
            hot_ns=self._hot_ns,
            needed=lambda: needed_from(configuration.recorder_dir),
            throttle=Throttle(settings.bytes_per_second),
            pause=self._pause,
        )
        self._rules = rules(configuration)
        self._expiry = Expiry(
            bucket=bucket,
            host=host,
            rules=self._rules,
            index=configuration.index_file,
            segments=configuration.segments_dir,
            signer=lambda: HostKey.load(keys),
            copies=DeletionCopies(bucket, host, configuration.deletions_dir),
            pause=lambda: self._pause(0),
        )
        self._expired_at: float | None = None
        self._expiry_error: str | None = None
        self._clock = SteadyClock()
        self._worker = threading.Thread(target=self._work, name="ship", daemon=True)

    @property
    def progress(self) -> Progress:
        """Where the work stands."""
        return self._shipping.progress

    def begin(self) -> None:
        """See what waits and say how it stands: who asks once the role is ready learns of no backlog that nobody looked for."""
        try:
            self._shipping.survey()
        except OSError as error:
            failed(self.progress, error, time.time())
        self._write_status("running")

    def run(self, beat: Callable[[], None] = lambda: None) -> None:
        """Work until `stop`; then wait a little for the request under way, and return.

        Args:
            beat: called in each round for as long as the thread that works lives; a request has limits of its own.
        """
        self._worker.start()
        while not self._stopping.wait(STATUS_SECONDS):
            if self._worker.is_alive():
                beat()
            self._write_status()
        self._worker.join(STOP_SECONDS_MAX)
        self._write_status("stopped")

    def stop(self) -> None:
        """Make `run` finish; may be called by a signal handler."""
        self._stopping.set()

    # -- the thread that works -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self._ask_lock()
                self._shipping.turn()
                self._expire()
            except (BucketError, OSError) as error:
                seconds = self._backoff.failed()
                self._retry_at = time.time() + seconds
                failed(self.progress, error, time.time())
                with suppress(OSError):
                    self._shipping.survey()
                self._wait(seconds)
            else:
                self._backoff.succeeded()
                succeeded(self.progress)
                self._retry_at = None
                self._pause(POLL_SECONDS)

    def _wait(self, seconds: float) -> None:
        """Wait to try again, and see meanwhile what more has come to wait."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self._pause(min(left, STATUS_SECONDS)):
            with suppress(OSError):
                self._shipping.survey()

    def _pause(self, seconds: float) -> bool:
        return not (self._stopping.wait(seconds) if seconds > 0 else self._stopping.is_set())

    def _ask_lock(self) -> None:
        """Ask now and then how the bucket protects its objects; that it cannot be asked stops nothing."""
        now = time.monotonic()
        if self._bucket.signed is None or (self._locked_at is not None and now - self._locked_at < LOCK_SECONDS):
            return
        try:
            self._object_lock = self._bucket.signed.object_lock()
        except BucketError as error:
            if error.transient:
                raise
            self._object_lock = error
        self._locked_at = now

    def _expire(self) -> None:
        """Let go of what is over, now and then; that something is missing for it stops nothing."""
        now = time.monotonic()
        if self._expired_at is not None and now - self._expired_at < EXPIRY_SECONDS:
            return
        if not self._clock.steady(now_ns := time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)):
            self._expiry_error = JUMPED
            return
        try:
            self._expiry.turn(now_ns)
            self._expiry_error = None
        except BucketError as error:
            if error.transient:
                raise
            self._expiry_error = str(error)
        except CapdError as error:
            self._expiry_error = str(error)
        self._expired_at = now

    def _hot_ns(self, sequence: int) -> int | None:
        if not self._rules:
            return None
        with suppress(CapdError), Index.open(self._configuration.index_file, readonly=True) as index:
            return self._expiry.hot_ns(index, sequence)
        return None

    # -- the status ------------------------------------------------------------------------------------------------------------

    def _write_status(self, state: str | None = None) -> None:
        found = os.statvfs(self._configuration.state_dir)
        self._trend.sample(time.monotonic(), found.f_bavail * found.f_frsize)
        status = describe(
            self.progress,
            bucket=self._bucket,
            memory=self._memory,
            trend=self._trend,
            reserve_bytes=self._configuration.journal.free_bytes_min,
            object_lock=self._object_lock,
            now=time.time(),
        )
        retry_at = self._retry_at  # read after the error, and written before it
        retry = None if retry_at is None else round(max(0.0, retry_at - time.time()), 1)
        state = state or ("running" if retry_at is None else "retrying")
        status |= {"state": state, "pid": os.getpid(), "version": VERSION, "time": time.time(), "retry_seconds": retry}
        status |= {"confinement": self._confinement}
        status["retention"] = {**asdict(self._expiry.expired), "error": self._expiry_error}
        with suppress(OSError):  # the status is late then, and `capd status` says so
            replace_content(
                self._configuration.shipper_status_file, json.dumps(status, indent=1).encode(), mode=0o644, sync=False
            )


def limits(configuration: Configuration) -> Limits:
    """Give how long local copies stay."""
    local = configuration.local
    age_ns = None if local.days is None else local.days * DAY_NS
    return Limits(age_ns_max=age_ns, bytes_max=local.bytes_max, free_bytes_min=local.free_bytes_min)


def rules(configuration: Configuration) -> list[Rule]:
    """Give how long recordings are kept."""
    return [
        Rule(
            name=item.name,
            principal=item.principal,
            target=item.target,
            label=item.label,
            hot_ns=None if item.hot_days is None else item.hot_days * DAY_NS,
            keep_ns=None if item.archive_days is None else ((item.hot_days or 0) + item.archive_days) * DAY_NS,
        )
        for item in configuration.retention
    ]


def open_bucket(configuration: Configuration, *, retries: int = 0) -> Bucket:
    """Give the configured bucket; nothing is asked of it yet.

    Args:
        configuration: has a `bucket_url`.
        retries: how often a request that only reads is repeated. The shipper repeats its turns instead.

    Raises:
        BucketError: the URL or the options cannot be used.
    """
    assert configuration.bucket_url is not None
    section = configuration.bucket
    options = Options(
        endpoint=section.endpoint,
        region=section.region,
        ca_file=section.ca_file,
        allow_http=section.allow_http,
        timeout_seconds=section.timeout_seconds,
        retries=retries,
    )
    return Bucket.open(configuration.bucket_url, options)


def run_shipper(configuration: Configuration) -> None:
    """Be the shipper until SIGTERM or SIGINT. The directories must have been prepared.

    Raises:
        CapdError: it cannot start; no segment is touched.
    """
    bucket = open_bucket(configuration)
    user = recorder_user.choose(configuration.recorder.user, configuration.segments_dir)
    confine(user.uid, user.gid, families=INTERNET, who="shipper")
    confinement = f"user {user.name}, system calls, {_restrict_files(configuration, bucket)}"
    os.umask(0o027)
    lock = InstanceLock(configuration.shipper_dir / "lock").acquire()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    host = read_host(configuration.host_file)
    while host is None and not stopped.wait(POLL_SECONDS):
        host = read_host(configuration.host_file)
    if host is not None:
        shipper = Shipper(configuration, bucket, host=host, confinement=confinement)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: shipper.stop())
        if stopped.is_set():
            shipper.stop()
        heart = Heartbeat(os.environ, os.getpid())
        shipper.begin()
        heart.ready(f"shipping to {bucket}; confined: {confinement}")
        shipper.run(heart.beat)
    lock.release()


def _restrict_files(configuration: Configuration, bucket: Bucket) -> str:
    """Give up writing but where it has to; say what was given up. Threads that exist already would not be held by it."""
    places = {
        configuration.shipper_dir: KEEP_FILES,
        configuration.shipper_runtime_dir: KEEP_FILES,
        configuration.segments_dir: REMOVE,
    }
    if bucket.location.kind is Kind.LOCAL:
        places[bucket.location.directory] = KEEP_TREE
    try:
        restrict(places)
    except SandboxError as error:
        return f"not files ({error})"
    return "files"
