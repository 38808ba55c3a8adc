"""Probes on TLS libraries: one set for each file, whatever it is called and whoever maps it.

What lives here: attaching planned sites to files, once each, and saying what was attached. What must not: finding files,
planning sites.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from capd.probes import bpf_call, elf, sites
from capd.probes.layouts import Library
from capd.probes.loader import Loaded
from capd.probes.programs import Tier
from capd.probes.sites import Purpose, Result, Site

ATTACHMENTS_MAX: Final = 512
"""Files with probes; a host with more different TLS libraries than this is reported, not followed."""

_CLASSIC_ENTRIES: Final = {
    (Library.OPENSSL, sites.RESPONSE, Result.RETURNED): "on_openssl_read",
    (Library.OPENSSL, sites.REQUEST, Result.RETURNED): "on_openssl_write",
    (Library.OPENSSL, sites.RESPONSE, Result.FOURTH): "on_openssl_read_fourth",
    (Library.OPENSSL, sites.REQUEST, Result.FOURTH): "on_openssl_write_fourth",
    (Library.OPENSSL, sites.REQUEST, Result.FIFTH): "on_openssl_write_fifth",
    (Library.GNUTLS, sites.RESPONSE, Result.RETURNED): "on_gnutls_read",
    (Library.GNUTLS, sites.REQUEST, Result.RETURNED): "on_gnutls_write",
}
_OTHER_PROGRAMS: Final = {
    Purpose.FREE: "on_tls_free",
    Purpose.BIO_WRITE: "on_bio_write",
    Purpose.BIO_READ: "on_bio_read",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file with probes on it.

    Attributes:
        device, inode: as `os.stat` gives them.
        path: by which it was attached.
        library: `openssl`, `gnutls`, or both joined by `+`.
        functions: names of the probed functions.
        late: whether it came after capture had started.
    """

    device: int
    inode: int
    path: str
    library: str
    functions: tuple[str, ...]
    late: bool
    links: tuple[int, ...] = field(repr=False)


class Attachments:
    """All files with probes.

    Args:
        loaded: the programs.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._by_file: dict[tuple[int, int], Attachment | None] = {}
        self.late = False
        """Set once capture runs; what is attached from then on is late."""
        self.refused: list[str] = []
        """Files that hold a TLS library and could not be attached, with the reason."""

    def all(self) -> list[Attachment]:
        """Give what is attached."""
        return [attachment for attachment in self._by_file.values() if attachment]

    def known(self, path: Path) -> bool:
        """Tell whether a file was looked at already."""
        status = path.stat()
        return (status.st_dev, status.st_ino) in self._by_file

    def attach(self, path: Path) -> Attachment | None:
        """Probe a file if it holds a TLS library.

        Returns:
            What was attached; None if the file holds none, was looked at before, or cannot be read.
        """
        try:
            status = path.stat()
            key = (status.st_dev, status.st_ino)
            if key in self._by_file:
                return None
            self._by_file[key] = None
            found = sites.plan(elf.load(path))
        except (OSError, elf.MalformedElfError):
            return None
        if not found:
            return None
        if len(self.all()) >= ATTACHMENTS_MAX:
            self.refused.append(f"{path}: {ATTACHMENTS_MAX} files have probes already")
            return None
        try:
            links = self._links(str(path), found)
        except OSError as error:
            self.refused.append(f"{path}: {error.strerror}")
            return None
        libraries = "+".join(sorted({site.library.name.lower() for site in found}))
        attachment = Attachment(
            device=status.st_dev,
            inode=status.st_ino,
            path=str(path),
            library=libraries,
            functions=tuple(site.function for site in found),
            late=self.late,
            links=tuple(links),
        )
        self._by_file[key] = attachment
        return attachment

    def _links(self, path: str, found: Iterable[Site]) -> list[int]:
        links: list[int] = []
        try:
            if self._loaded.tier is Tier.MODERN:
                self._attach_modern(path, list(found), links)
            else:
                self._attach_classic(path, found, links)
        except OSError:
            for link in links:
                os.close(link)
            raise
        return links

    def _attach_modern(self, path: str, found: list[Site], links: list[int]) -> None:
        calls = [site for site in found if site.purpose is Purpose.CALL]
        if calls:
            offsets, cookies = [site.offset for site in calls], [site.cookie for site in calls]
            program = self._loaded.programs["on_tls_call"]
            links.append(bpf_call.attach_uprobes(program, path, offsets, cookies, bpf_call.ATTACH_UPROBE_SESSION))
        for site in found:
            if site.purpose is not Purpose.CALL:
                program = self._loaded.programs[_OTHER_PROGRAMS[site.purpose]]
                links.append(bpf_call.attach_uprobes(program, path, [site.offset], [0], bpf_call.ATTACH_UPROBE_MULTI))

    def _attach_classic(self, path: str, found: Iterable[Site], links: list[int]) -> None:
        programs = self._loaded.programs
        for site in found:
            if site.purpose is Purpose.CALL:
                entry = programs[_CLASSIC_ENTRIES[site.library, site.direction, site.result]]
                links.append(bpf_call.attach_uprobe(programs["on_tls_return"], path, site.offset, returns=True))
                links.append(bpf_call.attach_uprobe(entry, path, site.offset, returns=False))
            else:
                program = programs[_OTHER_PROGRAMS[site.purpose]]
                links.append(bpf_call.attach_uprobe(program, path, site.offset, returns=False))

    def close(self) -> None:
        """Detach everything."""
        for attachment in self.all():
            for link in attachment.links:
                os.close(link)
        self._by_file.clear()
