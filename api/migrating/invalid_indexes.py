"""Drops the indexes that an interrupted CREATE INDEX CONCURRENTLY left: each write pays for them, no read uses them."""

import logging

from sqlalchemy import Connection

# Two looks: an index whose build ends between the catalogue's snapshot and the look at the builds seems abandoned in
# the first, and is valid in the second. An index of a partitioned table (relkind I) may be invalid on purpose.
ABANDONED = """
    SELECT i.indexrelid
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
     WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relnamespace = to_regnamespace(current_schema())
       AND i.indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index)
"""
STILL_INVALID = """
    SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text
      FROM pg_index i WHERE i.indexrelid = ANY (%(found)s) AND NOT i.indisvalid
"""

logger = logging.getLogger("api.migrate")


def drop_invalid_indexes(connection: Connection) -> None:
    """Drop each invalid index that nobody builds right now; the caller holds the migrators' lock."""
    connection.rollback()
    level = connection.get_isolation_level()
    connection.rollback()
    connection.execution_options(isolation_level="AUTOCOMMIT")  # what CONCURRENTLY needs
    try:
        found = list(connection.exec_driver_sql(ABANDONED).scalars())
        for index, table in connection.exec_driver_sql(STILL_INVALID, {"found": found}).all():
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
            logger.warning(
                "invalid index dropped",
                extra={"action": "invalid_index_dropped", "index": index, "table": table},
            )
    finally:
        connection.rollback()
        connection.execution_options(isolation_level=level)
