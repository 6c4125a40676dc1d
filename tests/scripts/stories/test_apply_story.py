"""`up.sh` replaces the named services one at a time, and undoes a replacement that fails."""

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from stack.config.project import load
from stack.failure import NEEDS_A_PERSON, ROLLED_BACK, Failure
from stack.https import Answer, Question
from stack.parts import applied
from stack.runner import Result
from stack.stories import up

from tests.scripts.conftest import Typed
from tests.scripts.imitation import failure_of, set_values
from tests.scripts.machine import WAIT, Machine, container, ledger
from tests.scripts.recording import RecordingRunner
from tests.scripts.stock import have_containers

DATA = ("postgres", "redis", "backup")
SERVING = ("nginx", "counter", *DATA, "api-blue", "worker-blue")
REPLACE = WAIT.replace("--no-deps", "--no-deps --force-recreate")
SECONDS = {"nginx": 90, "counter": 90, "postgres": 120, "redis": 120, "backup": 120}


@dataclass
class Stack:
    """A stack that serves, on the imitation of a machine.

    Attributes:
        replaced: the service and the given variables of each replacement.
    """

    runner: RecordingRunner
    machine: Machine
    checkout: Path

    def starts(self, former_count: int = 0) -> list[str]:
        return [each for each in self.runner.ran[former_count:] if "compose up" in each]

    def fail(self, service: str, *, times: int = 1) -> list[dict[str, str]]:
        """Make this many starts of a service fail; return the variables of each start."""
        given: list[dict[str, str]] = []

        def start() -> Result:
            given.append(self.runner.environments[-1])
            is_failing = len(given) <= times
            health = "unhealthy" if is_failing else "healthy"
            others = "".join(container(name) for name in SERVING if name != service)
            self.machine.containers = others + container(service, health=health)
            return Result(int(is_failing), err="no such value\n" * is_failing)

        self.runner.reply(f"{REPLACE} --wait-timeout {SECONDS[service]} {service}", start)
        return given


def inspected(*, mib: int = 256) -> Result:
    """Return the engine's description of a container of Postgres."""
    limits = {"Memory": mib * 1024**2, "NanoCpus": 2_000_000_000}
    environment = {"Env": ["POSTGRES_BALLAST_MB=256", "PATH=/bin"]}
    facts = {"Image": "sha256:former", "Config": environment, "HostConfig": limits}
    return Result(0, json.dumps(facts))


@pytest.fixture
def stack(runner: RecordingRunner, machine: Machine, checkout: Path) -> Stack:
    up.run(runner, checkout)
    machine.containers = "".join(container(name) for name in SERVING)
    have_containers(runner, checkout, *SERVING)
    runner.reply("docker inspect", Result(1))
    runner.reply("slipway-postgres-1", inspected())
    runner.said.clear()
    return Stack(runner, machine, checkout)


KEEP = WAIT.replace("--no-deps", "--no-deps --no-recreate")


def be_busy(stack: Stack, *, is_lasting: bool = False) -> None:
    """Have Postgres run unhealthily; it recovers while a command waits for it, unless it lasts."""
    busy = "".join(container(name) for name in SERVING if name != "postgres")
    busy += container("postgres", health="unhealthy")
    serving, stack.machine.containers = stack.machine.containers, busy

    def wait() -> Result:
        stack.machine.containers = busy if is_lasting else serving
        return Result(int(is_lasting), err="unhealthy\n" * is_lasting)

    stack.runner.reply(f"{KEEP} --wait-timeout 120 postgres", wait)


def test_a_busy_service_keeps_its_container_while_a_setting_waits(stack: Stack) -> None:
    set_values(stack.checkout, POSTGRES_MEMORY="400m")
    be_busy(stack)
    done = len(stack.runner.ran)
    up.run(stack.runner, stack.checkout)
    assert stack.starts(done) == [f"{KEEP} --wait-timeout 120 postgres"]
    assert applied.waiting(stack.runner, load(stack.checkout)) == {"postgres": ["POSTGRES_MEMORY"]}
    assert any("not applied: POSTGRES_MEMORY" in line for line in stack.runner.said)


