"""Tests the off-host repository: its contents, its failures, a restore on a new host."""

import json
import random
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from stack.config import environment

from tests.stack.backup_incidents import METRICS_PORT, backup_row, pgbackrest
from tests.stack.documents import blocks, incidents
from tests.stack.harness import PROJECT, Stack, copy_checkout, wait_until
from tests.stack.restores import Customer
from tests.stack.sftp_server import SftpServer
from tests.stack.terminal import at_terminal
from tests.stack.test_documents import is_misused

pytestmark = pytest.mark.drill

LOST_SECONDS = 60  # the promise (fault 31)
SERVING_SECONDS = 15 * 60
ENTRY = "restore-to-a-new-host"
SHIPPING_ENTRY = "shipping-off-the-host-fails"
DRILL_ENTRY = "drill-off-the-host-fails"
PASSPHRASE = "six random words for the bundle"
WRONG_FINGERPRINT = "SHA256:" + "A" * 43
OFFSITE = ["--config-include-path=/tmp/pgbackrest.offsite.d"]


@dataclass
class Pair:
    """A host, and the server with its second repository."""

    host: Stack
    place: SftpServer
    told_seconds: float = 60  # within which status.sh must show that the server does not answer


def edit_settings(root: Path, values: dict[str, str]) -> None:
    text = (root / ".env").read_text(encoding="utf-8")
    (root / ".env").write_text(environment.with_values(text, values), encoding="utf-8")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A stack whose off-host repository is configured before the first start."""
    root = tmp_path_factory.mktemp("first")
    copy_checkout(root)
    host = Stack(root, project=f"{PROJECT}-first")
    host.remove()
    try:
        host.run("./scripts/up.sh", "--prepare", timeout=1500)
        assert host.compose("ps", "--all", "--quiet") == "", "--prepare starts no container"
        bases = environment.parse((root / ".env").read_text(encoding="utf-8"))
        base = next(line.value for line in bases if line.key == "PYTHON_IMAGE")
        place = SftpServer(tmp_path_factory.mktemp("place"), f"{PROJECT}-first", base)
        # The server's disk is in memory, and small enough for a test to fill it.
        with place.running("--tmpfs", "/srv/backups:size=256m"):
            edit_settings(root, place.settings())
            (root / "secrets/offsite_secret").chmod(0o644)
            (root / "secrets/offsite_secret").write_text(
                place.key.read_text(encoding="utf-8"), encoding="utf-8"
            )
            host.run("./scripts/up.sh")
            yield Pair(host, place)
    finally:
        host.remove()


def segments(host: Stack, *options: str) -> list[str]:
    """Return the sorted names of the archive's files, checksums included."""
    listing = json.loads(
        pgbackrest(host, *options, "repo-ls", "--recurse", "--output=json", "archive/main")
    )
    names = [path.rpartition("/")[2] for path, entry in listing.items() if entry["type"] == "file"]
    return sorted(name.partition(".")[0] for name in names if len(name) > 60)


def shipped(host: Stack) -> str:
    """Return the newest shipped segment."""
    text = host.compose(
        "exec", "--no-TTY", "backup", "cat", "/var/lib/pgbackrest/shipping.json", check=False
    )
    return str(json.loads(text)["facts"].get("segment", "")) if text else ""


def new_segment(host: Stack) -> str:
    """Write a row, end the current segment, and return its name."""
    row = "pg_logical_emit_message(false, 'test', 'a row')"
    return host.sql(f"select pg_walfile_name({row}), pg_switch_wal()").partition("|")[0]


def await_shipped(host: Stack, name: str, seconds: float) -> float:
    return wait_until(lambda: shipped(host) >= name, seconds, f"{name} is off the host", every=0.5)


def await_well(host: Stack, seconds: float = 90) -> str:
    wait_until(lambda: backup_row(host, "off-host")[0], seconds, "the line off-host is ok", every=1)
    return backup_row(host, "off-host")[1]


