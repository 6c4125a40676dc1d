"""Follows a new user's requests end to end."""

import csv
import io
import json
import re
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher

from tests.conftest import Figure
from tests.stack.harness import Stack, wait_until
from tests.stack.processes import api_processes

pytestmark = pytest.mark.stack


def test_a_new_user_reaches_a_csv_file_of_their_items(stack: Stack) -> None:
    user = {"email": f"{uuid.uuid4().hex}@example.com", "password": "a long enough password"}
    with stack.client() as client:
        assert client.post("/v1/users", json=user).status_code == 201
        token = client.post("/v1/users/login", json=user).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"

        made = client.post("/v1/items", json={"name": "anchor", "price_cents": 1250})
        assert made.status_code == 201
        path = f"/v1/items/{made.json()['id']}"
        assert client.get(path).json()["name"] == "anchor"
        changed = client.put(path, json={"name": "=anchor", "description": "of iron"})
        assert (changed.status_code, changed.json()["description"]) == (200, "of iron")
        second = client.post("/v1/items", json={"name": "rope"}).json()["id"]
        assert client.delete(f"/v1/items/{second}").status_code == 204
        assert client.get(f"/v1/items/{second}").status_code == 404

        asked = client.post("/v1/exports")
        assert asked.status_code == 202
        export = f"/v1/exports/{asked.json()['id']}"
        wait_until(
            lambda: client.get(export).json()["status"] == "finished",
            120,
            "the worker finishes the export",
        )
        rows = list(csv.DictReader(io.StringIO(client.get(f"{export}/csv").text)))
    assert len(rows) == 1
    assert rows[0]["name"] == "'=anchor", "a spreadsheet would run the formula"
    assert (
        stack.sql(
            "select count(*) from items i join users u on u.id = i.owner_id where email = "
            f"'{user['email']}'"
        )
        == "1"
    )


@pytest.mark.alone  # a busy API refuses a request that waits for 3 s
@pytest.mark.parametrize("memory_kibibytes", [19_456, 65_536], ids=["own profile", "older hash"])
def test_twenty_logins_at_once_fit_the_memory(
    stack: Stack, memory_kibibytes: int, figure: Figure
) -> None:
    user = {"email": f"{uuid.uuid4().hex}@example.com", "password": "a long enough password"}
    before = api_processes(stack), stack.inspect("api-blue")["RestartCount"]
    with stack.client(timeout=30) as client, ThreadPoolExecutor(20) as threads:
        assert client.post("/v1/users", json=user).status_code == 201
        stored = PasswordHasher(2, memory_kibibytes, 1).hash(user["password"])
        stack.sql(f"update users set password_hash = '{stored}' where email = '{user['email']}'")
        given = list(threads.map(lambda _: client.post("/v1/users/login", json=user), range(20)))
    slowest_ms = max(answer.elapsed.total_seconds() for answer in given) * 1000
    figure(
        f"20 logins at once with hashes of {memory_kibibytes // 1024} MiB: the slowest "
        f"took {slowest_ms:.0f} ms"
    )
    assert [answer.status_code for answer in given] == [200] * 20
    # The engine counts restarts of a container, not of a process that Gunicorn replaces.
    assert (api_processes(stack), stack.inspect("api-blue")["RestartCount"]) == before
    assert not stack.inspect("api-blue")["State"]["OOMKilled"]


def test_another_users_item_is_not_there(stack: Stack) -> None:
    user = {"email": f"{uuid.uuid4().hex}@example.com", "password": "a long enough password"}
    with stack.client() as client:
        client.post("/v1/users", json=user)
        other = client.post("/v1/users/login", json=user).json()["access_token"]
        mine = client.post(
            "/v1/items", json={"name": "mine"}, headers={"Authorization": f"Bearer {stack.token()}"}
        )
        answer = client.get(
            f"/v1/items/{mine.json()['id']}", headers={"Authorization": f"Bearer {other}"}
        )
    assert answer.status_code == 404


def test_a_job_exists_exactly_when_its_export_was_committed(stack: Stack) -> None:
    """One transaction writes the row and the job: both exist while no worker runs."""
    token = stack.token()
    stack.compose("stop", "worker-blue")
    try:
        with stack.client() as client:
            made = client.post("/v1/exports", headers={"Authorization": f"Bearer {token}"}).json()[
                "id"
            ]
        writer = "select xmin::text from exports where id = '{0}'"
        job = "select xmin::text from procrastinate_jobs where args->>'export_id' = '{0}'"
        rows = stack.sql(writer.format(made)), stack.sql(job.format(made))
        assert rows[0], "the export does not exist"
        assert rows[0] == rows[1], "another transaction wrote the job"
    finally:
        stack.compose("start", "worker-blue")
    wait_until(
        lambda: stack.sql(f"select status from exports where id = '{made}'") == "finished",
        120,
        "the export",
    )


