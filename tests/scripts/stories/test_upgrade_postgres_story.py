"""Tests the upgrade of Postgres: its order, its checks before any effect, and its undo."""

from collections.abc import Callable
from pathlib import Path

import pytest
from stack.config.project import load
from stack.failure import FAILED_UNCHANGED, NEEDS_A_PERSON, Failure
from stack.https import Answer, Question
from stack.parts import applied
from stack.runner import Result
from stack.stories import upgrade_postgres

from tests.scripts.imitation import check_form, furnish, write_secrets
from tests.scripts.machine import container
from tests.scripts.recording import RecordingRunner
from tests.scripts.stock import have_volumes

HEADERS = {"x-slipway-release": "r-1", "x-slipway-slot": "green"}
WELL = "".join(
    container(name) for name in ("api-green", "backup", "nginx", "postgres", "worker-green")
)
START = "docker compose up --detach --no-deps --wait --wait-timeout 120"
NEXT = "docker compose run --rm --no-deps --no-TTY --name slipway-postgres-next"
COPY = f"{NEXT} postgres /etc/slipway/upgrade.sh"
REMOVE = "postgres rm --recursive --force"


@pytest.fixture
def host(runner: RecordingRunner, checkout: Path) -> RecordingRunner:
    """A host on Postgres 15, with green live and a base image of Postgres 17."""
    write_secrets(load(checkout))
    runner.reply("apt-config", Result(0))
    runner.reply("docker image inspect", Result(0, "sha256:1\n"))
    runner.reply("server_version_num", Result(0, "15\n"))
    runner.reply("pg_database_size", Result(0, "15|1000000\n"))
    runner.reply("postgres --entrypoint postgres", Result(0, "postgres (PostgreSQL) 17.6\n"))
    runner.reply("df --block-size=1", Result(0, "Avail\n1075100000\n"))
    runner.reply("docker ps", Result(0))
    runner.reply("docker compose ps", Result(0, WELL))
    runner.reply("docker pull", Result(1, err="no route"))
    runner.reply("pg_isready", Result(0))
    runner.reply("readlink", Result(0, "green.sock\n"))
    runner.reply("python3 -m backup incremental", Result(0, '{"result": {}}\n'))
    runner.door = lambda _: Answer(200, "{}", HEADERS)
    return runner


def failure_of(run: Callable[[], None]) -> Failure:
    with pytest.raises(Failure) as raised:
        run()
    check_form(raised.value)
    return raised.value


def test_writers_stop_before_the_copy_and_the_image_is_named_before_the_directory(
    host: RecordingRunner, checkout: Path
) -> None:
    upgrade_postgres.run(host, checkout, "")
    parts = [
        "docker build",
        "docker compose stop api-green worker-green backup postgres",
        "default_transaction_read_only=on",
        COPY,
        "docker stop",
        "docker tag slipway/app-postgres:current slipway/app-postgres:before",
        "docker tag slipway/app-postgres:next slipway/app-postgres:current",
        "mv --no-target-directory /var/lib/postgresql/data/17.new /var/lib/postgresql/data/17",
        f"{START} postgres",
        "pgbackrest stanza-upgrade",
        f"{START} backup api-green worker-green",
    ]
    order = [host.position(part) for part in parts]
    assert order == sorted(order)
    backups = [
        number for number, line in enumerate(host.ran) if "python3 -m backup incremental" in line
    ]
    assert backups == [order[1] - 1, order[-1] + 1], "a backup of one version is missing"
    assert load(checkout).base("postgres") == "slipway-base/postgres:debian-trixie"
    assert (
        (checkout / ".env")
        .read_text(encoding="utf-8")
        .endswith("# POSTGRES_IMAGE before the upgrade to 17: g:1\n")
    )
    assert not host.has_run(REMOVE)


def test_the_idle_slot_is_stopped_and_not_started(host: RecordingRunner, checkout: Path) -> None:
    host.reply("docker compose ps", Result(0, WELL + container("api-blue")))
    upgrade_postgres.run(host, checkout, "")
    assert host.has_run("docker compose stop api-blue api-green worker-green backup postgres")
    assert not any("up --detach" in command and "api-blue" in command for command in host.ran)


