"""Asks Postgres as its superuser, over the socket that the backup service shares with it."""

from backup import programs
from backup.failure import Failure

SOCKET = "/run/postgresql"
ANSWER_SECONDS = 60


def ask(
    query: str, *, database: str = "postgres", socket: str = SOCKET, seconds: float = ANSWER_SECONDS
) -> list[list[str]]:
    """Return the rows of a query, each as a list of texts; NULL is an empty text.

    Raises:
        Failure: with Postgres' error, or because it does not answer.
    """
    # connect_timeout, in seconds, ends the wait for a server that hangs.
    target = (
        f"host={socket} user=postgres dbname={database} connect_timeout=5"
        " application_name=slipway.backup.none"
    )
    psql = [
        "psql",
        "--no-psqlrc",
        "--quiet",
        "--tuples-only",
        "--no-align",
        "--field-separator=\t",
        "--set=ON_ERROR_STOP=1",
        f"--dbname={target}",
        "--file=-",
    ]
    # Standard input, because every user of the host can read a program's arguments, and a query
    # may hold a password.
    result = programs.run(psql, timeout=seconds, stdin=query)
    if result.code != 0:
        raise Failure(f"Postgres: {result.reason}", ["./scripts/logs.sh postgres"])
    return [line.split("\t") for line in result.out.splitlines() if line]
