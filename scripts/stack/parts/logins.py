"""Logs in with each secret where its server runs; changes nothing."""

from enum import Enum

from stack.commands import logins
from stack.config import secret_files
from stack.config.project import Project
from stack.config.secret_files import BINDINGS
from stack.runner import Runner

NAMES = tuple(name for name, binding in BINDINGS.items() if binding.has_login)


class Outcome(Enum):
    """The outcome of a login; without an answer of the server, the secret may be right or wrong."""

    OPENED = "opened"
    DENIED = "denied"
    NO_ANSWER = "no answer"


def log_in(runner: Runner, name: str, secret: str) -> Outcome:
    """Log in to the server of a secret."""
    answer = runner.read(logins.log_in(name, secret))
    if answer.code == 0:
        return Outcome.OPENED
    words = answer.out + answer.err
    is_refused = any(refusal in words for refusal in logins.REFUSALS[name])
    # With a key that decrypts to nonsense, pgBackRest ends without an error.
    is_nonsense = name == "backup_key" and answer.code == 1 and not words.strip()
    return Outcome.DENIED if is_refused or is_nonsense else Outcome.NO_ANSWER


def list_refused(runner: Runner, project: Project) -> list[str]:
    """Return the secrets whose servers run and refuse them."""
    return [
        name
        for name in NAMES
        if not secret_files.fault(project.secrets / name)
        and log_in(runner, name, secret_files.read(project.secrets / name)) is Outcome.DENIED
    ]


def describe(project: Project, name: str) -> str:
    """Return one sentence on a refused secret."""
    server = BINDINGS[name].services[0]
    data = "the backups are not" if name == "backup_key" else f"{server} refuses it"
    file = project.secrets / name
    return f"{file} does not open its data: {data}" + (
        " encrypted with it" if name == "backup_key" else ""
    )
