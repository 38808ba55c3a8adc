"""Conditions in CEL, the Common Expression Language: compiled once, asked often.

What lives here: the only use of the library that evaluates CEL. All that the rest of capd knows of it is `compile_condition`,
`never_true`, `Condition` and `Bindings`: another engine would need no more. What must not: the variables (variables.py).

The library is Google's own, cel-expr-python: compiled, type-checked before anything is evaluated, RE2 for `matches`, and with a
limit on iterations. What a condition answers is True, False, or None: it erred, or asked for what is not known. `||` and `&&`
answer as soon as one side decides, whatever the other one is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, Final

from capd.enforcer.policy.action import Action, Tri
from capd.enforcer.policy.variables import VARIABLES, Kind, names_for, names_in, values

SOURCE_CHARACTERS_MAX: Final = 2_000
"""A condition that a person understands has 200."""
COMPILED_MAX: Final = 4_096
"""A policy that is loaded again has mostly the conditions that it had."""
_WHERE: Final = re.compile(r"<input>:(\d+):(\d+): (.*)")
_STRINGS: Final = r"""(?:[rR]?"(?:[^"\\\n]|\\.)*"|[rR]?'(?:[^'\\\n]|\\.)*')"""
_MATCHES: Final = re.compile(rf"({_STRINGS})|\bmatches\s*\(\s*({_STRINGS}\s*\))?")


class ConditionError(ValueError):
    """The condition is none, or cannot be of use.

    Attributes:
        line, column: where in its text, from 1.
    """

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class Bindings:
    """The values that conditions see of one action; they are looked for when the first condition asks."""

    __slots__ = ("_action", "_activation", "_names")

    def __init__(self, action: Action, names: Iterable[str] = VARIABLES) -> None:
        """Begin; only variables of these names are looked for."""
        self._action = action
        self._names = names
        self._activation: Any = None

    @property
    def activation(self) -> Any:  # noqa: ANN401 - the library's own type, which nobody else looks into
        """The same, as the library wants it."""
        if self._activation is None:
            self._activation = _environment().Activation(values(self._action, self._names))
        return self._activation


Condition = Callable[[Bindings], Tri]
"""Whether it holds; None: it erred, or that is not known."""


@lru_cache(maxsize=COMPILED_MAX)
def compile_condition(source: str, protocols: frozenset[str]) -> Condition:
    """Compile a condition for messages of some protocols.

    Raises:
        ConditionError: it is no CEL, its types do not fit, it is not about true and false, it asks for what these protocols do
            not have, it can never be true, or it takes a pattern from the agent.
    """
    if len(source) > SOURCE_CHARACTERS_MAX:
        raise ConditionError(f"it has {len(source)} characters; at most {SOURCE_CHARACTERS_MAX} are allowed")
    if "\0" in source or '"""' in source or "'''" in source:
        raise ConditionError("it has a NUL, or triple quotes, which have no use here")
    compiled = _compiled(_environment(), source)
    spoken = sorted(protocols)
    foreign = min(names_in(source) - names_for(spoken), default=None)
    if foreign is not None:
        raise ConditionError(f"messages of {', '.join(spoken)} have no {foreign}", *_at(source, max(source.find(foreign), 0)))
    if compiled.return_type() != _cel().Type.BOOL:
        raise ConditionError(f"it is a {compiled.return_type().name().lower()}, not true or false")
    _check_patterns(source)
    if _evaluated(compiled, _environment().Activation({})) is False:
        raise ConditionError("it can never be true")
    return lambda bindings: _evaluated(compiled, bindings.activation)


def never_true(source: str, fixed: Mapping[str, Iterable[str]]) -> bool:
    """Say whether a condition is certainly false for all values that a rule's `match` leaves to some variables.

    Args:
        source: of a condition that compiles.
        fixed: variables, each with all its possible values; those that are not there can have any.
    """
    compiled = _compiled(_environment(), source)
    choices: list[dict[str, str]] = [{}]
    for name, possible in fixed.items():
        choices = [{**choice, name: value} for choice in choices for value in possible]
    return all(_evaluated(compiled, _environment().Activation(choice)) is False for choice in choices)


def _evaluated(compiled: Any, activation: Any) -> Tri:  # noqa: ANN401 - the library's
    try:
        answer = compiled.eval(activation).value()
    except RuntimeError:  # the limit on iterations, text that is no Unicode: the library's only way to say so
        return None
    return answer if isinstance(answer, bool) else None


def _check_patterns(source: str) -> None:
    """Refuse patterns that RE2 does not know, and those that are not written in the condition itself."""
    for found in _MATCHES.finditer(source):
        if found[1] is not None:
            continue
        if found[2] is None:
            raise ConditionError("the pattern of matches() must be written there, in quotes", *_at(source, found.start()))
        probe = _compiled(_environment(), f"''.matches({found[2]}")
        if _evaluated(probe, _environment().Activation({})) is None:
            raise ConditionError("the pattern of matches() is no RE2 expression", *_at(source, found.start()))


def _at(source: str, offset: int) -> tuple[int, int]:
    before = source[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _compiled(environment: Any, source: str) -> Any:  # noqa: ANN401 - the library's
    try:
        return environment.compile(source)
    except RuntimeError as error:
        found = _WHERE.search(str(error))
        if found is None:
            raise ConditionError(" ".join(str(error).split())) from error
        raise ConditionError(found[3].removesuffix(" (in container '')"), int(found[1]), int(found[2])) from error


@cache
def _cel() -> Any:  # noqa: ANN401 - a module
    from cel_expr_python import cel  # noqa: PLC0415 - 12 MB that only policies with conditions need

    return cel


@cache
def _environment() -> Any:  # noqa: ANN401 - the library's
    cel = _cel()
    types = {
        Kind.STRING: cel.Type.STRING,
        Kind.INT: cel.Type.INT,
        Kind.BOOL: cel.Type.BOOL,
        Kind.STRINGS: cel.Type.List(cel.Type.STRING),
        Kind.LABELS: cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
    }
    return cel.NewEnv(variables={name: types[kind] for name, (kind, _, _) in VARIABLES.items()})
