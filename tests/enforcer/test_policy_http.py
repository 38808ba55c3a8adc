"""HTTP in the one form in which it is judged: paths, hosts, and what names a target."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from capd.enforcer.policy.action import Principal, Run, Target, Tls
from capd.enforcer.policy.address_range import address
from capd.enforcer.policy.host_name import HostNameError, normal_host, normal_pattern
from capd.enforcer.policy.host_pattern import HostPattern, any_host
from capd.enforcer.policy.http_path import ENCODED_SLASH, PathError, normal_path, read_path
from capd.enforcer.policy.http_request import RequestHead, http_action

PATHS = {
    "/": "/",
    "/a/b": "/a/b",
    "/a/": "/a/",
    "/a/./b": "/a/b",
    "/a/../b": "/b",
    "/a/..": "/",
    "/a/b/..": "/a/",
    "/a/b/.": "/a/b/",
    "/../../etc/passwd": "/etc/passwd",
    "/a/%2e%2e/b": "/b",
    "/a/.%2E/b": "/b",
    "/%61dmin": "/admin",
    "/a%20b": "/a b",
    "/a+b": "/a+b",
    "/caf%C3%A9": "/café",
    "/caf\xc3\xa9": "/café",
    "/...": "/...",
    "/a..b": "/a..b",
    "/%7Eann": "/~ann",
    "/a:b@c=d,e!f$g&h'i(j)k*l": "/a:b@c=d,e!f$g&h'i(j)k*l",
    "/100%25": "/100%",
    "/a%3Fb": "/a?b",
    "/a%23b": "/a#b",
}
REFUSED = [
    "",
    "a",
    "*",
    "//",
    "//evil.example/a",
    "/a//b",
    "/a/%2f/b",
    "/a%2Fb",
    "/a%2fb",
    "/a%5cb",
    "/a\\b",
    "/..\\admin",
    "/a%00.png",
    "/a%0d%0aHost:%20evil",
    "/a%09b",
    "/a%7Fb",
    "/a%C2%85b",
    "/%252e%252e/admin",
    "/%252fadmin",
    "/%25%32%66admin",
    "/%zz",
    "/%",
    "/%4",
    "/a;x=1",
    "/..;/admin",
    "/a%3bx",
    "/%c0%ae%c0%ae/admin",
    "/%c0%af",
    "/%e0%80%af",
    "/%ff",
    "/\xff",
    "/a#b",
    "/%ef%bc%8e%ef%bc%8e/admin",
    "/a%ef%bc%8fb",
    "/a%e2%88%95b",
    "/\u2024",
    "/" + "a" * 9000,
]


@pytest.mark.parametrize(("raw", "normal"), PATHS.items())
def test_paths_have_one_form(raw: str, normal: str) -> None:
    """A path is decoded once, and its dot segments are gone."""
    assert normal == normal_path(raw)


@pytest.mark.parametrize("raw", REFUSED)
def test_paths_that_servers_read_differently_are_refused(raw: str) -> None:
    """A path of which two servers could make two is refused."""
    with pytest.raises(PathError):
        normal_path(raw)


READINGS = {
    "/a": (("/a",), ()),
    "/@acme%2fshop": (("/@acme%2Fshop", "/@acme/shop"), ("encoded_slashes",)),
    "/%c3%a9%2F%20": (("/é%2F ", "/é/ "), ("encoded_slashes",)),
    "/a//b/": (("/a//b/", "/a/b/"), ("empty_segments",)),
    "/a///b": (("/a///b", "/a/b"), ("empty_segments",)),
    "/a/%2Fb": (("/a/%2Fb", "/a//b", "/a/b"), ("empty_segments", "encoded_slashes")),
}
UNREADABLE = [
    *("//", "//a/b", "/%2Fa/b", "/a%2F..%2Fb", "/a%2F./b", "/a/../b%2Fc"),
    *("/a//../b", "/a%2F%2e%2e", "/a%252Fb%2Fc", "/a%5C%2F"),
]


@pytest.mark.parametrize(("raw", "expected"), READINGS.items())
def test_odd_paths_have_all_their_readings(raw: str, expected: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    """A path with an encoded slash or an empty segment is known in each way in which servers read it."""
    read = read_path(raw)
    assert expected == (read.readings, read.oddities)


@pytest.mark.parametrize("raw", UNREADABLE)
def test_odd_paths_with_more_to_them_are_refused(raw: str) -> None:
    """A path whose oddities could meet dot segments, another host or a second decoding has no known readings."""
    with pytest.raises(PathError):
        read_path(raw)


def sloppy(raw: bytes, *, decodings: int, backslash: bool, parameters: bool, merge: bool, keep: bool = False) -> str:
    """Read a path as some server might; None where it gives up."""
    for _ in range(decodings):
        raw = b"%2F".join(map(unquote_to_bytes, re.split(b"%2[Ff]", raw))) if keep else unquote_to_bytes(raw)
    text = raw.decode("utf-8", "replace")
    if backslash:
        text = text.replace("\\", "/")
    if parameters:
        text = re.sub(r";[^/]*", "", text)
    if merge:
        text = re.sub("/+", "/", text)
    found = posixpath.normpath(text.split("\0")[0] or "/")
    return re.sub("^/+", "/", found)


PIECES = st.sampled_from(
    [
        "/",
        "/",
        ".",
        "..",
        "a",
        "admin",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "\\",
        ";",
        ";x",
        "%3b",
        "%25",
        "%2525",
        "%252e",
        "%00",
        "%c0%ae",
        "%c3%a9",
        "\xc3\xa9",
        "%",
        "%4",
        "2e",
        "2f",
        "//",
        "?",
        "#",
        " ",
        "%20",
        "%0a",
        "\x00",
        "%ef%bc%8f",
    ]
)


@given(st.lists(PIECES, max_size=10).map(lambda pieces: "/" + "".join(pieces)))
@example("/a/%2e%2e/admin")
@example("/%2525252e")
def test_every_server_reads_the_path_that_was_judged(raw: str) -> None:
    """Whatever a sloppy server does besides decoding once, it arrives at the path that was judged, or that is refused."""
    try:
        judged = normal_path(raw)
    except PathError:
        return
    wire = raw.encode("latin-1")
    expected = posixpath.normpath(judged)
    for twice in (1, 2):
        for flags in range(8):
            kinds = {"backslash": bool(flags & 1), "parameters": bool(flags & 2), "merge": bool(flags & 4)}
            assert expected == sloppy(wire, decodings=twice, **kinds)


@given(st.lists(PIECES, max_size=10).map(lambda pieces: "/" + "".join(pieces)))
@example("/a%2F%2fb")
@example("/a//b%2F")
def test_every_server_reads_one_of_the_readings(raw: str) -> None:
    """Whatever a sloppy server does, and whether encoded slashes separate for it or not, it arrives at one of the readings."""
    try:
        read = read_path(raw)
    except PathError:
        return
    expected = {posixpath.normpath(reading.replace(ENCODED_SLASH, mark)) for reading in read.readings for mark in ("/", "%2F")}
    for flags in range(32):
        kinds = {"backslash": bool(flags & 1), "parameters": bool(flags & 2), "merge": bool(flags & 4), "keep": bool(flags & 8)}
        assert sloppy(raw.encode("latin-1"), decodings=2 if flags & 16 else 1, **kinds) in expected


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=60).map(lambda text: "/" + text))
def test_any_path_is_normal_or_refused(raw: str) -> None:
    """Whatever stands in a path, there is one form of it, which has no dot segments, or a PathError."""
    try:
        judged = normal_path(raw)
    except PathError:
        return
    assert judged.startswith("/")
    assert {".", ".."}.isdisjoint(judged.split("/"))


HOSTS = {
    "Example.COM": "example.com",
    "example.com.": "example.com",
    "a_b.example": "a_b.example",
    "xn--bcher-kva.example": "xn--bcher-kva.example",
    "192.0.2.1": "192.0.2.1",
    "[::1]": "::1",
    "[2001:DB8::0:1]": "2001:db8::1",
    "[::ffff:169.254.169.254]": "169.254.169.254",
}
NO_HOSTS = [
    "",
    ".",
    "..",
    "a..b",
    ".a",
    "a b",
    "a/b",
    "a@b",
    "a%2eb",
    "-a.example",
    "bücher.example",
    "a\u3002example",
    "127.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "169.254.169.254.",
    "192.0.2.256",
    "::1",
    "[192.0.2.1]",
    "[fe80::1%eth0]",
    "[::1",
    "a" * 64 + ".example",
    ".".join(["abc"] * 70),
    "\x00",
]


@pytest.mark.parametrize(("raw", "normal"), HOSTS.items())
def test_hosts_have_one_form(raw: str, normal: str) -> None:
    """A host is in lower case, without the root's dot; an address is as it is written shortest."""
    assert normal == normal_host(raw)


