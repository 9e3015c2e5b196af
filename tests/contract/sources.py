"""Resolves dotted names in the text of Python sources, without importing them.

Names that start with ``tensorrt`` refer to TensorRT's own bindings, which are a compiled module: those are real
objects, whose signatures are in their docstrings.
"""

from __future__ import annotations

import ast
import importlib.util
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Module:
    name: str


@dataclass(frozen=True)
class Function:
    module: str
    node: ast.FunctionDef
    bound: bool = False


@dataclass(frozen=True)
class Class:
    module: str
    node: ast.ClassDef


@dataclass(frozen=True)
class Instance:
    of: Class | Native


@dataclass(frozen=True)
class Native:
    """A real object of TensorRT's bindings."""

    value: Any
    bound: bool = False


Thing = Module | Function | Class | Instance | Native
UNKNOWN = None


class MissingNameError(Exception):
    """There is no such name."""


class Sources:
    """The modules of one wheel, and of the installed torch, from whose classes the wheel's derive."""

    def __init__(self, label: str, read: Callable[[str], str | None], tensorrt: Any = None) -> None:
        """
        Args:
            read: the text of a file by its path in the wheel, None where there is none.
            tensorrt: the module that ``import tensorrt`` stands for.
        """
        self.label = label
        self.read = read
        self._tensorrt = tensorrt
        self._tree = cache(self._parse)

    @classmethod
    def of_wheel(cls, wheel: Path, label: str, tensorrt: Any = None) -> Sources:
        archive = zipfile.ZipFile(wheel)
        names = frozenset(archive.namelist())
        return cls(label, lambda path: archive.read(path).decode("utf-8") if path in names else None, tensorrt)

    def edited(self, path: str, old: str, new: str) -> Sources:
        """Returns a copy in which a file's text is changed, as if upstream had changed it."""
        text = self.read(path) or ""
        assert old in text, f"{path} of {self.label} does not hold {old!r}"
        return Sources(
            f"{self.label}, edited",
            lambda other: text.replace(old, new) if other == path else self.read(other),
            self._tensorrt,
        )

    def module(self, name: str) -> ast.Module:
        """Returns a module's syntax tree.

        Raises:
            MissingNameError: there is no such module.
        """
        tree = self._tree(name)
        if tree is None:
            raise MissingNameError(f"{self.label} has no module {name}")
        return tree

    def resolve(self, dotted: str) -> Thing | None:
        """Returns what a full name refers to, such as ``torch_tensorrt.Device``."""
        first, *rest = dotted.split(".")
        thing: Thing | None = self.import_module(first)
        for name in rest:
            thing = self.attribute(thing, name)
        return thing

    def import_module(self, name: str) -> Thing | None:
        """Returns an imported module; UNKNOWN for those of third parties."""
        top = name.split(".")[0]
        if top == "tensorrt" and self._tensorrt is not None:
            return Native(self._tensorrt)
        if top not in ("torch_tensorrt", "torch"):
            return UNKNOWN
        self.module(name)
        return Module(name)

    def attribute(self, thing: Thing | None, name: str) -> Thing | None:
        """Returns what ``thing.name`` refers to; UNKNOWN if it exists and no more is known.

        Raises:
            MissingNameError: it does not exist.
        """
        if thing is UNKNOWN or isinstance(thing, Function):
            return UNKNOWN
        if isinstance(thing, Module):
            return self._in_module(thing.name, name)
        if isinstance(thing, Class):
            return self._member(thing, name, bound=False)
        if isinstance(thing, Native):
            return _native_attribute(thing.value, name, bound=False)
        if isinstance(thing.of, Native):
            return _native_attribute(thing.of.value, name, bound=True)
        return self._member(thing.of, name, bound=True)

    def bases(self, cls: Class) -> list[Class]:
        """Returns a class's bases, as far as they can be read."""
        bases = [self.value(cls.module, base) for base in cls.node.bases]
        return [base for base in bases if isinstance(base, Class)]

    def value(self, module: str, node: ast.expr) -> Thing | None:
        """Returns what an expression at a module's top level refers to."""
        try:
            if isinstance(node, ast.Name):
                return self._in_module(module, node.id)
            if isinstance(node, ast.Attribute):
                return self.attribute(self.value(module, node.value), node.attr)
            if isinstance(node, ast.Call):
                return instance(self.value(module, node.func))
        except MissingNameError:  # a builtin, or somebody else's
            pass
        return UNKNOWN

    def _parse(self, name: str) -> ast.Module | None:
        path = name.replace(".", "/")
        for candidate in (f"{path}.py", f"{path}/__init__.py"):
            text = _installed_torch(candidate) if name.split(".")[0] == "torch" else self.read(candidate)
            if text is not None:
                return ast.parse(text)
        return None

    def _in_module(self, module: str, name: str) -> Thing | None:
        for statement in statements(self.module(module).body):
            if isinstance(statement, (ast.FunctionDef, ast.ClassDef)) and statement.name == name:
                kind = Function if isinstance(statement, ast.FunctionDef) else Class
                return kind(module, statement)
            if isinstance(statement, (ast.Assign, ast.AnnAssign)) and name in _targets(statement):
                return self.value(module, statement.value) if statement.value else UNKNOWN
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                for alias in statement.names:
                    if (alias.asname or alias.name) == name:
                        return self._imported(module, statement, alias)
        return self._star_imported(module, name)

    def _imported(self, module: str, statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> Thing | None:
        if isinstance(statement, ast.Import):
            return self.import_module(alias.name if alias.asname else alias.name.split(".")[0])
        source = self._absolute(module, statement)
        if source == module:  # a package that imports its own submodule
            return self._submodule(module, alias.name)
        return self.attribute(self.import_module(source), alias.name)

    def _star_imported(self, module: str, name: str) -> Thing | None:
        for statement in statements(self.module(module).body):
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                try:
                    return self.attribute(self.import_module(self._absolute(module, statement)), name)
                except MissingNameError:
                    continue
        return self._submodule(module, name)

    def _submodule(self, module: str, name: str) -> Module:
        if self._tree(f"{module}.{name}") is None:
            raise MissingNameError(f"{module} has no {name!r}")
        return Module(f"{module}.{name}")

    def _absolute(self, module: str, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        package = module if self._is_package(module) else module.rpartition(".")[0]
        parts = package.split(".")[: len(package.split(".")) - statement.level + 1]
        return ".".join([*parts, statement.module] if statement.module else parts)

    def _is_package(self, module: str) -> bool:
        path = module.replace(".", "/") + "/__init__.py"
        return (_installed_torch(path) if path.startswith("torch/") else self.read(path)) is not None

    def _member(self, cls: Class, name: str, *, bound: bool) -> Thing | None:
        for statement in cls.node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == name:
                return _method(cls.module, statement, bound)
            if isinstance(statement, ast.AnnAssign) and name in _targets(statement):
                return instance(self.value(cls.module, statement.annotation))
            if isinstance(statement, ast.Assign) and name in _targets(statement):
                return UNKNOWN
        for assignment in _self_assignments(cls.node):
            if name in _targets(assignment):
                return self.value(cls.module, assignment.value) if assignment.value else UNKNOWN
        for base in self.bases(cls):
            try:
                return self._member(base, name, bound=bound)
            except MissingNameError:
                continue
        raise MissingNameError(f"class {cls.module}.{cls.node.name} has no {name!r}")


def instance(thing: Thing | None) -> Instance | None:
    """Returns the instance that calling a class gives."""
    return Instance(thing) if isinstance(thing, Class) or _is_native_class(thing) else UNKNOWN


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields a module's statements, and those within its ``if``, ``try`` and ``with``."""
    for statement in body:
        yield statement
        if isinstance(statement, (ast.If, ast.Try, ast.With)):
            yield from statements(statement.body)
            yield from statements(getattr(statement, "orelse", []))
        for handler in getattr(statement, "handlers", []):
            yield from statements(handler.body)


def decorators(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """Returns the last part of the name of each decorator of a definition."""
    calls = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return {ast.unparse(call).rpartition(".")[2] for call in calls}


def _method(module: str, node: ast.FunctionDef, bound: bool) -> Function | None:
    kinds = decorators(node)
    if "property" in kinds:
        return UNKNOWN
    return Function(module, node, bound="staticmethod" not in kinds and (bound or "classmethod" in kinds))


def _self_assignments(cls: ast.ClassDef) -> Iterator[ast.Assign | ast.AnnAssign]:
    for node in ast.walk(cls):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and any(t.startswith("self.") for t in _written(node)):
            yield node


def _written(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [ast.unparse(target) for target in targets]


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    return [target.removeprefix("self.") for target in _written(node)]


def _is_native_class(thing: Thing | None) -> bool:
    return isinstance(thing, Native) and isinstance(thing.value, type)


def _native_attribute(owner: Any, name: str, *, bound: bool) -> Thing | None:
    if not hasattr(owner, name):
        raise MissingNameError(f"TensorRT's {getattr(owner, '__name__', owner)} has no {name!r}")
    value = getattr(owner, name)
    if bound and not callable(value):
        return UNKNOWN  # a property, whose type its docstring does not tell
    return Native(value, bound)


@cache
def _installed_torch(path: str) -> str | None:
    origin = importlib.util.find_spec("torch")
    file = Path(origin.origin).parents[1] / path if origin and origin.origin else None
    return file.read_text("utf-8") if file and file.is_file() else None
