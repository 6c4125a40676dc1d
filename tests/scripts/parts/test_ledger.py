"""Tests the ledger, which skips damaged lines, and the evidence that a failure leaves."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from stack.config.project import Project
from stack.parts import ledger
from stack.runner import RealRunner, Result

from tests.scripts.imitation import Host
from tests.scripts.recording import RecordingRunner


def write(project: Project, *entries: tuple[str, str, str]) -> None:
    for action, release, result in entries:
        ledger.record(RecordingRunner(), project, action, to=release, result=result)


def test_an_entry_says_who_and_when(loaded: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    write(loaded, ("deploy", "r-1", "done"))
    entry = ledger.last(loaded)
    assert entry
    assert (entry["who"], entry["action"], entry["to"]) == ("ada", "deploy", "r-1")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(entry["at"])).total_seconds()) < 60


def test_entries_are_only_appended(loaded: Project) -> None:
    write(loaded, ("deploy", "r-1", "done"))
    first = loaded.ledger.read_text(encoding="utf-8")
    write(loaded, ("deploy", "r-2", "done"))
    assert loaded.ledger.read_text(encoding="utf-8").startswith(first)


@pytest.mark.parametrize(
    ("entries", "good"),
    [
        ([], []),
        ([("up", "a", "done")], ["a"]),
        ([("deploy", "a", "done"), ("deploy", "b", "done")], ["b", "a"]),
        ([("deploy", "a", "done"), ("deploy", "b", "done"), ("deploy", "a", "done")], ["a", "b"]),
        ([("deploy", "a", "done"), ("deploy", "b", "begun")], ["a"]),
        ([("deploy", "a", "done"), ("deploy", "b", "failed")], ["a"]),
        ([("deploy", "a", "done"), ("deploy", "b", "rolled back")], ["a"]),
        ([("deploy", "b", "done"), ("deploy", "a", "done"), ("deploy", "b", "rolled back")], ["a"]),
        ([("deploy", "b", "rolled back"), ("deploy", "b", "done")], ["b"]),
        ([("deploy", "a", "done"), ("retire", "z", "done")], ["a"]),
        ([("deploy", "", "done")], []),
    ],
)
def test_good_are_releases_that_were_live_and_not_rolled_back_the_newest_first(
    loaded: Project, entries: list[tuple[str, str, str]], good: list[str]
) -> None:
    write(loaded, *entries)
    assert ledger.good_releases(loaded) == good


def test_a_release_that_a_person_went_back_from_is_not_good(loaded: Project) -> None:
    write(loaded, ("deploy", "a", "done"), ("deploy", "b", "done"))
    ledger.record(RecordingRunner(), loaded, "rollback", **{"from": "b"}, to="a", result="done")
    assert ledger.good_releases(loaded) == ["a"]


@pytest.mark.parametrize(
    "spoiled",
    [b'{"action": "dep\n', b"\xff\xfe\n", b"[1]\n", b"null\n", b"\n", b'"text"\n', b"{}\n"],
)
def test_lines_that_are_no_entry_are_passed_over(loaded: Project, spoiled: bytes) -> None:
    write(loaded, ("deploy", "a", "done"))
    with loaded.ledger.open("ab") as file:
        file.write(spoiled)
    write(loaded, ("deploy", "b", "done"))
    assert ledger.good_releases(loaded) == ["b", "a"]


def test_a_line_without_an_end_spoils_only_itself_and_the_next(loaded: Project) -> None:
    write(loaded, ("deploy", "a", "done"))
    with loaded.ledger.open("a", encoding="utf-8") as file:
        file.write('{"action": "dep')
    write(loaded, ("deploy", "b", "begun"), ("deploy", "b", "done"))
    assert ledger.good_releases(loaded) == ["b", "a"]


def test_without_a_file_there_is_no_history(loaded: Project) -> None:
    assert (ledger.entries(loaded), ledger.last(loaded), ledger.good_releases(loaded)) == (
        [],
        None,
        [],
    )


def test_the_evidence_is_logs_and_health_of_the_slot_and_of_nginx(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("docker compose logs", Result(0, "out\n", "err\n"))
    runner.reply("docker compose ps", Result(0, "c0ffee\n"))
    runner.reply("docker inspect", Result(0, json.dumps({"Status": "exited"})))
    folder = ledger.keep_evidence(runner, loaded, "deploy", ["api-green"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "api-green.log",
        "api-green.state.json",
        "nginx.log",
        "nginx.state.json",
    ]
    assert (folder / "api-green.log").read_text(encoding="utf-8") == "out\nerr\n"
    assert folder.parent == loaded.state / "evidence"


def test_a_container_that_is_gone_leaves_its_logs_alone(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("docker compose logs", Result(1, err="no such service"))
    runner.reply("docker compose ps", Result(0, ""))
    folder = ledger.keep_evidence(runner, loaded, "deploy", ["api-green"])
    assert sorted(path.name for path in folder.iterdir()) == ["api-green.log", "nginx.log"]


def test_an_entry_behind_a_line_that_was_cut_off_is_read(loaded: Project, tmp_path: Path) -> None:
    project = Project(loaded.root, {**loaded.values, "STATE_DIR": str(tmp_path / "state")})
    runner = RealRunner()
    ledger.record(runner, project, "deploy", to="a", result="done")
    with project.ledger.open("a", encoding="utf-8") as file:
        file.write('{"at": "2026')
    ledger.record(runner, project, "deploy", to="b", result="done")
    assert [entry["to"] for entry in ledger.entries(project)] == ["a", "b"]


def test_the_evidence_of_twenty_attempts_is_kept(loaded: Project) -> None:
    host = Host()
    for number in range(25):
        (loaded.state / f"evidence/20260101T0000{number:02}Z-deploy").mkdir(parents=True)
    kept = ledger.keep_evidence(host, loaded, "deploy", ["api-green"])
    names = sorted(path.name for path in kept.parent.iterdir())
    assert names == [*(f"20260101T0000{number:02}Z-deploy" for number in range(6, 25)), kept.name]
