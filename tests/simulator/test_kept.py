"""Histories that found a fault of the product, and histories that no fault may break."""

import pytest

from tests.simulator import actions, kept, known
from tests.simulator.histories import Breach, History
from tests.simulator.host import Copy, Host
from tests.simulator.operators import KILLED


def begin(host: Host, copies: dict[str, Copy], start: str, *, is_strict: bool = True) -> History:
    """Begin a history; a strict history allows no exceptions."""
    host.put_back(copies[start])
    return History(host, f"from: {start}", is_strict=is_strict)


@pytest.mark.parametrize("name", kept.USUAL)
def test_what_an_operator_relies_on_holds(host: Host, copies: dict[str, Copy], name: str) -> None:
    start, lines = kept.USUAL[name]
    outcomes = begin(host, copies, start).play(actions.read(lines))
    assert {each.code for each in outcomes if each} <= {0, 4}


@pytest.mark.parametrize("name", kept.MENDED)
def test_a_fault_that_a_history_found_is_mended(
    host: Host, copies: dict[str, Copy], name: str
) -> None:
    start, lines = kept.MENDED[name]
    begin(host, copies, start).play(actions.read(lines))


def test_what_a_killed_deploy_left_is_named_until_somebody_settles_it(
    host: Host, copies: dict[str, Copy]
) -> None:
    """It is live, and its watch never ended: only a person or another watch can judge it."""
    for way_on in ("rollback", "edit good\ndeploy"):
        history = begin(host, copies, kept.WINDOW)
        (killed,) = history.play(actions.read(kept.KILLED_IN_THE_WATCH))[1:]
        assert killed
        assert killed.code == KILLED
        assert "NOT judged" in lines_of(history, "up") + lines_of(history, "up")
        history.play(actions.read(way_on))
        assert "NOT judged" not in lines_of(history, "up")
        assert history.host.state.deployments.live


def lines_of(history: History, command: str) -> str:
    """Return what a command prints that succeeds."""
    outcome = history.do(actions.parse(command))
    assert outcome
    assert outcome.code == 0
    return "\n".join(outcome.lines)


@pytest.mark.parametrize("name", kept.OPEN)
def test_a_known_fault_is_still_there(host: Host, copies: dict[str, Copy], name: str) -> None:
    start, lines = kept.OPEN[name]
    with pytest.raises(Breach):
        begin(host, copies, start).play(actions.read(lines))
    history = begin(host, copies, start, is_strict=False)
    history.play(actions.read(lines))
    assert history.known.keys() == {name}


def test_each_exception_has_its_history() -> None:
    assert kept.OPEN.keys() == known.KNOWN.keys()


ALL_COMMANDS = """
status
rollback
deploy
set LOG_LEVEL=DEBUG
deploy
rollback
check-config
backup
restore
upgrade
edit good
deploy --plan
deploy
retire
move-folder
status
up --apply all
deploy
go second
up
go copy
deploy
go home
lose-secret backup_key
deploy
regain-secrets
set HTTPS_PORT=9443
deploy
up --apply nginx
deploy
bare-up
reboot
up
wait 700
status
"""
CODES = "000-000000-000-100-1-1--1--000--000"  # of each line; - for an event


def test_every_command_does_what_an_operator_expects(host: Host, copies: dict[str, Copy]) -> None:
    outcomes = begin(host, copies, kept.WINDOW).play(actions.read(ALL_COMMANDS))
    assert "".join(str(each.code) if each else "-" for each in outcomes) == CODES


def test_the_same_history_ends_in_the_same_way(host: Host, copies: dict[str, Copy]) -> None:
    """The test's machine has no influence, so that a failing seed can be repeated."""
    texts = []
    for _ in range(2):
        history = begin(host, copies, kept.TAKEN_BACK)
        history.play(
            actions.read("edit good\ndeploy ! killed after step 8\nwait 60\ndeploy\nstatus")
        )
        texts.append(history.text())
    assert texts[0] == texts[1]
