"""Fetches what an allowed request needs: each credential checked against its binding, put in, and remembered for the answer.

What lives here: the one way from a verdict with obligations to one that can be carried out. What must not: rules, sockets.

It comes last: after the policy and after a person, so that nothing that is refused or held has a secret in it, and no rule
looks at one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from capd.enforcer.credentials.credential import Credential
from capd.enforcer.credentials.errors import CredentialError, UnknownCredentialError
from capd.enforcer.credentials.secret import Secret, usable
from capd.enforcer.obligations.asking import asked, without_guesses
from capd.enforcer.obligations.obligation import CannotCarryOutError
from capd.enforcer.obligations.placing import field_of, with_field, with_parameter
from capd.enforcer.obligations.provision import Provision
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.obligations.signing import read_keys, scope_of, sign
from capd.enforcer.policy.action import Principal
from capd.enforcer.policy.rule import Form, Injection
from capd.enforcer.proxy.question import Kind, Question, Verdict

NOT_CARRIED_OUT: Final = "cannot_be_carried_out"


class Equipment:
    """Of one worker."""

    def __init__(
        self,
        credentials: Mapping[str, Credential],
        value: Callable[[str], Awaitable[Secret]],
        clock: Callable[[], datetime],
    ) -> None:
        """Prepare.

        Args:
            credentials: all there are, by name.
            value: gives the value of one; raises CredentialError.
            clock: gives the time in UTC.
        """
        self._credentials, self._value, self._clock = credentials, value, clock

    async def equip(self, principal: Principal | None, question: Question, verdict: Verdict) -> Verdict:
        """Give a verdict that can be carried out, or one that denies.

        Args:
            principal: whom the run acts for.
            question: about a request, or a session of a database.
            verdict: that allows it, with obligations.
        """
        try:
            if question.kind is Kind.SESSION:
                return replace(verdict, sign_in=await self._sign_in(principal, question, verdict))
            provision = await self._provision(principal, question, verdict)
        except CredentialError as error:
            return replace(verdict, allowed=False, reason=error.reason, message=str(error))
        except CannotCarryOutError as error:
            return replace(verdict, allowed=False, reason=NOT_CARRIED_OUT, message=str(error))
        except ValueError:
            # What it says may have a part of a value in it.
            return replace(verdict, allowed=False, reason=NOT_CARRIED_OUT, message="a credential could not be put in")
        return replace(verdict, provision=provision)

    async def _provision(self, principal: Principal | None, question: Question, verdict: Verdict) -> Provision:
        request = question.request
        assert request is not None
        injections = [one for _, one in verdict.obligations.injections]
        strict = bool(verdict.obligations.masks) or any(one.form is not Form.AWS_SIGV4 for one in injections)
        fields = without_guesses(request.method, request.fields) if verdict.obligations.masks else request.fields
        made = Provision(fields=tuple(asked(fields) if strict else fields), query=request.query, strict=strict)
        # A signature is over what the others put in.
        for injection in sorted(set(injections), key=lambda one: (one.form is Form.AWS_SIGV4, one.credential)):
            credential = self._credentials.get(injection.credential)
            if credential is None:
                raise UnknownCredentialError(injection.credential)
            credential.check(principal, request.host, question.destination.port)
            credential.check_request()
            made = self._put_in(made, injection, credential, await self._value(credential.name), question)
        return made

    async def _sign_in(self, principal: Principal | None, question: Question, verdict: Verdict) -> SignIn:
        assert question.login is not None
        names = {injection.credential for _, injection in verdict.obligations.injections}
        if len(names) != 1:
            raise CannotCarryOutError("a session signs in with one credential")
        name = names.pop()
        credential = self._credentials.get(name)
        if credential is None:
            raise UnknownCredentialError(name)
        credential.check(principal, question.server_name or question.destination.address, question.destination.port)
        credential.check_database(question.login.database)
        value = await self._value(name)
        if usable(value.reveal()) is not None:
            raise CredentialError(f"the value of the credential {name} is no password")
        return SignIn(
            credential=name,
            user=credential.user,
            secret=value,
            methods=credential.weak_methods,
            databases=credential.databases,
            placeholder=credential.placeholder,
        )

    def _put_in(
        self, made: Provision, injection: Injection, credential: Credential, value: Secret, question: Question
    ) -> Provision:
        if injection.form is Form.AWS_SIGV4:
            return self._sign(made, credential, value, question)
        if usable(value.reveal()) is not None:
            raise CredentialError(f"the value of the credential {credential.name} cannot be used in this form")
        secrets = _with(made.secrets, credential.name, value.reveal())
        if injection.form is Form.QUERY:
            assert injection.parameter is not None
            return replace(made, query=with_parameter(made.query, injection.parameter, value), secrets=secrets)
        name, text = field_of(injection, value, credential.user)
        return replace(made, fields=tuple(with_field(made.fields, name, text)), secrets=secrets)

    def _sign(self, made: Provision, credential: Credential, value: Secret, question: Question) -> Provision:
        request, now = question.request, self._clock()
        assert request is not None
        keys = read_keys(value, credential.user, now)
        signed = sign(
            request.method,
            question.authority,
            request.path,
            made.query,
            made.fields,
            body=None if question.body is None else question.body.content,
            keys=keys,
            scope=scope_of(request.fields, request.query),
            at=now,
        )
        # The secret key itself is not sent, so it cannot come back.
        hidden = [signed.signature, *([] if keys.session is None else [keys.session.reveal()])]
        return replace(made, fields=signed.fields, secrets=_with(made.secrets, credential.name, *hidden))


def _with(secrets: Mapping[str, tuple[str, ...]], name: str, *values: str) -> dict[str, tuple[str, ...]]:
    return {**secrets, name: (*secrets.get(name, ()), *values)}
