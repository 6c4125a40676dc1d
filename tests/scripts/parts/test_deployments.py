"""A deployment has a number of its own, and keeps the settings with which it was live."""

from dataclasses import replace

import pytest
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import deployments, judgement, ledger, observation, slot_files, slots
from stack.parts.ledger import Deployment
from stack.runner import Result

from tests.scripts.imitation import Host, furnish, place
from tests.scripts.recording import RecordingRunner


@pytest.fixture
def project(loaded: Project) -> Project:
    return furnish(loaded.root)


def with_values(project: Project, **values: str) -> Project:
    return replace(project, values={**project.values, **values})


def record(project: Project, number: int, release: str, result: str = "done") -> None:
    facts = {"to": release, "result": result, "deployment": number}
    ledger.record(RecordingRunner(), project, "deploy", **facts)


def test_a_release_that_was_taken_back_with_other_settings_stays_good_with_its_former(
    project: Project,
) -> None:
    for number, release, result in (
        (3, "a", "done"),
        (4, "b", "done"),
        (5, "b", "rolled back"),
        (6, "c", "done"),
    ):
        record(project, number, release, result)
    assert [each.number for each in ledger.good_deployments(project)[:3]] == [6, 4, 3]
    assert ledger.good_releases(project)[:3] == ["c", "b", "a"]
    assert deployments.named(project, "b").number == 4
    assert ledger.next_number(project) == 7


def test_digits_that_name_a_release_alone_are_that_release(project: Project) -> None:
    record(project, 3, "451623415384")
    assert deployments.named(project, "451623415384").number == 3
    with pytest.raises(Failure, match="there is no deployment 5, and no release of that name"):
        deployments.named(project, "5")


def test_digits_that_name_a_deployment_alone_are_that_deployment(project: Project) -> None:
    record(project, 3, "new")
    assert deployments.named(project, "3").release == "new"
    record(project, 4, "4")
    assert deployments.named(project, "4").number == 4, "both readings lead to one deployment"


def test_digits_that_name_two_deployments_are_refused_with_a_command_for_each(
    project: Project,
) -> None:
    record(project, 3, "2")
    with pytest.raises(Failure) as refused:
        deployments.named(project, "2")
    assert "2 names two deployments: old (deployment 2), and" in refused.value.observation
    assert refused.value.observation.endswith("2 (deployment 3)")
    assert refused.value.hints == [
        "for old (deployment 2): ./scripts/rollback.sh 02",
        "for 2 (deployment 3): ./scripts/rollback.sh 03",
    ]
    assert deployments.named(project, "02").release == "old"
    assert deployments.named(project, "03").release == "2"


def test_a_release_of_digits_in_a_slot_is_adopted_as_a_release(project: Project) -> None:
    host = Host()
    host.tags |= {"451623415384": "451623415384", "green": "451623415384"}
    slot_files.path_of(project, "green").unlink()
    deployments.adopt(host, project, slots.look(host, project))
    assert slot_files.path_of(project, "green").exists()


def test_after_the_loss_of_the_ledger_no_number_is_given_twice(project: Project) -> None:
    """A number identifies settings, so that a number must not be used twice."""
    host = Host()
    place(project, Deployment(8, "older"), "green", LOG_LEVEL="DEBUG")
    deployments.snapshot_of(project, 9).write_text("", encoding="utf-8")
    project.ledger.unlink()
    deployments.adopt(host, project, slots.look(host, project))
    adopted = {each.release: each.number for each in ledger.deployments(project)}
    assert adopted == {"older": 8, "old": 2}, "the numbers in the files of the slots"
    assert deployments.begin(host, project, "new", "green").number == 10


def test_after_the_loss_of_the_ledger_a_slot_keeps_its_number_and_no_number_comes_back(
    project: Project,
) -> None:
    host = Host()
    place(project, Deployment(5, "old"), "blue")
    place(project, Deployment(4, "older"), "green", LOG_LEVEL="DEBUG")
    project.ledger.unlink()
    deployments.adopt(host, project, slots.look(host, project))
    numbers = [(each.number, each.release) for each in ledger.deployments(project)]
    assert numbers == [(4, "older"), (5, "old")]
    before = deployments.before_live(host, project, slots.look(host, project))
    assert deployments.settings_of(project, before)["LOG_LEVEL"] == "DEBUG"
    assert deployments.in_slot(project, "blue", "old").number == 5
    assert deployments.next_number(project) == 6
    place(project, Deployment(8, "older"), "green")
    assert deployments.next_number(project) == 9


