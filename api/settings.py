"""Typed settings of every process, from the environment and from secret files; read once.

A value is never printed: errors name keys, secrets print as stars.
"""

import math
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

EX_CONFIG = 78  # sysexits.h: an operator has to act, restarting does not help
SECRETS_DIR = "/run/secrets"
OBVIOUS_WORDS = ("changeme", "change-me", "secret", "password", "default", "example", "slipway", "123456")
MIN_TOKEN_KEY_CHARS = 32  # 256 bits for HS256 when the characters are bytes (RFC 7518, 3.2)
MIN_TOKEN_KEY_BITS = 100  # Shannon estimate: 32 random hex digits have about 120, "abababab..." has 32
MIN_DATABASE_PASSWORD_CHARS = 16

Port = Annotated[int, Field(ge=1, le=65535)]


def is_repetitive(text: str) -> bool:
    return text in (text + text)[1:-1]


def entropy_bits(text: str) -> float:
    counts = Counter(text).values()
    return -sum(count * math.log2(count / len(text)) for count in counts)


def _obvious_word(text: str) -> bool:
    return any(word in text.lower() for word in OBVIOUS_WORDS)


class ProcessSettings(BaseSettings):
    """What every process needs: who it is, how it logs, where the database is."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True, hide_input_in_errors=True
    )

    environment: Literal["production", "development"] = "production"
    service: str = Field(default="api", validation_alias="SLIPWAY_SERVICE", pattern=r"^[a-z]{2,20}$")
    slot: Literal["blue", "green", "none"] = Field(default="none", validation_alias="SLIPWAY_SLOT")
    release: str = Field(default="unreleased", validation_alias="SLIPWAY_RELEASE", pattern=r"^[\w.+-]{1,100}$")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    sentry_dsn: SecretStr | None = None

    database_host: str = "postgres"
    database_port: Port = 5432
    database_name: str = "slipway"
    database_user: str = "slipway"
    database_password: SecretStr
    database_pool_size: int = Field(default=5, ge=1, le=100)

    @property
    def is_production(self) -> bool:
        return self.environment == "production"

    @field_validator("database_password")
    @classmethod
    def _strong_database_password(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        text = value.get_secret_value()
        if not text:
            raise ValueError("empty")
        if _in_production(info):
            if len(text) < MIN_DATABASE_PASSWORD_CHARS:
                raise ValueError(f"shorter than {MIN_DATABASE_PASSWORD_CHARS} characters")
            if _obvious_word(text) or is_repetitive(text) or text in ("postgres", info.data.get("database_user")):
                raise ValueError("contains an obvious word or repeats itself")
        return value


class Settings(ProcessSettings):
    """The API's settings."""

    redis_host: str = "redis"
    redis_port: Port = 6379
    redis_password: SecretStr
    token_key: SecretStr
    token_issuer: str = "slipway"  # noqa: S105  a name
    token_audience: str = "slipway-api"  # noqa: S105  a name
    access_token_minutes: int = Field(default=15, ge=1, le=60)
    allowed_hosts: Annotated[tuple[str, ...], NoDecode]
    docs_enabled: bool = False
    api_processes: int | None = Field(default=None, ge=1, le=64)  # None: api/server/gunicorn_conf.py counts
    max_body_bytes: int = Field(default=1_048_576, ge=1024)  # nginx's client_max_body_size is the same megabyte

    @field_validator("token_key")
    @classmethod
    def _strong_token_key(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        text = value.get_secret_value()
        if len(text) < MIN_TOKEN_KEY_CHARS:
            raise ValueError(f"shorter than {MIN_TOKEN_KEY_CHARS} characters")
        if _in_production(info):
            if _obvious_word(text):
                raise ValueError("contains an obvious word")
            if is_repetitive(text) or entropy_bits(text) < MIN_TOKEN_KEY_BITS:
                raise ValueError("repeats itself or has little entropy")
        return value

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(host.strip().lower() for host in value.split(",") if host.strip())

    @field_validator("allowed_hosts")
    @classmethod
    def _named_hosts(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not value:
            raise ValueError("empty")
        if _in_production(info) and any("*" in host for host in value):
            raise ValueError("must not hold * in production")
        return value


class WorkerSettings(ProcessSettings):
    """The worker's settings; it holds neither the token key nor the Redis password."""

    service: str = Field(default="worker", validation_alias="SLIPWAY_SERVICE", pattern=r"^[a-z]{2,20}$")
    worker_concurrency: int = Field(default=4, ge=1, le=64)
    export_keep_hours: int = Field(default=24, ge=1, le=24 * 90)


S = TypeVar("S", bound=ProcessSettings)


@overload
def load_settings() -> Settings: ...
@overload
def load_settings(kind: type[S]) -> S: ...
def load_settings(kind: type[ProcessSettings] = Settings) -> ProcessSettings:
    """Read settings of one kind, or end with status 78 and every missing or wrong key on stderr."""
    folder = os.environ.get("SLIPWAY_SECRETS_DIR") or SECRETS_DIR
    sources: dict[str, Any] = {"_secrets_dir": folder} if Path(folder).is_dir() else {}
    try:
        return kind(**sources)
    except ValidationError as error:
        problems = [_problem(kind, dict(item)) for item in error.errors(include_input=False, include_url=False)]
    except OSError as error:
        problems = [f"{error.filename}: {error.strerror}"]
    except UnicodeDecodeError:
        problems = [f"{folder}: a secret file is not UTF-8 text"]
    raise _refusal(problems, folder)


def _in_production(info: ValidationInfo) -> bool:
    # A wrong ENVIRONMENT is missing here: then the strict rules hold.
    return bool(info.data.get("environment", "production") == "production")


def _problem(kind: type[ProcessSettings], item: dict[str, Any]) -> str:
    name = str(item["loc"][0])
    field = kind.model_fields.get(name)
    alias = field.validation_alias if field else None
    message = "missing" if item["type"] == "missing" else str(item["msg"]).removeprefix("Value error, ")
    return f"{alias if isinstance(alias, str) else name.upper()}: {message}"


def _refusal(problems: list[str], folder: str) -> SystemExit:
    lines = [
        f"error: configuration refused, {len(problems)} missing or wrong",
        *(f"  {problem}" for problem in sorted(problems)),
        f"HINT: set each key in .env, or as a file with its lower-case name in {folder}",
        "HINT: .env.example describes every key",
        "RUNBOOK: docs/runbook.md#boot-refused-by-the-configuration",
    ]
    sys.stderr.write("\n".join(lines) + "\n")
    return SystemExit(EX_CONFIG)
