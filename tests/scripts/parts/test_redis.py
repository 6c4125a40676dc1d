"""Redis' row is not ok if Redis is nearly full, does not write its file, or does not answer."""

import pytest
from stack.parts import redis
from stack.runner import Result

from tests.scripts.recording import RecordingRunner

INFO = {
    "used_memory": "1000000",
    "maxmemory": "16777216",
    "evicted_keys": "0",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
}


def info(**changed: str) -> Result:
    return Result(
        0,
        "# Memory\r\n" + "".join(f"{name}:{value}\r\n" for name, value in (INFO | changed).items()),
    )


@pytest.mark.parametrize(
    ("changed", "is_well", "said"),
    [
        ({}, True, "1.0 of 16.0 MB, 0 keys evicted, written to its file"),
        ({"used_memory": "15000000", "evicted_keys": "3"}, True, "14.3 of 16.0 MB, 3 keys evicted"),
        ({"used_memory": "15200000"}, False, "14.5 of 16.0 MB"),
        ({"maxmemory": "0"}, False, "1.0 MB without a limit"),
        ({"aof_enabled": "0"}, False, "not written to its file"),
        ({"aof_last_write_status": "err"}, False, "not written to its file"),
        ({"aof_last_bgrewrite_status": "err"}, False, "not written to its file"),
    ],
)
def test_redis_is_not_ok_when_it_is_nearly_full_or_does_not_reach_its_file(
    runner: RecordingRunner, changed: dict[str, str], is_well: bool, said: str
) -> None:
    runner.reply("cli.sh info", info(**changed))
    shown = redis.row(runner)
    assert shown[0] is is_well
    assert said in shown[2]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Result(124), "no answer"),
        (Result(1, err='service "redis" is not running\n'), 'service "redis" is not running'),
        (Result(0, "NOAUTH Authentication required.\n"), "NOAUTH Authentication required."),
    ],
)
def test_a_redis_that_does_not_answer_is_not_ok(
    runner: RecordingRunner, answer: Result, said: str
) -> None:
    runner.reply("cli.sh info", answer)
    assert redis.row(runner) == (False, "redis data", said)
