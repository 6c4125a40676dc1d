"""Builds commands for the engine and for Compose; runs nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from stack.commands.command import Command, Options

# 1: no engine answers. 125: the client lacks the plugin. 127: there is no client.
NO_ENGINE = (0, 1, 125, 127)
ENGINE_VERSION = Command(
    ["docker", "version", "--format", "{{.Server.Version}}"], answers=NO_ENGINE
)
COMPOSE_VERSION = Command(["docker", "compose", "version", "--short"], answers=NO_ENGINE)
BUILDX_VERSION = Command(["docker", "buildx", "version"], answers=NO_ENGINE)
ROOT_DIRECTORY = Command(["docker", "info", "--format", "{{.DockerRootDir}}"])
RELEASE_LABEL = "org.opencontainers.image.version"
# The hash of a release's inputs (parts/images.py).
INPUTS_LABEL = "slipway.inputs"
# The repository of the project that built the image; each project on a host has its own.
REPOSITORY_LABEL = "slipway.repository"
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
ONE_OFF_LABEL = "com.docker.compose.oneoff"  # True on a container of `docker compose run`
CHECKOUT_LABEL = "com.docker.compose.project.working_dir"
# The first words of the client's error if the engine itself refuses a command.
DAEMON_ERROR = "Error response from daemon: "
EXEC = ("docker", "compose", "exec", "--no-TTY")
# The caller judges every exit code (parts/inventory.py).
LIST_VOLUMES = Command(["docker", "volume", "ls", "--quiet"], may_fail=True)


LIST_NETWORKS = Command(["docker", "network", "ls", "--format", "{{.Name}}"], may_fail=True)
ADDRESS_POOLS = Command(
    ["docker", "info", "--format", "{{json .DefaultAddressPools}}"], may_fail=True
)
# The name and the project of every container, even of those that Compose did not create.
LIST_NAMES = Command(
    [
        *("docker", "container", "list", "--all", "--format"),
        f'{{{{.Names}}}}\t{{{{.Label "{PROJECT_LABEL}"}}}}',
    ],
    may_fail=True,
)


def inspect_networks(names: list[str]) -> Command:
    """List the subnets of networks; the caller judges every exit code."""
    form = "{{range .IPAM.Config}}{{println .Subnet}}{{end}}"
    return Command(["docker", "network", "inspect", "--format", form, *names], may_fail=True)


def inspect_image(image: str, form: str = "{{.Id}}") -> Command:
    """Read a fact about an image; exits with 1 if the image does not exist, or without engine."""
    return Command(["docker", "image", "inspect", "--format", form, image], answers=(0, 1))


def image_label(image: str, label: str) -> Command:
    """Read a label of an image."""
    return inspect_image(image, f'{{{{index .Config.Labels "{label}"}}}}')


def image_tags(repository: str) -> Command:
    """List the tags of a repository's images, the newest first."""
    return Command(["docker", "images", "--format", "{{.Tag}}", repository])


def pull_image(image: str, **options: Unpack[Options]) -> Command:
    """Pull an image from its registry."""
    return Command(["docker", "pull", "--quiet", image], **options)


def tag_image(image: str, tag: str) -> Command:
    """Give an image a second name; this places a release in a slot."""
    return Command(["docker", "tag", image, tag])


def import_image(archive: Path, image: str) -> Command:
    """Make an image from a root file system."""
    return Command(["docker", "import", str(archive), image])


def remove_image(image: str) -> Command:
    """Remove a name of an image. The engine refuses while a stopped container uses the image."""
    return Command(["docker", "rmi", image], may_fail=True)


def prune_images(label: str) -> Command:
    """Remove the untagged images that have a label."""
    argv = ["docker", "image", "prune", "--force", "--filter", f"label={label}"]
    return Command(argv, may_fail=True)


def build_image(
    context: Path,
    tags: list[str],
    arguments: dict[str, str],
    secrets: dict[str, Path],
    *,
    labels: dict[str, str] | None = None,
    target: str = "",
    pass_on: tuple[str, ...] = (),
    is_fresh: bool = False,
    timeout_seconds: float | None = None,
) -> Command:
    """Build an image.

    `pass_on` names variables of this process that become arguments; `is_fresh` uses no cache.
    """
    argv = ["docker", "build", "--progress", "plain"]
    for tag in tags:
        argv += ["--tag", tag]
    for key, value in arguments.items():
        argv += ["--build-arg", f"{key}={value}"]
    for key, value in (labels or {}).items():
        argv += ["--label", f"{key}={value}"]
    for name in pass_on:
        argv += ["--build-arg", name]
    for identifier, path in secrets.items():
        argv += ["--secret", f"id={identifier},src={path}"]
    if is_fresh:
        argv.append("--no-cache")
    if target:
        argv += ["--target", target]
    return Command([*argv, str(context)], timeout_seconds=timeout_seconds)


