"""Settings that need no environment, for tests without an engine."""

from typing import Any

from pydantic import SecretStr

from api.configuring.settings import Settings

TOKEN_KEY = "q8Zr1vXw3Ty6Ub9Nc2Me5Ka7Ld0Pf4Hg"


OPS_PASSWORD = "t5Wz-kE8c-Jq2n-Yb7g"


def make_settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "environment": "production",
        "slot": "blue",
        "release": "r-1",
        "database_host": "127.0.0.1",
        "database_port": 1,  # no server listens there: a query to the database fails
        "database_password": SecretStr("7fKq-mW2z-Rt9x-Lp4v"),
        "redis_host": "127.0.0.1",
        "redis_port": 1,
        "redis_password": SecretStr("n3Vb-8sYc"),
        "token_key": SecretStr(TOKEN_KEY),
        "allowed_hosts": ("testserver",),
        **changes,
    }
    return Settings(**values)
