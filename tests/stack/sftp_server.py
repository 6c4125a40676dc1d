"""A real SFTP server in a container of its own, as the place off the host; it knows nothing of the stack."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack.commands import host
from stack.runner import RealRunner
from stack.stories.images import build_secrets

NAME = "{project}-offsite"
USER, FOLDER = "backups", "/srv/backups"
# From a base image of the stack: Debian, whichever way it came. An ECDSA key alone, so that there is one fingerprint.
RECIPE = f"""
FROM %s
USER root
RUN --mount=type=secret,id=apt.conf,target=/etc/apt/apt.conf.d/99host \\
    --mount=type=secret,id=ca,target=/run/secrets/ca \\
    apt-get update && apt-get install -y --no-install-recommends openssh-server openssh-sftp-server \\
 && useradd --create-home --shell /bin/sh --password '*' {USER} \\
 && install -d -o {USER} -m 0700 {FOLDER} /home/{USER}/.ssh && install -d /run/sshd \\
 && rm -f /etc/ssh/ssh_host_*
ENTRYPOINT ["/bin/sh", "-ec"]
"""
# What the server is told: keys come with the start, and a login gets files alone.
START = f"""
printf '%s\\n' "$HOST_KEY" >/etc/ssh/host_key && chmod 0600 /etc/ssh/host_key
printf '%s\\n' "$CLIENT" >/home/{USER}/.ssh/authorized_keys && chown -R {USER} /home/{USER}/.ssh {FOLDER}
exec /usr/sbin/sshd -D -e -o HostKey=/etc/ssh/host_key -o PasswordAuthentication=no -o ForceCommand=internal-sftp \\
  -o MaxStartups=100
"""


class SftpServer:
    """A server that containers of every network reach, at the address of the engine's own bridge on this machine."""

    def __init__(self, folder: Path, project: str, base: str) -> None:
        self.folder, self.name = folder, NAME.format(project=project)
        self.key = self._make_key("ed25519")
        self.host_key = self._make_key("ecdsa")
        with build_secrets(apt_conf=host.apt_settings(RealRunner().read(host.APT_SETTINGS).out)) as secrets:
            mounted = [f"--secret=id={name},src={secrets[name]}" for name in ("ca", "apt.conf")]
            self._docker("build", "--quiet", "--tag", f"{self.name}:test", *mounted, "-", stdin=RECIPE % base)
        gateway = "{{(index .IPAM.Config 0).Gateway}}"
        self.address = self._docker("network", "inspect", "bridge", "--format", gateway)

    def _make_key(self, kind: str) -> Path:
        file = self.folder / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", file], check=True)
        return file

    def _docker(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["docker", *arguments], input=stdin, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()

    @contextmanager
    def running(self, *options: str) -> Iterator[None]:
        """Keep it running, with options of `docker run`; its files are gone afterwards."""
        variables = {"HOST_KEY": self.host_key.read_text(), "CLIENT": Path(f"{self.key}.pub").read_text().strip()}
        given = [word for name, value in variables.items() for word in ("--env", f"{name}={value.rstrip()}")]
        published = ["--publish", f"{self.address}::22"]
        self._docker("run", "--detach", "--name", self.name, *published, *given, *options, f"{self.name}:test", START)
        try:
            yield
        finally:
            self._docker("rm", "--force", "--volumes", self.name)
            self._docker("rmi", "--force", f"{self.name}:test")

    def settings(self) -> dict[str, str]:
        """Return what goes into `.env`."""
        port = self._docker("port", self.name, "22/tcp").splitlines()[0].rpartition(":")[2]
        listing = ["ssh-keygen", "-lf", f"{self.host_key}.pub"]
        fingerprint = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()[1]
        return {
            "OFFSITE_TYPE": "sftp",
            "OFFSITE_HOST": self.address,
            "OFFSITE_PORT": port,
            "OFFSITE_USER": USER,
            "OFFSITE_PATH": f"{FOLDER}/stack",
            "OFFSITE_FINGERPRINT": fingerprint,
        }

    def pause(self) -> None:
        """Answer nothing from now on, with the connections open."""
        self._docker("pause", self.name)

    def resume(self) -> None:
        """Answer again."""
        self._docker("unpause", self.name)

    def sh(self, script: str) -> str:
        """Run a script on the server, as root."""
        return self._docker("exec", self.name, "sh", "-ec", script)
