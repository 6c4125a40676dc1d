"""Injects the runbook's incidents of deploy and rollback; each entry must end its incident."""

import secrets
import subprocess
import threading
from collections.abc import Callable

from tests.stack.harness import Stack, wait_until
from tests.stack.settings import give_green_the_settings_of_blue

LIST_ITEMS = "    return await service.list_items(database, user_id, cursor, limit)"


def _replace(stack: Stack, path: str, old: str, new: str) -> None:
    file = stack.root / path
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def never_starts(stack: Stack) -> None:
    """A release whose API exits at its start."""
    _replace(stack, "api/main.py", "app = ", 'raise RuntimeError("never starts")\napp = ')
    assert stack.deploy(check=False, READY_SECONDS="8").returncode == 1


def fails_the_smoke_test(stack: Stack) -> None:
    """A release that is healthy and answers 500."""
    _replace(stack, "api/items/routes.py", LIST_ITEMS, '    raise RuntimeError("broken")')
    assert stack.deploy(check=False).returncode == 1


def stuck_on_the_new_slot(stack: Stack) -> None:
    """The state after a failed rollback: the new slot is live, the former slot does not run."""
    stack.run("docker", "tag", f"{stack.image}:blue", f"{stack.image}:green")
    give_green_the_settings_of_blue(stack)
    stack.compose("up", "--detach", "--no-deps", "--wait", "api-green", "worker-green")
    stack.switch("green")
    stack.compose("stop", "api-blue", "worker-blue")


def a_release_too_many(stack: Stack) -> None:
    """A live release that an operator wants to roll back."""
    stack.vary()
    stack.deploy()


def refused_rollback(stack: Stack) -> None:
    """A rollback to a release whose image is missing."""
    assert stack.run("./scripts/rollback.sh", "no-such-release", check=False).returncode == 1


def another_deploy_runs(stack: Stack) -> None:
    """A deploy that runs in another terminal."""
    stack.vary()
    process = subprocess.Popen(
        ["./scripts/deploy.sh"],
        cwd=stack.root,
        env=stack.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("==> preflight"):
            break
    # Keep reading: a full pipe would stop the deploy.
    threading.Thread(target=process.stdout.read, daemon=True).start()


def spoiled_nginx(stack: Stack) -> None:
    """A typo in nginx's configuration."""
    _replace(stack, "nginx/nginx.conf", "server_tokens off;", "server_tokens maybe;")
    assert stack.deploy(check=False).returncode == 1


def below_the_floor(stack: Stack) -> None:
    """A deploy that is refused because the disk lacks space."""
    assert stack.deploy(check=False, FREE_DISK_FLOOR_BYTES=str(10**15)).returncode == 1


def failed_job(stack: Stack) -> None:
    """A job that failed on its last attempt."""
    with stack.client(headers={"Authorization": f"Bearer {stack.token()}"}) as client:
        export = client.post("/v1/exports").json()["id"]
    job = f"args->>'export_id' = '{export}'"
    done = f"select count(*) from procrastinate_jobs where {job} and status = 'succeeded'"
    wait_until(lambda: stack.sql(done) == "1", 60, "the export's job is done")
    stack.sql(f"update procrastinate_jobs set status = 'failed' where {job}")
    assert stack.run("./scripts/status.sh", check=False).returncode == 1


EARLIER_TOKEN = "secrets/token_of_the_earlier_key"


def token_key_replaced(stack: Stack) -> None:
    """Replace the token key in one step; the old key is kept in `token_key.before`."""
    (stack.root / EARLIER_TOKEN).write_text(stack.token(), encoding="utf-8")
    file = stack.root / "secrets/token_key"
    file.rename(file.with_name("token_key.before"))
    file.write_text(secrets.token_urlsafe(32) + "\n", encoding="utf-8")
    file.chmod(0o444)
    stack.compose("up", "--detach", "--no-deps", "--force-recreate", "--wait", "api-blue")
    wait_until(stack.is_serving, 60, "the new key serves")
    assert not accepts_the_earlier_token(stack)


def accepts_the_earlier_token(stack: Stack) -> bool:
    token = (stack.root / EARLIER_TOKEN).read_text(encoding="utf-8")
    with stack.client(headers={"Authorization": f"Bearer {token}"}) as client:
        return client.get("/v1/users/me").status_code == 200


def lost_link(stack: Stack) -> None:
    """Remove the live link."""
    stack.compose("exec", "--no-TTY", "nginx", "rm", "/run/slots/live.sock")


DEPLOY_INCIDENTS: dict[str, Callable[[Stack], None]] = {
    "deploy-waits-for-health": never_starts,
    "deploy-failed-before-the-switch": fails_the_smoke_test,
    "deploy-failed-after-the-switch": stuck_on_the_new_slot,
    "roll-back": a_release_too_many,
    "rollback-refused": refused_rollback,
    "two-deploys-at-once": another_deploy_runs,
    "nginx-refuses-its-configuration": spoiled_nginx,
    "disk-or-memory-below-the-floor": below_the_floor,
    "deploy-by-hand": lambda stack: None,  # no incident: the commands must do what deploy.sh does
    "failed-jobs": failed_job,
    "sessions-lost-after-a-deploy": token_key_replaced,
    "lost-live-link": lost_link,
}
