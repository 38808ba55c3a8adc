"""docs/fleet.md: its queries, run as they stand there, by the engines they are for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

import pytest

from capd.recording.journal import Position
from capd.recording.record import Kind, Record, Value
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import sealed_path
from capd.recording.segment.writer import SegmentWriter
from tests.requirements import require, require_command

pytest.importorskip("pyarrow", reason="the fleet extra is not installed")
duckdb = pytest.importorskip("duckdb", reason="the fleet extra is not installed")

from capd.recording.catalogue.layout import Part, day_of  # noqa: E402 - after the look at what is installed
from capd.recording.catalogue.rows import Gathering  # noqa: E402 - as above
from capd.recording.catalogue.schema import pack  # noqa: E402 - as above

START_NS = 1_763_700_000_000_000_000
HOSTS = [UUID(int=number) for number in (1, 2, 3)]
TEXT = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text(encoding="utf-8")
Conversation = Callable[..., list[Record]]

SPARK = """
import json, sys
from pyspark.sql import SparkSession
spark = (SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").config("spark.driver.host", "127.0.0.1")
         .config("spark.driver.bindAddress", "127.0.0.1").config("spark.sql.session.timeZone", "UTC")
         .config("spark.sql.shuffle.partitions", "1").config("spark.log.level", "ERROR").getOrCreate())
answers = []
for statement in json.load(sys.stdin):
    answer = spark.sql(statement)
    if not statement.lstrip().startswith("CREATE"):
        answers.append([list(row) for row in answer.collect()])
print("ANSWERS " + json.dumps(answers))
spark.stop()
"""


def statements(engine: str, bucket: Path) -> list[str]:
    """Give the SQL below a heading, each statement alone."""
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (chosen,) = [text for text in section if text.startswith(engine)]
    blocks = re.findall(r"```sql\n(.*?)```", chosen, flags=re.DOTALL)
    return [text.strip() for block in blocks for text in block.replace("BUCKET", str(bucket)).split(";") if text.strip()]


@pytest.fixture
def bucket(tmp_path: Path, conversation: Conversation) -> Path:
    """Give a directory with the catalogue of three hosts; the last conversation of each is cut by a segment's end."""
    for number, host in enumerate(HOSTS):
        directory = tmp_path / str(host)
        writer = SegmentWriter(directory, host=host, clock=lambda: START_NS)
        whole, cut = conversation(2 * number, 2), conversation(2 * number + 1, 2)
        for records in ([*whole, *cut[:4], naming(cut[3])], cut[4:]):
            writer.append(records)
            writer.flush(Position(1, 0))
            writer.seal({})
        writer.close()
        for sequence in (1, 2):
            put(tmp_path / "bucket", directory, sequence)
    return tmp_path / "bucket"


def naming(record: Record) -> Record:
    """Give a message that names a table."""
    body: dict[str, Value] = {"protocol": "http1", "type": "request", "ordinal": 90, "summary": "SELECT * FROM Customers"}
    return Record(Kind.MESSAGE, record.session, record.time_ns, record.direction, body)


def put(bucket: Path, directory: Path, sequence: int) -> None:
    """Put the catalogue files of one segment there."""
    gathering = Gathering()
    with SegmentReader(sealed_path(directory, sequence)) as reader:
        assert reader.footer is not None
        header = reader.footer.header
        gathering.receive(reader.footer, reader.file_bytes, reader.records())
    for table, rows in gathering.tables().items():
        path = bucket / Part(table=table, day=day_of(header.created_ns), host=header.host, first=sequence).key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack(table, rows, first=sequence, last=sequence))


def duckdb_answers(bucket: Path) -> list[list[list[object]]]:
    """Run the statements with DuckDB and give what its questions answer."""
    connection = duckdb.connect()
    answers = []
    for statement in statements("DuckDB", bucket):
        rows = connection.execute(statement).fetchall()
        if not statement.startswith("CREATE"):
            answers.append([list(row) for row in rows])
    return answers


def test_duckdb_answers_for_the_fleet(bucket: Path) -> None:
    """Each session counts once though it is in two files, of all hosts, with its last verdict."""
    by_target, partial, naming_statements = duckdb_answers(bucket)
    assert by_target == [["ann", "api.example.org", 6, 6 * 80]]
    assert partial == []
    assert [row[0] for row in naming_statements] == [str(host) for host in HOSTS]


@pytest.mark.slow
def test_spark_gives_the_same_answers(bucket: Path, tmp_path: Path) -> None:
    """A local Spark session reads the same files as they are, and answers as DuckDB does."""
    require(find_spec("pyspark"), "needs pyspark; `make test` brings it")
    require_command("java")
    questions = statements("Spark", bucket)
    shared = [text for text in statements("DuckDB", bucket) if text.startswith("SELECT")][:2]
    asked = [*questions[:2], *shared, *questions[2:]]
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", SPARK],
        input=json.dumps(asked),
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    found = re.search(r"^ANSWERS (.*)$", done.stdout, flags=re.MULTILINE)
    assert found is not None, done.stderr[-3000:]
    assert json.loads(found[1]) == duckdb_answers(bucket)
