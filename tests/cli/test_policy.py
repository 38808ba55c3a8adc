"""`capd policy`: what it prints and with which status it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capd.cli.main import capd
from capd.recording.record import Kind, Value
from tests.cli.recorded import REQUEST, RESPONSE, START_NS, Conversation, Recording, run_records
from tests.cli.spoken import over_http, over_terminal
from tests.cli.test_json import documented

RULES = """
rules:
  - {id: chat, match: {hosts: api.example.org, methods: POST, paths: /v1/chat}, then: allow}
  - {id: pictures, match: {hosts: api.example.org, methods: GET}, then: allow}
  - {id: database, match: {protocols: postgresql, effects: [drop, delete]}, then: approve, approve: {hold_seconds: 300}}
  - {id: terminal, match: {protocols: tcp, ports: 23}, then: allow}
examples:
  - {allow: POST https://api.example.org/v1/chat, by: chat}
  - {deny: POST https://api.example.org/v2/chat}
  - {approve: sql db.internal DROP TABLE customers}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Give a directory with a policy."""
    directory = tmp_path / "policy.d"
    directory.mkdir()
    (directory / "50-agents.yaml").write_text(RULES)
    return directory


def run(*arguments: object, text: str | None = None) -> Result:
    """Run `capd policy`, as the command line would."""
    return CliRunner().invoke(capd, ["policy", *map(str, arguments)], standalone_mode=False, input=text)


def test_check_says_what_can_be_used(rules: Path) -> None:
    """A policy that can be used is counted, with its version."""
    done = run("check", rules)
    assert (0, True) == (done.return_value, "4 rules, 0 scopes, 0 passthrough, 3 examples" in done.stdout)
    assert re.search(r"^version [0-9a-f]{64}$", done.stdout, re.MULTILINE)


def test_check_lists_all_that_is_wrong(rules: Path) -> None:
    """A policy that cannot be used ends with status 2 and every problem, as text and as JSON."""
    (rules / "60.yaml").write_text("rules:\n  - {id: a, then: alow}\n  - {id: B, then: deny}\n")
    error = run("check", rules).exception
    assert (2, 2) == (getattr(error, "exit_status", None), len(str(error).splitlines()))
    told = json.loads(run("check", rules, "--json").stdout)
    assert [(2, 19), (3, 10)] == [(problem["line"], problem["column"]) for problem in told["problems"]]


def test_the_configuration_names_the_directory(rules: Path, tmp_path: Path) -> None:
    """Without a directory the policy is the one that `policy_dir` of the configuration names."""
    configuration = tmp_path / "capd.toml"
    configuration.write_text(f'policy_dir = "{rules}"\n')
    assert "4 rules" in run("check", "--config", configuration).stdout


def test_credentials_that_are_not_configured_are_told(rules: Path, tmp_path: Path) -> None:
    """A rule whose credential the configuration does not have can be used, and is told of; of a draft nobody knows."""
    (rules / "60.yaml").write_text(
        "rules:\n  - id: key\n    match: {protocols: http, hosts: a.test, ports: 443}\n"
        "    then: inject\n    inject: {credential: llm-key, form: bearer}\n"
    )
    configuration = tmp_path / "capd.toml"
    configuration.write_text(f'policy_dir = "{rules}"\n')
    words = "key: no credential llm-key is configured"
    assert words in run("check", "--config", configuration).stdout
    told = json.loads(run("check", "--config", configuration, "--json").stdout)
    assert [{"rule": "key", "credential": "llm-key"}] == told["unknown_credentials"]
    assert words not in run("check", rules).stdout
    configuration.write_text(
        f'policy_dir = "{rules}"\n[credentials.llm-key]\nfile = "/etc/x"\nhosts = ["a.test"]\nports = [443]\n'
    )
    assert words not in run("check", "--config", configuration).stdout


UNBOUND = [
    ("http", "a.test", 443, "", None),
    ("http", "b.test", 443, "", "the credential it is not for the host b.test"),
    ("http", "a.test", 8443, "", "the credential it is not for port 8443"),
    ("http", "a.test", 443, 'databases = ["shop"]', "the credential it is for databases"),
    ("postgresql", "a.test", 443, 'databases = ["shop"]', None),
]


@pytest.mark.parametrize(("protocol", "host", "port", "more", "problem"), UNBOUND)
def test_credentials_that_are_not_for_their_rule(
    rules: Path, tmp_path: Path, *, protocol: str, host: str, port: int, more: str, problem: str | None
) -> None:
    """A rule that would put a credential where that may not go is told of: all that it matches there will be denied."""
    form = ", form: bearer" if protocol == "http" else ""
    (rules / "60.yaml").write_text(
        f"rules:\n  - id: key\n    match: {{protocols: {protocol}, hosts: {host}, ports: {port}}}\n"
        f"    then: inject\n    inject: {{credential: it{form}}}\n"
    )
    configuration = tmp_path / "capd.toml"
    configuration.write_text(
        f'policy_dir = "{rules}"\n[credentials.it]\nfile = "/etc/x"\nhosts = ["a.test"]\nports = [443]\n{more}\n'
    )
    told = json.loads(run("check", "--config", configuration, "--json").stdout)["unbound_credentials"]
    assert ([] if problem is None else [{"rule": "key", "problem": problem}]) == told
    assert (problem is not None) == (f"key: {problem}, so" in run("check", "--config", configuration).stdout)


def test_examples_come_out(rules: Path) -> None:
    """`test` ends with 0 when all examples come out, with 1 when one does not, which it shows with its place and reason."""
    assert (0, "all 3 examples come out as they must\n") == ((done := run("test", rules)).return_value, done.stdout)
    (rules / "60.yaml").write_text("examples:\n  - {deny: GET https://api.example.org/logo.png}\n")
    done = run("test", rules)
    assert 1 == done.return_value
    assert "60.yaml:2:5: GET https://api.example.org/logo.png" in done.stdout
    assert "must be denied, is allowed by pictures" in done.stdout
    (rules / "60.yaml").unlink()
    (rules / "50-agents.yaml").write_text("rules: []\n")
    assert 1 == run("test", rules).return_value


EXPLAINED = [
    (["--http", "POST https://api.example.org/v1/chat"], 0, ["allowed  rule chat allows it", "allow   chat  matches"]),
    (["--http", "PUT https://api.example.org/v1/chat"], 1, ["denied  no rule allows this", "chat  does not match: methods"]),
    (
        ["--http", "GET https://api.example.org/a%5cb"],
        1,
        ["not complete: the path has an encoded backslash", "counts as not matching"],
    ),
    (
        ["--http", "GET http://x.org/", "--address", "169.254.169.254"],
        1,
        ["denied  the credentials of this machine are not for agents"],
    ),
    (
        ["--sql", "DROP TABLE x", "--target", "db"],
        1,
        ["held for approval", "database: held for 300 s, until 1 approver said yes", "effects drop", "write ?.x"],
    ),
    (["--connect", "lab.example.org:23"], 0, ["allowed  rule terminal allows it", "rules for other protocols or hosts"]),
    (["--connect", "lab.example.org:23", "--all"], 0, ["chat  does not match: protocols, hosts"]),
]


@pytest.mark.parametrize(("arguments", "status", "words"), EXPLAINED)
def test_explain_says_why(rules: Path, arguments: list[str], status: int, words: list[str]) -> None:
    """An explanation has the decision, and each rule with what of it does not match; its status says whether it is allowed."""
    done = run("explain", *arguments, "--policy", rules)
    assert (status, []) == (done.return_value, [one for one in words if one not in done.stdout])


def test_explain_takes_what_it_prints(rules: Path, tmp_path: Path) -> None:
    """The action that is printed as JSON is taken from a file, and from standard input, and decided alike."""
    first = json.loads(run("explain", "--http", "POST https://api.example.org/v1/chat", "--policy", rules, "--json").stdout)
    written = json.dumps(first["action"])
    (tmp_path / "action.json").write_text(written)
    again = run("explain", "--action", tmp_path / "action.json", "--policy", rules, "--json")
    piped = run("explain", "--action", "-", "--policy", rules, "--json", text=written)
    assert [first, first] == [json.loads(again.stdout), json.loads(piped.stdout)]


APP = ("--database", "shop", "--user", "app")
DATABASES = """
rules:
  - {id: shop, match: {hosts: db, databases: shop, users: app}, then: allow}
  - {id: cards, match: {resources: shop.cards}, then: deny}
"""


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        (0, ["--open", "db", *APP]),
        (0, ["--open", "db:1", "--protocol", "redis"]),
        (1, ["--open", "db", "--protocol", "mysql", "--user", "root"]),
        (0, ["--sql", "SELECT 1", "--target", "db", "--protocol", "mysql", *APP]),
        (1, ["--sql", "SELECT 1", "--target", "db", "--protocol", "mysql", *APP[:2]]),
        (1, ["--sql", "SELECT * FROM `shop`.`Cards`", "--target", "db", "--protocol", "mysql", *APP]),
        (0, ["--sql", "SELECT * FROM public.x", "--target", "db", *APP]),
        (0, ["--sql", "GET token:1", "--target", "db", "--protocol", "redis", *APP]),
        (1, ["--sql", "GET shop.cards", "--target", "db", "--protocol", "redis", *APP]),
        (1, ["--sql", "MGET a shop.cards", "--target", "db", "--protocol", "redis", *APP]),
        (1, ["--sql", "KEYS *", "--target", "db", "--protocol", "redis", *APP]),
    ],
)
def test_explain_of_databases(tmp_path: Path, status: int, arguments: list[str]) -> None:
    """Openings and statements of each protocol are explained, by what is said to be known of their session."""
    (tmp_path / "rules.yaml").write_text(DATABASES)
    done = run("explain", *arguments, "--policy", tmp_path, "--json")
    told = json.loads(done.stdout)
    assert (status, ["allow", "deny"][status]) == (done.return_value, told["decision"]["outcome"])
    protocol = arguments[arguments.index("--protocol") + 1] if "--protocol" in arguments else "postgresql"
    assert (protocol, "--open" in arguments) == (told["action"]["protocol"], told["action"]["operation"] == "connect")


USAGE = [
    [],
    ["--http", "GET https://a/", "--connect", "a:1"],
    ["--http", "https://a/"],
    ["--sql", "SELECT 1"],
    ["--sql", "SELECT 1", "--open", "db"],
    ["--open", "db:x"],
    ["--sql", "GET 'a", "--target", "cache", "--protocol", "redis"],
    ["--connect", "a"],
    ["--http", "GET https://a/", "--label", "x"],
    ["--http", "GET https://a/", "--address", "x"],
]


@pytest.mark.parametrize("arguments", USAGE)
def test_wrong_use_is_corrected(rules: Path, arguments: list[str]) -> None:
    """Wrong use says what would have been right."""
    error = run("explain", *arguments, "--policy", rules).exception
    assert "try: capd policy explain" in getattr(error, "hint", "")


def replay(recording: Recording, rules: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Replay a policy; give status and JSON."""
    done = run("replay", "--policy", rules, "--state-dir", recording.state_dir, "--json", *arguments)
    return done.return_value, json.loads(done.stdout)


def test_replay_says_what_would_have_been_stopped(recorded: Recording, rules: Path) -> None:
    """Each request, opening and statement of the recording is judged; a statement by what it does."""
    status, told = replay(recorded, rules)
    assert (1, 3, 1, 3) == (status, told["allowed"], told["held"], told["denied"])
    assert (2, 1, 0) == (told["sessions"], told["partial_sessions"], told["incomplete"])
    stopped = [(one["operation"], one["outcome"], one["rules"]) for one in told["messages"]]
    assert [
        ("SELECT", "deny", []),
        ("INSERT", "deny", []),
        ("DROP", "approve", ["database"]),
        ("DELETE", "deny", []),
    ] == stopped
    denied = told["messages"][-1]
    assert ("DELETE /v1/customers/42 HTTP/1.1", str(over_http().id)) == (denied["summary"], denied["session"])


def test_replay_for_people_groups_what_is_alike(recorded: Recording, rules: Path) -> None:
    """What is alike is one entry with a count and the command that shows it; nothing recorded steers the terminal."""
    done = run("replay", "--policy", rules, "--state-dir", recorded.state_dir)
    assert re.search(
        r"1 x denied +http api.example.org:443  DELETE /v1/customers/42 HTTP/1.1\n +no rule allows this\n +capd replay ",
        done.stdout,
    )
    assert "3 denied, 1 held for approval, 3 allowed  in 2 sessions" in done.stdout
    assert "1 session not recorded completely: what is missing was not judged" in done.stdout
    assert [] == re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout)


def test_replay_keeps_within_what_is_asked(recorded: Recording, rules: Path) -> None:
    """Time, principal, protocol and number bound what is judged and printed, and what is left out is counted."""
    assert (0, 0) == ((found := replay(recorded, rules, "--principal", "bob"))[0], found[1]["sessions"])
    assert 1 == replay(recorded, rules, "--protocol", "postgresql")[1]["held"]
    assert 0 == replay(recorded, rules, "--since", "2026-11-21T07:25:00Z")[1]["denied"]
    limited = replay(recorded, rules, "--limit", "1", "--all")[1]
    assert (1, 6) == (len(limited["messages"]), limited["messages_left_out"])


def test_replay_judges_connections_that_are_not_decoded(recording: Recording, rules: Path) -> None:
    """Of what capd does not decode, the connection is judged."""
    recording.write([*run_records()[:5], *over_terminal().records])
    status, told = replay(recording, rules, "--all")
    assert (0, 1, [None]) == (status, told["allowed"], [one["message"] for one in told["messages"]])


def sealed(name: bytes, host: str) -> Conversation:
    """Give a TLS session that nobody could read."""
    said = Conversation(name, target=host, protocol="tls")
    said.add(Kind.MARKER, None, {"name": "protocol", "protocol": "tls"})
    return said.close("opaque", ["no plaintext"])


def test_replay_does_not_judge_what_it_cannot_read(recording: Recording, rules: Path) -> None:
    """An unread TLS session is passed over and counted, unless its connection alone decides."""
    sessions = [sealed(b"a", "api.example.org"), sealed(b"b", "pinned.example.org"), sealed(b"c", "metadata.google.internal")]
    recording.write([*run_records()[:5], *(record for said in sessions for record in said.records)])
    (rules / "60.yaml").write_text("passthrough:\n  - {id: p, hosts: pinned.example.org}\n")
    _, told = replay(recording, rules)
    assert (2, 2, [1]) == (told["sessions"], told["denied"], list(told["passed_over"].values()))
    assert [["capd:cloud-metadata-name"], []] == sorted((one["rules"] for one in told["messages"]), reverse=True)


def request(target: str, *, masked: tuple[int, int] | None = None, name: bytes = b"one") -> Conversation:
    """Give a conversation of one request, of which a part may be masked."""
    said = Conversation(name, started_ns=START_NS)
    said.tls()
    said.say(REQUEST, f"GET {target} HTTP/1.1\r\nHost: api.example.org\r\n\r\n".encode())
    if masked is not None:
        start, length = masked
        body: dict[str, Value] = {"layer": "application", "kind": "secret", "rule": "x", "places": [[start, length]]}
        said.add(Kind.MASKED, REQUEST, body)
        said.records.insert(2, said.records.pop())
    said.say(RESPONSE, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    return said.close()


MASKED = [
    (None, "allow", []),
    ((5, 3), "deny", ["the recording hides a part of it"]),
    ((10, 3), "allow", []),
    ((30, 8), "allow", []),
]


@pytest.mark.parametrize(("masked", "outcome", "problems"), MASKED)
def test_replay_does_not_guess_what_was_masked(
    recording: Recording, rules: Path, masked: tuple[int, int] | None, outcome: str, problems: list[str]
) -> None:
    """A request whose path was hidden is not complete, so that nothing allows it; a hidden query or header is no harm."""
    recording.write([*run_records()[:5], *request("/a/b?c=secret", masked=masked).records])
    (found,) = replay(recording, rules, "--all")[1]["messages"]
    assert (outcome, problems) == (found["outcome"], found["problems"])


def test_json_is_documented(recorded: Recording, rules: Path) -> None:
    """What `capd policy` prints as JSON stands in docs/json.md, and what stands there is printed."""
    (rules / "60.yaml").write_text("rules: [{id: A, then: deny}]\n")
    problem = json.loads(run("check", rules, "--json").stdout)["problems"][0]
    assert documented("policy problem") == set(problem)
    (rules / "60.yaml").unlink()
    assert documented("policy check") == set(json.loads(run("check", rules, "--json").stdout))
    explained = json.loads(
        run("explain", "--http", "GET https://a.example/", "--principal", "ann", "--policy", rules, "--json").stdout
    )
    assert documented("policy explain") == set(explained)
    assert documented("action") == set(explained["action"])
    assert documented("decision") == set(explained["decision"])
    assert documented("explained rule") == set(explained["rules"][0])
    tested = json.loads(run("test", rules, "--json").stdout)
    assert documented("policy test") == set(tested)
    assert documented("tried example") == set(tested["examples"][0])
    _, told = replay(recorded, rules)
    assert documented("policy replay") == set(told)
    assert documented("judged message") == set(told["messages"][0])
