"""The story of `up.sh`: from a bare machine to a stack that answers over HTTPS.

A second run changes nothing.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from stack import command_line
from stack.config.project import Project
from stack.parts import (
    applied,
    configuration,
    custody,
    database,
    edge,
    edge_settings,
    fingerprints,
    first_user,
    images,
    inventory,
    judgement,
    killed,
    machine,
    observation,
    ownership,
    placement,
    preflight,
    services,
    startup,
    volume_owner,
)
from stack.parts.lock import exclusive
from stack.parts.preflight import Needs
from stack.parts.startup import Startup
from stack.parts.steps import Steps
from stack.rules.findings import UNTOUCHED
from stack.runner import Runner

PREPARED = (
    "./scripts/restore.sh --latest --replace --repo offsite, or ./scripts/up.sh for a new database"
)
EVERY = "all"
WRITTEN = "nothing was started; .env, secrets/ and the record of the owner are written"
PLAN = (
    "engine: install and start Docker where it is missing",
    "configuration: create .env and secrets where they are missing",
    "preflight: check ports, files, limits and the engine before any change",
    "base images: from the registry, or from Debian packages",
    "certificate: a self-signed one where there is none",
    "release: build the checkout, unless a release is live",
    "data: start Postgres with its backups, and Redis",
    "migrate: bring the database to the release's head",
    "slot and front door: start, and ask over HTTPS for the release",
    "apply: replace the services that --apply names; otherwise none that serves",
)


def run(
    runner: Runner,
    root: Path,
    *,
    is_refresh: bool = False,
    is_prepare: bool = False,
    is_adopt: bool = False,
    image: str = "",
    named: tuple[str, ...] = (),
) -> None:
    """Bring the stack up and print the next steps; `is_prepare` starts nothing.

    If no slot has a release yet, place `image` instead of a build. Of the services that serve,
    replace only those in `named`; EVERY means each service that waits.
    """
    configuration.planned_project(root)  # refuses another engine before any query to it
    runner.say("plan:\n" + "\n".join(f"  {number}. {line}" for number, line in enumerate(PLAN, 1)))
    steps = Steps(runner, runner.clock())
    with steps.step("engine") as report:
        report(machine.ensure_engine(runner))
    with exclusive(runner, configuration.planned_project(root), "up"):
        with steps.step("owner") as report:
            planned, stock = configuration.planned_project(root), inventory.look(runner)
            report(custody.check(runner, planned, stock, is_adopting=is_adopt) or "this checkout")
        with steps.step("configuration") as report:
            project = configuration.ensure_environment(runner, root)
            created = configuration.ensure_secrets(runner, project)
            ownership.keep(runner, project)
            names = f"created {', '.join(created)} in {project.secrets}"
            report(names if created else "kept as it is")
        with steps.step("preflight") as report:
            is_replacing = is_refresh or is_adopt or bool({"nginx", EVERY} & {*named})
            needs = _needs(runner, project, is_prepare=is_prepare, is_replacing=is_replacing)
            report(_judge(runner, project, needs, has_written=bool(created)))
        edge_settings.adopt(runner, project, stock)
        project, slot, release = _provide(
            runner, steps, project, is_refresh=is_refresh, image=image
        )
        if is_prepare:
            seconds = f"{runner.clock() - steps.started:.1f} s"
            runner.say(f"\nready in {seconds}, and nothing was started: {PREPARED}")
            return
        ownership.remove_stale(runner, project, stock, slot, is_all=is_adopt)
        applied.follow_containers(runner, project, stock)
        if is_adopt or EVERY in named:
            named += tuple(each.service for each in ownership.list_stale(project, stock))
        if is_refresh:
            named += applied.SERVICES
        if EVERY in named:
            named += tuple(applied.waiting(runner, project))
        startup.bring_up(runner, steps, Startup(project, slot, release, stock, named))
        credentials = first_user.ensure(runner, project, slot)
        fingerprints.keep(runner, project)  # by now, the backup service has created the archive
        left = killed.settle(runner, project, slot)
        placement.record(runner, project, steps, slot, release)
        _say_waiting(runner, project, slot)
        for line in (*left, custody.resume_window(runner, project)):
            if line:
                runner.say(f"    {line}")
    _say_next(runner, steps, project, credentials)


def _needs(runner: Runner, project: Project, *, is_prepare: bool, is_replacing: bool) -> Needs:
    is_starting = is_replacing or bool(services.list_missing(runner, project, ["nginx"]))
    return Needs(certificate=True, servers=True, ports=is_starting and not is_prepare)


def _judge(runner: Runner, project: Project, needs: Needs, *, has_written: bool) -> str:
    """Refuse a state that cannot work; only the files of a first start are written by then."""
    effect = WRITTEN if has_written and not runner.is_dry else UNTOUCHED
    warnings = preflight.prepare(runner, project, needs, effect)
    return "; ".join(["nothing stands in the way", *warnings])


def _provide(
    runner: Runner, steps: Steps, project: Project, *, is_refresh: bool, image: str
) -> tuple[Project, str, str]:
    """Run the steps from the base images to the settings.

    Returns:
        The project, the live slot and its release.
    """
    with steps.step("base images") as report:
        chosen = images.choose_bases(runner, project, is_refresh=is_refresh)
        volume_owner.refuse_another(runner, chosen)
        database.check_version(runner, chosen)
        project = configuration.keep_bases(runner, project, chosen)
        images.build_nginx(runner, project)
        images.build_counter(runner, project)
        images.build_postgres(runner, project, is_fresh=is_refresh)
        report(
            ", ".join(project.base(service) for service in ("python", "nginx", "postgres", "redis"))
        )
    with steps.step("certificate") as report:
        is_new = configuration.ensure_certificate(runner, project)
        configuration.check_certificate(runner, project)
        report("made a self-signed one" if is_new else "kept as it is")
    with steps.step("nginx configuration") as report:
        report(edge.ensure_installed(runner, project))
    with steps.step("release") as report:
        slot = observation.live_slot(runner, project)
        release, difference = placement.place(runner, project, slot, image)
        report(f"{release} is in slot {slot}" + difference)
    with steps.step("settings") as report:
        report(judgement.accept_settings(runner, project, slot))
    return project, slot, release


def _say_waiting(runner: Runner, project: Project, slot: str) -> None:
    """Print the settings that wait; on a developer's stack, none wait."""
    if project.is_development or runner.is_dry:
        return
    for line in [
        *applied.describe_waiting_for_deploy(project, slot),
        *applied.describe_waiting(runner, project),
    ]:
        runner.say(f"    {line}")


