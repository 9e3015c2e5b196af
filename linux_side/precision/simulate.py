"""What a graph loses in halves, measured on the CPU: the fp32 graph runs, and values are rounded as in an engine.

An operator in halves gets its float32 arguments rounded, computes in fp32, and its result is rounded: TensorRT
accumulates products of halves in fp32 too. So one fp32 graph serves for every assignment, and no CPU kernel for
halves is needed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree


def run_rounded(
    program: ExportedProgram, half: Collection[torch.fx.Node], dtype: torch.dtype, leaves: Sequence[Any]
) -> list[Any]:
    """Runs a functional fp32 program with some nodes in halves.

    Args:
        half: the nodes whose values are rounded; of none, the program runs in fp32.
        dtype: of the halves.
        leaves: the user inputs, in the order of the graph.

    Returns:
        The user outputs, in the order of the graph; new values of state are left out.
    """
    inputs = [*_state(program), *leaves]
    with torch.no_grad():
        results = _Rounding(program.graph_module, half, dtype).run(*inputs, enable_io_processing=False)
    specs = program.graph_signature.output_specs
    return [value for value, spec in zip(results, specs, strict=True) if spec.kind is OutputKind.USER_OUTPUT]


def relative_errors(got: Sequence[Any], want: Sequence[Any]) -> list[float | None]:
    """``||got - want|| / ||want||`` of each output; None of one that is no tensor of floats."""
    return [_relative_error(a, b) for a, b in zip(got, want, strict=True)]


class _Rounding(torch.fx.Interpreter):
    def __init__(self, gm: torch.fx.GraphModule, half: Collection[torch.fx.Node], dtype: torch.dtype) -> None:
        super().__init__(gm)
        self._half, self._dtype = half, dtype

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        return self._rounded(result) if n in self._half and n.target is not operator.getitem else result

    def fetch_args_kwargs_from_env(self, n: torch.fx.Node) -> Any:
        found = super().fetch_args_kwargs_from_env(n)
        return self._rounded(found) if n in self._half and n.op == "call_function" else found

    def _rounded(self, values: Any) -> Any:
        return pytree.tree_map_only(torch.Tensor, self._round, values)

    def _round(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self._dtype).float() if value.dtype is torch.float32 else value


def _state(program: ExportedProgram) -> list[Any]:
    """The tensors behind the placeholders that are no user inputs; a functional graph does not write into them."""
    signature = program.graph_signature
    found = []
    for spec in signature.input_specs:
        if spec.target is not None:
            value = program.state_dict.get(spec.target)
            found.append(program.constants[spec.target] if value is None else value)
    return found


def _relative_error(got: Any, want: Any) -> float | None:
    if not isinstance(want, torch.Tensor) or not (want.is_floating_point() or want.is_complex()):
        return None
    a, b = got.to(torch.complex128 if want.is_complex() else torch.float64), want
    if not bool(torch.isfinite(torch.view_as_real(a) if a.is_complex() else a).all()):
        return math.inf
    length = b.to(a.dtype).norm().item()
    error = (a - b).norm().item()
    return error / length if length else (0.0 if error == 0 else math.inf)
