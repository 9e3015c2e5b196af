"""The search path of a factory's imports: Python's own library, the factory's folder, installed packages."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Puts a folder on the search path for the length of the block.

    Its modules come before installed packages, as for a script, but after Python's own library: a ``select.py`` in the
    folder would otherwise end the process. What the factory itself adds to the path stays, since its model may need it.
    """
    name = str(folder.absolute())
    sys.path.insert(_after_own_library(), name)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the factory took it away
            sys.path.remove(name)


def hiding(folder: Path) -> list[Path]:
    """Returns the files of a folder that were imported in place of an installed module of the same name."""
    return [path for path in _modules(folder) if is_imported(path) and _installed(path.stem, folder)]


def hidden(folder: Path, module: str) -> Path | None:
    """Returns the file of a folder that has a module's name, if a different module of that name was imported."""
    top = module.partition(".")[0]
    found = next((path for path in _modules(folder) if path.stem == top), None)
    return found if found and top in sys.modules and not is_imported(found) else None


def is_free(module: str, folder: Path) -> bool:
    """Whether no module of this name was imported, and none is installed outside the folder."""
    return module not in sys.modules and not _installed(module, folder)


def _installed(module: str, folder: Path) -> bool:
    others = [entry for entry in sys.path if entry and Path(entry) != folder.absolute()]
    return PathFinder.find_spec(module, others) is not None


def _modules(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix == ".py" or (path / "__init__.py").is_file()]


def is_imported(path: Path) -> bool:
    """Whether the imported module of a path's name is the one in this file or folder."""
    found = getattr(sys.modules.get(path.stem), "__file__", None)
    return found is not None and Path(found) in (path.absolute(), path.absolute() / "__init__.py")


def _after_own_library() -> int:
    own = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sysconfig.get_config_var("DESTSHARED")}
    return 1 + max((index for index, entry in enumerate(sys.path) if entry in own), default=-1)
