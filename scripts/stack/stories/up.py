"""The story of `up.sh`: from a bare machine to a stack that answers over HTTPS.

A second run changes nothing.
"""

import socket
from argparse import ArgumentParser, Namespace
from pathlib import Path

from stack import command_line
from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import (
    applied,
    backup_service,
    configuration,
    custody,
    database,
    deployments,
    edge,
    fingerprints,
    first_user,
    front_door,
    given_image,
    images,
    inventory,
    judgement,
    ledger,
    machine,
    observation,
    ownership,
    services,
    slot_files,
    slots,
    sources,
    window,
)
from stack.parts.ledger import Deployment
from stack.parts.lock import exclusive
from stack.parts.steps import Steps
from stack.rules import migrations
from stack.runner import Runner

# The first start of Postgres creates its data directory: measured 5 s on two shared cores, more on
# a slow disk.
DATA_SECONDS = 120
SLOT_SECONDS = 90
FRONT_DOOR_SECONDS = 20
PREPARED = (
    "./scripts/restore.sh --latest --replace --repo offsite, or ./scripts/up.sh for a new database"
)
PLAN = (
    "engine: install and start Docker where it is missing",
    "configuration: create .env and secrets where they are missing",
    "base images: from the registry, or from Debian packages",
    "certificate: a self-signed one where there is none",
    "release: build the checkout, unless a release is live",
    "data: start Postgres with its backups, and Redis",
    "migrate: bring the database to the release's head",
    "slot and front door: start, and ask over HTTPS for the release",
)


def run(
    runner: Runner,
    root: Path,
    *,
    is_refresh: bool = False,
    is_prepare: bool = False,
    is_adopt: bool = False,
    image: str = "",
) -> None:
    """Bring the stack up and print the next steps; `is_prepare` starts nothing.

    If no release is placed yet, `image` is placed instead of a build.
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
            configuration.check_mounted_folders(project)
            names = f"created {', '.join(created)} in {project.secrets}"
            report(names if created else "kept as it is")
        project, slot, release = _provide(
            runner, steps, project, is_refresh=is_refresh, image=image
        )
        if is_prepare:
            seconds = f"{runner.clock() - steps.started:.1f} s"
            runner.say(f"\nready in {seconds}, and nothing was started: {PREPARED}")
            return
        ownership.remove_stale(runner, project, stock, slot, is_all=is_adopt)
        _bring_up(runner, steps, project, slot, release)
        credentials = first_user.ensure(runner, project, slot)
        fingerprints.keep(runner, project)  # the backup service has created the archive by now
        _record(runner, project, steps, slot, release)
        applied.keep(runner, project)
        waiting = [] if project.is_development else applied.waiting_for_deploy(project, slot)
        for line in applied.describe(waiting, "./scripts/deploy.sh"):
            runner.say(f"    {line}")
        if not runner.is_dry and window.resume(runner, project, machine.booted_at()):
            runner.say("    the rollback window that a reboot ended begins again")
    _say_next(runner, steps, project, credentials)


def _record(runner: Runner, project: Project, steps: Steps, slot: str, release: str) -> None:
    """Record a release that no deploy made live; a developer's stack has no releases."""
    present = deployments.in_slot(project, slot, release)
    is_known = present.number and (ledger.last(project) or {}).get("to") == release
    if project.is_development or is_known:
        return
    number = slot_files.number_of(slot_files.of_slot(project, slot))
    settings = deployments.fingerprint(project.service_settings)
    deployment = present if present.number else Deployment(number, release, settings)
    head = migrations.head(project.root)
    facts = {"from": None, "to": release, "slot": slot, "migration_head": head, "result": "done"}
    ledger.record(runner, project, "up", **facts, **deployment.facts, seconds=steps.seconds)


