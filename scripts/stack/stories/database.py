"""What the scripts see to in Postgres itself, beside the application's schema."""

from stack.commands import engine
from stack.runner import Runner


def furnish(runner: Runner) -> str:
    """Make what a Postgres of an older version or a mended one may lack; return what it lacks still, or `done`."""
    runner.run(engine.psql_argv("create extension if not exists pg_stat_statements", database="postgres"))
    ballast = runner.run(engine.compose_argv("exec", "--no-TTY", "postgres", "/etc/slipway/ballast.sh"), check=False)
    return ballast.err.strip().partition("\n")[0] if ballast.code else "done"
