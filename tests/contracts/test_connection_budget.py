"""The scripts count the connections of all processes; Postgres accepts the default number."""

import runpy

import pytest
from stack.config.project import Project
from stack.rules import connections

from api.configuring.settings import Settings, WorkerSettings
from tests.api.settings_for_tests import make_settings
from tests.contracts.tree import ROOT, text
from worker.loop import METRICS_CONNECTIONS, QUEUE_CONNECTIONS


@pytest.fixture(scope="module")
def gunicorn() -> dict[str, object]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in make_settings().model_dump(mode="python").items():
            if name in {"database_password", "redis_password", "token_key"}:
                patch.setenv(name.upper(), value.get_secret_value())
        patch.setenv("ALLOWED_HOSTS", "api.example.org")
        return runpy.run_path(str(ROOT / "api/server/gunicorn_conf.py"))


@pytest.mark.parametrize("cpus", ["0.5", "1", "2", "3.5", "8", "64"])
@pytest.mark.parametrize("memory", [("64m", 64), ("256m", 256), ("1g", 1024), ("16g", 16384)])
def test_the_scripts_count_as_many_processes_as_gunicorn_starts(
    gunicorn: dict[str, object], cpus: str, memory: tuple[str, int]
) -> None:
    written, mebibytes = memory
    project = Project(ROOT, {"API_CPUS": cpus, "API_MEMORY": written})
    count = gunicorn["worker_count"]
    assert callable(count)
    assert connections.api_processes(project) == count(float(cpus), mebibytes * 1024**2)


def test_the_scripts_know_what_a_worker_opens_besides_its_jobs() -> None:
    listening = 1
    assert QUEUE_CONNECTIONS + listening + METRICS_CONNECTIONS == connections.WORKER_EXTRA


def test_the_defaults_are_those_of_the_settings() -> None:
    budget = connections.budget(Project(ROOT, {}))
    pool = Settings.model_fields["database_pool_size"].default
    assert budget["slipway.api.blue"] == connections.api_processes(Project(ROOT, {})) * pool
    concurrency = WorkerSettings.model_fields["worker_concurrency"].default
    processes = WorkerSettings.model_fields["worker_processes"].default
    assert budget["slipway.worker.blue"] == processes * (concurrency + connections.WORKER_EXTRA)


def test_the_default_budget_fits_and_is_explained_with_its_numbers() -> None:
    limits = connections.read_limits(Project(ROOT, {}))
    assert limits is not None
    assert connections.fault(Project(ROOT, {}), *limits) == ""
    total = sum(connections.budget(Project(ROOT, {})).values())
    assert f"{total} of the {limits[0] - limits[1]}" in text(".env.example")
