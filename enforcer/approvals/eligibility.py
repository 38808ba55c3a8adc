"""Who may decide about a request.

What lives here: the rules, from facts to an error or none. What must not: finding the facts (daemon/approver_identity.py).

No is easier than yes: an approver may deny whatever he could not approve for being the one who asks, because that only stops.
What an agent process itself says never counts, whatever its user may do.

root: a run of root's is not held by anything that runs as root, so that root's yes to it would be the agent's own. It takes
somebody else. About the runs of others root decides like any approver: who is root there needs no approval to begin with.
"""

from __future__ import annotations

from collections.abc import Collection

from capd.enforcer.approvals.errors import NotAnApproverError, ScopeTooWideError, SelfApprovalError
from capd.enforcer.approvals.request import WIDTH, Asked, Person, may_meet
from capd.enforcer.policy.rule import ApprovalScope

ROOT = 0


def check_reader(person: Person, approvers: Collection[str]) -> None:
    """Let only approvers see what is asked, which is what agents say.

    Args:
        person: who wants to.
        approvers: groups of those who may.

    Raises:
        NotAnApproverError: may not.
    """
    if person.uid != ROOT and set(approvers).isdisjoint(person.groups):
        raise NotAnApproverError(f"{person.name} is no approver: {_named(approvers)}")
    if person.in_run:
        raise NotAnApproverError("this process is part of a run: agents do not decide about agents")


def check_yes(person: Person, asked: Asked, scope: ApprovalScope) -> None:
    """Let a reader say yes.

    Raises:
        SelfApprovalError: it would be the agent's own.
        NotAnApproverError: it would count for none of the rules.
        ScopeTooWideError: nobody may say yes to so much.
    """
    _check_other(person, asked)
    if not any(may_meet(person, demand) for demand in asked.demands):
        wanted = sorted({group for demand in asked.demands for group in demand.groups})
        raise NotAnApproverError(f"{person.name} is in none of the groups that the rule asks for: {', '.join(wanted)}")
    if WIDTH[scope] > WIDTH[asked.scope]:
        raise ScopeTooWideError(
            f"rule {', '.join(asked.rules)} lets an approval be good for {asked.scope.value}, not for {scope.value}"
        )


def _check_other(person: Person, asked: Asked) -> None:
    if asked.uid is None or asked.uid in {person.uid, person.login_uid}:
        raise SelfApprovalError(
            "the agent's user is not known, so nobody can be told from it"
            if asked.uid is None
            else f"{person.name} is the user as whom the agent runs"
        )
    if asked.principal is not None and _is_principal(person, asked.principal[1]):
        raise SelfApprovalError(f"the agent acts for {person.name}")
    if person.has_runs and person.uid != ROOT:
        raise SelfApprovalError(f"agents run as {person.name} now, and could have said this")


def _is_principal(person: Person, principal: str) -> bool:
    """Say whether a principal's name, or that of an address, is the person's."""
    return principal == person.name or principal.partition("@")[0] == person.name


def _named(approvers: Collection[str]) -> str:
    if not approvers:
        return "root alone is, since `[enforcement] approvers` names no group"
    return f"only root and members of {', '.join(sorted(approvers))} are"
