"""The content and the name of a copy of the sources, with real git, files and modes."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stack.config import surroundings
from stack.failure import Failure
from stack.parts import sources
from stack.runner import RealRunner

from tests.scripts.recording import RecordingRunner

ALL = {
    "Dockerfile",
    "service.toml",
    "api/main.py",
    "api/migrations/versions/2026_01_01_0000_pre_first.py",
}
IDENTITY = ["-c", "user.name=t", "-c", "user.email=t@example.com"]


def git(root: Path, *arguments: str) -> str:
    argv = ["git", "-C", str(root), *IDENTITY, *arguments]
    completed = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    return completed.stdout.strip()


def commit_all(root: Path) -> str:
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "All")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, so that the git settings of the person who runs the tests do not apply."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "none"))
    return folder


@pytest.fixture
def repository(bare: Path) -> Path:
    git(bare, "init", "--quiet")
    (bare / ".gitignore").write_text("__pycache__/\nlocal/\n*.log\n", encoding="utf-8")
    commit_all(bare)
    return bare


def write(path: Path, text: str = "text\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def runner_of_scripts() -> RealRunner:
    """Return a runner whose commands get the variables that the scripts give them."""
    return RealRunner(None, lambda _: surroundings.of_children(os.environ, str(Path.cwd())))


def look(root: Path) -> tuple[str, str, dict[str, bytes]]:
    """Return the release, the revision and the files of a copy."""
    with sources.copied(runner_of_scripts(), root) as copy:
        files = [path for path in copy.folder.rglob("*") if path.is_symlink() or path.is_file()]
        contents = {
            str(path.relative_to(copy.folder)): os.readlink(path).encode()
            if path.is_symlink()
            else path.read_bytes()
            for path in files
        }
        return copy.release, copy.revision, contents


def left_out(root: Path) -> tuple[str, ...]:
    with sources.copied(runner_of_scripts(), root) as copy:
        return copy.left_out


def test_a_release_is_called_after_its_commit_and_holds_its_sources(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    release, revision, files = look(repository)
    assert (release, revision, set(files)) == (commit[:12], commit, ALL)


def test_sources_that_are_not_copied_have_the_same_name_and_hash(repository: Path) -> None:
    runner, former = runner_of_scripts(), set[str]()
    for name in ("", "api/main.py", "api/.env", "worker/program", "worker/link"):
        if name == "worker/link":
            (repository / name).symlink_to("program")
        elif name:
            write(repository / name, "text\n")
            (repository / name).chmod(0o755 if name == "worker/program" else 0o600)
        present = sources.present(runner, repository)
        with sources.copied(runner, repository) as copy:
            assert replace(present, folder=copy.folder) == copy
        assert present.folder == repository
        former.add(present.release)
    assert len(former) == 4  # `.env` is in no image


@pytest.mark.parametrize("change", ["api/main.py", "worker/new.py", "Dockerfile"])
def test_a_change_of_the_sources_is_another_release_and_in_the_copy(
    repository: Path, change: str
) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    write(repository / change, "changed\n")
    release, revision, files = look(repository)
    assert release.startswith(f"{commit[:12]}-")
    assert (len(release), revision, files[change]) == (12 + 1 + 8, commit, b"changed\n")


@pytest.mark.parametrize(
    "setting",
    [("status.showUntrackedFiles", "no"), ("core.untrackedCache", "true")],
    ids=lambda setting: setting[0],
)
def test_a_new_file_that_git_status_does_not_show_is_in_the_copy_and_changes_the_name(
    repository: Path, setting: tuple[str, str]
) -> None:
    git(repository, "config", *setting)
    commit = git(repository, "rev-parse", "HEAD")
    write(repository / "api/extra.py")
    release, _, files = look(repository)
    assert "api/extra.py" in files
    assert release != commit[:12]


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_a_change_that_git_was_told_to_pass_over_changes_the_name(
    repository: Path, flag: str
) -> None:
    git(repository, "update-index", flag, "api/main.py")
    write(repository / "api/main.py", "changed\n")
    assert git(repository, "status", "--porcelain") == ""
    release, _, files = look(repository)
    assert files["api/main.py"] == b"changed\n"
    assert "-" in release


def test_a_source_that_was_deleted_or_renamed_is_another_release(repository: Path) -> None:
    first, _, _ = look(repository)
    (repository / "api/main.py").rename(repository / "api/other.py")
    second, _, files = look(repository)
    assert "api/main.py" not in files
    (repository / "api/other.py").unlink()
    third, _, _ = look(repository)
    assert len({first, second, third}) == 3


def test_the_executable_bit_and_a_link_are_part_of_the_name(repository: Path) -> None:
    names = {look(repository)[0]}
    (repository / "api/main.py").chmod(0o644)
    names.add(look(repository)[0])
    (repository / "api/link").symlink_to("main.py")
    names.add(look(repository)[0])
    (repository / "api/link").unlink()
    (repository / "api/link").symlink_to("other.py")
    release, _, files = look(repository)
    assert len({*names, release}) == 4
    assert files["api/link"] == b"other.py"
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "Link")
    assert "-" not in look(repository)[0], "the same link and modes are in the commit"


IGNORED = ("api/local/k", "api/debug.log", "api/main/__pycache__/main.pyc")
SECRET = ("api/.env", "api/.env.production", "api/secrets/k", "worker/secrets", "api/tls/key.pem")


@pytest.mark.parametrize("is_repository", [True, False], ids=["git", "no git"])
def test_no_ignored_file_and_no_secret_is_in_the_copy_and_each_is_named(
    bare: Path, is_repository: bool, request: pytest.FixtureRequest
) -> None:
    root: Path = request.getfixturevalue("repository") if is_repository else bare
    before = look(root)
    for path in (*IGNORED, *SECRET) if is_repository else SECRET:
        write(root / path)
    assert look(root) == before
    shown = left_out(root)
    expected = {"api/.env", "api/.env.production", "worker/secrets", "api/tls/key.pem"}
    expected |= {"api/local/", "api/debug.log"} if is_repository else set()
    assert expected < set(shown)
    assert any(path.startswith("api/secrets") for path in shown)
    assert not any("__pycache__" in path for path in shown)


def test_a_file_that_the_person_s_own_git_ignores_is_left_out_and_named(
    repository: Path, home: Path
) -> None:
    before = look(repository)
    write(home / "ignore", "*.txt\n")
    write(home / ".gitconfig", f"[core]\n\texcludesFile = {home / 'ignore'}\n")
    write(repository / "api/note.txt")
    assert look(repository) == before
    assert left_out(repository) == ("api/note.txt",)


def test_files_that_are_left_out_are_printed_before_the_build(
    runner: RecordingRunner, repository: Path
) -> None:
    for number in range(7):
        write(repository / f"api/{number}.log")
    with sources.copied(runner, repository) as copy:
        sources.say_left_out(runner, copy)
    (line,) = runner.said
    assert line.endswith("api/0.log, api/1.log, api/2.log, api/3.log, api/4.log and 2 more")
    for path in (repository / "api").glob("*.log"):
        path.unlink()
    with sources.copied(runner, repository) as copy:
        sources.say_left_out(runner, copy)
    assert len(runner.said) == 1


@pytest.mark.parametrize("path", ["api/.env", "api/secrets/k", "api/ca.pem"])
def test_a_tracked_file_that_no_image_holds_is_refused(repository: Path, path: str) -> None:
    write(repository / path)
    commit_all(repository)
    with pytest.raises(Failure, match=f"git tracks {path}, and no image") as raised:
        look(repository)
    assert "rename it" in raised.value.hints[0]


def test_a_change_beside_the_sources_is_the_same_release(repository: Path) -> None:
    before = look(repository)
    write(repository / "README.md", "new\n")
    write(repository / "secrets/token_key")
    write(repository / "api/__pycache__/main.pyc")
    assert look(repository) == before


def test_a_file_that_is_edited_after_the_copy_is_not_in_it(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    with sources.copied(runner_of_scripts(), repository) as copy:
        write(repository / "api/main.py", "EDITED = 1\n")
        assert (copy.folder / "api/main.py").read_bytes() == b"app = 1\n"
        assert copy.release == commit[:12]
    assert look(repository)[0] != commit[:12]


def test_a_commit_that_is_made_while_the_sources_are_copied_gives_no_wrong_name(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy has the old files: its name must not be that of the new commit."""
    copy_files = sources._copy

    def commit_then(*arguments: object) -> str:
        digest = copy_files(*arguments)  # type: ignore[arg-type]
        write(repository / "api/main.py", "app = 2\n")
        commit_all(repository)
        return digest

    monkeypatch.setattr(sources, "_copy", commit_then)
    release, _, files = look(repository)
    assert files["api/main.py"] == b"app = 1\n"
    assert release.startswith(git(repository, "rev-parse", "HEAD")[:12] + "-")


