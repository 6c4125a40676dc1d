"""The number of connections of each client, and the error if Postgres accepts fewer."""

import pytest
from stack.config.project import Project
from stack.rules import connections


def with_values(project: Project, **values: str) -> Project:
    return Project(project.root, {**project.values, **values})


@pytest.mark.parametrize(
    ("values", "api", "worker"),
    [
        ({}, 2 * 5, 4 + 5),
        ({"API_PROCESSES": "8"}, 8 * 5, 9),
        ({"API_CPUS": "3.5", "API_MEMORY": "1g"}, 4 * 5, 9),
        ({"API_CPUS": "8"}, 2 * 5, 9),  # as many processes as fit into 256m
        ({"API_CPUS": "0.5"}, 2 * 5, 9),
        ({"DATABASE_POOL_SIZE": "1", "WORKER_CONCURRENCY": "1"}, 2, 6),
        ({"WORKER_PROCESSES": "3", "WORKER_CONCURRENCY": "2"}, 2 * 5, 3 * (2 + 5)),
    ],
)
def test_the_budget_counts_both_slots_and_what_else_connects(
    loaded: Project, values: dict[str, str], api: int, worker: int
) -> None:
    assert connections.budget(with_values(loaded, **values)) == {
        "slipway.api.blue": api,
        "slipway.worker.blue": worker,
        "slipway.api.green": api,
        "slipway.worker.green": worker,
        "slipway.migrate.none": 2,
        "operator": 2,
    }


def test_an_overdrawn_budget_names_the_numbers_and_the_keys_to_change(loaded: Project) -> None:
    assert connections.fault(loaded, 45, 3) == ""
    text = connections.fault(with_values(loaded, API_PROCESSES="8"), 60, 3)
    for part in (
        "may open 102 connections, and Postgres takes 57 (60 less 3 reserved)",
        "each slot's API 8 x 5, each worker 9, others 4",
        "lower DATABASE_POOL_SIZE, API_PROCESSES, WORKER_PROCESSES or WORKER_CONCURRENCY in .env",
        "max_connections in postgres/postgresql.conf",
    ):
        assert part in text


def test_what_postgres_takes_is_read_from_its_configuration(loaded: Project) -> None:
    assert connections.read_limits(loaded) is None
    file = loaded.root / "postgres/postgresql.conf"
    file.write_text(
        "max_connections = 60\nsuperuser_reserved_connections=3  # three\n", encoding="utf-8"
    )
    assert connections.read_limits(loaded) == (60, 3)
