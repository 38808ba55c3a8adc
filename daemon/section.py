"""What all tables of the configuration have in common.

What lives here: their base, and types of values that several have. What must not: a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A table: a key that it does not have is an error, and what was read does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError("must be an absolute path")
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Port = Annotated[int, Field(ge=1, le=65535)]
