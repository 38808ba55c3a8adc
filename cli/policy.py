"""`capd policy`: check, explain, test and try a policy, before it is enforced.

What lives here: the verbs, their options and exit statuses. What must not: judging (enforcer/policy), what is printed
(policy_report.py), recordings (policy_replay.py).
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from capd.cli.options import CorrectedUsageError, Moment, Verb, moment
from capd.cli.options import as_json as json_option
from capd.cli.place import Place, open_recording, reads_recording
from capd.cli.screen import answer
from capd.recording.errors import ExitStatus

if TYPE_CHECKING:
    from capd.enforcer.credentials.credential import Credential
    from capd.enforcer.policy.action import Action, Address
    from capd.enforcer.policy.policy import Policy
    from capd.enforcer.policy.written_action import Circumstances

EXAMPLES: Final = """\b
Examples:
  capd policy check
  capd policy explain --http 'POST https://api.example.com/v1/orders' --principal ann
  capd policy test
  capd policy replay --since 1d
"""
ACTION_BYTES_MAX: Final = 1 << 20
DATABASES: Final = ("postgresql", "mysql", "redis")
TLS_WORDS: Final = ("none", "inspected", "passthrough", "unknown")
_config = click.option(
    "--config", metavar="FILE", help="Configuration that names `policy_dir` (else CAPD_CONFIG, /etc/capd/capd.toml)."
)
_directory = click.argument("directory", metavar="[DIR]", required=False)


@click.group(name="policy", epilog=EXAMPLES)
def command() -> None:
    """Check, explain, test and try a policy.

    A policy is the files *.yaml of a directory: /etc/capd/policy.d, unless the configuration names another. docs/policy.md has
    the language. Nothing here changes what is enforced.
    """


@command.command(
    cls=Verb,
    short_help="Say whether a policy can be used.",
    examples=("capd policy check", "capd policy check ./policy.d --json"),
)
@_directory
@_config
@json_option
def check(directory: str | None, config: str | None, as_json: bool) -> int:
    """Say whether the policy in DIR can be used, and if not, everything that is wrong with it.

    Of the one that the configuration names, nobody but root may be able to write the files. Exit status: 0 it can be used, 2 it
    cannot.
    """
    from capd.cli import policy_report  # noqa: PLC0415 - `--help` must not pay for it
    from capd.enforcer.policy.directory import load_policy  # noqa: PLC0415 - as above
    from capd.enforcer.policy.problem import PolicyError  # noqa: PLC0415 - as above

    place, own = _policy_place(directory, config)
    configured = None if directory is not None else _credentials(config)
    try:
        # Of a draft it does not matter who can write it.
        policy = load_policy(place, owners=None if directory is not None else frozenset({0, os.geteuid()}), own=own)
    except PolicyError as error:
        if not as_json:
            raise
        refused: dict[str, object] = {
            "policy": None,
            "rules": 0,
            "scopes": 0,
            "passthrough": 0,
            "examples": 0,
            "unknown_credentials": [],
            "unbound_credentials": [],
        }
        answer({**refused, "problems": [one.to_json() for one in error.problems]}, (), as_json=True)
        return ExitStatus.USAGE
    told = {**policy_report.checked(policy, configured), "problems": []}
    answer(told, policy_report.check_lines(policy, place, configured), as_json=as_json)
    return ExitStatus.OK


@command.command(
    cls=Verb,
    short_help="Say what is decided about an action, and why.",
    examples=(
        "capd policy explain --http 'POST https://api.example.com/v1/orders' --principal ann --label team=data",
        "capd policy explain --connect db.internal:5432",
        "capd policy explain --sql 'DELETE FROM orders' --protocol mysql --target db.internal --database shop",
        "capd policy explain --action action.json --json",
    ),
)
@click.option("--http", metavar="'METHOD URL'", help="An HTTP request.")
@click.option(
    "--connect", metavar="HOST:PORT", help="A connection that capd cannot decode; with --tls one that it does not open."
)
@click.option("--sql", metavar="TEXT", help="A statement, or a command of Redis; --target says where. No schema is assumed.")
@click.option("--open", metavar="HOST[:PORT]", help="The opening of a database's session.")
@click.option("--protocol", type=click.Choice(DATABASES), default="postgresql", help="Of --sql and --open.", show_default=True)
@click.option("--database", metavar="NAME", help="Of the session of a database; else that is not known.")
@click.option("--user", metavar="NAME", help="Of the database, as whom it is opened; else that is not known.")
@click.option("--target", metavar="HOST[:PORT]", help="Where a statement goes.")
@click.option(
    "--action", metavar="FILE", help="An action as JSON, as this command prints it with --json; `-` is standard input."
)
@click.option("--principal", metavar="NAME", help="Whom the run acts for; else that is not known.")
@click.option("--run", metavar="NAME", help="Name of the run.")
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="A label of the run; may be given again.")
@click.option("--address", metavar="ADDRESS", help="Where the host leads; else 192.0.2.1 is assumed.")
@click.option("--tls", type=click.Choice(TLS_WORDS), help="How the connection is protected; else as the URL says.")
@click.option("--policy", "directory", metavar="DIR", help="The policy (else `policy_dir` of the configuration).")
@click.option("--all", "everything", is_flag=True, help="Show the rules for other protocols and hosts too.")
@_config
@json_option
def explain(*, directory: str | None, config: str | None, everything: bool, as_json: bool, **given: Any) -> int:  # noqa: ANN401 - click's
    """Say what is decided about an action, and of every rule whether it matches and why not.

    Exit status: 0 it is allowed, 1 it is denied or held.
    """
    from capd.cli import policy_report  # noqa: PLC0415 - `--help` must not pay for it
    from capd.enforcer.policy import action_json  # noqa: PLC0415 - as above
    from capd.enforcer.policy.decision import Outcome  # noqa: PLC0415 - as above
    from capd.enforcer.policy.explanation import explain as explained  # noqa: PLC0415 - as above

    action, assumed = _action(given)
    policy = _policy(directory, config)
    decision, rules = policy.judge(action), explained(policy, action)
    told = {"action": action_json.to_json(action), "decision": decision.to_json(), "rules": [one.to_json() for one in rules]}
    lines = policy_report.explain_lines(action, decision, rules, everything=everything, assumed=assumed)
    answer(told, lines, as_json=as_json)
    return ExitStatus.OK if decision.outcome is Outcome.ALLOW else ExitStatus.NEGATIVE


@command.command(
    cls=Verb,
    short_help="Try the examples beside the rules.",
    examples=("capd policy test", "capd policy test ./policy.d --json"),
)
@_directory
@_config
@json_option
def test(directory: str | None, config: str | None, as_json: bool) -> int:
    """Try the examples that stand beside the rules of DIR: what must be allowed, held or denied.

    They are judged as if everything were in force, also what a scope or a stage only observes. Exit status: 0 all come out as
    they must, 1 some do not, or there are none, 2 the policy cannot be used.
    """
    from capd.cli import policy_report  # noqa: PLC0415 - `--help` must not pay for it
    from capd.enforcer.policy.example import tried  # noqa: PLC0415 - as above

    policy = _policy(directory, config)
    found = [tried(example, policy.judge) for example in policy.examples]
    failed = sum(not one.passed for one in found)
    counted = {"policy": policy.version, "passed": len(found) - failed, "failed": failed}
    told = {**counted, "examples": [one.to_json() for one in found]}
    answer(told, policy_report.test_lines(found), as_json=as_json)
    return ExitStatus.NEGATIVE if failed or not found else ExitStatus.OK


@command.command(
    cls=Verb,
    short_help="Say what a policy would have stopped.",
    examples=("capd policy replay --since 1d", "capd policy replay --policy ./new.d --principal ann --json"),
)
@click.option("--policy", "directory", metavar="DIR", help="The policy (else `policy_dir` of the configuration).")
@click.option("--since", type=Moment(), help="Only what was said at or after this time, such as 07:24 or 2h (ago).")
@click.option("--until", type=Moment(), help="Only what was said before this time.")
@click.option("--principal", metavar="NAME", help="Only sessions of runs that acted for this name.")
@click.option("--run", metavar="ID", help="Only sessions of this run.")
@click.option("--protocol", metavar="NAME", help="Only this protocol, such as http1 or postgresql.")
@click.option("--all", "everything", is_flag=True, help="Show what would be allowed too.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="Print at most so many messages.")
@json_option
@reads_recording
def replay(  # noqa: PLR0917 - click hands over the options
    directory: str | None,
    since: str | None,
    until: str | None,
    principal: str | None,
    run: str | None,
    protocol: str | None,
    everything: bool,
    limit: int,
    as_json: bool,
    place: Place,
) -> int:
    """Run a policy against what was recorded, and show what it would have stopped.

    Everything is judged as if it were in force. What the recording does not have is told, and judged as incomplete. Exit
    status: 0 nothing would have been denied or held, 1 something would.
    """
    from capd.cli import policy_replay, policy_report  # noqa: PLC0415 - `--help` must not pay for it
    from capd.recording.index_search import SessionFilter  # noqa: PLC0415 - as above

    policy = _policy(directory, place.config)
    with open_recording(place) as archive:
        chosen = SessionFilter(
            run=None if run is None else archive.index.run(run).run,
            protocol=protocol,
            principal=principal,
            from_ns=moment(since),
            until_ns=moment(until),
        )
        span = policy_replay.Span(from_ns=moment(since), until_ns=moment(until))
        trial = policy_replay.Trial(policy=policy, span=span, keep=limit, everything=everything)
        found = policy_replay.replayed(trial, archive, chosen)
        answer(found.to_json(policy.version), policy_report.replay_lines(found), as_json=as_json)
    stopped = Counter(found.outcomes)
    return ExitStatus.NEGATIVE if stopped["deny"] or stopped["approve"] else ExitStatus.OK


def _policy_place(directory: str | None, config: str | None) -> tuple[Path, bytes]:
    """Give where a policy is, and capd's own rules for this host; of a draft there are none."""
    from capd.daemon import configuration  # noqa: PLC0415 - `--help` must not pay for it
    from capd.enforcer.callbacks.own_rules import own_rules  # noqa: PLC0415 - as above

    if directory is not None:
        return Path(directory), b""
    found = configuration.load(config)
    return found.policy_dir, own_rules(found.approvals.base_url, found.approvals.listen)


