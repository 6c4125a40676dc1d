"""The default of each key, and the values that differ on a public host and a developer's machine.

The compose files have defaults of their own for the containers, and `.env.example` explains both to
the operator. tests/contracts/test_variables.py compares the three.
"""

from collections.abc import Mapping

from stack.config.keys import KEYS

DEFAULTS: Mapping[str, str] = {name: key.default for name, key in KEYS.items()}
# On a public host, where COMPOSE_FILE names compose.prod.yaml.
PUBLIC_DEFAULTS: Mapping[str, str] = {"HTTP_BIND": "0.0.0.0", "HTTPS_BIND": "0.0.0.0"}  # noqa: S104
PUBLIC_PORTS: Mapping[str, int] = {"HTTP_PORT": 80, "HTTPS_PORT": 443}
# The compose files give these values to the service instead of those in `.env`.
PUBLIC_SETTINGS: Mapping[str, str] = {"ENVIRONMENT": "production", "DOCS_ENABLED": "false"}
DEVELOPMENT_SETTINGS: Mapping[str, str] = {
    "ENVIRONMENT": "development",
    "DOCS_ENABLED": "true",
    "WEBHOOK_ALLOWED_NETWORKS": "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16",
}
