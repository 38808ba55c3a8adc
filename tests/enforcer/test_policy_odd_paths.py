"""Paths that servers read in more than one known way: what a rule must say to let them pass, and what stops them."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from capd.enforcer.policy.decision import Outcome
from capd.enforcer.policy.http_path import read_path, without_dots
from capd.enforcer.policy.problem import PolicyError
from capd.enforcer.proxy.http1.target import TargetError, read_target
from tests.enforcer.policies import action, policy

ALLOW = (
    '  - {id: a, match: {methods: GET, paths: ["/@acme%2F*", "/@acme/**", "/bucket/**"]}, then: allow, accept_paths: [SAID]}\n'
)
BOTH = ALLOW.replace("SAID", "empty_segments, encoded_slashes")
SLASHES = ALLOW.replace("SAID", "encoded_slashes")
EMPTY = ALLOW.replace("SAID", "empty_segments").replace('"/@acme%2F*", ', "")
ANYWHERE = "  - {id: a, then: allow, match: {hosts: a.example}, accept_paths: encoded_slashes}\n"
HELD = '  - {id: h, match: {paths: "/@acme/held"}, then: approve}\n'
DENIED = '  - {id: d, match: {paths: "/@acme/evil"}, then: deny}\n'
DENIED_KEPT = '  - {id: d, match: {paths: "/@acme%2Fevil"}, then: deny}\n'
DENIED_REGEX = '  - {id: d, match: {path_regex: "^/bucket/x"}, then: deny}\n'
UNKNOWN = "  - {id: d, match: {methods: GET}, when: \"http.path == '/never'\", then: deny}\n"
CASES = [
    ("named both ways", SLASHES, "/@acme%2fshop", "allow"),
    ("not said", ALLOW.replace(", accept_paths: [SAID]", "").replace('"/@acme%2F*", ', ""), "/@acme%2Fshop", "deny"),
    ("said of the other oddity", EMPTY, "/@acme%2Fshop", "deny"),
    ("one reading is another's", SLASHES, "/@acme%2Fa/b", "deny"),
    ("no reading", SLASHES, "/@other%2Fshop", "deny"),
    ("no path asked for", ANYWHERE, "/x%2Fy", "allow"),
    ("no path asked for, another oddity", ANYWHERE, "/x//y", "deny"),
    ("beside something else", SLASHES, "/@acme%2F..%2Fshop", "deny"),
    ("an empty segment", EMPTY, "/bucket/a//b", "allow"),
    ("an empty segment, not said", SLASHES, "/bucket/a//b", "deny"),
    ("both", BOTH, "/bucket/a//b%2Fc", "allow"),
    ("both, one said", SLASHES, "/bucket/a//b%2Fc", "deny"),
    ("denied as split", BOTH + DENIED, "/@acme%2Fevil", "deny"),
    ("denied as kept", BOTH + DENIED_KEPT, "/@acme%2Fevil", "deny"),
    ("denied as merged", BOTH + DENIED_REGEX, "/bucket//x", "deny"),
    ("denied, but another path", BOTH + DENIED + DENIED_REGEX.replace("id: d", "id: e"), "/@acme%2Fshop", "allow"),
    ("held", BOTH + HELD, "/@acme%2Fheld", "approve"),
    ("not held", BOTH + HELD, "/@acme%2Fshop", "allow"),
    ("a condition cannot know", BOTH + UNKNOWN, "/@acme%2Fshop", "deny"),
]


@pytest.mark.parametrize(("rules", "path", "outcome"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_odd_paths_pass_only_where_a_rule_says_so(rules: str, path: str, outcome: str) -> None:
    """A rule lets a path with an oddity pass if it says so and matches every reading; one that stops needs one reading."""
    assert outcome == policy("rules:\n" + rules).decide(action(f"GET https://a.example{path}")).outcome


@given(st.lists(st.sampled_from(["/", "//", "%2F", "a", "b", "@x"]), max_size=6).map(lambda pieces: "/a" + "".join(pieces)))
def test_no_reading_passes_that_would_not_alone(path: str) -> None:
    """Whatever an odd path is, it is allowed only if each of its readings is, and denied if any of them is by a rule."""
    allow = 'match: {paths: ["/a*%2F*", "/a/*", "/a/b/**"]}, then: allow, accept_paths: [empty_segments, encoded_slashes]'
    read = policy(f"rules:\n  - {{id: a, {allow}}}\n  - {{id: d, match: {{paths: [/a/a, '/a%2Fb']}}, then: deny}}\n")
    outcome = read.decide(action(f"GET https://a.example{path}")).outcome
    evaluate = read.evaluator
    base = action("GET https://a.example/plain")
    alone = [
        evaluate.decide(type(base)(target=base.target, protocol="http", operation="GET", path=reading, query="")).outcome
        for reading in read_path(path).readings
    ]
    assert (Outcome.ALLOW if all(one is Outcome.ALLOW for one in alone) else Outcome.DENY) == outcome


WRONG = [
    ('  - {id: a, match: {paths: "/@acme%2F*"}, then: allow}\n', "%2F never matches here"),
    ('  - {id: a, match: {paths: "/@acme%2f*"}, then: deny}\n', "never matches: paths are judged decoded but for %2F"),
    ('  - {id: a, match: {paths: "/a%2F../b"}, then: deny}\n', "never matches"),
    ("  - {id: a, then: deny, accept_paths: encoded_slashes}\n", "means nothing"),
    ("  - {id: a, then: allow, accept_paths: dots}\n", "there is no oddity of paths 'dots'"),
    ("  - {id: a, then: allow, when: \"http.path == '/a'\", accept_paths: encoded_slashes}\n", "http.path is not known"),
]


@pytest.mark.parametrize(("rules", "words"), WRONG)
def test_rules_that_could_not_mean_it_are_refused(rules: str, words: str) -> None:
    """A rule that says of odd paths what never comes about is refused with the reason."""
    with pytest.raises(PolicyError) as caught:
        policy("rules:\n" + rules)
    assert words in str(caught.value)


SENT = {"/@acme%2fshop": "/@acme%2Fshop", "/a//b": "/a//b", "/%61%2F%7e": "/a%2F~", "/bucket/a///b": "/bucket/a///b"}


@pytest.mark.parametrize(("raw", "sent"), SENT.items())
def test_odd_paths_are_sent_as_they_came(raw: str, sent: str) -> None:
    """What is sent has the same readings: an encoded slash stays encoded, an empty segment stays."""
    assert sent == read_target("GET", raw).path


def _merged(path: str) -> str:
    return re.sub("//+", "/", path)


def _split(path: str) -> str:
    return unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "surrogateescape")


def _kept(path: str) -> str:
    return "%2F".join(_split(part) for part in re.split("%2[Ff]", path))


SERVERS: tuple[tuple[Callable[[str], str], ...], ...] = (
    (_split, without_dots),
    (_split, _merged, without_dots),
    (_split, without_dots, _merged),
    (_kept, without_dots),
    (_kept, _merged, without_dots),
    (_kept, without_dots, _merged),
    (without_dots, _split),
    (without_dots, _split, without_dots),
    (without_dots, _kept),
    (_merged, without_dots, _split),
    (_merged, without_dots, _kept),
    (_merged, _split, _merged),
)
"""What servers, and proxies before them, do to a path, in their order."""
PIECES = [
    "/",
    "//",
    "%2F",
    "%2f",
    ".",
    "..",
    "%2e",
    "a",
    "%61",
    "%25",
    "~",
    "%20",
    "+",
    "%2B",
    "%3F",
    "%c3%a9",
    "\xc3\xa9",
    "'",
]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join))
@example("a//%2f")
def test_every_server_reads_what_was_judged(raw: str) -> None:
    """Whatever a server does first, what it makes of the path that is sent is among the readings that were judged."""
    try:
        sent = read_target("GET", f"/{raw}").path
    except TargetError:
        return
    readings = read_path(sent).readings
    for steps in SERVERS:
        path = sent
        for step in steps:
            path = step(path)
        assert path in readings
