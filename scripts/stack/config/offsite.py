"""Checks the settings of the repository off the host; refuses an incomplete configuration."""

import re
from collections.abc import Mapping
from pathlib import Path

# Partner: backup/offsite.py, which reads them
NEEDED = {
    "sftp": ("OFFSITE_HOST", "OFFSITE_USER", "OFFSITE_FINGERPRINT"),
    "s3": ("OFFSITE_HOST", "OFFSITE_USER", "OFFSITE_BUCKET", "OFFSITE_REGION"),
}
KEYS = sorted({key for keys in NEEDED.values() for key in keys} | {"OFFSITE_PATH", "OFFSITE_PORT"})
FORMS = {
    "OFFSITE_HOST": (
        r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?",
        "a host name, without https:// and path",
    ),
    "OFFSITE_PATH": (r"/[^\s]+", "the absolute path of a folder other than /"),
    "OFFSITE_FINGERPRINT": (
        r"SHA256:[A-Za-z0-9+/]{43}=?",
        "of the form SHA256:..., as ssh-keygen -l prints it",
    ),
}
# The beginning of a key of ssh-keygen without a passphrase: the format and "none" twice, in base64.
OPEN = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ"


def faults(values: Mapping[str, str], secrets: Path) -> list[str]:
    """Return the faults of these settings, one sentence for each key, and no value."""
    kind = values.get("OFFSITE_TYPE", "")
    if not kind:
        given = [key for key in KEYS if values.get(key)]
        return [f"OFFSITE_TYPE is empty, but {', '.join(given)} is set"] if given else []
    if kind not in NEEDED:
        return ["OFFSITE_TYPE is neither sftp nor s3"]
    wrong = [
        f"{key} is empty, but OFFSITE_TYPE={kind} needs it"
        for key in NEEDED[kind]
        if not values.get(key)
    ]
    misplaced = [key for key in KEYS if values.get(key) and _is_of_another_type(key, kind)]
    wrong += [f"{key} is set, but OFFSITE_TYPE={kind} does not use it" for key in misplaced]
    for key, (form, meaning) in FORMS.items():
        if values.get(key) and key not in misplaced and not re.fullmatch(form, values[key]):
            wrong.append(f"{key} is not {meaning}")
    port = values.get("OFFSITE_PORT") or "1"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        wrong.append("OFFSITE_PORT is not a port")
    return (
        wrong
        + _secret_fault(kind, secrets / "offsite_secret")
        + _authority_fault(kind, secrets / "offsite_ca")
    )


def _is_of_another_type(key: str, kind: str) -> bool:
    return any(key in keys for keys in NEEDED.values()) and key not in NEEDED[kind]


def _secret_fault(kind: str, file: Path) -> list[str]:
    """Check the private or secret key; for a missing file up.sh creates an empty one."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    if not text.strip():
        return [f"{file} is empty: put in the {'private key' if kind == 'sftp' else 'secret key'}"]
    if not file.stat().st_mode & 0o004:
        return [_closed(file)]
    if kind == "sftp" and not re.match(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n", text):
        return [f"{file} is not a private key"]
    if kind == "sftp" and ("ENCRYPTED" in text or ("OPENSSH" in text and OPEN not in text)):
        return [f"{file} is a private key with a passphrase, but nobody can type it"]
    return []


def _authority_fault(kind: str, file: Path) -> list[str]:
    """Check the certificate of a private CA; an empty or missing file means the public CAs."""
    is_read = kind == "s3" and file.is_file()
    text = file.read_text(encoding="utf-8", errors="replace") if is_read else ""
    if text.strip() and "-----BEGIN CERTIFICATE-----" not in text:
        return [f"{file} is not a certificate in PEM"]
    return [_closed(file)] if text.strip() and not file.stat().st_mode & 0o004 else []


def _closed(file: Path) -> str:
    return (
        f"{file} cannot be read by the backup service, which runs as another user: "
        f"chmod 0444 {file}"
    )
