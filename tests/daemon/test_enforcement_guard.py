"""What the guard closes off, by configurations that are sound, wrong, or no TOML at all. tests/system has it at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from capd.daemon.enforcement_guard import mode, understood, wants

DEFAULT_PORT = 17861
WHOLE = """
runtime_dir = "/run/other"
[selection]
slices = ["a.slice"]
cgroups = ["/b"]
[enforcement]
mode = "enforce"
users = ["nobody"]
proxy_port = 4000
"""
CASES = [
    pytest.param(WHOLE, ("/run/other", ("a.slice",), ("/b",), ("nobody",), 4000), id="sound"),
    pytest.param(
        WHOLE.replace('"nobody"', '"nobody", "who-is-not-there", "root"'),
        ("/run/other", ("a.slice",), ("/b",), ("nobody",), 4000),
        id="users that do not exist, or must not be forced",
    ),
    pytest.param(WHOLE + "no_such = 1", ("/run/other", ("a.slice",), ("/b",), ("nobody",), 4000), id="an unknown key"),
    pytest.param(
        WHOLE.replace("4000", "-1").replace('"a.slice"', "7"),
        ("/run/other", ("capd-agents.slice",), ("/b",), ("nobody",), DEFAULT_PORT),
        id="values of the wrong kind",
    ),
    pytest.param(
        WHOLE.replace('"/run/other"', '"relative"'), ("/run/capd", ("a.slice",), ("/b",), ("nobody",), 4000), id="no path"
    ),
    pytest.param(
        WHOLE.replace("[enforcement]", "[enforcement"),
        ("/run/other", ("a.slice", "capd-agents.slice"), ("/b",), (), DEFAULT_PORT),
        id="no TOML, and wants it",
    ),
    pytest.param(
        WHOLE.replace("4000", "= 4000"),
        ("/run/other", ("a.slice", "capd-agents.slice"), ("/b",), ("nobody",), DEFAULT_PORT),
        id="one line is no TOML",
    ),
    pytest.param(
        '[enforcement]\nmode = "enforced"', ("/run/capd", ("capd-agents.slice",), (), (), DEFAULT_PORT), id="a misspelt mode"
    ),
    pytest.param(
        '[enforcement]\nmode = ["off"]', ("/run/capd", ("capd-agents.slice",), (), (), DEFAULT_PORT), id="mode is no string"
    ),
    pytest.param("enforcement = true", ("/run/capd", ("capd-agents.slice",), (), (), DEFAULT_PORT), id="no table"),
    pytest.param('[enforcement]\nmode = "observe"\nno_such = 1', None, id="observes"),
    pytest.param("[capture]\nno_such = 1", None, id="another section is wrong"),
    pytest.param('# mode = "enforce"\n[capture', None, id="no TOML, and a comment"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_what_is_understood(text: str, expected: tuple[object, ...] | None, tmp_path: Path) -> None:
    """Where enforcement is wanted something is closed off, however wrong the file; where it is not, nothing is."""
    path = tmp_path / "capd.toml"
    path.write_text(text, encoding="utf-8")
    found = understood(str(path))
    assert ("enforce" if expected else "observe" if "observe" in text else "off") == mode(str(path))
    if found is None:
        assert expected is None
        return
    selection, enforcement = found.selection, found.enforcement
    assert "enforce" == enforcement.mode
    assert expected == (
        str(found.runtime_dir),
        selection.slices,
        selection.cgroups,
        enforcement.users,
        enforcement.proxy_port,
    )


def test_no_file_wants_nothing() -> None:
    """The defaults force nobody."""
    assert not wants({})
    assert understood("/dev/null") is None
