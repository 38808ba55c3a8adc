"""Loading of policies: all that is wrong is told at once, with its place, and nothing else is ever raised."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.enforcer.policy import shipped
from capd.enforcer.policy.directory import load_policy
from capd.enforcer.policy.policy import read_policy, shipped_document
from capd.enforcer.policy.policy_set import PolicySet
from capd.enforcer.policy.policy_stamp import stamp
from capd.enforcer.policy.problem import PolicyError, Problem
from capd.enforcer.policy.protocol import PROTOCOLS
from capd.enforcer.policy.rule_reading import APPROVE_KEYS, RULE_KEYS
from tests.enforcer.policies import action, policy

ALLOW = "rules:\n  - id: a\n    match: {hosts: [a.example]}\n    then: allow\n"


def refused(*texts: str) -> list[str]:
    """Give what is wrong with a policy, without the hint how to mend it."""
    with pytest.raises(PolicyError) as caught:
        policy(*texts)
    return str(caught.value).splitlines()


RULES = [
    ("then: alow", "3:11: this must be one of deny, approve, mask, inject, limit, allow, log"),
    ("then: deny\n    hots: [a]", "4:5: no such key: 'hots'; there are id, description,"),
    ("then: deny\n    macth: {hosts: a.b}", "4:5: no such key: 'macth'; did you mean 'match'?"),
    ("then: deny\n    then: allow", "4:5: 'then' stands there twice; before in line 3"),
    ("match: {hosts: a.b}", "2:5: 'then' is missing"),
    ("then: allow\n    match: {hosts: []}", "4:20: this list is empty: it matches nothing"),
    ("then: allow\n    match: {hosts: [127.1]}", "4:21: '127.1' is a number that some take for an address"),
    ("then: allow\n    match: {principals: [arn:aws]}", "4:26: 'arn:aws': before the colon stands what kind it is"),
    ("then: allow\n    match: {ports: [0]}", "4:21: '0' is no range of ports"),
    ("then: allow\n    match: {ports: [9-1]}", "4:21: '9-1' is no range of ports"),
    ("then: allow\n    match: {addresses: [10.0.0.1/8]}", "4:25: '10.0.0.1/8' is no address and no network"),
    ("then: allow\n    match: {addresses: ['::ffff:10.0.0.1']}", "4:25: '::ffff:10.0.0.1' is IPv4 written as IPv6"),
    ("then: allow\n    match: {protocols: [oracle]}", "4:25: there is no protocol 'oracle'"),
    ("then: allow\n    match: {methods: [get]}", "4:23: 'get' is no method"),
    ("then: allow\n    match: {paths: [v1]}", "4:21: 'v1' never matches: a path begins with /"),
    ("then: allow\n    match: {paths: [/a/../b]}", "4:21: '/a/../b' never matches: paths are judged decoded"),
    ("then: allow\n    match: {paths: [/a%20b]}", "4:21: '/a%20b' never matches"),
    ("then: allow\n    match: {path_regex: '(a'}", "4:25: '(a' is no pattern: unclosed group"),
    ("then: allow\n    match: {path_regex: '(a)\\1'}", "4:25: '(a)\\\\1' is no pattern"),
    ("then: allow\n    match: {effects: [kill]}", "4:23: there is no effect 'kill'"),
    ("then: allow\n    match: {facts: {x: true}}", "4:12: there is no fact 'x'"),
    ("then: allow\n    match: {facts: {sql.has_where: yes}}", "4:36: this must be true or false"),
    ("then: allow\n    match: {protocols: tcp, methods: GET}", "4:12: this never matches: no message of tcp has methods"),
    (
        "then: allow\n    match: {commands: SELECT, methods: GET}",
        "4:12: this never matches: no message of any protocol has commands, methods",
    ),
    (
        "then: allow\n    match: {protocols: http, facts: {sql.has_where: true}}",
        "4:12: this never matches: no message of http has facts",
    ),
    ("then: allow\n    match: {tls: passthrough, methods: GET}", "4:12: this asks for what a message says"),
    ("then: allow\n    match: {tls: passthrough}\n    when: http.method == 'GET'", "4:12: this asks for what a message says"),
    ("then: allow\n    reason: no", "4:13: 'reason' means nothing where the rule's effect is allow"),
    ("then: deny\n    approve: {quorum: 2}", "4:14: 'approve' means nothing where the rule's effect is deny"),
    ("then: deny\n    accept_incomplete: true", "4:24: 'accept_incomplete' means nothing"),
    (
        "then: allow\n    accept_incomplete: true\n    match: {methods: GET}",
        "4:24: what is incomplete cannot be judged by what it says",
    ),
    ("then: approve\n    approve: {hold_seconds: 56}", "4:14: its clients give up"),
    (
        "then: approve\n    approve: {hold_seconds: 601}\n    match: {protocols: postgresql}",
        "4:29: this must be a whole number from 1 to 600",
    ),
    ("then: approve\n    approve: {scope: shap}", "4:22: this must be one of once, shape, run"),
    ("then: mask\n    match: {protocols: http}", "2:5: a rule that masks says what"),
    ("then: mask\n    mask: {keys: ssn}", "2:5: capd cannot mask redis, tcp, tls"),
    ("then: mask\n    mask: {columns: ssn}\n    match: {protocols: http}", "4:11: HTTP has no columns"),
    ("then: mask\n    mask: {json_paths: 'ssn'}\n    match: {protocols: http}", "4:11: "),
    ("then: mask\n    mask: {identifiers: moon}\n    match: {protocols: http}", "4:11: no identifier 'moon'"),
    ("then: limit\n    match: {protocols: redis}", "2:5: a rule that limits says what"),
    (
        "then: limit\n    limit: {rows: 1}",
        "2:5: capd cannot limit rows of http; say `protocols` in `match`: mysql, postgresql",
    ),
    ("then: limit\n    limit: {per_minute: 5}\n    match: {protocols: http}", "2:5: capd cannot limit per_minute of http"),
    ("then: limit\n    limit: {rows: 0}\n    match: {protocols: redis}", "4:19: this must be a whole number from 1"),
    ("then: allow\n    limit: {rows: 1}", "4:12: 'limit' means nothing where the rule's effect is allow"),
    ("then: inject\n    match: {protocols: http, hosts: a.b, ports: 443}", "2:5: a rule that injects says which credential"),
    (
        "then: inject\n    inject: {credential: k, header: a}\n    match: {protocols: http, hosts: '*.a.b', ports: 443}",
        "2:5: a credential goes to named hosts only",
    ),
    (
        "then: inject\n    inject: {credential: k, header: a}\n    match: {protocols: http, hosts: a.b}",
        "2:5: a credential goes to named ports",
    ),
    (
        "then: inject\n    inject: {credential: k}\n    match: {protocols: http, hosts: a.b, ports: 1}",
        "4:13: for HTTP `inject` says",
    ),
    *(
        (f"then: inject\n    match: {{protocols: http, hosts: a.b, ports: 1}}\n    inject: {{credential: k, {keys}}}", words)
        for keys, words in (
            ("form: header", "5:13: the form header needs the name of the `header`"),
            ("form: query", "5:13: the form query needs the name of the `parameter`"),
            ("form: bearer, header: a", "5:13: 'header' means nothing where the form is bearer"),
            ("form: basic, prefix: a", "5:13: 'prefix' means nothing where the form is basic"),
            ("header: a, parameter: b", "5:13: 'parameter' means nothing where the form is header"),
            ("form: cookie", "5:35: this must be one of header, bearer, basic, query, aws-sigv4"),
            ("header: host", "5:37: 'host' is a field that capd writes by itself"),
            ("header: Transfer-Encoding", "5:37: 'Transfer-Encoding' is a field that capd writes by itself"),
            ('header: a, prefix: "b\\nc: d"', "5:48: this must be ASCII on one line"),
            ("form: query, parameter: 'a&b'", "5:53: 'a&b' is no name of a parameter"),
        )
    ),
    ("then: deny\n    when: http.method = 'GET'", "4:23: the condition: Syntax error"),
    ("then: deny\n    when: http.methd == 'GET'", "4:15: the condition: undeclared reference to 'http.methd'"),
    ('then: deny\n    when: "http.method == 1"', "4:24: the condition: found no matching overload"),
    ("then: deny\n    when: |\n      complete &&\n      http.method == 1", "6:1: the condition: found no matching overload"),
    ("then: deny\n    when: >-\n      complete &&\n      http.method == 1", "4:11: the condition: found no matching overload"),
    ("then: deny\n    when: http.method", "4:11: the condition: it is a string, not true or false"),
    ("then: deny\n    when: 1 == 2", "4:11: the condition: it can never be true"),
    ("then: deny\n    when: false && complete", "4:11: the condition: it can never be true"),
    ("then: deny\n    when: http.path.matches('(a')", "4:21: the condition: the pattern of matches() is no RE2 expression"),
    ("then: deny\n    when: http.path.matches(text)", "4:21: the condition: the pattern of matches() must be written there"),
    (
        "then: deny\n    match: {methods: GET}\n    when: http.method == 'POST'",
        "5:11: the condition can never be true for what `match`",
    ),
    (
        "then: deny\n    match: {hosts: a.b}\n    when: target.host == 'b.a'",
        "5:11: the condition can never be true for what `match`",
    ),
    (
        "then: deny\n    match: {protocols: http}\n    when: sql.command == 'DROP'",
        "5:11: the condition: messages of http have no sql.command",
    ),
]


@pytest.mark.parametrize(("text", "message"), RULES)
def test_rules_that_cannot_do_what_they_say_are_refused(text: str, message: str) -> None:
    """Each way of being wrong is told with file, line and column."""
    (found,) = refused(f"rules:\n  - id: a\n    {text}\n")
    assert found.startswith(f"0.yaml:{message}")


DOCUMENTS = [
    ("a: &x 1", "1:4: anchors and aliases are refused"),
    ("a: *x", "1:4: anchors and aliases are refused"),
    ("a: !!python/name:os.system", "1:4: tags are refused"),
    ("rules: [", "2:1: not YAML"),
    ("rules: {}", "1:8: this must be a list"),
    ("[]", "1:1: this must have keys"),
    ("text", "1:1: this must have keys"),
    ("<<: {rules: []}", "1:1: no such key: '<<'"),
    ("---\nrules: []\n---\nrules: []", "3:1: a file has one document"),
    ("? [a]\n: b", "1:3: a key is a word"),
    ("rules: " + "[" * 50, "1:20: it is nested too deeply"),
    ("scopes: [{id: a}]", "1:10: a scope says a mode, a recording level, or both"),
    (
        "scopes: [{id: a, mode: observe, match: {methods: GET}}]",
        "1:40: a scope is of whole sessions: it cannot ask for methods",
    ),
    ("passthrough: [{id: a}]", "1:15: 'hosts' is missing"),
    ("examples: [{allow: GET /}]", "1:12: 'GET /' is no action"),
    ("examples: [{allow: GET http://a/, deny: GET http://a/}]", "1:12: an example says one of allow, approve, deny"),
    ("examples: [{principal: ann}]", "1:12: an example says one of"),
]


@pytest.mark.parametrize(("text", "message"), DOCUMENTS)
def test_documents_that_are_none_are_refused(text: str, message: str) -> None:
    """What is no policy is refused with its place."""
    (found,) = refused(text)
    assert found.startswith(f"0.yaml:{message}")


@pytest.mark.parametrize("mask", ["identifiers: [card]", "formats: true", "columns: [ssn]", "keys: [pin]", "json_paths: [$.a]"])
@pytest.mark.parametrize("match", ["protocols: redis", "protocols: [redis, postgresql]", "databases: '3'", "ports: 6379"])
def test_no_mask_is_believed_to_hold_for_redis(match: str, mask: str) -> None:
    """A rule that may be about Redis and hides something is refused, whatever it hides: no answer of Redis is masked."""
    (problem, *_) = refused(f"rules:\n  - id: a\n    match: {{{match}}}\n    then: mask\n    mask: {{{mask}}}\n")
    assert "0.yaml:2:5: capd cannot mask redis" in problem


def test_all_problems_are_told_at_once() -> None:
    """Problems of several rules, keys and files come together, in the order of their places."""
    first = "rules:\n  - id: A\n    then: dny\n  - id: b\n    match: {ports: [x], hosts: [..]}\n    then: allow\n"
    second = "rules: 1\nrulez: 2\n"
    places = [line.split(": ")[0] for line in refused(first, second)]
    assert ["0.yaml:2:9", "0.yaml:3:11", "0.yaml:5:21", "0.yaml:5:33", "1.yaml:1:8", "1.yaml:2:1"] == places


SHADOWS = [
    ("match: {hosts: '*.example.com'}\n    then: deny", "match: {hosts: a.example.com, methods: GET}\n    then: allow", True),
    ("match: {hosts: '*.example.com'}\n    then: deny", "match: {hosts: example.com, methods: GET}\n    then: allow", False),
    ("match: {hosts: '*.example.com'}\n    then: deny", "match: {hosts: [a.example.com, b.org]}\n    then: allow", False),
    ("then: deny", "match: {hosts: example.com}\n    then: approve", True),
    ("then: deny\n    stage: observe", "match: {hosts: example.com}\n    then: approve", False),
    ("when: complete\n    then: deny", "match: {hosts: example.com}\n    then: approve", False),
    ("match: {paths: /v1/**}\n    then: deny", "match: {paths: [/v1, /v1/x/*]}\n    then: allow", True),
    ("match: {paths: /v1/*}\n    then: deny", "match: {paths: [/v1/x/*]}\n    then: allow", False),
    ("match: {paths: /v1/**}\n    then: deny", "match: {hosts: a.example}\n    then: allow", False),
    ("match: {ports: 1-100}\n    then: deny", "match: {ports: [7, 8-9]}\n    then: allow", True),
    ("match: {addresses: 10.0.0.0/8}\n    then: deny", "match: {addresses: [10.1.0.0/16, '::1']}\n    then: allow", False),
    (
        "match: {addresses: [10.0.0.0/8, '::/0']}\n    then: deny",
        "match: {addresses: [10.1.0.0/16, '::1']}\n    then: allow",
        True,
    ),
    ("match: {labels: {team: 'd*'}}\n    then: deny", "match: {labels: {team: data, x: y}}\n    then: allow", True),
    ("match: {labels: {team: 'd*', x: z}}\n    then: deny", "match: {labels: {team: data}}\n    then: allow", False),
    ("match: {principals: 'a*'}\n    then: approve", "match: {principals: ann}\n    then: allow", True),
    ("match: {principals: 'u*'}\n    then: approve", "match: {principals: 'user:ann'}\n    then: allow", False),
    ("match: {principals: '*:ann'}\n    then: approve", "match: {principals: 'user:ann'}\n    then: allow", True),
    (
        "match: {principals: 'a*'}\n    then: approve",
        "match: {principals: ann, protocols: http}\n    then: mask\n    mask: {keys: x}",
        False,
    ),
    ("match: {protocols: [http, tcp]}\n    then: deny", "match: {methods: GET}\n    then: allow", True),
    ("match: {protocols: postgresql}\n    then: deny", "match: {methods: GET}\n    then: allow", False),
    ("match: {facts: {sql.has_where: false}}\n    then: deny", "match: {commands: DELETE}\n    then: allow", False),
    ("then: deny", "match: {hosts: example.com}\n    then: log", False),
]


@pytest.mark.parametrize(("strong", "weak", "dead"), SHADOWS)
def test_rules_in_a_shadow_are_refused(strong: str, weak: str, dead: bool) -> None:
    """A rule that another one always beats is refused, in either order; one that could come about is not."""
    for first, second in ((strong, weak), (weak, strong)):
        names = ("strong", "weak") if first == strong else ("weak", "strong")
        text = f"rules:\n  - id: {names[0]}\n    {first}\n  - id: {names[1]}\n    {second}\n"
        if not dead:
            policy(text)
            continue
        (found,) = refused(text)
        assert "'weak' never does what it says: 'strong'" in found


@pytest.mark.parametrize("where", ["addresses: 169.254.169.254", "hosts: metadata.google.internal", "hosts: 'fd00:ec2::254'"])
@pytest.mark.parametrize("effect", ["allow", "approve"])
def test_metadata_of_clouds_cannot_be_opened(where: str, effect: str) -> None:
    """A rule that would allow the machine's credentials, or have them approved, is refused: it would never do so."""
    (found,) = refused(f"rules:\n  - id: a\n    match: {{{where}}}\n    then: {effect}\n")
    assert "'capd:cloud-metadata-" in found