def is_failing(host: Stack) -> bool:
    """Whether the line off-host shows that shipping fails."""
    return "shipping fails" in backup_row(host, "off-host")[1]


def assert_same_segments(host: Stack) -> None:
    """Check that the off-host segments equal the local segments, without a gap."""
    there = segments(host, *OFFSITE)
    here = segments(host)
    assert there
    assert there == [name for name in here if there[0] <= name <= there[-1]]


def follow(host: Stack, name: str) -> None:
    """Run the commands of a runbook entry."""
    entry = incidents()[name]
    for line in "\n".join(blocks(entry["Diagnosis"])).splitlines():
        assert not is_misused(host, line), line
    for block in (*blocks(entry["Mitigation"]), *blocks(entry["Verification"])):
        host.run("bash", "-euo", "pipefail", "-c", block)


def test_every_segment_and_a_backup_get_off_the_host_by_themselves(pair: Pair) -> None:
    text = await_well(pair.host)
    assert "0 waiting; backup" in text
    written = pair.host.sql(
        "select pg_walfile_name(pg_logical_emit_message(true, 'test', 'a row'))"
    )
    waited = await_shipped(pair.host, written, LOST_SECONDS)
    print(f"measured: a row was off the host after {waited:.0f} s")
    assert_same_segments(pair.host)
    metrics = pair.host.metrics_of("backup", METRICS_PORT)
    assert metrics['slipway_task_well{task="offsite-full"}'] == 1
    assert 0 <= metrics["slipway_offsite_lag_seconds"] < LOST_SECONDS


def test_what_is_off_the_host_tells_nothing_without_the_key(pair: Pair) -> None:
    pair.host.sql("create table offsite_canary as select 'the-canary-off-host'::text as word")
    await_shipped(pair.host, new_segment(pair.host), 30)
    files = "find /srv/backups -type f -exec cat {} +"
    assert pair.place.sh(f"{files} | grep -c the-canary-off-host || true") == "0"
    key = pair.place.key.read_text(encoding="utf-8").splitlines()[1]
    shown = pair.host.run(
        "docker", "inspect", pair.host.container("backup"), pair.host.container("postgres")
    ).stdout
    assert key not in shown + pair.host.compose("logs", "backup", "postgres")
    assert "offsite_secret" not in json.dumps(pair.host.inspect("postgres")["Mounts"]), (
        "postgres has no access to the secret"
    )


@pytest.mark.nightly  # the test of a full store runs in every change
def test_a_place_that_hangs_delays_nothing_on_the_host_and_is_caught_up_with(pair: Pair) -> None:
    await_well(pair.host)
    pair.place.pause()
    try:
        names = [new_segment(pair.host) for _ in range(3)]
        question = f"select last_archived_wal >= '{names[-1]}' from pg_stat_archiver"
        wait_until(lambda: pair.host.sql(question) == "t", 20, "the local archive continues")
        waited = wait_until(
            lambda: is_failing(pair.host), pair.told_seconds, "the failure is shown", every=1
        )
        print(f"measured: a server that hangs was reported after {waited:.0f} s")
        assert backup_row(pair.host, "archive")[0]
        pair.host.run("./scripts/backup.sh")
    finally:
        pair.place.resume()
    await_shipped(pair.host, names[-1], 60)
    await_well(pair.host)
    assert_same_segments(pair.host)


def test_a_place_without_room_is_named_and_caught_up_with_by_the_runbook(pair: Pair) -> None:
    await_well(pair.host)
    pair.place.sh("dd if=/dev/zero of=/srv/backups/ballast bs=1M 2>/dev/null || true")
    try:
        name = new_segment(pair.host)
        wait_until(
            lambda: "cannot be pushed" in backup_row(pair.host, "off-host")[1],
            30,
            "it is shown",
            every=1,
        )
        assert backup_row(pair.host, "archive")[0]
    finally:
        pair.place.sh("rm -f /srv/backups/ballast")
    follow(pair.host, SHIPPING_ENTRY)
    await_shipped(pair.host, name, 30)
    assert_same_segments(pair.host)


