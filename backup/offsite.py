"""The optional second repository, off the host: what the operator wrote of it, and pgBackRest's configuration for it.

It has a configuration of its own, so that a repository that hangs is never in the way of the local one.
"""

import base64
import binascii
import os
import re
from dataclasses import dataclass
from pathlib import Path

from backup.commands import Failed

SECRET = Path("/run/secrets/offsite_secret")
AUTHORITY = Path("/run/secrets/offsite_ca")
# The entry point's part, with the key and the server's directory; the same for both repositories.
INSTALLATION = Path("/tmp/pgbackrest.d/installation.conf")  # noqa: S108 - a tmpfs of this container alone
FOLDER = Path("/tmp/pgbackrest.offsite.d")  # noqa: S108
# A backup waits so long for its last segment: that is shipped after what was written meanwhile. Partner: SHIPPING.
ARCHIVE_SECONDS = 300
# An S3 server that is silent is given up after nine times that, measured; it has to be before SHORT_SECONDS in
# pgbackrest.py, which ends the command without its reason.
S3_IO_SECONDS = 10
PORTS = {"sftp": 22, "s3": 443}
NEEDED = {"sftp": ("HOST", "USER", "FINGERPRINT"), "s3": ("HOST", "USER", "BUCKET", "REGION")}


@dataclass(frozen=True)
class Offsite:
    """Where the second repository is; `user` is the key's id where `kind` is s3."""

    kind: str
    host: str
    port: int
    user: str
    path: str
    fingerprint: str = ""
    bucket: str = ""
    region: str = ""


def load() -> Offsite | None:
    """Return where it is, or None where there is none.

    Raises:
        Failed: naming every key that is missing or wrong; no value.
    """
    kind = os.environ.get("OFFSITE_TYPE", "")
    if not kind:
        return None
    given = {
        name: os.environ.get(f"OFFSITE_{name}", "")
        for name in ("HOST", "PORT", "USER", "PATH", "FINGERPRINT")
    }
    given |= {name: os.environ.get(f"OFFSITE_{name}", "") for name in ("BUCKET", "REGION")}
    faults = [f"OFFSITE_{name} is empty" for name in NEEDED.get(kind, ()) if not given[name]]
    if kind not in NEEDED:
        faults.append("OFFSITE_TYPE is neither sftp nor s3")
    if not SECRET.is_file() or not SECRET.read_bytes().strip():
        faults.append("secrets/offsite_secret is empty")
    if faults:
        raise Failed("; ".join(faults), ["correct .env, then ./scripts/up.sh"])
    return Offsite(
        kind,
        given["HOST"],
        int(given["PORT"] or PORTS[kind]),
        given["USER"],
        given["PATH"] or "/slipway",
        hexadecimal(given["FINGERPRINT"]) if kind == "sftp" else "",
        given["BUCKET"],
        given["REGION"],
    )


def require() -> Offsite:
    """Return where it is.

    Raises:
        Failed: where there is none, or it is half configured.
    """
    given = load()
    if not given:
        raise Failed(
            "OFFSITE_TYPE is empty: no repository off the host is known",
            ["set the keys OFFSITE_ in .env"],
        )
    return given


def hexadecimal(fingerprint: str) -> str:
    """Return a fingerprint as pgBackRest wants it, from the form that `ssh-keygen -l` prints.

    Raises:
        Failed: where it is not of that form.
    """
    found = re.fullmatch(r"SHA256:([A-Za-z0-9+/]{43})=?", fingerprint)
    try:
        return base64.b64decode(f"{found[1]}=", validate=True).hex() if found else _refuse()
    except binascii.Error:
        return _refuse()


def _refuse() -> str:
    raise Failed(
        "OFFSITE_FINGERPRINT is not of the form SHA256:...", ["ssh-keyscan HOST | ssh-keygen -lf -"]
    )


def configuration(given: Offsite, secret: str) -> str:
    """Return the part of pgBackRest's configuration that puts this repository into the place of the local one.

    Options of the section `main` go before those of the section `global` in postgres/pgbackrest.conf.
    """
    lines = {
        "repo1-type": given.kind,
        "repo1-path": given.path,
        "archive-timeout": str(ARCHIVE_SECONDS),
    }
    if given.kind == "sftp":
        lines |= {
            "repo1-sftp-host": given.host,
            "repo1-sftp-host-port": str(given.port),
            "repo1-sftp-host-user": given.user,
            "repo1-sftp-host-key-hash-type": "sha256",
            "repo1-sftp-host-key-check-type": "fingerprint",
            "repo1-sftp-host-fingerprint": given.fingerprint,
            "repo1-sftp-private-key-file": str(SECRET),
        }
    else:
        lines |= {
            "repo1-s3-endpoint": given.host,
            "repo1-storage-port": str(given.port),
            "repo1-s3-bucket": given.bucket,
            "repo1-s3-region": given.region,
            "repo1-s3-key": given.user,
            "repo1-s3-key-secret": secret,
            # With the bucket in the path: every provider knows it, and a server of one's own needs no name per bucket.
            "repo1-s3-uri-style": "path",
            "io-timeout": str(S3_IO_SECONDS),
        }
        # In the place of the public CAs, for a server of one's own.
        if AUTHORITY.is_file() and AUTHORITY.read_bytes().strip():
            lines["repo1-storage-ca-file"] = str(AUTHORITY)
    return "[main]\n" + "".join(f"{key}={value}\n" for key, value in lines.items())


def configure(given: Offsite, folder: Path = FOLDER) -> None:
    """Write that configuration, readable for this user alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
    text = configuration(given, SECRET.read_text(encoding="utf-8").strip())
    for name, content in (
        ("offsite.conf", text),
        ("installation.conf", INSTALLATION.read_text(encoding="utf-8")),
    ):
        # By a rename: a command that reads it meanwhile finds the one or the other, and whole. pgBackRest reads *.conf.
        draft = folder / f"{name}.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_text(content, encoding="utf-8")
        draft.replace(folder / name)
