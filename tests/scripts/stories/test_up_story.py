"""Tests the order of `up.sh`; a second run repairs only what is broken."""

import json
from pathlib import Path

import pytest
from stack.config.project import load
from stack.failure import Failure
from stack.parts import edge_settings, slot_files
from stack.runner import Result
from stack.stories import deploy, up

from tests.scripts.imitation import set_values
from tests.scripts.machine import PLACE, WAIT, Machine, container, ledger
from tests.scripts.recording import RecordingRunner

LINK_MADE = "mv -T /run/slots/next.sock /run/slots/live.sock"
pytestmark = pytest.mark.usefixtures("ports")


def test_the_database_is_migrated_before_the_slot_starts_and_the_front_door_is_last(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    up.run(runner, checkout)
    parts = [
        "--tag slipway/app-nginx",
        "CN=$NAME",
        str(load(checkout).nginx_folder / "current"),
        "--tag slipway/app:",
        PLACE,
        "postgres redis",
        "create extension if not exists pg_stat_statements",
        "exec --no-TTY postgres /etc/slipway/ballast.sh",
        "--no-TTY migrate",
        f"{WAIT} --wait-timeout 90 api-blue",
    ]
    order = [runner.position(part) for part in parts]
    assert order == sorted(order)
    services = [command for command in runner.ran if command.startswith("docker")]
    assert services[-2:] == [
        f"{WAIT} --wait-timeout 90 api-blue worker-blue counter nginx",
        "docker compose run --rm --no-deps --no-TTY api-blue python -m api.users.first_user",
    ]
    assert runner.environments[runner.position("--no-TTY migrate")] == {
        "MIGRATE_TAG": "blue",
        "MIGRATE_CONFIRM": "yes",
    }
    assert (
        runner.said[-1]
        == f"live: release {machine.release} in slot blue, answering at {load(checkout).url}"
    )


def test_on_a_host_where_nothing_is_live_a_deploy_brings_up_the_image_and_builds_no_release(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    image, identity = "registry/app:9", "sha256:0123456789abcdef"
    runner.reply(image, Result(0, "r9\n"))
    runner.reply(f"'{{{{.Id}}}}' {image}", Result(0, f"{identity}\n"))
    runner.reply("'{{.Id}}' slipway/app:r9", Result(1, err="no such image"))
    deploy.run(runner, checkout, deploy.Options(image=image))
    order = [
        runner.position(part)
        for part in (
            f"docker pull --quiet {image}",
            f"{PLACE} {identity} slipway/app:r9",
            f"{PLACE} slipway/app:r9 slipway/app:blue",
            f"{WAIT} --wait-timeout 90 api-blue",
        )
    ]
    assert order == sorted(order)
    assert not runner.has_run("--tag slipway/app:"), "no release is built"
    assert ledger(checkout)[-1]["to"] == "r9"
    assert runner.said[-1].startswith("live: release r9 in slot blue")


def test_a_second_run_replaces_no_container_of_the_slot_that_serves(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    up.run(runner, checkout)
    for running, started in (
        ("api-blue worker-blue", "counter nginx"),
        ("api-blue", "worker-blue counter nginx"),
        ("worker-blue", "api-blue counter nginx"),
    ):
        former_count = len(runner.ran)
        machine.containers = "".join(container(name) for name in running.split())
        up.run(runner, checkout)
        assert f"{WAIT} --wait-timeout 90 {started}" in runner.ran[former_count:]


@pytest.mark.parametrize(
    ("hosts", "is_known"), [("localhost", False), ("api.example.org,localhost", True)]
)
def test_a_new_host_name_waits_for_a_slot_that_accepts_it(
    runner: RecordingRunner, machine: Machine, checkout: Path, hosts: str, *, is_known: bool
) -> None:
    up.run(runner, checkout)
    former_count = len(runner.ran)
    set_values(checkout, SLIPWAY_HOST="api.example.org")
    machine.containers = container("api-blue") + container("worker-blue") + container("nginx")
    runner.reply("ps --all --quiet api-blue", Result(0, "c0ffee\n"))
    runner.reply("c0ffee", Result(0, f'["ENVIRONMENT=production", "ALLOWED_HOSTS={hosts}"]'))
    up.run(runner, checkout)
    host = edge_settings.installed(load(checkout)).host
    assert host == ("api.example.org" if is_known else "localhost")
    waits = "    not applied: SLIPWAY_HOST: ./scripts/deploy.sh" in runner.said
    assert waits != is_known
    again = [each for each in runner.ran[former_count:] if "compose up" in each or "reload" in each]
    assert not any("blue" in each or "nginx" in each.split()[-1] for each in again)
    assert any(each.endswith("reload") for each in again) == is_known


def test_a_new_host_name_reaches_a_slot_that_does_not_run(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    up.run(runner, checkout)
    set_values(checkout, SLIPWAY_HOST="api.example.org")
    up.run(runner, checkout)
    values = slot_files.of_slot(load(checkout), "blue")
    assert values["ALLOWED_HOSTS"] == "api.example.org,localhost"
    assert slot_files.number_of(values) == 1, "it is the same deployment"


def test_the_first_user_is_registered_once_and_told_by_file_only(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    up.run(runner, checkout)
    file = load(checkout).secrets / "first_user.json"
    user = json.loads(file.read_text(encoding="utf-8"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(user["password"]) >= 20
    assert user["password"] not in "\n".join([*runner.said, *runner.ran, *runner.asked])
    assert str(file) in "\n".join(runner.said)
    up.run(runner, checkout)
    assert machine.users == [user]


def test_the_console_is_told_by_file_only_and_not_where_it_is_off(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    up.run(runner, checkout)
    file = load(checkout).secrets / "ops_password"
    assert f"/ops/session, password in {file}" in "\n".join(runner.said)
    assert file.read_text(encoding="utf-8").strip() not in "\n".join(runner.said)
    file.chmod(0o600)
    file.write_text("", encoding="utf-8")
    runner.said.clear()
    up.run(runner, checkout)
    assert "/ops" not in "\n".join(runner.said)


def test_the_first_user_is_a_draft_before_it_is_registered_so_that_no_password_is_lost(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    machine.registration = Result(1, err="error: Postgres does not answer\n")
    with pytest.raises(Failure, match="ended with 1"):
        up.run(runner, checkout)
    draft = load(checkout).secrets / "first_user.draft.json"
    assert draft.stat().st_mode & 0o777 == 0o600
    assert not draft.with_name("first_user.json").exists()
    machine.registration = Result(0)
    up.run(runner, checkout)
    assert not draft.exists()
    kept = json.loads(draft.with_name("first_user.json").read_text(encoding="utf-8"))
    assert machine.users == [kept, kept]


def test_a_password_that_the_service_prints_is_not_in_the_evidence(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    def careless() -> Result:
        return Result(1, err=f"Traceback: {runner.inputs[-1]}")

    runner.reply("api.users.first_user", careless)
    with pytest.raises(Failure) as failed:
        up.run(runner, checkout)
    draft = load(checkout).secrets / "first_user.draft.json"
    assert json.loads(draft.read_text(encoding="utf-8"))["password"] not in failed.value.evidence
    assert "[redacted]" in failed.value.evidence


def test_a_first_user_with_another_password_is_named_and_the_draft_goes(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    machine.registration = Result(3)
    up.run(runner, checkout)
    assert list(load(checkout).secrets.glob("first_user*")) == []
    assert "exists with another password" in "\n".join(runner.said)
    assert "first login" not in runner.said[-2]


def test_a_service_without_a_first_user_gets_none(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    machine.service = "[[web.smoke]]\npath = '/readyz'\n"
    up.run(runner, checkout)
    assert machine.users == []
    assert list(load(checkout).secrets.glob("first_user*")) == []


@pytest.mark.parametrize("is_prepared", [True, False], ids=["prepared", "failed to start"])
def test_an_edit_of_env_reaches_a_slot_that_never_served(
    runner: RecordingRunner, machine: Machine, checkout: Path, *, is_prepared: bool
) -> None:
    """No slot serves, so that no deploy could apply the corrected setting."""
    if is_prepared:
        up.run(runner, checkout, is_prepare=True)
    else:
        replies = list(runner.replies)
        runner.reply(f"{WAIT} --wait-timeout 90", Result(1, err="container is unhealthy"))
        with pytest.raises(Failure):
            up.run(runner, checkout)
        runner.replies[:] = replies
    set_values(checkout, DATABASE_POOL_SIZE="3")
    up.run(runner, checkout)
    project = load(checkout)
    assert slot_files.of_slot(project, "blue")["DATABASE_POOL_SIZE"] == "3"
    assert [(entry["action"], entry["deployment"]) for entry in ledger(checkout)] == [("up", 1)]
    machine.containers = container("api-blue") + container("worker-blue")
    set_values(checkout, DATABASE_POOL_SIZE="4")
    up.run(runner, checkout)
    assert slot_files.of_slot(project, "blue")["DATABASE_POOL_SIZE"] == "3", "a deploy applies it"


def test_running_it_again_builds_places_and_records_nothing(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    up.run(runner, checkout)
    assert [(entry["action"], entry["to"], entry["result"]) for entry in ledger(checkout)] == [
        ("up", machine.release, "done")
    ]
    files = {
        path: path.read_bytes()
        for path in [checkout / ".env", *load(checkout).secrets.glob("*")]
        if path.is_file()
    }
    times = len(runner.ran), len(ledger(checkout))
    (checkout / "nginx/conf.d/a.conf").write_text(
        "# newer\n", encoding="utf-8"
    )  # only deploy.sh installs this change
    up.run(runner, checkout)
    assert sum(command.startswith(PLACE) for command in runner.ran) == 1
    again = runner.ran[times[0] :]
    assert [
        command for command in again if "--tag slipway/app:" in command or command.startswith("ln ")
    ] == []
    assert len(ledger(checkout)) == times[1]
    assert {path: path.read_bytes() for path in files} == files


def test_a_placed_release_stays_and_the_newer_checkout_is_named(
    runner: RecordingRunner, checkout: Path
) -> None:
    Machine(runner, placed="r-0")
    up.run(runner, checkout)
    assert not runner.has_run("--tag slipway/app:")
    assert not runner.has_run(PLACE)
    assert "; the checkout, src-" in "\n".join(runner.said)
    assert "make it live ./scripts/deploy.sh, the checkout is release src-" in runner.said[-2]
    assert "release r-0 in slot blue" in runner.said[-1]


def test_for_a_developer_the_image_for_development_is_placed_and_nothing_is_recorded(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    set_values(checkout, COMPOSE_FILE="compose.yaml:compose.dev.yaml")
    for _ in range(2):  # the image is built each time, because a lock file may have changed
        up.run(runner, checkout)
    builds = [command for command in runner.ran if "--target development" in command]
    assert len(builds) == 2
    assert "--tag slipway/app:development" in builds[0]
    assert not runner.has_run("--target production")
    assert runner.has_run("docker tag slipway/app:development slipway/app:blue")
    assert runner.has_run("api-blue worker-blue counter nginx sink")
    assert ledger(checkout) == []
    assert "deploy.sh" not in "\n".join(runner.said)


def test_a_server_places_a_release_over_the_image_for_development(
    runner: RecordingRunner, checkout: Path
) -> None:
    machine = Machine(runner, placed="development")
    up.run(runner, checkout)
    assert runner.has_run("--target production")
    assert machine.release.startswith("src-")
    assert runner.has_run("docker compose rm --stop --force api-blue worker-blue")


def test_the_slot_that_the_link_names_is_the_one_that_starts(
    runner: RecordingRunner, checkout: Path
) -> None:
    Machine(runner, placed="r-0")
    runner.reply("readlink", Result(0, "green.sock\n"))
    with pytest.raises(Failure, match="front door"):  # this front door answers only as blue
        up.run(runner, checkout)
    assert runner.ran[-1].endswith("api-green worker-green counter nginx")
    assert runner.environments[runner.position("--no-TTY migrate")]["MIGRATE_TAG"] == "green"


def test_a_link_that_a_new_nginx_made_names_the_slot_that_serves(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    """The link and nginx were lost while green was live; a new nginx creates a link to blue."""
    machine.placed = "r-1"
    machine.containers = container("api-green") + container("worker-green")
    runner.reply("readlink", lambda: Result(0, f"{'blue' if machine.has_nginx else 'none'}.sock\n"))
    up.run(runner, checkout)
    assert runner.has_run("ln -sfn green.sock")


def test_a_lost_live_link_is_made_again(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    runner.reply("readlink", Result(0, "none.sock\n"))
    up.run(runner, checkout)
    made = runner.position(LINK_MADE)
    assert "ln -sfn blue.sock" in runner.ran[made]
    assert made > runner.position("worker-blue counter nginx")


@pytest.mark.parametrize(
    ("containers", "stopped"),
    [
        (container("worker-green"), ["docker compose stop worker-green"]),
        (container("worker-green", "exited") + container("api-green"), []),
        (container("worker-blue"), []),
    ],
)
def test_a_worker_that_runs_in_the_idle_slot_is_stopped_and_nothing_else(
    runner: RecordingRunner, machine: Machine, checkout: Path, containers: str, stopped: list[str]
) -> None:
    machine.containers = containers
    up.run(runner, checkout)
    assert [command for command in runner.ran if "compose stop" in command] == stopped
    assert not runner.has_run(LINK_MADE)


def test_a_service_that_the_engine_keeps_waiting_with_is_restarted_at_once(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    machine.containers = container("redis", "restarting", "") + container("postgres")

    def restarted() -> Result:
        machine.containers = container("redis") + container("postgres")
        return Result(0)

    runner.reply("compose restart redis", restarted)
    up.run(runner, checkout)
    assert runner.position("compose restart redis") < runner.position("redis backup")


def test_what_contracts_a_database_that_is_in_use_waits_for_the_end_of_the_rollback_window(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    up.run(runner, checkout)
    assert runner.ran[runner.position("--no-TTY migrate")].endswith("--no-TTY migrate")
    first = len(runner.ran)
    runner.reply("from alembic_version", Result(0, "2026_01_01_0000\n"))
    up.run(runner, checkout)
    again = [command for command in runner.ran[first:] if "migrate" in command]
    assert again == [
        "docker compose run --rm --no-deps --no-TTY migrate python -m api.migrate --phase pre"
    ]


def test_a_dry_run_tells_the_plan_and_leaves_no_file(bare: Path) -> None:
    runner = RecordingRunner(is_dry=True)
    Machine(runner)
    before = sorted(bare.rglob("*"))
    up.run(runner, bare)
    assert sorted(bare.rglob("*")) == before
    assert "nothing was changed" in "\n".join(runner.said)
    assert runner.said[-1].startswith("live: ")
