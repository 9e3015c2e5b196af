"""Assigns a precision to each node: applies the rules to an exported fp32 graph.

The rules' tables determine the precision of an operator or let it follow its surroundings. An operator in no table
stays in fp32. For the operators that follow their surroundings:

- Operators that do not depend on data (positions, masks, tables of weights) stay in fp32: they are small and often
  folded.
- Arithmetic that leads to a coordinate or to a whole number stays in fp32, back to the last operator with a precision.
- Arithmetic whose result is read by fp32 operators only stays in fp32.
- An operator with a constant that fp16 cannot represent stays in fp32.
- All others compute in halves, as in a model that was cast.

The rules concern float32 values only. An operator with float64, half or complex values is unchanged.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from linux_side.precision.rules import Rules, operator_name

Keep = Callable[[torch.fx.Node], "str | None"]

_TABLE = "a table: no data goes into it"
# The largest finite number of fp16, and the smallest that it represents with full precision.
_LARGEST, _SMALLEST = 65504.0, 2.0**-14


class Kind(Enum):
    """The kind of a node under the rules."""

    HALF = "half"
    FP32 = "fp32"
    VIEW = "view"
    FREE = "free"  # follows its surroundings
    APART = "apart"  # has values of other dtypes, or none of float32


@dataclass
class Assignment:
    """The precision of each node of one graph.

    Attributes:
        half: the nodes whose float32 values become halves: operators, and placeholders of weights and of state.
        reasons: why each operator that stays in fp32 does.
    """

    half: set[torch.fx.Node] = field(default_factory=set)
    reasons: dict[torch.fx.Node, str] = field(default_factory=dict)


def assign(program: ExportedProgram, rules: Rules, dtype: torch.dtype, keep: Keep) -> Assignment:
    """Assigns a precision to every node.

    Args:
        program: a functional program, in which no operator writes into its arguments.
        rules: the rules.
        dtype: the half dtype: float16 or bfloat16.
        keep: returns the caller's reason to keep a node in fp32, or None.
    """
    return _Assigner(program, rules, dtype, keep).run()


class _Assigner:
    def __init__(self, program: ExportedProgram, rules: Rules, dtype: torch.dtype, keep: Keep) -> None:
        self._nodes: list[torch.fx.Node] = list(program.graph.nodes)
        self._rules, self._dtype, self._keep = rules, dtype, keep
        signature = program.graph_signature
        self._weights = {*signature.inputs_to_parameters, *signature.inputs_to_buffers}
        self._weights |= {*signature.inputs_to_lifted_tensor_constants}
        new_values = {target: name for name, target in signature.buffers_to_mutate.items()}
        self._new_values = {n: new_values[t] for n, t in signature.inputs_to_buffers.items() if t in new_values}
        # Elements of a changed input that are not written must keep the caller's exact values.
        self._changed_inputs = set(signature.user_inputs_to_mutate)
        self._beyond = _beyond_half(program) if dtype is torch.float16 else set()
        self._kinds: dict[torch.fx.Node, Kind] = {}
        self._result = Assignment()

    def run(self) -> Assignment:
        for node in self._nodes:
            self._kinds[node] = self._kind(node)
        self._keep_tables()
        self._keep_coordinates()
        self._keep_what_leads_to_fp32()
        for node in self._nodes:
            if self._kinds[node] is Kind.FREE:
                self._kinds[node] = Kind.HALF
        self._settle_views()
        self._result.half |= {node for node, kind in self._kinds.items() if kind is Kind.HALF}
        return self._result

    def _kind(self, node: torch.fx.Node) -> Kind:
        if node.op == "placeholder":
            # Weights and state take the precision of their readers; the caller's inputs keep theirs.
            return Kind.VIEW if is_single(node) and node.name in self._weights else Kind.APART
        if node.op != "call_function" or not self._is_concerned(node):
            return Kind.APART
        if node.target is operator.getitem:
            return Kind.VIEW
        if reason := self._keep(node):
            return self._stay(node, reason)
        name = operator_name(node.target)
        if reason := self._rules.reason_for_fp32(name):
            return self._stay(node, reason)
        if any(other in self._beyond for other in node.all_input_nodes):
            self._beyond.add(node)
            return self._stay(node, "a weight that fp16 cannot hold")
        if name in self._rules.views:
            return Kind.VIEW
        if name in self._rules.half:
            return Kind.HALF
        if not any(map(is_single, node.all_input_nodes)):
            return self._stay(node, _TABLE)
        if self._dtype is torch.float16 and (constant := _constant_beyond_half(node)) is not None:
            return self._stay(node, f"the constant {constant:g}, which fp16 cannot hold")
        if name not in self._rules.follow and name not in self._rules.arithmetic:
            return self._stay(node, "no rule names it")
        return Kind.FREE

    def _is_concerned(self, node: torch.fx.Node) -> bool:
        if not isinstance(node.target, torch._ops.OpOverload) and node.target is not operator.getitem:
            return False
        values = [*_tensors(node), *(value for other in node.all_input_nodes for value in _tensors(other))]
        floating = [value for value in values if value.is_floating_point() or value.is_complex()]
        if not floating or any(value.dtype is not torch.float32 for value in floating):
            return False
        # Whole numbers that become floats may be too large for halves.
        return not (operator_name(node.target) == "aten._to_copy" and not any(map(is_single, node.all_input_nodes)))

    def _stay(self, node: torch.fx.Node, reason: str) -> Kind:
        self._result.reasons[node] = reason
        self._kinds[node] = Kind.FP32
        return Kind.FP32

    def _keep_tables(self) -> None:
        """Keeps in fp32 what does not depend on the caller's floats, on state, or on an operator in halves."""
        data = set[torch.fx.Node]()
        for node in self._nodes:
            if node.op == "placeholder":
                from_data = is_single(node) and (node.name not in self._weights or node.name in self._new_values)
            elif not _tensors(node):  # a size
                continue
            else:
                from_data = self._kinds[node] is Kind.HALF or any(other in data for other in node.all_input_nodes)
            if from_data:
                data.add(node)
            elif self._kinds[node] is Kind.FREE:
                self._stay(node, _TABLE)

    def _keep_coordinates(self) -> None:
        changed = self._changed_inputs
        for node in self._nodes:
            for argument in self._coordinates_of(node):
                self._keep_back_from(argument, "a coordinate")
            if node.name in changed:
                self._keep_back_from(node, "an input that is changed in place")

    def _coordinates_of(self, node: torch.fx.Node) -> Iterator[torch.fx.Node]:
        name = operator_name(node.target)
        for position in self._rules.coordinates.get(name, ()):
            if position < len(node.args) and isinstance(node.args[position], torch.fx.Node):
                yield node.args[position]
        # A float that is cast to a whole number is an index of a pixel or a row.
        if name == "aten._to_copy" and is_single(node.args[0]) and not is_single(node):
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor) and not value.is_floating_point() and value.dtype is not torch.bool:
                yield node.args[0]

    def _keep_back_from(self, node: torch.fx.Node, reason: str) -> None:
        waiting, seen = [node], {node}
        while waiting:
            current = waiting.pop()
            kind = self._kinds[current]
            if kind is Kind.FREE:
                self._stay(current, reason)
            if kind in (Kind.FREE, Kind.VIEW):
                waiting += [other for other in current.all_input_nodes if other not in seen]
                seen.update(current.all_input_nodes)

    def _keep_what_leads_to_fp32(self) -> None:
        for node in reversed(self._nodes):
            if self._kinds[node] is Kind.FREE and operator_name(node.target) in self._rules.arithmetic:
                readers = list(self._readers(node))
                if readers and all(self._kinds[reader] is Kind.FP32 for reader in readers):
                    self._stay(node, f"it leads to {readers[0].target} alone")

    def _readers(self, node: torch.fx.Node) -> Iterator[torch.fx.Node]:
        """Yields the nodes that compute with a node's value, directly or through views."""
        for user in node.users:
            if self._kinds[user] is Kind.VIEW:
                yield from self._readers(user)
            else:
                yield user

    def _settle_views(self) -> None:
        """Assigns halves to views of halves, and to views, weights and state that nothing reads in fp32."""
        wanted = {node: self._is_read_in_fp32(node) for node in reversed(self._nodes) if self._is_view(node)}
        for node in self._nodes:
            if not self._is_view(node):
                continue
            if node.op == "placeholder":
                half = not wanted[node]
            elif node.target is operator.getitem:
                half = self._kinds[node.args[0]] is Kind.HALF
            else:
                half = not wanted[node] or any(self._kinds[n] is Kind.HALF for n in node.all_input_nodes)
            self._kinds[node] = Kind.HALF if half else Kind.FP32
        self._keep_state_with_its_new_values()

    def _keep_state_with_its_new_values(self) -> None:
        """Keeps state in fp32 unless its new values are halves too."""
        named = {node.name: node for node in self._nodes}
        for name, new in self._new_values.items():
            if self._kinds[named[name]] is Kind.HALF and self._kinds[named[new]] is not Kind.HALF:
                self._kinds[named[name]] = Kind.FP32

    def _is_view(self, node: torch.fx.Node) -> bool:
        return self._kinds[node] is Kind.VIEW

    def _is_read_in_fp32(self, node: torch.fx.Node) -> bool:
        """Returns whether an operator outside of halves, or the caller, reads a node's value."""
        return any(self._kinds[reader] is not Kind.HALF for reader in self._readers(node))