def test_a_checkout_with_the_umask_077_has_the_same_name_and_modes(repository: Path) -> None:
    before = look(repository)
    for path in (repository / "api", *(repository / "api").rglob("*")):
        path.chmod(0o700)
    (repository / "Dockerfile").chmod(0o600)
    former = os.umask(0o077)
    try:
        assert look(repository) == before
        with sources.copied(runner_of_scripts(), repository) as copy:
            modes = {
                str(path.relative_to(copy.folder)): path.stat().st_mode & 0o777
                for path in copy.folder.rglob("*")
            }
    finally:
        os.umask(former)
    assert (modes["api"], modes["api/main.py"], modes["Dockerfile"]) == (0o755, 0o755, 0o644)
    assert set(modes.values()) == {0o755, 0o644}


def test_a_copy_keeps_the_times_has_a_folder_of_its_own_and_is_removed(repository: Path) -> None:
    os.utime(repository / "api/main.py", (1, 1_000_000_000))
    with (
        sources.copied(runner_of_scripts(), repository) as first,
        sources.copied(runner_of_scripts(), repository) as second,
    ):
        assert first.folder.name != second.folder.name
        assert (first.folder / "api/main.py").stat().st_mtime == 1_000_000_000
    assert not first.folder.exists()


def test_without_git_a_release_is_called_after_its_sources(bare: Path) -> None:
    with sources.copied(runner_of_scripts(), bare) as copy:
        assert (copy.release, copy.revision) == (f"src-{copy.digest[:8]}", "unknown")


