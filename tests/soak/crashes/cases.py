"""The cases: what happens to a host, decided by one number.

What lives here: kinds of cases, and running one. What must not: how a role is run (host.py), what is promised (judgement.py).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.soak.crashes.host import RELEASE, Host
from tests.soak.crashes.judgement import (
    expected,
    judge_bucket,
    judge_consistency,
    judge_evidence,
    judge_records,
    judge_sealed,
    judge_steps,
    named,
    recorded,
    said,
)
from tests.soak.crashes.seam import DEADLY, NONE, Action, Fault
from tests.soak.crashes.small_disk import PAGE, SmallDisk
from tests.soak.crashes.verifier import public_key, signing_key, verify

CALLS: Final = {"daemon": 60, "recorder": 400, "shipper": 250}
"""About how many calls a role makes in a case: a fault comes at one of them, early ones more often."""
DAY_NS: Final = 86_400 * 10**9


def fault(chance: random.Random, role: str, actions: tuple[Action, ...] = tuple(sorted(DEADLY))) -> Fault:
    """Choose what happens to a role."""
    call = int(math.exp(chance.uniform(0, math.log(CALLS[role]))))
    return Fault(action=chance.choice(actions), call=call, calls=chance.choice([1, 2, 5, 30]))


def write_all(host: Host, actions: tuple[Action, ...] = ()) -> None:
    """Let daemons write until all that was said is in the journal."""
    while host.written < len(host.blocks):
        hit = fault(host.chance, "daemon", actions) if actions and host.chance.random() < 0.5 else NONE
        _, lines = host.daemon(hit).end()
        host.took(lines)


def record(host: Host, hit: Fault = NONE) -> None:
    """Let a recorder work."""
    _, lines = host.recorder(hit).end()
    host.recorded(lines)


def finish(host: Host) -> None:
    """Let every role do its work in peace."""
    write_all(host)
    record(host)
    host.shipper().end()


def judge(host: Host, *, exact: bool = True) -> None:
    """Hold a host against all promises."""
    judge_evidence(host)
    judge_bucket(host)
    if host.limits.age_ns_max is not None:
        return
    if exact:
        judge_steps(host)
    if host.settles:
        judge_records(host, exact=exact)
    else:
        judge_consistency(host)


def rounds(host: Host, actions: tuple[Action, ...]) -> None:
    """Let agents talk and roles fail, in turns."""
    chance = host.chance
    for _ in range(chance.randint(1, 4)):
        host.talk()
        write_all(host, actions)
        for _ in range(chance.randint(0, 3)):
            record(host, fault(chance, "recorder", actions))
        for _ in range(chance.randint(0, 2)):
            host.shipper(fault(chance, "shipper", actions)).end()


def killed(host: Host) -> None:
    """Roles are killed at any of their calls."""
    if host.chance.random() < 0.2:
        host.limits = RELEASE
    rounds(host, tuple(sorted(DEADLY)))
    finish(host)
    judge(host)


def full(host: Host) -> None:
    """The disk is full, or fails, for some calls, and roles are killed."""
    rounds(host, (Action.NO_SPACE, Action.IO_ERROR, Action.NO_SPACE, Action.KILL_AFTER))
    finish(host)
    judge(host)


def cramped(host: Host) -> None:
    """The disk, the bucket's as well, is really full, for a while and to the last byte, and roles are killed."""
    chance, disk = host.chance, host.small
    assert disk is not None
    for _ in range(chance.randint(1, 4)):
        host.talk()
        for _ in range(chance.randint(1, 3)):
            disk.fill(chance.choice([0, 1, 4, 20, 100, 400]) * PAGE)
            said_by_daemon = host.daemon(fault(chance, "daemon") if chance.random() < 0.3 else NONE).end()[1]
            said_by_recorder = host.recorder(fault(chance, "recorder") if chance.random() < 0.3 else NONE).end()[1]
            host.shipper(fault(chance, "shipper") if chance.random() < 0.3 else NONE).end()
            disk.empty()
            host.took(said_by_daemon)
            host.recorded(said_by_recorder)
            # What the daemon had no room for comes later: the recorder ended within it, and let go of what it held back.
            host.settles = host.settles and host.written == len(host.blocks)
    finish(host)
    judge(host)


