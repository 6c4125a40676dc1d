"""Drops the invalid indexes that an interrupted CREATE INDEX CONCURRENTLY left behind.

Each write updates an invalid index, and no read uses it.
"""

import logging

from sqlalchemy import Connection

# Two queries: an index whose build ends between the catalogue's snapshot and the list of builds
# seems abandoned in the first query, and is valid in the second. An index of a partitioned table
# (relkind I) may be invalid on purpose.
ABANDONED = """
    SELECT i.indexrelid
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
     WHERE NOT i.indisvalid AND c.relkind = 'i'
       AND c.relnamespace = to_regnamespace(current_schema())
       AND i.indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index)
"""
STILL_INVALID = """
    SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text
      FROM pg_index i WHERE i.indexrelid = ANY (%(abandoned)s) AND NOT i.indisvalid
"""

logger = logging.getLogger("api.migrate")


def drop_invalid_indexes(connection: Connection) -> None:
    """Drop each invalid index that no session is building; the caller holds the migrators' lock."""
    connection.rollback()
    level = connection.get_isolation_level()
    connection.rollback()
    connection.execution_options(isolation_level="AUTOCOMMIT")  # CONCURRENTLY requires it
    try:
        abandoned = {"abandoned": list(connection.exec_driver_sql(ABANDONED).scalars())}
        for index, table in connection.exec_driver_sql(STILL_INVALID, abandoned).all():
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
            logger.warning(
                "invalid index dropped",
                extra={"action": "invalid_index_dropped", "index": index, "table": table},
            )
    finally:
        connection.rollback()
        connection.execution_options(isolation_level=level)
