"""Copies the sources of a release once, hashes the copy, and names the release after it.

The build reads only the copy, so that an edit during the build does not reach the image.
"""

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from stack.commands import host
from stack.failure import Failure
from stack.runner import Result, Runner

# The inputs of the image; .dockerignore has the same list.
SOURCES = (
    "Dockerfile",
    ".dockerignore",
    "requirements.lock",
    "requirements-build.lock",
    "service.toml",
    "api",
    "worker",
)
# Names of files and folders that no image contains; the last rules of .dockerignore.
KEPT_OUT = ("__pycache__", ".env*", "secrets", "*.pem")
RUNBOOK = "deploy-failed-before-the-switch"
FILE_MODE, PROGRAM_MODE, FOLDER_MODE = 0o644, 0o755, 0o755
NAMED = 5  # files in a message
CHUNK_BYTES = 1024 * 1024
# git exits with FATAL if it cannot answer, the shell with NOT_INSTALLED without git.
FATAL, NOT_INSTALLED = 128, 127


@dataclass(frozen=True)
class Sources:
    """The sources of a release, usually a copy.

    Attributes:
        folder: the folder with the copy, the context of a build; without a copy, the checkout.
        release: the commit, followed by a hash if the copy differs from the commit; without a
            commit, only the hash.
        revision: the commit, or `unknown`.
        digest: the hash of the names, the contents and the executable bits.
        left_out: files that git ignores, and files that no image may contain.
    """

    folder: Path
    release: str
    revision: str
    digest: str
    left_out: tuple[str, ...]


@contextmanager
def copied(runner: Runner, root: Path) -> Iterator[Sources]:
    """Yield a copy of the sources of a checkout; it is removed at the end of the block.

    A copy has the modes of a checkout with the umask 022, and the times of the files.

    Raises:
        Failure: if git cannot read the checkout, or tracks a file that no image may contain.
    """
    # (!) Each copy has a new folder name: in a folder that BuildKit knows, it sends a file again
    # only if the size or the time differs. The cache of layers compares contents.
    with tempfile.TemporaryDirectory(prefix="slipway-sources-") as directory:
        yield _look(runner, root, Path(directory))


def present(runner: Runner, root: Path) -> Sources:
    """Return the sources of a checkout without a copy, to name a release; no build may read them.

    Raises:
        Failure: as `copied` does.
    """
    return _look(runner, root, None)


def release_name(runner: Runner, root: Path) -> str:
    """Return the name that a release of the checkout would have now."""
    return present(runner, root).release


def _look(runner: Runner, root: Path, folder: Path | None) -> Sources:
    """Hash the sources, and copy them into a folder if there is one."""
    names, left_out = _list(runner, root)
    digest = _copy(root, folder, names)
    release, revision = f"src-{digest[:8]}", "unknown"
    commit = _commit(runner, root) if names.is_tracked else ""
    if commit:
        is_clean = digest == _digest_of_commit(runner, root, commit)
        release = commit[:12] if is_clean else f"{commit[:12]}-{digest[:8]}"
        revision = commit
    return Sources(folder or root, release, revision, digest, left_out)


def say_left_out(runner: Runner, sources: Sources) -> None:
    """Print the files of the source folders that are not in the image, if there are any."""
    if sources.left_out:
        names = _named(sources.left_out)
        runner.say(f"    not in the image, because git or .dockerignore ignores it: {names}")


@dataclass(frozen=True)
class _Names:
    """The paths of the sources below the root, and whether git tracks them."""

    paths: tuple[str, ...]
    is_tracked: bool


def _list(runner: Runner, root: Path) -> tuple[_Names, tuple[str, ...]]:
    """Return the files to copy, and the files that are left out."""
    tracked = _tracked(runner, root)
    if not tracked:
        # There is no repository, or the repository does not track this folder.
        paths = [path for name in SOURCES for path in _walk(root, name)]
        return _without_kept_out(root, paths, is_tracked=False)
    refused = [path for path in tracked if _is_kept_out(path)]
    if refused:
        raise Failure(
            f"git tracks {_named(refused)}, and no image may contain a file with such a name",
            hints=[
                "rename it; .dockerignore lists the names, which secrets usually have",
                "a committed secret is no longer secret: replace it",
            ],
            runbook=RUNBOOK,
        )
    options = ("--others", "--exclude-standard")
    others = _paths(_git(runner, root, "ls-files", "-z", *options, "--", *SOURCES))
    ignored = _paths(
        _git(runner, root, "ls-files", "-z", "--ignored", "--directory", *options, "--", *SOURCES)
    )
    # git lists a submodule, or a repository inside this one, as a folder.
    paths = [path for name in sorted({*tracked, *others}) for path in _walk(root, name)]
    names, left_out = _without_kept_out(root, paths, is_tracked=True)
    return names, tuple(sorted({*left_out, *(path for path in ignored if not _is_cache(path))}))


def _without_kept_out(
    root: Path, paths: list[str], *, is_tracked: bool
) -> tuple[_Names, tuple[str, ...]]:
    kept = tuple(path for path in paths if not _is_kept_out(path))
    left_out = tuple(path for path in paths if _is_kept_out(path) and not _is_cache(path))
    return _Names(kept, is_tracked), left_out


def _is_kept_out(path: str) -> bool:
    parts = path.rstrip("/").split("/")
    return any(fnmatchcase(part, rule) for part in parts for rule in KEPT_OUT)


def _is_cache(path: str) -> bool:
    return "__pycache__" in path.split("/") or path.endswith(".pyc")