def test_a_service_that_stays_unhealthy_is_replaced_by_apply_alone(stack: Stack) -> None:
    set_values(stack.checkout, POSTGRES_MEMORY="400m")
    be_busy(stack, is_lasting=True)
    failed = failure_of(lambda: up.run(stack.runner, stack.checkout))
    assert "postgres did not become healthy" in failed.observation
    assert failed.hints[-1] == "./scripts/up.sh --apply postgres gives it the settings of .env"
    assert applied.waiting(stack.runner, load(stack.checkout)) == {"postgres": ["POSTGRES_MEMORY"]}


def test_an_unhealthy_service_for_which_nothing_waits_is_started_as_before(stack: Stack) -> None:
    be_busy(stack)
    done = len(stack.runner.ran)
    healthy = "".join(map(container, SERVING))

    def start() -> Result:
        stack.machine.containers = healthy
        return Result(0)

    stack.runner.reply(f"{WAIT} --wait-timeout 120 postgres", start)
    up.run(stack.runner, stack.checkout)
    assert stack.starts(done) == [f"{WAIT} --wait-timeout 120 postgres"]


def test_up_replaces_nothing_that_serves_and_names_what_waits(stack: Stack) -> None:
    set_values(stack.checkout, POSTGRES_MEMORY="400m", NGINX_CPUS="0.5", BACKUP_HOURS="3")
    former_count = len(stack.runner.ran)
    up.run(stack.runner, stack.checkout)
    assert stack.starts(former_count) == []
    waiting = [line.strip() for line in stack.runner.said if "not applied" in line]
    assert waiting == [
        "not applied: POSTGRES_MEMORY: ./scripts/up.sh --apply postgres, about 4 s of 503 "
        "(an estimate: not measured on this host yet)",
        "not applied: BACKUP_HOURS: ./scripts/up.sh --apply backup, about 4 s without backups; "
        "no request is affected (an estimate: not measured on this host yet)",
        "not applied: NGINX_CPUS: ./scripts/up.sh --apply nginx, about 4 s in which connections "
        "are refused (an estimate: not measured on this host yet)",
    ]


@pytest.mark.parametrize("service", ["nginx", "counter", *DATA])
def test_the_named_service_alone_is_replaced(stack: Stack, typed: Typed, service: str) -> None:
    set_values(stack.checkout, POSTGRES_MEMORY="400m", NGINX_CPUS="0.5")
    former_count = len(stack.runner.ran)
    assert typed("up", "--apply", service) == 0
    assert stack.starts(former_count) == [f"{REPLACE} --wait-timeout {SECONDS[service]} {service}"]
    entry = ledger(stack.checkout)[-1]
    assert (entry["action"], entry["service"], entry["result"]) == ("apply", service, "done")
    assert typed("status", "--history") == 0
    assert f"  root  apply {service} " in stack.runner.said[-2].replace(str(entry["who"]), "root")


def test_all_means_each_that_waits_in_the_order_of_a_start(stack: Stack, typed: Typed) -> None:
    set_values(stack.checkout, POSTGRES_MEMORY="400m", NGINX_CPUS="0.5")
    former_count = len(stack.runner.ran)
    assert typed("up", "--apply", "all") == 0
    assert [each.split()[-1] for each in stack.starts(former_count)] == ["postgres", "nginx"]
    assert applied.waiting(stack.runner, load(stack.checkout)) == {}
    stack.runner.reply("slipway-postgres-1", inspected(mib=400))
    former_count = len(stack.runner.ran)
    assert typed("up", "--apply", "all") == 0
    assert stack.starts(former_count) == []


