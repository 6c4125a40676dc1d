"""Each step of `deploy.sh` fails once, and the former release stays or becomes live again."""

import errno
import os
from pathlib import Path

import pytest
from stack.config.project import Project
from stack.failure import NEEDS_A_PERSON, ROLLED_BACK
from stack.https import Answer
from stack.parts import edge, ledger
from stack.runner import Result

from tests.scripts.imitation import (
    MIGRATE,
    RENAME,
    START,
    WAIT,
    Host,
    Injection,
    deploy_on,
    fail,
    fail_hook,
    failed_deploy,
    hook,
    release_of,
)


def lose_a_secret(host: Host, project: Project) -> None:
    (project.secrets / "token_key").unlink()


def spoil_nginx(host: Host, project: Project) -> None:
    host.reply(
        "--entrypoint /etc/slipway/current/entrypoint.sh",
        Result(1, err="nginx: [emerg] unknown directive"),
    )


def smoke_badly(host: Host, project: Project) -> None:
    host.reply(
        "127.0.0.1:8084/v1/items", Result(0, "HTTP/1.1 500 .\r\nX-Slipway-Release: r\r\n\r\n{}")
    )


def stop_by_hand(host: Host, project: Project) -> None:
    def interrupt() -> Result:
        raise KeyboardInterrupt("SIGTERM")

    host.reply(START.format("api-green"), interrupt)


def refuse_the_reload(host: Host, project: Project) -> None:
    (project.root / "nginx/conf.d/a.conf").write_text("# changed\n", encoding="utf-8")
    host.reply("entrypoint.sh reload", Result(1, err="the reason"))


def order_badly(host: Host, project: Project) -> None:
    folder = project.root / "api/migrations/versions"
    (folder / "2026_02_01_0000_pre_add.py").rename(folder / "2026_02_01_0000_post_drop.py")
    late = 'revision = "2026_03_01_0000"\ndown_revision = "2026_02_01_0000"\n'
    (folder / "2026_03_01_0000_pre_late.py").write_text(late, encoding="utf-8")
    host.reply('{{index .Config.Labels "slipway.migrations"}}\' slipway/app:src-', Result(0, "\n"))


BEFORE: dict[str, tuple[Injection, str, str]] = {
    "secret": (lose_a_secret, "token_key is missing", "boot-refused-by-the-configuration"),
    "nginx": (spoil_nginx, "nginx refuses", "nginx-refuses-its-configuration"),
    "hook before the build": (
        fail_hook("pre-build"),
        "hooks/pre-build exited with 7",
        "deploy-failed-before-the-switch",
    ),
    "build": (fail("docker build --progress"), "docker build", "deploy-failed-before-the-switch"),
    "hook before migrating": (
        fail_hook("pre-migrate"),
        "exited with 7",
        "deploy-failed-before-the-switch",
    ),
    "order of migrations": (order_badly, "that follows", "migration-failed"),
    "migrate": (fail(MIGRATE), "migrate exited with 1", "migration-failed"),
    "place": (fail("docker tag slipway/app:src-"), "docker tag", "deploy-failed-before-the-switch"),
    "start": (fail(START.format("api-green")), "did not become healthy", "deploy-waits-for-health"),
    "smoke test": (smoke_badly, "answered 500 from release 'r'", "deploy-failed-before-the-switch"),
    "hook before the switch": (
        fail_hook("pre-switch"),
        "exited with 7",
        "deploy-failed-before-the-switch",
    ),
    "reload": (refuse_the_reload, "reload", "deploy-failed-before-the-switch"),
    "by hand": (stop_by_hand, "stopped by SIGTERM", "deploy-failed-before-the-switch"),
}


@pytest.mark.parametrize("step", BEFORE)
@pytest.mark.parametrize("is_warm", [False, True], ids=["idle", "warm"])
def test_a_step_that_fails_before_the_switch_leaves_the_live_slot_and_nothing_of_the_new_release(
    host: Host, project: Project, step: str, *, is_warm: bool
) -> None:
    inject, observed, runbook = BEFORE[step]
    host.running |= {"api-green"} if is_warm else set()
    inject(host, project)
    failed = failed_deploy(host, project)
    assert observed in failed.observation
    assert (failed.code, failed.runbook) == (1, runbook)
    assert host.live == "blue"
    assert host.tags["green"] == "older"
    assert host.tags["blue"] == "old"
    assert {"api-blue", "worker-blue"} <= host.running
    assert "worker-green" not in host.running
    if step in {"start", "smoke test", "hook before the switch", "reload", "by hand"}:
        assert "api-green" not in host.running
        folder = next(hint for hint in failed.hints if hint.startswith("logs and health records: "))
        assert (Path(folder.partition(": ")[2]) / "nginx.log").exists()
    else:
        assert ("api-green" in host.running) == is_warm, "the undo changed whether green runs"
    assert not host.has_run(RENAME.format("green"))
    is_refused = step in {"secret", "nginx"}
    assert ledger.entries(project)[-1]["result"] == ("refused" if is_refused else "failed")
    assert ledger.good_releases(project)[0] == "old"
    told = host.environments[host.position("notify me")]
    assert (told["SLIPWAY_RESULT"], told["SLIPWAY_REASON"]) == ("failed", failed.observation)


