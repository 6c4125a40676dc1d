"""The two files that nginx reads besides its configuration, in a folder that it mounts.

`settings.env` has the keys of `.env` that a reload applies. `service.conf` has the locations that
service.toml of the live deployment asks for. nginx/entrypoint.sh renders both at each reload.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from stack.config import keys, service
from stack.config.project import Project
from stack.config.service import Service
from stack.parts import containers, slot_files
from stack.parts.inventory import Inventory
from stack.runner import Runner

HOST = "SLIPWAY_HOST"
# Partner: settings in nginx/entrypoint.sh
SETTINGS, LOCATIONS = "settings.env", "service.conf"
HEAD = "# The scripts write this file at each deploy and up.sh; edit .env instead.\n"
LOGIN_LOCATION = """\
# From login_paths in service.toml.
location ~ ^(%s)(/|$) {
    client_max_body_size 8k;
    include /etc/slipway/current/snippets/proxy.conf;
    proxy_pass http://live;
}
"""


@dataclass(frozen=True)
class EdgeSettings:
    """The texts of both files."""

    settings: dict[str, str]
    locations: str

    @property
    def host(self) -> str:
        """The host name that nginx answers to; empty if no file was written yet."""
        return self.settings.get(HOST, "")

    def with_host(self, host: str) -> "EdgeSettings":
        """Return the same files with another host name."""
        return replace(self, settings={**self.settings, HOST: host})


def locations_of(service: Service) -> str:
    """Return the locations of `service.toml` in nginx's syntax."""
    prefixes = "|".join(service.login_paths)
    return LOGIN_LOCATION % prefixes if prefixes else "# service.toml names no login_paths.\n"


def wanted(project: Project, locations: str) -> EdgeSettings:
    """Return the files with the values of `.env`."""
    return EdgeSettings({key: project.setting(key) for key in keys.RELOADED}, locations)


def installed(project: Project) -> EdgeSettings:
    """Return the files that nginx reads; empty if they are missing or unreadable."""
    try:
        locations = (project.nginx_folder / LOCATIONS).read_text(encoding="utf-8")
    except OSError:
        locations = ""
    return EdgeSettings(slot_files.read(project.nginx_folder / SETTINGS), locations)


def installed_host(project: Project) -> str:
    """Return the host name that nginx answers to; empty if no file was written yet."""
    return slot_files.read(project.nginx_folder / SETTINGS).get(HOST, "")


def write(runner: Runner, project: Project, files: EdgeSettings) -> None:
    """Write the files that differ; nginx reads them at its next reload or start.

    The settings come last: a command that finds them assumes that both files exist.
    """
    folder, former = project.nginx_folder, installed(project)
    runner.make_directory(folder, 0o755)
    if files.locations != former.locations:
        runner.write(folder / LOCATIONS, files.locations, 0o644)
    if files.settings != former.settings:
        text = HEAD + "".join(f"{key}='{value}'\n" for key, value in files.settings.items())
        runner.write(folder / SETTINGS, text, 0o644)


def adopt(runner: Runner, project: Project, stock: Inventory) -> None:
    """Write the files if they are missing, with the values of a running nginx."""
    if installed(project).host:
        return
    files = wanted(project, locations_of(service.load(project.root)))
    running = [each for each in stock.running(project.name) if each.service == "nginx"]
    facts = containers.inspect(runner, running[0].name) if running else None
    if facts:
        given = {key: facts.environment.get(key) or text for key, text in files.settings.items()}
        files = replace(files, settings=given)
    write(runner, project, files)


def waiting(project: Project) -> list[str]:
    """Return the keys that nginx does not have yet."""
    present = installed(project).settings
    return [key for key in keys.RELOADED if present and present.get(key) != project.setting(key)]


def _kept(project: Project, number: int) -> Path:
    return project.state / "deployments" / f"{number}.conf"


def keep_locations(runner: Runner, project: Project, number: int, locations: str) -> None:
    """Keep the locations of a deployment, for a rollback to it."""
    if number:
        runner.make_directory(_kept(project, number).parent, 0o750)
        runner.write(_kept(project, number), locations, 0o600)


def kept_locations(project: Project, number: int) -> str:
    """Return the locations of a deployment; empty if they were not kept."""
    file = _kept(project, number)
    return file.read_text(encoding="utf-8") if number and file.exists() else ""
