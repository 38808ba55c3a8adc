"""What a person is told of a request, in short lines that messages and pages share.

What lives here: which facts, and their words. What must not: the forms of chat tools, markup.
"""

from __future__ import annotations

from collections.abc import Iterator

from capd.enforcer.approvals.state import State
from capd.enforcer.callbacks.notice import Notice, event_of
from capd.enforcer.policy.protocol import OF_DATABASES


def what(found: Notice) -> str:
    """Say what is asked."""
    return f"{found['operation']} {found['url']}"


def rows(found: Notice) -> Iterator[tuple[str, str]]:
    """Give the facts beside that, by name, the ones that decide first."""
    principal, run = found["principal"], found["run"]
    if found["upgrade"]:
        yield "becomes", f"{found['upgrade']}: what follows is not judged"
    yield from (("unread", problem) for problem in found["problems"])
    yield "effects", ", ".join(found["effects"]) if found["effects"] else "not known"
    if found.get("protocol") in OF_DATABASES:
        yield "touches", "not known" if found["resources"] is None else ", ".join(found["resources"]) or "nothing named"
        yield from ((name.replace("_", " "), str(value)) for name, value in found["known"].items())
    # What was asked before an upgrade of capd may have neither.
    yield from (("put in", f"the credential {name}") for name in found.get("credentials", ()))
    yield from (("hidden", f"parts of the answer, by {rule}") for rule in found.get("masked_by", ()))
    yield "for", "not known" if principal is None else f"{principal['kind']} {principal['name']}"
    yield "run", f"{found['run_name'] or ''} {run['id']}, user {run['uid']}".strip()
    yield "why", f"{found['why']} ({', '.join(found['rules'])})"
    yield "needs", ", ".join(_needs(found)) or "nobody more"
    yield "until", str(found["expires"])
    yield "body", f"{found['body_bytes']} bytes"


def became(found: Notice) -> str:
    """Say what became of a request, and who said so."""
    state = found["state"]
    if state == State.PENDING:
        return f"has the yes of {', '.join(found['approved_by'])}, and needs more"
    if event_of(state) == State.APPROVED:
        return f"was approved by {', '.join(found['approved_by'])}"
    if state == State.DENIED:
        return f"was denied by {found['denied_by']} ({found['reason']})"
    words = "is over" if state == State.POLICY_CHANGED else f"is {state}"
    return f"{words} ({found['reason']})" if found["reason"] else words


def _needs(found: Notice) -> Iterator[str]:
    for demand in found["demands"]:
        left = demand["quorum"] - demand["yeses"]
        if left > 0:
            groups = f" of {' or '.join(demand['groups'])}" if demand["groups"] else ""
            yield f"{left} {'person' if left == 1 else 'persons'}{groups} (rule {demand['rule']})"
