"""What a graph loses in halves, measured on the CPU: the fp32 graph runs, and values are rounded as in an engine.

An operator in halves gets its float32 arguments rounded, computes in fp32, and its result is rounded: TensorRT
accumulates products of halves in fp32 too. A product that stays in fp32 gets its factors rounded to TF32, where the
build allows it. So one fp32 graph serves for every assignment, and no CPU kernel for halves is needed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from linux_side.precision.rules import operator_name

# TF32 has 10 of the 23 bits of an fp32 mantissa.
_TF32_HALF_UNIT, _TF32_MASK = 0x1000, ~0x1FFF


def run_rounded(
    program: ExportedProgram,
    half: Collection[torch.fx.Node],
    dtype: torch.dtype,
    leaves: Sequence[Any],
    tf32: Collection[str] = (),
    state: dict[str, Any] | None = None,
) -> list[Any]:
    """Runs a functional fp32 program with some nodes in halves.

    Args:
        half: the nodes whose values are rounded; of none, the program runs in fp32.
        dtype: of the halves.
        leaves: the user inputs, in the order of the graph.
        tf32: names of operators whose float32 arguments are rounded to TF32 where they are not in halves.
        state: of the calls before this one, by name; its new values are put there. None: the program's own.

    Returns:
        The user outputs, in the order of the graph; new values of state are left out.
    """
    state = {} if state is None else state
    inputs = [*_tensors_of(program, state), *leaves]
    with torch.no_grad():
        results = _Rounding(program.graph_module, half, dtype, tf32).run(*inputs, enable_io_processing=False)
    outputs = list(zip(results, program.graph_signature.output_specs, strict=True))
    state.update((spec.target, value) for value, spec in outputs if spec.kind is OutputKind.BUFFER_MUTATION)
    return [value for value, spec in outputs if spec.kind is OutputKind.USER_OUTPUT]


def relative_errors(got: Sequence[Any], want: Sequence[Any]) -> list[float | None]:
    """``||got - want|| / ||want||`` of each output; None of one that is no tensor of floats.

    Values that are equal, infinities too, or both NaN are no error. Where only one is finite the error is infinite. An
    output that should be zero everywhere and is not has no relative error: None.
    """
    return [_relative_error(a, b) for a, b in zip(got, want, strict=True)]


class _Rounding(torch.fx.Interpreter):
    def __init__(
        self, gm: torch.fx.GraphModule, half: Collection[torch.fx.Node], dtype: torch.dtype, tf32: Collection[str]
    ) -> None:
        super().__init__(gm)
        self._half, self._dtype, self._tf32 = half, dtype, tf32

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        apart = n.op == "placeholder" or n.target is operator.getitem
        return result if apart or n not in self._half else _rounded(result, self._to_half)

    def map_nodes_to_values(self, args: Any, n: torch.fx.Node) -> Any:
        # Inputs are rounded where they are used: all weights come first, and rounded they would all be there twice.
        return torch.fx.map_arg(args, self._value)

    def _value(self, node: torch.fx.Node) -> Any:
        value = self.env[node]
        return _rounded(value, self._to_half) if node.op == "placeholder" and node in self._half else value

    def fetch_args_kwargs_from_env(self, n: torch.fx.Node) -> Any:
        found = super().fetch_args_kwargs_from_env(n)
        if n.op != "call_function":
            return found
        if n in self._half:
            return _rounded(found, self._to_half)
        return _rounded(found, _to_tf32) if operator_name(n.target) in self._tf32 else found

    def _to_half(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self._dtype).float()


def _rounded(values: Any, rounding: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return pytree.tree_map_only(
        torch.Tensor, lambda value: rounding(value) if value.dtype is torch.float32 else value, values
    )


def _to_tf32(value: torch.Tensor) -> torch.Tensor:
    return ((value.contiguous().view(torch.int32) + _TF32_HALF_UNIT) & _TF32_MASK).view(torch.float32)


def _tensors_of(program: ExportedProgram, state: Mapping[str, Any]) -> list[Any]:
    """The tensors behind the placeholders that are no user inputs; a functional graph does not write into them."""
    signature = program.graph_signature
    found = []
    for spec in signature.input_specs:
        if spec.target is not None:
            value = state.get(spec.target, program.state_dict.get(spec.target))
            found.append(program.constants[spec.target] if value is None else value)
    return found


def _relative_error(got: Any, want: Any) -> float | None:
    if not isinstance(want, torch.Tensor) or not (want.is_floating_point() or want.is_complex()):
        return None
    a, b = _doubles(got), _doubles(want)
    same = (a == b) | (a.isnan() & b.isnan())
    if bool((~(a.isfinite() & b.isfinite()) & ~same).any()):
        return math.inf
    error = (a - b).masked_fill(same, 0.0).norm().item()
    length = b.masked_fill(~b.isfinite(), 0.0).norm().item()
    return error / length if length else (0.0 if error == 0 else None)


def _doubles(value: torch.Tensor) -> torch.Tensor:
    return (torch.view_as_real(value.resolve_conj()) if value.is_complex() else value).double()
