"""The counter as a process: its sockets, its answers, its end and its bounds."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from counter.counts import MOST_PERIODS
from counter.periods import MOST_PAIRS
from tests.conftest import Figure
from tests.counter.processes import ROOT, Counter, datagram, stub_status

MOST_BYTES = 40 * 1024**2  # mem_limit in compose.yaml


def memory_bytes(counter: Counter) -> int:
    """Return the most memory that the process has used."""
    assert counter.process
    status = Path(f"/proc/{counter.process.pid}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_an_answer_includes_every_datagram_that_came_before_it(counter: Counter) -> None:
    for number in range(1, 6):
        counter.send(*[datagram()] * 7)
        assert counter.counts()["slots"]["blue"]["answers"] == 7 * number


def test_slots_classes_and_latency_are_counted_apart(counter: Counter) -> None:
    counter.send(
        datagram("blue", 204),
        datagram("green", 404),
        datagram("green", 503),
        datagram("red", 502),
        datagram("", 429),
        datagram("", 501),
    )
    metrics = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(counter.ask("GET", "/metrics")[1])
        for sample in family.samples
    }
    requests = {key[1:]: number for key, number in metrics.items() if "requests" in key[0]}
    assert {key for key, number in requests.items() if number} == {
        ("blue", "2xx"),
        ("green", "4xx"),
        ("green", "5xx"),
        ("unnamed", "5xx"),
        ("nginx", "4xx"),
        ("nginx", "5xx"),
    }
    assert len(requests) == 4 * 5
    assert metrics["slipway_answer_seconds_count", "green"] == 2
    assert metrics["slipway_answer_seconds_bucket", "green", "0.007"] == 0
    assert metrics["slipway_answer_seconds_bucket", "green", "0.01"] == 2
    assert metrics["slipway_answer_seconds_bucket", "green", "+Inf"] == 2
    assert metrics["slipway_answer_seconds_sum", "green"] == pytest.approx(0.02)
    assert metrics["slipway_datagrams_received_total",] == 6


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 2000,
        b"<190>Nov 29 12:25:31 nginx: public\tblue",
        datagram().replace(b"200", b"2000"),
        datagram().replace(b"\t200\t", b"\t-\t", 1),
        datagram() + b"\tmore",
        "<190>Nov 29 12:25:31 nginx: \u00fc\t".encode() * 9,
    ],
)
def test_a_datagram_of_another_form_is_counted_as_such(counter: Counter, content: bytes) -> None:
    counter.send(content, datagram())
    counts = counter.counts()
    assert (counts["received"], counts["malformed"]) == (2, 1)
    assert counts["slots"]["blue"]["answers"] == 1


def test_a_path_that_is_cut_off_counts(counter: Counter) -> None:
    counter.send(datagram(path="/" + "a" * 8000))
    assert counter.counts()["slots"]["blue"]["answers"] == 1


def test_the_last_minute_forgets(counter: Counter) -> None:
    counter.send(datagram(), datagram(status=500))
    assert counter.counts()["last_minute"]["blue"]["answers"] == 2
    assert counter.counts()["last_minute"]["blue"]["errors"] == 1
    assert counter.counts()["last_minute"]["green"]["answers"] == 0


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("GET", "/healthz", "", 200),
        ("GET", "/counts", "", 405),
        ("POST", "/counts", "", 400),
        ("POST", "/counts", "requests 7", 400),
        ("POST", "/counts?begin=5&slot=red", stub_status(1), 400),
        ("POST", "/counts?begin=x&slot=blue", stub_status(1), 400),
        ("POST", "/counts?begin=inf&slot=blue", stub_status(1), 400),
        ("POST", "/counts?begin=nan&slot=blue", stub_status(1), 400),
        ("POST", "/counts?period=unknown", stub_status(1), 410),
        ("GET", "/", "", 404),
    ],
)
def test_a_wrong_question_is_refused(
    counter: Counter, method: str, target: str, body: str, status: int
) -> None:
    assert counter.ask(method, target, body)[0] == status


@pytest.mark.parametrize("content", [b"", b"x", b"\r\n\r\n", b"POST /counts HTTP/1.1\r\n"])
def test_a_peer_that_sends_rubbish_or_nothing_stops_nobody(
    counter: Counter, content: bytes
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(str(counter.answers))
        peer.sendall(content)
        assert counter.ask("GET", "/healthz")[0] == 200
        peer.settimeout(10)
        assert peer.recv(100) == b""  # the counter closes the connection after two seconds


def test_the_sockets_are_for_the_group_alone(counter: Counter) -> None:
    for path in (counter.requests, counter.answers):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_it_ends_at_sigterm_and_starts_over_what_a_kill_left(counter: Counter) -> None:
    name = counter.counts("?begin=60&slot=blue")["period"]["name"]
    assert counter.stop() == 0
    counter.start()
    assert counter.ask("POST", f"/counts?period={name}", stub_status(1))[0] == 410
    counter.kill()
    counter.start()
    counter.send(datagram())
    assert counter.counts()["received"] == 1


def test_the_health_check_asks_the_process(counter: Counter) -> None:
    check = [sys.executable, "-I", "-S", str(ROOT / "counter/health.py"), str(counter.answers)]
    assert subprocess.run(check, check=False).returncode == 0
    counter.kill()
    ended = subprocess.run(check, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "refused" in ended.stdout


def test_what_is_lost_is_known_and_a_restart_of_nginx_is_no_loss(counter: Counter) -> None:
    assert counter.counts(requests=1000)["lost"] == 0  # it may have started after nginx
    counter.send(*[datagram()] * 10)
    assert counter.counts(requests=1010)["lost"] == 0
    counter.send(*[datagram()] * 10)
    assert counter.counts(requests=1025)["lost"] == 0
    assert counter.counts(requests=1025)["lost"] == 5  # the second report in a row
    assert counter.ask("POST", "/counts", stub_status(1028, writing=3))[0] == 200
    assert counter.counts(requests=1025)["lost"] == 5
    counter.send(*[datagram()] * 3)
    assert counter.counts(requests=3)["lost"] == 5  # nginx has restarted
    assert [counter.counts(requests=7)["lost"] for _ in range(2)] == [5, 9]
    assert counter.counts(requests=6)["lost"] == 9  # nginx changes its numbers one by one
    assert [counter.counts(requests=9)["lost"] for _ in range(2)] == [9, 11]
    assert "slipway_datagrams_lost_total 11\n" in counter.ask("GET", "/metrics")[1]


def test_a_datagram_that_is_late_in_one_report_is_not_lost(counter: Counter) -> None:
    counter.send(datagram())
    counter.counts(requests=1000)
    assert counter.counts(requests=1001)["lost"] == 0
    counter.send(datagram())
    assert counter.counts(requests=1001)["lost"] == 0
    assert counter.counts(requests=1001)["lost"] == 0


def test_an_abuser_with_many_addresses_and_paths_does_not_grow_it(
    counter: Counter, figure: Figure
) -> None:
    names = [counter.counts("?begin=60&slot=blue")["period"]["name"] for _ in range(MOST_PERIODS)]
    before = memory_bytes(counter)
    for number in range(8000):
        client = f"10.{number // 250}.{number % 250}.1"
        word = "".join("abcdefghij"[int(digit)] for digit in str(number))
        counter.send(datagram(status=500, client=client, path=f"/{word}/{word}" + "x" * 20))
    periods = [counter.counts(f"?period={name}")["period"] for name in names]
    assert [period["answers"] for period in periods] == [8000] * MOST_PERIODS
    assert {period["pairs"] for period in periods} == {MOST_PAIRS + 1}  # the rest counts as one
    figure(f"counter: {memory_bytes(counter) / 1e6:.0f} MB with all tables full")
    assert memory_bytes(counter) - before < 16 * 1024**2
    assert memory_bytes(counter) < 0.8 * MOST_BYTES


def test_no_address_is_in_its_memory_after_a_period(counter: Counter) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may read the memory of a process")
    name = counter.counts("?begin=60&slot=blue")["period"]["name"]
    address = ".".join(str(part) for part in (203, 0, 113, 77))
    counter.send(*[datagram(client=address, status=500)] * 3)
    assert counter.counts(f"?period={name}")["period"]["addresses"] == 1
    counter.counts(f"?period={name}&end=")
    counter.send(*[datagram(client="192.0.2.9")] * 5)  # later datagrams take the same memory
    counter.counts()
    assert counter.process
    assert address.encode() not in _heap(counter.process.pid)


def _heap(process: int) -> bytes:
    """Return the writable memory of a process."""
    maps = Path(f"/proc/{process}/maps").read_text(encoding="ascii").splitlines()
    content = b""
    with Path(f"/proc/{process}/mem").open("rb", 0) as memory:
        for line in maps:
            place, rights, *_, name = [*line.split(), ""]
            if not rights.startswith("rw") or name.startswith(("[v", "/")):
                continue
            start, end = (int(text, 16) for text in place.split("-"))
            memory.seek(start)
            content += memory.read(end - start)
    return content
