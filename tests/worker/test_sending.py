"""Sends attempts to real servers: signature, TLS, redirects, bodies, limits, circuits."""

import asyncio
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from api.webhooks.service import new_secret
from api.webhooks.targets import Rules
from tests.receiver import Receiver
from worker.webhooks import circuits, sending
from worker.webhooks.circuits import FAILURES_TO_OPEN, OPEN_SECONDS, Circuits
from worker.webhooks.sending import RESPONSE_BYTES, Outcome, Sender, message, signature

EVENT = UUID("01a1fc8c-5689-7dc3-bb7b-ec8cfff8f278")
BODY = message("item.created", "2026-11-21T05:00:00+00:00", {"id": "1", "name": "Seil ä"})
SECRET = new_secret()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost and no other name."""
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    argv = ["openssl", "req", "-x509", *kind, *subject, "-keyout", str(key), "-out", str(chain)]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    return chain, key


@pytest.fixture
def receiver(certificate: tuple[Path, Path]) -> Iterator[Receiver]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    made = Receiver("127.0.0.1", tls=tls)
    yield made
    made.close()


def sender(
    port: int, certificate: tuple[Path, Path] | None = None, clock: Clock | None = None
) -> Sender:
    rules = Rules(frozenset({port}), (ip_network("127.0.0.0/8"),), allows_http=True)
    trust = ssl.create_default_context(cafile=str(certificate[0])) if certificate else None
    return Sender(rules, Circuits(clock or Clock()), trust)


def send(webhook_sender: Sender, url: str, *secrets: str) -> Outcome:
    return asyncio.run(webhook_sender.send(url, secrets or (SECRET,), EVENT, BODY))


def test_the_signature_is_that_of_the_specification() -> None:
    """The values are the example in the libraries of Standard Webhooks."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    key = "msg_p5jXN8AQM9LWM0D4loKWxJek"
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(secret, key, 1614265330, body) == expected


def test_a_signed_event_arrives_under_the_host_s_name(
    receiver: Receiver, certificate: tuple[Path, Path]
) -> None:
    other = new_secret()
    outcome = send(
        sender(receiver.port, certificate),
        f"https://localhost:{receiver.port}/a?b=c",
        SECRET,
        other,
    )
    assert outcome == Outcome(204)
    (got,) = receiver.received
    assert got.body == BODY
    assert got.event["data"]["name"] == "Seil ä"
    assert (got.headers["host"], got.headers[":path"]) == (f"localhost:{receiver.port}", "/a?b=c")
    assert got.headers["content-type"] == "application/json"
    assert got.is_signed_by(SECRET)
    assert got.is_signed_by(other)
    assert not got.is_signed_by(new_secret())


def test_a_certificate_of_nobody_s_is_refused_before_anything_is_sent(receiver: Receiver) -> None:
    outcome = send(sender(receiver.port), f"https://localhost:{receiver.port}/")
    assert outcome.error is not None
    assert "certificate is not valid" in outcome.error
    assert receiver.received == []


def test_a_certificate_for_another_name_is_refused(
    receiver: Receiver, certificate: tuple[Path, Path]
) -> None:
    """A connection to an address must not make every server at that address trusted."""
    outcome = send(sender(receiver.port, certificate), f"https://127.0.0.1:{receiver.port}/")
    assert outcome.error is not None
    assert "certificate is not valid" in outcome.error
    assert receiver.received == []


def test_a_redirect_is_not_followed(receiver: Receiver, certificate: tuple[Path, Path]) -> None:
    receiver.answer = lambda _: 302
    outcome = send(sender(receiver.port, certificate), f"https://localhost:{receiver.port}/")
    assert (outcome.status_code, outcome.error) == (302, "status 302, not followed")
    assert [request.headers[":path"] for request in receiver.received] == ["/"]


def test_of_a_long_refusal_the_beginning_is_kept(
    receiver: Receiver, certificate: tuple[Path, Path]
) -> None:
    receiver.answer, receiver.body = lambda _: 500, b"\0\xff" + b"x" * 5_000_000
    outcome = send(sender(receiver.port, certificate), f"https://localhost:{receiver.port}/")
    assert outcome.status_code == 500
    assert not outcome.is_delivered
    assert outcome.response == "\ufffd" + "x" * (RESPONSE_BYTES - 2)


