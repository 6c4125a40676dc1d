"""Lost, changed and foreign secrets and a second checkout, on the running stack."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stack.config import environment
from stack.parts import logins

from tests.conftest import Figure
from tests.stack.harness import PROJECT, Stack, copy_checkout, free_ports, wait_until
from tests.stack.load import Load
from tests.stack.settings import edited

pytestmark = pytest.mark.drill
SECRETS = sorted(logins.NAMES)
REFUSING = ("./scripts/up.sh", "./scripts/deploy.sh", "./scripts/rollback.sh")


def containers(stack: Stack) -> set[str]:
    """Return the ids of the project's containers."""
    label = f"label=com.docker.compose.project={stack.project}"
    return set(stack.run("docker", "ps", "--all", "--quiet", "--filter", label).stdout.split())


def volumes(stack: Stack) -> set[str]:
    return set(stack.run("docker", "volume", "ls", "--quiet").stdout.split())


def refused(stack: Stack, *argv: str, project: str = "") -> str:
    """Run a command that must be refused without an effect, and return its errors."""
    before = containers(stack), volumes(stack), len(stack.ledger())
    env = {"COMPOSE_PROJECT_NAME": project or stack.project}
    ended = stack.run(*argv, check=False, timeout=600, **env)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert (containers(stack), volumes(stack), len(stack.ledger())) == before
    assert stack.is_serving()
    return ended.stderr


@contextmanager
def secret(stack: Stack, name: str, content: bytes | None) -> Iterator[None]:
    """Give a secret file another content, or none, while the block runs."""
    file = stack.root / "secrets" / name
    before = file.read_bytes()
    file.unlink()
    if content is not None:
        file.write_bytes(content)
        file.chmod(0o444)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        file.write_bytes(before)
        file.chmod(0o444)


@pytest.fixture
def _proved(stack: Stack) -> Iterator[None]:
    stack.run("./scripts/up.sh")
    yield
    stack.run("./scripts/up.sh")


def fingerprints(stack: Stack) -> dict[str, bytes]:
    folder = stack.root / "state/fingerprints"
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.usefixtures("_proved")
def test_each_secret_logs_in_and_gets_a_fingerprint_which_reveals_none(stack: Stack) -> None:
    kept = fingerprints(stack)
    assert sorted(kept) == SECRETS
    for name in SECRETS:
        assert (stack.root / "secrets" / name).read_bytes().strip() not in kept[name]
    shutil.rmtree(stack.root / "state/fingerprints")
    stack.run("./scripts/up.sh")
    assert sorted(fingerprints(stack)) == SECRETS, "a state without them is adopted"


def nightly_but(name: str, names: Iterable[str]) -> list[object]:
    """Return the cases of a test; only the case `name` runs at every change."""
    nightly = pytest.mark.nightly
    return [pytest.param(each, marks=() if each == name else nightly) for each in names]


@pytest.mark.usefixtures("_proved")
@pytest.mark.parametrize("name", nightly_but("redis_password", SECRETS))
def test_a_server_refuses_a_wrong_secret_and_every_command_names_it(
    stack: Stack, name: str
) -> None:
    shutil.rmtree(stack.root / "state/fingerprints")
    with secret(stack, name, b"0123456789-of-another-stack-abcdefgh\n"):
        ended = stack.run("./scripts/check-config.sh", check=False)
        assert ended.returncode == 1
        assert f"critical {name.upper()}: " in ended.stdout
        shown = stack.run("./scripts/status.sh", check=False).stdout
        assert re.search(rf"^!! +secrets +.*{name}", shown, re.MULTILINE)
        for command in REFUSING:
            assert f"{name} is not the secret that opens" in refused(stack, command)
    assert not (stack.root / "state/fingerprints").exists()


@pytest.mark.usefixtures("_proved")
@pytest.mark.parametrize("name", nightly_but("backup_key", [*SECRETS, "token_key"]))
def test_a_lost_secret_comes_back_by_the_command_that_the_refusal_prints(
    stack: Stack, name: str
) -> None:
    file = stack.root / "secrets" / name
    before = file.read_bytes()
    with secret(stack, name, None):
        errors = [refused(stack, command) for command in REFUSING]
        assert all(f"secrets/{name} is missing, and the volume" in text for text in errors)
        [mend] = set(re.findall(r"^HINT: (docker exec .* install .*)$", "\n".join(errors), re.M))
        stack.run("bash", "-euo", "pipefail", "-c", mend)
        assert file.read_bytes() == before
        stack.run("./scripts/check-config.sh")


@pytest.mark.nightly
@pytest.mark.usefixtures("_proved")
def test_a_carriage_return_is_refused_by_name(stack: Stack) -> None:
    text = (stack.root / "secrets/redis_password").read_bytes()
    with secret(stack, "redis_password", text.rstrip() + b"\r\n"):
        for command in REFUSING:
            assert "redis_password ends in a carriage return" in refused(stack, command)
        ended = stack.run("./scripts/check-config.sh", check=False)
        assert "critical REDIS_PASSWORD: " in ended.stdout


