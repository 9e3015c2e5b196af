"""Operators that reduce, scan or sort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.operators.trial import FLOATS, INTEGERS, Draw, Trial

BOTH = (*FLOATS, *INTEGERS)


def reduction(
    function: Callable[[Any, Any, bool], Any],
    dtypes: Any = FLOATS,
    kinds: tuple[str, ...] = ("usual", "large", "special"),
    several: bool = True,
) -> Callable[[Draw], Trial]:
    """Makes trials of a reduction over one dimension, several (if it can) or all, counted from either end.

    The first dimension is never reduced alone.
    """

    def make(d: Draw) -> Trial:
        sizes, dtype, keep = d.sizes(1, 3), d.pick(*dtypes), d.pick(True, False)
        dims = list(range(-len(sizes), len(sizes) + 1))
        dim: Any = d.pick(*dims)
        if several and d.maybe():
            other = d.pick(*dims)
            dim = [dim, other] if (dim - other) % (len(sizes) + 1) else [dim]
        return d.trial(
            lambda x: function(x, dim, keep), lambda rows, kind: (d.tensor([rows, *sizes], dtype, kind),), kinds
        )

    return make


def whole(
    function: Callable[[Any], Any], dtypes: Any = FLOATS, kinds: tuple[str, ...] = ("usual", "special")
) -> Callable[[Draw], Trial]:
    def make(d: Draw) -> Trial:
        sizes, dtype = d.sizes(0, 2), d.pick(*dtypes)
        return d.trial(function, lambda rows, kind: (d.tensor([rows, *sizes], dtype, kind),), kinds)

    return make


def along(
    function: Callable[[Any, int], Any], dtypes: Any = FLOATS, kinds: tuple[str, ...] = ("usual", "large", "special")
) -> Callable[[Draw], Trial]:
    def make(d: Draw) -> Trial:
        sizes, dtype = d.sizes(1, 3), d.pick(*dtypes)
        dim = d.integer(-len(sizes), len(sizes))
        return d.trial(lambda x: function(x, dim), lambda rows, kind: (d.tensor([rows, *sizes], dtype, kind),), kinds)

    return make


def distinct(
    function: Callable[[Any, int], Any], dtypes: Any = (torch.float32, torch.int64)
) -> Callable[[Draw], Trial]:
    """Makes trials with a tensor whose elements all differ, so that there is only one right result."""

    def make(d: Draw) -> Trial:
        sizes, dtype = d.sizes(1, 2), d.pick(*dtypes)
        dim = d.integer(-len(sizes), len(sizes))

        def inputs(rows: int, kind: str) -> tuple[torch.Tensor, ...]:
            shape = [rows, *sizes]
            order = torch.argsort(d.tensor([torch.Size(shape).numel()], torch.float32)).reshape(shape)
            return ((order - 7).to(dtype),)

        return d.trial(lambda x: function(x, dim), inputs, ("usual", "again"))

    return make


def _masked_softmax(d: Draw) -> Trial:
    sizes, dtype = d.sizes(1, 2), d.pick(*FLOATS)
    function = d.pick(torch.softmax, torch.log_softmax)

    def inputs(rows: int, kind: str) -> tuple[torch.Tensor, ...]:
        shape = [rows, *sizes]
        mask = d.tensor(shape, torch.bool)
        mask[0] = True
        return d.tensor(shape, dtype), mask

    return d.trial(lambda x, m: function(x.masked_fill(m, float("-inf")), -1), inputs, ("usual", "again"), (0, 0))


USUAL = ("usual", "tiny", "large")
OPERATORS: dict[str, Callable[[Draw], Trial]] = {
    "sum": reduction(lambda x, dim, keep: x.sum(dim, keep), (*BOTH, torch.bool), ("usual", "tiny", "special")),
    "mean": reduction(lambda x, dim, keep: x.mean(dim, keep), kinds=("usual", "tiny", "special")),
    "amax": reduction(lambda x, dim, keep: x.amax(dim, keep), BOTH),
    "amin": reduction(lambda x, dim, keep: x.amin(dim, keep), BOTH),
    "prod": reduction(
        lambda x, dim, keep: x.prod(dim, keep), (torch.float32, torch.int64), ("usual", "special"), several=False
    ),
    "any": reduction(lambda x, dim, keep: x.any(dim, keep), (*BOTH, torch.bool), ("usual", "tiny", "special")),
    "all": reduction(
        lambda x, dim, keep: x.all(dim, keep), (*BOTH, torch.bool), ("usual", "tiny", "special"), several=False
    ),
    "max.dim": reduction(lambda x, dim, keep: x.max(dim, keep).values, BOTH, several=False),
    "min.dim": reduction(lambda x, dim, keep: x.min(dim, keep).values, BOTH, several=False),
    "var": reduction(lambda x, dim, keep: x.var(dim, keepdim=keep), kinds=USUAL),
    "var, correction 0": reduction(lambda x, dim, keep: x.var(dim, correction=0, keepdim=keep), kinds=USUAL),
    "var, correction 2": reduction(lambda x, dim, keep: x.var(dim, correction=2, keepdim=keep), kinds=("usual",)),
    "std": reduction(lambda x, dim, keep: x.std(dim, keepdim=keep), kinds=USUAL),
    "var_mean": reduction(lambda x, dim, keep: torch.var_mean(x, dim, keepdim=keep), kinds=("usual",)),
    "norm, 2": reduction(
        lambda x, dim, keep: torch.linalg.vector_norm(x, 2, dim, keep), kinds=("usual", "tiny", "special")
    ),
    "norm, 1": reduction(
        lambda x, dim, keep: torch.linalg.vector_norm(x, 1, dim, keep), kinds=("usual", "tiny", "special")
    ),
    "norm, inf": reduction(
        lambda x, dim, keep: torch.linalg.vector_norm(x, float("inf"), dim, keep), kinds=("usual", "special")
    ),
    "norm, 3": reduction(
        lambda x, dim, keep: torch.linalg.vector_norm(x, 3, dim, keep), (torch.float32,), kinds=("usual",)
    ),
    "logsumexp": reduction(lambda x, dim, keep: torch.logsumexp(x, dim, keep), (torch.float32, torch.float16)),
    "count_nonzero": reduction(lambda x, dim, keep: torch.count_nonzero(x, dim), BOTH, ("usual", "tiny")),
    "nansum": reduction(lambda x, dim, keep: torch.nansum(x, dim, keep), (torch.float32,), ("special",)),
    "sum to a dtype": reduction(lambda x, dim, keep: x.sum(dim, keep, dtype=torch.float32), BOTH, ("usual", "large")),
    "sum of all": whole(torch.sum, (*BOTH, torch.bool)),
    "mean of all": whole(torch.mean),
    "max of all": whole(torch.max, BOTH),
    "min of all": whole(torch.min, BOTH),
    "prod of all": whole(torch.prod, (torch.float32, torch.int64), ("usual",)),
    "any of all": whole(torch.any, (*BOTH, torch.bool)),
    "all of all": whole(torch.all, (*BOTH, torch.bool)),
    "var of all": whole(torch.var, kinds=("usual",)),
    "std of all": whole(torch.std, kinds=("usual",)),
    "aminmax": whole(lambda x: tuple(torch.aminmax(x)), BOTH),
    "softmax": along(lambda x, dim: torch.softmax(x, dim)),
    "softmax to fp32": along(lambda x, dim: torch.softmax(x, dim, dtype=torch.float32)),
    "log_softmax": along(lambda x, dim: torch.log_softmax(x, dim)),
    "log_softmax to fp32": along(lambda x, dim: torch.log_softmax(x, dim, dtype=torch.float32)),
    "log_softmax, far apart": along(lambda x, dim: torch.log_softmax(x * 30, dim), kinds=("usual", "halves")),
    "softmax, masked": _masked_softmax,
    "softmin": along(lambda x, dim: torch.nn.functional.softmin(x, dim), kinds=("usual", "large")),
    "normalize": along(lambda x, dim: torch.nn.functional.normalize(x, dim=dim), kinds=("usual", "tiny")),
    "cumsum": along(lambda x, dim: torch.cumsum(x, dim), (*BOTH, torch.bool), ("usual", "tiny")),
    "cumprod": along(lambda x, dim: torch.cumprod(x, dim), (torch.float32,), ("usual",)),
    "logcumsumexp": along(lambda x, dim: torch.logcumsumexp(x, dim), (torch.float32,), ("usual",)),
    "cummax": along(lambda x, dim: torch.cummax(x, dim).values, (torch.float32,), ("usual",)),
    "argmax": distinct(lambda x, dim: x.argmax(dim)),
    "argmax, kept": distinct(lambda x, dim: x.argmax(dim, keepdim=True)),
    "argmin": distinct(lambda x, dim: x.argmin(dim)),
    "argmax of all": distinct(lambda x, dim: x.argmax()),
    "argmax of equal ones": along(lambda x, dim: torch.gather(x, dim, x.argmax(dim, keepdim=True)), kinds=("halves",)),
    "max.dim with indices": distinct(lambda x, dim: tuple(x.max(dim))),
    "min.dim with indices": distinct(lambda x, dim: tuple(x.min(dim))),
    "sort": distinct(lambda x, dim: tuple(x.sort(dim))),
    "sort, descending": distinct(lambda x, dim: tuple(x.sort(dim, descending=True))),
    "sort of equal ones": along(lambda x, dim: x.sort(dim).values, kinds=("halves",)),
    "argsort, stable": along(lambda x, dim: torch.argsort(x, dim, stable=True), (torch.float32,), kinds=("halves",)),
    "topk": distinct(lambda x, dim: tuple(x.topk(1, dim))),
    "topk, least": distinct(lambda x, dim: tuple(x.topk(1, dim, largest=False))),
    "topk along a fixed size": lambda d: _topk(d),
    "kthvalue": distinct(lambda x, dim: x.kthvalue(1, dim).values),
    "median": distinct(lambda x, dim: x.median(dim).values),
}


def _topk(d: Draw) -> Trial:
    count, largest, dtype = d.pick(1, 2, 5), d.pick(True, False), d.pick(torch.float32, torch.float16, torch.int64)

    def inputs(rows: int, kind: str) -> tuple[torch.Tensor, ...]:
        return (torch.argsort(d.tensor([rows, 5], torch.float32)).to(dtype),)

    return d.trial(lambda x: tuple(torch.topk(x, count, -1, largest)), inputs, ("usual", "again"))
