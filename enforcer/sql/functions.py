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

from capd.enforcer.sql.effect import Relation
from capd.enforcer.sql.lexeme import Dialect, Server, words

OWN_SCHEMA: Final = "pg_catalog"
OWN_CATALOGUE: Final = "it changes what the server itself knows, so what names mean"


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

    @property
    def named(self) -> frozenset[str]:
        """Functions that do more than give a value."""
        return self.opaque.union(self.effects)


def is_own(relation: Relation) -> bool:
    """Say whether a relation may be one of PostgreSQL's own."""
    own = relation.name.startswith("pg_") or relation.name in catalogue(Dialect.POSTGRESQL).relations
    return relation.schema == OWN_SCHEMA or (relation.schema is None and own)


def _each(names: str, *effects: str) -> dict[str, frozenset[str]]:
    return dict.fromkeys(names.split(), frozenset(effects))


_POSTGRESQL_EFFECTS: Final = {
    **_each("random clock_timestamp timeofday gen_random_uuid currval lastval txid_status pg_xact_status pg_options_to_table"),
    **_each("pg_relation_size pg_table_size pg_indexes_size pg_total_relation_size pg_database_size pg_tablespace_size"),
    **_each("pg_is_in_recovery pg_current_wal_lsn pg_current_wal_insert_lsn pg_last_wal_replay_lsn pg_jit_available"),
    **_each("pg_last_xact_replay_timestamp pg_partition_tree pg_partition_ancestors pg_blocking_pids pg_sequence_last_value"),
    **_each("pg_stat_get_snapshot_timestamp pg_stat_get_function_calls pg_stat_have_stats pg_stat_get_subscription_stats"),
    **_each("pg_stat_get_replication_slot pg_notification_queue_usage pg_listening_channels pg_timezone_names"),
    **_each("pg_tablespace_databases pg_show_all_settings pg_get_keywords pg_mcv_list_items amvalidate"),
    **_each("currtid2 table_to_xml table_to_xmlschema table_to_xml_and_xmlschema", "select"),
    **_each("nextval setval", "update"),
    **_each("set_config setseed pg_sleep pg_sleep_for pg_sleep_until pg_export_snapshot pg_stat_clear_snapshot", "session"),
    **_each("pg_advisory_lock pg_advisory_lock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared", "lock"),
    **_each("pg_try_advisory_lock pg_try_advisory_lock_shared pg_try_advisory_xact_lock", "lock"),
    **_each("pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all pg_try_advisory_xact_lock_shared", "lock"),
    **_each("pg_notify", "notify"),
    **_each("lo_get loread", "select"),
    **_each("lo_open lo_close lo_lseek lo_lseek64 lo_tell lo_tell64", "select", "session"),
    **_each("lo_create lo_creat lo_from_bytea", "insert"),
    **_each("lo_put lowrite lo_truncate lo_truncate64", "update"),
    **_each("lo_unlink", "delete"),
    **_each("lo_import", "insert", "file"),
    **_each("lo_export", "select", "file"),
    **_each("pg_read_file pg_read_binary_file pg_stat_file pg_ls_dir pg_ls_logdir pg_ls_waldir pg_ls_tmpdir", "file"),
    **_each("pg_ls_archive_statusdir pg_current_logfile pg_hba_file_rules pg_show_all_file_settings", "file"),
    **_each("pg_terminate_backend pg_cancel_backend pg_reload_conf pg_rotate_logfile pg_switch_wal pg_promote", "code"),
    **_each("pg_create_restore_point pg_backup_start pg_backup_stop pg_wal_replay_pause pg_wal_replay_resume", "code"),
    **_each("pg_drop_replication_slot pg_create_logical_replication_slot pg_create_physical_replication_slot", "code"),
    **_each("pg_stat_force_next_flush", "session"),
    **_each("pg_stat_reset_slru pg_log_backend_memory_contexts", "maintain"),
    **_each("pg_stat_reset pg_stat_reset_shared pg_stat_reset_single_table_counters", "maintain"),
}
_POSTGRESQL_OPAQUE: Final = words(
    """
    query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema schema_to_xml
    schema_to_xmlschema schema_to_xml_and_xmlschema database_to_xml database_to_xmlschema
    database_to_xml_and_xmlschema ts_stat ts_rewrite dblink dblink_exec dblink_connect dblink_open
    dblink_send_query pg_logical_emit_message pg_logical_slot_get_changes pg_logical_slot_peek_changes
    pg_import_system_collations
    """
)
POSTGRESQL_TYPES: Final = words(
    "tsquery regclass regtype regrole regprocedure regproc regoperator regoper regnamespace regcollation regconfig inet"
)
"""Types that are written as functions, and cast then, where no function of that name is: documentation 4.2.9."""
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
    position mod default timestampadd timestampdiff current_role weight_string mbrcontains mbrintersects mbrwithin
    st_area st_asbinary st_asgeojson st_astext st_centroid st_contains st_distance st_distance_sphere st_geomfromgeojson
    st_geomfromtext st_intersects st_length st_srid st_within st_x st_y
    """
)
"""Functions that servers read by their grammar, or do not list; all give a value and do nothing else."""

_NEWER: Final = words(
    """
    absent conditional empty enforced error format indent json json_array json_arrayagg json_exists json_object
    json_objectagg json_query json_scalar json_serialize json_table json_value keep keys merge_action nested
    objects omit path periods plan quotes scalar source split string target unconditional virtual
    """
)
"""Words of PostgreSQL 16 and later. Whoever takes one for a name could take a call for something else."""


_MYSQL_KEYWORDS: Final = words(
    """
    lateral system of empty cube member grouping groups json_table except intersect dual cume_dist dense_rank external
    first_value lag last_value lead library nth_value ntile percent_rank qualify rank row_number tablesample
    """
)
"""Words of MySQL 9 that MariaDB does not have."""

_ONLY_MARIADB: Final = words(
    """
    add_months binlog_gtid_pos chr column_check column_exists column_json column_list concat_operator_oracle crc32c
    decode decode_histogram decode_oracle des_decrypt des_encrypt encode encrypt json_compact json_detailed
    json_equals json_exists json_loose json_normalize json_query lengthb lpad_oracle ltrim_oracle master_gtid_wait
    median natural_sort_key nvl nvl2 old_password percentile_cont percentile_disc replace_oracle rpad_oracle
    rtrim_oracle sformat substr_oracle sys_guid to_char trim_oracle wsrep_last_seen_gtid wsrep_last_written_gtid
    wsrep_sync_wait_upto_gtid
    """
)
_ONLY_MYSQL: Final = words(
    """
    any_value bin_to_uuid format_bytes format_pico_time from_vector grouping gtid_subset gtid_subtract icu_version is_uuid
    json_schema_valid json_schema_validation_report json_storage_free json_storage_size json_table regexp_like st_collect
    st_frechetdistance st_geohash st_hausdorffdistance st_isvalid st_latfromgeohash st_latitude st_lineinterpolatepoint
    st_lineinterpolatepoints st_longfromgeohash st_longitude st_makeenvelope st_pointatdistance st_pointfromgeohash
    st_simplify st_swapxy st_transform st_validate statement_digest statement_digest_text string_to_vector to_vector
    uuid_to_bin vector_dim vector_to_string
    """
)
"""Of MySQL 9, whose manual has what they do."""
_UNTIL_MYSQL_9_6: Final = words("md5 sha sha1")
_MYSQL_9_6: Final = 90_600


@cache
def foreign_functions(server: Server | None) -> frozenset[str]:
    """Give functions of the catalogue that a server of MySQL's kind does not have: whoever may can make one of such a name.

    Args:
        server: None: which it is is not known, so what one of them does not have.
    """
    if server is None:
        return _ONLY_MARIADB | _ONLY_MYSQL | _UNTIL_MYSQL_9_6
    if server.mariadb:
        return _ONLY_MYSQL
    return _ONLY_MARIADB | (_UNTIL_MYSQL_9_6 if server.version >= _MYSQL_9_6 else frozenset())


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
    added = POSTGRESQL_TYPES if postgresql else _MYSQL_ADDED | _ONLY_MYSQL
    return Catalogue(
        keywords=keywords,
        pure=frozenset(found["function"] | added) - effects.keys() - opaque,
        relations=frozenset(found["relation"]),
        effects=effects,
        opaque=opaque,
    )
