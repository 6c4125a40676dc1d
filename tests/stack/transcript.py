"""Turns the output of deploy.sh into the block of README.md, and compares two such blocks.

A pipe gets more than a reader needs: each command, the build's output, the evidence of a failure.
The block keeps each step with its result and seconds, the closing lines and the exit code.
"""

import re
from pathlib import Path

STEP = re.compile(r"^==> (?P<name>.+) \[[\d.]+ s\]$")
RESULT = re.compile(r"^ {4}(?P<text>.+) \((?P<seconds>[\d.]+ s)\)$")
CLOSING = ("deployed in ", "live: ", "error: ", "HINT: ", "RUNBOOK: ")
# A file or folder of a deploy attempt, in the state directory of the tests.
OF_ONE_ATTEMPT = re.compile(r"\S+/(evidence|attempts)/\S+")
STARTS_AT = "<!-- transcript: {} -->\n```text\n"


def block(stdout: str, stderr: str, url: str) -> str:
    """Return the block for a run of deploy.sh, with the address of a first start."""
    lines = ["$ ./scripts/deploy.sh"]
    for line in [*stdout.splitlines(), *stderr.splitlines()]:
        step, result = STEP.match(line), RESULT.match(line)
        if step:
            lines.append(f"==> {step['name']}")
        elif result and lines[-1].startswith("==> ") and ": " not in lines[-1]:
            lines[-1] += f": {_short(result['text'])} ({result['seconds']})"
        elif line.startswith(CLOSING):
            lines.append(OF_ONE_ATTEMPT.sub(r"STATE_DIR/\1/...", line))
    shown = "\n".join(lines).replace(url, "https://localhost:8443") + "\n"
    return re.sub(r"(;|is worse than \S+:) (?=before the switch|\d+%)", r"\1\n    ", shown)


def _short(result: str) -> str:
    """Return a step's result without its warnings, which depend on the machine."""
    return result.partition(";")[0] if result.startswith("nothing stands in the way") else result


def from_step(shown: str, name: str) -> str:
    """Return a block that begins with this step; `...` replaces the steps before it."""
    command, _, rest = shown.partition("\n")
    before, found, after = rest.partition(f"==> {name}")
    assert before, f"no step before {name} in {shown}"
    assert found, f"no step {name} in {shown}"
    return f"{command}\n...\n{found}{after}"


def without_variables(shown: str) -> str:
    """Return a block in which names replace the parts that differ between runs."""
    releases: list[str] = []

    def name(match: re.Match[str]) -> str:
        if match[2] not in releases:
            releases.append(match[2])
        return f"{match[1]} RELEASE-{releases.index(match[2]) + 1}"

    shown = re.sub(r"\b(release|live is|worse than) ([0-9a-f]{7,}(?:-[0-9a-f]+)?)", name, shown)
    shown = re.sub(r": (?:nothing to remove|removed [^\n]+) \(", ": RETENTION (", shown)
    shown = re.sub(r"(?<=the database is at )\w+", "HEAD", shown)
    shown = re.sub(r"\d+%(?= of)", "N%", shown)
    # Earlier tests may have injected faults, whose errors count for the old release.
    shown = re.sub(r"(before the switch: \d+ requests, )[\d.]+%", r"\1N%", shown)
    return re.sub(r"\d+(?:[.,]\d+)*(?= (?:s\b|requests|ms))", "N", shown)


def written(page: Path, name: str) -> str:
    """Return the block of this name in a page."""
    start = STARTS_AT.format(name)
    text = page.read_text(encoding="utf-8")
    assert start in text, f"{page.name} has no block {name}"
    return text.partition(start)[2].partition("```\n")[0]


def write(page: Path, name: str, shown: str) -> None:
    """Replace the block of this name in a page."""
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace(written(page, name), shown, 1), encoding="utf-8")
