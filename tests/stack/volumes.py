"""Puts Postgres on a small separate file system that a test can fill."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stack.harness import Stack

MEGABYTES = 900  # 256 of ballast, about 100 of Postgres, up to 256 of WAL: about 300 stay free
USERS = ("postgres", "backup")  # the services that mount the volume


@contextmanager
def small_volume(stack: Stack) -> Iterator[Path]:
    """Mount an ext4 of MEGABYTES with a copy of the files over Postgres' volume in the block."""
    inspect = (
        "docker",
        "volume",
        "inspect",
        "--format",
        "{{.Mountpoint}}",
        f"{stack.project}_postgres",
    )
    mountpoint = Path(stack.run(*inspect).stdout.strip())
    image, aside = stack.root / "state/postgres.img", stack.root / "state/postgres"
    stack.compose("stop", *USERS)
    (mountpoint / "ballast").unlink(missing_ok=True)
    owner = mountpoint.stat()
    stack.run("truncate", "--size", f"{MEGABYTES}M", str(image))
    stack.run("mkfs.ext4", "-q", "-m", "0", "-d", str(mountpoint), str(image))
    stack.run("mount", "-o", "loop", str(image), str(mountpoint))
    try:
        os.chown(
            mountpoint, owner.st_uid, owner.st_gid
        )  # mkfs copies the directory's content, but not its owner
        start(stack)
        yield mountpoint
    finally:
        stack.compose("stop", *USERS)
        # Keep the new state, because its WAL is archived: the old state would write segments
        # with the same names and other contents.
        aside.mkdir()
        stack.run("umount", str(mountpoint))
        stack.run("mount", "-o", "loop", str(image), str(aside))
        (aside / "ballast").unlink(missing_ok=True)
        stack.run("find", str(mountpoint), "-mindepth", "1", "-delete")
        stack.run("cp", "--archive", f"{aside}/.", str(mountpoint))
        stack.run("umount", str(aside))
        aside.rmdir()
        image.unlink()
        start(stack)


def start(stack: Stack) -> None:
    """Start the stopped services, and wait until they are healthy."""
    stack.compose("up", "--detach", "--no-deps", "--wait", "--wait-timeout", "90", *USERS)
