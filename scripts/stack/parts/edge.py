"""Tests nginx' configuration in a throw-away container, and installs it by one rename."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from stack.commands import engine, host
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import edge_settings
from stack.parts.edge_settings import EdgeSettings
from stack.parts.undo import Undo
from stack.runner import Runner

CURRENT = "/etc/slipway/current"
ENTRYPOINT = f"{CURRENT}/entrypoint.sh"
KEPT = 5  # former configurations, to compare or to reinstall by hand


def fingerprint(folder: Path) -> str:
    """Return a name for a configuration: the same files have the same name."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:12]


def is_current(project: Project) -> bool:
    """Whether nginx reads the checkout's configuration."""
    return installed_name(project) == fingerprint(project.root / "nginx")


def installed_name(project: Project) -> str:
    """Return the name of the configuration that nginx reads; empty if none is installed."""
    link = project.nginx_folder / "current"
    return link.readlink().name if link.is_symlink() else ""


def check(runner: Runner, project: Project, folder: Path, files: EdgeSettings) -> None:
    """Test a configuration with the certificate in a throw-away container.

    Raises:
        Failure: with nginx's output.
    """
    values = {
        **files.settings,
        "HTTPS_PORT": str(project.https_port),
        "SERVICE_LOCATIONS": files.locations,
    }
    command = engine.throwaway(
        project.nginx_image,
        [ENTRYPOINT, "test"],
        mounts=[f"{folder.resolve()}:{CURRENT}:ro", f"{project.certificate.parent}:/run/tls:ro"],
        user="nginx",
        environment=values,
        answers=(0, 1),  # 1: nginx refuses; other codes are the engine's
    )
    result = runner.read(command)
    if result.code != 0 or "[warn]" in result.err:
        raise Failure(
            f"nginx refuses the configuration in {folder}, "
            f"or the certificate in {project.certificate.parent}",
            hints=[
                "correct what nginx names",
                "neither the running nginx nor its installed configuration was touched",
            ],
            runbook="nginx-refuses-its-configuration",
            evidence=result.err,
        )


def install(runner: Runner, project: Project) -> bool:
    """Install and activate the checkout's configuration, which `check` has accepted.

    Returns:
        Whether anything changed.
    """
    if is_current(project):
        return False
    folder, name = project.nginx_folder, fingerprint(project.root / "nginx")
    target = folder / "releases" / name
    runner.make_directory(folder, 0o755)
    runner.make_directory(folder / "releases", 0o755)
    if not target.exists():
        partial = folder / "releases" / f".{name}"
        runner.run(host.remove_tree(partial))
        runner.run(host.copy_tree(project.root / "nginx", partial))
        runner.run(host.open_tree(partial))  # the checkout may have the modes of umask 077
        runner.run(host.move(partial, target))
    make_current(runner, project, name)
    for old in _superfluous(folder / "releases", name):
        runner.run(host.remove_tree(old))
    return True


def ensure_installed(runner: Runner, project: Project) -> str:
    """Install the checkout's configuration if none is installed; test what nginx will read.

    A configuration of an earlier version cannot read edge_settings and is also replaced.
    """
    current = project.nginx_folder / "current"
    entrypoint = current / "entrypoint.sh"
    is_installed = entrypoint.exists() and edge_settings.SETTINGS in entrypoint.read_text("utf-8")
    if not runner.is_dry:
        # Test the installed configuration with the certificate: with a key that does not match,
        # nginx could not start again.
        folder = current if is_installed else project.root / "nginx"
        check(runner, project, folder, edge_settings.installed(project))
    if is_installed:
        return "kept as it is"
    install(runner, project)
    return "installed"


def _files_of(project: Project, locations: str) -> EdgeSettings:
    """Return the files before a switch: the live slot accepts only the former host name."""
    former = edge_settings.installed(project)
    return edge_settings.wanted(project, locations).with_host(former.host or project.host)


def is_up_to_date(project: Project, locations: str) -> bool:
    """Whether nginx has the checkout's configuration, these locations, and the keys of `.env`."""
    is_same = _files_of(project, locations) == edge_settings.installed(project)
    return is_current(project) and is_same


def update(runner: Runner, project: Project, locations: str) -> None:
    """Install the checkout's configuration and the keys of `.env`, except the host name; reload."""
    former, files = edge_settings.installed(project), _files_of(project, locations)
    is_installed = install(runner, project)
    apply(runner, project, files)
    if is_installed and files == former:
        reload(runner)


def way_back(runner: Runner, project: Project) -> Callable[[], None]:
    """Return the action that installs the present configuration and files again."""
    name, former = installed_name(project), edge_settings.installed(project)

    def restore() -> None:
        if name:
            make_current(runner, project, name)
        put_back(runner, project, former)

    return restore


def apply(
    runner: Runner,
    project: Project,
    files: EdgeSettings,
    prove: Callable[[], object] = lambda: None,
) -> None:
    """Test the files with the installed configuration, write them and reload nginx.

    Raises:
        Failure: with the former files in place, if nginx refuses these, or `prove` fails.
    """
    former = edge_settings.installed(project)
    if files == former:
        return
    if not runner.is_dry:
        check(runner, project, project.nginx_folder / "current", files)
    undo = Undo(("files",), vital=frozenset({"files"}), final=())
    with undo.on_failure("nginx-refuses-its-configuration"):
        undo.push("files", lambda _: put_back(runner, project, former))
        edge_settings.write(runner, project, files)
        reload(runner)
        prove()


def put_back(runner: Runner, project: Project, former: EdgeSettings) -> None:
    """Write former files again and reload nginx."""
    edge_settings.write(runner, project, former)
    reload(runner)


def make_current(runner: Runner, project: Project, name: str) -> None:
    """Make an installed configuration the current one, by one rename."""
    folder = project.nginx_folder
    runner.run(host.link(f"releases/{name}", folder / "next"))
    runner.run(host.move(folder / "next", folder / "current"))


def _superfluous(releases: Path, current: str) -> list[Path]:
    if not releases.is_dir():
        return []
    others = sorted(
        (p for p in releases.iterdir() if p.name != current),
        key=lambda p: p.stat().st_mtime,
        reverse=True,
    )
    return others[KEPT:]


def reload(runner: Runner) -> None:
    """Reload nginx's configuration and certificates; connections stay open."""
    runner.run(engine.exec_in("nginx", ENTRYPOINT, "reload"))
