"""Every file passes the linter of its language."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.contracts.tree import ROOT, TOOLS, files, text

RENDERED = Path("/tmp/nginx")


def shell_files() -> list[str]:
    return [
        str(path)
        for path in files("**")
        if text_start(path).startswith(("#!/usr/bin/env bash", "#!/bin/"))
    ]


def text_start(path: Path) -> str:
    with (ROOT / path).open("rb") as file:
        return file.read(40).decode("utf-8", "replace")


def run(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / argv[0], *argv[1:]],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


TARGETS: dict[str, Callable[[], Sequence[str | Path]]] = {
    "ruff check": lambda: files("**/*.py"),
    "ruff format --check": lambda: files("**/*.py"),
    "mypy": list,  # mypy reads the list of folders from pyproject.toml
    "shellcheck -x": shell_files,
    "shfmt -d": shell_files,
    "yamllint --strict": lambda: files("**/*.yaml", "**/*.yml"),
    "hadolint": lambda: files("**/Dockerfile"),
}


@pytest.mark.parametrize("tool", TARGETS)
def test_every_file_passes(tool: str) -> None:
    targets = TARGETS[tool]()
    assert targets or tool == "mypy", f"{tool} has no file to check"
    result = run(*tool.split(), *map(str, targets))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def edge(tmp_path: Path) -> Path:
    """A folder with a copy of nginx' files, whose includes name files in the same folder.

    gixy skips an include of a file that does not exist, and a machine that runs the tests has no
    /etc/slipway/current and no /tmp/nginx.
    """
    for path in files("nginx/**"):
        copy = tmp_path / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        rendered, mounted = str(tmp_path / "rendered"), str(tmp_path / "nginx")
        moved = text(path).replace(str(RENDERED), rendered)
        moved = moved.replace("/etc/slipway/current", mounted)
        copy.write_text(moved.replace("/etc/slipway/", f"{tmp_path}/"), encoding="utf-8")
        copy.chmod(0o755)
    stub = tmp_path / "bin" / "nginx"  # the entry point reads nginx' versions, then runs nginx
    stub.parent.mkdir()
    stub.write_text(
        '#!/bin/sh\nprintf "nginx/%s\\nbuilt with OpenSSL %s" "$NGINX" "$OPENSSL" >&2\n',
        encoding="utf-8",
    )
    stub.chmod(0o755)
    return tmp_path


def render(edge: Path, mode: str = "test", **environment: str) -> subprocess.CompletedProcess[str]:
    given = {
        "SLIPWAY_HOST": "a.example",
        "RATE_LIMIT_PER_SECOND": "50",
        "OPENSSL": "3.0.17",
        "NGINX": "1.26.3",
    }
    given["PATH"] = f"{edge / 'bin'}:{os.environ['PATH']}"
    argv = ["bash", str(edge / "nginx" / "entrypoint.sh"), mode]
    return subprocess.run(
        argv, env={**given, **environment}, capture_output=True, text=True, timeout=30, check=False
    )


def gixy(edge: Path) -> str:
    return run("gixy", str(edge / "nginx" / "nginx.conf")).stdout


def test_gixy_finds_nothing_in_the_configuration_of_nginx(edge: Path) -> None:
    assert render(edge).returncode == 0
    report = gixy(edge)
    assert "No issues found" in report, report


OWN = "location /mine { proxy_pass http://live; }\n"


def test_gixy_finds_nothing_in_a_location_of_the_operator(edge: Path) -> None:
    render(edge)
    include = "include /etc/slipway/current/snippets/proxy.conf;"
    include = include.replace("/etc/slipway/current", str(edge / "nginx"))
    own = OWN.replace("proxy_pass", f"{include} proxy_pass")
    (edge / "nginx/own/mine.conf").write_text(own, encoding="utf-8")
    report = gixy(edge)
    assert "No issues found" in report, report


@pytest.mark.parametrize("file", ["conf.d/70-public.conf", "own/mine.conf", "snippets/proxy.conf"])
def test_gixy_reads_the_included_files(edge: Path, file: str) -> None:
    render(edge)
    planted = edge / "nginx" / file
    forged = "proxy_set_header Host $http_host;"
    source = planted.read_text(encoding="utf-8") if planted.exists() else OWN
    if not file.startswith("snippets"):
        source = source.replace("proxy_pass http://live;", f"{forged} proxy_pass http://live;")
    planted.write_text(source + (forged if file.startswith("snippets") else ""), encoding="utf-8")
    assert "No issues found" not in gixy(edge)


def rendered(edge: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in (edge / "rendered").iterdir()}


def test_the_entry_point_renders_what_differs_between_hosts(edge: Path) -> None:
    render(edge, HTTPS_PORT="8443")
    assert rendered(edge) == {
        "server_name.conf": "server_name a.example;\n",
        "redirect.conf": "return 308 https://$host:8443$request_uri;\n",
        "groups.conf": "ssl_ecdh_curve X25519:prime256v1:secp384r1;\n",
        "zone.conf": "limit_req_zone $binary_remote_addr zone=client:4m rate=50r/s;\n",
        "burst.conf": "limit_req zone=client burst=100 nodelay;\n",
        "keepalive.conf": "\n",
        "service.conf": "\n",
    }


def test_a_reload_renders_the_files_that_the_scripts_write_and_no_variable(edge: Path) -> None:
    settings = "# a comment\nSLIPWAY_HOST='b.example'\nRATE_LIMIT_PER_SECOND='7'\nPATH='/none'\n"
    (edge / "settings.env").write_text(settings, encoding="utf-8")
    (edge / "service.conf").write_text("location /a {\n}\n", encoding="utf-8")
    assert render(edge, "reload").returncode == 0
    files = rendered(edge)
    assert files["server_name.conf"] == "server_name b.example;\n"
    assert "rate=7r/s" in files["zone.conf"]
    assert files["service.conf"] == "location /a {\n}\n"
    (edge / "settings.env").unlink()
    refused = render(edge, "reload")
    assert refused.returncode == 1
    assert refused.stderr.endswith("HINT: ./scripts/up.sh writes both\n")


def test_the_test_mode_reads_no_file_of_the_running_nginx(edge: Path) -> None:
    (edge / "settings.env").write_text("SLIPWAY_HOST='b.example'\n", encoding="utf-8")
    render(edge, SERVICE_LOCATIONS="location /c {\n}")
    assert rendered(edge)["server_name.conf"] == "server_name a.example;\n"
    assert rendered(edge)["service.conf"] == "location /c {\n}\n"


@pytest.mark.parametrize(
    ("version", "has_it"), [("1.1.1w", False), ("3.4.9", False), ("3.5.1", True), ("4.0.0", True)]
)
def test_the_hybrid_group_is_named_only_where_openssl_knows_it(
    edge: Path, version: str, has_it: bool
) -> None:
    render(edge, OPENSSL=version)
    assert ("X25519MLKEM768" in rendered(edge)["groups.conf"]) is has_it


@pytest.mark.parametrize(
    ("version", "has_it"),
    [("1.26.3", False), ("1.27.3", False), ("1.27.4", True), ("1.30.0", True), ("1.9.15", False)],
)
def test_connections_outlive_a_reload_only_where_nginx_knows_how(
    edge: Path, version: str, has_it: bool
) -> None:
    render(edge, NGINX=version)
    assert (rendered(edge)["keepalive.conf"] == "keepalive_min_timeout 30s;\n") is has_it


def test_the_standard_port_is_not_named_in_the_redirect(edge: Path) -> None:
    render(edge, HTTPS_PORT="443")
    assert rendered(edge)["redirect.conf"] == "return 308 https://$host$request_uri;\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SLIPWAY_HOST", ""),
        ("SLIPWAY_HOST", "a;b"),
        ("RATE_LIMIT_PER_SECOND", "0"),
        ("RATE_LIMIT_PER_SECOND", "5r"),
    ],
)
def test_the_entry_point_refuses_a_value_that_would_break_the_configuration(
    edge: Path, key: str, value: str
) -> None:
    refused = render(edge, **{key: value})
    assert refused.returncode == 1
    assert f"error: {key} is '{value}'" in refused.stderr
    assert f"HINT: set {key} in .env" in refused.stderr
