"""The kind of a step: its words without slots, releases, numbers and folders.

Standard library only: a real script that is to fail at a step imports this module too.
"""

import re

# Each pattern with what stands for it.
PATTERNS = (
    # What follows these words differs between two runs with the same effect.
    (r" (--build-arg|--label|--volume|--env|--secret) .*", ""),
    (r"^start \S+ -m stack (\w+).*", r"start \1"),
    (r" application_name=\S+", ""),
    (r"\d{8}T\d{6}Z", "*"),
    (r"slipway/app:[^\s`]+", "slipway/app:*"),
    (r"\b(blue|green|[0-9a-f]*\d[0-9a-f]*)\b", "*"),
    (r"(\b\w+-\*)( \1)+", r"\1"),  # both slots or one
    # A file stands for all files of its folder with its suffix, but not at the top.
    (r"^((?:write|append to) \w+/[^/]+/)(?:\S+/)?[^/\s]*?(\.\w+)?$", r"\1*\2"),
)
COMPILED = tuple((re.compile(pattern), by) for pattern, by in PATTERNS)
MOVED = re.compile(r"\bmoved-\d+/")


def kind_of(step: str, folder: str = "", project: str = "slipway") -> str:
    """Return the kind of a step.

    Args:
        step: a command as it is typed, or a file that is written.
        folder: what holds the checkout and the state directory.
        project: the project's name, for which the kind has the default.
    """
    text = step.replace(f"{folder}/", "") if folder else step
    text = MOVED.sub("checkout/", text)
    text = re.sub(rf"\b{re.escape(project)}\b", "slipway", text)
    for pattern, by in COMPILED:
        text = pattern.sub(by, text)
    return text
