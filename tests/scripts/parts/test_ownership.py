"""The owner record is written once, compared with paths, labels and the machine, and adopted."""

import json
from pathlib import Path

import pytest
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import inventory, ledger, machine, ownership
from stack.parts.inventory import Container, Inventory
from stack.rules.ownership import Owner
from stack.runner import Result

from tests.scripts.recording import RecordingRunner
from tests.scripts.stock import have_containers, make_other_checkout

ID = "0123456789abcdef" * 2


@pytest.fixture
def project(loaded: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "machine-id").write_text(f"{ID}\n", encoding="ascii")
    monkeypatch.setattr(machine, "ID_FILES", (tmp_path / "absent", tmp_path / "machine-id"))
    return loaded


def record(project: Project, owner: Owner) -> None:
    project.state.mkdir(parents=True, exist_ok=True)
    ownership.owner_file(project).write_text(json.dumps(vars(owner)), encoding="utf-8")


def fault(project: Project, stock: Inventory) -> str:
    with pytest.raises(Failure) as raised:
        ownership.refuse_others(project, stock)
    assert raised.value.runbook == ownership.RUNBOOK
    assert raised.value.hints[0] == "nothing was touched"
    return raised.value.observation


def running(checkout: Path, *services: str, project: str = "slipway") -> Inventory:
    listed = [Container(f"c-{name}", "running", project, name, str(checkout)) for name in services]
    return Inventory(tuple(listed))


def test_the_record_is_written_once_and_names_checkout_project_and_machine(
    runner: RecordingRunner, project: Project
) -> None:
    ownership.keep(runner, project)
    ownership.keep(runner, project)
    assert runner.written == [project.state / "owner.json"]
    assert ownership.read(project) == Owner(str(project.root), "slipway", ID)
    assert ownership.refuse_others(project, Inventory()) == ""


@pytest.mark.parametrize("text", [None, "", "uninitialized\n", "0123\n", "ü" * 32])
def test_a_host_without_a_machine_id_refuses_nothing_and_forgets_no_id(
    runner: RecordingRunner, project: Project, tmp_path: Path, text: str | None
) -> None:
    ownership.keep(runner, project)
    (tmp_path / "machine-id").unlink()
    if text is not None:
        (tmp_path / "machine-id").write_text(text, encoding="utf-8")
    assert machine.read_id() == ""
    assert ownership.refuse_others(project, Inventory()) == ""
    ownership.keep(runner, project)
    assert (ownership.read(project) or Owner("", "", "")).machine == ID


def test_a_record_without_a_machine_gets_the_id_when_there_is_one(
    runner: RecordingRunner, project: Project
) -> None:
    record(project, Owner(str(project.root), "slipway", ""))
    ownership.keep(runner, project)
    assert (ownership.read(project) or Owner("", "", "")).machine == ID


def test_the_other_checkout_is_refused_while_it_exists_and_taken_over_when_it_is_gone(
    runner: RecordingRunner, project: Project
) -> None:
    other = make_other_checkout(project.root)
    record(project, Owner(str(other), "slipway", ID))
    assert f"another checkout, {other}, owns" in fault(project, Inventory())
    # The engine creates empty folders in place of the mounts of the old directory.
    (other / "compose.yaml").unlink()
    note = ownership.refuse_others(project, Inventory())
    assert note == f"this checkout takes the stack over from {other}, which is gone"
    ownership.keep(runner, project)
    assert ownership.refuse_others(project, Inventory()) == ""


def test_a_link_to_this_checkout_is_this_checkout(project: Project) -> None:
    (project.root / "compose.yaml").touch()
    link = project.root.with_name("link")
    link.symlink_to(project.root)
    record(project, Owner(str(link), "slipway", ID))
    assert ownership.judge(project, running(link, "postgres")).faults == ()


