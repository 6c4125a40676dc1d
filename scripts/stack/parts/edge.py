"""Installs nginx's configuration: tried in a throw-away container, swapped by one rename, reloaded if it changed."""

import hashlib
from pathlib import Path

from stack.commands import engine
from stack.config import service
from stack.config.project import Project
from stack.failure import Failure
from stack.runner import Runner

CURRENT = "/etc/slipway/current"
ENTRYPOINT = f"{CURRENT}/entrypoint.sh"
# Included by conf.d/50-servers.conf.
SERVICE = "service.conf"
LOGIN_LOCATION = """\
# Made of login_paths in service.toml.
location ~ ^(%s)(/|$) {
    client_max_body_size 8k;
    include /etc/slipway/current/snippets/proxy.conf;
    proxy_pass http://live;
}
"""
KEPT = 5  # former configurations, to compare with or to go back to by hand


def fingerprint(folder: Path) -> str:
    """Return a name for the contents of the configuration folder: the same files are the same configuration."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    if (folder.parent / service.FILE).is_file():  # a checkout; an installed one has the file
        files[SERVICE] = service_locations(folder.parent).encode()
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:12]


def service_locations(root: Path) -> str:
    """Return the locations that `service.toml` describes, as nginx reads them."""
    prefixes = "|".join(service.load(root).login_paths)
    return LOGIN_LOCATION % prefixes if prefixes else "# service.toml names no login_paths.\n"


def is_current(project: Project) -> bool:
    """Whether what the checkout holds is what nginx reads."""
    return installed(project) == fingerprint(project.root / "nginx")


def installed(project: Project) -> str:
    """Return the name of the configuration that nginx reads; empty where none was installed."""
    link = project.nginx_folder / "current"
    return link.readlink().name if link.is_symlink() else ""


def check(runner: Runner, project: Project, folder: Path) -> None:
    """Try a configuration, with the certificate, in a throw-away container; nothing that serves is touched.

    Raises:
        Failure: with nginx's own words.
    """
    values = {
        "SLIPWAY_HOST": project.host,
        "HTTPS_PORT": str(project.https_port),
        "RATE_LIMIT_PER_SECOND": project.setting("RATE_LIMIT_PER_SECOND"),
    }
    argv = engine.throwaway_argv(
        project.nginx_image,
        [ENTRYPOINT, "test"],
        mounts=[f"{folder.resolve()}:{CURRENT}:ro", f"{project.certificate.parent}:/run/tls:ro"],
        user="nginx",
        environment=values,
    )
    tried = runner.read(argv)
    if tried.code != 0 or "[warn]" in tried.err:
        raise Failure(
            f"nginx refuses the configuration in {folder}, or the certificate in {project.certificate.parent}",
            hints=[
                "correct what nginx names",
                "what serves, and what is installed, was not touched",
            ],
            runbook="nginx-refuses-its-configuration",
            evidence=tried.err,
        )


def install(runner: Runner, project: Project) -> bool:
    """Make the checkout's configuration the current one, and say whether that changed anything."""
    if is_current(project):
        return False
    folder, name = project.nginx_folder, fingerprint(project.root / "nginx")
    target = folder / "releases" / name
    runner.make_directory(folder, 0o755)
    runner.make_directory(folder / "releases", 0o755)
    if not target.exists():
        partial = folder / "releases" / f".{name}"
        runner.run(["rm", "-rf", str(partial)])
        runner.run(
            ["cp", "--recursive", "--preserve=mode", str(project.root / "nginx"), str(partial)]
        )
        runner.write(partial / SERVICE, service_locations(project.root), 0o644)
        runner.run(["mv", "--no-target-directory", str(partial), str(target)])
    point(runner, project, name)
    for old in _superfluous(folder / "releases", name):
        runner.run(["rm", "-rf", str(old)])
    return True


def point(runner: Runner, project: Project, name: str) -> None:
    """Make an installed configuration the current one, by one rename."""
    folder = project.nginx_folder
    runner.run(
        [
            "ln",
            "--symbolic",
            "--force",
            "--no-dereference",
            f"releases/{name}",
            str(folder / "next"),
        ]
    )
    runner.run(["mv", "--no-target-directory", str(folder / "next"), str(folder / "current")])


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
    """Have the running nginx read its configuration and certificates anew; connections stay open."""
    runner.run(engine.compose_argv("exec", "--no-TTY", "nginx", ENTRYPOINT, "reload"))
