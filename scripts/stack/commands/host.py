"""Builds commands and file contents for the host itself; runs nothing."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from stack.commands.command import Command, Options

# The Debian release that the base images and, on Debian 12, the engine come from.
RELEASE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ENGINE_SOURCE = "/etc/apt/sources.list.d/slipway-engine.sources"
ENGINE_PIN = "/etc/apt/preferences.d/slipway-engine"
# The packages that bring each program. An engine that is there keeps its version and its source.
DEBIAN_ENGINE = {
    "engine": ["docker.io", "iptables", "ca-certificates"],
    "client": ["docker-cli"],
    "compose": ["docker-compose"],
    "buildx": ["docker-buildx"],
}
UBUNTU_ENGINE = {
    "engine": ["docker.io", "ca-certificates"],
    "client": ["docker.io"],
    "compose": ["docker-compose-v2"],
    "buildx": ["docker-buildx"],
}
APT_UPDATE = Command(["apt-get", "update", "--quiet=2"])
# 127: the program is not installed, for example apt on a system other than Debian.
NO_PROGRAM = (0, 127)
# One line per index. The addresses are read from the host, never written here.
_INDEX = "$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)"
APT_SOURCES = Command(
    ["apt-get", "indextargets", "--format", _INDEX, "Created-By: Packages"], answers=NO_PROGRAM
)
APT_SETTINGS = Command(["apt-config", "dump", "Acquire"], answers=NO_PROGRAM)
MMDEBSTRAP_VERSION = Command(["mmdebstrap", "--version"], answers=NO_PROGRAM)
GPG_VERSION = Command(["gpg", "--version"], answers=NO_PROGRAM)
ENABLE_ENGINE = Command(["systemctl", "enable", "--now", "docker"])
ENGINE = Command(["dockerd"])
ENGINE_ON_DISK = Command(["dockerd", "--version"], may_fail=True)
# The slowest key derivation of OpenPGP: each guess of a passphrase takes 0.15 s on this machine.
GPG_ENCRYPT = [
    "--symmetric",
    "--armor",
    "--cipher-algo=AES256",
    "--s2k-digest-algo=SHA512",
    "--s2k-count=65011712",
]
GPG_DECRYPT = ["--decrypt"]
GPG_SECONDS = 30  # 0.5 s measured


@dataclass(frozen=True)
class Mirrors:
    """The host's sources of Debian packages: the archive and its security suite."""

    archive: str
    security: str


def mirrors(listing: str) -> Mirrors | None:
    """Return the mirrors in the output of APT_SOURCES; None if the host has no Debian source."""
    addresses: dict[str, str] = {}
    for line in listing.splitlines():
        if line.count("|") != 3:
            continue
        origin, label, _, address = line.split("|")
        if origin == "Debian":
            addresses.setdefault(
                "security" if label == "Debian-Security" else "archive", address.rstrip("/")
            )
    if "archive" not in addresses:
        return None
    return Mirrors(addresses["archive"], addresses.get("security", ""))


def install_packages(packages: list[str], *, may_fail: bool = False) -> Command:
    """Install packages from the host's own sources.

    apt fails instead of removing a package, because Debian's engine and Docker's own conflict.
    """
    options = ["--yes", "--quiet=2", "--no-install-recommends", "--no-remove"]
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    return Command(["apt-get", "install", *options, *packages], env=env, may_fail=may_fail)


def engine_source(archive: str) -> str:
    """Return an apt source of the Debian release that has Compose v2, for an older host."""
    return (
        f"Types: deb\nURIs: {archive}\nSuites: {RELEASE}\nComponents: main\nSigned-By: {KEYRING}\n"
    )


def engine_pin() -> str:
    """Return apt preferences that take only the engine from that release."""
    listed = itertools.chain.from_iterable(DEBIAN_ENGINE.values())
    packages = " ".join(package for package in listed if package.startswith("docker"))
    return (
        f"Package: *\nPin: release n={RELEASE}\nPin-Priority: -10\n\n"
        f"Package: {packages}\nPin: release n={RELEASE}\nPin-Priority: 990\n"
    )


def bootstrap(archive: str, release: str = RELEASE, **options: Unpack[Options]) -> Command:
    """Make a minimal Debian root file system as a tar file; its sources come on standard input."""
    excluded = ["doc", "info", "locale", "man"]
    paths = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in excluded]
    form = ["--quiet", "--variant=apt", "--format=tar", "--include=passwd"]
    return Command(["mmdebstrap", *form, *paths, release, archive, "-"], **options)


def bootstrap_sources(source: Mirrors, release: str = RELEASE) -> str:
    """Return the apt sources of the base images: stable, its updates and its security suite."""
    lines = [f"deb {source.archive} {release} main", f"deb {source.archive} {release}-updates main"]
    if source.security:
        lines.append(f"deb {source.security} {release}-security main")
    return "\n".join(lines) + "\n"


def gpg(home: str, *arguments: str, stdin: str) -> Command:
    """Run gpg unattended; the first line of standard input is the passphrase."""
    quiet = ["--batch", "--quiet", "--no-options", "--no-symkey-cache", "--pinentry-mode=loopback"]
    argv = ["gpg", f"--homedir={home}", *quiet, "--passphrase-fd=0", *arguments]
    return Command(argv, stdin=stdin, timeout_seconds=GPG_SECONDS, may_fail=True)


def git(root: Path, *arguments: str) -> Command:
    """Query git about the checkout, whoever owns it, with answers in English.

    The caller judges every exit code.

    Trusting any owner adds no risk: the scripts are files of the same checkout.
    """
    settings = ["-c", f"safe.directory={root.resolve()}", "-c", "core.fsmonitor=false"]
    words = ["git", "-C", str(root), *settings, *arguments]
    return Command(words, env={"LC_ALL": "C"}, may_fail=True)


def remove_tree(path: Path) -> Command:
    """Remove a file, or a folder with everything in it."""
    return Command(["rm", "-rf", str(path)])


def copy_tree(source: Path, target: Path) -> Command:
    """Copy a folder with the modes of its files."""
    return Command(["cp", "--recursive", "--preserve=mode", str(source), str(target)])


def open_tree(folder: Path) -> Command:
    """Let every user read a folder, enter its subfolders and run its programs."""
    return Command(["chmod", "-R", "go+rX", str(folder)])


def move(source: Path, target: Path) -> Command:
    """Rename a file or a folder; replace an existing one."""
    return Command(["mv", "--no-target-directory", str(source), str(target)])


def link(target: str, path: Path) -> Command:
    """Make a symbolic link; replace an existing one."""
    return Command(["ln", "--symbolic", "--force", "--no-dereference", target, str(path)])


def apt_settings(dump: str) -> str:
    """Return only the host's proxy and date settings of apt, for the builds."""
    keys = (
        "Acquire::http::Proxy",
        "Acquire::https::Proxy",
        "Acquire::Check-Valid-Until",
        "Acquire::Check-Date",
    )
    lines = [line for line in dump.splitlines() if line.startswith(keys)]
    return "".join(f"{line}\n" for line in [*lines, 'Acquire::https::CAInfo "/run/secrets/ca";'])
