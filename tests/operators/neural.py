"""Operators of neural networks: products, convolutions, pools, norms, attention, resizing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from tests.operators.trial import FLOATS, Draw, Trial


def product(*forms: tuple[Callable[..., Any], tuple[Any, ...]], dtypes: Any = FLOATS) -> Callable[[Draw], Trial]:
    """Makes trials of one of several functions of tensors; a size is a number, or "n" for the rows."""

    def make(d: Draw) -> Trial:
        number, dtype = d.integer(0, len(forms) - 1), d.pick(*dtypes)
        function, shapes = forms[number]

        def inputs(rows: int, kind: str) -> tuple[Tensor, ...]:
            return tuple(d.tensor([rows if size == "n" else size for size in shape], dtype, kind) for shape in shapes)

        rows_of = [list(shape).index("n") if "n" in shape else None for shape in shapes]
        return d.trial(function, inputs, ("usual", "again"), rows_of)

    return make


def _convolution(d: Draw) -> Trial:
    dims, groups, dtype = d.integer(1, 3), d.pick(1, 2), d.pick(*FLOATS)
    kernel, stride, dilation = d.pick(1, 2, 3), d.pick(1, 2), d.pick(1, 2)
    padding: Any = d.pick(0, 1, "same", "valid")
    stride = 1 if padding == "same" else stride
    weight, bias = d.tensor([4, 4 // groups, *[kernel] * dims], dtype), d.pick(None, d.tensor([4], dtype))
    function = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    return d.trial(
        lambda x: function(x, weight, bias, stride, padding, dilation, groups),
        lambda rows, kind: (d.tensor([rows, 4, *range(6, 6 + dims)], dtype),),
        ("usual",),
    )


def _transposed(d: Draw) -> Trial:
    dims, groups, dtype = d.integer(1, 2), d.pick(1, 2), d.pick(torch.float32)
    kernel, stride, padding, more = d.pick(2, 3), d.pick(1, 2), d.pick(0, 1), d.pick(0, 1)
    more = min(more, stride - 1)
    dilation = d.pick(1, 2)
    weight, bias = (
        d.tensor([4, 4 // groups, *[kernel] * dims], dtype),
        d.pick(None, d.tensor([4 // groups * groups], dtype)),
    )
    function = (F.conv_transpose1d, F.conv_transpose2d)[dims - 1]
    return d.trial(
        lambda x: function(x, weight, bias, stride, padding, more, groups, dilation),
        lambda rows, kind: (d.tensor([rows, 4, *range(5, 5 + dims)], dtype),),
        ("usual",),
    )


def _padded_convolution(d: Draw) -> Trial:
    pad, value = d.pick((1, 2), (1, 0, 2, 1), (0, 0, 0, 0, 1, 0)), d.pick(0.0, 1.0)
    channels = 5 if len(pad) == 6 else 4
    weight = d.tensor([4, channels, 3, 3], torch.float32)
    return (
        d.trial(
            lambda x: F.conv2d(F.pad(x, pad, value=value), weight, None, d_stride, 1),
            lambda rows, kind: (d.tensor([rows, 4, 6, 7], torch.float32),),
            ("usual",),
        )
        if (d_stride := d.pick(1, 2))
        else _padded_convolution(d)
    )


def _max_pool(d: Draw) -> Trial:
    dims, dtype = d.integer(1, 3), d.pick(*FLOATS)
    kernel, stride, padding, dilation, ceil = (
        d.pick(2, 3),
        d.pick(None, 1, 2),
        d.pick(0, 1),
        d.pick(1, 1, 2),
        d.pick(False, True),
    )
    function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dims - 1]
    return d.trial(
        lambda x: function(x, kernel, stride, padding, dilation, ceil),
        lambda rows, kind: (d.tensor([rows, 2, *range(6, 6 + dims)], dtype) - 3,),
        ("usual",),
    )


def _average_pool(d: Draw) -> Trial:
    dims, dtype = d.integer(1, 3), d.pick(*FLOATS)
    kernel, stride, padding, ceil, count = (
        d.pick(2, 3),
        d.pick(None, 1, 2),
        d.pick(0, 1),
        d.pick(False, True),
        d.pick(True, False),
    )
    function = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[dims - 1]
    return d.trial(
        lambda x: function(x, kernel, stride, padding, ceil, count),
        lambda rows, kind: (d.tensor([rows, 2, *range(6, 6 + dims)], dtype),),
        ("usual",),
    )


def _interpolate(d: Draw) -> Trial:
    mode = d.pick("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area")
    dims = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}.get(mode) or d.integer(1, 3)
    corners = d.pick(True, False) if "linear" in mode or mode == "bicubic" else None
    sizes = [4, 5, 6][:dims]
    by_size = d.pick(True, False)
    to = [d.pick(3, 7, 8) for _ in sizes] if by_size else None
    factor = None if by_size else d.pick(2.0, 0.5, 1.5, 0.7)
    recompute = d.pick(None, True) if factor else None
    return d.trial(
        lambda x: F.interpolate(x, to, factor, mode, corners, recompute),
        lambda rows, kind: (d.tensor([rows, 2, *sizes], torch.float32),),
        ("usual",),
    )


def _interpolate_varying(d: Draw) -> Trial:
    """Makes a trial in which the picture's height varies."""
    mode, factor = d.pick("nearest", "bilinear", "bicubic"), d.pick(2.0, 0.5, 1.5, 2.5)
    corners = d.pick(True, False) if mode != "nearest" else None
    make = lambda rows, kind: (d.tensor([2, 3, 2 * rows, 6], torch.float32),)  # noqa: E731
    return Trial(
        lambda x: F.interpolate(x, scale_factor=factor, mode=mode, align_corners=corners),
        (make(2, ""), make(1, ""), make(4, "")),
        (2,),
        " ".join(d.said),
    )


