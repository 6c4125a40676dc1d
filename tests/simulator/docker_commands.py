"""The engine's own commands: images, tags, builds, throw-away containers, volumes."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from stack.commands.command import Command
from stack.config import forms
from stack.parts.containers import PORTS
from stack.runner import Result

from tests.simulator.compose_commands import ports_of
from tests.simulator.containers import GOOD, POSTGRES_VERSION, Container, Engine
from tests.simulator.files import trait_of

LABEL = re.compile(r'index \.Config\.Labels "([^"]+)"')
VERSION = "org.opencontainers.image.version"
# The build argument from which Dockerfile sets each label.
LABELS = {
    VERSION: "RELEASE",
    "slipway.migration_head": "MIGRATION_HEAD",
    "slipway.migrations": "MIGRATIONS",
}
GROUPS = {"image", "volume", "container", "network"}
MOUNTED = re.compile(r"/run/secrets/(\w+)")
BUILD_SECONDS, PULL_SECONDS = 20.0, 5.0
NO_IMAGE = "Error response from daemon: No such image: "


class DockerCommands:
    """Answers `docker ...` on one engine, for a checkout whose sources a build reads."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.engine = engine
        self.root = root

    def answer(self, command: Command) -> Result:
        """Run a command of the engine."""
        argv = list(command.argv[1:])
        words = "_".join(argv[:2]) if argv[0] in GROUPS else argv[0]
        method = getattr(self, f"_{words.replace('-', '_')}", None)
        assert method is not None, f"the simulated engine does not know `{command}`"
        result: Result = method(argv)
        return result

    def _version(self, _: list[str]) -> Result:
        return Result(0, "26.1.5\n")

    def _buildx(self, _: list[str]) -> Result:
        return Result(0, "0.13.1\n")

    def _info(self, argv: list[str]) -> Result:
        return Result(0, "null\n" if "AddressPools" in argv[-1] else "/\n")

    def _network_ls(self, _: list[str]) -> Result:
        return Result(0, "bridge\n")

    def _network_inspect(self, _: list[str]) -> Result:
        return Result(0, "172.17.0.0/16\n")

    def _find(self, name: str) -> Container | None:
        containers = self.engine.containers.values()
        return next((c for c in containers if name in {c.identifier, c.name}), None)

    def _inspect(self, argv: list[str]) -> Result:
        container = self._find(argv[-1])
        if container is None:
            return Result(1, err=f"Error: No such object: {argv[-1]}")
        environment = container.environment or container.configuration
        pairs = [f"{key}={value}" for key, value in environment.items()]
        if argv[2] == "{{json .Config.Env}}":
            return Result(0, json.dumps(pairs) + "\n")
        if "HostConfig.Memory" in argv[2]:
            limits = limits_of(container)
            return Result(0, f"{limits['Memory']} {limits['NanoCpus']}\n")
        if "Labels" in argv[2]:
            return Result(0, "False\n")
        if argv[2] == "{{json .}}":
            facts = {"Image": container.image, "Config": {"Env": pairs}}
            return Result(0, json.dumps({**facts, "HostConfig": limits_of(container)}) + "\n")
        return Result(0, json.dumps({"Status": container.state}) + "\n")

    def _exec(self, argv: list[str]) -> Result:
        """Run a program in a container that is named, outside of Compose's project or in it."""
        if argv[1] in self.engine.one_shots:
            return Result(0)
        container, text = self._find(argv[1]), argv[-1]
        secret = MOUNTED.search(text)
        if container is None or container.state != "running" or not secret:
            return Result(1, err=f"Error response from daemon: No such container: {argv[1]}")
        content = container.secrets.get(secret[1], "")
        digest = hashlib.sha256(content.encode()).hexdigest()
        return Result(0, f"{digest}  -\n") if content else Result(1)

    def _container_ls(self, _: list[str]) -> Result:
        rows = [
            (c.name, c.state, c.project, c.service, c.checkout)
            for c in self.engine.containers.values()
        ]
        return Result(0, "".join("\t".join(row) + "\n" for row in rows))

    def _container_list(self, _: list[str]) -> Result:
        rows = [(c.name, c.project) for c in self.engine.containers.values()]
        return Result(0, "".join("\t".join(row) + "\n" for row in rows))

    def _ps(self, argv: list[str]) -> Result:
        """List one-shot containers; the one-shot containers of Compose end with their command."""
        text = " ".join(argv)
        return Result(0, "".join(f"{name}\n" for name in self.engine.one_shots if name in text))

    def _stop(self, argv: list[str]) -> Result:
        self.engine.spend()
        self.engine.one_shots.discard(argv[-1])
        return Result(0)

    def _rm(self, argv: list[str]) -> Result:
        self.engine.spend()
        self.engine.one_shots -= set(argv)
        return Result(0)

    def _image_inspect(self, argv: list[str]) -> Result:
        form, name = argv[3], argv[4]
        image = self.engine.image_of(name)
        if image is None:
            return Result(1, err=NO_IMAGE + name)
        if form == "{{index .RepoDigests 0}}":
            return Result(0, f"{name.partition('@')[0]}@{image.identifier}\n")
        label = LABEL.search(form)
        return Result(0, (image.labels.get(label[1], "") if label else image.identifier) + "\n")

    def _images(self, argv: list[str]) -> Result:
        names = {
            name.rpartition(":")[2]: identifier
            for name, identifier in self.engine.tags.items()
            if name.rpartition(":")[0] == argv[-1]
        }
        made = self.engine.images
        tags = sorted(names, key=lambda tag: (-made[names[tag]].made, tag))
        return Result(0, "".join(f"{tag}\n" for tag in tags))

    def _image_prune(self, _: list[str]) -> Result:
        self.engine.spend()
        named = set(self.engine.tags.values())
        for identifier, image in list(self.engine.images.items()):
            is_own = "slipway.repository" in image.labels
            if is_own and identifier not in named and not self.engine.is_used(identifier):
                del self.engine.images[identifier]
        return Result(0)

    def _pull(self, argv: list[str]) -> Result:
        name = argv[-1].partition("@")[0]
        self.engine.clock.advance(PULL_SECONDS)
        if not self.engine.has_registry or name.startswith("slipway/"):
            return Result(1, err="Error response from daemon: no route to the registry")
        self.engine.spend()
        if argv[-1] not in self.engine.tags:
            self.engine.add_image(name, {}, version=version_in(name))
            self.engine.tags[f"{name}@{self.engine.tags[name]}"] = self.engine.tags[name]
        return Result(0, argv[-1] + "\n")

    def _tag(self, argv: list[str]) -> Result:
        identifier = self.engine.tags.get(argv[1], argv[1])
        if identifier not in self.engine.images:
            return Result(1, err=NO_IMAGE + argv[1])
        self.engine.spend()
        self.engine.tags[argv[2]] = identifier
        return Result(0)

    def _rmi(self, argv: list[str]) -> Result:
        identifier = self.engine.tags.get(argv[1])
        if identifier is None:
            return Result(1, err=NO_IMAGE + argv[1])
        names = [name for name, other in self.engine.tags.items() if other == identifier]
        if len(names) == 1 and self.engine.is_used(identifier):
            return Result(1, err="conflict: unable to remove repository reference")
        self.engine.spend()
        del self.engine.tags[argv[1]]
        if len(names) == 1:
            del self.engine.images[identifier]
        return Result(0)

    def _build(self, argv: list[str]) -> Result:
        tag, context = argv[argv.index("--tag") + 1], argv[-1]
        given = dict(
            argv[place + 1].split("=", 1)
            for place, word in enumerate(argv)
            if word == "--build-arg" and "=" in argv[place + 1]
        )
        bases = [value for key, value in given.items() if key.endswith("_IMAGE")]
        for base in bases:
            if base not in self.engine.tags:
                return Result(1, err=f"ERROR: failed to resolve {base}")
        is_release = "RELEASE" in given
        labels = {label: given.get(key, "") for label, key in LABELS.items()} if is_release else {}
        labels |= dict(
            argv[place + 1].split("=", 1) for place, word in enumerate(argv) if word == "--label"
        )
        self.engine.clock.advance(BUILD_SECONDS if is_release else 1.0)
        trait = trait_of(Path(context)) if is_release else GOOD
        if not is_release:
            labels |= {f"base-{base}": self.engine.tags[base] for base in bases}
        present = self.engine.image_of(tag)
        if present is None or present.labels != labels:
            self.engine.spend()
            made_from = self.engine.image_of(bases[0])
            self.engine.add_image(tag, labels, trait, made_from.version if made_from else 0)
        return Result(0)

    def _run(self, argv: list[str]) -> Result:
        """Run a throw-away container."""
        mounts = [argv[place + 1] for place, word in enumerate(argv) if word == "--volume"]
        entry = argv[argv.index("--entrypoint") + 1]
        text = " ".join(argv)
        if not any(word in self.engine.tags for word in argv):
            return Result(125, err="Unable to find image locally")
        if entry.endswith("entrypoint.sh"):
            return self._test_nginx(mounts)
        folder = Path(mounts[0].partition(":")[0]) if mounts else Path()
        if "-checkhost" in text:
            return self._check_certificate(folder, argv)
        if "openssl req" in text:
            return self._make_certificate(folder, text)
        return Result(0, self._print(entry, argv, str(folder)))

    def _print(self, entry: str, argv: list[str], volume: str) -> str:
        """Return the output of a throw-away container that only reads."""
        if entry == "postgres":
            image = next(filter(None, (self.engine.image_of(word) for word in argv)))
            return f"postgres (PostgreSQL) {image.version}.6\n"
        if "readlink" in " ".join(argv):
            return f"{self.engine.volumes[volume].link or 'none'}.sock\n"
        if "id -u" in " ".join(argv):
            return "100\n"  # the owner of all volumes
        assert "df --block-size" in " ".join(argv), f"the simulated engine does not know {argv}"
        return DISK

    def _test_nginx(self, mounts: list[str]) -> Result:
        folder, tls = (Path(mount.partition(":")[0]) for mount in mounts)
        if not (tls / "fullchain.pem").exists() or not (tls / "privkey.pem").exists():
            return Result(1, err="nginx: [emerg] cannot load certificate")
        if any("broken" in file.read_text("utf-8") for file in folder.rglob("*.conf")):
            return Result(1, err="nginx: [emerg] unknown directive")
        return Result(0)

    def _check_certificate(self, folder: Path, argv: list[str]) -> Result:
        host = argv[argv.index("-checkhost") + 1]
        file = folder / "fullchain.pem"
        if not file.is_file():
            return Result(1, err="Could not open file")
        is_match = file.read_text(encoding="utf-8").strip() == host
        return Result(0, f"Hostname {host} does {'' if is_match else 'NOT '}match certificate\n")

    def _make_certificate(self, folder: Path, text: str) -> Result:
        host = text.partition("HOST=")[2].split()[0]
        for name in ("privkey.pem", "fullchain.pem"):
            self.engine.spend()
            (folder / name).write_text(f"{host}\n", encoding="utf-8")
        return Result(0)

    def _volume_ls(self, _: list[str]) -> Result:
        return Result(0, "".join(f"{name}\n" for name in self.engine.volumes))

    def _volume_inspect(self, argv: list[str]) -> Result:
        return Result(0 if argv[-1] in self.engine.volumes else 1, err="no such volume")

    def _volume_rm(self, argv: list[str]) -> Result:
        self.engine.spend()
        shown = self.engine.volumes.pop(argv[-1], None)
        return Result(0 if shown else 1)


