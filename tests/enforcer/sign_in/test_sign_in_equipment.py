"""Sessions of databases: which credential they are signed in with, when, and what it is bound to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from capd.enforcer.credentials.credential import Credential, FileSource
from capd.enforcer.credentials.errors import CredentialError
from capd.enforcer.credentials.method import WeakMethod
from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.equipment import Equipment
from capd.enforcer.obligations.feasibility import IN_CLEAR, UNSUPPORTED, problem_of
from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.policy.glob import Glob
from capd.enforcer.policy.host_pattern import HostPattern
from capd.enforcer.policy.rule import Injection, Mask
from capd.enforcer.proxy.question import Destination, Kind, Login, Question, Statement, Verdict
from tests.enforcer.test_obligations_proxy import NOW

SECRET = "a-long-password"
INJECTION = Injection(credential="db")
SESSION = Question(
    number=1,
    kind=Kind.SESSION,
    destination=Destination(address="192.0.2.1", port=5432),
    protocol="postgresql",
    server_name="db.test",
    inspected=True,
    login=Login(user="agent", database="sales_eu"),
    carries_out=True,
)
CREDENTIAL = Credential(
    name="db",
    source=FileSource(path=Path("/x")),
    hosts=(HostPattern("db.test"),),
    ports=(5432,),
    user="reader",
    databases=(Glob("sales*"),),
    weak_methods=frozenset({WeakMethod.MD5}),
    placeholder="nothing",
)


def equipped(
    *injections: Injection, asked: Question = SESSION, credential: Credential = CREDENTIAL, value: str = SECRET
) -> Verdict:
    """Give what becomes of a verdict about a session."""

    async def fetch(_: str) -> Secret:
        if not value:
            raise CredentialError("it is not there")
        return Secret(value)

    obligations = Obligations(injections=tuple((f"r{number}", one) for number, one in enumerate(injections or (INJECTION,))))
    verdict = Verdict(number=1, allowed=True, obligations=obligations)
    return asyncio.run(Equipment({"db": credential}, fetch, lambda: NOW).equip(None, asked, verdict))


def test_a_session_is_signed_in_with_its_credential() -> None:
    """The layer gets user, secret and what is allowed; the verdict has no other provision, and shows no secret."""
    found = equipped()
    assert found.allowed
    assert found.provision is None
    assert (
        SignIn(
            credential="db",
            user="reader",
            secret=Secret(SECRET),
            methods=frozenset({WeakMethod.MD5}),
            databases=(Glob("sales*"),),
            placeholder="nothing",
        )
        == found.sign_in
    )
    assert SECRET not in repr(found)


def test_two_rules_with_one_credential() -> None:
    """Two rules may say the same; a session is not signed in twice with different ones."""
    assert equipped(INJECTION, replace(INJECTION, cleartext=True)).sign_in is not None
    found = equipped(INJECTION, replace(INJECTION, credential="other"))
    assert (False, "cannot_be_carried_out", None) == (found.allowed, found.reason, found.sign_in)


OTHER = Login(user="agent", database="payroll")
REFUSED = [
    ("another database", replace(SESSION, login=OTHER), CREDENTIAL, SECRET, "credential_not_bound"),
    ("no database", replace(SESSION, login=Login(user="a", database=None)), CREDENTIAL, SECRET, "credential_not_bound"),
    ("another host", replace(SESSION, server_name="x.test"), CREDENTIAL, SECRET, "credential_not_bound"),
    ("the address alone", replace(SESSION, server_name=None), CREDENTIAL, SECRET, "credential_not_bound"),
    (
        "another port",
        replace(SESSION, destination=Destination(address="192.0.2.1", port=5433)),
        CREDENTIAL,
        SECRET,
        "credential_not_bound",
    ),
    ("another principal", SESSION, replace(CREDENTIAL, principals=(Glob("ann"),)), SECRET, "credential_not_bound"),
    ("no value", SESSION, CREDENTIAL, "", "credential_unavailable"),
    ("no password", SESSION, CREDENTIAL, '{"AccessKeyId":\n"x"}', "credential_unavailable"),
]


@pytest.mark.parametrize(
    ("asked", "credential", "value", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_uses_out_of_the_binding(asked: Question, credential: Credential, value: str, reason: str) -> None:
    """Another database, host, port or principal, and a value that is no password, deny the session."""
    found = equipped(asked=asked, credential=credential, value=value)
    assert (False, reason, None) == (found.allowed, found.reason, found.sign_in)


def test_a_database_that_is_changed_later() -> None:
    """Whoever changes the database of a session asks first."""
    bound = equipped().sign_in
    free = equipped(credential=replace(CREDENTIAL, databases=())).sign_in
    assert bound is not None
    assert free is not None
    assert [True, True, False, False] == [bound.admits(one) for one in ("sales", "sales_us", "x_sales", None)]
    assert all(free.admits(one) for one in ("anything", None))


def test_a_credential_of_databases_is_for_no_request() -> None:
    """What is bound to databases is not put into a request of HTTP, whatever the rule says."""
    with pytest.raises(CredentialError, match="is for databases"):
        CREDENTIAL.check_request()
    replace(CREDENTIAL, databases=()).check_request()


NOBODY = Login(user=None, database=None)
BOTH = Obligations(injections=(("r", INJECTION),), masks=(("m", Mask(columns=("a",))),))
CLEAR = Obligations(injections=(("r", replace(INJECTION, cleartext=True)),))
STATEMENT = replace(SESSION, kind=Kind.STATEMENT, statement=Statement(operation="SELECT", content=b"", text=""))
FEASIBLE = [
    ("in proven TLS", SESSION, BOTH, ""),
    ("no TLS", replace(SESSION, inspected=False), BOTH, IN_CLEAR),
    ("no name", replace(SESSION, server_name=None), BOTH, IN_CLEAR),
    ("no TLS, and the rule allows it", replace(SESSION, inspected=False), CLEAR, ""),
    ("a layer that cannot", replace(SESSION, carries_out=False), CLEAR, UNSUPPORTED),
    ("no TLS, before anybody says who he is", replace(SESSION, inspected=False, login=NOBODY), BOTH, ""),
    ("a statement of a session", replace(STATEMENT, inspected=False), BOTH, ""),
    ("a statement, and nobody masks", replace(STATEMENT, carries_out=False), BOTH, UNSUPPORTED),
    ("a connection", replace(SESSION, kind=Kind.OPAQUE), BOTH, UNSUPPORTED),
]


@pytest.mark.parametrize(("asked", "wanted", "problem"), [case[1:] for case in FEASIBLE], ids=[case[0] for case in FEASIBLE])
def test_where_a_session_can_be_signed_in(asked: Question, wanted: Obligations, problem: str) -> None:
    """Only through TLS to a target that proves its name, unless the rule allows less; a statement needs no credential."""
    assert problem == problem_of(asked, wanted)
