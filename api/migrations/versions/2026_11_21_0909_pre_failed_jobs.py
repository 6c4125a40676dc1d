"""Index the failed jobs: each worker counts them every 10 s, among all jobs of three days.

(!) The index must contain only failed jobs. If it contained waiting jobs, Postgres would use it to
fetch a job as soon as the statistics are older than the queue: procrastinate's statement then
compares 100,000 jobs with each other, and no job runs.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_21_0909"
down_revision = "2026_11_21_0908"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_procrastinate_jobs_failed",
            "procrastinate_jobs",
            ["queue_name"],
            postgresql_where=sa.text("status = 'failed'"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
