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
from capd.daemon.catalogue_status import expiry_due, read_status
from capd.daemon.confinement import INTERNET, confine
from capd.daemon.errors import NothingToCatalogueError, SandboxError
from capd.daemon.landlock import KEEP_FILES, KEEP_TREE, restrict
from capd.daemon.shipper import open_bucket
from capd.daemon.state_directory import read_host
from capd.recording.bucket import Bucket, Kind
from capd.recording.bucket.holds import read as read_holds
from capd.recording.durable import replace_content
from capd.recording.errors import CapdError
from capd.recording.index import Index
from capd.recording.segment.layout import sealed_path

if TYPE_CHECKING:
    from capd.daemon.configuration import Configuration
    from capd.recording.catalogue.writing import Extent, FindRun, FindSession

EXPIRY_FIELDS: Final = ("deletions", "locked", "held", "expiry_time")
TABLE_OF_DAYS: Final = "catalogue/segments/"
"""Folder whose folders are the days that the catalogue has."""
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
    settled = read_status(configuration.shipper_status_file).get("settled")  # before the bucket is asked: it may have more
    expiry: dict[str, object] = {name: before[name] for name in EXPIRY_FIELDS if name in before}
    try:
        extent = _extend(configuration, bucket, host, _whole(before))
        if expiry_due(before, time.time()):
            expiry = _expire(configuration, bucket, host, _number(before, "deletions"))
    except CapdError as error:
        _write(configuration, {**before, "error": str(error), "hint": error.hint})
        raise
    found = {"through": extent.through, "waiting": extent.waiting, "whole": extent.whole.isoformat(), "bucket": str(bucket)}
    _write(configuration, {**found, **expiry, "settled": settled})
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


def _expire(configuration: Configuration, bucket: Bucket, host: UUID, through: int) -> dict[str, object]:
    """Take out of the catalogue what went with the records of deletion after a number; give what to remember of that."""
    from capd.recording.catalogue.expiring import CatalogueExpiry  # noqa: PLC0415 - needs the fleet extra
    from capd.recording.catalogue.layout import days_in  # noqa: PLC0415 - as above

    try:
        index = Index.open(configuration.index_file, readonly=True)
    except CapdError:  # the recorder makes one; it is not known before what expired
        return {"deletions": through}
    with index:
        records = index.let_go()
        seen = max((record.id for record in records), default=0)
        through = through if through <= seen else 0  # another index, made anew
        new = [record for record in records if record.id > through]
        if not new:
            return {"deletions": through}
        now_ns = time.time_ns()
        expiry = CatalogueExpiry(
            bucket,
            host,
            expired=index.is_expired,
            remains=lambda identity: (index.find_session(identity) or index.find_run(identity)) is not None,
            holds=[hold for hold in read_holds(bucket) if hold.released is None],
            now_ns=now_ns,
        )
        spans = [(record.from_ns, record.until_ns) for record in new]
        done = expiry.turn(days_in(bucket.folders(TABLE_OF_DAYS), spans))
    unfinished = {"locked": done.locked, "held": done.held, "expiry_time": now_ns / 1e9}
    # What the bucket protects is tried again: its records count as new until then.
    return {"deletions": through, **unfinished} if done.locked or done.held else {"deletions": seen}


def _number(status: Mapping[str, object], name: str) -> int:
    found = status.get(name)
    return found if isinstance(found, int) else 0


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