def _grid_sample(d: Draw) -> Trial:
    mode, padding, corners = (
        d.pick("bilinear", "nearest", "bicubic"),
        d.pick("zeros", "border", "reflection"),
        d.pick(True, False),
    )
    return d.trial(
        lambda x, g: F.grid_sample(x, g * 1.3, mode, padding, corners),
        lambda rows, kind: (d.tensor([rows, 2, 4, 5], torch.float32), d.tensor([rows, 3, 4, 2], torch.float32)),
        ("usual",),
        (0, 0),
    )


def _attention(d: Draw) -> Trial:
    dtype, form = (
        d.pick(*FLOATS),
        d.pick(
            "plain", "causal", "boolean", "added", "scale", "grouped", "masked rows", "broadcast", "three dimensions"
        ),
    )
    length, keys = 4, d.pick(4, 6)
    heads = (4, 2) if form == "grouped" else (2, 2)

    def inputs(rows: int, kind: str) -> tuple[Tensor, ...]:
        lead = [rows] if form == "three dimensions" else [rows, heads[0]]
        lead_keys = [rows] if form == "three dimensions" else [rows, heads[1]]
        qkv = [
            d.tensor([*lead, length, 8], dtype),
            d.tensor([*lead_keys, keys, 8], dtype),
            d.tensor([*lead_keys, keys, 8], dtype),
        ]
        if form in ("boolean", "masked rows"):
            mask = d.tensor([rows, 1, length, keys], torch.bool)
            mask[..., 0] = True
            if form == "masked rows":
                mask[0, :, 1] = False
            qkv.append(mask)
        elif form == "broadcast":
            qkv.append(d.tensor([length, keys], torch.bool) | torch.eye(length, keys, dtype=torch.bool))
        elif form == "added":
            qkv.append(d.tensor([rows, heads[0], length, keys], dtype))
        return tuple(qkv)

    known: dict[str, dict[str, Any]] = {
        "causal": {"is_causal": True},
        "scale": {"scale": 0.3},
        "grouped": {"enable_gqa": True},
    }
    settings = known.get(form, {})
    count = len(inputs(2, ""))
    rows_of = tuple(None if form == "broadcast" and index == 3 else 0 for index in range(count))
    return d.trial(lambda *x: F.scaled_dot_product_attention(*x, **settings), inputs, ("usual", "again"), rows_of)


def _attention_of_a_length(d: Draw) -> Trial:
    """Makes a trial in which the number of queries and keys varies."""
    form = d.pick("plain", "causal")
    make = lambda rows, kind: tuple(d.tensor([2, 2, rows, 8], torch.float32) for _ in range(3))  # noqa: E731
    return Trial(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=form == "causal"),
        (make(4, ""), make(2, ""), make(7, "")),
        (2, 2, 2),
        form,
    )


