"""Runs clients' own suites of tests twice, with nobody between and behind the enforcer, and prints what is different.

    python -P -m tests.suites.run [NAME[=TREE]]... [--OPTION OF PYTEST]...

What lives here: the two runs, and comparing. What must not: the table (suite.py).

Both runs are in one network namespace, as an agent there, each before a new server; the enforcer is the real one, with a policy
that allows everything and its decision log. A client behind it is redirected, whatever address it names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from xml.etree import ElementTree as ET

import psycopg

from tests.e2e.postgres import PASSWORD as POSTGRESQL_PASSWORD
from tests.e2e.postgres import database
from tests.enforcer.yard import ADDRESSES, AGENT, Yard, yard
from tests.servers.mariadb import PASSWORD, MariaDb, mariadb
from tests.servers.mysql import mysql
from tests.servers.redis import redis_server
from tests.suites.suite import DATABASE, SUITES, Suite

POLICY: Final = """\
rules:
  - {id: all, match: {protocols: [postgresql, mysql, redis]}, then: allow, accept_incomplete: true}
  - {id: sockets, match: {protocols: [tcp, tls]}, then: allow}
"""
"""Some tests have sockets of their own that speak no protocol."""
KEPT: Final = Path(__file__).parents[2] / ".cache" / "suites"
"""What came from the index: sources, and packages that suites need."""
SECONDS_MAX: Final = 1800
PLACE: Final = "{password}"
TEST_SECONDS_MAX: Final = 60
"""Of one test: a hang is found, and says where."""
SHOWN_CHARACTERS: Final = 240


class NoReportError(Exception):
    """A suite ended before it said what its tests came to; the text says how."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one test: `passed`, `failed`, `skipped`, and why."""

    word: str
    why: str = ""


Run = Mapping[str, Outcome]


def pip(*words: str) -> None:
    """Run pip, quietly."""
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", *words]
    subprocess.run(command, check=True)


def tree_of(suite: Suite, named: str) -> Path:
    """Give the tree with a suite's tests: one that is named, or the source of the installed version."""
    if named:
        return Path(named)
    if not suite.package:
        raise SystemExit("this client's package has no tests: name a checkout of its repository, as NAME=TREE")
    try:
        wanted = f"{suite.package}=={version(suite.package)}"
    except ModuleNotFoundError:
        wanted = f"{suite.package}=={version(suite.package + '-binary')}"
    sources = KEPT / "sources"
    folder = wanted.replace("-", "_").replace("==", "-")
    if not list(sources.glob(f"{folder}*/")):
        sources.mkdir(parents=True, exist_ok=True)
        pip("download", "--no-binary", suite.package, "--no-deps", "--dest", str(sources), wanted)
        for archive in sources.glob(f"{folder}*.tar.gz"):
            shutil.unpack_archive(archive, sources)
    return next(iter(sources.glob(f"{folder}*/")))


def packages_of(suite: Suite) -> Path:
    """Give the folder with what a suite needs beside what is installed."""
    folder = KEPT / "packages" / "+".join(suite.needs)
    if suite.needs and not folder.exists():
        pip("install", "--target", str(folder), *suite.needs)
    return folder


@contextmanager
def server(suite: Suite, made: Yard, directory: Path) -> Iterator[str]:
    """Run a suite's server in the yard; gives its password."""
    match suite.server:
        case "postgresql":
            with database(
                directory / "pg",
                made.certificates,
                through=made.within,
                address=ADDRESSES[0],
                port=5432,
                settings=("max_prepared_transactions=8",),
            ):
                for name, statements in (("postgres", suite.prepare), (DATABASE, suite.prepare_database)):
                    administer(directory / "pg", name, statements)
                yield PASSWORD
        case "redis":
            with redis_server(
                *("--protected-mode", "no", "--enable-debug-command", "yes"),
                within=made.within,
                address=f"{ADDRESSES[0]} 127.0.0.1",  # some tests go where Redis is by default
                port=6379,
            ):
                yield ""
        case _:
            serve: Callable[..., AbstractContextManager[MariaDb]] = mysql if suite.server == "mysql" else mariadb
            options = ["--local-infile=1"]
            with serve(options, tls=made.certificates, within=made.within, address="*", port=3306) as running:
                running.administer("SELECT 1", *suite.prepare)
                yield PASSWORD


def administer(host: Path, name: str, statements: Sequence[str]) -> None:
    """Run statements in a database of PostgreSQL, as its administrator."""
    if statements:
        with psycopg.connect(
            host=str(host), user="agent", password=POSTGRESQL_PASSWORD, dbname=name, autocommit=True
        ) as connection:
            for one in statements:
                connection.execute(one.replace(PLACE, PASSWORD).encode())


