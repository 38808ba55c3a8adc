"""What capd-fleet installs, as a tree of files: what the catalogue of a bucket needs, beside capd's own libraries.

What lives here: which libraries, and what of them is left out. What must not: units (they are capd's), the form of a package.

They are found where capd's interpreter looks anyway: nothing tells it of them, so nothing of them is left when they are gone.
"""

from __future__ import annotations

from pathlib import Path

import tree
from layout import Layout

NAME = "capd-fleet"
PINNED = "requirements-fleet.txt"
LEFT_OUT = (
    "pyarrow/*flight*",  # a client and a server of a protocol of its own: gRPC, 33 MB
    "pyarrow/*s3*",  # another client of S3, 17 MB: what is in a bucket comes through capd's
    "pyarrow/libarrow_python*.so",  # the same file under three names; the one that is linked to stays
    "pyarrow/libarrow_python*.so.*.*.*",
    "pyarrow/_pyarrow_cpp_tests*",
    "pyarrow/tests",
    "pyarrow/conftest.py",
    "pyarrow/include",
    "pyarrow/includes",
    "pyarrow/src",
    "pyarrow/**/*.pxd",
    "pyarrow/*.pxi",
    "pyarrow/*.pyx",
    "_duckdb-stubs",
    "adbc_driver_duckdb",  # needs a library that nobody has here
    "fsspec/tests",
)
"""What capd never reaches: protocols, and what only compiling against a library or testing it needs."""


def lay_out(repository: Path, root: Path, layout: Layout, epoch: int) -> None:
    """Make the tree; arguments as those of capd's."""
    target = tree.libraries(root, layout)
    target.mkdir(parents=True)
    tree.bring(target, layout, repository / "packaging" / PINNED)
    if gone := [pattern for pattern in LEFT_OUT if not any(target.glob(pattern))]:
        raise SystemExit(f"look anew at what is to be left out, for it is not there: {', '.join(gone)}")
    tree.finish(target, layout, LEFT_OUT)
    for path, content in layout.papers(NAME, repository, target).items():
        tree.place(root, path).write_bytes(content)
    tree.settle(root, epoch)
