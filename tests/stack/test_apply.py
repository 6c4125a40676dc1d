"""`up.sh` replaces only the named services, and applies nginx' keys by a reload."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import Figure
from tests.stack.harness import Stack, wait_until
from tests.stack.load import Load

pytestmark = pytest.mark.stack
SERVICES = ("nginx", "counter", "postgres", "redis", "backup", "api-blue", "worker-blue")
MIB = 1024**2
NEW_NAME = "new.example.org"


def identities(stack: Stack) -> dict[str, str]:
    """Return the id of each container, which a replacement changes."""
    return {name: str(stack.inspect(name)["Id"]) for name in SERVICES}


def replaced(stack: Stack, before: dict[str, str]) -> set[str]:
    return {name for name, identity in identities(stack).items() if identity != before[name]}


@contextmanager
def setting(stack: Stack, key: str, value: str) -> Iterator[None]:
    """Give an empty key of `.env` a value during the block."""
    with stack.edited(".env", f"\n{key}=\n", f"\n{key}={value}\n"):
        yield


def rate(stack: Stack) -> str:
    return stack.compose("exec", "--no-TTY", "nginx", "cat", "/tmp/nginx/zone.conf")


@pytest.mark.counts_losses
def test_up_replaces_nothing_and_apply_the_named_service_alone(
    stack: Stack, figure: Figure
) -> None:
    stack.run("./scripts/up.sh")
    before = identities(stack)
    try:
        with setting(stack, "POSTGRES_MEMORY", "300m"), setting(stack, "BACKUP_HOURS", "7"):
            with Load(stack, rate=20).running() as report:
                report.wait_for_answers(20)
                completed = stack.run("./scripts/up.sh")
                report.wait_for_answers(20)
            assert report.failures == []
            assert replaced(stack, before) == set()
            assert (
                "not applied: POSTGRES_MEMORY: ./scripts/up.sh --apply postgres" in completed.stdout
            )
            assert "not applied: BACKUP_HOURS: ./scripts/up.sh --apply backup" in completed.stdout
            with Load(stack, rate=20).running() as report:
                report.wait_for_answers(20)
                completed = stack.run("./scripts/up.sh", "--apply", "postgres")
                report.wait_for_answers(20)
            figure(f"--apply postgres: {len(report.failures)} of {report.sent} requests failed")
            assert replaced(stack, before) == {"postgres"}
            assert stack.inspect("postgres")["HostConfig"]["Memory"] == 300 * MIB
            assert "not applied: POSTGRES_MEMORY" not in completed.stdout
            assert "not applied: BACKUP_HOURS" in completed.stdout
        waiting = stack.run("./scripts/up.sh").stdout
        assert "of 503" in waiting
        assert "estimate" not in waiting, "the last replacement was measured"
    finally:
        stack.run("./scripts/up.sh", "--apply", "all")
    assert stack.inspect("postgres")["HostConfig"]["Memory"] == 256 * MIB


def test_an_unchanged_stack_waits_for_nothing(stack: Stack) -> None:
    """Compose prints the same definition each time."""
    stack.run("./scripts/up.sh", "--apply", "all")
    before = identities(stack)
    assert "up.sh --apply" not in stack.run("./scripts/up.sh").stdout
    assert "up.sh --apply" not in stack.run("./scripts/check-config.sh", check=False).stdout
    stack.run("./scripts/up.sh", "--apply", "all")
    assert replaced(stack, before) == set()


@pytest.mark.parametrize("service", [pytest.param("postgres", marks=pytest.mark.nightly), "nginx"])
def test_a_container_that_does_not_start_gives_way_to_the_former_settings(
    stack: Stack, service: str
) -> None:
    """Neither fits into 6 MB, the engine's minimum."""
    stack.run("./scripts/up.sh")
    limit = stack.inspect(service)["HostConfig"]["Memory"]
    before = identities(stack)
    with setting(stack, f"{service.upper()}_MEMORY", "6m"):
        completed = stack.run("./scripts/up.sh", "--apply", service, check=False, timeout=600)
    assert completed.returncode == 4, completed.stderr
    assert f"the former {service} serves again" in completed.stderr
    assert completed.stderr.splitlines()[-1].startswith("live: release ")
    assert stack.inspect(service)["HostConfig"]["Memory"] == limit
    assert replaced(stack, before) == {service}
    assert stack.is_serving()


@pytest.mark.counts_losses
def test_a_port_in_use_is_refused_while_nginx_serves(stack: Stack, figure: Figure) -> None:
    before = identities(stack)
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        Load(stack, rate=20).running() as report,
    ):
        report.wait_for_answers(20)
        port = other.getsockname()[1]
        completed = stack.run(
            "./scripts/up.sh", "--apply", "nginx", check=False, HTTPS_PORT=str(port)
        )
        assert completed.returncode == 1
        assert f"nginx cannot use port {port} of 127.0.0.1" in completed.stderr
        assert "nothing was touched" in completed.stderr
        report.wait_for_answers(20)
    assert report.failures == []
    figure(f"a port in use: {len(report.failures)} of {report.sent} requests failed")
    assert replaced(stack, before) == set()


