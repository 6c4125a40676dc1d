"""The story of `check-config.sh`: prints wrong or unwise settings; only reads."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from stack.config.environment import RUNBOOK
from stack.config.project import Project, load
from stack.failure import Failure
from stack.parts import applied, custody, judgement, observation, preflight
from stack.rules import connections
from stack.rules.findings import CRITICAL
from stack.runner import Runner


def run(runner: Runner, project: Project) -> bool:
    """Print every finding, critical ones first, and return whether none is critical.

    Raises:
        Failure: if no release is placed that could check the settings.
    """
    slot = observation.live_slot(runner, project)
    if not observation.slot_release(runner, project, slot):
        raise Failure(
            f"no release is in slot {slot}, and only a release can check its settings",
            hints=["./scripts/up.sh builds one, and checks its settings before it starts anything"],
            runbook=RUNBOOK,
        )
    limits = connections.read_limits(project)
    overdrawn = connections.fault(project, *limits) if limits else ""
    findings = [CRITICAL + overdrawn] if overdrawn else []
    findings += [CRITICAL + fault for fault in custody.list_faults(runner, project)]
    findings += map(str, preflight.judge(runner, project, preflight.EVERYTHING))
    keys = {line.partition(": ")[0] for line in findings}
    findings += [
        line
        for line in judgement.list_findings(runner, project, slot)
        if line.partition(": ")[0] not in keys  # the earlier line also has the fix
    ]
    critical = [line for line in findings if line.startswith(CRITICAL)]
    for line in sorted(findings):
        runner.say(line)
    for line in [
        *applied.describe_waiting_for_deploy(project, slot),
        *applied.describe_waiting(runner, project),
    ]:
        runner.say(line)
    runner.say(f"{len(critical)} critical, {len(findings) - len(critical)} to reconsider")
    runner.say(observation.what_serves(runner, project))
    return not critical


COMMAND = "check-config"
HELP = "print what is wrong or unwise in the settings"


def add_arguments(parser: ArgumentParser) -> None:
    """Add nothing: `check-config.sh` takes no arguments."""


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `check-config.sh`."""
    return 0 if run(runner, load(root)) else 1
