"""A deployment is a release with the service's settings, under a number that is used once.

The ledger lists the deployments, `STATE_DIR/deployments/<number>.env` keeps the settings of each,
and a slot's file names the deployment in the slot.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stack.commands import engine
from stack.config import forms
from stack.config.keys import KEYS
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import edge_settings, images, ledger, observation, slot_files
from stack.parts.ledger import Deployment
from stack.parts.slot_files import NUMBER, RELEASE
from stack.parts.slots import Slots
from stack.runner import Runner

REFUSED = "rollback-refused"
NANO = 1_000_000_000


def fingerprint(settings: Mapping[str, str]) -> str:
    """Return a hash of the settings that differ from their defaults.

    So a newer version that adds a key does not change the hash.
    """
    given = {key: value for key, value in settings.items() if value != KEYS[key].default}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:8]


def snapshot_of(project: Project, number: int) -> Path:
    """Return the file that keeps the settings of a deployment."""
    return project.state / "deployments" / f"{number}.env"


def settings_of(project: Project, deployment: Deployment) -> dict[str, str]:
    """Return the settings of a deployment; empty if nothing kept them.

    An earlier version kept the whole `.env` under the release's name.
    """
    files = (
        snapshot_of(project, deployment.number),
        ledger.settings_of(project, deployment.release),
    )
    for file in files:
        values = slot_files.read(file)
        if values:
            return slot_files.settings_in(values)
    return {}


def next_number(project: Project) -> int:
    """Return a number that no deployment has, even if the ledger was lost."""
    kept = (int(file.stem) for file in snapshot_of(project, 0).parent.glob("[0-9]*.env"))
    placed = (slot_files.number_of(slot_files.of_slot(project, s)) for s in observation.SLOTS)
    return max(ledger.next_number(project), *(1 + number for number in (*kept, *placed)))


def begin(runner: Runner, project: Project, release: str, slot: str) -> Deployment:
    """Create a deployment of a release and the present settings; write its files, for a slot."""
    settings = fingerprint(project.service_settings)
    deployment = Deployment(next_number(project), release, settings)
    _keep(runner, project, deployment, slot)
    return deployment


def _keep(runner: Runner, project: Project, deployment: Deployment, slot: str) -> None:
    """Write the present settings into the files of a deployment and of its slot."""
    settings = project.service_settings
    _write_snapshot(runner, project, deployment.number, settings)
    place(runner, project, deployment, slot, settings)


def _write_snapshot(
    runner: Runner, project: Project, number: int, settings: Mapping[str, str]
) -> None:
    file = snapshot_of(project, number)
    runner.make_directory(file.parent, 0o750)
    runner.write(file, slot_files.content({NUMBER: str(number), **settings}), 0o600)


def place(
    runner: Runner,
    project: Project,
    deployment: Deployment,
    slot: str,
    settings: Mapping[str, str],
) -> None:
    """Write the file of a slot; its next containers get these settings."""
    values = {NUMBER: str(deployment.number)}
    image = f"{project.image}:{deployment.release}"
    label = observation.ask_engine(runner, engine.image_label(image, engine.RELEASE_LABEL))
    if deployment.release.startswith(f"{label}-") and label:
        values[RELEASE] = deployment.release  # two images with one label: parts/given_image.py
    values |= {slot_files.HOSTS: hosts_of(project), **settings}
    write(runner, project, slot, slot_files.content(values))


def write(runner: Runner, project: Project, slot: str, text: str) -> None:
    """Write the text of a slot's file."""
    file = slot_files.path_of(project, slot)
    runner.make_directory(file.parent, 0o750)
    runner.write(file, text, 0o600)


def text_of(project: Project, slot: str) -> str:
    """Return the text of a slot's file, for an undo; empty if there is no file."""
    file = slot_files.path_of(project, slot)
    return file.read_text(encoding="utf-8") if file.exists() else ""


def in_slot(project: Project, slot: str, release: str) -> Deployment:
    """Return the deployment in a slot that has this release.

    Its number is 0 if no script placed the release there.
    """
    number = slot_files.number_of(slot_files.of_slot(project, slot))
    known = {each.number: each for each in ledger.deployments(project)}
    if number in known and known[number].release == release:
        return known[number]
    return Deployment(0, release)


def is_same(first: Deployment, second: Deployment) -> bool:
    """Whether two deployments are the same; if one lacks a number, the release decides."""
    if first.number and second.number:
        return first.number == second.number
    return first.release == second.release


