"""The rules for settings: which values prevent a start in production, and which only warn.

The start of a process (api/configuring/settings.py), preflight and `scripts/check-config.sh` all
use this code. It names keys and never prints values. docs/configuration.md lists each rule with
the test that proves it.
"""

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from api.configuring.fixes import FIXES, NOT_READ

logger = logging.getLogger(__name__)

OBVIOUS_WORDS = (
    *("changeme", "change-me", "secret", "password", "default", "example"),
    *("admin", "postgres", "qwerty", "slipway", "123456"),
)
MIN_TOKEN_KEY_CHARS = 32  # 256 bits for HS256 when the characters are bytes (RFC 7518, 3.2)
MIN_TOKEN_KEY_BITS = 100  # Shannon estimate: 32 random hex digits have about 120, "abab..." has 32
MIN_PASSWORD_CHARS = 16  # chosen: no person types it; 16 random letters and digits are 95 bits
# By the same estimate 16 random hex digits have about 54 bits, and "aaaaaaaaaaaaaaaB" has 5.
MIN_PASSWORD_BITS = 40
LONGEST_TOKEN_MINUTES = 60  # an access token cannot be revoked
# Chosen: anyone at a browser left open can act as the operator for this long.
LONGEST_SESSION_MINUTES = 120

# This host, and the addresses where clouds hand out credentials: never receivers of webhooks.
NEVER_A_RECEIVER = tuple(
    map(ip_network, ("127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10", "::ffff:0:0/96"))
)
# Chosen: the prefix of one subnet, by IP version. A whole private range, as in compose.dev.yaml,
# contains this stack's own networks.
WIDEST_PREFIX = {4: 24, 6: 64}
ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?")
DSN = re.compile(r"https?://[^@/\s]+@[^/\s]+/(?:\S*/)?\d+")


@dataclass(frozen=True)
class Finding:
    """A fault of the configuration (critical), or a value that is allowed but unwise (warning)."""

    tier: Literal["critical", "warning"]
    key: str
    reason: str

    @property
    def fix(self) -> str:
        """The advice to the operator."""
        return (
            NOT_READ.get(self.key)
            or FIXES.get(self.key)
            or "correct it in .env; .env.example explains it"
        )


def is_repetitive(text: str) -> bool:
    """Tell whether a text is a shorter text written several times."""
    return text in (text + text)[1:-1]


def entropy_bits(text: str) -> float:
    """Return Shannon's estimate for the whole text, from how often each character occurs."""
    counts = Counter(text).values()
    return -sum(count * math.log2(count / len(text)) for count in counts)


def weakness(
    text: str, min_chars: int = MIN_PASSWORD_CHARS, min_bits: float = MIN_PASSWORD_BITS
) -> str | None:
    """Return the reason why a secret is too weak, or None."""
    if not text:
        return "empty"
    if len(text) < min_chars:
        return f"shorter than {min_chars} characters"
    if any(word in text.lower() for word in OBVIOUS_WORDS):
        return "contains an obvious word"
    if is_repetitive(text) or entropy_bits(text) < min_bits:
        return "repeats itself or has little entropy"
    return None


def _long_token_key(value: SecretStr | None, _: Mapping[str, Any]) -> str | None:
    # PyJWT would refuse it at the first login.
    is_short = value is not None and len(value.get_secret_value()) < MIN_TOKEN_KEY_CHARS
    return f"shorter than {MIN_TOKEN_KEY_CHARS} characters" if is_short else None


def _some_password(value: SecretStr, _: Mapping[str, Any]) -> str | None:
    return None if value.get_secret_value() else "empty"


def _sentry_dsn(value: SecretStr | None, _: Mapping[str, Any]) -> str | None:
    # The SDK would end the process at its start.
    is_wrong = value and not DSN.fullmatch(value.get_secret_value())
    return "not a DSN" if is_wrong else None


def _token_key(value: SecretStr | None, _: Mapping[str, Any]) -> str | None:
    if value is None:  # no previous key
        return None
    return weakness(value.get_secret_value(), MIN_TOKEN_KEY_CHARS, MIN_TOKEN_KEY_BITS)


def _database_password(value: SecretStr, facts: Mapping[str, Any]) -> str | None:
    text = value.get_secret_value()
    if "://" in text:
        return "a URL; only the password belongs there"
    return (
        "the same as DATABASE_USER"
        if text and text == facts.get("database_user")
        else weakness(text)
    )


def _database_host(value: str, _: Mapping[str, Any]) -> str | None:
    return (
        "a URL, or part of one; only the host name belongs there"
        if re.search(r"[/@?]", value)
        else None
    )


def _database_sslrootcert(value: str, facts: Mapping[str, Any]) -> str | None:
    mode = str(facts.get("database_sslmode"))
    if not mode.startswith("verify"):
        return None
    is_there = value and os.access(value, os.R_OK) and Path(value).stat().st_size > 0
    return None if is_there else f"not a readable file, although DATABASE_SSLMODE is {mode}"


def _allowed_hosts(value: tuple[str, ...], _: Mapping[str, Any]) -> str | None:
    if not value:
        return "empty"
    return "must not hold *" if any("*" in host for host in value) else None


def _readable_origins(value: tuple[str, ...], facts: Mapping[str, Any]) -> str | None:
    if "*" in value and facts.get("cors_credentials", True):
        return "must not hold * together with CORS_CREDENTIALS: any site could act as the user"
    is_form = all(origin == "*" or ORIGIN.fullmatch(origin) for origin in value)
    return (
        None
        if is_form
        else "must be a list of origins such as https://app.example.org, without a path"
    )


