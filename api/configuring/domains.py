"""Finds the modules of each domain: a new domain needs only its folder, and no entry in a list."""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType


def import_from_domains(package: ModuleType, module: str) -> list[ModuleType]:
    """Import `module` of each folder of `package` that has it; return them in the folders' order.

    `import_from_domains(api, "models")` imports `api.exports.models`, `api.items.models` and so on.
    """
    folders = sorted(entry.name for entry in iter_modules(package.__path__) if entry.ispkg)
    names = [f"{package.__name__}.{folder}.{module}" for folder in folders]
    return [import_module(name) for name in names if find_spec(name)]