def test_a_new_port_waits_for_apply_and_stops_no_command_meanwhile(stack: Stack) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    before = identities(stack)
    assert (
        stack.run("./scripts/status.sh", check=False, HTTPS_PORT=port)
        .stdout.splitlines()[-1]
        .endswith(f"answering at {stack.url}")
    )
    assert replaced(stack, before) == set()
    try:
        completed = stack.run("./scripts/up.sh", "--apply", "nginx", HTTPS_PORT=port)
        assert completed.stdout.splitlines()[-1].endswith(f":{port}")
        assert replaced(stack, before) == {"nginx"}
    finally:
        stack.run("./scripts/up.sh", "--apply", "nginx")
    assert stack.is_serving()


@pytest.mark.counts_losses
def test_a_rate_is_applied_by_a_reload_and_no_request_fails(stack: Stack, figure: Figure) -> None:
    stack.run("./scripts/up.sh")
    before = identities(stack)
    try:
        with Load(stack, rate=20).running() as report:
            report.wait_for_answers(20)
            stack.deploy(RATE_LIMIT_PER_SECOND="1999")
            report.wait_for_answers(20)
        figure(f"a rate applied: {len(report.failures)} of {report.sent} requests failed")
        assert report.failures_besides_reloads() == []
        assert "rate=1999r/s" in rate(stack)
        assert str(stack.inspect("nginx")["Id"]) == before["nginx"]
        stack.run("./scripts/up.sh")  # the harness gives 2000
        assert "rate=2000r/s" in rate(stack)
        assert str(stack.inspect("nginx")["Id"]) == before["nginx"]
    finally:
        stack.back_to_blue()


def test_a_value_that_nginx_refuses_reaches_no_running_nginx(stack: Stack) -> None:
    """nginx refuses a rate of this size, although it is a whole number."""
    before = rate(stack)
    completed = stack.deploy(check=False, RATE_LIMIT_PER_SECOND="9" * 20)
    assert completed.returncode == 1
    assert "RUNBOOK: docs/runbook.md#nginx-refuses-its-configuration" in completed.stderr
    assert rate(stack) == before


@contextmanager
def certificate_of_both_names(stack: Stack) -> Iterator[None]:
    """Make nginx serve a certificate for the present and the new name during the block."""
    folder = stack.root / "secrets/tls"
    pair = {name: (folder / name).read_bytes() for name in ("fullchain.pem", "privkey.pem")}
    names = f"subjectAltName=DNS:{stack.host},DNS:{NEW_NAME}"
    made = ["-keyout", "privkey.pem", "-out", "fullchain.pem"]
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90"]
    stack.run(*request, "-subj", "/CN=both", "-addext", names, *made)
    try:
        for name in pair:
            stack.run("install", "-m", "0444", name, f"secrets/tls/{name}")
        reload(stack)
        yield
    finally:
        for name, content in pair.items():
            (folder / name).chmod(0o644)
            (folder / name).write_bytes(content)
            (stack.root / name).unlink(missing_ok=True)
        reload(stack)


def reload(stack: Stack) -> None:
    words = ("nginx", "/etc/slipway/current/entrypoint.sh", "reload")
    stack.compose("exec", "--no-TTY", *words)


def answers(stack: Stack, name: str) -> bool:
    """Whether the front door answers to a name that is not in DNS."""
    port = stack.environment["HTTPS_PORT"]
    asked = ["curl", "--silent", "--fail", "--cacert", "secrets/tls/fullchain.pem"]
    asked += ["--resolve", f"{name}:{port}:127.0.0.1", f"https://{name}:{port}/readyz"]
    return stack.run(*asked, check=False).returncode == 0


def test_a_new_host_name_is_taken_over_by_a_deploy(stack: Stack) -> None:
    stack.run("./scripts/up.sh")
    with certificate_of_both_names(stack):
        try:
            completed = stack.run("./scripts/up.sh", SLIPWAY_HOST=NEW_NAME)
            assert "not applied: SLIPWAY_HOST: ./scripts/deploy.sh" in completed.stdout
            assert (answers(stack, stack.host), answers(stack, NEW_NAME)) == (True, False)
            stack.vary()
            completed = stack.deploy(SLIPWAY_HOST=NEW_NAME)
            assert f"nginx answers to {NEW_NAME} instead of {stack.host}" in completed.stdout
            assert (answers(stack, stack.host), answers(stack, NEW_NAME)) == (False, True)
            stack.run("./scripts/rollback.sh", SLIPWAY_HOST=NEW_NAME)
            assert answers(stack, NEW_NAME), "the name is nginx', and of no deployment"
        finally:
            stack.deploy()
            stack.back_to_blue()
            stack.run("./scripts/up.sh")
    wait_until(stack.is_serving, 15, "an answer with the former certificate")


def test_the_locations_of_service_toml_travel_with_the_deployment(stack: Stack) -> None:
    stack.run("./scripts/up.sh")
    shown = ("exec", "--no-TTY", "nginx", "cat", "/tmp/nginx/service.conf")
    former = stack.compose(*shown)
    try:
        with stack.edited(
            "service.toml", 'login_paths = ["/v1/users", "/ops"]', "login_paths = []"
        ):
            stack.deploy()
        assert "location" not in stack.compose(*shown).partition("names")[0]
        stack.run("./scripts/rollback.sh")
        assert stack.compose(*shown) == former
    finally:
        stack.back_to_blue()


def test_an_engine_s_words_are_read_as_the_preflight_expects(stack: Stack) -> None:
    """The preflight has no finding on the real engine, networks and names."""
    completed = stack.run("./scripts/check-config.sh", check=False)
    for subject in ("engine", "networks", "containers", "nginx", "postgres", "redis", "backup"):
        assert f"critical {subject}:" not in completed.stdout
