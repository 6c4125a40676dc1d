"""schemathesis compares every operation of the API with its description, through nginx."""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from pydantic import SecretStr

from api.app import create_app
from api.ops.dependencies import SESSION_COOKIE
from tests.api.settings_for_tests import OPS_PASSWORD, make_settings
from tests.conftest import Figure
from tests.stack.harness import ROOT, Stack

pytestmark = pytest.mark.stack

# For each operation: the number of requests that match the description, and of those that do not.
EXAMPLES = [10, pytest.param(100, marks=pytest.mark.nightly)]
SEED = 1  # the same requests in every run, so that a failure can be repeated


@pytest.fixture
def token(stack: Stack) -> str:
    """An access token of a new user; no other test uses the user's items and exports."""
    user = {"email": f"{uuid.uuid4().hex}@example.com", "password": "a long enough password"}
    with stack.client() as client:
        assert client.post("/v1/users", json=user).status_code == 201
        return str(client.post("/v1/users/login", json=user).json()["access_token"])


@pytest.fixture
def session(stack: Stack) -> str:
    """The cookie of an operator's session. Without a CSRF token no request can end the session."""
    password = (stack.root / "secrets/ops_password").read_text(encoding="utf-8").strip()
    with stack.client() as client:
        answer = client.post("/ops/session", json={"user": "operator", "password": password})
        return str(answer.cookies[SESSION_COOKIE])


def run_schemathesis(
    stack: Stack, folder: Path, token: str, session: str, examples: int
) -> subprocess.CompletedProcess[str]:
    """Run every check in every phase against the front door."""
    settings = make_settings(ops_password=SecretStr(OPS_PASSWORD))
    (folder / "openapi.json").write_text(
        json.dumps(create_app(settings).openapi()), encoding="utf-8"
    )
    hooks = Path(__file__).with_name("openapi_hooks.py")
    # As authentication: schemathesis would send a configured header with every request, even with
    # those that must not have the cookie.
    configuration = f'hooks = "{hooks}"\n[auth.openapi.APIKeyCookie]\napi_key = "{session}"\n'
    (folder / "schemathesis.toml").write_text(configuration, encoding="utf-8")
    certificate = str(stack.root / "secrets/tls/fullchain.pem")
    argv = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--no-color",
        "run",
        "openapi.json",
    ]
    argv += [
        "--url",
        stack.url,
        "--tls-verify",
        certificate,
        "--header",
        f"Authorization: Bearer {token}",
    ]
    argv += [
        "--checks",
        "all",
        "--continue-on-failure",
        "--request-timeout",
        "20",
        "--report-json-path",
        "report.json",
    ]
    argv += ["--seed", str(SEED), "--max-examples", str(examples), "--generation-database", "none"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": stack.host,
    }  # PYTHONPATH for the hooks; NO_PROXY for the front door
    return subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.parametrize("examples", EXAMPLES)
def test_every_operation_does_what_its_description_says(
    stack: Stack, token: str, session: str, *, tmp_path: Path, figure: Figure, examples: int
) -> None:
    begun = str(int(time.time()))
    done = run_schemathesis(stack, tmp_path, token, session, examples)
    logged = stack.compose("logs", "--no-log-prefix", "--since", begun, "api-blue").splitlines()
    failed = [line for line in logged if '"request_failed"' in line]
    print(
        done.stdout, done.stderr, *failed, sep="\n"
    )  # prints each failure with a command that repeats the request
    assert done.returncode in {0, 1}, "schemathesis itself failed"
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    cases, operations = report["test_cases"], report["operations"]
    figure(
        f"schemathesis, {examples} examples per operation, seed {SEED}: "
        f"{operations['tested']} operations, "
        f"{cases['generated']} requests in {report['running_time']:.0f} s, "
        f"{cases['unique_failures']} failures"
    )
    assert operations["tested"] == operations["total"], report["operations"]
    found = {failure["title"]: failure["operations"] for failure in report["failures"]}
    assert (found, report["errors"], done.returncode) == ({}, [], 0), (
        "see the output of schemathesis above"
    )
