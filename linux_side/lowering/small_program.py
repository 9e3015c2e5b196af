"""A small program of calls beside each other, to be decomposed in the place of a large one that has many like them."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Node
from torch.utils import _pytree as pytree

from linux_side.lowering.call_signature import Signature, described, functional, tensors_of

_MARK = "trtcross_call"


def call_behind(node: Node) -> int | None:
    """The number of the call of which torch made this node, if it was made of one."""
    found: int | None = node.meta.get("custom", {}).get(_MARK)
    return found


class SmallProgram:
    """A program of calls beside each other, whose arguments are its inputs and whose results are its outputs.

    Args:
        values: behind the nodes of the large program.
    """

    def __init__(self, values: Mapping[Node, Any]) -> None:
        self._graph = torch.fx.Graph()
        self._values = values
        self._calls: list[tuple[Node, dict[Node, Node]]] = []
        self._placeholders: dict[Signature, Node] = {}

    @property
    def inputs(self) -> int:
        """How many there are."""
        return len(self._placeholders)

    def add(self, call: Node) -> list[str]:
        """Adds a call; calls share inputs, but no call has one twice.

        Returns:
            For each of the call's argument nodes the name of the input.
        """
        counts: dict[Signature, int] = {}
        arguments: dict[Node, Node] = {}
        for node in call.all_input_nodes:
            said = described(self._values[node])
            counts[said] = counts.get(said, 0) + 1
            key = (*said, counts[said])
            if key not in self._placeholders:
                placeholder = self._placeholders[key] = self._graph.placeholder(f"x{len(self._placeholders)}")
                placeholder.meta = {"val": self._values[node]}
            arguments[node] = self._placeholders[key]
        self._calls.append((call, arguments))
        return [placeholder.name for placeholder in arguments.values()]

    def program(self) -> ExportedProgram:
        """The program of the calls that were added, in their order."""
        results: list[Node] = []
        for index, (call, arguments) in enumerate(self._calls):
            node = self._graph.node_copy(call, arguments.__getitem__)
            node.target = functional(node.target)
            node.meta = {**call.meta, "custom": {_MARK: index}}
            results += self._results(node)
        self._graph.output(tuple(results))
        names = [placeholder.name for placeholder in self._placeholders.values()]
        inputs = [InputSpec(InputKind.USER_INPUT, TensorArgument(name), None) for name in names]
        outputs = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in results]
        gm = torch.fx.GraphModule({}, self._graph)
        signature = ModuleCallSignature(
            inputs=[],
            outputs=[],
            in_spec=pytree.tree_structure((tuple(range(len(inputs))), {})),
            out_spec=pytree.tree_structure(tuple(range(len(outputs)))),
            forward_arg_names=names,
        )
        return ExportedProgram(
            root=gm,
            graph=gm.graph,
            graph_signature=ExportGraphSignature(inputs, outputs),
            state_dict={},
            range_constraints={},
            module_call_graph=[ModuleCallEntry("", signature)],
            constants={},
        )

    def _results(self, node: Node) -> Iterator[Node]:
        if isinstance(node.meta["val"], torch.Tensor):
            yield node
            return
        for index, item in enumerate(tensors_of(node)):
            result = self._graph.call_function(operator.getitem, (node, index))
            result.meta = {**node.meta, "val": item}
            yield result
