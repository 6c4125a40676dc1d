"""nginx' configuration is tested, installed as a whole, and activated by one rename."""

import shlex
from pathlib import Path

import pytest
from stack.commands.command import Command
from stack.config.project import Project
from stack.display import Display
from stack.failure import Failure
from stack.parts import edge, edge_settings
from stack.parts.edge_settings import EdgeSettings
from stack.runner import RealRunner, Result

from tests.scripts.recording import RecordingRunner


class Remembering(RealRunner):
    """Runs and records commands; a test by nginx does not run, but returns `verdict`."""

    def __init__(self) -> None:
        super().__init__(Display(self._remember))
        self.ran: list[str] = []
        self.verdict = Result(0)

    def read(self, command: Command) -> Result:
        is_nginx = command.argv[:2] == ["docker", "run"]
        return self.verdict if is_nginx else super().read(command)

    def _remember(self, text: str) -> None:
        if text.startswith("    $ "):
            self.ran.append(text.removeprefix("    $ "))


@pytest.fixture
def real() -> Remembering:
    return Remembering()


def current(project: Project) -> Path:
    return project.nginx_folder / "current"


def files(project: Project) -> EdgeSettings:
    return edge_settings.wanted(project, "# mine\n")


def edit(project: Project, text: str) -> None:
    (project.root / "nginx/conf.d/a.conf").write_text(text, encoding="utf-8")


def test_the_first_one_is_installed_with_its_modes(real: Remembering, loaded: Project) -> None:
    (loaded.root / "nginx/entrypoint.sh").write_text("#!/bin/sh\n", encoding="utf-8")
    (loaded.root / "nginx/entrypoint.sh").chmod(0o755)
    assert not edge.is_current(loaded)
    assert edge.install(real, loaded)
    assert edge.is_current(loaded)
    assert (current(loaded) / "entrypoint.sh").stat().st_mode & 0o777 == 0o755
    assert edge.fingerprint(current(loaded)) == edge.fingerprint(loaded.root / "nginx")
    for folder in (loaded.nginx_folder, loaded.nginx_folder / "releases"):
        assert folder.stat().st_mode & 0o005 == 0o005, "the user of nginx cannot read the folder"


def test_the_same_content_changes_nothing(real: Remembering, loaded: Project) -> None:
    edge.install(real, loaded)
    real.ran.clear()
    (loaded.root / "nginx/conf.d/a.conf").touch()
    assert not edge.install(real, loaded)
    assert real.ran == []


def test_an_edit_in_the_checkout_does_not_reach_what_is_installed(
    real: Remembering, loaded: Project
) -> None:
    edit(loaded, "one")
    edge.install(real, loaded)
    edit(loaded, "two")
    assert (current(loaded) / "conf.d/a.conf").read_text(encoding="utf-8") == "one"
    assert not edge.is_current(loaded)


def test_a_new_one_becomes_current_by_a_rename_of_a_link_once_it_is_whole(
    real: Remembering, loaded: Project
) -> None:
    edit(loaded, "one")
    edge.install(real, loaded)
    former = current(loaded).resolve()
    edit(loaded, "two")
    real.ran.clear()
    assert edge.install(real, loaded)
    programs = [shlex.split(command)[0] for command in real.ran]
    assert programs == ["rm", "cp", "chmod", "mv", "ln", "mv"]
    assert (
        real.ran[-1]
        == f"mv --no-target-directory {loaded.nginx_folder}/next {loaded.nginx_folder}/current"
    )
    assert (current(loaded) / "conf.d/a.conf").read_text(encoding="utf-8") == "two"
    assert (former / "conf.d/a.conf").read_text(encoding="utf-8") == "one", (
        "the installation changed the files that nginx may have open"
    )
    assert not (loaded.nginx_folder / "next").is_symlink()


def test_the_link_is_relative_so_that_it_holds_inside_the_container(
    real: Remembering, loaded: Project
) -> None:
    edge.install(real, loaded)
    assert current(loaded).readlink() == Path("releases") / edge.fingerprint(loaded.root / "nginx")


def test_a_former_content_is_made_current_again_without_a_copy(
    real: Remembering, loaded: Project
) -> None:
    for text in ("one", "two"):
        edit(loaded, text)
        edge.install(real, loaded)
    real.ran.clear()
    edit(loaded, "one")
    assert edge.install(real, loaded)
    assert [shlex.split(command)[0] for command in real.ran] == ["ln", "mv"]
    assert (current(loaded) / "conf.d/a.conf").read_text(encoding="utf-8") == "one"


