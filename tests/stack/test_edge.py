"""nginx's own answers have the API's error format, and no client can break nginx."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.contracts import nginx_files
from tests.stack.harness import Stack, wait_until
from tests.stack.processes import api_processes

pytestmark = pytest.mark.stack
HOST = b"Host: localhost\r\n"
POST = b"POST /v1/items HTTP/1.1\r\n" + HOST
BODY_BYTES = 1024 * 1024
KEPT_BACK_BYTES = 1024
STALL_SECONDS = 10  # client_header_timeout and client_body_timeout in nginx/conf.d/20-limits.conf


@contextlib.contextmanager
def connected(
    stack: Stack, port: str = "HTTPS_PORT", *, tls: bool = True
) -> Iterator[socket.socket]:
    """Yield a raw connection to the front door, for exact bytes."""
    with socket.create_connection(
        ("127.0.0.1", int(stack.environment[port])), STALL_SECONDS + 10
    ) as plain:
        if not tls:
            yield plain
            return
        with stack.tls.wrap_socket(plain, server_hostname=stack.host) as secure:
            yield secure


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def answer(connection: socket.socket) -> Answer:
    """Read an answer."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Answer(response.status, response.headers, response.read())


def rest(connection: socket.socket) -> bytes:
    """Read until the connection is closed or reset."""
    seen = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            seen += piece
    return seen


def check_form(got: Answer, status: int, error: str) -> None:
    body = json.loads(got.body)
    assert (got.status, body["error"]) == (status, error)
    assert set(body) == {"error", "message", "details", "request_id"}
    assert got.headers["content-type"] == "application/json"
    assert body["request_id"] == got.headers["x-request-id"]
    assert "strict-transport-security" in got.headers


REFUSED = {
    "a null byte in the address": (
        b"GET /%00?token=hidden HTTP/1.1\r\n" + HOST,
        400,
        "bad_request",
    ),
    "a broken escape in the address": (b"GET /%zz HTTP/1.1\r\n" + HOST, 400, "bad_request"),
    "a way out of the root": (b"GET /../../etc/passwd HTTP/1.1\r\n" + HOST, 400, "bad_request"),
    "an address of 40 kB": (
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n" + HOST,
        414,
        "uri_too_long",
    ),
    "a header of 9 kB": (
        b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 9000 + b"\r\n",
        431,
        "headers_too_large",
    ),
    "headers of 40 kB": (
        b"GET / HTTP/1.1\r\n" + HOST + (b"X: " + b"a" * 4000 + b"\r\n") * 10,
        431,
        "headers_too_large",
    ),
    "a body over the limit": (POST + b"Content-Length: 1048577\r\n", 413, "body_too_large"),
    "a body over that of a login": (
        POST.replace(b"/v1/items", b"/v1/users/login") + b"Content-Length: 8193\r\n",
        413,
        "body_too_large",
    ),
    "two hosts": (b"GET / HTTP/1.1\r\n" + HOST + HOST, 400, "bad_request"),
    "an unknown method": (b"FOO /v1/items HTTP/1.1\r\n" + HOST, 405, "method_not_allowed"),
    "TRACE": (b"TRACE /v1/items HTTP/1.1\r\n" + HOST, 405, "method_not_allowed"),
    "a method in lower case": (b"get / HTTP/1.1\r\n" + HOST, 400, "bad_request"),
    "a version to come": (b"GET / HTTP/3.0\r\n" + HOST, 505, "version_not_supported"),
    "an address of nginx's own": (b"GET /errors/400 HTTP/1.1\r\n" + HOST, 404, "not_found"),
    # Requests that a proxy and a server could parse differently, as one request or two.
    "a length and chunks": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        400,
        "bad_request",
    ),
    "chunks and a length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        400,
        "bad_request",
    ),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n", 400, "bad_request"),
    "one length twice": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n", 400, "bad_request"),
    "a negative length": (POST + b"Content-Length: -1\r\n", 400, "bad_request"),
    "a length with a sign": (POST + b"Content-Length: +5\r\n", 400, "bad_request"),
    "two codings": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        400,
        "bad_request",
    ),
    "an unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n", 501, "not_implemented"),
    "a list of codings": (
        POST + b"Transfer-Encoding: identity, chunked\r\n",
        501,
        "not_implemented",
    ),
    "a blank before the colon": (POST + b"Transfer-Encoding : chunked\r\n", 400, "bad_request"),
    "chunks in HTTP/1.0": (
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n",
        400,
        "bad_request",
    ),
    "a folded header": (POST + b"Transfer-Encoding:\r\n chunked\r\n", 400, "bad_request"),
    "a bare carriage return": (POST + b"X: a\rTransfer-Encoding: chunked\r\n", 400, "bad_request"),
    "a broken chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "bad_request"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nginx_refuses_has_the_one_form_and_harms_nobody(stack: Stack, name: str) -> None:
    sent, status, error = REFUSED[name]
    before = api_processes(stack)
    with connected(stack) as connection:
        connection.sendall(sent + b"\r\n")
        got = answer(connection)
    check_form(got, status, error)
    assert (got.headers["allow"] is not None) is (status == 405)
    assert api_processes(stack) == before


