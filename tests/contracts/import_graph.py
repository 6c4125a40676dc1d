"""Reads the imports of a package: edges between modules and between folders, and cycles."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Edges = Mapping[str, set[str]]


@dataclass(frozen=True)
class Graph:
    """The imports among the modules of a package, including imports inside functions."""

    edges: Edges
    folders: Mapping[str, str]

    @property
    def folder_edges(self) -> dict[str, set[str]]:
        """Return, for each folder, the other folders that its modules import."""
        edges: dict[str, set[str]] = {folder: set() for folder in self.folders.values()}
        for module, targets in self.edges.items():
            edges[self.folders[module]] |= {self.folders[target] for target in targets}
        return {folder: targets - {folder} for folder, targets in edges.items()}

    def summary(self, name: str) -> str:
        """Return the package's figures in one line, followed by the edges between its folders."""
        folders = self.folder_edges
        counts = (
            f"{name}: {len(self.edges)} files, {len(folders)} folders,"
            f" {sum(map(len, self.edges.values()))} edges,"
            f" {sum(map(len, folders.values()))} edges between folders,"
            f" {len(cycles(self.edges))} cycles, {len(cycles(folders))} of folders"
        )
        lines = [
            f"{folder} -> {', '.join(sorted(targets))}"
            for folder, targets in sorted(folders.items())
        ]
        return counts + "".join(f"\n    {line}" for line in lines if not line.endswith("-> "))


def graph(sources: Mapping[Path, str], top: Path) -> Graph:
    """Return the imports of the files; names of modules are relative to the folder `top`."""
    modules = {_module(path.relative_to(top)): path for path in sources}
    edges = {
        module: {target for target in _targets(sources[path], modules) if target != module}
        for module, path in modules.items()
    }
    folders = {module: _folder(path.relative_to(top)) for module, path in modules.items()}
    return Graph(edges, folders)


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _folder(path: Path) -> str:
    """Return the folder of a file; `__main__.py` counts as a folder of its own."""
    return str(path.with_suffix("") if path.name == "__main__.py" else path.parent)


def _targets(source: str, modules: Iterable[str]) -> Iterator[str]:
    known = set(modules)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                if member in known:
                    yield member
                elif node.module in known:
                    yield node.module


def cycles(edges: Edges) -> list[list[str]]:
    """Return the groups of nodes that reach each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges.get(node, set()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return groups
