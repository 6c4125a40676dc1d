"""The off-host store: a server in its own container, independent of the stack."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from stack.commands import host
from stack.parts.images import build_secrets
from stack.runner import RealRunner


class Place:
    """A server at the address of the engine's bridge, which containers of every network reach.

    `RECIPE` builds its image from a Debian base image of the stack; `START` is the script that the
    container runs.
    """

    RECIPE, START, PORT = "", "", 0

    def __init__(self, project: str, base: str) -> None:
        self.name = f"{project}-offsite"
        with build_secrets(
            apt_conf=host.apt_settings(RealRunner().read(host.APT_SETTINGS).out)
        ) as secrets:
            mounted = [f"--secret=id={name},src={secrets[name]}" for name in ("ca", "apt.conf")]
            self._docker(
                "build",
                "--quiet",
                "--tag",
                f"{self.name}:test",
                *mounted,
                "-",
                stdin=self.RECIPE % base,
            )
        gateway = "{{(index .IPAM.Config 0).Gateway}}"
        self.address = self._docker("network", "inspect", "bridge", "--format", gateway)

    def _docker(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["docker", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()

    def variables(self) -> dict[str, str]:
        """Return the environment variables of the server."""
        return {}

    @contextmanager
    def running(self, *options: str) -> Iterator[None]:
        """Run the server with options of `docker run` during the block; then remove its files."""
        given = [
            word
            for name, value in self.variables().items()
            for word in ("--env", f"{name}={value}")
        ]
        published = ["--publish", f"{self.address}::{self.PORT}"]
        self._docker(
            "run",
            "--detach",
            "--name",
            self.name,
            *published,
            *given,
            *options,
            f"{self.name}:test",
            self.START,
        )
        try:
            yield
        finally:
            self._docker("rm", "--force", "--volumes", self.name)
            self._docker("rmi", "--force", f"{self.name}:test")

    def port(self) -> str:
        """Return the port of the server on this machine."""
        return (
            self._docker("port", self.name, f"{self.PORT}/tcp").splitlines()[0].rpartition(":")[2]
        )

    def pause(self) -> None:
        """Stop answering, but keep the connections open."""
        self._docker("pause", self.name)

    def resume(self) -> None:
        """Start answering again."""
        self._docker("unpause", self.name)

    def sh(self, script: str) -> str:
        """Run a script on the server, as root."""
        return self._docker("exec", self.name, "sh", "-ec", script)