def _cors_origins(value: tuple[str, ...], facts: Mapping[str, Any]) -> str | None:
    is_anybodys = any("*" in origin or origin == "null" for origin in value)
    return "must not hold * or null" if is_anybodys else _readable_origins(value, facts)


def _ops_password(value: SecretStr | None, facts: Mapping[str, Any]) -> str | None:
    """Refuse a password that can be guessed; without a password the console is off."""
    if value is None:
        return None
    text = value.get_secret_value()
    return "the same as OPS_USER" if text == facts.get("ops_user") else weakness(text)


def _webhook_networks(value: str, _: Mapping[str, Any]) -> str | None:
    try:
        _networks(value)
    except ValueError:
        return "must be networks such as 10.1.2.0/24, separated by commas"
    return None


def _outer_networks(value: str, facts: Mapping[str, Any]) -> str | None:
    reason = _webhook_networks(value, facts)
    if reason:
        return reason
    pairs = [(network, never) for network in _networks(value) for never in NEVER_A_RECEIVER]
    is_inner = any(
        network.version == never.version and network.overlaps(never) for network, never in pairs
    )
    if is_inner:
        return "must not hold loopback or link-local addresses"
    is_wide = any(
        network.prefixlen < WIDEST_PREFIX[network.version] for network in _networks(value)
    )
    return "must not hold a network over one subnet: /24, or /64 for IPv6" if is_wide else None


def _networks(value: str) -> list[IPv4Network | IPv6Network]:
    return [ip_network(text.strip()) for text in value.split(",") if text]


def _off(value: object, _: Mapping[str, Any]) -> str | None:
    return "on, but it is for development only" if value else None


Rule = Callable[[Any, Mapping[str, Any]], str | None]
EVERYWHERE: dict[str, Rule] = {
    "cors_origins": _readable_origins,
    "database_password": _some_password,
    "database_sslrootcert": _database_sslrootcert,
    "sentry_dsn": _sentry_dsn,
    "token_key": _long_token_key,
    "token_key_previous": _long_token_key,
    "webhook_allowed_networks": _webhook_networks,
}

# (!) A rule sees only the fields that precede its own in api/configuring/settings.py.
CRITICAL: dict[str, Rule] = {
    "debug": _off,
    "reload": _off,
    "database_host": _database_host,
    "database_password": _database_password,
    "database_sslrootcert": _database_sslrootcert,
    "sentry_dsn": _sentry_dsn,
    "token_key": _token_key,
    "token_key_previous": _token_key,
    "allowed_hosts": _allowed_hosts,
    "cors_origins": _cors_origins,
    "ops_password": _ops_password,
    "webhook_allowed_networks": _outer_networks,
}


def refusal(field: str, value: object, facts: Mapping[str, Any]) -> str | None:
    """Return the reason why the process must not start with this value, or None.

    `facts` are the fields that were read before it.
    """
    # The facts do not contain a wrong ENVIRONMENT: the strict rules then apply.
    is_production = facts.get("environment", "production") == "production"
    rule = (CRITICAL if is_production else EVERYWHERE).get(field)
    return rule(value, facts) if rule else None


def not_read() -> list[Finding]:
    """Return a finding for each variable of NOT_READ that is set; none in development."""
    variables = dict(os.environ)
    is_development = variables.get("ENVIRONMENT") == "development"
    keys = [] if is_development else [key for key in NOT_READ if variables.get(key)]
    return [Finding("critical", key, "nothing reads it") for key in keys]


def _environment(value: str, _: Mapping[str, Any]) -> str | None:
    return "development: weak and dangerous values are accepted" if value != "production" else None


def _database_sslmode(value: str, facts: Mapping[str, Any]) -> str | None:
    if value.startswith("verify") or facts.get("database_host", "postgres") == "postgres":
        return None
    return (
        f"{value}, although DATABASE_HOST is not the stack's own postgres:"
        " the server that gets the password is not verified"
    )


def _docs_enabled(value: object, _: Mapping[str, Any]) -> str | None:
    return "on: the API's documentation is public" if value else None


def _access_token_minutes(value: int, _: Mapping[str, Any]) -> str | None:
    is_long = value > LONGEST_TOKEN_MINUTES
    return (
        f"over {LONGEST_TOKEN_MINUTES}: a stolen access token works for that long"
        if is_long
        else None
    )


def _ops_session_max_minutes(value: int, _: Mapping[str, Any]) -> str | None:
    is_long = value > LONGEST_SESSION_MINUTES
    return (
        f"over {LONGEST_SESSION_MINUTES}: a browser left open stays logged in for that long"
        if is_long
        else None
    )


def _redis_password(value: SecretStr, _: Mapping[str, Any]) -> str | None:
    return weakness(value.get_secret_value())


WARNED: dict[str, Rule] = {
    "environment": _environment,
    "database_sslmode": _database_sslmode,
    "docs_enabled": _docs_enabled,
    "access_token_minutes": _access_token_minutes,
    "ops_session_max_minutes": _ops_session_max_minutes,
    "redis_password": _redis_password,
}


def warnings(facts: Mapping[str, Any]) -> list[Finding]:
    """Return a finding for each field whose value is allowed but unwise."""
    reasons = {
        field: WARNED[field](value, facts) for field, value in facts.items() if field in WARNED
    }
    return [
        Finding("warning", field.upper(), reason) for field, reason in reasons.items() if reason
    ]


def log_warnings(facts: Mapping[str, Any]) -> None:
    """Log each warning. Call it once at the start of a container, before the process forks."""
    for finding in warnings(facts):
        extra = {
            "action": "config_warning",
            "key": finding.key,
            "reason": finding.reason,
            "fix": finding.fix,
        }
        logger.warning("configuration: %s", finding.key, extra=extra)
