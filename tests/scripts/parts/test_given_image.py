"""The content of an image that a person names decides its release, whatever its tag is."""

import pytest
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import given_image
from stack.runner import Result

from tests.scripts.recording import RecordingRunner

REFERENCE, ID = "registry/app:main", "sha256:0123456789abcdef"


@pytest.fixture
def runner() -> RecordingRunner:
    runner = RecordingRunner()
    runner.reply(f"'{{{{.Id}}}}' {REFERENCE}", Result(0, f"{ID}\n"))
    runner.reply("image.version", Result(0, "main\n"))
    runner.reply("'{{.Id}}' slipway/app:main", Result(1, err="no such image"))
    return runner


def test_a_tag_that_is_here_is_asked_for_again_and_placed_by_its_id(
    runner: RecordingRunner, loaded: Project
) -> None:
    assert given_image.resolve(runner, loaded, REFERENCE) == "main"
    assert runner.ran == [f"docker pull --quiet {REFERENCE}", f"docker tag {ID} slipway/app:main"]


def test_the_same_name_with_other_bytes_gets_a_name_of_its_own(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("'{{.Id}}' slipway/app:main", Result(0, "sha256:another\n"))
    assert given_image.resolve(runner, loaded, REFERENCE) == "main-01234567"
    assert runner.ran[-1] == f"docker tag {ID} slipway/app:main-01234567"


def test_the_same_bytes_keep_their_name(runner: RecordingRunner, loaded: Project) -> None:
    runner.reply("'{{.Id}}' slipway/app:main", Result(0, f"{ID}\n"))
    assert given_image.resolve(runner, loaded, REFERENCE) == "main"


def test_an_image_of_this_host_is_taken_with_a_word_that_no_registry_gave_it(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("docker pull", Result(1, err="no such host\n"))
    assert given_image.resolve(runner, loaded, REFERENCE) == "main"
    assert "is the image of this host; its registry gave none: no such host" in runner.said[0]


def test_an_image_that_is_nowhere_is_refused_with_the_login(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("docker pull", Result(1, err="denied\n"))
    runner.reply(f"'{{{{.Id}}}}' {REFERENCE}", Result(1))
    with pytest.raises(Failure, match="neither here nor to be had from its registry: denied") as no:
        given_image.resolve(runner, loaded, REFERENCE)
    assert no.value.hints[0].startswith("docker login")
    assert no.value.runbook


def test_an_id_is_asked_of_no_registry(runner: RecordingRunner, loaded: Project) -> None:
    runner.reply(f"'{{{{.Id}}}}' {ID}", Result(0, f"{ID}\n"))
    assert given_image.resolve(runner, loaded, ID) == "main"
    assert runner.ran == [f"docker tag {ID} slipway/app:main"]
