"""Checks the required and the forbidden settings of every service of the compose files."""

import re
from typing import Any

import pytest
import yaml
from stack.parts.images import OFFICIAL

from api.configuring import timeouts
from tests.contracts.compose_files import (
    APP_SERVICES,
    COMPOSE,
    EVERY_SERVICE,
    FILES,
    SERVICES,
    defaulted,
    load,
    seconds,
    size_bytes,
)
from tests.contracts.tree import text

every_service = pytest.mark.parametrize("name", EVERY_SERVICE)
Service = dict[str, Any]

# The order of a service's keys: image, user, command, rights, shutdown, inputs, limits, health.
KEY_ORDER = (
    *("<<", "image", "pull_policy", "profiles", "user", "entrypoint", "command"),
    *(
        "read_only",
        "cap_drop",
        "security_opt",
        "restart",
        "logging",
        "stop_signal",
        "stop_grace_period",
    ),
    *(
        "env_file",
        "environment",
        "labels",
        "group_add",
        "ports",
        "volumes",
        "tmpfs",
        "secrets",
        "network_mode",
        "networks",
        "dns_opt",
        "sysctls",
        "shm_size",
    ),
    *("oom_score_adj", "mem_limit", "cpus", "pids_limit", "healthcheck"),
)
TOP_LEVEL_ORDER = ("name", "x-", "services", "networks", "volumes", "secrets")


