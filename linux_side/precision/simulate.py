"""Simulates mixed precision on the CPU: runs the fp32 graph and rounds values as an engine does.

The float32 arguments of an operator in halves are rounded, it computes in fp32, and its result is rounded; TensorRT
also accumulates products of halves in fp32. The factors of a product that stays in fp32 are rounded to TF32 if the
build allows it. So one fp32 graph serves every assignment, and no CPU kernels for halves are needed.
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
        program: the program.
        half: the nodes whose values are rounded; if empty, the program runs in fp32.
        dtype: the half dtype.
        leaves: the user inputs, in graph order.
        tf32: the names of operators whose float32 arguments are rounded to TF32 if they are not in halves.
        state: the state after earlier calls by name, which is updated; None for the program's initial state.

    Returns:
        The user outputs, in graph order, without new values of state.
    """
    state = {} if state is None else state
    inputs = [*_tensors_of(program, state), *leaves]
    with torch.no_grad():
        results = _Rounding(program.graph_module, half, dtype, tf32).run(*inputs, enable_io_processing=False)
    outputs = list(zip(results, program.graph_signature.output_specs, strict=True))
    state.update((spec.target, value) for value, spec in outputs if spec.kind is OutputKind.BUFFER_MUTATION)
    return [value for value, spec in outputs if spec.kind is OutputKind.USER_OUTPUT]


def relative_errors(got: Sequence[Any], want: Sequence[Any]) -> list[float | None]:
    """Returns ``||got - want|| / ||want||`` of each output; None for an output that is not a tensor of floats.

    Equal values (including infinities) and pairs of NaN count as no error. Other values that are not both finite make
    the error infinite. If an output should be zero everywhere and is not, its relative error is undefined: None.
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
        # Inputs are rounded where they are used. Rounding all weights at the start would keep two copies of them.
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
    """Returns the tensors of the placeholders other than user inputs. A functional graph does not write into them."""
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
