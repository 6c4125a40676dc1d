"""Retention never removes a placed release, the rollback target or a foreign image."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stack.config.project import Project
from stack.parts import ledger, releases
from stack.rules.releases import removable
from stack.runner import Result

from tests.scripts.imitation import Host
from tests.scripts.recording import RecordingRunner

NAMES = [f"r{number}" for number in range(12)]
names = st.lists(st.sampled_from(NAMES), unique=True, max_size=12)


@given(tags=names, before=names, idle=st.sampled_from(NAMES), keep=st.integers(1, 6))
def test_a_placed_release_and_the_previous_good_one_stay(
    tags: list[str], before: list[str], idle: str, keep: int
) -> None:
    good, placed = ["live", *before], ["live", idle]
    tags = [*tags, "live"]
    gone = removable(["blue", *tags, "green"], good, placed, keep)
    assert not {*placed, "blue", "green"} & set(gone)
    assert not set(good[1:2]) & set(gone), "the target of a rollback was removed"
    assert set(gone) <= set(tags)
    assert len(gone) == len(set(gone))


@given(tags=names, good=names, keep=st.integers(1, 6))
def test_as_many_as_the_settings_say_are_kept_the_newest_first(
    tags: list[str], good: list[str], keep: int
) -> None:
    left = [tag for tag in tags if tag not in removable(tags, good, [], keep)]
    assert left[:keep] == tags[:keep]
    assert len(left) <= 2 * keep + 1, "retention kept too many releases"


@pytest.fixture
def host() -> Host:
    host = Host()
    for number in range(1, 8):
        host.tags[f"r-{number}"] = f"r-{number}"
    return host


def test_what_can_go_goes_and_is_named(host: Host, loaded: Project) -> None:
    assert releases.prune(host, loaded) == ["r-2", "r-1"]
    assert [command for command in host.ran if command.startswith("docker rmi")] == [
        "docker rmi slipway/app:r-2",
        "docker rmi slipway/app:r-1",
    ]
    assert set(host.tags) == {
        "blue",
        "green",
        "old",
        "older",
        *(f"r-{number}" for number in range(3, 8)),
    }


def test_the_good_releases_of_the_ledger_stay(host: Host, loaded: Project) -> None:
    ledger.record(RecordingRunner(), loaded, "deploy", to="r-1", result="done")
    assert releases.prune(host, loaded) == ["r-2"]


def test_the_settings_say_how_many(host: Host, loaded: Project) -> None:
    project = Project(loaded.root, {**loaded.values, "KEEP_RELEASES": "1"})
    assert releases.prune(host, project) == [f"r-{number}" for number in range(6, 0, -1)]


def test_only_the_images_of_this_project_without_a_name_are_pruned_and_no_build_cache(
    host: Host, loaded: Project
) -> None:
    releases.prune(host, loaded)
    pruned = [command for command in host.ran if "prune" in command]
    assert pruned == [
        f"docker image prune --force --filter label=slipway.repository={loaded.image}"
    ]


def test_an_image_that_the_engine_keeps_fails_nothing(host: Host, loaded: Project) -> None:
    host.reply("docker rmi", Result(1, err="image is being used by stopped container"))
    host.reply("prune", Result(1, err="a prune operation is already running"))
    releases.prune(host, loaded)
