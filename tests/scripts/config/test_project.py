"""The project that `.env` describes: its defaults, and the values that are refused."""

import os
import re
from pathlib import Path

import pytest
from stack.config import environment, keys
from stack.config.checks import CPU_KEYS, INTEGER_KEYS
from stack.config.defaults import DEFAULTS, PUBLIC_DEFAULTS
from stack.config.project import Project, load
from stack.failure import Failure

from tests.scripts.imitation import set_values


def project(**values: str) -> Project:
    return Project(Path("/srv/slipway"), values)


@pytest.mark.parametrize(
    ("given", "url", "dial"),
    [
        ({}, "https://localhost:8443", "127.0.0.1"),
        ({"SLIPWAY_HOST": "a.example", "HTTPS_PORT": "443"}, "https://a.example", "127.0.0.1"),
        (
            {"COMPOSE_FILE": "compose.yaml:compose.prod.yaml", "HTTPS_PORT": "9"},
            "https://localhost",
            "127.0.0.1",
        ),
        ({"HTTPS_BIND": "0.0.0.0"}, "https://localhost:8443", "127.0.0.1"),
        ({"HTTPS_BIND": "192.0.2.7"}, "https://localhost:8443", "192.0.2.7"),
        ({"HTTPS_BIND": "[::]"}, "https://localhost:8443", "::1"),
        ({"HTTPS_BIND": "[2001:db8::7]"}, "https://localhost:8443", "2001:db8::7"),
    ],
)
def test_the_front_door_is_where_it_is_published(
    given: dict[str, str], url: str, dial: str
) -> None:
    assert (project(**given).url, project(**given).dial_address) == (url, dial)


@pytest.mark.parametrize(
    ("given", "name", "image", "nginx"),
    [
        ({}, "slipway", "slipway/app", "slipway/app-nginx:current"),
        (
            {"COMPOSE_PROJECT_NAME": "two", "SLIPWAY_IMAGE": "two/app"},
            "two",
            "two/app",
            "two/app-nginx:current",
        ),
    ],
)
def test_names_follow_the_two_keys_that_make_a_second_stack(
    given: dict[str, str], name: str, image: str, nginx: str
) -> None:
    stack = project(**given)
    assert (stack.name, stack.image, stack.nginx_image) == (name, image, nginx)
    assert stack.state.name == name


def test_secrets_lie_in_the_checkout_or_where_the_key_says() -> None:
    assert project().secrets == Path("/srv/slipway/secrets")
    assert project(SECRETS_DIR="/etc/slipway").certificate == Path("/etc/slipway/tls/fullchain.pem")


def test_the_process_environment_goes_before_the_file(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PORT", "9443")
    monkeypatch.setenv("NOT_OURS", "x")
    values = load(checkout).values
    assert values["HTTPS_PORT"] == "9443"
    assert "NOT_OURS" not in values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SLIPWAY_HOST", "my box"),
        ("SLIPWAY_HOST", "-a.example"),
        ("SLIPWAY_HOST", "a;return"),
        ("SLIPWAY_HOST", "192.0.2.7"),
        ("SLIPWAY_HOST", "2001:db8::7"),
        ("HTTP_BIND", "localhost"),
        ("HTTPS_BIND", "eth0"),
        ("HTTPS_BIND", "192.0.2.777"),
        ("HTTPS_BIND", "::1"),
        ("HTTPS_BIND", "[127.0.0.1]"),
        ("HTTPS_BIND", "[::1"),
        ("SLIPWAY_HOST", f"{'a' * 64}.example"),
        ("SLIPWAY_HOST", "a..example"),
        ("SLIPWAY_HOST", "a-.example"),
        ("SLIPWAY_HOST", ".".join(["a" * 63] * 4)),
        ("API_CPUS", "two"),
        ("NGINX_CPUS", "-1"),
        ("HTTP_PORT", "80a"),
        ("HTTPS_PORT", "0"),
        ("SINK_PORT", "0"),
        ("HTTPS_PORT", "65536"),
        ("RATE_LIMIT_PER_SECOND", "0"),
        ("RATE_LIMIT_PER_SECOND", "5r/s"),
        ("READY_SECONDS", "90.5"),
        ("KEEP_RELEASES", "2.5"),
        ("WATCH_SECONDS", "1e3"),
        ("SMOKE_PATHS", "readyz"),
        ("NOTIFY_COMMAND", "notify 'me"),
        ("API_MEMORY", "4096k"),
        ("POSTGRES_MEMORY", "a lot"),
        ("OPS_USER", "o'brien"),
        ("CORS_ORIGINS", "a\nb"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(Failure, match=key) as raised:
        load(checkout)
    assert value not in str(raised.value) or len(value) == 1


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("COMPOSE_FILE", "compose.yaml:compose.prod.yaml:compose.dev.yaml", "name one of them"),
        ("COMPOSE_FILE", "compose.yaml:", "an empty name, which Compose reads as the folder"),
        ("COMPOSE_PROJECT_NAME", "Two", "not a name of lower-case letters"),
    ],
)
def test_a_wrong_value_that_names_the_stack_is_refused_in_the_file(
    checkout: Path, key: str, value: str, fault: str
) -> None:
    """A value in the shell would be refused because it differs from the file."""
    set_values(checkout, **{key: value})
    with pytest.raises(Failure, match=f"{key} is .*{fault}"):
        load(checkout)


