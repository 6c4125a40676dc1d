"""Orders the suite, reports outcomes to tests/run.py, and collects measured figures."""

import collections
import json
import os
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.scheduling import group_of, seconds_of

# Hypothesis tries the same examples in every run, so that you can reproduce a failure. Examples
# have no time limit, so that a busy machine causes no failure.
settings.register_profile(
    "same",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same")
KINDS = ("unit", "docker", "stack", "drill")
# The file that tests/run.py reads after pytest has ended. Only the main process writes this file,
# because the worker processes of pytest-xdist send their reports to the main process.
REPORT = "" if "PYTEST_XDIST_WORKER" in os.environ else os.environ.get("SLIPWAY_TEST_REPORT", "")
seconds: dict[str, float] = collections.defaultdict(float)
figures: list[str] = []


Figure = Callable[[str], None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Return a function that records a measured figure; the run prints all figures at its end."""
    return lambda text: record_property("figure", text)


@pytest.fixture(scope="module", autouse=True)
def leaves_no_trace() -> Iterator[None]:
    """Fail a file of tests that leaves the process another directory or other variables."""
    place, variables = Path.cwd(), dict(os.environ)
    yield
    left, changed = Path.cwd(), dict(os.environ)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(variables)
    for names in (variables, changed):
        names.pop("PYTEST_CURRENT_TEST", None)
    assert (left, changed) == (place, variables)


def uses_fixture(request: pytest.FixtureRequest, name: str) -> bool:
    """Whether any test in the file of the requesting test uses the fixture `name`."""
    tests = [test for test in request.session.items if test.path == request.path]
    return any(name in getattr(test, "fixturenames", ()) for test in tests)


def kind_of(marks: Container[str]) -> str:
    """Return the kind of a test with these marks."""
    return next((kind for kind in reversed(KINDS) if kind in marks), "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests: quick kinds first, to show mistakes early; in a kind, slow files first."""

    def place(item: pytest.Item) -> tuple[int, int, str]:
        kind = kind_of({mark.name for mark in item.iter_markers()})
        return KINDS.index(kind), -seconds_of(item.nodeid), item.nodeid.partition("::")[0]

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Give each worker process whole files, because the tests of a file share fixtures.

    Workers share a few long files (tests/scheduling.py).
    """
    config.option.loadscopereorder = False  # otherwise xdist sorts the files by number of tests
    scheduling = LoadFileScheduling(config, log)
    scheduling._split_scope = group_of
    return scheduling


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    seconds[kind_of(report.keywords)] += report.duration
    if report.when == "call":
        figures.extend(str(value) for name, value in report.user_properties if name == "figure")
    if REPORT:
        phase = {
            "test": report.nodeid,
            "phase": report.when,
            "outcome": report.outcome,
            "seconds": round(report.duration, 2),
            "counts_losses": "counts_losses" in report.keywords,
            "reason": report.longreprtext if report.failed else "",
        }
        with Path(REPORT).open("a", encoding="utf-8") as file:
            file.write(json.dumps(phase) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for figure in figures:
        terminalreporter.write_line(f"measured: {figure}")
    times = ", ".join(f"{name} {seconds[name]:.0f} s" for name in KINDS if seconds[name])
    if times:
        terminalreporter.write_line(f"time of each kind of test: {times}")
