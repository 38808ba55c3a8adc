"""What the services of tests have: repositories, a Python package, an npm package, blobs.

What lives here: making the files. What must not: serving them (services.py).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import subprocess
import tarfile
import zipfile
from pathlib import Path

BLOB_BYTES = 3 << 20
"""More than Git sends with a length (http.postBuffer): the push of it is chunked."""
WHEEL = "acme_shop-1.0.0-py3-none-any.whl"
TARBALL = "/npm/@acme/shop/-/shop-1.0.0.tgz"
WORD = "from the shop"


def make(folder: Path, base: str) -> None:
    """Make everything below a folder that is there.

    Args:
        folder: that is served.
        base: URL of the server, for documents that name others.
    """
    blob = random.Random(7).randbytes(BLOB_BYTES)
    (folder / "open").mkdir()
    (folder / "open" / "blob").write_bytes(blob)
    (folder / "secret").write_bytes(b"a secret")
    for name in ("open", "kept", "closed"):
        _repository(folder / "git" / f"{name}.git", blob)
    _python(folder)
    _npm(folder, base)


def _repository(path: Path, blob: bytes) -> None:
    _git("init", "-q", "--bare", "--initial-branch=main", path)
    _git("-C", path, "config", "http.receivepack", "true")
    digest = _git("-C", path, "hash-object", "-w", "--stdin", data=blob)
    tree = _git("-C", path, "mktree", data=b"100644 blob %b\tblob\n" % digest)
    commit = _git("-C", path, "-c", "user.name=t", "-c", "user.email=t@t.test", "commit-tree", "-m", "first", tree.decode())
    _git("-C", path, "update-ref", "refs/heads/main", commit.decode())


def _git(*words: str | Path, data: bytes = b"") -> bytes:
    return subprocess.run(["git", *map(str, words)], input=data, capture_output=True, check=True).stdout.strip()


def _python(folder: Path) -> None:
    files = folder / "files"
    files.mkdir()
    content = {
        "acme_shop.py": f"WORD = {WORD!r}\n",
        "acme_shop-1.0.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme-shop\nVersion: 1.0.0\n",
        "acme_shop-1.0.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},{_record(text)},{len(text)}\n" for name, text in content.items())
    content["acme_shop-1.0.0.dist-info/RECORD"] = record + "acme_shop-1.0.0.dist-info/RECORD,,\n"
    with zipfile.ZipFile(files / WHEEL, "w") as wheel:
        for name, text in content.items():
            wheel.writestr(name, text)
    digest = hashlib.sha256((files / WHEEL).read_bytes()).hexdigest()
    for name in ("acme-shop", "acme-evil"):
        (folder / "simple" / name).mkdir(parents=True)
        page = f'<!DOCTYPE html><a href="/files/{WHEEL}#sha256={digest}">{WHEEL}</a>\n'
        (folder / "simple" / name / "index.html").write_text(page, encoding="ascii")


def _record(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def _npm(folder: Path, base: str) -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as tar:
        for name, text in {
            "package/package.json": json.dumps({"name": "@acme/shop", "version": "1.0.0", "main": "index.js"}),
            "package/index.js": f"module.exports = {json.dumps(WORD)};\n",
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    content = held.getvalue()
    path = folder / TARBALL.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    version = {"name": "@acme/shop", "version": "1.0.0", "dist": {"tarball": f"{base}{TARBALL}", "integrity": integrity}}
    document = {"name": "@acme/shop", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    # A client asks for `@acme%2fshop`, which this server decodes, so that it is below `@acme`, where the tarballs are too.
    (path.parent.parent / "index.html").write_text(json.dumps(document), encoding="ascii")
