"""Tests the values that production refuses or warns about, with the code of a real start."""

import json
import logging
import logging.config
import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.configuring.fixes import FIXES
from api.configuring.settings import (
    EX_CONFIG,
    ProcessSettings,
    Settings,
    WorkerSettings,
    read_settings,
)
from api.configuring.validation import (
    CRITICAL,
    EVERYWHERE,
    WARNED,
    Finding,
    log_warnings,
    refusal,
)
from api.observing.logs import log_config
from tests.api.settings_for_tests import make_settings

GOOD = {
    "DATABASE_PASSWORD": "7fKq-mW2z-Rt9x-Lp4v",
    "REDIS_PASSWORD": "n3Vb-8sYc-Qm7r-Ht2k",
    "TOKEN_KEY": "q8Zr1vXw3Ty6Ub9Nc2Me5Ka7Ld0Pf4Hg",
    "ALLOWED_HOSTS": "api.example.org",
}
KINDS = (ProcessSettings, Settings, WorkerSettings)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLIPWAY_SECRETS_DIR", str(tmp_path))


def findings(kind: type[ProcessSettings] = Settings) -> dict[str, tuple[str, str]]:
    return {finding.key: (finding.tier, finding.reason) for finding in read_settings(kind)[1]}


def test_a_good_configuration_has_no_finding() -> None:
    assert findings() == {}
    assert findings(WorkerSettings) == {}


CRITICAL_VALUES = [
    ("TOKEN_KEY", "short", "shorter than 32 characters"),
    ("TOKEN_KEY", "changeme-changeme-is-not-a-key-at-all-1", "obvious word"),
    ("TOKEN_KEY", "abababababababababababababababababab", "repeats itself"),
    ("TOKEN_KEY", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "little entropy"),
    ("TOKEN_KEY_PREVIOUS", "short", "shorter than 32 characters"),
    ("TOKEN_KEY_PREVIOUS", "changeme-changeme-is-not-a-key-at-all-1", "obvious word"),
    ("DATABASE_PASSWORD", "postgres", "shorter than 16"),
    ("DATABASE_PASSWORD", "slipway", "the same as DATABASE_USER"),
    ("DATABASE_PASSWORD", "password-password", "obvious word"),
    ("DATABASE_PASSWORD", "qzwxqzwxqzwxqzwx", "repeats itself"),
    ("DATABASE_PASSWORD", "postgresql://u:7fKq-mW2z-Rt9x-Lp4v@db/x", "a URL"),
    ("DATABASE_HOST", "postgresql://u:postgres@db:5432/x", "a URL"),
    ("DATABASE_HOST", "u@db", "a URL"),
    ("DATABASE_URL", "postgresql://u:postgres@db/x", "nothing reads it"),
    ("REDIS_URL", "redis://redis", "nothing reads it"),
    ("CREATE_TABLES", "true", "nothing reads it"),
    ("DEBUG", "true", "development only"),
    ("RELOAD", "1", "development only"),
    ("WEBHOOK_ALLOWED_NETWORKS", "10.1.2.0/24,172.16.0.0/12", "over one subnet"),
    ("DEBUG", "app:*", "valid boolean"),
    ("ALLOWED_HOSTS", "*", "must not hold *"),
    ("ALLOWED_HOSTS", "api.example.org, *.example.org", "must not hold *"),
    ("ALLOWED_HOSTS", " , ", "empty"),
    ("SLIPWAY_RELEASE", "two words", "pattern"),
    ("CORS_ORIGINS", "https://app.example.org/", "without a path"),
    ("CORS_ORIGINS", "shop.example.org", "without a path"),
    ("LOGIN_LIMIT_PER_MINUTE", "0", "greater than or equal to 1"),
    ("SENTRY_DSN", "sentry.example.org", "not a DSN"),
    ("DATABASE_SSLMODE", "prefer", "'disable', 'require', 'verify-ca' or 'verify-full'"),
]


