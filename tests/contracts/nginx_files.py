"""Parses each nginx file into directives, and does not follow the directive `include`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.contracts.tree import files, text

TOKEN = re.compile(r"""\s+|\#[^\n]*|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[{};]|[^\s{};'"]+""")


@dataclass
class Directive:
    name: str
    arguments: list[str]
    file: Path
    block: list["Directive"] = field(default_factory=list)

    def walk(self) -> Iterator["Directive"]:
        yield self
        for inner in self.block:
            yield from inner.walk()

    def has(self, name: str, *arguments: str) -> bool:
        """Whether this block has the directive; blocks inside this block do not count."""
        return any(
            d.name == name and d.arguments[: len(arguments)] == list(arguments) for d in self.block
        )


def parse(path: Path) -> list[Directive]:
    source, position = text(path), 0
    stack: list[list[Directive]] = [[]]
    words: list[str] = []
    while position < len(source):
        match = TOKEN.match(source, position)
        assert match, f"{path}: cannot parse the text at {source[position : position + 20]!r}"
        token, position = match[0], match.end()
        if token.isspace() or token[0] == "#":
            continue
        if token in ";{" and words:
            made = Directive(words[0], words[1:], path)
            stack[-1].append(made)
            words = []
            if token == "{":
                stack.append(made.block)
        elif token == "}":
            stack.pop()
        else:
            words.append(token[1:-1] if token[0] in "'\"" else token)
    assert len(stack) == 1, f"{path}: a brace is not closed"
    assert not words, f"{path}: the last directive has no semicolon"
    return stack[0]


def directives() -> list[Directive]:
    """Return every directive of every file, including the directives inside blocks."""
    return [
        inner for path in files("nginx/**/*.conf") for top in parse(path) for inner in top.walk()
    ]


def value(name: str, file: str) -> str:
    """Return the arguments of a directive, which must be the same at each place in the file."""
    (argument,) = {
        " ".join(d.arguments)
        for d in directives()
        if d.name == name and str(d.file) == f"nginx/{file}"
    }
    return argument
