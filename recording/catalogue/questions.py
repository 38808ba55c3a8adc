"""What a fleet is asked, in SQL.

What lives here: views that give the catalogue the columns of a host's index, and search words as patterns. What must not:
files, connections.

docs/fleet.md gives the same questions for DuckDB, Spark and Trino over the files as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.recording.index_search import TERM, WORDS_MAX

_NANOSECONDS_OF_A_LIFE: Final = 1 << 62
_LATEST: Final = f"coalesce(ended_ns, last_ns - {_NANOSECONDS_OF_A_LIFE})"
"""Which of a session's rows speaks last: the one that saw its end, else the newest."""
_PRINCIPAL: Final = """
    CASE WHEN any_value(principal_kind) IS NULL AND any_value(principal) IS NULL THEN NULL ELSE json_object(
        'kind', any_value(principal_kind), 'name', any_value(principal),
        'uid', any_value(principal_uid), 'verified', any_value(principal_verified)) END
"""

SESSIONS_VIEW: Final = f"""
    CREATE OR REPLACE TEMP VIEW sessions AS
    SELECT session, any_value(run) AS run, any_value(run_name) AS run_name, to_json(any_value(labels)) AS labels,
        {_PRINCIPAL} AS principal, any_value(host) AS host,
        coalesce(max(protocol) FILTER (protocol <> 'unknown'), 'unknown') AS protocol,
        any_value(transport) AS transport, any_value(role) AS role, any_value(target_host) AS target_host,
        any_value(target_port) AS target_port, any_value(target_name) AS target_name, any_value(local_host) AS local_host,
        any_value(local_port) AS local_port, NULL AS local_name, any_value(pid) AS pid,
        any_value(process_start_ns) AS process_start, any_value(exe) AS exe, to_json(any_value(argv)) AS argv,
        any_value("user") AS "user", min(started_ns) AS started, max(last_ns) AS last, max(ended_ns) AS ended,
        arg_max(state, {_LATEST}) AS state, max(bytes_request) AS bytes_request, max(bytes_response) AS bytes_response,
        max(messages) AS messages, arg_max(verdict, {_LATEST}) AS verdict, to_json(arg_max(reasons, {_LATEST})) AS reasons,
        to_json(arg_max(policy, {_LATEST})) AS policy,
        any_value(tie) AS tie, flatten(list(expired)) AS gone, flatten(list(sequences)) AS there
    FROM session_parts GROUP BY session HAVING max(started_ns) IS NOT NULL
"""  # noqa: S608 - nothing of a user's in it
"""Sessions with the columns of the index, from `session_parts`: one row for each, whatever the number of files it is in."""

RUNS_VIEW: Final = f"""
    CREATE OR REPLACE TEMP VIEW runs AS
    SELECT run, any_value(run_name) AS name, to_json(any_value(labels)) AS labels, {_PRINCIPAL} AS principal,
        to_json(any_value(command)) AS command, any_value(cwd) AS cwd, any_value(cgroup) AS cgroup,
        bool_or(adopted) AS adopted, any_value(host) AS host, min(started_ns) AS started, max(ended_ns) AS ended,
        json_merge_patch('{{}}', json_object('control_events', max(lost_control_events), 'streams', max(lost_streams),
            'bytes', max(lost_bytes))) AS lost, flatten(list(expired)) AS gone
    FROM run_parts GROUP BY run HAVING max(started_ns) IS NOT NULL
"""  # noqa: S608 - nothing of a user's in it
"""Runs with the columns of the index, from `run_parts`."""

PROCESSES: Final = """
    SELECT run, pid, start_ns, arg_max(exe, sequence), to_json(arg_max(argv, sequence)), arg_max(uid, sequence),
        min(seen_ns) AS seen, max(ended_ns), any_value(status)
    FROM process_parts WHERE run = ? GROUP BY run, pid, start_ns ORDER BY seen, pid
"""
"""A run's processes with the columns of the index, from `process_parts`, each with the program that it ran last."""

SEARCHED: Final = "strip_accents(lower(concat_ws(' ', summary, text)))"
"""What words are looked for in: as the index does, without regard to case and accents."""
_WORD: Final = r"[\p{L}\p{N}\p{Co}]"
_NO_WORD: Final = r"[^\p{L}\p{N}\p{Co}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One word or phrase of a search.

    Attributes:
        words: its words, folded; they must follow each other.
        prefix: whether the last one is only a beginning.
    """

    words: Sequence[str]
    prefix: bool

    @property
    def pattern(self) -> str:
        """Its RE2 pattern for `SEARCHED` text."""
        body = f"{_NO_WORD}+".join(re.escape(word) for word in self.words)
        return f"(?:^|{_NO_WORD}){body}" + ("" if self.prefix else f"(?:{_NO_WORD}|$)")


def terms_of(text: str) -> list[Term]:
    """Give what a person's search words ask for; all of it must be found.

    They mean what `match_expression` means to the index: whole words, phrases in double quotes, `word*` for a beginning,
    without regard to case and accents. Empty when there is no letter or digit to search for.
    """
    terms = []
    for phrase, star, word in TERM.findall(text.encode("utf-8", "replace").decode()):
        words = re.findall(r"[^\W_]+", fold(phrase or word.rstrip("*")))
        if words:
            terms.append(Term(words=words, prefix=bool(star) or (len(word) > 1 and word.endswith("*"))))
    return terms[:WORDS_MAX]


def fold(text: str) -> str:
    """Give a text in lower case and without accents, character for character where that is possible."""
    folded = unicodedata.normalize("NFD", text.lower())
    return "".join(character for character in folded if not unicodedata.combining(character))
