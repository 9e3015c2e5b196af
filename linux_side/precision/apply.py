"""Applies mixed precision to an exported program: inserts casts between operators of different precision."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, OutputKind
from torch.utils import _pytree as pytree

from linux_side.guards.tracing import no_own_guards
from linux_side.precision.assign import Assignment, is_single
from linux_side.precision.batch_norm import settle_batch_norms

_CAST = torch.ops.aten._to_copy.default


def functional_program(program: ExportedProgram) -> ExportedProgram:
    """Returns a copy of a program without operators that write into their arguments.

    Operators such as norms are not decomposed, and batch norms are prepared for halves. The copy shares the tensors and
    has its own state dict, so that tensors can be exchanged.
    """
    with no_own_guards(program):
        found = program.run_decompositions({})
    for node in found.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        found.graph.erase_node(node)  # it asserts fp32
    settle_batch_norms(found.graph)
    found.graph.lint()
    return _with(found, found.graph_signature, dict(found.state_dict), dict(found.constants))


def insert_casts(program: ExportedProgram, assignment: Assignment, dtype: torch.dtype) -> ExportedProgram:
    """Makes a functional program compute as assigned. Its graph is changed in place, its tensors are not.

    Args:
        program: the result of :func:`functional_program`.
        assignment: the precision of each node.
        dtype: the half dtype: float16 or bfloat16.

    Returns:
        The program. The dtypes of its inputs and outputs are unchanged.
    """
    _Caster(program, assignment, dtype).run()
    state, constants = _halved_tensors(program, assignment, dtype)
    signature = _renamed_outputs(program)
    program.graph.lint()
    program.graph_module.recompile()
    return _with(program, signature, state, constants)


class _Caster:
    def __init__(self, program: ExportedProgram, assignment: Assignment, dtype: torch.dtype) -> None:
        self._graph, self._half, self._dtype = program.graph, assignment.half, dtype
        self._casts: dict[tuple[torch.fx.Node, torch.dtype], torch.fx.Node] = {}
        self._originals = list(program.graph.nodes)
        self._single = {node for node in self._originals if is_single(node)}
        self._last_input = next((n for n in reversed(self._originals) if n.op == "placeholder"), None)
        self._outputs = list(_output_dtypes(program, assignment, dtype))

    def run(self) -> None:
        for node in self._originals:
            if node.op == "call_function" and node.target is not operator.getitem:
                self._feed(node, self._dtype if node in self._half else torch.float32)
            elif node.op == "output":
                node.args = (tuple(map(self._as, node.args[0], self._outputs)),)
            if node in self._half:
                node.meta["val"] = pytree.tree_map_only(torch.Tensor, self._halved, node.meta["val"])

    def _feed(self, node: torch.fx.Node, dtype: torch.dtype) -> None:
        node.args = torch.fx.map_arg(node.args, lambda value: self._as(value, dtype))
        node.kwargs = torch.fx.map_arg(node.kwargs, lambda value: self._as(value, dtype))
        if node in self._half:
            node.args, node.kwargs = pytree.tree_map_only(
                torch.dtype, lambda named: dtype if named is torch.float32 else named, (node.args, node.kwargs)
            )

    def _as(self, value: Any, dtype: torch.dtype) -> Any:
        """Returns a value in a precision, with a cast if needed. Values other than a float32 tensor are unchanged."""
        if value not in self._single or not isinstance(value.meta["val"], torch.Tensor):
            return value
        has = self._dtype if value in self._half else torch.float32
        if has is dtype:
            return value
        if (value, dtype) not in self._casts:
            with self._graph.inserting_after(self._last_input if value.op == "placeholder" else value):
                cast = self._graph.call_function(_CAST, (value,), {"dtype": dtype})
            cast.meta = {**value.meta, "val": value.meta["val"].to(dtype)}
            self._casts[value, dtype] = cast
        return self._casts[value, dtype]

    def _halved(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self._dtype) if value.dtype is torch.float32 else value


def _output_dtypes(program: ExportedProgram, assignment: Assignment, dtype: torch.dtype) -> Iterator[torch.dtype]:
    """Yields the dtype of each output: the half dtype for new values of state that is kept in halves, or else fp32."""
    halved = {node.name for node in assignment.half if node.op == "placeholder"}
    buffers = program.graph_signature.inputs_to_buffers
    state = {target for name, target in buffers.items() if name in halved}
    for spec in program.graph_signature.output_specs:
        is_half = spec.kind is OutputKind.BUFFER_MUTATION and spec.target in state
        yield dtype if is_half else torch.float32


def _halved_tensors(
    program: ExportedProgram, assignment: Assignment, dtype: torch.dtype
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the state dict and the constants, with the tensors of placeholders that are assigned halves converted."""
    signature = program.graph_signature
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    halved = {targets[node.name] for node in assignment.half if node.op == "placeholder"}
    copies: dict[Any, torch.Tensor] = {}  # a tensor with two names is converted once

    def half(tensor: torch.Tensor) -> torch.Tensor:
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if place not in copies:
            copy = tensor.detach().to(dtype)
            copies[place] = torch.nn.Parameter(copy, False) if isinstance(tensor, torch.nn.Parameter) else copy
        return copies[place]

    state = {name: half(value) if name in halved else value for name, value in program.state_dict.items()}
    constants = {name: half(value) if name in halved else value for name, value in program.constants.items()}
    return state, constants


def _renamed_outputs(program: ExportedProgram) -> ExportGraphSignature:
    """Returns the signature with the names of the outputs, some of which are casts now."""
    signature = program.graph_signature
    specs = [
        replace(spec, arg=replace(spec.arg, name=value.name)) if isinstance(value, torch.fx.Node) else spec
        for spec, value in zip(signature.output_specs, program.graph.output_node().args[0], strict=True)
    ]
    return ExportGraphSignature(list(signature.input_specs), specs)


def _with(
    program: ExportedProgram, signature: ExportGraphSignature, state: dict[str, Any], constants: dict[str, Any]
) -> ExportedProgram:
    return ExportedProgram(
        root=program.graph_module,
        graph=program.graph,
        graph_signature=signature,
        state_dict=state,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=constants,
    )
