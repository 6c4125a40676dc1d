"""Tests `up.sh`, `status.sh` and a plain `docker compose up` on a running stack."""

import json
import time

import pytest

from tests.conftest import Figure
from tests.stack.harness import PROJECT, Stack

pytestmark = pytest.mark.stack


def containers(stack: Stack) -> dict[str, str]:
    """Return each container's id and start time, which stay the same without a change."""
    listing = stack.run(
        "docker", "ps", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}"
    ).stdout
    form = "{{.Name}} {{.Id}} {{.State.StartedAt}}"
    lines = stack.run("docker", "inspect", "--format", form, *listing.split()).stdout.splitlines()
    return dict(line.split(" ", 1) for line in lines)


def files(stack: Stack) -> dict[str, bytes]:
    """Return the files that up.sh wrote (`.env`, secrets, ledger), without the attempts' logs."""
    paths = [
        stack.root / ".env",
        *(stack.root / "secrets").rglob("*"),
        *(stack.root / "state").rglob("*"),
    ]
    return {
        str(path): path.read_bytes()
        for path in paths
        if path.is_file() and path.parent.name != "attempts"
    }


def test_up_again_is_quick_and_changes_nothing(stack: Stack, figure: Figure) -> None:
    stack.run("./scripts/up.sh")  # records the release that another test left live
    before = containers(stack), files(stack)
    started = time.monotonic()
    done = stack.run("./scripts/up.sh")
    seconds = time.monotonic() - started
    assert (containers(stack), files(stack)) == before
    assert done.stdout.rstrip().splitlines()[-1].startswith("live: release ")
    figure(f"up.sh again: {seconds:.1f} s")
    # Twelve times the measured 3 s: enough for a busy machine, too short for a second build.
    assert seconds < 40


def test_a_dry_run_says_the_commands_and_changes_nothing(stack: Stack) -> None:
    before = containers(stack), files(stack)
    done = stack.run("./scripts/up.sh", "--dry-run")
    assert "would run: docker compose run --rm --no-deps --no-TTY api-blue" in done.stdout
    assert "compose up" not in done.stdout, "every service runs, so none is started"
    assert (containers(stack), files(stack)) == before


def test_a_plain_compose_up_changes_nothing(stack: Stack) -> None:
    before = containers(stack)
    stack.compose("up", "--detach")
    assert containers(stack) == before


def test_the_production_file_publishes_80_and_443_and_forces_production(stack: Stack) -> None:
    files_ = "compose.yaml:compose.prod.yaml"
    argv = ["docker", "compose", "--profile", "*", "config", "--format", "json"]
    merged = json.loads(stack.run(*argv, COMPOSE_FILE=files_).stdout)
    ports = {(port["host_ip"], port["published"]) for port in merged["services"]["nginx"]["ports"]}
    assert ports == {("0.0.0.0", "80"), ("0.0.0.0", "443")}
    environments = {
        name: s.get("environment", {}).get("ENVIRONMENT") for name, s in merged["services"].items()
    }
    assert {environments[name] for name in ("api-blue", "api-green", "worker-blue", "migrate")} == {
        "production"
    }


def test_status_is_one_screen_and_says_that_all_is_well(stack: Stack) -> None:
    done = stack.run("./scripts/status.sh")
    lines = done.stdout.splitlines()
    # Without the two rows of the idle slot, which go with it.
    assert len([line for line in lines if "-green " not in line]) <= 24
    named = {line.split()[1] for line in lines if line.startswith("ok ")}
    assert {
        "live",
        "api-blue",
        "worker-blue",
        "nginx",
        "postgres",
        "redis",
        "migrations",
        "queue",
    } <= named
    assert {"certificate"} <= named
    assert not [line for line in lines if line.startswith("!!") and "disk" not in line]


def test_status_says_what_is_wrong_and_exits_with_1(stack: Stack) -> None:
    stack.compose("stop", "worker-blue")
    try:
        done = stack.run("./scripts/status.sh", check=False)
    finally:
        stack.compose("start", "worker-blue")
    assert done.returncode == 1
    assert [
        line for line in done.stdout.splitlines() if line.startswith("!!") and "worker-blue" in line
    ]


def test_the_tests_stack_stands_beside_another_one(stack: Stack) -> None:
    """Nothing of this stack has the default project's name, so that both can run at once."""
    for service in ("nginx", "api-blue", "postgres"):
        facts = stack.inspect(service)
        assert facts["Name"].startswith(f"/{PROJECT}-")
        names = [mount["Name"] for mount in facts["Mounts"] if mount["Type"] == "volume"]
        assert names
        assert all(name.startswith(f"{PROJECT}_") for name in names)
