"""The errand that brings a bucket's catalogue up to date with what was shipped, and ends.

What lives here: what it may do, and the status it leaves. What must not: the catalogue (recording/catalogue/), when it is run
(catalogue_status.py, supervision.py, a timer).

It is no role that stays: what writes Parquet takes a hundred megabytes of memory, for a second in a minute.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import date
from typing import TYPE_CHECKING, Final
from uuid import UUID

from capd.daemon import recorder_user
from capd.daemon.catalogue_status import read_status
from capd.daemon.confinement import INTERNET, confine
from capd.daemon.errors import NothingToCatalogueError, SandboxError
from capd.daemon.landlock import KEEP_FILES, KEEP_TREE, restrict
from capd.daemon.shipper import open_bucket
from capd.daemon.state_directory import read_host
from capd.recording.bucket import Bucket, Kind
from capd.recording.durable import replace_content
from capd.recording.errors import CapdError
from capd.recording.index import Index
from capd.recording.segment.layout import sealed_path

if TYPE_CHECKING:
    from capd.daemon.configuration import Configuration
    from capd.recording.catalogue.writing import Extent, FindRun, FindSession

RETRIES: Final = 3
"""How often a request that only reads is repeated; what still fails is tried again by the next errand."""


def run_cataloguer(configuration: Configuration) -> Extent:
    """Do the errand. The directories must have been prepared, and what it needs imported; root is given up first.

    Raises:
        NothingToCatalogueError: this host has not recorded anything yet.
        CapdError: the bucket fails; the next errand goes on where this one ended.
    """
    bucket = open_bucket(configuration, retries=RETRIES)
    user = recorder_user.choose(configuration.recorder.user, configuration.segments_dir)
    confine(user.uid, user.gid, families=INTERNET, who="cataloguer")
    _restrict_files(configuration, bucket)
    os.umask(0o027)
    host = read_host(configuration.host_file)
    if host is None:
        raise NothingToCatalogueError
    before = read_status(configuration.catalogue_status_file)
    try:
        extent = _extend(configuration, bucket, host, _whole(before))
    except CapdError as error:
        _write(configuration, {**before, "error": str(error), "hint": error.hint})
        raise
    _write(
        configuration,
        {"through": extent.through, "waiting": extent.waiting, "whole": extent.whole.isoformat(), "bucket": str(bucket)},
    )
    return extent


def _extend(configuration: Configuration, bucket: Bucket, host: UUID, since: date) -> Extent:
    from capd.recording.catalogue.writing import CatalogueWriter  # noqa: PLC0415 - needs the fleet extra

    with ExitStack() as held:
        find_session: FindSession = _unknown
        find_run: FindRun = _unknown
        with suppress(CapdError):  # without an index the rows say less of what began earlier
            index = held.enter_context(Index.open(configuration.index_file, readonly=True))
            find_session, find_run = index.find_session, index.find_run
        writer = CatalogueWriter(
            bucket,
            host,
            local=lambda sequence: sealed_path(configuration.segments_dir, sequence),
            find_session=find_session,
            find_run=find_run,
        )
        age_max_ns = configuration.catalogue.delay_seconds * 1_000_000_000
        return writer.extend(time.time_ns(), age_max_ns=age_max_ns, since=since)


def _unknown(_: UUID) -> None:
    return None


def _whole(status: Mapping[str, object]) -> date:
    """Give the day up to which the catalogue is known to be whole; a status that is gone costs a look at every day."""
    try:
        return date.fromisoformat(str(status["whole"]))
    except (KeyError, ValueError):
        return date.min


def _write(configuration: Configuration, status: Mapping[str, object]) -> None:
    content = json.dumps({**status, "time": time.time()}, indent=1).encode()
    with suppress(OSError):  # the next errand looks at more days then
        replace_content(configuration.catalogue_status_file, content, mode=0o644, sync=False)


def _restrict_files(configuration: Configuration, bucket: Bucket) -> None:
    places = {configuration.shipper_runtime_dir: KEEP_FILES}
    if bucket.location.kind is Kind.LOCAL:
        places[bucket.location.directory] = KEEP_TREE
    with suppress(SandboxError):  # `capd status` says of the shipper whether this kernel can
        restrict(places)
