"""Pulls or builds base images; builds the images of nginx, Postgres and a release."""

import configparser
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from stack.commands import engine, host
from stack.config import environment
from stack.config.project import BASES, Project
from stack.config.service import load as load_service
from stack.failure import Failure
from stack.parts import observation, sources
from stack.parts.sources import Sources, say_left_out
from stack.rules import migrations
from stack.runner import Runner

# Used if a registry answers. up.sh writes the digest into .env, so that the next pull gets the
# same image.
OFFICIAL = {
    "python": "python:3.13-slim-trixie",
    "nginx": "nginx:1.30-trixie",
    "postgres": "postgres:17-trixie",
    "redis": "redis:8.0",
}
ROOT_IMAGE = f"slipway-base/debian:debian-{host.RELEASE}"
WITH_VOLUMES = ("postgres", "redis")
RUNBOOK = "site-down"
PULL_SECONDS = 300
BUILD_SECONDS = 1200
# The tag of the image for development; it is no release.
DEVELOPMENT = "development"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def debian_name(service: str) -> str:
    """Return the name of a base image built from Debian packages."""
    return f"slipway-base/{service}:debian-{host.RELEASE}"


def choose_bases(runner: Runner, project: Project, *, is_refresh: bool = False) -> Project:
    """Pull each base image, or build it from Debian packages; return the project with the names.

    `.env` stays as it is: `configuration.keep_bases` writes what the volumes accept. A refresh
    pulls or builds all of them again, without a cache, to get newer packages.
    """
    missing = [
        service for service in BASES if is_refresh or not has_image(runner, project.base(service))
    ]
    if not missing:
        return project
    bases: dict[str, str] = {}
    has_registry = True
    for service in missing:
        image = project.base(service) or OFFICIAL[service]
        if is_refresh and not image.startswith("slipway-base/"):
            image = image.partition("@")[0]
        is_own = image.startswith("slipway-base/")
        # All images come from one registry: after a failed pull, only images named in .env are
        # pulled.
        may_pull = not is_own and (has_registry or project.base(service))
        pulled = _pull(runner, image) if may_pull else ""
        if pulled:
            bases[service] = pulled
        elif project.base(service) and not is_own:
            raise Failure(
                f"{image}, named in .env, is neither on this host nor available from its registry",
                hints=["wait for the registry", f"or {_way_out(service)}"],
                runbook=environment.RUNBOOK,
            )
        else:
            has_registry = has_registry and is_own
            if is_refresh or not has_image(runner, debian_name(service)):
                _build_base(runner, service, is_fresh=is_refresh)
            bases[service] = debian_name(service)
    names = {f"{service.upper()}_IMAGE": image for service, image in bases.items()}
    return replace(project, values={**project.values, **names})


def _way_out(service: str) -> str:
    """Return a hint that leads to no image whose user could not read the service's volume."""
    key = f"{service.upper()}_IMAGE"
    if service in WITH_VOLUMES:
        return f"set {key} in .env to an image of this host of the same kind: docker image ls"
    return f"empty {key} in .env, so that up.sh chooses an image"


def has_image(runner: Runner, image: str) -> bool:
    """Whether an image of this name is on this host."""
    return bool(image) and observation.exists(runner, engine.inspect_image(image))


def _pull(runner: Runner, image: str) -> str:
    """Pull an image; return its name with its digest, or an empty text if the pull fails."""
    command = engine.pull_image(image, timeout_seconds=PULL_SECONDS, may_fail=True)
    result = runner.run(command)
    if runner.is_dry:
        return image
    if result.code != 0:
        reason = result.err.strip().splitlines() or [f"exit {result.code}"]
        runner.say(f"    not from the registry: {reason[-1]}")
        return ""
    digests = observation.ask_engine(
        runner, engine.inspect_image(image, "{{index .RepoDigests 0}}")
    )
    return f"{image.partition('@')[0]}@{digests.partition('@')[2]}"


def _build_base(runner: Runner, service: str, *, is_fresh: bool) -> None:
    runner.say(
        f"    building {service} from Debian packages ({host.RELEASE} with its security suite)"
    )
    if not has_image(runner, ROOT_IMAGE):
        _bootstrap(runner)
    with build_secrets(apt_conf=host.apt_settings(runner.read(host.APT_SETTINGS).out)) as secrets:
        command = engine.build_image(
            Path("scripts/base-images"),
            [debian_name(service)],
            {"DEBIAN": ROOT_IMAGE},
            {"ca": secrets["ca"], "apt.conf": secrets["apt.conf"]},
            target=service,
            pass_on=_proxies(),
            is_fresh=is_fresh,
            timeout_seconds=BUILD_SECONDS,
        )
        runner.run(command)


