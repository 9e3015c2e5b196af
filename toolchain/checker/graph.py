"""Finds what is more than data in a graph's text: operators, sizes and signatures that would run or import code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from toolchain.checker.expressions import is_plain_expression
from toolchain.errors import MalformedArtifactError
from toolchain.graph.document import dicts
from toolchain.graph.facts import Claims
from toolchain.io.strict_json import load_json
from toolchain.limits import TREESPEC

# The names of operators. torch's reader accepts any attribute of `torch` that can be called, `torch.os.system` too.
_OPERATOR = re.compile(
    r"torch\.ops\.(?!load_library\b|import_module\b|loaded_libraries\b|higher_order\b)[a-z_][A-Za-z0-9_]*"
    r"\.(?!from_file\b)(?:(?!__)[A-Za-z_][A-Za-z0-9_]*|__i?(?:and|or|xor|lshift|rshift)__)\.[A-Za-z][A-Za-z0-9_]*"
    r"|torch\.ops\.higher_order\.(?:cond|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|lshift|rshift)"
    r"|math\.(?:ceil|floor|trunc|sqrt)"
    r"|torch\._?sym_[a-z]+"
)

_TYPE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")

_FACTORIES = {"builtins.list", "builtins.dict", "builtins.int", "builtins.float", "builtins.set"}


def is_plain_treespec(text: str) -> bool:
    """Whether a treespec's text makes the reader import no module, as an enum or a defaultdict would."""
    try:
        document = load_json(text.encode(), where="treespec", limit=TREESPEC)
    except (MalformedArtifactError, UnicodeEncodeError):
        return False
    for value in dicts(document):
        context = value.get("context")
        # A named tuple's context is a name that the reader looks up among registered ones: nothing is imported for it.
        if value.get("type") == "collections.namedtuple" and _is_registered_name(context):
            continue
        if isinstance(context, str) and not _is_plain_context(context):
            return False
        if "__enum__" in value or not _is_plain_factory(value):
            return False
    return True


def classes_in(text: str) -> list[str]:
    """Returns the types that a treespec's text names, including those of named tuples."""
    document = load_json(text.encode(), where="treespec", limit=TREESPEC)
    nodes = [value for value in dicts(document) if value.get("type") is not None]
    return [str(node.get("context") if node["type"] == "collections.namedtuple" else node["type"]) for node in nodes]


def _is_registered_name(context: Any) -> bool:
    return isinstance(context, str) and bool(_TYPE_NAME.fullmatch(context)) and not context.startswith("builtins.")


def _is_plain_context(text: str) -> bool:
    try:
        context = load_json(text.encode(), where="treespec", limit=TREESPEC)
    except (MalformedArtifactError, UnicodeEncodeError):
        return False
    return all("__enum__" not in value and _is_plain_factory(value) for value in dicts(context))


def _is_plain_factory(value: dict[str, Any]) -> bool:
    if "default_factory_module" not in value:
        return True
    return f"{value['default_factory_module']}.{value.get('default_factory_name')}" in _FACTORIES


def is_plain_operator(name: str) -> bool:
    """Whether a node's target is an operator, other than those that load or run something."""
    return bool(_OPERATOR.fullmatch(name))


def graph_problems(claims: Claims) -> Iterator[str]:
    """Yields what is more than data in a graph. A builder checks this too: it must write nothing that is refused."""
    if claims.guarded:
        yield "its graph holds Python code (guards_code)"
    for operator in sorted(claims.operators):
        if not is_plain_operator(operator):
            yield f"a node calls {operator[:80]!r}, which is not an operator"
    for expression in sorted(claims.expressions):
        if not is_plain_expression(expression):
            yield f"a size is not a plain expression: {expression[:80]!r}"
    if not all(map(is_plain_treespec, sorted(claims.treespecs))):
        yield "a call signature names code to import"
    if claims.unnamable is not None:
        yield f"it names a value {claims.unnamable[:80]!r}, which torch would write into Python code"
    if claims.annotated:
        yield "a node has metadata, which names code of torch"
