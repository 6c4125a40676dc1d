"""Checks the target of a webhook: a user's URL must not lead to a server inside our networks.

A URL is parsed once, its host is resolved once, and the connection goes to an address that was
checked. The API checks when a subscription is written, and the worker before each attempt, because
a name's addresses change.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

from pydantic import ValidationError
from pydantic_core import Url

from api.configuring.settings import ProcessSettings

# Chosen: every HTTP server reads a request line of this length; nginx reads 8 kB.
MAX_URL_CHARS = 2048
RESOLVE_SECONDS = 3.0  # a slower name server counts as down; below REQUEST_SECONDS
# Own threads: slow name servers must not delay logins, which hash in the event loop's threads.
RESOLVERS = ThreadPoolExecutor(4, thread_name_prefix="resolve")
DEFAULT_PORTS = {"https": 443, "http": 80}
# Not public, although some version of Python counts them as global: protocol assignments (a cloud
# has its metadata at 192.0.0.192), relays and tunnels to an embedded IPv4 address (RFC 3056, 4380),
# documentation.
NOT_PUBLIC = tuple(
    map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20"))
)
# This excludes IPv4-mapped, NAT64 (64:ff9b::/96) and local addresses.
GLOBAL_UNICAST = ip_network("2000::/3")
NO_ADDRESS = "the host has no public address"
NOT_IN_TIME = "no name server answered for the host; retry later"


class TargetRefused(Exception):
    """Webhooks may not be sent to this URL."""


@dataclass(frozen=True)
class Rules:
    """The targets that the operator allows in addition to public HTTPS."""

    ports: frozenset[int]
    networks: tuple[IPv4Network | IPv6Network, ...]
    allows_http: bool

    @classmethod
    def of(cls, settings: ProcessSettings) -> Self:
        """Read the rules from the settings; plain HTTP is for development."""
        return cls(
            frozenset(int(port) for port in settings.webhook_allowed_ports.split(",")),
            tuple(
                ip_network(network.strip())
                for network in settings.webhook_allowed_networks.split(",")
                if network
            ),
            allows_http=not settings.is_production,
        )


@dataclass(frozen=True)
class Target:
    """A checked URL; `host` is a name or an address, in ASCII and without brackets."""

    url: str
    scheme: str
    host: str
    port: int
    request_path: str

    @property
    def host_header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def address_url(self, address: str) -> str:
        """Return the URL with the address in place of the host."""
        host = f"[{address}]" if ":" in address else address
        return f"{self.scheme}://{host}:{self.port}{self.request_path}"


def parse_target(text: str, rules: Rules) -> Target:
    """Return the parts of a URL; raise TargetRefused with a reason that a user can act on."""
    if len(text) > MAX_URL_CHARS:
        raise TargetRefused(f"longer than {MAX_URL_CHARS} characters")
    try:
        # Parsed as browsers do: 0x7f.1, 2130706433 and full-width digits all become 127.0.0.1.
        url = Url(text)
    except (ValidationError, ValueError):
        raise TargetRefused("not a URL") from None
    if url.scheme != "https" and not (url.scheme == "http" and rules.allows_http):
        raise TargetRefused("must begin with https://")
    if url.username is not None or url.password is not None:
        raise TargetRefused("must not hold a user name or a password")
    if url.fragment is not None:
        raise TargetRefused("must not hold a fragment")
    host = (url.host or "").strip("[]").rstrip(".")
    port = url.port or 0
    if not host:
        raise TargetRefused("has no host")
    if port not in rules.ports and not (url.scheme == "http" and port == DEFAULT_PORTS["http"]):
        raise TargetRefused("the port must be one of " + ", ".join(map(str, sorted(rules.ports))))
    query = f"?{url.query}" if url.query is not None else ""
    if len(str(url)) > MAX_URL_CHARS:  # a character outside ASCII becomes three or more
        raise TargetRefused(f"longer than {MAX_URL_CHARS} characters")
    return Target(str(url), url.scheme, host, port, f"{url.path or '/'}{query}")


def is_allowed(address: IPv4Address | IPv6Address, rules: Rules) -> bool:
    """Tell whether an address is public or in a network that the operator allows."""
    if any(address in network for network in rules.networks):
        return True
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    is_unicast = address.version == 4 or address in GLOBAL_UNICAST
    return is_unicast and not any(address in network for network in NOT_PUBLIC)


async def resolve(target: Target, rules: Rules) -> list[str]:
    """Return the host's addresses.

    Raises:
        TargetRefused: if there is none, or one of them is not allowed.
    """
    loop = asyncio.get_running_loop()
    # As bytes: Python converts names by an older rule than the parser of the URL.
    lookup = loop.run_in_executor(RESOLVERS, _look_up, target.host.encode("ascii"), target.port)
    try:
        addresses = await asyncio.wait_for(lookup, RESOLVE_SECONDS)
    except (OSError, UnicodeError) as error:
        is_silent = (
            isinstance(error, TimeoutError) or getattr(error, "errno", None) == socket.EAI_AGAIN
        )
        raise TargetRefused(NOT_IN_TIME if is_silent else NO_ADDRESS) from None
    # One forbidden address is enough to refuse the host: its owner could choose by timing which
    # address is used.
    if not addresses or not all(is_allowed(ip_address(text), rules) for text in addresses):
        raise TargetRefused(NO_ADDRESS)
    return addresses


def _look_up(host: bytes, port: int) -> list[str]:
    # ADDRCONFIG skips IPv6 if this host has none. Only link-local addresses come with a scope
    # (%eth0).
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))
