"""Checks the values of `.env` before the first effect; a fault names the key, not the value."""

import os
from collections.abc import Mapping
from pathlib import Path

from stack.config import forms, keys, offsite

CPU_KEYS = keys.of_form(forms.cpus)
INTEGER_KEYS = keys.of_form(forms.whole)


def faults(values: Mapping[str, str], secrets: Path) -> list[str]:
    """Return every fault of the values, one sentence each."""
    typed, unreadable = keys.parse(values)
    cores = os.cpu_count() or 1
    # The engine refuses more CPUs than the host has.
    greedy = [
        f"{key} is more than the {cores} cores of this machine"
        for key in CPU_KEYS
        if values.get(key) and isinstance(cpus := typed.get(key), float) and cpus > cores
    ]
    return [*unreadable, *greedy, *offsite.faults(values, secrets)]
