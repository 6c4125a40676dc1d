"""Tests the scripts' checks and repairs in Postgres, and the status row of its volume."""

import pytest
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import database
from stack.runner import Result
from stack.stories import status

from tests.scripts.recording import RecordingRunner

MEGABYTE = 10**6
POINTER = ": docs/runbook.md#postgres-volume-full"


def volume(
    runner: RecordingRunner, project: Project, percent_free: int, ballast: int = 256
) -> status.Row:
    """Return the status row of a volume of 1 GB; `ballast` is in megabytes."""
    runner.reply(
        "df --block-size=1",
        Result(0, f"{percent_free * 10 * MEGABYTE} {1000 * MEGABYTE}\n{ballast}000000\n"),
    )
    return status.postgres_disk(runner, project)


def test_a_volume_with_less_than_15_percent_free_is_not_ok(
    runner: RecordingRunner, loaded: Project
) -> None:
    text = "0.1 GB free ({} %) in the volume, and 256 MB of ballast"
    assert volume(runner, loaded, 15) == (True, "disk postgres", text.format(15))
    assert volume(runner, loaded, 14) == (False, "disk postgres", text.format(14) + POINTER)


def test_a_volume_without_ballast_is_not_ok_unless_none_is_wanted(
    runner: RecordingRunner, loaded: Project
) -> None:
    text = "0.8 GB free (80 %) in the volume, no ballast"
    assert volume(runner, loaded, 80, ballast=0) == (False, "disk postgres", text + POINTER)
    wanted = Project(loaded.root, {**loaded.values, "POSTGRES_BALLAST_MB": "0"})
    assert volume(runner, wanted, 80, ballast=0) == (True, "disk postgres", text)


def test_the_volume_of_a_postgres_that_does_not_run_is_looked_at_all_the_same(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("docker volume inspect", Result(0))
    runner.reply("docker run", Result(0, "800000000 1000000000\n1\n"))
    runner.reply("docker compose exec", Result(1, err="service postgres is not running\n"))
    assert status.postgres_disk(runner, loaded)[0]
    assert "--user postgres" in runner.asked[-1]
    assert f"--volume {loaded.name}_postgres:/var/lib/postgresql/data:ro" in runner.asked[-1]
    runner.reply("docker run", Result(125, err="no such volume\n"))
    assert status.postgres_disk(runner, loaded) == (False, "disk postgres", "no such volume")


def test_a_volume_that_is_gone_is_told_and_not_made_by_looking(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("docker compose exec", Result(1, err="service postgres is not running\n"))
    runner.reply("docker volume inspect", Result(1))
    assert status.postgres_disk(runner, loaded) == (
        False,
        "disk postgres",
        "there is no volume slipway_postgres",
    )
    assert not any(command.startswith("docker run") for command in runner.asked)


def test_a_base_image_of_another_major_version_is_refused_before_the_running_one_is_replaced(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("docker image inspect", Result(0, "sha256:1\n"))
    runner.reply("server_version_num", Result(0, "17\n"))
    runner.reply(
        "--entrypoint postgres", Result(0, "postgres (PostgreSQL) 17.6 (Debian 17.6-0+deb13u1)\n")
    )
    database.check_version(runner, loaded)
    runner.reply("--entrypoint postgres", Result(0, "postgres (PostgreSQL) 18.1\n"))
    with pytest.raises(
        Failure, match="is Postgres 18, but the running server is Postgres 17"
    ) as raised:
        database.check_version(runner, loaded)
    assert raised.value.runbook == "postgres-major-upgrade"
    assert runner.ran == []


def test_where_no_postgres_runs_its_entry_point_is_left_to_refuse(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("docker image inspect", Result(0, "sha256:1\n"))
    runner.reply("server_version_num", Result(1, err="not running"))
    database.check_version(runner, loaded)


@pytest.mark.parametrize(
    ("ballast", "said"), [(Result(0), "done"), (Result(1, err="no room\nHINT: x\n"), "no room")]
)
def test_a_volume_without_room_for_ballast_is_told_and_no_failure(
    runner: RecordingRunner, ballast: Result, said: str
) -> None:
    runner.reply("ballast.sh", ballast)
    assert database.complete(runner) == said
