"""Secrets and numbers with a checksum in values that are shown: found by their form, whatever column they stand in.

What lives here: looking into one value of a type. What must not: what is looked for (masking/rules.py), rows.

In texts what is found becomes stars of the same length; in JSON that is no longer JSON then, the value becomes one that says
that it was hidden. A whole number that is such a number becomes the constant of its type. Other types hold no text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Final

from capd.enforcer.masking.place import filled, joined
from capd.enforcer.masking.rows.constants import BYTEA, CHAR, CONSTANTS, EMPTY, INT2, INTEGERS, JSON, JSONB, NUMERIC, OID
from capd.enforcer.masking.rows.field import Field
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import Scanner

BINARY: Final = 1
_JSONB_VERSION: Final = b"\x01"
_NO_TEXT: Final = frozenset(
    {16, CHAR, INT2, OID, 700, 701, 1082, 1083, 1114, 1184, 1186, 1266, 2950, 869, 650, 829, 774, 600, 601, 602, 603, 604, 718}
    | {3904, 3906, 3908, 3910, 3912, 3926, 28, 29, 24, 2205, 2206, 3220}
)
"""Of fixed forms, in which neither a secret nor such a number fits."""
_NUMBERS: Final = frozenset({*INTEGERS, NUMERIC})


class Seeker:
    """What the rules of one decision look for."""

    def __init__(self, rules: Sequence[tuple[str, Rules]]) -> None:
        """Take rules of the policy by their ids, each with what it looks for."""
        self._rules = [(rule, one) for rule, one in rules if one]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def may_hold(self, data: bytes) -> bool:
        """Say whether anything may be in some bytes; False is certain, but for whole numbers in binary."""
        return any(rules.may_hold(data) for _, rules in self._rules)

    def text(self, data: bytes, found: Counter[str]) -> bytes:
        """Give a text with what is found in it hidden, as long as it was; the same object if there is nothing."""
        for rule, rules in self._rules:
            if not rules.may_hold(data):
                continue
            places = joined(Scanner(rules).feed(data, final=True))
            if places:
                found[rule] += len(places)
                data = filled(data, places)
        return data

    def replaced(self, value: bytes, field: Field, found: Counter[str]) -> bytes | None:
        """Give what is shown of a value; the same object if nothing is hidden in it. None: NULL.

        Args:
            value: of a column.
            field: the column, with the format of its values.
            found: counts what was hidden, by rule.
        """
        if field.type in _NO_TEXT:
            return value
        if field.type in _NUMBERS:
            return self._number(value, field, found)
        shown = self.text(value, found)
        if shown is value or field.type not in {JSON, JSONB}:
            return value if shown is value else self._fit(shown, field)
        version = _JSONB_VERSION if field.type == JSONB and field.format == BINARY else b""
        try:
            json.loads(shown[len(version) :])
        except ValueError:
            constant = CONSTANTS[field.type]
            return constant.binary if field.format == BINARY else constant.text
        return shown

    @staticmethod
    def _fit(shown: bytes, field: Field) -> bytes | None:
        if field.type == BYTEA and field.format != BINARY:
            # Stars are no hexadecimal digits.
            return CONSTANTS[BYTEA].text
        return shown

    def _number(self, value: bytes, field: Field, found: Counter[str]) -> bytes | None:
        form = INTEGERS.get(field.type)
        if field.format != BINARY:
            text = value
        elif form is not None and len(value) == form.size:
            text = b"%d" % form.unpack(value)[0]
        else:
            return value
        if self.text(text, found) is text:
            return value
        constant = CONSTANTS.get(field.type, EMPTY)
        return constant.binary if field.format == BINARY else constant.text
