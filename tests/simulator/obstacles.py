"""The true reasons why a command may refuse or fail, with the text that names each."""

import re
from dataclasses import dataclass

from stack.config.project import OPTIONAL_SECRETS, SECRETS
from stack.rules import migrations

from tests.simulator import truths
from tests.simulator.actions import NGINX_FILE, Action
from tests.simulator.containers import (
    BREAKS,
    CRASHES,
    FAILS_IN_TRAFFIC,
    GOOD,
    REFUSES,
    SLOTS,
    Container,
    Image,
)
from tests.simulator.deployments import Deployment
from tests.simulator.files import trait_of
from tests.simulator.host import Host

WORDS = {
    "disk": r"No space left|GB (are )?free",
    "no .env": "there is no .env here",
    "port": r"cannot use port|address already in use|nginx did not become healthy",
    CRASHES: r"did not become healthy",
    REFUSES: r"refuses LOG_LEVEL|did not become healthy",
    BREAKS: r"the smoke test of release",
    FAILS_IN_TRAFFIC: r"is worse than",
    "nginx file": r"nginx refuses the configuration",
    "unknown head": r"database is at .*, which this release does not know",
    "order": r"is a pre migration that follows",
    "not serving": r"the front door (is not ready|does not answer)",
    "moved": r"mount files of .* and could not start again",
    "no image": r"No such image|the image of release .* is not here|is neither here nor",
    "no target": r"there is no release to go back to|there is no deployment|did not become healthy",
    "live already": r"is live already",
    "nothing placed": r"no release is in slot",
    "half upgrade": r"postgres did not become healthy|POSTGRES_IMAGE: is Postgres",
    "stale secret": r"the front door did not answer|the smoke test of release",
    "schema": r"the schema is too new for release",
    "owner": r"another checkout, .* owns the project",
    "secret": r"secret file .* is missing|is not the secret that opens|does not open its data",
    "lost file": r"secret file .* is missing|_KEY|_PASSWORD|SENTRY|OFFSITE",
    "no counter": r"cannot watch: the counter gives no counts",
    "certificate": r"the certificate in .* is not for|nginx refuses|certificate verify failed",
    "half certificate": r"(privkey|fullchain)\.pem exists, but .* does not",
    "project": r"this state directory belongs to the project",
    "down": r"is not running|does not answer|Connection refused|is not up|No such image|"
    r"nginx sh -ec .* exited with 1",
    "no backup": r"there is no backup",
}
NEEDS_STACK = {"backup", "restore", "retire", "wait", "rollback", "upgrade"}
NEEDS_ENV = {"rollback", "status", "check-config", "backup", "restore", "retire", "upgrade"}


@dataclass(frozen=True)
class Obstacle:
    """One reason, by its key in WORDS."""

    kind: str

    def is_named_by(self, error: str) -> bool:
        """Whether an error line names this reason."""
        return bool(re.search(WORDS[self.kind], error))


def of(host: Host, action: Action) -> list[Obstacle]:
    """Return the reasons that forbid a command, before it runs."""
    kinds: list[str] = []
    has_env = (host.root / ".env").exists()
    if host.state.is_disk_full:
        kinds.append("disk")
    is_plan = "--plan" in action.words
    if not has_env and (action.name in NEEDS_ENV or is_plan):
        kinds.append("no .env")
    kinds += _of_owner(host, action)
    if action.name in {"up", "deploy"}:
        kinds += _of_start(host, action)
    if action.name == "deploy":
        kinds += _of_deploy(host, action)
    if action.name == "rollback" and has_env:
        kinds += _of_rollback(host, action)
    # A plan, a backup and the end of a window use the project that `.env` names.
    is_elsewhere = truths.is_of_another_project(host)
    # A window's process runs in the checkout that began it.
    is_elsewhere |= any(each.place != host.state.place for each in host.state.scheduled)
    if (action.name in NEEDS_STACK or is_plan) and (is_elsewhere or not _is_up(host)):
        kinds.append("down")
    if action.name in {"upgrade", "restore"}:
        kinds += ["not serving"] if host.serving() is None else []
        kinds += ["half upgrade"] if truths.is_upgrade_cut_off(host) else []
        kinds += ["moved"] if _is_restarted_stale(host) else []
    if action.name == "check-config" and not truths.is_anything_placed(host):
        kinds.append("nothing placed")
    if action.name == "restore" and not truths.look(host).backups:
        kinds.append("no backup")
    return [Obstacle(kind) for kind in kinds]


def _of_owner(host: Host, action: Action) -> list[str]:
    """Return the reasons why the checkout, its secrets or its `.env` do not fit the stack."""
    kinds = []
    if truths.other_checkouts(host) or truths.is_recorded_elsewhere(host):
        kinds.append("owner")
    if truths.lost_secrets(host) or host.state.secrets:
        kinds.append("secret")
    values = host.compose.values()
    if truths.is_of_another_project(host):
        kinds.append("project")
    if any(not (host.compose.secret(name)).is_file() for name in (*SECRETS, *OPTIONAL_SECRETS)):
        kinds.append("lost file")
    certificate = host.compose.secret("tls") / "fullchain.pem"
    if certificate.exists() != certificate.with_name("privkey.pem").exists():
        kinds.append("half certificate")
    wanted = truths.setting(values, "SLIPWAY_HOST")
    if certificate.is_file() and certificate.read_text(encoding="utf-8").strip() != wanted:
        kinds.append("certificate")
    return kinds


