"""Injects faults around the live API, from the host, and removes them."""

import collections
import contextlib
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from tests.stack.harness import Stack, wait_until
from tests.stack.load import MOST_AT_ONCE, Load, Report
from tests.stack.processes import children

API_SESSIONS = "from pg_stat_activity where application_name = 'slipway.api.blue'"
TAKEN = "from pg_stat_activity where usename = 'slipway' and application_name = ''"
DATABASE_AWAY = re.compile(r'(GET|POST) 503 {"error": "database_unavailable"')
ROOM_SECONDS = 0.7  # added to a promised limit, because the load shares the two cores


def probing_load(stack: Stack, rate: int = 15) -> Load:
    """Return a load whose client never waits for a connection: it measures only the server."""
    return Load(stack, rate=rate, connections=MOST_AT_ONCE, reads_rows=True)


def in_network_of(stack: Stack, service: str, *argv: str) -> str:
    """Run a program of the host in the network of a container."""
    pid = stack.host_pid(service)
    return stack.run("nsenter", f"--net=/proc/{pid}/ns/net", *argv).stdout


@contextmanager
def packet_rules(stack: Stack, *rules: str) -> Iterator[None]:
    """Apply iptables rules in the API's network; check that each rule matched a packet."""
    for rule in rules:
        in_network_of(stack, "api-blue", "iptables", "--wait", "--append", *rule.split())
    try:
        yield
        listing = in_network_of(stack, "api-blue", "iptables", "--wait", "-nvxL")
        counts = [
            int(line.split()[0])
            for line in listing.splitlines()
            if line.split()[:1] and line.split()[0].isdigit()
        ]
        assert len(counts) == len(rules)
        assert all(counts), f"a rule matched no packet:\n{listing}"
    finally:
        in_network_of(stack, "api-blue", "iptables", "--wait", "--flush")


@contextmanager
def narrow_network(stack: Stack) -> Iterator[None]:
    """Limit the traffic from the API to Postgres and Redis to 64 kbit/s, with a queue of 400 ms."""
    address = stack.compose("exec", "--no-TTY", "api-blue", "getent", "hosts", "postgres").split()[
        0
    ]
    device = (
        in_network_of(stack, "api-blue", "ip", "route", "get", address).split(" dev ")[1].split()[0]
    )
    queue = ["root", "tbf", "rate", "64kbit", "burst", "2kb", "latency", "400ms"]
    in_network_of(stack, "api-blue", "tc", "qdisc", "add", "dev", device, *queue)
    try:
        yield
    finally:
        in_network_of(stack, "api-blue", "tc", "qdisc", "del", "dev", device, "root")


def end_sessions(stack: Stack) -> None:
    """Make Postgres and Redis close the API's connections, so that the API opens new ones."""
    stack.sql(f"select pg_terminate_backend(pid) {API_SESSIONS}")
    stack.redis("client", "kill", "type", "normal", "skipme", "yes")


TAKER = """
import signal, time, psycopg
password = open("/run/secrets/database_password").read().strip()
held, told = [], []
signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
# Until SIGUSR1 arrives, also take the connections that others release.
while not told:
    try:
        options = {"host": "postgres", "dbname": "slipway", "user": "slipway"}
        held.append(psycopg.connect(**options, password=password))
    except psycopg.OperationalError:
        time.sleep(0.01)
print("held", flush=True)
time.sleep(120)
"""


def take_all_connections(stack: Stack) -> str:
    """Start a container that opens connections until SIGUSR1 and keeps them; return its id."""
    argv = ["run", "--detach", "--rm", "--no-deps", "migrate", "python", "-c", TAKER]
    taker = stack.run("docker", "compose", *argv, MIGRATE_TAG="blue").stdout.strip()

    def is_taken() -> bool:
        stack.sql(f"select pg_terminate_backend(pid) {API_SESSIONS}")
        return (
            int(stack.sql(f"select count(*) {TAKEN}")) > 40
            and stack.sql(f"select count(*) {API_SESSIONS}") == "0"
        )

    wait_until(is_taken, 60, "every connection is taken, those of the API included", every=0.3)
    return taker


