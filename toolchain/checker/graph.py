"""What in a graph's text is more than data: operators, sizes and call signatures that would run or import code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from toolchain.checker.expressions import is_plain_expression
from toolchain.errors import MalformedArtifactError
from toolchain.graph.document import dicts
from toolchain.io.strict_json import load_json

# Operators as torch's reader finds them: it takes any attribute of `torch` that can be called, `torch.os.system` too.
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
    """Whether a treespec's text names no module to import, as enums and defaultdicts do."""
    try:
        document = load_json(text.encode(), where="treespec", size_limit=2**20, value_limit=100_000)
    except (MalformedArtifactError, UnicodeEncodeError):
        return False
    for value in dicts(document):
        context = value.get("context")
        # A named tuple's context is a name that the reader has registered, or has not: nothing is imported for it.
        if value.get("type") == "collections.namedtuple" and _is_registered_name(context):
            continue
        if isinstance(context, str) and not _is_plain_context(context):
            return False
        if "__enum__" in value or not _is_plain_factory(value):
            return False
    return True


def _is_registered_name(context: Any) -> bool:
    return isinstance(context, str) and bool(_TYPE_NAME.fullmatch(context)) and not context.startswith("builtins.")


def _is_plain_context(text: str) -> bool:
    try:
        context = load_json(text.encode(), where="treespec", size_limit=2**20, value_limit=100_000)
    except (MalformedArtifactError, UnicodeEncodeError):
        return False
    return all("__enum__" not in value and _is_plain_factory(value) for value in dicts(context))


def _is_plain_factory(value: dict[str, Any]) -> bool:
    if "default_factory_module" not in value:
        return True
    return f"{value['default_factory_module']}.{value.get('default_factory_name')}" in _FACTORIES


def graph_problems(graph: dict[str, Any]) -> Iterator[str]:
    """What in a parsed graph is more than data; a builder asks too, so that it writes nothing that is refused later."""
    if graph.get("guards_code"):
        yield "its graph holds Python code (guards_code)"
    for value in dicts(graph):
        for key, member in value.items():
            if key == "target" and not (isinstance(member, str) and _OPERATOR.fullmatch(member)):
                yield f"a node calls {str(member)[:80]!r}, which is no operator"
            elif key == "expr_str" and not is_plain_expression(str(member)):
                yield f"a size is not a plain expression: {str(member)[:80]!r}"
            elif key in ("in_spec", "out_spec") and not is_plain_treespec(str(member)):
                yield "a call signature names code to import"
            elif key == "metadata" and member and "target" in value:
                yield "a node has metadata, which names code of torch"
