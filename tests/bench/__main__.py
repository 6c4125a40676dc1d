"""Compares an authenticated read of an item over the whole path with bare uvicorn.

Both serve the same row of the same Postgres, from the same image, with two processes and the
same limits, under the same load over keep-alive connections. The whole path is TLS, nginx with its
limits and its log, the socket, Gunicorn, and the service with its own log, metrics, limits of time
and size, and headers. The reference (tests/bench/reference.py) is uvicorn without an access log and
the handler of a plain template: a session for each request, PyJWT, a select of the user, and a
select of the item through the ORM. The only result is the ratio of the two, from bursts that
follow each other. Then the benchmark removes the layers of the whole path one by one.

The benchmark needs an engine, wrk (installed if it is missing), and about 3 minutes on an idle
machine. It starts its own stack and removes it at the end.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.load import CONNECTIONS, Count, LoadFailed, Target, burst
from tests.stack.harness import PROJECT, Stack, copy_checkout, wait_until

PROCESSES = 2
LAYERS = (
    "without TLS",
    "and without limits of rate and connections",
    "and without nginx' access log",
    "and without nginx, by TCP",
    "and without the service's log line",
    "and without its middleware",
    "and without Postgres",
    "and without the token's check",
    "and without FastAPI: Gunicorn and Uvicorn alone",
)


def main() -> None:
    given = arguments()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        stack = Stack(Path(folder), f"{PROJECT}-bench")
        copy_checkout(stack.root)
        stack.environment |= {"RATE_LIMIT_PER_SECOND": "1000000", "API_PROCESSES": str(PROCESSES)}
        stack.remove()
        try:
            bring_up(stack)
            found = measure(stack, given.rounds, given.seconds)
        except LoadFailed as failed:
            sys.exit(
                f"error: {failed}\nHINT: --rounds 1 --seconds 1 soon shows whether it fails again"
            )
        finally:
            stack.remove()
    say(found)
    print(f"took {time.monotonic() - started:.0f} s")
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=int, default=10, metavar="N", help="pairs of bursts (default 10)"
    )
    parser.add_argument(
        "--seconds", type=int, default=3, metavar="S", help="length of each burst (default 3)"
    )
    parser.add_argument(
        "--json", default="", metavar="FILE", help="write the figures and the machine's facts there"
    )
    return parser.parse_args()


def bring_up(stack: Stack) -> None:
    print("==> a stack of its own", flush=True)
    (stack.root / "tests/bench/nginx.conf").rename(stack.root / "nginx/conf.d/90-bench.conf")
    stack.run("./scripts/up.sh", timeout=900)
    stack.environment["COMPOSE_FILE"] = "compose.yaml:tests/bench/compose.yaml"
    stack.compose("up", "--detach", "--no-deps", "reference", "layers")


def measure(stack: Stack, rounds: int, seconds: int) -> dict[str, Any]:
    with stack.client(headers={"Authorization": f"Bearer {stack.token()}"}) as client:
        token = client.headers["Authorization"].removeprefix("Bearer ")
        item = client.post(
            "/v1/items", json={"name": "Lamp", "description": "of brass", "price_cents": 4200}
        ).json()
    whole, reference, *layers = targets(stack, f"/v1/items/{item['id']}")

    def is_answering(target: Target) -> Callable[[], bool]:
        return lambda: is_reached(target, token)

    print("==> warm-up", flush=True)
    for target in (whole, reference, *layers):
        wait_until(is_answering(target), 30, f"{target.name} answers")
    print(f"==> {rounds} pairs of {seconds} s", flush=True)
    pairs = []
    for number in range(rounds):  # the target that goes first alternates
        first, second = (whole, reference) if number % 2 else (reference, whole)
        counts = {target.name: burst(target, token, seconds) for target in (first, second)}
        pairs.append((counts[whole.name], counts[reference.name]))
    peeled = []
    few = max(1, rounds // 3)
    print(f"==> {few} rounds of {len(layers)} layers", flush=True)
    for _ in range(few):
        peeled.append([burst(target, token, seconds) for target in (whole, *layers)])
    return {"machine": facts(stack, seconds), **summary(pairs, peeled)}


def is_reached(target: Target, token: str) -> bool:
    try:
        burst(target, token, 1)
    except LoadFailed:
        return False
    return True


def targets(stack: Stack, path: str) -> list[Target]:
    """Return the whole path, the reference, and the layers in the order of LAYERS."""
    nginx, reference, layers = (
        address_of(stack, service) for service in ("nginx", "reference", "layers")
    )
    inside = [(f"http://{stack.host}:{port}{path}", nginx) for port in (8091, 8092, 8093)]
    inside += [
        (f"http://{stack.host}:8000/{number}{path}", layers)
        for number in range(len(LAYERS) - len(inside))
    ]
    return [
        Target("whole path", f"https://{stack.host}:8443{path}", nginx),
        Target("bare uvicorn", f"http://{stack.host}:8000{path}", reference),
        *(Target(name, url, address) for name, (url, address) in zip(LAYERS, inside, strict=True)),
    ]


def address_of(stack: Stack, service: str) -> str:
    """Return a container's address: a published port would add the engine's proxy."""
    networks = stack.inspect(service)["NetworkSettings"]["Networks"]
    return str(
        networks[f"{stack.project}_{'edge' if service == 'nginx' else 'egress'}"]["IPAddress"]
    )


def summary(pairs: list[tuple[Count, Count]], peeled: list[list[Count]]) -> dict[str, Any]:
    ratios = [whole.per_second / reference.per_second for whole, reference in pairs]
    rows = []
    for number, name in enumerate(("whole path", *LAYERS)):
        of_whole = statistics.median(row[number].per_second / row[0].per_second for row in peeled)
        rows.append(
            {
                "layer": name,
                "of_whole": round(of_whole, 3),
                **spread([row[number] for row in peeled]),
            }
        )
    return {
        "ratio": {
            "median": round(statistics.median(ratios), 3),
            "least": round(min(ratios), 3),
            "most": round(max(ratios), 3),
        },
        "whole_path": spread([whole for whole, _ in pairs]),
        "bare_uvicorn": spread([reference for _, reference in pairs]),
        "layers": rows,
    }


def spread(counts: list[Count]) -> dict[str, float]:
    names = ("per_second", "p50_ms", "p99_ms")
    return {
        name: round(statistics.median(getattr(one, name) for one in counts), 2) for name in names
    }


def facts(stack: Stack, seconds: int) -> dict[str, Any]:
    """Return the facts that the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "kernel": platform.release(),
        "processes": PROCESSES,
        "connections": CONNECTIONS,
        "burst_seconds": seconds,
        "release": stack.live()[0],
        "python": stack.compose("exec", "--no-TTY", "reference", "python", "--version").strip(),
        "postgres": stack.sql("show server_version"),
        "wrk": subprocess.run(
            ["wrk", "--version"], capture_output=True, text=True, check=False
        ).stdout.splitlines()[0],
    }


def say(found: dict[str, Any]) -> None:
    whole, reference, ratio = found["whole_path"], found["bare_uvicorn"], found["ratio"]
    print(f"\n{'':50}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'ratio':>8}")
    line = "{:50}{:12.0f}{:9.1f}{:9.1f}{:>8}"
    print(
        line.format(
            "whole path",
            whole["per_second"],
            whole["p50_ms"],
            whole["p99_ms"],
            f"{ratio['median']:.2f}",
        )
    )
    print(
        line.format(
            "bare uvicorn",
            reference["per_second"],
            reference["p50_ms"],
            reference["p99_ms"],
            "1.00",
        )
    )
    print(f"ratio of pairs of bursts: {ratio['least']:.2f} to {ratio['most']:.2f}\n")
    for row in found["layers"]:
        print(
            line.format(
                row["layer"],
                row["per_second"],
                row["p50_ms"],
                row["p99_ms"],
                f"{row['of_whole']:.2f}",
            )
        )


if __name__ == "__main__":
    main()
