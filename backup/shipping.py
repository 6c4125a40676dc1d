"""Copies the WAL to the repository off the host, each segment once, in order.

Shipping is separate from archiving: a repository off the host that does not answer delays its own
segments and nothing else.
"""

import fcntl
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backup import archive, logs, pgbackrest, records
from backup.archive import HISTORY, LOG, Segment
from backup.failure import Failure
from backup.pgbackrest import LOCAL, OFFSITE
from backup.records import Record

TASK = "shipping"
FOLDER = Path("/var/lib/postgresql/scratch/shipping")
DATA = Path("/var/lib/postgresql/data")
# Codes of `pgbackrest info`: a stanza with backups; no stanza, or one without a backup.
WELL, UNUSED = 0, {1, 2}
# At most 60 s of rows may be lost with the host. archive_timeout (postgres/postgresql.conf) takes
# 30 s of them, and sending 0.2 s.
POLL_SECONDS = 3.0
RETRY_SECONDS = 10.0


@dataclass
class Position:
    """The progress of shipping.

    Args:
        folder: the database's folder in the local repository.
        segments: the newest shipped segment of each timeline. The live timeline is not always the
            highest: a restore that was undone leaves a higher one.
        histories: the history files that were shipped.
    """

    folder: str
    segments: dict[str, str]
    histories: set[str] = field(default_factory=set)


class Shipper:
    """Keeps the position while shipping works, and reads it from the repository after a failure."""

    def __init__(self, ending: threading.Event, folder: Path = FOLDER) -> None:
        self.ending = ending
        self.folder = folder
        self.position: Position | None = None

    def run(self) -> None:
        """Ship until the service ends."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second shipper waits; the kernel frees the lock
            while not self.ending.is_set():
                self.ending.wait(POLL_SECONDS if self.step() else RETRY_SECONDS)

    def step(self) -> bool:
        """Ship the waiting segments and record the outcome; return whether it succeeded."""
        started, former = time.time(), records.read(TASK)
        try:
            self.position = self.position or find_position()
            self._ship(self.position)
        except (Failure, OSError, ValueError, KeyError) as failure:
            self.position = None
            text = str(failure)
            if former.is_well or not former.ended:
                logs.write(f"off the host: {text}", action="backup_shipping_failed", level="ERROR")
            records.write(
                Record(TASK, started, 0.0, False, text, former.last_success, former.facts)
            )
            return False
        if not former.is_well:
            logs.write("off the host: shipping works again", action="backup_shipping_resumed")
            now = records.read(TASK)
            records.write(Record(TASK, started, 0.0, True, now.text, started, now.facts))
        return True

    def _ship(self, position: Position) -> None:
        entries = archive.list_folder(position.folder)
        for name in sorted(filter(HISTORY.fullmatch, entries.keys() - position.histories)):
            self._copy(name)
            position.histories.add(name)
        waiting = list_waiting(position, entries)
        for count, segment in enumerate(waiting, 1):
            if self.ending.is_set():
                return
            self._copy(segment.name, segment.checksum)
            timeline = segment.name[:8]
            last = position.segments.get(timeline) or max(position.segments.values())
            record_shipped(last, segment, len(waiting) - count)
            position.segments[timeline] = segment.name

    def _copy(self, name: str, checksum: str = "") -> None:
        """Fetch a file of the archive, check it and push it; overwrite an earlier try."""
        draft = self.folder / name
        draft.unlink(missing_ok=True)
        result = pgbackrest.call("archive-get", name, str(draft))
        if result.code != 0:
            raise Failure(f"{name} cannot be read from the local repository: {result.reason}")
        # (!) archive-push computes a new checksum: a damaged segment would look whole off the host.
        content = draft.read_bytes() if checksum else b""
        if checksum and hashlib.sha1(content, usedforsecurity=False).hexdigest() != checksum:
            raise Failure(f"{name} in the local repository differs from its checksum")
        # (!) The option removes the limit of the local queue: above that limit, archive-push drops
        # a segment and reports success.
        result = pgbackrest.call(
            "archive-push", "--reset-archive-push-queue-max", str(draft), repository=OFFSITE
        )
        draft.unlink()
        if result.code != 0:
            raise Failure(f"{name} cannot be pushed: {result.reason}")


def find_position() -> Position:
    """Return the position by comparing both repositories.

    Raises:
        Failure: if a repository does not answer, or the second one holds another database.
    """
    here = pgbackrest.read_stanza(LOCAL)
    there = _match_stanza(here, open_offsite_stanza())
    if not here["archive"]:
        raise Failure("the local repository has no segment yet")
    adopt_backups(there["backup"])
    local = here["archive"][-1]
    # (!) Select by the database's number in that repository: after an upgrade of Postgres, the two
    # repositories may use different names for the folder.
    shipped = [
        entry
        for entry in there["archive"]
        if entry["database"]["id"] == there["db"][-1]["id"] and entry["max"]
    ]
    if not shipped:
        # The first time, shipping begins with the newest segment. If a backup off the host needs an
        # older segment, a new backup must replace that backup.
        if there["backup"]:
            record = records.read(TASK)
            records.write(replace(record, facts={**record.facts, "after_gap": local["max"]}))
        last = name_preceding_segment(local["max"])
        return Position(local["id"], {last[:8]: last})
    folder = shipped[-1]["id"]
    entries = archive.list_folder(folder, OFFSITE)
    histories = set(filter(HISTORY.fullmatch, entries))
    return Position(local["id"], find_newest_shipped(entries, folder), histories)


def _match_stanza(here: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """Return the stanza off the host, upgraded after an upgrade of Postgres.

    Raises:
        Failure: when it holds another database.
    """
    if get_identity(here) == get_identity(there):
        return there
    # An upgrade of Postgres upgrades the local stanza first.
    known = [(database["system-id"], database["version"]) for database in here["db"]]
    if get_identity(there) not in known:
        raise Failure(
            "the repository off the host belongs to another database,"
            f" of system {get_identity(there)[0]}",
            [
                "./scripts/restore.sh --repo offsite restores that database",
                "or name an empty OFFSITE_PATH in .env",
            ],
        )
    result = pgbackrest.call("stanza-upgrade", repository=OFFSITE)
    if result.code != 0:
        raise Failure(f"pgbackrest stanza-upgrade: {result.reason}")
    return pgbackrest.read_stanza(OFFSITE)


def open_offsite_stanza() -> dict[str, Any]:
    """Return the stanza off the host; create it in an empty repository.

    Raises:
        Failure: when the repository does not answer.
    """
    try:
        return pgbackrest.read_stanza(OFFSITE)
    except Failure as unreadable:
        try:
            pgbackrest.create_stanza(OFFSITE)
        except Failure as failure:
            # Both errors: an S3 server refuses stanza-create's first request without a reason.
            raise Failure(f"{unreadable}; {failure}") from failure
    return pgbackrest.read_stanza(OFFSITE)


def find_newest_shipped(entries: dict[str, dict[str, object]], folder: str) -> dict[str, str]:
    """Return the newest segment off the host of each timeline."""
    newest: dict[str, str] = {}
    # Read only the last folder of each timeline that holds a segment: SFTP needs one request for
    # each file, and weeks of WAL are 40,000 files.
    for log in sorted(filter(LOG.fullmatch, entries), reverse=True):
        if log[:8] in newest:
            continue
        segments = archive.list_segments(f"{folder}/{log}", OFFSITE)
        if segments:
            newest[log[:8]] = max(segment.name for segment in segments)
    return newest


def adopt_backups(backups: list[dict[str, Any]]) -> None:
    """Correct the records of backups to match the repository: it or this host may be new."""
    for task, kind in (("offsite-full", "full"), ("offsite-incremental", "incr")):
        newest = next((entry for entry in reversed(backups) if entry["type"] == kind), None)
        record = records.read(task)
        if newest and not record.last_success:
            ended = float(newest["timestamp"]["stop"])
            facts = {"label": newest["label"], "wal_start": newest["archive"]["start"]}
            text = f"{kind} {newest['label']}"
            records.write(Record(task, ended, 0.0, True, text, ended, facts))
        elif record.last_success and not newest:
            records.write(Record(task))
    if not backups and records.read("offsite-drill").ended:
        records.write(Record("offsite-drill"))  # the last drill was of another repository


def refuse_lost_database() -> None:
    """Refuse to create an empty database if the repository off the host has backups of a database.

    Raises:
        Failure: if the repository has backups, or does not answer.
    """
    if any(DATA.glob("*/PG_VERSION")):
        return
    result = pgbackrest.call("info", "--output=json", repository=OFFSITE)
    stanza = json.loads(result.out)[0] if result.code == 0 and result.out.strip() else {}
    code = stanza["status"]["code"] if stanza else None
    if code == WELL:
        raise Failure(
            "there is no database here, and the repository off the host has backups of one",
            [
                "./scripts/restore.sh --latest --replace --repo offsite brings the lost one back",
                "for a new database only: set another OFFSITE_PATH in .env",
            ],
        )
    if code not in UNUSED:
        reason = pgbackrest.explain_fault(stanza) if stanza else result.reason
        raise Failure(
            f"there is no database here, and the repository off the host cannot be asked: {reason}",
            [
                "it may have backups of one: correct OFFSITE_ in .env or secrets/offsite_secret,"
                " then ./scripts/up.sh",
                "docs/runbook.md#shipping-off-the-host-fails explains the reasons",
            ],
        )


def get_identity(stanza: dict[str, Any]) -> tuple[int, str]:
    """Return which database a repository holds: the system's identifier and the major version."""
    return stanza["db"][-1]["system-id"], stanza["db"][-1]["version"]


