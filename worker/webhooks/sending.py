"""One attempt: an event, signed as in Standard Webhooks, is sent to a checked address."""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2

from api.webhooks.targets import Rules, Target, TargetRefused, parse_target, resolve
from worker.webhooks.circuits import Circuits

CONNECT_SECONDS = 3.0  # far below TOTAL_SECONDS; a slower receiver counts as down
# Name lookup, connecting, sending and reading. Below LEASE_SECONDS (worker/webhooks/deliveries.py).
TOTAL_SECONDS = 10.0
RESPONSE_BYTES = 4096  # how much of a refusal's body is kept: enough for an error message
ADDRESSES_TRIED = 2  # addresses of a host to try: one may be down
CIRCUIT_OPEN = "the host did not answer earlier attempts; no attempts for a minute"


@dataclass(frozen=True)
class Outcome:
    """The result of an attempt: delivered, or the error and the receiver's response."""

    status_code: int | None = None
    error: str | None = None
    response: str | None = None

    @property
    def is_delivered(self) -> bool:
        """Tell whether the receiver accepted the event."""
        return self.error is None

    @property
    def is_gone(self) -> bool:
        """Tell whether the receiver wants no more events (410)."""
        return self.status_code == 410


def signature(secret: str, event_id: UUID | str, timestamp: int, body: bytes) -> str:
    """Return the base64 HMAC-SHA256 of `id.timestamp.body` (https://www.standardwebhooks.com)."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


def message(event_type: str, created_at: str, content: dict[str, Any]) -> bytes:
    """Return the body of an event: the same bytes in every attempt."""
    event = {"type": event_type, "timestamp": created_at, "data": content}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def headers(
    target: Target, secrets: Sequence[str], event_id: UUID, body: bytes, timestamp: int
) -> dict[str, str]:
    """Return the headers of an attempt, with a signature for each secret."""
    return {
        "Host": target.host_header,
        "Content-Type": "application/json",
        "User-Agent": "Slipway-Webhooks",
        "Accept-Encoding": "identity",  # a small body must not decompress into a large one
        "Connection": "close",
        "webhook-id": str(event_id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            signature(secret, event_id, timestamp, body) for secret in secrets
        ),
    }


class Sender:
    """Sends attempts. It keeps no connection: each attempt resolves and checks the host again."""

    def __init__(
        self, rules: Rules, circuits: Circuits, trust: ssl.SSLContext | None = None
    ) -> None:
        self._rules = rules
        self._circuits = circuits
        self._trust = trust or ssl.create_default_context()  # takes 20 ms: created once

    async def send(self, url: str, secrets: Sequence[str], event_id: UUID, body: bytes) -> Outcome:
        """Make one attempt; a failure is an Outcome, too."""
        try:
            target = parse_target(url, self._rules)
        except TargetRefused as refusal:  # the rules may be stricter than at the subscription
            return Outcome(error=f"refused: {refusal}")
        host = f"{target.host}:{target.port}"
        if not self._circuits.lets_through(host):
            return Outcome(error=CIRCUIT_OPEN)
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                outcome = await self._connect_and_post(target, secrets, event_id, body)
        except TargetRefused as refusal:
            return Outcome(error=f"refused: {refusal}")
        except (httpx2.HTTPError, TimeoutError) as error:
            self._circuits.gave_no_answer(host)
            return Outcome(error=f"no answer: {reason(error)}")
        self._circuits.answered(host)
        return outcome

    async def _connect_and_post(
        self, target: Target, secrets: Sequence[str], event_id: UUID, body: bytes
    ) -> Outcome:
        fields = headers(target, secrets, event_id, body, int(time.time()))
        addresses = (await resolve(target, self._rules))[:ADDRESSES_TRIED]
        for address in addresses:
            try:
                return await self._post(target, address, fields, body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        raise AssertionError("resolve returns at least one address")

    async def _post(
        self, target: Target, address: str, fields: dict[str, str], body: bytes
    ) -> Outcome:
        timeout = httpx2.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
        # TLS asks for the host's name and checks the certificate for it, whatever the address.
        extensions = {"sni_hostname": target.host}
        async with httpx2.AsyncClient(
            verify=self._trust, trust_env=False, timeout=timeout
        ) as client:
            url = target.address_url(address)
            async with client.stream(
                "POST", url, headers=fields, content=body, extensions=extensions
            ) as answer:
                if answer.is_success:
                    return Outcome(answer.status_code)
                # A redirect is not followed: it could lead anywhere, and the user can change the
                # URL.
                error = f"status {answer.status_code}" + (
                    ", not followed" if answer.is_redirect else ""
                )
                return Outcome(answer.status_code, error, await beginning(answer))


async def beginning(answer: httpx2.Response) -> str:
    """Return the first RESPONSE_BYTES of a body, as text that Postgres can store."""
    body = b""
    async for piece in answer.aiter_raw():
        body += piece
        if len(body) >= RESPONSE_BYTES:
            break
    return body[:RESPONSE_BYTES].decode(errors="replace").replace("\0", "")


def reason(error: Exception) -> str:
    """Return a fixed text for a failure: a library's text may contain anything."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not valid ({cause.verify_message})"[:150]
        if isinstance(cause, ssl.SSLError):
            return "TLS failed"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return f"not within {TOTAL_SECONDS:g} s, or no connection within {CONNECT_SECONDS:g} s"
    return "no connection" if isinstance(error, httpx2.ConnectError) else "the connection broke"
