"""Reads from the engine the settings with which a container was created; changes nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stack.commands import engine
from stack.config import forms, keys
from stack.config.keys import KEYS
from stack.runner import Runner

# The ports inside nginx' container (compose.yaml).
PORTS = {"HTTP": "8080/tcp", "HTTPS": "8443/tcp"}


@dataclass(frozen=True)
class Facts:
    """The settings of one container.

    Attributes:
        image: the id of its image.
        environment: its variables.
        published: for each port inside, the address and the port on the host.
    """

    image: str
    environment: Mapping[str, str]
    memory_bytes: int
    cpus: float
    published: Mapping[str, tuple[str, str]]


def inspect(runner: Runner, name: str) -> Facts | None:
    """Return the facts of a container; None if it does not exist or the answer is unreadable."""
    shown = runner.read(engine.inspect_container(name, "{{json .}}"))
    try:
        content = json.loads(shown.out)
        limits = content["HostConfig"]
        return Facts(
            str(content["Image"]),
            dict(text.partition("=")[::2] for text in content["Config"]["Env"] or ()),
            int(limits.get("Memory") or 0),
            int(limits.get("NanoCpus") or 0) / 1e9,
            _published(limits.get("PortBindings") or {}),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _published(bindings: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {
        inside: (_bracketed(str(listed[0].get("HostIp", ""))), str(listed[0].get("HostPort", "")))
        for inside, listed in bindings.items()
        if listed
    }


def _bracketed(address: str) -> str:
    """Return an address in the form of `.env`: an IPv6 address has brackets."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def values_of(
    facts: Facts, wanted: Mapping[str, str], recorded: Mapping[str, str]
) -> dict[str, str]:
    """Return the value of each wanted key in a container.

    If a limit equals the wanted or the recorded limit, its text stays the same. The engine does not
    know an image's base: the key of a base image keeps the recorded value.
    """
    return {
        key: _value_of(facts, key, [text, recorded.get(key, text)]) for key, text in wanted.items()
    }


def _value_of(facts: Facts, key: str, texts: list[str]) -> str:
    if key in keys.of_form(forms.memory):
        same = [text for text in texts if forms.memory(text) == facts.memory_bytes]
        return same[0] if same else f"{facts.memory_bytes}b"
    if key in keys.of_form(forms.cpus):
        same = [text for text in texts if forms.cpus(text) == facts.cpus]
        return same[0] if same else f"{facts.cpus:g}"
    if key.endswith("_IMAGE"):
        return texts[-1]
    protocol, _, part = key.partition("_")
    if protocol in PORTS:
        place = {"BIND": 0, "PORT": 1}[part]
        published = facts.published.get(PORTS[protocol], ("", ""))
        return published[place] or texts[-1]
    return facts.environment.get(key) or KEYS[key].default