METADATA = [
    ("GET http://169.254.169.254/latest/meta-data/", None),
    ("GET http://metadata.google.internal/", None),
    ("GET http://[::ffff:a9fe:a9fe]/", None),
    ("GET http://[64:ff9b::a9fe:a9fe]/", None),
    ("GET http://2852039166/", None),
    ("GET http://innocent.example/", "169.254.169.254"),
    ("GET http://innocent.example/", "2002:a9fe:a9fe::1"),
    ("connect innocent.example:80", "fd00:ec2::254"),
]


@pytest.mark.parametrize(("text", "where"), METADATA)
def test_metadata_of_clouds_is_denied_by_any_name(text: str, where: str | None) -> None:
    """Whatever a metadata service is called, and whatever is allowed, it is denied."""
    everything = policy("rules:\n  - id: a\n    then: allow\n    accept_incomplete: true\n")
    decision = everything.decide(action(text, where=where))
    assert ("deny", True) == (decision.outcome, any(rule.startswith(shipped.PREFIX) for rule in decision.carried_out.rules))


def test_rules_where_tls_is_passed_through_are_refused() -> None:
    """A rule about what messages say is refused for hosts whose TLS capd does not open, and one about connections is not."""
    passed = "passthrough:\n  - {id: p, hosts: ['*.bank.example'], ports: 443}\n"
    rule = "rules:\n  - id: a\n    match: {hosts: a.bank.example, ports: 443METHODS}\n    then: allow\n"
    (found,) = refused(passed + rule.replace("METHODS", ", methods: GET"))
    assert "'a' asks for what messages say, but TLS to its hosts is passed through" in found
    loaded = policy(passed + rule.replace("METHODS", ""))
    assert loaded.passes_through(action("connect a.bank.example:443").target)
    assert not loaded.passes_through(action("connect a.bank.example:5432").target)


