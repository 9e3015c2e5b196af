"""A small program of independent calls, which is decomposed in place of a large program that repeats them."""

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
    """Returns the number of the call that torch made this node from, or None."""
    found: int | None = node.meta.get("custom", {}).get(_MARK)
    return found


class SmallProgram:
    """A program of independent calls: their arguments are its inputs, and their results are its outputs.

    Args:
        values: the value of each node of the large program.
    """

    def __init__(self, values: Mapping[Node, Any]) -> None:
        self._graph = torch.fx.Graph()
        self._values = values
        self._calls: list[tuple[Node, dict[Node, Node]]] = []
        self._placeholders: dict[Signature, Node] = {}

    @property
    def inputs(self) -> int:
        """How many inputs the program has."""
        return len(self._placeholders)

    def add(self, call: Node) -> list[str]:
        """Adds a call. Different calls may share an input, but each argument of one call has an input of its own.

        Returns:
            The name of the input for each of the call's argument nodes.
        """
        counts: dict[Signature, int] = {}
        arguments: dict[Node, Node] = {}
        for node in call.all_input_nodes:
            description = described(self._values[node])
            counts[description] = counts.get(description, 0) + 1
            key = (*description, counts[description])
            if key not in self._placeholders:
                placeholder = self._placeholders[key] = self._graph.placeholder(f"x{len(self._placeholders)}")
                placeholder.meta = {"val": self._values[node]}
            arguments[node] = self._placeholders[key]
        self._calls.append((call, arguments))
        return [placeholder.name for placeholder in arguments.values()]

    def program(self) -> ExportedProgram:
        """Returns the program of the calls, in the order in which they were added."""
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
