"""The invariants, which must hold after each action, even after a failure."""

from dataclasses import dataclass

from stack.parts.slot_files import HOSTS

from tests.simulator import obstacles, truths
from tests.simulator.actions import Action
from tests.simulator.containers import (
    BREAKS,
    CRASHES,
    FAILS_IN_TRAFFIC,
    REFUSES,
    SERVICE_KEYS,
    Container,
)
from tests.simulator.deployments import Deployment
from tests.simulator.host import Host
from tests.simulator.obstacles import Obstacle
from tests.simulator.operators import KILLED, TRACEBACK, Outcome, type_command
from tests.simulator.truths import Truth

RUNS_LIVE = {"deploy", "rollback", "up", "restore", "upgrade"}
STOPS_IDLE_WORKER = {"deploy", "rollback", "up"}
READS = {"status", "check-config"}
ROLLED_BACK, NEEDS_A_PERSON, LOCKED = 4, 5, 3


@dataclass(frozen=True)
class Violation:
    """One breach: the rule and the observation."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True)
class Step:
    """One action with the facts before and after it.

    Attributes:
        outcome: the outcome of the command; None for an event.
        in_the_way: the true reasons for the command to refuse.
        targets: the deployments to which a rollback may lead.
        is_new: whether any fact changed on which `status` depends.
    """

    host: Host
    action: Action
    before: Truth
    after: Truth
    outcome: Outcome | None
    in_the_way: list[Obstacle]
    targets: list[Deployment]
    is_new: bool

    @property
    def is_disturbed(self) -> bool:
        """Whether the command itself had a fault."""
        return self.outcome is not None and self.outcome.is_hit

    @property
    def code(self) -> int:
        """The exit code of the command."""
        return self.outcome.code if self.outcome else 0

    @property
    def is_plan(self) -> bool:
        """Whether the command only prints what it would do."""
        return "--plan" in self.action.words or self.action.name in READS


def _deployed(container: Container) -> tuple[str, dict[str, str]]:
    """Return a container's image and its deployment's settings, which do not include SLIPWAY_HOST.

    Only the API reads the host's name, so `up` does not replace a running worker for it.
    """
    values = {key: text for key, text in container.environment.items() if key != HOSTS}
    return container.image, values


def one_live_slot(step: Step) -> list[Violation]:
    """The link names a slot; after a command that succeeded, exactly one slot works."""
    host, rule = step.host, "one live slot"
    engine, project = host.engine, host.project
    if step.after.link not in {"", "blue", "green"}:
        return [Violation(rule, f"the link names {step.after.link}")]
    # An upgrade starts the services that it stopped, and repairs nothing.
    if step.action.name not in RUNS_LIVE - {"upgrade"} or step.code != 0 or step.is_plan:
        return []
    breaches = []
    if not step.after.link:
        breaches.append("there is no link")
    worker, live = (
        engine.container(project, f"worker-{step.after.link}"),
        host.live_container(project),
    )
    if worker is None or not worker.takes_jobs:
        breaches.append(f"worker-{step.after.link} takes no jobs")
    elif live and _deployed(worker) != _deployed(live):
        breaches.append(f"{worker.service} is of another deployment than {live.service}")
    other = engine.container(project, f"worker-{truths.idle_slot(host)}")
    if other and other.takes_jobs and step.action.name in STOPS_IDLE_WORKER:
        breaches.append(f"{other.service} of the idle slot takes jobs")
    spare = engine.container(project, f"api-{truths.idle_slot(host)}")
    known = host.state.deployments
    if (
        (spare and spare.state == "running" and known.find(engine, spare) is None)
        and step.action.name == "up"
        and not known.is_forgotten
    ):
        breaches.append(f"{spare.service} runs on, and was never live")
    return [Violation(rule, breach) for breach in breaches]


def acknowledged_stays(step: Step) -> list[Violation]:
    """Each acknowledged row, and each applied migration, is in the database of the project."""
    host, rule = step.host, "what was acknowledged stays"
    database = host.database()
    rows, applied = (database.rows, database.applied) if database else (0, [])
    breaches = []
    acknowledged = host.state.clients.acknowledged
    if step.action.name == "restore" and step.code not in {1, ROLLED_BACK}:
        # It announces that rows written while it runs are lost.
        acknowledged = min(acknowledged, max(rows, step.before.acknowledged))
        host.state.clients.acknowledged = acknowledged
    if rows < acknowledged:
        breaches.append(f"{rows} rows of {acknowledged} are there")
    missing = [revision for revision in host.state.applied if revision not in applied]
    if missing:
        breaches.append(f"migrations are gone: {missing}")
    if step.code == 0 and step.action.name in RUNS_LIVE and not step.is_plan:
        backups = host.engine.volumes.get(f"{host.project}_backups")
        key = host.compose.read_secret("backup_key")
        if backups and backups.backups.key not in {"", key}:
            breaches.append("no file holds the key of the backups")
    return [Violation(rule, breach) for breach in breaches]


def nothing_replaced_unasked(step: Step) -> list[Violation]:
    """No command stops or replaces a serving container, and none makes a client's request fail.

    A restore and an upgrade are announced as outages. `up --apply` replaces the containers that it
    names; after a bare `docker compose up`, these may be all containers. An event is an action by
    hand; a bare `docker compose up` keeps the slots unless somebody edited a limit.
    """
    rule, events = "nothing that serves is replaced unasked", step.host.engine.replaced
    if step.action.name == "bare-up":
        return [
            Violation(rule, f"{service} was {event} by a bare `docker compose up`")
            for service, event in events
            if service.startswith("api-") and not step.before.has_new_limits
        ]
    if step.outcome is None or step.action.name in {"restore", "upgrade"}:
        return []
    asked = truths.named(step.action.words)
    breaches = [f"{service} was {event}" for service, event in events if service not in asked]
    failed = step.after.failed - step.before.failed
    if step.before.is_serving and failed and not asked:
        breaches.append(f"{failed} requests failed")
    return [Violation(rule, breach) for breach in breaches]


def succeeds_or_refuses_truly(step: Step) -> list[Violation]:
    """A command succeeds, or it fails with a reason that is true, a hint and a runbook entry."""
    rule, outcome = "the next command succeeds, or refuses with a true reason", step.outcome
    if outcome is None or outcome.code in {0, KILLED}:
        return []
    if outcome.code == TRACEBACK or "a fault of these scripts" in outcome.error:
        return [Violation(rule, f"{outcome.error or outcome.lines[-1]} {outcome.trace}")]
    if step.action.name in READS and outcome.code == 1 and not outcome.error:
        return []  # its rows are the answer
    breaches = []
    kinds = [line.partition(": ")[0] for line in outcome.report]
    if outcome.code != 130 and (
        kinds.count("error") != 1 or kinds.count("RUNBOOK") != 1 or "HINT" not in kinds
    ):
        breaches.append(f"the report has no complete form: {outcome.report}")
    if not step.is_disturbed:
        names = [reason.kind for reason in step.in_the_way]
        if not step.in_the_way:
            breaches.append(f"nothing stands in the way, and it ends with: {outcome.error}")
        elif not any(reason.is_named_by(outcome.error) for reason in step.in_the_way):
            breaches.append(f"the reason is {' and '.join(names)}, and it says: {outcome.error}")
    return [Violation(rule, breach) for breach in breaches]


def status_tells_the_truth(step: Step) -> list[Violation]:
    """`status` is green when everything works, and red when anything does not."""
    host, rule = step.host, "status tells the truth"
    if not (host.root / ".env").exists() or not step.is_new:
        return []
    shown = type_command(host, ["status"])
    faults = truths.faults_of_stack(host)
    if shown.code == 0 and faults:
        return [Violation(rule, f"it is green, and {'; '.join(faults)}")]
    if shown.code != 0 and not faults and truths.is_settled(host):
        red = [line for line in shown.lines if line.startswith(("!!", "error", "traceback"))]
        return [Violation(rule, f"nothing is wrong, and it is red: {'; '.join(red)}")]
    return []


def rollback_is_exact(step: Step) -> list[Violation]:
    """A rollback leads to the deployment that it names: its image, its settings, nothing else."""
    if step.action.name != "rollback" or step.code != 0:
        return []
    host, rule = step.host, "a rollback leads to exactly the deployment that it names"
    live, breaches = host.live_container(host.project), []
    targets, is_named = step.targets, len(step.action.words) > 1
    content = host.engine.images[live.image].content if live else ()
    if is_named and not targets:
        pass  # a deployment that was rolled back: only its name or number selects it
    elif not live or not (same := [each for each in targets if each.image == content]):
        names = [f"{target.release} ({target.number})" for target in targets] or ["none"]
        breaches.append(f"it leads to {step.after.release}; right is {' or '.join(names)}")
    elif not any(each.settings in ({}, live.settings) for each in same):
        then = same[0].settings
        changed = sorted(key for key, value in live.settings.items() if then.get(key) != value)
        breaches.append(f"its settings are not those of the deployment: {', '.join(changed)}")
    before, after = dict(step.before.environment), dict(step.after.environment)
    moved = sorted(
        key for key in {*before, *after} - SERVICE_KEYS if before.get(key, "") != after.get(key, "")
    )
    if moved:
        breaches.append(f"it changed keys that are not the service's: {', '.join(moved)}")
    return [Violation(rule, breach) for breach in breaches]


def exit_codes_are_true(step: Step) -> list[Violation]:
    """0 means that the command had its effect, 1 that nothing changed, 4 that it rolled back."""
    if step.outcome is None or step.code in {KILLED, TRACEBACK}:
        return []
    rule, before, after = "exit codes are true", step.before, step.after
    breaches = []
    if step.code == LOCKED:
        breaches.append("3, and nobody else works on the host")
    is_same = (before.link, before.container) == (after.link, after.container)
    if step.code in {1, ROLLED_BACK} and before.is_serving and not is_same:
        breaches.append(f"{step.code}, and {after.link} is live in the place of {before.link}")
    if step.code == NEEDS_A_PERSON and not step.is_disturbed and not step.in_the_way:
        breaches.append("5, and nothing failed")
    if step.is_plan and step.outcome.steps:
        breaches.append(f"it only reads, and it did {step.outcome.steps[0]}")
    if step.code == 0 and not step.is_plan:
        breaches += _missing_effect(step)
    return [Violation(rule, breach) for breach in breaches]


def _missing_effect(step: Step) -> list[str]:
    """Return the missing effects of a command that exited with 0."""
    host, name, after = step.host, step.action.name, step.after
    is_asked = name != "upgrade" or step.before.is_serving  # it repairs nothing
    if name in RUNS_LIVE and is_asked and not after.is_serving:
        return ["0, and no request succeeds"]
    if name in RUNS_LIVE and step.before.is_overdue and after.is_overdue:
        return ["0, and no process will end the rollback window, which is over"]
    if name == "deploy":
        wanted = (
            host.state.names.get(step.action.words[-1], "")
            if "--image" in step.action.words
            else truths.checkout_release(host)
        )
        is_wrong = after.release != wanted
        wrong = [f"0, and {after.release} is live, not {wanted}"] if is_wrong else []
        return wrong or _faults_of_deployed(step)
    if name == "up":
        weak = [
            service
            for service in truths.SERVICES
            if not (container := host.engine.container(host.project, service))
            or not container.is_well
        ]
        return [f"0, and {', '.join(weak)} does not run"] if weak else []
    if name == "backup" and after.backups != step.before.backups + 1:
        return ["0, and there is no new backup"]
    return []


def _faults_of_deployed(step: Step) -> list[str]:
    """Return the faults of a deployment that a deploy accepted as good."""
    host, live = step.host, step.host.live_container(step.host.project)
    if live is None:
        return []
    keys = truths.differing_settings(host, live)
    faults = [f"0, and {', '.join(keys)} of .env is not in effect"] if keys else []
    trait = host.engine.images[live.image].trait
    # The watch compares with the former release, which may have failed as often.
    is_worse = trait == FAILS_IN_TRAFFIC != step.before.trait
    is_bad = trait in {BREAKS, CRASHES, REFUSES} or (is_worse and host.engine.has_traffic)
    # If nothing was live, `deploy` ran `up`, which has no release to roll back to.
    was_live = step.before.is_up and step.before.is_serving
    return [*faults, f"0, and its release {trait}"] if is_bad and was_live else faults


RULES = (
    one_live_slot,
    acknowledged_stays,
    nothing_replaced_unasked,
    succeeds_or_refuses_truly,
    rollback_is_exact,
    exit_codes_are_true,
    status_tells_the_truth,
)


def check(step: Step) -> list[Violation]:
    """Return every breach of every invariant; `status` comes last, because it runs a command."""
    return [violation for rule in RULES for violation in rule(step)]


def reasons(host: Host, action: Action) -> list[Obstacle]:
    """Return the reasons that forbid an action."""
    return obstacles.of(host, action) if action.is_command or action.name == "wait" else []
