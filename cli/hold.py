"""`capd hold`: keep recordings from being deleted.

What lives here: options and what is printed. What must not: holds themselves (recording/bucket/holds.py).
"""

from __future__ import annotations

import getpass
import socket
import time
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import click

from capd.cli.bucket import bucket_at
from capd.cli.moments import to_second
from capd.cli.options import CorrectedUsageError, Moment, Verb, as_json, config_option, moment
from capd.cli.screen import standard_output
from capd.cli.summary import json_array
from capd.cli.table import Column, lay_out

if TYPE_CHECKING:
    from capd.recording.bucket import Bucket
    from capd.recording.bucket.holds import Hold

ADD: Final = (
    'capd hold add --reason "case 4711" --session 01993c7e-7d0a-7000-8000-00000000c0de',
    'capd hold add --reason "audit 2026" --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z',
)
LIST: Final = ("capd hold list",)
REMOVE: Final = ('capd hold remove 7b0c1f9e-1f0e-4c1b-9c58-0d5a8e0f9d11 --reason "case closed"',)
EXAMPLES: Final = "\n  ".join(("\b\nExamples:", *ADD, *LIST, *REMOVE))
_bucket = click.option("--bucket", metavar="URL", help="The bucket (else `bucket_url` of the configuration).")


@click.group(epilog=EXAMPLES)
def command() -> None:
    """Keep recordings from being deleted, whatever the retention policy says.

    A hold lies in the bucket and counts for every host that ships there. It holds what fits all of what it names.
    """


@command.command(cls=Verb, examples=ADD)
@config_option
@_bucket
@click.option("--reason", required=True, help="Why; it stays in the bucket.")
@click.option("--host", "hosts", multiple=True, type=click.UUID, help="Recordings of this host; several: of any of them.")
@click.option("--session", "sessions", multiple=True, type=click.UUID, help="This session.")
@click.option("--run", "runs", multiple=True, type=click.UUID, help="This run, with all its sessions.")
@click.option("--since", type=Moment(), help="What was recorded at this time or later.")
@click.option("--until", type=Moment(), help="What was recorded before this time.")
def add(  # noqa: PLR0917 - click hands over the options
    config: str | None,
    bucket: str | None,
    reason: str,
    hosts: tuple[UUID, ...],
    sessions: tuple[UUID, ...],
    runs: tuple[UUID, ...],
    since: str | None,
    until: str | None,
) -> None:
    """Place a hold, and print its id. Without anything named it holds everything."""
    from capd.recording.bucket.holds import Hold, place  # noqa: PLC0415 - `--help` must not pay for it

    from_ns, until_ns = moment(since), moment(until)
    if from_ns is not None and until_ns is not None and from_ns >= until_ns:
        raise CorrectedUsageError(
            "nothing is at --since or later and before --until", "capd hold add --since EARLIER --until LATER"
        )
    hold = Hold(
        id=uuid4(),
        reason=reason,
        placed_by=_who(),
        placed_ns=time.time_ns(),
        hosts=frozenset(hosts),
        sessions=frozenset(sessions),
        runs=frozenset(runs),
        from_ns=from_ns,
        until_ns=until_ns,
    )
    place(_open(config, bucket), hold)
    click.echo(str(hold.id))


@command.command(name="list", cls=Verb, examples=LIST)
@config_option
@_bucket
@as_json
def list_(config: str | None, bucket: str | None, as_json: bool) -> None:
    """List holds, released ones too, the latest last."""
    from capd.recording.bucket.holds import read  # noqa: PLC0415 - as above

    holds = read(_open(config, bucket))
    screen = standard_output()
    if as_json:
        screen.write_json(json_array([hold.to_json() for hold in holds]))
    elif not holds:
        click.echo("capd: there are no holds", err=True)
    else:
        columns = [
            Column(name="hold", rigid=True),
            Column(name="placed"),
            Column(name="by"),
            Column(name="holds"),
            Column(name="reason"),
        ]
        screen.write(lay_out(columns, [_row(hold) for hold in holds], fit=screen.columns))


@command.command(cls=Verb, examples=REMOVE)
@config_option
@_bucket
@click.argument("hold", type=click.UUID)
@click.option("--reason", required=True, help="Why; it stays in the bucket.")
def remove(config: str | None, bucket: str | None, hold: UUID, reason: str) -> None:
    """Release a hold: what only it held goes when its time is over."""
    from capd.recording.bucket.holds import release  # noqa: PLC0415 - as above

    if not release(_open(config, bucket), hold, by=_who(), now_ns=time.time_ns(), reason=reason):
        click.echo("capd: it was released before", err=True)


def _open(config: str | None, url: str | None) -> Bucket:
    from capd.daemon import configuration  # noqa: PLC0415 - as above
    from capd.daemon.errors import NoBucketError  # noqa: PLC0415 - as above
    from capd.daemon.shipper import open_bucket  # noqa: PLC0415 - as above

    if url is not None:
        return bucket_at(url, config)
    settings = configuration.load(config)
    if settings.bucket_url is None:
        raise NoBucketError("no `bucket_url` is configured, and no --bucket given")
    return open_bucket(settings, retries=3)


def _who() -> str:
    """Give who does this, for the bucket's memory."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _row(hold: Hold) -> list[str]:
    named = [
        f"{len(ids)} {word}" for ids, word in ((hold.hosts, "hosts"), (hold.sessions, "sessions"), (hold.runs, "runs")) if ids
    ]
    if hold.from_ns is not None or hold.until_ns is not None:
        named.append("a time range")
    what = "released" if hold.released else ", ".join(named) or "everything"
    return [str(hold.id), to_second(hold.placed_ns), hold.placed_by, what, hold.reason]
