"""Small sizes that operators tell from others while a program is traced, most of them to lay out memory.

A convolution behind channels-last activations asks whether its input is channels last. The answer is another for a
batch of 1, so torch guards it, and narrows a range from 1 to one from 2.
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
def operators_narrow_no_range() -> Iterator[None]:
    """Keeps the smallest sizes in their ranges where an operator excludes them, while a model is traced.

    The guard stays: :mod:`linux_side.frontend.refuted_guards` tries the program at those sizes.
    """
    backend = _unguarded("_select_conv_backend")  # whose answer depends on how many elements there are
    with _small_sizes_in_range(is_of_operator), _no_record_of_layouts(), backend:
        yield


def _small_sizes_in_range(asked_by: Callable[[Any], bool]) -> AbstractContextManager[Any]:
    """Keeps the smallest sizes in their ranges where a guard excludes them, by whom it was asked."""
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
    """Lets torch not ask of each result whether it is contiguous, only to write that down beside its node."""
    record = partial(proxy_tensor._extract_tensor_metadata, include_contiguity=False)
    patched: AbstractContextManager[Any] = patch.object(proxy_tensor, "_extract_tensor_metadata", record)
    return patched


@contextmanager
def unguarded_layouts() -> Iterator[None]:
    """Lets convolutions ask of a memory layout without a guard: the answer is that of the example's sizes.

    For a program that was exported. Its operators write nothing, so that none sees whether another's result is a view,
    and TensorRT knows no strides. Where another operator asks, its guard stays, and small sizes stay in their ranges:
    :mod:`linux_side.lowering.small_sizes` tries the lowered graph at those.
    """
    with (
        _small_sizes_in_range(lambda _: True),
        _no_record_of_layouts(),
        _unguarded("_select_conv_backend"),
        _unguarded("_conv_determine_backend_memory_format"),
    ):
        yield


def _unguarded(name: str) -> AbstractContextManager[Any]:
    """Runs a function of torch's own, of a tensor and more, without guards."""
    asked: Callable[..., Any] = getattr(torch._C, name)

    def answer(x: torch.Tensor, *others: Any, **options: Any) -> Any:
        with _suppressed(x):
            return asked(x, *others, **options)

    patched: AbstractContextManager[Any] = patch.object(torch._C, name, answer)
    return patched


def copy_explicitly(program: ExportedProgram) -> None:
    """Makes a copy of each ``contiguous`` that is one at the example's sizes, in place.

    An expanded tensor of one row has the strides of its copy: traced again, ``contiguous`` excludes a batch of 1.
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
