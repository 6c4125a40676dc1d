"""The settings of every process, typed, from the environment and from secret files; read once.

No value is ever printed: errors name keys, and secrets print as stars.
"""

import os
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from api.configuring.validation import Finding, not_read, refusal, warnings

EX_CONFIG = 78  # sysexits.h: an operator has to act, restarting does not help
SECRETS_DIR = "/run/secrets"

Port = Annotated[int, Field(ge=1, le=65535)]
# The fields read so far, so that warnings are reported even if another key is refused.
_read: ContextVar[dict[str, Any]] = ContextVar("_read")


class ProcessSettings(BaseSettings):
    """The settings that every process has: its identity, its logging and its database."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    environment: Literal["production", "development"] = "production"
    service: str = Field(
        default="api", validation_alias="SLIPWAY_SERVICE", pattern=r"^[a-z]{2,20}$"
    )
    slot: Literal["blue", "green", "none"] = Field(default="none", validation_alias="SLIPWAY_SLOT")
    release: str = Field(
        default="unreleased", validation_alias="SLIPWAY_RELEASE", pattern=r"^[\w.+-]{1,100}$"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    debug: bool = False  # logs every SQL statement; production refuses it
    # Restarts the server after each save; the development image sets it. Production refuses it.
    reload: bool = False
    sentry_dsn: SecretStr | None = None

    database_host: str = "postgres"
    database_port: Port = 5432
    database_name: str = "slipway"
    database_user: str = "slipway"
    database_password: SecretStr
    database_pool_size: int = Field(default=5, ge=1, le=100)
    # `prefer` and `allow` are left out: they fall back to plain text silently.
    database_sslmode: Literal["disable", "require", "verify-ca", "verify-full"] = "disable"
    database_sslrootcert: str = ""

    # Comma-separated, as in .env; api/webhooks/targets.py parses them.
    webhook_allowed_ports: str = Field(default="443", pattern=r"^\d{1,5}(,\d{1,5})*$")
    webhook_allowed_networks: str = ""

    @property
    def is_production(self) -> bool:
        """Tell whether the strict rules apply."""
        return self.environment == "production"

    @field_validator("*")
    @classmethod
    def _allowed_in_production(cls, value: object, info: ValidationInfo) -> object:
        reason = refusal(str(info.field_name), value, info.data)
        if reason:
            raise ValueError(reason)
        _read.get({})[str(info.field_name)] = value
        return value


class Settings(ProcessSettings):
    """The API's settings."""

    redis_host: str = "redis"
    redis_port: Port = 6379
    redis_password: SecretStr
    token_key: SecretStr
    token_key_previous: SecretStr | None = None  # verifies, never signs (api/requests/tokens.py)
    token_issuer: str = "slipway"  # noqa: S105  a name
    token_audience: str = "slipway-api"  # noqa: S105  a name
    access_token_minutes: int = Field(default=15, ge=1, le=1440)
    refresh_token_days: int = Field(default=30, ge=1, le=365)
    ops_user: str = Field(default="operator", pattern=r"^[\w.@+-]{1,64}$")
    ops_password: SecretStr | None = None  # without a password there is no console
    ops_session_idle_minutes: int = Field(default=30, ge=1, le=24 * 60)
    ops_session_max_minutes: int = Field(default=120, ge=1, le=24 * 60)
    allowed_hosts: Annotated[tuple[str, ...], NoDecode]
    docs_enabled: bool = False
    # None: api/server/gunicorn_conf.py computes the number from the container's limits.
    api_processes: int | None = Field(default=None, ge=1, le=64)
    # Equal to nginx's client_max_body_size.
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    # The quotas of the rules in api/requests/limits.py.
    user_limit_per_second: int = Field(default=100, ge=1, le=100_000)
    login_limit_per_minute: int = Field(default=10, ge=1, le=100_000)
    registration_limit_per_hour: int = Field(default=20, ge=1, le=100_000)
    export_limit_per_hour: int = Field(default=20, ge=1, le=100_000)
    cors_credentials: bool = False
    # (!) Must follow cors_credentials, because the check of cors_origins reads that field.
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()

    @field_validator("token_key_previous", "ops_password", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        return value or None  # Compose always mounts a file; an empty file means that there is none

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(name.strip().lower() for name in value.split(",") if name.strip())


class WorkerSettings(ProcessSettings):
    """The worker's settings. The worker has neither the token key nor the Redis password."""

    service: str = Field(
        default="worker", validation_alias="SLIPWAY_SERVICE", pattern=r"^[a-z]{2,20}$"
    )
    worker_processes: int = Field(default=1, ge=1, le=8)
    worker_concurrency: int = Field(default=4, ge=1, le=64)
    export_keep_hours: int = Field(default=24, ge=1, le=24 * 90)


S = TypeVar("S", bound=ProcessSettings)


@overload
def load_settings() -> Settings: ...
@overload
def load_settings(kind: type[S]) -> S: ...
def load_settings(kind: type[ProcessSettings] = Settings) -> ProcessSettings:
    """Return the settings of this kind.

    Raises:
        SystemExit: 78, with every missing or wrong key on stderr.
    """
    settings, findings = read_settings(kind)
    if settings is None:
        raise _refusal([finding for finding in findings if finding.tier == "critical"])
    return settings


def read_settings(kind: type[S]) -> tuple[S | None, list[Finding]]:
    """Return the settings, or None if a finding is critical; and all findings of both tiers."""
    folder = os.environ.get("SLIPWAY_SECRETS_DIR") or SECRETS_DIR
    sources: dict[str, Any] = {"_secrets_dir": folder} if Path(folder).is_dir() else {}
    read: dict[str, Any] = {}
    token = _read.set(read)
    settings: S | None = None
    critical = not_read()
    try:
        settings = kind(**sources)
    except ValidationError as error:
        critical += [
            _finding(kind, dict(item))
            for item in error.errors(include_input=False, include_url=False)
        ]
    except OSError as error:
        critical.append(Finding("critical", str(error.filename), str(error.strerror)))
    except UnicodeDecodeError:
        critical.append(Finding("critical", folder, "a secret file is not UTF-8 text"))
    finally:
        _read.reset(token)
    return None if critical else settings, [*critical, *warnings(read)]


def _finding(kind: type[ProcessSettings], item: dict[str, Any]) -> Finding:
    name = str(item["loc"][0])
    field = kind.model_fields.get(name)
    alias = field.validation_alias if field else None
    message = (
        "missing" if item["type"] == "missing" else str(item["msg"]).removeprefix("Value error, ")
    )
    return Finding("critical", alias if isinstance(alias, str) else name.upper(), message)


def _refusal(findings: list[Finding]) -> SystemExit:
    lines = [
        f"error: configuration refused, {len(findings)} missing or wrong",
        *sorted(f"  {finding.key}: {finding.reason}; {finding.fix}" for finding in findings),
        "HINT: ./scripts/check-config.sh prints this list again; it changes no running service",
        "RUNBOOK: docs/runbook.md#boot-refused-by-the-configuration",
    ]
    sys.stderr.write("\n".join(lines) + "\n")
    return SystemExit(EX_CONFIG)