def is_single(node: Any) -> bool:
    """Returns whether a node's value is or contains a float32 tensor."""
    return isinstance(node, torch.fx.Node) and any(value.dtype is torch.float32 for value in _tensors(node))


def _tensors(node: torch.fx.Node) -> list[torch.Tensor]:
    return [value for value in pytree.tree_leaves(node.meta.get("val")) if isinstance(value, torch.Tensor)]


def _constant_beyond_half(node: torch.fx.Node) -> float | None:
    """Returns a finite, nonzero argument that is outside of the range of fp16; None if there is none."""
    for value in pytree.tree_leaves((node.args, node.kwargs)):
        if isinstance(value, float) and math.isfinite(value) and value and not _SMALLEST <= abs(value) <= _LARGEST:
            return value
    return None


def _beyond_half(program: ExportedProgram) -> set[torch.fx.Node]:
    """Returns the placeholders of weights and constants with numbers beyond the range of fp16."""
    signature = program.graph_signature
    state = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = signature.inputs_to_lifted_tensor_constants
    found = set()
    for node in program.graph.find_nodes(op="placeholder"):
        tensor = program.state_dict.get(state.get(node.name, ""))
        if tensor is None:
            tensor = program.constants.get(state.get(node.name) or constants.get(node.name, ""))
        if isinstance(tensor, torch.Tensor) and tensor.dtype is torch.float32 and tensor.numel():
            least, most = (bound.item() for bound in tensor.aminmax())
            if max(-least, most) > _LARGEST and (least > -float("inf") or most < float("inf")):
                found.add(node)
    return found
