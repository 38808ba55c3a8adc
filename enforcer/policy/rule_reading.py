"""Reads rules and scopes: their keys, and what keys go together.

What lives here: the tables of keys, and what is wrong with a single rule. What must not: how rules stand to each other
(shadows.py).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from capd.enforcer.masking.rows.column_pattern import read_pattern
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.policy.condition import ConditionError, compile_condition, never_true
from capd.enforcer.policy.fields import Key, flag, identifier, integer, known, line, one_of, parsed, read_keys, some, text
from capd.enforcer.policy.http_path import ENCODED_SLASH, ENCODED_SLASHES, ODDITIES
from capd.enforcer.policy.limit import Limit
from capd.enforcer.policy.limit_reading import LIMIT_KEYS, check_limit
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.match_reading import about, read_match
from capd.enforcer.policy.problem import Place, Problems
from capd.enforcer.policy.protocol import HOLD_SECONDS_MAX, HTTP, PROTOCOLS, SESSION_KEYS, hold_seconds_max
from capd.enforcer.policy.rule import Approval, ApprovalScope, Effect, Form, Injection, Mask, Predicates, Replace, Rule, Stage
from capd.enforcer.policy.scope import Mode, Recording, Scope
from capd.enforcer.policy.variables import names_in, names_of_messages
from capd.enforcer.policy.yaml_node import Mapping, Node, Scalar

TTL_SECONDS_MAX: Final = 86_400
"""An approval that is good for longer than a day is a rule."""
QUORUM_MAX: Final = 10
CHOICES_MAX: Final = 256
"""So many combinations of what a match leaves are tried to find a condition that can never be true."""
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
_PARAMETER: Final = re.compile(r"[A-Za-z0-9._~\[\]-]{1,64}", re.ASCII)
_NOT_INJECTED: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"}
    | {"content-encoding", "content-type", "proxy-connection", "proxy-authorization", "http2-settings", "accept-encoding"}
)
"""Fields that say where a message goes and where it ends, or that belong to a connection: capd writes them."""
_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", re.ASCII)


def _field_name(found: str) -> str:
    if _FIELD_NAME.fullmatch(found) is None:
        raise ValueError(f"{found!r} is no name of a header field")
    return found.lower()


def _injected_field(found: str) -> str:
    name = _field_name(found)
    if name in _NOT_INJECTED:
        raise ValueError(f"{found!r} is a field that capd writes by itself")
    return name


def _prefix(node: Node, problems: Problems) -> str | None:
    """Read what stands before a secret: blanks at its end count, and a line end would begin another field."""
    found = text(node, problems)
    if found is not None and not (found.isascii() and found.isprintable()):
        problems.add(node.place, "this must be ASCII on one line")
        return None
    return found


def _parameter(found: str) -> str:
    if _PARAMETER.fullmatch(found) is None:
        raise ValueError(f"{found!r} is no name of a parameter")
    return found


def _column(found: str) -> str:
    read_pattern(found)
    return found


def _credential(found: str) -> str:
    if _CREDENTIAL.fullmatch(found) is None:
        raise ValueError(f"{found!r} is no name of a credential")
    return found


_NAMES: Final = some(line)

APPROVE_KEYS: Final[dict[str, Key]] = {
    "hold_seconds": Key(
        read=integer(1, HOLD_SECONDS_MAX),
        form="1 to 55, for databases to 600",
        words="how long it waits before its client is told to come again; 55",
    ),
    "scope": Key(read=one_of(ApprovalScope), form="`once`, `shape`, `run`", words="what one approval is good for; `once`"),
    "ttl_seconds": Key(
        read=integer(1, TTL_SECONDS_MAX), form=f"1 to {TTL_SECONDS_MAX}", words="how long an approval is good; 900"
    ),
    "quorum": Key(read=integer(1, QUORUM_MAX), form=f"1 to {QUORUM_MAX}", words="how many persons must say yes; 1"),
    "groups": Key(read=_NAMES, form="names", words="groups whose members may; none: every approver"),
}
MASK_KEYS: Final[dict[str, Key]] = {
    "headers": Key(read=some(parsed(_field_name)), form="names", words="HTTP header fields"),
    "cookies": Key(read=_NAMES, form="names", words="cookies"),
    "keys": Key(read=_NAMES, form="names", words="parameters, form fields and JSON members"),
    "json_paths": Key(read=_NAMES, form="`$.user.ssn`", words="places in JSON"),
    "columns": Key(
        read=some(parsed(_column)),
        form="`ssn`, `customers.ssn`, `public.customers.ssn`",
        words="columns of databases; `*` and `?` in each part",
    ),
    "replace": Key(
        read=one_of(Replace),
        form=", ".join(f"`{one}`" for one in Replace),
        words="by what, in `columns` ([databases.md](databases.md#masking)); `null`",
    ),
    "predicates": Key(
        read=one_of(Predicates),
        form=", ".join(f"`{one}`" for one in Predicates),
        words="whether a hidden column may be compared, joined, sorted or grouped by, which tells of its values; `deny`",
    ),
    "identifiers": Key(read=_NAMES, form="`iban`, …", words="numbers with a checksum"),
    "formats": Key(
        read=flag, form="`true`, `false`", words="secrets that are known by their form: private keys, tokens; `false`"
    ),
}
INJECT_KEYS: Final[dict[str, Key]] = {
    "credential": Key(
        read=parsed(_credential), form="name", words="which, by its name in capd's store; never the secret", required=True
    ),
    "form": Key(
        read=one_of(Form),
        form=", ".join(f"`{one}`" for one in Form),
        words="how it stands in a request of HTTP; `header` where one is named",
    ),
    "header": Key(read=parsed(_injected_field), form="name", words="HTTP header field that is replaced; of `header`"),
    "prefix": Key(read=_prefix, form='`"Token "`', words="before the secret; of `header`"),
    "parameter": Key(read=parsed(_parameter), form="name", words="parameter of the query that is replaced; of `query`"),
    "cleartext": Key(
        read=flag, form="`true`, `false`", words="whether it may go without TLS, where anybody on the way can read it; `false`"
    ),
}


def _options(keys: dict[str, Key]) -> Key:
    def read(node: Node, problems: Problems) -> dict[str, object] | None:
        before = len(problems.found)
        found = read_keys(node, keys, problems)
        return found if len(problems.found) == before else None

    return Key(read=read, form="keys", words="")


RULE_KEYS: Final[dict[str, Key]] = {
    "id": Key(read=identifier, form="small letters, digits, `.`, `_`, `-`", words="its name, in every decision", required=True),
    "description": Key(read=text, form="text", words="for people; decides nothing"),
    "match": Key(read=read_match, form="keys", words="what it is about; left out: everything"),
    "when": Key(read=text, form="CEL", words="a condition beside `match`"),
    "then": Key(read=one_of(Effect), form=", ".join(f"`{one}`" for one in Effect), words="what happens", required=True),
    "stage": Key(read=one_of(Stage), form="`enforce`, `observe`", words="`observe`: only told of; `enforce`"),
    "reason": Key(read=line, form="text", words="what the agent is told; of `deny` and `approve`"),
    "approve": replace(_options(APPROVE_KEYS), words="options of `approve`"),
    "mask": replace(_options(MASK_KEYS), words="what is hidden; of `mask`, where it must be there"),
    "inject": replace(_options(INJECT_KEYS), words="which credential; of `inject`, where it must be there"),
    "limit": replace(_options(LIMIT_KEYS), words="guard rails; of `limit`, where it must be there"),
    "accept_incomplete": Key(
        read=flag, form="`true`, `false`", words="of `allow`: also allow what capd cannot read in full; `false`"
    ),
    "accept_paths": Key(
        read=some(known(ODDITIES, "oddity of paths")),
        form=", ".join(f"`{name}`" for name in sorted(ODDITIES)),
        words="of `allow` and `inject`: also paths with `%2F`, or `//`, that match however a server reads them; none",
    ),
}
SCOPE_KEYS: Final[dict[str, Key]] = {
    "id": replace(RULE_KEYS["id"], words="its name"),
    "match": replace(
        RULE_KEYS["match"],
        words="which sessions; nothing of what a message says, and `databases` and `users` beside `mode` only",
    ),
    "mode": Key(read=one_of(Mode), form="`enforce`, `observe`", words="`observe`: nothing is stopped or changed, only told of"),
    "recording": Key(
        read=one_of(Recording), form=", ".join(f"`{one}`" for one in Recording), words="how much is recorded of them"
    ),
}
_OF_EFFECT: Final = {
    "approve": {Effect.APPROVE},
    "mask": {Effect.MASK},
    "inject": {Effect.INJECT},
    "limit": {Effect.LIMIT},
    "accept_incomplete": {Effect.ALLOW},
    "accept_paths": {Effect.ALLOW, Effect.INJECT},
    "reason": {Effect.DENY, Effect.APPROVE},
}
"""Keys that have a meaning for some effects only."""


def read_rule(node: Node, problems: Problems, *, prefix: str = "") -> Rule | None:
    """Read a rule; None, with the problems noted, when something is wrong with it.

    Args:
        node: where it stands.
        problems: what is wrong.
        prefix: before its id, for rules that come with capd.
    """
    before = len(problems.found)
    found: dict[str, Any] = read_keys(node, RULE_KEYS, problems)
    if len(problems.found) > before:
        return None
    effect: Effect = found["then"]
    for key, effects in _OF_EFFECT.items():
        if key in found and effect not in effects:
            problems.add(_place(node, key), f"{key!r} means nothing where the rule's effect is {effect}")
    rule = Rule(
        id=prefix + found["id"],
        then=effect,
        match=about(found.get("match", Match()), found.get("when")),
        when=found.get("when"),
        stage=found.get("stage", Stage.ENFORCE),
        reason=found.get("reason"),
        approval=Approval(**found.get("approve", {})) if effect is Effect.APPROVE else None,
        mask=Mask(**found["mask"]) if "mask" in found else None,
        injection=_injection(found["inject"]) if "inject" in found else None,
        limit=Limit(**found["limit"]) if "limit" in found else None,
        accept_incomplete=found.get("accept_incomplete", False),
        accept_paths=found.get("accept_paths", ()),
        description=found.get("description"),
        place=_place(node, "id"),
    )
    _check(rule, node, problems)
    return rule if len(problems.found) == before else None


def read_scope(node: Node, problems: Problems) -> Scope | None:
    """Read a scope; None, with the problems noted, when something is wrong with it."""
    before = len(problems.found)
    found: dict[str, Any] = read_keys(node, SCOPE_KEYS, problems)
    if not {"mode", "recording"} & found.keys():
        problems.add(node.place, "a scope says a mode, a recording level, or both")
    match: Match = found.get("match", Match())
    if match.content:
        problems.add(
            _place(node, "match"), f"a scope is of whole sessions: it cannot ask for {', '.join(sorted(match.content))}"
        )
    if "recording" in found and (asked := match.given & SESSION_KEYS):
        words = f"what is recorded is settled before it is known who signs in: this cannot ask for {', '.join(sorted(asked))}"
        problems.add(_place(node, "match"), words)
    return Scope(**found, place=_place(node, "id")) if len(problems.found) == before else None


def _place(node: Node, name: str) -> Place:
    """Give where the value of a key stands; the mapping's place if it is not there."""
    entries = node.entries if isinstance(node, Mapping) else []
    return next((value.place for key, value in entries if key.text == name), node.place)


