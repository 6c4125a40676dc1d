"""Tests `deploy.sh`: order, records, and the same commands in a dry run and in a run by hand."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from stack.config.project import Project, load
from stack.parts import deployments, ledger, slot_files
from stack.runner import Result
from stack.stories import plan, retire, rollback, up

from tests.scripts.conftest import ROOT
from tests.scripts.imitation import (
    HEAD,
    MIGRATE,
    RENAME,
    Host,
    deploy_on,
    failed_deploy,
    failure_of,
    hook,
    release_of,
    set_values,
)

STUB = """#!/usr/bin/env python3
import os, shlex, sys
with open({log!r}, "a") as log:
    names = ("MIGRATE_TAG", "MIGRATE_CONFIRM")
    values = [os.environ.get(name, "") for name in names]
    print(shlex.join(["docker", *sys.argv[1:]]), *values, sep="\\t", file=log)
"""


def test_a_deploy_goes_from_the_preflight_to_the_retention(host: Host, project: Project) -> None:
    deploy_on(host, project)
    release = release_of(host)
    assert host.steps() == [
        "preflight",
        "image",
        "settings",
        "migrate",
        "start",
        "smoke test",
        "switch",
        "workers",
        "watch",
        "retention",
    ]
    assert host.changes() == [
        f"place {release} in green",
        "run api-green",
        "run",
        "up api-green",
        "switch green",
        "up worker-green",
        "kill worker-blue",
    ]
    assert (
        host.said[-1]
        == f"live: release {release} in slot green, answering at https://localhost:8443"
    )
    assert {"api-green", "worker-green", "api-blue"} <= host.running


def test_the_old_slot_stays_warm_and_is_retired_by_a_process_that_outlives_the_deploy(
    host: Host, project: Project
) -> None:
    deploy_on(host, project)
    entries = len(ledger.entries(project))
    started = host.ran[host.position("-m stack retire")]
    assert started.endswith(f"-m stack retire blue old --after 600 --entry {entries}")
    assert not any(change.startswith(("stop", "rm")) for change in host.changes())


def test_the_ledger_and_the_settings_of_the_release_are_written_before_anything_is_removed(
    host: Host, project: Project
) -> None:
    deploy_on(host, project)
    begun, done = ledger.entries(project)[-2:]
    release = release_of(host)
    assert (begun["from"], begun["to"], begun["result"]) == ("old", release, "begun")
    assert (done["from"], done["to"], done["slot"], done["result"]) == (
        "old",
        release,
        "green",
        "done",
    )
    assert done["migration_head"] == HEAD
    assert set(done["seconds"]) >= {"preflight", "image", "start", "switch", "watch"}
    assert (begun["deployment"], done["deployment"]) == (3, 3)
    snapshot = deployments.snapshot_of(project, 3)
    assert slot_files.settings_in(slot_files.read(snapshot)) == project.service_settings
    assert snapshot.stat().st_mode & 0o777 == 0o600


def test_without_a_pending_pre_migration_none_is_run(host: Host, project: Project) -> None:
    host.head = "2026_02_01_0000"
    deploy_on(host, project)
    assert not host.has_run(MIGRATE)


def test_only_the_pre_phase_runs_before_the_switch(host: Host, project: Project) -> None:
    deploy_on(host, project)
    place = host.position(MIGRATE)
    assert host.ran[place].endswith("migrate python -m api.migrate --phase pre")
    assert host.environments[place] == {"MIGRATE_TAG": release_of(host), "MIGRATE_CONFIRM": "yes"}


def test_an_image_is_deployed_as_the_release_that_its_label_names(
    host: Host, project: Project
) -> None:
    host.tags["9"] = "r-9"
    host.reply("docker image inspect --format '{{.Id}}' registry/app:9", Result(1))
    deploy_on(host, project, image="registry/app:9")
    assert host.position("docker pull --quiet registry/app:9") < host.position(
        "docker tag registry/app:9"
    )
    assert not host.has_run("docker build --progress")
    assert host.tags["green"] == "r-9"


def test_an_image_without_a_release_is_refused(host: Host, project: Project) -> None:
    host.reply("registry/app:9", Result(0, "\n"))
    failed = failed_deploy(host, project, image="registry/app:9")
    assert "names no release" in failed.observation
    assert host.live == "blue"


def test_the_plan_of_an_image_is_not_that_of_the_checkout(host: Host, project: Project) -> None:
    host.tags["9"] = "r-9"
    plan.run(host, project, "registry/app:9")
    assert host.said[0] == "release        old -> r-9, in slot green"
    assert "image          here; its registry is asked for a newer one" in host.said
    host.said.clear()
    host.reply("registry/app:8", Result(1))
    plan.run(host, project, "registry/app:8")
    assert host.said[0] == "release        old -> that of registry/app:8, in slot green"
    assert "image          to be pulled" in host.said
    assert (host.ran, host.written) == ([], [])


def test_hooks_and_the_notification_are_told_the_facts_in_their_order(
    host: Host, project: Project
) -> None:
    names = ["pre-build", "pre-migrate", "pre-switch", "post-switch", "post-deploy", "failed"]
    for name in names:
        hook(project.root, name)
    deploy_on(host, project)
    assert [c for c in host.ran if c.startswith("hooks/")] == [
        f"hooks/{name}" for name in names[:-1]
    ]
    assert host.position("hooks/pre-migrate") < host.position(MIGRATE)
    assert (
        host.position("hooks/pre-switch")
        < host.position(RENAME.format("green"))
        < host.position("hooks/post-switch")
    )
    told = host.environments[host.position("notify me")]
    assert told["SLIPWAY_RESULT"] == "done"
    assert (told["SLIPWAY_FROM"], told["SLIPWAY_TO"], told["SLIPWAY_SLOT"]) == (
        "old",
        release_of(host),
        "green",
    )
    assert told["SLIPWAY_URL"] == "https://localhost:8443"


def test_a_changed_nginx_configuration_is_installed_and_reloaded_before_the_switch(
    host: Host, project: Project
) -> None:
    (project.root / "nginx/conf.d/a.conf").write_text("# changed\n", encoding="utf-8")
    deploy_on(host, project)
    renamed = host.position(f"{project.nginx_folder}/next {project.nginx_folder}/current")
    assert renamed < host.position("entrypoint.sh reload") < host.position(RENAME.format("green"))


def test_where_nothing_changed_nginx_is_not_reloaded(host: Host, project: Project) -> None:
    deploy_on(host, project)
    assert not host.has_run("reload")


def test_where_nothing_stands_it_brings_everything_up_first(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.running.clear()
    came: list[Path] = []

    def bring_up(_: Host, root: Path) -> None:
        came.append(root)
        host.running |= {"nginx", "postgres", "redis", "api-blue", "worker-blue"}

    monkeypatch.setattr(up, "run", bring_up)
    deploy_on(host, project)
    assert came == [project.root]
    assert host.live == "green"


def test_a_first_deploy_is_the_bringing_up_alone(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.running.clear()
    host.tags.clear()
    monkeypatch.setattr(up, "run", lambda *_: None)
    deploy_on(host, project)
    assert host.ran == []


def test_where_compose_refuses_env_nothing_is_brought_up(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an empty REDIS_IMAGE, up.sh would choose again, and replace Redis by another kind."""
    set_values(project.root, REDIS_IMAGE="")
    monkeypatch.setattr(up, "run", lambda *_: pytest.fail("up.sh ran"))
    host.reply("ps --all --format json", Result(1, err="set REDIS_IMAGE in .env"))
    assert "set REDIS_IMAGE in .env" in failed_deploy(host, project).evidence
    assert host.ran == []


