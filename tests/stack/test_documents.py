"""Runs every command of the pages, unchanged."""

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contracts.compose_files import SERVICES
from tests.stack.backup_incidents import BACKUP_INCIDENTS
from tests.stack.custody_incidents import CUSTODY_INCIDENTS
from tests.stack.deploy_incidents import DEPLOY_INCIDENTS, accepts_the_earlier_token
from tests.stack.documents import (
    COMMANDS,
    OPERATING,
    PARTS,
    README,
    TOUR,
    blocks,
    incidents,
)
from tests.stack.fault_incidents import FAULT_INCIDENTS, asked_for_items
from tests.stack.harness import IMAGE, PROJECT, ROOT, Stack, copy_checkout, wait_until
from tests.stack.poison import JOB_INCIDENTS
from tests.stack.restores import RESTORE_INCIDENTS, rows_are_back

pytestmark = pytest.mark.drill
# The options of Compose in the runbook that take a value.
OPTIONS_WITH_A_VALUE = {
    "--entrypoint",
    "--filter",
    "--format",
    "--profile",
    "--signal",
    "--since",
    "--tail",
    "--wait-timeout",
}
ADVISORY_KEY = 0x736C6970776179  # api/migrate.py


def execute(stack: Stack, block: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a block in one shell, as a person does; with `check`, each command must succeed."""
    return stack.run(
        "bash", "-euo" if check else "-uo", "pipefail", "-c", block, check=check, URL=stack.url
    )


def test_the_walk_through_the_pages_works_as_it_stands(stack: Stack) -> None:
    """Runs the tour of a user and then the operator's page, in one shell."""
    pages = (TOUR, OPERATING)
    walk = "\n".join(block for page in pages for block in blocks(page.read_text(encoding="utf-8")))
    done = execute(stack, walk)
    assert "Lamp" in done.stdout
    followed = [
        json.loads(line.partition("| ")[2])
        for line in done.stdout.splitlines()
        if re.match(r"[\w-]+ +\| {", line)
    ]
    assert {entry["service"] for entry in followed} >= {"nginx", "api"}


def test_every_command_of_the_tables_knows_help(stack: Stack) -> None:
    shown = "".join(page.read_text(encoding="utf-8") for page in (README, COMMANDS))
    for script in sorted({*re.findall(r"`(\./scripts/[\w-]+\.sh)", shown)}):
        assert "usage" in stack.run(script, "--help").stdout.lower()


def test_the_start_of_the_readme_leads_to_an_answer(stack: Stack) -> None:
    start = README.read_text(encoding="utf-8").partition("\n## Start\n")[2].partition("\n## ")[0]
    commands = "".join(re.findall(r"```console\n(.*?)```", start, re.DOTALL))
    answer = execute(stack, commands.replace("https://localhost:8443", stack.url)).stdout
    assert '"status":"ready"' in answer


def test_a_public_host_is_set_up_by_the_page(stack: Stack, tmp_path: Path) -> None:
    """Run the page's commands (certificate, start, reload) in a clone, published on loopback."""
    page = OPERATING.read_text(encoding="utf-8")
    section = page.partition("\n## On a public host\n")[2].partition("\n## ")[0]
    install, start, reload = re.findall(
        r"^ *```console\n(.*?)^ *```", section, re.DOTALL | re.MULTILINE
    )
    copy_checkout(tmp_path)
    public = Stack(tmp_path, project=f"{PROJECT}-public", host="api.example.org", https_port=443)
    del public.environment["SLIPWAY_HOST"]
    public.environment |= {"HTTP_BIND": "127.0.0.1", "HTTPS_BIND": "127.0.0.1"}
    subject = ["-subj", "/CN=api.example.org", "-addext", "subjectAltName=DNS:api.example.org"]
    pair = ["-keyout", "privkey.pem", "-out", "fullchain.pem"]
    public.remove()
    try:
        public.run(
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "90",
            *subject,
            *pair,
        )
        execute(public, install)
        done = execute(public, start)
        assert done.stdout.splitlines()[-1].endswith("answering at https://api.example.org")
        reloaded = execute(public, reload.replace("exec nginx", "exec --no-TTY nginx"))
        assert "error" not in reloaded.stderr
        execute(public, "./scripts/status.sh")
    finally:
        public.remove()


def stop(service: str) -> Callable[[Stack], None]:
    """Return an injection that stops a service."""

    def inject(stack: Stack) -> None:
        stack.compose("stop", service)

    return inject


def break_redis(stack: Stack) -> None:
    """A bad edit of Redis' configuration."""
    file = stack.root / "redis/redis.conf"
    file.write_text(file.read_text(encoding="utf-8") + "no-such-directive yes\n", encoding="utf-8")
    stack.compose("restart", "redis")
    wait_until(
        lambda: stack.inspect("redis")["RestartCount"] > 2, 60, "redis restarts again and again"
    )


def kill_everything(stack: Stack) -> None:
    """Kill all processes at once, as a power cut does."""
    for pid in [
        stack.host_pid(name) for name in ("postgres", "redis", "api-blue", "worker-blue", "nginx")
    ]:
        os.kill(pid, signal.SIGKILL)


def leave_an_old_image(stack: Stack) -> None:
    """Leave an image of a release without a tag."""
    for number in (1, 2):
        recipe = f"FROM {IMAGE}:blue\nLABEL number={number}\n"
        argv = ["docker", "build", "--quiet", "--tag", f"{IMAGE}:dangling", "-"]
        subprocess.run(argv, input=recipe, text=True, check=True, capture_output=True)
    stack.run("docker", "rmi", f"{IMAGE}:dangling")
    stack.compose("stop", "worker-blue")


def spoil_environment(stack: Stack) -> None:
    """Add a duplicate key, an unknown key and Windows line endings."""
    file = stack.root / ".env"
    text = file.read_text(encoding="utf-8") + "LOG_LEVEL=DEBUG\nNO_SUCH_KEY=1\n"
    file.write_text(text.replace("\n", "\r\n"), encoding="utf-8")
    assert stack.run("./scripts/status.sh", check=False).returncode == 1


def hold_the_migration_lock(stack: Stack) -> None:
    """Leave a transaction open that holds the lock that migrate needs."""
    psql = ["psql", "-qAtX", "--host=/tmp", "--username=postgres", "--dbname=slipway"]
    argv = ["docker", "compose", "exec", "--no-TTY", "postgres", *psql]
    session = subprocess.Popen(
        argv, cwd=stack.root, env=stack.environment, stdin=subprocess.PIPE, text=True
    )
    assert session.stdin
    session.stdin.write(f"begin; select pg_advisory_lock({ADVISORY_KEY});\n")
    session.stdin.flush()
    aged = (
        "select count(*) from pg_stat_activity where state = 'idle in transaction' and now() - "
        "xact_start > '11 s'"
    )
    wait_until(lambda: stack.sql(aged) == "1", 60, "the transaction is old enough")


INJECTIONS: dict[str, Callable[[Stack], None]] = {
    "site-down": stop("nginx"),
    "a-service-keeps-restarting": break_redis,
    "nginx-answers-503": stop("api-blue"),
    "host-rebooted": kill_everything,
    "disk-full": leave_an_old_image,
    "boot-refused-by-the-configuration": spoil_environment,
    "migration-failed": hold_the_migration_lock,
    "webhooks-not-delivered": stop("worker-blue"),
    **DEPLOY_INCIDENTS,
    **JOB_INCIDENTS,
    **FAULT_INCIDENTS,
    **BACKUP_INCIDENTS,
    **RESTORE_INCIDENTS,
    **CUSTODY_INCIDENTS,
}


# Entries whose commands another test runs, under load.
DRILLED = {
    "postgres-volume-full": "tests/stack/test_postgres_volume.py",
    "postgres-major-upgrade": "tests/stack/test_upgrade.py",
    "restore-to-a-new-host": "tests/stack/test_offsite.py",
    "shipping-off-the-host-fails": "tests/stack/test_offsite.py",
    "drill-off-the-host-fails": "tests/stack/test_offsite.py",
}


def test_every_incident_of_the_runbook_is_injected() -> None:
    assert set(incidents()) == {*INJECTIONS, *DRILLED}
    for name, file in DRILLED.items():
        assert f'ENTRY = "{name}"' in (ROOT / file).read_text(encoding="utf-8")
    assert all(tuple(parts) == PARTS for parts in incidents().values())


def dangling(stack: Stack) -> list[str]:
    """Return the untagged images of this product."""
    labels = [
        "--filter",
        "dangling=true",
        "--filter",
        "label=org.opencontainers.image.title=slipway",
    ]
    return stack.run("docker", "images", "--quiet", *labels).stdout.split()


def services_named(line: str) -> set[str]:
    """Return the arguments of a line's Compose commands that must be service names."""
    named: set[str] = set()
    for command in re.findall(r"""docker compose ((?:'[^']*'|"[^"]*"|[^|;&)'"])*)""", line):
        words = ["", *shlex.split(command)]
        plain = [
            word
            for before, word in itertools.pairwise(words)
            if not word.startswith("-") and before not in OPTIONS_WITH_A_VALUE
        ]
        verb, arguments = plain[0], plain[1:]
        if verb != "config":
            named.update(arguments[:1] if verb in {"exec", "run"} else arguments)
    return named


def is_misused(stack: Stack, line: str) -> bool:
    """Run a line of an incident; return whether the line is wrong, not merely failing.

    Compose's `logs` of an unknown service prints nothing and succeeds; its `exec` prints that the
    service is not running.
    """
    done = execute(stack, line, check=False)
    wrong = re.search(r"no such service|unknown (\w+ )?(flag|command)", done.stderr, re.IGNORECASE)
    return (
        done.returncode in {2, 126, 127}
        or wrong is not None
        or not services_named(line) <= set(SERVICES)
    )


@pytest.mark.parametrize(
    "line",
    [
        "docker compose logs --tail 50 api-blu",
        "docker compose exec --no-TTY postgre true",
        'docker inspect "$(docker compose ps --all --quiet redi)"',
        "docker compose logs --since 15m ngin | grep x",
        "docker compose ps --every",
        "./scripts/logs.sh api-blu",
        "./scripts/statu.sh",
    ],
)
def test_a_misspelt_command_would_be_seen(stack: Stack, line: str) -> None:
    assert is_misused(stack, line)


@pytest.fixture
def _blue_again(stack: Stack) -> Iterator[None]:
    yield
    stack.back_to_blue()


@pytest.mark.usefixtures("_blue_again")
@pytest.mark.parametrize("name", INJECTIONS)
def test_the_runbook_ends_the_incident(stack: Stack, name: str) -> None:
    parts = incidents()[name]
    INJECTIONS[name](stack)
    for block in blocks(parts["Diagnosis"]):
        for line in block.splitlines():
            assert not is_misused(stack, line), line
    execute(stack, "\n".join(blocks(parts["Mitigation"])))
    wait_until(stack.is_serving, 60, f"the mitigation of {name} ended it")
    for block in blocks(parts["Verification"]):
        execute(stack, block)
    if name == "a-job-fails-again-and-again":
        stack.run("./scripts/jobs.sh", "discard", "--all")  # the entry leaves this step to a person
    if name == "a-burst-of-429":
        assert asked_for_items(stack) == 200
    if name == "restore-rows":
        assert rows_are_back(stack)
    if name == "restore-all":
        assert stack.sql("select count(*) from witness") == "1"
        stack.sql("drop table witness")
    if name == "disk-full":
        assert dangling(stack) == []
    if name == "sessions-lost-after-a-deploy":
        assert accepts_the_earlier_token(stack)
    if name == "boot-refused-by-the-configuration":
        assert "LOG_LEVEL=\n" in (stack.root / ".env").read_text(encoding="utf-8"), (
            "the first of the two LOG_LEVEL lines is kept"
        )


def test_an_application_that_refuses_its_settings_names_the_key_and_no_value(stack: Stack) -> None:
    done = stack.run("./scripts/up.sh", check=False, LOG_LEVEL="canary-value")
    try:
        assert done.returncode == 1
        assert "LOG_LEVEL" in done.stderr
        assert "canary-value" not in done.stdout + done.stderr
        assert "RUNBOOK: docs/runbook.md#" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("live:")
    finally:
        stack.run("./scripts/up.sh")
