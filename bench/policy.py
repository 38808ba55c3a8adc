"""What a decision costs: policies of 10, 100 and 1,000 rules, for as many hosts or all for one, without and with conditions.

What lives here: the policies made for it, and the figures. What must not: printing, but as a script.

Figures are CPU time, the best of several rounds; beside them stands what an empty Python call costs in the same run, so that a
slow machine is seen as one.

Run: PYTHONPATH=src:. python -P bench/policy.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from capd.enforcer.policy.action import Run
from capd.enforcer.policy.policy import Policy, read_policy
from capd.enforcer.policy.written_action import Circumstances, written_action

COUNTS = (10, 100, 1000)
ROUNDS = 7
ROUND_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one policy costs.

    Attributes:
        load_ms: reading, checking and compiling it.
        allowed_us: an action that the last of its rules allows.
        denied_us: an action at the same host that no rule allows.
        incomplete_us: an action that could not be read in full.
    """

    load_ms: float
    allowed_us: float
    denied_us: float
    incomplete_us: float


def text(count: int, *, one_host: bool, conditions: bool) -> str:
    """Give a policy."""
    rules = []
    for number in range(count):
        host = "api.example.com" if one_host else f"api{number}.example.com"
        when = f"    when: labels.team == 'data' && http.query != 'x{number}'\n" if conditions else ""
        rules.append(
            f"  - id: rule-{number:04}\n    match:\n      {{hosts: [{host}], ports: [443], methods: [GET, HEAD],"
            f" paths: ['/v{number}/**']}}\n"
            f"{when}    then: allow\n"
        )
    return "rules:\n" + "".join(rules)


def microseconds(call: Callable[[], object]) -> float:
    """Give the CPU time of a call, the best of several rounds."""
    call()
    found = []
    for _ in range(ROUNDS):
        before = time.process_time()
        times, spent = 0, 0.0
        while spent < ROUND_SECONDS:
            for _ in range(20):
                call()
            times += 20
            spent = time.process_time() - before
        found.append(spent / times)
    return min(found) * 1e6


def cost(count: int, *, one_host: bool, conditions: bool) -> Cost:
    """Measure one policy."""
    content = text(count, one_host=one_host, conditions=conditions).encode()
    before = time.process_time()
    policy = read_policy({"bench.yaml": content})
    load = time.process_time() - before
    host = "api.example.com" if one_host else f"api{count - 1}.example.com"
    known = Circumstances(run=Run(labels={"team": "data"}))
    paths = (f"/v{count - 1}/x", "/other", "/a%5cb")
    allowed, denied, incomplete = (decided(policy, f"GET https://{host}{path}", known) for path in paths)
    return Cost(load_ms=load * 1e3, allowed_us=allowed, denied_us=denied, incomplete_us=incomplete)


def decided(policy: Policy, asked: str, known: Circumstances) -> float:
    """Give the CPU time of a decision in µs."""
    action = written_action(asked, known)
    return microseconds(lambda: policy.decide(action))


def measure() -> dict[str, object]:
    """Print all figures, and give them."""
    call = microseconds(lambda: None)
    request = microseconds(lambda: written_action("GET https://api.example.com/v1/x?y=z", Circumstances()))
    print(f"an empty call {call:.3f} µs; an action from the text of a request {request:.1f} µs")
    found: dict[str, object] = {"call_us": call, "request_us": request}
    for one_host in (False, True):
        for conditions in (False, True):
            where = "all for one host" if one_host else "each for its host"
            name = f"{where}{', with conditions' if conditions else ''}"
            for count in COUNTS:
                made = cost(count, one_host=one_host, conditions=conditions)
                found[f"{count} {name}"] = asdict(made)
                print(
                    f"{count:>5} rules {name:36} allowed {made.allowed_us:8.1f} µs  denied {made.denied_us:8.1f} µs"
                    f"  incomplete {made.incomplete_us:8.1f} µs  loaded in {made.load_ms:7.1f} ms",
                    flush=True,
                )
    return found


if __name__ == "__main__":
    measure()
