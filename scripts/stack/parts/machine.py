"""Installs and starts the engine and Compose v2 on the machine; changes no project."""

import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from stack.commands import engine, host
from stack.failure import Failure
from stack.rules import findings, host_limits
from stack.rules.findings import Finding
from stack.runner import Runner
from stack.waiting import wait_until

ENGINE_LOG = Path("/var/log/slipway-dockerd.log")
# An engine with nothing to restore answers within 3 s; one with many containers may take longer.
ENGINE_START_SECONDS = 60
# `!override` in compose.prod.yaml came with 2.24.4.
OLDEST_COMPOSE = (2, 24, 4)
RUNBOOK = "site-down"
# On a host without systemd, D-Bus keeps the id in the second file.
ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def booted_at() -> datetime:
    """Return the boot time of the machine."""
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    return datetime.fromtimestamp(
        next(int(line.split()[1]) for line in lines if line.startswith("btime")), UTC
    )


def read_id() -> str:
    """Return the machine's id; empty without an id, as in a container or a bare image."""
    for file in ID_FILES:
        text = file.read_text(encoding="ascii", errors="replace").strip() if file.is_file() else ""
        if re.fullmatch(
            r"[0-9a-f]{32}", text
        ):  # systemd writes "uninitialized" before a first boot
            return text
    return ""


def ensure_engine(runner: Runner) -> str:
    """Install and start the engine and Compose if they are missing; return their versions."""
    missing = _missing_programs(runner)
    if missing:
        # Before apt gets a source with a newer engine: it would be installed, and not run.
        findings.refuse(judge_engine(runner))
        _install(runner, missing)
    if not shutil.which("curl") and os.geteuid() == 0 and shutil.which("apt-get"):
        # The commands of the runbook use curl.
        runner.run(host.install_packages(["curl"]))
    answer = runner.read(engine.ENGINE_VERSION)
    if answer.code != 0:
        if "permission denied" in answer.err:
            raise Failure(
                "this user may not use the engine",
                hints=["run this as root, or add the user to the group docker and log in again"],
                runbook=RUNBOOK,
            )
        _start(runner)
        answer = runner.read(engine.ENGINE_VERSION)
    findings.refuse(judge_engine(runner))
    compose = runner.read(engine.COMPOSE_VERSION)
    _check_compose(compose.out)
    versions = answer.out.strip() or "(not running)", compose.out.strip() or "(not installed)"
    return f"engine {versions[0]}, compose {versions[1]}"


def judge_engine(runner: Runner) -> list[Finding]:
    """Return a finding if the running engine is too old, whatever version is installed."""
    running = runner.read(engine.ENGINE_VERSION).out.strip()
    if not host_limits.judge_engine(running, ""):
        return []
    on_disk = re.search(r"\d+\.\d+\.\d+", runner.read(host.ENGINE_ON_DISK).out)
    return host_limits.judge_engine(running, on_disk[0] if on_disk else "")


def _missing_programs(runner: Runner) -> list[str]:
    """Return the keys of `host.DEBIAN_ENGINE` whose program is not on this host."""
    is_answering = runner.read(engine.ENGINE_VERSION).code == 0
    has = {
        "engine": is_answering or shutil.which("dockerd"),
        "client": is_answering or shutil.which("docker"),
        "compose": runner.read(engine.COMPOSE_VERSION).code == 0,
        "buildx": runner.read(engine.BUILDX_VERSION).code == 0,
    }
    return [program for program, is_here in has.items() if not is_here]


def _check_compose(version: str) -> None:
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if numbers and tuple(map(int, numbers.groups())) < OLDEST_COMPOSE:
        raise Failure(
            f"compose {version.strip()} is older than {'.'.join(map(str, OLDEST_COMPOSE))}",
            hints=["upgrade the Compose plugin: docker compose version shows which one is used"],
            runbook=RUNBOOK,
        )


def read_os_release(text: str) -> dict[str, str]:
    """Return the fields of /etc/os-release."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value.strip('"') for key, _, value in pairs}


def _install(runner: Runner, missing: list[str]) -> None:
    release = read_os_release(Path("/etc/os-release").read_text(encoding="utf-8"))
    name = release.get("ID", "")
    if name not in {"debian", "ubuntu"}:
        raise Failure(
            "no engine here, and this script can install one on Debian and Ubuntu only "
            f"(this is {name or 'unknown'})",
            hints=[
                "install Docker Engine and its Compose plugin as your distribution documents, "
                "then run this again"
            ],
            runbook=RUNBOOK,
        )
    if os.geteuid() != 0:
        raise Failure(
            "no engine here, and only root may install one",
            hints=["run this once as root: sudo ./scripts/up.sh"],
            runbook=RUNBOOK,
        )
    runner.run(host.APT_UPDATE)
    if name == "debian" and int(release.get("VERSION_ID", "0")) < 13:
        _add_engine_source(runner)
    packages_of = host.UBUNTU_ENGINE if name == "ubuntu" else host.DEBIAN_ENGINE
    packages = list(dict.fromkeys(p for program in missing for p in packages_of[program]))
    has_engine = "engine" not in missing
    installed = runner.run(host.install_packages(packages, may_fail=has_engine))
    if installed.code != 0:
        raise Failure(
            "this host has an engine without Compose v2 or Buildx, and apt cannot add them to it",
            hints=[
                "install them from the source of the engine; from Docker's own: "
                "apt-get install docker-compose-plugin docker-buildx-plugin",
                "nothing was removed",
            ],
            runbook=RUNBOOK,
            evidence=installed.err,
        )


def _add_engine_source(runner: Runner) -> None:
    """Install the engine from Debian 13, with pinned packages: Debian 12 has no Compose v2."""
    mirrors = host.mirrors(runner.read(host.APT_SOURCES).out)
    if mirrors is None:
        raise Failure(
            "apt on this machine has no Debian source",
            hints=["add Debian's archive to /etc/apt/sources.list, or install the engine by hand"],
            runbook=RUNBOOK,
        )
    runner.write(Path(host.ENGINE_SOURCE), host.engine_source(mirrors.archive), 0o644)
    runner.write(Path(host.ENGINE_PIN), host.engine_pin(), 0o644)
    runner.run(host.APT_UPDATE)


def _start(runner: Runner) -> None:
    if os.geteuid() != 0:
        raise Failure(
            "the engine is not running",
            hints=["start it as root: systemctl start docker"],
            runbook=RUNBOOK,
        )
    if Path("/run/systemd/system").is_dir():
        runner.run(host.ENABLE_ENGINE)
    else:
        runner.start(host.ENGINE, ENGINE_LOG)

    def is_answering() -> bool:
        return runner.read(engine.ENGINE_VERSION).code == 0

    if not wait_until(runner, is_answering, ENGINE_START_SECONDS):
        last = ENGINE_LOG.read_text("utf-8", "replace")[-2000:] if ENGINE_LOG.exists() else ""
        raise Failure(
            f"the engine did not answer within {ENGINE_START_SECONDS} s of its start",
            hints=[f"read {ENGINE_LOG}, or with systemd: journalctl --unit docker"],
            evidence=last,
            runbook=RUNBOOK,
        )
