"""What of a decision's obligations can be carried out for a request, known before anything is asked or sent.

What lives here: the reasons why not. What must not: values of credentials, and the policy.
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.obligation import CannotCarryOutError, Obligations
from capd.enforcer.obligations.placing import with_parameter
from capd.enforcer.obligations.signing import payload_of, scope_of
from capd.enforcer.policy.protocol import PROTOCOLS
from capd.enforcer.policy.rule import Form
from capd.enforcer.proxy.question import Kind, Question, Request

UNSUPPORTED: Final = "a rule wants it masked or a credential put in, which this version cannot do here"
UNLIMITED: Final = "a rule limits it in a way that this version cannot do here"
UPGRADED: Final = "a rule wants it masked or a credential put in, and what follows an upgrade could not be looked into"
IN_CLEAR: Final = "a credential goes only through TLS to a target that proves its name; the rule does not say `cleartext`"
TOO_LONG: Final = "its body is too long to be signed"
_OF_DATABASES: Final = frozenset({Kind.SESSION, Kind.STATEMENT})
"""A credential is of the session, which has signed in before its first statement."""


def problem_of(question: Question, obligations: Obligations) -> str:
    """Say why obligations cannot be carried out; "" when they can, as far as that is known without the credentials."""
    if any(limit.given - _limits_of(question.protocol) for _, limit in obligations.limits):
        return UNLIMITED
    return _changed(question, obligations) if obligations.masks or obligations.injections else ""


def _changed(question: Question, obligations: Obligations) -> str:
    """Say why a message cannot be changed as it should."""
    request = question.request
    if not question.carries_out or (request is None and question.kind not in _OF_DATABASES):
        return UNSUPPORTED
    if request is not None and request.upgrade is not None:
        return UPGRADED
    if question.kind is not Kind.STATEMENT and not _may_go(question, obligations):
        return IN_CLEAR
    if request is None:
        return ""
    try:
        _try(request, obligations)
    except CannotCarryOutError as error:
        return str(error)
    if signs_body(request, obligations) and question.body is not None and not question.body.complete:
        return TOO_LONG
    return ""


def _limits_of(protocol: str) -> frozenset[str]:
    known = PROTOCOLS.get(protocol)
    return frozenset() if known is None else known.limits


def _may_go(question: Question, obligations: Obligations) -> bool:
    """Say whether each credential may go to the target as it is reached; with an opening that names no user none goes."""
    if question.kind is Kind.SESSION and question.login is not None and question.login.user is None:
        return True
    proves = question.inspected and question.server_name is not None
    return proves or all(injection.cleartext for _, injection in obligations.injections)


def signs_body(request: Request, obligations: Obligations) -> bool:
    """Say whether a signature needs the body, whose hash the request does not say."""
    signs = any(injection.form is Form.AWS_SIGV4 for _, injection in obligations.injections)
    try:
        return signs and payload_of(request.fields) is None
    except CannotCarryOutError:
        return False


def _try(request: Request, obligations: Obligations) -> None:
    for _, injection in obligations.injections:
        if injection.form is Form.AWS_SIGV4:
            scope_of(request.fields, request.query)
        elif injection.form is Form.QUERY:
            assert injection.parameter is not None
            with_parameter(request.query, injection.parameter, Secret(""))
