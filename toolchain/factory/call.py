"""Imports a factory and calls it; an error in the user's code is reported with the line of that code."""

from __future__ import annotations

import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

from toolchain.errors import BuildFailedError, TrtcrossError, UsageError
from toolchain.factory.name import FactoryName
from toolchain.factory.refusals import no_file, no_function, no_module, require_module_name
from toolchain.factory.search_path import hidden, hiding, importing_from, is_free, is_imported
from toolchain.text import first_line

_CORRECT_IT = "run it in a Python of your own and correct it"


def call_factory(name: str, *, where: str = "MODEL") -> Any:
    """Calls a factory and returns its result; imports are found beside its file, or in the current folder.

    Args:
        name: ``module:factory``, or ``FILE.py:factory``.
        where: the argument that gave the name, for errors.

    Raises:
        UsageError: there is no such file, module or function, or it needs arguments.
        BuildFailedError: the module cannot be imported, or the factory raises.
    """
    parts = FactoryName.parse(name)
    require_module_name(parts, where)
    path = _file(parts.path, parts.function, where) if parts.path else None
    folder = path.parent if path else Path.cwd()
    with importing_from(folder):
        module = _run(lambda: _imported(parts.module, path), f"importing {parts.module}", name, folder, where)
        factory = _function(module, parts, folder, where)
        return _run(factory, "the factory", name, folder, where)


def _file(path: Path, function: str, where: str) -> Path:
    if path.is_file():
        return path.absolute()
    raise no_file(path, function, where)


def _imported(name: str, path: Path | None) -> ModuleType:
    if path is None:
        return importlib.import_module(name)
    if is_imported(path):
        return sys.modules[path.stem]
    # A different name where the file's own is taken: a torch.py of the user must not become our torch.
    name = path.stem if is_free(path.stem, path.parent) else f"{path.stem}_of_the_user"
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is not a Python file", name=name)
    module = util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does: a dataclass looks its module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _function(module: ModuleType, parts: FactoryName, folder: Path, where: str) -> Callable[[], Any]:
    factory = getattr(module, parts.function, None)
    if not callable(factory):
        raise _no_function(module, parts, folder, where)
    try:
        inspect.signature(factory).bind()
    except TypeError:
        raise UsageError(
            f"the factory needs arguments: {parts.function}{inspect.signature(factory)}",
            where=where,
            remedy="give them defaults, or name a function without arguments that calls it",
        ) from None
    except ValueError:  # a function of C, without a signature
        pass
    return factory  # type: ignore[no-any-return]


def _no_function(module: ModuleType, parts: FactoryName, folder: Path, where: str) -> UsageError:
    own = hidden(folder, parts.module) if parts.path is None else None
    if own:
        return _is_hidden(own, module, parts, where)
    if hasattr(module, parts.function):
        return UsageError(
            f"{parts.function!r} of {parts.module} is not callable", where=where, remedy="name a function"
        )
    return no_function(parts, [name for name, value in vars(module).items() if inspect.isfunction(value)], where)


def _is_hidden(own: Path, module: ModuleType, parts: FactoryName, where: str) -> UsageError:
    return UsageError(
        f"{parts.module} is not {own}: {getattr(module, '__file__', None) or 'Python itself'} has that name already",
        where=where,
        remedy=f"rename it, or give the file: ./{own.name}:{parts.function}" if own.suffix else "rename the folder",
    )


def _run(code: Callable[[], Any], what: str, name: str, folder: Path, where: str) -> Any:
    """Runs the user's code and turns its exceptions into our errors, with the line that raised them."""
    try:
        return code()
    except TrtcrossError:
        raise
    except ModuleNotFoundError as error:
        raise _not_found(error, what, name, folder, where) from error
    except SystemExit as error:
        raise _failed(f"{what} ended the process: SystemExit({error.code!r})", error, name, folder) from error
    except Exception as error:
        raise _failed(f"{what} raised {type(error).__name__}: {first_line(error)}", error, name, folder) from error


def _not_found(error: ModuleNotFoundError, what: str, name: str, folder: Path, where: str) -> TrtcrossError:
    parts, missing = FactoryName.parse(name), error.name or ""
    if parts.path is None and f"{parts.module}.".startswith(f"{missing}."):
        if own := hidden(folder, parts.module):
            return _is_hidden(own, sys.modules[own.stem], parts, where)
        return no_module(missing, folder, where)
    failed = _failed(f"{what}: there is no module {missing!r}", error, name, folder)
    failed.remedy = f"install {missing.partition('.')[0]} in this environment ({sys.prefix})"
    return failed


def _failed(problem: str, error: BaseException, name: str, folder: Path) -> BuildFailedError:
    line, remedy = _line(error), _CORRECT_IT
    if isinstance(error, ImportError) and "no known parent package" in str(error):
        remedy = f"name it as a module, from the folder above its package: {folder.name}.{Path(name).stem}:..."
    if files := ", ".join(path.name for path in hiding(folder)):
        problem += f" ({files} in {folder} hides what is installed under the same name)"
        remedy = f"rename {files}"
    return BuildFailedError(problem, where=f"{name}, {line}" if line else name, remedy=remedy)


def _line(error: BaseException) -> str | None:
    """Returns the innermost line of the user's own code, as ``file:line``; None if there is none."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    installed = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    own = {str(Path(__file__).parent), *installed}
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and not any(frame.filename.startswith(folder) for folder in own)
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
