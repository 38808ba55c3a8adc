"""What an approval is bound to: any other action has another fingerprint.

What lives here: the canonical form against itself and a golden one. What must not: requests.
"""

from __future__ import annotations

from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.approvals.action_hash import VARYING, Bound, canonical, fingerprint, shape
from tests.enforcer.asking import BODY, KEY, bound

OTHER: dict[str, Any] = {
    "principal": ("unit", "agents.slice", "verified"),
    "run": "run-2",
    "uid": 0,
    "host": "api.test.",
    "aliases": ("other.test",),
    "port": 444,
    "address": None,
    "tls": "none",
    "protocol": "http2",
    "operation": "PUT",
    "database": "shop",
    "user": "",
    "path": "/Pay",
    "query": "",
    "upgrade": "websocket",
    "fields": (("Content-Type", "application/json"), ("Authorization", "Bearer y")),
    "trailers": (("x-sum", "1"),),
    "body_sha256": sha256(b"other").digest(),
    "policy": "p2",
}
TEXT = st.text(st.characters(max_codepoint=0xFF), max_size=4)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
BOUNDS = st.builds(
    Bound,
    principal=st.none() | st.tuples(TEXT, TEXT, TEXT),
    run=st.none() | TEXT,
    uid=st.none() | st.integers(0, 99),
    database=st.none() | TEXT,
    user=st.none() | TEXT,
    host=TEXT,
    aliases=st.lists(TEXT, max_size=2).map(tuple),
    port=st.integers(1, 99),
    address=st.none() | TEXT,
    tls=TEXT,
    protocol=TEXT,
    operation=TEXT,
    path=st.none() | TEXT,
    query=st.none() | TEXT,
    upgrade=st.none() | TEXT,
    fields=PAIRS,
    trailers=PAIRS,
    body_sha256=st.binary(max_size=3),
    policy=TEXT,
)


@pytest.mark.parametrize("name", [field.name for field in fields(Bound)])
def test_every_fact_is_bound(name: str) -> None:
    """There is no fact of an action that can be changed without changing its fingerprint."""
    assert fingerprint(KEY, bound()) != fingerprint(KEY, replace(bound(), **{name: OTHER[name]}))


@given(BOUNDS, BOUNDS)
def test_the_form_is_injective(one: Bound, other: Bound) -> None:
    """Two actions have the same bytes only when they are the same but for the case of field names."""

    def alike(value: Bound) -> Bound:
        fields, trailers = (tuple((key.lower(), said) for key, said in pairs) for pairs in (value.fields, value.trailers))
        return replace(value, fields=fields, trailers=trailers)

    assert (alike(one) == alike(other)) == (canonical(one) == canonical(other))


@given(BOUNDS, st.data())
def test_any_change_changes_it(value: Bound, data: st.DataObject) -> None:
    """Whatever fact of whatever action is drawn anew, the bytes are the same only if the fact is."""
    name = data.draw(st.sampled_from([field.name for field in fields(Bound)]))
    drawn = getattr(data.draw(BOUNDS), name)
    changed = replace(value, **{name: drawn})
    if name not in {"fields", "trailers"}:
        assert (drawn == getattr(value, name)) == (canonical(changed) == canonical(value))


def test_a_text_cannot_reach_into_the_next() -> None:
    """What is absent, what is empty, and where a text ends make a difference."""
    forms = [
        bound(path=None),
        bound(path=""),
        bound(path="/a", query="b"),
        bound(path="/a?b", query=None),
        bound(fields=(("a", "b"), ("c", "d"))),
        bound(fields=(("a", "b: c"), ("d", ""))),
        bound(fields=(("a", "b"),), trailers=(("c", "d"),)),
    ]
    assert len(forms) == len({canonical(form) for form in forms})


def test_golden() -> None:
    """The form is the documented one: a program that follows docs/approvals.md gets the same bytes."""
    small = Bound(
        principal=None,
        run=None,
        uid=7,
        host="h",
        port=1,
        address=None,
        tls="none",
        protocol="http",
        operation="GET",
        path="/",
        fields=(("A", "b"), ("Date", "now")),
        body_sha256=b"",
        policy="v",
    )
    absent = "ffffffff"
    expected = (
        b"capd-action-2\n".hex()
        + absent * 4
        + "0000000137"  # uid 7
        + "0000000168"  # h
        + "00000000"  # no aliases
        + "0000000131"  # port 1
        + absent
        + "000000046e6f6e65"
        + "0000000468747470"
        + "00000003474554"
        + absent * 2  # no database, no user
        + "000000012f"
        + absent * 2
        + "00000001"
        + "0000000161"
        + "0000000162"
        + "00000000"
        + "00000000"
        + "0000000176"
    )
    assert expected == canonical(small).hex()


@pytest.mark.parametrize("name", sorted(VARYING))
def test_fields_that_clients_make_anew(name: str) -> None:
    """What differs between two attempts at the same thing does not matter, in any case."""
    extra = replace(bound(), fields=(*bound().fields, (name.title(), "1")))
    assert fingerprint(KEY, bound()) == fingerprint(KEY, extra)


@pytest.mark.parametrize(
    ("body", "query", "same"),
    [
        (b'{"amount": 6, "to": "bob"}', "n=1", True),
        (b'{"amount":-6.5e3,"to":"bob"}', "n=22", True),
        (b'{"amount": 5, "to": "eve"}', "n=1", False),
        (b'{"amount": "5", "to": "bob"}', "n=1", False),
        (b'{"amount": {"number": ""}, "to": "bob"}', "n=1", False),
        (b'{"amount": 5, "to": "bob", "to": "bob"}', "n=1", False),
        (b'{"amount": [5], "to": "bob"}', "n=1", False),
        (b'{"amount": true, "to": "bob"}', "n=1", False),
        (b'{"amount": NaN, "to": "bob"}', "n=1", False),
        (b"[" * 100_000, "n=1", False),
        (BODY, "n=x", False),
        (BODY, "m=1", False),
    ],
)
def test_shapes(body: bytes, query: str, same: bool) -> None:
    """An action of the same shape differs in numbers alone; nothing that names, chooses or repeats something may differ."""
    first = shape(KEY, bound(), BODY, is_json=True)
    other = shape(KEY, bound(body, query=query), body, is_json=True)
    assert same == (first == other)


@pytest.mark.parametrize("name", sorted(set(OTHER) - {"body_sha256", "query"}))
def test_a_shape_binds_all_else(name: str) -> None:
    """All but the body and the query is bound by a shape as well."""
    other = shape(KEY, replace(bound(), **{name: OTHER[name]}), BODY, is_json=True)
    assert shape(KEY, bound(), BODY, is_json=True) != other
