"""Operators that move elements and compute nothing, and those that make tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from tests.operators.trial import FLOATS, Draw, Trial

DTYPES = (torch.float32, torch.float16, torch.int64, torch.int32, torch.bool)


def fixed(
    *functions: Callable[[Any], Any], sizes: tuple[int, ...] = (4, 6), dtypes: Any = DTYPES
) -> Callable[[Draw], Trial]:
    """Makes trials of one of several functions of a tensor, which has these sizes after the rows."""

    def make(d: Draw) -> Trial:
        number, dtype = d.integer(0, len(functions) - 1), d.pick(*dtypes)
        return d.trial(functions[number], lambda rows, kind: (d.tensor([rows, *sizes], dtype),), ("usual", "again"))

    return make


def _slice(d: Draw) -> Trial:
    dtype, dim = d.pick(*DTYPES), d.integer(-3, 2)
    start = d.pick(None, 0, 1, -1, -2, -9)
    end, step = d.pick(None, 2, 3, -1, 9, 2**63 - 1), d.pick(1, 1, 2, 3)
    if dim % 3 == 0:
        end = d.pick(None, 2, -1, 9)

    def function(x: Any) -> Any:
        return (
            torch.ops.aten.slice(x, dim, start, end, step) | True
            if dtype is torch.bool
            else torch.ops.aten.slice(x, dim, start, end, step) + 1
        )

    return d.trial(function, lambda rows, kind: (d.tensor([rows, 4, 6], dtype),), ("usual",))


def _cat(d: Draw) -> Trial:
    dtype, dim, other = d.pick(*DTYPES), d.integer(-3, 2), d.pick(*DTYPES)

    def inputs(rows: int, kind: str) -> tuple[torch.Tensor, ...]:
        shape = [rows, 4, 3]
        longer = [size + (2 if index == dim % 3 and index else 0) for index, size in enumerate(shape)]
        return d.tensor(shape, dtype), d.tensor(longer, other)

    return d.trial(lambda a, b: torch.cat([a, b, a], dim), inputs, ("usual", "again"), (0, 0))


def _pad(d: Draw) -> Trial:
    dtype = d.pick(*FLOATS)
    pad, mode = (
        d.pick((1, 2), (0, 1, 2, 0), (-1, 0), (2, -1, 0, 1)),
        d.pick("constant", "reflect", "replicate", "circular"),
    )
    value = d.pick(0.0, 1.5, float("-inf")) if mode == "constant" else 0.0
    if mode != "constant":
        pad = tuple(abs(p) for p in pad)
    sizes = [3, 6] if len(pad) == 2 else [3, 5, 6]
    return d.trial(
        lambda x: F.pad(x, pad, mode, value), lambda rows, kind: (d.tensor([rows, *sizes], dtype),), ("usual",)
    )


def _diagonals(d: Draw) -> Trial:
    offset, dtype = d.integer(-3, 3), d.pick(*DTYPES)
    function = d.pick("tril", "triu", "diagonal", "diag_embed")
    return d.trial(
        lambda x: getattr(torch, function)(x, offset),
        lambda rows, kind: (d.tensor([rows, 4, 6] if function != "diag_embed" else [rows, 4], dtype),),
        ("usual",),
    )


def _created(*functions: Callable[[Any], Any]) -> Callable[[Draw], Trial]:
    return fixed(*functions, dtypes=(torch.float32, torch.int64, torch.float16))


OPERATORS: dict[str, Callable[[Draw], Trial]] = {
    "view": fixed(
        lambda x: x.view(-1, 24),
        lambda x: x.view(x.shape[0], 2, 2, -1),
        lambda x: x.view(x.shape[0] * 2, 12),
        lambda x: x.flatten(),
        lambda x: x.flatten(1),
    ),
    "reshape": fixed(
        lambda x: x.transpose(1, 2).reshape(-1, 8),
        lambda x: x.reshape(-1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.reshape(24, -1),
    ),
    "permute": fixed(
        lambda x: x.permute(2, 0, 1),
        lambda x: x.permute(-1, -3, -2),
        lambda x: x.transpose(0, -1),
        lambda x: x.movedim(0, -1),
        lambda x: x.mT,
    ),
    "squeeze": fixed(
        lambda x: x.squeeze(),
        lambda x: x.squeeze(1),
        lambda x: x.squeeze(-1),
        lambda x: x.squeeze((1, -1)),
        lambda x: x.squeeze(0),
        sizes=(1, 6, 1),
    ),
    "unsqueeze": fixed(
        lambda x: x.unsqueeze(0), lambda x: x.unsqueeze(-1), lambda x: x.unsqueeze(-4), lambda x: x[:, None, :, None]
    ),
    "expand": fixed(
        lambda x: x[:, :1].expand(-1, 5, 6),
        lambda x: x[:, :, :1].expand(x.shape[0], 4, 7),
        lambda x: x.expand(3, -1, -1, -1),
        lambda x: x[:, :1].expand(2, x.shape[0], 4, 6),
        lambda x: x[:1].expand(x.shape),
    ),
    "repeat": fixed(
        lambda x: x.repeat(2, 1, 3),
        lambda x: x.repeat(2, 1, 1, 1),
        lambda x: x.tile((2,)),
        lambda x: x.repeat(1, x.shape[0], 1),
        lambda x: x.repeat_interleave(2, 1),
        lambda x: x.repeat_interleave(2, 0),
    ),
    "stack": fixed(
        lambda x: torch.stack([x, x], 0),
        lambda x: torch.stack([x, x], -1),
        lambda x: torch.hstack([x, x]),
        lambda x: torch.vstack([x, x]),
    ),
    "split": fixed(
        lambda x: torch.split(x, 2, 1),
        lambda x: torch.split(x, 4, -1),
        lambda x: torch.split(x, [1, 3, 2], -1),
        lambda x: x.chunk(3, 1),
        lambda x: x.chunk(4, 2),
        lambda x: x.tensor_split(3, 1),
    ),
    "unbind": fixed(lambda x: x.unbind(1), lambda x: x.unbind(-1)[2]),
    "narrow": fixed(lambda x: x.narrow(1, 1, 2), lambda x: x.narrow(-1, -3, 2), lambda x: x.narrow(0, 0, 2)),
    "select": fixed(
        lambda x: x[:, -1],
        lambda x: x[:, 2],
        lambda x: x[-1],
        lambda x: x[..., -6],
        lambda x: x.select(-2, -4),
        lambda x: x[0, 1],
    ),
    "slice": _slice,
    "cat": _cat,
    "pad": _pad,
    "tril, triu, diagonal": _diagonals,
    "flip": fixed(lambda x: x.flip(0), lambda x: x.flip((-1, 1)), lambda x: x.flip((0, 1, 2)), lambda x: x.fliplr()),
    "roll": fixed(
        lambda x: x.roll(1, 1),
        lambda x: x.roll(-2, -1),
        lambda x: x.roll((1, -2), (0, 1)),
        lambda x: x.roll(3),
        lambda x: x.roll(7, 2),
    ),
    "rot90": fixed(lambda x: x.rot90(1, (1, 2)), lambda x: x.rot90(-1, (0, 1))),
    "unfold": fixed(lambda x: x.unfold(1, 2, 1), lambda x: x.unfold(-1, 3, 2)),
    "as_strided": lambda d: d.trial(
        lambda x: torch.as_strided(x, (3, 4), (6, 1), 1),
        lambda rows, kind: (d.tensor([4, 6], torch.float32),),
        rows_of=(None,),
    ),
    "pixel_shuffle": fixed(lambda x: F.pixel_shuffle(x, 2), sizes=(8, 3, 5), dtypes=FLOATS),
    "pixel_unshuffle": fixed(lambda x: F.pixel_unshuffle(x, 2), sizes=(2, 4, 6), dtypes=FLOATS),
    "channel_shuffle": fixed(lambda x: F.channel_shuffle(x, 2), sizes=(4, 3, 2), dtypes=FLOATS),
    "im2col": fixed(
        lambda x: F.unfold(x, 2),
        lambda x: F.unfold(x, (2, 3), padding=1, stride=2),
        lambda x: F.unfold(x, 2, dilation=2),
        sizes=(2, 5, 6),
        dtypes=FLOATS,
    ),
    "col2im": fixed(
        lambda x: F.fold(x, (4, 5), 2),
        lambda x: F.fold(x, (4, 5), (2, 2), stride=1, padding=0),
        sizes=(8, 12),
        dtypes=(torch.float32,),
    ),
    "meshgrid": fixed(
        lambda x: torch.meshgrid(x[0, 0], x[0, :, 0], indexing="ij"),
        lambda x: torch.meshgrid(x[0, 0], x[0, :, 0], indexing="xy"),
    ),
    "broadcast_to": fixed(
        lambda x: torch.broadcast_to(x[:, :1], (2, x.shape[0], 3, 6)), lambda x: torch.broadcast_tensors(x, x[:1])[1]
    ),
    "clone, contiguous": fixed(
        lambda x: x.clone(), lambda x: x.transpose(1, 2).contiguous(), lambda x: x.detach(), lambda x: x.to(x.dtype)
    ),
    "arange": _created(
        lambda x: x[0, 0] + torch.arange(6),
        lambda x: torch.arange(x.shape[0]) + x[:, 0, 0],
        lambda x: torch.arange(1, x.shape[0], 2) * x.shape[0],
        lambda x: x[0, 0] * torch.arange(5, -1, -1),
        lambda x: x[0, 0] + torch.arange(0, 3, 0.5),
        lambda x: x[:, 0, 0] + torch.arange(x.shape[0], dtype=torch.float32),
    ),
    "full": _created(
        lambda x: x + torch.full((6,), 2.5),
        lambda x: torch.full((x.shape[0], 4), 3) + x[:, :, 0],
        lambda x: torch.full_like(x, 2.5),
        lambda x: x.new_full((x.shape[0],), 7),
        lambda x: torch.full_like(x, True, dtype=torch.bool),
    ),
    "zeros, ones": _created(
        lambda x: torch.zeros_like(x) + x,
        lambda x: torch.ones((x.shape[0], 6)) + x[:, 0],
        lambda x: torch.ones_like(x, dtype=torch.float32) - x,
        lambda x: x.new_zeros((x.shape[0], 3)),
        lambda x: x.new_ones((2,)) * x[0, 0, :2],
        lambda x: torch.zeros((), dtype=torch.int32) + x,
    ),
    "empty": _created(
        lambda x: torch.empty_like(x).fill_(3) + x,
        lambda x: torch.empty((x.shape[0], 6), dtype=x.dtype).copy_(x[:, 0]),
        lambda x: torch.empty_like(x.transpose(1, 2)).copy_(x.transpose(1, 2)) + 1,
        lambda x: x.new_empty((2, 6)).zero_() + x[0, 0],
    ),
    "eye": _created(
        lambda x: torch.eye(6) + x[0],
        lambda x: torch.eye(4, 6, dtype=x.dtype) + x,
        lambda x: torch.eye(x.shape[0]) + x[:, 0, :1],
    ),
    "linspace": _created(lambda x: torch.linspace(-1, 1, 6) + x, lambda x: torch.logspace(0, 1, 6) + x),
    "scalar_tensor": _created(
        lambda x: x + torch.tensor(2.5),
        lambda x: x * torch.tensor([1, 2, 3, 4, 5, 6]),
        lambda x: torch.where(x > 0, torch.tensor(1), torch.tensor(0)),
        lambda x: x + torch.scalar_tensor(3),
    ),
    "large constant": lambda d: d.trial(
        lambda x: (x + 2**40, torch.where(x > 0, x, 2**40), torch.full_like(x, 2**33), x * torch.tensor(2**35)),
        lambda rows, kind: (d.tensor([rows, 3], torch.int64),),
        ("usual",),
    ),
    "tril_indices": _created(
        lambda x: x[0, 0, :1] + torch.tril_indices(3, 3), lambda x: x[0, 0, :1] + torch.triu_indices(3, 4, 1)
    ),
    "no elements": fixed(
        lambda x: torch.cat([x, x[:, :0]], 1) + 1,
        lambda x: x[:, :0].sum(1) + x.sum(1),
        lambda x: torch.cat([x.new_zeros((x.shape[0], 0, 6)), x], 1) + 1,
        dtypes=FLOATS,
    ),
}
