"""Decompositions of a program, computed once for each distinct call.

``ExportedProgram.run_decompositions`` traces a whole program, twice, though the layers of a model repeat: what an
operator becomes depends on it and on the shapes, strides and dtypes of its arguments. Here the distinct calls of a
program are put beside each other into a small program, torch decomposes that one, and each call of the original takes
its copy of what torch made of its like: the same nodes in the same order, under the same names.
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
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Node
from torch.fx.proxy import _COPY_META_FIELDS
from torch.fx.traceback import NodeSource, NodeSourceAction
from torch.utils import _pytree as pytree

Table: TypeAlias = Mapping[Any, Callable[..., Any]]
Signature: TypeAlias = tuple[Any, ...]
# Of rounds: each result whose strides are not the exported program's makes further distinct calls.
_ROUNDS = 6
_MARK = "trtcross_call"
_PASS = "Interpreter_PropagateUnbackedSymInts"  # noqa: S105 - torch's name of its pass


class _PlainWayError(Exception):
    """A program that only torch's own way can decompose."""


@dataclass
class _Call:
    """A distinct call, and what torch made of it.

    Attributes:
        node: the first such call of the original.
        inputs: the argument nodes, each once.
        places: for each of them its placeholder in the program of distinct calls.
        nodes: what the call became, dead nodes among them.
        results: for each of its tensors the node in ``nodes``, or a placeholder.
    """

    node: Node
    inputs: list[Node]
    places: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    results: list[Node] = field(default_factory=list)


def run_decompositions(program: ExportedProgram, table: Table) -> ExportedProgram:
    """``program.run_decompositions(table)``, faster for programs of fixed sizes without state; else torch's own."""
    try:
        return _Decomposer(program, table).run()
    except _PlainWayError:
        return program.run_decompositions(dict(table))


class _Decomposer:
    def __init__(self, program: ExportedProgram, table: Table) -> None:
        _require_simple(program)
        self._program, self._table = program, table
        self._written = _written_wholly(program)
        self._values: dict[Node, Any] = {n: n.meta.get("val") for n in program.graph.nodes}
        self._known: dict[Signature, _Call] = {}

    def run(self) -> ExportedProgram:
        for _ in range(_ROUNDS):
            calls, new = self._calls()
            if not new:
                return self._assembled(calls)
            self._decompose(new)
        raise _PlainWayError

    def _calls(self) -> tuple[dict[Node, _Call], list[_Call]]:
        """The distinct call that each node is like, and those of them that torch has not decomposed yet."""
        found: dict[Node, _Call] = {}
        new: list[_Call] = []
        for node in self._program.graph.nodes:
            if node.op != "call_function":
                continue
            if node.target is operator.getitem:
                self._values[node] = self._values[node.args[0]][node.args[1]]
                continue
            signature, inputs = self._signature(node)
            if (call := self._known.get(signature)) is None:
                call = self._known[signature] = _Call(node, inputs)
                new.append(call)
            elif call.results:
                values = [result.meta["val"] for result in call.results]
                self._values[node] = values if isinstance(node.meta["val"], (list, tuple)) else values[0]
            if node in self._written:
                self._require_like(node)
            found[node] = call
        return found, new

    def _signature(self, node: Node) -> tuple[Signature, list[Node]]:
        inputs = node.all_input_nodes
        places = {argument: index for index, argument in enumerate(inputs)}
        said = [self._said(argument) for argument in inputs]
        arguments = torch.fx.map_arg((node.args, node.kwargs), lambda argument: _Place(places[argument]))
        return (_functional(node.target), _hashable(arguments), *said), inputs

    def _said(self, node: Node) -> Signature:
        value = self._values[node]
        if not isinstance(value, torch.Tensor):
            raise _PlainWayError
        return _described(value)

    def _require_like(self, write: Node) -> None:
        """Requires of a write into a whole tensor that the new value is in memory as the old one did."""
        old, new = self._values[write.args[0]], self._values[write]
        if _described(old) != _described(new):
            raise _PlainWayError

    def _decompose(self, calls: Sequence[_Call]) -> None:
        small = _Small(self._values)
        for index, call in enumerate(calls):
            small.add(index, call)
        try:
            with _dead_nodes_kept():
                decomposed = small.program().run_decompositions(dict(self._table))
        except Exception as error:  # of decompositions, which raise whatever they do: in torch's own way they say where
            raise _PlainWayError from error
        if len(decomposed.graph_signature.input_specs) != small.inputs:
            raise _PlainWayError  # a decomposition brought a constant
        for node in decomposed.graph.nodes:
            if node.op == "call_function":
                mark = node.meta.get("custom", {}).get(_MARK)
                if mark is None:
                    raise _PlainWayError
                calls[mark].nodes.append(node)
            elif node.op not in ("placeholder", "output"):
                raise _PlainWayError
        results = iter(decomposed.graph.output_node().args[0])
        for call in calls:
            call.results = [next(results) for _ in _tensors(call.node)]
        if next(results, None) is not None:
            raise _PlainWayError

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
                raise _PlainWayError  # torch gives such a node another name
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