def _credentials(config: str | None) -> dict[str, Credential]:
    from capd.daemon import configuration  # noqa: PLC0415 - `--help` must not pay for it
    from capd.daemon.credentials import credentials_of  # noqa: PLC0415 - as above

    return credentials_of(configuration.load(config).credentials)


def _policy(directory: str | None, config: str | None) -> Policy:
    from capd.enforcer.policy.directory import load_policy  # noqa: PLC0415 - `--help` must not pay for it

    place, own = _policy_place(directory, config)
    return load_policy(place, own=own)


def _action(given: dict[str, Any]) -> tuple[Action, bool]:
    """Give the action that the options describe, and whether its address is assumed."""
    from capd.enforcer.policy.written_action import is_assumed, written_action  # noqa: PLC0415 - `--help` must not pay for it

    told = [name for name in ("http", "connect", "sql", "open", "action") if given[name] is not None]
    if len(told) != 1:
        raise CorrectedUsageError(
            "say one of --http, --connect, --sql, --open and --action",
            "capd policy explain --http 'GET https://api.example.com/'",
        )
    if given["action"] is not None:
        return _action_file(given["action"]), False
    known = _circumstances(given)
    if given["sql"] is not None and given["target"] is None:
        raise CorrectedUsageError(
            "--sql needs --target", f"capd policy explain --sql '{given['sql']}' --target db.internal:5432"
        )
    text = {
        "http": given["http"],
        "connect": f"connect {given['connect']}",
        "sql": f"{given['protocol']} {given['target']} {given['sql']}",
        "open": f"open {given['protocol']} {given['open']}",
    }[told[0]]
    try:
        action = written_action(text, known)
    except ValueError as error:
        raise CorrectedUsageError(str(error), "capd policy explain --http 'GET https://api.example.com/'") from error
    return action, is_assumed(action, known)


