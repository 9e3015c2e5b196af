"""Keeps small sizes in their ranges although operators treat them specially while a program is traced.

Most of these operators decide about a memory layout. For example, a convolution after channels-last activations queries
whether its input is channels last. The answer differs for a batch of 1, so torch adds a guard, and narrows a range from
1 to one from 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch.export import ExportedProgram
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from linux_side.guards.locations import is_of_operator


@contextmanager
def small_sizes_kept_in_ranges() -> Iterator[None]:
    """Keeps the smallest sizes in their ranges if an operator excludes them while a model is traced.

    The guard stays: :mod:`linux_side.frontend.refuted_guards` tests the program at those sizes.
    """
    backend = _unguarded("_select_conv_backend")  # its answer depends on the number of elements
    with _small_sizes_in_range(is_of_operator), _no_record_of_layouts(), backend:
        yield


def _small_sizes_in_range(asked_by: Callable[[Any], bool]) -> AbstractContextManager[Any]:
    """Keeps the smallest sizes in their ranges if a guard excludes them.

    Args:
        asked_by: returns whether that holds for a guard, given its ``sloc``.
    """
    original = ShapeEnv._refine_ranges

    def refine(env: ShapeEnv, expression: Any) -> None:
        before = dict(env.var_to_range)
        original(env, expression)
        narrowed = {symbol: known for symbol, known in before.items() if known != env.var_to_range[symbol]}
        if narrowed and asked_by(env._get_sloc()):
            for symbol, known in narrowed.items():
                if symbol in env.backed_var_to_val and known.upper == env.var_to_range[symbol].upper:
                    env.var_to_range[symbol] = known
            env._maybe_evaluate_static.cache_clear()

    patched: AbstractContextManager[Any] = patch.object(ShapeEnv, "_refine_ranges", refine)
    return patched


def _no_record_of_layouts() -> AbstractContextManager[Any]:
    """Stops torch from querying whether each result is contiguous only to record it in the node's metadata."""
    record = partial(proxy_tensor._extract_tensor_metadata, include_contiguity=False)
    patched: AbstractContextManager[Any] = patch.object(proxy_tensor, "_extract_tensor_metadata", record)
    return patched


@contextmanager
def unguarded_layouts() -> Iterator[None]:
    """Lets convolutions query a memory layout without a guard; the answer is that for the example's sizes.

    This is for exported programs. Their operators do not write into arguments, so none depends on whether another's
    result is a view, and TensorRT has no strides. The guards of other operators stay, and small sizes stay in their
    ranges: :mod:`linux_side.lowering.small_sizes` tests the lowered graph at them.
    """
    with (
        _small_sizes_in_range(lambda _: True),
        _no_record_of_layouts(),
        _unguarded("_select_conv_backend"),
        _unguarded("_conv_determine_backend_memory_format"),
    ):
        yield


def _unguarded(name: str) -> AbstractContextManager[Any]:
    """Patches a function of ``torch._C``, whose first argument is a tensor, to run without guards."""
    asked: Callable[..., Any] = getattr(torch._C, name)

    def answer(x: torch.Tensor, *others: Any, **options: Any) -> Any:
        with _suppressed(x):
            return asked(x, *others, **options)

    patched: AbstractContextManager[Any] = patch.object(torch._C, name, answer)
    return patched


def copy_explicitly(program: ExportedProgram) -> None:
    """Replaces each ``contiguous`` that copies at the example's sizes by an explicit copy, in place.

    With one row, an expanded tensor is already contiguous. So if ``contiguous`` is traced again, it excludes a batch of
    1.
    """
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.contiguous.default):
        value = node.args[0].meta["val"]
        layout = node.kwargs.get("memory_format", torch.contiguous_format)
        with _suppressed(value):
            is_copy = not value.is_contiguous(memory_format=layout)
        if is_copy:
            node.target = torch.ops.aten.clone.default
            node.kwargs = {"memory_format": layout}
    program.graph_module.recompile()


def _suppressed(value: torch.Tensor) -> AbstractContextManager[Any]:
    environments = [size.node.shape_env for size in value.shape if isinstance(size, torch.SymInt)]
    suppressed: AbstractContextManager[Any] = environments[0].suppress_guards() if environments else nullcontext()
    return suppressed
