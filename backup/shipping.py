"""Copies the WAL from the local repository to the one off the host: in order, each segment once, none left out.

It is apart from archiving on purpose: a repository that is away delays what is shipped, and nothing else.
"""

import fcntl
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backup import archive, pgbackrest, records, tasks
from backup.archive import HISTORY, LOG, Segment
from backup.commands import Failed
from backup.pgbackrest import LOCAL, OFFSITE
from backup.records import Record

TASK = "shipping"
FOLDER = Path("/var/lib/postgresql/scratch/shipping")
DATA = Path("/var/lib/postgresql/data")
# Of `pgbackrest info`: a whole stanza with backups; none, or one that nobody took a backup for.
WELL, UNUSED = 0, {1, 2}
# Of the 60 s that may be lost with the host, 30 are archive_timeout (postgres/postgresql.conf); sending takes 0.2 s.
POLL_SECONDS = 3.0
RETRY_SECONDS = 10.0


@dataclass
class Position:
    """How far the repository off the host is: the newest segment it has of each timeline, and its history files.

    `folder` is the local repository's. By timeline, because the one that serves need not be the highest: a restore that
    was taken back leaves one behind.
    """

    folder: str
    segments: dict[str, str]
    histories: set[str] = field(default_factory=set)


class Shipper:
    """Keeps the position while all goes well, and asks the repository for it after each failure."""

    def __init__(self, ending: threading.Event, folder: Path = FOLDER) -> None:
        self.ending = ending
        self.folder = folder
        self.position: Position | None = None

    def run(self) -> None:
        """Ship until the service ends."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two, the other waits; the kernel frees it
            while not self.ending.is_set():
                self.ending.wait(POLL_SECONDS if self.step() else RETRY_SECONDS)

    def step(self) -> bool:
        """Ship what is there; say whether that went well. How it went is recorded."""
        started, before = time.time(), records.read(TASK)
        try:
            self.position = self.position or begin()
            self._ship(self.position)
        except (Failed, OSError, ValueError, KeyError) as failed:
            self.position = None
            if before.is_well or not before.ended:
                tasks.log(f"off the host: {failed}", action="backup_shipping_failed", level="ERROR")
            records.write(
                Record(TASK, started, 0.0, False, str(failed), before.last_success, before.facts)
            )
            return False
        if not before.is_well:
            tasks.log("off the host: it goes on", action="backup_shipping_resumed")
            now = records.read(TASK)
            records.write(Record(TASK, started, 0.0, True, now.text, started, now.facts))
        return True

    def _ship(self, position: Position) -> None:
        there = archive.folder(position.folder)
        for name in sorted(filter(HISTORY.fullmatch, there.keys() - position.histories)):
            self._copy(name)
            position.histories.add(name)
        waiting = newer(position, there)
        for number, segment in enumerate(waiting, 1):
            if self.ending.is_set():
                return
            self._copy(segment.name, segment.checksum)
            timeline = segment.name[:8]
            keep(
                position.segments.get(timeline) or max(position.segments.values()),
                segment,
                len(waiting) - number,
            )
            position.segments[timeline] = segment.name

    def _copy(self, name: str, checksum: str = "") -> None:
        """Fetch a file of the archive, check it and push it; what an earlier try left is overwritten."""
        draft = self.folder / name
        draft.unlink(missing_ok=True)
        done = pgbackrest.call("archive-get", name, str(draft))
        if done.code != 0:
            raise Failed(f"{name} cannot be read from the local repository: {done.reason}")
        # (!) Pushing makes a checksum of its own: a damaged segment would look whole off the host.
        if (
            checksum
            and hashlib.sha1(draft.read_bytes(), usedforsecurity=False).hexdigest() != checksum
        ):
            raise Failed(f"{name} in the local repository differs from its checksum")
        # (!) Without the limit of the local queue: above it archive-push drops a segment and reports success.
        done = pgbackrest.call(
            "archive-push", "--reset-archive-push-queue-max", str(draft), repository=OFFSITE
        )
        draft.unlink()
        if done.code != 0:
            raise Failed(f"{name} cannot be pushed: {done.reason}")


def begin() -> Position:
    """Ask both repositories how far they are.

    Raises:
        Failed: where one does not answer, or the one off the host is of another database.
    """
    here = pgbackrest.stanza(LOCAL)
    there = open_place()
    if identity(here) != identity(there):
        # A major upgrade is told to the local repository first (pgbackrest stanza-upgrade).
        if identity(there) not in [(one["system-id"], one["version"]) for one in here["db"]]:
            raise Failed(
                f"the repository off the host is of another database, of system {identity(there)[0]}",
                [
                    "./scripts/restore.sh --repo offsite takes that one back",
                    "or name an empty OFFSITE_PATH in .env",
                ],
            )
        done = pgbackrest.call("stanza-upgrade", repository=OFFSITE)
        if done.code != 0:
            raise Failed(f"pgbackrest stanza-upgrade: {done.reason}")
        there = pgbackrest.stanza(OFFSITE)
    if not here["archive"]:
        raise Failed("the local repository has no segment yet")
    adopt(there["backup"])
    mine = here["archive"][-1]
    # (!) By the database's place in that repository: after an upgrade the two need not have the same names.
    ours = [
        one
        for one in there["archive"]
        if one["database"]["id"] == there["db"][-1]["id"] and one["max"]
    ]
    if not ours:
        # The first time it begins with the newest: no backup off the host needs older ones, or it has to be a new one.
        if there["backup"]:
            record = records.read(TASK)
            records.write(replace(record, facts={**record.facts, "after_gap": mine["max"]}))
        newest = before(mine["max"])
        return Position(mine["id"], {newest[:8]: newest})
    held = archive.folder(ours[-1]["id"], OFFSITE)
    return Position(
        mine["id"], newest_of(held, ours[-1]["id"]), set(filter(HISTORY.fullmatch, held))
    )


def open_place() -> dict[str, Any]:
    """Return what the repository off the host knows; an empty one is told of this database first.

    Raises:
        Failed: where it does not answer.
    """
    try:
        return pgbackrest.stanza(OFFSITE)
    except Failed as unread:
        try:
            pgbackrest.create_stanza(OFFSITE)
        except Failed as failed:
            # Both: telling it begins with a question that an S3 server refuses without a word.
            raise Failed(f"{unread}; {failed}") from failed
    return pgbackrest.stanza(OFFSITE)


def newest_of(held: dict[str, dict[str, object]], folder: str) -> dict[str, str]:
    """Return the newest segment off the host of each timeline."""
    newest: dict[str, str] = {}
    # Of each timeline the last folder that has one: SFTP asks once for each file, and weeks of them are 40,000.
    for log in sorted(filter(LOG.fullmatch, held), reverse=True):
        if log[:8] in newest:
            continue
        found = [
            archive.segment(path, entry)
            for path, entry in archive.folder(f"{folder}/{log}", OFFSITE).items()
        ]
        newest |= {log[:8]: max(one.name for one in found if one)} if any(found) else {}
    return newest


def adopt(backups: list[dict[str, Any]]) -> None:
    """Bring the records of backups in line with the repository: another place than before, or another host."""
    for task, kind in (("offsite-full", "full"), ("offsite-incremental", "incr")):
        newest = next((one for one in reversed(backups) if one["type"] == kind), None)
        record = records.read(task)
        if newest and not record.last_success:
            ended = float(newest["timestamp"]["stop"])
            facts = {"label": newest["label"], "wal_start": newest["archive"]["start"]}
            records.write(Record(task, ended, 0.0, True, f"{kind} {newest['label']}", ended, facts))
        elif record.last_success and not newest:
            records.write(Record(task))
    if not backups and records.read("offsite-drill").ended:
        records.write(Record("offsite-drill"))  # it was of another place


def refuse_lost_database() -> None:
    """Refuse to begin an empty database in the place of one that has backups off the host.

    Raises:
        Failed: where there are such, or the repository cannot be asked.
    """
    if any(DATA.glob("*/PG_VERSION")):
        return
    done = pgbackrest.call("info", "--output=json", repository=OFFSITE)
    found = json.loads(done.out)[0] if done.code == 0 and done.out.strip() else {}
    code = found["status"]["code"] if found else None
    if code == WELL:
        raise Failed(
            "there is no database here, and the repository off the host has backups of one",
            [
                "./scripts/restore.sh --latest --replace --repo offsite brings the lost one back",
                "only for a new database: another OFFSITE_PATH in .env",
            ],
        )
    if code not in UNUSED:
        reason = pgbackrest.fault(found) if found else done.reason
        raise Failed(
            f"there is no database here, and the repository off the host cannot be asked: {reason}",
            [
                "it may have backups of one: correct OFFSITE_ in .env or secrets/offsite_secret, then ./scripts/up.sh",
                "docs/runbook.md#shipping-off-the-host-fails says what the reasons mean",
            ],
        )


def identity(stanza: dict[str, Any]) -> tuple[int, str]:
    """Return which database a repository is of: the system's number and the major version."""
    return stanza["db"][-1]["system-id"], stanza["db"][-1]["version"]


