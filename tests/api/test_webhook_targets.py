"""No URL of a user reaches this host's private networks, in any notation or by any name."""

import asyncio
import socket
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from api.configuring.settings import WorkerSettings
from api.webhooks import targets
from api.webhooks.targets import Rules, TargetRefused, is_allowed, parse_target, resolve

PUBLIC = Rules(frozenset({443}), (), allows_http=False)

FORBIDDEN = [
    *(
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
    ),
    *(
        "169.254.169.254",
        "169.254.170.2",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
    ),
    *(
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
    ),
    *(
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
    ),
    *(
        "ff02::1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
    ),
    *("100::1", "4000::1", "192.88.99.1"),
]
INSIDE = [
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0177.0.0.1/",
    "https://0x7f.0.0.1/",
    "https://0x7f000001/",
    "https://017700000001/",
    "https://%31%32%37.0.0.1/",
    "https://\uff11\uff12\uff17.0.0.1/",  # full-width digits
    "https://127\u30020\u30020\u30021/",  # ideographic full stops
    "https://\u2460\u2461\u2466.0.0.1/",  # digits in circles
    "https://0/",
    "https://localhost/",
    "https://localhost./",
    "https://LOCALHOST/",
    "https://[::1]/",
    "https://[::]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[64:ff9b::7f00:1]/",
    "https://2852039166/",
    "https://169.254.169.254/latest/meta-data/",
]
MALFORMED = [
    ("http://example.com/", "must begin with https://"),
    ("ftp://example.com/", "must begin with https://"),
    ("file:///etc/passwd", "must begin with https://"),
    ("javascript:alert(1)", "must begin with https://"),
    ("example.com", "not a URL"),
    ("https://", "not a URL"),
    ("https:///", "not a URL"),
    ("https://[::1%25eth0]/", "not a URL"),
    ("https://[fe80::1%eth0]/", "not a URL"),
    ("https://256.1.1.1/", "not a URL"),
    ("https://1.2.3.4.5/", "not a URL"),
    ("https://exa mple.com/", "not a URL"),
    ("https://example.com:99999/", "not a URL"),
    ("https://user@example.com/", "must not hold a user name or a password"),
    ("https://user:pw@example.com/", "must not hold a user name or a password"),
    ("https://:pw@example.com/", "must not hold a user name or a password"),
    ("https://example.com%40127.0.0.1/", "not a URL"),
    ("https://example.com/#x", "must not hold a fragment"),
    ("https://example.com:22/", "the port must be one of 443"),
    ("https://example.com:0/", "the port must be one of 443"),
    ("https://example.com:6379/", "the port must be one of 443"),
    ("https://example.com/" + "a" * 2048, "longer than 2048 characters"),
    ("https://example.com/" + "ä" * 500, "longer than 2048 characters"),
    ("https://./", "has no host"),
]


def refusal(url: str, rules: Rules = PUBLIC) -> str:
    async def check() -> None:
        await resolve(parse_target(url, rules), rules)

    with pytest.raises(TargetRefused) as refused:
        asyncio.run(check())
    return str(refused.value)


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_is_not_public_is_not_allowed(address: str) -> None:
    assert not is_allowed(ip_address(address), PUBLIC)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00::1"]
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(ip_address(address), PUBLIC)


@pytest.mark.parametrize("url", INSIDE)
def test_a_way_of_writing_an_inner_address_is_refused(url: str) -> None:
    assert refusal(url) == targets.NO_ADDRESS


@pytest.mark.parametrize(("url", "reason"), MALFORMED)
def test_a_url_of_the_wrong_form_is_refused_with_the_reason(url: str, reason: str) -> None:
    assert refusal(url) == reason


@pytest.mark.parametrize(
    "url", ["https://example.com\\@127.0.0.1/", "https://127.0.0.1\\.example.com/"]
)
def test_what_parsers_read_differently_is_read_once(url: str) -> None:
    target = parse_target(url, PUBLIC)
    assert target.address_url("203.0.113.5").startswith("https://203.0.113.5:443/")
    assert target.host in {"example.com", "127.0.0.1"}


def names(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[bytes]:
    """Resolve every name to these addresses; return the list of the requested names."""
    asked: list[bytes] = []

    def look_up(host: bytes, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.mark.parametrize("address", FORBIDDEN)
def test_a_name_that_leads_inside_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, address)
    assert refusal("https://rebinding.example/") == targets.NO_ADDRESS


def test_one_inner_address_spoils_the_public_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "8.8.8.8", "10.0.0.1")
    assert refusal("https://both.example/") == targets.NO_ADDRESS


def test_a_name_is_resolved_once_and_its_addresses_are_what_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = names(monkeypatch, "8.8.8.8", "1.1.1.1")
    target = parse_target("HTTPS://Bücher.example.:443/a?b=ü", PUBLIC)
    assert asyncio.run(resolve(target, PUBLIC)) == ["8.8.8.8", "1.1.1.1"]
    assert asked == [b"xn--bcher-kva.example"]
    assert target.address_url("8.8.8.8") == "https://8.8.8.8:443/a?b=%C3%BC"
    assert target.address_url("2606:4700::1111") == "https://[2606:4700::1111]:443/a?b=%C3%BC"
    assert target.host_header == "xn--bcher-kva.example"


@pytest.mark.parametrize("error", [socket.gaierror(-2, "unknown"), UnicodeError("label empty")])
def test_a_name_without_address_is_refused(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert refusal("https://nowhere.example/") == targets.NO_ADDRESS


def test_a_slow_name_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "8.8.8.8")
    monkeypatch.setattr(targets, "RESOLVE_SECONDS", 0.0)
    assert refusal("https://slow.example/") == targets.NOT_IN_TIME  # not the client's mistake


def settings(**changes: str) -> WorkerSettings:
    return WorkerSettings(database_password=SecretStr("7fKq-mW2z-Rt9x-Lp4v"), **changes)  # type: ignore[arg-type]


def test_an_operator_can_name_a_receiver_of_their_own_and_ports() -> None:
    rules = Rules.of(
        settings(
            webhook_allowed_networks="10.1.2.3/32, fd00::/64", webhook_allowed_ports="443,8443"
        )
    )
    assert rules.networks == (ip_network("10.1.2.3/32"), ip_network("fd00::/64"))
    assert is_allowed(ip_address("10.1.2.3"), rules)
    assert not is_allowed(ip_address("10.1.2.4"), rules)
    assert not is_allowed(ip_address("::ffff:10.1.2.3"), rules)
    assert asyncio.run(resolve(parse_target("https://10.1.2.3:8443/", rules), rules)) == [
        "10.1.2.3"
    ]
    assert not rules.allows_http
    assert Rules.of(settings(environment="development")).allows_http


@pytest.mark.parametrize(
    "networks",
    ["0.0.0.0/0", "127.0.0.1/32", "169.254.169.254/32", "::/0", "fe80::/10", "ten", "10.0.0.1/8"],
)
def test_production_refuses_to_open_this_host_and_the_metadata_address(networks: str) -> None:
    with pytest.raises(ValidationError, match="must"):
        settings(webhook_allowed_networks=networks)
