"""Keeps a stack between two test runs, and rebuilds only the parts whose sources changed.

`python -m tests.stack.kept` removes the stack; `./scripts/test.sh --drop-stack` runs it.
"""

import hashlib
import json
import shutil

from stack.parts.sources import SOURCES

from tests.stack.harness import ROOT, Stack, copy_checkout, free_ports, listed_files

FOLDER = ROOT / ".kept-stack"
CHECKOUT = FOLDER / "checkout"
FACTS = FOLDER / "stack.json"
# The running stack reads none of these files: tests run from the checkout itself.
NOT_OF_THE_STACK = ("tests/", "docs/", ".ci/", ".git", ".editor", ".pre-commit", ".yamllint")
RUN_FROM_THE_CHECKOUT = ("scripts/", "pyproject.toml", "requirements-dev.lock")


def sources() -> dict[str, str]:
    """Return the hash of each file on which the stack depends."""
    return {
        name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
        for name in listed_files()
        if not name.startswith(NOT_OF_THE_STACK) and not name.endswith(".md")
    }


def bring_up() -> Stack:
    """Return the kept stack with this checkout's sources; rebuild it only where necessary."""
    wanted = sources()
    facts = json.loads(FACTS.read_text(encoding="utf-8")) if FACTS.exists() else {}
    ports = facts.get("ports") or free_ports(3)
    stack = Stack(CHECKOUT, ports=ports)
    running: dict[str, str] = facts.get("sources", {})
    changed = {name for name in {*wanted, *running} if wanted.get(name) != running.get(name)}
    FACTS.unlink(missing_ok=True)  # a run that is interrupted after this line starts over
    if not running or not is_whole(stack) or needs_new_stack(changed):
        begin(stack)
    else:
        renew(stack, changed)
    FACTS.write_text(json.dumps({"ports": ports, "sources": wanted}), encoding="utf-8")
    return stack


def is_whole(stack: Stack) -> bool:
    """Whether the stack serves from the slot that the tests expect."""
    return stack.is_serving() and stack.live()[1] == "blue"


def is_of_the_image(name: str) -> bool:
    return any(name == source or name.startswith(f"{source}/") for source in SOURCES)


def needs_new_stack(changed: set[str]) -> bool:
    """Whether a changed file affects more than the application's image and the scripts."""
    return any(
        not is_of_the_image(name) and not name.startswith(RUN_FROM_THE_CHECKOUT) for name in changed
    )


def begin(stack: Stack) -> None:
    """Remove the kept stack and bring up a new one."""
    print("==> kept stack: rebuilt")
    remove(stack)
    CHECKOUT.mkdir(parents=True)
    copy_checkout(CHECKOUT)
    stack.prepare()
    stack.run("./scripts/up.sh")


def renew(stack: Stack, changed: set[str]) -> None:
    """Copy the changed files; start a new release in the slot if some of them are in the image."""
    for name in sorted(changed):
        file = CHECKOUT / name
        file.unlink(missing_ok=True)
        if (ROOT / name).exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, file)
    if changed:
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
        stack.run(*git, "add", "--all", "--", *sorted(changed))
        stack.run(*git, "commit", "--quiet", "--message", "as changed")
    if any(is_of_the_image(name) for name in changed):
        print("==> kept stack: a new release, because the application changed")
        services = ("api-blue", "worker-blue", "api-green", "worker-green")
        stack.compose("--profile", "*", "rm", "--stop", "--force", *services)
        stack.run("docker", "rmi", f"{stack.image}:blue")
        stack.run("./scripts/up.sh")


def remove(stack: Stack) -> None:
    """Remove the stack and its checkout."""
    CHECKOUT.mkdir(parents=True, exist_ok=True)  # the removal runs in the checkout
    stack.remove()
    shutil.rmtree(FOLDER)


if __name__ == "__main__":
    remove(Stack(CHECKOUT))
