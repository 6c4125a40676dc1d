"""Requests exports through the front door; a trigger in Postgres records each finished export."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from tests.stack.harness import Stack, wait_until

# The transaction that finishes an export writes the ledger: an export that finished twice has two
# rows. Each chunk of a slow owner's export takes four seconds, which is below the statement limit;
# a whole file takes four seconds for each of its chunks.
TRIGGERS = """
    create table finished_log (export_id uuid not null);
    create function note_finished() returns trigger language plpgsql security definer as
        $$ begin insert into finished_log values (new.id); return new; end $$;
    create trigger note_finished after update on exports for each row
        when (new.status = 'finished') execute function note_finished();
    create table slow_owners (id uuid not null);
    create function slow_down() returns trigger language plpgsql security definer as
        $$ begin
            perform pg_sleep(4) from slow_owners s join exports e on e.owner_id = s.id
                where e.id = new.export_id;
            return new;
        end $$;
    create trigger slow_down before insert on export_chunks
        for each row execute function slow_down();
"""
NO_TRIGGERS = """
    drop trigger if exists note_finished on exports;
    drop trigger if exists slow_down on export_chunks;
    drop function if exists note_finished, slow_down;
    drop table if exists finished_log, slow_owners;
"""
EXPORT_JOBS = "procrastinate_jobs where task_name = 'exports.write' and args->>'export_id'"


@contextmanager
def ledger_kept(stack: Stack) -> Iterator[None]:
    """Make Postgres record each finished export while the block runs."""
    stack.sql(NO_TRIGGERS + TRIGGERS)
    try:
        yield
    finally:
        stack.sql(NO_TRIGGERS)


def redeliveries(stack: Stack, owner: str) -> list[float]:
    """Return the seconds between consecutive starts of each redelivered job of a user."""
    gaps = (
        "select e.at - lag(e.at) over (partition by e.job_id order by e.at) as gap from "
        "procrastinate_events e"
        " join procrastinate_jobs j on j.id = e.job_id join exports x on x.id::text = "
        "j.args->>'export_id'"
        f" where e.type = 'started' and x.owner_id = '{owner}'"
    )
    found = stack.sql(f"select extract(epoch from gap) from ({gaps}) g where gap is not null")
    return [float(line) for line in found.splitlines()]


class Exports:
    """The exports of one new user. `failures` holds the answers other than 202."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.acknowledged: list[str] = []
        self.failures: list[str] = []
        user = {"email": f"{uuid.uuid4().hex}@example.com", "password": "a long enough password"}
        with stack.client(timeout=30) as client:
            self.owner = client.post("/v1/users", json=user).json()["id"]
            self.token = client.post("/v1/users/login", json=user).json()["access_token"]

    def give_items(self, count: int, description_bytes: int) -> None:
        """Create items of the user, so that each file has several chunks."""
        made = (
            f"select gen_random_uuid(), '{self.owner}', 'item ' || n, repeat('x', "
            f"{description_bytes})"
        )
        self.stack.sql(
            f"insert into items (id, owner_id, name, description) {made} from "
            f"generate_series(1, {count}) n"
        )

    def ask(self, client: httpx2.Client) -> str:
        """Request an export; return its id, or "" after recording the failure."""
        try:
            answer = client.post("/v1/exports", headers={"Authorization": f"Bearer {self.token}"})
        except httpx2.HTTPError as error:
            self.failures.append(f"{type(error).__name__} {error}")
            return ""
        if answer.status_code != 202:
            self.failures.append(f"{answer.status_code} {answer.text[:200]}")
            return ""
        self.acknowledged.append(str(answer.json()["id"]))
        return self.acknowledged[-1]

    @contextmanager
    def streaming(self, rate: float) -> Iterator[None]:
        """Request `rate` exports a second while the block runs."""
        stopping = threading.Event()

        def stream() -> None:
            started, count = time.monotonic(), 0
            with self.stack.client(timeout=30) as client:
                while not stopping.is_set():
                    self.ask(client)
                    count += 1
                    stopping.wait(max(0.0, started + count / rate - time.monotonic()))

        thread = threading.Thread(target=stream)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join(60)
        assert not thread.is_alive(), "the stream did not end"

    def events(self, export: str, kind: str) -> int:
        """Return the number of events of a kind that the job of an export has."""
        of_job = f"job_id in (select id from {EXPORT_JOBS} = '{export}')"
        return int(
            self.stack.sql(
                f"select count(*) from procrastinate_events where type = '{kind}' and {of_job}"
            )
        )

    def wait_until_done(self, seconds: float) -> float:
        """Wait until no export and no job is pending; return the seconds that this took."""
        exports = (
            f"select count(*) from exports where owner_id = '{self.owner}' and status = 'pending'"
        )
        waits = "task_name = 'exports.write' and status in ('todo', 'doing')"
        jobs = f"select count(*) from procrastinate_jobs where {waits}"
        left = f"select ({exports}) + ({jobs})"
        return wait_until(
            lambda: self.stack.sql(left) == "0", seconds, "every export is done", every=0.5
        )

    def lost_and_doubled(self) -> tuple[list[str], list[str]]:
        """Return the exports that never finished, and those that finished twice.

        Committed exports count even if no client got the answer. A file whose size differs from
        its row counts as doubled.
        """
        listing = self.stack.sql(
            "select e.id, e.status, (select count(*) from finished_log f where f.export_id = e.id),"
            " (select sum(length(c.content)) from export_chunks c where c.export_id = "
            "e.id) = e.size_bytes"
            f" from exports e where e.owner_id = '{self.owner}'"
        )
        rows = {line.split("|")[0]: line.split("|")[1:] for line in listing.splitlines()}
        lost = [export for export in self.acknowledged if export not in rows]
        lost += [
            export
            for export, (status, count, _) in rows.items()
            if status != "finished" or count == "0"
        ]
        doubled = [
            export
            for export, (_, count, is_whole) in rows.items()
            if int(count) > 1 or is_whole != "t"
        ]
        return lost, doubled
