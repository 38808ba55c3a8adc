"""Credentials in their places: what the agent put there goes, all else stays."""

from __future__ import annotations

import pytest

from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.obligation import CannotCarryOutError
from capd.enforcer.obligations.placing import field_of, with_field, with_parameter
from capd.enforcer.policy.rule import Form, Injection

SECRET = Secret("a secret/1")


@pytest.mark.parametrize("name", ["x-api-key", "X-Api-Key", "X_API_KEY", "x-api_key", "X.Api.Key"])
def test_a_field_takes_the_place_of_every_one_that_servers_take_for_it(name: str) -> None:
    """Whatever case and separators the agent wrote, its field goes; fields with other names stay, in their order."""
    fields = [("a", "1"), (name, "mine"), ("x-api-keys", "2"), (name, "mine too"), ("x-api", "3")]
    found = with_field(fields, "x-api-key", "theirs")
    assert [("a", "1"), ("x-api-keys", "2"), ("x-api", "3"), ("x-api-key", "theirs")] == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (None, "key=a%20secret%2F1"),
        ("", "key=a%20secret%2F1"),
        ("a=1&key=mine&b=2", "a=1&b=2&key=a%20secret%2F1"),
        ("KEY=mine&k%65y=mine&key", "key=a%20secret%2F1"),
        ("keys=1&a=key&a=%2B+", "keys=1&a=key&a=%2B+&key=a%20secret%2F1"),
        ("a=1;b=2", "a=1;b=2&key=a%20secret%2F1"),
    ],
)
def test_a_parameter_takes_the_place_of_every_one_of_its_name(query: str | None, found: str) -> None:
    """Whatever case and encoding the agent wrote, its parameter goes; others stay as they were written."""
    assert found == with_parameter(query, "key", SECRET)


@pytest.mark.parametrize("query", ["a=1;key=mine", "a;KEY", "a=1;%6bey=mine"])
def test_a_parameter_that_only_some_servers_read_is_refused(query: str) -> None:
    """Behind a semicolon some servers begin a parameter and others do not: whose value counted would be open."""
    with pytest.raises(CannotCarryOutError):
        with_parameter(query, "key", SECRET)


@pytest.mark.parametrize(
    ("injection", "field"),
    [
        (Injection(credential="k", form=Form.HEADER, header="x-key", prefix="Token "), ("x-key", "Token a secret/1")),
        (Injection(credential="k", form=Form.BEARER), ("authorization", "Bearer a secret/1")),
        (Injection(credential="k", form=Form.BASIC), ("authorization", "Basic YW5uOmEgc2VjcmV0LzE=")),
    ],
)
def test_what_a_credential_becomes(injection: Injection, field: tuple[str, str]) -> None:
    """Each form is written as its standard says."""
    assert field == field_of(injection, SECRET, "ann")
