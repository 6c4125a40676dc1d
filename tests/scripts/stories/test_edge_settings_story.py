"""A deploy applies nginx' keys by a reload and takes them back if it fails; a rollback leaves them.

The locations of service.toml belong to the deployment.
"""

import json

import pytest
from stack.config.project import Project, load
from stack.failure import ROLLED_BACK
from stack.https import Answer, Question
from stack.parts import applied, edge_settings, ledger, slot_files
from stack.runner import Result
from stack.stories import plan, rollback

from tests.scripts.imitation import (
    Host,
    deploy_on,
    failed_deploy,
    failure_of,
    set_values,
)
from tests.scripts.stories.test_deploy_faults_story import answer_badly_under_traffic

RELOAD = "entrypoint.sh reload"
NEW, FORMER = "api.example.org", "localhost"


def reloads(host: Host) -> int:
    return sum(command.endswith(RELOAD) for command in host.ran)


def rate(project: Project) -> str:
    return edge_settings.installed(project).settings["RATE_LIMIT_PER_SECOND"]


def test_a_deploy_applies_a_rate_by_one_reload_and_replaces_no_nginx(
    host: Host, project: Project
) -> None:
    set_values(project.root, RATE_LIMIT_PER_SECOND="7")
    plan.run(host, load(project.root))
    assert "setting        RATE_LIMIT_PER_SECOND changed, by a reload of nginx" in host.said
    deploy_on(host, project)
    assert rate(project) == "7"
    assert reloads(host) == 1
    assert not any("compose up" in each and each.endswith("nginx") for each in host.ran)
    assert (ledger.last(project) or {})["nginx_settings"]["RATE_LIMIT_PER_SECOND"] == "7"
    host.ran.clear()
    deploy_on(host, project)
    assert reloads(host) == 0


def test_a_failed_deploy_takes_the_keys_back(host: Host, project: Project) -> None:
    set_values(project.root, RATE_LIMIT_PER_SECOND="7")
    answer_badly_under_traffic(host, project)
    assert failed_deploy(host, project).code == ROLLED_BACK
    assert rate(project) == "200"
    assert reloads(host) == 2
    assert "RATE_LIMIT_PER_SECOND=7" in (project.root / ".env").read_text(encoding="utf-8")


def test_a_value_that_nginx_refuses_stops_the_deploy_before_any_effect(
    host: Host, project: Project
) -> None:
    set_values(project.root, RATE_LIMIT_PER_SECOND="7")
    host.reply("--env RATE_LIMIT_PER_SECOND=7", Result(1, err="nginx: [emerg] invalid rate"))
    failed = failed_deploy(host, project)
    assert failed.runbook == "nginx-refuses-its-configuration"
    assert (host.changes(), rate(project)) == ([], "200")


def test_a_rollback_leaves_the_keys_of_nginx(host: Host, project: Project) -> None:
    set_values(project.root, RATE_LIMIT_PER_SECOND="7")
    deploy_on(host, project)
    host.ran.clear()
    rollback.run(host, project.root, "", 0)
    assert rate(project) == "7"
    assert reloads(host) == 0


def login_paths(*paths: str) -> str:
    return f"[web]\nlogin_paths = {json.dumps(paths)}\n[[web.smoke]]\npath = '/readyz'\n"


def test_the_locations_travel_with_the_deployment(host: Host, project: Project) -> None:
    former = edge_settings.installed(project).locations
    host.service = login_paths("/members")  # of the image, not of the checkout
    deploy_on(host, project)
    assert "^(/members)(/|$)" in edge_settings.installed(project).locations
    assert edge_settings.kept_locations(project, 3) == edge_settings.installed(project).locations
    host.service = (project.root / "service.toml").read_text(encoding="utf-8")
    rollback.run(host, project.root, "", 0)
    assert edge_settings.installed(project).locations == former
    host.service = "not read again"
    rollback.run(host, project.root, "3", 0)
    assert "^(/members)(/|$)" in edge_settings.installed(project).locations


def test_a_failed_rollback_leaves_the_locations(host: Host, project: Project) -> None:
    former = edge_settings.installed(project)
    host.service = login_paths("/members")
    host.reply("ln -sfn green.sock", Result(1, err="the reason"))
    failure_of(lambda: rollback.run(host, project.root, "", 0))
    assert edge_settings.installed(project) == former
    assert reloads(host) == 2


class Doors:
    """A front door that answers to one name; the slots accept the names of their files."""

    def __init__(self, host: Host, project: Project) -> None:
        self.host, self.project = host, project
        self.asked: list[tuple[str, str]] = []
        self.is_broken = False

    def __call__(self, question: Question) -> Answer:
        name = edge_settings.installed(self.project).host
        self.asked.append((question.host, self.host.live))
        hosts = slot_files.of_slot(self.project, self.host.live)[slot_files.HOSTS].split(",")
        is_accepted = question.host == name and question.host in hosts
        if not is_accepted or (self.is_broken and name == NEW):
            return Answer(0, error="connection reset by peer")
        return self.host.answer(question)


@pytest.fixture
def doors(host: Host, project: Project) -> Doors:
    host.door = Doors(host, project)
    set_values(project.root, SLIPWAY_HOST=NEW)
    return host.door


def test_a_new_host_name_is_taken_over_after_the_switch(
    host: Host, project: Project, doors: Doors
) -> None:
    deploy_on(host, project)
    assert edge_settings.installed(project).host == NEW
    assert slot_files.of_slot(project, "green")[slot_files.HOSTS] == f"{NEW},{FORMER}"
    names = [name for name, _ in doors.asked]
    assert names == sorted(names, reverse=True), "the former name until nginx has the new one"
    assert {slot for name, slot in doors.asked if name == NEW} == {"green"}
    assert applied.front_door(load(project.root)).host == NEW
    assert host.said[-1].endswith(f"answering at https://{NEW}:8443")


def test_a_host_name_that_does_not_answer_is_taken_back_with_the_deploy(
    host: Host, project: Project, doors: Doors
) -> None:
    doors.is_broken = True
    assert failed_deploy(host, project).code == ROLLED_BACK
    assert edge_settings.installed(project).host == FORMER
    assert host.live == "blue"
    assert doors.asked[-1] == (FORMER, "blue")


def test_a_rollback_in_an_incident_asks_for_the_name_that_nginx_has(
    host: Host, project: Project, doors: Doors
) -> None:
    rollback.run(host, project.root, "", 0)
    assert host.live == "green"
    assert {name for name, _ in doors.asked} == {FORMER}


def test_a_certificate_of_the_former_name_alone_stops_the_deploy_before_any_effect(
    host: Host, project: Project, doors: Doors
) -> None:
    project.certificate.parent.mkdir(mode=0o755)
    project.certificate.touch(0o644)
    host.reply(f"-checkhost {NEW}", Result(1, f"Hostname {NEW} does NOT match certificate\n"))
    failed = failed_deploy(host, project)
    assert failed.observation.endswith(f"secrets/tls is not for {NEW}")
    assert host.changes() == []


def test_a_renewed_certificate_of_the_new_name_does_not_blind_the_deploy(
    host: Host, project: Project, doors: Doors
) -> None:
    """Until its reload, nginx serves the former certificate, which the new files do not verify."""

    def door(question: Question) -> Answer:
        if question.trust is not None and edge_settings.installed(project).host == FORMER:
            return Answer(0, error="certificate verify failed: self-signed certificate")
        return doors(question)

    host.door = door
    deploy_on(host, project)
    assert edge_settings.installed(project).host == NEW
