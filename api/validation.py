"""The rules for settings in production: what refuses the start, and what is only warned of. Names keys, never values.

One code for the start of a process (api/settings.py), for preflight and for `scripts/check-config.sh`.
docs/configuration.md lists the rules with the tests that prove them.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr

OBVIOUS_WORDS = (
    *("changeme", "change-me", "secret", "password", "default", "example"),
    *("admin", "postgres", "qwerty", "slipway", "123456"),
)
MIN_TOKEN_KEY_CHARS = 32  # 256 bits for HS256 when the characters are bytes (RFC 7518, 3.2)
MIN_TOKEN_KEY_BITS = 100  # Shannon estimate: 32 random hex digits have about 120, "abababab..." has 32
MIN_PASSWORD_CHARS = 16  # chosen: nobody types it; 16 random letters and digits are 95 bits
MIN_PASSWORD_BITS = 40  # by the same estimate: 16 random hex digits have about 54, "aaaaaaaaaaaaaaaB" has 5
LONGEST_TOKEN_MINUTES = 60  # an access token cannot be called back

# What other stacks read from the environment. Somebody who sets one believes that it holds.
NOT_READ = {
    "DATABASE_URL": "set DATABASE_HOST, _PORT, _NAME and _USER, and the secret database_password",
    "REDIS_URL": "set REDIS_HOST and REDIS_PORT, and the secret redis_password",
    "CREATE_TABLES": "remove it: tables are made by migrations alone (python -m api.migrate)",
}
FIXES = {
    "ALLOWED_HOSTS": "name the hosts, separated by commas; with compose.yaml it is SLIPWAY_HOST in .env",
    "CORS_ORIGINS": "name each origin, such as https://app.example.org, or leave it empty",
    "DATABASE_HOST": "set the host name alone; port, name, user and password are settings of their own",
    "DATABASE_PASSWORD": "put a random one into secrets/database_password, and the same into Postgres: ALTER ROLE",
    "DATABASE_SSLROOTCERT": "name a file with the CA's certificate that the container can read",
    "DEBUG": "empty it in .env",
    "RELOAD": "empty it in .env",
    "OPS_PASSWORD": "put a random one of 16 characters or more into secrets/ops_password, or empty OPS_USER in .env",
    "REDIS_PASSWORD": "put a random one of 16 characters or more into secrets/redis_password, and restart redis",
    "TOKEN_KEY": "put a random one into secrets/token_key: openssl rand -base64 48. Users have to log in again",
}


@dataclass(frozen=True)
class Finding:
    """One fault of the configuration, or one thing that is allowed and not wise."""

    tier: Literal["critical", "warning"]
    key: str
    reason: str

    @property
    def fix(self) -> str:
        usual = f"set {self.key} in .env, or as the file secrets/{self.key.lower()}; .env.example explains it"
        return NOT_READ.get(self.key) or FIXES.get(self.key) or usual


def is_repetitive(text: str) -> bool:
    return text in (text + text)[1:-1]


def entropy_bits(text: str) -> float:
    counts = Counter(text).values()
    return -sum(count * math.log2(count / len(text)) for count in counts)


def weakness(text: str, min_chars: int = MIN_PASSWORD_CHARS, min_bits: float = MIN_PASSWORD_BITS) -> str | None:
    """Return why a secret is too weak, or None."""
    if not text:
        return "empty"
    if len(text) < min_chars:
        return f"shorter than {min_chars} characters"
    if any(word in text.lower() for word in OBVIOUS_WORDS):
        return "contains an obvious word"
    if is_repetitive(text) or entropy_bits(text) < min_bits:
        return "repeats itself or has little entropy"
    return None


def _long_token_key(value: SecretStr, _: Mapping[str, Any]) -> str | None:
    is_short = len(value.get_secret_value()) < MIN_TOKEN_KEY_CHARS  # PyJWT would refuse it at the first login
    return f"shorter than {MIN_TOKEN_KEY_CHARS} characters" if is_short else None


def _some_password(value: SecretStr, _: Mapping[str, Any]) -> str | None:
    return None if value.get_secret_value() else "empty"


def _token_key(value: SecretStr, _: Mapping[str, Any]) -> str | None:
    return weakness(value.get_secret_value(), MIN_TOKEN_KEY_CHARS, MIN_TOKEN_KEY_BITS)


def _database_password(value: SecretStr, facts: Mapping[str, Any]) -> str | None:
    text = value.get_secret_value()
    if "://" in text:
        return "a URL; only the password belongs there"
    return "the same as DATABASE_USER" if text and text == facts.get("database_user") else weakness(text)


def _database_host(value: str, _: Mapping[str, Any]) -> str | None:
    return "a URL, or part of one; only the host name belongs there" if re.search(r"[/@?]", value) else None


def _allowed_hosts(value: tuple[str, ...], _: Mapping[str, Any]) -> str | None:
    if not value:
        return "empty"
    return "must not hold *" if any("*" in host for host in value) else None


def _cors_origins(value: tuple[str, ...], _: Mapping[str, Any]) -> str | None:
    # Whether browsers send credentials is decided in the code; an origin that anybody may have is refused either way.
    return "must not hold * or null" if any("*" in o or o == "null" for o in value) else None


def _ops_password(value: SecretStr | None, facts: Mapping[str, Any]) -> str | None:
    """The operations console is on where it has a user; then it needs a password that nobody guesses."""
    user = facts.get("ops_user") or ""
    text = value.get_secret_value() if value else ""
    if not user and not text:
        return None
    return "empty, although OPS_USER turns the console on" if not text else weakness(text)


def _off(value: object, _: Mapping[str, Any]) -> str | None:
    return "on, and for development only" if value else None


Rule = Callable[[Any, Mapping[str, Any]], str | None]
EVERYWHERE: dict[str, Rule] = {"database_password": _some_password, "token_key": _long_token_key}
CRITICAL: dict[str, Rule] = {
    "debug": _off,
    "reload": _off,
    "database_host": _database_host,
    "database_password": _database_password,
    "token_key": _token_key,
    "allowed_hosts": _allowed_hosts,
    "cors_origins": _cors_origins,
    "ops_password": _ops_password,
}


def refusal(field: str, value: object, facts: Mapping[str, Any]) -> str | None:
    """Return why the process must not start with this value, or None; `facts` are the fields read before it."""
    # A wrong ENVIRONMENT is missing from the facts: then the strict rules hold.
    is_production = facts.get("environment", "production") == "production"
    rule = (CRITICAL if is_production else EVERYWHERE).get(field)
    return rule(value, facts) if rule else None


def not_read() -> list[Finding]:
    """Return the variables of the environment that other stacks read and this one does not; none in development."""
    if os.environ.get("ENVIRONMENT") == "development":
        return []
    return [Finding("critical", key, "nothing reads it") for key in NOT_READ if os.environ.get(key)]


def warnings(settings: Any) -> list[Finding]:
    """Return what is allowed and not wise; `settings` is of any process, so that a field may be absent."""
    facts: dict[str, Any] = dict(settings)
    found = {}
    if facts["environment"] != "production":
        found["ENVIRONMENT"] = "development, so that weak and dangerous values are accepted"
    if facts.get("docs_enabled"):
        found["DOCS_ENABLED"] = "on: the API's documentation is open to everybody"
    if facts.get("access_token_minutes", 0) > LONGEST_TOKEN_MINUTES:
        found["ACCESS_TOKEN_MINUTES"] = f"over {LONGEST_TOKEN_MINUTES}: a stolen access token is good for that long"
    redis = facts.get("redis_password")
    weak = weakness(redis.get_secret_value()) if redis is not None else None
    if weak:
        found["REDIS_PASSWORD"] = weak
    return [Finding("warning", key, reason) for key, reason in found.items()]
