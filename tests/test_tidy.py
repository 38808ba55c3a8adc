"""The house rules, held by machine.

What lives here: rules about the source text that ruff and mypy do not know. What must not: anything about behaviour.
"""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from capd.cli.main import VERBS, capd

ROOT = Path(__file__).parent.parent
PACKAGES = ("probes", "recording", "decoders", "enforcer", "daemon", "cli")
FOLDERS = (*PACKAGES, "tests", "bench", "demo", "packaging")

FUNCTION_LINES_MAX = 60
"""A function that does not fit a screen does more than one thing."""
MODULE_LINES_MAX = 500

BANNED_NAMES = {
    "utils": "the noun that the functions are about",
    "util": "the noun that the functions are about",
    "helpers": "the noun that the functions are about",
    "helper": "the noun that the functions are about",
    "common": "the noun that the users share",
    "misc": "one module per noun",
    "manager": "what it manages, in the plural",
    "base": "the noun of the base class",
}


def modules() -> list[Path]:
    """Give every Python file of the project."""
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@dataclass(frozen=True, slots=True)
class Function:
    """What is looked at of a function: its name, place, lines without its docstring, and that."""

    name: str
    line: int
    lines: int
    docstring: str


@dataclass(frozen=True, slots=True)
class Module:
    """What is looked at of a module: its docstring, functions (nested ones too), and names of what it imports."""

    docstring: str
    functions: tuple[Function, ...]
    imports: frozenset[str]


@cache
def module(path: Path) -> Module:
    """Read a file, once; a thousand trees would be a burden on all tests that follow in this process."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    sources = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return Module(ast.get_docstring(tree) or "", tuple(map(_function, functions)), frozenset(sources | names))


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    docstring = ast.get_docstring(node)
    first = node.body[0]
    length = (node.end_lineno or 0) - node.lineno + 1
    lines = length - ((first.end_lineno or 0) - first.lineno + 1 if docstring else 0)
    return Function(name=node.name, line=node.lineno, lines=lines, docstring=docstring or "")


def relative(path: Path) -> str:
    """Name a file as a person at the root would."""
    return str(path.relative_to(ROOT))


def test_functions_are_short() -> None:
    """No function has more than 60 lines."""
    long = [
        f"{relative(path)}:{function.line} {function.name}: {function.lines} lines"
        for path in modules()
        for function in module(path).functions
        if function.lines > FUNCTION_LINES_MAX
    ]
    assert [] == long


def test_modules_are_short() -> None:
    """No module reaches 500 lines."""
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {} == {name: lines for name, lines in lengths.items() if lines >= MODULE_LINES_MAX}


def test_modules_say_what_they_are() -> None:
    """Every module's docstring says what lives there, and every module of a package also what must not."""
    silent = []
    for path in modules():
        said = module(path).docstring
        in_package = path.relative_to(ROOT).parts[0] in PACKAGES
        if not said or (in_package and path.name != "__init__.py" and "must not" not in said):
            silent.append(relative(path))
    assert [] == silent


def test_modules_have_telling_names() -> None:
    """No module is named after nothing, such as `utils`."""
    named = {relative(path): BANNED_NAMES[path.stem] for path in modules() if path.stem in BANNED_NAMES}
    assert {} == named


def test_tests_state_their_promise() -> None:
    """Every test has a docstring of one sentence."""
    mute = [
        f"{relative(path)}:{function.line} {function.name}"
        for path in modules()
        if path.name.startswith("test_")
        for function in module(path).functions
        if function.name.startswith("test_") and not function.docstring.rstrip("`").endswith(".")
    ]
    assert [] == mute


def test_nothing_imports_the_command_line() -> None:
    """Only the command line itself, its tests, and what makes its manual pages, import capd.cli."""
    guilty = [
        relative(path)
        for path in modules()
        if path.relative_to(ROOT).parts[0] not in {"cli", "tests", "packaging"}
        if any(name.startswith("capd.cli") for name in module(path).imports)
    ]
    assert [] == guilty


def test_package_links_are_whole() -> None:
    """Each package at the root is importable as capd.<folder> through a relative link, and is a package."""
    links = {path.name: str(path.readlink()) for path in (ROOT / "src" / "capd").iterdir() if path.is_symlink()}
    assert {name: f"../../{name}" for name in PACKAGES} == links
    bare = {relative(path.parent) for path in modules() if path.relative_to(ROOT).parts[0] in PACKAGES} - {
        relative(path.parent) for path in modules() if path.name == "__init__.py"
    }
    assert set() == bare


@pytest.mark.parametrize("name", [f"requirements{which}.txt" for which in ("", "-fleet", "-dev", "-test", "-bench")])
def test_pins_name_no_host(name: str) -> None:
    """The pinned versions are names and numbers only: no address, no index, no option."""
    lines = (ROOT / "packaging" / name).read_text(encoding="ascii").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert [] == [line for line in pinned if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)]


def test_packages_have_what_the_project_asks_for() -> None:
    """The package capd has all that capd needs, capd-fleet all of the extra `fleet`, in one directory and nothing twice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, asked in (("", project["dependencies"]), ("-fleet", project["optional-dependencies"]["fleet"])):
        assert set() == {re.split("[<>=\\[]", one)[0] for one in asked} - pinned(f"requirements{name}.txt")
    assert set() == pinned("requirements.txt") & pinned("requirements-fleet.txt")


def pinned(name: str) -> set[str]:
    """Give the names in a file of pins."""
    lines = (ROOT / "packaging" / name).read_text(encoding="ascii").splitlines()
    return {line.partition("==")[0] for line in lines if not line.startswith("#")}


def test_every_lint_exception_says_why() -> None:
    """Each rule that pyproject.toml switches off carries its reason on its line."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    codes = [line for line in text.splitlines() if re.match(r'\s+"[A-Z]+[0-9]*",', line)]
    assert codes != []
    assert [] == [line for line in codes if not re.search(r"# \S+", line)]


def test_noqa_names_its_rule_and_reason() -> None:
    """A lint rule switched off at one place is named there, with a reason beside it."""
    bare = re.compile(r"#\s*(noqa(?!: [A-Z0-9, ]+(?:\s|$).*\w)|type: ignore(?!\[))")
    found = [
        f"{relative(path)}:{number}"
        for path in modules()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if bare.search(line)
    ]
    assert [] == found


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    """`capd VERB --help` says what it does and shows a command line that could be typed."""
    done = CliRunner().invoke(capd, [verb, "--help"])
    assert 0 == done.exit_code
    assert re.search(rf"^\s*Examples:\n\s+.*capd {verb}\b", done.stdout, re.MULTILINE)


def test_documents_link_to_what_exists() -> None:
    """Every relative link of a Markdown file leads to a file."""
    broken = [
        f"{relative(page)}: {target}"
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert [] == broken


def test_documents_are_in_the_index() -> None:
    """docs/README.md leads to every page below docs."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert set() == {page for page in pages if f"({page})" not in index}
