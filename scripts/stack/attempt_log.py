"""The log of an attempt: a file with every command as run and every line that a story prints."""

import os
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

KEPT_LOGS = 20  # chosen, as for evidence (parts/ledger.py); about 10 KB each
EARLY_LINES = 1000  # chosen: lines kept in memory until the file is open; `up` prints about 20


class AttemptLog:
    """Keeps lines in memory until `open` creates the file; a full disk ends only the log."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._descriptor = -1
        self._early: deque[str] = deque(maxlen=EARLY_LINES)

    def open(self, state: Path, command: str) -> None:
        """Create the file under the state directory, and remove the oldest files there.

        `deploy` on a new host runs `up` first: the same log then contains the lines of both.
        """
        if self.path:
            return
        folder = state / "attempts"
        path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{command}.log"
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True)
                folder.chmod(0o750)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            # A command may contain a token, as NOTIFY_COMMAND does. Other users cannot read .env
            # either.
            os.fchmod(self._descriptor, 0o600)
            for old in sorted(folder.glob("*.log"))[:-KEPT_LOGS]:  # names begin with the time
                old.unlink(missing_ok=True)
        except OSError:
            self._close()
            return
        self.path = path
        self._append("".join(self._early))
        self._early.clear()

    def write(self, text: str) -> None:
        """Add lines, each with its time of day (UTC)."""
        at = f"{datetime.now(UTC):%H:%M:%S}"
        lines = "".join(f"{at} {line}".rstrip() + "\n" for line in text.split("\n"))
        if self.path:
            self._append(lines)
        else:
            self._early.append(lines)

    def hints(self) -> list[str]:
        """Return the hint that names the file, if the log is complete."""
        return [f"every command as run: {self.path}"] if self.path else []

    def _append(self, lines: str) -> None:
        data = lines.encode(errors="replace")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self.path = -1, None