def _provide(
    runner: Runner, steps: Steps, project: Project, *, is_refresh: bool, image: str
) -> tuple[Project, str, str]:
    """Run the steps from the base images to the settings.

    Returns:
        The project, the live slot and its release.
    """
    with steps.step("base images") as report:
        project = images.ensure_bases(runner, project, is_refresh=is_refresh)
        images.build_nginx(runner, project)
        database.check_version(runner, project)
        images.build_postgres(runner, project, is_fresh=is_refresh)
        report(
            ", ".join(project.base(service) for service in ("python", "nginx", "postgres", "redis"))
        )
    with steps.step("certificate") as report:
        is_new = configuration.ensure_certificate(runner, project)
        configuration.check_certificate(runner, project)
        report("made a self-signed one" if is_new else "kept as it is")
    with steps.step("nginx configuration") as report:
        report(_install_nginx(runner, project))
    with steps.step("release") as report:
        slot = observation.live_slot(runner, project)
        release, difference = _place(runner, project, slot, image)
        report(f"{release} is in slot {slot}" + difference)
    with steps.step("settings") as report:
        report(judgement.accept_settings(runner, project, slot))
    return project, slot, release


def _bring_up(runner: Runner, steps: Steps, project: Project, slot: str, release: str) -> None:
    """Run the steps that start services."""
    with steps.step("data") as report:
        _check_ports(runner, project)
        backup_service.refuse_new_database(runner, project)
        with fingerprints.proof(runner, project):
            _start(runner, project, ["postgres", "redis", "backup"], DATA_SECONDS)
        report(database.complete(runner))
    with steps.step("migrate") as report:
        # An empty database gets all migrations at once. Unless Postgres reports a missing table,
        # the database is in use: `post` migrations run only at the end of the rollback window.
        is_empty = database.is_empty(runner)
        migrated = runner.run(engine.migrate(slot, is_pre_only=not is_empty))
        report(migrated.out.strip().splitlines()[-1] if migrated.out.strip() else "done")
    with steps.step("slot and front door") as report:
        names = [*_missing(runner, project, slot), "nginx", *_sink(project)]
        _start(runner, project, names, SLOT_SECONDS)
        _repair(runner, project, slot)
        report(_await_release(runner, project, release))


def _missing(runner: Runner, project: Project, slot: str) -> list[str]:
    """Return the services of a slot that do not serve; only a deploy replaces those that serve.

    An API that does not know SLIPWAY_HOST would refuse every request through the new nginx.
    """
    names = engine.slot_services(slot)
    if project.is_development:
        return names  # Compose replaces those whose image was built again
    if not deployments.knows_host(runner, project, slot):
        return names
    well = {each.name for each in observation.services(runner, project) if each.is_well}
    return [name for name in names if name not in well]


def _sink(project: Project) -> list[str]:
    return ["sink"] if project.is_development else []


def _install_nginx(runner: Runner, project: Project) -> str:
    current = project.nginx_folder / "current"
    is_installed = current.exists()
    if not runner.is_dry:
        # Test the installed configuration with the certificate: nginx could not start again with a
        # key that does not match.
        edge.check(runner, project, current if is_installed else project.root / "nginx")
    if is_installed:
        return "kept as it is"
    edge.install(runner, project)
    return "installed"


