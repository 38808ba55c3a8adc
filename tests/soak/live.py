"""Roles of a real `capd up` killed at random moments while agents talk: `python -P -m tests.soak.live SEED ROUNDS TIER`.

What lives here: the kills, and what is demanded after each. What must not: how capd is started and asked (tests/e2e).

Whatever dies, `capd up` brings it back without a hand. What is called complete is what the server heard and said, to the byte;
without a kill of the daemon everything is complete. The record verifies, here and in the bucket, and is in the bucket once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import ssl
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.daemon.conftest import wait_until
from tests.e2e import certificates
from tests.e2e.conftest import passable
from tests.e2e.instance import CAPD, CLIENTS, PYTHON, Instance, Session, running
from tests.e2e.truth import Mirror, Pair, Server, noise, serving

ROLES = ("daemon", "recorder", "shipper")
AGENTS = 2
REQUESTS = 15
"""Of an agent, ten a second."""


class Rounds:
    """One instance, its agents, and who is killed."""

    def __init__(self, capd: Instance, mirror: Server, trusted: certificates.Certificates, seed: int) -> None:
        self._capd = capd
        self._mirror = mirror
        self._trusted = trusted
        self._chance = random.Random(seed)
        self._seed = seed
        self._body = capd.directory / "body"
        self._body.write_bytes(noise("live", 20_000))
        self.done: Counter[str] = Counter()

    def run(self, number: int) -> None:
        """Let agents talk, kill, wait until all is well, and judge."""
        name = f"live-{self._seed}-{number}"
        victims = self._victims()
        pids = self._pids()
        agents = [self._agent(name) for _ in range(AGENTS)]
        wait_until(lambda: self._mirror.ledger.begun == AGENTS, "the agents talk")  # no run begins without a daemon
        for victim in victims:
            time.sleep(self._chance.uniform(0, 0.8))
            self._kill(victim, pids)
        for agent in agents:
            assert agent.wait(180) == 0, "an agent suffered"
        wait_until(lambda: all(self._pids().values()), f"all roles are back after kills of {victims}")
        self._judge(name, self._mirror.ledger.take(AGENTS), heard="daemon" not in victims and "everything" not in victims)
        self.done["+".join(victims)] += 1

    def _victims(self) -> list[str]:
        if self._chance.random() < 0.1:
            return ["everything"]
        return self._chance.sample(ROLES, self._chance.choice([1, 1, 1, 2, 3]))

    def _pids(self) -> dict[str, int]:
        done = self._capd.ask("status", "--json", check=False)
        roles = json.loads(done.stdout)["roles"] if done.stdout else {}
        return {role: int(roles.get(role, {}).get("pid") or 0) for role in ROLES}

    def _kill(self, victim: str, pids: dict[str, int]) -> None:
        if victim == "everything":
            self._capd.kill_all()
            wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values() if pid), "all are gone")
            self._capd.start()
        elif pids[victim]:
            os.kill(pids[victim], signal.SIGKILL)

    def _agent(self, name: str) -> subprocess.Popen[bytes]:
        client = [
            PYTHON,
            "-I",
            CLIENTS / "paced.py",
            self._trusted.authority,
            self._mirror.port,
            f"/{name}",
            REQUESTS,
            self._body,
        ]
        command = [CAPD, "run", "--config", self._capd.config, "--name", name, "--", *client]
        return subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL)

    def _judge(self, name: str, truth: Counter[Pair], *, heard: bool) -> None:
        sessions = self._settled(name, truth.total() if heard else 0)
        whole = [session for session in sessions if session["completeness"]["verdict"] == "complete"]
        assert not heard or len(whole) == truth.total(), [session["completeness"] for session in sessions]
        assert all(session["completeness"]["reasons"] for session in sessions if session not in whole), "partial, and no reason"
        replayed = Counter(self._capd.pair(session) for session in whole)
        assert not replayed - truth, f"called complete, and never said so: {replayed - truth}"
        self._capd.ask("verify", "--records")

    def _settled(self, name: str, count: int) -> list[Session]:
        seen: list[Session] = []

        def enough() -> bool:
            seen[:] = [session for session in self._capd.sessions(name) if session["transport"] == "tcp"]
            return len(seen) >= count and all(session["state"] != "open" for session in seen)

        wait_until(enough, f"sessions of {name} are over")
        return seen

    def judge_bucket(self, bucket: Path) -> None:
        """Hold the bucket against what is here: everything sealed, once, and whole by itself."""
        self._capd.wait_sealed()
        segments = {path.name for path in (self._capd.state / "segments").glob("*.seg")}
        wait_until(lambda: segments <= {path.name for path in bucket.rglob("*.seg")}, "everything is shipped")
        there = Counter(path.name for path in bucket.rglob("*.seg"))
        assert set(there.values()) <= {1}, there
        self._capd.ask("verify", "--bucket", str(bucket))


def main(seed: int, rounds: int, tier: str) -> None:
    """Run rounds in one instance; print what was killed how often."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    began = time.monotonic()
    with passable("capd-live-") as place:
        bucket, files, directory = place / "bucket", place / "files", place / "capd"
        for path in (bucket, files, directory):
            path.mkdir()
        bucket.chmod(0o777)
        trusted = certificates.make(files)
        context.load_cert_chain(trusted.certificate, trusted.key)
        settings = f'bucket_url = "{bucket}"\n[capture]\ntier = "{tier}"\n'
        with serving(Server(Mirror, context=context)) as mirror, running(directory, settings) as capd:
            made = Rounds(capd, mirror, trusted, seed)
            for number in range(rounds):
                try:
                    made.run(number)
                    if number % 10 == 9 or number == rounds - 1:
                        made.judge_bucket(bucket)
                except BaseException as error:
                    error.add_note(f"seed {seed}, round {number}, tier {tier}; capd said:\n{capd.said()[-4000:]}")
                    raise
    told = {"tier": tier, "seed": seed, "kills": made.done, "seconds": round(time.monotonic() - began, 1)}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