@contextmanager
def all_connections_taken(stack: Stack) -> Iterator[None]:
    """Leave the application no connection while the block runs."""
    taker = take_all_connections(stack)
    try:
        yield
    finally:
        stack.run("docker", "rm", "--force", taker)


def fail_one_fsync(stack: Stack, seconds: float) -> str:
    """Fail the next fdatasync of each process of Postgres with EIO; return the trace of the first.

    Processes that start later are not affected: the fault is over for them.
    """
    postmaster = stack.host_pid("postgres")
    sessions = children(postmaster)
    attach = [word for pid in sessions for word in ("--attach", str(pid))]
    inject = [
        "strace",
        "--quiet=all",
        "--trace=fdatasync",
        "--inject=fdatasync:error=EIO:when=1",
        *attach,
    ]
    with subprocess.Popen(inject, stderr=subprocess.PIPE, text=True) as injection:

        def have_ended() -> bool:
            with contextlib.suppress(httpx2.HTTPError), stack.client(timeout=5) as client:
                client.post(
                    "/v1/users",
                    json={"email": f"{uuid.uuid4().hex}@example.com", "password": "long enough 1"},
                )
            return not sessions & children(postmaster)

        wait_until(have_ended, seconds, "Postgres has ended its processes", every=0.02)
        return injection.communicate(timeout=10)[1]


def heal(stack: Stack, load: Load, seconds: float) -> float:
    """Wait until requests succeed after a fault; return the seconds until the last failure."""
    ended = time.monotonic() - load._started
    failures = load.report.failures

    def last() -> float:
        return max(ended, load.report.last_failure)

    wait_until(stack.is_serving, seconds, "the front door is ready again", every=0.05)
    wait_until(
        lambda: time.monotonic() - load._started > last() + 1, seconds, "a second without failures"
    )
    good, known = len(load.report.latencies), len(failures)
    wait_until(lambda: len(load.report.latencies) > good + 20, 30, "requests succeed again")
    assert len(failures) == known, f"requests still fail: {failures[known:]}"
    return last() - ended


def unexpected(report: Report) -> list[str]:
    """Return the failures other than the 503 of an unavailable database."""
    return [what for _, what in report.failures if not DATABASE_AWAY.match(what)]


def status(stack: Stack, path: str) -> tuple[int, float]:
    """Send a request on a new connection; return the status and the seconds it took."""
    with stack.client(timeout=30) as client:
        answer = client.get(path)
        return answer.status_code, answer.elapsed.total_seconds()


def kinds(report: Report) -> dict[str, int]:
    """Return the number of failed requests, by the kind of failure."""
    return dict(collections.Counter(re.sub(r'"message.*', "", what) for _, what in report.failures))


def assert_nothing_is_leaked(stack: Stack) -> None:
    """Check that no connection of a pool and no session of Postgres is leaked."""
    wait_until(
        lambda: stack.metrics()["slipway_database_pool_in_use"] == 0,
        30,
        "every connection is back in its pool",
    )
    left = f"select count(*), count(*) filter (where state <> 'idle') {API_SESSIONS}"
    size = int(stack.metrics()["slipway_database_pool_size"])
    try:
        wait_until(
            lambda: sessions_fit(stack.sql(left), size),
            60,
            "Postgres has ended the interrupted statements",
        )
    except AssertionError:
        print(
            stack.sql(
                f"select pid, state, wait_event, backend_start, state_change, query {API_SESSIONS}"
            ),
            size,
        )
        raise


def sessions_fit(row: str, most: int) -> bool:
    sessions, busy = (int(number) for number in row.split("|"))
    return sessions <= most and busy == 0
