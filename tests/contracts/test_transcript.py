"""Two runs of deploy.sh with the same steps produce the same block of README.md."""

from tests.contracts.documents import README
from tests.contracts.tree import ROOT
from tests.stack import transcript

STDOUT = """\
==> preflight [0.2 s]
    nothing stands in the way; warning: no backup is younger than a day (2.3 s)
==> image [2.5 s]
    $ docker build --tag slipway/app:0123456789ab-01234567 .
    release 0123456789ab-01234567; live is 0123456789ab in slot blue (1.2 s)
==> watch [12.1 s]
    1104 requests, 0.0% errors, p95 13 ms; before the switch: 999 requests, 0.0% errors, p95 34 ms \
(11.1 s)
==> retention [23.8 s]
    removed fedcba987654 (0.3 s)

deployed in 24.1 s; back: ./scripts/rollback.sh
live: release 0123456789ab-01234567 in slot green, answering at https://localhost:53869
"""
SHOWN = """\
$ ./scripts/deploy.sh
==> preflight: nothing stands in the way (2.3 s)
==> image: release 0123456789ab-01234567; live is 0123456789ab in slot blue (1.2 s)
==> watch: 1104 requests, 0.0% errors, p95 13 ms;
    before the switch: 999 requests, 0.0% errors, p95 34 ms (11.1 s)
==> retention: removed fedcba987654 (0.3 s)
deployed in 24.1 s; back: ./scripts/rollback.sh
live: release 0123456789ab-01234567 in slot green, answering at https://localhost:8443
"""
FAILED = """\
error: release 0123456789ab-01234567 is worse than 0123456789ab: \
67% of 118 requests failed, 0% before
HINT: logs and health records: /srv/state/evidence/20261128T233849Z-deploy
"""


def test_a_block_has_the_steps_with_their_results_and_the_closing_lines() -> None:
    assert transcript.block(STDOUT, "", "https://localhost:53869") == SHOWN
    assert transcript.block("==> watch [1.0 s]\n", FAILED, "x").splitlines()[1:] == [
        "==> watch",
        "error: release 0123456789ab-01234567 is worse than 0123456789ab:",
        "    67% of 118 requests failed, 0% before",
        "HINT: logs and health records: STATE_DIR/evidence/...",
    ]


def test_another_run_of_the_same_story_is_the_same_block_and_another_story_is_not() -> None:
    known = transcript.without_variables(SHOWN)
    other = SHOWN.replace("0123456789ab", "aaaaaaaaaaaa").replace("1104", "87")
    other = other.replace("removed fedcba987654", "nothing to remove").replace("24.1", "31.0")
    assert transcript.without_variables(other) == known
    for old, new in (
        ("==> retention", "==> prune"),
        ("in slot green", "in slot blue"),
        ("0.0% errors", "0.4% errors"),
        ("live: release 0123456789ab-01234567", "live: release 0123456789ab"),
        ("./scripts/rollback.sh", "./scripts/deploy.sh"),
    ):
        assert transcript.without_variables(SHOWN.replace(old, new)) != known, old


def test_a_block_may_begin_with_a_later_step() -> None:
    shown = transcript.from_step(SHOWN, "watch")
    assert shown.startswith("$ ./scripts/deploy.sh\n...\n==> watch: ")


def test_the_blocks_of_the_readme_fit_a_terminal_of_100_columns() -> None:
    for name in ("a deploy", "a deploy that takes itself back"):
        lines = transcript.written(ROOT / README, name).splitlines()
        assert len(lines) > 5
        assert [line for line in lines if len(line) > 100] == []
