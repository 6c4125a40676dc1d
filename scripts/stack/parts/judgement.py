"""A release checks its settings with the code that it starts with; changes nothing.

The release judges in a throw-away container, with the mounts and the environment of its service.
"""

from collections.abc import Callable

from stack.commands import engine
from stack.commands.command import Command
from stack.config import secret_files
from stack.config.environment import RUNBOOK
from stack.config.project import OPTIONAL_SECRETS, SECRETS, Project
from stack.failure import Failure
from stack.parts import fingerprints, logins
from stack.runner import Result, Runner

EX_CONFIG = 78  # api/configuring/settings.py
JUDGE_SECONDS = 60  # a start of Python: 0.7 s measured on two shared cores
CRITICAL, WARNING = "critical ", "warning "


def list_findings(runner: Runner, project: Project, slot: str) -> list[str]:
    """Return the findings of the compose files, the secret files and the settings, one a line."""
    # No container starts without the files, so that there the release is not asked.
    return _check_files(runner, project) or [
        *_check_logins(runner, project),
        *_judge(slot, runner.read, JUDGE_SECONDS),
    ]


def accept_settings(runner: Runner, project: Project, slot: str) -> str:
    """Have the release in a slot judge its settings before its start; return a line with warnings.

    Raises:
        Failure: with the keys that it refuses, and no value.
    """
    # In a dry run of the first start there are no secrets yet.
    findings = [] if runner.is_dry else _check_files(runner, project)
    findings = findings or _judge(slot, runner.run)
    critical = [line for line in findings if line.startswith(CRITICAL)]
    if critical:
        keys = ", ".join(_key(line) for line in critical)
        raise Failure(
            f"the release in slot {slot} refuses {keys}; what runs was not touched",
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
        fault = secret_files.fault(path)
        if fault:
            fix = secret_files.fix(name, fault)
            findings.append(f"{CRITICAL}{name.upper()}: {path} {fault}; {fix}")
    return findings


def _check_logins(runner: Runner, project: Project) -> list[str]:
    """Log in with each secret whose server runs."""
    return [
        f"{CRITICAL}{name.upper()}: {logins.describe(project, name)}; {fingerprints.IMPORT}"
        for name in logins.list_refused(runner, project)
    ]


def _judge(
    slot: str, ask: Callable[[Command], Result], timeout_seconds: float | None = None
) -> list[str]:
    """Ask in the API's container, which judges for the worker too.

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
            "it judges its settings when it starts"
        ]
    raise Failure(
        f"{service} could not judge its settings: exit code {result.code}",
        hints=["docker compose config --quiet", "./scripts/status.sh"],
        runbook=RUNBOOK,
        evidence=result.err[-2000:],
    )
