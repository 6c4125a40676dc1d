"""Deploy and rollback under load, and faults 1 to 5, 15, 17, 40 and 41."""

import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.conftest import Figure
from tests.stack.crowd import crowd
from tests.stack.harness import Stack, wait_until
from tests.stack.load import Load, Report

pytestmark = pytest.mark.drill
LIST_ITEMS = "    return await service.list_items(database, user_id, cursor, limit)"


@pytest.fixture(autouse=True)
def _blue_again(stack: Stack) -> Iterator[None]:
    yield
    stack.back_to_blue()


def assert_clean(load: Load, report: Report) -> None:
    """Check that no request failed and that every acknowledged row exists once."""
    assert report.failures == []
    assert load.lost_and_doubled() == (0, 0)


def other(slot: str) -> str:
    """Return the other slot."""
    return "green" if slot == "blue" else "blue"


@pytest.mark.counts_losses
def test_a_deploy_and_both_kinds_of_rollback_fail_no_request(stack: Stack, figure: Figure) -> None:
    first, slot = stack.live()
    load = Load(stack)
    with load.running() as report:
        wait_until(lambda: report.sent > 100, 30, "the load is under way")
        stack.vary()
        done = stack.deploy()
        second, now = stack.live()
        assert (second != first, now) == (True, other(slot))
        assert (
            done.stdout.splitlines()[-1]
            == f"live: release {second} in slot {now}, answering at {stack.url}"
        )
        started = time.monotonic()
        stack.run("./scripts/rollback.sh")
        warm = time.monotonic() - started
        assert stack.live() == (first, slot)
        stack.compose("rm", "--stop", "--force", f"api-{now}", f"worker-{now}")
        started = time.monotonic()
        stack.run("./scripts/rollback.sh", second)
        cold = time.monotonic() - started
        assert stack.live() == (second, now)
    assert_clean(load, report)
    assert report.slots == {"blue", "green"}
    entries = [(entry["action"], entry["result"]) for entry in stack.ledger()[-6:]]
    assert entries == [
        (action, result)
        for action in ("deploy", "rollback", "rollback")
        for result in ("begun", "done")
    ]
    seconds = stack.ledger()[-5]["seconds"]
    figure(
        f"deploy: steps {seconds}; whole commands: warm rollback {warm:.1f} s, cold "
        f"{cold:.1f} s; sent {report.sent}"
    )


def test_a_dry_run_prints_the_transcript_of_the_deploy_and_changes_nothing(stack: Stack) -> None:
    stack.vary()
    before = stack.live(), len(stack.ledger())
    dry = stack.deploy("--dry-run").stdout
    assert (stack.live(), len(stack.ledger())) == before
    real = stack.deploy().stdout

    def transcript(text: str, mark: str) -> list[str]:
        found = [
            line.strip().removeprefix(mark)
            for line in text.splitlines()
            if line.strip().startswith(mark)
        ]
        kept = [
            line
            for line in found
            if line.startswith(("docker compose", "docker tag", "docker build"))
        ]
        return [re.sub(r"BUILD_TIME=\S+|/\S+", "", line) for line in kept]

    assert transcript(dry, "would run: ") == transcript(real, "$ ")


@pytest.mark.counts_losses
@pytest.mark.parametrize(
    ("path", "old", "new", "observed"),
    [
        # A test of the runbook deploys a release that never becomes healthy, in every change.
        pytest.param(
            "api/main.py",
            "app = ",
            'raise RuntimeError("never starts")\napp = ',
            "did not become healthy",
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            "api/health/routes.py",
            "async def readyz",
            "async def readyz_gone",
            "did not become healthy",
            marks=pytest.mark.nightly,
        ),
        (
            "api/items/routes.py",
            LIST_ITEMS,
            '    raise RuntimeError("broken")',
            "/v1/items with token answered 500",
        ),
    ],
    ids=["crash-loops", "never-healthy", "healthy-but-answers-500"],
)
def test_a_bad_release_is_stopped_before_the_switch(
    stack: Stack, path: str, old: str, new: str, observed: str
) -> None:
    before, ledger = stack.live(), len(stack.ledger())
    if path == "api/health/routes.py":
        source = (stack.root / path).read_text(encoding="utf-8")
        old = next(line for line in source.splitlines() if '"/readyz"' in line)
        new = old.replace("/readyz", "/readyz-gone")
    load = Load(stack, rate=30)
    with load.running() as report:
        wait_until(lambda: report.sent > 50, 30, "the load is under way")
        with stack.edited(path, old, new):
            # A release that never becomes healthy needs no long wait.
            ready_seconds = "8" if observed == "did not become healthy" else "60"
            done = stack.deploy(check=False, READY_SECONDS=ready_seconds)
    assert done.returncode == 1
    assert observed in done.stderr
    assert re.search(
        r"RUNBOOK: docs/runbook.md#deploy-(waits-for-health|failed-before-the-switch)", done.stderr
    )
    assert done.stderr.splitlines()[-1].startswith(f"live: release {before[0]} in slot {before[1]}")
    assert stack.live() == before
    assert_clean(load, report)
    # Only the ledger's entries and the evidence that the error names are left.
    assert stack.container(f"api-{other(before[1])}") == ""
    assert stack.container(f"worker-{other(before[1])}") == ""
    assert [entry["result"] for entry in stack.ledger()[ledger:]] == ["begun", "failed"]
    folder = re.search(r"logs and health records: (\S+)", done.stderr)
    assert folder
    assert "api-" in stack.run("ls", folder[1]).stdout


