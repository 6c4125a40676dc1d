"""Hooks before the switch stop a deploy; the other hooks and the notification only warn."""

import re
import time
from pathlib import Path

import pytest
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import hooks
from stack.runner import RealRunner, Result

from tests.scripts.imitation import hook
from tests.scripts.recording import RecordingRunner

FACTS = {"from": "a", "to": "b"}


def with_command(project: Project, command: str) -> Project:
    return Project(project.root, {**project.values, "NOTIFY_COMMAND": command})


def test_without_a_hook_nothing_runs(runner: RecordingRunner, loaded: Project) -> None:
    hooks.run(runner, loaded, "pre-build", **FACTS)
    assert runner.ran == []


def test_a_file_that_is_not_executable_and_a_folder_are_no_hook(
    runner: RecordingRunner, loaded: Project
) -> None:
    hook(loaded.root, "pre-build")
    (loaded.root / "hooks/pre-build").chmod(0o644)
    (loaded.root / "hooks/pre-switch").mkdir()
    for name in ("pre-build", "pre-switch"):
        hooks.run(runner, loaded, name, **FACTS)
    assert runner.ran == []
    assert runner.said == [
        "    warning: hooks/pre-build was skipped: chmod +x hooks/pre-build makes it run"
    ]


@pytest.mark.parametrize("name", ["pre-switch", "post-switch"])
def test_a_hook_that_cannot_be_started_is_a_failed_hook(
    loaded: Project,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    hook(loaded.root, name)
    (loaded.root / "hooks" / name).write_text("echo hi\n", encoding="utf-8")
    monkeypatch.chdir(loaded.root)
    if name in hooks.STOPPING:
        with pytest.raises(Failure, match="exited with 126") as raised:
            hooks.run(RealRunner(), loaded, name, **FACTS)
        assert "#!/bin/sh" in raised.value.evidence
    else:
        hooks.run(RealRunner(), loaded, name, **FACTS)
        assert "warning: hooks/post-switch exited with 126" in capfd.readouterr().out


def test_what_a_hook_leaves_in_the_background_is_not_waited_for(
    loaded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook(loaded.root, "pre-switch")
    text = "#!/bin/sh\nsleep 20 &\n"
    (loaded.root / "hooks/pre-switch").write_text(text, encoding="utf-8")
    monkeypatch.chdir(loaded.root)
    started = time.monotonic()
    hooks.run(RealRunner(), loaded, "pre-switch", **FACTS)
    assert time.monotonic() - started < 15


def test_a_hook_gets_the_facts_in_its_environment(
    loaded: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hook(loaded.root, "post-deploy")
    seen = loaded.root / "seen"
    script = f'#!/bin/sh\nprintf "%s %s" "$SLIPWAY_FROM" "$SLIPWAY_TO" >{seen}\n'
    (loaded.root / "hooks/post-deploy").write_text(script, encoding="utf-8")
    monkeypatch.chdir(loaded.root)
    hooks.run(RealRunner(), loaded, "post-deploy", **FACTS)
    assert seen.read_text(encoding="utf-8") == "a b"
    assert "$ SLIPWAY_FROM=a SLIPWAY_TO=b hooks/post-deploy\n" in capfd.readouterr().out


@pytest.mark.parametrize("name", hooks.STOPPING)
def test_a_hook_before_the_switch_stops_the_deploy_with_its_own_words(
    runner: RecordingRunner, loaded: Project, name: str
) -> None:
    hook(loaded.root, name)
    runner.reply(f"hooks/{name}", Result(7, out="one\n", err="two\n"))
    with pytest.raises(Failure) as raised:
        hooks.run(runner, loaded, name, **FACTS)
    failed = raised.value
    assert failed.observation == f"hooks/{name} exited with 7"
    assert (failed.evidence, failed.code, failed.runbook) == (
        "one\ntwo\n",
        1,
        "deploy-failed-before-the-switch",
    )
    assert failed.hints == [f"correct the hook, or have it skipped: chmod -x hooks/{name}"]


@pytest.mark.parametrize("name", ["post-switch", "post-deploy", "failed"])
def test_a_hook_that_comes_too_late_to_stop_anything_only_warns(
    runner: RecordingRunner, loaded: Project, name: str
) -> None:
    hook(loaded.root, name)
    runner.reply(f"hooks/{name}", Result(7, err="the reason\n"))
    hooks.run(runner, loaded, name, **FACTS)
    assert runner.said == [f"    warning: hooks/{name} exited with 7: the reason"]


def test_a_hook_that_hangs_is_stopped(loaded: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    hook(loaded.root, "pre-build")
    (loaded.root / "hooks/pre-build").write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    monkeypatch.setattr(hooks, "HOOK_SECONDS", 0.2)
    monkeypatch.chdir(loaded.root)
    with pytest.raises(Failure, match="hooks/pre-build exited with 124"):
        hooks.run(RealRunner(), loaded, "pre-build", **FACTS)


def test_without_a_command_nobody_is_notified(runner: RecordingRunner, loaded: Project) -> None:
    hooks.notify(runner, loaded, **FACTS, result="done")
    assert runner.ran == []


def test_the_command_may_have_arguments(runner: RecordingRunner, loaded: Project) -> None:
    hooks.notify(runner, with_command(loaded, "notify 'to me'"), **FACTS, result="done")
    assert runner.ran == ["notify 'to me'"]
    assert runner.environments == [
        {"SLIPWAY_FROM": "a", "SLIPWAY_TO": "b", "SLIPWAY_RESULT": "done"}
    ]


def test_a_notification_that_fails_only_warns(runner: RecordingRunner, loaded: Project) -> None:
    runner.reply("notify", Result(127, err="notify is not installed"))
    hooks.notify(runner, with_command(loaded, "notify"), **FACTS, result="done")
    assert runner.said == ["    warning: NOTIFY_COMMAND exited with 127: notify is not installed"]


def test_every_hook_that_a_story_runs_is_documented() -> None:
    root = Path(__file__).parents[3]
    story = (root / "scripts/stack/stories/deploy.py").read_text(encoding="utf-8")
    names = set(re.findall(r'hooks\.run\([^"]*"([a-z-]+)"', story))
    assert {*hooks.STOPPING, "failed"} <= names
    page = (root / "docs/operating.md").read_text(encoding="utf-8")
    assert {name for name in names if f"`{name}`" not in page} == set()
