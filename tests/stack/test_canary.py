"""No secret of the stack or of a client appears in a log, an image, a process or an answer."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.ops.dependencies import SESSION_COOKIE
from tests.stack.harness import Stack, wait_until

pytestmark = pytest.mark.stack
SERVICES = ("nginx", "api-blue", "worker-blue", "postgres", "redis")
SECRETS = (
    "database_password",
    "redis_password",
    "redis_admin_password",
    "token_key",
    "ops_password",
)
SENT = ("query", "header", "cookie", "password", "bearer", "basic", "unknown", "refresh", "console")
PSQL = (
    *("docker", "compose", "exec", "--no-TTY", "postgres", "psql", "-qtAX", "--username=postgres"),
    *("--dbname=slipway", "--host=/tmp", "--command"),
)
SLEEPING = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
# Sleeps until another session waits for this transaction, and then 0.8 s: longer than
# log_min_duration_statement (0.5 s), shorter than the API's lock timeout (2 s).
WAIT_FOR_THE_OTHER = """do $$ begin
    for look in 1..3000 loop
        exit when exists (select from pg_locks
            where not granted and transactionid = pg_current_xact_id()::xid);
        perform pg_sleep(0.02);
    end loop;
    perform pg_sleep(0.8);
end $$"""
CHUNK_BYTES = 4 * 1024**2
DSN = "https://canarydsn7913586@sentry.invalid/1"


@pytest.fixture(scope="module")
def canaries(stack: Stack) -> Iterator[dict[str, str]]:
    """Return the secrets of the stack and of its clients."""
    folder = stack.root / "secrets"
    dsn = folder / "sentry_dsn"
    dsn.chmod(0o644)
    dsn.write_text(DSN + "\n", encoding="utf-8")
    stack.compose(
        "up", "--detach", "--no-deps", "--force-recreate", "--wait", "api-blue", "worker-blue"
    )
    found = {name: (folder / name).read_text(encoding="utf-8").strip() for name in SECRETS}
    found["tls key"] = (folder / "tls/privkey.pem").read_text(encoding="utf-8").splitlines()[1]
    found["first password"] = json.loads((folder / "first_user.json").read_text(encoding="utf-8"))[
        "password"
    ]
    found["access token"] = stack.token()
    with stack.client() as client:
        user = json.loads((folder / "first_user.json").read_text(encoding="utf-8"))
        found["refresh token"] = client.post("/v1/users/login", json=user).json()["refresh_token"]
        client.post("/v1/users/refresh", json={"refresh_token": found["refresh token"]})
        opened = client.post(
            "/ops/session", json={"user": "operator", "password": found["ops_password"]}
        )
        found["session"], found["csrf token"] = (
            client.cookies[SESSION_COOKIE],
            opened.json()["csrf_token"],
        )
    found["sentry_dsn"] = "canarydsn7913586"
    found |= {place: f"canary-{place}-7913586" for place in SENT}
    found["hash"] = "$argon2id$"
    yield found
    dsn.write_text("", encoding="utf-8")
    dsn.chmod(0o444)
    stack.compose(
        "up", "--detach", "--no-deps", "--force-recreate", "--wait", "api-blue", "worker-blue"
    )


@pytest.fixture(scope="module")
def answers(stack: Stack, canaries: dict[str, str]) -> str:
    """Return the answers to requests that contain canaries; most answers are errors."""
    told = []
    query = f"?token={canaries['query']}"
    headers = {"X-Api-Key": canaries["header"], "Cookie": f"session={canaries['cookie']}"}
    user = {"email": "canary@example.com", "password": canaries["password"]}
    with stack.client(headers=headers, timeout=10) as client:
        for method, path, options in (
            ("GET", "/v1/items", {"headers": {"Authorization": f"Bearer {canaries['bearer']}"}}),
            ("GET", "/v1/items", {"headers": {"Authorization": f"Basic {canaries['basic']}"}}),
            (
                "GET",
                "/v1/items",
                {"headers": {"Authorization": f"Bearer {canaries['access token']}"}},
            ),
            ("POST", "/v1/users", {"json": user}),
            ("POST", "/v1/users", {"json": user}),
            ("POST", "/v1/users/login", {"json": {**user, "password": canaries["unknown"]}}),
            ("POST", "/v1/users/login", {"json": {"password": canaries["password"]}}),
            ("POST", "/v1/users/login", {"content": f"{{broken {canaries['password']}"}),
            ("POST", "/v1/users/refresh", {"json": {"refresh_token": canaries["refresh"]}}),
            (
                "POST",
                "/ops/session",
                {"json": {"user": "operator", "password": canaries["console"]}},
            ),
            (
                "DELETE",
                "/ops/session",
                {"headers": {"Cookie": f"{SESSION_COOKIE}={canaries['session']}"}},
            ),
            ("PATCH", "/readyz", {}),
            ("GET", "/nothing-here", {}),
            ("POST", "/v1/users", {"content": canaries["password"].encode() * 100_000}),
        ):
            answer = client.request(method, path + query, **options)
            told.append(f"{answer.status_code} {answer.headers} {answer.text}")
    statuses = {line[:3] for line in told}
    assert statuses >= {"200", "201", "401", "404", "405", "409", "413", "422"}, statuses
    return "\n".join(told)


def slow_insert_of_a_user(stack: Stack, canaries: dict[str, str]) -> None:
    """Make Postgres log a slow registration: another transaction inserts the same address."""
    row = (
        "insert into users (id, email, password_hash) values (gen_random_uuid(), "
        "'slow@example.com', 'x')"
    )
    other = subprocess.Popen(
        [*PSQL, f"begin; {row}; {WAIT_FOR_THE_OTHER}; rollback"],
        cwd=stack.root,
        env=stack.environment,
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: stack.sql(SLEEPING) != "0", 30, "the other session has inserted its row")
    user = {"email": "slow@example.com", "password": canaries["password"]}
    with stack.client() as client:
        assert client.post("/v1/users", json=user).status_code == 201
    assert other.wait(60) == 0


def leaks(text: str, canaries: dict[str, str]) -> list[str]:
    return [name for name, value in canaries.items() if value in text]


def test_no_secret_is_in_any_log_or_answer(
    stack: Stack, canaries: dict[str, str], answers: str
) -> None:
    slow_insert_of_a_user(stack, canaries)
    logs = stack.compose("--profile", "*", "logs", "--no-color")
    assert re.search(r"duration: .*execute .*INSERT INTO users", logs), (
        "Postgres logged no slow registration"
    )
    for service in SERVICES:
        assert f"{service}-1" in logs
    assert leaks(logs, canaries) == []
    # A login returns a token; none of these answers may contain it again.
    assert leaks(answers, canaries) == []


def test_no_secret_is_in_a_container_or_its_processes(
    stack: Stack, canaries: dict[str, str], answers: str
) -> None:
    for service in SERVICES:
        assert leaks(json.dumps(stack.inspect(service)), canaries) == [], service
        container, seen = stack.container(service), ""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if container in (process / "cgroup").read_text():
                    seen += (process / "cmdline").read_text() + (process / "environ").read_text()
            except OSError:
                continue  # the process has exited
        assert seen
        assert leaks(seen, canaries) == [], service


def test_no_secret_is_in_an_image(stack: Stack, canaries: dict[str, str]) -> None:
    own = {
        name: value.encode() for name, value in canaries.items() if name != "hash"
    }  # a prefix that the hash library contains too
    for image in (f"{stack.image}:blue", f"{stack.image}-nginx:current"):
        history = stack.run("docker", "history", "--no-trunc", image).stdout
        assert (
            leaks(history + stack.run("docker", "image", "inspect", image).stdout, canaries) == []
        )
        save = subprocess.Popen(
            ["docker", "save", image], stdout=subprocess.PIPE, env=stack.environment
        )
        assert save.stdout
        size, tail = 0, b""
        while chunk := save.stdout.read(CHUNK_BYTES):
            size, window = size + len(chunk), tail + chunk
            assert [name for name, value in own.items() if value in window] == [], image
            tail = chunk[-200:]  # longer than any canary, because a canary may span two chunks
        assert save.wait() == 0
        assert size > 50 * 1024**2, "the layers were not read"


def test_no_secret_is_told_or_kept_by_the_scripts(
    stack: Stack, canaries: dict[str, str], answers: str
) -> None:
    """A deploy that fails at its smoke test keeps logs and health records of both slots."""
    stack.vary()
    try:
        failed = stack.deploy(check=False, SMOKE_PATHS="/readyz=500")
    finally:
        stack.back_to_blue()
    assert failed.returncode == 1
    told = failed.stdout + failed.stderr
    for command in ("status.sh", "check-config.sh", "logs.sh"):
        done = stack.run(f"./scripts/{command}", check=False)
        told += done.stdout + done.stderr
    evidence = [path for path in (stack.root / "state/evidence").rglob("*") if path.is_file()]
    assert {path.name for path in evidence} >= {
        "api-green.log",
        "api-green.state.json",
        "nginx.log",
    }
    kept = [*evidence, stack.root / "state/ledger.jsonl", stack.root / "state/lock"]
    written = "".join(path.read_text(encoding="utf-8") for path in kept if path.exists())
    assert leaks(told, canaries) == []
    assert leaks(written, canaries) == []
