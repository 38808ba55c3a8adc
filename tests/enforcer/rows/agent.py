"""An agent in a process of its own, within a run: says what a file tells it to, and leaves all that it heard in another.

    python -m tests.enforcer.rows.agent postgresql SAID HEARD

What lives here: that. What must not: statements, what is expected.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from tests.enforcer.rows.mysql_client import MysqlClient
from tests.enforcer.rows.postgresql_client import ROWS_STATUS, Client


def main(kind: str, said: Path, heard: Path) -> None:
    """Say it.

    Args:
        kind: `postgresql` or `mysql`.
        said: JSON: `words` to connect with, `statements` with their ways.
        heard: for all bytes that came; what became of how many statements is printed.
    """
    told = json.loads(said.read_bytes())
    counts: Counter[str] = Counter()
    client = Client(told["words"]) if kind == "postgresql" else MysqlClient(told["words"])
    with heard.open("wb") as kept:
        for text, way in told["statements"]:
            got = client.run(text, way)
            kept.writelines([*got.said, b"\n"])
            failed = got.failed if not hasattr(got, "status") else got.status not in ROWS_STATUS
            counts["refused" if failed else "shown"] += 1
    client.close()
    print(json.dumps(counts))  # noqa: T201 - for the test


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