def named(project: Project, name: str) -> Deployment:
    """Return the deployment with this number, or the last good deployment of this release.

    The name of a commit or of a CI build may be digits only. With a zero in front, digits are a
    number.

    Raises:
        Failure: if digits are neither of both, or both.
    """
    release = _last_of(project, name)
    if not name.isdecimal():
        return release or Deployment(0, name)
    of_number = {each.number: each for each in ledger.deployments(project)}.get(int(name))
    known = [each for each in (of_number, release) if each]
    if len({each.number for each in known}) == 1:
        return known[0]
    if known:
        raise Failure(
            f"{name} names two deployments: {known[0]}, and the last good one of a release "
            f"{known[1]}",
            hints=[f"for {each}: ./scripts/rollback.sh 0{each.number}" for each in known],
            runbook=REFUSED,
        )
    numbers = ", ".join(str(each.number) for each in ledger.good_deployments(project))
    raise Failure(
        f"there is no deployment {name}, and no release of that name was deployed",
        hints=[f"good are: {numbers or 'none'}", "./scripts/status.sh --history"],
        runbook=REFUSED,
    )


def _last_of(project: Project, release: str) -> Deployment | None:
    """Return the last good deployment of a release, or its last one; None if it has none."""
    every = [*ledger.good_deployments(project), *reversed(ledger.deployments(project))]
    return next((each for each in every if each.release == release), None)


def tag_of(deployment: Deployment, slots: Slots) -> str:
    """Return the tag of a deployment's image: the idle slot's, or else the release's.

    If somebody removed the release's tag, the slot's tag still names the image.
    """
    is_placed = deployment.release == slots.idle_release
    return slots.idle if is_placed else deployment.release


def before_live(runner: Runner, project: Project, slots: Slots) -> Deployment:
    """Return the newest good deployment that is not live, or else the one in the idle slot.

    A deployment whose deploy did not succeed is not returned.

    Raises:
        Failure: if there is no such deployment.
    """
    live = in_slot(project, slots.live, slots.live_release)
    idle = in_slot(project, slots.idle, slots.idle_release)
    for deployment in ledger.good_deployments(project):
        image = f"{project.image}:{tag_of(deployment, slots)}"
        if not is_same(deployment, live) and images.has_image(runner, image):
            return deployment
    is_bad = is_same(idle, live) or ledger.never_succeeded(project, idle)
    if slots.idle_release and not is_bad:
        return idle
    raise Failure(
        f"there is no release to go back to from {slots.live_release}",
        hints=[
            f"docker image ls {project.image} lists what is kept; "
            "name one: ./scripts/rollback.sh RELEASE"
        ],
        runbook=REFUSED,
    )


def adopt(runner: Runner, project: Project, slots: Slots) -> None:
    """Number the good releases that an earlier version left, and write the slots' files.

    A slot keeps the settings of its container, even if `.env` has changed since.
    """
    if runner.is_dry or not slots.live_release:
        return
    if not ledger.deployments(project):
        good = list(reversed(ledger.good_deployments(project)))
        if slots.live_release not in {each.release for each in good}:
            good.append(Deployment(0, slots.live_release))
        is_placed = slot_files.number_of(slot_files.of_slot(project, slots.idle))
        if is_placed and slots.idle_release not in {"", *(each.release for each in good)}:
            good.insert(0, Deployment(0, slots.idle_release))  # the ledger was lost
        ledger.record_adoption(runner, project, slots.live_release, _numbered(project, good, slots))
    for slot, release in ((slots.live, slots.live_release), (slots.idle, slots.idle_release)):
        if release and not slot_files.path_of(project, slot).exists():
            deployment = _last_of(project, release) or Deployment(0, release)
            settings = running_settings(runner, slot)
            if (
                settings
                and deployment.number
                and not snapshot_of(project, deployment.number).exists()
            ):
                # An earlier version kept `.env` as it was when the release became live.
                _write_snapshot(runner, project, deployment.number, settings)
            settings = settings or settings_of(project, deployment)
            place(runner, project, deployment, slot, settings or project.service_settings)


def _numbered(project: Project, good: list[Deployment], slots: Slots) -> list[Deployment]:
    """Give numbers to releases, oldest first; a release in a slot keeps its file's number.

    After the loss of a ledger, the slots' files and containers still have its numbers.
    """
    placed = {}
    for slot, release in ((slots.idle, slots.idle_release), (slots.live, slots.live_release)):
        number = slot_files.number_of(slot_files.of_slot(project, slot))
        if number and release:
            placed[release] = number
    free = (
        number for number in itertools.count(next_number(project)) if number not in placed.values()
    )
    adopted = []
    for each in good:
        numbered = Deployment(placed.get(each.release) or next(free), each.release)
        adopted.append(replace(numbered, settings=fingerprint(settings_of(project, numbered))))
    return adopted


