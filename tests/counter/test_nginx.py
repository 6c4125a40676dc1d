"""A real nginx with the product's configuration feeds the counter, and never depends on it."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h2.connection
import h2.events
import yaml

from tests.counter.processes import ROOT, Counter, Edge, wait_until

# The first report may include the request for nginx' number, and two later reports may not
# (counter/losses.py).
SKEW = 1


def reported(edge: Edge, counter: Counter, query: str = "") -> dict[str, Any]:
    """Return the counts after a report of nginx' own number of requests."""
    status, text = counter.ask("POST", f"/counts{query}", edge.inside("/status"))
    assert status == 200, text
    answer: dict[str, Any] = json.loads(text)
    return answer


@contextmanager
def hanging(counter: Counter) -> Iterator[None]:
    """Stop the process of a counter while the block runs: its queue fills up."""
    assert counter.process
    counter.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        counter.process.send_signal(signal.SIGCONT)


def answers(counts: dict[str, Any]) -> dict[str, int]:
    return {slot: tally["answers"] for slot, tally in counts["slots"].items()}


def test_each_request_counts_for_who_answered_it(edge: Edge, fed: Counter) -> None:
    edge.slots["blue"].statuses = {"/broken": 500, "/gone": 0}
    got = [edge.ask(path) for path in ("/a", "/broken", "/gone", "/metrics")]
    assert got == [200, 500, 502, 404]
    edge.make_live("green")
    wait_until(lambda: edge.ask("/a") == 200, "green answers")
    counts = reported(edge, fed)
    assert counts["malformed"] == 0
    assert answers(counts) == {"blue": 2, "green": 1, "unnamed": 1, "nginx": 1}
    assert counts["slots"]["blue"]["errors"] == 1
    assert counts["slots"]["unnamed"]["errors"] == 1
    assert counts["slots"]["nginx"]["errors"] == 0


def test_nothing_is_lost_whatever_a_client_sends(edge: Edge, fed: Counter) -> None:
    first = reported(edge, fed)
    for content in (b"GET / HTTP/3.0\r\n\r\n", b"rubbish\r\n\r\n", b"GET / HT", b"\r\n"):
        edge.send(content)
    pair = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
    edge.send(pair + pair)
    edge.inside("/readyz", 8083)
    edge.inside("/metrics", 8084)

    def is_complete() -> bool:
        last = reported(edge, fed)
        assert last["lost"] <= SKEW
        return bool(last["received"] >= first["received"] + 8)

    wait_until(is_complete, "every request has arrived")


def reset_streams(edge: Edge, count: int) -> None:
    """Send requests over HTTP/2; the client resets every second request at once."""
    context = edge.tls()
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", edge.ports[8443]), 10)
    with context.wrap_socket(plain, server_hostname="localhost") as connection:
        client = h2.connection.H2Connection()
        client.initiate_connection()
        for number in range(count):
            stream = client.get_next_available_stream_id()
            path = "/broken" if number == 0 else "/slow"
            head = {":method": "GET", ":path": path, ":scheme": "https", ":authority": "localhost"}
            client.send_headers(stream, list(head.items()), end_stream=True)
            if number % 2:
                client.reset_stream(stream)
        connection.sendall(client.data_to_send())
        ended = 0
        while ended < count - count // 2:
            events = client.receive_data(connection.recv(65536))
            ended += sum(isinstance(event, h2.events.StreamEnded) for event in events)
            connection.sendall(client.data_to_send())


def test_streams_that_a_client_resets_are_counted_and_no_errors(edge: Edge, fed: Counter) -> None:
    edge.slots["blue"].delays["/slow"] = 0.3
    edge.slots["blue"].statuses["/broken"] = 500
    first = reported(edge, fed)
    reset_streams(edge, 20)
    last = reported(edge, fed)
    assert last["lost"] <= first["lost"] + SKEW
    assert (last["slots"]["blue"]["answers"], last["slots"]["blue"]["errors"]) == (10, 1)
    assert (last["slots"]["unnamed"]["errors"], last["slots"]["nginx"]["errors"]) == (0, 0)
    assert sum(answers(last).values()) == 20


def test_requests_from_inside_nginx_container_are_no_traffic(edge: Edge, fed: Counter) -> None:
    edge.inside("/readyz", 8083)
    edge.inside("/readyz", 8084)
    counts = reported(edge, fed)
    assert answers(counts) == {"blue": 0, "green": 0, "unnamed": 0, "nginx": 0}
    assert counts["received"] >= 2


def test_what_was_not_counted_is_lost(edge: Edge, fed: Counter) -> None:
    base = reported(edge, fed)
    fed.kill()
    for _ in range(5):
        assert edge.ask("/a") == 200
    fed.start()
    # The new counter does not know nginx' former number; its time of start shows that it restarted.
    assert reported(edge, fed)["started"] > base["started"]
    for _ in range(5):
        edge.ask("/a")
    assert (
        reported(edge, fed)["lost"] <= 2 + SKEW
    )  # a worker of nginx detects the restart when it sends a datagram