@dataclass(frozen=True)
class _Place:
    """Stands for a tensor among the arguments of a call."""

    index: int


class _Small:
    """A program of calls beside each other, whose arguments are its inputs and whose results are its outputs."""

    def __init__(self, values: Mapping[Node, Any]) -> None:
        self._graph = torch.fx.Graph()
        self._values = values
        self._calls: list[tuple[int, _Call]] = []
        self._placeholders: dict[Signature, Node] = {}

    @property
    def inputs(self) -> int:
        return len(self._placeholders)

    def add(self, index: int, call: _Call) -> None:
        """Adds a call; calls share inputs, but no call has one twice."""
        self._calls.append((index, call))
        counts: dict[Signature, int] = {}
        for node in call.inputs:
            said = _described(self._values[node])
            counts[said] = counts.get(said, 0) + 1
            key = (*said, counts[said])
            if key not in self._placeholders:
                placeholder = self._placeholders[key] = self._graph.placeholder(f"x{len(self._placeholders)}")
                placeholder.meta = {"val": self._values[node]}
            call.places.append(self._placeholders[key].name)

    def program(self) -> ExportedProgram:
        placeholders = {node.name: node for node in self._placeholders.values()}
        results: list[Node] = []
        for index, call in self._calls:
            arguments = {node: placeholders[name] for node, name in zip(call.inputs, call.places, strict=True)}
            node = self._graph.node_copy(call.node, arguments.__getitem__)
            node.target = _functional(node.target)
            node.meta = {**call.node.meta, "custom": {_MARK: index}}
            results += self._results(node)
        self._graph.output(tuple(results))
        inputs = [InputSpec(InputKind.USER_INPUT, TensorArgument(name), None) for name in placeholders]
        outputs = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in results]
        gm = torch.fx.GraphModule({}, self._graph)
        call = ModuleCallSignature(
            inputs=[],
            outputs=[],
            in_spec=pytree.tree_structure((tuple(range(len(inputs))), {})),
            out_spec=pytree.tree_structure(tuple(range(len(outputs)))),
            forward_arg_names=list(placeholders),
        )
        return ExportedProgram(
            root=gm,
            graph=gm.graph,
            graph_signature=ExportGraphSignature(inputs, outputs),
            state_dict={},
            range_constraints={},
            module_call_graph=[ModuleCallEntry("", call)],
            constants={},
        )

    def _results(self, node: Node) -> Iterator[Node]:
        if isinstance(node.meta["val"], torch.Tensor):
            yield node
            return
        for index, item in enumerate(_tensors(node)):
            result = self._graph.call_function(operator.getitem, (node, index))
            result.meta = {**node.meta, "val": item}
            yield result


def _require_simple(program: ExportedProgram) -> None:
    """Refuses what the calls of a program, each by itself, do not tell."""
    kinds = {spec.kind for spec in program.graph_signature.output_specs}
    inputs = (TensorArgument, ConstantArgument)
    if kinds != {OutputKind.USER_OUTPUT}:
        raise _PlainWayError
    if not all(isinstance(spec.arg, inputs) for spec in program.graph_signature.input_specs):
        raise _PlainWayError
    for node in program.graph.nodes:
        if node.op not in ("placeholder", "call_function", "output"):
            raise _PlainWayError
        if node.op == "call_function" and node.target is not operator.getitem:
            if not isinstance(node.target, torch._ops.OpOverload):
                raise _PlainWayError
            if not all(isinstance(item, torch.Tensor) and _is_fixed(item) for item in _tensors(node)):
                raise _PlainWayError