def settle(runner: Runner, project: Project, slots: Slots) -> None:
    """Adopt an earlier state; if the live slot never served, give it the present settings.

    After a failed first start, and after `up.sh --prepare`, no slot serves, so that a deploy is not
    possible. Then an edit of `.env` must reach the containers that `up.sh` starts.
    """
    number = slot_files.number_of(slot_files.of_slot(project, slots.live))
    services = observation.services(runner, project)
    is_serving = any(each.is_well and each.name == f"api-{slots.live}" for each in services)
    if not number or is_serving or ledger.good_deployments(project):
        adopt(runner, project, slots)
    else:
        _keep(runner, project, Deployment(number, slots.live_release), slots.live)


def hosts_of(project: Project) -> str:
    """Return the host names that a new slot accepts: the wanted name and nginx' present name.

    The slot gets requests with both names until nginx is reloaded.
    """
    names = (project.host, edge_settings.installed(project).host)
    return ",".join(dict.fromkeys(name for name in names if name))


def follow_host(runner: Runner, project: Project) -> None:
    """Write the host names into the files of slots that do not run: no deployment keeps them.

    The file of a running slot stays as it is, so that Compose finds no difference.
    """
    running = {
        each.name for each in observation.services(runner, project) if each.state == "running"
    }
    for slot in observation.SLOTS:
        values = slot_files.of_slot(project, slot)
        if f"api-{slot}" in running or not values:
            continue
        if values.get(slot_files.HOSTS) != hosts_of(project):
            text = slot_files.content({**values, slot_files.HOSTS: hosts_of(project)})
            write(runner, project, slot, text)


def knows_host(runner: Runner, project: Project, slot: str) -> bool:
    """Whether the API's container of a slot accepts SLIPWAY_HOST; true without a container."""
    hosts = _environment_of(runner, slot).get(slot_files.HOSTS, project.host)
    return project.host in hosts.split(",")


def runs_another(runner: Runner, slot: str, deployment: Deployment) -> bool:
    """Whether the API's container of a slot is known to belong to another deployment.

    A deploy writes the slot's file before it replaces the container, and may be killed in between.
    A container of an earlier version has no number.
    """
    number = running_number(runner, slot)
    return bool(number and deployment.number) and number != deployment.number


def running_number(runner: Runner, slot: str) -> int:
    """Return the number of the deployment that the API's container of a slot has; 0 without one."""
    return slot_files.number_of(_environment_of(runner, slot))


def running_settings(runner: Runner, slot: str) -> dict[str, str]:
    """Return the settings of a slot's containers; empty if there is no container.

    The containers of an earlier version have limits, but no variables with the limits.
    """
    values = _environment_of(runner, slot)
    if "ENVIRONMENT" not in values:
        return {}
    return slot_files.settings_in({**_limits_of(runner, slot), **values})


def _limits_of(runner: Runner, slot: str) -> dict[str, str]:
    """Return the limits of the containers of a slot, as `.env` writes them."""
    limits = {}
    for kind in ("api", "worker"):
        shown = _inspect(
            runner, f"{kind}-{slot}", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}"
        )
        words = shown.split()
        if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
            limits[f"{kind.upper()}_MEMORY"] = forms.memory_text(int(words[0]))
            limits[f"{kind.upper()}_CPUS"] = f"{int(words[1]) / NANO:g}"
    return limits


def _environment_of(runner: Runner, slot: str) -> dict[str, str]:
    """Return the variables of a slot's API container; empty if there is no container."""
    try:
        shown = json.loads(_inspect(runner, f"api-{slot}", "{{json .Config.Env}}"))
        pairs = [str(each).partition("=") for each in shown]
    except (ValueError, TypeError):
        return {}
    return {key: value for key, _, value in pairs}


def _inspect(runner: Runner, service: str, form: str) -> str:
    """Return a fact about a service's container; empty if there is no container."""
    listing = engine.compose("--profile", "*", "ps", "--all", "--quiet", service)
    containers = runner.read(listing).out.split()
    if len(containers) > 1:
        # `--all` also lists the container that a killed `docker compose run` left.
        label = f'{{{{index .Config.Labels "{engine.ONE_OFF_LABEL}"}}}}'
        containers = [
            each
            for each in containers
            if runner.read(engine.inspect_container(each, label)).out.strip() == "False"
        ]
    return runner.read(engine.inspect_container(containers[0], form)).out if containers else ""
