"""Reads signatures from sources or docstrings, and checks whether a call fits one."""

from __future__ import annotations

import ast
import inspect
import re
from inspect import Parameter, Signature

from .sources import Class, Function, MissingNameError, Native, Sources, decorators


def signature_of(sources: Sources, thing: Class | Function | Native) -> Signature | None:
    """Returns the signature of something that is called; None where it is not known."""
    if isinstance(thing, Native):
        return _native_signature(thing)
    if isinstance(thing, Function):
        return _without_first(_signature(thing.node.args)) if thing.bound else _signature(thing.node.args)
    if "dataclass" in decorators(thing.node):
        return Signature(_dataclass_fields(sources, thing))
    try:
        constructor = sources.attribute(thing, "__init__")
    except MissingNameError:
        return Signature()
    assert isinstance(constructor, Function)
    return _without_first(_signature(constructor.node.args))


def misfit(call: ast.Call, signature: Signature, body: ast.AST | None) -> str | None:
    """Returns why a call does not fit a signature, or None if it does.

    Args:
        body: the source of the function or class. It must name every keyword that only ``**kwargs`` accepts.
    """
    given = [keyword.arg for keyword in call.keywords if keyword.arg]
    starred = any(isinstance(a, ast.Starred) for a in call.args) or len(given) < len(call.keywords)
    positional = [argument for argument in call.args if not isinstance(argument, ast.Starred)]
    try:
        bind = signature.bind_partial if starred else signature.bind
        bound = bind(*positional, **dict.fromkeys(given))
    except TypeError as error:
        return str(error)
    swallowed: dict[str, object] = next((bound.arguments.get(p.name, {}) for p in _catch_all(signature)), {})
    named = {node.value for node in ast.walk(body) if isinstance(node, ast.Constant)} if body else set()
    return next((f"nothing reads the keyword {name!r}" for name in swallowed if body and name not in named), None)


def _catch_all(signature: Signature) -> list[Parameter]:
    return [p for p in signature.parameters.values() if p.kind is Parameter.VAR_KEYWORD]


def _signature(arguments: ast.arguments) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    parameters = [
        Parameter(
            argument.arg,
            Parameter.POSITIONAL_ONLY if index < len(arguments.posonlyargs) else Parameter.POSITIONAL_OR_KEYWORD,
            default=Parameter.empty if index < required else ...,
        )
        for index, argument in enumerate(positional)
    ]
    if arguments.vararg:
        parameters.append(Parameter(arguments.vararg.arg, Parameter.VAR_POSITIONAL))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters.append(
            Parameter(argument.arg, Parameter.KEYWORD_ONLY, default=Parameter.empty if default is None else ...)
        )
    if arguments.kwarg:
        parameters.append(Parameter(arguments.kwarg.arg, Parameter.VAR_KEYWORD))
    return Signature(parameters)


def _without_first(signature: Signature) -> Signature:
    return Signature(list(signature.parameters.values())[1:])


def _dataclass_fields(sources: Sources, cls: Class) -> list[Parameter]:
    fields = {p.name: p for base in sources.bases(cls) for p in _dataclass_fields(sources, base)}
    for node in cls.node.body:
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            name = ast.unparse(node.target)
            default = Parameter.empty if node.value is None else ...
            fields[name] = Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default)
    return list(fields.values())


def _native_signature(thing: Native) -> Signature | None:
    function = _docstring_function(thing)
    if function is None:
        return None
    signature = _signature(function.args)
    return _without_first(signature) if thing.bound else signature


def native_result(thing: Native, tensorrt: object) -> Native | None:
    """Returns the class of what a function of the bindings returns, if its docstring names it."""
    function = _docstring_function(thing)
    if function is None or function.returns is None:
        return None
    value = getattr(tensorrt, ast.unparse(function.returns).rpartition(".")[2], None)
    return Native(value) if isinstance(value, type) else None


def _docstring_function(thing: Native) -> ast.FunctionDef | None:
    """Parses the signature that pybind11 writes into the first line of a docstring."""
    if isinstance(thing.value, type):
        return None
    first = (inspect.getdoc(thing.value) or "").partition("\n")[0]
    try:
        module = ast.parse(f"def {re.sub('<[^<>]*>', '...', first)}: ...")
    except SyntaxError:  # an overloaded function: its first line shows no parameters that can be read
        return None
    function = module.body[0]
    return function if isinstance(function, ast.FunctionDef) else None