def _norm(d: Draw) -> Trial:
    dtype, form = (
        d.pick(*FLOATS),
        d.pick(
            "layer",
            "layer of two",
            "group",
            "batch",
            "instance",
            "rms",
            "rms, eps",
            "local response",
            "layer, plain",
            "instance, plain",
        ),
    )
    w, b = d.tensor([4], dtype), d.tensor([4], dtype)
    mean, var = d.tensor([4], dtype), d.tensor([4], dtype, "positive")
    w2 = d.tensor([4, 6], dtype)
    functions: dict[str, Callable[[Any], Any]] = {
        "layer": lambda x: F.layer_norm(x.mT, (4,), w, b),
        "layer, plain": lambda x: F.layer_norm(x, (6,), eps=1e-3),
        "layer of two": lambda x: F.layer_norm(x, (4, 6), w2),
        "group": lambda x: F.group_norm(x, 2, w, b),
        "batch": lambda x: F.batch_norm(x, mean, var, w, b),
        "instance": lambda x: F.instance_norm(x, weight=w, bias=b),
        "instance, plain": lambda x: F.instance_norm(x, eps=1e-2),
        "rms": lambda x: F.rms_norm(x.mT, (4,), w),
        "rms, eps": lambda x: F.rms_norm(x.mT, (4,), w, 1e-3),
        "local response": lambda x: F.local_response_norm(x, 3),
    }
    return d.trial(
        functions[form], lambda rows, kind: (d.tensor([rows, 4, 6], dtype, kind),), ("usual", "tiny", "large")
    )


def _module(make_module: Callable[[], nn.Module], *shapes: tuple[Any, ...]) -> Callable[[Draw], Trial]:
    def make(d: Draw) -> Trial:
        torch.manual_seed(0)
        module = make_module().eval()

        def inputs(rows: int, kind: str) -> tuple[Tensor, ...]:
            return tuple(d.tensor([rows if size == "n" else size for size in shape], torch.float32) for shape in shapes)

        return d.trial(
            lambda *x: torch.func.functional_call(module, dict(module.state_dict()), x),
            inputs,
            ("usual",),
            [list(s).index("n") if "n" in s else None for s in shapes],
        )

    return make


