"""Keeping forcing in place: both layers put there before the first run, looked after, proved by a canary, told in the status.

What lives here: which cgroups are selected, when what is put there, what is wrong. What must not: rules (enforcer/forcing),
programs (probes/barrier.py). One thread at a time calls it: the one that starts the daemon, then the attendant's.

Nothing here ever takes a layer away: what stands when the daemon ends, stands. `capd enforcement off` removes it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from capd.daemon import canary as canaries
from capd.daemon import enforcer_user, kept_descriptors
from capd.daemon.canary import Canary, Findings, Pace
from capd.daemon.cgroups import CANARY, Hierarchy, slice_path
from capd.daemon.enforcement_limits import LIMITS
from capd.daemon.enforcement_names import EnforcementNames
from capd.daemon.enforcement_standing import standing
from capd.daemon.namespace_keeping import NamespaceKeeper, Wanted
from capd.enforcer.forcing.plan import CgroupAt, Facts, plan
from capd.enforcer.forcing.ruleset import Ruleset
from capd.enforcer.forcing.ruleset_watch import RulesetWatch
from capd.enforcer.forcing.table import Table
from capd.probes.barrier import Listener
from capd.probes.barrier_pins import Barrier
from capd.recording.errors import CapdError

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import SelectionSection
    from capd.daemon.enforcement_section import EnforcementSection

CHECK_SECONDS: Final = 30.0
"""From one canary, and one comparison of the kernel with the plan, to the next; sooner after a canary that found something."""
CANARY_SECONDS_MAX: Final = 10.0
"""Its attempts take at most 3 s."""
CANARY_POLL_SECONDS: Final = 0.02
ESCAPED_SECONDS: Final = 5.0
"""From one look at where the processes of runs are to the next: one file of /proc for each."""
ESCAPED_MAX: Final = 20
"""Named in the status; the first one is an alarm."""
UNIT_SUFFIXES: Final = (".service", ".scope")
"""Of cgroups that systemd makes, when it starts what they are for."""
FAILURES: Final = (CapdError, OSError)


class Enforcement:
    """The forcing of one instance."""

    def __init__(
        self,
        section: EnforcementSection,
        selection: SelectionSection,
        hierarchy: Hierarchy,
        names: EnforcementNames,
        say: Callable[[str], None],
        *,
        kept: socket.socket | None = None,
        untrusted: CapdError | None = None,
    ) -> None:
        """Take what it works with.

        Args:
            section: how it is configured; its mode is not `off`.
            selection: whose children and which cgroups are runs.
            hierarchy: has the cgroups.
            names: of this instance's parts.
            say: tells the operator one line.
            kept: the socket by which an earlier daemon owns the table, if the service manager kept it.
            untrusted: why there is nothing that agents could trust, so that the enforcer does not start, or None.

        Raises:
            ConfigurationError: a user does not exist, or is the enforcer's own.
        """
        self._section = section
        self._selection = selection
        self._hierarchy = hierarchy
        self._names = names
        self._say = say
        self._user = enforcer_user.choose(section.user)
        self._users = self._numbers(section.users)
        self._ruleset: Ruleset | None = None
        self._kept = kept
        self._barrier = Barrier(names.pins)
        self._table: Table | None = None
        self._canary: Canary | None = None
        self._canary_due = 0.0
        self._pace = Pace(CHECK_SECONDS)
        self._check_due = 0.0
        self._escaped_due = 0.0
        self._findings: Findings | None = None
        self._found_ns: int | None = None
        self._repaired: dict[str, object] = {"times": 0, "what": None, "time_ns": None}
        self._selected: tuple[str, ...] = ()
        self._namespaces: NamespaceKeeper | None = None
        self.watch: RulesetWatch | None = None
        """Becomes readable when somebody may have changed the table; then `look_again` is to be called."""
        self._escaped: list[str] = []
        self._untrusted = untrusted
        if untrusted is not None:
            say(f"the enforcer cannot start, so agents stay closed off, and are recorded: {untrusted}; {untrusted.hint}")
        self.problem: str | None = "nothing is in place yet"
        """Why forcing is not in place, None when it is. `follow` tries again each time."""

    def select(self, users: Sequence[str], selection: SelectionSection) -> None:
        """Force other users and selectors from the next `follow` on.

        Raises:
            ConfigurationError: as at the start; nothing has changed then.
        """
        self._users, self._selection = self._numbers(users), selection

    def _numbers(self, users: Sequence[str]) -> tuple[int, ...]:
        return enforcer_user.forced(users, self._user)

    @property
    def enforced(self) -> bool:
        """Whether what does not go through the enforcer is to be refused."""
        return self._section.mode == "enforce"

    def closed(self) -> str | None:
        """Say why no run may be let in, or None."""
        if not self.enforced:
            return None
        if self.problem is not None:
            return f"agents' traffic cannot be forced through the enforcer: {self.problem}"
        found = self._open()
        return f"agents' traffic gets around the enforcer: {found[0]}" if found else None

    def keep_namespaces(self, path: Path) -> None:
        """Force in other network namespaces too, by a thread of its own; `path`: at which the enforcer asks for its sockets.

        Raises:
            StateDirectoryError: nothing can be bound there.
        """
        ports = self._section.proxy_port, self._section.resolver_port
        self._namespaces = NamespaceKeeper(path, self._user, ports, self._hierarchy, self._say)

    def follow(self, runs: Mapping[int, str]) -> None:
        """Put in place what follows from cgroups that came, went or were made anew.

        Args:
            runs: cgroups of live runs by the kernel's number.
        """
        self._settle(runs)

    def loose(self) -> bool:
        """Say whether agents are to be forced and neither layer stands, so that nothing keeps them from the network."""
        return self.enforced and self.problem is not None and self._table is None and not standing(self._names)

    def prove(self) -> None:
        """Wait for the canary that was begun, if one was."""
        while self._canary is not None:
            time.sleep(CANARY_POLL_SECONDS)
            self._attend_canary(time.monotonic())

    def words(self) -> str:
        """Say in short how it is."""
        if self.problem is not None:
            return f"agents' traffic is not forced: {self.problem}"
        result = "unknown" if self._findings is None else self._findings.result
        return {
            "forced": "agents' traffic is forced, as a canary has tried",
            "closed": "agents reach nothing until the enforcer listens",
            "open": "agents' traffic gets around the enforcer",
            "unknown": "rules are in place; no canary has tried them",
        }[result]

    def attend(self, now: float, escaped: Callable[[], list[str]]) -> None:
        """Compare what stands with what should, and let a canary try, when it is time. Called every second.

        Args:
            now: monotonic time.
            escaped: names the processes of runs that left their run's cgroup.
        """
        self._attend_canary(now)
        if now >= self._escaped_due:
            self._escaped_due = now + ESCAPED_SECONDS
            self._escaped = escaped()[:ESCAPED_MAX]
        if now >= self._check_due:
            self._check_due = now + CHECK_SECONDS
            self._compare()
            self._begin_canary(now)

    def look_again(self) -> None:
        """Compare now what stands with what should, if others, or this process, changed the table."""
        if self.watch is not None and self.watch.changed(self._names.table):
            self._compare()

    def close(self) -> None:
        """Let go of what this process holds. Both layers stay."""
        if self.watch is not None:
            self.watch.close()
        if self._namespaces is not None:
            self._namespaces.close()
        if self._canary is not None:
            self._canary.kill()
        for owner in (self._ruleset, self._kept):
            if owner is not None:
                owner.close()
        self._barrier.close()

    def describe(self) -> dict[str, object]:
        """Give the part of the status."""
        findings, error = self._findings, self._untrusted
        return {
            "mode": self._section.mode,
            "problem": self.problem,
            "untrusted": None if error is None else {"problem": str(error), "next_step": error.hint},
            "table": {"name": self._names.table, "owned": self._ruleset is not None and self._ruleset.owned},
            "programs": {"pinned": str(self._names.pins), "cgroups": len(self._barrier.held()) if self.enforced else 0},
            "selected": sorted(self._selected),
            "users": list(self._users),
            "enforcer": {"user": self._user, "cgroup": self._names.enforcer},
            "ports": {"proxy": self._section.proxy_port, "resolver": self._section.resolver_port},
            "canary": {
                "time_ns": self._found_ns,
                "result": None if findings is None else findings.result,
                "open": self._open(),
                "closed": [] if findings is None else list(findings.closed),
                "unknown": None if findings is None else findings.unknown,
            },
            "namespaces": {} if self._namespaces is None else self._namespaces.describe(),
            "namespaces_problem": None if self._namespaces is None else self._namespaces.problem,
            "escaped": list(self._escaped),
            "limits": list(LIMITS),
            "refused": self._counted(),
            "repaired": dict(self._repaired),
        }

    def _open(self) -> list[str]:
        """Name the ways around the enforcer that canaries found, here and in other network namespaces."""
        here = [] if self._findings is None else list(self._findings.open)
        return [*here, *([] if self._namespaces is None else self._namespaces.open_ways())]

    def _settle(self, runs: Mapping[int, str]) -> None:
        """Put in place what should stand, if that is something else than what was put there last."""
        try:
            cgroups = self._cgroups(runs)
            facts = self._facts(cgroups)
            table = plan(facts)
            if self.problem is not None or table != self._table:
                self._put(table, {cgroup.id: self._hierarchy.directory(path) for path, cgroup in cgroups.items()})
        except FAILURES as error:
            if self.problem != str(error):
                self._say(f"capd daemon: agents' traffic cannot be forced through the enforcer: {error}")
            self.problem = str(error)
        else:
            self._selected = tuple(cgroups)
            self.problem = None
        if self._namespaces is not None and self._table is not None:
            canary = self._hierarchy.directory(slice_path(self._names.parent)) / CANARY
            wanted = Wanted(table=self._table, runs=tuple(runs.values()), canaries=canary, enforced=self.enforced)
            self._namespaces.want(wanted)

    def _cgroups(self, runs: Mapping[int, str]) -> dict[str, CgroupAt]:
        """Give the cgroups that are selected, by path: permanent parents, and those runs that none of them covers."""
        paths = [self._hierarchy.ensure(name) for name in (self._names.parent, *self._selection.slices)]
        (self._hierarchy.directory(paths[0]) / CANARY).mkdir(exist_ok=True)
        paths += [f"/{path.strip('/')}" for path in self._selection.cgroups]
        found: dict[str, CgroupAt] = {}
        for path in (*paths, *runs.values()):
            number = self._hierarchy.id_of(path)
            if number is not None and not any(path == other or path.startswith(f"{other}/") for other in found):
                found[path] = CgroupAt(level=path.count("/"), id=number)
        return found

    def _facts(self, cgroups: Mapping[str, CgroupAt]) -> Facts:
        section = self._section
        if not self._names.enforcer.endswith(UNIT_SUFFIXES):
            self._hierarchy.ensure(self._names.enforcer)
        own = self._hierarchy.id_of(self._names.enforcer)
        return Facts(
            name=self._names.table,
            mode="enforce" if self.enforced else "observe",
            agents=tuple(sorted(cgroups.values())),
            users=self._users,
            enforcer_user=self._user,
            enforcer_cgroup=None if own is None else CgroupAt(level=self._names.enforcer.count("/"), id=own),
            proxy_port=section.proxy_port,
            resolver_port=section.resolver_port,
            metadata=section.metadata,
        )

    def _put(self, table: Table, cgroups: Mapping[int, Path]) -> None:
        """Put both layers in place: the one that only refuses first.

        Raises:
            CapdError, OSError: one of them is not; the other one is, if it can be, and of that one what stood before.
        """
        try:
            self._put_programs(cgroups)
        finally:  # each layer holds alone
            self._put_table(table)

    def _put_programs(self, cgroups: Mapping[int, Path]) -> None:
        section = self._section
        if self.enforced:
            listener = Listener(proxy_port=section.proxy_port, resolver_port=section.resolver_port)
            self._barrier.load(listener, metadata=section.metadata == "deny")
            self._barrier.hold(cgroups)
        else:
            self._barrier.remove()

    def _put_table(self, table: Table) -> None:
        if self.watch is None:
            self.watch = RulesetWatch()
        if self._ruleset is None:
            self._ruleset, self._kept = Ruleset(self._kept), None
        if self._table is not None and self.problem is None:
            self._ruleset.change(self._table, table)
        else:
            self._ruleset.apply(table)
            kept_descriptors.keep(self._ruleset.socket)
        self._table = table

    def _compare(self) -> None:
        """See whether the kernel still has what was put there; if not, put it there again and remember that."""
        if self.problem is not None or self._ruleset is None or self._table is None:
            return
        try:
            different = self._ruleset.difference(self._table)
            cgroups = {
                cgroup: self._hierarchy.directory(path) for path in self._selected if (cgroup := self._hierarchy.id_of(path))
            }
            missing = self._barrier.missing(cgroups) if self.enforced else []
            if different is None and not missing:
                return
            self.problem = f"the table {self._names.table}: {different}" if different else missing[0]
            self._note_repair(self.problem)
            self._put(self._table, cgroups)
        except FAILURES as error:
            self.problem = str(error)
        else:
            self.problem = None

    def _note_repair(self, what: str) -> None:
        self._say(f"capd daemon: others changed what forces agents' traffic, putting it back: {what}")
        times = cast("int", self._repaired["times"]) + 1
        self._repaired = {"times": times, "what": what, "time_ns": time.time_ns()}

    def _begin_canary(self, now: float) -> None:
        if self._canary is not None or self.problem is not None:
            return
        place = self._hierarchy.directory(slice_path(self._names.parent)) / CANARY
        try:
            self._canary = Canary(place, self._section.proxy_port)
        except OSError as error:
            self._conclude(Findings(unknown=f"it could not be started: {error.strerror}"), now)
            return
        self._canary_due = now + CANARY_SECONDS_MAX

    def _attend_canary(self, now: float) -> None:
        if self._canary is None:
            return
        said = self._canary.answer()
        if said is None and now < self._canary_due:
            return
        if said is None:
            self._canary.kill()
        self._canary = None
        self._conclude(canaries.judge(said or {}, enforced=self.enforced), now)

    def _conclude(self, findings: Findings, now: float) -> None:
        self._findings, self._found_ns = findings, time.time_ns()
        self._check_due = min(self._check_due, now + self._pace.after(findings))

    def _counted(self) -> dict[str, object]:
        """Give what each layer refused; the canary's own attempts are among it."""
        table: dict[str, int] = {}
        if self._ruleset is not None and self._table is not None:
            try:
                table = {
                    name.removeprefix("refused_"): count for name, count in self._ruleset.counters(self._table.name).items()
                }
            except CapdError:
                table = {}  # what keeps it from answering is found by the next comparison
        return {"table": table, "programs": self._barrier.counts() if self.enforced else {}}