def limits_of(container: Container) -> dict[str, object]:
    """Return the limits and the ports of a container."""
    values, kind = container.configuration, container.service.partition("-")[0].upper()
    memory, cpus = values.get(f"{kind}_MEMORY"), values.get(f"{kind}_CPUS")
    listed = {
        inside: [{"HostIp": values.get(f"{protocol}_BIND"), "HostPort": port}]
        for (protocol, inside), port in zip(PORTS.items(), ports_of(container), strict=False)
    }
    return {
        "Memory": forms.memory(memory) if memory else 0,
        "NanoCpus": int(forms.cpus(cpus) * 1e9) if cpus else 0,
        "PortBindings": listed,
    }


def version_in(name: str) -> int:
    """Return the major version of Postgres in the name of a base image."""
    number = re.search(r"postgres:(\d+)", name)
    return int(number[1]) if number else POSTGRES_VERSION


DISK = "40000000000 100000000000\n268435456\t/var/lib/postgresql/data/ballast\n"


def copy_files(argv: Sequence[str]) -> Result:
    """Imitate chmod, cp, ln, mv and rm on the files of a story, without a process."""
    source, target = Path(argv[-2]), Path(argv[-1])
    match argv[0]:
        case "chmod":
            for path in [target, *target.rglob("*")]:
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
        case "cp":
            shutil.copytree(source, target)
        case "mv":
            source.replace(target)
        case "ln":
            new = target.with_name(f".{target.name}.link")
            new.symlink_to(argv[-2])
            new.replace(target)
        case "rm" if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        case "rm":
            target.unlink(missing_ok=True)
    return Result(0)
