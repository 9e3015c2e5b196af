"""Names the bindings of engines: in a whole artifact, each value has one name and no two values share one.

TensorRT and the loaders would accept the same names in every engine. But a runtime that has engines as nodes of a
graph, such as onnxruntime, identifies each value by its name, under which the engines that produce and consume it bind
it.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from linux_side import upstream
from linux_side.fx.values import flat_outputs
from linux_side.lowering.parts import call_of, engine_parts
from toolchain.graph.views import KINDS, NEW_SHAPES

# A value of the partitioned graph: the node that produces it, and its index among that node's outputs.
_Value = tuple[torch.fx.Node, int]


@dataclass(frozen=True)
class BindingNames:
    """The names of one engine's bindings.

    Attributes:
        inputs: the names of the inputs.
        outputs: as many names as the engine may need. Outputs that share an input's memory come after the graph's.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def name_bindings(partitioned: torch.fx.GraphModule) -> dict[str, BindingNames]:
    """Names the bindings of every engine of a graph.

    The first engine has Torch-TensorRT's own names. A later engine has the existing name for each input that was named
    before, and the engine's number as the prefix of its outputs.

    Returns:
        The names of each engine, by the name of its part.
    """
    taken: set[str] = set()
    known: dict[_Value, str] = {}
    return {
        name: _names(index, call_of(partitioned, name), partition, taken, known)
        for index, (name, partition) in enumerate(engine_parts(partitioned))
    }


def _names(
    index: int, call: torch.fx.Node, partition: torch.fx.GraphModule, taken: set[str], known: dict[_Value, str]
) -> BindingNames:
    def fresh(name: str) -> str:
        while name in taken:
            name = f"engine{index}_{name}"
        taken.add(name)
        return name

    inputs: list[str] = []
    placeholders = partition.graph.find_nodes(op="placeholder")
    for placeholder, argument in zip(placeholders, call.args, strict=True):
        value = _value(argument)
        name = known.get(value) if value else None
        if name is None or name in inputs:
            name = fresh(str(placeholder.target))
        if value:
            known.setdefault(value, name)
        inputs.append(name)
    of_graph = len(flat_outputs(partition))
    prefix = f"engine{index}_" if index else ""
    outputs = [fresh(f"{prefix}output{number}") for number in range(of_graph + len(inputs))]
    known.update({(call, number): outputs[number] for number in range(of_graph)})
    return BindingNames(tuple(inputs), tuple(outputs))


def _value(argument: Any) -> _Value | None:
    """Returns the value behind an engine's argument, which for a view that changes nothing is its source.

    None for a number.
    """
    if not isinstance(argument, torch.fx.Node):
        return None
    if argument.target is operator.getitem:
        return _source(argument.args[0], argument.args[1])
    return _source(argument, 0)


def _source(node: torch.fx.Node, index: int) -> _Value | None:
    if _changes_nothing(node):
        return _value(node.args[0])
    if node.op != "call_module" or node.target.startswith(upstream.ENGINE_PREFIX):
        return node, index
    part = node.graph.owning_module.get_submodule(str(node.target))
    inner = flat_outputs(part)[index]
    while isinstance(inner, torch.fx.Node) and _changes_nothing(inner):
        inner = inner.args[0]
    arguments: Mapping[Any, Any] = dict(zip(part.graph.find_nodes(op="placeholder"), node.args, strict=True))
    return _value(arguments[inner]) if inner in arguments else (node, index)


def _changes_nothing(node: torch.fx.Node) -> bool:
    view = NEW_SHAPES.get(f"torch.ops.{node.target}")
    return view is not None and KINDS[view] == "same"