def test_a_checkout_inside_a_repository_that_does_not_track_it_is_no_repository(
    bare: Path,
) -> None:
    (bare.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    git(bare.parent, "init", "--quiet")
    git(bare.parent, "commit", "--quiet", "--allow-empty", "--message", "Dotfiles")
    release, _, files = look(bare)
    assert (release[:4], set(files)) == ("src-", ALL)


def test_a_checkout_that_is_a_folder_of_a_repository_is_called_after_the_commit(
    bare: Path,
) -> None:
    git(bare.parent, "init", "--quiet")
    commit = commit_all(bare.parent)
    release, _, files = look(bare)
    assert (release, set(files)) == (commit[:12], ALL)


def test_a_repository_without_a_commit_has_a_release_of_its_sources(bare: Path) -> None:
    git(bare, "init", "--quiet")
    git(bare, "add", ".")
    assert look(bare)[:2] == (f"src-{look(bare)[0][4:]}", "unknown")


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"])
def test_git_s_variables_of_the_shell_do_not_lead_to_another_repository(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = look(repository)
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    git(other, "commit", "--quiet", "--allow-empty", "--message", "Other")
    values = {"GIT_DIR": other / ".git", "GIT_WORK_TREE": other, "GIT_INDEX_FILE": other / "index"}
    monkeypatch.setenv(name, str(values[name]))
    assert look(repository) == before


def test_a_hook_of_git_which_sets_its_directory_deploys_the_checkout(repository: Path) -> None:
    """git sets GIT_DIR=.git in a hook, such as a post-receive that deploys the pushed commit."""
    hook = repository / ".git/hooks/post-commit"
    code = (
        f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(sources.__file__).parents[2])!r})\n"
        "import os\nfrom stack.config import surroundings\n"
        "from stack.parts import sources\nfrom stack.runner import RealRunner\n"
        "runner = RealRunner(None, lambda _: surroundings.of_children(os.environ, os.getcwd()))\n"
        f"name = sources.release_name(runner, Path({str(repository)!r}))\n"
        "Path('name').write_text(name)\n"
    )
    write(hook, code)
    hook.chmod(0o755)
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "Next")
    expected = git(repository, "rev-parse", "HEAD")[:12]
    assert (repository / "name").read_text("utf-8") == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a checkout to another user")
def test_a_checkout_of_another_user_is_called_after_its_commit(repository: Path) -> None:
    before = look(repository)
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 65534, 65534)
    refused = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, check=False
    )
    assert b"dubious ownership" in refused.stderr
    assert look(repository) == before


def test_a_repository_that_git_cannot_read_is_refused_with_git_s_words(repository: Path) -> None:
    (repository / ".git/HEAD").write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(Failure, match="git cannot read the checkout") as raised:
        look(repository)
    assert "fatal: not a git repository" in raised.value.evidence


def test_a_host_without_git_says_so(
    runner: RecordingRunner, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with sources.copied(runner, repository) as copy:
        assert copy.release.startswith("src-")
    assert "git is not installed" in runner.said[0]
