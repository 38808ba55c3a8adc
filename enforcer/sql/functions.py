"""What is known about the functions, words and relations that a server has of its own.

What lives here: reading data/*.txt, which packaging/sql_catalogue.py asks of a server, and what is added by hand: what
functions do that do more than give a value. What must not: finding calls.

A name is a server's own function only without a schema, or with the server's own. That nobody put another function of that name
into the search path is not known; docs/sql.md says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from capd.enforcer.sql.lexeme import Dialect, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What one server has of its own.

    Attributes:
        keywords: words, and their class: PostgreSQL has R reserved, T reserved but for functions and types, C not for
            functions, U not reserved; MySQL has one class.
        pure: functions that give a value and do nothing else, as far as the server says.
        relations: of the server's own schema.
        effects: what else functions do.
        opaque: functions that run text, or do what only their arguments say.
    """

    keywords: Mapping[str, str]
    pure: frozenset[str]
    relations: frozenset[str]
    effects: Mapping[str, frozenset[str]]
    opaque: frozenset[str]


def _each(names: str, *effects: str) -> dict[str, frozenset[str]]:
    return dict.fromkeys(names.split(), frozenset(effects))


_POSTGRESQL_EFFECTS: Final = {
    **_each("random clock_timestamp timeofday gen_random_uuid currval lastval txid_status pg_xact_status"),
    **_each("pg_relation_size pg_table_size pg_indexes_size pg_total_relation_size pg_database_size pg_tablespace_size"),
    **_each("pg_is_in_recovery pg_current_wal_lsn pg_current_wal_insert_lsn pg_last_wal_replay_lsn pg_jit_available"),
    **_each("pg_last_xact_replay_timestamp pg_partition_tree pg_partition_ancestors pg_blocking_pids pg_sequence_last_value"),
    **_each("nextval setval", "update"),
    **_each("set_config setseed pg_sleep pg_sleep_for pg_sleep_until pg_export_snapshot pg_stat_clear_snapshot", "session"),
    **_each("pg_advisory_lock pg_advisory_lock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared", "lock"),
    **_each("pg_try_advisory_lock pg_try_advisory_lock_shared pg_try_advisory_xact_lock", "lock"),
    **_each("pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all pg_try_advisory_xact_lock_shared", "lock"),
    **_each("pg_notify", "notify"),
    **_each("pg_read_file pg_read_binary_file pg_stat_file pg_ls_dir pg_ls_logdir pg_ls_waldir pg_ls_tmpdir", "file"),
    **_each("pg_ls_archive_statusdir pg_current_logfile pg_hba_file_rules pg_show_all_file_settings", "file"),
    **_each("pg_terminate_backend pg_cancel_backend pg_reload_conf pg_rotate_logfile pg_switch_wal pg_promote", "code"),
    **_each("pg_create_restore_point pg_backup_start pg_backup_stop pg_wal_replay_pause pg_wal_replay_resume", "code"),
    **_each("pg_drop_replication_slot pg_create_logical_replication_slot pg_create_physical_replication_slot", "code"),
    **_each("pg_stat_reset pg_stat_reset_shared pg_stat_reset_single_table_counters", "maintain"),
}
_POSTGRESQL_OPAQUE: Final = words(
    """
    query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema table_to_xml
    table_to_xmlschema table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema schema_to_xml_and_xmlschema
    database_to_xml database_to_xmlschema database_to_xml_and_xmlschema ts_stat ts_rewrite lo_import lo_export
    lo_put lo_get lo_create lo_creat lo_unlink lo_open lo_from_bytea lowrite loread lo_truncate dblink dblink_exec
    dblink_connect dblink_open dblink_send_query pg_logical_emit_message pg_logical_slot_get_changes
    pg_logical_slot_peek_changes pg_import_system_collations
    """
)
_MYSQL_EFFECTS: Final = {
    **_each("sleep benchmark", "session"),
    **_each("get_lock release_lock release_all_locks is_free_lock is_used_lock", "lock"),
    **_each("load_file", "file"),
    **_each("last_insert_id", "session"),
    **_each("master_pos_wait master_gtid_wait wsrep_sync_wait_upto_gtid", "session"),
}
_MYSQL_OPAQUE: Final = frozenset({"nextval", "setval", "lastval", "sys_exec", "sys_eval"})
_MYSQL_ADDED: Final = words(
    """
    avg char if values interval left right insert replace date time timestamp year month day hour minute second
    user current_user current_date current_time current_timestamp localtime localtimestamp utc_date utc_time
    utc_timestamp row_number any_value json_table bit_and bit_or bit_xor group_concat row convert trim substring
    position mod default timestampadd timestampdiff bin_to_uuid uuid_to_bin is_uuid regexp_like json_storage_size
    """
)
"""Functions that the server reads by its grammar, or that only MySQL has; all give a value and do nothing else."""

_NEWER: Final = words(
    """
    absent conditional empty enforced error format indent json json_array json_arrayagg json_exists json_object
    json_objectagg json_query json_scalar json_serialize json_table json_value keep keys merge_action nested
    objects omit path periods plan quotes scalar source split string target unconditional virtual
    """
)
"""Words of PostgreSQL 16 and later. Whoever takes one for a name could take a call for something else."""


_MYSQL_KEYWORDS: Final = words("lateral system of empty cube member grouping groups json_table except intersect dual")
"""Words of MySQL 8 that MariaDB does not have."""


@cache
def catalogue(dialect: Dialect) -> Catalogue:
    """Give what is known about a server."""
    keywords = dict.fromkeys(_NEWER if dialect is Dialect.POSTGRESQL else _MYSQL_KEYWORDS, "U")
    found: dict[str, set[str]] = {"function": set(), "relation": set()}
    text = (files("capd.enforcer.sql") / "data" / f"{dialect.value}.txt").read_text(encoding="ascii")
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "keyword":
            class_, _, word = rest.rpartition(" ")
            keywords[word] = class_ or "K"
        elif kind in found:
            found[kind].add(rest)
    postgresql = dialect is Dialect.POSTGRESQL
    effects = _POSTGRESQL_EFFECTS if postgresql else _MYSQL_EFFECTS
    opaque = _POSTGRESQL_OPAQUE if postgresql else _MYSQL_OPAQUE
    added = frozenset[str]() if postgresql else _MYSQL_ADDED
    return Catalogue(
        keywords=keywords,
        pure=frozenset(found["function"] | added) - effects.keys() - opaque,
        relations=frozenset(found["relation"]),
        effects=effects,
        opaque=opaque,
    )
