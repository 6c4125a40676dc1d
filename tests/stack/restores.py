"""Damages the repository of backups, writes rows with known times, and queries restored copies."""

import json
import random
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx2

from tests.stack.backup_incidents import REPOSITORY, pgbackrest
from tests.stack.harness import Stack

# Runs in the container: changes one bit of a file at a fraction of its length. A second run undoes
# the change.
FLIP = """
import sys
path, share, bit = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
with open(path, "r+b") as file:
    content = file.read()
    file.seek(int(len(content) * share))
    file.write(bytes([content[int(len(content) * share)] ^ (1 << bit)]))
"""
PSQL = ["psql", "-qtAX", "--username=postgres", "--dbname=slipway", "--host=/tmp", "--command"]


def now() -> str:
    """Return the time in the format of --to."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def in_repository(stack: Stack, script: str, *words: str) -> str:
    """Run a shell script in the repository's folder."""
    command = [
        "exec",
        "--no-TTY",
        "backup",
        "sh",
        "-ec",
        f"cd {REPOSITORY}; {script}",
        "sh",
        *words,
    ]
    return stack.compose(*command)


@dataclass(frozen=True)
class Flip:
    """One changed bit of one file of the repository."""

    kind: str
    path: str
    share: float
    bit: int

    def apply(self, stack: Stack) -> None:
        """Change the bit; a second call undoes the change."""
        python = ["exec", "--no-TTY", "backup", "python3", "-c", FLIP]
        stack.compose(*python, f"{REPOSITORY}/{self.path}", str(self.share), str(self.bit))

    @contextmanager
    def made(self, stack: Stack) -> Iterator[None]:
        """Change the bit during the block; undo the change after it."""
        self.apply(stack)
        try:
            yield
        finally:
            self.apply(stack)


def fresh_backup(stack: Stack) -> str:
    """Take a full backup, archive some WAL segments after it, and return its label."""
    stack.run("./scripts/backup.sh", "--full")
    for _ in range(4):
        stack.sql("select pg_logical_emit_message(true, 'test', 'a record')")
        stack.sql("select pg_switch_wal()")
    return str(backups(stack)[-1]["label"])


def backups(stack: Stack) -> list[dict[str, Any]]:
    """Return pgBackRest's list of backups, the oldest first."""
    return list(json.loads(pgbackrest(stack, "info", "--output=json"))[0]["backup"])


def wanted(stack: Stack, label: str) -> dict[str, list[str]]:
    """Return the paths that a restore from a backup to the newest time reads, by kind."""
    [first] = [one["archive"]["start"] for one in backups(stack) if one["label"] == label]
    folder = f"backup/main/{label}"
    segments = [
        path
        for path in in_repository(stack, "ls archive/main/*/*/*.zst").split()
        if path[-69:-45] >= first
    ]
    return {
        "wal": [path for path in segments if path[-69:-61] == first[:8]],
        "backup": in_repository(stack, 'find "$1/bundle" "$1/pg_data" -type f', folder).split(),
        "metadata": in_repository(
            stack, 'ls archive/main/archive.* backup/main/backup.info* "$1"/*.manifest*', folder
        ).split(),
    }


def flips(stack: Stack, label: str, count: int, seed: int) -> list[Flip]:
    """Return bit flips in the files that a restore from a backup reads, each kind in turn."""
    chosen, files = random.Random(seed), wanted(stack, label)  # noqa: S311  not for secrets
    kinds = [list(files)[number % len(files)] for number in range(count)]
    return [
        Flip(kind, chosen.choice(files[kind]), chosen.random(), chosen.randrange(8))
        for kind in kinds
    ]


@contextmanager
def removed(stack: Stack, path: str) -> Iterator[None]:
    """Move a file out of the repository during the block."""
    in_repository(stack, 'mv "$1" "/var/lib/pgbackrest/away"', path)
    try:
        yield
    finally:
        in_repository(stack, 'mv "/var/lib/pgbackrest/away" "$1"', path)


def restore(stack: Stack, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run restore.sh."""
    return stack.run("./scripts/restore.sh", *words, check=check)


def beside(stack: Stack, query: str) -> str:
    """Query the restored copy beside the database."""
    return stack.compose("exec", "--no-TTY", "postgres-beside", *PSQL, query).strip()


def directories(stack: Stack) -> list[str]:
    """Return the names of the database's directory and of the directories beside it."""
    listing = ["exec", "--no-TTY", "postgres", "ls", "/var/lib/postgresql/data"]
    return stack.compose(*listing).split()


def write_rows(stack: Stack, table: str, count: int) -> None:
    """Commit rows one by one, 20 ms apart."""
    stack.sql(f"create table {table} (id bigint primary key)")
    loop = f"insert into {table} values (i); commit; perform pg_sleep(0.02);"
    stack.sql(f"do $$ begin for i in 1..{count} loop {loop} end loop; end $$")


def committed(stack: Stack, table: str) -> dict[int, datetime]:
    """Return the commit time of each row, as Postgres recorded it."""
    query = f"select id, pg_xact_commit_timestamp(xmin) at time zone 'UTC' from {table}"
    rows = [line.split("|") for line in stack.sql(query).splitlines()]
    return {int(row): datetime.fromisoformat(at).replace(tzinfo=UTC) for row, at in rows}


@dataclass
class Customer:
    """Writes rows until the host is gone; records the time of each acknowledgement."""

    host: Stack
    acknowledged: dict[str, float] = field(default_factory=dict)
    ending: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with self.host.client(timeout=5) as client:
            client.headers["authorization"] = f"Bearer {self.host.new_token()}"
            while not self.ending.is_set():
                name = uuid.uuid4().hex
                try:
                    answer = client.post("/v1/items", json={"name": name})
                except httpx2.HTTPError:
                    continue
                if answer.status_code == 201:
                    self.acknowledged[name] = time.time()
                self.ending.wait(0.2)


def wrong_delete(stack: Stack) -> None:
    """Delete all items, as a `delete` without `where` does; then add an item that must stay."""
    with stack.client(headers={"Authorization": f"Bearer {stack.token()}"}) as client:
        for name in ("first", "second", "third"):
            assert client.post("/v1/items", json={"name": name}).status_code == 201
        stack.environment["TO"] = now()
        stack.environment["ITEMS"] = stack.sql("select count(*) from items")
        stack.sql("delete from items")
        assert client.post("/v1/items", json={"name": "later"}).status_code == 201


def rows_are_back(stack: Stack) -> bool:
    """Whether the deleted items exist again and the later item still exists."""
    del stack.environment["TO"]
    return int(stack.sql("select count(*) from items")) == int(stack.environment.pop("ITEMS")) + 1


def lost_volume(stack: Stack) -> None:
    """Remove the volume of Postgres right after a row was archived."""
    stack.sql(
        "create table if not exists witness (id int); insert into witness values (1); "
        "select pg_switch_wal()"
    )
    stack.compose("rm", "--stop", "--force", "postgres", "backup")
    stack.run("docker", "volume", "rm", f"{stack.project}_postgres")
    stack.compose("up", "--detach", "--no-deps", "postgres")


RESTORE_INCIDENTS: dict[str, Callable[[Stack], None]] = {
    "restore-rows": wrong_delete,
    "restore-all": lost_volume,
}