def _say_next(runner: Runner, steps: Steps, project: Project, credentials: Path) -> None:
    trust, url = f"--cacert {project.certificate}", applied.front_door(project).url
    if runner.is_dry:
        runner.say("\nnothing was changed; without --dry-run this is done")
        runner.say(observation.what_serves(runner, project))
        return
    console = project.secrets / "ops_password"
    has_console = bool(console.read_text(encoding="utf-8").strip())
    runner.say(
        f"\nup in {runner.clock() - steps.started:.1f} s\n"
        f"  address      {url}\n"
        + (f"  first login  {credentials}\n" if credentials.exists() else "")
        + (f"  console      {url}/ops/session, password in {console}\n" if has_console else "")
        + f"  try it       curl {trust} {url}/readyz\n"
        + placement.describe_checkout(runner, project)
        + "  look at it   ./scripts/status.sh    ./scripts/logs.sh\n"
        "  if it fails  docs/runbook.md"
    )
    runner.say(observation.what_serves(runner, project))


COMMAND = "up"
HELP = "bring the whole stack up on this machine"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `up.sh`."""
    parser.add_argument(
        "--refresh-bases",
        action="store_true",
        help="take newer base images; replaces nginx, Postgres and Redis",
    )
    parser.add_argument(
        "--prepare",
        action="store_true",
        help="do everything except starting it, as before a restore to a new host",
    )
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="take over a stack that another checkout or another machine owns",
    )
    parser.add_argument(
        "--apply",
        action="append",
        default=[],
        choices=[*applied.SERVICES, EVERY],
        metavar="SERVICE",
        help="replace the container of this service by one with the settings of .env: "
        f"{', '.join(applied.SERVICES)}, or {EVERY} for each that waits; may be repeated",
    )
    command_line.add_dry_run(parser)


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `up.sh`."""
    run(
        runner,
        root,
        is_refresh=arguments.refresh_bases,
        is_prepare=arguments.prepare,
        is_adopt=arguments.adopt,
        named=tuple(arguments.apply),
    )
    return 0
