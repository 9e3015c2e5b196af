"""Operators that read and write by index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from tests.operators.trial import FLOATS, Draw, Trial

NUMBERS = (torch.float32, torch.float16, torch.int64)


def indices(
    d: Draw, sizes: list[int], below: int, negative: bool = False, dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    drawn = (d.tensor(sizes, torch.float32).abs() * 1000).to(torch.int64) % below
    return (drawn - below if negative and d.maybe() else drawn).to(dtype)


def pointed(
    function: Callable[[Any, Any, int], Any],
    shape_of: Callable[[list[int], int], list[int]],
    dtypes: Any = NUMBERS,
    rows_vary: bool = True,
) -> Callable[[Draw], Trial]:
    """Makes trials of a tensor and an index into one of its dimensions.

    The index has the rows too, where that is a different dimension.
    """

    def make(d: Draw) -> Trial:
        dtype, dim = d.pick(*dtypes), d.integer(-3, 2)

        def inputs(rows: int, kind: str) -> tuple[torch.Tensor, ...]:
            shape = [rows, 4, 5]
            return d.tensor(shape, dtype), indices(
                d, shape_of(shape, dim % 3), min(shape[dim], 2) if dim % 3 == 0 else shape[dim]
            )

        index_rows = 0 if dim % 3 and len(shape_of([9, 4, 5], 1)) == 3 else None
        return d.trial(
            lambda x, i: function(x, i, dim),
            inputs,
            ("usual", "again"),
            (0 if rows_vary else None, index_rows if rows_vary else None),
        )

    return make


def _picked(shape: list[int], dim: int) -> list[int]:
    return [3 if index == dim else size for index, size in enumerate(shape)]


def written(
    function: Callable[[Any, Any, Any, int], Any], unique: bool = False, dtypes: Any = NUMBERS, rows_vary: bool = True
) -> Callable[[Draw], Trial]:
    """Makes trials of a tensor, an index into one of its dimensions, and a source with the shape of the index."""

    def make(d: Draw) -> Trial:
        dtype, dim = d.pick(*dtypes), d.integer(-2, 1)

        def inputs(rows: int, kind: str) -> tuple[torch.Tensor, ...]:
            shape = [9, 5] if dim % 2 == 0 else [rows, 9]
            at = [rows, 5] if dim % 2 == 0 else [rows, 4]
            index = indices(d, at, 9)
            if unique:
                index = torch.argsort(d.tensor([*at[: dim % 2], 9, *at[dim % 2 + 1 :]], torch.float32), dim).narrow(
                    dim, 0, at[dim]
                )
            return d.tensor(shape, dtype), index.contiguous(), d.tensor(at, dtype)

        rows_of = (None if dim % 2 == 0 else 0, 0, 0)
        return d.trial(
            lambda x, i, s: function(x, i, s, dim), inputs, ("usual", "again"), rows_of if rows_vary else (None,) * 3
        )

    return make


def _index(d: Draw) -> Trial:
    dtype, number = d.pick(*NUMBERS), d.integer(0, 6)
    negative = d.pick(True, False)
    forms: list[Callable[[Any, Any, Any], Any]] = [
        lambda x, i, j: x[i],
        lambda x, i, j: x[:, i],
        lambda x, i, j: x[:, :, i],
        lambda x, i, j: x[:, i, j],
        lambda x, i, j: x[:, i[:, None], j],
        lambda x, i, j: x[i, :, j],
        lambda x, i, j: x[i[:, None], j],
    ]

    def inputs(rows: int, kind: str) -> tuple[torch.Tensor, ...]:
        return d.tensor([rows, 4, 5], dtype), indices(d, [3], 2, negative), indices(d, [3], 4, negative)

    return d.trial(forms[number], inputs, ("usual", "again"), (0, None, None))


def _index_put(d: Draw) -> Trial:
    dtype, number, add = d.pick(torch.float32, torch.float16, torch.int64), d.integer(0, 4), d.pick(False, False, True)
    negative = d.pick(True, False)
    forms: list[tuple[Callable[[Any, Any, Any], Any], list[int]]] = [
        (lambda x, i, s: x.index_put((i,), s, add), [3, 5]),
        (lambda x, i, s: x.index_put((i,), s[0, 0], add), [3, 5]),
        (lambda x, i, s: x.index_put((None, i), s, add), [4, 3]),
        (lambda x, i, s: x.index_put((i, i), s[:, 0], add), [3, 5]),
        (lambda x, i, s: x.index_put((i,), s[:1], add), [3, 5]),
    ]
    function, at = forms[number]

    def inputs(rows: int, kind: str) -> tuple[torch.Tensor, ...]:
        order = torch.argsort(d.tensor([4], torch.float32))[:3]
        return d.tensor([4, 5], dtype), order - (4 if negative else 0) * (number != 3), d.tensor(at, dtype)

    return d.trial(function, inputs, ("usual", "again"), (None, None, None))


def _assigned(*functions: Callable[[Any, Any], None]) -> Callable[[Draw], Trial]:
    """Makes trials of one of several assignments to parts of a tensor."""

    def make(d: Draw) -> Trial:
        dtype, other, number = d.pick(*NUMBERS), d.pick(*NUMBERS), d.integer(0, len(functions) - 1)

        def function(x: Any, y: Any) -> Any:
            result = x.clone()
            functions[number](result, y)
            return result * 2

        return d.trial(
            function, lambda rows, kind: (d.tensor([rows, 4, 6], dtype), d.tensor([4, 6], other)), ("usual",), (0, None)
        )

    return make


def _set(at: Any, value: Callable[[Any], Any]) -> Callable[[Any, Any], None]:
    return lambda x, y: x.__setitem__(at, value(y))


def _cache(d: Draw) -> Trial:
    start, length = d.pick(-3, -1, 0, 2), d.pick(1, 2)
    step = d.pick(1, 1, 2)
    count = (
        len(range(6)[start:][: length * step : step])
        if start >= 0 or -start > length * step
        else len(range(6)[start:][::step])
    )

    def function(x: Any, y: Any) -> Any:
        end = None if start < 0 and -start <= length * step else start + length * step
        return torch.slice_scatter(x, y, 2, start, end, step) + 1

    return d.trial(
        function,
        lambda rows, kind: (d.tensor([2, 3, 6, 4], torch.float32), d.tensor([2, 3, count, 4], torch.float32)),
        ("usual",),
        (None, None),
    )


OPERATORS: dict[str, Callable[[Draw], Trial]] = {
    "gather": pointed(lambda x, i, dim: torch.gather(x, dim, i), _picked),
    "take_along_dim": pointed(lambda x, i, dim: torch.take_along_dim(x, i, dim), _picked, rows_vary=False),
    "index_select": pointed(lambda x, i, dim: x.index_select(dim, i), lambda shape, dim: [3]),
    "index": _index,
    "take": pointed(lambda x, i, dim: torch.take(x, i), lambda shape, dim: [3], (torch.float32,)),
    "index_put": _index_put,
    "index_add": written(
        lambda x, i, s, dim: x.index_add(dim, i[:, 0] if dim % 2 == 0 else i[0], s),
        rows_vary=False,
    ),
    "index_copy": written(
        lambda x, i, s, dim: x.index_copy(dim, i[:, 0] if dim % 2 == 0 else i[0], s), unique=True, rows_vary=False
    ),
    "index_fill": written(
        lambda x, i, s, dim: x.index_fill(dim, i[:, 0] if dim % 2 == 0 else i[0], 2), rows_vary=False
    ),
    "scatter": written(lambda x, i, s, dim: x.scatter(dim, i, s), unique=True),
    "scatter, a value": written(lambda x, i, s, dim: x.scatter(dim, i, 3)),
    "scatter, a value in half": written(lambda x, i, s, dim: x.scatter(dim, i, 0.5), dtypes=FLOATS),
    "scatter_add": written(lambda x, i, s, dim: x.scatter_add(dim, i, s)),
    "scatter_reduce": lambda d: _scatter_reduce(d),
    "scatter, add": written(lambda x, i, s, dim: x.scatter(dim, i, s, reduce="add")),
    "masked_scatter": lambda d: d.trial(
        lambda x, m, s: x.masked_scatter(m, s),
        lambda rows, kind: (
            d.tensor([rows, 4], torch.float32),
            d.tensor([rows, 4], torch.bool),
            d.tensor([40], torch.float32),
        ),
        ("usual", "again"),
        (0, 0, None),
    ),
    "embedding": lambda d: _embedding(d),
    "embedding_bag": lambda d: d.trial(
        lambda i, w: F.embedding_bag(i, w, torch.tensor([0, 2, 3]), mode="sum"),
        lambda rows, kind: (indices(d, [5], 7), d.tensor([7, 3], torch.float32)),
        ("usual",),
        (None, None),
    ),
    "one_hot": lambda d: d.trial(lambda i: F.one_hot(i, 5), lambda rows, kind: (indices(d, [rows, 3], 5),), ("usual",)),
    "select_scatter": lambda d: _select_scatter(d),
    "slice_scatter": lambda d: _slice_scatter(d),
    "slice_scatter of a cache": _cache,
    "diagonal_scatter": lambda d: d.trial(
        lambda x, s: torch.diagonal_scatter(x, s),
        lambda rows, kind: (d.tensor([4, 4], torch.float32), d.tensor([4], torch.float32)),
        ("usual",),
        (None, None),
    ),
    "assignment": _assigned(
        _set((slice(None), -1), lambda y: y[0]),
        _set((..., -1), lambda y: y[:, 0]),
        _set((slice(None), slice(1, 3)), lambda y: y[1:3]),
        _set((slice(None), slice(None), slice(-2, None)), lambda y: y[:, -2:]),
        _set((0,), lambda y: y),
        _set((slice(1, None),), lambda y: 5),
        _set((slice(None), slice(None, None, 2)), lambda y: y[::2]),
        _set((slice(None), slice(None, -1)), lambda y: y[:1]),
        _set((-1,), lambda y: y),
        _set((slice(None, 2),), lambda y: y),
        _set((slice(None), 0, slice(1, 4)), lambda y: y[0, 1:4]),
        _set((slice(-1, None), -1), lambda y: 0),
    ),
    "assignment in place": _assigned(
        lambda x, y: x[..., -1].add_(5),
        lambda x, y: x[:, 1:].mul_(2),
        lambda x, y: x[:, 0].zero_(),
        lambda x, y: x[:, :, ::2].copy_(x[:, :, 1::2] + 1),
        lambda x, y: x[:, -2].copy_(x[:, 1]),
        lambda x, y: x.fill_(3),
    ),
    "searchsorted": lambda d: d.trial(
        lambda s, x: torch.searchsorted(s, x),
        lambda rows, kind: (d.tensor([6], torch.float32).sort().values, d.tensor([rows], torch.float32)),
        ("usual",),
        (None, 0),
    ),
    "bucketize": lambda d: d.trial(
        lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0]), right=True),
        lambda rows, kind: (d.tensor([rows, 3], torch.float32),),
        ("usual", "halves"),
    ),
    "bincount": lambda d: d.trial(
        lambda i: torch.bincount(i, minlength=5), lambda rows, kind: (indices(d, [6], 5),), ("usual",), (None,)
    ),
    "boolean index": lambda d: d.trial(
        lambda x: x[x > 0].sum(), lambda rows, kind: (d.tensor([rows, 3], torch.float32),), ("usual",)
    ),
}


def _scatter_reduce(d: Draw) -> Trial:
    how, with_self = d.pick("sum", "prod", "mean", "amax", "amin"), d.pick(True, False)
    return written(
        lambda x, i, s, dim: x.scatter_reduce(dim, i, s, how, include_self=with_self),
        dtypes=(torch.float32, torch.int64),
    )(d)


def _embedding(d: Draw) -> Trial:
    weight, padding = d.tensor([7, 3], d.pick(*FLOATS)), d.pick(None, 0, 6)
    dtype = d.pick(torch.int64, torch.int32)
    return d.trial(
        lambda i: F.embedding(i, weight, padding),
        lambda rows, kind: (indices(d, [rows, 2], 7, dtype=dtype),),
        ("usual", "again"),
    )


def _select_scatter(d: Draw) -> Trial:
    dim, dtype = d.integer(-2, 1), d.pick(*NUMBERS)
    index = d.integer(-2, 1) if dim % 2 == 0 else d.integer(-5, 4)
    return d.trial(
        lambda x, s: torch.select_scatter(x, s, dim, index),
        lambda rows, kind: (d.tensor([rows, 5], dtype), d.tensor([5] if dim % 2 == 0 else [rows], dtype)),
        ("usual",),
        (0, 0 if dim % 2 else None),
    )


def _slice_scatter(d: Draw) -> Trial:
    dtype, step = d.pick(*NUMBERS), d.pick(1, 1, 2)
    start, end = d.pick(None, 0, 1, -1, -3), d.pick(None, 5, 4, -1, 9, 2**63 - 1)
    count = len(range(5)[start:end:step])
    return d.trial(
        lambda x, s: torch.slice_scatter(x, s, 1, start, end, step),
        lambda rows, kind: (d.tensor([rows, 5], dtype), d.tensor([rows, count], dtype)),
        ("usual",),
        (0, 0),
    )
