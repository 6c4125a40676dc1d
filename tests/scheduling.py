"""Orders the test files by duration: a slow file that starts last would delay the whole run.

Two workers share the files of SHARED, which would take most of the time of the unit tests.
"""

import re

# Approximate seconds on two cores with two stacks side by side. The figures decide only the order;
# all other files are short.
SECONDS = {
    "tests/stack/test_honesty.py": 3000,
    "tests/stack/test_documents.py": 800,
    "tests/stack/test_apply.py": 400,
    "tests/stack/test_offsite.py": 330,
    "tests/stack/test_custody.py": 300,
    "tests/stack/test_deploy.py": 240,
    "tests/stack/test_deploy_jobs.py": 230,
    "tests/stack/test_deploy_killed.py": 220,
    "tests/stack/test_your_own_service.py": 200,
    "tests/stack/test_restore.py": 200,
    "tests/stack/test_drill.py": 180,
    "tests/stack/test_jobs.py": 180,
    "tests/stack/test_backup.py": 160,
    "tests/stack/test_counter.py": 170,
    "tests/stack/test_image_contents.py": 150,
    "tests/stack/test_migrations.py": 150,
    "tests/stack/test_upgrade.py": 150,
    "tests/stack/test_job_chaos.py": 130,
    "tests/stack/test_redis_faults.py": 120,
    "tests/stack/test_kills.py": 120,
    "tests/stack/test_deployments.py": 110,
    "tests/stack/test_blind_gates.py": 80,
    "tests/stack/test_former_version.py": 80,
    "tests/stack/test_development.py": 110,
    "tests/stack/test_bench.py": 100,
    "tests/stack/test_webhooks.py": 90,
    "tests/stack/test_postgres_volume.py": 80,
    "tests/stack/test_openapi.py": 70,
    "tests/stack/test_canary.py": 70,
    "tests/simulator/test_pairs.py": 120,
    "tests/simulator/test_seeds.py": 55,
    "tests/simulator/test_cover.py": 30,
    "tests/contracts/test_lint.py": 60,
    "tests/stack/test_limits.py": 60,
    "tests/stack/test_edge.py": 60,
    "tests/stack/test_hardening.py": 60,
    "tests/stack/test_ops.py": 40,
    "tests/suite/test_run.py": 30,
}
SHORT_SECONDS = 5
# Each test of these files has a number, which selects a part of the work.
SHARED = ("tests/simulator/test_pairs.py", "tests/simulator/test_seeds.py")
PART = re.compile(r"\[(?:.*-)?(\d+)\]$")


def seconds_of(test: str) -> int:
    """Return the approximate seconds that a test's file takes."""
    return SECONDS.get(test.partition("::")[0], SHORT_SECONDS)


def group_of(test: str) -> str:
    """Return the name of the tests that one worker runs together: the file, or a part of it."""
    file = test.partition("::")[0]
    part = PART.search(test) if file in SHARED else None
    return f"{file}[{part[1]}]" if part else file
