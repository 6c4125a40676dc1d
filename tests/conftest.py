"""Times each part of the suite and says at the end what a person can do next."""

import collections
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, and no limit of time on any: what fails here, fails again, on a busy machine too.
settings.register_profile(
    "same",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same")
PARTS = ("drill", "stack", "docker")
seconds: dict[str, float] = collections.defaultdict(float)
figures: list[str] = []
parts: dict[str, str] = {}


Figure = Callable[[str], None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Keeps a measured figure; all are printed at the end of the run."""
    return lambda text: record_property("figure", text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quick tests first: a slip shows in seconds, before any container starts."""
    for item in items:
        parts[item.nodeid] = next((name for name in PARTS if item.get_closest_marker(name)), "unit")
    order = ("unit", "docker", "stack", "drill")
    items.sort(key=lambda item: order.index(parts[item.nodeid]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    seconds[parts[report.nodeid]] += report.duration
    if report.when == "call":
        figures.extend(str(value) for name, value in report.user_properties if name == "figure")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    for figure in figures:
        terminalreporter.write_line(f"measured: {figure}")
    times = ", ".join(
        f"{name} {seconds[name]:.0f} s"
        for name in ("unit", "docker", "stack", "drill")
        if seconds[name]
    )
    terminalreporter.write_line(f"time of each part: {times}")
    if exitstatus == 0:
        terminalreporter.write_line(
            "next: ./scripts/up.sh brings the stack up; docs/runbook.md is for when it burns"
        )
    else:
        terminalreporter.write_line("next: run one test again with ./scripts/test.sh -k NAME -x")
