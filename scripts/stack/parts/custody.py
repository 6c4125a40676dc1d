"""Whether this checkout may work on the stack: the owner's record, then the secrets."""

from stack.config.project import Project
from stack.failure import Failure
from stack.parts import fingerprints, inventory, logins, machine, observation, ownership, window
from stack.parts.inventory import Inventory
from stack.runner import Runner

Row = tuple[bool, str, str]


def check(
    runner: Runner, project: Project, stock: Inventory | None = None, *, is_adopting: bool = False
) -> str:
    """Return a note if this checkout takes the stack over; empty if the stack is its own.

    Raises:
        Failure: before any effect, if another checkout, project or machine owns the stack, or a
            secret does not fit the data.
    """
    stock = stock or inventory.look(runner)
    note = ownership.refuse_others(project, stock, is_adopting=is_adopting)
    fingerprints.refuse_misfits(runner, project, stock)
    return note


def claim(
    runner: Runner, project: Project, *, is_starting: bool = False, is_restarting: bool = False
) -> None:
    """Check, write the owner's record, and print a note if this checkout takes the stack over.

    A rollback window that nothing has ended ends soon after the command, unless the command itself
    ends the window.

    Args:
        is_starting: whether the command starts services and has no preflight of its own.
        is_restarting: whether it stops containers and then starts the same containers again.

    Raises:
        Failure: as `check` does, or if a container that is to be restarted could not start again.
    """
    stock = inventory.look(runner)
    note = check(runner, project, stock)
    if is_starting or is_restarting:
        fingerprints.refuse_missing(project)
    if is_restarting:
        ownership.refuse_stale(project, stock, observation.live_slot(runner, project))
    ownership.keep(runner, project)
    for line in filter(None, [note, resume_window(runner, project)]):
        runner.say(f"    {line}")


def resume_window(runner: Runner, project: Project) -> str:
    """Return what happens to the rollback window whose process has ended; usually nothing."""
    return "" if runner.is_dry else window.resume(runner, project, machine.booted_at())


def list_faults(runner: Runner, project: Project) -> list[str]:
    """Return the faults of `check`, each with its fix, for a command that only reads."""
    try:
        stock = inventory.look(runner)
    except Failure as failure:
        return [f"owner: {failure.observation}; {failure.hints[-1]}"]
    verdict = ownership.judge(project, stock)
    faults = [f"owner: {fault}; {verdict.hints[0]}" for fault in verdict.faults]
    if faults:
        return faults  # the secrets are those of another stack
    return [
        f"{finding.name.upper()}: {finding.fault}; {finding.hints[0]}"
        for finding in fingerprints.judge(runner, project, stock)
    ]


def read_rows(runner: Runner, project: Project) -> list[Row]:
    """Return the row of `status.sh` on the owner; a fault of a secret has a row of its own."""
    try:
        stock = inventory.look(runner)
    except Failure as failure:
        return [(False, "owner", failure.observation)]
    verdict = ownership.judge(project, stock)
    if verdict.faults:
        return [
            (False, "owner", f"{'; '.join(verdict.faults)}: docs/runbook.md#{ownership.RUNBOOK}")
        ]
    rows = [_row_of_owner(project, stock, verdict.note)]
    faults = [finding.fault for finding in fingerprints.judge(runner, project, stock)]
    faults = faults or [
        logins.describe(project, name) for name in logins.list_refused(runner, project)
    ]
    if faults:
        text = f"{'; '.join(faults)}: docs/runbook.md#{fingerprints.RUNBOOK}"
        rows.append((False, "secrets", text))
    return rows


def _row_of_owner(project: Project, stock: Inventory, note: str) -> Row:
    stale = [each for each in ownership.list_stale(project, stock) if each.is_running]
    if stale:
        names = ", ".join(sorted(each.service for each in stale))  # the engine lists by age
        text = f"{names} mount files of {stale[0].checkout} and cannot restart: "
        return False, "owner", text + ownership.RENEWAL
    owner = ownership.read(project)
    if note:
        return True, "owner", f"with the next command {note}"
    if owner is None:
        return True, "owner", "none recorded; ./scripts/up.sh records this checkout"
    kept = [name for name in logins.NAMES if fingerprints.read(project, name)]
    secrets = f"{len(kept)} of {len(logins.NAMES)} secrets have opened their data"
    return True, "owner", f"{owner.checkout}, on this machine; {secrets}"
