"""Probes on TLS libraries: one set for each file, whatever it is called and whoever maps it.

What lives here: attaching planned sites to files, once each, and saying what was attached. What must not: finding files,
planning sites.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from capd.probes import bpf_call, budget, elf, sites
from capd.probes.budget import Claim
from capd.probes.layouts import Library
from capd.probes.loader import Loaded
from capd.probes.programs import Tier
from capd.probes.sites import Purpose, Result, Site

LOOKED_AT_MAX: Final = 50_000
"""Files remembered that hold no TLS library, some 10 MB; then the memory starts anew."""

_Files = dict[tuple[int, int], tuple[int, int]]
"""By device and inode: size and time of change when a file was looked at, since numbers of inodes are used again."""

_CLASSIC_ENTRIES: Final = {
    (Library.OPENSSL, sites.RESPONSE, Result.RETURNED, False): "on_openssl_read",
    (Library.OPENSSL, sites.REQUEST, Result.RETURNED, False): "on_openssl_write",
    (Library.OPENSSL, sites.RESPONSE, Result.FOURTH, False): "on_openssl_read_fourth",
    (Library.OPENSSL, sites.REQUEST, Result.FOURTH, False): "on_openssl_write_fourth",
    (Library.OPENSSL, sites.REQUEST, Result.FIFTH, False): "on_openssl_write_fifth",
    (Library.OPENSSL, sites.RESPONSE, Result.RETURNED, True): "on_openssl_peek",
    (Library.OPENSSL, sites.RESPONSE, Result.FOURTH, True): "on_openssl_peek_fourth",
    (Library.GNUTLS, sites.RESPONSE, Result.RETURNED, False): "on_gnutls_read",
    (Library.GNUTLS, sites.REQUEST, Result.RETURNED, False): "on_gnutls_write",
    (Library.GNUTLS, sites.RESPONSE, Result.ELSEWHERE, False): "on_gnutls_packet",
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
        claim: for whom; None for what was installed then.
        mapped_as: device and inode as the kernel's events have them; zeros for what was installed.
        since_ns: when, on the boot clock.
    """

    device: int
    inode: int
    path: str
    library: str
    functions: tuple[str, ...]
    late: bool
    claim: Claim | None
    mapped_as: tuple[int, int]
    since_ns: int
    links: tuple[int, ...] = field(repr=False)


class NotWatchedError(Exception):
    """A file holds a TLS library, or may hold one, and cannot be probed: what is said through it stays encrypted."""


class Changes(Protocol):
    """Is told what changes, so that it can be kept; `capd.probes.standing` has the real one."""

    def changing(self) -> None:
        """Something is about to be attached or detached."""

    def attached(self, attachment: Attachment) -> None:
        """A file has probes."""

    def released(self, attachment: Attachment) -> None:
        """It has none any more."""

    def changed(self) -> None:
        """The change is over."""


class Attachments:
    """All files with probes.

    Args:
        loaded: the programs.
        standing: files that have probes already.
    """

    def __init__(self, loaded: Loaded, standing: Iterable[Attachment] = ()) -> None:
        self._loaded = loaded
        self._attached = {(attachment.device, attachment.inode): attachment for attachment in standing}
        self.changes: Changes | None = None
        """Is told of what changes from now on."""
        self._empty: _Files = {}
        self._too_large: _Files = {}
        self.late = False
        """Set once capture runs; what is attached from then on is late."""

    def all(self) -> list[Attachment]:
        """Give what is attached."""
        return list(self._attached.values())

    def attach(self, path: Path, claim: Claim | None = None, mapped_as: tuple[int, int] = (0, 0)) -> Attachment | None:
        """Probe a file if it holds a TLS library.

        Args:
            path: the file.
            claim: for whom; None for what is installed.
            mapped_as: device and inode as the kernel's events have them.

        Returns:
            What was attached; None if the file holds none, was looked at before, or cannot be read.

        Raises:
            NotWatchedError: there is no room for it, it takes too long to look through, or the kernel refused.
        """
        try:
            status = path.stat()
            key, version = (status.st_dev, status.st_ino), (status.st_size, status.st_ctime_ns)
            if key in self._attached or self._empty.get(key) == version:
                return None
            if self._too_large.get(key) == version:
                raise NotWatchedError("it took too long to look through before")
            found = sites.plan(elf.load(path))
        except elf.TooLargeElfError as error:
            self._remember(self._too_large, key, version)
            raise NotWatchedError(str(error)) from error
        except OSError:
            return None
        except elf.MalformedElfError:
            found = []
        if not found:
            self._remember(self._empty, key, version)
            return None
        reason = budget.refusal((attachment.claim for attachment in self.all()), claim)
        if reason is not None:
            raise NotWatchedError(reason)
        with self._change():
            attachment = self._probed(path, status, found, claim, mapped_as)
            self._attached[key] = attachment
            if self.changes is not None:
                self.changes.attached(attachment)
        return attachment

    def _probed(
        self, path: Path, status: os.stat_result, found: list[Site], claim: Claim | None, mapped_as: tuple[int, int]
    ) -> Attachment:
        since_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        try:
            links = self._links(str(path), found)
        except OSError as error:
            raise NotWatchedError(f"the kernel refused its probes: {error.strerror}") from error
        return Attachment(
            device=status.st_dev,
            inode=status.st_ino,
            path=str(path),
            library="+".join(sorted({site.library.name.lower() for site in found})),
            functions=tuple(site.function for site in found),
            late=self.late,
            claim=claim,
            mapped_as=mapped_as,
            since_ns=since_ns,
            links=tuple(links),
        )

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Say before and after that something changes; a change that failed has put everything back."""
        if self.changes is None:
            yield
            return
        self.changes.changing()
        try:
            yield
        finally:
            self.changes.changed()

    def release(self, unused: Callable[[Attachment], bool]) -> list[Attachment]:
        """Take the probes off files that nobody needs any more, and give what they were on."""
        found = [attachment for attachment in self.all() if unused(attachment)]
        if not found:
            return []
        with self._change():
            for attachment in found:
                self._let_go(attachment)
        return found

    def _let_go(self, attachment: Attachment) -> None:
        del self._attached[attachment.device, attachment.inode]
        if self.changes is not None:
            self.changes.released(attachment)
        for link in attachment.links:
            os.close(link)

    @staticmethod
    def _remember(files: _Files, key: tuple[int, int], version: tuple[int, int]) -> None:
        if len(files) >= LOOKED_AT_MAX:
            files.clear()
        files[key] = version

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
                entry = programs[_CLASSIC_ENTRIES[site.library, site.direction, site.result, site.peeks]]
                links.append(bpf_call.attach_uprobe(programs["on_tls_return"], path, site.offset, returns=True))
                links.append(bpf_call.attach_uprobe(entry, path, site.offset, returns=False))
            else:
                program = programs[_OTHER_PROGRAMS[site.purpose]]
                links.append(bpf_call.attach_uprobe(program, path, site.offset, returns=False))

    def close(self) -> None:
        """Let everything go: what nobody keeps is detached."""
        self.changes = None
        self.release(lambda _attachment: True)
