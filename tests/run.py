"""Runs the suite in parts, runs failed tests once more, and prints the time of each part.

Standard library only: `./scripts/test.sh --help` must work before the test environment exists.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "test-results"
REPORT = "SLIPWAY_TEST_REPORT"  # the file to which tests/conftest.py writes outcomes
KEEP = "SLIPWAY_TEST_KEEP_STACK"  # read by tests/stack/harness.py
MOST_FLAKY = 2
MOST_RERUN = 10  # more failures than this have a common cause, so a rerun would fail too
NO_TESTS = 5  # pytest's exit code if it runs no test

HELP = """\
usage: ./scripts/test.sh [PART] [--keep-stack] [TEST ...] [pytest options]

all that a change must pass, and its parts:
  ./scripts/test.sh                 what every change must pass
  ./scripts/test.sh lint            formatters, linters and types
  ./scripts/test.sh unit            the tests that need no engine
  ./scripts/test.sh stack           the tests that need one: several stacks side by side
  ./scripts/test.sh nightly         only the long repetitions
  ./scripts/test.sh all             every change and nightly
  ./scripts/test.sh audit           look the packages up in the advisory database

one test:
  ./scripts/test.sh tests/api/test_cursors.py
  ./scripts/test.sh tests/api/test_cursors.py::test_NAME
  ./scripts/test.sh unit -k NAME -x

one test against a stack that stays up between runs, rebuilt only when its sources changed:
  ./scripts/test.sh --keep-stack tests/stack/test_items.py::test_NAME
  ./scripts/test.sh --drop-stack    remove that stack

SLIPWAY_TEST_STACKS=3 sets the number of stacks side by side; the default is one for each core.
The outcome of each test, with the reason of each failure, is in test-results/.
"""

ENGINE = "(docker or stack or drill)"
SELECTION = {
    "unit": f"not {ENGINE}",
    "stack": ENGINE,
    "nightly": "nightly",
    "soak": "nightly",  # the name of this part in earlier releases
    "all": "",
    "lint": "",
}


@dataclass
class Part:
    """A run of pytest: the selected tests and their results."""

    name: str
    expression: str
    workers: int = 0
    tests: tuple[str, ...] = ()
    code: int = 0
    seconds: float = 0.0
    busy: float = 0.0  # share of the processor time of the whole machine, containers included
    outcomes: dict[str, str] = field(default_factory=dict)
    counting: set[str] = field(default_factory=set)  # tests with the mark `counts_losses`

    def named(self, outcome: str) -> list[str]:
        """Return the tests with this outcome."""
        return [test for test, ended in self.outcomes.items() if ended == outcome]

    @property
    def is_broken(self) -> bool:
        """Whether pytest itself failed, so that outcomes of tests are missing."""
        if self.code in {0, NO_TESTS}:
            return False
        return self.code != 1 or not self.named("failed")


def parts(word: str) -> list[Part]:
    """Return the parts of a run in order; the unit tests run before any container starts."""
    frequency = {"all": "", "nightly": " and nightly", "soak": " and nightly"}
    often = frequency.get(word, " and not nightly")
    cores = os.cpu_count() or 1
    unit = Part("unit", f"not {ENGINE}{often}", cores)
    # One stack keeps only one of two cores busy, so the default is a stack for each core.
    count = int(os.environ.get("SLIPWAY_TEST_STACKS") or min(cores, 6))
    stacks = Part("stacks side by side", f"{ENGINE} and not alone{often}", count)
    alone = Part("alone", f"{ENGINE} and alone{often}")
    return (
        [unit] if word == "unit" else [stacks, alone] if word == "stack" else [unit, stacks, alone]
    )


def processor_times() -> tuple[int, int]:
    """Return the busy time and the total time of all cores since the machine's start."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    times = [int(value) for value in fields]
    return sum(times) - times[3] - times[4], sum(times)  # busy: all time except idle and disk waits


def run(part: Part, options: list[str]) -> None:
    """Run pytest for a part, and store the outcomes in the part."""
    report = RESULTS / f"{part.name.replace(' ', '-')}.jsonl"
    report.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", *options, *part.tests]
    argv += ["-m", part.expression] if part.expression else []
    argv += ["-n", str(part.workers)] if part.workers else []
    print(f"==> {part.name}", flush=True)
    started, (busy, total) = time.monotonic(), processor_times()
    environment = {**os.environ, REPORT: str(report)}
    with subprocess.Popen(argv, cwd=ROOT, env=environment) as pytest:
        try:
            part.code = pytest.wait()
        except KeyboardInterrupt:  # pytest gets it too, and removes its stacks first
            pytest.wait()
            raise
    part.seconds = time.monotonic() - started
    busy_after, total_after = processor_times()
    part.busy = (busy_after - busy) / max(1, total_after - total)
    for phase in phases(report):
        test, outcome = phase["test"], phase["outcome"]
        if phase["counts_losses"]:
            part.counting.add(test)
        # A test fails if its set-up, call or tear-down fails; a test is skipped in its set-up.
        if outcome == "failed" or part.outcomes.get(test, "passed") == "passed":
            part.outcomes[test] = outcome


