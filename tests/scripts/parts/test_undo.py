"""A failed story undoes its steps in a fixed order, and continues if an undo fails."""

from collections.abc import Callable

import pytest
from stack.failure import NEEDS_A_PERSON, Failure
from stack.parts.undo import Undo, beyond_undo

ORDER = ("traffic", "evidence", "slot", "record")


@pytest.fixture
def undo() -> Undo:
    return Undo(ORDER, vital=frozenset({"traffic"}), final=("evidence", "record"))


def note(log: list[str], name: str) -> Callable[[Failure], None]:
    return lambda _: log.append(name)


def stop(_: Failure) -> None:
    raise Failure("the engine does not answer", runbook="site-down")


def failed(undo: Undo, reason: BaseException) -> Failure:
    with pytest.raises(Failure) as raised, undo.on_failure("an-entry"):
        raise reason
    return raised.value


def test_steps_are_undone_in_the_order_of_the_story_and_none_that_was_not_begun(undo: Undo) -> None:
    log: list[str] = []
    for name in ("record", "slot", "traffic"):
        undo.push(name, note(log, name))
    failure = failed(undo, Failure("the watch failed", runbook="roll-back"))
    assert log == ["traffic", "slot", "record"]
    assert (str(failure), failure.hints) == (
        "error: the watch failed\nRUNBOOK: docs/runbook.md#roll-back",
        [],
    )


def test_a_step_that_is_pushed_again_is_undone_once_and_as_it_was_pushed_last(undo: Undo) -> None:
    log: list[str] = []
    undo.push("slot", note(log, "remove"))
    undo.push("slot", note(log, "stop"))
    failed(undo, Failure("x"))
    assert log == ["stop"]


def test_a_block_that_ends_well_undoes_nothing(undo: Undo) -> None:
    log: list[str] = []
    with undo.on_failure("an-entry"):
        undo.push("slot", note(log, "slot"))
    assert log == []


def test_an_undo_that_fails_is_a_hint_and_the_others_go_on(undo: Undo) -> None:
    log: list[str] = []
    undo.push("evidence", stop)
    undo.push("record", note(log, "record"))
    failure = failed(undo, Failure("the watch failed", code=1))
    assert (failure.observation, failure.code, log) == ("the watch failed", 1, ["record"])
    assert failure.hints == ["undo (evidence) failed too: the engine does not answer"]


def test_after_a_vital_undo_that_fails_nothing_that_may_serve_is_removed(undo: Undo) -> None:
    log: list[str] = []
    undo.push("traffic", stop)
    for name in ORDER[1:]:
        undo.push(name, note(log, name))
    failure = failed(undo, Failure("the watch failed"))
    assert (failure.code, log) == (NEEDS_A_PERSON, ["evidence", "record"])
    assert failure.hints == ["undo failed too: the engine does not answer"]


@pytest.mark.parametrize(
    ("reason", "observation", "entry"),
    [
        (KeyboardInterrupt("SIGTERM"), "stopped by SIGTERM", "an-entry"),
        (OSError(28, "No space left on device", "/x"), "No space left on device: /x", "disk-full"),
        (Failure("a command failed"), "a command failed", "an-entry"),
        (
            ValueError("embedded null byte"),
            "a fault of these scripts: ValueError: embedded null byte",
            "an-entry",
        ),
    ],
)
def test_every_exception_is_undone_and_is_a_failure_with_an_entry(
    undo: Undo, reason: BaseException, observation: str, entry: str
) -> None:
    log: list[str] = []
    undo.push("slot", note(log, "slot"))
    failure = failed(undo, reason)
    assert (failure.observation, failure.runbook, log) == (observation, entry, ["slot"])


def test_a_signal_during_the_undo_does_not_end_it(undo: Undo) -> None:
    """An impatient second Ctrl-C must not leave a bad release live without a record."""

    def interrupt(_: Failure) -> None:
        raise KeyboardInterrupt("SIGINT")

    log: list[str] = []
    undo.push("evidence", interrupt)
    undo.push("record", note(log, "record"))
    failure = failed(undo, Failure("the watch failed"))
    assert (failure.observation, log) == ("the watch failed", ["record"])
    assert failure.hints == ["undo (evidence) failed too: stopped by SIGINT"]


def test_a_step_that_the_story_does_not_know_is_refused(undo: Undo) -> None:
    with pytest.raises(ValueError, match="no step is called nginx"):
        undo.push("nginx", stop)


def test_what_nothing_may_undo_needs_a_person() -> None:
    def reword(failure: Failure) -> None:
        failure.observation = f"it is live, but {failure.observation}"

    with pytest.raises(Failure) as raised, beyond_undo("an-entry", reword):
        raise KeyboardInterrupt("SIGHUP")
    failure = raised.value
    assert (failure.observation, failure.code, failure.runbook) == (
        "it is live, but stopped by SIGHUP",
        NEEDS_A_PERSON,
        "an-entry",
    )
