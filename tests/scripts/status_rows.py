"""The screen of `status.sh`: the replies of a stack without a fault, and the rows."""

import json
from datetime import UTC, datetime, timedelta

from stack.config.project import Project
from stack.https import Answer, Question
from stack.runner import Result
from stack.stories import status

from tests.scripts.recording import RecordingRunner

LABEL = "2026_11_20_0902:pre,2026_11_20_0903:pre,2026_11_20_0904:post"
VOLUME = "/var/lib/postgresql/data/ballast"
HEALTHY = ("api-blue", "backup", "counter", "nginx", "postgres", "redis", "worker-blue")


def containers(**changed: str) -> Result:
    states = {
        **dict.fromkeys(HEALTHY, "running"),
        **{name.replace("_", "-"): state for name, state in changed.items()},
    }
    lines = [
        json.dumps(
            {
                "Service": name,
                "State": state,
                "Health": "healthy" if state == "running" else "",
                "Status": state,
            }
        )
        for name, state in states.items()
        if state != "absent"
    ]
    return Result(0, "\n".join(lines))


def backup_rows(**well: bool) -> Result:
    rows = [{"name": name, "is_well": ok, "text": "3 s ago"} for name, ok in well.items()]
    return Result(0, json.dumps({"rows": rows}))


def expiry(days: int) -> str:
    return f"{datetime.now(UTC) + timedelta(days=days, hours=1):%b %d %H:%M:%S %Y} GMT"


class Door:
    """A front door whose answers a test may change."""

    def __init__(self) -> None:
        self.body = ""
        self.status, self.release, self.slot, self.expires, self.error = (
            200,
            "r-1",
            "blue",
            expiry(80),
            "",
        )

    def __call__(self, question: Question) -> Answer:
        headers = (
            {"x-slipway-release": self.release, "X-Slipway-Slot": self.slot} if self.release else {}
        )
        return Answer(self.status, self.body, headers, self.expires, self.error)


def rows(runner: RecordingRunner, project: Project) -> dict[str, tuple[bool, str]]:
    runner.said.clear()
    is_well = status.run(runner, project)
    screen = {line[4:20].strip(): (line.startswith("ok "), line[21:]) for line in runner.said[:-1]}
    assert is_well == all(row[0] for row in screen.values())
    assert runner.ran == []
    assert runner.written == []
    return screen