def test_an_id_is_used_once() -> None:
    """Two rules of one name are refused over all files: a decision could not say which it was."""
    assert ["1.yaml:2:9: there is another rule 'a': 0.yaml:2:9"] == refused(ALLOW, ALLOW)


def test_names_that_yaml_takes_for_something_else_are_names() -> None:
    """`no`, `on`, `1e3` and `0x1` are what they look like where a name is expected."""
    text = "rules:\n  - id: a\n    match: {labels: {country: no, switch: [on, 1e3, 0x1]}}\n    then: allow\n"
    labels = {"country": "no", "switch": "1e3"}
    assert "allow" == policy(text).decide(action("GET http://a.example/", labels=labels)).outcome


VERSIONS = [
    ("# a comment\n" + ALLOW, True),
    ("rules:\n  - {then: allow, description: why, id: a, match: {hosts: a.example}}\n", True),
    (ALLOW + "examples:\n  - allow: GET http://a.example/\n", True),
    (ALLOW.replace("allow", "log"), False),
    (ALLOW.replace("a.example", "b.example"), False),
    (ALLOW.replace("id: a", "id: b"), False),
    (ALLOW + "    stage: observe\n", False),
    (ALLOW + "    when: complete\n", False),
    (ALLOW + "    accept_incomplete: true\n", False),
    (ALLOW + "scopes:\n  - {id: s, mode: observe}\n", False),
    (ALLOW + "passthrough:\n  - {id: s, hosts: x.example}\n", False),
]


