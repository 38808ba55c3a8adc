"""The type of small maps that go into records as they are.

What lives here: that type, in the form that can be followed when a snapshot is read. What must not: values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capd.recording.record import Value

if TYPE_CHECKING:
    Facts = dict[str, Value]
    """A map of a record's body."""
else:
    # `Value` refers to itself, which `typed.read` cannot follow. Of a map from a snapshot only that it is a map is checked.
    Facts = dict