def _bootstrap(runner: Runner) -> None:
    if os.geteuid() != 0:
        raise Failure(
            "the registry has no base images, and only root may build them from Debian packages",
            hints=[
                "run this once as root: sudo ./scripts/up.sh",
                "or set the names of local images in .env",
            ],
            runbook=RUNBOOK,
        )
    sources = _debian_mirrors(runner)
    if runner.read(host.MMDEBSTRAP_VERSION).code != 0:
        runner.run(host.install_packages(["mmdebstrap", "debian-archive-keyring"]))
    with tempfile.TemporaryDirectory(prefix="slipway-base-") as directory:
        archive = Path(directory) / "root.tar"
        lines = host.bootstrap_sources(sources)
        runner.run(host.bootstrap(str(archive), stdin=lines, timeout_seconds=BUILD_SECONDS))
        runner.run(engine.import_image(archive, ROOT_IMAGE))


def _debian_mirrors(runner: Runner) -> host.Mirrors:
    archive, security = (
        os.environ.get("DEBIAN_MIRROR", ""),
        os.environ.get("DEBIAN_SECURITY_MIRROR", ""),
    )
    if archive:
        return host.Mirrors(archive, security)
    listing = runner.read(host.APT_SOURCES)
    mirrors = host.mirrors(listing.out)
    if mirrors is None:
        # apt knows the origin of a source only after fetching its index.
        runner.run(host.APT_UPDATE)
        mirrors = host.mirrors(runner.read(host.APT_SOURCES).out)
    if mirrors is None:
        if runner.is_dry:
            return host.Mirrors("DEBIAN_MIRROR", "DEBIAN_SECURITY_MIRROR")
        raise Failure(
            "no registry can be reached, and apt on this machine has no Debian source to build "
            "base images from",
            hints=[
                "DEBIAN_MIRROR=... DEBIAN_SECURITY_MIRROR=... ./scripts/up.sh, "
                "with the addresses of a Debian mirror"
            ],
            runbook=RUNBOOK,
        )
    return mirrors


def _proxies() -> tuple[str, ...]:
    return tuple(name for name in (*PROXIES, *map(str.lower, PROXIES)) if os.environ.get(name))


@contextmanager
def build_secrets(apt_conf: str = "") -> Iterator[dict[str, Path]]:
    """Yield temporary files for a build: the host's CA bundle and its pip and apt settings."""
    bundle = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    with tempfile.TemporaryDirectory(prefix="slipway-build-") as directory:
        files = {name: Path(directory) / name for name in ("ca", "pip.conf", "apt.conf")}
        files["ca"].write_bytes(bundle.read_bytes() if bundle.exists() else b"")
        files["pip.conf"].write_text(pip_settings(), encoding="utf-8")
        files["apt.conf"].write_text(apt_conf, encoding="utf-8")
        yield files


def pip_settings() -> str:
    """Return the host's pip settings for the builds, without indexes in local files."""
    parser = configparser.ConfigParser(interpolation=None)
    home = Path.home()
    parser.read(
        ["/etc/pip.conf", home / ".pip" / "pip.conf", home / ".config" / "pip" / "pip.conf"]
    )
    merged = dict(parser["global"]) if parser.has_section("global") else {}
    for key in ("index-url", "extra-index-url", "trusted-host"):
        value = os.environ.get("PIP_" + key.upper().replace("-", "_"))
        if value:
            merged[key] = value
    settings = {
        key: merged.get(key, "")
        for key in ("index-url", "extra-index-url", "trusted-host", "proxy")
    }
    settings["extra-index-url"] = " ".join(
        a for a in settings["extra-index-url"].split() if not a.startswith("file:")
    )
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items() if value)


def build_inputs(runner: Runner, project: Project, copy: Sources) -> str:
    """Return a hash of a release's inputs: its sources and its base image."""
    base = project.base("python")
    identity = observation.ask_engine(runner, engine.inspect_image(base))
    return hashlib.sha256("\0".join((copy.digest, base, identity)).encode()).hexdigest()


def is_built(runner: Runner, project: Project, copy: Sources) -> bool:
    """Whether an image of these inputs exists under the name of the release."""
    image = f"{project.image}:{release_of(runner, project, copy)}"
    return _inputs_of(runner, image) == build_inputs(runner, project, copy)


def release_of(runner: Runner, project: Project, copy: Sources) -> str:
    """Return the name of the release of these sources.

    An existing image of other inputs keeps its name, because a deployment may need it. Then the
    first digits of the hash of the inputs are appended to the new name.
    """
    image = f"{project.image}:{copy.release}"
    inputs = build_inputs(runner, project, copy)
    if not has_image(runner, image) or _inputs_of(runner, image) == inputs:
        return copy.release
    return f"{copy.release}-{inputs[:8]}"


def release_of_checkout(runner: Runner, project: Project) -> str:
    """Return the name that a release of the checkout has, or would have after a build."""
    return release_of(runner, project, sources.present(runner, project.root))


def _inputs_of(runner: Runner, image: str) -> str:
    return observation.ask_engine(runner, engine.image_label(image, engine.INPUTS_LABEL))


