"""`capd metrics`: health as metrics and alerts.

What lives here: options, and the directories while it still is root. What must not: the role (daemon/metrics_role.py), what is
measured (daemon/metrics.py).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Final

import click

from capd.cli.options import config_option
from capd.cli.screen import reader_may_leave
from capd.daemon import metrics, metrics_role, recorder_user, settled, state_directory, status

EXAMPLES: Final = """\b
Examples:
  capd metrics --once
  capd metrics --once >capd.prom.new && mv capd.prom.new /var/lib/prometheus/node-exporter/capd.prom
  sudo capd metrics
  systemctl start capd-metrics         # the same as a service
"""


@click.command(epilog=EXAMPLES)
@config_option
@click.option("--once", is_flag=True, help="Print the metrics of this moment in Prometheus' text format, and end.")
def command(config: str | None, once: bool) -> None:
    """Watch capd's health: log alerts, serve metrics (a role).

    Logs each change of health once, and with `metrics.listen` serves the figures of `capd status` to Prometheus. Started as
    root, it first becomes the recorder's user and gives up root, exec, and what is recorded.
    """
    settings = settled.load(config)
    if once:
        document, _health = status.gather(settings)
        with reader_may_leave():
            click.echo(metrics.exposition(document), nl=False)
        return
    if os.geteuid() == 0:
        state_directory.prepare(settings, recorder_user.choose(settings.recorder.user, settings.segments_dir))
    import_module("capd.cli.line")  # without rights its file may be out of reach, such as below /root
    metrics_role.run_metrics(settings)