@every_service
def test_every_service_is_hardened(name: str) -> None:
    service = EVERY_SERVICE[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("cap_add")
    assert not service.get("privileged")
    assert not {"pid", "ipc", "userns_mode", "devices"} & set(service)
    assert service.get("network_mode", "none") == "none"


@every_service
def test_every_service_is_limited(name: str) -> None:
    service = EVERY_SERVICE[name]
    assert size_bytes(defaulted(service["mem_limit"])) >= 32 * 1024**2
    assert float(defaulted(service["cpus"])) > 0
    assert 0 < service["pids_limit"] <= 256
    assert service["logging"]["options"]["max-size"]
    assert service["logging"]["options"]["max-file"]
    assert (
        all("size=" in mount for mount in service["tmpfs"])
        if "tmpfs" in service
        else name == "migrate"
    )


@every_service
def test_every_service_comes_back_and_says_how_it_is(name: str) -> None:
    service = EVERY_SERVICE[name]
    if name in {"migrate", "restore"}:
        assert service["restart"] == "no"
        assert service["healthcheck"] == {"disable": True}
        return
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert check["test"][1] not in {"true", "/bin/true"}
    assert seconds(check["timeout"]) < seconds(check["interval"])
    assert check["retries"] >= 2
    assert seconds(check["start_interval"]) < 1  # a longer interval would delay each deploy


def test_a_host_out_of_memory_takes_the_application_before_the_data() -> None:
    order = {name: service.get("oom_score_adj", 0) for name, service in SERVICES.items()}
    assert (
        order["postgres"] == order["redis"] == 0
    )  # a value below 0 needs a privilege that some engines lack
    assert {order[name] for name in APP_SERVICES} == {500}


@every_service
def test_no_service_has_a_fixed_name_or_an_engine_socket(name: str) -> None:
    service = EVERY_SERVICE[name]
    assert "container_name" not in service
    assert not [
        mount for mount in service.get("volumes", []) if ".sock" in mount or "docker" in mount
    ]
    assert all(
        mount.startswith(("./", "${", *COMPOSE["volumes"])) for mount in service.get("volumes", [])
    )


@every_service
def test_configuration_is_mounted_read_only(name: str) -> None:
    for mount in EVERY_SERVICE[name].get("volumes", []):
        assert mount.endswith(":ro") or mount.split(":")[0] in COMPOSE["volumes"], mount


@every_service
def test_every_service_runs_without_root(name: str) -> None:
    service = EVERY_SERVICE[name]
    user = str(service.get("user") or dockerfile_user(service["image"]))
    assert user.split(":", maxsplit=1)[0] not in {"", "0", "root"}


def dockerfile_user(image: str) -> str:
    if "${SLIPWAY_IMAGE:" not in image:
        return ""  # not our image: nothing guarantees its user
    part = re.search(r"-(nginx|counter|postgres):", image)
    file = f"{part[1]}/Dockerfile" if part else "Dockerfile"
    users = re.findall(r"^USER (\S+)$", text(file), re.MULTILINE)
    assert users, f"{file} sets no user"
    return str(users[-1])


@every_service
def test_every_image_names_a_version(name: str) -> None:
    image = EVERY_SERVICE[name]["image"]
    base = re.match(r"\$\{([A-Z]+)_IMAGE:\?", image)
    full = OFFICIAL[base[1].lower()] if base else defaulted(image)
    assert re.fullmatch(r"[a-z][a-z0-9/-]*:[a-z0-9][\w.-]*", full)
    assert not full.endswith(":latest")


def test_only_nginx_publishes_ports_and_for_a_developer_the_sink() -> None:
    publishers = [
        {name for name, s in load(file)["services"].items() if "ports" in s} for file in FILES
    ]
    assert publishers == [{"nginx"}, {"nginx"}, {"sink"}]


@pytest.mark.parametrize("name", ["nginx", "sink"])
def test_ports_are_published_on_an_address_and_on_this_machine_alone_by_default(name: str) -> None:
    assert {defaulted(port).split(":")[0] for port in EVERY_SERVICE[name]["ports"]} == {"127.0.0.1"}


def test_networks_keep_the_data_away_from_the_edge() -> None:
    members = {
        network: {n for n, s in SERVICES.items() if network in s.get("networks", [])}
        for network in COMPOSE["networks"]
    }
    slots = {"api-blue", "api-green", "worker-blue", "worker-green"}
    data = {*slots, "migrate", "postgres", "postgres-beside", "redis"}
    assert members == {"edge": {"nginx"}, "data": data, "egress": {*slots, "backup", "restore"}}
    assert SERVICES["nginx"]["networks"] == ["edge"]
    assert {n for n, s in SERVICES.items() if "networks" not in s} == {"counter"}
    assert COMPOSE["networks"]["data"] == {"internal": True}


def without_slot(service: Service, slot: str) -> Service:
    same: Service = yaml.safe_load(yaml.safe_dump(service).replace(slot, "SLOT"))
    same.pop("profiles", None)
    return same


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("part", ["api", "worker"])
def test_both_slots_are_the_same_but_for_their_name(file: str, part: str) -> None:
    services = load(file)["services"]
    assert without_slot(services[f"{part}-blue"], "blue") == without_slot(
        services[f"{part}-green"], "green"
    )


def test_a_slot_is_one_image_and_migrate_runs_from_it() -> None:
    for slot in ("blue", "green"):
        assert SERVICES[f"api-{slot}"]["image"] == SERVICES[f"worker-{slot}"]["image"]
        assert SERVICES[f"api-{slot}"]["image"].endswith(f":{slot}")
    repository = SERVICES["api-blue"]["image"].removesuffix(":blue")
    assert SERVICES["migrate"]["image"] == repository + ":${MIGRATE_TAG:-blue}"
    own = (*APP_SERVICES, "nginx", "counter")
    assert {SERVICES[name]["pull_policy"] for name in own} == {"never"}


def test_blue_and_its_data_start_by_themselves_and_the_rest_when_asked() -> None:
    profiles = {
        name: service.get("profiles")
        for name, service in SERVICES.items()
        if service.get("profiles")
    }
    assert profiles == {
        "api-green": ["green"],
        "worker-green": ["green"],
        "migrate": ["migrate"],
        "restore": ["restore"],
        "postgres-beside": ["beside"],
    }


def test_the_sockets_are_shared_with_nginx_by_the_group_of_the_images() -> None:
    holders = {
        name
        for name, s in SERVICES.items()
        if any("/run/slots" in mount for mount in s.get("volumes", []))
    }
    assert holders == {"nginx", "api-blue", "api-green"}
    (group,) = SERVICES["nginx"]["group_add"]
    for file in ("Dockerfile", "nginx/Dockerfile", "counter/Dockerfile"):
        assert f"groupadd --gid {group} " in text(file)


def test_only_the_counter_writes_where_its_sockets_are() -> None:
    mounts = {
        name: [mount for mount in service.get("volumes", []) if mount.startswith("counter:")]
        for name, service in SERVICES.items()
    }
    assert {name: present for name, present in mounts.items() if present} == {
        "nginx": ["counter:/run/counter:ro"],
        "counter": ["counter:/run/counter"],
    }
    # The first container that mounts an empty volume gives it owner and mode.
    (owner,) = re.findall(r"^USER (\d+):10001$", text("counter/Dockerfile"), re.MULTILINE)
    for file in ("counter/Dockerfile", "nginx/Dockerfile"):
        assert f"install -d -o {owner} -g app -m 0750 /run/counter" in text(file)


@every_service
def test_every_secret_and_volume_and_network_that_is_used_is_declared(name: str) -> None:
    service = EVERY_SERVICE[name]
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
    assert ("networks" in service) is ("network_mode" not in service)


@pytest.mark.parametrize("kind", ["secrets", "volumes", "networks"])
def test_nothing_is_declared_that_nothing_uses(kind: str) -> None:
    used = {
        str(item).split(":")[0] for service in SERVICES.values() for item in service.get(kind, [])
    }
    assert set(COMPOSE[kind]) <= used


@pytest.mark.parametrize(
    ("part", "drain"),
    [("api", timeouts.GUNICORN_GRACEFUL_SECONDS), ("worker", timeouts.WORKER_DRAIN_SECONDS)],
)
def test_the_grace_period_is_above_the_drain(part: str, drain: float) -> None:
    for slot in ("blue", "green"):
        assert seconds(SERVICES[f"{part}-{slot}"]["stop_grace_period"]) > drain


@every_service
def test_every_service_has_time_to_stop(name: str) -> None:
    assert seconds(EVERY_SERVICE[name]["stop_grace_period"]) >= 10


def test_a_stack_with_one_slot_fits_a_host_of_one_gigabyte() -> None:
    one_slot = ("nginx", "api-blue", "worker-blue", "postgres", "backup", "redis")
    assert sum(size_bytes(defaulted(SERVICES[name]["mem_limit"])) for name in one_slot) <= 1024**3
    # The counter adds one small process with bounded tables (tests/counter/test_counter.py).
    assert size_bytes(defaulted(SERVICES["counter"]["mem_limit"])) == 40 * 1024**2


def test_redis_evicts_and_postgres_caches_within_their_containers() -> None:
    redis = re.search(r"^maxmemory (\S+)$", text("redis/redis.conf"), re.MULTILINE)
    postgres = re.search(
        r"^shared_buffers = '(\S+)'", text("postgres/postgresql.conf"), re.MULTILINE
    )
    assert redis
    assert postgres
    assert size_bytes(redis[1]) <= 0.25 * size_bytes(defaulted(SERVICES["redis"]["mem_limit"]))
    assert size_bytes(postgres[1]) <= 0.4 * size_bytes(defaulted(SERVICES["postgres"]["mem_limit"]))


def mappings(file: str) -> list[tuple[str, list[str]]]:
    """Return the name and the keys of each service and each `x-` anchor, in the file's order."""
    root = yaml.compose(text(file), Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    top = {key.value: node for key, node in root.value}
    candidates = [
        (name, node)
        for name, node in top.items()
        if name.startswith("x-")
        and "environment" not in name
        and isinstance(node, yaml.MappingNode)
    ]
    candidates += [(key.value, node) for key, node in top["services"].value]
    return [(name, [key.value for key, _ in node.value]) for name, node in candidates]


@pytest.mark.parametrize(("name", "keys"), [pair for file in FILES for pair in mappings(file)])
def test_the_keys_of_a_service_stand_in_one_order(name: str, keys: list[str]) -> None:
    assert keys == sorted(keys, key=KEY_ORDER.index)


def test_the_top_level_keys_and_the_services_stand_in_order() -> None:
    kinds = ["x-" if key.startswith("x-") else key for key in COMPOSE]
    assert kinds == sorted(kinds, key=TOP_LEVEL_ORDER.index)
    assert list(SERVICES) == [
        "nginx",
        "counter",
        *APP_SERVICES,
        "postgres",
        "backup",
        "restore",
        "postgres-beside",
        "redis",
    ]
