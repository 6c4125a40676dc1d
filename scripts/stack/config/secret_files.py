"""The rule for the content of a secret file, and the data that each secret opens.

The readers of a secret differ: a shell drops line ends, Redis hashes a carriage return, the API
strips blanks. All of them read the same secret from a file that follows this rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.config.project import CLEARABLE_SECRETS, OPTIONAL_SECRETS

MAY_BE_EMPTY = (*CLEARABLE_SECRETS, *OPTIONAL_SECRETS)
# A private key and a certificate: stack/config/offsite.py judges their content.
OF_SEVERAL_LINES = ("offsite_secret", "offsite_ca")
MISSING = "is missing"


@dataclass(frozen=True)
class Binding:
    """The data that a secret opens.

    Attributes:
        volume: the volume of the data, without the name of the project.
        services: the services that mount the secret; the first is the server that it opens.
        has_login: whether a command can log in with the secret (commands/logins.py). Only then the
            scripts keep its fingerprint.
        may_be_newer: whether a stack of an earlier version has the volume without the secret.
    """

    volume: str
    services: tuple[str, ...]
    has_login: bool = True
    may_be_newer: bool = False


# `ops_password` opens no data. `token_key` signs the tokens of users, so that its loss ends their
# logins. A deploy can replace it on purpose: docs/configuration.md#change-the-token-key.
BINDINGS: Mapping[str, Binding] = {
    "database_password": Binding("postgres", ("postgres", "api-blue", "api-green")),
    "backup_key": Binding("backups", ("postgres", "backup")),
    "redis_password": Binding("redis", ("redis", "api-blue", "api-green")),
    "redis_admin_password": Binding("redis", ("redis",), may_be_newer=True),
    "token_key": Binding("postgres", ("api-blue", "api-green"), has_login=False),
}


def fault(path: Path) -> str:
    """Return the fault of a secret file, as the rest of a sentence; empty if there is none."""
    if not path.is_file():
        if path.is_dir():
            return "is a directory; the engine creates one if a mounted file is missing"
        return MISSING
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return "is not UTF-8 text"
    line = text.removesuffix("\n")
    if not line.strip("\r\n"):
        return "" if path.name in MAY_BE_EMPTY and not line else "is empty"
    if path.name in OF_SEVERAL_LINES:
        return ""
    return _fault_of_line(line)


def _fault_of_line(line: str) -> str:
    if line.endswith("\r"):
        return "ends in a carriage return, as Windows ends its lines"
    if "\n" in line or "\r" in line:
        return "holds more than one line"
    if line != line.strip():
        return "begins or ends with a blank"
    return "" if line.isprintable() else "holds a character that cannot be printed"


def fix(name: str, reason: str) -> str:
    """Return the operator's fix of a fault that `fault` has returned."""
    if reason == MISSING:
        is_made = name in MAY_BE_EMPTY
        return "./scripts/up.sh creates it" if is_made else "restore it from your copy of secrets/"
    if reason == "is empty":
        return "restore it from your copy of secrets/"
    if reason.startswith("is a directory"):
        return "remove the directory, and restore the file from your copy of secrets/"
    return "write the secret as one line of text, without blanks around it"


def read(path: Path) -> str:
    """Return the secret in a file that follows the rule."""
    return path.read_text(encoding="utf-8").removesuffix("\n")
