"""A small program of independent calls, which is decomposed in place of a large program that repeats them."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
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

from linux_side.lowering.call_signature import Signature, arguments_of, described, results_of, tensors_of, traced

_MARK = "trtcross_call"


def call_behind(node: Node) -> int | None:
    """Returns the number of the call that torch made this node from, or None.

    For a view that torch makes once more, after a write, it is the call that made the view first.
    """
    found: int | None = node.meta.get("custom", {}).get(_MARK)
    return found


class SmallProgram:
    """A program of independent calls: their arguments are its inputs, and their results are its outputs.

    Args:
        values: the value of each node of the large program.
        verifiers: the verifiers of the large program, which decide whether it may contain writes.

    Attributes:
        added: the number of each call, by the name of its node in the small program.
    """

    def __init__(self, values: Mapping[Node, Any], verifiers: list[Any]) -> None:
        self._graph = torch.fx.Graph()
        self._values, self._verifiers = values, verifiers
        self._calls: list[tuple[Sequence[Node], dict[Node, Node]]] = []
        self.added: dict[str, int] = {}
        self._placeholders: dict[Signature, Node] = {}

    @property
    def inputs(self) -> int:
        """How many inputs the program has."""
        return len(self._placeholders)

    def add(self, calls: Sequence[Node]) -> list[str]:
        """Adds a call, or several that are decomposed together.

        What is added later may share an input with it, but each of its own arguments has another input.

        Returns:
            The name of the input for each argument node.
        """
        counts: dict[Signature, int] = {}
        arguments: dict[Node, Node] = {}
        for node in arguments_of(calls):
            description = described(self._values[node])
            counts[description] = counts.get(description, 0) + 1
            key = (*description, counts[description])
            if key not in self._placeholders:
                placeholder = self._placeholders[key] = self._graph.placeholder(f"x{len(self._placeholders)}")
                placeholder.meta = {"val": self._values[node]}
            arguments[node] = self._placeholders[key]
        self._calls.append((calls, arguments))
        return [placeholder.name for placeholder in arguments.values()]

    def program(self) -> ExportedProgram:
        """Returns the program of the calls, in the order in which they were added."""
        results: list[Node] = []
        for calls, arguments in self._calls:
            made = dict(arguments)
            for call in calls:
                node = made[call] = self._graph.node_copy(call, made.__getitem__)
                node.target = traced(call, calls)
                node.meta = {**call.meta, "custom": {_MARK: len(self.added)}}
                self.added[node.name] = len(self.added)
            results += [result for call in results_of(calls) for result in self._results(made[call])]
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
            verifiers=self._verifiers,
        )

    def call_traced(self, node: Node) -> int | None:
        """Returns the number of the call that torch traced when it made this node, or None."""
        names = [source.name for source in node.meta.get("from_node", ())]
        return self.added.get(names[-1]) if names else None

    def _results(self, node: Node) -> Iterator[Node]:
        if isinstance(node.meta["val"], torch.Tensor):
            yield node
            return
        for index, item in enumerate(tensors_of(node)):
            result = self._graph.call_function(operator.getitem, (node, index))
            result.meta = {**node.meta, "val": item}
            yield result