def _check(rule: Rule, node: Node, problems: Problems) -> None:
    """Note why the rule could never do what it says."""
    _check_condition(rule, node, problems)
    tls = rule.match.tls
    if set(tls) == {"passthrough"} and (rule.match.content or rule.when):
        message = "this asks for what a message says, which capd does not see where TLS is passed through"
        problems.add(_place(node, "match"), message)
    if rule.then is Effect.APPROVE and rule.approval is not None:
        most = hold_seconds_max(rule.match.of_protocols)
        if rule.approval.hold_seconds > most:
            words = f"its clients give up: a rule for {', '.join(sorted(rule.match.of_protocols))} holds at most {most} s"
            problems.add(_place(node, "approve"), words)
    if rule.accept_incomplete and (rule.match.content or rule.when):
        words = "what is incomplete cannot be judged by what it says; ask for nothing of it, or leave accept_incomplete out"
        problems.add(_place(node, "accept_incomplete"), words)
    _check_paths(rule, node, problems)
    if rule.then is Effect.MASK:
        _check_mask(rule, node, problems)
    if rule.then is Effect.INJECT:
        _check_injection(rule, node, problems)
    if rule.then is Effect.LIMIT:
        check_limit(rule, node.place, problems)


def _check_paths(rule: Rule, node: Node, problems: Problems) -> None:
    """Note what is said of paths that a rule which permits can never match."""
    slashed = any(ENCODED_SLASH in glob.text for glob in rule.match.paths)
    if slashed and rule.then in _OF_EFFECT["accept_paths"] and ENCODED_SLASHES not in rule.accept_paths:
        words = f"{ENCODED_SLASH} never matches here: say `accept_paths: {ENCODED_SLASHES}` beside `match`"
        problems.add(_place(node, "match"), words)
    if rule.accept_paths and "http.path" in names_in(rule.when or ""):
        problems.add(_place(node, "when"), "http.path is not known of such paths; ask for `paths` or `path_regex` in `match`")