def _tensors(node: Node) -> Sequence[Any]:
    """What a call gives: tensors, or none where it only checks."""
    value = node.meta.get("val")
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


def _written_wholly(program: ExportedProgram) -> dict[Node, list[Node]]:
    """The writes into a whole tensor of which there is no view, as of ``relu_``: for each the nodes that it changes.

    Such a write is a call like others, whose result stands for the tensor from then on.
    """
    calls = [node for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    writes = [node for node in calls if node.target._schema.is_mutable]
    if not writes:
        return {}
    if not all(map(_shares_what_it_must, calls)):
        raise _PlainWayError
    sharing: dict[int, list[Node]] = {}
    for node in program.graph.nodes:
        for place in _memory(node):
            sharing.setdefault(place, []).append(node)
    written: dict[Node, list[Node]] = {}
    for node in writes:
        memory = _memory(node)
        if len(memory) != 1:  # of an operator that gives nothing, or several tensors
            raise _PlainWayError
        first, *others = sharing[memory.pop()]
        if first.op == "placeholder" or not all(_is_write(other, first) for other in others):
            raise _PlainWayError
        written[node] = [first, *others]
    return written


def _memory(node: Node) -> set[int]:
    return {value.untyped_storage()._cdata for value in _tensors(node) if isinstance(value, torch.Tensor)}


def _shares_what_it_must(call: Node) -> bool:
    """Whether a call's result is in its argument's memory where the operator says so: in a saved program none is."""
    if _is_composite(call.target):
        return True  # it may copy
    pairs = zip(call.target._schema.arguments, call.args, strict=False)
    aliased = [argument for declared, argument in pairs if declared.alias_info is not None]
    return all(isinstance(argument, Node) and _memory(call) == _memory(argument) for argument in aliased)


def _is_write(node: Node, first: Node) -> bool:
    """Whether a call writes into a tensor that is ``first``, and into no other."""
    if node.target is operator.getitem or node.target is _functional(node.target):
        return False
    arguments = node.target._schema.arguments
    writes = [argument.alias_info is not None and argument.alias_info.is_write for argument in arguments]
    value, old = node.meta["val"], first.meta["val"]
    return writes[0] and sum(writes) == 1 and isinstance(old, torch.Tensor) and _described(value) == _described(old)


def _functional(target: Any) -> Any:
    """For an operator that writes in place, the one that torch traces instead; else the operator itself."""
    schema = target._schema
    if not schema.is_mutable:
        return target
    name = target._opname.removesuffix("_")
    found = getattr(getattr(getattr(torch.ops, target.namespace), name, None), target._overloadname, None)
    if found is None or found._schema.is_mutable or _is_composite(found) or _is_composite(target):
        raise _PlainWayError
    return found


def _is_composite(target: Any) -> bool:
    """Whether torch takes an operator apart before it sees what is written."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd"))


def _is_fixed(value: torch.Tensor) -> bool:
    return all(isinstance(size, int) for size in value.shape)


def _described(value: torch.Tensor) -> Signature:
    """What an operator may ask of a tensor without its data."""
    if type(value) is not torch._subclasses.FakeTensor or value.layout is not torch.strided or not _is_fixed(value):
        raise _PlainWayError
    if value.constant is not None:
        raise _PlainWayError
    return (
        value.dtype,
        tuple(value.shape),
        value.stride(),
        value.storage_offset(),
        value.device,
        value.requires_grad,
        value.is_conj(),
        value.is_neg(),
    )


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *map(_hashable, value))
    if isinstance(value, Mapping):
        return tuple((key, _hashable(item)) for key, item in value.items())
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    # 1, 1.0 and True are equal, 0.0 and -0.0 too.
    return (type(value), repr(value)) if isinstance(value, (int, float, complex)) else value


def _copied(graph: torch.fx.Graph, node: Node, call: _Call, values: Mapping[Node, Any]) -> Any:
    """What a call became, once more, for a call of its like."""
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
    """Lets torch keep dead nodes, which take names that others then do not have."""
    with patch.object(torch.fx.Graph, "eliminate_dead_code", lambda *_, **__: False):
        yield
