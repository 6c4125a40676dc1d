"""Fits text into the columns of a terminal and colours it; prints nothing."""

import re
import unicodedata

GREEN, RED, YELLOW, CYAN, DIM = "32", "31", "33", "36", "2"
# Colours, cursor movements, and titles that a program sets.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")


def paint(text: str, colour: str) -> str:
    """Return the text in a colour."""
    return f"\x1b[{colour}m{text}\x1b[0m" if text else ""


def printable(text: str) -> str:
    """Return a line without control codes: a log may contain codes from a client."""
    text = _CONTROL.sub("", text).expandtabs(4)
    return "".join(
        character if character.isprintable() else " " if character.isspace() else "?"
        for character in text
    )


def cells(text: str) -> int:
    """Return the number of columns of the text."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in {"Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _fitting(text: str, width: int) -> str:
    """Return the first characters of the text, up to `width` columns."""
    if text.isascii():
        return text[:width]
    taken = 0
    for place, character in enumerate(text):
        taken += _cells_of(character)
        if taken > width:
            return text[:place]
    return text


def clip(text: str, width: int) -> str:
    """Return the text, cut to `width` columns; `...` marks the cut."""
    if cells(text) <= width:
        return text
    return _fitting(text, max(width - 3, 0)) + "..."[: max(width, 0)]


def fit(text: str, width: int) -> str:
    """Return the text in exactly `width` columns: cut, or filled with spaces."""
    text = clip(text, width)
    return text + " " * (width - cells(text))


def fold(line: str, width: int, indent: str = "") -> list[str]:
    """Break a line at spaces into lines of at most `width` columns.

    `indent` starts each later line, if there is room for it. A word longer than a line is broken.
    """
    lines, begin, rest = [], "", line
    indent = indent if len(indent) <= width // 2 else ""
    while rest and cells(begin + rest) > width:
        head = _fitting(rest, max(width - len(begin), 1)) or rest[0]
        cut = len(head)
        if not rest[cut:].startswith(" "):
            space = head.rfind(" ")
            if head[:space].strip() and space > 0:
                cut = space
        lines.append((begin + rest[:cut]).rstrip())
        begin, rest = indent, rest[cut:].lstrip(" ")
    return [*lines, (begin + rest).rstrip()] if rest or not lines else lines


def fold_indented(text: str, width: int) -> list[str]:
    """Fold each line of a text; the rest of a long line is indented by two more columns."""
    folded = []
    for line in text.split("\n"):
        shown = printable(line)
        indent = len(shown) - len(shown.lstrip(" "))
        folded += fold(shown, width, " " * (indent + 2))
    return folded


def fold_beside(label: str, text: str, width: int) -> list[str]:
    """Fold a text beside its label, or under the label on a narrow terminal."""
    text = printable(text)
    if width - len(label) >= 24:  # chosen: narrower is hard to read
        first, *others = fold(text, width - len(label))
        return [label + first, *(" " * len(label) + line for line in others)]
    return [clip(label.rstrip(), width), *(f"    {line}" for line in fold(text, width - 4) if line)]