def test_a_failed_deploy_runs_the_hook_for_it(host: Host, project: Project) -> None:
    hook(project.root, "failed")
    fail(MIGRATE)(host, project)
    failed_deploy(host, project)
    assert (
        host.environments[host.position("hooks/failed")]["SLIPWAY_REASON"]
        == "migrate exited with 1"
    )


def test_a_migration_that_fails_shows_its_own_words(host: Host, project: Project) -> None:
    host.reply(MIGRATE, Result(1, out="one\n", err="error: blocked by pid 7\n"))
    assert "blocked by pid 7" in failed_deploy(host, project).evidence


def answer_with_another(host: Host, project: Project) -> None:
    host.door = lambda _: Answer(
        200, "{}", {"X-Slipway-Release": "old", "X-Slipway-Slot": "blue"}, host.answer(_).expires
    )


def answer_badly_under_traffic(host: Host, project: Project) -> None:
    host.failing = "green"


def restart_the_counter(host: Host, project: Project) -> None:
    """Restart the counter after the watch's period has begun."""

    def restart() -> Result:
        host.counting.restart()
        return Result(0)

    host.reply("kill --signal SIGTERM worker-blue", restart)


def lose_the_datagrams(host: Host, project: Project) -> None:
    def lose() -> Result:
        host.counting.lost = 1000
        return Result(0)

    host.reply("kill --signal SIGTERM worker-blue", lose)


def break_the_scripts(host: Host, project: Project) -> None:
    """Raise an error that no step expects, after the switch."""

    def fail_unexpectedly() -> Result:
        raise LookupError("unexpected")

    host.reply("kill --signal SIGTERM worker-blue", fail_unexpectedly)


def refuse_the_last_entry(host: Host, project: Project) -> None:
    """Refuse the ledger's last entry, as a full disk does."""
    append = host.append

    def append_or_fail(path: Path, line: str) -> None:
        if '"result": "done"' in line:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        append(path, line)

    host.append = append_or_fail  # type: ignore[method-assign]


AFTER: dict[str, tuple[Injection, str]] = {
    "front door": (answer_with_another, "the front door does not answer with release src-"),
    "worker": (fail(WAIT.format("worker-green")), "worker-green did not become healthy"),
    "watch": (answer_badly_under_traffic, "99% of 91 requests failed, 0% before"),
    "counter restarts": (restart_the_counter, "cannot watch: the counter gives no counts"),
    "datagrams are lost": (lose_the_datagrams, "cannot watch: 1000 of "),
    "fault of these scripts": (break_the_scripts, "a fault of these scripts: LookupError"),
    "end of the disk": (refuse_the_last_entry, "No space left on device: "),
}


@pytest.mark.parametrize("step", AFTER)
def test_a_step_that_fails_after_the_switch_goes_back_to_the_slot_before(
    host: Host, project: Project, step: str
) -> None:
    inject, observed = AFTER[step]
    inject(host, project)
    failed = failed_deploy(host, project)
    assert observed in failed.observation
    assert (
        failed.code,
        step in {"worker", "end of the disk"} or failed.runbook == "deploy-failed-after-the-switch",
    ) == (ROLLED_BACK, True)
    assert host.live == "blue"
    assert {"api-blue", "worker-blue"} <= host.running
    assert not {"api-green", "worker-green"} & host.running
    assert host.tags["green"] == "older"
    switches = [change for change in host.changes() if change.startswith("switch")]
    assert switches == ["switch green", "switch blue"]
    assert host.changes().index("switch blue") < host.changes().index("stop api-green worker-green")
    entry = ledger.entries(project)[-1]
    assert (entry["to"], entry["result"]) == (release_of(host), "rolled back")
    assert ledger.good_releases(project)[0] == "old"
    assert host.environments[host.position("notify me")]["SLIPWAY_RESULT"] == "rolled back"


def test_a_worker_that_did_not_get_its_signal_is_stopped(host: Host, project: Project) -> None:
    fail("kill --signal SIGTERM worker-blue")(host, project)
    deploy_on(host, project)
    assert host.changes()[-1] == "stop worker-blue"


def test_a_hook_after_the_switch_only_warns(host: Host, project: Project) -> None:
    fail_hook("post-switch")(host, project)
    deploy_on(host, project)
    assert host.live == "green"
    assert "warning: hooks/post-switch exited with 7" in "\n".join(host.said)


