"""A wrong configuration prevents the start; the error names every wrong key and no value."""

import subprocess
import sys
from pathlib import Path

import pytest

from api.configuring.settings import EX_CONFIG, Settings, WorkerSettings, load_settings

GOOD = {
    "DATABASE_PASSWORD": "7fKq-mW2z-Rt9x-Lp4v",
    "REDIS_PASSWORD": "n3Vb-8sYc",
    "TOKEN_KEY": "q8Zr1vXw3Ty6Ub9Nc2Me5Ka7Ld0Pf4Hg",
    "ALLOWED_HOSTS": "api.example.org, WWW.example.org",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLIPWAY_SECRETS_DIR", str(tmp_path / "none"))


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        load_settings()
    assert stop.value.code == EX_CONFIG
    return capsys.readouterr().err


def test_good_configuration_is_accepted_with_hosts_in_lower_case() -> None:
    assert load_settings().allowed_hosts == ("api.example.org", "www.example.org")


def test_every_missing_and_wrong_key_is_named_at_once_and_no_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TOKEN_KEY")
    monkeypatch.setenv("DATABASE_PORT", "port-leaked")
    monkeypatch.setenv("DATABASE_PASSWORD", "pw-leaked")
    monkeypatch.setenv("SLIPWAY_SLOT", "slot-leaked")
    text = refusal(capsys)
    for key in (
        "TOKEN_KEY: missing",
        "DATABASE_PORT:",
        "DATABASE_PASSWORD: shorter",
        "SLIPWAY_SLOT:",
    ):
        assert key in text
    assert "leaked" not in text
    assert text.startswith("error: ")
    assert "HINT: " in text
    assert text.endswith("RUNBOOK: docs/runbook.md#boot-refused-by-the-configuration\n")


def test_development_may_use_weak_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "development")
    monkeypatch.setenv("DATABASE_PASSWORD", "slipway")
    monkeypatch.setenv("ALLOWED_HOSTS", "*")
    assert load_settings().allowed_hosts == ("*",)


def test_any_site_with_the_users_cookies_is_refused_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "development")
    monkeypatch.setenv("CORS_ORIGINS", "*")
    assert load_settings().cors_origins == ("*",)
    monkeypatch.setenv("CORS_CREDENTIALS", "true")
    assert "CORS_ORIGINS: must not hold * together with CORS_CREDENTIALS" in refusal(capsys)
    monkeypatch.setenv("CORS_ORIGINS", "https://app.example.org, http://localhost:3000")
    assert load_settings().cors_origins == ("https://app.example.org", "http://localhost:3000")


def test_a_wrong_environment_name_does_not_loosen_the_rules(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "prod")
    monkeypatch.setenv("DATABASE_PASSWORD", "slipway")
    assert "DATABASE_PASSWORD: the same as DATABASE_USER" in refusal(capsys)


def test_secret_files_are_read_without_their_line_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DATABASE_PASSWORD")
    monkeypatch.setenv("SLIPWAY_SECRETS_DIR", str(tmp_path))
    (tmp_path / "database_password").write_text("from-a-file-7913586\n\n")
    (tmp_path / "a_secret_of_another_service").write_text("x")
    assert load_settings().database_password.get_secret_value() == "from-a-file-7913586"


def test_an_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTRY_DSN", "")
    monkeypatch.setenv("DATABASE_PORT", "")
    settings = load_settings()
    assert settings.sentry_dsn is None
    assert settings.database_port == 5432


@pytest.mark.parametrize("name", ["token_key_previous", "ops_password"])
def test_an_empty_or_missing_file_of_an_optional_secret_stands_for_none(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLIPWAY_SECRETS_DIR", str(tmp_path))
    assert getattr(load_settings(), name) is None
    (tmp_path / name).write_text("\n")
    assert getattr(load_settings(), name) is None


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    text = repr(load_settings())
    assert GOOD["TOKEN_KEY"] not in text
    assert GOOD["DATABASE_PASSWORD"] not in text


def test_the_worker_starts_without_the_secrets_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("TOKEN_KEY", "REDIS_PASSWORD", "ALLOWED_HOSTS"):
        monkeypatch.delenv(key)
    assert load_settings(WorkerSettings).service == "worker"


def test_loading_the_application_opens_no_connection_and_starts_no_thread() -> None:
    code = (
        "import socket, threading\n"
        "def refuse(*args, **kwargs): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "import api.main\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr


def test_settings_cannot_be_changed() -> None:
    settings: Settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.slot = "green"  # type: ignore[misc]
