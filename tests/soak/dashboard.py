"""The dashboard and the rules against a real Prometheus: each panel gets data, each rule can be evaluated.

What lives here: the program, which `make soak` runs where Prometheus is installed; Debian's package brings a service along, so
the tests do not ask for it. What must not: cases that need none (tests/daemon/test_metrics.py).

    python -m tests.soak.dashboard [PROMETHEUS]
"""

from __future__ import annotations

import copy
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from capd.daemon.metrics import exposition
from capd.daemon.metrics_endpoint import Endpoint
from tests.daemon.conftest import wait_until
from tests.daemon.test_metrics import DASHBOARD, RULES, STATUS

SCRAPES_MIN: Final = 4
"""A rate needs two; more than that, so that each counter has grown between two."""
SECONDS_MAX: Final = 60.0
SETTINGS: Final = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: capd
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
VARIABLES: Final = {"$instance": ".*", "$__rate_interval": "1m", "$__range": "1h"}
"""As Grafana puts them in."""


def grown(document: Any, scrape: int) -> Any:  # noqa: ANN401 - JSON
    """Give a status in which every number is larger the later it is asked for, as counters are."""
    if isinstance(document, dict):
        return {key: grown(value, scrape) for key, value in document.items()}
    if isinstance(document, int | float) and not isinstance(document, bool):
        return document + 1000 * scrape
    return document


class Page:
    """What is served: each answer another one."""

    def __init__(self) -> None:
        self.scrapes = 0

    def __call__(self) -> bytes:
        """Give the next answer."""
        self.scrapes += 1
        return exposition(grown(copy.deepcopy(STATUS), self.scrapes))


@contextmanager
def prometheus(program: str, directory: Path, target: int) -> Iterator[int]:
    """Run a server that scrapes a port of loopback; give its own port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = directory / "prometheus.yml"
    settings.write_text(SETTINGS.format(rules=RULES, port=target), encoding="utf-8")
    arguments = [f"--config.file={settings}", f"--storage.tsdb.path={directory}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(180)


def asked(port: int, path: str, **query: str) -> Any:  # noqa: ANN401 - JSON
    """Ask the server's own interface (prometheus.io/docs/prometheus/latest/querying/api)."""
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def expressions() -> Iterator[tuple[str, str]]:
    """Give the title of each panel with each of its expressions, as Grafana would send it."""
    for panel in json.loads(DASHBOARD.read_bytes())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression


def unanswered(port: int) -> list[str]:
    """Give the expressions of panels for which there is no data."""
    return [f"{title}: {one}" for title, one in expressions() if not asked(port, "query", query=one)["result"]]


def silent(port: int) -> list[str]:
    """Give what the panel of health says, where it is not `no answer`, once nothing answers the scrapes any more."""
    wait_until(lambda: asked(port, "query", query="up")["result"][0]["value"][1] == "0", "a scrape that fails")
    health = dict(expressions())["Health"]
    texts = next(panel for panel in json.loads(DASHBOARD.read_bytes())["panels"] if panel["title"] == "Health")
    (mappings,) = texts["fieldConfig"]["defaults"]["mappings"]
    said = [mappings["options"][one["value"][1]]["text"] for one in asked(port, "query", query=health)["result"]]
    return [] if said == ["no answer"] else [f"a host that is silent: {said}"]


def sick(port: int) -> list[str]:
    """Give the rules that could not be evaluated."""
    groups = asked(port, "rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    return [f"{rule['name']}: {rule['health']}: {rule.get('lastError', '')}" for rule in rules if rule["health"] != "ok"]


def main(program: str) -> int:
    """Say what has no data; exit status 0: everything has."""
    listener = socket.create_server(("127.0.0.1", 0))
    page = Page()
    endpoint = Endpoint(listener, page)
    endpoint.start()
    place = tempfile.TemporaryDirectory(prefix="capd-dashboard-")
    with place as name, prometheus(program, Path(name), listener.getsockname()[1]) as port:
        deadline = time.monotonic() + SECONDS_MAX
        while page.scrapes < SCRAPES_MIN:
            if time.monotonic() > deadline:
                sys.stderr.write((Path(name) / "log").read_text(encoding="utf-8", errors="replace"))
                return 2
            time.sleep(0.2)
        time.sleep(2.0)  # what was scraped last is in the store, and the rules were evaluated
        wrong = [*(f"no data: {one}" for one in unanswered(port)), *(f"rule: {one}" for one in sick(port))]
        endpoint.stop()
        wrong += silent(port)
    sys.stdout.write(
        "\n".join([*wrong, f"{len(list(expressions()))} expressions of panels asked, {len(wrong)} things wrong"]) + "\n"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "prometheus"))
