"""The optional second repository, off the host: its address, and pgBackRest's configuration for it.

That configuration is separate, so that a repository that hangs never blocks the local one.
"""

import base64
import binascii
import os
import re
from dataclasses import dataclass
from pathlib import Path

from backup.failure import Failure

SECRET = Path("/run/secrets/offsite_secret")
AUTHORITY = Path("/run/secrets/offsite_ca")
# The entry point writes this part: the key and the server's directory, which both repositories use.
INSTALLATION = Path("/tmp/pgbackrest.d/installation.conf")  # noqa: S108  a tmpfs of this container
FOLDER = Path("/tmp/pgbackrest.offsite.d")  # noqa: S108
# How long a backup waits for its last WAL segment, which ships only after the segments before it.
ARCHIVE_SECONDS = 300
# pgBackRest gives up on a silent S3 server after nine times this (measured). That must be less than
# SHORT_SECONDS, which kills pgBackRest before it prints a reason.
# Partner: SHORT_SECONDS in backup/pgbackrest.py
S3_IO_SECONDS = 10
PORTS = {"sftp": 22, "s3": 443}
NEEDED = {"sftp": ("HOST", "USER", "FINGERPRINT"), "s3": ("HOST", "USER", "BUCKET", "REGION")}
KEYS = ("HOST", "PORT", "USER", "PATH", "FINGERPRINT", "BUCKET", "REGION")


@dataclass(frozen=True)
class Offsite:
    """The address of the second repository; `user` is the access key's id if `kind` is s3."""

    kind: str
    host: str
    port: int
    user: str
    path: str
    fingerprint: str = ""
    bucket: str = ""
    region: str = ""


def load() -> Offsite | None:
    """Return the second repository's address, or None if the operator configured none.

    Raises:
        Failure: with the name of every key that is missing or wrong, and no value.
    """
    kind = os.environ.get("OFFSITE_TYPE", "")
    if not kind:
        return None
    values = {name: os.environ.get(f"OFFSITE_{name}", "") for name in KEYS}
    faults = [f"OFFSITE_{name} is empty" for name in NEEDED.get(kind, ()) if not values[name]]
    if kind not in NEEDED:
        faults.append("OFFSITE_TYPE is neither sftp nor s3")
    if not SECRET.is_file() or not SECRET.read_bytes().strip():
        faults.append("secrets/offsite_secret is empty")
    if faults:
        raise Failure("; ".join(faults), ["correct .env, then ./scripts/up.sh"])
    return Offsite(
        kind,
        values["HOST"],
        int(values["PORT"] or PORTS[kind]),
        values["USER"],
        values["PATH"] or "/slipway",
        convert_fingerprint(values["FINGERPRINT"]) if kind == "sftp" else "",
        values["BUCKET"],
        values["REGION"],
    )


def require() -> Offsite:
    """Return the second repository's address.

    Raises:
        Failure: if the operator configured no second repository, or only a part of it.
    """
    address = load()
    if not address:
        raise Failure(
            "OFFSITE_TYPE is empty: no repository off the host is known",
            ["set the keys OFFSITE_ in .env"],
        )
    return address


def convert_fingerprint(fingerprint: str) -> str:
    """Return a fingerprint in pgBackRest's hexadecimal form, from the form of `ssh-keygen -l`.

    Raises:
        Failure: when it has another form.
    """
    encoded = re.fullmatch(r"SHA256:([A-Za-z0-9+/]{43})=?", fingerprint)
    try:
        if encoded:
            return base64.b64decode(f"{encoded[1]}=", validate=True).hex()
    except binascii.Error:
        pass  # refused below, like every other form
    raise Failure(
        "OFFSITE_FINGERPRINT is not of the form SHA256:...", ["ssh-keyscan HOST | ssh-keygen -lf -"]
    )


def pgbackrest_conf(address: Offsite, secret: str) -> str:
    """Return the part of pgBackRest's configuration that names this repository, not the local one.

    Options of the section `main` override those of `global` in postgres/pgbackrest.conf.
    """
    options = {
        "repo1-type": address.kind,
        "repo1-path": address.path,
        "archive-timeout": str(ARCHIVE_SECONDS),
    }
    if address.kind == "sftp":
        options |= {
            "repo1-sftp-host": address.host,
            "repo1-sftp-host-port": str(address.port),
            "repo1-sftp-host-user": address.user,
            "repo1-sftp-host-key-hash-type": "sha256",
            "repo1-sftp-host-key-check-type": "fingerprint",
            "repo1-sftp-host-fingerprint": address.fingerprint,
            "repo1-sftp-private-key-file": str(SECRET),
        }
    else:
        options |= {
            "repo1-s3-endpoint": address.host,
            "repo1-storage-port": str(address.port),
            "repo1-s3-bucket": address.bucket,
            "repo1-s3-region": address.region,
            "repo1-s3-key": address.user,
            "repo1-s3-key-secret": secret,
            # The bucket is in the path: every provider accepts that, and a private server
            # needs no DNS name for each bucket.
            "repo1-s3-uri-style": "path",
            "io-timeout": str(S3_IO_SECONDS),
        }
        # For a private server whose CA is not among the public ones.
        if AUTHORITY.is_file() and AUTHORITY.read_bytes().strip():
            options["repo1-storage-ca-file"] = str(AUTHORITY)
    return "[main]\n" + "".join(f"{key}={value}\n" for key, value in options.items())


def configure(address: Offsite, folder: Path = FOLDER) -> None:
    """Write that configuration, readable for this user only."""
    folder.mkdir(mode=0o700, exist_ok=True)
    conf = pgbackrest_conf(address, SECRET.read_text(encoding="utf-8").strip())
    for name, content in (
        ("offsite.conf", conf),
        ("installation.conf", INSTALLATION.read_text(encoding="utf-8")),
    ):
        # A rename, so that a command that runs meanwhile reads a whole file. pgBackRest reads only
        # *.conf, so it ignores the draft.
        draft = folder / f"{name}.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_text(content, encoding="utf-8")
        draft.replace(folder / name)