def throwaway(
    image: str,
    command: list[str],
    *,
    mounts: list[str],
    user: str,
    environment: dict[str, str],
    **options: Unpack[Options],
) -> Command:
    """Run a command in a container without a network; remove the container afterwards."""
    argv = ["docker", "run", "--rm", "--network", "none", "--user", user]
    argv += ["--entrypoint", command[0]]
    for mount in mounts:
        argv += ["--volume", mount]
    for key, value in environment.items():
        argv += ["--env", f"{key}={value}"]
    return Command([*argv, image, *command[1:]], **options)


def list_containers(filters: list[str]) -> Command:
    """List the ids of the containers, running or not, that match all filters of `docker ps`."""
    words = [word for text in filters for word in ("--filter", text)]
    return Command(["docker", "ps", "--all", "--quiet", *words])


def list_compose_containers() -> Command:
    """List every container that Compose made: name, state, project, service and checkout.

    Tabs separate the fields. The caller judges every exit code.
    """
    labels = [
        f'{{{{.Label "{label}"}}}}' for label in (PROJECT_LABEL, SERVICE_LABEL, CHECKOUT_LABEL)
    ]
    form = "\t".join(["{{.Names}}", "{{.State}}", *labels])
    argv = ["docker", "container", "ls", "--all", "--no-trunc", "--filter"]
    return Command([*argv, f"label={PROJECT_LABEL}", "--format", form], may_fail=True)


def inspect_container(container: str, form: str) -> Command:
    """Read a fact about a container; the caller judges every exit code."""
    return Command(["docker", "inspect", "--format", form, container], may_fail=True)


def exec_in_container(container: str, *words: str) -> Command:
    """Run a command in a container outside of the Compose project; the caller judges the code."""
    return Command(["docker", "exec", container, *words], may_fail=True)


def stop_container(container: str, seconds: int) -> Command:
    """Stop a container, and kill it after `seconds`."""
    return Command(["docker", "stop", "--time", str(seconds), container])


def remove_containers(containers: list[str]) -> Command:
    """Kill and remove containers. The engine refuses if a removal is already in progress."""
    return Command(["docker", "rm", "--force", *containers], may_fail=True)


def inspect_volume(volume: str) -> Command:
    """Inspect a volume; exits with 1 if the volume does not exist, or without engine."""
    return Command(["docker", "volume", "inspect", volume], answers=(0, 1))


def is_unreachable(error: str) -> bool:
    """Whether the client reports that it reached no engine: exit code 1 is then no result."""
    return "connect to the docker" in error.lower()


def remove_volume(volume: str) -> Command:
    """Remove a volume with its files."""
    return Command(["docker", "volume", "rm", volume])


def compose(*arguments: str, **options: Unpack[Options]) -> Command:
    """Run Compose on the checkout: its `.env` names the project and the files.

    A person who types this command gets the same.
    """
    return Command(["docker", "compose", *arguments], **options)


def exec_in(service: str, *words: str, **options: Unpack[Options]) -> Command:
    """Run a command in the running container of a service."""
    return Command([*EXEC, service, *words], **options)


def direct_exec(argv: Sequence[str], project: str) -> list[str]:
    """Return `docker exec` for a `docker compose exec` in a project; [] for any other command.

    Compose reads all its files first: twice the time and four times the CPU time of the command.
    """
    service, *words = argv[len(EXEC) :] or [""]
    is_option = service.startswith("-")  # an option of `docker compose exec`
    if tuple(argv[: len(EXEC)]) != EXEC or not project or is_option:
        return []
    return ["docker", "exec", "--interactive", f"{project}-{service}-1", *words]


def one_shot(*words: str, **options: Unpack[Options]) -> Command:
    """Run one command in a new container: the words are options, the service and the command."""
    return compose("run", "--rm", "--no-deps", "--no-TTY", *words, **options)


def migrate(tag: str, *, is_pre_only: bool = False, may_fail: bool = False) -> Command:
    """Run all migrations of the release with this tag, or only those before the first `post`."""
    pre = ["python", "-m", "api.migrate", "--phase", "pre"] if is_pre_only else []
    env = {"MIGRATE_TAG": tag, "MIGRATE_CONFIRM": "yes"}
    return one_shot("migrate", *pre, env=env, may_fail=may_fail)


def psql(statement: str, database: str = "slipway", *, may_fail: bool = False) -> Command:
    """Query Postgres as its superuser, inside its container; | separates the columns."""
    # connect_timeout, in seconds: a server that hangs must not delay a person who looks for the
    # reason.
    target = f"dbname={database} application_name=slipway.scripts.none connect_timeout=5"
    options = ["--no-psqlrc", "--tuples-only", "--no-align", "--username=postgres"]
    words = ["psql", *options, f"--dbname={target}", "--host=/tmp", "--command", statement]
    return exec_in("postgres", *words, may_fail=may_fail)


def slot_services(slot: str) -> list[str]:
    """Return the services of a slot."""
    return [f"api-{slot}", f"worker-{slot}"]
