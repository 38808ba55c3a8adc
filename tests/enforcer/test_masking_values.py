"""What is masked of values that were decoded already, and JSON by path, however it is cut."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.enforcer.masking.json_path import DEPTH_MAX, JsonPath, JsonScanner
from capd.enforcer.masking.place import Place, filled, joined
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.masking.values import Value, Values

VALUES = Values(Rules(Choice()))
CASES: list[tuple[Value, Value]] = [
    ("GET /?token=abcdefgh1 HTTP/1.1", "GET /?token=********* HTTP/1.1"),
    ([["Authorization", "Bearer x"], ["Accept", "*/*"]], [["Authorization", "Bearer *"], ["Accept", "*/*"]]),
    (["sk-ant-api03-" + "Ab9_" * 8, "b"], ["*" * 45, "b"]),
    (
        [["Sec-WebSocket-Protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.ZXlKaGJHY2lPaUp, x"]],
        [["Sec-WebSocket-Protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.***************, x"]],
    ),
    ([["Cookie", "sid=ab; b=c"], ["Set-Cookie", "s=1; Path=/"]], [["Cookie", "sid=**; b=*"], ["Set-Cookie", "s=*; Path=/"]]),
    ({"password": "pw", "n": 3, "deep": {"api_key": 12}}, {"password": "**", "n": 3, "deep": {"api_key": "**"}}),
    (("a", None, 1.5, True, b"x"), ["a", None, 1.5, True, b"x"]),
    ("lone \udc80 surrogate password=x", "lone \udc80 surrogate password=*"),
    ({"binary": b"\xff password=x".hex()}, {"binary": b"\xff password=*".hex()}),
    ({"binary": b"\x41\x11\x11\x11\x11\x11\x11\x11".hex()}, {"binary": "4111111111111111"}),
    ({"password": {"binary": "ff00"}}, {"password": {"binary": "2a2a"}}),
    ({"binary": "no hex"}, {"binary": "no hex"}),
]
COMMANDS = [
    ("curl -u bob:pw https://a:b@h/", "curl -u bob:** https://a:*@h/"),
    ("tool --password x --db-password yy --token=abc", "tool --password * --db-password ** --token=***"),
    ("env API_KEY=abc run --password --verbose", "env API_KEY=*** run --password --verbose"),
    ("env NPM_TOKEN=abcdefgh DB_PASS=abcdefgh run", "env NPM_TOKEN=******** DB_PASS=******** run"),
    ("curl -ubob:pw --proxy-user=bob:pw -b a=b", "curl -ubob:** --proxy-user=bob:** -b ***"),
    ("curl --oauth2-bearer abc -H X-Api-Key:k", "curl --oauth2-bearer *** -H X-Api-Key:*"),
    ("sudo -E /usr/bin/mysql -uroot -ppw -P 3306 db", "sudo -E /usr/bin/mysql -uroot -p** -P 3306 db"),
    ("sshpass -p pw ssh -p 22 h", "sshpass -p ** ssh -p ** h"),
    ("redis-cli -a pw -n 1", "redis-cli -a ** -n 1"),
    ("docker login -u bob -p pw", "docker login -u bob -p **"),
    ("docker run -u 1000:1000 -p 80:80 image", "docker run -u 1000:1000 -p 80:80 image"),
    ("ldapsearch -x -w pw -b dc=a", "ldapsearch -x -w ** -b dc=a"),
    ("openssl enc -pass pass:pw -k pw", "openssl enc -pass ******* -k **"),
    ("openssl rsa -passin pass:pw", "openssl rsa -passin pass:**"),
    ("aws configure set aws_secret_access_key pw", "aws configure set aws_secret_access_key **"),
    ("smbclient //h/s -U bob%pw", "smbclient //h/s -U bob%**"),
    ("tool --auth bob:pw --db.password pw", "tool --auth bob:** --db.password **"),
    ("git clone https://abcdefghijklmnopqrst0123@h/x", "git clone https://************************@h/x"),
    ("grep password file", "grep password file"),
    ("curl -sSu bob:pw -sb a=b -HX-Api-Key:k h", "curl -sSu bob:** -sb *** -HX-Api-Key:* h"),
    ("curl -E c.pem:pw --tlspassword pw -so f h:80", "curl -E c.pem:** --tlspassword ** -so f h:80"),
    ("sudo -u bob timeout 5s mysql -ppw -h h", "sudo -u bob timeout 5s mysql -p** -h h"),
    ("az login -u bob -p pw", "az login -u bob -p **"),
    ("az vm list -p x", "az vm list -p x"),
    ("kubectl create secret generic s --from-literal a=pw", "kubectl create secret generic s --from-literal a=**"),
    ("redis-cli -h h AUTH bob pw", "redis-cli -h h AUTH bob **"),
    ("redis-cli CONFIG SET requirepass pw", "redis-cli CONFIG SET requirepass **"),
    ("redis-cli GET k", "redis-cli GET k"),
    ("vault login pw", "vault login **"),
    ("vault kv put secret/x a=pw b=pw", "vault kv put secret/x a=** b=**"),
    ("vault kv get secret/x", "vault kv get secret/x"),
    ("htpasswd -nb bob pw", "htpasswd -nb bob **"),
    ("ldapsearch -wpw -b dc=a", "ldapsearch -w** -b dc=a"),
    ("npm config set //h/:_authToken pw", "npm config set //h/:_authToken **"),
    ("npm config set registry h", "npm config set registry h"),
    ("git config user.password pw", "git config user.password **"),
    ("dotnet user-secrets set ApiKey pw", "dotnet user-secrets set ApiKey **"),
    ("tailscale up --authkey=pw --ssh", "tailscale up --authkey=** --ssh"),
    ("java -Dapi.token=pw -jar x", "java -Dapi.token=** -jar x"),
    ("gh secret set X --body pw", "gh secret set X --body **"),
    ("gh pr create --body text", "gh pr create --body text"),
    ("ssh-keygen -t ed25519 -N pw -f k", "ssh-keygen -t ed25519 -N ** -f k"),
    ("sudo usermod -p pw bob", "sudo usermod -p ** bob"),
    ("sudo rabbitmqctl add_user bob pw", "sudo rabbitmqctl add_user bob **"),
    ("grep -r config password file", "grep -r config password file"),
]


@pytest.mark.parametrize(("value", "shown"), CASES)
def test_values(value: Value, shown: Value) -> None:
    """What a rule covers is hidden in texts, header pairs and members; everything else stays as it is."""
    assert shown == VALUES.value(value)


@pytest.mark.parametrize(("argv", "shown"), COMMANDS)
def test_arguments(argv: str, shown: str) -> None:
    """A password in a command is hidden, also where it is an argument by itself."""
    assert shown.split() == VALUES.arguments(argv.split())


def test_whole_characters_are_hidden() -> None:
    """What is hidden of a text is counted in bytes; it may end inside of a character, and the text is one all the same."""
    own = Values(Rules(Choice(patterns={"own": "id=[^ ]{5}"})))
    assert "id: *********é" == own.text("id: id=éééé")
    long = VALUES.text("-----BEGIN PRIVATE KEY-----x" + "é" * 40_000)
    assert "-----BEGIN PRIVATE KEY-----" + "*" * 65_537 + "é" * 7_232 == long


def test_deep_values_end() -> None:
    """A value nested without end is cut, not followed."""
    value: Value = "x"
    for _ in range(2_000):
        value = [value]
    VALUES.value(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "ssn", 'q"\\', "é"]), inner, max_size=4)
    ),
    max_leaves=20,
)
PATHS = ("$.a.b", "$.a[*].ssn", "$..ssn", "$.*.a[1]", "$['q\"\\']")


def expected(value: object, path: tuple[str, ...]) -> list[str]:
    """Give the scalars that a path means, as JSON texts, in order."""
    if not path:
        if isinstance(value, dict):
            return [found for item in value.values() for found in expected(item, ())]
        if isinstance(value, list):
            return [found for item in value for found in expected(item, ())]
        return [json.dumps(value)]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if path[0] != "..":
        return [found for key, item in items if path[0] in ("*", str(key)) for found in expected(item, path[1:])]
    matched = [(str(key) == path[1], item) for key, item in items]
    return [found for here, item in matched for found in expected(item, path[2:] if here else path)]


@settings(max_examples=300, deadline=None)
@given(JSON, st.sampled_from(PATHS), st.integers(0, 9), st.booleans())
def test_paths_mean_what_they_say(value: object, path_text: str, size: int, spaced: bool) -> None:
    """A path hides just the scalars that it means, however the JSON is written and cut."""
    path = JsonPath.parse(path_text)
    said = json.dumps(value, ensure_ascii=spaced, indent=1 if spaced else None).encode()
    scanner = JsonScanner((path,))
    found: list[Place] = []
    for at in range(0, len(said), size or len(said)):
        found += scanner.feed(said[at : at + (size or len(said))])
    found += scanner.feed(b"", final=True)
    hidden = [said[place.start : place.end].decode() for place in joined(found)]
    # Quotes stay: of a string only what is in between is hidden.
    texts = [json.dumps(json.loads(word), ensure_ascii=spaced) for word in expected(value, path.steps)]
    wanted = [text[1:-1] if text[0] == '"' else text for text in texts]
    assert [text for text in wanted if text] == hidden


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 9))
def test_any_bytes_pass_the_json_scanner(data: bytes, size: int) -> None:
    """What is no JSON is passed to its end."""
    scanner = JsonScanner((JsonPath.parse("$..a"),))
    for at in range(0, len(data), size):
        scanner.feed(data[at : at + size])
    scanner.feed(b"", final=True)
    assert len(data) == scanner.decided


def test_json_nested_without_end() -> None:
    """Below the limit of nesting everything is hidden that a path might mean, and memory stays bounded."""
    scanner = JsonScanner((JsonPath.parse("$..a"),))
    said = b'{"x":' * 5_000 + b'{"a": 1, "b": 2}'
    found = scanner.feed(said)
    assert b'{"a": 1, "b": 2}' != filled(said, found)[-16:]
    assert len(scanner._levels) <= DEPTH_MAX


def test_json_behind_a_gap() -> None:
    """Where bytes were lost nobody knows which member it is: what comes is hidden to the end."""
    scanner = JsonScanner((JsonPath.parse("$.a"),))
    said = b'{"b": 1, '
    found = scanner.feed(said) + scanner.gap(5)
    assert [] == found
    assert b'"********"' in filled(b'x": "12345678"}', scanner.feed(b'x": "12345678"}', final=True), len(said) + 5)


@pytest.mark.parametrize("piece", [b"\x0b,", b"\x0ca", b"[", b'"\\', b'{"a":', b" "])
def test_json_takes_linear_time(piece: bytes) -> None:
    """Sixteen times as many bytes take about sixteen times as long, also of blanks that are none in JSON."""
    seconds: list[float] = []
    for size in (20_000, 320_000):
        scanner = JsonScanner((JsonPath.parse("$.a"),))
        began = time.process_time()
        scanner.feed(piece * (size // len(piece)) + b"\x0b")
        scanner.feed(b"", final=True)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 64 * seconds[0] + 0.2
