"""Writes enforcer/sql/data: what a server of its own says about its functions, words and relations.

What lives here: the questions to the server. What must not: what capd adds by hand (enforcer/sql/functions.py).

Run: PGHOST=... packaging/sql_catalogue.py postgresql >enforcer/sql/data/postgresql.txt
     packaging/sql_catalogue.py mysql --host=... >enforcer/sql/data/mysql.txt
"""

from __future__ import annotations

import subprocess
import sys

POSTGRESQL = r"""
SELECT '# PostgreSQL ' || current_setting('server_version_num')::int / 10000;
SELECT format('keyword %s %s', catcode, word) FROM pg_get_keywords() ORDER BY word COLLATE "C";
SELECT format('relation %s', relname) FROM pg_class
 WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') ORDER BY relname COLLATE "C";
-- Pure: no overload is volatile, none takes or gives what only the server itself has, none gives rows about the server.
SELECT format('function %s', proname) FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
 GROUP BY proname HAVING bool_and(provolatile IN ('i', 's') AND prokind IN ('f', 'a', 'w')
  AND NOT 'internal'::regtype = ANY (proargtypes::oid[])
  AND prorettype NOT IN ('internal'::regtype, 'trigger'::regtype, 'event_trigger'::regtype)
  AND NOT (proretset AND provolatile = 's' AND proname LIKE 'pg\_%'))
 AND proname !~ '(_to_xml|_to_xmlschema|_to_xml_and_xmlschema)$|^ts_(stat|rewrite)$|^binary_upgrade_|^pg_stat_get_'
 ORDER BY proname COLLATE "C";
"""
MYSQL = """
SELECT CONCAT('# MariaDB ', SUBSTRING_INDEX(VERSION(), '.', 2));
SELECT CONCAT('keyword ', LOWER(word)) FROM information_schema.keywords
 WHERE word REGEXP '^[A-Za-z_0-9]+$' ORDER BY LOWER(word);
SELECT CONCAT('function ', LOWER(`function`)) FROM information_schema.sql_functions ORDER BY LOWER(`function`);
"""
COMMANDS = {
    "postgresql": (["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"], POSTGRESQL),
    "mysql": (["mariadb", "--no-defaults", "--skip-column-names", "--batch"], MYSQL),
}


def main() -> None:
    """Ask, and print."""
    command, questions = COMMANDS[sys.argv[1]]
    done = subprocess.run([*command, *sys.argv[2:]], input=questions, text=True, check=True, stdout=subprocess.PIPE)
    sys.stdout.write(done.stdout)


if __name__ == "__main__":
    main()