def test_a_release_in_the_idle_slot_needs_no_tag_of_its_own(project: Project) -> None:
    """An older release still has its tag, and is not the way back."""
    record(project, 3, "oldest")
    for number, release in ((1, "older"), (2, "old")):
        record(project, number, release)
    host = Host()
    host.tags["oldest"] = "oldest"
    del host.tags["older"]
    assert host.tags["green"] == "older"
    before = deployments.before_live(host, project, slots.look(host, project))
    assert before.release == "older"


def test_a_rollback_that_was_taken_back_has_the_same_target_again(project: Project) -> None:
    facts = {"from": "old", "to": "older", "result": "rolled back", "deployment": 1}
    ledger.record(RecordingRunner(), project, "rollback", **facts)
    host = Host()
    assert deployments.before_live(host, project, slots.look(host, project)).number == 1


def test_the_hash_counts_what_differs_from_the_defaults(project: Project) -> None:
    settings = project.service_settings
    assert deployments.fingerprint(settings) == deployments.fingerprint({})
    changed = with_values(project, LOG_LEVEL="DEBUG").service_settings
    assert deployments.fingerprint(changed) != deployments.fingerprint(settings)
    same = with_values(project, HTTPS_PORT="9", BACKUP_HOURS="1", LOG_LEVEL="INFO")
    assert deployments.fingerprint(same.service_settings) == deployments.fingerprint(settings)


def test_a_slot_s_file_is_in_quotes_that_mean_one_thing_and_closed_to_others(
    project: Project,
) -> None:
    host = Host()
    given = with_values(project, OPS_USER='a$b "c" #d', SLIPWAY_HOST="a.example")
    deployments.begin(host, given, "old", "green")
    file = slot_files.path_of(project, "green")
    assert "\nOPS_USER='a$b \"c\" #d'\n" in file.read_text(encoding="utf-8")
    assert file.stat().st_mode & 0o777 == 0o600
    # nginx still has the former name when the slot starts.
    assert slot_files.of_slot(project, "green")["ALLOWED_HOSTS"] == "a.example,localhost"
    assert deployments.in_slot(project, "green", "old").number == 0, "the ledger has no entry yet"
    record(project, 3, "old")
    assert deployments.in_slot(project, "green", "old").number == 3
    assert deployments.in_slot(project, "green", "by hand") == Deployment(0, "by hand")


def test_two_images_with_one_label_are_told_apart_by_the_slot_s_file(project: Project) -> None:
    host = Host()
    host.tags |= {"main": "main", "main-01234567": "main", "green": "main"}
    place(project, Deployment(3, "main"), "green")
    assert observation.slot_release(host, project, "green") == "main"
    host.reply("image.version", Result(0, "main\n"))
    settings = project.service_settings
    deployments.place(host, project, Deployment(4, "main-01234567"), "green", settings)
    assert observation.slot_release(host, project, "green") == "main-01234567"
    assert slot_files.of_slot(project, "green")["SLIPWAY_RELEASE"] == "main-01234567"


def test_what_env_changed_since_the_deployment_is_judged_and_nothing_else(
    project: Project, runner: RecordingRunner
) -> None:
    host = runner
    host.reply("docker compose config", Result(0))
    host.reply("api.check_config", Result(0))
    judgement.list_findings(host, project, "blue")
    assert not any("--env" in command for command in host.asked)
    judgement.list_findings(host, with_values(project, LOG_LEVEL="DEBUG"), "blue")
    judged = next(command for command in host.asked if "--env" in command)
    assert "--no-TTY --env LOG_LEVEL=DEBUG api-blue python -m api.check_config" in judged


def test_the_value_of_a_changed_key_is_judged_and_not_printed(
    project: Project, runner: RecordingRunner
) -> None:
    runner.reply("docker compose config", Result(0))
    runner.reply("api.check_config", Result(78, "critical LOG_LEVEL: unknown; empty it\n"))
    with pytest.raises(Failure, match="refuses LOG_LEVEL") as refused:
        judgement.accept_settings(runner, with_values(project, LOG_LEVEL="hunter2"), "blue")
    assert runner.ran == [], "what is run is printed"
    assert "hunter2" not in f"{refused.value} {refused.value.evidence} {runner.said}"
