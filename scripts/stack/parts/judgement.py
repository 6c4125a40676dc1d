"""Lets a release check its settings with the code that also runs at its start; changes nothing.

The check runs in a throw-away container with the mounts and the environment of the service.
"""

from collections.abc import Callable

from stack.commands import engine
from stack.commands.command import Command
from stack.config.environment import RUNBOOK
from stack.config.project import CLEARABLE_SECRETS, OPTIONAL_SECRETS, SECRETS, Project
from stack.failure import Failure
from stack.runner import Result, Runner

EX_CONFIG = 78  # api/configuring/settings.py
JUDGE_SECONDS = 60  # a start of Python: 0.7 s measured on two shared cores
CRITICAL, WARNING = "critical ", "warning "
MAY_BE_EMPTY = (*CLEARABLE_SECRETS, *OPTIONAL_SECRETS)


def list_findings(runner: Runner, project: Project, slot: str) -> list[str]:
    """Return the findings on compose files, secret files and settings, one per line."""
    # Without these files no container starts, so the release cannot check anything.
    return _check_files(runner, project) or _judge(slot, runner.read, JUDGE_SECONDS)


def accept_settings(runner: Runner, project: Project, slot: str) -> str:
    """Check the settings with the release in a slot before its start; return the warnings.

    Raises:
        Failure: with the keys that it refuses, and no value.
    """
    # In a dry run of the first start there are no secrets.
    findings = [] if runner.is_dry else _check_files(runner, project)
    findings = findings or _judge(slot, runner.run)
    critical = [line for line in findings if line.startswith(CRITICAL)]
    if critical:
        keys = ", ".join(_key(line) for line in critical)
        raise Failure(
            f"the release in slot {slot} refuses {keys}; no service was touched",
            hints=[
                "correct the keys named above in .env, or the file in secrets/",
                "./scripts/check-config.sh",
            ],
            runbook=RUNBOOK,
            evidence="\n".join(sorted(findings)),
        )
    return "; ".join(["accepted by the release", *map(shorten, findings)])


def _key(line: str) -> str:
    return line.split(" ", 1)[1].partition(":")[0]


def shorten(line: str) -> str:
    """Return a finding without its tier and its fix."""
    return line.split(" ", 1)[1].partition("; ")[0]


def _check_files(runner: Runner, project: Project) -> list[str]:
    composed = runner.read(engine.compose("config", "--quiet"))
    findings = []
    if composed.code != 0:
        findings.append(f"{CRITICAL}compose: {composed.err.strip()}; correct .env")
    for name in (*SECRETS, *OPTIONAL_SECRETS):
        path = project.secrets / name
        if name in MAY_BE_EMPTY:
            fault = "" if path.exists() else "missing; ./scripts/up.sh creates it"
        else:
            has_content = path.exists() and path.read_text(encoding="utf-8").strip()
            fault = "" if has_content else "missing or empty; restore it from your copy of secrets/"
        if fault:
            findings.append(f"{CRITICAL}{name.upper()}: {path} is {fault}")
    return findings


def _judge(
    slot: str, ask: Callable[[Command], Result], timeout_seconds: float | None = None
) -> list[str]:
    """Run the check in the API's container, for the worker too.

    A second container would double the time.
    """
    service = f"api-{slot}"
    words = ["python", "-m", "api.check_config"]
    result = ask(engine.one_shot(service, *words, may_fail=True, timeout_seconds=timeout_seconds))
    if result.code in {0, EX_CONFIG}:
        return result.out.splitlines()
    if "No module named api.check_config" in result.err:
        return [
            f"{WARNING}{service}: its release is older than this check; "
            "it checks its settings when it starts"
        ]
    raise Failure(
        f"{service} could not check its settings: exit code {result.code}",
        hints=["docker compose config --quiet", "./scripts/status.sh"],
        runbook=RUNBOOK,
        evidence=result.err[-2000:],
    )