def test_the_seconds_are_those_of_the_last_time_on_this_host(stack: Stack) -> None:
    def start() -> Result:
        stack.runner.now += 6.2
        return Result(0)

    stack.runner.reply(f"{REPLACE} --wait-timeout 120 postgres", start)
    set_values(stack.checkout, POSTGRES_MEMORY="400m")
    up.run(stack.runner, stack.checkout, named=("postgres",))
    set_values(stack.checkout, POSTGRES_MEMORY="500m")
    up.run(stack.runner, stack.checkout)
    assert (
        "    not applied: POSTGRES_MEMORY: ./scripts/up.sh --apply postgres, about 7 s of 503"
        in (stack.runner.said)
    )


def test_a_service_that_does_not_start_gets_its_former_image_and_values_again(
    stack: Stack,
) -> None:
    set_values(stack.checkout, POSTGRES_MEMORY="400m")
    given = stack.fail("postgres")
    failed = failure_of(lambda: up.run(stack.runner, stack.checkout, named=("postgres",)))
    assert failed.code == ROLLED_BACK
    assert failed.hints[-2].startswith("the former postgres serves again")
    assert failed.runbook == "a-service-keeps-restarting"
    assert stack.runner.has_run("docker tag sha256:former slipway/app-postgres:current")
    assert "POSTGRES_MEMORY" not in given[0], "the new container gets the values of .env"
    assert given[1]["POSTGRES_MEMORY"] == "256m"
    assert list(applied.waiting(stack.runner, load(stack.checkout))) == ["postgres"]
    assert ledger(stack.checkout)[-1]["result"] == "failed"


def test_a_former_service_that_does_not_start_either_needs_a_person(stack: Stack) -> None:
    stack.fail("postgres", times=2)
    failed = failure_of(lambda: up.run(stack.runner, stack.checkout, named=("postgres",)))
    assert failed.code == NEEDS_A_PERSON
    assert ledger(stack.checkout)[-1]["result"] == "failed"


def listening_at(stack: Stack, port: Callable[[], int]) -> Callable[[Question], Answer]:
    def answer(question: Question) -> Answer:
        if question.port != port():
            return Answer(0, error="connection refused")
        return stack.machine.answer(question)

    return answer