def clock(host: Host) -> None:
    """The wall clock jumps, by days and back, and roles are killed."""
    for _ in range(host.chance.randint(2, 4)):
        host.jump_ns = host.chance.choice([-40, -1, 0, 1, 3, 400]) * DAY_NS + host.chance.randint(-DAY_NS, DAY_NS)
        host.talk()
        write_all(host)
        record(host, fault(host.chance, "recorder"))
        record(host)
        host.shipper(fault(host.chance, "shipper")).end()
    finish(host)
    judge(host)


def together(host: Host) -> None:
    """All roles work at the same time, two shippers among them, and are killed at any of their calls."""
    chance = host.chance
    for _ in range(chance.randint(1, 3)):
        host.talk()
        host.talk()
        for part in (0.4, 0.5, 1.0):
            daemon = host.daemon(fault(chance, "daemon") if chance.random() < 0.3 else NONE, part=part)
            recorder = host.recorder(fault(chance, "recorder") if chance.random() < 0.6 else NONE)
            shippers = [
                host.shipper(fault(chance, "shipper") if chance.random() < 0.6 else NONE, name=name)
                for name in ("shipped.json", "other.json")
            ]
            for child in shippers:
                child.end()
            host.recorded(recorder.end()[1])
            host.took(daemon.end()[1])
    finish(host)
    host.shipper(name="other.json").end()
    judge_evidence(host)
    judge_bucket(host)
    judge_steps(host)


def parts(host: Host) -> None:
    """The recorder meets the daemon's turns in parts, goes on or dies there, and conversations go on over all."""
    chance = host.chance
    for _ in range(chance.randint(1, 3)):
        host.talk()
        while host.written < len(host.blocks):
            _, lines = host.listener(fault(chance, "recorder") if chance.random() < 0.8 else NONE).end()
            host.recorded(lines)
            host.took(lines)
        if chance.random() < 0.5:
            host.shipper(fault(chance, "shipper") if chance.random() < 0.5 else NONE).end()
    finish(host)
    judge_evidence(host)
    judge_bucket(host)
    judge_steps(host)


def power(host: Host) -> None:
    """The power is cut at any call of any role; what was not synced is lost as file systems lose it."""
    chance = host.chance
    for _ in range(chance.randint(1, 2)):
        rounds(host, tuple(sorted(DEADLY)))
        host.chapter()
        write_all(host)
        last = chance.choice(["recorder", "recorder", "shipper", "nothing"])
        if last == "recorder":
            record(host, fault(chance, "recorder"))
        elif last == "shipper":
            host.shipper(fault(chance, "shipper")).end()
        host.cut_power()
    after = host.written
    host.chapter()
    finish(host)
    judge_evidence(host)
    judge_bucket(host)
    judge_consistency(host)
    found = recorded(host)
    for session, records in expected(host, host.blocks[after:]).items():
        if any(record.body.get("socket") for record in records):
            assert said(records) == said(found.get(session, [])), f"session {session} after the cut was recorded otherwise"


VICTIMS: Final = {
    "memory of the shipper": "state/shipper/shipped.json",
    "position": "state/recorder/position",
    "snapshot": "state/recorder/state",
    "what the recorder needs": "state/recorder/needed",
    "index": "state/index/capd.db",
    "open segment": "state/segments/*.open",
}
"""What can be made again from what else there is: whatever happens to these, nothing is lost and nothing is there twice."""


def spoil(chance: random.Random, path: Path) -> str:
    """Flip bits of a file, cut it, make it longer or empty."""
    data = bytearray(path.read_bytes())
    how = chance.choice(["flipped", "flipped", "flipped", "cut", "longer", "empty"]) if data else "longer"
    match how:
        case "flipped":
            for _ in range(chance.choice([1, 1, 3])):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case "cut":
            del data[chance.randrange(len(data)) :]
        case "longer":
            data += chance.randbytes(chance.randint(1, 100))
        case "empty":
            data.clear()
    path.write_bytes(data)
    return how