def _is_restarted_stale(host: Host) -> bool:
    """Whether a restore or an upgrade would stop a container that could not start again.

    The idle slot, Redis, the counter and nginx are not started again.
    """
    live = host.engine.link(host.project)
    slots = [live] if live else SLOTS
    restarted = {"postgres", "backup"}
    restarted |= {f"{kind}-{slot}" for kind in ("api", "worker") for slot in slots}
    return bool(restarted & {*truths.stale_services(host)})


def _is_up(host: Host) -> bool:
    return all(truths.is_well(host, name) for name in truths.SERVICES)


def _of_start(host: Host, action: Action) -> list[str]:
    """Return the reasons that forbid `up`, which `deploy` runs if the stack is not up."""
    kinds = []
    live = host.live_container(host.project)
    if live and truths.has_stale_secrets(host, live):
        kinds.append("stale secret")
    if truths.is_upgrade_cut_off(host):
        kinds.append("half upgrade")
    if has_broken_nginx(host):
        kinds.append("nginx file")
    is_starting = "--apply" in action.words or not host.engine.is_running(host.project, "nginx")
    if host.engine.used_ports and is_starting:
        kinds.append("port")
    placed = host.engine.image_of(f"slipway/app:{host.engine.link(host.project) or 'blue'}")
    trait = placed.trait if placed else trait_of(host.root)
    if trait in {CRASHES, REFUSES}:
        kinds.append(trait)
    return kinds


def has_broken_nginx(host: Host) -> bool:
    """Whether nginx' configuration in the checkout has a mistake."""
    return "broken" in (host.root / NGINX_FILE).read_text(encoding="utf-8")


def _of_deploy(host: Host, action: Action) -> list[str]:
    kinds = []
    trait, image = trait_of(host.root), None
    if "--image" in action.words:
        name = host.state.names.get(action.words[-1], action.words[-1])
        image = host.engine.image_of(f"slipway/app:{name}")
        if image is None:
            kinds.append("no image")
        trait = image.trait if image else GOOD
    if trait in {CRASHES, REFUSES, BREAKS} or (
        trait == FAILS_IN_TRAFFIC and host.engine.has_traffic
    ):
        kinds.append(trait)
    if image and not truths.knows_head(host, image.identifier):
        kinds.append("unknown head")
    if not truths.is_well(host, "counter"):
        kinds.append("no counter")
    if _has_order_fault(host, image):
        kinds.append("order")
    return kinds


def _has_order_fault(host: Host, image: Image | None) -> bool:
    database, live = host.database(), host.live_container(host.project)
    known = (
        migrations.parse_label(image.labels["slipway.migrations"])
        if image
        else migrations.revisions(host.root)
    )
    head = database.head if database else ""
    if live:  # a deploy first applies the live release's waiting migrations
        own = truths.known_migrations(host, live.image)
        names = [revision.identifier for revision in own]
        head = names[-1] if head in names else head
    names = [revision.identifier for revision in known]
    waiting = known[names.index(head) + 1 :] if head in names else [] if head else known
    return bool(migrations.order_fault(waiting))


def targets_of(host: Host, action: Action) -> list[Deployment]:
    """Return the deployments to which a rollback may lead."""
    if action.name != "rollback":
        return []
    name = action.words[1] if len(action.words) > 1 else ""
    idle = host.engine.image_of(f"slipway/app:{truths.idle_slot(host)}")
    name = host.state.names.get(name, name)
    return host.state.deployments.targets(host.engine, name, idle.content if idle else ())


def release_of(host: Host, container: Container) -> str:
    """Return the release of a container."""
    return host.engine.images[container.image].release


def _of_rollback(host: Host, action: Action) -> list[str]:
    kinds = []
    idle = host.engine.container(host.project, f"api-{truths.idle_slot(host)}")
    if idle and truths.has_stale_secrets(host, idle):
        kinds.append("stale secret")
    named = len(action.words) > 1
    targets, present = targets_of(host, action), host.state.deployments.live
    live = host.live_container(host.project)
    if named and present and (not targets or targets[0] is present or present in targets):
        kinds.append("live already")
    is_down = live is None and truths.is_placed(host, action.words[-1])
    if named and is_down:
        kinds.append("live already")
    if live and named and host.state.names.get(action.words[1]) == release_of(host, live):
        kinds.append("live already")
    made = host.engine.images.values()
    images = [image for target in targets for image in made if image.content == target.image]
    if not any(images):
        kinds += ["no image", "no target"]
    if targets and targets[0].is_good is None:
        kinds.append("no target")  # the ledger was lost, or has no result of the deploy
    database = host.database()
    for image in images:
        known = [r.identifier for r in truths.known_migrations(host, image.identifier)]
        head = known[-1] if known else ""
        later = (
            database.applied[database.applied.index(head) + 1 :]
            if (database and head in database.applied)
            else []
        )
        if any(host.state.phases.get(revision) == "post" for revision in later):
            kinds.append("schema")
    return kinds
