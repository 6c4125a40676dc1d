"""The worker runs a task only if the task is registered."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from procrastinate import JobContext

import api
from api.configuring.domains import import_from_domains
from api.storing.jobs import queue
from worker.loop import OWN_QUEUES
from worker.registry import RULES, job, own_queues

ROOT = Path(api.__file__).parents[1]
BUILT_IN = ("builtin:", "procrastinate.")  # prefixes of the two names of procrastinate's own task


@pytest.fixture
def probe_task() -> Iterator[str]:
    """Register a task that no list contains; return its name."""
    name = "tests.probe"

    @job(name, limit_seconds=1)
    async def probe(context: JobContext) -> None: ...

    yield name
    del RULES[name], queue.tasks[name]


def test_a_registered_task_is_taken_without_a_list(probe_task: str) -> None:
    assert probe_task not in OWN_QUEUES
    assert probe_task in own_queues()


def test_the_worker_takes_every_task_of_the_queue_from_a_queue_of_its_name() -> None:
    tasks = {name: task for name, task in queue.tasks.items() if not name.startswith(BUILT_IN)}
    assert sorted(tasks) == OWN_QUEUES
    assert {name: task.queue for name, task in tasks.items()} == {name: name for name in OWN_QUEUES}


def test_every_task_that_the_api_can_enqueue_is_taken() -> None:
    names = {
        value
        for module in import_from_domains(api, "tasks")
        for key, value in vars(module).items()
        if key.isupper()
    }
    assert names
    assert names <= set(OWN_QUEUES)


def test_the_tasks_of_a_new_domain_are_taken(tmp_path: Path) -> None:
    folder = tmp_path / "parcels"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "tasks.py").write_text(
        "from worker.registry import job\n\n\n"
        '@job("parcels.send", limit_seconds=1)\n'
        "async def send(context): ...\n",
        encoding="utf-8",
    )
    # In a separate process, because a task cannot be removed from procrastinate's schedule.
    code = (
        f"import worker; worker.__path__.append({str(tmp_path)!r})\n"
        "from worker.loop import OWN_QUEUES\n"
        "assert 'parcels.send' in OWN_QUEUES, OWN_QUEUES\n"
        "assert 'exports.write' in OWN_QUEUES, OWN_QUEUES\n"
    )
    argv = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr


def test_a_domain_whose_tasks_cannot_be_imported_stops_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "tasks.py").write_text("import a_module_that_is_not_there\n", encoding="utf-8")
    worker = import_module("worker")
    monkeypatch.setattr(worker, "__path__", [*worker.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        import_from_domains(worker, "tasks")
