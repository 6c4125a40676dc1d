"""The paths of the simulated host: like `pathlib`, but faster for paths that recur.

The scripts combine the same paths, and read the same small files, thousands of times a second.
"""

import os
import stat
from functools import lru_cache
from pathlib import PosixPath

CHUNK_BYTES = 64 * 1024
MOST_CHILDREN = 256  # of one folder; folders with random names would fill the memory


def read(path: str) -> bytes:
    """Return the content of a file, without Python's file objects, which take four times as long.

    Raises:
        OSError: as `open` does; without a name if the path is a folder.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = part = os.read(descriptor, CHUNK_BYTES)
        while len(part) == CHUNK_BYTES:
            part = os.read(descriptor, CHUNK_BYTES)
            content += part
        return content
    finally:
        os.close(descriptor)


class QuickPath(PosixPath):
    """A path that keeps its children, so that each path is parsed once."""

    __slots__ = ("_children",)
    _children: "dict[str, QuickPath]"

    def __truediv__(self, name: str | os.PathLike[str]) -> "QuickPath":
        if not isinstance(name, str):
            return super().__truediv__(name)
        try:
            return self._children[name]
        except AttributeError:
            self._children = {}
        except KeyError:
            if len(self._children) >= MOST_CHILDREN:
                self._children.clear()
        child = self._children[name] = super().__truediv__(name)
        return child

    def resolve(self, strict: bool = False) -> "QuickPath":
        return path_of(os.path.realpath(self, strict=strict))

    def read_bytes(self) -> bytes:
        try:
            return read(str(self))
        except IsADirectoryError:
            return super().read_bytes()  # which names the folder

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        content = self.read_bytes()
        if encoding is None or b"\r" in content:  # `open` replaces the line ends of Windows
            return super().read_text(encoding, errors)
        return content.decode(encoding, errors or "strict")

    def exists(self) -> bool:
        return self._mode() != 0

    def is_file(self) -> bool:
        return stat.S_ISREG(self._mode())

    def is_dir(self) -> bool:
        return stat.S_ISDIR(self._mode())

    def _mode(self) -> int:
        try:
            return os.stat(self).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return 0


@lru_cache(maxsize=1024)
def path_of(text: str) -> QuickPath:
    """Return a path; the same text gives the same object, with the children that it keeps."""
    return QuickPath(text)
