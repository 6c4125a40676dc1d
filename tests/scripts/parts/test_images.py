"""The sources of base images, and the build of a release: its inputs and its labels."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from stack.config.project import BASES, Project, load
from stack.failure import Failure
from stack.parts import configuration, images, sources
from stack.parts.sources import Sources
from stack.runner import Result

from tests.scripts.conftest import BASES as BASE_IMAGES
from tests.scripts.recording import RecordingRunner

ABSENT, PRESENT = Result(1, err="No such image"), Result(0, "sha256:1\n")
AWAY = Result(1, err="dial tcp: lookup failed\n")
DIGEST = "sha256:" + "a" * 64
DEBIAN = (
    "Debian|Debian|trixie|http://d.test/\nDebian|Debian-Security|trixie-security|http://s.test/\n"
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root builds base images")


def ensure(runner: RecordingRunner, project: Project, *, is_refresh: bool = False) -> Project:
    """Choose the base images, and write them as up.sh does where the volumes accept them."""
    chosen = images.choose_bases(runner, project, is_refresh=is_refresh)
    return configuration.keep_bases(runner, project, chosen)


@pytest.fixture
def fresh(loaded: Project) -> Project:
    """A project that has no base image yet."""
    file = loaded.root / ".env"
    text = file.read_text(encoding="utf-8")
    for key in ("PYTHON", "NGINX", "POSTGRES", "REDIS"):
        text = text.replace(f"{key}_IMAGE={loaded.values[f'{key}_IMAGE']}\n", f"{key}_IMAGE=\n")
    file.write_text(text, encoding="utf-8")
    return load(loaded.root)


@pytest.fixture
def offline(runner: RecordingRunner) -> RecordingRunner:
    runner.reply("docker image inspect", ABSENT)
    runner.reply(
        "slipway-base/debian", lambda: PRESENT if runner.has_run("docker import") else ABSENT
    )
    runner.reply("docker pull", AWAY)
    runner.reply("apt-config", Result(0, 'Acquire::http::Proxy "http://proxy.test";\n'))
    runner.reply("apt-get indextargets", Result(0, DEBIAN))
    runner.reply("mmdebstrap --version", Result(0, "mmdebstrap 1.5\n"))
    return runner


def test_images_that_are_here_are_left_alone(runner: RecordingRunner, loaded: Project) -> None:
    runner.reply("docker image inspect", PRESENT)
    assert ensure(runner, loaded) == loaded
    assert runner.ran == []
    assert runner.written == []


def test_a_registry_s_image_is_kept_with_the_digest_it_had(
    runner: RecordingRunner, fresh: Project
) -> None:
    runner.reply("docker image inspect", ABSENT)
    runner.reply("RepoDigests", Result(0, f"docker/x@{DIGEST}\n"))
    ensure(runner, fresh)
    stored = load(fresh.root)
    assert {name: stored.base(name) for name in BASES} == {
        name: f"{image}@{DIGEST}" for name, image in images.OFFICIAL.items()
    }


@as_root
def test_without_a_registry_all_are_built_under_names_that_say_so(
    offline: RecordingRunner, fresh: Project
) -> None:
    ensure(offline, fresh)
    stored = load(fresh.root)
    assert {name: stored.base(name) for name in BASES} == {
        name: f"slipway-base/{name}:debian-trixie" for name in BASES
    }
    assert sum("docker pull" in command for command in offline.ran) == 1
    order = [offline.position(f"--tag slipway-base/{name}:") for name in BASES]
    assert offline.position("mmdebstrap --quiet") < offline.position("docker import") < min(order)
    official = [name for name in images.OFFICIAL.values() if offline.has_run(f"--tag {name}")]
    assert official == []


@as_root
def test_a_registry_that_goes_away_half_way_leaves_no_image_of_another_name(
    offline: RecordingRunner, fresh: Project
) -> None:
    offline.reply("docker pull --quiet python", Result(0))
    offline.reply("RepoDigests", Result(0, f"python@{DIGEST}\n"))
    ensure(offline, fresh)
    stored = load(fresh.root)
    assert stored.base("python") == f"{images.OFFICIAL['python']}@{DIGEST}"
    assert stored.base("redis") == "slipway-base/redis:debian-trixie"


@pytest.mark.parametrize("image", ["registry.test/python:3.13", f"python:3.13@{DIGEST}"])
def test_an_image_that_env_names_and_nobody_has_is_refused(
    offline: RecordingRunner, loaded: Project, image: str
) -> None:
    project = Project(loaded.root, {**loaded.values, "PYTHON_IMAGE": image})
    before = (loaded.root / ".env").read_bytes()
    with pytest.raises(Failure, match="neither on this host nor available") as raised:
        ensure(offline, project)
    assert "empty PYTHON_IMAGE in .env" in raised.value.hints[1]
    assert not offline.has_run("docker build")
    assert (loaded.root / ".env").read_bytes() == before


@pytest.mark.parametrize("service", ["postgres", "redis"])
def test_no_hint_leads_to_another_kind_of_a_server_with_a_volume(
    offline: RecordingRunner, loaded: Project, service: str
) -> None:
    values = {**loaded.values, f"{service.upper()}_IMAGE": "registry.test/x:1"}
    project = replace(loaded, values=values)
    for image in BASE_IMAGES.values():
        offline.reply(f"docker image inspect --format '{{{{.Id}}}}' {image}", PRESENT)
    with pytest.raises(Failure, match=r"registry\.test/x:1, named in \.env, is neither") as raised:
        images.choose_bases(offline, project)
    assert "of the same kind" in raised.value.hints[1]
    assert not any("empty" in hint for hint in raised.value.hints)


@as_root
@pytest.mark.parametrize("kind", ["registry", "debian"])
def test_images_that_were_pruned_come_back_and_env_can_still_be_read(
    offline: RecordingRunner, fresh: Project, kind: str
) -> None:
    if kind == "registry":
        offline.reply("docker pull", Result(0))
        offline.reply("RepoDigests", Result(0, f"x@{DIGEST}\n"))
    ensure(offline, fresh)
    first = load(fresh.root)
    ensure(offline, first)
    assert load(fresh.root).values == first.values


@as_root
def test_an_image_that_env_names_is_never_replaced_by_another_kind(
    offline: RecordingRunner, fresh: Project
) -> None:
    project = Project(fresh.root, {**fresh.values, "REDIS_IMAGE": "registry.test/redis:8"})
    with pytest.raises(Failure, match=r"registry\.test/redis:8"):
        ensure(offline, project)


@as_root
def test_a_refresh_takes_all_of_them_again_and_uses_no_cache(
    offline: RecordingRunner, fresh: Project
) -> None:
    ensure(offline, fresh)
    done = len(offline.ran)
    offline.reply("docker image inspect", PRESENT)
    first = load(fresh.root)
    ensure(offline, first)
    assert len(offline.ran) == done
    ensure(offline, first, is_refresh=True)
    assert [
        f"slipway-base/{name}:" in command
        for name, command in zip(BASES, offline.ran[done:], strict=True)
    ] == [True for _ in BASES]
    assert all("--no-cache" in command for command in offline.ran[done:])


def test_a_refresh_asks_the_registry_for_the_name_without_the_old_digest(
    runner: RecordingRunner, loaded: Project
) -> None:
    project = Project(loaded.root, {**loaded.values, "REDIS_IMAGE": f"redis:8.0@sha256:{'b' * 64}"})
    runner.reply("RepoDigests", Result(0, f"x@{DIGEST}\n"))
    refreshed = ensure(runner, project, is_refresh=True)
    assert runner.has_run("docker pull --quiet redis:8.0")
    assert refreshed.base("redis") == f"redis:8.0@{DIGEST}"


def test_a_pull_that_fails_without_a_word_is_a_failed_pull(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("docker image inspect", ABSENT)
    runner.reply("docker pull", Result(1))
    with pytest.raises(Failure, match="nor available"):
        ensure(runner, loaded)


@as_root
def test_without_registry_and_debian_it_says_what_to_give(
    offline: RecordingRunner, fresh: Project
) -> None:
    offline.reply("apt-get indextargets", Result(0, "Ubuntu|Ubuntu|noble|http://u.test/\n"))
    with pytest.raises(Failure, match="no Debian source") as raised:
        ensure(offline, fresh)
    assert "DEBIAN_MIRROR" in raised.value.hints[0]


def test_build_secrets_are_gone_after_the_build_and_pip_s_local_files_stay_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("CA", encoding="utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.test/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///srv/wheels https://extra.test/simple")
    with images.build_secrets("settings\n") as files:
        assert files["ca"].read_text(encoding="utf-8") == "CA"
        assert files["apt.conf"].read_text(encoding="utf-8") == "settings\n"
        pip = files["pip.conf"].read_text(encoding="utf-8")
        assert files["ca"].parent.stat().st_mode & 0o777 == 0o700
    assert "index-url = https://index.test/simple\n" in pip
    assert "extra-index-url = https://extra.test/simple\n" in pip
    assert not files["ca"].parent.exists()


@pytest.fixture
def copy(runner: RecordingRunner, loaded: Project) -> Iterator[Sources]:
    with sources.copied(runner, loaded.root) as copy:
        yield copy


def test_a_release_that_is_here_is_not_built_again(
    runner: RecordingRunner, loaded: Project, copy: Sources
) -> None:
    runner.reply("docker image inspect", PRESENT)
    runner.reply("slipway.inputs", Result(0, images.build_inputs(runner, loaded, copy) + "\n"))
    images.build_release(runner, loaded, copy)
    assert runner.ran == []
    assert runner.said == [f"    slipway/app:{copy.release} is here already"]


@pytest.mark.parametrize(
    "label", ["", "0" * 64], ids=["of an older version", "of other sources or another base"]
)
def test_an_image_of_that_name_with_other_contents_keeps_it_and_the_new_image_gets_another(
    runner: RecordingRunner, loaded: Project, copy: Sources, label: str
) -> None:
    runner.reply("docker image inspect", PRESENT)
    inputs = images.build_inputs(runner, loaded, copy)
    name = f"{copy.release}-{inputs[:8]}"
    runner.reply("slipway.inputs", Result(0, label + "\n"))
    assert not images.is_built(runner, loaded, copy)
    assert images.build_release(runner, loaded, copy) == name
    (command,) = runner.ran
    assert f"--tag slipway/app:{name} " in command
    assert f"--build-arg RELEASE={name} " in command
    runner.reply(f"slipway.inputs\"}}}}' slipway/app:{name}", Result(0, inputs + "\n"))
    assert images.build_release(runner, loaded, copy) == name
    assert len(runner.ran) == 1, "the second time it exists"


def test_the_inputs_are_the_sources_and_the_base_image(
    runner: RecordingRunner, loaded: Project, copy: Sources
) -> None:
    runner.reply("docker image inspect", PRESENT)
    first = images.build_inputs(runner, loaded, copy)
    assert images.build_inputs(runner, loaded, copy) == first
    named = Project(loaded.root, {**loaded.values, "PYTHON_IMAGE": "p:2"})
    assert images.build_inputs(runner, named, copy) != first
    assert images.build_inputs(runner, loaded, replace(copy, digest="0")) != first
    runner.reply("docker image inspect", Result(0, "sha256:2\n"))
    assert images.build_inputs(runner, loaded, copy) != first


def test_a_build_states_release_revision_migrations_and_inputs(
    runner: RecordingRunner, loaded: Project, copy: Sources
) -> None:
    runner.reply("docker image inspect", ABSENT)
    images.build_release(runner, loaded, copy)
    (command,) = runner.ran
    for part in (
        f"RELEASE={copy.release}",
        "REVISION=unknown",
        "MIGRATION_HEAD=2026_01_01_0000",
        "MIGRATIONS=2026_01_01_0000:pre",
        "PYTHON_IMAGE=p:1",
    ):
        assert f"--build-arg {part}" in command
    assert "--target production" in command
    assert f"--tag slipway/app:{copy.release} " in command
    assert f"--label slipway.inputs={images.build_inputs(runner, loaded, copy)} " in command


def test_the_build_reads_the_copy_and_its_migrations_and_not_the_checkout(
    runner: RecordingRunner, loaded: Project, copy: Sources
) -> None:
    runner.reply("docker image inspect", ABSENT)
    versions = loaded.root / "api/migrations/versions"
    later = 'revision = "2026_02_01_0000"\ndown_revision = "2026_01_01_0000"\n'
    (versions / "2026_02_01_0000_pre_later.py").write_text(later, encoding="utf-8")
    images.build_release(runner, loaded, copy)
    (command,) = runner.ran
    assert command.endswith(f" {copy.folder}")
    assert "MIGRATIONS=2026_01_01_0000:pre --" in command