def test_a_damaged_copy_off_the_host_fails_its_drill_until_the_runbook_ends_it(pair: Pair) -> None:
    await_well(pair.host)
    newest = "ls -d /srv/backups/stack/backup/main/[0-9]*/ | tail -1"
    largest = f'ls -S "$({newest})"bundle/* | head -1'
    pair.place.sh(
        f'dd if=/dev/zero of="$({largest})" bs=1 seek=100 count=16 conv=notrunc 2>/dev/null'
    )
    done = pair.host.run("./scripts/drill.sh", "restore", "--repo", "offsite", check=False)
    assert done.returncode == 1
    assert re.search(r"the backup \S+ cannot be restored: ", done.stderr), done.stderr
    is_well, text = backup_row(pair.host, "off-host")
    assert not is_well
    assert "drill failed" in text
    follow(pair.host, DRILL_ENTRY)
    shown = pair.host.compose(
        "exec", "--no-TTY", "backup", "cat", "/var/lib/pgbackrest/offsite-drill.json"
    )
    record = json.loads(shown)
    print(f"measured: {record['text']}")
    assert record["facts"]["ledger"] >= 1
    label = record["text"].partition(" ")[0]
    assert label in pgbackrest(pair.host, *OFFSITE, "info")
    assert label not in pgbackrest(pair.host, "info"), "the label belongs to the other repository"


@pytest.mark.nightly  # other tests check the shipped segments in every change
@pytest.mark.counts_losses
def test_a_killed_service_ships_each_segment_once(pair: Pair) -> None:
    """Shipping is killed repeatedly: the shipped segments are complete and in order."""
    names = []
    for _ in range(3):
        names = [new_segment(pair.host) for _ in range(4)]
        wait_until(lambda: shipped(pair.host) >= names[0], 30, "shipping has started")  # noqa: B023  called at once
        pair.host.compose("kill", "--signal", "KILL", "backup")
        pair.host.compose("up", "--detach", "--no-deps", "--wait", "backup")
    await_shipped(pair.host, names[-1], 60)
    assert_same_segments(pair.host)


def test_a_server_with_another_key_gets_nothing(pair: Pair) -> None:
    listing = ("./scripts/restore.sh", "--list", "--repo", "offsite")
    done = pair.host.run(*listing, check=False, OFFSITE_FINGERPRINT=WRONG_FINGERPRINT)
    assert done.returncode == 1
    assert "do not match" in done.stderr
    assert "can be restored: " in pair.host.run(*listing).stdout


def lose(host: Stack) -> tuple[Customer, float]:
    """Write rows, then kill everything and remove every volume; return the rows and the time."""
    await_well(host)
    customer = Customer(host)
    writer = threading.Thread(target=customer.run)
    writer.start()
    wait_until(lambda: customer.acknowledged, 30, "rows are written")
    await_shipped(host, host.sql("select pg_walfile_name(pg_current_wal_lsn())"), LOST_SECONDS)
    time.sleep(random.uniform(0, 15))  # noqa: S311  the loss must be bounded at every moment
    host.run("docker", "kill", *host.compose("ps", "--quiet").split())
    lost_at = time.time()
    customer.ending.set()
    writer.join()
    host.remove()
    return customer, lost_at


