"""Makes a picture of an artifact's graph: inputs, engines, parts in PyTorch, outputs, and the tensors between them."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolchain.artifact import Artifact
from toolchain.errors import MalformedArtifactError
from toolchain.graph.document import is_placeholder, nodes, read_placeholder
from toolchain.graph.torch_free import ARITHMETIC, SIZE
from toolchain.graph.values import SCALAR_TYPES
from toolchain.limits import EXPRESSION
from toolchain.manifest.describe import value_text
from toolchain.manifest.models import EngineEntry, Manifest, ValueSpec
from toolchain.report.page import Box, Edge, Graph
from toolchain.text import size_text

BOX_LIMIT = 60
_LINES = 8
_INPUTS, _OUTPUTS = "inputs", "outputs"
_SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)")
_INFIX = {"Add": " + ", "Mul": "*", "FloorDiv": "//", "CleanDiv": "//", "Mod": " % ", "PythonMod": " % ", "Pow": "**"}


@dataclass
class _Part:
    """An engine, or everything that PyTorch computes between two levels of engines.

    Attributes:
        key: its name among the parts.
        level: the number of engines on the longest path to it.
        engine: the engine's index; None for PyTorch.
        operators: PyTorch's operators, counted.
    """

    key: str
    level: int
    engine: int | None = None
    operators: Counter[str] = field(default_factory=Counter)


class _Parts:
    """A graph's nodes, grouped into engines and the parts that PyTorch runs before, between and behind them."""

    def __init__(self, document: Mapping[str, Any], where: str) -> None:
        self.parts: dict[str, _Part] = {}
        self.edges: dict[tuple[str, str], dict[str, None]] = {}
        self._made_by: dict[str, str] = {}
        self._level: dict[str, int] = {}
        self._nodes = [node for node in nodes(dict(document)) if not _is_size(node)]
        self._first_use = self._levels(where)
        for name in _names_of_users(document, "input_specs", "user_input"):
            self._made_by[name] = _INPUTS
        engines = 0
        for index, node in enumerate(self._nodes):
            part = self._part(index, node, engines)
            engines += part.engine is not None
            self._connect(part.key, _names(node.get("inputs")))
            self._made_by.update(dict.fromkeys(_names(node.get("outputs")), part.key))
        self._connect(_OUTPUTS, _names_of_users(document, "output_specs", "user_output"))

    def _levels(self, where: str) -> dict[int, int]:
        """Returns the level of each node: the number of engines on the longest path to it."""
        made: dict[str, int] = {}
        levels: dict[int, int] = {}
        for index, node in enumerate(self._nodes):
            level = max((made[name] for name in _names(node.get("inputs")) if name in made), default=0)
            if is_placeholder(node):
                read_placeholder(node, where)
            levels[index] = level
            made.update(dict.fromkeys(_names(node.get("outputs")), level + is_placeholder(node)))
        # A node without inputs, such as an arange, gets the level of its first use.
        used: dict[str, int] = {}
        for index in reversed(range(len(self._nodes))):
            node = self._nodes[index]
            inputs = list(_names(node.get("inputs")))
            if not is_placeholder(node) and not any(name in made for name in inputs):
                levels[index] = min((used[n] for n in _names(node.get("outputs")) if n in used), default=levels[index])
            for name in inputs:
                used[name] = min(used.get(name, levels[index]), levels[index])
        return levels

    def _part(self, index: int, node: Mapping[str, Any], engines: int) -> _Part:
        level = self._first_use[index]
        if is_placeholder(dict(node)):
            part = _Part(f"engine {engines}", level, engines)
            self.parts[part.key] = part
            return part
        part = self.parts.setdefault(f"torch {level}", _Part(f"torch {level}", level))
        part.operators[str(node.get("target")).removeprefix("torch.ops.")] += 1
        return part

    def _connect(self, target: str, names: Iterator[str] | Sequence[str]) -> None:
        for name in names:
            source = self._made_by.get(name)
            if source is not None and source != target:
                self.edges.setdefault((source, target), {})[name] = None

    def ordered(self) -> list[_Part]:
        """Returns the parts so that sources precede targets: PyTorch's part of a level, then its engines."""
        return sorted(self.parts.values(), key=lambda part: (part.level, part.engine is not None, part.engine or 0))


def graph_picture(artifact: Artifact, sizes: Sequence[str]) -> Graph:
    """Makes a picture of an artifact's graph.

    Args:
        artifact: the artifact.
        sizes: the conditions on sizes beyond their ranges, in words.

    Raises:
        MalformedArtifactError: the graph is not as torch.export writes one, or has more than :data:`BOX_LIMIT` parts.
    """
    where = str(artifact.path)
    try:
        return _picture(artifact.graph(), artifact.manifest, sizes, where)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise MalformedArtifactError("the graph cannot be read, so it is not drawn", where=where) from error