def _check_condition(rule: Rule, node: Node, problems: Problems) -> None:
    if rule.when is None:
        return
    try:
        compile_condition(rule.when, rule.match.of_protocols)
    except ConditionError as error:
        problems.add(_inside(node, error), f"the condition: {error}")
        return
    fixed: dict[str, tuple[str, ...]] = {"protocol": tuple(sorted(rule.match.of_protocols))}
    exact = tuple(pattern.text for pattern in rule.match.hosts if pattern.exact)
    for name, values, whole in (
        ("http.method", rule.match.methods, True),
        ("sql.command", rule.match.commands, True),
        ("redis.command", rule.match.commands, True),
        ("target.tls", tuple(rule.match.tls), True),
        ("target.host", exact, len(exact) == len(rule.match.hosts)),
    ):
        combinations = len(values)
        for others in fixed.values():
            combinations *= len(others)
        if values and whole and combinations <= CHOICES_MAX:
            fixed[name] = values
    if never_true(rule.when, fixed):
        problems.add(_place(node, "when"), "the condition can never be true for what `match` asks for")


def _inside(node: Node, error: ConditionError) -> Place:
    """Give the place inside of a condition, as exactly as its way of being written lets one tell."""
    place = _place(node, "when")
    value = next(value for key, value in node.entries if key.text == "when") if isinstance(node, Mapping) else None
    if not isinstance(value, Scalar) or value.style == ">":
        return place
    if value.style == "|":
        return Place(place.file, place.line + error.line, 1)
    if value.last_line > place.line:
        return place
    return Place(place.file, place.line, place.column + error.column - (1 if value.plain else 0))


