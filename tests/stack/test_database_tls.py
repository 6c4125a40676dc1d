"""Configured TLS to the database, against a Postgres with a certificate."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from api.configuring.settings import Settings
from api.storing.database import connect_arguments
from tests.api.settings_for_tests import make_settings
from tests.stack.harness import PROJECT, Stack, wait_until

pytestmark = pytest.mark.docker
NAME = f"{PROJECT}-tls"
PASSWORD = "7fKq-mW2z-Rt9x-Lp4v"
START = f"""
install -m 0600 /certs/db.key /tmp/db.key
printf %s {PASSWORD} >/tmp/password
initdb --pgdata=/tmp/data --username=postgres --auth=scram-sha-256 --pwfile=/tmp/password \\
  --no-sync >/dev/null
echo 'host all all all scram-sha-256' >>/tmp/data/pg_hba.conf
exec postgres -D /tmp/data -c ssl=on -c ssl_cert_file=/certs/db.pem -c ssl_key_file=/tmp/db.key \\
  -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off
"""


def certificate(folder: Path, name: str, subject: str) -> None:
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    argv += ["-days", "2", "-subj", f"/CN={subject}", "-addext", f"subjectAltName=DNS:{subject}"]
    subprocess.run(
        [*argv, "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")],
        check=True,
        capture_output=True,
        timeout=30,
    )
    (folder / f"{name}.key").chmod(0o644)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certs")
    made.chmod(0o755)
    certificate(made, "db", "localhost")
    certificate(made, "other", "localhost")
    return made


@pytest.fixture(scope="module")
def port(stack: Stack, folder: Path) -> Iterator[int]:
    """A separate Postgres with a certificate for localhost."""
    lines = (stack.root / ".env").read_text(encoding="utf-8").splitlines()
    image = next(line.partition("=")[2] for line in lines if line.startswith("POSTGRES_IMAGE="))
    start = [
        "run",
        "--detach",
        "--rm",
        "--name",
        NAME,
        "--user",
        "postgres",
        "--publish",
        "127.0.0.1::5432",
    ]
    mounts = ["--volume", f"{folder}:/certs:ro", "--tmpfs", "/tmp:mode=1777", "--shm-size", "64m"]
    stack.run("docker", "rm", "--force", NAME, check=False)
    stack.run("docker", *start, *mounts, "--entrypoint", "bash", image, "-euc", START)
    try:
        listing = stack.run("docker", "port", NAME, "5432/tcp").stdout
        published = int(listing.splitlines()[0].rpartition(":")[2])
        wait_until(lambda: is_answering(published), 120, "Postgres answers")
        yield published
    finally:
        stack.run("docker", "rm", "--force", NAME, check=False)


def settings(port: int, **changes: Any) -> Settings:
    given = {"database_host": "localhost", "database_port": port, "database_user": "postgres"}
    return make_settings(**{**given, "database_name": "postgres", **changes})


def is_encrypted(given: Settings) -> bool:
    with psycopg.connect(**connect_arguments(given)) as connection:
        row = connection.execute(
            "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
        ).fetchone()
    assert row is not None
    return bool(row[0])


def is_answering(port: int) -> bool:
    try:
        return not is_encrypted(settings(port))
    except psycopg.OperationalError:
        return False


def test_without_the_setting_the_connection_is_plain(port: int) -> None:
    assert not is_encrypted(settings(port))


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_with_the_setting_it_is_encrypted(port: int, folder: Path, mode: str) -> None:
    ca = "" if mode == "require" else str(folder / "db.pem")
    assert is_encrypted(settings(port, database_sslmode=mode, database_sslrootcert=ca))


@pytest.mark.parametrize(
    ("host", "ca", "reason"),
    [
        ("localhost", "other.pem", "certificate verify failed"),
        ("127.0.0.1", "db.pem", "does not match host name"),
    ],
)
def test_whoever_is_not_the_database_gets_no_password(
    port: int, folder: Path, host: str, ca: str, reason: str
) -> None:
    given = settings(
        port,
        database_host=host,
        database_sslmode="verify-full",
        database_sslrootcert=str(folder / ca),
    )
    with pytest.raises(psycopg.OperationalError, match=reason):
        is_encrypted(given)
