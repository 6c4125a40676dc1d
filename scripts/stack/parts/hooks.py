"""Runs what the operator adds to a deploy: executables in `hooks/`, and the notification command."""

import os
import shlex

from stack.config.project import Project
from stack.failure import Failure
from stack.runner import Runner

# A hook of these names stops the deploy when it fails; the others come too late for that, and only warn.
STOPPING = ("pre-build", "pre-migrate", "pre-switch")
HOOK_SECONDS = 300


def run(runner: Runner, project: Project, name: str, **facts: str) -> None:
    """Run `hooks/NAME`, where it is there and executable, with the facts as SLIPWAY_... in its environment."""
    file = project.root / "hooks" / name
    if not os.access(file, os.X_OK) or file.is_dir():
        return
    result = runner.run(
        [f"hooks/{name}"], env=_environment(facts), check=False, timeout=HOOK_SECONDS
    )
    if result.code == 0:
        return
    if name in STOPPING:
        raise Failure(
            f"hooks/{name} exited with {result.code}",
            hints=[f"correct the hook, or make it not executable: chmod -x hooks/{name}"],
            runbook="deploy-failed-before-the-switch",
            evidence=result.out + result.err,
        )
    runner.say(f"    warning: hooks/{name} exited with {result.code}: {result.err.strip()[-200:]}")


def notify(runner: Runner, project: Project, **facts: str) -> None:
    """Run NOTIFY_COMMAND of `.env` with the facts in its environment; its failure is told, and changes nothing."""
    command = project.setting("NOTIFY_COMMAND")
    if not command:
        return
    try:
        argv = shlex.split(command)
    except ValueError as error:
        runner.say(f"    warning: NOTIFY_COMMAND cannot be read: {error}")
        return
    result = runner.run(argv, env=_environment(facts), check=False, timeout=30)
    if result.code != 0:
        runner.say(
            f"    warning: NOTIFY_COMMAND exited with {result.code}: {result.err.strip()[-200:]}"
        )


def _environment(facts: dict[str, str]) -> dict[str, str]:
    return {f"SLIPWAY_{key.upper()}": value for key, value in facts.items()}
