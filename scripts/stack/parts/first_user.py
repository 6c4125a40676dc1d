"""Makes the service create its first user on a new stack; keeps the credentials in a file."""

import json
import secrets
from pathlib import Path

from stack.commands import engine, host
from stack.config import service
from stack.config.project import Project
from stack.config.service import FirstStart
from stack.failure import Failure
from stack.parts import smoke
from stack.runner import Runner

# measured: 2 s on two idle cores; the command itself retries Postgres for 30 s
FIRST_USER_SECONDS = 90


def ensure(runner: Runner, project: Project, slot: str) -> Path:
    """Make the service create its first user on a new stack; return the credentials' file."""
    file, draft = project.first_user, project.first_user.with_name("first_user.draft.json")
    if file.exists() or runner.is_dry:
        return file
    first_start = smoke.read_service(runner, slot).first_start
    if first_start is None:
        return file
    # Write the draft before the command uses it: a password only in the database would be lost.
    if not draft.exists():
        credentials = {
            name: secrets.token_urlsafe(18) if text == service.RANDOM else text
            for name, text in first_start.credentials.items()
        }
        runner.write(draft, json.dumps(credentials) + "\n", 0o600)
    # A separate container: a process inside the API's container would use the API's memory.
    text = draft.read_text(encoding="utf-8")
    command = engine.one_shot(
        f"api-{slot}",
        *first_start.command,
        stdin=text,
        timeout_seconds=FIRST_USER_SECONDS,
        may_fail=True,
    )
    made = runner.run(command)
    if made.code == 0:
        runner.run(host.move(draft, file))
    elif made.code == first_start.EXISTS:
        # The database already has users, for example after a restore: the draft is useless.
        runner.run(host.remove_tree(draft))
        runner.say("    the first user exists with another password, which is not known here")
    else:
        raise Failure(
            f"the first user could not be created: the command ended with {made.code}",
            hints=[f"./scripts/logs.sh api-{slot}", f"{service.FILE} names the command"],
            runbook="site-down",
            evidence=_redacted(made.err, json.loads(text), first_start),
        )
    return file


def _redacted(output: str, credentials: dict[str, str], first_start: FirstStart) -> str:
    """Return the output of the service's command without the passwords of its input."""
    for name, text in first_start.credentials.items():
        # A draft of an older service.toml may lack the key.
        if text == service.RANDOM and (secret := credentials.get(name)):
            output = output.replace(secret, "[redacted]")
    return output
