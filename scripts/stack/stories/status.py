"""The story of `status.sh`: shows what is live and its state, on one screen; only reads."""

import ctypes
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stack.commands import engine
from stack.config.project import Project, load
from stack.failure import Failure
from stack.https import Answer
from stack.parts import (
    applied,
    backup_service,
    counts,
    custody,
    deployments,
    ledger,
    lock,
    observation,
    redis,
    releases,
    slot_files,
    window,
)
from stack.parts.database import HEAD
from stack.rules import migrations
from stack.runner import Runner

# Chosen: a third of the lifetime of a 90-day certificate, and the share of a disk that has room for
# a second slot and a dump.
CERTIFICATE_DAYS_LOW = 30
DISK_PERCENT_LOW = 15
# Chosen: above the longest time limit of a task (worker/*/tasks.py): one long job is no fault.
OLDEST_JOB_SECONDS = 900
# The free and the total bytes of Postgres' volume, and the bytes of its ballast
# (postgres/ballast.sh).
POSTGRES_DISK = (
    "df --block-size=1 --output=avail,size /var/lib/postgresql/data | tail -n 1;"
    " du --block-size=1 /var/lib/postgresql/data/ballast || echo 0"
)
HISTORY_LINES = 40
# These commands start the worker of one slot and drain the worker of the other.
SWITCHING = ("deploy", "rollback", "retire")
# After a deploy or rollback, the worker of the idle slot finishes its jobs for 30 s at most
# (stop_grace_period in compose.yaml).
DRAIN_SECONDS = 35
CLOCK_AHEAD_SECONDS = 10  # the tokens' leeway (api/requests/tokens.py)
# adjtimex(2) without a mode only reads, into a struct of at most this size. It returns TIME_ERROR
# if no service synchronises the clock.
TIMEX_BYTES, TIME_ERROR = 512, 5
# One row: the migration head, the number of jobs by state, and the age in seconds of the oldest
# runnable job.
DATABASE = (
    f"select ({HEAD}),"  # noqa: S608 - a constant
    " count(*) filter (where status = 'todo'), count(*) filter (where status = 'doing'),"
    " count(*) filter (where status = 'failed'),"
    " coalesce(extract(epoch from now() - min(e.at) filter (where status = 'todo')), 0)::int"
    " from procrastinate_jobs j"
    " left join procrastinate_events e on e.job_id = j.id and e.type = 'deferred'"
    " where status in ('todo', 'doing', 'failed')"
    " and (scheduled_at is null or scheduled_at <= now())"
)

# Most checks wait for a program in a container; one that hangs must not delay the others.
AT_ONCE = 4
Row = tuple[bool, str, str]


def run(runner: Runner, project: Project) -> bool:
    """Print the screen and return whether every row is ok."""
    holder = lock.holder(project)
    looks: dict[str, Callable[[str], list[Row]]] = {
        "live": lambda live: [_live(runner, project, live)],
        "readiness": lambda _: [_readiness(observation.ask(runner, project, "/readyz"))],
        "requests": lambda live: [counts.read_row(runner, live)],
        "services": lambda live: _services(runner, project, live, holder),
        "migrations": lambda live: _database(runner, project, live),
        "backup": lambda _: backup_service.read_rows(runner),
        "redis data": lambda _: [redis.row(runner)],
        "disks": lambda _: _disks(runner, project),
        "disk postgres": lambda _: [postgres_disk(runner, project)],
        "certificate": lambda _: [_certificate(observation.ask(runner, project, "/livez"))],
        "last deploy": lambda _: [_deploy(project, holder), _clock(project)],
        # The process that ends the window waits for a command that holds the lock.
        "window": lambda _: [] if holder else window.read_rows(project),
        "owner": lambda _: custody.read_rows(runner, project),
        "settings": lambda live: _settings(runner, project, live),
    }
    rows: list[Row] = []
    try:
        live = observation.live_slot(runner, project)
    except Failure as failure:
        rows.append((False, "live", failure.observation))
        del looks["live"]
        live = observation.SLOTS[0]  # for the other rows, which query a slot

    def look_at(name: str) -> list[Row]:
        # A failed query is a row that is not ok; the other rows are still shown.
        try:
            return looks[name](live)
        except Failure as failure:
            return [(False, name, failure.observation)]
        except Exception as error:
            return [(False, name, f"cannot be read: {type(error).__name__}: {error}")]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows += [row for group in pool.map(look_at, list(looks)) for row in group]
    for is_well, name, text in rows:
        runner.display.status_row(is_well=is_well, name=name, text=text)
    if project.unknown:
        runner.say(f"warning: .env has keys that nothing here reads: {', '.join(project.unknown)}")
    runner.say(observation.what_serves(runner, project))
    return all(is_well for is_well, _, _ in rows)


