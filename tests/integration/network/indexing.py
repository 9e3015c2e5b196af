"""Layers that read and write at indices, and layers that return indices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.integration.network.layers import Compute, Layer, axes_of, demand, integers, only, reads, torch_dtype


@reads("GATHER", "IGatherLayer")
def gather(layer: Any, recorded: Layer) -> Compute:
    """Reads at indices: one outside of its dimension reads zero; a negative one counts from the end of a fixed size."""
    mode, axis, leading = layer.mode.name, layer.axis, layer.num_elementwise_dims
    sizes = list(recorded.inputs[0].shape)

    def counted(indices: Tensor, dim: int, length: int) -> tuple[Tensor, Tensor]:
        demand(sizes[dim] != -1 or not (indices < 0).any(), f"a negative index into the dynamic dimension {dim}")
        indices = torch.where(indices < 0, indices + length, indices).long()
        outside = (indices < 0) | (indices >= length)
        return indices.masked_fill(outside, 0), outside

    def default(data: Tensor, indices: Tensor) -> Tensor:
        demand(data.shape[axis] > 0 or not indices.numel(), "indices into no elements")
        places, outside = counted(indices, axis, data.shape[axis])
        if leading:
            rows = max(len(data), len(places))
            data, places, outside = (part.expand(rows, *part.shape[1:]) for part in (data, places, outside))
            return torch.stack([taken(*parts, axis - 1) for parts in zip(data, places, outside, strict=True)])
        return taken(data, places, outside, axis)

    def taken(data: Tensor, places: Tensor, outside: Tensor, dim: int) -> Tensor:
        read = data.index_select(dim, places.reshape(-1))
        read = read.reshape([*data.shape[:dim], *places.shape, *data.shape[dim + 1 :]])
        mask = outside.reshape([*outside.shape, *[1] * (data.ndim - dim - 1)])
        return torch.where(mask, torch.zeros((), dtype=data.dtype), read)

    def element(data: Tensor, indices: Tensor) -> Tensor:
        places, outside = counted(indices, axis, data.shape[axis])
        return torch.gather(data, axis, places).masked_fill(outside, 0)

    def nd(data: Tensor, indices: Tensor) -> Tensor:
        batch = data.shape[:leading]
        demand(batch == indices.shape[:leading], f"{tuple(indices.shape)} into {tuple(data.shape)}")
        parts = [counted(part, leading + i, data.shape[leading + i]) for i, part in enumerate(indices.unbind(-1))]
        rank = indices.ndim - 1
        rows = [torch.arange(n).reshape([-1, *[1] * (rank - dim - 1)]) for dim, n in enumerate(batch)]
        where = (*rows, *(places for places, _ in parts))
        read = data[where]
        outside = torch.stack([missing for _, missing in parts]).any(0)
        return read.masked_fill(outside.reshape([*outside.shape, *[1] * (read.ndim - rank)]), 0)

    return {"DEFAULT": default, "ELEMENT": element, "ND": nd}[mode]


@reads("SCATTER", "IScatterLayer")
def scatter(layer: Any, recorded: Layer) -> Compute:
    """Writes at indices. Updates of the same place must be equal, because it is not defined which one stays."""
    mode, axis = layer.mode.name, layer.axis

    def places_of(data: Tensor, indices: Tensor) -> Tensor:
        """Returns for each update the elements of the flat data that it writes."""
        numbers = torch.arange(data.numel()).reshape(data.shape)
        if mode == "ELEMENT":
            return torch.gather(numbers, axis, _counted(indices, data.shape[axis]))
        parts = [_counted(part, data.shape[dim]) for dim, part in enumerate(indices.unbind(-1))]
        return numbers[tuple(parts)]

    def compute(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        demand(data.dtype == updates.dtype, f"updates of {updates.dtype} to {data.dtype}")
        places = places_of(data, indices)
        demand(places.shape == updates.shape, f"updates of shape {tuple(updates.shape)} to {tuple(places.shape)}")
        result = data.reshape(-1).clone()
        result[places.reshape(-1)] = updates.reshape(-1)
        kept = result[places]
        same = (kept == updates) | (kept.isnan() & updates.isnan())
        demand(bool(same.all()), "two updates of one element")
        return result.reshape(data.shape)

    return compute


def _counted(indices: Tensor, length: int) -> Tensor:
    places = torch.where(indices < 0, indices + length, indices).long()
    demand(not ((places < 0) | (places >= length)).any(), f"an index outside of {length} elements")
    return places


@reads("TOPK", "ITopKLayer")
def topk(layer: Any, recorded: Layer) -> Compute:
    """Returns sorted values. The documentation defines no order of equal values; here the first comes first."""
    largest, fixed = layer.op.name == "MAX", layer.k
    axes = axes_of(layer.axes)
    only(len(axes) == 1, f"the largest over axes {axes}")
    dtype = torch_dtype(layer.indices_type)

    def compute(x: Tensor, k: Tensor | None = None) -> list[Tensor]:
        count = fixed if k is None else integers(k)[0]
        demand(0 < count <= x.shape[axes[0]], f"{count} of {x.shape[axes[0]]} values")
        values, indices = torch.sort(x, dim=axes[0], descending=largest, stable=True)
        return [values.narrow(axes[0], 0, count), indices.narrow(axes[0], 0, count).to(dtype)]

    return compute


@reads("NON_ZERO", "INonZeroLayer")
def non_zero(_: Any, recorded: Layer) -> Compute:
    (dtype,) = recorded.dtypes
    return lambda x: x.nonzero().t().to(dtype)


@reads("ONE_HOT", "IOneHotLayer")
def one_hot(layer: Any, _: Layer) -> Compute:
    axis = layer.axis

    def compute(indices: Tensor, values: Tensor, depth: Tensor) -> Tensor:
        classes = torch.arange(integers(depth)[0])
        hit = (indices.unsqueeze(-1) == classes).movedim(-1, axis)
        return torch.where(hit, values[1], values[0])

    return compute
