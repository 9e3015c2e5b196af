"""Finds every use of a name of Torch-TensorRT or TensorRT in our code, and compares it with their sources."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .signatures import misfit, native_result, signature_of
from .sources import (
    UNKNOWN,
    Class,
    Function,
    Instance,
    MissingNameError,
    Module,
    Native,
    Sources,
    Thing,
    instance,
)

# What variables of type Any hold, by their name or by function and name.
VARIABLES = {
    "interpreter": "torch_tensorrt.dynamo.conversion._TRTInterpreter.TRTInterpreter",
    "settings": "torch_tensorrt.dynamo._settings.CompilationSettings",
    "config": "tensorrt.IBuilderConfig",
    "network": "tensorrt.INetworkDefinition",
    "engine_of_upstream_module.module": "torch_tensorrt.dynamo.runtime._TorchTensorRTModule.TorchTensorRTModule",
    "_binding.tensor": "tensorrt.ITensor",
    "_profile_facts.spec": "torch_tensorrt.Input",
}


@dataclass(frozen=True)
class Use:
    """One use of a foreign name.

    Attributes:
        place: the file and the line.
        text: the source text of the use.
        owner: the package of the name, ``tensorrt`` or ``torch_tensorrt``.
        problem: why the use would fail; None if it fits.
    """

    place: str
    text: str
    owner: str
    problem: str | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.text}: {self.problem or 'fits'}"


@dataclass
class _Scope:
    function: str = ""
    things: dict[str, Thing | None] = field(default_factory=dict)
    own_methods: frozenset[str] = frozenset()


def uses_in(path: Path, sources: Sources, name: str | None = None) -> list[Use]:
    """Returns the uses in a file of ours."""
    checker = _Checker(name or path.name, sources)
    checker.visit(ast.parse(path.read_text("utf-8")))
    return checker.uses


def misfits(uses: Iterable[Use]) -> list[str]:
    return [str(use) for use in uses if use.problem]


class _Checker(ast.NodeVisitor):
    """Follows foreign objects through our code; visiting an expression returns what it refers to, or UNKNOWN."""

    def __init__(self, file: str, sources: Sources) -> None:
        self.uses: list[Use] = []
        self._file = file
        self._sources = sources
        self._scopes = [_Scope()]

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._bind(alias.asname or alias.name.split(".")[0], self._resolve(node, alias.name))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._bind(alias.asname or alias.name, self._resolve(node, f"{node.module}.{alias.name}"))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = self._scopes[-1]
        things = dict(outer.things)
        things.update((argument.arg, UNKNOWN) for argument in ast.walk(node.args) if isinstance(argument, ast.arg))
        if "self" in things:
            things["self"] = outer.things.get("self")
        self._scopes.append(_Scope(node.name, things, outer.own_methods))
        self.generic_visit(node)
        self._scopes.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        base = next((thing for thing in map(self.visit, node.bases) if isinstance(thing, Class)), UNKNOWN)
        methods = {s.name: s for s in node.body if isinstance(s, ast.FunctionDef)}
        things = {**self._scopes[-1].things, "self": instance(base), "super": UNKNOWN}
        self._scopes.append(_Scope(node.name, things, frozenset(methods)))
        if isinstance(base, Class):
            self._check_overrides(node.name, base, methods)
        for statement in node.body:
            self.visit(statement)
        self._scopes.pop()
        self._bind(node.name, base)  # called like its base: ours adds no constructor

    def visit_Assign(self, node: ast.Assign) -> None:
        thing = self.visit(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._bind(target.id, thing)
            else:
                self.visit(target)

    def visit_Name(self, node: ast.Name) -> Thing | None:
        scope = self._scopes[-1]
        thing = scope.things.get(node.id)
        known = VARIABLES.get(f"{scope.function}.{node.id}") or VARIABLES.get(node.id)
        return instance(self._sources.resolve(known)) if thing is UNKNOWN and known else thing

    def visit_Attribute(self, node: ast.Attribute) -> Thing | None:
        owner = self.visit(node.value)
        if owner is UNKNOWN or (_is_self(node.value) and node.attr in self._scopes[-1].own_methods):
            return UNKNOWN
        try:
            thing = self._sources.attribute(owner, node.attr)
        except MissingNameError as error:
            self._record(node, owner, str(error))
            return UNKNOWN
        self._record(node, owner, None)
        return thing

    def visit_Call(self, node: ast.Call) -> Thing | None:
        if isinstance(node.func, ast.Name) and node.func.id == "super":
            return self._scopes[-1].things.get("self")
        thing = self.visit(node.func)
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
            self.visit(argument)
        if not isinstance(thing, (Class, Function, Native)):
            return UNKNOWN
        self._check_call(node, thing)
        if isinstance(thing, Native):
            result = native_result(thing, getattr(self._sources.import_module("tensorrt"), "value", None))
            return instance(thing) or instance(result)
        return instance(thing)

    def _check_call(self, node: ast.Call, thing: Class | Function | Native) -> None:
        signature = signature_of(self._sources, thing)
        problem = misfit(node, signature, _body(self._sources, thing)) if signature else None
        if problem:
            problem = f"{problem}; upstream's signature is {ast.unparse(node.func)}{signature}".replace(
                "=Ellipsis", "=..."
            )
        self._record(node, thing, problem)

    def _check_overrides(self, name: str, base: Class, methods: dict[str, ast.FunctionDef]) -> None:
        """Checks that an overridden method has upstream's parameters, and that a new one hides none of upstream's."""
        for method, node in methods.items():
            try:
                theirs = self._sources.attribute(base, method)
            except MissingNameError:
                theirs = UNKNOWN
            if not isinstance(theirs, Function):
                problem = None if method.startswith("_") else f"{base.module}.{base.node.name} calls no such method"
            else:
                ours, upstream = ([a.arg for a in f.args.args] for f in (node, theirs.node))
                problem = None if ours == upstream else f"upstream's parameters are {', '.join(upstream)}"
            self.uses.append(Use(f"{self._file}:{node.lineno}", f"def {name}.{method}", "torch_tensorrt", problem))

    def _resolve(self, node: ast.AST, dotted: str) -> Thing | None:
        if dotted.split(".")[0] not in ("torch_tensorrt", "tensorrt"):
            return UNKNOWN
        thing, problem = UNKNOWN, None
        try:
            thing = self._sources.resolve(dotted)
        except MissingNameError as error:
            problem = str(error)
        owner = dotted.split(".")[0]
        self.uses.append(Use(f"{self._file}:{node.lineno}", f"import {dotted}", owner, problem))
        return thing

    def _bind(self, name: str, thing: Thing | None) -> None:
        self._scopes[-1].things[name] = thing

    def _record(self, node: ast.expr, owner: Thing, problem: str | None) -> None:
        use = Use(f"{self._file}:{node.lineno}", ast.unparse(node), _owner_name(owner), problem)
        self.uses.append(use)


def _body(sources: Sources, thing: Thing) -> ast.AST | None:
    if isinstance(thing, Class):
        try:
            thing = sources.attribute(thing, "__init__") or thing
        except MissingNameError:
            return None
    return thing.node if isinstance(thing, Function) else None


def _owner_name(thing: Thing) -> str:
    if isinstance(thing, Instance):
        return _owner_name(thing.of)
    if isinstance(thing, Native):
        return "tensorrt"
    return (thing.name if isinstance(thing, Module) else thing.module).split(".")[0]


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"