_OF_HTTP: Final = ("headers", "cookies", "keys", "json_paths")
TWO_RULES: Final = "write two rules"


def _check_mask(rule: Rule, node: Node, problems: Problems) -> None:
    unfit = sorted(name for name in rule.match.of_protocols if not PROTOCOLS[name].masks)
    if unfit:
        fit = ", ".join(sorted(name for name, protocol in PROTOCOLS.items() if protocol.masks))
        problems.add(node.place, f"capd cannot mask {', '.join(unfit)}; say `protocols` in `match`: {fit}")
    if rule.mask is None or rule.mask == Mask():
        problems.add(node.place, "a rule that masks says what, in `mask`")
        return
    mask = rule.mask
    if mask.columns and not unfit and HTTP in rule.match.of_protocols:
        words = "HTTP has no columns" if len(rule.match.of_protocols) == 1 else f"HTTP has no columns; {TWO_RULES}"
        problems.add(_place(node, "mask"), words)
    of_http = [name for name in _OF_HTTP if getattr(mask, name)]
    if of_http and not unfit and rule.match.of_protocols != {HTTP}:
        words = f"{', '.join(of_http)} of a mask are about HTTP; {TWO_RULES}, the one about HTTP with `protocols: http`"
        problems.add(_place(node, "mask"), words)
    if (mask.replace, mask.predicates) != (Mask().replace, Mask().predicates) and not mask.columns:
        problems.add(_place(node, "mask"), "`replace` and `predicates` are about `columns`, and there are none")
    try:
        Rules(
            Choice(
                builtin=False,
                headers=mask.headers,
                cookies=mask.cookies,
                keys=mask.keys,
                json_paths=mask.json_paths,
                identifiers=mask.identifiers,
                formats=mask.formats,
            )
        )
    except ValueError as error:
        problems.add(_place(node, "mask"), str(error))