def healed(host: Host) -> None:
    """Files that can be made again are spoiled."""
    chance, exact = host.chance, True
    for _ in range(chance.randint(1, 3)):
        host.talk()
        write_all(host)
        record(host, fault(chance, "recorder") if chance.random() < 0.7 else NONE)
        host.shipper(fault(chance, "shipper") if chance.random() < 0.5 else NONE).end()
        for name in chance.sample(sorted(VICTIMS), chance.randint(1, 2)):
            for path in host.root.glob(VICTIMS[name]):
                how = spoil(chance, path)
                exact = exact and name != "snapshot"  # who knows nothing of a run cannot say so of its processes
                host.flipped_index = host.flipped_index or (name == "index" and how == "flipped")
                host.lost_keys = host.lost_keys or name == "index"
    finish(host)
    judge(host, exact=exact)


DOUBTED: Final = {
    "head": "host/state/segments/*.head",
    "public key": "host/state/keys/*.pub",
    "private key": "host/state/keys/host.key",
    "pins": "pins.json",
}
CONVICTING: Final = frozenset({"head", "public key"})
"""What cannot be otherwise and the record be called whole. A pin that forgot some of what was seen is not seen to have."""


def doubted(host: Host) -> None:
    """Heads, keys and what a verifier remembers are spoiled: verification does not call that whole, and says what is wrong."""
    chance = host.chance
    for _ in range(chance.randint(1, 3)):
        host.talk()
        write_all(host)
        record(host)
    pins, key = host.directory / "pins.json", signing_key(host)
    assert verify(host, pins) == 0, "it is whole"
    for name in chance.sample(sorted(DOUBTED), chance.randint(1, 3)):
        victim = chance.choice(sorted(host.directory.glob(DOUBTED[name])))
        before = victim.read_bytes()
        spoil(chance, victim)
        after = victim.read_bytes()
        status = verify(host, host.directory / f"{len(before)}.json" if name == "public key" else pins)  # a pin has the key too
        harmless = after == before or (name == "public key" and public_key(after) == public_key(before))
        assert harmless or name not in CONVICTING or status in {1, 6}, f"{name} was spoiled, verification ended with {status}"
        assert signing_key(host) in {key, None}, "another key is taken for the host's"
        victim.write_bytes(before)
        assert verify(host, pins) == 0, f"{name} is as it was"
    host.talk()
    finish(host)
    judge(host)


def told(host: Host) -> None:
    """Sealed segments are spoiled: verification names them and no others, and nobody else is held up."""
    chance = host.chance
    tampered: set[int] = set()
    for _ in range(chance.randint(1, 3)):
        host.chapter()
        write_all(host)
        record(host)
        segments = sorted(host.settings.segments_dir.glob("*.seg"))
        if chance.random() < 0.7:
            victim = chance.choice(segments)
            before = victim.read_bytes()
            spoil(chance, victim)
            if victim.read_bytes() != before:
                tampered.add(int(victim.stem))
        host.shipper(fault(chance, "shipper") if chance.random() < 0.3 else NONE).end()
    after = len(host.blocks)
    host.chapter()
    finish(host)
    found = named(host.state)
    assert tampered <= found, f"{tampered} were spoiled, verification names {found}"
    assert found <= tampered | {number + 1 for number in tampered}
    judge_sealed(host, tampered)
    survivors = recorded(host, without=tampered)
    start = host.blocks[:2]
    for session, records in expected(host, [*start, *host.blocks[after:]]).items():
        if any(record.body.get("socket") for record in records):
            assert said(records) == said(survivors.get(session, []))


KINDS: Final[dict[str, Callable[[Host], None]]] = {
    "killed": killed,
    "full": full,
    "power": power,
    "healed": healed,
    "clock": clock,
    "told": told,
    "doubted": doubted,
    "cramped": cramped,
    "together": together,
    "parts": parts,
}


def run(seed: int, directory: Path, kind: str = "") -> str:
    """Run one case, of a kind that is named or that the seed decides; give its kind.

    Raises:
        AssertionError: a promise was broken.
    """
    chance = random.Random(seed)
    kind = kind or sorted(KINDS)[seed % len(KINDS)]
    encrypted = chance.random() < (0.5 if kind == "parts" else 0.2)
    small = SmallDisk(directory / "small") if kind == "cramped" else None
    try:
        host = Host(directory, chance, encrypted=encrypted, traced=kind == "power", small=small)
        try:
            KINDS[kind](host)
        finally:
            host.close()
    except BaseException as error:
        error.add_note(f"seed {seed}, kind {kind}")
        raise
    finally:
        if small is not None:
            small.close()
    return kind