@pytest.mark.parametrize("raw", NO_HOSTS)
def test_hosts_that_clients_read_differently_are_refused(raw: str) -> None:
    """A host that is no name, or that some take for another or for an address, is refused."""
    with pytest.raises(HostNameError):
        normal_host(raw)


@given(st.text(max_size=40))
@example("1.2.3.4.")
def test_any_host_is_normal_or_refused(raw: str) -> None:
    """Whatever stands for a host, there is one form of it, which is its own, or a HostNameError."""
    try:
        normal = normal_host(raw)
    except HostNameError:
        return
    assert normal == normal_host(f"[{normal}]" if ":" in normal else normal)


PATTERNS = [
    ("example.com", ["example.com"], ["a.example.com", "example.com.evil", "xexample.com", "example.co"]),
    (
        "*.example.com",
        ["a.example.com", "a.b.example.com"],
        ["example.com", "a.example.com.evil", "aexample.com", ".example.com"],
    ),
    ("api-*.example.com", ["api-1.example.com", "api-.example.com"], ["api-1.evil.example.com", "api.example.com"]),
    ("*.a*.example.com", ["x.ab.example.com"], ["ab.example.com", "x.b.example.com"]),
    ("*", ["example.com", "192.0.2.1", "::1"], []),
    ("BÜCHER.example", ["xn--bcher-kva.example"], ["bcher.example"]),
    ("::FFFF:192.0.2.1", ["192.0.2.1"], ["::1"]),
]


