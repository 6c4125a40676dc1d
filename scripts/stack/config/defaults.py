"""Every setting that the scripts read, with its default; "" means that it has no default.

The compose files have their own defaults for the containers, and `.env.example` explains both to
the operator. tests/contracts/test_variables.py compares the three.
"""

from collections.abc import Mapping

DEFAULTS: Mapping[str, str] = {
    "COMPOSE_FILE": "",
    "COMPOSE_PROJECT_NAME": "slipway",
    "SLIPWAY_IMAGE": "slipway/app",
    "SLIPWAY_HOST": "localhost",
    "HTTP_BIND": "127.0.0.1",
    "HTTPS_BIND": "127.0.0.1",
    "HTTP_PORT": "8080",
    "HTTPS_PORT": "8443",
    "RATE_LIMIT_PER_SECOND": "200",
    # One process per core, but no more than fit into API_MEMORY (rules/connections.py).
    "API_PROCESSES": "",
    "API_CPUS": "2",
    "API_MEMORY": "256m",
    "DATABASE_POOL_SIZE": "5",
    "WORKER_PROCESSES": "1",
    "WORKER_CONCURRENCY": "4",
    "POSTGRES_BALLAST_MB": "256",
    "OFFSITE_TYPE": "",
    "SMOKE_PATHS": "",
    # Chosen: far above the one second that was measured on an idle machine.
    "READY_SECONDS": "60",
    "WATCH_SECONDS": "10",
    # A rollback inside the window is one rename. The old slot's API keeps its memory meanwhile.
    "ROLLBACK_WINDOW_SECONDS": "600",
    "KEEP_RELEASES": "5",
    # Chosen: an image of 250 MB with its build cache, and room for a day's WAL and logs.
    "FREE_DISK_FLOOR_BYTES": "2000000000",
    # 300 MiB. Measured: a slot takes 200 MB idle; its first requests take half as much again.
    "FREE_MEMORY_FLOOR_BYTES": "314572800",
    "NOTIFY_COMMAND": "",
    "PYTHON_IMAGE": "",
    "NGINX_IMAGE": "",
    "POSTGRES_IMAGE": "",
    "REDIS_IMAGE": "",
    # Depends on the user who runs the scripts: config/project.py.
    "STATE_DIR": "",
    "SECRETS_DIR": "./secrets",
}
# On a public host, where COMPOSE_FILE names compose.prod.yaml.
PUBLIC_DEFAULTS: Mapping[str, str] = {"HTTP_BIND": "0.0.0.0", "HTTPS_BIND": "0.0.0.0"}  # noqa: S104
PUBLIC_PORTS: Mapping[str, int] = {"HTTP_PORT": 80, "HTTPS_PORT": 443}
