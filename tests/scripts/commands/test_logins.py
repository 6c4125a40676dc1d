"""The login with the backups' key distinguishes a wrong key from a missing archive."""

import os
import subprocess
from pathlib import Path

import pytest
from stack.commands import logins as commands
from stack.parts import logins
from stack.parts.logins import Outcome
from stack.runner import Result

from tests.scripts.recording import RecordingRunner

# Imitates pgBackRest from 2.53 on, which writes errors to stdout unless an option sends them to
# stderr. The machine of this test may have no pgBackRest.
PROGRAM = """#!/bin/sh
case " $* " in
*" --log-level-stderr=error "*) exec 3>&2 ;;
*) exec 3>&1 ;;
esac
[ "$PGBACKREST_REPO1_CIPHER_PASS" = "the key" ] || exit 9
%s
"""
OPENED = "printf '[backrest]\\nbackrest-format=5\\n'"
MISSING = "echo 'ERROR: [055]: unable to open missing file' >&3; exit 55"
WRONG = "echo 'ERROR: [095]: unable to flush' >&3; exit 95"
NONSENSE = "printf 'x9\\001'"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (OPENED, Outcome.OPENED),
        (MISSING, Outcome.NO_ANSWER),
        (WRONG, Outcome.DENIED),
        (NONSENSE, Outcome.DENIED),
    ],
    ids=["opened", "no archive yet", "wrong key", "wrong key with right padding"],
)
def test_a_missing_archive_is_no_refusal_of_the_key(
    runner: RecordingRunner, tmp_path: Path, answer: str, outcome: Outcome
) -> None:
    program = tmp_path / "pgbackrest"
    program.write_text(PROGRAM % answer, encoding="utf-8")
    program.chmod(0o755)
    command = commands.log_in("backup_key", "the key")
    words = list(command.argv)
    ended = subprocess.run(
        words[words.index("sh") :],
        input=command.stdin,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    runner.reply("repo-get", Result(ended.returncode, ended.stdout, ended.stderr))
    assert logins.log_in(runner, "backup_key", "the key") is outcome