def name_preceding_segment(name: str) -> str:
    """Return the name of the preceding segment on the same timeline."""
    number = max(archive.segment_number(name) - 1, 0)
    log, place = divmod(number, archive.SEGMENTS_PER_LOG)
    return f"{name[:8]}{log:08X}{place:08X}"


def list_waiting(position: Position, entries: dict[str, dict[str, object]]) -> list[Segment]:
    """Return the local segments after the position, in the order of timeline and stream."""
    waiting = []
    for log in sorted(filter(LOG.fullmatch, entries)):
        timeline = log[:8]
        # A new timeline is shipped from its first segment on. A timeline from before the first
        # shipped one is left out.
        is_new = timeline > min(position.segments)
        last = position.segments.get(timeline, timeline if is_new else "Z")
        if log < last[:16]:
            continue
        segments = archive.list_segments(f"{position.folder}/{log}")
        waiting += [segment for segment in segments if segment.name > last]
    return sorted(waiting, key=lambda segment: segment.name)


def record_shipped(last: str, shipped: Segment, waiting: int) -> None:
    """Record a segment that arrived.

    A segment that does not follow `last` leaves a gap, which the next backup closes.
    """
    facts = records.read(TASK).facts
    expected = archive.segment_number(last) + 1
    is_next = (
        shipped.number == expected if last[:8] == shipped.name[:8] else shipped.number <= expected
    )
    facts = {
        "segment": shipped.name,
        "archived": shipped.archived,
        "waiting": waiting,
        "after_gap": facts.get("after_gap", "") if is_next else shipped.name,
    }
    now = time.time()
    records.write(Record(TASK, now, 0.0, True, shipped.name, now, facts))