def _live(runner: Runner, project: Project, slot: str) -> Row:
    placed = observation.slot_release(runner, project, slot)
    answer = observation.ask(runner, project, "/version")
    release, answering = observation.answered_by(answer)
    if answering not in {"", slot}:  # a deploy may have switched in between
        slot = observation.live_slot(runner, project)
        placed = observation.slot_release(runner, project, slot)
    if (release, answering) == (placed, slot) and release:
        number = deployments.in_slot(project, slot, release).number
        deployment = f", deployment {number}" if number else ""
        text = f"slot {slot}, release {release}{deployment}"
        file = slot_files.path_of(project, slot)
        if not file.exists():
            # Compose would replace its containers, and without settings the new ones refuse to
            # start.
            return False, "live", f"{text}; {file} is missing: ./scripts/up.sh writes it"
        return True, "live", text
    shown = (
        f"release {release} from slot {answering}"
        if release
        else f"{answer.status or answer.error}"
    )
    return (
        False,
        "live",
        f"the link names slot {slot} with release {placed or 'none'}, the front door shows {shown}",
    )


def _readiness(answer: Answer) -> Row:
    """Return whether the live release is ready; without Redis, it serves but is degraded."""
    state, reason = observation.readiness(answer)
    is_well = answer.status == 200 and state in {"", observation.READY}
    text = ": ".join(filter(None, (state or f"HTTP {answer.status}", reason)))
    return is_well, "readiness", text if answer.status else answer.error


def _services(runner: Runner, project: Project, live: str, holder: lock.Holder | None) -> list[Row]:
    services = observation.services(runner, project)
    if not services:
        return [(False, "services", "no container; ./scripts/up.sh starts them")]
    wanted = {"nginx", "counter", "postgres", "backup", "redis", *engine.slot_services(live)}
    is_draining = _is_draining(ledger.last(project) or {})
    rows = [_service(service, wanted, holder, is_draining=is_draining) for service in services]
    missing = wanted - {service.name for service in services}
    # The row `requests` shows that the counter works.
    rows = [row for row in rows if row[:2] != (True, "counter")]
    return rows + [
        (
            _is_handed_over(name, holder),
            name,
            f"no container; {holder} runs" if holder else "no container; ./scripts/up.sh starts it",
        )
        for name in sorted(missing)
    ]


def _is_handed_over(name: str, holder: lock.Holder | None) -> bool:
    """Whether a running command is replacing this worker by the other slot's worker."""
    return name.startswith("worker-") and holder is not None and holder.command in SWITCHING


def _is_draining(entry: dict[str, Any]) -> bool:
    """Whether the ledger's last entry is a deploy or rollback that has only just ended."""
    if entry.get("action") not in {"deploy", "rollback"} or entry.get("result") != "done":
        return False
    ahead = _seconds_ahead(entry)
    return ahead is not None and -DRAIN_SECONDS < ahead <= 0


def _seconds_ahead(entry: dict[str, Any]) -> float | None:
    """Return the seconds from now to an entry's time, or None if it has no readable time."""
    try:
        return (datetime.fromisoformat(str(entry["at"])) - datetime.now(UTC)).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None


