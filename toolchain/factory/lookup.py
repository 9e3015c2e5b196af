"""Looks a factory up without importing it, so that a typo is reported at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import util
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from toolchain.factory.name import FactoryName
from toolchain.factory.refusals import no_file, no_function, no_module, require_module_name
from toolchain.factory.search_path import hidden, importing_from

# Words by which a module may bind names, or find submodules, that do not appear in its source.
_HIDDEN_NAMES = ("globals", "vars", "setattr", "exec", "__dict__", "__getattr__", "sys.modules", "import *")
_HIDDEN_MODULES = ("__path__", "sys.modules")


def require_factory(text: str, *, where: str = "MODEL") -> None:
    """Refuses a factory that certainly does not exist; one of which only an import can tell passes.

    Args:
        text: ``module:factory``, or ``FILE.py:factory``.
        where: the argument that gave the name, for errors.

    Raises:
        UsageError: there is no such file, module or function.
    """
    name = FactoryName.parse(text)
    require_module_name(name, where)
    if name.path is not None:
        if not name.path.is_file():
            raise no_file(name.path, name.function, where)
        source: Path | None = name.path
    else:
        source = _module(name.module, where)
    if source is None:
        return
    try:
        content = source.read_text(encoding="utf-8")
        names = set(_names(ast.parse(content)))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return  # the import reports what is wrong
    if name.function not in names and not any(word in content for word in _HIDDEN_NAMES):
        raise no_function(name, _functions(content), where)


def _module(dotted: str, where: str) -> Path | None:
    """Returns the file of a module's source; None if only an import can find it."""
    first, *rest = dotted.split(".")
    if hidden(Path.cwd(), first):
        return None  # hidden in this process only: the build process may not have imported the other module
    with importing_from(Path.cwd()):
        try:
            spec = util.find_spec(first)
        except (ImportError, ValueError, AttributeError):
            return None
    if spec is None:
        raise no_module(first, Path.cwd(), where)
    path = first
    for part in rest:
        path = f"{path}.{part}"
        places = spec.submodule_search_locations
        if places is None or any(word in _text(spec) for word in _HIDDEN_MODULES):
            return None
        inner = PathFinder.find_spec(path, list(places))
        if inner is None:
            raise no_module(path, Path.cwd(), where)
        spec = inner
    return Path(spec.origin) if spec.has_location and spec.origin and spec.origin.endswith(".py") else None


def _text(spec: ModuleSpec) -> str:
    try:
        return Path(spec.origin).read_text(encoding="utf-8") if spec.has_location and spec.origin else ""
    except (OSError, ValueError):
        return ""


def _names(tree: ast.AST) -> Iterator[str]:
    """Yields every name that the source might bind, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]


def _functions(content: str) -> list[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in ast.parse(content).body if isinstance(node, functions)]