def assert_only_the_end_is_lost(host: Stack, customer: Customer, lost_at: float) -> None:
    """Check that each acknowledged row exists once, except those of the last seconds."""
    rows = host.sql("select name, count(*) from items group by name").splitlines()
    counts = {name: int(count) for name, count in (row.split("|") for row in rows)}
    missing = [at for name, at in customer.acknowledged.items() if name not in counts]
    loss = lost_at - min(missing, default=lost_at)
    print(
        f"measured: {len(missing)} of {len(customer.acknowledged)} rows lost, the oldest "
        f"{loss:.1f} s old"
    )
    assert loss <= LOST_SECONDS
    assert len(missing) < len(customer.acknowledged)
    assert [name for name in customer.acknowledged if counts.get(name, 1) != 1] == []
    lost = [
        name not in counts
        for name in sorted(customer.acknowledged, key=customer.acknowledged.__getitem__)
    ]
    assert lost == sorted(lost), "a row is missing, but a row acknowledged later exists"


@pytest.mark.counts_losses
def test_a_lost_host_comes_back_elsewhere_by_the_runbook(pair: Pair, tmp_path: Path) -> None:
    """Fault 31: only a clone, the bundle of secrets and the off-host repository are left."""
    bundle, repository, folder = (
        tmp_path / "bundle.asc",
        tmp_path / "repository",
        tmp_path / "second",
    )
    (tmp_path / "phrase").write_text(PASSPHRASE, encoding="utf-8")
    pair.host.run(
        "./scripts/export-secrets.sh", "--passphrase-file", f"{tmp_path}/phrase", f"{bundle}"
    )
    customer, lost_at = lose(pair.host)
    entry = incidents()[ENTRY]
    [typed] = blocks(entry["Mitigation"])
    copy_checkout(repository)
    folder.mkdir()
    second = Stack(folder, project=pair.host.project)
    for key in ("COMPOSE_PROJECT_NAME", "SLIPWAY_IMAGE", "STATE_DIR"):
        del second.environment[key]  # the bundle's `.env` names the stack
    variables = {**second.environment, "REPOSITORY": str(repository), "BUNDLE": str(bundle)}
    answers = {"passphrase of the bundle: ": PASSPHRASE, "to go on: ": second.project}
    # The new host is this machine, without the checkout and the state of the lost host.
    lost = pair.host.root.rename(tmp_path / "lost")
    try:
        code, shown = at_terminal(
            typed, answers, cwd=folder, env=variables, timeout=SERVING_SECONDS
        )
        assert code == 0, shown
        second.root = folder / "slipway"
        assert second.is_serving(), shown
        commands = len(typed.splitlines())
        print(
            f"measured: serving {time.time() - lost_at:.0f} s after the loss; {commands} "
            "commands, 2 answers"
        )
        assert_only_the_end_is_lost(second, customer, lost_at)
        for block in blocks(entry["Verification"]):
            second.run("bash", "-euo", "pipefail", "-c", block)
        await_shipped(second, new_segment(second), LOST_SECONDS)
        assert {name[:8] for name in segments(second, *OFFSITE)} >= {"00000001", "00000002"}
    finally:
        second.remove()
        shutil.rmtree(pair.host.root, ignore_errors=True)  # the new host's STATE_DIR
        lost.rename(pair.host.root)


def test_a_host_without_its_volumes_is_not_begun_anew_while_there_are_backups_off_it(
    pair: Pair,
) -> None:
    """up.sh refuses in both cases: backups exist, or the repository does not answer."""
    pair.host.remove()
    done = pair.host.run("./scripts/up.sh", check=False)
    assert done.returncode == 1
    assert "the repository off the host has backups of one" in done.stderr
    assert "HINT: ./scripts/restore.sh --latest --replace --repo offsite" in done.stderr
    done = pair.host.run("./scripts/up.sh", check=False, OFFSITE_FINGERPRINT=WRONG_FINGERPRINT)
    assert done.returncode == 1
    assert re.search(r"the repository off the host cannot be asked: .*do not match", done.stderr), (
        done.stderr
    )
    assert "correct OFFSITE_ in .env or secrets/offsite_secret" in done.stderr
    assert "--replace" not in done.stderr
    assert pair.host.compose("ps", "--quiet", "postgres") == ""
