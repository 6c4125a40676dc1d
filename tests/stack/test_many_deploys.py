"""Twenty deploys and twenty rollbacks under mixed traffic fail no request."""

import time

import pytest

from tests.conftest import Figure
from tests.stack.harness import Stack, wait_until
from tests.stack.load import Load

pytestmark = [pytest.mark.drill, pytest.mark.nightly, pytest.mark.alone]
ROUNDS = 20
STEADY_SECONDS = 20
FEWEST_REQUESTS = 50_000
# Every release of this test has this route, for requests that take three seconds.
ROUTES = "api/items/routes.py"
GET_ITEM = '@router.get(\n    "/items/{item_id}"'
SLOW = '''@router.get("/items/slow")
async def slow() -> dict[str, str]:
    """Take three seconds."""
    await asyncio.sleep(3)
    return {"took": "3 s"}


'''


def median_seconds(stack: Stack) -> dict[str, float]:
    """Return the median seconds of the steps that end with the first answer of the new release."""
    done = [entry for entry in stack.ledger() if entry["result"] == "done"][-2 * ROUNDS :]
    names = {
        "deploy": ("preflight", "image", "migrate", "start", "smoke test", "switch", "workers"),
        "rollback": ("check", "switch"),
    }
    return {
        f"{action} {step}": sorted(e["seconds"][step] for e in done if e["action"] == action)[
            ROUNDS // 2
        ]
        for action, steps in names.items()
        for step in steps
    }


@pytest.mark.counts_losses
def test_twenty_deploys_and_twenty_rollbacks_fail_no_request(stack: Stack, figure: Figure) -> None:
    load = Load(stack, rate=150, is_mixed=True, slow_path="/v1/items/slow")
    try:
        with (
            stack.edited(ROUTES, "from datetime", "import asyncio\nfrom datetime"),
            stack.edited(ROUTES, GET_ITEM, SLOW + GET_ITEM),
        ):
            stack.deploy()
            with load.running() as report:
                time.sleep(STEADY_SECONDS)  # measures the latency without a deploy
                steady = len(report.latencies)
                for _ in range(ROUNDS):
                    stack.vary()
                    stack.deploy(WATCH_SECONDS="1")
                    stack.run("./scripts/rollback.sh")
                deployed = len(report.latencies)
                wait_until(lambda: report.sent >= FEWEST_REQUESTS, 300, "enough requests were sent")
        lost, doubled = load.lost_and_doubled()
        figure(
            f"{ROUNDS} deploys and {ROUNDS} rollbacks: sent {report.sent}, failed "
            f"{len(report.failures)}, lost {lost}, "
            f"doubled {doubled}, p99 steady {report.p99_ms(0, steady):.0f} ms, "
            f"during {report.p99_ms(steady, deployed):.0f} ms, "
            f"kinds of failure {sorted({what[:80] for _, what in report.failures})}, "
            f"longest gap {report.longest_gap * 1000:.0f} ms; median seconds of the steps: "
            f"{median_seconds(stack)}"
        )
        assert report.failures == []
        assert (lost, doubled) == (0, 0)
        assert report.slots == {"blue", "green"}
    finally:
        (stack.root / "api/variant.py").unlink(missing_ok=True)
        stack.deploy(WATCH_SECONDS="0")
        if stack.live()[1] != "blue":
            stack.vary()
            stack.deploy(WATCH_SECONDS="0")
        stack.compose("rm", "--stop", "--force", "api-green", "worker-green")
