"""The histories that the real engine plays too cover every command and every kind of step."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.simulator import cover, likeness, starts
from tests.simulator.actions import Action
from tests.simulator.cover import Chooser, Chosen
from tests.simulator.faults import Fault
from tests.simulator.host import Copy, Host
from tests.simulator.kinds import kind_of
from tests.simulator.likeness import Facts, Line

NO_STEP = 999


@dataclass(frozen=True)
class Choice:
    """The histories, with what each covers."""

    host: Host
    made: dict[str, Copy]
    covered: dict[Chosen, set[str]]


@pytest.fixture(scope="module")
def choice() -> Iterator[Choice]:
    """The histories; their start states have other base images, and so a folder of their own."""
    with starts.new_folder() as folder:
        made, host = cover.make_starts(folder), Host(folder)
        chosen = Chooser(host, made).choose()
        yield Choice(
            host, made, {each: cover.covered(host, made[each.start], each) for each in chosen}
        )


def test_sixty_short_histories_cover_every_command_and_kind_of_step(choice: Choice) -> None:
    assert len(choice.covered) == cover.HISTORIES
    assert max(len(history.actions) for history in choice.covered) <= cover.MOST_ACTIONS
    wanted = cover.wanted(choice.host, choice.made)
    assert sorted(wanted - set().union(*choice.covered.values())) == []


def test_a_fault_that_strikes_no_step_covers_nothing(choice: Choice) -> None:
    history = next(each for each in choice.covered if each.actions[-2].fault)
    *former, struck, last = history.actions
    missed = replace(struck, fault=Fault("fails", NO_STEP))
    changed = Chosen(history.start, (*former, missed, last))
    start = choice.made[history.start]
    before, now = choice.covered[history], cover.covered(choice.host, start, changed)
    assert now < before
    assert len(before - now) == 1


def test_a_history_is_played_in_the_same_way_twice(choice: Choice) -> None:
    history = next(iter(choice.covered))
    played = [likeness.simulate(choice.host, choice.made[history.start], history) for _ in range(2)]
    assert played[0] == played[1]
    assert [line.facts.code for line in played[0] if line.facts] == [1, 0, 0, 0]
    assert likeness.compare(*played) == ""


FACTS = Facts(0, False, "the same slot", 0, 0, True, "deploy done", 0, "")


def test_a_difference_is_printed_with_both_outcomes_side_by_side() -> None:
    edit, deploy = Action(("edit", "good")), Action(("deploy",))
    simulated = [Line(edit, None, None), Line(deploy, None, FACTS)]
    refused = replace(FACTS, code=1, status=1, error="no space")
    real = [Line(edit, None, None), Line(deploy, None, refused)]
    assert likeness.compare(simulated, real).splitlines() == [
        "1. edit good",
        "2. deploy",
        "     simulated: exit 0; the same slot, release 0, deployment 0; answers; deploy done; "
        "status 0",
        "     real:      exit 1; the same slot, release 0, deployment 0; answers; deploy done; "
        "status 1; no space   (!) code, status, error",
    ]


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (
            "docker tag slipway/app:src-0a slipway/app:blue",
            "docker tag slipway/app:* slipway/app:*",
        ),
        ("docker tag test-1/app:9c2-0a test-1/app:blue", "docker tag slipway/app:* slipway/app:*"),
        ("docker compose stop api-blue api-green", "docker compose stop api-*"),
        ("write /a/state/slots/blue.env", "write state/slots/*.env"),
        ("write state/evidence/20260301T120214Z-deploy/api-blue.log", "write state/evidence/*.log"),
        ("write moved-5/.env", "write checkout/.env"),
        ("write state/applied.json", "write state/applied.json"),
        ("start /bin/python3 -m stack retire blue src-1 --after 600", "start retire"),
    ],
)
def test_the_kind_of_a_step_is_the_same_on_both_hosts(step: str, kind: str) -> None:
    assert kind_of(step, "/a", "test-1" if "test-1" in step else "slipway") == kind


@pytest.mark.parametrize(
    ("releases", "folder", "project"),
    [(("src-1a", "src-2b"), "/a", "slipway"), (("0c1", "0c1-2b"), "/b", "test-1")],
)
def test_an_observation_is_the_same_on_both_hosts(
    releases: tuple[str, str], folder: str, project: str
) -> None:
    live, new = releases
    edits = {live: 0, new: 1}
    error = f"error: release {new} is worse than {live}: 90% of 25 requests failed"
    observation = likeness.observation_of(error, edits, folder, project)
    assert observation == "release release+ is worse than release"
    error = f"error: `docker tag {project}/app:{new} {project}/app:blue` exited with 1 after 0.1 s"
    observation = likeness.observation_of(error, edits, folder, project)
    assert observation == ("`docker tag slipway/app:* slipway/app:*` exited with * after *.* s")


def test_an_entry_of_an_earlier_history_is_no_outcome_of_this_one() -> None:
    """The real host keeps its ledger between histories."""
    earlier = {"at": "1", "action": "apply", "result": "done"}
    base = likeness.Base("blue", 1, [earlier])
    assert base.entry_text([earlier]) == ""
    assert base.entry_text([earlier, {"at": "2", "action": "up", "result": "begun"}]) == "up begun"
