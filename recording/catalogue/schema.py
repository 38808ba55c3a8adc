"""The catalogue's tables: names, columns and types, and the Parquet form of their rows.

What lives here: Arrow schemas and their version. What must not: how rows come about, places of files.

Types are those that DuckDB, Spark and Trino all read as they are: text for ids, microseconds for times, with the exact
nanoseconds in an integer beside them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from capd.recording.errors import CatalogueError
from capd.recording.record import Value

VERSION: Final = 1
ROW_GROUP_ROWS: Final = 65_536
"""Rows that a reader takes or leaves at once, by their statistics: some megabytes of messages."""
COMPRESSION_LEVEL: Final = 3
FIRST_KEY: Final = b"capd.first"
LAST_KEY: Final = b"capd.last"
VERSION_KEY: Final = b"capd.version"

Row = Mapping[str, Value]

_TIME: Final = pa.timestamp("us", tz="UTC")
_TEXTS: Final = pa.list_(pa.string())
_NUMBERS: Final = pa.list_(pa.int64())
_LABELS: Final = pa.map_(pa.string(), pa.string())


def _moment(name: str) -> dict[str, pa.DataType]:
    return {name: _TIME, f"{name}_ns": pa.int64()}


_WHO: Final[dict[str, pa.DataType]] = {
    "run": pa.string(),
    "run_name": pa.string(),
    "principal_kind": pa.string(),
    "principal": pa.string(),
    "principal_uid": pa.int64(),
    "principal_verified": pa.bool_(),
    "labels": _LABELS,
}
_TARGET: Final[dict[str, pa.DataType]] = {
    "protocol": pa.string(),
    "target_host": pa.string(),
    "target_port": pa.int32(),
    "target_name": pa.string(),
}

TABLES: Final[Mapping[str, pa.Schema]] = {
    name: pa.schema(list(columns.items()))
    for name, columns in {
        "segments": {
            "sequence": pa.int64(),
            **_moment("created"),
            **_moment("first"),
            **_moment("last"),
            "file_bytes": pa.int64(),
            "raw_bytes": pa.int64(),
            "records": pa.int64(),
            "recovered": pa.bool_(),
            "readable": pa.bool_(),
            "sessions": _TEXTS,
        },
        "runs": {
            **_WHO,
            "command": _TEXTS,
            "cwd": pa.string(),
            "cgroup": pa.string(),
            "adopted": pa.bool_(),
            **_moment("started"),
            **_moment("ended"),
            "lost_control_events": pa.int64(),
            "lost_streams": pa.int64(),
            "lost_bytes": pa.int64(),
            "expired": _NUMBERS,
        },
        "processes": {
            "run": pa.string(),
            "pid": pa.int64(),
            "start_ns": pa.int64(),
            "exe": pa.string(),
            "argv": _TEXTS,
            "uid": pa.int64(),
            **_moment("seen"),
            **_moment("ended"),
            "status": pa.int64(),
            "sequence": pa.int64(),
        },
        "sessions": {
            "session": pa.string(),
            **_WHO,
            **_TARGET,
            "transport": pa.string(),
            "role": pa.string(),
            "local_host": pa.string(),
            "local_port": pa.int32(),
            "pid": pa.int64(),
            "process_start_ns": pa.int64(),
            "exe": pa.string(),
            "argv": _TEXTS,
            "user": pa.string(),
            **_moment("started"),
            **_moment("last"),
            **_moment("ended"),
            "state": pa.string(),
            "bytes_request": pa.int64(),
            "bytes_response": pa.int64(),
            "messages": pa.int64(),
            "verdict": pa.string(),
            "reasons": _TEXTS,
            "policy": _TEXTS,
            "tie": pa.string(),
            "decision": pa.string(),
            "sequences": _NUMBERS,
            "expired": _NUMBERS,
        },
        "messages": {
            "session": pa.string(),
            "ordinal": pa.int64(),
            **_moment("time"),
            "direction": pa.string(),
            **_WHO,
            **_TARGET,
            "type": pa.string(),
            "exchange": pa.int64(),
            "summary": pa.string(),
            "text": pa.string(),
            "sequence": pa.int64(),
        },
        "verdicts": {
            "session": pa.string(),
            **_moment("time"),
            "direction": pa.string(),
            "kind": pa.string(),
            "body": pa.string(),
            "sequence": pa.int64(),
        },
        "gaps": {
            "session": pa.string(),
            **_moment("time"),
            "direction": pa.string(),
            "position": pa.int64(),
            "length": pa.int64(),
            "reason": pa.string(),
            "sequence": pa.int64(),
        },
    }.items()
}
"""Every table by its name. Host and day are not columns of the files: they are in the path, as partitions."""

DECIDER: Final = "segments"
"""The table whose files say which segments are in the catalogue; those of the others follow from them."""


def pack(table: str, rows: Sequence[Row], *, first: int, last: int) -> bytes:
    """Give the Parquet file of rows.

    Args:
        table: a name of `TABLES`.
        rows: one map for each row; columns that it lacks are null, names that end with `_ns` also fill their time.
        first: number of the first segment that the rows were made of.
        last: of the last one.
    """
    schema = TABLES[table]
    columns = [pa.array([_cell(row, field.name) for row in rows], field.type) for field in schema]
    return pack_table(pa.Table.from_arrays(columns, schema=schema), first=first, last=last)


def pack_table(table: pa.Table, *, first: int, last: int) -> bytes:
    """Give the Parquet file of a table; arguments as those of `pack`."""
    metadata = {FIRST_KEY: str(first), LAST_KEY: str(last), VERSION_KEY: str(VERSION)}
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=COMPRESSION_LEVEL,
    )
    return sink.getvalue()


def _cell(row: Row, name: str) -> object:
    if name in row:
        value = row[name]
        return list(value.items()) if isinstance(value, Mapping) else value
    nanoseconds = row.get(f"{name}_ns")
    return nanoseconds // 1_000 if isinstance(nanoseconds, int) else None


def read_range(content: bytes, key: str) -> tuple[int, int]:
    """Give the first and last segment of a file.

    Raises:
        CatalogueError: it is no file of a catalogue.
    """
    with _blamed(key):
        return range_of(pq.read_metadata(io.BytesIO(content)).metadata or {})


def read_table(content: bytes, key: str) -> pa.Table:
    """Read a file.

    Raises:
        CatalogueError: it is no file of a catalogue.
    """
    with _blamed(key):
        return pq.read_table(io.BytesIO(content))


@contextmanager
def _blamed(key: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, ValueError, OSError) as error:  # what is no Parquet at all is the last
        reason = str(error).partition("\n")[0]
        raise CatalogueError(f"{key} is damaged, or none of a catalogue ({reason})") from error


def range_of(metadata: Mapping[bytes, bytes]) -> tuple[int, int]:
    """Give the first and last segment of a file from its Parquet metadata.

    Raises:
        ValueError: it is no file of a catalogue, or of a later version.
    """
    try:
        version = int(metadata[VERSION_KEY])
        first, last = int(metadata[FIRST_KEY]), int(metadata[LAST_KEY])
    except KeyError as error:
        raise ValueError(f"it lacks {cast(bytes, error.args[0]).decode()}") from error
    if version > VERSION:
        raise ValueError(f"its version is {version}, this capd knows up to {VERSION}")
    return first, last
