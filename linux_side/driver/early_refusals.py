"""Refuses builds that cannot succeed, before the build process spends seconds on imports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from linux_side.frontend.hub.folder import open_folder, require_task_of_folder
from linux_side.options import BuildOptions
from toolchain.container.file_kind import file_kind
from toolchain.errors import UsageError
from toolchain.factory import is_factory, require_factory
from toolchain.io.atomic import new_part
from toolchain.io.places import require_own_place


def require_buildable(model: Any, out: Path, options: BuildOptions) -> None:
    """Refuses a build whose model does not exist or whose output cannot be written.

    Raises:
        UsageError: there is no such model, ``task`` does not fit it, or ``out`` cannot be written.
    """
    task = options.task
    if isinstance(model, (str, os.PathLike)):
        _check_model(str(model), task)
    elif task is not None:
        require_task_of_folder(type(model).__name__, task)
    if out.suffix != ".pt2":
        raise UsageError(
            f"the artifact {out.name!r} must end in .pt2", where="-o", remedy="torch.export.load requires it"
        )
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(
            "the output is a folder, or its folder does not exist", where=f"-o {out}", remedy="name a file to write"
        )
    if isinstance(model, (str, os.PathLike)):
        require_own_place(out, model, where="-o")
    _require_writable(out)


def _require_writable(out: Path) -> None:
    """Creates and removes a temporary file beside ``out``, to find any reason why it cannot be written now."""
    try:
        new_part(out).unlink()
    except OSError as error:
        raise UsageError(
            f"no file can be written there: {error.strerror}", where=f"-o {out}", remedy="name another place with -o"
        ) from error


def _check_model(model: str, task: str | None) -> None:
    require_task_of_folder(model, task)
    if Path(model).is_dir():
        open_folder(Path(model), task)
    elif Path(model).is_file():
        _check_kind(Path(model))
    elif is_factory(model):
        require_factory(model)
    else:
        raise UsageError(
            f"there is no model {model!r}",
            where="MODEL",
            remedy="give a .pt2 file that torch.export.save wrote, module:factory, ./file.py:factory or a model folder",
        )


def _check_kind(model: Path) -> None:
    if model.suffix == ".py":
        raise UsageError("this is a Python file", where=str(model), remedy=f"name a function in it: {model}:FACTORY")
    if kind := file_kind(model):
        raise UsageError(
            f"this is {kind.what}, not a program that torch.export.save wrote",
            where=str(model),
            remedy=kind.build_from,
        )