@pytest.mark.nightly
@pytest.mark.counts_losses
def test_a_release_that_is_slow_only_under_traffic_is_rolled_back(stack: Stack) -> None:
    before = stack.live()
    slow = f"    if limit != 20:\n        await asyncio.sleep(2)\n{LIST_ITEMS}"
    with Load(stack, rate=15).running() as report, crowd(stack, "/v1/items?limit=5"):
        wait_until(lambda: report.sent > 150, 30, "the load is under way")
        with (
            stack.edited("api/items/routes.py", "from datetime", "import asyncio\nfrom datetime"),
            stack.edited("api/items/routes.py", LIST_ITEMS, slow),
        ):
            done = stack.deploy(check=False, WATCH_SECONDS="10")
    assert done.returncode == 4
    assert "ms or more in each third of the watch" in done.stderr
    assert stack.live() == before
    assert report.failures == []


@pytest.mark.counts_losses
def test_a_release_that_fails_only_under_traffic_is_rolled_back(
    stack: Stack, figure: Figure
) -> None:
    before = stack.live()
    # The smoke test sends no `limit`; the load sends 5, which fails here.
    broken = f'    if limit != 20:\n        raise RuntimeError("broken")\n{LIST_ITEMS}'
    load = Load(stack, rate=60)
    with load.running() as report, crowd(stack, "/v1/items?limit=5"):
        wait_until(lambda: report.sent > 100, 30, "the load is under way")
        with stack.edited("api/items/routes.py", LIST_ITEMS, broken):
            done = stack.deploy(check=False, WATCH_SECONDS="15")
        failed = [at for at, _ in report.failures]
        sent = report.sent
        wait_until(lambda: report.sent > sent + 100, 30, "the load goes on")
    assert done.returncode == 4
    assert "requests failed" in done.stderr
    assert stack.live() == before
    assert failed
    assert max(at for at, _ in report.failures) - min(failed) < 15
    assert load.lost_and_doubled() == (0, 0)
    assert stack.ledger()[-1]["result"] == "rolled back"
    figure(
        f"worse only under traffic: errors for {max(failed) - min(failed):.1f} s until it "
        "was rolled back"
    )


