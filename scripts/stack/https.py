"""Sends one request over HTTPS, like a client whose DNS points to this host; decides nothing."""

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Question:
    """One HTTPS request: connects to `address:port`, and sends and verifies the name `host`.

    Without `trust` the certificate is not verified.
    """

    host: str
    port: int
    path: str
    trust: Path | None
    address: str = "127.0.0.1"
    method: str = "GET"
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The answer, or `status` 0 and the reason in `error`.

    `expires` is the end of the certificate as OpenSSL prints it.
    """

    status: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    expires: str = ""
    error: str = ""


def ask(question: Question) -> Answer:
    """Send one request; an error is in the answer, with status 0."""
    context = ssl.create_default_context()
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        if question.trust is None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif question.trust.exists():
            context.load_verify_locations(question.trust)
    except OSError as error:
        return Answer(0, error=f"the certificate in {question.trust} cannot be read: {error}")
    connection = _Connection(question, context)
    try:
        kind = {"Content-Type": "application/json"} if question.body else {}
        headers = {**kind, **question.headers}
        connection.request(question.method, question.path, question.body or None, headers)
        response = connection.getresponse()
        body = response.read().decode("utf-8", "replace")
        return Answer(response.status, body, dict(response.getheaders()), connection.expires)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, error=str(error) or type(error).__name__)
    finally:
        connection.close()


class _Connection(http.client.HTTPSConnection):
    """Connects to the address and verifies the name of the host."""

    def __init__(self, question: Question, context: ssl.SSLContext) -> None:
        super().__init__(question.host, question.port, timeout=ANSWER_SECONDS, context=context)
        self.question = question
        self.tls = context
        self.expires = ""

    def connect(self) -> None:
        plain = socket.create_connection(
            (self.question.address, self.question.port), ANSWER_SECONDS
        )
        secure = self.tls.wrap_socket(plain, server_hostname=self.question.host)
        self.expires = str((secure.getpeercert() or {}).get("notAfter", ""))
        self.sock = secure