def test_the_front_door_is_asked_on_the_port_that_nginx_has(
    host: RecordingRunner, checkout: Path, ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its end, an upgrade queries the front door, which uses another port than .env."""
    applied.keep(host, load(checkout), ["nginx"])
    monkeypatch.setenv("HTTPS_PORT", "9443")
    asked: list[int] = []

    def answer(question: Question) -> Answer:
        asked.append(question.port)
        return Answer(200, "{}", HEADERS)

    host.door = answer
    upgrade_postgres.run(host, checkout, "")
    assert set(asked) == {ports["HTTPS_PORT"]}


def test_the_same_version_is_nothing_to_do(host: RecordingRunner, checkout: Path) -> None:
    host.reply("pg_database_size", Result(0, "17|1000000\n"))
    upgrade_postgres.run(host, checkout, "")
    assert host.ran == ["docker pull --quiet postgres:17-trixie"]


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        (
            "pg_database_size",
            Result(0, "18|1000000\n"),
            "is Postgres 17, but the database is of Postgres 18",
        ),
        ("pg_database_size", Result(1, err="refused"), "Postgres does not answer: refused"),
        ("df --block-size=1", Result(0, "Avail\n1074900000\n"), "1.1 GB are free"),
    ],
)
def test_what_cannot_go_well_is_refused_before_any_effect(
    host: RecordingRunner, checkout: Path, question: str, answer: Result, said: str
) -> None:
    host.reply(question, answer)
    failed = failure_of(lambda: upgrade_postgres.run(host, checkout, ""))
    assert said in failed.observation
    assert failed.code == FAILED_UNCHANGED
    assert not host.has_run("docker build")
    assert not host.has_run("docker compose")


def test_an_image_of_another_kind_is_refused_without_a_change_of_the_owner(
    host: RecordingRunner, checkout: Path
) -> None:
    """The present version runs from the present kind until the copy is complete."""
    furnish(checkout)
    have_volumes(host)
    host.reply("sh postgres /volumes", Result(0, "999\n100 postgres\n"))
    failed = failure_of(lambda: upgrade_postgres.run(host, checkout, ""))
    assert "its user postgres has the number 999" in failed.observation
    assert "name an image of the present kind with --image" in " ".join(failed.hints)
    assert not any("chown" in hint for hint in failed.hints)
    assert not host.has_run("docker compose")


@pytest.mark.parametrize(
    "step",
    [
        "docker compose stop",
        COPY,
        "docker stop",
        "docker tag",
        "docker tag slipway/app-postgres:next",
        "mv --no-target-directory",
    ],
)
def test_a_step_that_fails_brings_back_what_was(
    host: RecordingRunner, checkout: Path, step: str
) -> None:
    host.reply(step, Result(1, err="the reason"))
    failed = failure_of(lambda: upgrade_postgres.run(host, checkout, ""))
    assert failed.code == FAILED_UNCHANGED
    assert failed.hints[-1] == "Postgres 15 serves again, as before"
    assert load(checkout).base("postgres") == "g:1"
    last = [command for command in host.ran if command.startswith(START)][-1]
    assert last.startswith(f"{START} postgres backup")
    is_switched = step in {"docker tag slipway/app-postgres:next", "mv --no-target-directory"}
    assert host.has_run("docker tag slipway/app-postgres:before") == is_switched
    removed = next(command for command in host.ran if REMOVE in command)
    assert removed.endswith("17.new /var/lib/postgresql/data/17" if is_switched else "17.new")


@pytest.mark.parametrize(
    "step", ["docker tag slipway/app-postgres:next", "mv --no-target-directory"]
)
def test_a_run_that_is_killed_on_its_way_has_noted_the_image_from_before(
    host: RecordingRunner, checkout: Path, step: str
) -> None:
    class Killed(BaseException):
        """Imitates a kill: no undo runs."""

    def kill() -> Result:
        raise Killed

    host.reply(step, kill)
    for _ in range(2):
        with pytest.raises(Killed):
            upgrade_postgres.run(host, checkout, "")
        text = (checkout / ".env").read_text(encoding="utf-8")
        assert load(checkout).base("postgres") == "slipway-base/postgres:debian-trixie"
        assert text.count("# POSTGRES_IMAGE before the upgrade to 17: ") == 1
        assert text.endswith(": g:1\n")
        (checkout / ".env").write_text(
            text.replace("=slipway-base/postgres:debian-trixie", "=g:1"), encoding="utf-8"
        )


def test_what_fails_once_the_new_version_runs_needs_a_person_and_goes_forward(
    host: RecordingRunner, checkout: Path
) -> None:
    host.reply("stanza-upgrade", Result(1, err="the reason"))
    failed = failure_of(lambda: upgrade_postgres.run(host, checkout, ""))
    assert failed.code == NEEDS_A_PERSON
    assert "./scripts/up.sh starts the rest" in failed.hints[0]
    assert not host.has_run(REMOVE)


def test_going_back_that_fails_says_where_the_rows_are(
    host: RecordingRunner, checkout: Path
) -> None:
    host.reply(COPY, Result(1, err="the reason"))
    host.reply(START, Result(1, err="no engine"))
    failed = failure_of(lambda: upgrade_postgres.run(host, checkout, ""))
    assert failed.code == NEEDS_A_PERSON
    assert failed.hints[-3].startswith("undo failed too: postgres, backup")
    assert failed.hints[-2] == "POSTGRES_IMAGE in .env was g:1"
    assert failed.hints[-1].startswith("the rows are in /var/lib/postgresql/data/15")
