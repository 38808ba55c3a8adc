"""What of a decision's obligations can be carried out for a request, known before anything is asked or sent.

What lives here: the reasons why not. What must not: values of credentials, and the policy.
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.obligation import CannotCarryOutError, Obligations
from capd.enforcer.obligations.placing import with_parameter
from capd.enforcer.obligations.signing import payload_of, scope_of
from capd.enforcer.policy.rule import Form
from capd.enforcer.proxy.question import Question, Request

UNSUPPORTED: Final = "a rule wants it masked or a credential put in, which this version cannot do here"
UPGRADED: Final = "a rule wants it masked or a credential put in, and what follows an upgrade could not be looked into"
IN_CLEAR: Final = "a credential goes only through TLS to a target that proves its name; the rule does not say `cleartext`"
TOO_LONG: Final = "its body is too long to be signed"


def problem_of(question: Question, obligations: Obligations) -> str:
    """Say why obligations cannot be carried out; "" when they can, as far as that is known without the credentials."""
    request = question.request
    if not obligations:
        return ""
    if request is None or not question.carries_out:
        return UNSUPPORTED
    if request.upgrade is not None:
        return UPGRADED
    proves = question.inspected and question.server_name is not None
    if not proves and not all(injection.cleartext for _, injection in obligations.injections):
        return IN_CLEAR
    try:
        _try(request, obligations)
    except CannotCarryOutError as error:
        return str(error)
    if signs_body(request, obligations) and question.body is not None and not question.body.complete:
        return TOO_LONG
    return ""


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
