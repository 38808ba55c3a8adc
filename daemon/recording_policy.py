"""`[recording]` and `[masking]`: how much is recorded of whom, and what is hidden in it.

What lives here: the pydantic model of the two sections. What must not: any rule, what follows (masking/policy.py).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from capd.daemon.section import Section
from capd.enforcer.masking.identifiers import DEFAULT, NAMES
from capd.enforcer.masking.json_path import JsonPath
from capd.enforcer.masking.patterns import check

LevelWord = Literal["full", "masked", "metadata", "off"]
NAME_CHARS_MAX: Final = 64
"""A name of more characters would not fit into what is waited for at the end of what has arrived."""
RULES_MAX: Final = 256


def _printable(name: str) -> str:
    if not name.isascii() or not name.isprintable() or name != name.strip():
        raise ValueError("must be printable ASCII without blanks around it")
    return name


def _identifier(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"there is no identifier {name!r}; there are {', '.join(NAMES)}")
    return name


def _path(text: str) -> str:
    JsonPath.parse(text)
    return text


def _pattern(text: str) -> str:
    check(text)
    return text


Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX), AfterValidator(_printable)]
Names = Annotated[tuple[Name, ...], Field(max_length=RULES_MAX)]


class PatternSection(Section):
    """`[[masking.pattern]]`: a secret of your own, by its form."""

    name: Name = Field(description="what masked places are called")
    pattern: Annotated[str, AfterValidator(_pattern)] = Field(description="regular expression with limits")


class MaskingSection(Section):
    """`[masking]`: what is hidden at the level `masked`."""

    builtin: bool = Field(default=True, description="the rules that come with capd: credentials, cookies, known secret formats")
    headers: Names = Field(default=(), description="further HTTP header fields")
    cookies: Names = Field(default=(), description="only these cookies; none: all")
    keys: Names = Field(default=(), description="further parameters, form fields and JSON members, at any depth")
    json_paths: Annotated[tuple[Annotated[str, AfterValidator(_path)], ...], Field(max_length=RULES_MAX)] = Field(
        default=(), description="places in JSON bodies"
    )
    columns: Names = Field(default=(), description="columns of SQL results, by name")
    redis_keys: Names = Field(default=(), description="keys and channels of Redis, by pattern")
    identifiers: tuple[Annotated[str, AfterValidator(_identifier)], ...] = Field(
        default=DEFAULT, description="numbers with a checksum that are masked (docs/masking.md lists all)"
    )
    unreadable: Literal["mask", "keep"] = Field(default="mask", description="bodies in a coding that capd cannot unpack")
    pattern: Annotated[tuple[PatternSection, ...], Field(max_length=RULES_MAX)] = Field(
        default=(), description="secrets of your own, by their form"
    )


class ScopeSection(Section):
    """`[[recording.scope]]`: sessions with a level of their own. The first scope of which all conditions hold decides."""

    level: LevelWord = Field(description="theirs")
    principal: str | None = Field(default=None, description="pattern for the principal's name")
    run: str | None = Field(default=None, description="pattern for the run's name")
    labels: dict[str, str] = Field(default_factory=dict, description="patterns for labels")
    host: str | None = Field(default=None, description="pattern for the target's address or name")
    port: int | None = Field(default=None, ge=1, le=65_535, description="the target's port")
    protocol: str | None = Field(default=None, description="as `capd sessions` calls it")

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if not self.labels and all(getattr(self, name) is None for name in ("principal", "run", "host", "port", "protocol")):
            raise ValueError("a scope needs a condition; the level for everything else is recording.level")
        return self


class RecordingSection(Section):
    """`[recording]`: how much is recorded."""

    level: LevelWord = Field(default="masked", description="full, masked, metadata or off, where no scope says otherwise")
    scope: Annotated[tuple[ScopeSection, ...], Field(max_length=RULES_MAX)] = Field(
        default=(), description="levels of some sessions"
    )