@pytest.mark.parametrize("value", ["192.0.2.7", "[::1]", "[::]", "0.0.0.0", ""])
def test_an_address_to_publish_on_may_be_any_or_none(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HTTP_BIND", value)
    assert load(checkout).values["HTTP_BIND"] == value


def test_a_host_name_may_have_253_characters(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(longest) == 253
    monkeypatch.setenv("SLIPWAY_HOST", longest)
    assert load(checkout).host == longest


@pytest.mark.parametrize("key", CPU_KEYS)
def test_more_cpus_than_the_machine_has_are_refused(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for value in ("2", "0.5", ""):
        monkeypatch.setenv(key, value)
        load(checkout)
    monkeypatch.setenv(key, "2.5")
    with pytest.raises(Failure, match=f"{key} is more than the 2 cores of this machine"):
        load(checkout)


@pytest.mark.parametrize("value", ["", None])
def test_a_setting_that_is_empty_or_missing_has_its_default(value: str | None) -> None:
    given = {} if value is None else dict.fromkeys(DEFAULTS, value)
    empty = project(**given)
    assert {key: empty.setting(key) for key in DEFAULTS} == DEFAULTS
    assert (empty.ready_seconds, empty.watch_seconds, empty.keep_releases) == (60, 10.0, 5)
    assert (empty.api_processes, empty.has_ballast, empty.has_offsite_repository) == (
        0,
        True,
        False,
    )


def test_a_public_host_listens_on_all_addresses_at_fixed_ports() -> None:
    public = project(COMPOSE_FILE="compose.yaml:compose.prod.yaml", HTTP_PORT="8080")
    assert [public.setting(key) for key in PUBLIC_DEFAULTS] == ["0.0.0.0", "0.0.0.0"]
    assert (public.port("HTTP_PORT"), public.port("HTTPS_PORT")) == (80, 443)


def test_a_setting_that_no_table_has_is_a_mistake_of_the_program() -> None:
    with pytest.raises(KeyError):
        project(WATCH_SECOND="1").setting("WATCH_SECOND")


def test_an_empty_env_is_refused_by_the_keys_it_lacks(checkout: Path) -> None:
    (checkout / ".env").write_bytes(b"")
    with pytest.raises(Failure, match=r"\.env lacks .*POSTGRES_IMAGE.*SLIPWAY_HOST"):
        load(checkout)


def test_windows_line_ends_are_seen(checkout: Path) -> None:
    (checkout / ".env").write_bytes(b"SLIPWAY_HOST=a.example\r\n")
    with pytest.raises(Failure, match="CRLF"):
        load(checkout)


def test_no_env_says_how_it_is_made(bare: Path) -> None:
    with pytest.raises(Failure, match="there is no") as raised:
        load(bare)
    assert raised.value.hints == ["./scripts/up.sh creates it"]


def test_an_env_that_is_not_text_is_a_failure_and_no_traceback(checkout: Path) -> None:
    with (checkout / ".env").open("ab") as file:
        file.write(b"# caf\xe9\n")
    with pytest.raises(Failure, match="has a byte that is not UTF-8"):
        load(checkout)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("STATE_DIR", "/"),
        ("STATE_DIR", "//"),
        ("STATE_DIR", "state"),
        ("STATE_DIR", "./state"),
        ("STATE_DIR", "'~/state'"),
        ("STATE_DIR", "'$HOME/state'"),
        ("STATE_DIR", "/srv/a:b"),
        ("SECRETS_DIR", "secrets"),
        ("SECRETS_DIR", "/"),
        ("SECRETS_DIR", "'~/secrets'"),
    ],
)
def test_a_folder_that_compose_takes_for_another_is_refused(
    checkout: Path, key: str, value: str
) -> None:
    write(checkout, rf"^{key}=.*$", f"{key}={value}")
    with pytest.raises(Failure, match=f"{key} is (not|a path|the root)"):
        load(checkout)


def write(checkout: Path, pattern: str, line: str) -> None:
    """Replace the one line of `.env` that a pattern matches."""
    file = checkout / ".env"
    text, count = re.subn(pattern, line, file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert count == 1
    file.write_text(text, encoding="utf-8")


def test_a_key_that_a_newer_version_brought_has_its_default(checkout: Path) -> None:
    write(checkout, r"^OFFSITE_DRILL_HOURS=\n", "")
    assert load(checkout).setting("OFFSITE_DRILL_HOURS") == "168"


def test_a_key_of_a_newer_version_is_refused_by_a_deploy_and_kept_apart_by_a_rollback(
    checkout: Path,
) -> None:
    write(checkout, r"^OFFSITE_DRILL_HOURS=\n", "OF_A_NEWER_VERSION=1\n")
    with pytest.raises(Failure, match="keys that nothing reads: OF_A_NEWER_VERSION"):
        load(checkout)
    project = load(checkout, is_lenient=True)
    assert [key.partition(" ")[0] for key in project.unknown] == ["OF_A_NEWER_VERSION"]
    assert "OF_A_NEWER_VERSION" not in project.values


def test_the_keys_that_the_shell_overrides_are_known(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(checkout, r"^LOG_LEVEL=\n", "LOG_LEVEL=DEBUG\n")
    for key, value in (("LOG_LEVEL", "DEBUG"), ("OPS_USER", "anna"), ("READY_SECONDS", "")):
        monkeypatch.setenv(key, value)
    assert load(checkout).overriding == ("OPS_USER",), "the others are as in the file"


def test_a_public_host_forces_the_settings_of_production() -> None:
    given = {"ENVIRONMENT": "development", "DOCS_ENABLED": "true", "OPS_USER": "anna"}
    public = project(COMPOSE_FILE="compose.yaml:compose.prod.yaml", **given).service_settings
    assert [public[key] for key in given] == ["production", "false", "anna"]
    assert project(**given).service_settings["ENVIRONMENT"] == "development"
    assert set(public) == set(keys.of_scope(keys.Scope.SERVICE))


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, "0.5") for key in INTEGER_KEYS]
    + [("POSTGRES_BALLAST_MB", "0.5"), ("POSTGRES_BALLAST_MB", "08"), ("BACKUP_KEEP_DAYS", "1.5")],
)
def test_a_number_that_must_be_whole_is_refused_otherwise(
    checkout: Path, key: str, value: str
) -> None:
    file = checkout / ".env"
    file.write_text(
        file.read_text(encoding="utf-8").replace(f"{key}=\n", f"{key}={value}\n"), encoding="utf-8"
    )
    with pytest.raises(Failure, match=f"{key} is not a whole number"):
        load(checkout)


def test_a_byte_that_is_not_utf_8_is_refused_by_its_line(checkout: Path) -> None:
    file = checkout / ".env"
    lines = len(file.read_bytes().splitlines())
    with file.open("ab") as text:
        text.write(b"# caf\xe9\n")
    with pytest.raises(Failure, match=f"line {lines + 1} has a byte that is not UTF-8"):
        load(checkout)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("READY_SECONDS", "90.5"),
        ("KEEP_RELEASES", "2.5"),
        ("READY_SECONDS", "\u0663"),  # a digit to Python, and no number to Compose
        ("SMOKE_PATHS", "/x?a=b=200"),
        ("SMOKE_PATHS", "/x?size=100"),
        ("NOTIFY_COMMAND", "sh -c 'echo"),
    ],
)
def test_a_value_that_would_end_in_the_middle_of_a_deploy_is_refused(
    checkout: Path, key: str, value: str
) -> None:
    file = checkout / ".env"
    text = environment.with_values(file.read_text(encoding="utf-8"), {key: value})
    file.write_text(text, encoding="utf-8")
    with pytest.raises(Failure, match=key):
        load(checkout)
