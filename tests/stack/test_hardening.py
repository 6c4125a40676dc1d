"""Checks the running containers and images as the engine reports them."""

import json
from pathlib import Path

import pytest

from tests.stack.harness import IMAGE, Stack, wait_until

pytestmark = pytest.mark.stack
SERVICES = ("nginx", "counter", "api-blue", "worker-blue", "postgres", "redis")


@pytest.mark.parametrize("service", SERVICES)
def test_each_container_is_confined(stack: Stack, service: str) -> None:
    # A previous test may have just started the service: wait for its first health check.
    wait_until(
        lambda: stack.inspect(service)["State"]["Health"]["Status"] == "healthy",
        60,
        f"{service} is healthy",
    )
    facts = stack.inspect(service)
    host = facts["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert not any("docker.sock" in mount["Source"] for mount in facts["Mounts"])


@pytest.mark.parametrize("service", SERVICES)
def test_no_process_is_root_or_holds_a_capability(stack: Stack, service: str) -> None:
    container = stack.container(service)
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if container not in (process / "cgroup").read_text():
                continue
            # `comm` first: runc may become the health check's process at any moment.
            if (process / "comm").read_text().startswith("runc"):
                continue  # the engine's runc, before it becomes a health check's process
            lines = (process / "status").read_text().splitlines()
        except OSError:
            continue  # the process has exited
        found += 1
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert "0" not in status["Uid"].split()
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"].strip() == "1"
    assert found


def test_only_nginx_publishes_a_port_and_on_loopback(stack: Stack) -> None:
    for service in SERVICES:
        bound = [
            b
            for bs in (stack.inspect(service)["NetworkSettings"]["Ports"] or {}).values()
            for b in bs or []
        ]
        if service == "nginx":
            assert {b["HostIp"] for b in bound} == {"127.0.0.1"}
        else:
            assert bound == []


def test_the_api_listens_on_no_tcp_port(stack: Stack) -> None:
    pid = stack.host_pid("api-blue")
    for table in ("tcp", "tcp6"):
        rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        # 0A is LISTEN. The engine's own resolver, on 127.0.0.11, is in every container.
        listening = [row.split()[1] for row in rows if row.split()[3] == "0A"]
        assert [address for address in listening if not address.startswith("0B00007F:")] == []


def test_nginx_reaches_neither_postgres_nor_redis_and_they_reach_nothing(stack: Stack) -> None:
    networks = {s: set(stack.inspect(s)["NetworkSettings"]["Networks"]) for s in SERVICES}
    assert {name.partition("_")[2] for name in networks["nginx"]} == {"edge"}
    for service in ("postgres", "redis"):
        assert {name.partition("_")[2] for name in networks[service]} == {"data"}
    data = next(iter(networks["postgres"]))
    assert json.loads(stack.run("docker", "network", "inspect", data).stdout)[0]["Internal"]


def test_only_the_group_of_nginx_may_open_the_sockets(stack: Stack) -> None:
    listing = stack.compose(
        "exec", "--no-TTY", "nginx", "stat", "-c", "%n %a %g", "/run/slots", "/run/slots/blue.sock"
    )
    assert listing.split() == [
        "/run/slots",
        "2770",
        "10001",
        "/run/slots/blue.sock",
        "770",
        "10001",
    ]


def test_no_secret_is_in_an_environment_or_an_image_layer(stack: Stack) -> None:
    names = (
        "database_password",
        "redis_password",
        "redis_admin_password",
        "token_key",
        "ops_password",
    )
    values = [(stack.root / "secrets" / name).read_text(encoding="utf-8").strip() for name in names]
    seen = "".join(json.dumps(stack.inspect(service)) for service in SERVICES)
    seen += stack.run("docker", "history", "--no-trunc", f"{IMAGE}:blue").stdout
    seen += stack.compose("logs", "--no-color")
    assert not [name for name, value in zip(names, values, strict=True) if value in seen]


def test_the_image_is_lean_labelled_and_whole(stack: Stack) -> None:
    facts = json.loads(stack.run("docker", "image", "inspect", f"{IMAGE}:blue").stdout)[0]
    labels = facts["Config"]["Labels"]
    assert set(labels) >= {
        "org.opencontainers.image.version",
        "org.opencontainers.image.revision",
        "org.opencontainers.image.created",
        "slipway.migration_head",
    }
    assert facts["Config"]["User"] == "10001:10001"
    assert facts["Config"]["Healthcheck"]["Test"]

    def inside(script: str) -> str:
        argv = [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            "--user",
            "0",
            "--entrypoint",
            "sh",
            f"{IMAGE}:blue",
        ]
        return stack.run(*argv, "-c", script).stdout.strip()

    assert inside("find / -xdev -type f -perm /6000") == "", "a setuid file"
    present = (
        "for name in gcc cc make uv /opt/venv/bin/pip; do if command -v $name; then :; fi; done"
    )
    assert inside(present) == "", "a compiler or an installer"
    assert (
        inside(
            "find /var/lib/apt/lists /var/cache/apt /root/.cache -type f 2>/dev/null | "
            "grep -v lock | head -3"
        )
        == ""
    )
    sources, compiled = inside(
        "find /app /opt/venv -name '*.py' -not -path '*/versions/*' | wc -l; find /app "
        "/opt/venv -name '*.pyc' | wc -l"
    ).split()
    assert int(compiled) >= int(sources) * 0.95, (
        "byte code is missing, so that every start compiles it"
    )
    bill = json.loads(inside("cat /app/sbom.cdx.json"))
    assert {"fastapi", "gunicorn", "psycopg"} <= {
        component["name"] for component in bill["components"]
    }
    assert set(inside("ls -A /app").split()) == {"api", "sbom.cdx.json", "service.toml", "worker"}


def test_the_standard_library_has_byte_code_even_where_the_base_image_has_none(
    stack: Stack,
) -> None:
    """The official image has no byte code; this test removes the byte code of any base image."""
    base = (
        (stack.root / ".env").read_text(encoding="utf-8").partition("PYTHON_IMAGE=")[2].split()[0]
    )
    folder = "$(python3 -c 'import sysconfig; print(sysconfig.get_path(\"stdlib\"))')"
    recipe = f"FROM {base}\nUSER root\nRUN find {folder} -name __pycache__ -exec rm -rf {{}} +\n"
    file = stack.root / "without-byte-code"
    file.write_text(recipe, encoding="utf-8")
    bare, built = f"{IMAGE}:bare", f"{IMAGE}:compiled"
    stack.run(
        "docker",
        "build",
        "--quiet",
        "--tag",
        bare,
        "--file",
        str(file),
        str(stack.root / "scripts/base-images"),
    )
    build = [
        "docker",
        "build",
        "--quiet",
        "--build-arg",
        f"PYTHON_IMAGE={bare}",
        "--target",
        "runtime",
    ]
    stack.run(*build, "--tag", built, ".")
    modules = (
        "import asyncio, argparse, email, http.client, importlib.util, json, logging, os, ssl, sys"
    )
    missing = (
        f"{modules}; files = [m.__file__ or '' for m in sys.modules.values() if hasattr(m, "
        "'__file__')]; "
        "cached = [importlib.util.cache_from_source(file) for file in files if "
        "file.endswith('.py')]; "
        "print(len([file for file in cached if not os.path.exists(file)]))"
    )

    def count(image: str) -> int:
        argv = [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            "--env",
            "PYTHONDONTWRITEBYTECODE=1",
            image,
        ]
        return int(stack.run(*argv, "python3", "-c", missing).stdout)

    assert count(bare) > 50, "the test's own base image has byte code"
    assert count(built) == 0


def test_a_second_build_reuses_every_layer(stack: Stack) -> None:
    """Only the labels differ between two builds, so that only the labels are built again."""
    base = (
        (stack.root / ".env").read_text(encoding="utf-8").partition("PYTHON_IMAGE=")[2].split()[0]
    )
    argv = [
        "docker",
        "build",
        "--progress",
        "plain",
        "--build-arg",
        f"PYTHON_IMAGE={base}",
        "--target",
        "production",
        ".",
    ]
    done = stack.run(*argv, "--tag", f"{IMAGE}:again")
    steps = [
        line
        for line in done.stderr.splitlines()
        if "[production" in line or "[dependencies" in line
    ]
    assert steps
    numbers = {line.split()[0] for line in steps}
    cached = {line.split()[0] for line in done.stderr.splitlines() if line.endswith(" CACHED")}
    assert numbers <= cached


LOG_CAP_BYTES = 3 * 10 * 1024**2  # max-size times max-file, from compose.yaml
LINES = 900_000  # more than twice the cap in the engine's log format


def test_a_flood_of_log_lines_stays_under_its_cap(stack: Stack) -> None:
    """The engine rotates the files as it writes them; no cron job is needed."""
    flood = f"yes 'a line that somebody logs again and again' | head -n {LINES}"
    argv = [
        "docker",
        "compose",
        "run",
        "--detach",
        "--no-deps",
        "--no-TTY",
        "--entrypoint",
        "sh",
        "migrate",
    ]
    container = stack.run(*argv, "-c", flood, MIGRATE_TAG="blue").stdout.strip()
    try:
        log = Path(
            stack.run("docker", "inspect", "--format", "{{.LogPath}}", container).stdout.strip()
        )
        sizes = [0]

        def has_ended() -> bool:
            sizes.append(sum(file.stat().st_size for file in log.parent.glob(f"{log.name}*")))
            return (
                stack.run("docker", "inspect", "--format", "{{.State.Running}}", container).stdout
                == "false\n"
            )

        wait_until(has_ended, 60, "all lines are written")
        assert stack.run("docker", "wait", container).stdout == "0\n"
        assert stack.is_serving()
        assert (
            max(sizes) <= LOG_CAP_BYTES * 1.01
        )  # a file may exceed its size by the last line before its rotation
        assert max(sizes) > LOG_CAP_BYTES / 3, "too few lines to test the cap"
    finally:
        stack.run("docker", "rm", "--force", "--volumes", container)