def before(segment: str) -> str:
    """Return the name before a segment's, on its timeline."""
    place = max(archive.number(segment) - 1, 0)
    return f"{segment[:8]}{place // archive.SEGMENTS_PER_LOG:08X}{place % archive.SEGMENTS_PER_LOG:08X}"


def newer(position: Position, there: dict[str, dict[str, object]]) -> list[Segment]:
    """Return the local segments after the position, in the order of timeline and stream."""
    found = []
    for log in sorted(filter(LOG.fullmatch, there)):
        # A timeline that is new begins with its first segment; one from before the first that was shipped is left out.
        last = position.segments.get(log[:8], log[:8] if log[:8] > min(position.segments) else "Z")
        if log < last[:16]:
            continue
        for path, entry in archive.folder(f"{position.folder}/{log}").items():
            segment = archive.segment(path, entry)
            if segment and segment.name > last:
                found.append(segment)
    return sorted(found, key=lambda segment: segment.name)


def keep(last: str, shipped: Segment, waiting: int) -> None:
    """Record a segment that arrived. One that does not follow the last leaves a gap, which the next backup ends."""
    facts = records.read(TASK).facts
    follows = archive.number(last) + 1
    is_next = (
        shipped.number == follows if last[:8] == shipped.name[:8] else shipped.number <= follows
    )
    facts = {
        "segment": shipped.name,
        "archived": shipped.archived,
        "waiting": waiting,
        "after_gap": facts.get("after_gap", "") if is_next else shipped.name,
    }
    now = time.time()
    records.write(Record(TASK, now, 0.0, True, shipped.name, now, facts))
