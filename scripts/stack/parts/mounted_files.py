"""Checks modes, line ends and links of the files that containers mount, directly or as copies.

Git keeps only the executable bit, so that the modes which a umask removed can be restored.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stack.commands import host
from stack.config.project import Project
from stack.rules.findings import Finding
from stack.runner import Runner

# `nginx` is copied into STATE_DIR; the containers mount the others.
FOLDERS = ("nginx", "postgres", "backup", "redis")
FOLDERS_OF_DEVELOPMENT = ("api", "worker", "sink")
PAIR = ("fullchain.pem", "privkey.pem")
RUNBOOK = "a-service-keeps-restarting"
# A larger file is neither a script nor a configuration.
MOST_BYTES = 1_000_000


def folders_of(project: Project) -> list[Path]:
    """Return the folders of the checkout that containers read."""
    names = (*FOLDERS, *(FOLDERS_OF_DEVELOPMENT if project.is_development else ()))
    return [folder for name in names if (folder := project.root / name).is_dir()]


def list_closed(folder: Path) -> list[Path]:
    """Return the files that the containers' users cannot read, for example after umask 077."""
    return _closed([folder, *folder.rglob("*")])


def _closed(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if _is_closed(path)]


def _is_closed(path: Path) -> bool:
    if not path.exists():
        return False  # a broken link; `judge` names those that matter
    needed = 0o005 if path.is_dir() or path.suffix == ".sh" else 0o004
    return path.stat().st_mode & needed != needed


def _is_ours(path: Path) -> bool:
    return os.geteuid() in {0, path.stat().st_uid}


def open_modes(runner: Runner, project: Project) -> list[str]:
    """Restore the modes that a umask removed; return the names of the changed folders."""
    closed = [folder for folder in folders_of(project) if list_closed(folder)]
    for folder in closed:
        runner.run(host.open_tree(folder))
    return [folder.name for folder in closed]


def judge(project: Project) -> list[Finding]:
    """Return the files that a container could not read, or would read differently."""
    findings = [*_judge_certificate(project.certificate.parent)]
    for folder in folders_of(project):
        below = sorted(folder.rglob("*"))
        findings += _judge_modes(folder, below)
        findings += _judge_line_ends(folder, below)
    return findings


def _judge_modes(folder: Path, below: Sequence[Path]) -> Iterator[Finding]:
    """Yield a finding for a folder whose modes `open_modes` cannot give back."""
    foreign = [path for path in _closed([folder, *below]) if not _is_ours(path)]
    if foreign:
        yield Finding(
            folder.name,
            f"{foreign[0]} cannot be read by the containers, which run as other users",
            f"chmod -R o+rX {folder}, as its owner",
            RUNBOOK,
        )


def _judge_line_ends(folder: Path, below: Sequence[Path]) -> Iterator[Finding]:
    files = [path for path in below if path.is_file() and not path.is_symlink()]
    wrong = [path for path in files if path.stat().st_size < MOST_BYTES and _has_crlf(path)]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield Finding(
            folder.name,
            f"{wrong[0]}{more} has Windows line ends (CRLF), with which no container starts",
            f"sed -i 's/\\r$//' {' '.join(map(str, wrong[:5]))}",
            RUNBOOK,
        )


def _has_crlf(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except PermissionError:
        return False  # a closed file has a finding of its own
    return b"\r\n" in content and b"\0" not in content


def _judge_certificate(folder: Path) -> Iterator[Finding]:
    """Yield the files of the certificate that nginx' container would lack or could not read."""
    fix = "put a copy there: install -m 0444 FILE"
    for path in (folder / name for name in PAIR):
        if path.is_symlink() and not _is_link_inside(path):
            target = os.readlink(path)
            fault = f"is a link to {target}, and the container mounts only {folder}"
            yield Finding(path.name, fault, f"{fix} {path}", "site-down")
        elif path.exists() and (_is_closed(path) or _is_closed(folder)):
            closed = folder if _is_closed(folder) else path
            fault = f"{closed} cannot be read by nginx, which runs as another user"
            yield Finding(path.name, fault, f"chmod o+rX {closed}", "site-down")


def _is_link_inside(path: Path) -> bool:
    """Whether a link leads to a file of its own folder, by a path that is valid in a container."""
    target = os.readlink(path)
    return not os.path.isabs(target) and (path.parent / target).resolve().parent == (
        path.parent.resolve()
    )