@pytest.mark.parametrize(("key", "value", "reason"), CRITICAL_VALUES)
def test_a_critical_value_is_refused_in_production(
    key: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(key, value)
    settings, listed = read_settings(Settings)
    assert settings is None
    assert [(finding.key, finding.tier) for finding in listed] == [(key, "critical")]
    assert reason in listed[0].reason
    assert len(value) < 8 or value not in listed[0].reason + listed[0].fix


@pytest.mark.parametrize("kind", KINDS)
def test_no_service_of_production_runs_from_the_image_for_development(
    kind: type[ProcessSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELOAD", "true")  # set by the target `development` of the Dockerfile
    assert findings(kind) == {"RELOAD": ("critical", "on, but it is for development only")}


def test_an_empty_password_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATABASE_PASSWORD")
    (tmp_path / "database_password").write_text("\n", encoding="utf-8")
    assert findings() == {"DATABASE_PASSWORD": ("critical", "empty")}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("ENVIRONMENT", "development", "accepted"),
        ("DOCS_ENABLED", "true", "is public"),
        ("ACCESS_TOKEN_MINUTES", "61", "over 60"),
        ("OPS_SESSION_MAX_MINUTES", "121", "over 120"),
        ("REDIS_PASSWORD", "n3Vb-8sYc", "shorter than 16"),
        ("DATABASE_HOST", "db.example.org", "disable, although"),
    ],
)
def test_what_is_not_wise_is_a_warning_and_starts(
    key: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(key, value)
    settings, listed = read_settings(Settings)
    assert settings is not None
    (warning,) = listed
    assert warning.tier == "warning"
    assert reason in warning.reason
    assert value not in warning.fix or value == "development"


def test_a_redis_without_a_password_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("REDIS_PASSWORD")
    (tmp_path / "redis_password").write_text("", encoding="utf-8")
    assert findings() == {"REDIS_PASSWORD": ("warning", "empty")}


def test_a_warning_is_said_beside_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCS_ENABLED", "true")
    monkeypatch.setenv("TOKEN_KEY", "short")
    monkeypatch.setenv("DATABASE_URL", "x")
    assert {key: tier for key, (tier, _) in findings().items()} == {
        "DATABASE_URL": "critical",
        "TOKEN_KEY": "critical",
        "DOCS_ENABLED": "warning",
    }


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
def test_a_certificate_is_only_checked_against_a_file_that_is_there(
    mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_SSLMODE", mode)
    assert set(findings()) == {"DATABASE_SSLROOTCERT"}
    (tmp_path / "ca.pem").write_text("a certificate", encoding="utf-8")
    monkeypatch.setenv("DATABASE_SSLROOTCERT", str(tmp_path / "ca.pem"))
    assert findings() == {}


@pytest.mark.parametrize(
    ("value", "is_refused"),
    [
        ((), False),
        (("https://app.example.org",), False),
        (("*",), True),
        (("https://*.example.org",), True),
        (("https://app.example.org", "null"), True),
    ],
)
def test_cross_origin_requests_from_anywhere_are_refused(
    value: tuple[str, ...], *, is_refused: bool
) -> None:
    assert bool(refusal("cors_origins", value, {})) is is_refused


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("anna", "", None),
        ("anna", "7fKq-mW2z-Rt9x-Lp4v", None),
        ("anna", "hunter2", "shorter than 16 characters"),
        ("anna", "administrator-1234567", "obvious word"),
        ("", "hunter2", "shorter than 16 characters"),
        ("anna.lindqvist-7fKq", "anna.lindqvist-7fKq", "the same as OPS_USER"),
    ],
)
def test_a_console_needs_a_password_that_nobody_guesses(
    user: str, password: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_USER", user)
    monkeypatch.setenv("OPS_PASSWORD", password)
    listed = findings()
    assert reason in listed["OPS_PASSWORD"][1] if reason else listed == {}


def test_every_secret_has_a_rule_and_a_fix_of_its_own() -> None:
    rules = {*CRITICAL, *WARNED}
    secrets = {
        n
        for kind in KINDS
        for n, f in kind.model_fields.items()
        if "SecretStr" in str(f.annotation)
    }
    assert secrets >= {"database_password", "redis_password", "token_key", "sentry_dsn"}
    assert secrets - rules == set()
    assert {name.upper() for name in rules} - set(FIXES) == set()
    assert set(EVERYWHERE) <= set(CRITICAL)


def test_each_warning_is_logged_with_its_reason_and_fix(capsys: pytest.CaptureFixture[str]) -> None:
    settings = make_settings(docs_enabled=True, access_token_minutes=90)
    before = logging.root.handlers[:]
    try:
        logging.config.dictConfig(log_config(settings))
        log_warnings(dict(settings))
    finally:
        logging.root.handlers[:] = before
        for name in log_config(settings)["loggers"]:
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert {line["action"] for line in lines} == {"config_warning"}
    assert {line["level"] for line in lines} == {"WARNING"}
    written = {line["key"]: (line["reason"], line["fix"]) for line in lines}
    assert set(written) >= {"DOCS_ENABLED", "ACCESS_TOKEN_MINUTES"}
    assert written["DOCS_ENABLED"][1] == Finding("warning", "DOCS_ENABLED", "").fix


def check_config(service: str, **changes: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "api.check_config"]
    environment = {**os.environ, "SLIPWAY_SERVICE": service, **changes}
    return subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command_says_what_a_start_would_say_and_no_value() -> None:
    run = check_config("api", TOKEN_KEY="canary-7913586", DOCS_ENABLED="true")
    assert run.returncode == EX_CONFIG, run.stderr
    assert [line.partition(":")[0] for line in run.stdout.splitlines()] == [
        "critical TOKEN_KEY",
        "warning DOCS_ENABLED",
    ]
    assert "canary" not in run.stdout + run.stderr


def test_in_the_container_of_the_api_the_command_judges_for_the_worker_too() -> None:
    run = check_config("api", WORKER_CONCURRENCY="0", DATABASE_PASSWORD="short")
    assert [line.partition(":")[0] for line in run.stdout.splitlines()] == [
        "critical DATABASE_PASSWORD",
        "critical WORKER_CONCURRENCY",
    ]


@pytest.mark.parametrize(
    ("service", "is_fine"), [("worker", True), ("migrate", True), ("api", False)]
)
def test_the_command_judges_what_its_own_process_reads(service: str, *, is_fine: bool) -> None:
    run = check_config(service, TOKEN_KEY="", REDIS_PASSWORD="", ALLOWED_HOSTS="")
    assert (run.returncode == 0) is is_fine, run.stdout + run.stderr
    assert (run.stdout == "") is is_fine
