"""Questions to Postgres as its superuser, over the socket that the backup service shares with it."""

from backup.commands import Failed, run

SOCKET = "/run/postgresql"
ANSWER_SECONDS = 60


def ask(
    query: str, *, database: str = "postgres", socket: str = SOCKET, seconds: float = ANSWER_SECONDS
) -> list[list[str]]:
    """Return the rows of a query, each a list of texts; NULL is an empty text.

    Raises:
        Failed: with what Postgres said, or that it does not answer.
    """
    # connect_timeout, in seconds: a server that hangs is given up.
    target = f"host={socket} user=postgres dbname={database} application_name=slipway.backup.none connect_timeout=5"
    psql = [
        "psql",
        "--no-psqlrc",
        "--quiet",
        "--tuples-only",
        "--no-align",
        "--field-separator=\t",
        f"--dbname={target}",
    ]
    # On standard input: every user of the host may read the arguments of a program, and a query may hold a password.
    done = run([*psql, "--set=ON_ERROR_STOP=1", "--file=-"], timeout=seconds, stdin=query)
    if done.code != 0:
        raise Failed(f"Postgres: {done.reason}", ["./scripts/logs.sh postgres"])
    return [line.split("\t") for line in done.out.splitlines() if line]
