"""The developer's stack serves a saved change; production refuses each part of that stack."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Figure
from tests.receiver import Received
from tests.stack.harness import PROJECT, Stack, copy_checkout, wait_until

pytestmark = pytest.mark.drill
FILES = "compose.yaml:compose.dev.yaml"
SENT_BY_THE_API = """
import smtplib
mail = "From: api@example.org\\nTo: anna@example.org\\nSubject: Welcome\\n\\nYour account is ready."
smtplib.SMTP("sink", timeout=5).sendmail("api@example.org", ["anna@example.org"], mail)
"""
# These replace the developer's settings in the file of the slot.
OF_PRODUCTION = ("ENVIRONMENT=production", "DOCS_ENABLED=false", "WEBHOOK_ALLOWED_NETWORKS=")


@pytest.fixture(scope="module")
def developer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A developer's stack, separate from the stack that the other tests share."""
    root: Path = tmp_path_factory.mktemp("developer")
    copy_checkout(root)
    made = Stack(root, f"{PROJECT}-developer")
    made.environment["COMPOSE_FILE"] = FILES
    made.remove()
    try:
        made.run("./scripts/up.sh", timeout=900)
        yield made
    finally:
        made.remove()


@pytest.fixture
def sink(developer: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(
        base_url=f"http://127.0.0.1:{developer.environment['SINK_PORT']}", trust_env=False
    ) as client:
        assert client.delete("/").status_code == 204
        yield client


def received(sink: httpx2.Client, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sink.get("/").json()[kind]
    return found


def text_of(developer: Stack, path: str) -> str:
    """Return the front door's answer, or "" while the API restarts."""
    try:
        with developer.client(timeout=2) as client:
            return client.get(path).text
    except httpx2.HTTPError:
        return ""


def test_a_saved_change_of_the_api_is_answered(developer: Stack, figure: Figure) -> None:
    with developer.edited("api/health/schemas.py", '"alive"', '"changed"'):
        seconds = wait_until(
            lambda: "changed" in text_of(developer, "/livez"), 60, "the change is served"
        )
    wait_until(lambda: "alive" in text_of(developer, "/livez"), 60, "the change is undone")
    figure(f"development: a saved change is answered after {seconds:.1f} s")


def test_what_cannot_start_waits_for_the_next_save(developer: Stack) -> None:
    with developer.edited("api/main.py", "create_app(settings)", "nobody_knows_this(settings)"):
        said = ("logs", "--no-color", "--since", "60s", "api-blue")
        wait_until(lambda: "NameError" in developer.compose(*said), 60, "it cannot start")
    wait_until(lambda: "alive" in text_of(developer, "/livez"), 60, "the next save repairs the API")


def test_a_saved_change_of_the_worker_restarts_it(developer: Stack) -> None:
    def starts() -> int:
        return developer.compose("logs", "--no-color", "worker-blue").count('"worker_started"')

    before = starts()
    with developer.edited("worker/stalled.py", "LOOK_SECONDS", "LOOK_SECONDS"):
        wait_until(lambda: starts() > before, 60, "the worker restarted")


def test_the_documentation_is_open_to_the_developer(developer: Stack) -> None:
    # The previous test saved a file of the worker: the reloader may still be restarting the API.
    wait_until(lambda: "swagger" in text_of(developer, "/docs"), 60, "the documentation is served")
    assert '"/v1/items"' in text_of(developer, "/openapi.json")


def test_a_webhook_arrives_signed_and_mail_arrives_and_both_are_forgotten_when_asked(
    developer: Stack, sink: httpx2.Client
) -> None:
    with developer.client(
        timeout=30, headers={"Authorization": f"Bearer {developer.new_token()}"}
    ) as client:
        path = f"/hooks/{uuid.uuid4()}"
        hook = client.post(
            "/v1/webhooks", json={"url": f"http://sink{path}", "event_types": ["item.created"]}
        )
        assert hook.status_code == 201, hook.text
        assert client.post("/v1/items", json={"name": "Lamp"}).status_code == 201
    wait_until(lambda: received(sink, "webhooks"), 60, "the event is in the sink")
    (event,) = received(sink, "webhooks")
    assert (event["path"], event["json"]["type"], event["json"]["data"]["name"]) == (
        path,
        "item.created",
        "Lamp",
    )
    assert Received(event["headers"], event["body"].encode()).is_signed_by(hook.json()["secret"])

    developer.compose("exec", "--no-TTY", "api-blue", "python", "-c", SENT_BY_THE_API)
    (mail,) = received(sink, "mails")
    assert (mail["from"], mail["to"], mail["subject"]) == (
        "api@example.org",
        ["anna@example.org"],
        "Welcome",
    )
    assert mail["text"].strip() == "Your account is ready."
    assert sink.delete("/").status_code == 204
    assert sink.get("/").json() == {"webhooks": [], "mails": []}


def test_production_refuses_each_part(developer: Stack) -> None:
    """Production refuses the development image and each development setting."""
    wide = "WEBHOOK_ALLOWED_NETWORKS=10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
    for service, command in (
        ("api-blue", "api.check_config"),
        ("worker-blue", "worker"),
        ("migrate", "api.migrate"),
    ):
        done = start(developer, service, command, "DEBUG=true", wide)
        assert done.returncode == 78, done.stderr
        said = done.stdout + done.stderr
        assert all(f"{key}: " in said for key in ("RELOAD", "DEBUG", "WEBHOOK_ALLOWED_NETWORKS")), (
            said
        )
    judged = start(developer, "api-blue", "api.check_config", "RELOAD=false", "DOCS_ENABLED=true")
    assert (judged.returncode, judged.stdout.partition(":")[0]) == (0, "warning DOCS_ENABLED")
    alone = developer.run(
        *(
            "docker",
            "compose",
            "run",
            "--rm",
            "--no-deps",
            "--no-TTY",
            "--env",
            "ENVIRONMENT=production",
            "sink",
        ),
        check=False,
        timeout=60,  # a module that starts never exits
    )
    assert alone.returncode == 78
    for script in ("deploy", "rollback"):
        refused = developer.run(f"./scripts/{script}.sh", check=False)
        assert refused.returncode == 1
        assert "COMPOSE_FILE names compose.dev.yaml" in refused.stderr


def start(developer: Stack, service: str, module: str, *given: str) -> Any:
    """Start a module in a production service with the development image."""
    options = [word for one in (*OF_PRODUCTION, *given) for word in ("--env", one)]
    argv = [
        "docker",
        "compose",
        "run",
        "--rm",
        "--no-deps",
        "--no-TTY",
        *options,
        service,
        "python",
        "-m",
        module,
    ]
    return developer.run(*argv, check=False, COMPOSE_FILE="compose.yaml", MIGRATE_TAG="blue")
