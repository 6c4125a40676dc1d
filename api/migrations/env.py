"""Alembic's environment. `python -m api.migrate` runs it, with its connection and lock."""

from alembic import context
from sqlalchemy import Connection

from api.migrating.models import all_tables

OWNED_ELSEWHERE = "procrastinate_"  # these tables come from the schema in procrastinate's package


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or not (name or "").startswith(OWNED_ELSEWHERE)


def run(connection: Connection | None) -> None:
    context.configure(
        connection=connection,
        dialect_name="postgresql" if connection is None else None,
        target_metadata=all_tables(),
        include_name=include_name,
        # Revisions before a failed one stay applied, so that a retry begins with the failed one.
        transaction_per_migration=True,
        on_version_apply=context.config.attributes.get("on_version_apply"),
        literal_binds=connection is None,
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes.get("connection"))
