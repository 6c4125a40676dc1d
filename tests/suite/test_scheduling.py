"""Workers get whole files, except the long files of the simulator, which two of them share."""

import pytest

from tests.contracts.tree import ROOT
from tests.scheduling import SHARED, group_of

PAIRS, SEEDS = SHARED


@pytest.mark.parametrize(
    ("test", "group"),
    [
        (f"{PAIRS}::test_a[first release in blue-0]", f"{PAIRS}[0]"),
        (f"{PAIRS}::test_a[rebooted, all stopped-1]", f"{PAIRS}[1]"),
        (f"{PAIRS}::test_without_a_part", PAIRS),
        (f"{PAIRS}::test_of_a_start[empty host, no traffic]", PAIRS),
        (f"{SEEDS}::test_b[1]", f"{SEEDS}[1]"),
        ("tests/simulator/test_kept.py::test_c[1]", "tests/simulator/test_kept.py"),
    ],
)
def test_one_worker_runs_a_file_or_one_part_of_a_long_file(test: str, group: str) -> None:
    assert group_of(test) == group


def test_each_shared_file_exists() -> None:
    assert all((ROOT / file).is_file() for file in SHARED)