def test_a_checkout_that_this_user_may_not_open_counts_as_there(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if path.parts[1] == "closed":
            raise PermissionError
        return is_file(path)

    record(project, Owner("/closed/checkout", "slipway", ID))
    monkeypatch.setattr(Path, "is_file", refuse)
    assert len(ownership.judge(project, Inventory()).faults) == 1


def test_running_containers_of_another_checkout_are_enough_where_its_state_is_elsewhere(
    project: Project,
) -> None:
    other = make_other_checkout(project.root)
    stock = running(other, "postgres", "redis")
    assert f"{other}, owns the project slipway, and runs its postgres, redis" in fault(
        project, stock
    )
    stopped = [Container("c", "exited", "slipway", "postgres", str(other))]
    assert ownership.judge(project, Inventory(tuple(stopped))).faults == ()
    assert ownership.judge(project, running(other, "postgres", project="x")).faults == ()


def test_a_changed_project_is_refused_by_the_record_while_the_former_one_has_volumes(
    runner: RecordingRunner, project: Project
) -> None:
    record(project, Owner(str(project.root), "former", ID))
    kept = Inventory(volumes=frozenset({"former_postgres", "former_slots"}))
    assert "belongs to the project former, whose volumes are here (former_postgres)" in fault(
        project, kept
    )
    without = Inventory(volumes=frozenset({"former_slots", "slipway_postgres"}))
    assert "takes the stack over" in ownership.refuse_others(project, without)


def test_a_ledger_without_a_record_knows_the_project_by_the_containers_of_the_checkout(
    project: Project,
) -> None:
    stock = Inventory(
        running(project.root, "postgres", project="former").containers,
        frozenset({"former_postgres"}),
    )
    assert ownership.judge(project, stock).faults == (), "a second stack with a state of its own"
    ledger.record(RecordingRunner(), project, "up", to="r", result="done")
    assert "belongs to the project former" in fault(project, stock)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"checkout": "/a"}'])
def test_a_damaged_record_is_none(project: Project, text: str) -> None:
    project.state.mkdir()
    ownership.owner_file(project).write_text(text, encoding="utf-8")
    assert ownership.read(project) is None


def test_containers_that_mount_another_directory_are_made_anew_when_they_do_not_run(
    runner: RecordingRunner, project: Project
) -> None:
    gone = project.root.with_name("gone")
    have_containers(runner, gone, "api-blue", "worker-blue", "api-green", state="exited")
    stock = inventory.look(runner)
    ownership.remove_stale(runner, project, stock, "blue", is_all=False)
    assert runner.ran == ["docker compose rm --stop --force api-blue worker-blue"]
    runner.ran.clear()
    have_containers(runner, gone, "api-blue", "worker-blue")
    stock = inventory.look(runner)
    ownership.remove_stale(runner, project, stock, "blue", is_all=False)
    assert runner.ran == []
    assert "api-blue, worker-blue mount files of another directory until" in runner.said[-1]
    ownership.remove_stale(runner, project, stock, "blue", is_all=True)
    assert runner.ran == ["docker compose rm --stop --force api-blue worker-blue"]


@pytest.mark.parametrize("service", ["postgres", "backup", "api-blue", "worker-blue"])
def test_what_is_stopped_and_started_again_must_be_able_to_start_after_a_move(
    project: Project, service: str
) -> None:
    gone = project.root.with_name("gone")
    with pytest.raises(Failure, match=f"{service} mount files of {gone}"):
        ownership.refuse_stale(project, running(gone, service), "blue")


def test_a_warm_idle_slot_and_what_is_not_stopped_refuse_nothing_after_a_move(
    project: Project,
) -> None:
    """The way out leaves the former slot stale until its window ends, and nothing starts it."""
    gone = project.root.with_name("gone")
    stock = running(gone, "api-green", "worker-green", "redis", "counter", "nginx")
    ownership.refuse_stale(project, stock, "blue")


def test_an_engine_that_does_not_answer_is_not_an_engine_without_volumes() -> None:
    for part in ("docker container ls", "docker volume ls"):
        silent = RecordingRunner()
        silent.reply(part, Result(1, err="Cannot connect"))
        with pytest.raises(Failure, match="the engine does not list"):
            inventory.look(silent)
        silent.is_dry = True
        assert inventory.look(silent) == Inventory()
        absent = RecordingRunner()
        absent.reply(part, Result(127, err="docker is not installed"))
        assert inventory.look(absent) == Inventory()