def test_two_deploys_at_once_one_wins_and_the_other_names_it(stack: Stack) -> None:
    stack.vary()
    argv = ["./scripts/deploy.sh"]
    first = subprocess.Popen(
        argv,
        cwd=stack.root,
        env={**stack.environment, "WATCH_SECONDS": "3"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout
    for line in first.stdout:
        if line.startswith("==> preflight"):
            break
    started = time.monotonic()
    second = stack.deploy(check=False)
    seconds = time.monotonic() - started
    assert second.returncode == 3
    assert re.search(
        r"error: another command holds the lock: deploy by \w+, process \d+, since 2", second.stderr
    )
    assert f"process {first.pid}" in second.stderr
    assert seconds < 5
    waiting = stack.run("./scripts/rollback.sh", "--wait-lock", "300")
    assert waiting.returncode == 0
    first.stdout.read()
    assert first.wait(60) == 0


def test_a_broken_nginx_configuration_is_refused_before_any_effect(stack: Stack) -> None:
    before, installed = stack.live(), (stack.root / "state/nginx/current").readlink()
    with stack.edited("nginx/nginx.conf", "server_tokens off;", "server_tokens maybe;"):
        done = stack.deploy(check=False)
    assert done.returncode == 1
    assert 'invalid value "maybe"' in done.stderr
    assert (stack.live(), (stack.root / "state/nginx/current").readlink()) == (before, installed)
    key = stack.root / "secrets/tls/privkey.pem"
    away = key.rename(key.with_suffix(".away"))
    try:
        assert stack.deploy(check=False).returncode == 1
        assert stack.live() == before
    finally:
        away.rename(key)


@pytest.mark.counts_losses
def test_a_changed_nginx_configuration_is_reloaded_without_a_failed_request(stack: Stack) -> None:
    load = Load(stack, rate=30)
    with load.running() as report:
        wait_until(lambda: report.sent > 50, 30, "the load is under way")
        with stack.edited(
            "nginx/conf.d/20-limits.conf", "client_max_body_size 1m;", "client_max_body_size 2k;"
        ):
            stack.deploy()
            with stack.client() as client:
                assert client.post("/v1/items", content=b"x" * 4096).status_code == 413
        stack.deploy()
    with stack.client() as client:
        assert client.post("/v1/items", content=b"x" * 4096).status_code != 413
    assert load.lost_and_doubled() == (0, 0)
    assert report.failures_besides_reloads() == []


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda text: text + "LOG_LEVEL=DEBUG\n", "LOG_LEVEL is set twice"),
        (lambda text: text.replace("\n", "\r\n"), "CRLF"),
        (lambda text: text[: len(text) // 2].rstrip(), "cut off"),
        (lambda text: re.sub(r"REDIS_IMAGE=.*", "REDIS_IMAGE=", text), "REDIS_IMAGE"),
    ],
    ids=["doubled", "crlf", "truncated", "missing"],
)
def test_a_spoiled_environment_is_named_and_changes_nothing(
    stack: Stack, spoil: object, named: str
) -> None:
    before, file = stack.live(), stack.root / ".env"
    text = file.read_text(encoding="utf-8")
    assert callable(spoil)
    file.write_bytes(spoil(text).encode())
    try:
        done = stack.deploy(check=False)
    finally:
        file.write_text(text, encoding="utf-8")
    assert done.returncode == 1
    assert named in done.stderr
    assert stack.live() == before


def test_a_weak_secret_is_named_and_not_shown(stack: Stack) -> None:
    file = stack.root / "secrets/token_key"
    text = file.read_text(encoding="utf-8")
    file.write_text("hunter2\n", encoding="utf-8")
    try:
        done = stack.deploy(check=False)
    finally:
        file.write_text(text, encoding="utf-8")
    assert done.returncode == 1
    assert "token_key" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_preflight_refuses_below_the_floor_and_names_what_to_delete(stack: Stack) -> None:
    before = stack.live()
    done = stack.deploy(
        check=False, FREE_DISK_FLOOR_BYTES=str(10**15), FREE_MEMORY_FLOOR_BYTES=str(10**15)
    )
    assert done.returncode == 1
    assert "GB are free" in done.stderr
    assert "docker image ls" in done.stderr
    assert "MB of memory are free" in done.stderr
    assert "RUNBOOK: docs/runbook.md#disk-or-memory-below-the-floor" in done.stderr
    assert stack.live() == before


def test_a_rollback_without_an_image_or_a_former_release_is_refused(stack: Stack) -> None:
    before = stack.live()
    done = stack.run("./scripts/rollback.sh", "no-such-release", check=False)
    assert done.returncode == 1
    assert "the image of release no-such-release is not here" in done.stderr
    assert "these are kept:" in done.stderr
    assert stack.run("./scripts/rollback.sh", before[0], check=False).returncode == 1
    assert stack.live() == before


@pytest.mark.nightly  # the runbook's test removes the link in every change (fault 41)
@pytest.mark.counts_losses
def test_a_lost_ledger_lock_or_link_is_rebuilt_from_what_runs(stack: Stack) -> None:
    stack.vary()
    first, _ = stack.live()
    stack.deploy()
    (stack.root / "state/ledger.jsonl").write_text('{"cut of', encoding="utf-8")
    (stack.root / "state/lock").write_text("not json", encoding="utf-8")
    stack.run("docker", "rmi", f"{stack.image}:{first}")  # the slot's tag keeps the image
    load = Load(stack, rate=30)
    with load.running() as report:
        wait_until(lambda: report.sent > 50, 30, "the load is under way")
        stack.run("./scripts/rollback.sh")
        assert stack.live()[0] == first
        stack.vary()
        stack.deploy()
    assert_clean(load, report)
    lines = (stack.root / "state/ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines[0] == '{"cut of'
    entries = [json.loads(line) for line in lines[1:]]
    assert [(entry["action"], entry["result"]) for entry in entries] == [
        ("adopt", "done"),  # the rollback numbers the live release
        *((action, result) for action in ("rollback", "deploy") for result in ("begun", "done")),
    ]


def test_retention_removes_old_releases_and_never_the_rollback_target(stack: Stack) -> None:
    first, _ = stack.live()
    releases = [first]
    for _ in range(2):
        stack.vary()
        stack.deploy(KEEP_RELEASES="1", WATCH_SECONDS="0")
        releases.append(stack.live()[0])
    tags = set(stack.run("docker", "images", "--format", "{{.Tag}}", stack.image).stdout.split())
    assert {releases[-1], releases[-2]} <= tags
    assert first not in tags
    stack.run("./scripts/rollback.sh")
    assert stack.live()[0] == releases[-2]
