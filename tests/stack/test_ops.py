"""Tests sessions of the operations console: login, limits, loss of Redis, deploy."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from api.storing.redis_client import AWAY_SECONDS
from tests.conftest import Figure
from tests.stack.harness import Stack, wait_until
from tests.stack.settings import give_green_the_settings_of_blue

pytestmark = pytest.mark.stack
COOKIE = "__Host-slipway_ops"


@contextmanager
def operator(stack: Stack) -> Iterator[httpx2.Client]:
    """Yield a client that is logged in to the console and sends the CSRF token."""
    with stack.client(timeout=10) as browser:
        answer = browser.post("/ops/session", json=credentials(stack))
        assert answer.status_code == 201, answer.text
        browser.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
        yield browser


def credentials(stack: Stack) -> dict[str, str]:
    password = (stack.root / "secrets/ops_password").read_text(encoding="utf-8").strip()
    return {"user": "operator", "password": password}


def session_status(browser: httpx2.Client) -> int:
    return browser.get("/ops/session").status_code


def refresh_token(stack: Stack, client: httpx2.Client) -> str:
    """Log in the first user, an account without access to the console."""
    user = json.loads((stack.root / "secrets/first_user.json").read_text(encoding="utf-8"))
    return str(client.post("/v1/users/login", json=user).json()["refresh_token"])


def refresh_status(client: httpx2.Client, token: str) -> int:
    return client.post("/v1/users/refresh", json={"refresh_token": token}).status_code


def key_of(stack: Stack, csrf_token: str) -> str:
    """Return the Redis key of the session with this CSRF token."""
    keys = stack.redis("--scan", "--pattern", "ops:session:*").splitlines()
    return next(key for key in keys if csrf_token in stack.redis("GET", key))


def test_a_session_is_opened_read_and_closed_and_redis_holds_no_id(stack: Stack) -> None:
    with stack.client() as browser:
        assert session_status(browser) == 401
        assert (
            browser.post(
                "/ops/session", json={**credentials(stack), "password": "wrong"}
            ).status_code
            == 401
        )
        opened = browser.post("/ops/session", json=credentials(stack))
        name, *attributes = opened.headers["set-cookie"].split("; ")
        assert name.startswith(f"{COOKIE}=")
        assert {attribute.lower() for attribute in attributes} == {
            "httponly",
            "path=/",
            "samesite=strict",
            "secure",
        }
        assert browser.get("/ops/session").json() == opened.json()
        key = key_of(stack, opened.json()["csrf_token"])
        assert browser.cookies[COOKIE] not in key + stack.redis("GET", key)
        for header in ({}, {"X-CSRF-Token": "wrong"}):
            assert browser.delete("/ops/session", headers=header).json()["error"] == "csrf_failed"
        taken = browser.cookies[COOKIE]
        closed = browser.delete(
            "/ops/session", headers={"X-CSRF-Token": opened.json()["csrf_token"]}
        )
        assert closed.status_code == 204
        assert COOKIE not in browser.cookies
        browser.cookies.clear()
        assert (
            browser.get("/ops/session", headers={"Cookie": f"{COOKIE}={taken}"}).status_code == 401
        )


def test_a_login_gives_a_new_id_and_takes_over_none(stack: Stack) -> None:
    with operator(stack) as browser:
        before = browser.cookies[COOKIE]
        assert browser.post("/ops/session", json=credentials(stack)).status_code == 201
        assert browser.cookies[COOKIE] != before
        assert session_status(browser) == 200
    with stack.client() as thief:
        header = {"Cookie": f"{COOKIE}={before}"}
        assert thief.get("/ops/session", headers=header).status_code == 401
        planted = thief.post("/ops/session", json=credentials(stack), headers=header)
        assert before not in planted.headers["set-cookie"]


def test_a_session_ends_when_it_idles_and_when_its_time_is_over(stack: Stack) -> None:
    with operator(stack) as browser:
        key = key_of(stack, browser.headers["X-CSRF-Token"])
        assert 1700 <= int(stack.redis("TTL", key)) <= 1800
        stack.redis("EXPIRE", key, "60")
        assert session_status(browser) == 200
        assert 1700 <= int(stack.redis("TTL", key)) <= 1800, "a request restarts the idle time"
        stored = json.loads(stack.redis("GET", key))
        assert 7100 <= stored["ends_at"] - time.time() <= 7200
        stack.redis("SET", key, json.dumps({**stored, "ends_at": int(time.time()) - 1}), "KEEPTTL")
        assert session_status(browser) == 401


@pytest.mark.parametrize(("away", "back"), [("stop", "start"), ("pause", "unpause")])
def test_without_redis_the_console_alone_is_closed(stack: Stack, away: str, back: str) -> None:
    with operator(stack) as browser:
        stack.compose(away, "redis")
        try:
            answers = [
                browser.get("/ops/session"),
                browser.post("/ops/session", json=credentials(stack)),
            ]
            assert refresh_status(browser, refresh_token(stack, browser)) == 200
        finally:
            stack.compose(back, "redis")
        # After a failure a process does not connect to Redis for AWAY_SECONDS, even if another
        # process has reached Redis again.
        every_process_asks = time.monotonic() + AWAY_SECONDS
        for answer in answers:
            assert (answer.status_code, answer.json()["error"]) == (503, "console_unavailable")
            assert answer.headers["retry-after"] == "1"
            assert answer.elapsed.total_seconds() < 2
        wait_until(lambda: time.monotonic() > every_process_asks, 60, "every process asks Redis")
        wait_until(lambda: session_status(browser) == 200, 60, "the session is valid again")


def test_a_flush_logs_operators_out_and_nobody_else(stack: Stack) -> None:
    with operator(stack) as browser:
        token, header = refresh_token(stack, browser), {"Authorization": f"Bearer {stack.token()}"}
        stack.redis("FLUSHALL")
        assert session_status(browser) == 401
        assert browser.get("/v1/users/me", headers=header).status_code == 200
        assert refresh_status(browser, token) == 200


def test_logins_and_sessions_outlive_a_deploy(stack: Stack) -> None:
    stack.run("docker", "tag", f"{stack.image}:blue", f"{stack.image}:green")
    give_green_the_settings_of_blue(stack)
    try:
        with operator(stack) as browser:
            token = refresh_token(stack, browser)
            stack.compose("up", "--detach", "--no-deps", "--wait", "api-green")
            stack.switch("green")
            wait_until(
                lambda: browser.get("/version").json()["slot"] == "green", 60, "green answers"
            )
            assert session_status(browser) == 200
            assert refresh_status(browser, token) == 200
            assert browser.delete("/ops/session").status_code == 204
    finally:
        stack.switch("blue")
        stack.compose("rm", "--stop", "--force", "api-green")


def test_failed_jobs_are_listed_retried_and_discarded_in_the_console(stack: Stack) -> None:
    """The test uses a failed job of an unknown task, which no worker can fetch meanwhile."""
    made = (
        "insert into procrastinate_jobs (queue_name, task_name, args, status, attempts) values"
        ' (\'drill\', \'drill.fail\', \'{"request_id": "r1", "export_id": "e1"}\', '
        "'failed', 5) returning id"
    )
    one, two = stack.sql(made), stack.sql(made)
    state = f"select status, attempts from procrastinate_jobs where id = {one}"
    try:
        with operator(stack) as browser:
            listed = browser.get("/ops/failed-jobs", params={"task": "drill.fail"}).json()["jobs"]
            assert [(str(job["id"]), job["attempts"], job["request_id"]) for job in listed] == [
                (two, 5, "r1"),
                (one, 5, "r1"),
            ]
            assert listed[0]["arguments"] == {"export_id": "e1"}
            forged = browser.post(
                f"/ops/failed-jobs/{one}/retry", headers={"X-CSRF-Token": "wrong"}
            )
            assert forged.json()["error"] == "csrf_failed"
            assert stack.sql(state) == "failed|5"
            assert browser.post(f"/ops/failed-jobs/{one}/retry").status_code == 204
            assert stack.sql(state) == "todo|0"
            assert browser.post(f"/ops/failed-jobs/{one}/retry").json()["error"] == "job_not_failed"
            assert browser.delete(f"/ops/failed-jobs/{two}").status_code == 204
            assert browser.delete(f"/ops/failed-jobs/{two}").status_code == 404
            assert browser.get("/ops/failed-jobs", params={"task": "drill.fail"}).json() == {
                "jobs": []
            }
        with stack.client() as stranger:
            assert stranger.get("/ops/failed-jobs").status_code == 401
    finally:
        stack.sql("delete from procrastinate_jobs where task_name = 'drill.fail'")


# 200,000 cached answers of 250 bytes, four times the memory of Redis. They expire much later than
# real cached answers, so that a slow test still works, and earlier than a session.
FILL = """
keys="for i = 1, 1000 do
    redis.call('set', 'cache:drill:' .. ARGV[1] .. ':' .. i, string.rep('x', 250), 'ex', 600)
end"
for n in $(seq 200); do /etc/slipway/cli.sh -e eval "$keys" 0 "$n" >/dev/null; done
"""


def test_a_redis_that_is_full_drops_caches_and_keeps_sessions_and_used_up_quotas(
    stack: Stack, figure: Figure
) -> None:
    def facts() -> dict[str, str]:
        return dict(line.split(":", 1) for line in stack.redis("info").splitlines() if ":" in line)

    with operator(stack) as browser:
        stack.redis("set", "limit:registration:drill", "1", "ex", "3600")
        before = facts()
        stack.compose("exec", "--no-TTY", "redis", "bash", "-euc", FILL)
        after = facts()
        kept = session_status(browser), stack.redis("exists", "limit:registration:drill")
        seen = stack.run("./scripts/status.sh", check=False).stdout
        stack.redis("flushall")
    count = int(after["evicted_keys"]) - int(before["evicted_keys"])
    figure(
        f"full Redis: {count} keys evicted at {after['used_memory_human']}, "
        f"{after['used_memory_rss_human']} resident"
    )
    assert count > 50_000
    assert kept == (200, "1")
    assert after["run_id"] == before["run_id"], "Redis was not killed for its memory"
    assert "!!  redis data" in seen
