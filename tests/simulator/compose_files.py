"""The facts of the real compose.yaml: each service's image, keys of `.env`, files and profile."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml
from stack.config import environment

from tests.simulator.files import content_of

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::[-?]([^}]*))?\}")


@dataclass(frozen=True)
class ServiceFile:
    """One service of compose.yaml.

    Attributes:
        image: the name of its image, with its variables.
        keys: the keys of `.env` that are part of its configuration, with their defaults there.
        settings: the file with the settings of its slot, with its variables; empty without one.
        secrets: the secret files that it mounts.
        volumes: the names of its volumes.
        mounts_checkout: whether it mounts folders of the checkout besides secrets.
        profiles: a plain `docker compose up` starts only services without one.
    """

    image: str
    keys: Mapping[str, str]
    settings: str
    secrets: tuple[str, ...]
    volumes: tuple[str, ...]
    mounts_checkout: bool
    profiles: tuple[str, ...]


@cache
def services() -> Mapping[str, ServiceFile]:
    """Return the services of the production stack."""
    read = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return {name: _service(service) for name, service in read.items()}


def _service(service: dict[str, Any]) -> ServiceFile:
    mounts = [str(mount).partition(":")[0] for mount in service.get("volumes", [])]
    files = [str(file["path"]) for file in service.get("env_file", [])]
    return ServiceFile(
        image=str(service["image"]),
        keys=dict(VARIABLE.findall(str(service))),
        settings=files[0] if files else "",
        secrets=tuple(service.get("secrets", [])),
        volumes=tuple(mount for mount in mounts if re.fullmatch(r"[a-z-]+", mount)),
        mounts_checkout=any(mount.startswith(("./", "${SECRETS_DIR")) for mount in mounts),
        profiles=tuple(service.get("profiles", [])),
    )


@lru_cache(maxsize=1024)
def parse(content: bytes) -> Mapping[str, str]:
    """Return the values of an `.env`; one content is parsed once."""
    return {line.key: line.value for line in environment.parse(content.decode("utf-8"))}


def read(path: str) -> Mapping[str, str]:
    """Return the values of a file, which is empty where it is missing."""
    content = content_of(path)
    return {} if content is None else parse(content)


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace the variables of a text as Compose does."""
    return VARIABLE.sub(lambda match: values.get(match[1]) or match[2] or "", text)


def configuration(service: str, values: Mapping[str, str], root: Path) -> dict[str, str]:
    """Return the values that Compose compares to decide whether a container must be replaced."""
    file = services()[service]
    given = {key: values.get(key) or default for key, default in file.keys.items()}
    if file.mounts_checkout:
        given["checkout"] = str(root)
        given["certificate"] = f"{secrets_folder(values, root)}/tls/fullchain.pem"
    return given


def environment_of(service: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the file of a service's slot."""
    file = services()[service].settings
    return dict(read(expand(file, values))) if file else {}


def secrets_folder(values: Mapping[str, str], root: Path) -> Path:
    """Return the folder of the secret files."""
    return below(root, values.get("SECRETS_DIR") or "secrets")


@lru_cache(maxsize=1024)
def below(folder: Path, name: str) -> Path:
    """Return a path below a folder; it is asked for again and again."""
    return folder / name