def test_one_request_is_found_in_the_logs_of_nginx_the_api_and_the_job(stack: Stack) -> None:
    with stack.client() as client:
        answer = client.post("/v1/exports", headers={"Authorization": f"Bearer {stack.token()}"})
        request = answer.headers["x-request-id"]
    entries: list[dict[str, str]] = []

    def is_told_to_the_end() -> bool:
        """Whether the engine has logged the worker's last line."""
        lines = stack.run(
            "./scripts/logs.sh", "--request", request, check=False
        ).stdout.splitlines()
        entries[:] = [json.loads(line.partition("| ")[2]) for line in lines if "| " in line]
        return "job_success" in {entry["action"] for entry in entries}

    wait_until(is_told_to_the_end, 120, "the export")
    assert {entry["service"] for entry in entries} == {"nginx", "api", "worker"}
    assert {entry["request_id"] for entry in entries} == {request}
    times = {
        service: [e["ts"] for e in entries if e["service"] == service]
        for service in ("nginx", "api", "worker")
    }
    assert len(times["nginx"]) == 1
    assert [entry["ts"] for entry in entries] == sorted(entry["ts"] for entry in entries)
    # The API logs its first line before the commit: before the worker gets the job, and before
    # nginx logs the answer.
    assert times["api"][0] == entries[0]["ts"]
    assert times["api"][0] <= times["nginx"][0]
    assert times["api"][0] <= times["worker"][0] < times["worker"][-1]
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", entry["ts"])
        for entry in entries
    )


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/nothing", 404, "not_found"),
        ("/v1/items", 401, "not_authenticated"),
        ("/v1/users", 405, "method_not_allowed"),
    ],
)
def test_every_error_has_the_one_form(stack: Stack, path: str, status: int, error: str) -> None:
    with stack.client() as client:
        answer = client.get(path)
    assert answer.status_code == status
    body = answer.json()
    assert set(body) == {"error", "message", "details", "request_id"}
    assert (body["error"], body["request_id"]) == (error, answer.headers["x-request-id"])


def test_a_body_over_the_limit_is_refused_by_nginx_in_the_apis_form(stack: Stack) -> None:
    with stack.client() as client:
        answer = client.post("/v1/items", content=b"x" * (1024 * 1024 + 1))
    assert answer.status_code == 413
    assert (answer.json()["error"], set(answer.json())) == (
        "body_too_large",
        {"error", "message", "details", "request_id"},
    )


def test_plain_http_leads_to_https_and_an_unknown_host_gets_nothing(stack: Stack) -> None:
    import httpx2  # noqa: PLC0415 - only this test connects without TLS

    with httpx2.Client(trust_env=False) as client:
        answer = client.post(f"{stack.plain_url}/v1/items?a=b")
        assert (answer.status_code, answer.headers["location"]) == (
            308,
            f"{stack.url}/v1/items?a=b",
        )
        with pytest.raises(httpx2.RemoteProtocolError):
            client.get(stack.plain_url, headers={"Host": "elsewhere.example"})
    with stack.client() as secure, pytest.raises(httpx2.RemoteProtocolError):
        secure.get("/livez", headers={"Host": "elsewhere.example"})


def test_forged_forwarding_headers_change_nothing(stack: Stack) -> None:
    forged = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
    }
    with stack.client() as client:
        answer = client.get("/v1/items", headers={**forged, "X-Request-ID": "forged-by-the-client"})
        # The API refuses a request whose X-Request-Start is too old with 503. A client must not be
        # able to set this header: nginx overwrites the old time, and the answer is 401.
        assert client.get("/v1/items", headers={"X-Request-Start": "1.0"}).status_code == 401
    request = answer.headers["x-request-id"]
    assert request != "forged-by-the-client"
    found: list[str] = []

    def logged() -> bool:
        found[:] = stack.run(
            "./scripts/logs.sh", "api-blue", "--request", request, check=False
        ).stdout.splitlines()
        return bool(found)

    wait_until(logged, 60, "the API's log line")
    assert "203.0.113.9" not in "".join(found)
    assert "evil.example" not in "".join(found)
