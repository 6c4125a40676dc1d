"""The story of `check-config.sh`: the placed release judges its settings, by the code that it starts with.

It does so in a throw-away container with the mounts and the environment that it has when it serves. Nothing is touched.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from stack.commands import engine
from stack.config.environment import RUNBOOK
from stack.config.project import CLEARABLE_SECRETS, OPTIONAL_SECRETS, SECRETS, Project, load
from stack.failure import Failure
from stack.parts import observation
from stack.rules import connections
from stack.runner import Result, Runner

EX_CONFIG = 78  # api/configuring/settings.py
JUDGE_SECONDS = 60  # a start of Python: 0.7 s measured on two shared cores
CRITICAL, WARNING = "critical ", "warning "
MAY_BE_EMPTY = (*CLEARABLE_SECRETS, *OPTIONAL_SECRETS)


def run(runner: Runner, project: Project) -> bool:
    """Print every finding, critical ones first, and return whether none is critical.

    Raises:
        Failure: where no release is placed that could judge.
    """
    slot = observation.live_slot(runner, project)
    if not observation.slot_release(runner, project, slot):
        raise Failure(
            f"no release is in slot {slot}, and only a release knows its settings",
            hints=["./scripts/up.sh builds one, and checks its settings before it starts anything"],
            runbook=RUNBOOK,
        )
    limits = connections.configured(project)
    overdrawn = connections.fault(project, *limits) if limits else ""
    found = [*([CRITICAL + overdrawn] if overdrawn else []), *look(runner, project, slot)]
    critical = [line for line in found if line.startswith(CRITICAL)]
    for line in sorted(found):
        runner.say(line)
    runner.say(f"{len(critical)} critical, {len(found) - len(critical)} to think about")
    runner.say(observation.what_serves(runner, project))
    return not critical


def look(runner: Runner, project: Project, slot: str) -> list[str]:
    """Return the findings of the compose files, the secret files and the settings, one a line."""
    # Without the files no container starts, so that none is asked.
    return _files(runner, project) or _judge(
        slot, lambda argv: runner.read(argv, timeout=JUDGE_SECONDS)
    )


def accept(runner: Runner, project: Project, slot: str) -> str:
    """Have the release in a slot judge its settings before it is started, and return how that ended, with warnings.

    Raises:
        Failure: with the keys that it refuses, and no value.
    """
    # In a dry run of the first start there are no secrets yet.
    found = [] if runner.is_dry else _files(runner, project)
    found = found or _judge(slot, lambda argv: runner.run(argv, check=False))
    critical = [line for line in found if line.startswith(CRITICAL)]
    if critical:
        raise Failure(
            f"the release in slot {slot} refuses {', '.join(keys(critical))}; what runs was not touched",
            hints=[
                "correct the keys named above in .env, or the file in secrets/",
                "./scripts/check-config.sh",
            ],
            runbook=RUNBOOK,
            evidence="\n".join(sorted(found)),
        )
    return "; ".join(["accepted by the release", *map(short, found)])


def keys(lines: list[str]) -> list[str]:
    return [line.split(" ", 1)[1].partition(":")[0] for line in lines]


def short(line: str) -> str:
    """Return a finding without its tier and its fix."""
    return line.split(" ", 1)[1].partition("; ")[0]


def _files(runner: Runner, project: Project) -> list[str]:
    composed = runner.read(engine.compose_argv("config", "--quiet"))
    found = (
        [f"{CRITICAL}compose: {composed.err.strip()}; correct .env"] if composed.code != 0 else []
    )
    for name in (*SECRETS, *OPTIONAL_SECRETS):
        path = project.secrets / name
        if name in MAY_BE_EMPTY:
            fault = "" if path.exists() else "missing; ./scripts/up.sh makes it"
        else:
            is_there = path.exists() and path.read_text(encoding="utf-8").strip()
            fault = "" if is_there else "missing or empty; restore it from your copy of secrets/"
        if fault:
            found.append(f"{CRITICAL}{name.upper()}: {path} is {fault}")
    return found


def _judge(slot: str, ask: Callable[[list[str]], Result]) -> list[str]:
    """Ask in the API's container, which judges for the worker too: a second start would take as long again."""
    service = f"api-{slot}"
    command = ["python", "-m", "api.check_config"]
    done = ask(engine.compose_argv("run", "--rm", "--no-deps", "--no-TTY", service, *command))
    if done.code in {0, EX_CONFIG}:
        return done.out.splitlines()
    if "No module named api.check_config" in done.err:
        return [
            f"{WARNING}{service}: its release is older than this check; it judges its settings when it starts"
        ]
    raise Failure(
        f"{service} could not judge its settings: exit code {done.code}",
        hints=["docker compose config --quiet", "./scripts/status.sh"],
        runbook=RUNBOOK,
        evidence=done.err[-2000:],
    )


COMMAND = "check-config"
HELP = "print what is wrong or unwise in the settings"


def add_arguments(parser: ArgumentParser) -> None:
    """Add nothing: `check-config.sh` takes no arguments."""


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `check-config.sh`."""
    return 0 if run(runner, load(root)) else 1
