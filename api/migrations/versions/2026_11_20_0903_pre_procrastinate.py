"""Create the job queue: the schema that procrastinate 3.10 packages."""

from importlib import resources

from alembic import context, op

revision = "2026_11_20_0903"
down_revision = "2026_11_20_0902"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = (resources.files("procrastinate.sql") / "schema.sql").read_text(encoding="utf-8")
    if context.is_offline_mode():
        op.get_context().impl.static_output(schema)
        return
    # Through the driver's own cursor: SQLAlchemy would read the file's % and : as parameters.
    op.get_bind().connection.cursor().execute(schema)