@pytest.mark.parametrize(
    ("line", "method", "path"),
    [
        (b"GET /%00?token=hidden HTTP/1.1", "GET", "/%00"),
        (b"FOO /v1/items?token=hidden HTTP/1.1", "FOO", "/v1/items"),
        (b"POST https://localhost/v1/items?token=hidden HTTP/1.1", "POST", "/v1/items"),
        (b"GET /v1/items#hidden HTTP/1.1", "GET", "/v1/items"),
    ],
)
def test_the_log_names_what_was_asked_for_and_no_query(
    stack: Stack, line: bytes, method: str, path: str
) -> None:
    with connected(stack) as connection:
        connection.sendall(line + b"\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
        request = answer(connection).headers["x-request-id"]
    found: list[str] = []

    def logged() -> bool:
        found[:] = stack.run(
            "./scripts/logs.sh", "nginx", "--request", request, check=False
        ).stdout.splitlines()
        return bool(found)

    wait_until(logged, 60, "nginx's line")
    entry = json.loads(found[0].partition("| ")[2])
    assert (entry["method"], entry["path"]) == (method, path)
    assert "hidden" not in found[0]


def test_lines_that_end_without_a_carriage_return_are_one_request(stack: Stack) -> None:
    """RFC 9112 allows these lines; nginx rewrites them, so that the API cannot misread them."""
    before = api_processes(stack)
    with connected(stack) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\nHost: localhost\nConnection: close\n\n")
        seen = rest(connection)
    assert seen.startswith(b"HTTP/1.1 200 ")
    assert seen.count(b"HTTP/1.1 ") == 1
    assert api_processes(stack) == before


def test_a_body_is_not_taken_for_the_next_request(stack: Stack) -> None:
    """A header that resembles Transfer-Encoding has no effect; Content-Length ends the body."""
    body = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = POST + b"Transfer_Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % len(body)
    with connected(stack) as connection:
        connection.sendall(
            head + body + b"GET /livez HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        )
        seen = rest(connection)
    assert [int(piece[:3]) for piece in seen.split(b"HTTP/1.1 ")[1:]] == [401, 200]


def test_plain_http_at_the_port_for_https_is_told_so(stack: Stack) -> None:
    with connected(stack, tls=False) as connection:
        connection.sendall(b"GET /v1/items HTTP/1.1\r\n" + HOST + b"\r\n")
        check_form(answer(connection), 400, "tls_required")


@pytest.mark.parametrize("port", ["HTTP_PORT", "HTTPS_PORT"])
@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /%00 HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: elsewhere.example\r\nContent-Length: 2000000\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: elsewhere.example\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: elsewhere.example\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: elsewhere.example\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n",
        b"SSH-2.0-client\r\n",
    ],
    ids=lambda sent: sent[:60].decode(),
)
def test_who_names_no_host_of_ours_gets_nothing(stack: Stack, port: str, sent: bytes) -> None:
    with connected(stack, port, tls=False) as connection:
        connection.sendall(sent)
        assert rest(connection) == b""


@pytest.mark.parametrize("host", [b"", b"Host: elsewhere.example\r\n"], ids=["none", "unknown"])
def test_the_name_in_the_handshake_does_not_stand_for_the_host(stack: Stack, host: bytes) -> None:
    with connected(stack) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + host + b"\r\n")
        assert rest(connection) == b""


def test_what_stops_half_way_is_closed_without_an_answer(stack: Stack) -> None:
    with connected(stack) as header, connected(stack) as body:
        header.sendall(b"GET / HTTP/1.1\r\n")
        body.sendall(POST + b"Content-Length: 5\r\n\r\nab")
        assert (rest(header), rest(body)) == (b"", b"")


def test_stalled_bodies_of_one_client_leave_room_for_those_of_others(stack: Stack) -> None:
    most = int(nginx_files.value("limit_conn", "conf.d/70-public.conf").split()[-1])
    head = POST + b"Content-Length: %d\r\n\r\n" % BODY_BYTES
    started = time.monotonic()
    with contextlib.ExitStack() as held:
        # The last bytes are never sent: nginx keeps each body until its timeout.
        stalled = [held.enter_context(connected(stack)) for _ in range(most)]
        for connection in stalled:
            connection.sendall(head + b"x" * (BODY_BYTES - KEPT_BACK_BYTES))
        used = ["exec", "--no-TTY", "nginx", "df", "--output=used", "/tmp"]

        def are_held() -> bool:
            for connection in stalled:
                connection.sendall(b"x")  # restarts the timeout of each body
            # In kB. The last part of a body is in a buffer (client_body_buffer_size), not in /tmp.
            return int(stack.compose(*used).split()[1]) >= most * (1024 - 64)

        wait_until(are_held, 30, "nginx holds all bodies")
        over = held.enter_context(connected(stack))
        over.sendall(head)
        got = answer(over)
        check_form(got, 429, "too_many_requests")
        assert got.headers["retry-after"] == "1"
        # This request comes from nginx's own address, so that the limit of the test's address does
        # not apply. Its body exceeds client_body_buffer_size and therefore needs the tmpfs.
        ask = (
            "head -c 500000 /dev/zero | curl -sk -o /dev/null -w '%{http_code}' --max-time 5 "
            "--data-binary @-"
        )
        url = f"--resolve {stack.host}:8443:127.0.0.1 https://{stack.host}:8443/v1/items"
        assert are_held()
        assert stack.compose("exec", "--no-TTY", "nginx", "sh", "-c", f"{ask} {url}") == "401"
        for connection in stalled:
            connection.setblocking(False)
            with pytest.raises(OSError, match=r"(?i)want|unavailable|did not complete"):
                connection.recv(1)
    since = f"{time.monotonic() - started:.0f}s"
    assert "No space left" not in stack.compose("logs", "--no-color", "--since", since, "nginx")
