"""Argument lists for the engine; builds them and runs nothing."""

from pathlib import Path

ENGINE_VERSION = ["docker", "version", "--format", "{{.Server.Version}}"]
COMPOSE_VERSION = ["docker", "compose", "version", "--short"]
ROOT_DIRECTORY = ["docker", "info", "--format", "{{.DockerRootDir}}"]


def inspect_argv(image: str, form: str = "{{.Id}}") -> list[str]:
    """Ask for one fact about an image; fails where there is no such image."""
    return ["docker", "image", "inspect", "--format", form, image]


def label_argv(image: str, label: str) -> list[str]:
    """Ask for a label of an image."""
    return inspect_argv(image, f'{{{{index .Config.Labels "{label}"}}}}')


def pull_argv(image: str) -> list[str]:
    """Pull an image from its registry."""
    return ["docker", "pull", "--quiet", image]


def tag_argv(image: str, tag: str) -> list[str]:
    """Give an image a second name; placing a release into a slot is this."""
    return ["docker", "tag", image, tag]


def import_argv(archive: Path, image: str) -> list[str]:
    """Make an image of one root file system."""
    return ["docker", "import", str(archive), image]


def build_argv(
    context: Path,
    tags: list[str],
    arguments: dict[str, str],
    secrets: dict[str, Path],
    *,
    target: str = "",
    pass_on: tuple[str, ...] = (),
    is_fresh: bool = False,
) -> list[str]:
    """Build an image; `pass_on` names variables of this process that become arguments, `is_fresh` uses no cache."""
    argv = ["docker", "build", "--progress", "plain"]
    for tag in tags:
        argv += ["--tag", tag]
    for key, value in arguments.items():
        argv += ["--build-arg", f"{key}={value}"]
    for name in pass_on:
        argv += ["--build-arg", name]
    for identifier, path in secrets.items():
        argv += ["--secret", f"id={identifier},src={path}"]
    if is_fresh:
        argv.append("--no-cache")
    if target:
        argv += ["--target", target]
    return [*argv, str(context)]


def throwaway_argv(
    image: str, command: list[str], *, mounts: list[str], user: str, environment: dict[str, str]
) -> list[str]:
    """Run one command in a container that is removed afterwards and has no network."""
    argv = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "--user",
        user,
        "--entrypoint",
        command[0],
    ]
    for mount in mounts:
        argv += ["--volume", mount]
    for key, value in environment.items():
        argv += ["--env", f"{key}={value}"]
    return [*argv, image, *command[1:]]


def compose_argv(*arguments: str) -> list[str]:
    """Run Compose on the checkout: its `.env` names the project and the files, as for a person who types this."""
    return ["docker", "compose", *arguments]


def migrate_argv(*, is_pre_only: bool = False) -> list[str]:
    """Run the one-shot migrate service: everything, or what stands before the first pending `post`."""
    pre = ["python", "-m", "api.migrate", "--phase", "pre"] if is_pre_only else []
    return compose_argv("run", "--rm", "--no-deps", "--no-TTY", "migrate", *pre)


def psql_argv(statement: str, database: str = "slipway") -> list[str]:
    """Ask Postgres as its superuser, inside its container; columns are separated by |."""
    # connect_timeout, in seconds: a server that hangs must not hold up who looks for the reason.
    target = f"dbname={database} application_name=slipway.scripts.none connect_timeout=5"
    psql = [
        "psql",
        "--no-psqlrc",
        "--tuples-only",
        "--no-align",
        "--username=postgres",
        f"--dbname={target}",
    ]
    return compose_argv(
        "exec", "--no-TTY", "postgres", *psql, "--host=/tmp", "--command", statement
    )


def slot_services(slot: str) -> list[str]:
    """Return the services of a slot."""
    return [f"api-{slot}", f"worker-{slot}"]