@pytest.mark.parametrize("is_answering", [True, False])
def test_a_new_port_is_asked_once_nginx_has_it_and_the_former_one_comes_back(
    stack: Stack, ports: dict[str, int], monkeypatch: pytest.MonkeyPatch, *, is_answering: bool
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        new = free.getsockname()[1]
    former, bound = ports["HTTPS_PORT"], [ports["HTTPS_PORT"]]
    monkeypatch.setenv("HTTPS_PORT", str(new))
    stack.runner.door = listening_at(stack, lambda: bound[-1])
    up.run(stack.runner, stack.checkout)  # connects to nginx' port, not to that of .env
    assert f":{former} answers with release" in "\n".join(stack.runner.said)

    def replace() -> Result:
        is_put_back = stack.runner.environments[-1].get("HTTPS_PORT") == str(former)
        bound.append(former if is_put_back else new if is_answering else 1)
        return Result(0)

    stack.runner.reply(f"{REPLACE} --wait-timeout 90 nginx", replace)
    if is_answering:
        up.run(stack.runner, stack.checkout, named=("nginx",))
    else:
        action = lambda: up.run(stack.runner, stack.checkout, named=("nginx",))  # noqa: E731
        assert failure_of(action).code == ROLLED_BACK
    assert bound[-1] == (new if is_answering else former)
    assert applied.front_door(load(stack.checkout)).https_port == bound[-1]


@pytest.mark.parametrize("is_mended", [True, False])
def test_where_nothing_answered_before_the_health_of_the_new_container_decides(
    stack: Stack, *, is_mended: bool
) -> None:
    """A Postgres with too little memory keeps /readyz at 503: --apply must be able to fix that."""
    serving = "".join(container(name) for name in SERVING if name != "postgres")
    stack.machine.containers = serving + container("postgres", health="unhealthy")
    door = stack.runner.door
    replaced: list[bool] = []

    def start() -> Result:
        replaced.append(True)
        stack.machine.containers = serving + container("postgres")
        return Result(0)

    def answer(question: Question) -> Answer:
        return door(question) if replaced and is_mended else Answer(503)

    stack.runner.reply(f"{REPLACE} --wait-timeout 120 postgres", start)
    stack.runner.door = answer
    set_values(stack.checkout, POSTGRES_MEMORY="400m")
    former_count = len(stack.runner.ran)

    def action() -> None:
        up.run(stack.runner, stack.checkout, named=("postgres",))

    if is_mended:
        action()
    else:
        assert failure_of(action).runbook == "site-down"
    assert stack.starts(former_count) == [f"{REPLACE} --wait-timeout 120 postgres"]
    assert applied.waiting(stack.runner, load(stack.checkout)) == {}


def test_stopped_services_start_with_the_settings_of_env_and_wait_for_nothing(
    stack: Stack,
) -> None:
    set_values(stack.checkout, POSTGRES_MEMORY="400m")
    serving = [name for name in SERVING if name != "postgres"]
    stack.machine.containers = "".join(container(name) for name in serving)
    have_containers(stack.runner, stack.checkout, *serving)
    former_count = len(stack.runner.ran)
    up.run(stack.runner, stack.checkout)
    assert stack.starts(former_count) == [f"{WAIT} --wait-timeout 120 postgres"]
    assert applied.waiting(stack.runner, load(stack.checkout)) == {}


def test_a_developer_s_stack_replaces_what_changed_at_each_run(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    set_values(checkout, COMPOSE_FILE="compose.yaml:compose.dev.yaml")
    machine.containers = "".join(container(name) for name in (*SERVING, "sink"))
    up.run(runner, checkout)
    assert f"{WAIT} --wait-timeout 120 postgres redis backup" in runner.ran
    assert f"{WAIT} --wait-timeout 90 api-blue worker-blue counter nginx sink" in runner.ran


def test_refresh_replaces_each_service_whose_base_is_new(stack: Stack, typed: Typed) -> None:
    former_count = len(stack.runner.ran)
    assert typed("up", "--refresh-bases") == 0
    assert [each.split()[-1] for each in stack.starts(former_count)] == list(applied.SERVICES)


def test_another_name_is_no_service(typed: Typed, stack: Stack) -> None:
    former_count = len(stack.runner.ran)
    with pytest.raises(SystemExit) as ended:
        typed("up", "--apply", "api-blue")
    assert ended.value.code == 2
    assert stack.runner.ran[former_count:] == []


def test_a_dry_run_prints_the_replacement_and_keeps_nothing(stack: Stack) -> None:
    file = load(stack.checkout).state / "applied.json"
    before = file.read_bytes()
    dry = RecordingRunner(is_dry=True)
    Machine(dry).containers = stack.machine.containers
    have_containers(dry, stack.checkout, *SERVING)
    dry.reply("docker inspect", Result(1))
    set_values(stack.checkout, POSTGRES_MEMORY="400m")
    up.run(dry, stack.checkout, named=("postgres",))
    assert dry.has_run(f"{REPLACE} --wait-timeout 120 postgres")
    assert file.read_bytes() == before


def test_ctrl_c_puts_the_former_container_back(stack: Stack) -> None:
    given = stack.fail("postgres", times=0)

    def interrupt() -> Result:
        given.append(stack.runner.environments[-1])
        if len(given) == 1:
            raise KeyboardInterrupt
        return Result(0)

    stack.runner.reply(f"{REPLACE} --wait-timeout 120 postgres", interrupt)
    with pytest.raises(Failure, match="stopped by Ctrl-C") as raised:
        up.run(stack.runner, stack.checkout, named=("postgres",))
    assert raised.value.code == ROLLED_BACK
    assert len(given) == 2
