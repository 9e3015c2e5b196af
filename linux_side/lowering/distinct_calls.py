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
    arguments_of,
    described,
    require_simple,
    results_of,
    signature_of,
    tensors_of,
)
from linux_side.lowering.input_order import order_of
from linux_side.lowering.small_program import SmallProgram, call_behind
from linux_side.lowering.writes import writes_of

Table: TypeAlias = Mapping[Any, Callable[..., Any]]
# A result whose strides differ from those in the exported program makes new distinct calls, for another round.
_MAX_ROUNDS = 6
_PASS = "Interpreter_PropagateUnbackedSymInts"  # noqa: S105 - torch's name for the pass that creates the nodes


@dataclass
class _Made:
    """A node of a decomposition.

    Attributes:
        behind: which of the calls that were decomposed together has its stack trace.
    """

    node: Node
    behind: int


@dataclass
class _Call:
    """A distinct call, or a group of calls that is decomposed together, and the decomposition.

    Attributes:
        calls: the first such calls of the original.
        places: for each argument node, the name of its placeholder in the program of distinct calls.
        nodes: for each call its decomposition, including dead nodes.
        results: for each call whose results are used, for each of its tensors, the node in ``nodes`` or a placeholder.
    """

    calls: Sequence[Node]
    places: list[str] = field(default_factory=list)
    nodes: list[list[_Made]] = field(default_factory=list)
    results: list[list[Node]] = field(default_factory=list)


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
        self._order = order_of(program.graph_signature.input_specs)
        writes = writes_of(program)
        self._written = writes.whole
        self._groups = {call: group for group in writes.groups for call in group}
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
            calls = self._groups.get(node, [node])
            if node is calls[-1]:  # now each argument of a group is known
                call = self._like(calls, new)
                found.update(dict.fromkeys(calls, call))
            if node in self._written:
                self._require_like(node)
        return found, new

    def _like(self, calls: Sequence[Node], new: list[_Call]) -> _Call:
        """Returns the distinct call that equals these calls, and takes over the values of its results."""
        signature = signature_of(calls, self._values)
        if (call := self._known.get(signature)) is None:
            call = self._known[signature] = _Call(calls)
            new.append(call)
        for node, results in zip(results_of(calls), call.results, strict=False):
            values = [result.meta["val"] for result in results]
            if len(calls) > 1 and list(map(described, values)) != list(map(described, tensors_of(node))):
                raise PlainWayError  # an earlier call may have used the other value
            if values:
                self._values[node] = values if isinstance(node.meta["val"], (list, tuple)) else values[0]
        return call

    def _require_like(self, write: Node) -> None:
        """Requires that a write into a whole tensor keeps its dtype, shape and strides."""
        old, new = self._values[write.args[0]], self._values[write]
        if described(old) != described(new):
            raise PlainWayError

    def _decompose(self, calls: Sequence[_Call]) -> None:
        small = SmallProgram(self._values, self._program.verifiers)
        for call in calls:
            call.places = small.add(call.calls)
            call.nodes = [[] for _ in call.calls]
        numbered = [(call, index) for call in calls for index in range(len(call.calls))]
        try:
            with _dead_nodes_kept():
                decomposed = small.program().run_decompositions(dict(self._table))
        except Exception as error:  # a decomposition may raise any class; torch's own way reports where
            raise PlainWayError from error
        if len(decomposed.graph_signature.input_specs) != small.inputs:
            raise PlainWayError  # a decomposition added a constant
        for node in decomposed.graph.nodes:
            if node.op == "call_function":
                behind, number = call_behind(node), small.call_traced(node)
                if behind is None or number is None or numbered[behind][0] is not numbered[number][0]:
                    raise PlainWayError
                call, index = numbered[number]
                call.nodes[index].append(_Made(node, numbered[behind][1]))
            elif node.op not in ("placeholder", "output"):
                raise PlainWayError
        results = iter(decomposed.graph.output_node().args[0])
        for call in calls:
            call.results = [[next(results) for _ in tensors_of(node)] for node in results_of(call.calls)]
        if next(results, None) is not None:
            raise PlainWayError

    def _assembled(self, calls: Mapping[Node, _Call]) -> ExportedProgram:
        source = self._program
        graph = torch.fx.Graph()
        values: dict[Node, Any] = {}
        copies: dict[Node, _Copy] = {}
        inputs = list(source.graph.find_nodes(op="placeholder"))
        for index, place in enumerate(self._order):
            node = inputs[place]
            values[node] = graph.placeholder(f"arg{index}_1")
            values[node].meta = dict(node.meta)
        for node in source.graph.nodes:
            if node.op != "call_function":
                continue
            if node.target is operator.getitem:
                values[node] = values[node.args[0]][node.args[1]]
            else:
                group = self._groups.get(node, [node])
                if node is group[0]:
                    copies[node] = _Copy(graph, calls[node], group)
                copies[group[0]].add(node, values)
                for old in self._written.get(node, ()):
                    values[old] = values[node]
        output = graph.output(torch.fx.map_arg(source.graph.output_node().args[0], lambda node: values[node]))
        output.meta = dict(source.graph.output_node().meta)
        graph.eliminate_dead_code()
        names = {node.name for node in inputs}
        for node in graph.nodes:
            if node.name in names:
                raise PlainWayError  # torch would rename this node
        for node in inputs:
            values[node].target = values[node].name = node.name
        return self._program_of(graph, values)

    def _program_of(self, graph: torch.fx.Graph, values: Mapping[Node, Any]) -> ExportedProgram:
        source = self._program
        named = {node.name: values[node].name for node in values if isinstance(values[node], Node)}
        signature = deepcopy(source.graph_signature)
        signature.input_specs = [signature.input_specs[place] for place in self._order]
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


