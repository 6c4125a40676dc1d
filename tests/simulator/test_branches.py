"""Histories that begin again from a copy, and the states in which `status` is asked again."""

import pytest

from tests.simulator import actions, kept, truths
from tests.simulator.histories import History
from tests.simulator.host import Copy, Host
from tests.simulator.pairs import Branch

# Each may turn a row of `status` red, or green again.
CHANGES = (
    "stop nginx",
    "stop api-live",
    "remove redis",
    "crash counter",
    "stop-all",
    "fill-disk",
    "lose-link",
    "lose-ledger",
    "lose-secret backup_key",
    "change-secret database_password",
    "set COMPOSE_PROJECT_NAME=other",
    "certificate other.example\ncrash nginx",
    "go second",
    "move-folder",
    "rollback",
    "edit good\ndeploy",
    "edit crashes\ndeploy",
    "edit good\ndeploy ! killed after step 9",
)
READS = ("status", "check-config", "deploy --plan")


def begin(host: Host, copies: dict[str, Copy]) -> History:
    """Begin a history in which a deploy has just ended."""
    host.put_back(copies[kept.WINDOW])
    return History(host, kept.WINDOW)


@pytest.mark.parametrize("lines", CHANGES)
def test_a_change_that_status_may_show_is_a_new_state(
    host: Host, copies: dict[str, Copy], lines: str
) -> None:
    history = begin(host, copies)
    before = truths.signature(host)
    history.play(actions.read(lines))
    assert truths.signature(host) != before


@pytest.mark.parametrize("line", READS)
def test_a_command_that_only_reads_leads_to_no_new_state(
    host: Host, copies: dict[str, Copy], line: str
) -> None:
    history = begin(host, copies)
    before = truths.signature(host)
    history.play(actions.read(line))
    assert truths.signature(host) == before


def test_a_branch_begins_in_the_state_of_its_copy(host: Host, copies: dict[str, Copy]) -> None:
    history = begin(host, copies)
    history.play(actions.read("set LOG_LEVEL=DEBUG"))
    branch, before = Branch.of(history), truths.signature(host)
    for line in ("deploy", "move-folder", "lose-secret all"):
        branch.begin().play(actions.read(line))
        assert truths.signature(host) != before
    again = branch.begin()
    assert truths.signature(host) == before == again.signature
    assert len(again.lines) == 1