@pytest.mark.parametrize("done", range(6))
def test_an_install_that_was_killed_is_finished_by_the_next(
    real: Remembering, loaded: Project, done: int
) -> None:
    edit(loaded, "one")
    edge.install(real, loaded)
    edit(loaded, "two")

    class Killed(Remembering):
        def run(self, command: Command) -> Result:
            if len(self.ran) == done:
                raise KeyboardInterrupt
            return super().run(command)

    try:
        edge.install(Killed(), loaded)
    except KeyboardInterrupt:
        assert (current(loaded) / "conf.d/a.conf").read_text(encoding="utf-8") == "one"
    edge.install(real, loaded)
    assert (current(loaded) / "conf.d/a.conf").read_text(encoding="utf-8") == "two"
    assert edge.fingerprint(current(loaded)) == edge.fingerprint(loaded.root / "nginx")


@pytest.mark.parametrize("change", ["content", "name", "new file"])
def test_the_fingerprint_differs_with_content_names_and_files(loaded: Project, change: str) -> None:
    folder = loaded.root / "nginx"
    before = edge.fingerprint(folder)
    match change:
        case "content":
            edit(loaded, "other")
        case "name":
            (folder / "conf.d/a.conf").rename(folder / "conf.d/b.conf")
        case _:
            (folder / "conf.d/b.conf").touch()
    assert edge.fingerprint(folder) != before


def test_the_locations_of_service_toml_are_no_part_of_the_configuration(
    real: Remembering, loaded: Project
) -> None:
    edge.install(real, loaded)
    (loaded.root / "service.toml").write_text('[web]\nlogin_paths = ["/b"]\n', encoding="utf-8")
    assert edge.is_current(loaded), "they belong to the deployment"
    assert not (current(loaded) / "service.conf").exists()


def test_a_configuration_that_cannot_read_the_settings_is_replaced_by_up(
    real: Remembering, loaded: Project
) -> None:
    entrypoint = loaded.root / "nginx/entrypoint.sh"
    entrypoint.write_text("# of an earlier version\n", encoding="utf-8")
    edge.install(real, loaded)
    entrypoint.write_text("# reads settings.env\n", encoding="utf-8")
    edge_settings.write(real, loaded, files(loaded))
    assert edge.ensure_installed(real, loaded) == "installed"
    edit(loaded, "two")
    assert edge.ensure_installed(real, loaded) == "kept as it is"


def test_a_dry_run_installs_nothing(loaded: Project) -> None:
    runner = RecordingRunner(is_dry=True)
    edge.install(runner, loaded)
    assert not loaded.nginx_folder.exists()
    assert runner.has_run("current")


def test_a_configuration_is_tried_with_the_mounts_and_the_settings_of_the_service(
    loaded: Project,
) -> None:
    asked: list[list[str]] = []

    class Asking(RecordingRunner):
        def read(self, command: Command) -> Result:
            asked.append(list(command.argv))
            return Result(0)

    edge.check(Asking(), loaded, loaded.root / "nginx", files(loaded))
    command = shlex.join(asked[0])
    for part in (
        "--rm",
        "--network none",
        "--user nginx",
        f"--volume {loaded.root}/nginx:/etc/slipway/current:ro",
        f"--volume {loaded.secrets}/tls:/run/tls:ro",
        "--env SLIPWAY_HOST=localhost",
        "--env RATE_LIMIT_PER_SECOND=200",
        "--env 'SERVICE_LOCATIONS=# mine",
        "slipway/app-nginx:current test",
    ):
        assert part in command


@pytest.mark.parametrize(
    "answer",
    [
        Result(1, err="nginx: [emerg] unknown directive"),
        Result(0, err="nginx: [warn] conflicting server name"),
    ],
    ids=["refused", "warned"],
)
def test_what_nginx_refuses_or_warns_of_is_shown_in_its_words(
    runner: RecordingRunner, loaded: Project, answer: Result
) -> None:
    runner.reply("docker run", answer)
    with pytest.raises(Failure) as raised:
        edge.check(runner, loaded, loaded.root / "nginx", files(loaded))
    assert raised.value.evidence == answer.err
    assert raised.value.runbook == "nginx-refuses-its-configuration"
    assert runner.ran == []
