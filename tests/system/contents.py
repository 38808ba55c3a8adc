"""What is in a Debian package: its files by name, for comparing two.

What lives here: reading it. What must not: judging.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

Entry = tuple[int, int, int, int, str, bytes]
"""Mode, owner, group, time, where a link leads, content."""


def contents(package: Path) -> dict[str, Entry]:
    """Give all files, directories and links."""
    packed = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], capture_output=True, check=True).stdout
    found: dict[str, Entry] = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            content = b"" if file is None else file.read()
            found[member.name] = (member.mode, member.uid, member.gid, int(member.mtime), member.linkname, content)
    return found
