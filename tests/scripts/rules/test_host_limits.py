"""Memory, engine, networks and container names of a host are compared with `.env`."""

from dataclasses import replace

import pytest
from stack.config.project import Project
from stack.failure import Failure
from stack.rules import findings, host_limits
from stack.rules.findings import Finding

GB = 1024**3
MEMINFO = "MemTotal:  2000 kB\nMemAvailable:  600 kB\nSwapTotal:  24 kB\nHugePages_Total:  3\n"


def with_values(project: Project, **values: str) -> Project:
    return replace(project, values={**project.values, **values})


def test_the_defaults_fit_into_a_small_host(loaded: Project) -> None:
    assert host_limits.judge_memory(loaded, 1 * GB) == []


@pytest.mark.parametrize("key", ["POSTGRES_MEMORY", "API_MEMORY", "BACKUP_MEMORY"])
def test_a_limit_above_the_host_s_memory_is_refused_by_its_key(loaded: Project, key: str) -> None:
    assert host_limits.judge_memory(with_values(loaded, **{key: "1g"}), 1 * GB) == []
    (finding,) = host_limits.judge_memory(with_values(loaded, **{key: "2g"}), 1 * GB)
    assert (finding.subject, finding.is_critical) == (key, True)
    assert finding.fault == "2g is more than the 1024 MB of this host"


@pytest.mark.parametrize(
    ("values", "subject", "least"),
    [
        ({"API_PROCESSES": "4"}, "API_MEMORY", "364m"),
        ({"API_MEMORY": "200m"}, "API_MEMORY", "214m"),
        ({"NGINX_MEMORY": "100m"}, "NGINX_MEMORY", "144m"),
    ],
)
def test_a_limit_that_is_too_small_for_its_use_is_a_warning(
    loaded: Project, values: dict[str, str], subject: str, least: str
) -> None:
    (finding,) = host_limits.judge_memory(with_values(loaded, **values), 8 * GB)
    assert (finding.subject, finding.is_critical) == (subject, False)
    assert f"the {least} that" in finding.fault


@pytest.mark.parametrize("text", [MEMINFO, MEMINFO.replace("SwapTotal:  24 kB\n", "")])
def test_swap_counts_as_memory(text: str) -> None:
    assert host_limits.total_memory_bytes(text) == (2024 if "Swap" in text else 2000) * 1024


@pytest.mark.parametrize("version", ["25.0.0", "26.1.5", "v29.0.1-rc", "", "dev"])
def test_an_engine_that_is_new_enough_or_unknown_passes(version: str) -> None:
    assert host_limits.judge_engine(version, "") == []


def test_an_old_engine_that_runs_beside_a_newer_program_is_to_be_restarted() -> None:
    (finding,) = host_limits.judge_engine("20.10.24", "26.1.5")
    assert finding.fault == "20.10.24 runs, which is older than 25.0"
    assert "26.1.5 is installed and does not run yet: systemctl restart docker" in finding.fix
    (finding,) = host_limits.judge_engine("20.10.24", "20.10.24")
    assert finding.fix.startswith("upgrade the engine to 25.0")


def test_the_engine_s_own_pools_have_31_networks() -> None:
    pools = host_limits.DEFAULT_POOLS
    assert host_limits.free_networks(pools, []) == 31
    used = ["172.17.0.0/16", "172.20.0.0/16", "192.168.16.0/20", "fd00::/64", "", "invalid Prefix"]
    assert host_limits.free_networks(pools, used) == 28
    assert host_limits.free_networks(pools, ["172.16.0.0/12"]) == 16, "a network of a VPN"
    assert host_limits.free_networks([("10.9.0.0/24", 26)], ["10.9.0.0/26"]) == 3


def test_networks_without_addresses_are_refused_only_if_the_stack_needs_them() -> None:
    assert host_limits.judge_networks(0, []) == []
    assert host_limits.judge_networks(2, ["edge", "data"]) == []
    (finding,) = host_limits.judge_networks(1, ["edge", "data"])
    assert "for 1 more networks, and edge, data do not exist yet" in finding.fault


def test_a_container_that_took_a_name_of_this_stack_is_named() -> None:
    owners = {"slipway-nginx-1": "", "slipway-redis-1": "slipway", "other-nginx-1": "other"}
    (finding,) = host_limits.judge_names("slipway", ["nginx", "redis", "backup"], owners)
    assert finding.fault.startswith("slipway-nginx-1 has the name")
    assert finding.fix == "docker rename slipway-nginx-1 other-slipway-nginx-1"


def test_every_critical_finding_is_in_one_refusal_and_the_rest_are_notes() -> None:
    listed = [
        Finding("A", "is wrong", "mend A", "disk-full", evidence="a\n"),
        Finding("B", "is odd", "think of B", is_critical=False),
        Finding("C", "is wrong", "mend A"),
    ]
    with pytest.raises(Failure) as refused:
        findings.refuse(listed)
    assert refused.value.observation == "A: is wrong; C: is wrong"
    assert refused.value.hints == ["mend A", "nothing was touched"]
    assert (refused.value.runbook, refused.value.evidence) == ("disk-full", "a\n")
    assert findings.refuse(listed[1:2]) == ["B: is odd"]
    assert str(listed[1]) == "warning B: is odd; think of B"
