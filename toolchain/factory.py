"""``module:factory``: a function of the user's that makes a model, imported and called."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolchain.errors import BuildFailedError, TrtcrossError, UsageError
from toolchain.text import first_line


def call_factory(name: str, *, where: str = "MODEL") -> Any:
    """What a factory returns; its module is looked for in the current folder first.

    Args:
        where: what the name was given as, for errors.

    Raises:
        UsageError: there is no such module or function.
        BuildFailedError: the module cannot be imported, or the factory raises.
    """
    module_name, _, attribute = name.partition(":")
    with _current_folder_first():
        factory = _find(name, module_name, attribute, where)
        try:
            return factory()
        except Exception as error:
            raise BuildFailedError(
                f"the factory raised {type(error).__name__}: {first_line(error)}",
                where=name,
                remedy="call it in a Python of your own and mend it",
            ) from error


@contextlib.contextmanager
def _current_folder_first() -> Iterator[None]:
    """Lets modules of the current folder be found; what the factory itself adds to the path stays, for its model."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the factory took it away
            sys.path.remove(folder)


def _find(name: str, module_name: str, attribute: str, where: str) -> Any:
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"there is no factory {name!r}: {first_line(error)}",
            where=where,
            remedy="name an importable module and a function in it, as in mymodels:resnet50",
        ) from error
    except TrtcrossError:
        raise
    except Exception as error:
        raise BuildFailedError(
            f"importing {module_name} raised {type(error).__name__}: {first_line(error)}",
            where=name,
            remedy="import it in a Python of your own and mend it",
        ) from error
    if not callable(factory):
        raise UsageError(f"{name!r} is not callable", where=where, remedy="name a function")
    return factory
