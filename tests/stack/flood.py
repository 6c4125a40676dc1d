"""Simulates many clients, each with its own address, in the network where the script runs.

usage: python flood.py PORT HOST TOKEN SECONDS CA_FILE. Prints the number of answers of each status
and the time of the slowest.
"""

import asyncio
import collections
import json
import ssl
import sys
import time

import httpx2

CLIENTS, CONNECTIONS = 8, 50  # below nginx's limit of 64 connections per address
Seen = dict[str, list[float]]


async def ask(client: httpx2.AsyncClient, until: float, seen: Seen) -> None:
    while time.monotonic() < until:
        begun = time.monotonic()
        pause = 0.0
        try:
            answer = await client.get("/v1/items?limit=5")
            what = f"{answer.status_code} {answer.json().get('error', '')}".strip()
            pause = float(answer.headers.get("retry-after", 0))
        except httpx2.HTTPError as error:
            what = type(error).__name__
        seen[what].append(time.monotonic() - begun)
        await asyncio.sleep(pause)  # the value of Retry-After


async def flood(port: str, host: str, token: str, seconds: float, ca_file: str) -> None:
    tls = ssl.create_default_context(cafile=ca_file)
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    seen: Seen = collections.defaultdict(list)
    limits = httpx2.Limits(max_connections=CONNECTIONS)
    async with asyncio.TaskGroup() as tasks:
        for number in range(CLIENTS):
            client = httpx2.AsyncClient(
                base_url=f"https://{host}:{port}",
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
                transport=httpx2.AsyncHTTPTransport(
                    verify=tls, limits=limits, local_address=f"127.0.0.{number + 2}"
                ),
            )
            for _ in range(CONNECTIONS):
                tasks.create_task(ask(client, time.monotonic() + seconds, seen))
    sys.stdout.write(
        json.dumps({what: [len(times), round(max(times), 2)] for what, times in seen.items()})
    )


if __name__ == "__main__":
    port, host, token, seconds, ca_file = sys.argv[1:]
    asyncio.run(flood(port, host, token, float(seconds), ca_file))
