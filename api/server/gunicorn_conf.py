"""Gunicorn's configuration: a Unix socket per slot, as many workers as the container can hold."""

import gc
import math
from typing import Any

from api.configuring.container import cpu_limit, memory_limit_bytes
from api.configuring.settings import load_settings
from api.configuring.timeouts import (
    GUNICORN_GRACEFUL_SECONDS,
    GUNICORN_TIMEOUT_SECONDS,
    KEEPALIVE_SECONDS,
)
from api.observing.logs import log_config
from api.server import metric_files
from api.users.passwords import HASH_KIBIBYTES, HASHES_AT_ONCE

# Measured: the master takes 60 MB, and a preloaded worker about 40 MB of its own. The other 16 MB
# of a worker are for requests.
MASTER_BYTES = 64 * 1024**2
OWN_BYTES = 56 * 1024**2
WORKER_BYTES = OWN_BYTES + HASHES_AT_ONCE * HASH_KIBIBYTES * 1024
# At least two: one worker serves while the other is replaced.
LEAST_WORKERS = 2


def worker_count(cpus: float, memory_bytes: int | None) -> int:
    """Return a worker per core, fewer if the memory is too small, but at least LEAST_WORKERS."""
    by_cpu = math.ceil(cpus)
    by_memory = by_cpu if memory_bytes is None else (memory_bytes - MASTER_BYTES) // WORKER_BYTES
    return max(LEAST_WORKERS, min(by_cpu, int(by_memory)))


def when_ready(server: Any) -> None:
    """Freeze the objects made before the fork: garbage collection in a worker would copy them."""
    gc.freeze()


def on_starting(server: Any) -> None:
    """Delete the metric files of the previous start."""
    metric_files.wipe()


pre_fork = metric_files.give_number
post_fork = metric_files.take_number
child_exit = metric_files.free_number

settings = load_settings()

bind = f"unix:/run/slots/{settings.slot}.sock"
umask = 0o007  # only the socket's group, to which nginx belongs, may use the socket
workers = settings.api_processes or worker_count(cpu_limit(), memory_limit_bytes())
worker_class = "api.server.draining.DrainingWorker"
preload_app = True
backlog = 512
timeout = GUNICORN_TIMEOUT_SECONDS
graceful_timeout = GUNICORN_GRACEFUL_SECONDS
keepalive = KEEPALIVE_SECONDS
worker_tmp_dir = "/dev/shm"  # noqa: S108 - a slow disk would make Gunicorn kill healthy workers
control_socket_disable = True
forwarded_allow_ips = "*"  # the peer of a Unix socket is nginx, which overwrites what clients send
logconfig_dict = log_config(settings)