def _check_injection(rule: Rule, node: Node, problems: Problems) -> None:
    unfit = sorted(name for name in rule.match.of_protocols if not PROTOCOLS[name].injects)
    if unfit:
        fit = ", ".join(sorted(name for name, protocol in PROTOCOLS.items() if protocol.injects))
        problems.add(node.place, f"capd cannot inject into {', '.join(unfit)}; say `protocols` in `match`: {fit}")
    if not rule.match.hosts or not all(pattern.exact for pattern in rule.match.hosts):
        problems.add(node.place, "a credential goes to named hosts only: list them in `match`, without stars")
    if not rule.match.ports:
        problems.add(node.place, "a credential goes to named ports only: list them in `match`")
    if any(PROTOCOLS[name].opens for name in rule.match.of_protocols) and (said := _said(rule)):
        words = f"a database is signed in to before anything is said: this cannot ask for {', '.join(said)}"
        problems.add(node.place, words)
    if rule.injection is None:
        problems.add(node.place, "a rule that injects says which credential, in `inject`")
    elif (HTTP in rule.match.of_protocols) != (rule.injection.form is not None):
        words = "for HTTP `inject` says the `header` or the `form`, for databases neither; write two rules for both"
        problems.add(_place(node, "inject"), words)
    else:
        for message in _wrong_with(rule.injection):
            problems.add(_place(node, "inject"), message)


def _said(rule: Rule) -> list[str]:
    """Give what a rule asks for that is known of messages only."""
    facts = {name for name, _ in rule.match.facts if not name.startswith("target.")}
    return sorted((rule.match.content - {"facts"}) | facts | (names_in(rule.when or "") & names_of_messages()))


def _injection(found: dict[str, Any]) -> Injection:
    """Give the value; a field that is named means the form `header`."""
    return Injection(**{"form": Form.HEADER if "header" in found else None, **found})


_OF_FORM: Final = {"header": Form.HEADER, "prefix": Form.HEADER, "parameter": Form.QUERY}


def _wrong_with(injection: Injection) -> list[str]:
    """Say what keys do not go together."""
    wrong = [
        f"{key!r} means nothing where the form is {injection.form}"
        for key, form in _OF_FORM.items()
        if getattr(injection, key) and injection.form is not form
    ]
    if injection.form is Form.HEADER and injection.header is None:
        wrong.append("the form header needs the name of the `header`")
    if injection.form is Form.QUERY and injection.parameter is None:
        wrong.append("the form query needs the name of the `parameter`")
    return wrong
