"""Checks the values of `.env` before the first effect; a fault names the key, not the value."""

import os
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

from stack.config import offsite
from stack.config.defaults import DEFAULTS

CPU_KEYS = ("API_CPUS", "WORKER_CPUS", "POSTGRES_CPUS", "BACKUP_CPUS", "REDIS_CPUS", "NGINX_CPUS")
PORT_KEYS = ("HTTP_PORT", "HTTPS_PORT", "SINK_PORT")
NUMBER_KEYS = (
    "WATCH_SECONDS",
    "ROLLBACK_WINDOW_SECONDS",
    "BACKUP_HOURS",
    "BACKUP_FULL_HOURS",
    "DRILL_HOURS",
    "OFFSITE_DRILL_HOURS",
)
INTEGER_KEYS = (
    "READY_SECONDS",
    "KEEP_RELEASES",
    "FREE_DISK_FLOOR_BYTES",
    "FREE_MEMORY_FLOOR_BYTES",
    "API_PROCESSES",
    "DATABASE_POOL_SIZE",
    "WORKER_PROCESSES",
    "WORKER_CONCURRENCY",
)
# A shell reads these keys, and to a shell 08 is not a number.
SHELL_INTEGER_KEYS = ("POSTGRES_BALLAST_MB", "BACKUP_KEEP_DAYS")
NUMBER, INTEGER, SHELL_INTEGER = r"\d+(\.\d+)?", r"\d+", r"0|[1-9]\d*"
HOST = r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"


def faults(values: Mapping[str, str], secrets: Path) -> list[str]:
    """Return every fault of the values, one sentence each."""
    given = {key: value for key, value in values.items() if value}
    return [*_place_faults(given), *_number_faults(given), *offsite.faults(values, secrets)]


def _place_faults(given: Mapping[str, str]) -> Iterator[str]:
    if not re.fullmatch(HOST, given.get("SLIPWAY_HOST", DEFAULTS["SLIPWAY_HOST"])):
        yield "SLIPWAY_HOST is not a host name (TLS has no server name for an IP address)"
    for key in ("HTTP_BIND", "HTTPS_BIND"):
        try:
            ip_address(given.get(key, DEFAULTS[key]))
        except ValueError:
            yield f"{key} is not an IP address"
    files = given.get("COMPOSE_FILE", "")
    if "compose.prod.yaml" in files and "compose.dev.yaml" in files:
        yield "COMPOSE_FILE names compose.prod.yaml and compose.dev.yaml: name one of them"
    words = given.get("SMOKE_PATHS", "").split()
    if not all(re.fullmatch(r"/\S*?(=[1-5]\d\d)?", word) for word in words):
        yield "SMOKE_PATHS is not PATH=STATUS, separated by spaces"
    name = given.get("COMPOSE_PROJECT_NAME", DEFAULTS["COMPOSE_PROJECT_NAME"])
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        yield "COMPOSE_PROJECT_NAME may contain only lower-case letters, digits, - and _"


def _number_faults(given: Mapping[str, str]) -> Iterator[str]:
    cores = os.cpu_count() or 1
    for key in _mismatched(given, CPU_KEYS, NUMBER):
        yield f"{key} is not a number"
    for key in CPU_KEYS:
        if re.fullmatch(NUMBER, given.get(key, "")) and float(given[key]) > cores:
            yield f"{key} is more than the {cores} cores of this machine"
    for key in PORT_KEYS:
        if key in given and not (given[key].isdecimal() and 0 < int(given[key]) < 65536):
            yield f"{key} is not a port"
    for key in _mismatched(given, NUMBER_KEYS, NUMBER):
        yield f"{key} is not a number"
    for key in _mismatched(given, INTEGER_KEYS, INTEGER):
        yield f"{key} is not a whole number"
    for key in _mismatched(given, SHELL_INTEGER_KEYS, SHELL_INTEGER):
        yield f"{key} is not a whole number"
    rate = given.get("RATE_LIMIT_PER_SECOND", DEFAULTS["RATE_LIMIT_PER_SECOND"])
    if not rate.isdecimal() or int(rate) < 1:
        yield "RATE_LIMIT_PER_SECOND is not a whole number above 0"


def _mismatched(given: Mapping[str, str], keys: tuple[str, ...], form: str) -> list[str]:
    return [key for key in keys if key in given and not re.fullmatch(form, given[key])]
