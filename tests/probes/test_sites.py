"""The attach planner finds the right places, and no file makes it raise anything but its own error."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.probes import elf, sites
from capd.probes.elf import Elf, MalformedElfError
from capd.probes.layouts import Library
from capd.probes.sites import Purpose, Result
from tests.requirements import require

LIBSSL = Path("/usr/lib/x86_64-linux-gnu/libssl.so.3")
LIBCRYPTO = Path("/usr/lib/x86_64-linux-gnu/libcrypto.so.3")
LIBGNUTLS = Path("/usr/lib/x86_64-linux-gnu/libgnutls.so.30")


@functools.cache
def libssl() -> bytes:
    """Give the library's bytes, once."""
    return LIBSSL.read_bytes()


def test_openssl_is_probed_where_all_its_variants_meet() -> None:
    """One place for all reads and one for all writes, each beginning with push; looks; where a stream is freed."""
    require(LIBSSL.exists(), f"needs {LIBSSL}")
    library = elf.load(LIBSSL)
    found = sites.plan(library)
    looks = ["SSL_peek", "SSL_peek_ex"]
    assert ["SSL_read_ex -> internal", "SSL_write_ex -> internal", *looks, "SSL_free"] == [site.function for site in found]
    assert [Purpose.CALL] * 4 + [Purpose.FREE] == [site.purpose for site in found]
    assert looks == [site.function for site in found if site.peeks and site.cookie & 8 and site.direction == 1]
    assert [1, 0] == [site.direction for site in found[:2]]
    assert [Result.FOURTH, Result.FOURTH] == [site.result for site in found[:2]]
    for site in found[:2]:
        assert libssl()[site.offset : site.offset + 2] in (b"\x41\x57", b"\x41\x56", b"\x41\x55", b"\x41\x54") or libssl()[
            site.offset : site.offset + 1
        ] in (b"\x55", b"\x53")


def test_memory_bios_are_found_through_their_method_table() -> None:
    """Both directions of OpenSSL's memory BIO are found although neither has a symbol."""
    require(LIBCRYPTO.exists(), f"needs {LIBCRYPTO}")
    found = sites.plan(elf.load(LIBCRYPTO))
    assert [Purpose.BIO_WRITE, Purpose.BIO_READ] == [site.purpose for site in found]
    assert 2 == len({site.offset for site in found})


def test_gnutls_is_probed_at_its_record_functions() -> None:
    """Sending and receiving have probes, and so has the end of a stream."""
    require(LIBGNUTLS.exists(), f"needs {LIBGNUTLS}")
    found = sites.plan(elf.load(LIBGNUTLS))
    assert {(0, Purpose.CALL), (1, Purpose.CALL), (0, Purpose.FREE)} == {(site.direction, site.purpose) for site in found}
    assert {Library.GNUTLS} == {site.library for site in found}


def test_a_library_without_tls_has_no_sites() -> None:
    """The C library is none of ours."""
    libc = Path("/usr/lib/x86_64-linux-gnu/libc.so.6")
    require(libc.exists(), f"needs {libc}")
    assert [] == sites.plan(elf.load(libc))


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(100), b"\x7fELF\x02\x01" + bytes(100)])
def test_what_is_no_elf_file_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    """Scripts, empty files, 32-bit and foreign files raise the parser's error."""
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(MalformedElfError):
        elf.load(file)


@given(st.data())
def test_a_damaged_file_gives_sites_or_the_parsers_error(data: st.DataObject) -> None:
    """Bytes changed in the headers and tables of a real library never raise anything else."""
    require(LIBSSL.exists(), f"needs {LIBSSL}")
    content = bytearray(libssl())
    sections_at = int.from_bytes(content[40:48], "little")
    places = st.one_of(st.integers(0, 0x800), st.integers(sections_at, len(content) - 1), st.integers(0, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 12))):
        content[data.draw(places)] = data.draw(st.integers(0, 255))
    try:
        sites.plan(Elf(bytes(content)))
    except MalformedElfError:
        return


@given(st.integers(0, 2))
def test_a_cut_file_gives_sites_or_the_parsers_error(which: int) -> None:
    """A file that ends early is read as far as it goes."""
    require(LIBSSL.exists(), f"needs {LIBSSL}")
    for size in (64, 4096, 100_000, 400_000)[which:]:
        try:
            sites.plan(Elf(libssl()[:size]))
        except MalformedElfError:
            continue


CUT = """
import os, sys
from pathlib import Path
from capd.probes import elf, sites
library = elf.load(Path(sys.argv[1]))
os.truncate(sys.argv[1], int(sys.argv[2]))
try: print(len(sites.plan(library)))
except elf.MalformedElfError as error: print(error)
"""


@pytest.mark.parametrize("left", [0, 4096])
def test_file_that_is_cut_while_it_is_read_ends_nobody(tmp_path: Path, left: int) -> None:
    """An agent that cuts its own library short while it is looked at finds no probes in it, and does not end the daemon."""
    file = tmp_path / "libssl.so.3"
    shutil.copyfile(LIBSSL, file)
    command = [sys.executable, "-P", "-c", CUT, str(file), str(left)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "0\n", "") == (done.returncode, done.stdout, done.stderr)