def _service(
    service: observation.Service,
    wanted: set[str],
    holder: lock.Holder | None,
    *,
    is_draining: bool,
) -> Row:
    if _is_handed_over(service.name, holder) and not (service.name in wanted and service.is_well):
        return True, service.name, f"{service.status}; {holder} runs"
    if service.name in wanted:
        return service.is_well, service.name, service.status
    if service.name.startswith("worker-") and service.state == "running":
        if is_draining:
            return True, service.name, f"{service.status}, in the idle slot, finishes its jobs"
        return (
            False,
            service.name,
            f"{service.status}, in the idle slot, and takes jobs; ./scripts/up.sh stops it",
        )
    return True, service.name, service.status


def _database(runner: Runner, project: Project, live: str) -> list[Row]:
    """Compare the migration heads and read the queue, with one query to Postgres."""
    result = observation.sql(runner, DATABASE)
    if result.code != 0:
        error = (result.err.strip().splitlines() or ["no answer"])[-1]
        return [(False, "migrations", error), (False, "queue", error)]
    head, todo, doing, failed, age = result.out.strip().split("|")
    known = releases.migrations_of(runner, project, live)
    # A database that is ahead is fine: `pre` migrations of a newer release run before it is live.
    is_known = head in {revision.identifier for revision in known}
    waiting = migrations.pending(known, head) if is_known else []
    text = f"at {head or 'no migration'}" + (
        ", which is newer than the live release" if head and known and not is_known else ""
    )
    text += "".join(f", {revision.identifier} ({revision.phase}) waits" for revision in waiting)
    is_well = bool(head) and not any(revision.phase == "pre" for revision in waiting)
    queue = f"{todo} waiting, {doing} running, {failed} failed" + (
        f", the oldest waits {age} s" if int(todo) else ""
    )
    is_taken = failed == "0" and int(age) < OLDEST_JOB_SECONDS
    return [(is_well, "migrations", text), (is_taken, "queue", queue)]


def _disks(runner: Runner, project: Project) -> list[Row]:
    """Return one row for each file system of the engine and of the state directory."""
    # Without an engine, assume the folder of a usual installation.
    root = runner.read(replace(engine.ROOT_DIRECTORY, may_fail=True)).out.strip()
    folders = {"disk engine": Path(root or "/var/lib/docker"), "disk state": project.state}
    systems: dict[int, dict[str, Path]] = {}
    for name, path in folders.items():
        there = next(p for p in (path, *path.parents) if p.exists())
        systems.setdefault(there.stat().st_dev, {})[name] = there
    rows = []
    for shared in systems.values():
        usage = shutil.disk_usage(next(iter(shared.values())))
        free = 100 * usage.free / usage.total
        folders_text = " and ".join(map(str, shared.values()))
        text = f"{usage.free / 1e9:.1f} GB free ({free:.0f} %) at {folders_text}"
        rows.append((free >= DISK_PERCENT_LOW, next(iter(shared)), text))
    return rows


def postgres_disk(runner: Runner, project: Project) -> Row:
    """Return the row of Postgres' volume, which may be a separate file system.

    It needs no running Postgres.
    """
    question = ["sh", "-c", POSTGRES_DISK]
    answer = runner.read(engine.exec_in("postgres", *question, may_fail=True))
    if answer.code != 0:
        volume = f"{project.name}_postgres"
        # Mounting a volume that does not exist would create it.
        if not observation.exists(runner, engine.inspect_volume(volume)):
            return False, "disk postgres", f"there is no volume {volume}"
        mount = f"{volume}:/var/lib/postgresql/data:ro"
        image = project.base("postgres")
        command = engine.throwaway(image, question, mounts=[mount], user="postgres", environment={})
        answer = runner.read(replace(command, may_fail=True))
    numbers = [int(word) for word in answer.out.split() if word.isdecimal()]
    if answer.code != 0 or len(numbers) != 3:
        return False, "disk postgres", (answer.err.strip().splitlines() or ["no answer"])[-1]
    free, total, ballast = numbers
    percent = 100 * free / total
    is_ballast_right = ballast > 0 or not project.has_ballast
    text = f"{free / 1e9:.1f} GB free ({percent:.0f} %) in the volume"
    text += f", and {ballast / 1e6:.0f} MB of ballast" if ballast else ", no ballast"
    if percent < DISK_PERCENT_LOW or not is_ballast_right:
        text += ": docs/runbook.md#postgres-volume-full"
    return percent >= DISK_PERCENT_LOW and is_ballast_right, "disk postgres", text