class _Copy:
    """Copies the decomposition of a distinct call, or of a group, into a graph for equal calls."""

    def __init__(self, graph: torch.fx.Graph, like: _Call, calls: Sequence[Node]) -> None:
        self._graph, self._like, self._calls = graph, like, calls
        self._arguments = dict(zip(like.places, arguments_of(calls), strict=True))
        self._made: dict[Node, Node] = {}
        self._results = dict(zip(results_of(calls), like.results, strict=True))

    def add(self, call: Node, values: dict[Node, Any]) -> None:
        """Copies the decomposition of one of the calls.

        Args:
            call: the node of the call in the original.
            values: for each node of the original its node in the graph; the results of the call are added.
        """

        def mapped(argument: Node) -> Node:
            if argument.op != "placeholder":
                return self._made[argument]
            found: Node = values[self._arguments[argument.name]]
            return found

        made = self._like.nodes[self._calls.index(call)]
        source = [NodeSource(call, _PASS, NodeSourceAction.CREATE)] if made else []
        for like, behind in ((one.node, self._calls[one.behind]) for one in made):
            args, kwargs = torch.fx.map_arg((like.args, like.kwargs), mapped)
            packet = getattr(like.target, "overloadpacket", None)
            name = self._graph._target_to_str(packet.__name__) if packet is not None else None
            new = self._graph.create_node("call_function", like.target, args, kwargs, name)
            new.meta = dict(like.meta)
            for key in ("stack_trace", *_COPY_META_FIELDS):
                if key in ("original_aten", "from_node"):
                    continue
                # Torch gives a view that it makes once more the stack trace of the view, and all else of the reader.
                said = behind if key in ("stack_trace", "custom") else call
                new.meta.pop(key, None)
                if key in said.meta:
                    new.meta[key] = copy(said.meta[key])
            new.meta["from_node"] = source
            self._made[like] = new
        if call in self._results:
            results = [mapped(result) for result in self._results[call]]
            values[call] = results[0] if isinstance(call.meta["val"], torch.Tensor) else results


@contextmanager
def _dead_nodes_kept() -> Iterator[None]:
    """Makes torch keep dead nodes, which influence the names of the other nodes."""
    with patch.object(torch.fx.Graph, "eliminate_dead_code", lambda *_, **__: False):
        yield