@pytest.mark.parametrize(("text", "same"), VERSIONS)
def test_the_version_is_of_what_decides(text: str, same: bool) -> None:
    """A policy has another version exactly when it could decide otherwise."""
    assert same is (policy(ALLOW).version == policy(text).version)


def test_the_version_does_not_depend_on_files() -> None:
    """Rules in one file or in two, in any order, are one policy."""
    other = ALLOW.replace("id: a", "id: b").replace("a.example", "b.example")
    both = ALLOW + other.removeprefix("rules:\n")
    assert 1 == len({policy(*texts).version for texts in ([both], [ALLOW, other], [other, ALLOW])})


def test_a_refused_policy_leaves_the_one_in_force(tmp_path: Path) -> None:
    """A reload takes a policy whole, or keeps the one before, and says so."""
    held = PolicySet(lambda: load_policy(tmp_path))
    assert held.reload().words().startswith("the policy was refused for 1 problem; no policy is in force: everything is denied")
    (tmp_path / "50-agents.yaml").write_text(ALLOW)
    first = held.reload()
    assert (True, held.current is not None) == (first.changed, True)
    (tmp_path / "60-more.yaml").write_text("rules:\n  - id: b\n    then: alow\n")
    refusal = held.reload()
    assert (False, first.now) == (refusal.changed, refusal.now)
    assert refusal.words() == f"the policy was refused for 1 problem; policy {str(first.now)[:12]} stays in force"
    assert held.current is not None
    assert "allow" == held.current.decide(action("GET http://a.example/")).outcome
    (tmp_path / "60-more.yaml").write_text("rules:\n  - id: b\n    then: deny\n    when: complete\n")
    assert held.reload().changed
    assert "deny" == held.current.decide(action("GET http://a.example/")).outcome