@pytest.mark.parametrize(
    ("status", "is_gone"), [(200, False), (410, True), (400, False), (503, False)]
)
def test_only_2xx_is_a_success_and_only_410_an_end(
    receiver: Receiver, certificate: tuple[Path, Path], status: int, is_gone: bool
) -> None:
    receiver.answer = lambda _: status
    outcome = send(sender(receiver.port, certificate), f"https://localhost:{receiver.port}/")
    assert (outcome.is_delivered, outcome.is_gone, outcome.status_code) == (
        status == 200,
        is_gone,
        status,
    )


def drip(listener: socket.socket) -> None:
    """Answer one byte at a time, so that no single read takes long."""
    connection, _ = listener.accept()
    with connection, suppress(OSError):
        connection.sendall(b"HTTP/1.1 500 x\r\nX: ")
        for _ in range(1200):  # a minute
            connection.sendall(b"x")
            time.sleep(0.05)


def test_an_attempt_has_a_time_limit_however_slowly_the_receiver_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "TOTAL_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        started = time.monotonic()
        outcome = send(sender(port), f"http://127.0.0.1:{port}/")
    assert time.monotonic() - started < 30
    assert outcome.error is not None
    assert outcome.error.startswith("no answer: not within")


def test_the_proxies_of_the_environment_are_not_asked(
    receiver: Receiver, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert send(
        sender(receiver.port, certificate), f"https://localhost:{receiver.port}/"
    ).is_delivered


def test_an_address_that_is_not_allowed_any_more_is_refused_before_connecting(
    receiver: Receiver,
) -> None:
    stricter = Sender(Rules(frozenset({receiver.port}), (), allows_http=False), Circuits())
    outcome = send(stricter, f"https://localhost:{receiver.port}/")
    assert outcome == Outcome(error="refused: the host has no public address")
    assert (
        send(stricter, "https://localhost:22/").error
        == f"refused: the port must be one of {receiver.port}"
    )


def test_a_dead_host_is_left_alone_and_closes_its_circuit_when_it_answers(
    receiver: Receiver, certificate: tuple[Path, Path]
) -> None:
    clock = Clock()
    webhook_sender = sender(receiver.port, certificate, clock)
    url, dead = (
        f"https://localhost:{receiver.port}/",
        f"http://localhost:{receiver.port}/",
    )  # plain text to a TLS port
    opened = REGISTRY.get_sample_value("slipway_webhook_circuit_opened_total") or 0
    for _ in range(FAILURES_TO_OPEN):
        assert (send(webhook_sender, dead).error or "").startswith("no answer")
    assert REGISTRY.get_sample_value("slipway_webhook_circuit_opened_total") == opened + 1
    assert REGISTRY.get_sample_value("slipway_webhook_circuits_open") == 1
    assert "no attempts" in (send(webhook_sender, url).error or "")
    clock.now += OPEN_SECONDS
    assert (send(webhook_sender, dead).error or "").startswith("no answer"), "one attempt is sent"
    assert "no attempts" in (send(webhook_sender, url).error or ""), (
        "the failure of that attempt opens the circuit again"
    )
    clock.now += OPEN_SECONDS
    assert send(webhook_sender, url).is_delivered
    assert send(webhook_sender, url).is_delivered
    assert REGISTRY.get_sample_value("slipway_webhook_circuits_open") == 0
    assert len(receiver.received) == 2


def test_of_an_open_circuit_one_alone_is_let_through() -> None:
    clock = Clock()
    known = Circuits(clock)
    for _ in range(FAILURES_TO_OPEN):
        known.gave_no_answer("a:443")
    clock.now += OPEN_SECONDS
    assert [known.lets_through("a:443") for _ in range(3)] == [True, False, False]
    assert known.lets_through("b:443")
    clock.now += circuits.FORGET_SECONDS + 2 * OPEN_SECONDS
    known.gave_no_answer("b:443")
    assert list(known._failing) == ["b:443"], "the circuits of unused hosts are removed"
