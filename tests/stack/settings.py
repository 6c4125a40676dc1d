"""Changes `.env`, and the files from which Compose takes the settings of a slot."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack.config import environment

from tests.stack.harness import Stack


@contextmanager
def _edited(file: Path, values: dict[str, str]) -> Iterator[None]:
    before = file.read_text(encoding="utf-8")
    file.write_text(environment.with_values(before, values), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(before, encoding="utf-8")


@contextmanager
def edited(stack: Stack, **values: str) -> Iterator[None]:
    """Set keys of `.env` while the block runs."""
    with _edited(stack.root / ".env", values):
        yield


@contextmanager
def slot_settings(stack: Stack, slot: str, **values: str) -> Iterator[None]:
    """Change the settings of a slot's file while the block runs; new containers get them."""
    with _edited(_file(stack, slot), values):
        yield


def give_green_the_settings_of_blue(stack: Stack) -> None:
    """Write the file that a deploy by hand writes (docs/runbook.md#deploy-by-hand): no number."""
    text = _file(stack, "blue").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("SLIPWAY_")]
    _file(stack, "green").write_text("".join(lines), encoding="utf-8")


def _file(stack: Stack, slot: str) -> Path:
    return stack.root / f"state/slots/{slot}.env"
