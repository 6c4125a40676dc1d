"""Commands that log in with a secret where its server runs; they build and run nothing."""

from stack.commands import engine
from stack.commands.command import Command

# Over TCP: on its socket, Postgres does not ask for a password (postgres/pg_hba.conf).
_DATABASE = (
    "host=127.0.0.1 user=slipway dbname=slipway connect_timeout=5 "
    "application_name=slipway.scripts.none"
)
# For each secret: the service, the variable in which its client reads the secret, and a script that
# succeeds if the secret opens the data.
# (!) `repo-get` alone succeeds with one in 256 wrong keys, because it only checks the padding. The
# first line of the file is `[backrest]`. The option sends errors to stderr: pgBackRest from 2.53 on
# would write them to stdout, into the pipe, and a missing archive would look like a key that
# decrypts to nonsense.
_SCRIPTS = {
    "database_password": (
        "postgres",
        "PGPASSWORD",
        "exec psql --no-psqlrc --no-password --tuples-only --no-align"
        f" --dbname='{_DATABASE}' --command='select 1'",
    ),
    "redis_password": ("redis", "REDISCLI_AUTH", "exec timeout 5 redis-cli -e ping"),
    "redis_admin_password": (
        "redis",
        "REDISCLI_AUTH",
        "exec timeout 5 redis-cli -e --user operator ping",
    ),
    "backup_key": (
        "postgres",
        "PGBACKREST_REPO1_CIPHER_PASS",
        "pgbackrest --log-level-console=off --log-level-stderr=error"
        " repo-get archive/main/archive.info | grep '^\\[backrest\\]'",
    ),
}
# The texts with which each server refuses a wrong secret.
REFUSALS = {
    "database_password": ("password authentication failed",),
    "redis_password": ("WRONGPASS", "NOAUTH"),
    "redis_admin_password": ("WRONGPASS", "NOAUTH"),
    "backup_key": ("[095]", "CryptoError"),
}


def log_in(name: str, secret: str) -> Command:
    """Log in with a secret, which goes through standard input: arguments are visible to others."""
    service, variable, script = _SCRIPTS[name]
    words = ["sh", "-c", f"IFS= read -r {variable}; export {variable}; {script}"]
    return engine.exec_in(service, *words, stdin=f"{secret}\n", may_fail=True)


def digest_of_mounted(container: str, name: str) -> Command:
    """Ask a container for the digest of the secret that it mounts; fails if it has none."""
    file = f"/run/secrets/{name}"
    script = f'[ -s {file} ] && printf %s "$(cat {file})" | sha256sum'
    return engine.exec_in_container(container, "sh", "-c", script)
