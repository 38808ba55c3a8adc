"""Relations of PostgreSQL itself that hold values of other relations, or what other sessions said.

What lives here: which, and which of their columns. What must not: anything of a user's relations.

They count as protected wherever a rule hides any column: who may not see a column may not see its commonest values either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_VALUES: Final = ("most_common_vals", "histogram_bounds", "most_common_elems", "elem_count_histogram", "range_bounds_histogram")
_SLOTS: Final = tuple(f"stavalues{number}" for number in range(1, 6))
OWN_VALUES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("pg_catalog", "pg_stats"): (*_VALUES, "range_length_histogram", "range_empty_frac"),
    ("pg_catalog", "pg_stats_ext"): ("most_common_vals",),
    ("pg_catalog", "pg_stats_ext_exprs"): (*_VALUES, "expr", "range_length_histogram"),
    ("pg_catalog", "pg_statistic"): _SLOTS,
    ("pg_catalog", "pg_statistic_ext_data"): ("stxdmcv", "stxdexpr"),
    ("pg_catalog", "pg_stat_activity"): ("query",),
    ("pg_catalog", "pg_prepared_statements"): ("statement",),
    ("pg_catalog", "pg_cursors"): ("statement",),
    ("pg_catalog", "pg_largeobject"): ("data",),
}
"""Columns with values, or with text that others wrote, by schema and name."""
ANYWHERE: Final[Mapping[str, tuple[str, ...]]] = {"pg_stat_statements": ("query",), "pg_stat_monitor": ("query",)}
"""Views of extensions, which may stand in any schema."""
CATALOGUE_RELATIONS: Final = tuple(OWN_VALUES)


def own_values(schema: str, name: str) -> tuple[str, ...]:
    """Give the columns of a relation that hold values of others."""
    return OWN_VALUES.get((schema, name)) or ANYWHERE.get(name, ())
