"""`capd run`: start a command as a recorded run.

What lives here: options, and becoming the command. What must not: slow imports. This process itself becomes the command, so
that signals, terminal and exit status are the command's own, with nothing between.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Final, NoReturn

import click

from capd.daemon import control_client, locations

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
"""As a shell says it, POSIX 2.8.2."""
COMMAND_WORDS_BYTES_MAX: Final = 32 * 1024
"""Of the command line that the daemon is told; the kernel tells it the rest at exec."""
EXAMPLES: Final = """\b
Examples:
  capd run -- python3 agent.py
  capd run --name nightly --label team=data -- ./agent --once
  capd run --config ./capd.toml -- bash
"""


@click.command(
    epilog=EXAMPLES,
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
)
@click.option("--config", metavar="FILE", help="Configuration (else CAPD_CONFIG, /etc/capd/capd.toml).")
@click.option("--name", metavar="NAME", help="What to call the run.")
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="A label for the run; may be given again.")
@click.argument("words", metavar="-- CMD...", nargs=-1, required=True)
def command(config: str | None, name: str | None, labels: tuple[str, ...], words: tuple[str, ...]) -> None:
    """Start a command as a recorded run.

    Everything the command and its descendants say and hear is recorded until the last of them has ended. The exit status is the
    command's; 127 and 126 if it is not found or cannot be executed. If capd cannot record it, it is not started.
    With `[enforcement]`, variables such as SSL_CERT_FILE tell its runtimes what to trust; `capd doctor tls` tries them.
    """
    _find(words[0])
    answer = control_client.ask_quietly(
        locations.control_socket(config),
        "run",
        name=name,
        labels=_labels(labels),
        command=_cut(words),
    )
    _become(words, _trusting(answer.get("trust")))


def _trusting(directory: object) -> dict[str, str]:
    """Give the environment: with `[enforcement]` its runtimes trust the authority of this host."""
    if not isinstance(directory, str):
        return dict(os.environ)
    from capd.daemon.trust_environment import variables  # noqa: PLC0415 - only where TLS is opened

    return {**os.environ, **variables(Path(directory), os.environ)}


def _labels(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = next((key or text for (key, equals, _), text in zip(pairs, given, strict=True) if not equals or not key), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} is not KEY=VALUE, such as --label team=data", param_hint="--label")
    return {key: value for key, _equals, value in pairs}


def _cut(words: tuple[str, ...]) -> list[str]:
    """Give as many words as the daemon wants to be told."""
    told, left = [], COMMAND_WORDS_BYTES_MAX
    for word in words:
        if len(word) > left:
            break
        left -= len(word)
        told.append(word)
    return told or [words[0][:left]]


def _find(word: str) -> None:
    """Refuse what cannot be executed before a run is made of it."""
    if shutil.which(word) is None:
        there = Path(word).exists() if "/" in word else shutil.which(word, mode=os.F_OK) is not None
        _fail(word, errno.EACCES if there else errno.ENOENT)


def _become(words: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
    sys.stdout.flush()
    try:
        os.execvpe(words[0], words, environment)  # noqa: S606 - no shell is wanted
    except OSError as error:
        _fail(words[0], error.errno or errno.ENOENT)


def _fail(word: str, number: int) -> NoReturn:
    missing = number in {errno.ENOENT, errno.ENOTDIR}
    reason = "command not found" if missing else f"cannot be executed: {os.strerror(number)}"
    click.echo(f"capd: run: {word!r}: {reason}", err=True)
    sys.exit(NOT_FOUND if missing else NOT_EXECUTABLE)