FILES: list[tuple[dict[str, bytes], str]] = [
    ({}, "there is no policy: no file *.yaml; docs/policy.md has one to begin with"),
    ({"a.txt": b"", ".b.yaml": b""}, "there is no policy: no file *.yaml"),
    ({"a.yaml": b"\xff"}, "a.yaml:1:1: this is not UTF-8"),
    ({"a.yaml": b"#" * (4 << 20) + b"#"}, "a.yaml:1:1: cannot be read"),
]


@pytest.mark.parametrize(("files", "message"), FILES)
def test_a_directory_that_cannot_be_read_is_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    """Files that are missing, too large or no text are problems like any other."""
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path)
    assert message in str(caught.value)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """A directory, a link to nothing and a pipe in the place of a file are refused, and nobody waits for them."""
    (tmp_path / "a.yaml").mkdir()
    (tmp_path / "b.yaml").symlink_to(tmp_path / "nothing")
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path)
    assert 2 == len(caught.value.problems)


def test_others_may_not_write_a_policy(tmp_path: Path) -> None:
    """Where it is asked, files and directory must belong to those who may say what agents may do."""
    file = tmp_path / "a.yaml"
    file.write_text(ALLOW)
    mine = frozenset({os.geteuid()})
    tmp_path.chmod(0o755)
    for mode, count in ((0o644, 0), (0o664, 1), (0o646, 1)):
        file.chmod(mode)
        assert count == len(unguarded(tmp_path, mine))
    tmp_path.chmod(0o777)
    assert [f"{tmp_path}", f"{file}"] == [problem.place.file for problem in unguarded(tmp_path, mine)]
    assert 2 == len(unguarded(tmp_path, frozenset({os.geteuid() + 1})))
    assert [] == unguarded(tmp_path, None)