@pytest.mark.counts_losses
def test_a_second_checkout_is_refused_and_writes_nothing(
    stack: Stack, tmp_path: Path, figure: Figure
) -> None:
    copy_checkout(tmp_path)
    second = Stack(tmp_path, project=stack.project)
    before = containers(stack)
    with Load(stack, rate=20).running() as report:
        report.wait_for_answers(20)
        for state in (str(tmp_path / "state"), stack.environment["STATE_DIR"]):
            ended = second.run("./scripts/up.sh", check=False, STATE_DIR=state)
            assert ended.returncode == 1
            assert f"another checkout, {stack.root}, owns the project" in ended.stderr
        report.wait_for_answers(20)
    assert report.failures == []
    figure(f"a second checkout: {len(report.failures)} of {report.sent} requests failed")
    assert not (tmp_path / ".env").exists()
    assert not (tmp_path / "secrets").exists()
    assert containers(stack) == before
    assert stack.is_serving()


def test_another_project_name_builds_no_database_beside_the_real_one(stack: Stack) -> None:
    name = f"{PROJECT}-renamed"
    with edited(stack, COMPOSE_PROJECT_NAME=name):
        errors = refused(stack, "./scripts/up.sh", project=name)
    assert f"belongs to the project {stack.project}, whose volumes are here" in errors


def test_a_bundle_of_another_stack_replaces_nothing(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "phrase").write_text("correct horse battery staple\n", encoding="utf-8")
    options = ("--passphrase-file", f"{tmp_path}/phrase", f"{tmp_path}/bundle.asc")
    other = tmp_path / "other"
    other.mkdir()
    copy_checkout(other)
    foreign = Stack(other, project=f"{PROJECT}-foreign")
    foreign.run("cp", "-r", f"{stack.root}/secrets", f"{stack.root}/.env", ".")
    of_another = {
        key: foreign.environment[key]
        for key in ("COMPOSE_PROJECT_NAME", "SLIPWAY_IMAGE", "STATE_DIR")
    }
    file = other / ".env"
    text = environment.with_values(file.read_text(encoding="utf-8"), of_another)
    file.write_text(text, encoding="utf-8")
    (other / "secrets/backup_key").chmod(0o644)
    (other / "secrets/backup_key").write_text("the key of another stack's backups\n")
    foreign.run("./scripts/export-secrets.sh", *options)
    before = (stack.root / "secrets/backup_key").read_bytes()
    errors = refused(stack, "./scripts/export-secrets.sh", "--import", "--overwrite", *options)
    assert "this host has data of its own" in errors
    assert (stack.root / "secrets/backup_key").read_bytes() == before


@pytest.fixture
def moving(stack: Stack, tmp_path: Path) -> Iterator[Callable[[str], Stack]]:
    """Return a separate stack in a folder of this name, with its state outside the folder."""
    ports = free_ports(3)

    def at(name: str) -> Stack:
        made = Stack(tmp_path / name, project=f"{PROJECT}-moving", ports=ports)
        made.environment["STATE_DIR"] = str(tmp_path / "state")
        return made

    (tmp_path / "first").mkdir()
    copy_checkout(tmp_path / "first")
    at("first").remove()
    yield at
    last = next(path for path in (tmp_path / "second", tmp_path / "first") if path.is_dir())
    at(last.name).remove()


def test_a_moved_checkout_is_taken_over_and_restarts_from_its_new_place(
    moving: Callable[[str], Stack], tmp_path: Path
) -> None:
    first = moving("first")
    first.prepare()
    first.run("./scripts/up.sh")
    (tmp_path / "first").rename(tmp_path / "second")
    second = moving("second")
    shown = second.run("./scripts/status.sh", check=False).stdout
    stale = re.search(r"^!! +owner +(.+) mount files of ", shown, re.MULTILINE)
    assert stale, shown
    assert {"api-blue", "worker-blue", "nginx", "postgres"} <= set(stale[1].split(", "))
    taken = second.run("./scripts/up.sh", "--apply", "all").stdout
    assert f"takes the stack over from {tmp_path}/first, which is gone" in taken
    ended = subprocess.run(
        ["docker", "restart", second.container("api-blue")], capture_output=True, check=False
    )
    if ended.returncode != 0:  # it mounts its secrets from the removed directory
        second.run("./scripts/up.sh")
    wait_until(second.is_serving, 60, "the live slot serves again")
    second.deploy()
    shown = second.run("./scripts/status.sh", check=False).stdout
    assert re.search(rf"^ok +owner +{tmp_path}/second", shown, re.MULTILINE)
