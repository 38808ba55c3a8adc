"""`capd keys`: the keys that sign this host's recording, and a new one.

What lives here: the verb. What must not: making, keeping or judging keys (recording/keys.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from capd.cli.line import Line, Span, Style
from capd.cli.options import CorrectedUsageError, Verb, as_json
from capd.cli.place import Place, reads_recording, state_directory
from capd.cli.screen import reader_may_leave, standard_output
from capd.cli.summary import json_array

if TYPE_CHECKING:
    from capd.recording.keys import PublicKey

KEYS = "keys"
HOST = "host"


@click.command(cls=Verb, examples=("capd keys", "capd keys --rotate"))
@click.option("--rotate", is_flag=True, help="Make a new key, signed by the present one; the recorder takes it at its start.")
@as_json
@reads_recording
def command(*, rotate: bool, as_json: bool, place: Place) -> None:
    """List the keys that sign what this host records.

    A verifier that trusts the first of them trusts all that follow. The files beside each are what `capd verify --key` takes;
    bring one to whoever shall check this host's recording.
    """
    from capd.daemon.state_directory import host_id  # noqa: PLC0415 - `--help` must not pay for it
    from capd.recording import keys  # noqa: PLC0415 - as above

    if place.bucket is not None:
        raise CorrectedUsageError("keys are made on a host; those in a bucket are in its folders", "capd keys")
    state = state_directory(place)
    with reader_may_leave():
        present = keys.rotate(state / KEYS, host_id(state / HOST)) if rotate else keys.present(state / KEYS)
        found = keys.succession(keys.public_keys(state / KEYS))
        screen = standard_output()
        if as_json:
            screen.write_json(json_array([_object(key, present, str(state / KEYS)) for key in found]))
        else:
            screen.write(_lines(found, present, str(state / KEYS)))
            if rotate:
                click.echo("capd: restart the recorder, and what it records from then on is signed with the new key", err=True)


def _object(key: PublicKey, present: bytes | None, directory: str) -> dict[str, object]:
    return {
        "key": key.id.hex(),
        "file": f"{directory}/{key.id.hex()}.pub",
        "present": None if present is None else key.id == present,
        "follows": key.predecessor.hex() or None,
    }


def _lines(found: Sequence[PublicKey], present: bytes | None, directory: str) -> Iterator[Line]:
    for key in found:
        words = "signs now" if key.id == present else "signed before"
        if present is None:
            words = "(only root and the recorder may see which one signs now)"
        follows = f", signed by {key.predecessor.hex()}" if key.predecessor else ", the first"
        yield (Span(key.id.hex(), Style.STRONG), Span(f"  {words}{follows}"))
        yield (Span(f"  {directory}/{key.id.hex()}.pub", Style.FAINT),)
