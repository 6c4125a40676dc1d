"""A real SFTP server in its own container, as the off-host store."""

import subprocess
from pathlib import Path

from tests.stack.place import Place

USER, FOLDER = "backups", "/srv/backups"
# Only an ECDSA key, so that the server has one fingerprint.
RECIPE = f"""
FROM %s
USER root
RUN --mount=type=secret,id=apt.conf,target=/etc/apt/apt.conf.d/99host \\
    --mount=type=secret,id=ca,target=/run/secrets/ca \\
    apt-get update \\
 && apt-get install -y --no-install-recommends openssh-server openssh-sftp-server \\
 && useradd --create-home --shell /bin/sh --password '*' {USER} \\
 && install -d -o {USER} -m 0700 {FOLDER} /home/{USER}/.ssh && install -d /run/sshd \\
 && rm -f /etc/ssh/ssh_host_*
ENTRYPOINT ["/bin/sh", "-ec"]
"""
# Writes the keys at the start; a login may only access files.
START = f"""
printf '%s\\n' "$HOST_KEY" >/etc/ssh/host_key && chmod 0600 /etc/ssh/host_key
printf '%s\\n' "$CLIENT" >/home/{USER}/.ssh/authorized_keys
chown -R {USER} /home/{USER}/.ssh {FOLDER}
exec /usr/sbin/sshd -D -e -o HostKey=/etc/ssh/host_key -o PasswordAuthentication=no \\
  -o ForceCommand=internal-sftp -o MaxStartups=100
"""


class SftpServer(Place):
    """The server, with a host key and a key for its user."""

    RECIPE, START, PORT = RECIPE, START, 22

    def __init__(self, folder: Path, project: str, base: str) -> None:
        self.folder = folder
        self.key = self._make_key("ed25519")
        self.host_key = self._make_key("ecdsa")
        super().__init__(project, base)

    def _make_key(self, kind: str) -> Path:
        file = self.folder / kind
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", file], check=True
        )
        return file

    def variables(self) -> dict[str, str]:
        """Return the keys as environment variables."""
        public = Path(f"{self.key}.pub").read_text(encoding="utf-8")
        return {
            "HOST_KEY": self.host_key.read_text(encoding="utf-8").rstrip(),
            "CLIENT": public.strip(),
        }

    def settings(self) -> dict[str, str]:
        """Return the settings for `.env`."""
        listing = ["ssh-keygen", "-lf", f"{self.host_key}.pub"]
        fingerprint = subprocess.run(
            listing, capture_output=True, text=True, check=True
        ).stdout.split()[1]
        return {
            "OFFSITE_TYPE": "sftp",
            "OFFSITE_HOST": self.address,
            "OFFSITE_PORT": self.port(),
            "OFFSITE_USER": USER,
            "OFFSITE_PATH": f"{FOLDER}/stack",
            "OFFSITE_FINGERPRINT": fingerprint,
        }
