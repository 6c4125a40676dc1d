"""A base image whose user has another number is refused before any server stops."""

import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from stack.config.project import Project, load
from stack.failure import Failure
from stack.parts import applied, volume_owner
from stack.runner import Result
from stack.stories import up

from tests.scripts.imitation import furnish, set_values
from tests.scripts.machine import Machine
from tests.scripts.recording import RecordingRunner
from tests.scripts.stock import have_volumes

OFFICIAL, DEBIAN = "999", "100"


def have_owners(runner: RecordingRunner, user: str, number: str, **owners: str) -> None:
    """Give a number to the user of an image, and owners to the volumes."""
    lines = [number, *(f"{owner} {name.replace('_', '-')}" for name, owner in owners.items())]
    runner.reply(f"sh {user} /volumes", Result(0, "\n".join(lines) + "\n"))


@pytest.fixture
def stock(runner: RecordingRunner) -> RecordingRunner:
    """A stack that was up with images from Debian packages."""
    have_volumes(runner)
    runner.reply("docker image inspect", Result(0, "sha256:1\n"))
    have_owners(runner, "postgres", DEBIAN, postgres=DEBIAN, backups=DEBIAN)
    have_owners(runner, "redis", DEBIAN, redis=DEBIAN)
    return runner


def refusal(runner: RecordingRunner, project: Project) -> Failure:
    with pytest.raises(Failure) as refused:
        volume_owner.refuse_another(runner, project)
    return refused.value


def test_images_of_the_same_kind_are_accepted(stock: RecordingRunner, loaded: Project) -> None:
    volume_owner.refuse_another(stock, loaded)
    assert "--user 0:0" in stock.asked[-1]
    assert "--volume slipway_redis:/volumes/redis:ro" in stock.asked[-1]
    assert stock.ran == []


def test_an_image_of_another_kind_is_refused_with_the_commands_that_change_the_owner(
    stock: RecordingRunner, loaded: Project
) -> None:
    have_owners(stock, "postgres", OFFICIAL, postgres=DEBIAN, backups=DEBIAN)
    have_owners(stock, "redis", OFFICIAL, redis=DEBIAN)
    failed = refusal(stock, loaded)
    assert (
        "POSTGRES_IMAGE: is of another kind: its user postgres has the number 999, and another "
        "number owns the volumes postgres (100), backups (100)" in failed.observation
    )
    assert "REDIS_IMAGE: is of another kind" in failed.observation
    assert (
        "set REDIS_IMAGE in .env to the former image; or, with some seconds of 503: "
        "docker compose stop redis && docker run --rm --network none "
        "--user 0:0 --entrypoint chown --volume slipway_redis:/volumes/redis r:1 --recursive "
        "redis:redis /volumes && ./scripts/up.sh"
    ) in failed.hints


def test_a_volume_that_is_not_there_is_not_made_by_looking(
    runner: RecordingRunner, loaded: Project
) -> None:
    volume_owner.refuse_another(runner, loaded)
    assert not any("docker run" in command for command in runner.asked)


def test_an_image_that_shows_no_number_is_no_success(
    stock: RecordingRunner, loaded: Project
) -> None:
    stock.reply("sh redis /volumes", Result(0, "\n"))
    assert "does not show the number of its user redis" in refusal(stock, loaded).observation


def test_up_refuses_before_it_touches_a_server(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    furnish(checkout)
    have_volumes(runner)
    have_owners(runner, "postgres", OFFICIAL, postgres=DEBIAN)
    have_owners(runner, "redis", DEBIAN, redis=DEBIAN)
    before = (checkout / ".env").read_bytes()
    with pytest.raises(Failure, match="POSTGRES_IMAGE: is of another kind"):
        up.run(runner, checkout)
    assert (checkout / ".env").read_bytes() == before
    assert not any(" up " in command or " stop " in command for command in runner.ran)


def test_an_image_that_up_chose_itself_is_refused_before_env_names_it(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    furnish(checkout)
    set_values(checkout, REDIS_IMAGE="")
    have_volumes(runner)
    have_owners(runner, "postgres", DEBIAN, postgres=DEBIAN)
    have_owners(runner, "redis", OFFICIAL, redis=DEBIAN)
    runner.reply("RepoDigests", Result(0, "redis@sha256:2\n"))
    project = load(checkout)
    former = replace(project, values={**project.values, "REDIS_IMAGE": "r:1"})
    applied.note(runner, former, "redis")
    before = (checkout / ".env").read_bytes()
    with pytest.raises(Failure, match="REDIS_IMAGE: is of another kind") as refused:
        up.run(runner, checkout)
    assert (checkout / ".env").read_bytes() == before
    assert "set REDIS_IMAGE in .env to r:1; or" in refused.value.hints[0]


@pytest.mark.parametrize("user", ["root", "daemon"])
def test_the_script_reads_the_number_and_the_owners_of_folders_that_are_not_empty(
    stock: RecordingRunner, loaded: Project, tmp_path: Path, user: str
) -> None:
    for name in ("redis/dump", "empty"):
        (tmp_path / "volumes" / name).mkdir(parents=True)

    def run() -> Result:
        words = shlex.split(stock.asked[-1])
        argv = ["sh", *words[words.index("-euc") : -2], user, str(tmp_path / "volumes")]
        ended = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
        return Result(0, ended.stdout)

    stock.reply("sh redis /volumes", run)
    number, owners = volume_owner._read(stock, loaded, volume_owner.STORES[1], ["redis"])
    assert number == {"root": "0", "daemon": "1"}[user]
    assert owners == {"redis": str(os.geteuid())}
