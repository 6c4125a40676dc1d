"""Tests the off-host repository in a bucket of an S3 server that checks signatures."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from stack.config import environment

from tests.conftest import Figure
from tests.stack.backup_incidents import backup_row, pgbackrest
from tests.stack.harness import PROJECT, Stack, copy_checkout, wait_until
from tests.stack.restores import beside, restore
from tests.stack.s3_server import S3Server
from tests.stack.test_offsite import (
    LOST_SECONDS,
    OFFSITE,
    assert_same_segments,
    await_shipped,
    await_well,
    edit_settings,
    new_segment,
    test_a_place_that_hangs_delays_nothing_on_the_host_and_is_caught_up_with,
)

__all__ = [
    "test_a_place_that_hangs_delays_nothing_on_the_host_and_is_caught_up_with"
]  # also run with the bucket

pytestmark = [pytest.mark.drill, pytest.mark.nightly]

# 20 MB of incompressible content, which pgBackRest uploads in several parts of 5 MiB.
ROWS = """create table large as
 select number / 64 as id, decode(string_agg(md5(random()::text), ''), 'hex') as content
 from generate_series(0, 20 * 1024 * 64 - 1) as number group by 1"""
SUM = "select count(*), md5(string_agg(content, '' order by id)) from large"
PARTS = 4


@dataclass
class Pair:
    """A host, and the bucket with its backups."""

    host: Stack
    place: S3Server
    told_seconds: float = (
        150  # a silent server is a failure after 90 s (S3_IO_SECONDS in backup/offsite.py)
    )

    def put(self, name: str, text: str) -> None:
        """Write a file of `secrets/` in place, so that existing containers see the change."""
        file = self.host.root / "secrets" / name
        file.chmod(0o644)
        file.write_text(text, encoding="utf-8")

    @contextmanager
    def wrong(self, name: str, text: str, right: str) -> Iterator[None]:
        """Put a wrong text into a file of `secrets/` during the block; restart the service."""
        self.put(name, text)
        self.host.compose("restart", "backup")
        try:
            yield
        finally:
            self.put(name, right)
            self.host.compose("restart", "backup")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A stack whose bucket is configured before the first start."""
    root = tmp_path_factory.mktemp("bucket")
    copy_checkout(root)
    host = Stack(root, project=f"{PROJECT}-s3")
    host.remove()
    try:
        host.run("./scripts/up.sh", "--prepare", timeout=1500)
        bases = environment.parse((root / ".env").read_text(encoding="utf-8"))
        place = S3Server(
            host.project, next(line.value for line in bases if line.key == "PYTHON_IMAGE")
        )
        with place.running():
            made = Pair(host, place)
            made.put("offsite_ca", place.authority())
            made.put("offsite_secret", place.secret)
            edit_settings(root, place.settings())
            host.run("./scripts/up.sh")
            yield made
    finally:
        host.remove()


def labels(host: Stack) -> list[str]:
    """Return the names of the backups in the bucket, the oldest first."""
    return [
        one["label"]
        for one in json.loads(pgbackrest(host, *OFFSITE, "info", "--output=json"))[0]["backup"]
    ]


def test_every_segment_and_a_backup_get_into_the_bucket_by_themselves(
    pair: Pair, figure: Figure
) -> None:
    assert "0 waiting; backup" in await_well(pair.host)
    written = pair.host.sql(
        "select pg_walfile_name(pg_logical_emit_message(true, 'test', 'a row'))"
    )
    figure(f"a row was in the bucket after {await_shipped(pair.host, written, LOST_SECONDS):.0f} s")
    assert_same_segments(pair.host)


def test_a_backup_in_parts_gives_every_row_back(pair: Pair, figure: Figure) -> None:
    pair.host.sql(ROWS)
    before = pair.place.requests("PUT", "partNumber")
    pair.host.compose("exec", "--no-TTY", "backup", "python3", "-m", "backup", "offsite-full")
    assert pair.place.requests("PUT", "partNumber") - before >= PARTS
    pair.host.sql("insert into large values (-1, 'after the backup')")
    await_shipped(pair.host, new_segment(pair.host), LOST_SECONDS)
    restore(pair.host, "--latest", "--beside", "--repo", "offsite")
    try:
        assert beside(pair.host, SUM) == pair.host.sql(SUM)
        assert beside(pair.host, SUM).startswith(f"{20 * 1024 + 1}|")
    finally:
        restore(pair.host, "--remove-beside")
    pair.host.run("./scripts/drill.sh", "restore", "--repo", "offsite")
    figure(f"drill from the bucket: {backup_row(pair.host, 'off-host')[1]}")


def test_what_is_too_old_is_deleted_from_the_bucket(pair: Pair) -> None:
    while len(labels(pair.host)) < 2:
        pair.host.compose("exec", "--no-TTY", "backup", "python3", "-m", "backup", "offsite-full")
    *older, newest = labels(pair.host)
    before = pair.place.requests("POST", "delete")
    # Expire by number, because no backup is two weeks old; the deletion works in the same way.
    pgbackrest(
        pair.host,
        *OFFSITE,
        "expire",
        "--repo1-retention-full-type=count",
        "--repo1-retention-full=1",
    )
    assert pair.place.requests("POST", "delete") > before
    there = json.loads(
        pgbackrest(pair.host, *OFFSITE, "repo-ls", "--recurse", "--output=json", "backup/main")
    )
    left = {path.partition("/")[0] for path, entry in there.items() if entry["type"] == "file"}
    assert newest in left
    assert not left & set(older)
    assert labels(pair.host) == [newest]
    assert_same_segments(pair.host)
    await_well(pair.host)


def test_a_wrong_key_is_named_and_in_no_log(pair: Pair) -> None:
    wrong = "a-key-of-another-account"
    with pair.wrong("offsite_secret", wrong, pair.place.secret):
        name = new_segment(pair.host)

        def is_red() -> bool:
            is_well, text = backup_row(pair.host, "off-host")
            return not is_well and "SignatureDoesNotMatch: " in text

        wait_until(is_red, 180, "the line off-host is red and shows the reason", every=2)
        assert backup_row(pair.host, "archive")[0]
        listed = restore(pair.host, "--list", "--repo", "offsite", check=False)
        assert listed.returncode == 1
        assert "403 (Forbidden); SignatureDoesNotMatch: " in listed.stderr
    await_shipped(pair.host, name, LOST_SECONDS)
    await_well(pair.host)
    assert_same_segments(pair.host)
    shown = pair.host.run("docker", "inspect", pair.host.container("backup")).stdout
    for secret in (wrong, pair.place.secret):
        assert secret not in shown + pair.host.compose("logs") + listed.stdout + listed.stderr


def test_a_server_of_another_ca_gets_nothing(pair: Pair) -> None:
    with pair.wrong("offsite_ca", "", pair.place.authority()):
        before = pair.place.requests("GET", "")
        listed = restore(pair.host, "--list", "--repo", "offsite", check=False)
        assert listed.returncode == 1
        assert "unable to verify certificate" in listed.stderr
        assert pair.place.requests("GET", "") == before
    await_well(pair.host)
