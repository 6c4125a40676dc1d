"""The story of `status.sh`: what is live and how it is, on one screen; it only reads."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from stack.commands import engine
from stack.config.project import Project
from stack.runner import Answer, Runner
from stack.stories import ledger, observation

# Chosen: a third of a 90 days' certificate, and the share of a disk that still takes a second slot and a dump.
CERTIFICATE_DAYS_LOW = 30
DISK_PERCENT_LOW = 15
# One row: the migration head, then jobs by state, then the age in seconds of the oldest one that could run now.
DATABASE = (
    "select (select version_num from alembic_version),"
    " count(*) filter (where status = 'todo'), count(*) filter (where status = 'doing'),"
    " count(*) filter (where status = 'failed'),"
    " coalesce(extract(epoch from now() - min(e.at) filter (where status = 'todo')), 0)::int"
    " from procrastinate_jobs j"
    " left join procrastinate_events e on e.job_id = j.id and e.type = 'deferred'"
    " where status in ('todo', 'doing', 'failed') and (scheduled_at is null or scheduled_at <= now())"
)


def run(runner: Runner, project: Project) -> bool:
    """Print the screen and return whether everything is well."""
    rows = [
        _live(runner, project),
        *_services(runner, project),
        *_database(runner, project),
        *_disks(runner, project),
        _certificate(observation.ask(runner, project, "/livez")),
        _deploy(project),
    ]
    for is_well, name, text in rows:
        runner.say(f"{'ok ' if is_well else '!! '} {name:<16} {text}")
    runner.say(observation.what_serves(runner, project))
    return all(is_well for is_well, _, _ in rows)


Row = tuple[bool, str, str]


def _live(runner: Runner, project: Project) -> Row:
    slot = observation.live_slot(runner, project)
    placed = observation.slot_release(runner, project, slot)
    answer = observation.ask(runner, project, "/version")
    release, answering = observation.answered_by(answer)
    if (release, answering) == (placed, slot) and release:
        return True, "live", f"slot {slot}, release {release}"
    seen = f"release {release} from slot {answering}" if release else f"{answer.status or answer.error}"
    return (
        False,
        "live",
        f"the link names slot {slot} with release {placed or 'none'}, the front door says {seen}",
    )


def _services(runner: Runner, project: Project) -> list[Row]:
    found = observation.services(runner, project)
    if not found:
        return [(False, "services", "no container; ./scripts/up.sh starts them")]
    live = observation.live_slot(runner, project)
    wanted = {"nginx", "postgres", "redis", *engine.slot_services(live)}
    rows = [(service.is_well or service.name not in wanted, service.name, service.status) for service in found]
    missing = wanted - {service.name for service in found}
    return rows + [(False, name, "no container; ./scripts/up.sh starts it") for name in sorted(missing)]


def _database(runner: Runner, project: Project) -> list[Row]:
    """The migration head against the live release's, and the queue: both in one question to Postgres."""
    psql = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--username=postgres", "--dbname=slipway"]
    argv = engine.compose_argv("exec", "--no-TTY", "postgres", *psql, "--host=/tmp", "--command", DATABASE)
    result = runner.read(argv)
    if result.code != 0:
        seen = (result.err.strip().splitlines() or ["no answer"])[-1]
        return [(False, "migrations", seen), (False, "queue", seen)]
    head, todo, doing, failed, age = result.out.strip().split("|")
    image = f"{project.image}:{observation.live_slot(runner, project)}"
    expected = runner.read(engine.label_argv(image, "slipway.migration_head")).out.strip()
    # A database that is ahead is fine: an additive migration runs before its release is live.
    migrations = f"at {head}" + ("" if head == expected else f", the live release was built for {expected}")
    queue = f"{todo} waiting, {doing} running, {failed} failed" + (f", the oldest waits {age} s" if int(todo) else "")
    return [(head >= expected, "migrations", migrations), (failed == "0", "queue", queue)]


def _disks(runner: Runner, project: Project) -> list[Row]:
    root = runner.read(engine.ROOT_DIRECTORY).out.strip()
    rows = []
    for name, path in (("disk engine", Path(root or "/var/lib/docker")), ("disk state", project.state)):
        there = next(p for p in (path, *path.parents) if p.exists())
        usage = shutil.disk_usage(there)
        free = 100 * usage.free / usage.total
        rows.append((free >= DISK_PERCENT_LOW, name, f"{usage.free / 1e9:.1f} GB free ({free:.0f} %) at {there}"))
    return rows


def _certificate(answer: Answer) -> Row:
    if not answer.expires:
        return False, "certificate", answer.error or "none was shown"
    end = datetime.strptime(answer.expires, "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)
    days = (end - datetime.now(UTC)).days
    return days >= CERTIFICATE_DAYS_LOW, "certificate", f"{days} days left (until {end:%Y-%m-%d})"


def _deploy(project: Project) -> Row:
    entry = ledger.last(project)
    if entry is None:
        return True, "last deploy", f"none recorded in {project.ledger}"
    facts = f"{entry.get('action')} of {entry.get('to')} by {entry.get('who')} at {entry.get('at')}"
    return entry.get("result") == "done", "last deploy", f"{facts}: {entry.get('result')}"