def _certificate(answer: Answer) -> Row:
    if not answer.expires:
        return False, "certificate", answer.error or "none was shown"
    end = datetime.strptime(answer.expires, "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)
    days = (end - datetime.now(UTC)).days
    return days >= CERTIFICATE_DAYS_LOW, "certificate", f"{days} days left (until {end:%Y-%m-%d})"


def _deploy(project: Project, holder: lock.Holder | None) -> Row:
    """Return the result of the last action; a refused action changed nothing and does not count."""
    past = [entry for entry in ledger.entries(project) if entry.get("result") != ledger.NOT_BEGUN]
    if not past:
        return True, "last deploy", f"none recorded in {project.ledger}"
    entry = past[-1]
    facts = f"{entry.get('action')} of {entry.get('to')} by {entry.get('who')} at {entry.get('at')}"
    text = f"{facts}: {entry.get('result')}"
    if entry.get("result") in {"begun", "started"}:
        if holder and holder.command == entry.get("action"):
            return True, "last deploy", f"{text}, and runs: process {holder.pid}"
        return False, "last deploy", f"{text}, and nothing runs it any more"
    return entry.get("result") == "done", "last deploy", text


def _settings(runner: Runner, project: Project, live: str) -> list[Row]:
    """Return a row for each command that would apply keys of `.env`; mostly there is none."""
    if project.is_development:
        return []  # its containers have the settings of the file at each start
    lines = [
        *applied.describe_waiting_for_deploy(project, live),
        *applied.describe_waiting(runner, project),
    ]
    return [(True, "settings", line) for line in lines]


def _clock(project: Project) -> Row:
    """Compare the clock with the last deploy, and check that a service synchronises it."""
    now = datetime.now(UTC)
    kept = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES)) != TIME_ERROR
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC, " + (
        "set by a time service" if kept else "which no time service sets"
    )
    ahead = _seconds_ahead(ledger.last(project) or {}) or 0.0
    if ahead > CLOCK_AHEAD_SECONDS:
        return (
            False,
            "clock",
            f"{text}; the last deploy is {ahead:.0f} s ahead of it: docs/runbook.md#clock-wrong",
        )
    return True, "clock", text


def history(runner: Runner, project: Project) -> None:
    """Print the ledger's last entries, one per line, and what is live."""
    for entry in ledger.entries(project)[-HISTORY_LINES:]:
        way = f"{entry.get('from') or '-'} -> {entry.get('to') or '-'}"
        # rollback.sh accepts this number.
        way += f" (deployment {entry['deployment']})" if entry.get("deployment") else ""
        took = f" in {sum(entry['seconds'].values()):.0f} s" if entry.get("seconds") else ""
        why = f": {entry['reason']}" if entry.get("reason") else ""
        name = " ".join(filter(None, [entry.get("action"), entry.get("service")]))
        action = f"{name} {way} {entry.get('result')}{took}{why}"
        runner.say(f"{entry.get('at')}  {entry.get('who')}  {action}")
    runner.say(observation.what_serves(runner, project))


COMMAND = "status"
HELP = "print what is live and its state; exit 1 if a check fails"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `status.sh`."""
    parser.add_argument(
        "--history", action="store_true", help="print what was done to the stack, the newest last"
    )


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `status.sh`."""
    project = load(root, is_lenient=True)
    if arguments.history:
        history(runner, project)
        return 0
    return 0 if run(runner, project) else 1
