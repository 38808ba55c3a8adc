"""Patterns: what they match, by whatever way it is found out, and that one in another's shadow really is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from capd.enforcer.policy.action import Action
from capd.enforcer.policy.condition import Bindings
from capd.enforcer.policy.coverage import covers
from capd.enforcer.policy.evaluator import MERGED_MAX, Evaluator
from capd.enforcer.policy.glob import Glob, PathGlob, any_of
from capd.enforcer.policy.host_name import HostNameError
from capd.enforcer.policy.host_pattern import HostPattern, any_host
from capd.enforcer.policy.linear_regex import compile_regex
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.matcher import compile_match
from tests.enforcer.policies import action, actions, matches, policy

PIECES = st.lists(st.sampled_from(["/", "a", "b", "*", "**", "?", "/**", ".", "\n", "é", "["]), max_size=6).map("".join)
TEXTS = st.lists(st.sampled_from(["/", "a", "b", ".", "\n", "é", "["]), max_size=6).map("".join)
HOST_PIECES = st.lists(st.sampled_from(["*", "a", "b", "a*", "*.", ".", "example", "xn--a"]), min_size=1, max_size=5).map(
    "".join
)
HOST_TEXTS = st.lists(st.sampled_from(["a", "b", "ab", "example", "xn--a"]), min_size=1, max_size=4).map(".".join)


def simple(pattern: str, text: str, *, path: bool) -> bool:
    """Match a pattern the slow and obvious way, character by character."""
    if path and pattern.endswith("/**") and simple(pattern.removesuffix("/**"), text, path=True):
        return True
    if not pattern:
        return not text
    if pattern.startswith("**"):
        return any(simple(pattern[2:], text[end:], path=path) for end in range(len(text) + 1))
    if pattern.startswith("*"):
        ends = [end for end in range(len(text) + 1) if not (path and "/" in text[:end])]
        return any(simple(pattern[1:], text[end:], path=path) for end in ends)
    if not text or not (pattern[0] == text[0] or (pattern[0] == "?" and not (path and text[0] == "/"))):
        return False
    return simple(pattern[1:], text[1:], path=path)


@given(PIECES, TEXTS)
def test_patterns_match_as_they_are_read(pattern: str, text: str) -> None:
    """Names and paths match as a character-by-character reading of the pattern says, whether by words or by regex."""
    assert simple(pattern, text, path=False) is any_of([Glob(pattern)])(text)
    assert simple(f"/{pattern}", f"/{text}", path=True) is any_of([PathGlob(f"/{pattern}")])(f"/{text}")
    assert any_of([Glob(pattern)])(text) is compile_regex(rf"\A(?:{Glob(pattern).regex})\z")(text)


@given(st.lists(PIECES, min_size=1, max_size=4), TEXTS)
def test_a_list_matches_if_one_does(patterns: list[str], text: str) -> None:
    """A list of patterns is for a text exactly when one of them is."""
    globs = [Glob(pattern) for pattern in patterns]
    assert any(any_of([glob])(text) for glob in globs) is any_of(globs)(text)


@given(PIECES, PIECES, TEXTS)
def test_what_covers_a_pattern_matches_all_that_it_does(wide: str, narrow: str, text: str) -> None:
    """Where one pattern is said to cover another, it matches what that one matches."""
    if Glob(wide).covers(Glob(narrow)) and any_of([Glob(narrow)])(text):
        assert any_of([Glob(wide)])(text) is True
    one, other = PathGlob(f"/{wide}"), PathGlob(f"/{narrow}")
    if one.covers(other) and any_of([other])(f"/{text}"):
        assert any_of([one])(f"/{text}") is True


@given(HOST_PIECES, HOST_PIECES, HOST_TEXTS)
def test_what_covers_a_host_matches_all_that_it_does(wide: str, narrow: str, host: str) -> None:
    """Where one host pattern is said to cover another, it matches the hosts of that one."""
    try:
        one, other = HostPattern.parse(wide), HostPattern.parse(narrow)
    except HostNameError:
        return
    if one.covers(other) and any_host([other])(host):
        assert any_host([one])(host) is True


@settings(max_examples=300)
@given(matches(), matches(), actions())
def test_what_covers_a_match_has_all_of_it(wide: Match, narrow: Match, asked: Action) -> None:
    """Where a match is said to cover another, no action that the other certainly matches is certainly not its own."""
    if covers(wide, narrow) and compile_match(narrow)(asked, Bindings(asked)) is True:
        assert compile_match(wide)(asked, Bindings(asked)) is not False


def test_rules_for_other_hosts_are_not_asked() -> None:
    """A thousand rules for other hosts, exact or by their domain, are not even looked at."""
    rules = [
        f"  - {{id: r{number}, match: {{hosts: [h{number}.example, '*.d{number}.example']}}, then: allow}}\n"
        for number in range(1000)
    ]
    read = policy("rules:\n" + "".join(rules))
    for url in ("https://h7.example/", "https://a.b.d7.example/"):
        candidates = Evaluator(read.rules, (), "v")._index["http"].candidates(action(f"GET {url}").target.names)
        asked = [one.rule.id for found in candidates.enforced.values() for one in found]
        assert ["capd:cloud-metadata-address", "r7"] == asked
        assert ("r7",) == read.decide(action(f"GET {url}")).carried_out.rules


def test_what_is_remembered_of_hosts_is_bounded_and_right() -> None:
    """An agent that goes through many hosts, twice, is judged by the rules of each, and not more is kept than so much."""
    rules = [f"  - {{id: r{number}, match: {{hosts: h{number}.example}}, then: allow}}\n" for number in range(MERGED_MAX + 9)]
    read = policy("rules:\n" + "".join(rules))
    for number in (*range(MERGED_MAX + 9), *range(MERGED_MAX + 9)):
        assert (f"r{number}",) == read.decide(action(f"GET https://h{number}.example/")).carried_out.rules
    assert len(read.evaluator._index["http"]._merged) <= MERGED_MAX