def build_release(runner: Runner, project: Project, copy: Sources) -> str:
    """Build a release of a copy of the checkout, unless an image of equal inputs exists.

    Returns:
        The name of the release.
    """
    release = release_of(runner, project, copy)
    say_left_out(runner, copy)
    if is_built(runner, project, copy):
        runner.say(f"    {project.image}:{release} is here already")
        return release
    # Refuse a broken service.toml now; the smoke test would find it too late.
    load_service(copy.folder)
    known = migrations.revisions(copy.folder)
    arguments = {
        "PYTHON_IMAGE": project.base("python"),
        "RELEASE": release,
        "REVISION": copy.revision,
        "MIGRATION_HEAD": known[-1].identifier,
        "MIGRATIONS": migrations.label(known),
        "BUILD_TIME": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    labels = {engine.INPUTS_LABEL: build_inputs(runner, project, copy)}
    _build(runner, project, release, copy.folder, arguments, target="production", labels=labels)
    return release


def build_development(runner: Runner, project: Project) -> str:
    """Build the image of compose.dev.yaml and return its tag; quick if no lock file changed."""
    load_service(project.root)  # refuses a broken file
    _build(
        runner,
        project,
        DEVELOPMENT,
        Path(),
        {"PYTHON_IMAGE": project.base("python")},
        target=DEVELOPMENT,
    )
    return DEVELOPMENT


def _build(
    runner: Runner,
    project: Project,
    tag: str,
    context: Path,
    arguments: dict[str, str],
    *,
    target: str,
    labels: dict[str, str] | None = None,
) -> None:
    with build_secrets() as secrets:
        files = {"ca": secrets["ca"], "pip.conf": secrets["pip.conf"]}
        command = engine.build_image(
            context,
            [f"{project.image}:{tag}"],
            arguments,
            files,
            labels={engine.REPOSITORY_LABEL: project.image, **(labels or {})},
            target=target,
            pass_on=_proxies(),
            timeout_seconds=BUILD_SECONDS,
        )
        runner.run(command)


def build_nginx(runner: Runner, project: Project) -> None:
    """Build nginx's image; a no-op if nothing changed."""
    arguments = {"NGINX_IMAGE": project.base("nginx")}
    _build_plain(runner, project, Path("nginx"), project.nginx_image, arguments)


def build_counter(runner: Runner, project: Project) -> None:
    """Build the counter's image; a no-op if nothing changed."""
    arguments = {"PYTHON_IMAGE": project.base("python")}
    _build_plain(runner, project, Path("counter"), project.counter_image, arguments)


def _build_plain(
    runner: Runner, project: Project, folder: Path, image: str, arguments: dict[str, str]
) -> None:
    """Build an image that needs nothing from a registry."""
    command = engine.build_image(
        folder,
        [image],
        arguments,
        {},
        labels={engine.REPOSITORY_LABEL: project.image},
        timeout_seconds=BUILD_SECONDS,
    )
    runner.run(command)


def build_postgres(
    runner: Runner, project: Project, *, is_fresh: bool = False, tag: str = ""
) -> None:
    """Build the image of Postgres with pgBackRest; a no-op if nothing changed."""
    arguments = {"POSTGRES_IMAGE": project.base("postgres")}
    image = postgres_image(project, tag) if tag else project.postgres_image
    with build_secrets(apt_conf=host.apt_settings(runner.read(host.APT_SETTINGS).out)) as secrets:
        files = {"ca": secrets["ca"], "apt.conf": secrets["apt.conf"]}
        command = engine.build_image(
            Path("postgres"),
            [image],
            arguments,
            files,
            labels={engine.REPOSITORY_LABEL: project.image},
            pass_on=_proxies(),
            is_fresh=is_fresh,
            timeout_seconds=BUILD_SECONDS,
        )
        runner.run(command)


def postgres_image(project: Project, tag: str) -> str:
    """Return the name of the image of Postgres with another tag."""
    return f"{project.postgres_image.rpartition(':')[0]}:{tag}"


def replace_base(project: Project, image: str) -> Project:
    """Return the project with another base image of Postgres; `.env` does not change."""
    return Project(project.root, {**project.values, "POSTGRES_IMAGE": image})


def choose_postgres(runner: Runner, project: Project, image: str) -> str:
    """Ensure a base image of Postgres: the named image, or the one of up.sh; return its name."""
    if image and has_image(runner, image):
        return image
    own = debian_name("postgres")
    has_registry = bool(image) or not project.base("postgres").startswith("slipway-base/")
    pulled = _pull(runner, image or OFFICIAL["postgres"]) if has_registry else ""
    if image and not pulled:
        raise Failure(
            f"{image} is neither on this host nor available from its registry",
            hints=["docker pull shows why; nothing was touched"],
            runbook="postgres-major-upgrade",
        )
    if not pulled and not has_image(runner, own):
        _build_base(runner, "postgres", is_fresh=False)
    return pulled or own