OPERATORS: dict[str, Callable[[Draw], Trial]] = {
    "matmul": product(
        (torch.matmul, (("n", 3, 4), (4, 5))),
        (torch.matmul, (("n", 3, 4), ("n", 4, 5))),
        (torch.matmul, (("n", 4), (4,))),
        (torch.matmul, ((4,), (4, 5))),
        (torch.matmul, ((2, "n", 3, 4), ("n", 4, 5))),
        (torch.matmul, (("n", 1, 3, 4), (2, 4, 5))),
        (torch.matmul, ((4,), (4,))),
        (torch.matmul, ((4,), ("n", 4, 5))),
        (torch.matmul, (("n", 3, 4), (4,))),
    ),
    "mm, bmm, mv, dot": product(
        (torch.mm, (("n", 4), (4, 5))),
        (torch.bmm, (("n", 3, 4), ("n", 4, 5))),
        (torch.mv, (("n", 4), (4,))),
        (torch.dot, ((4,), (4,))),
        (torch.outer, (("n",), (3,))),
    ),
    "addmm": product(
        (lambda b, x, y: torch.addmm(b, x, y, beta=0.5, alpha=2), ((5,), ("n", 4), (4, 5))),
        (torch.addmm, (("n", 5), ("n", 4), (4, 5))),
        (lambda b, x, y: torch.addmm(b, x, y, beta=0), ((5,), ("n", 4), (4, 5))),
        (lambda b, x, y: torch.baddbmm(b, x, y, beta=0.5, alpha=-2), (("n", 3, 5), ("n", 3, 4), ("n", 4, 5))),
        (lambda b, x, y: torch.addmv(b, x, y, alpha=3), (("n",), ("n", 4), (4,))),
        (lambda b, x, y: torch.addr(b, x, y), (("n", 3), ("n",), (3,))),
        (lambda b, x, y: torch.addbmm(b, x, y, alpha=2), ((3, 5), ("n", 3, 4), ("n", 4, 5))),
    ),
    "linear": product(
        (F.linear, (("n", 4), (5, 4), (5,))),
        (F.linear, (("n", 3, 4), (5, 4))),
        (F.linear, ((4,), (5, 4), (5,))),
        (F.bilinear, (("n", 3), ("n", 4), (2, 3, 4))),
    ),
    "einsum": product(
        (lambda a, b: torch.einsum("nij,njk->nik", a, b), (("n", 3, 4), ("n", 4, 5))),
        (lambda a, b: torch.einsum("bhid,bhjd->bhij", a, b), (("n", 2, 3, 4), ("n", 2, 5, 4))),
        (lambda a, b: torch.einsum("ij,kj->", a, b), (("n", 3), (2, 3))),
        (lambda a: torch.einsum("nii->ni", a), (("n", 3, 3),)),
        (lambda a, b: torch.einsum("nc,ncd->nd", a, b), (("n", 3), ("n", 3, 4))),
    ),
    "cross": product((lambda a, b: torch.linalg.cross(a, b), (("n", 3), ("n", 3)))),
    "cdist": product(
        (lambda a, b: torch.cdist(a, b), (("n", 3, 4), ("n", 5, 4))),
        (lambda a, b: torch.cdist(a, b, p=1.0), (("n", 3, 4), ("n", 5, 4))),
        dtypes=(torch.float32,),
    ),
    "cosine_similarity": product(
        (lambda a, b: F.cosine_similarity(a, b), (("n", 3), ("n", 3))),
        (lambda a, b: F.pairwise_distance(a, b), (("n", 3), ("n", 3))),
    ),
    "convolution": _convolution,
    "convolution, padded": _padded_convolution,
    "convolution, transposed": _transposed,
    "max_pool": _max_pool,
    "max_pool with indices": product(
        (lambda x: F.max_pool2d(x, 2, return_indices=True), (("n", 2, 4, 6),)), dtypes=(torch.float32,)
    ),
    "avg_pool": _average_pool,
    "avg_pool, divisor": product(
        (lambda x: F.avg_pool2d(x, 2, divisor_override=3), (("n", 2, 4, 6),)),
        (lambda x: F.avg_pool3d(x, 2, divisor_override=3), (("n", 2, 4, 6, 4),)),
        dtypes=(torch.float32,),
    ),
    "adaptive_avg_pool": product(
        (lambda x: F.adaptive_avg_pool1d(x, 3), (("n", 2, 7),)),
        (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), (("n", 2, 4, 7),)),
        (lambda x: F.adaptive_avg_pool2d(x, 1), (("n", 2, 4, 6),)),
        (lambda x: F.adaptive_avg_pool2d(x, (None, 3)), (("n", 2, 4, 6),)),
        (lambda x: F.adaptive_avg_pool3d(x, 2), (("n", 2, 4, 6, 5),)),
        (lambda x: F.adaptive_avg_pool2d(x, (6, 9)), (("n", 2, 4, 6),)),
    ),
    "adaptive_max_pool": product(
        (lambda x: F.adaptive_max_pool2d(x, (2, 3)), (("n", 2, 4, 6),)),
        (lambda x: F.adaptive_max_pool1d(x, 3), (("n", 2, 7),)),
        dtypes=(torch.float32,),
    ),
    "lp_pool": product((lambda x: F.lp_pool2d(x.abs(), 2.0, 2), (("n", 2, 4, 6),)), dtypes=(torch.float32,)),
    "norms": _norm,
    "interpolate": _interpolate,
    "interpolate, height varies": _interpolate_varying,
    "grid_sample": _grid_sample,
    "affine_grid": product(
        (lambda t: F.affine_grid(t, [2, 3, 4, 5], False), ((2, 2, 3),)),
        (lambda t: F.affine_grid(t, [2, 3, 4, 5], True), ((2, 2, 3),)),
        dtypes=(torch.float32,),
    ),
    "attention": _attention,
    "attention of a length that varies": _attention_of_a_length,
    "cross_entropy": lambda d: d.trial(
        lambda x, t: F.cross_entropy(x, t, reduction="none"),
        lambda rows, kind: (
            d.tensor([rows, 5], torch.float32),
            d.tensor([rows], torch.float32).abs().long().clamp(max=4),
        ),
        ("usual", "again"),
        (0, 0),
    ),
    "dropout, not in training": product((lambda x: F.dropout(x, 0.5, False), (("n", 3),))),
    "LSTM": _module(lambda: nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), ("n", 3, 4)),
    "GRU": _module(lambda: nn.GRU(4, 3, batch_first=True), ("n", 3, 4)),
    "MultiheadAttention": _module(
        lambda: nn.MultiheadAttention(8, 2, batch_first=True), ("n", 5, 8), ("n", 5, 8), ("n", 5, 8)
    ),
}
