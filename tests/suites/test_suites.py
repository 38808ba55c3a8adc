"""Two runs of a suite are compared test by test; running them is `make suites`."""

from __future__ import annotations

from pathlib import Path

from tests.suites.run import Outcome, read, told

REPORT = """\
<testsuites><testsuite name="pytest">
<testcase classname="a" name="good"/>
<testcase classname="a" name="bad"><failure message="assert 1 == 2&#10;  lines">trace</failure></testcase>
<testcase classname="a" name="broken"><error message="failed on setup">trace</error></testcase>
<testcase classname="a" name="left"><skipped message="needs more"/></testcase>
</testsuite></testsuites>
"""


def test_a_report_is_read(tmp_path: Path) -> None:
    """What a test came to, and why."""
    path = tmp_path / "junit.xml"
    path.write_text(REPORT, encoding="utf-8")
    expected = {
        "a::good": Outcome("passed"),
        "a::bad": Outcome("failed", "assert 1 == 2 lines"),
        "a::broken": Outcome("failed", "failed on setup"),
        "a::left": Outcome("skipped", "needs more"),
    }
    assert expected == read(path)


def test_differences_are_told() -> None:
    """A test that came to something else, or ran only once, is told with the reason of the run behind; all others are not."""
    direct = {"a": Outcome("passed"), "b": Outcome("failed", "x"), "c": Outcome("passed"), "d": Outcome("passed")}
    behind = {"a": Outcome("passed"), "b": Outcome("failed", "y"), "c": Outcome("failed", "z"), "e": Outcome("skipped", "s")}
    assert ["c: passed -> failed: z", "d: passed -> absent: ", "e: absent -> skipped: s"] == list(told(direct, behind))