@pytest.mark.parametrize(("pattern", "yes", "no"), PATTERNS)
def test_host_patterns_match_whole_hosts(pattern: str, yes: list[str], no: list[str]) -> None:
    """A pattern is for a whole host: nothing before it, nothing behind it, a star never across a dot but at the beginning."""
    matches = any_host([HostPattern.parse(pattern)])
    assert ([True] * len(yes), [False] * len(no)) == ([matches(host) for host in yes], [matches(host) for host in no])


@pytest.mark.parametrize("pattern", ["", "*.", "**", "*.*", "a.*", "straße.example", "a b", "127.1", "*.127.1", "bü*.example"])
def test_host_patterns_that_never_match_are_refused(pattern: str) -> None:
    """A pattern that no host has, or that means two things, is refused."""
    with pytest.raises(HostNameError):
        HostPattern.parse(pattern)


def test_patterns_take_addresses_without_brackets() -> None:
    """An operator writes an IPv6 address as it is."""
    assert "2001:db8::1" == normal_pattern("2001:DB8::1")


CONNECTION = Target(host="unnamed.invalid", port=443, address=address("192.0.2.1"), tls=Tls.INSPECTED)
HEADS = [
    ("GET", "/a", [("Host", "a.example")], None, ("a.example",), True, True),
    ("GET", "/a", [("host", "A.Example:443")], "a.example", ("a.example",), True, True),
    ("GET", "https://a.example/b", [("Host", "a.example")], None, ("a.example",), True, True),
    ("GET", "https://a.example", [("Host", "a.example")], None, ("a.example",), True, True),
    ("OPTIONS", "*", [("Host", "a.example")], None, ("a.example",), True, True),
    ("CONNECT", "a.example:443", [("Host", "a.example:443")], None, ("a.example",), True, True),
    ("GET", "/a", [], None, ("unnamed.invalid",), True, True),
    ("GET", "/a", [("Host", "good.example")], "evil.example", ("good.example", "evil.example"), False, False),
    ("GET", "https://evil.example/", [("Host", "good.example")], None, ("evil.example", "good.example"), False, False),
    ("GET", "/a", [("Host", "a.example"), ("Host", "b.example")], None, ("a.example", "b.example"), False, False),
    ("GET", "/a", [("Host", "a.example"), ("host", "a.example")], None, ("a.example",), True, False),
    ("GET", "/a", [(":authority", "a.example"), ("host", "a.example")], None, ("a.example",), True, True),
    ("GET", "/a", [(":authority", "a.example"), ("host", "b.example")], None, ("a.example", "b.example"), False, False),
    ("GET", "/a", [("Host", "a.example:8443")], None, ("a.example",), False, False),
    ("GET", "http://a.example/", [("Host", "a.example")], None, ("a.example",), False, False),
    ("GET", "/a", [("Host", "user@a.example")], None, ("?",), True, False),
    ("GET", "/a", [("Host", "a.example, b.example")], None, ("?",), True, False),
    ("GET", "/a", [("Host", "127.1")], None, ("?",), True, False),
    ("GET", "/a", [("Host", "a.example:0")], None, ("a.example",), False, False),
    ("GET", "/a", [("Host", "a.example"), ("X-HTTP-Method-Override", "DELETE")], None, ("a.example",), True, False),
    ("GET", "/a", [("Host", "a.example"), ("x-original-url", "/admin")], None, ("a.example",), True, False),
    ("GET", "/a", [("Host", "a.example"), ("X_HTTP_Method_Override", "DELETE")], None, ("a.example",), True, False),
    ("GET", "/a", [("Host", "a.example"), ("X.Original.URL", "/admin")], None, ("a.example",), True, False),
    ("GET", "/a", [("Host", "a.example"), ("X-Forwarded-Host", "b.example")], None, ("a.example",), True, False),
    ("GET", "/a", [("Host", "a.example"), ("x_forwarded_host", "a.example, b.example")], None, ("a.example",), True, False),
    ("GET", "/a", [("X-Host", "?"), ("Host", "a.example")], None, ("a.example",), True, False),
    ("GET", "/a", [("X-Forwarded-Host", "A.example:80"), ("Host", "a.example")], None, ("a.example",), True, True),
    ("POST", "/a?_method=DELETE", [("Host", "a.example")], None, ("a.example",), True, False),
    ("POST", "/a?b=c&%5FMethod=DELETE", [("Host", "a.example")], None, ("a.example",), True, False),
    ("POST", "/a?b=c;$httpMethod=DELETE", [("Host", "a.example")], None, ("a.example",), True, False),
    ("GET", "/a?X-HTTP-Method-Override=DELETE", [("Host", "a.example")], None, ("a.example",), True, False),
    ("GET", "/a?method=DELETE&b=_method", [("Host", "a.example")], None, ("a.example",), True, True),
    ("GET", "/a?b#c", [("Host", "a.example")], None, ("a.example",), True, False),
    ("GET", "/a?b\x00c", [("Host", "a.example")], None, ("a.example",), True, False),
    ("GET\n", "/a", [("Host", "a.example")], None, ("a.example",), True, False),
    ("GET", "/a%2f", [("Host", "a.example")], None, ("a.example",), True, False),
    ("GET", "ftp://a.example/", [("Host", "a.example")], None, ("a.example",), True, False),
]