def _action_file(name: str) -> Action:
    from capd.enforcer.policy.action_json import ActionError, from_json  # noqa: PLC0415 - `--help` must not pay for it
    from capd.recording.durable import read_regular  # noqa: PLC0415 - as above

    try:
        given = sys.stdin.buffer.read(ACTION_BYTES_MAX) if name == "-" else read_regular(Path(name), ACTION_BYTES_MAX)
    except OSError as error:
        raise ActionError(f"cannot read {name}: {error.strerror or error}") from error
    return from_json(given)


def _circumstances(given: dict[str, Any]) -> Circumstances:
    from capd.enforcer.policy.action import Principal, Run, Tls  # noqa: PLC0415 - `--help` must not pay for it
    from capd.enforcer.policy.written_action import Circumstances  # noqa: PLC0415 - as above

    labels = dict(pair.partition("=")[::2] for pair in given["labels"])
    if not all("=" in pair for pair in given["labels"]):
        raise CorrectedUsageError(
            "a label is KEY=VALUE", "capd policy explain --http 'GET https://api.example.com/' --label team=data"
        )
    return Circumstances(
        principal=None if given["principal"] is None else Principal(name=given["principal"]),
        run=Run(name=given["run"], labels=labels),
        address=_address(given["address"]),
        tls=None if given["tls"] is None else Tls(given["tls"]),
        database=given["database"],
        user=given["user"],
    )


def _address(text: str | None) -> Address | None:
    from capd.enforcer.policy.address_range import address  # noqa: PLC0415 - `--help` must not pay for it

    found = None if text is None else address(text)
    if text is not None and found is None:
        raise CorrectedUsageError(
            f"{text!r} is no address", "capd policy explain --http 'GET https://api.example.com/' --address 10.0.0.7"
        )
    return found