def phases(report: Path) -> Iterator[dict[str, str]]:
    """Yield the record that tests/conftest.py wrote for each phase of each test."""
    if report.exists():
        for line in report.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def rerun(ended: list[Part], options: list[str]) -> Part | None:
    """Rerun the failed tests once, in one process, except tests that count losses."""
    again = [test for part in ended for test in part.named("failed") if test not in part.counting]
    if not again or len(again) > MOST_RERUN:
        return None
    part = Part("once more", "", tests=tuple(again))
    run(part, options)
    return part


def main(words: list[str]) -> int:
    """Run the requested parts or tests, and return the exit code."""
    if words[:1] in (["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    if words[:1] == ["audit"]:
        # --strict: a package that cannot be looked up is a failure.
        audit = ["pip_audit", "--strict", "--disable-pip", "--require-hashes"]
        replace_by(*audit, "-r", "requirements.lock")
    if words[:1] == ["bench"]:  # from scripts/bench.sh
        replace_by_user_of_scripts("tests.bench", *words[1:])
    if "--drop-stack" in words:
        os.environ[KEEP] = "1"
        replace_by_user_of_scripts("tests.stack.kept")
    if "--keep-stack" in words:
        os.environ[KEEP] = "1"
        words = [word for word in words if word != "--keep-stack"]
    word = words[0] if words and words[0] in SELECTION else ""
    options = words[1:] if word else words
    if word == "lint":
        options = ["tests/contracts/test_lint.py", "-k", "test_every_file_passes", *options]
    if is_chosen(options) or KEEP in os.environ:
        run_chosen(word, options)
    return run_all(word, options)


def replace_by(*module: str) -> None:
    """Replace this process with a module of the test environment."""
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", *module])  # noqa: S606  argv, no shell


def replace_by_user_of_scripts(*module: str) -> None:
    """Replace this process with a module that imports the package `stack`, and is not pytest's."""
    os.environ["PYTHONPATH"] = str(ROOT / "scripts")
    replace_by(*module)


def is_chosen(options: list[str]) -> bool:
    """Whether the options select tests by file, folder, name of a test, part of a name, or mark."""
    return any(option in {"-k", "-m"} or is_path(option) for option in options)


def is_path(option: str) -> bool:
    """Whether an option is a file or a folder of the checkout, or a test in a file."""
    return not option.startswith("-") and (ROOT / option.partition("::")[0]).exists()


def run_chosen(word: str, options: list[str]) -> None:
    """Replace this process with pytest for the chosen tests: one process, and no rerun."""
    names_tests = any("::" in option for option in options)
    selected = SELECTION[word] if word else "" if names_tests else "not nightly"
    replace_by("pytest", *(["-m", selected] if selected else []), *options)


def run_all(word: str, options: list[str]) -> int:
    """Run the parts one after the other, rerun the failed tests once, and print the results."""
    RESULTS.mkdir(exist_ok=True)
    stops_early = any(option == "-x" or option.startswith("--exitfirst") for option in options)
    ended: list[Part] = []
    for part in parts(word):
        run(part, options)
        ended.append(part)
        if part.code not in {0, NO_TESTS} and stops_early:
            break
    again = rerun(ended, options)
    return print_summary(ended, again)


def print_summary(ended: list[Part], again: Part | None) -> int:
    """Print a table of the parts, and the flaky and failed tests; return the exit code."""
    flaky = again.named("passed") if again and not again.is_broken else []
    failed = [test for part in ended for test in part.named("failed") if test not in flaky]
    passed = sum(len(part.named("passed")) for part in ended) + len(flaky)
    skipped = sum(len(part.named("skipped")) for part in ended)
    (RESULTS / "flaky.txt").write_text("".join(f"{test}\n" for test in flaky), encoding="utf-8")
    print("\npart                  tests   failed   wall time   cores busy")
    for part in [*ended, *([again] if again else [])]:
        minutes, seconds = divmod(round(part.seconds), 60)
        wall = f"{minutes} min {seconds:02} s"
        print(
            f"{part.name:<20} {len(part.outcomes):>6} {len(part.named('failed')):>8} "
            f"{wall:>11} {part.busy:>12.0%}"
        )
    for part in ended:
        if part.is_broken:
            print(f"broken: pytest ended the part '{part.name}' with exit code {part.code}")
    for test in flaky:
        print(f"flaky: {test}")
    if len(flaky) > MOST_FLAKY:
        print(f"{len(flaky)} tests are flaky, and at most {MOST_FLAKY} may be")
    for test in failed:
        print(f"failed: {test}")
    is_good = passed and not failed and len(flaky) <= MOST_FLAKY
    is_good = is_good and not any(part.is_broken for part in ended)
    if is_good:
        print("next: ./scripts/up.sh starts the stack; docs/runbook.md helps when it fails")
    else:
        print("next: run one test again with ./scripts/test.sh --keep-stack FILE::TEST")
    print(f"{passed} passed, {len(failed)} failed" + (f", {skipped} skipped" if skipped else ""))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