@pytest.mark.parametrize(("method", "target", "headers", "sni", "names", "agree", "complete"), HEADS)
def test_a_request_names_one_target(
    *,
    method: str,
    target: str,
    headers: list[tuple[str, str]],
    sni: str | None,
    names: tuple[str, ...],
    agree: bool,
    complete: bool,
) -> None:
    """Host, absolute URL and SNI must say the same; what can be read in two ways is not complete."""
    head = RequestHead(method=method, target=target, headers=headers, sni=sni, connection=CONNECTION)
    action = http_action(head, principal=None, run=Run())
    assert (names, agree, complete) == (action.target.names, action.facts["target.names_agree"], action.complete)


@given(st.text(max_size=20), st.text(max_size=40), st.lists(st.tuples(st.text(max_size=12), st.text(max_size=20)), max_size=4))
def test_no_request_raises(method: str, target: str, headers: list[tuple[str, str]]) -> None:
    """Whatever an agent sends becomes an action; what cannot be read is among its problems."""
    head = RequestHead(method=method, target=target, headers=[*headers, ("Host", target)], connection=CONNECTION)
    action = http_action(head, principal=Principal(name="ann"), run=Run())
    assert action.path is None or action.path.startswith("/")
    assert all(name == normal_host(f"[{name}]" if ":" in name else name) for name in action.target.names if name != "?")
