"""Decomposes a program by decomposing each distinct call once.

``ExportedProgram.run_decompositions`` traces the whole program twice, although the layers of a model repeat. What an
operator is decomposed into depends only on the operator and on the shapes, strides and dtypes of its arguments. Here
torch decomposes a small program that consists of the distinct calls. Each call of the original then receives a copy of
the nodes of its equal. The result has the same nodes, order and names as torch's own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from unittest.mock import patch

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument
from torch.fx import Node
from torch.fx.proxy import _COPY_META_FIELDS
from torch.fx.traceback import NodeSource, NodeSourceAction

from linux_side.lowering.call_signature import (
    PlainWayError,
    Signature,
    described,
    require_simple,
    signature_of,
    tensors_of,
)
from linux_side.lowering.small_program import SmallProgram, call_behind
from linux_side.lowering.whole_writes import written_wholly

Table: TypeAlias = Mapping[Any, Callable[..., Any]]
# A result whose strides differ from those in the exported program makes new distinct calls, for another round.
_MAX_ROUNDS = 6
_PASS = "Interpreter_PropagateUnbackedSymInts"  # noqa: S105 - torch's name for the pass that creates the nodes


@dataclass
class _Call:
    """A distinct call and its decomposition.

    Attributes:
        node: the first such call of the original.
        places: for each argument node, the name of its placeholder in the program of distinct calls.
        nodes: the decomposition, including dead nodes.
        results: for each tensor that the call returns, the node in ``nodes`` or a placeholder.
    """

    node: Node
    places: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    results: list[Node] = field(default_factory=list)


def run_decompositions(program: ExportedProgram, table: Table) -> ExportedProgram:
    """Does the same as ``program.run_decompositions(table)``, faster for programs of fixed sizes without state."""
    try:
        return _Decomposer(program, table).run()
    except PlainWayError:
        return program.run_decompositions(dict(table))


class _Decomposer:
    def __init__(self, program: ExportedProgram, table: Table) -> None:
        require_simple(program)
        self._program, self._table = program, table
        self._written = written_wholly(program)
        self._values: dict[Node, Any] = {n: n.meta.get("val") for n in program.graph.nodes}
        self._known: dict[Signature, _Call] = {}

    def run(self) -> ExportedProgram:
        for _ in range(_MAX_ROUNDS):
            calls, new = self._calls()
            if not new:
                return self._assembled(calls)
            self._decompose(new)
        raise PlainWayError

    def _calls(self) -> tuple[dict[Node, _Call], list[_Call]]:
        """Returns the distinct call of each node, and the distinct calls that torch has not decomposed yet."""
        found: dict[Node, _Call] = {}
        new: list[_Call] = []
        for node in self._program.graph.nodes:
            if node.op != "call_function":
                continue
            if node.target is operator.getitem:
                self._values[node] = self._values[node.args[0]][node.args[1]]
                continue
            signature = signature_of(node, self._values)
            if (call := self._known.get(signature)) is None:
                call = self._known[signature] = _Call(node)
                new.append(call)
            elif call.results:
                values = [result.meta["val"] for result in call.results]
                self._values[node] = values if isinstance(node.meta["val"], (list, tuple)) else values[0]
            if node in self._written:
                self._require_like(node)
            found[node] = call
        return found, new

    def _require_like(self, write: Node) -> None:
        """Requires that a write into a whole tensor keeps its dtype, shape and strides."""
        old, new = self._values[write.args[0]], self._values[write]
        if described(old) != described(new):
            raise PlainWayError

    def _decompose(self, calls: Sequence[_Call]) -> None:
        small = SmallProgram(self._values)
        for call in calls:
            call.places = small.add(call.node)
        try:
            with _dead_nodes_kept():
                decomposed = small.program().run_decompositions(dict(self._table))
        except Exception as error:  # a decomposition may raise any class; torch's own way reports where
            raise PlainWayError from error
        if len(decomposed.graph_signature.input_specs) != small.inputs:
            raise PlainWayError  # a decomposition added a constant
        for node in decomposed.graph.nodes:
            if node.op == "call_function":
                if (number := call_behind(node)) is None:
                    raise PlainWayError
                calls[number].nodes.append(node)
            elif node.op not in ("placeholder", "output"):
                raise PlainWayError
        results = iter(decomposed.graph.output_node().args[0])
        for call in calls:
            call.results = [next(results) for _ in tensors_of(call.node)]
        if next(results, None) is not None:
            raise PlainWayError

    def _assembled(self, calls: Mapping[Node, _Call]) -> ExportedProgram:
        source = self._program
        graph = torch.fx.Graph()
        values: dict[Node, Any] = {}
        names = {node.name for node in source.graph.find_nodes(op="placeholder")}
        for index, node in enumerate(source.graph.find_nodes(op="placeholder")):
            values[node] = graph.placeholder(f"arg{index}_1")
            values[node].meta = dict(node.meta)
        for node in source.graph.nodes:
            if node.op != "call_function":
                continue
            if node.target is operator.getitem:
                values[node] = values[node.args[0]][node.args[1]]
            else:
                values[node] = _copied(graph, node, calls[node], values)
                for old in self._written.get(node, ()):
                    values[old] = values[node]
        output = graph.output(torch.fx.map_arg(source.graph.output_node().args[0], lambda node: values[node]))
        output.meta = dict(source.graph.output_node().meta)
        graph.eliminate_dead_code()
        for node in graph.nodes:
            if node.name in names:
                raise PlainWayError  # torch would rename this node
        for node in source.graph.find_nodes(op="placeholder"):
            values[node].target = values[node].name = node.name
        return self._program_of(graph, values)

    def _program_of(self, graph: torch.fx.Graph, values: Mapping[Node, Any]) -> ExportedProgram:
        source = self._program
        named = {node.name: values[node].name for node in values if isinstance(values[node], Node)}
        signature = deepcopy(source.graph_signature)
        for spec in signature.output_specs:
            if isinstance(spec.arg, TensorArgument):
                spec.arg.name = named[spec.arg.name]
        entries = deepcopy(source.module_call_graph)
        for called in (entry.signature for entry in entries if entry.signature is not None):
            for argument in (*called.inputs, *called.outputs):
                argument.name = named.get(argument.name, argument.name)
        gm = torch.fx.GraphModule({}, graph)
        gm.meta.update(source.graph_module.meta)
        return ExportedProgram(
            root=gm,
            graph=graph,
            graph_signature=signature,
            state_dict=dict(source.state_dict),
            range_constraints=dict(source.range_constraints),
            module_call_graph=entries,
            example_inputs=source.example_inputs,
            constants=dict(source.constants),
        )


def _copied(graph: torch.fx.Graph, node: Node, call: _Call, values: Mapping[Node, Any]) -> Any:
    """Copies the decomposition of a distinct call into ``graph`` for an equal call; returns its results."""
    arguments = {place: values[argument] for place, argument in zip(call.places, node.all_input_nodes, strict=True)}
    made: dict[Node, Node] = {}

    def mapped(argument: Node) -> Node:
        return arguments[argument.name] if argument.op == "placeholder" else made[argument]

    source = [NodeSource(node, _PASS, NodeSourceAction.CREATE)] if call.nodes else []
    for like in call.nodes:
        args, kwargs = torch.fx.map_arg((like.args, like.kwargs), mapped)
        packet = getattr(like.target, "overloadpacket", None)
        name = graph._target_to_str(packet.__name__) if packet is not None else None
        new = graph.create_node("call_function", like.target, args, kwargs, name)
        new.meta = dict(like.meta)
        for key in ("stack_trace", *_COPY_META_FIELDS):
            if key in ("original_aten", "from_node"):
                continue
            new.meta.pop(key, None)
            if key in node.meta:
                new.meta[key] = copy(node.meta[key])
        new.meta["from_node"] = source
        made[like] = new
    results = [mapped(result) for result in call.results]
    return results[0] if isinstance(node.meta["val"], torch.Tensor) else results


@contextmanager
def _dead_nodes_kept() -> Iterator[None]:
    """Makes torch keep dead nodes, which influence the names of the other nodes."""
    with patch.object(torch.fx.Graph, "eliminate_dead_code", lambda *_, **__: False):
        yield