def _check_ports(runner: Runner, project: Project) -> None:
    """Refuse a port on which another program listens, before nginx is replaced.

    Compose removes the nginx that serves, and finds only then that the new one has no port.
    """
    running = [
        service
        for service in observation.services(runner, project)
        if service.name == "nginx" and service.state == "running"
    ]
    own = frozenset[tuple[str, int]]().union(*(service.ports for service in running))
    if running and not own:
        return  # an engine that does not list the ports
    for key in ("HTTP", "HTTPS"):
        bound, port = project.setting(f"{key}_BIND"), project.port(f"{key}_PORT")
        if port in {published for _, published in own}:
            continue  # nginx itself listens there
        with socket.socket(socket.AF_INET6 if ":" in bound else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((bound, port))
            except PermissionError:
                continue  # the engine may bind the port even if this user may not
            except OSError as error:
                raise Failure(
                    f"nginx cannot use port {port} of {bound}: {error.strerror}",
                    hints=[
                        f"ss --listening --tcp --processes 'sport = {port}'",
                        f"or set {key}_PORT in .env",
                    ],
                    runbook="site-down",
                ) from None


def _repair(runner: Runner, project: Project, slot: str) -> None:
    """Make a lost live link again, and stop a worker that still runs in the idle slot."""
    if runner.is_dry:
        return
    # A new nginx makes a lost link, but names blue in it.
    if observation.live_link(runner, project) != slot:
        slots.make_live(runner, slot)
    idle = next(other for other in observation.SLOTS if other != slot)
    running = {
        service.name
        for service in observation.services(runner, project)
        if service.state == "running"
    }
    if f"worker-{idle}" in running:
        slots.stop(runner, [f"worker-{idle}"])


def _place(runner: Runner, project: Project, slot: str, image: str) -> tuple[str, str]:
    """Place a release in an empty slot; return its name and how the checkout differs."""
    placed = observation.slot_release(runner, project, slot)
    if project.is_development:
        release = images.build_development(runner, project)
        settings = project.service_settings
        deployments.place(runner, project, Deployment(0, release), slot, settings)
    elif placed and placed != images.DEVELOPMENT:
        checkout = images.release_of_checkout(runner, project)
        deployments.adopt(runner, project, slots.look(runner, project))
        deployments.follow_host(runner, project)
        return (
            placed,
            "" if checkout == placed else f"; the checkout, {checkout}, is not live",
        )
    else:
        if image:
            release = given_image.resolve(runner, project, image)
        else:
            with sources.copied(runner, project.root) as copy:
                release = images.build_release(runner, project, copy)
        deployments.begin(runner, project, release, slot)
    slots.place(runner, project, release, slot)
    return release, ""


def _deploy_next(runner: Runner, project: Project) -> str:
    """Return a line if the checkout is not live: the release may come from another clone."""
    if project.is_development:
        return ""
    placed = observation.slot_release(runner, project, observation.live_slot(runner, project))
    checkout = images.release_of_checkout(runner, project)
    return (
        ""
        if checkout == placed
        else f"  make it live ./scripts/deploy.sh, the checkout is release {checkout}\n"
    )


def _start(runner: Runner, project: Project, names: list[str], seconds: int) -> None:
    """Start services, including those that the engine would restart later."""
    waiting = [
        s.name
        for s in observation.services(runner, project)
        if s.name in names and s.state == "restarting"
    ]
    if waiting:
        # The engine waits up to a minute between restarts, and `up` skips such a container.
        runner.run(engine.compose("restart", *waiting))
    services.start(runner, project, *names, seconds=seconds, runbook="a-service-keeps-restarting")


def _await_release(runner: Runner, project: Project, release: str) -> str:
    if runner.is_dry:
        return "would ask the front door for the release"
    if "certificate" in observation.ask(runner, project, "/livez").error:
        edge.reload(runner)  # the files were replaced after nginx had read the former ones
    is_answered, answer = front_door.wait_for_answer(
        runner, project, FRONT_DOOR_SECONDS, release=release
    )
    if not is_answered:
        raise Failure(
            f"the front door did not answer with release {release} within {FRONT_DOOR_SECONDS} s "
            f"(last answer: {front_door.describe(answer)}, {answer.body[:300]})",
            hints=[
                *_certificate_hint(project, answer.error),
                "./scripts/logs.sh nginx",
                "./scripts/status.sh",
            ],
            runbook="site-down",
        )
    _, slot = observation.answered_by(answer)
    return f"{project.url} answers with release {release} from slot {slot}"


def _certificate_hint(project: Project, error: str) -> list[str]:
    if "certificate" not in error:
        return []
    return [
        f"the certificate in {project.certificate.parent} must be for {project.host} and not "
        "expired; if you move it and its key away, up.sh creates a self-signed pair"
    ]


def _say_next(runner: Runner, steps: Steps, project: Project, credentials: Path) -> None:
    trust = f"--cacert {project.certificate}"
    if runner.is_dry:
        runner.say("\nnothing was changed; without --dry-run this is done")
        runner.say(observation.what_serves(runner, project))
        return
    console = project.secrets / "ops_password"
    has_console = bool(console.read_text(encoding="utf-8").strip())
    runner.say(
        f"\nup in {runner.clock() - steps.started:.1f} s\n"
        f"  address      {project.url}\n"
        + (f"  first login  {credentials}\n" if credentials.exists() else "")
        + (
            f"  console      {project.url}/ops/session, password in {console}\n"
            if has_console
            else ""
        )
        + f"  try it       curl {trust} {project.url}/readyz\n"
        + _deploy_next(runner, project)
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
    command_line.add_dry_run(parser)


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `up.sh`."""
    is_refresh, is_prepare = arguments.refresh_bases, arguments.prepare
    run(runner, root, is_refresh=is_refresh, is_prepare=is_prepare, is_adopt=arguments.adopt)
    return 0
