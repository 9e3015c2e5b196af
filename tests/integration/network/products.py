"""Products of matrices, and attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.integration.network.layers import Compute, Layer, demand, only, reads


@reads("MATRIX_MULTIPLY", "IMatrixMultiplyLayer")
def matrix_multiply(layer: Any, _: Layer) -> Compute:
    first, second = layer.op0.name, layer.op1.name

    def compute(a: Tensor, b: Tensor) -> Tensor:
        a = a.unsqueeze(-2) if first == "VECTOR" else a.mT if first == "TRANSPOSE" else a
        b = b.unsqueeze(-1) if second == "VECTOR" else b.mT if second == "TRANSPOSE" else b
        demand(a.ndim == b.ndim, f"collections of shapes {tuple(a.shape)} and {tuple(b.shape)}")
        demand(a.is_floating_point() and a.dtype == b.dtype, f"a product of {a.dtype} and {b.dtype}")
        demand(a.shape[-1] == b.shape[-2], f"a product of shapes {tuple(a.shape)} and {tuple(b.shape)}")
        result = a @ b
        result = result.squeeze(-1) if second == "VECTOR" else result
        return result.squeeze(-1 if second == "VECTOR" else -2) if first == "VECTOR" else result

    return compute


@reads("EINSUM", "IEinsumLayer")
def einsum(layer: Any, _: Layer) -> Compute:
    equation = layer.equation
    return lambda *operands: torch.einsum(equation, *operands)


@reads("ATTENTION_INPUT", "IAttentionInputLayer")
def attention_input(_: Any, recorded: Layer) -> Compute:
    """Reads the input boundary of an attention, which is computed at its output boundary."""
    recorded.inputs, recorded.outputs = [], []
    return list


@reads("ATTENTION_OUTPUT", "IAttentionOutputLayer")
def attention_output(layer: Any, recorded: Layer) -> Compute:
    """Computes ``normalization(query @ key.T + mask) @ value``; the network scales the query where it needs to.

    A boolean mask is true where a query sees a key. Several heads of queries share a head of keys if those are fewer.
    """
    attention = layer.attention
    recorded.inputs = [attention.get_input(index) for index in range(3)] + [attention.mask]
    normalize, causal = attention.norm_op.name, attention.causal_kind.name
    only(attention.query_form.name == attention.key_value_form.name == "PADDED_BHND", "packed attention")
    only(attention.query_lengths is None and attention.key_value_lengths is None, "attention with lengths")
    only(attention.normalization_quantize_scale is None, "quantized attention")
    only(attention.num_ranks == 1, "attention over several devices")

    def compute(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        demand(query.shape[1] % key.shape[1] == 0, f"{query.shape[1]} heads of queries, {key.shape[1]} of keys")
        shared = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(shared, dim=1) for part in (key, value))
        scores = query @ key.mT
        seen = _seen(scores, causal)
        if mask is not None:
            demand(mask.ndim == scores.ndim, f"a mask of shape {tuple(mask.shape)}")
            if mask.dtype is torch.bool:
                seen = mask if seen is None else seen & mask
            else:
                scores = scores + mask
        if seen is not None:
            scores = scores.masked_fill(~seen, -torch.inf)
        return (scores.softmax(-1) if normalize == "SOFTMAX" else scores) @ value

    return compute


def _seen(scores: Tensor, causal: str) -> Tensor | None:
    """Returns which keys each query sees, or None where it sees all."""
    if causal == "NONE":
        return None
    queries, keys = scores.shape[-2:]
    last = torch.arange(queries).unsqueeze(1) + (keys - queries if causal == "LOWER_RIGHT" else 0)
    return torch.arange(keys) <= last


@reads("KV_CACHE_UPDATE", "IKVCacheUpdateLayer")
def cache_update(layer: Any, recorded: Layer) -> Compute:
    """Writes ``update`` into each sequence of a cache, from its index on.

    An engine writes in place; its aliases state whose memory that is.
    """
    only(layer.cache_mode.name == "LINEAR", f"cache mode {layer.cache_mode.name}")
    only(layer.update_form.name == "PADDED_BHND", f"update form {layer.update_form.name}")
    demand(recorded.inputs[0].is_network_input, "the cache is no input of the network")
    demand(recorded.outputs[0].is_network_output, "the cache is no output of the network")

    def compute(cache: Tensor, update: Tensor, places: Tensor) -> Tensor:
        result = cache.clone()
        length = update.shape[2]
        for row, place in enumerate(places.tolist()):
            demand(0 <= place <= cache.shape[2] - length, f"{length} positions from {place} on of {cache.shape[2]}")
            result[row, :, place : place + length] = update[row]
        return result

    return compute