def unguarded(directory: Path, owners: frozenset[int] | None) -> list[Problem]:
    """Give what is wrong with a directory."""
    try:
        load_policy(directory, owners=owners)
    except PolicyError as error:
        return list(error.problems)
    return []


def test_an_empty_policy_denies() -> None:
    """A policy without rules can be used: it denies everything."""
    assert "deny" == policy("").decide(action("GET http://a.example/")).outcome


def test_rules_that_come_with_capd_are_sound() -> None:
    """The rules of capd's own are read by the same reader, and none is lost."""
    assert 2 == len(shipped_document().rules)


WORDS = st.sampled_from(
    [
        "rules",
        "scopes",
        "examples",
        "passthrough",
        *RULE_KEYS,
        *APPROVE_KEYS,
        "hosts",
        "methods",
        "paths",
        "labels",
        "ports",
        "facts",
        "deny",
        "allow",
        "GET",
        "/v1/**",
        "*.example.com",
        "443",
        "true",
        "http",
        "tcp",
        "complete",
        "GET http://a.example/",
        "",
        "a b",
        "\x85",
        *PROTOCOLS,
    ]
)
TREES: st.SearchStrategy[Any] = st.recursive(
    WORDS | st.integers() | st.booleans() | st.none() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=200)
@given(
    TREES.map(lambda tree: yaml.safe_dump(tree, allow_unicode=True).encode())
    | st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
)
def test_loading_raises_nothing_but_its_error(content: bytes) -> None:
    """Any bytes are a policy, or a PolicyError with at least one problem that has a place."""
    try:
        read_policy({"x.yaml": content})
    except PolicyError as error:
        problems = list(error.problems)
    else:
        return
    assert problems != []
    assert all(problem.place.line >= 1 and problem.message for problem in problems)


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from(sorted(RULE_KEYS)), TREES, max_size=6),
    st.dictionaries(st.sampled_from(["hosts", "ports", "methods", "effects", "facts", "labels", "paths"]), TREES, max_size=3),
)
def test_no_rule_raises_anything_but_the_error(rule: dict[str, Any], match: dict[str, Any]) -> None:
    """Whatever stands at the keys of a rule, it is read, or refused."""
    text = yaml.safe_dump({"rules": [{"id": "a", "then": "deny", **rule, "match": match}]}, allow_unicode=True)
    try:
        read_policy({"x.yaml": text.encode()})
    except PolicyError as error:
        problems = list(error.problems)
    else:
        return
    assert problems != []


def test_rights_that_are_mended_are_noticed(tmp_path: Path) -> None:
    """A policy that was refused for its rights is looked at again when these change; chmod changes neither size nor time."""
    file = tmp_path / "policy.yaml"
    file.write_text("rules: []\n", encoding="ascii")
    before = stamp(tmp_path)
    assert before == stamp(tmp_path)
    for path, mode in ((file, 0o606), (tmp_path, 0o777)):
        path.chmod(mode)
        assert stamp(tmp_path) != before, path
        before = stamp(tmp_path)
