"""Checks a CUDA graph before its first use: an engine may be missing in it although the capture reported no error.

Torch-TensorRT's operator ignores the status of ``IExecutionContext::enqueueV3``. TensorRT refuses to enqueue an engine
with a loop in a capture, so the graph has the operators around the engine, and reads whatever is in the memory of the
engine's outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from toolchain.errors import IncompatibleError

# Kernels of the capture may differ from those of the call before it, so rounding does.
_LIMIT = 0.1
_POISON = 0xFF  # in each byte: NaN with a payload that no operator computes, -1, or a boolean that is neither
_SAME_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def kept_tensors(module: torch.fx.GraphModule) -> Iterator[torch.Tensor]:
    """Yields the parameters, buffers and constants that a program reads."""
    for node in module.graph.find_nodes(op="get_attr"):
        value: Any = module
        for name in node.target.split("."):
            value = getattr(value, name)
        if isinstance(value, torch.Tensor):
            yield value


def draws_numbers(module: torch.fx.GraphModule) -> bool:
    """Returns whether a program has an operator in PyTorch that may draw random numbers."""
    return any(torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in module.graph.nodes)


def check_capture(
    replay: Callable[[], None],
    outputs: Sequence[Any],
    expected: Sequence[Any],
    *,
    kept: Iterable[torch.Tensor],
    draws: bool,
) -> None:
    """Replays a graph once and compares its outputs with those of a call that was not captured.

    Args:
        replay: replays the graph; it must leave state and inputs as they were.
        outputs: the graph's own flat outputs; they are overwritten.
        expected: the flat outputs of a call with the same arguments and state.
        kept: the inputs, weights and state. An output in their memory is neither overwritten nor compared.
        draws: whether two calls may differ because they draw random numbers. If so, the outputs must be written.

    Raises:
        IncompatibleError: an output was not written, or differs by more than kernels do.
    """
    memory = {_storage(tensor) for tensor in kept}
    computed = {
        index: (out, want)
        for index, (out, want) in enumerate(zip(outputs, expected, strict=True))
        if isinstance(out, torch.Tensor) and out.numel() and memory.isdisjoint((_storage(out), _storage(want)))
    }
    for out, _ in computed.values():
        _fill(out, _POISON)
    replay()
    for index, (out, want) in computed.items():
        if _is_poison(out) and not _is_poison(want):
            raise _not_captured(f"output {index} is not written")
        if not draws and not agree(out, want):
            raise _not_captured(f"output {index} differs from that of a call without graphs")


def agree(got: torch.Tensor, want: torch.Tensor) -> bool:
    """Returns whether two tensors of one shape and dtype could be results of two kernels for one operator.

    Finite floats must agree by relative L2, infinities, NaN, integers and booleans in most elements.
    """
    got, want = _real(got), _real(want)
    same = got == want
    if not want.is_floating_point():
        return _mostly(same)
    finite = got.isfinite() & want.isfinite()
    if not _mostly(finite | same | (got.isnan() & want.isnan())):
        return False
    difference = torch.where(finite, got - want, 0)
    return _norm(difference) <= _LIMIT * _norm(torch.where(finite, want, 0))


def _mostly(same: torch.Tensor) -> bool:
    return same.sum().item() >= (1 - _LIMIT) * same.numel()


def _norm(values: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64))


def _fill(tensor: torch.Tensor, byte: int) -> None:
    """Fills a tensor's memory, also what a view does not show: a view may repeat elements."""
    torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage()).fill_(byte)


def _is_poison(tensor: torch.Tensor) -> bool:
    tensor = _real(tensor)
    return bool((tensor.view(_SAME_SIZE[tensor.element_size()]) == -1).all())


def _real(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _not_captured(what: str) -> IncompatibleError:
    return IncompatibleError(
        f"this model cannot be captured in a CUDA graph: {what}, so an engine is missing in the graph",
        where="load(cuda_graphs=True)",
        remedy="load it without cuda_graphs",
    )
