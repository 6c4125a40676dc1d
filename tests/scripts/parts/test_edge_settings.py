"""nginx' keys and the service's locations are files in a mounted folder, applied by a reload."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from stack.config import service
from stack.config.keys import RELOADED
from stack.config.project import Project
from stack.failure import NEEDS_A_PERSON, Failure
from stack.parts import edge, edge_settings, inventory
from stack.parts.edge_settings import EdgeSettings
from stack.runner import Result

from tests.scripts.recording import RecordingRunner
from tests.scripts.stock import have_containers

TEST, RELOAD = "entrypoint.sh", "exec --no-TTY nginx /etc/slipway/current/entrypoint.sh reload"


@pytest.fixture(autouse=True)
def closed_umask() -> Iterator[None]:
    former = os.umask(0o077)
    yield
    os.umask(former)


@pytest.fixture
def installed(runner: RecordingRunner, loaded: Project) -> EdgeSettings:
    files = edge_settings.wanted(loaded, "# none\n")
    edge_settings.write(runner, loaded, files)
    runner.reply("docker run", Result(0))
    runner.written.clear()
    return files


def test_the_files_are_read_as_they_were_written_and_open_to_nginx(
    loaded: Project, installed: EdgeSettings
) -> None:
    assert edge_settings.installed(loaded) == installed
    assert set(installed.settings) == set(RELOADED) == {"SLIPWAY_HOST", "RATE_LIMIT_PER_SECOND"}
    folder = loaded.nginx_folder
    assert folder.stat().st_mode & 0o005 == 0o005
    for name in (edge_settings.SETTINGS, edge_settings.LOCATIONS):
        assert (folder / name).stat().st_mode & 0o777 == 0o644


def test_the_settings_are_written_last(runner: RecordingRunner, loaded: Project) -> None:
    """After a kill between the two, `adopt` must write both: nginx does not start with one."""
    edge_settings.write(runner, loaded, edge_settings.wanted(loaded, "# none\n"))
    names = [path.name for path in runner.written]
    assert names == [edge_settings.LOCATIONS, edge_settings.SETTINGS]


def test_a_state_that_is_closed_to_this_user_is_as_good_as_none(loaded: Project) -> None:
    """The last line of each command asks the front door, also after a refusal."""
    loaded.state.write_text("no folder", encoding="utf-8")
    assert edge_settings.installed(loaded) == EdgeSettings({}, "")


def test_the_service_adds_the_locations_of_its_logins() -> None:
    text = edge_settings.locations_of(service.parse('[web]\nlogin_paths = ["/a/login", "/b"]\n'))
    assert "location ~ ^(/a/login|/b)(/|$) {" in text
    assert "client_max_body_size 8k;" in text
    assert "snippets/proxy.conf;" in text, "without proxy.conf the API sees no host and no address"
    assert "location" not in edge_settings.locations_of(service.parse("")).partition("names")[0]


def test_new_files_are_tested_before_they_are_written_and_then_reloaded(
    runner: RecordingRunner, loaded: Project, installed: EdgeSettings
) -> None:
    runner.reply("docker run", Result(1, err="nginx: [emerg] invalid rate"))
    files = replace(installed, settings={**installed.settings, "RATE_LIMIT_PER_SECOND": "7"})
    with pytest.raises(Failure, match="nginx refuses"):
        edge.apply(runner, loaded, files)
    assert edge_settings.installed(loaded) == installed
    assert (runner.ran, runner.written) == ([], [])
    runner.reply("docker run", Result(0))
    edge.apply(runner, loaded, files)
    assert edge_settings.installed(loaded) == files
    assert [each.endswith(RELOAD) for each in runner.ran] == [True]
    assert "--env RATE_LIMIT_PER_SECOND=7" in runner.asked[-1]


def test_the_same_files_reload_nothing(
    runner: RecordingRunner, loaded: Project, installed: EdgeSettings
) -> None:
    edge.apply(runner, loaded, installed)
    assert (runner.ran, runner.written, runner.asked) == ([], [], [])


def fail() -> None:
    raise Failure("the front door does not answer")


@pytest.mark.parametrize("has_way_back", [True, False])
def test_files_that_do_not_serve_give_way_to_the_former_ones(
    runner: RecordingRunner, loaded: Project, installed: EdgeSettings, *, has_way_back: bool
) -> None:
    results = [Result(0), Result(0 if has_way_back else 1, err="nginx is not running")]
    runner.reply("reload", lambda: results.pop(0))
    with pytest.raises(Failure, match="does not answer") as raised:
        edge.apply(runner, loaded, installed.with_host("b.example"), fail)
    assert edge_settings.installed(loaded) == installed
    assert results == []
    assert (raised.value.code == NEEDS_A_PERSON) != has_way_back


def test_what_nginx_does_not_have_yet_waits(loaded: Project, installed: EdgeSettings) -> None:
    values = {**loaded.values, "SLIPWAY_HOST": "b.example", "RATE_LIMIT_PER_SECOND": "200"}
    assert edge_settings.waiting(replace(loaded, values=values)) == ["SLIPWAY_HOST"]
    assert edge_settings.waiting(loaded) == []


@pytest.mark.parametrize("is_running", [True, False])
def test_a_state_of_an_earlier_version_gets_what_its_nginx_has(
    runner: RecordingRunner, loaded: Project, *, is_running: bool
) -> None:
    environment = {"Env": ["SLIPWAY_HOST=former.example", "RATE_LIMIT_PER_SECOND=50"]}
    facts = {"Image": "sha256:1", "Config": environment, "HostConfig": {}}
    have_containers(runner, loaded.root, "nginx", state="running" if is_running else "exited")
    runner.reply("slipway-nginx-1", Result(0, json.dumps(facts)))
    edge_settings.adopt(runner, loaded, inventory.look(runner))
    expected = ("former.example", "50") if is_running else ("localhost", "200")
    assert tuple(edge_settings.installed(loaded).settings.values()) == expected
    runner.written.clear()
    edge_settings.adopt(runner, loaded, inventory.look(runner))
    assert runner.written == [], "only once"


def test_the_locations_of_a_deployment_are_kept_by_its_number(
    runner: RecordingRunner, loaded: Project
) -> None:
    edge_settings.keep_locations(runner, loaded, 0, "none")
    assert runner.written == [], "a developer's stack has no deployments"
    edge_settings.keep_locations(runner, loaded, 4, "# four\n")
    assert edge_settings.kept_locations(loaded, 4) == "# four\n"
    assert edge_settings.kept_locations(loaded, 5) == ""
