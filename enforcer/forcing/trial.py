"""Whether this kernel takes the rules that force traffic: tried in a network namespace of its own, where they force nobody.

What lives here: the trial. What must not: which rules (plan.py), what is said of it.

A namespace belongs to a thread, so the trial is one that ends; the namespace, and the table in it, end with it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Final

from capd.enforcer.forcing.namespaces import CLONE_NEWNET
from capd.enforcer.forcing.plan import CgroupAt, Facts, plan
from capd.enforcer.forcing.ruleset import Ruleset

SOMEBODY: Final = 65_534
"""A user, and a cgroup, whom the rules may name; nobody of the kind lives in a namespace that is empty."""


def try_rules(*, proxy_port: int, resolver_port: int) -> bool:
    """Have the kernel take the rules of an instance.

    Args:
        proxy_port: where the enforcer would listen.
        resolver_port: where it would answer DNS.

    Returns:
        Whether nobody but the daemon could change them.

    Raises:
        ForcingError: the kernel does not take them.
        OSError: no namespace can be made.
    """
    cgroup = CgroupAt(level=1, id=SOMEBODY)
    facts = Facts(
        name="capd_trial",
        mode="enforce",
        agents=(cgroup,),
        users=(SOMEBODY,),
        enforcer_user=SOMEBODY,
        enforcer_cgroup=cgroup,
        proxy_port=proxy_port,
        resolver_port=resolver_port,
    )
    trial = _Trial(facts)
    trial.start()
    trial.join()
    if trial.error is not None:
        raise trial.error
    return trial.owned


class _Trial(threading.Thread):
    """The thread."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(name="trial of rules")
        self._facts = facts
        self.owned = False
        self.error: Exception | None = None

    def run(self) -> None:
        """Put the table into a new namespace."""
        try:
            self._try()
        except Exception as error:  # noqa: BLE001 - given to the thread that waits
            self.error = error

    def _try(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"a network namespace cannot be made: {os.strerror(number)}")
        ruleset = Ruleset()
        try:
            ruleset.apply(plan(self._facts))
            self.owned = ruleset.owned
        finally:
            ruleset.close()
