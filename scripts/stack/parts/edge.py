"""Tests nginx' configuration in a throw-away container, and installs it by one rename."""

import hashlib
from pathlib import Path

from stack.commands import engine, host
from stack.config import service
from stack.config.project import Project
from stack.failure import Failure
from stack.runner import Runner

CURRENT = "/etc/slipway/current"
ENTRYPOINT = f"{CURRENT}/entrypoint.sh"
# nginx/conf.d/70-public.conf includes it.
SERVICE = "service.conf"
LOGIN_LOCATION = """\
# From login_paths in service.toml.
location ~ ^(%s)(/|$) {
    client_max_body_size 8k;
    include /etc/slipway/current/snippets/proxy.conf;
    proxy_pass http://live;
}
"""
KEPT = 5  # former configurations, to compare or to reinstall by hand


def fingerprint(folder: Path) -> str:
    """Return a name for a configuration: the same files have the same name."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    if (folder.parent / service.FILE).is_file():  # a checkout; an installed copy has the file
        files[SERVICE] = service_locations(folder.parent).encode()
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:12]


def service_locations(root: Path) -> str:
    """Return the locations of `service.toml` in nginx's syntax."""
    prefixes = "|".join(service.load(root).login_paths)
    return LOGIN_LOCATION % prefixes if prefixes else "# service.toml names no login_paths.\n"


def is_current(project: Project) -> bool:
    """Whether nginx reads the checkout's configuration."""
    return installed_name(project) == fingerprint(project.root / "nginx")


def installed_name(project: Project) -> str:
    """Return the name of the configuration that nginx reads; empty if none is installed."""
    link = project.nginx_folder / "current"
    return link.readlink().name if link.is_symlink() else ""


def check(runner: Runner, project: Project, folder: Path) -> None:
    """Test a configuration with the certificate in a throw-away container.

    Raises:
        Failure: with nginx's output.
    """
    values = {
        "SLIPWAY_HOST": project.host,
        "HTTPS_PORT": str(project.https_port),
        "RATE_LIMIT_PER_SECOND": project.setting("RATE_LIMIT_PER_SECOND"),
    }
    command = engine.throwaway(
        project.nginx_image,
        [ENTRYPOINT, "test"],
        mounts=[f"{folder.resolve()}:{CURRENT}:ro", f"{project.certificate.parent}:/run/tls:ro"],
        user="nginx",
        environment=values,
        answers=(0, 1),  # 1 is nginx' own; any other code is the engine's
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
    """Install and activate the checkout's configuration; return whether anything changed."""
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
        runner.write(partial / SERVICE, service_locations(project.root), 0o644)
        if not runner.is_dry:
            check(runner, project, partial)  # now with the locations of service.toml
        runner.run(host.move(partial, target))
    make_current(runner, project, name)
    for old in _superfluous(folder / "releases", name):
        runner.run(host.remove_tree(old))
    return True


def ensure_installed(runner: Runner, project: Project) -> str:
    """Install the checkout's configuration where none is installed; test what nginx will read."""
    current = project.nginx_folder / "current"
    is_installed = current.exists()
    if not runner.is_dry:
        # Test the installed configuration with the certificate: nginx could not start again with a
        # key that does not match.
        check(runner, project, current if is_installed else project.root / "nginx")
    if is_installed:
        return "kept as it is"
    install(runner, project)
    return "installed"


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
