"""The errors about a factory's name: the same before an import and after it."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from toolchain.errors import UsageError
from toolchain.factory.name import FactoryName

_NAMES = "name an importable module and a function in it, as in mymodels:resnet50, or a file: ./mymodels.py:resnet50"


def require_module_name(name: FactoryName, where: str) -> None:
    """Refuses a name that no module can have.

    Raises:
        UsageError: the name is neither a path nor a dotted name.
    """
    if name.path is None and not all(part.isidentifier() for part in name.module.split(".")):
        raise UsageError(f"{name.module!r} is not the name of a module", where=where, remedy=_NAMES)


def no_file(path: Path, function: str, where: str) -> UsageError:
    """Returns the error for a path that names no file; it offers the most similar name in the folder."""
    beside = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(f"{path.stem}.py", beside, 1)
    remedy = f"do you mean {path.with_name(near[0])}:{function}?" if near else "give the path of a Python file"
    return UsageError(f"there is no file {path}", where=where, remedy=remedy)


def no_module(missing: str, folder: Path, where: str) -> UsageError:
    """Returns the error for a module that neither the folder nor the environment has."""
    return UsageError(
        f"there is no module {missing!r}, neither in {folder} nor in this environment", where=where, remedy=_NAMES
    )


def no_function(name: FactoryName, functions: Collection[str], where: str) -> UsageError:
    """Returns the error for a function that the module does not have; it offers the most similar name.

    Args:
        name: the factory's name.
        functions: the functions that the module has.
        where: the argument that gave the name.
    """
    near = difflib.get_close_matches(name.function, functions, 1)
    known = ", ".join(sorted(functions)[:10]) or "none"
    remedy = f"do you mean {near[0]!r}?" if near else f"its functions are: {known}"
    return UsageError(f"there is no {name.function!r} in {name.module}", where=where, remedy=remedy)
