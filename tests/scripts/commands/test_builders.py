"""Tests the builders of the commands and files that the stories use."""

import ast
from pathlib import Path

import pytest
from stack.commands import engine, host

LISTING = """\
Ubuntu|Ubuntu|noble|http://u.test/ubuntu/
Debian|Debian-Security|bookworm-security|http://s.test/debian-security/
Debian|Debian|bookworm|http://d.test/debian/
Debian|Debian|bookworm-updates|http://other.test/debian/
Docker|Docker CE|bookworm|http://c.test/
"""
WITHOUT_SECURITY = "Debian|Debian|trixie|http://d.test/debian/"


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (LISTING, host.Mirrors("http://d.test/debian", "http://s.test/debian-security")),
        (WITHOUT_SECURITY, host.Mirrors("http://d.test/debian", "")),
        ("Ubuntu|Ubuntu|noble|http://u.test/ubuntu/\n", None),
        ("Debian|Debian-Security|trixie-security|http://s.test/\n", None),
        ("", None),
        ("|||\n", None),
    ],
)
def test_the_mirrors_are_those_of_the_host(listing: str, found: host.Mirrors | None) -> None:
    assert host.mirrors(listing) == found


def test_the_base_images_get_the_security_suite_where_the_host_has_it() -> None:
    both = host.bootstrap_sources(host.Mirrors("http://d.test", "http://s.test"))
    assert both.splitlines() == [
        "deb http://d.test trixie main",
        "deb http://d.test trixie-updates main",
        "deb http://s.test trixie-security main",
    ]
    assert "security" not in host.bootstrap_sources(host.Mirrors("http://d.test", ""))


def test_the_engine_alone_comes_from_the_newer_release() -> None:
    everything, engine_only = host.engine_pin().strip().split("\n\n")
    assert everything.splitlines() == ["Package: *", "Pin: release n=trixie", "Pin-Priority: -10"]
    assert (
        engine_only.splitlines()[0] == "Package: docker.io docker-cli docker-compose docker-buildx"
    )
    assert int(engine_only.rpartition(" ")[2]) > 500
    assert "URIs: http://d.test\n" in host.engine_source("http://d.test")
    assert "Signed-By: /" in host.engine_source("http://d.test")


def test_of_the_host_s_apt_settings_only_proxies_and_dates_go_into_a_build() -> None:
    dump = (
        'Acquire::http::Proxy "http://proxy.test:3128";\nAcquire::Check-Valid-Until "false";\n'
        'Acquire::https::Verify-Peer "false";\nAcquire::https::SslKey "/etc/key.pem";\n'
        'Acquire::Languages "de";\n'
    )
    assert host.apt_settings(dump).splitlines() == [
        'Acquire::http::Proxy "http://proxy.test:3128";',
        'Acquire::Check-Valid-Until "false";',
        'Acquire::https::CAInfo "/run/secrets/ca";',
    ]


def test_a_build_names_its_secrets_and_never_holds_them() -> None:
    command = engine.build_image(
        Path("nginx"),
        ["a:1", "a:2"],
        {"RELEASE": "r"},
        {"ca": Path("/tmp/ca")},
        target="production",
        pass_on=("HTTP_PROXY",),
    )
    assert command.argv == [
        *("docker", "build", "--progress", "plain", "--tag", "a:1", "--tag", "a:2"),
        *("--build-arg", "RELEASE=r", "--build-arg", "HTTP_PROXY", "--secret", "id=ca,src=/tmp/ca"),
        *("--target", "production", "nginx"),
    ]


def test_a_throwaway_container_has_no_network_and_leaves_nothing() -> None:
    command = engine.throwaway(
        "i:1", ["sh", "-c", "x"], mounts=["/a:/b"], user="1:2", environment={"K": "v"}
    )
    assert command.argv == [
        *("docker", "run", "--rm", "--network", "none", "--user", "1:2", "--entrypoint", "sh"),
        *("--volume", "/a:/b", "--env", "K=v", "i:1", "-c", "x"),
    ]


def test_a_slot_is_an_api_and_a_worker() -> None:
    assert engine.slot_services("green") == ["api-green", "worker-green"]
    assert engine.compose("ps").argv == ["docker", "compose", "ps"]
    assert engine.image_label("i", "l").argv[-2:] == ['{{index .Config.Labels "l"}}', "i"]


def test_a_command_is_printed_as_a_person_types_it() -> None:
    command = engine.migrate("r 1", is_pre_only=True)
    assert str(command) == (
        "MIGRATE_TAG='r 1' MIGRATE_CONFIRM=yes docker compose run --rm --no-deps --no-TTY migrate"
        " python -m api.migrate --phase pre"
    )
    assert not command.may_fail


def test_a_builder_passes_its_options_on() -> None:
    command = engine.one_shot("backup", "x", timeout_seconds=7, stdin="in", may_fail=True)
    assert (command.timeout_seconds, command.stdin, command.may_fail) == (7, "in", True)


def test_no_story_and_no_part_writes_a_command_of_the_engine_by_hand() -> None:
    folder = Path(__file__).resolve().parents[3] / "scripts/stack"
    files = [path for name in ("stories", "parts") for path in (folder / name).glob("*.py")]
    by_hand = {
        f"{path.name}:{node.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.List | ast.Tuple)
        and node.elts
        and isinstance(node.elts[0], ast.Constant)
        and node.elts[0].value in {"docker", "env"}
    }
    assert by_hand == set()
    assert len(files) > 25