def test_an_undo_that_fails_too_needs_a_person(host: Host, project: Project) -> None:
    answer_badly_under_traffic(host, project)
    fail(RENAME.format("blue"))(host, project)
    failed = failed_deploy(host, project)
    assert failed.code == NEEDS_A_PERSON
    assert any(hint.startswith("undo failed too: ") for hint in failed.hints)
    assert host.live == "green"
    assert {"api-green", "worker-green"} <= host.running, "the undo stopped the slot that serves"
    assert ledger.entries(project)[-1]["result"] != "done"


@pytest.mark.parametrize(
    "command", ["docker compose rm --stop", "docker tag slipway/app:older", "notify me"]
)
def test_an_undo_that_fails_before_the_switch_is_a_hint(
    host: Host, project: Project, command: str
) -> None:
    smoke_badly(host, project)
    fail(command)(host, project)
    failed = failed_deploy(host, project)
    assert (failed.code, host.live) == (1, "blue")
    is_hint = any(hint.startswith("undo (") for hint in failed.hints)
    assert is_hint == (command != "notify me"), "a failed undo, but no notification, makes a hint"


def test_going_back_that_failed_is_not_recorded_as_rolled_back(
    host: Host, project: Project
) -> None:
    answer_badly_under_traffic(host, project)
    fail(RENAME.format("blue"))(host, project)
    failed_deploy(host, project)
    assert ledger.entries(project)[-1]["result"] != "rolled back"


def test_the_way_back_comes_before_the_evidence(host: Host, project: Project) -> None:
    answer_badly_under_traffic(host, project)
    seen: list[str] = []

    def look() -> Result:
        seen.append(host.live)
        return Result(0)

    host.reply("docker compose logs --no-color --tail 500", look)
    failed_deploy(host, project)
    assert set(seen) == {"blue"}


@pytest.mark.parametrize(
    "command", ["docker compose stop api-green", "docker tag slipway/app:older"]
)
def test_tidying_up_that_fails_does_not_hide_that_it_went_back(
    host: Host, project: Project, command: str
) -> None:
    answer_badly_under_traffic(host, project)
    fail(command)(host, project)
    assert failed_deploy(host, project).code == ROLLED_BACK
    assert host.live == "blue"


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("write", "append", "make_directory"):
        monkeypatch.setattr(Host, name, write)


def test_a_disk_that_fills_up_does_not_keep_a_bad_release_live(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_badly_under_traffic(host, project)

    def fill() -> Result:
        fill_the_disk(monkeypatch)
        return Result(0)

    host.reply("kill --signal SIGTERM worker-blue", fill)
    assert failed_deploy(host, project).code == ROLLED_BACK
    assert host.live == "blue"


def test_a_disk_that_fills_up_before_the_switch_leaves_nothing_of_the_new_release(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill() -> Result:
        fill_the_disk(monkeypatch)
        return Result(1)

    host.reply(START.format("api-green"), fill)
    assert failed_deploy(host, project).runbook == "deploy-waits-for-health"
    assert "api-green" not in host.running
    assert host.tags["green"] == "older"


def test_what_fails_when_the_new_release_is_live_does_not_say_that_nothing_was_switched(
    host: Host, project: Project
) -> None:
    def lose_the_link() -> Result:
        host.reply("readlink", Result(1, err="gone"))
        return Result(0)

    host.reply("docker volume inspect", Result(0))
    host.reply("--volume slipway_slots", Result(1, err="gone"))
    host.reply("kill --signal SIGTERM worker-blue", lose_the_link)
    failed = failed_deploy(host, project)
    assert (failed.code, host.live) in {(ROLLED_BACK, "blue"), (NEEDS_A_PERSON, "green")}


def test_a_deploy_of_the_release_that_is_warm_leaves_it_warm_where_it_fails_before_the_start(
    host: Host, project: Project
) -> None:
    host.tags["9"] = "older"
    host.running.add("api-green")
    fail_hook("pre-migrate")(host, project)
    failed_deploy(host, project, image="slipway/app:9")
    assert "api-green" in host.running


def test_a_refusal_before_any_effect_changes_no_image_and_no_slot(
    host: Host, project: Project
) -> None:
    lose_a_secret(host, project)
    failed_deploy(host, project)
    assert [command for command in host.ran if command.startswith("docker")] == []


def test_a_release_that_is_rolled_back_takes_its_nginx_configuration_with_it(
    host: Host, project: Project
) -> None:
    installed = edge.installed_name(project)
    (project.root / "nginx/conf.d/a.conf").write_text("# changed\n", encoding="utf-8")
    answer_badly_under_traffic(host, project)
    assert failed_deploy(host, project).code == ROLLED_BACK
    assert edge.installed_name(project) == installed
    reloads = [at for at, run in enumerate(host.ran) if run.endswith("entrypoint.sh reload")]
    assert len(reloads) == 2
    # A configuration that breaks the front door would also fail the check of the switch back.
    assert reloads[1] < host.position(RENAME.format("blue"))