def test_nginx_starts_and_serves_without_a_counter(edge: Edge) -> None:
    assert [edge.ask("/a") for _ in range(20)] == [200] * 20
    log = edge.errors.read_text(encoding="utf-8")
    assert "connect() failed (2: No such file or directory)" in log
    assert "[warn]" not in log


def test_a_counter_that_hangs_delays_nobody(edge: Edge, fed: Counter) -> None:
    reported(edge, fed)
    with hanging(fed):
        assert [edge.ask(f"/{number}") for number in range(60)] == [200] * 60

    def is_complete() -> bool:
        counts = reported(edge, fed)
        is_whole = 60 <= counts["lost"] + answers(counts)["blue"] <= 60 + SKEW
        return bool(counts["lost"]) and is_whole

    wait_until(is_complete, "each request is counted or lost")


def test_nginx_finds_a_counter_that_starts_later_and_one_that_restarts(
    edge: Edge, short_path: Path
) -> None:
    edge.ask("/a")
    counter = Counter(edge.folder / "counter")
    for _ in range(2):
        counter.start()
        try:
            for number in range(8):  # each worker of nginx loses at most one
                edge.ask(f"/{number}")
            assert answers(reported(edge, counter))["blue"] >= 6
        finally:
            counter.kill()


def test_the_configuration_needs_no_counter_to_be_valid(edge: Edge) -> None:
    tested = edge.run("test")
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" not in tested.stderr


def test_a_reload_loses_no_count(edge: Edge, fed: Counter) -> None:
    first = reported(edge, fed)
    for _ in range(3):
        assert edge.run("reload").returncode == 0
        for number in range(10):
            assert edge.ask(f"/{number}") == 200
    last = reported(edge, fed)
    assert last["lost"] <= first["lost"] + SKEW
    assert answers(last)["blue"] == 30


def test_a_client_cannot_mark_its_requests_as_the_watch_s(edge: Edge, fed: Counter) -> None:
    name = reported(edge, fed, "?begin=60&slot=blue")["period"]["name"]
    for mark in ("0" * 32, "x" * 32, name[:-1], ""):
        edge.ask("/a", X_Slipway_Watch=mark)
    edge.ask("/a", X_Slipway_Watch=name)
    period = reported(edge, fed, f"?period={name}")["period"]
    assert (period["own"], period["answers"]) == (1, 4)


def test_a_slow_client_does_not_make_the_slot_slow(edge: Edge, fed: Counter) -> None:
    body = b"POST /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    with edge.connect() as connection:
        connection.sendall(body)
        wait_until(lambda: "Reading: 0" in edge.inside("/status"), "the head has arrived")
        subprocess.run(["sleep", "1.2"], check=True)
        connection.sendall(b"{}")
        assert b" 200 " in connection.makefile("rb").readline()
    buckets = reported(edge, fed)["slots"]["blue"]["buckets"]
    assert sum(buckets[:15]) == 1  # below 0.9 s


def test_the_latency_is_the_slot_s(edge: Edge, fed: Counter) -> None:
    edge.slots["blue"].delays["/slow"] = 1.2
    edge.ask("/slow")
    buckets = reported(edge, fed)["slots"]["blue"]["buckets"]
    assert sum(buckets[16:]) == 1  # 0.9 s and more


def test_metrics_can_be_read_through_nginx_from_inside_alone(edge: Edge, fed: Counter) -> None:
    edge.ask("/a")
    text = edge.inside("/metrics")
    assert 'slipway_requests_total{slot="blue",status="2xx"} 1' in text
    assert edge.ask("/metrics") == 404


def health_check() -> str:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    kind, words = compose["services"]["nginx"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    return str(words)


def test_the_health_check_reports_to_the_counter_and_does_not_need_it(
    edge: Edge, fed: Counter
) -> None:
    check = ["sh", "-c", edge.translate(health_check())]
    assert subprocess.run(check, check=False).returncode == 0
    with hanging(fed):
        for _ in range(60):
            edge.ask("/a")
        assert subprocess.run(check, check=False).returncode == 0
    for _ in range(2):
        assert subprocess.run(check, check=False).returncode == 0
    metrics = fed.ask("GET", "/metrics")[1]
    assert re.search(r"^slipway_datagrams_lost_total [1-9]\d*$", metrics, re.MULTILINE)
    fed.kill()
    assert subprocess.run(check, check=False).returncode == 0
    edge.stop()
    assert subprocess.run(check, check=False, stderr=subprocess.DEVNULL).returncode == 1