def _picture(document: Mapping[str, Any], manifest: Manifest, sizes: Sequence[str], where: str) -> Graph:
    parts = _Parts(document, where)
    ordered = parts.ordered()
    if len(ordered) > BOX_LIMIT:
        raise MalformedArtifactError(
            f"the graph has {len(ordered)} parts, and at most {BOX_LIMIT} are drawn", where=where, remedy=None
        )
    tensors = document["graph_module"]["graph"]["tensor_values"]
    edges = [
        Edge(source, target, _tensors(tensors, list(names), named=source == _INPUTS))
        for (source, target), names in parts.edges.items()
    ]
    boxes = [
        Box(_INPUTS, "ends", "Inputs", [*_values(manifest.inputs), *(f"checked: {line}" for line in sizes)]),
        *(_box(part, manifest) for part in ordered),
        Box(_OUTPUTS, "ends", "Outputs", _values(manifest.outputs)),
    ]
    return Graph("From inputs to outputs", boxes, edges, _summary(manifest, ordered))


def _summary(manifest: Manifest, parts: Sequence[_Part]) -> str:
    count = sum(part.engine is not None for part in parts)
    engines = f"{count} TensorRT engine{'' if count == 1 else 's'} (solid)"
    left = sum(operators.count for operators in manifest.fallback)
    stays = f"{left} operator{'' if left == 1 else 's'} that stay in PyTorch (dashed)" if left else "nothing in PyTorch"
    return f"{engines}, {stays}; beside each line the dtype and the sizes of its tensors."


def _box(part: _Part, manifest: Manifest) -> Box:
    if part.engine is not None:
        return _engine_box(part.key, manifest.engines[part.engine])
    count = sum(part.operators.values())
    title = f"PyTorch: {count} operator{'' if count == 1 else 's'}"
    lines = [name if number == 1 else f"{name}  \u00d7{number}" for name, number in part.operators.most_common()]
    return Box(part.key, "torch", title, _cut(lines))


def _engine_box(key: str, engine: EngineEntry) -> Box:
    lines = [size_text(engine.size), f"{len(engine.inputs)} in, {len(engine.outputs)} out"]
    if len(engine.profiles) > 1:
        lines.append(f"{len(engine.profiles)} optimization profiles")
    if engine.aliased_io:
        lines.append(f"{len(engine.aliased_io)} output(s) written in place of inputs")
    return Box(key, "engine", engine.name, lines)


def _cut(lines: Sequence[str]) -> list[str]:
    left = len(lines) - _LINES
    return [*lines] if left <= 0 else [*lines[:_LINES], f"and {left} more"]


def _values(values: Sequence[ValueSpec]) -> list[str]:
    return _cut([value_text(value) for value in values])


def _tensors(tensors: Mapping[str, Any], names: Sequence[str], *, named: bool) -> list[str]:
    """Returns a line for each tensor; the picture only counts those behind the first few, so their lines are empty."""
    return [_tensor(tensors, name, named=named) if index < _LINES else "" for index, name in enumerate(names)]


def _tensor(tensors: Mapping[str, Any], name: str, *, named: bool) -> str:
    tensor = tensors.get(name)
    if tensor is None:
        return f"{name}, a number"
    before = f"{name}  " if named else ""
    return f"{before}{SCALAR_TYPES.get(tensor['dtype'], '?')} [{', '.join(map(_size, tensor['sizes']))}]"


def _size(size: Mapping[str, Any]) -> str:
    if "as_int" in size:
        return str(size["as_int"])
    text = str(size["as_expr"]["expr_str"])
    if EXPRESSION.excess(len(text)):
        return "\u2026"
    text = _SYMBOL.sub(r"\1", text)
    try:
        return _infix(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "\u2026"


def _infix(node: ast.expr, inner: bool = False) -> str:
    """Writes an expression of sympy as people do: ``Add(s0, Integer(1))`` becomes ``s0 + 1``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "Integer" and len(node.args) == 1:
            return _infix(node.args[0])
        if node.func.id in _INFIX:
            text = _INFIX[node.func.id].join(_infix(argument, inner=True) for argument in node.args)
            return f"({text})" if inner else text
    return ast.unparse(node)


def _is_size(node: Mapping[str, Any]) -> bool:
    return node.get("target") == SIZE or node.get("target") in ARITHMETIC


def _names(value: Any) -> Iterator[str]:
    """Yields the names of all values in a node's arguments or results, at any depth."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in ("name", "as_name") and isinstance(item, str) and "arg" not in value:
                yield item
            else:
                yield from _names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _names(item)


def _names_of_users(document: Mapping[str, Any], specs: str, kind: str) -> list[str]:
    found = document["graph_module"]["signature"][specs]
    return [name for spec in found if kind in spec for name in _names(spec[kind]["arg"])]
