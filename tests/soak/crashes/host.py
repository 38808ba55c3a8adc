"""A host in miniature: the directories of one capd, and its roles as children that can be killed at any of their calls.

What lives here: making the directories, the roles. What must not: what agents say (agents.py), which faults come when
(cases.py), judging what is left (judgement.py).
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

from pyrage import x25519

from capd.daemon import recorder as recorder_module
from capd.daemon import spool as spool_module
from capd.daemon.companions import Companions
from capd.daemon.configuration import Configuration, EncryptionSection, JournalSection
from capd.daemon.needed import needed_from
from capd.daemon.recorder import Recorder
from capd.daemon.shipper_local import Limits, Memory
from capd.daemon.shipper_pace import Throttle
from capd.daemon.shipping import Shipping
from capd.daemon.spool import Spool
from capd.recording import keys
from capd.recording.age import Identities, NoKeys
from capd.recording.bucket import Bucket
from capd.recording.catalogue.writing import CatalogueWriter
from capd.recording.errors import CapdError
from capd.recording.journal import Block, JournalKey, JournalReader, JournalWriter
from capd.recording.journal.block import file_path
from capd.recording.journal.cipher import renew
from capd.recording.segment.layout import sealed_path
from capd.recording.segment.writer import SegmentWriter
from tests.assembly.world import BOOT, HOST
from tests.soak.crashes.agents import Agents
from tests.soak.crashes.power import Disk
from tests.soak.crashes.seam import DEADLY, NONE, Action, Fault, arm, changes
from tests.soak.crashes.small_disk import SmallDisk

ENDLESS_SECONDS: Final = 20.0
"""A role that has not ended by then hangs: a case takes hundredths of a second."""
KEEP: Final = Limits(age_ns_max=None, bytes_max=None, free_bytes_min=0)
RELEASE: Final = Limits(age_ns_max=0, bytes_max=0, free_bytes_min=0)
YEAR_NS: Final = 366 * 86_400 * 10**9
REFUSALS_MAX: Final = 100
"""A daemon in whose journal there is no room for so long is ended."""
FULL: Final = 75
"""Exit status of a child that met a full or failing disk and said so with an error of ours: it is started again."""
BROKEN: Final = 70
"""Of one that raised something else: never right."""


class RoleError(AssertionError):
    """A role did what no role may do, whatever happened to it."""


@dataclass(slots=True)
class Child:
    """A role at work."""

    pid: int
    fault: Fault
    says: int
    name: str
    cramped: bool = False
    """Its disk may be full."""

    def end(self) -> tuple[int, list[str]]:
        """Wait for its end; give its exit status, negative for a signal, and the lines that it said."""
        parts = []
        end = time.monotonic() + ENDLESS_SECONDS
        while select.select([self.says], [], [], max(0.0, end - time.monotonic()))[0]:
            part = os.read(self.says, 1 << 16)
            if not part:
                break
            parts.append(part)
        else:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise RoleError(f"{self.name} hangs, with {self.fault}")
        os.close(self.says)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        said = b"".join(parts).decode().splitlines()
        if status == BROKEN or (status == FULL and self.fault.action in {Action.NOTHING, *DEADLY} and not self.cramped):
            raise RoleError(f"{self.name} ended with {self.fault}:\n" + "\n".join(said))
        if status < 0 and status != -signal.SIGKILL:
            raise RoleError(f"{self.name} was ended by signal {-status}, with {self.fault}")
        return status, said


class PassingTime:
    """Time for a recorder, which passes as chance has it; and in which other things happen."""

    def __init__(self, chance: random.Random, step: Callable[[], object]) -> None:
        self._chance = chance
        self._step = step
        """Does one of the other things; gives None if there was one."""
        self._now = 1_000.0
        self._silent = 0
        self.over: Callable[[], None]

    def monotonic(self) -> float:
        """Give the time: every piece of work takes some."""
        self._now += self._chance.uniform(0, 0.005)
        return self._now

    def __getattr__(self, name: str) -> object:
        """The wall clock goes as it does."""
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        if self._silent:
            self._silent -= 1
            return
        self._silent = self._chance.choice([0, 0, 0, 1, 1, 2, 5, 40])
        for _ in range(self._chance.choice([1, 1, 1, 2, 5])):
            if self._step() is not None:
                self.over()
                return


@dataclass
class Host:
    """One instance, and what is known to have happened to it.

    Attributes:
        directory: an empty one.
        chance: decides all that is left open.
        encrypted: whether there is a recipient.
        traced: whether the power may be cut.
        limits: of local copies.
    """

    directory: Path
    chance: random.Random
    encrypted: bool = False
    traced: bool = False
    limits: Limits = KEEP
    blocks: list[Block] = field(default_factory=list)
    written: int = 0
    """How many of the blocks are, or were, in the journal."""
    lost: int = 0
    """How many of them a power cut took."""
    sealed: dict[int, bytes] = field(default_factory=dict)
    """SHA-256 of every segment that a recorder called sealed, by number."""
    settled: int = 0
    """The last one whose name a recorder made survive a power cut."""
    jump_ns: int = 0
    """How much the wall clock is wrong."""
    boot: UUID = BOOT
    small: SmallDisk | None = None
    """What all of it is on, if that may be full."""
    flipped_index: bool = False
    """Whether bits of it were flipped: SQLite has no checksums, so it is only told what does not fit together."""
    lost_keys: bool = False
    """Whether the recorder cannot read its encrypted segments any more: what its index does not know, it will not."""
    settles: bool = True
    """Whether everything that was said was over whenever a recorder ended: then it does not matter when that was."""

    def __post_init__(self) -> None:
        """Make the directories as the daemon does, and the keys."""
        place = self.small.directory if self.small else self.directory
        self.root = place / "host"
        self.state, self.run, self.bucket = (self.root / name for name in ("state", "run", "bucket"))
        self.identity = x25519.Identity.generate() if self.encrypted else None
        recipients = (str(self.identity.to_public()),) if self.identity else ()
        self.settings = Configuration(
            state_dir=self.state, runtime_dir=self.run, encryption=EncryptionSection(recipients=recipients)
        )
        self.shadow = place / "shadow"
        """Every journal file has a second name here, so that it can be read when the daemon has freed it."""
        for path in (self.bucket, self.shadow, self.settings.journal_dir):
            path.mkdir(parents=True)
        self._make_directories()
        keys.ensure(self.settings.keys_dir)
        self.key = self._renew() if self.encrypted or self.chance.random() < 0.5 else None
        self._trace = os.open(self.directory / "trace", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self.disk = Disk(self.state)
        self.agents = Agents(self.chance, self.boot)
        self.blocks += self.agents.begin
        self.frames = {
            "SEGMENT": self.chance.choice([1_500, 6_000, 40_000]),
            "FLUSH": self.chance.choice([1, 2_000, 1 << 20]),
            "MEMORY": self.chance.choice([0, 0, 3]),
            "FILE": self.chance.choice([3_000, 20_000, 1 << 20]),
        }

    def _make_directories(self) -> None:
        settings = self.settings
        own = (settings.recorder_dir, settings.segments_dir, settings.index_dir, settings.shipper_dir, settings.keys_dir)
        for path in (*own, settings.journal_dir, settings.quarantine_dir, settings.recorder_runtime_dir):
            path.mkdir(parents=True, exist_ok=True)

    def _renew(self) -> JournalKey:
        return renew(self.settings.journal_key_file, self.settings.journal_key_elsewhere, boot=self.boot, group=None)

    def close(self) -> None:
        """Let go of the trace."""
        os.close(self._trace)

    @property
    def reading(self) -> Identities | NoKeys:
        """Who reads."""
        return Identities([self.identity], "the case") if self.identity else NoKeys()

    def chapter(self) -> None:
        """Let agents have some conversations, whole."""
        self.blocks += self.agents.chapter()

    def talk(self) -> None:
        """Let agents have some conversations, whole; or go on with some that last."""
        if self.chance.random() < 0.5:
            self.chapter()
            return
        self.settles = False
        for _ in range(self.chance.randint(2, 8)):
            self.blocks += self.agents.turn()

    # -- roles -----------------------------------------------------------------------------------------------------------------

    def start(self, name: str, fault: Fault, role: Callable[[Callable[[str], None]], None]) -> Child:
        """Fork a role."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writing)
            return Child(pid, fault, reading, name, cramped=self.small is not None)
        status = BROKEN

        def say(line: str) -> None:
            os.write(writing, f"{line}\n".encode())

        try:
            os.close(reading)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            arm(self.root, fault, self._trace if self.traced else -1)
            role(say)
            status = 0
        except (CapdError, OSError) as error:
            say(f"{type(error).__name__}: {error}")
            status = FULL
        except BaseException:  # noqa: BLE001 - nothing of the parent's may run in the child
            say(traceback.format_exc())
        finally:
            arm(self.root, NONE)
            os._exit(status)

    def daemon(self, fault: Fault = NONE, *, part: float = 1.0) -> Child:
        """Start a daemon that writes what is not in the journal yet, or a part of it."""
        wanted = self.blocks[self.written : self.written + max(1, round(part * (len(self.blocks) - self.written)))]

        def role(say: Callable[[str], None]) -> None:
            for _ in self._writing(wanted, say):
                pass

        return self.start("the daemon", fault, role)

    def _writing(self, wanted: Sequence[Block], say: Callable[[str], None]) -> Iterator[None]:
        """In the child: write blocks, one at each step."""
        spool_module.FILE_BYTES_MAX = self.frames["FILE"]  # type: ignore[misc] # small files, so that there are many
        section = JournalSection.model_construct(bytes_max=1 << 30, compression="zstd", free_bytes_min=0)
        spool = Spool(
            self.settings.journal_dir, self.settings.position_file, section, group=None, disk=lambda: None, key=self.key
        )
        self._shadow(spool.position.file)
        for number, block in enumerate(wanted):
            stamps = {"boottime_ns": block.boottime_ns, "realtime_ns": block.realtime_ns}
            for _ in range(REFUSALS_MAX):
                if spool.append(block.source, block.payload, count=block.count, **stamps):
                    break
                spool.refresh()
            else:
                return
            self._shadow(spool.position.file)
            say(f"block {number}")
            if number % 4 == 0:
                spool.refresh()
            yield

    def _shadow(self, number: int) -> None:
        with contextlib.suppress(OSError):  # where there is no room for it now, it is tried again
            os.link(file_path(self.settings.journal_dir, number), file_path(self.shadow, number))

    def took(self, said: list[str]) -> None:
        """Count what a daemon wrote: what it said, and the block after it if that is there too."""
        acknowledged = sum(line.startswith("block ") for line in said)
        self._shadow_all()
        there = self.lost + journal_blocks(self)
        assert there >= self.written + acknowledged, f"{self.written + acknowledged} blocks were written, {there} are there"
        assert there <= self.written + acknowledged + 1
        self.written = there

    def _shadow_all(self) -> None:
        for path in self.settings.journal_dir.glob("*.journal"):
            self._shadow(int(path.stem))

    def recorder(self, fault: Fault = NONE) -> Child:
        """Start a recorder that works off the journal and ends."""
        signer = keys.HostKey.load(self.settings.keys_dir)

        def role(say: Callable[[str], None]) -> None:
            self.hurry(say)
            made = Recorder(self.settings, host=HOST, user="soak", signer=signer)
            made.stop(ENDLESS_SECONDS)
            made.run()
            if made._refused_at is not None:
                say("the disk is full")

        return self.start("the recorder", fault, role)

    def listener(self, fault: Fault = NONE) -> Child:
        """Start a recorder that looks at the journal while a daemon in the same child writes it, block by block.

        Whenever the recorder waits, time passes and a block may come. So it meets the daemon's turns in all their parts, and
        meets them in the same parts whenever the case is run.
        """
        signer = keys.HostKey.load(self.settings.keys_dir)
        wanted = self.blocks[self.written :]
        chance = random.Random(self.chance.getrandbits(32))

        def role(say: Callable[[str], None]) -> None:
            real = {name: vars(recorder_module)[name] for name in ("POLL_SECONDS", "IDLE_POLL_SECONDS")}
            self.hurry(say)
            vars(recorder_module).update(real)
            writing = self._writing(wanted, say)
            vars(recorder_module)["time"] = clock = PassingTime(chance, lambda: next(writing, made))
            made = Recorder(self.settings, host=HOST, user="soak", signer=signer)
            clock.over = lambda: made.stop(ENDLESS_SECONDS)
            made.run()

        return self.start("the recorder beside the daemon", fault, role)

    def hurry(self, say: Callable[[str], None]) -> None:
        """In the child: small segments, no waiting, the clock of the case, and every seal is told."""
        module = recorder_module
        for name in ("POLL_SECONDS", "IDLE_POLL_SECONDS", "RETRY_SECONDS"):
            setattr(module, name, 0.001)
        module.FLUSH_BYTES = self.frames["FLUSH"]  # type: ignore[misc]
        module.MEMORY_SHARE = self.frames["MEMORY"]  # type: ignore[misc]
        defaults = SegmentWriter.__init__.__kwdefaults__
        assert defaults is not None
        defaults["raw_bytes_max"] = self.frames["SEGMENT"]
        right, jump_ns = time.time_ns, self.jump_ns
        time.time_ns = lambda: right() + jump_ns
        seal, settle = SegmentWriter.seal, SegmentWriter.settle

        def told(writer: SegmentWriter, losses: dict[str, int]) -> Path | None:
            path = seal(writer, losses)
            if path is not None:
                say(f"sealed {int(path.stem)} {sha256(path.read_bytes()).hexdigest()}")
            return path

        def settled(writer: SegmentWriter) -> None:
            settle(writer)
            say(f"settled {writer.sequence - 1}")

        SegmentWriter.seal = told  # type: ignore[method-assign,assignment]
        SegmentWriter.settle = settled  # type: ignore[method-assign,assignment]

    def recorded(self, said: list[str]) -> None:
        """Remember what a recorder sealed."""
        for line in said:
            match line.split():
                case ["sealed", number, digest]:
                    self.sealed[int(number)] = bytes.fromhex(digest)
                case ["settled", number]:
                    self.settled = max(self.settled, int(number))
        for path in self.settings.segments_dir.glob("*.seg"):
            self.sealed.setdefault(int(path.stem), sha256(path.read_bytes()).digest())

    def shipper(self, fault: Fault = NONE, *, name: str = "shipped.json") -> Child:
        """Start a shipper that brings what is sealed, lets go of copies, extends the catalogue, and ends."""

        def role(_say: Callable[[str], None]) -> None:
            bucket = Bucket.open(str(self.bucket))
            memory = Memory(self.settings.shipper_dir / name, str(bucket), HOST)
            memory.load()
            segments = self.settings.segments_dir
            companions = Companions(bucket, memory, host=HOST, keys=self.settings.keys_dir, heads=segments)
            Shipping(
                bucket=bucket,
                segments=segments,
                memory=memory,
                companions=companions,
                limits=self.limits,
                needed=lambda: needed_from(self.settings.recorder_dir),
                throttle=Throttle(0),
                pause=lambda _seconds: True,
            ).turn()
            writer = CatalogueWriter(
                bucket,
                HOST,
                local=lambda sequence: sealed_path(segments, sequence),
                find_session=lambda _: None,
                find_run=lambda _: None,
            )
            writer.extend(time.time_ns() + YEAR_NS)

        return self.start("the shipper", fault, role)

    # -- power -----------------------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Take note of what the children did to the disk."""
        size = os.fstat(self._trace).st_size
        self.disk.follow(changes(os.pread(self._trace, size, 0)))
        os.ftruncate(self._trace, 0)

    def cut_power(self) -> None:
        """Lose what was not synced, and start again."""
        self.follow()
        self.disk.cut(self.chance)
        # The name of one that was not settled may be lost; what it held is in the journal, and is sealed anew.
        known = {path.stem for place in (self.settings.segments_dir, self.bucket) for path in place.rglob("*.seg")}
        self.sealed = {one: sum_ for one, sum_ in self.sealed.items() if one <= self.settled or f"{one:012d}" in known}
        shutil.rmtree(self.run)
        self.lost_keys = True
        self._make_directories()
        self.boot = UUID(int=self.chance.getrandbits(128))
        keys.ensure(self.settings.keys_dir)
        if self.key is not None:
            self.key = self._renew()
        self.disk = Disk(self.state)
        shutil.rmtree(self.shadow)
        self.shadow.mkdir()
        self._shadow_all()
        self.lost = self.written - journal_blocks(self)
        self.blocks = self.blocks[: self.written]
        self.blocks += self.agents.started(None, self.boot)


def journal_blocks(host: Host) -> int:
    """Count the blocks that were ever whole in the journal."""
    found = 0
    with JournalReader(host.shadow, None) as reader:
        while (item := reader.read()) is not None:
            found += isinstance(item, Block) or "is gone" in item.reason or "encrypted" in item.reason
    return found


def copy_journal(blocks: Iterator[Block], directory: Path) -> None:
    """Write blocks into a journal of their own."""
    with JournalWriter(directory) as writer:
        for block in blocks:
            stamps = {"boottime_ns": block.boottime_ns, "realtime_ns": block.realtime_ns}
            writer.append(block.source, block.payload, count=block.count, **stamps)