def run(suite: Suite, made: Yard, directory: Path, tree: Path, words: Sequence[str], *, behind: bool) -> Run:
    """Run a suite once."""
    directory.mkdir()
    directory.chmod(0o755)
    user = AGENT if behind else AGENT - 1
    copy, report = directory / "tree", directory / "report"
    shutil.copytree(tree, copy, ignore=shutil.ignore_patterns(".git"), symlinks=True)
    report.mkdir()
    for one in suite.without:
        shutil.rmtree(copy / one)
    with server(suite, made, directory) as password:
        for name, text in suite.files.items():
            (copy / name).write_text(text.replace(PLACE, password), encoding="utf-8")
        for path in (copy, *copy.rglob("*"), report):
            os.chown(path, user, user, follow_symlinks=False)
        paths = [*(str(copy / one) for one in suite.source), str(packages_of(suite))]
        environment = {name: text.replace(PLACE, password) for name, text in suite.environment.items()}
        environment |= {"PATH": os.environ["PATH"], "HOME": str(report), "LANG": "C.UTF-8", "PYTHONPATH": ":".join(paths)}
        environment["USER"] = "agent"  # its number has no name
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-o",
            f"cache_dir={report}/cache",
            f"--basetemp={report}/temporary",
            "-p",
            "no:randomly",
            f"--junitxml={report}/junit.xml",
        ]
        command += ["-o", f"faulthandler_timeout={TEST_SECONDS_MAX}", "-o", "faulthandler_exit_on_timeout=true"]
        command += [one.replace(PLACE, password) for one in suite.words] + list(words)
        who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "env", "-C", str(copy)]
        with (directory / "log").open("wb") as log:
            done = subprocess.run(
                [*made.within, *who, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=SECONDS_MAX,
                check=False,
                preexec_fn=made.enter if behind else None,
            )
    if not (report / "junit.xml").exists():
        text = (directory / "log").read_text(errors="replace")
        raise NoReportError(f"ended {'behind' if behind else 'directly'} with {done.returncode} and no report:\n{text[-6000:]}")
    return read(report / "junit.xml")


def read(report: Path) -> Run:
    """Read a report in JUnit's form."""
    found: dict[str, Outcome] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it
        outcome = Outcome("passed")
        for one in case:
            if one.tag in {"failure", "error"}:
                outcome = Outcome("failed", " ".join((one.get("message") or one.text or "").split()))
            elif one.tag == "skipped":
                outcome = Outcome("skipped", one.get("message") or "")
        found[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return found


def told(direct: Run, behind: Run) -> Iterator[str]:
    """Give lines about what is different."""
    for name in sorted(direct.keys() | behind.keys()):
        first, second = direct.get(name), behind.get(name)
        if (first and first.word) != (second and second.word):
            words = f"{first.word if first else 'absent'} -> {second.word if second else 'absent'}"
            why = (second and second.why) or (first and first.why) or ""
            yield f"{name}: {words}: {why[:SHOWN_CHARACTERS]}"


def twice(suite: Suite, tree: Path, words: Sequence[str]) -> tuple[list[Run], list[float], int]:
    """Run a suite with nobody between, and behind the enforcer; gives how long each took and the number of decisions, too."""
    runs, seconds = list[Run](), list[float]()
    with TemporaryDirectory(prefix="capd-suites-", ignore_cleanup_errors=True) as place:
        directory = Path(place)
        try:
            with yard(directory, POLICY) as made:
                for behind in (False, True):
                    begun = time.monotonic()
                    runs.append(run(suite, made, directory / ("behind" if behind else "direct"), tree, words, behind=behind))
                    seconds.append(time.monotonic() - begun)
                decided = sum(one["kind"] == "decision" for one in made.entries())
        finally:
            keep(directory)
    return runs, seconds, decided


def keep(directory: Path) -> None:
    """Copy logs to where whoever looks for a reason wants them."""
    if kept := os.environ.get("CAPD_SUITES_KEEP"):
        for path in (directory / "direct" / "log", directory / "behind" / "log", directory / "enforcer.log"):
            if path.exists():
                shutil.copy(path, f"{kept}/{path.parent.name}-{path.name}")


def counted(found: Run) -> str:
    """Say how many tests came to what."""
    return ", ".join(f"{count} {word}" for word, count in sorted(Counter(one.word for one in found.values()).items()))


def compared(argument: str, words: Sequence[str]) -> tuple[str, bool]:
    """Run a suite, NAME or NAME=TREE; gives what is to be printed, and whether it is the same behind the enforcer."""
    name, _, named = argument.partition("=")
    tree = tree_of(SUITES[name], named)
    try:
        (direct, behind), seconds, decided = twice(SUITES[name], tree, words)
    except (NoReportError, subprocess.TimeoutExpired) as error:
        return f"{name} ({tree.name}): {error}", False
    lines = list(told(direct, behind))
    text = [
        f"{name} ({tree.name}), {decided} decisions, {len(lines)} different",
        f"directly: {counted(direct)} in {seconds[0]:.0f} s",
        f"behind: {counted(behind)} in {seconds[1]:.0f} s",
        *lines,
    ]
    return "\n  ".join(text), not lines


def main(arguments: Sequence[str]) -> int:
    """Run suites, one after the other, whatever one comes to; 1 if one is different behind the enforcer."""
    same = True
    names = [one for one in arguments if not one.startswith("-")]
    words = [one for one in arguments if one.startswith("-")]
    for argument in names or [name for name, one in SUITES.items() if one.package]:
        text, alike = compared(argument, words)
        same &= alike
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    return int(not same)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
