"""Lets a release check its settings with the code that also runs at its start; changes nothing.

The check runs in a throw-away container with the mounts and the environment of the service.
"""

from collections.abc import Callable

from stack.commands import engine
from stack.commands.command import Command
from stack.config import secret_files
from stack.config.environment import RUNBOOK
from stack.config.project import OPTIONAL_SECRETS, SECRETS, Project
from stack.failure import Failure
from stack.parts import fingerprints, logins, slot_files
from stack.rules.findings import CRITICAL, WARNING
from stack.runner import Result, Runner

EX_CONFIG = 78  # api/configuring/settings.py
JUDGE_SECONDS = 60  # a start of Python: 0.7 s measured on two shared cores


def list_findings(runner: Runner, project: Project, slot: str) -> list[str]:
    """Return the findings on compose files, secret files and settings, one per line."""
    # Without these files no container starts, so the release cannot check anything.
    return _check_files(runner, project) or [
        *_check_logins(runner, project),
        *_judge(project, slot, runner.read, JUDGE_SECONDS),
    ]


def accept_settings(runner: Runner, project: Project, slot: str) -> str:
    """Check the settings with the release in a slot before its start; return the warnings.

    Raises:
        Failure: with the keys that it refuses, and no value.
    """
    # In a dry run of the first start there are no secrets.
    findings = [] if runner.is_dry else _check_files(runner, project)
    # With changed keys, use `read`, which does not print the command: their values are in it.
    is_changed = not runner.is_dry and bool(_changed(project, slot))
    ask, seconds = (runner.read, JUDGE_SECONDS) if is_changed else (runner.run, None)
    findings = findings or _judge(project, slot, ask, seconds, is_dry=runner.is_dry)
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
    composed = runner.read(engine.compose("config", "--quiet", may_fail=True))
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


def _changed(project: Project, slot: str) -> list[tuple[str, str]]:
    """Return the settings of `.env` that differ from those of the deployment in the slot."""
    given = slot_files.of_slot(project, slot)
    return sorted(slot_files.wanted(project).items() - given.items())


def _check_logins(runner: Runner, project: Project) -> list[str]:
    """Log in with each secret whose server runs."""
    return [
        f"{CRITICAL}{name.upper()}: {logins.describe(project, name)}; {fingerprints.IMPORT}"
        for name in logins.list_refused(runner, project)
    ]


def _judge(
    project: Project,
    slot: str,
    ask: Callable[[Command], Result],
    timeout_seconds: float | None = None,
    *,
    is_dry: bool = False,
) -> list[str]:
    """Run the check in the API's container, for the worker too.

    A second container would double the time. The slot has the settings of its deployment; the
    container also gets the settings that changed in `.env` since then. They are not secrets.
    """
    service = f"api-{slot}"
    changed = [] if is_dry else _changed(project, slot)
    options = [word for key, value in changed for word in ("--env", f"{key}={value}")]
    words = [*options, service, "python", "-m", "api.check_config"]
    result = ask(engine.one_shot(*words, may_fail=True, timeout_seconds=timeout_seconds))
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
