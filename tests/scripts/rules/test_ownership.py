"""A checkout that is not the owner of a stack is refused, or its takeover is announced."""

import pytest
from stack.rules.ownership import ADOPT, Facts, Owner, judge

HERE = Owner("/srv/a", "slipway", "1" * 32)
THERE = Owner("/srv/b", "slipway", "1" * 32)
ELSEWHERE = Owner("/srv/a", "slipway", "2" * 32)
RENAMED = Owner("/srv/a", "two", "1" * 32)


@pytest.mark.parametrize(
    ("owner", "note"),
    [
        (None, ""),
        (HERE, ""),
        (THERE, "this checkout takes the stack over from /srv/b, which is gone"),
        (RENAMED, "this checkout takes the stack over from the project two, which has no volumes"),
        (Owner("/srv/a", "slipway", ""), ""),
    ],
)
def test_an_owner_that_is_gone_or_is_this_one_is_no_fault(owner: Owner | None, note: str) -> None:
    verdict = judge(Facts(owner, HERE))
    assert (verdict.faults, verdict.hints, verdict.note) == ((), (), note)


def test_a_machine_without_an_id_is_not_taken_for_another_one() -> None:
    assert judge(Facts(ELSEWHERE, Owner("/srv/a", "slipway", ""))).faults == ()


def test_another_machine_is_refused_until_the_operator_adopts_the_stack() -> None:
    verdict = judge(Facts(ELSEWHERE, HERE))
    assert "another machine (22222222..., and this one is 11111111...)" in verdict.faults[0]
    assert ADOPT in verdict.hints[0]
    adopted = judge(Facts(ELSEWHERE, HERE), is_adopting=True)
    assert adopted.faults == ()
    assert adopted.note == "this checkout takes the stack over from the machine 22222222..."


def test_another_checkout_that_exists_is_refused_with_its_path_and_what_it_runs() -> None:
    facts = Facts(THERE, HERE, {"/srv/b": ["postgres", "redis"]})
    verdict = judge(facts)
    assert verdict.faults == (
        "another checkout, /srv/b, owns the project slipway, and runs its postgres, redis",
    )
    assert verdict.hints[0] == "work there: cd /srv/b"
    assert judge(facts, is_adopting=True).faults == ()
    assert judge(Facts(HERE, HERE, {"/srv/b": ["postgres"]})).faults, "its containers are enough"


def test_another_project_with_volumes_is_refused_and_no_option_takes_it_over() -> None:
    facts = Facts(RENAMED, HERE, volumes={"two": ["two_postgres"]})
    for is_adopting in (False, True):
        verdict = judge(facts, is_adopting=is_adopting)
        assert (
            "belongs to the project two, whose volumes are here (two_postgres)"
            in (verdict.faults[0])
        )
        assert "COMPOSE_PROJECT_NAME is slipway" in verdict.faults[0]
        assert verdict.hints[0] == "COMPOSE_PROJECT_NAME=two in .env names that stack again"


def test_all_faults_are_named_at_once() -> None:
    owner = Owner("/srv/b", "two", "2" * 32)
    verdict = judge(Facts(owner, HERE, {"/srv/b": []}, {"two": ["two_redis"]}))
    assert len(verdict.faults) == 3
    assert verdict.note == ""
