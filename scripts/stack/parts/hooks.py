"""Runs the operator's additions: the executables in `hooks/`, and the notification command."""

import os

from stack.commands.command import Command
from stack.config.project import Project
from stack.failure import Failure
from stack.runner import Runner

# A failure of these hooks stops the deploy. The other hooks run too late for that and only warn.
STOPPING = ("pre-build", "pre-migrate", "pre-switch")
HOOK_SECONDS = 300
NOTIFY_SECONDS = 30


def run(runner: Runner, project: Project, name: str, **facts: str) -> None:
    """Run `hooks/NAME` if it exists, with the facts as SLIPWAY_... variables.

    The deploy waits for the hook, but not for processes that the hook leaves in the background.
    """
    file = project.root / "hooks" / name
    if not file.is_file():
        return
    if not os.access(file, os.X_OK):
        runner.say(f"    warning: hooks/{name} was skipped: chmod +x hooks/{name} makes it run")
        return
    result = runner.run(_command([f"hooks/{name}"], facts, HOOK_SECONDS))
    if result.code == 0:
        return
    if name in STOPPING:
        raise Failure(
            f"hooks/{name} exited with {result.code}",
            hints=[f"correct the hook, or have it skipped: chmod -x hooks/{name}"],
            runbook="deploy-failed-before-the-switch",
            evidence=result.out + result.err,
        )
    runner.say(f"    warning: hooks/{name} exited with {result.code}: {result.err.strip()[-200:]}")


def notify(runner: Runner, project: Project, **facts: str) -> None:
    """Run NOTIFY_COMMAND of `.env` with the facts as variables; its failure is only a warning."""
    argv = project.notify_command
    if not argv:
        return
    result = runner.run(_command(list(argv), facts, NOTIFY_SECONDS))
    if result.code != 0:
        runner.say(
            f"    warning: NOTIFY_COMMAND exited with {result.code}: {result.err.strip()[-200:]}"
        )


def _command(argv: list[str], facts: dict[str, str], seconds: float) -> Command:
    env = {f"SLIPWAY_{key.upper()}": value for key, value in facts.items()}
    return Command(argv, env=env, timeout_seconds=seconds, may_fail=True, ends_alone=True)