def test_a_stack_whose_idle_slot_lost_its_image_is_no_first_start(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docker image prune --all` removes the image of a slot that has no container."""
    monkeypatch.setattr(up, "run", lambda *_: pytest.fail("up.sh ran"))
    host.live, host.running = "green", (host.running - {"api-blue"}) | {"api-green"}
    del host.tags["blue"]
    deploy_on(host, project)
    assert host.live == "blue"


def test_where_the_engine_is_stopped_up_starts_it_and_the_deploy_goes_on(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Result(1, err="Cannot connect to the Docker daemon at unix:///var/run/docker.sock")
    replies = list(host.replies)
    host.reply("docker", stopped)
    monkeypatch.setattr(up, "run", lambda *_: setattr(host, "replies", replies))
    deploy_on(host, project)
    assert host.live == "green"


@pytest.mark.parametrize("command", ["deploy", "rollback"])
def test_what_runs_the_checkout_itself_has_no_deploy_and_no_rollback(
    command: str, host: Host, project: Project
) -> None:
    set_values(project.root, COMPOSE_FILE="compose.yaml:compose.dev.yaml")
    run = {
        "deploy": lambda: deploy_on(host, project),
        "rollback": lambda: rollback.run(host, project.root, "", 0),
    }
    failed = failure_of(run[command])
    assert "compose.dev.yaml" in failed.observation
    assert (failed.code, host.ran, host.written) == (1, [], [])


def test_a_dry_run_tells_the_same_commands_and_changes_nothing(
    checkout: Path, project: Project
) -> None:
    dry, real = Host(is_dry=True), Host()
    files = {
        path: path.read_bytes()
        for path in [*checkout.rglob("*"), *project.state.rglob("*")]
        if path.is_file()
    }
    deploy_on(dry, project)
    assert files == {
        path: path.read_bytes()
        for path in [*checkout.rglob("*"), *project.state.rglob("*")]
        if path.is_file()
    }
    assert (dry.live, dry.tags["green"]) == ("blue", "older")
    deploy_on(real, project)
    assert dry.changes() == real.changes()


def transcript(block: str, cwd: Path, folder: Path) -> list[tuple[str, str, str]]:
    """Run a shell block; return its `docker` commands, each with the two variables of migrate."""
    log, stub = folder / "log", folder / "docker"
    stub.write_text(STUB.format(log=str(log)), encoding="utf-8")
    stub.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], cwd=cwd, env=environment, check=True, timeout=30
    )
    lines = [tuple(line.split("\t")) for line in log.read_text(encoding="utf-8").splitlines()]
    return [(without_build_secrets(c), tag, confirm) for c, tag, confirm in lines]


def without_build_secrets(command: str) -> str:
    """Return a command without the host's files, the time, and values known only to the scripts.

    Those values are the hash of the sources, and the copy from which `deploy.sh` builds.
    """
    words = shlex.split(command)
    kept = [
        "." if before == "production" else w
        for before, w in zip(["", *words], words, strict=False)
        if not {"--secret", "--label"} & {before, w}
    ]
    return re.sub(r"BUILD_TIME=\S+?(?='|\s|$)", "BUILD_TIME=", shlex.join(kept))


def by_hand(host: Host) -> list[tuple[str, str, str]]:
    """Return the engine commands of a story in the format of `transcript`."""
    pairs = zip(host.ran, host.environments, strict=True)
    kept = [
        (c, e)
        for c, e in pairs
        if c.startswith(("docker compose", "docker tag", "docker build --progress"))
    ]
    return [
        (without_build_secrets(c), e.get("MIGRATE_TAG", ""), e.get("MIGRATE_CONFIRM", ""))
        for c, e in kept
    ]


@pytest.mark.parametrize("is_dry", [False, True], ids=["real", "dry"])
def test_the_runbook_deploys_by_hand_with_the_commands_of_the_story(
    project: Project, tmp_path: Path, *, is_dry: bool
) -> None:
    git = [
        "git",
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@example.com",
        "-C",
        str(project.root),
    ]
    for arguments in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["commit", "--quiet", "--message", "first"],
    ):
        subprocess.run([*git, *arguments], check=True, timeout=30)
    host = Host(is_dry=is_dry)
    deploy_on(host, project)
    expected = by_hand(host)
    last = Host(live="green", head="2026_02_01_0000", running={"api-blue", "worker-blue"})
    last.labels["older"] = f"{HEAD}:pre,2026_02_01_0000:pre,2026_03_01_0000:post"
    entry = len(ledger.entries(project))
    retire.run(last, load(project.root), "blue", "old", after_seconds=0, entry=entry)
    expected += by_hand(last)
    text = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    entry_text = text.partition("\n## Deploy by hand\n")[2].partition("\n## ")[0]
    mitigation = entry_text.partition("### Mitigation")[2].partition("### ")[0]
    block = "\n".join(re.findall(r"^```sh\n(.*?)^```", mitigation, re.MULTILINE | re.DOTALL))
    written = [line for line in transcript(block, project.root, tmp_path) if "curl" not in line[0]]
    assert written == expected
    placed = slot_files.of_slot(project, "green")
    assert (slot_files.number_of(placed), placed["LOG_LEVEL"]) == (0, "INFO"), "no number of blue"


def test_a_post_migration_that_nobody_waits_for_any_more_comes_before_the_new_pre_one(
    host: Host, project: Project
) -> None:
    """A reboot ends the process that waits for the end of the rollback window."""
    dropped = "2026_01_15_0000"
    versions = project.root / "api/migrations/versions"
    post = f'revision = "{dropped}"\ndown_revision = "{HEAD}"\n'
    (versions / f"{dropped}_post_drop.py").write_text(post, encoding="utf-8")
    added = versions / "2026_02_01_0000_pre_add.py"
    added.write_text(added.read_text(encoding="utf-8").replace(HEAD, dropped), encoding="utf-8")
    host.labels["old"] = f"{HEAD}:pre,{dropped}:post"

    def contract() -> Result:
        host.head = dropped
        return Result(0, f"migrated: {HEAD} -> {dropped}\n")

    host.reply(f"docker compose {MIGRATE}", contract)
    deploy_on(host, project)
    tags = [given["MIGRATE_TAG"] for given in host.environments if "MIGRATE_TAG" in given]
    assert tags == ["blue", release_of(host)]