def _named(paths: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(paths[:NAMED]) + more


def _walk(root: Path, name: str) -> list[str]:
    """Return the files and links of a path, which may be a file; none if it does not exist."""
    path = root / name
    if path.is_symlink() or not path.is_dir():
        return [name.rstrip("/")] if path.is_symlink() or path.is_file() else []
    below = sorted(path.rglob("*"))
    files = [file for file in below if file.is_symlink() or file.is_file()]
    return [str(file.relative_to(root)) for file in files if ".git" not in file.parts]


def _copy(root: Path, folder: Path | None, names: _Names) -> str:
    """Copy the files with normal modes, if there is a folder; return the hash of the files."""
    entries: dict[str, tuple[str, bytes]] = {}
    for name in names.paths:
        source, target = root / name, folder / name if folder else None
        if folder and target:
            _make_parents(folder, target.parent)
        try:
            if source.is_symlink():
                link = os.readlink(source)
                if target:
                    target.symlink_to(link)
                entries[name] = ("link", hashlib.sha256(os.fsencode(link)).digest())
            else:
                entries[name] = _copy_file(source, target)
        except FileNotFoundError:
            continue  # somebody removed it after the list was made
    return _digest(entries)


def _copy_file(source: Path, target: Path | None) -> tuple[str, bytes]:
    with source.open("rb") as content:
        status = os.fstat(content.fileno())
        is_program = bool(status.st_mode & 0o100)
        kind = "program" if is_program else "file"
        if target is None:
            return kind, _hash(content)
        with target.open("wb") as copy:
            digest = _hash(content, copy)
    target.chmod(PROGRAM_MODE if is_program else FILE_MODE)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    return kind, digest


def _make_parents(folder: Path, parent: Path) -> None:
    missing = [path for path in (parent, *parent.parents) if folder in path.parents]
    for path in reversed(missing):
        if not path.is_dir():
            path.mkdir()
            path.chmod(FOLDER_MODE)  # the umask reduces the mode that mkdir sets


def _hash(content: IO[bytes], copy: IO[bytes] | None = None) -> bytes:
    digest = hashlib.sha256()
    while chunk := content.read(CHUNK_BYTES):
        digest.update(chunk)
        if copy:
            copy.write(chunk)
    return digest.digest()


def _digest(entries: Mapping[str, tuple[str, bytes]]) -> str:
    """Return a hash of names, kinds and contents, so that equal sources have equal hashes."""
    digest = hashlib.sha256()
    for name, (kind, content) in sorted(entries.items()):
        digest.update(f"{kind}\0{name}\0".encode(errors="surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def _tracked(runner: Runner, root: Path) -> list[str]:
    """Return the sources that git tracks; none without a repository.

    Raises:
        Failure: with git's message, if git cannot read the repository.
    """
    listed = runner.read(host.git(root, "ls-files", "-z", "--cached", "--", *SOURCES))
    if listed.code == 0:
        return _paths(listed)
    has_repository = (root / ".git").exists()
    if listed.code == NOT_INSTALLED:
        if has_repository:
            runner.say("    warning: git is not installed, so the release has no commit's name")
        return []
    if not has_repository and "not a git repository" in listed.err:
        return []
    raise _git_failure(root, listed)


def _commit(runner: Runner, root: Path) -> str:
    """Return the commit of the checkout; empty in a repository without a commit."""
    head = runner.read(host.git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"))
    if head.code not in {0, 1}:
        raise _git_failure(root, head)
    return head.out.strip()


def _digest_of_commit(runner: Runner, root: Path, commit: str) -> str:
    """Return the hash that a copy of the commit has."""
    present = _paths(_git(runner, root, "ls-tree", "-z", "--name-only", commit, "--", *SOURCES))
    entries: dict[str, tuple[str, bytes]] = {}
    if not present:
        return _digest(entries)
    with tempfile.NamedTemporaryFile(prefix="slipway-commit-") as file:
        form = ("--format=tar", f"--output={file.name}")
        _git(runner, root, "archive", *form, commit, "--", *present)
        with tarfile.open(file.name) as archive:
            for member in archive:
                if member.issym():
                    link = hashlib.sha256(os.fsencode(member.linkname)).digest()
                    entries[member.name] = ("link", link)
                elif (content := archive.extractfile(member)) is not None:
                    kind = "program" if member.mode & 0o100 else "file"
                    entries[member.name] = (kind, _hash(content))
    return _digest(entries)


def _git(runner: Runner, root: Path, *arguments: str) -> Result:
    result = runner.read(host.git(root, *arguments))
    if result.code != 0:
        raise _git_failure(root, result)
    return result


def _git_failure(root: Path, result: Result) -> Failure:
    words = result.err.strip().splitlines() or [f"exit code {result.code}"]
    hints = [f"git -C {root} status shows the same"]
    if "dubious ownership" in result.err:  # git before 2.38 reads this setting only from a file
        hints = [f"git config --global --add safe.directory {root.resolve()}"]
    return Failure(
        f"git cannot read the checkout, which names the release: {words[0]}",
        hints=hints,
        runbook=RUNBOOK,
        evidence=result.err,
    )


def _paths(result: Result) -> list[str]:
    paths = [path for path in result.out.split("\0") if path]
    foreign = [path for path in paths if "\ufffd" in path]
    if foreign:
        raise Failure(
            f"the name of a source is not UTF-8: {_named(foreign)}",
            hints=["rename the file"],
            runbook=RUNBOOK,
        )
    return paths
