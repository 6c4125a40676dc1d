"""Each setting of Postgres has a reason, and memory settings follow the container's limit."""

import re
import subprocess
from pathlib import Path

import pytest
from stack.config.project import Project
from stack.rules import connections

from tests.contracts.compose_files import SERVICES, defaulted, size_bytes
from tests.contracts.tree import ROOT, lines

CONF = "postgres/postgresql.conf"
SETTING = re.compile(r"^([a-z_.]+) = ('[^']*'|[\w.]+)\s*(#.*)?$")
RULE = re.compile(r"# limit/(\d+): \w")
MEBIBYTE = 1024**2
AUTOVACUUM_WORKERS = 3  # Postgres' default


def rules() -> dict[str, tuple[str, int]]:
    """Return each setting with a rule `limit/N`: its value in the file, and N."""
    memory_rules = {}
    for line in lines(Path(CONF)):
        setting = SETTING.match(line)
        rule = setting and RULE.match(setting[3] or "")
        if setting and rule:
            memory_rules[setting[1]] = (setting[2].strip("'"), int(rule[1]))
    return memory_rules


def test_every_setting_of_postgres_has_its_reason_beside_or_above_it() -> None:
    is_explained = False
    names = []
    for line in lines(Path(CONF)):
        if line.startswith("#"):
            is_explained = True
        elif not line:
            is_explained = False
        else:
            setting = SETTING.match(line)
            assert setting, line
            assert setting[3] or is_explained, f"{line} has no reason"
            is_explained = (
                is_explained and not setting[3]
            )  # a comment explains all settings below, up to a setting with a comment
            names.append(setting[1])
    assert len(names) == len(set(names)) > 30


def test_the_values_for_memory_are_what_the_rules_give_at_the_default_limit() -> None:
    limit = size_bytes(defaulted(SERVICES["postgres"]["mem_limit"]))
    assert len(rules()) == 5
    assert {n: size_bytes(value) for n, (value, _) in rules().items()} == {
        n: limit / s for n, (_, s) in rules().items()
    }


def test_what_postgres_may_take_at_once_fits_its_limit() -> None:
    share = {name: 1 / share for name, (_, share) in rules().items()}
    sessions = sum(connections.budget(Project(ROOT, {})).values())
    taken = share["shared_buffers"] + sessions * share["work_mem"] + share["maintenance_work_mem"]
    assert (
        taken + AUTOVACUUM_WORKERS * share["autovacuum_work_mem"] < 0.85
    )  # the rest is for the processes themselves and for the page cache


def memory_lines(groups: Path) -> dict[str, int]:
    """Return the settings that memory.sh prints for a directory of control groups, in bytes."""
    argv = [str(ROOT / "postgres/memory.sh"), str(groups)]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout
    return {
        name: int(kib) * 1024
        for name, kib in re.findall(r"^(\w+) = '(\d+)kB'", printed, re.MULTILINE)
    }


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
@pytest.mark.parametrize("limit", [256 * MEBIBYTE, 1024 * MEBIBYTE])
def test_memory_follows_the_limit_of_either_kind_of_control_group(
    tmp_path: Path, file: str, limit: int
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(f"{limit}\n", encoding="ascii")
    assert memory_lines(tmp_path) == {name: limit // share for name, (_, share) in rules().items()}


@pytest.mark.parametrize(
    ("file", "content"),
    [("memory.max", "max"), ("memory/memory.limit_in_bytes", str(2**63 - 4096)), ("none", "")],
)
def test_without_a_limit_it_is_the_memory_of_the_host(
    tmp_path: Path, file: str, content: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(f"{content}\n", encoding="ascii")
    total = re.search(
        r"^MemTotal: +(\d+) kB$", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE
    )
    assert total
    assert memory_lines(tmp_path)["shared_buffers"] == int(total[1]) // 4 * 1024
