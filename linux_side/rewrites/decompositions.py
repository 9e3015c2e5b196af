"""The table of decompositions for lowering: upstream's, with ours in place of the wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from linux_side.rewrites import (
    antialiasing,
    distances,
    dtypes,
    empty,
    empty_parts,
    experts,
    floors,
    functions,
    masks,
    normalization,
    padding,
    pooling,
    resizing,
    scans,
    scatter,
    sizes,
    slices,
    softmax,
    splitting,
    statistics,
    unfolding,
)

Decompositions = dict[torch._ops.OpOverload, Callable[..., Any]]

_aten = torch.ops.aten

# Upstream unrolls both over the rows of the example, which is wrong for a size that varies. It also rounds "mean"
# toward zero and refuses include_self=False. TensorRT has no scatter that reduces, so PyTorch computes them.
KEPT_IN_PYTORCH = (_aten.scatter_add.default, _aten.scatter_reduce.two)

OURS: Decompositions = {
    **antialiasing.DECOMPOSITIONS,
    **distances.DECOMPOSITIONS,
    **dtypes.DECOMPOSITIONS,
    **empty.DECOMPOSITIONS,
    **empty_parts.DECOMPOSITIONS,
    **floors.DECOMPOSITIONS,
    **functions.DECOMPOSITIONS,
    **masks.DECOMPOSITIONS,
    **normalization.DECOMPOSITIONS,
    **padding.DECOMPOSITIONS,
    **pooling.DECOMPOSITIONS,
    **resizing.DECOMPOSITIONS,
    **scans.DECOMPOSITIONS,
    **scatter.DECOMPOSITIONS,
    **sizes.DECOMPOSITIONS,
    **slices.DECOMPOSITIONS,
    **softmax.DECOMPOSITIONS,
    **splitting.DECOMPOSITIONS,
    **statistics.DECOMPOSITIONS,
    **unfolding.DECOMPOSITIONS,
}


def corrected(upstream: Mapping[torch._ops.OpOverload, Callable[..., Any]]) -> Decompositions:
    """Returns upstream's decompositions with ours added, and without operators that stay in PyTorch."""
    table = {**upstream, **OURS, **experts.decompositions()}
    for operator in KEPT_IN_PYTORCH:
        table.pop(operator, None)
    return table
