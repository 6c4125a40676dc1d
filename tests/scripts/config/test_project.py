"""The project that `.env` describes: defaults, what goes before what, and what is refused before the first effect."""

from pathlib import Path

import pytest
from stack.config.project import Project, load
from stack.failure import Failure


def project(**values: str) -> Project:
    return Project(Path("/srv/slipway"), values)


@pytest.mark.parametrize(
    ("given", "url", "dial"),
    [
        ({}, "https://localhost:8443", "127.0.0.1"),
        ({"SLIPWAY_HOST": "a.example", "HTTPS_PORT": "443"}, "https://a.example", "127.0.0.1"),
        ({"COMPOSE_FILE": "compose.yaml:compose.prod.yaml", "HTTPS_PORT": "9"}, "https://localhost", "127.0.0.1"),
        ({"HTTPS_BIND": "0.0.0.0"}, "https://localhost:8443", "127.0.0.1"),
        ({"HTTPS_BIND": "192.0.2.7"}, "https://localhost:8443", "192.0.2.7"),
    ],
)
def test_the_front_door_is_where_it_is_published(given: dict[str, str], url: str, dial: str) -> None:
    assert (project(**given).url, project(**given).dial_address) == (url, dial)


@pytest.mark.parametrize(
    ("given", "name", "image", "nginx"),
    [
        ({}, "slipway", "slipway/app", "slipway/app-nginx:current"),
        ({"COMPOSE_PROJECT_NAME": "two", "SLIPWAY_IMAGE": "two/app"}, "two", "two/app", "two/app-nginx:current"),
    ],
)
def test_names_follow_the_two_keys_that_make_a_second_stack(
    given: dict[str, str], name: str, image: str, nginx: str
) -> None:
    one = project(**given)
    assert (one.name, one.image, one.nginx_image) == (name, image, nginx)
    assert one.state.name == name


def test_secrets_lie_in_the_checkout_or_where_the_key_says() -> None:
    assert project().secrets == Path("/srv/slipway/secrets")
    assert project(SECRETS_DIR="/etc/slipway").certificate == Path("/etc/slipway/tls/fullchain.pem")


def test_the_process_environment_goes_before_the_file(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        ("COMPOSE_PROJECT_NAME", "Two"),
        ("HTTP_PORT", "80a"),
        ("HTTPS_PORT", "0"),
        ("HTTPS_PORT", "65536"),
        ("RATE_LIMIT_PER_SECOND", "0"),
        ("RATE_LIMIT_PER_SECOND", "5r/s"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(Failure, match=key) as raised:
        load(checkout)
    assert value not in str(raised.value) or len(value) == 1


def test_windows_line_ends_are_seen(checkout: Path) -> None:
    (checkout / ".env").write_bytes(b"SLIPWAY_HOST=a.example\r\n")
    with pytest.raises(Failure, match="CRLF"):
        load(checkout)


def test_no_env_says_how_it_is_made(bare: Path) -> None:
    with pytest.raises(Failure, match="there is no") as raised:
        load(bare)
    assert raised.value.hints == ["./scripts/up.sh creates it"]


def test_an_env_that_is_not_text_is_a_failure_and_no_traceback(checkout: Path) -> None:
    (checkout / ".env").write_bytes(b"SLIPWAY_HOST=\xff\n")
    with pytest.raises(Failure):
        load(checkout)
