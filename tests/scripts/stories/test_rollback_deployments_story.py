"""`rollback.sh` restores a deployment: a release with the settings with which it was live."""

import json
from pathlib import Path

import pytest
from stack.config.project import Project, load
from stack.failure import Failure
from stack.parts import deployments, edge_settings, ledger, slot_files
from stack.parts.ledger import Deployment
from stack.runner import Result
from stack.stories import rollback

from tests.scripts.imitation import Host, failure_of, furnish, place, set_values
from tests.scripts.recording import RecordingRunner

WARM = ["switch green", "up worker-green", "kill worker-blue"]
COLD = ["place older in green", "up api-green", *WARM]


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def project(checkout: Path) -> Project:
    return furnish(checkout)


def run(host: Host, project: Project, release: str = "") -> None:
    rollback.run(host, project.root, release, 0)


def failure(host: Host, project: Project, release: str) -> Failure:
    return failure_of(lambda: run(host, project, release))


def record(
    project: Project, release: str, result: str = "done", action: str = "deploy", was: str = ""
) -> None:
    ledger.record(RecordingRunner(), project, action, **{"from": was}, to=release, result=result)


def test_the_service_s_keys_come_back_each_printed_and_no_other_key(
    host: Host, project: Project
) -> None:
    place(project, Deployment(1, "older"), "green", LOG_LEVEL="DEBUG", OPS_USER="operator")
    kept = {"HTTPS_PORT": "9755", "BACKUP_KEEP_DAYS": "30", "POSTGRES_MEMORY": "400m"}
    set_values(project.root, **kept, OPS_USER="anna", NOTIFY_COMMAND="sh -c 'x #ops'")
    file = project.root / ".env"
    text = file.read_text(encoding="utf-8").replace("OPS_USER=anna", "OPS_USER='anna' # ours")
    file.write_text(text, encoding="utf-8")
    run(host, project)
    changed = text.replace("LOG_LEVEL=\n", "LOG_LEVEL=DEBUG\n")
    changed = changed.replace("OPS_USER='anna' # ours", "OPS_USER=operator # ours")
    assert file.read_text(encoding="utf-8") == changed
    assert "    LOG_LEVEL: INFO -> DEBUG" in host.said
    assert "    OPS_USER: anna -> operator" in host.said
    assert not any("HTTPS_PORT" in line for line in host.said)
    assert (project.root / ".env.before").read_text(encoding="utf-8") == text
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_value_of_the_process_environment_is_not_written_to_env(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(project, Deployment(1, "older"), "green", LOG_LEVEL="DEBUG")
    before = (project.root / ".env").read_bytes()
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    run(host, project)
    assert (project.root / ".env").read_bytes() == before


def test_a_key_that_was_deleted_from_env_comes_back(host: Host, project: Project) -> None:
    place(project, Deployment(1, "older"), "green", LOG_LEVEL="DEBUG")
    file = project.root / ".env"
    text = file.read_text(encoding="utf-8").replace("LOG_LEVEL=\n", "")
    file.write_text(text, encoding="utf-8")
    run(host, project)
    assert load(project.root).setting("LOG_LEVEL") == "DEBUG"


def test_a_cold_slot_gets_the_settings_of_the_deployment_before_its_start(
    host: Host, project: Project
) -> None:
    place(project, Deployment(1, "older"), "green", LOG_LEVEL="DEBUG")
    deployments.write(host, project, "green", "# lost\n")
    run(host, project)
    values = slot_files.of_slot(project, "green")
    assert (values["LOG_LEVEL"], slot_files.number_of(values)) == ("DEBUG", 1)


def test_the_settings_of_an_earlier_version_s_state_are_found_by_the_release(
    host: Host, project: Project
) -> None:
    deployments.snapshot_of(project, 1).unlink()
    text = (project.root / ".env").read_text(encoding="utf-8")
    snapshot = ledger.settings_of(project, "older")
    snapshot.parent.mkdir()
    snapshot.write_text(
        text.replace("WATCH_SECONDS=\n", "KEY_OF_OLD=1\n").replace(
            "LOG_LEVEL=\n", "LOG_LEVEL=DEBUG\n"
        ),
        encoding="utf-8",
    )
    run(host, project)
    assert load(project.root).setting("LOG_LEVEL") == "DEBUG"


def settings_only(project: Project) -> None:
    """Record a deploy that changed only a setting: blue has the new settings, green the former."""
    deployment = Deployment(3, "old", "changed")
    record = {"from": "old", "to": "old", "result": "done", **deployment.facts}
    ledger.record(RecordingRunner(), project, "deploy", **record)
    place(project, Deployment(2, "old"), "green")
    place(project, deployment, "blue", LOG_LEVEL="DEBUG")
    set_values(project.root, LOG_LEVEL="DEBUG")


@pytest.mark.parametrize("name", ["", "2"], ids=["plain", "by its number"])
def test_after_a_deploy_of_settings_alone_the_warm_slot_of_the_same_release_is_the_way_back(
    host: Host, project: Project, name: str
) -> None:
    settings_only(project)
    host.tags["green"] = "old"
    host.running.add("api-green")
    run(host, project, name)
    assert host.changes() == WARM
    assert load(project.root).setting("LOG_LEVEL") == "INFO"
    entry = ledger.entries(project)[-1]
    assert (entry["deployment"], entry["from_deployment"], entry["to"]) == (2, 3, "old")
    assert failure(host, project, "2").observation == "release old (deployment 2) is live already"


def test_where_a_live_container_was_deleted_by_hand_the_warm_slot_is_used(
    host: Host, project: Project
) -> None:
    settings_only(project)
    host.tags["green"] = "old"
    host.running.add("api-green")
    host.running.discard("api-blue")
    run(host, project)
    assert host.changes() == WARM


@pytest.mark.parametrize(
    ("number", "changes"), [("2", WARM), ("7", ["place old in green", "up api-green", *WARM])]
)
def test_a_container_that_a_killed_deploy_did_not_replace_is_not_the_deployment(
    host: Host, project: Project, number: str, changes: list[str]
) -> None:
    """The slot's file names deployment 2; the container's own variable names the running one."""
    settings_only(project)
    host.tags["green"] = "old"
    host.running.add("api-green")
    host.reply("ps --all --quiet api-green", Result(0, "c0ffee\n"))
    variables = json.dumps(["ENVIRONMENT=production", f"SLIPWAY_DEPLOYMENT={number}"])
    host.reply("docker inspect --format '{{json .Config.Env}}' c0ffee", Result(0, variables))
    run(host, project, "2")
    assert host.changes() == changes


def test_a_container_of_a_killed_run_is_not_taken_for_that_of_the_slot(
    host: Host, project: Project
) -> None:
    settings_only(project)
    host.tags["green"] = "old"
    host.running.add("api-green")
    host.reply("ps --all --quiet api-green", Result(0, "0ff\nc0ffee\n"))
    for container, number, is_one_off in (("0ff", 2, "True"), ("c0ffee", 7, "False")):
        variables = json.dumps(["ENVIRONMENT=production", f"SLIPWAY_DEPLOYMENT={number}"])
        host.reply(f"{{{{json .Config.Env}}}}' {container}", Result(0, variables))
        host.reply(f"com.docker.compose.oneoff\"}}}}' {container}", Result(0, f"{is_one_off}\n"))
    run(host, project, "2")
    assert host.changes() == ["place old in green", "up api-green", *WARM]


def test_a_slot_s_file_that_a_killed_deploy_wrote_is_written_again_for_the_worker(
    host: Host, project: Project
) -> None:
    """The deploy was killed before its first entry in the ledger; the container is still warm."""
    settings_only(project)
    host.tags["green"] = "old"
    host.running.add("api-green")
    place(project, Deployment(4, "old"), "green", LOG_LEVEL="ERROR")
    run(host, project, "2")
    assert slot_files.number_of(slot_files.of_slot(project, "green")) == 2
    assert slot_files.of_slot(project, "green")["LOG_LEVEL"] == "INFO"


def test_a_warm_slot_that_does_not_know_the_present_host_is_started_anew(
    host: Host, project: Project
) -> None:
    host.running.add("api-green")
    set_values(project.root, SLIPWAY_HOST="api.example.org")
    files = edge_settings.installed(project).with_host("api.example.org")
    edge_settings.write(host, project, files)
    run(host, project)
    assert host.changes() == COLD
    assert slot_files.of_slot(project, "green")[slot_files.HOSTS] == "api.example.org"


@pytest.mark.parametrize(
    ("hosts", "changes"), [("api.example.org", WARM), ("localhost", COLD)], ids=["new", "former"]
)
def test_a_warm_container_that_has_the_former_host_is_started_anew_whatever_its_file_says(
    host: Host, project: Project, hosts: str, changes: list[str]
) -> None:
    """nginx has the new host; up.sh wrote it into the file of the slot, which ran no container."""
    set_values(project.root, SLIPWAY_HOST="api.example.org")
    files = edge_settings.installed(project).with_host("api.example.org")
    edge_settings.write(host, project, files)
    deployments.follow_host(host, load(project.root))
    host.running.add("api-green")
    host.reply("ps --all --quiet api-green", Result(0, "c0ffee\n"))
    variables = json.dumps(["ENVIRONMENT=production", f"ALLOWED_HOSTS={hosts}"])
    host.reply("docker inspect --format '{{json .Config.Env}}' c0ffee", Result(0, variables))
    run(host, project)
    assert host.changes() == changes


@pytest.mark.parametrize("is_numbered", [True, False], ids=["in a file", "without a file"])
@pytest.mark.parametrize("result", ["begun", "failed", "rolled back"])
def test_the_idle_slot_s_deployment_is_no_way_back_if_its_deploy_failed(
    host: Host, project: Project, result: str, is_numbered: bool
) -> None:
    """The first deploy after `up.sh` failed: its release is left in the slot that was empty."""
    project.ledger.unlink()
    for number, release, ended in ((1, "old", "done"), (2, "older", result)):
        facts = {"to": release, "result": ended, "deployment": number}
        ledger.record(RecordingRunner(), project, "deploy", **facts)
    place(project, Deployment(1, "old"), "blue")
    place(project, Deployment(2, "older"), "green")
    if not is_numbered:
        slot_files.path_of(project, "green").unlink()
    assert "there is no release to go back to" in failure(host, project, "").observation
    run(host, project, "2")
    assert host.live == "green"


def test_a_number_that_no_deployment_has_is_refused(host: Host, project: Project) -> None:
    failed = failure(host, project, "41")
    assert failed.observation.startswith("there is no deployment 41")
    assert failed.hints[0] == "good are: 2, 1"


def test_a_state_of_an_earlier_version_is_adopted_and_gone_back_across(
    host: Host, project: Project
) -> None:
    kept = [file for name in ("slots", "deployments") for file in (project.state / name).iterdir()]
    for file in (project.ledger, *kept):
        file.unlink()
    for release in ("older", "taken back", "old"):
        record(project, release, "rolled back" if release == "taken back" else "done")
    environment = json.dumps(["PATH=/bin", "ENVIRONMENT=production", "OPS_USER=anna"])
    host.reply("docker inspect --format '{{json .Config.Env}}' api", Result(0, environment))
    for service, limits in (("api", "536870912 1500000000"), ("worker", "167772161 1000000000")):
        host.reply(f"ps --all --quiet {service}-blue", Result(0, f"{service}\n"))
        form = "'{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}'"
        host.reply(f"docker inspect --format {form} {service}", Result(0, f"{limits}\n"))
    run(host, project)
    given = slot_files.of_slot(project, "blue")
    assert given["OPS_USER"] == "anna", "what the container has"
    assert (given["API_MEMORY"], given["API_CPUS"]) == ("512m", "1.5")
    assert (given["WORKER_MEMORY"], given["WORKER_CPUS"]) == ("167772161b", "1")
    later = deployments.settings_of(project, Deployment(2, "old"))
    assert later["OPS_USER"] == "anna", "for a rollback to it after both slots have changed"
    assert host.live == "green"
    adopted = next(entry for entry in ledger.entries(project) if entry["action"] == "adopt")
    numbers = [(each["number"], each["release"]) for each in adopted["deployments"]]
    assert numbers == [(1, "older"), (2, "old")]
    assert (ledger.entries(project)[-1]["deployment"], ledger.next_number(project)) == (1, 3)
    run(host, project, "2")
    assert host.live == "blue"
