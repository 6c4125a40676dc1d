"""Argument lists and file contents for the host: its packages and its engine; builds them and runs nothing."""

from dataclasses import dataclass

RELEASE = (
    "trixie"  # the Debian release that the base images and, on Debian 12, the engine come from
)
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ENGINE_SOURCE = "/etc/apt/sources.list.d/slipway-engine.sources"
ENGINE_PIN = "/etc/apt/preferences.d/slipway-engine"
DEBIAN_ENGINE = [
    "docker.io",
    "docker-cli",
    "docker-compose",
    "docker-buildx",
    "iptables",
    "ca-certificates",
    "curl",
]
UBUNTU_ENGINE = ["docker.io", "docker-compose-v2", "docker-buildx", "ca-certificates", "curl"]
APT_UPDATE = ["apt-get", "update", "--quiet=2"]
# One line per index. The addresses are read from the host, never written here.
APT_SOURCES = [
    "apt-get",
    "indextargets",
    "--format",
    "$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)",
    "Created-By: Packages",
]
APT_SETTINGS = ["apt-config", "dump", "Acquire"]
# The slowest derivation of a key that OpenPGP knows, 0.15 s here for each passphrase that somebody tries.
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
    """Where the host takes Debian's packages from: the archive and its security suite."""

    archive: str
    security: str


def mirrors(listing: str) -> Mirrors | None:
    """Return the mirrors named in the output of APT_SOURCES, or None where the host has no Debian source."""
    found: dict[str, str] = {}
    for line in listing.splitlines():
        if line.count("|") != 3:
            continue
        origin, label, _, address = line.split("|")
        if origin == "Debian":
            found.setdefault(
                "security" if label == "Debian-Security" else "archive", address.rstrip("/")
            )
    if "archive" not in found:
        return None
    return Mirrors(found["archive"], found.get("security", ""))


def install_argv(packages: list[str]) -> list[str]:
    """Install packages from the host's own sources."""
    return ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", *packages]


def engine_source(archive: str) -> str:
    """Return an apt source for the release that has Compose v2, for a host that is older."""
    return (
        f"Types: deb\nURIs: {archive}\nSuites: {RELEASE}\nComponents: main\nSigned-By: {KEYRING}\n"
    )


def engine_pin() -> str:
    """Return the apt preferences that take the engine, and nothing else, from that release."""
    packages = " ".join(package for package in DEBIAN_ENGINE if package.startswith("docker"))
    return (
        f"Package: *\nPin: release n={RELEASE}\nPin-Priority: -10\n\n"
        f"Package: {packages}\nPin: release n={RELEASE}\nPin-Priority: 990\n"
    )


def bootstrap_argv(archive: str, release: str = RELEASE) -> list[str]:
    """Make a minimal Debian root file system as a tar file; its sources come on standard input."""
    excluded = ["doc", "info", "locale", "man"]
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in excluded]
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=apt",
        "--format=tar",
        "--include=passwd",
        *options,
        release,
        archive,
        "-",
    ]


def bootstrap_sources(source: Mirrors, release: str = RELEASE) -> str:
    """Return the apt sources of the base images: stable, its updates and its security suite."""
    lines = [f"deb {source.archive} {release} main", f"deb {source.archive} {release}-updates main"]
    if source.security:
        lines.append(f"deb {source.security} {release}-security main")
    return "\n".join(lines) + "\n"


def gpg_argv(home: str, *arguments: str) -> list[str]:
    """Run gpg unattended; it takes the passphrase from the first line of standard input."""
    quiet = ["--batch", "--quiet", "--no-options", "--no-symkey-cache", "--pinentry-mode=loopback"]
    return ["gpg", f"--homedir={home}", *quiet, "--passphrase-fd=0", *arguments]


def apt_settings(dump: str) -> str:
    """Return the host's proxy and date settings of apt, for the builds; nothing else of its configuration."""
    wanted = (
        "Acquire::http::Proxy",
        "Acquire::https::Proxy",
        "Acquire::Check-Valid-Until",
        "Acquire::Check-Date",
    )
    kept = [line for line in dump.splitlines() if line.startswith(wanted)]
    return "".join(f"{line}\n" for line in [*kept, 'Acquire::https::CAInfo "/run/secrets/ca";'])
