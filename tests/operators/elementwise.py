"""Operators on elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from tests.operators.trial import FLOATS, INTEGERS, Draw, Trial

ALL_KINDS = ("usual", "large", "tiny", "halves", "special")
Operators = dict[str, Callable[[Draw], Trial]]


def unary(
    function: Callable[[Any], Any], kinds: tuple[str, ...] = ALL_KINDS, dtypes: Any = FLOATS
) -> Callable[[Draw], Trial]:
    def make(d: Draw) -> Trial:
        sizes, dtype = d.sizes(0, 3), d.pick(*dtypes)
        return d.trial(function, lambda rows, kind: (d.tensor([rows, *sizes], dtype, kind),), kinds)

    return make


def choosing(
    *functions: tuple[str, Callable[[Any], Any]], kinds: tuple[str, ...] = ALL_KINDS, dtypes: Any = FLOATS
) -> Callable[[Draw], Trial]:
    """Makes trials of one of several settings of an operator."""

    def make(d: Draw) -> Trial:
        function = dict(functions)[d.pick(*(name for name, _ in functions))]
        return unary(function, kinds, dtypes)(d)

    return make


POSITIVE = ("usual", "positive", "tiny", "special")
BOUNDED = ("unit", "tiny", "special")
MIXED = (torch.float32, torch.float16, torch.int64, torch.int32)
WHOLE = (torch.int64, torch.int32)

OPERATORS: Operators = {
    "abs": unary(torch.abs, dtypes=MIXED),
    "neg": unary(torch.neg, dtypes=MIXED),
    "sign": unary(torch.sign, dtypes=MIXED),
    "sgn": unary(torch.sgn, dtypes=MIXED),
    "square": unary(torch.square, dtypes=MIXED),
    "exp": unary(torch.exp, dtypes=MIXED),
    "exp2": unary(torch.exp2),
    "expm1": unary(torch.expm1),
    "log": unary(torch.log, POSITIVE, (torch.float32, torch.float16, torch.int64)),
    "log2": unary(torch.log2, POSITIVE),
    "log10": unary(torch.log10, POSITIVE),
    "log1p": unary(torch.log1p, ("unit", "positive", "tiny", "special")),
    "sqrt": unary(torch.sqrt, POSITIVE, (torch.float32, torch.float16, torch.int64)),
    "rsqrt": unary(torch.rsqrt, POSITIVE, (torch.float32, torch.float16, torch.int64)),
    "reciprocal": unary(torch.reciprocal, dtypes=MIXED),
    "sin": unary(torch.sin, dtypes=MIXED),
    "cos": unary(torch.cos, dtypes=MIXED),
    "tan": unary(torch.tan, ("unit", "tiny", "special")),
    "asin": unary(torch.asin, BOUNDED),
    "acos": unary(torch.acos, BOUNDED),
    "atan": unary(torch.atan),
    "sinh": unary(torch.sinh, BOUNDED),
    "cosh": unary(torch.cosh, BOUNDED),
    "asinh": unary(torch.asinh, ("usual", "tiny", "special")),
    "acosh": unary(torch.acosh, POSITIVE),
    "atanh": unary(torch.atanh, BOUNDED),
    "tanh": unary(torch.tanh, dtypes=MIXED),
    "sigmoid": unary(torch.sigmoid, dtypes=MIXED),
    "erf": unary(torch.erf),
    "erfc": unary(torch.erfc),
    "floor": unary(torch.floor, dtypes=MIXED),
    "ceil": unary(torch.ceil, dtypes=MIXED),
    "trunc": unary(torch.trunc, dtypes=MIXED),
    "frac": unary(torch.frac),
    "round": choosing(
        ("0", torch.round),
        ("1", lambda x: torch.round(x, decimals=1)),
        ("-1", lambda x: torch.round(x, decimals=-1)),
        kinds=("usual", "halves", "special"),
    ),
    "isnan": unary(torch.isnan, ("special",), MIXED),
    "isinf": unary(torch.isinf, ("special",), MIXED),
    "isfinite": unary(torch.isfinite, ("special",), MIXED),
    "isposinf": unary(torch.isposinf, ("special",)),
    "isneginf": unary(torch.isneginf, ("special",)),
    "nan_to_num": choosing(
        ("default", torch.nan_to_num), ("given", lambda x: torch.nan_to_num(x, 1.0, 2.0, -3.0)), kinds=("special",)
    ),
    "signbit": unary(torch.signbit, dtypes=MIXED),
    "logical_not": unary(torch.logical_not, dtypes=(*MIXED, torch.bool)),
    "bitwise_not": unary(torch.bitwise_not, ("usual", "large"), (*WHOLE, torch.bool)),
    "relu": unary(torch.relu, dtypes=MIXED),
    "relu6": unary(F.relu6),
    # At infinity eager PyTorch itself returns inf for one element and NaN for four.
    "gelu": choosing(
        ("none", F.gelu),
        ("tanh", lambda x: F.gelu(x, approximate="tanh")),
        kinds=("usual", "large", "tiny", "halves"),
    ),
    "silu": unary(F.silu),
    "mish": unary(F.mish),
    "selu": unary(F.selu),
    "celu": choosing(("1", F.celu), ("0.5", lambda x: F.celu(x, 0.5))),
    "elu": choosing(("1", F.elu), ("0.5", lambda x: F.elu(x, 0.5))),
    "leaky_relu": choosing(
        ("0.01", F.leaky_relu), ("0.2", lambda x: F.leaky_relu(x, 0.2)), ("-0.5", lambda x: F.leaky_relu(x, -0.5))
    ),
    "hardsigmoid": unary(F.hardsigmoid),
    "hardswish": unary(F.hardswish),
    "hardtanh": choosing(
        ("default", F.hardtanh),
        ("-2, 3", lambda x: F.hardtanh(x, -2.0, 3.0)),
        ("1, 4", lambda x: F.hardtanh(x, 1.0, 4.0)),
    ),
    "hardshrink": unary(F.hardshrink),
    "softshrink": choosing(("0.5", F.softshrink), ("0", lambda x: F.softshrink(x, 0.0))),
    "tanhshrink": unary(F.tanhshrink, ("usual", "large", "special")),
    "softsign": unary(F.softsign),
    "softplus": choosing(("default", F.softplus), ("beta 2, threshold 1", lambda x: F.softplus(x, 2.0, 1.0))),
    "logsigmoid": unary(F.logsigmoid),
    "threshold": choosing(
        ("0.1, 20", lambda x: F.threshold(x, 0.1, 20.0)), ("-1, -2", lambda x: F.threshold(x, -1.0, -2.0))
    ),
    "logit": choosing(("none", torch.logit), ("1e-3", lambda x: torch.logit(x, 1e-3)), kinds=("unit", "special")),
    "sinc": unary(torch.sinc, ("usual", "tiny")),
    "deg2rad": unary(torch.deg2rad),
    "clamp": choosing(
        ("both", lambda x: torch.clamp(x, -1, 2)),
        ("least", lambda x: torch.clamp(x, min=0)),
        ("most", lambda x: torch.clamp(x, max=1)),
        ("crossed", lambda x: torch.clamp(x, 2, -1)),
        ("halves", lambda x: torch.clamp(x, -0.5, 0.5)),
        dtypes=MIXED,
    ),
    "to": choosing(
        ("fp32", lambda x: x.float()),
        ("fp16", lambda x: x.half()),
        ("int64", lambda x: x.long()),
        ("int32", lambda x: x.int()),
        ("bool", lambda x: x.bool()),
        ("bf16", lambda x: x.bfloat16()),
        kinds=("usual", "halves", "tiny"),
        dtypes=(*MIXED, torch.bool, torch.bfloat16),
    ),
    "to fp16, large": unary(lambda x: x.half(), ("large", "special"), (torch.float32,)),
    "pow of a number": choosing(
        *((str(k), lambda x, k=k: torch.pow(k, x)) for k in (2, 2.0, -2.0, 0, 0.5)),
        kinds=("usual", "halves", "special"),
    ),
    "pow to a number": choosing(
        *((str(k), lambda x, k=k: x**k) for k in (0, 1, 2, 3, 2.0, 0.5, -1, -2.5, 9)),
        kinds=("usual", "halves", "positive", "special"),
        dtypes=(torch.float32, torch.float16),
    ),
    "pow of integers": choosing(
        *((str(k), lambda x, k=k: x**k) for k in (0, 1, 2, 3, 2.0, 0.5)), kinds=("usual", "tiny"), dtypes=WHOLE
    ),
    "remainder of a number": choosing(
        *((str(k), lambda x, k=k: x % k) for k in (3, -3, 2.5, -2.5)),
        kinds=("usual", "halves", "special"),
        dtypes=MIXED,
    ),
    "fmod of a number": choosing(
        *((str(k), lambda x, k=k: torch.fmod(x, k)) for k in (3, -3, 2.5)), kinds=("usual", "halves"), dtypes=MIXED
    ),
    "floor_divide by a number": choosing(
        *((str(k), lambda x, k=k: x // k) for k in (3, -3, 2.5, -2)),
        kinds=("usual", "halves", "special"),
        dtypes=MIXED,
    ),
    "div by a number": choosing(
        *(
            (f"{k} {m}", lambda x, k=k, m=m: torch.div(x, k, rounding_mode=m))
            for k in (3, -3, 2.5, 0)
            for m in (None, "floor", "trunc")
            if k or m is None
        ),
        kinds=("usual", "halves", "special"),
        dtypes=MIXED,
    ),
    "add, sub, mul with a number": choosing(
        ("1 + x", lambda x: 1 + x),
        ("1 - x", lambda x: 1 - x),
        ("x - 0.5", lambda x: x - 0.5),
        ("x * 2", lambda x: x * 2),
        ("rsub alpha", lambda x: torch.rsub(x, 2, alpha=3)),
        ("x * 0.5", lambda x: x * 0.5),
        ("alpha", lambda x: torch.add(x, 2, alpha=3)),
        ("true", lambda x: x + True),
        dtypes=(*MIXED, torch.uint8),
    ),
    "comparison with a number": choosing(
        *(
            (name, lambda x, name=name, k=k: getattr(torch, name)(x, k))
            for name in ("eq", "ne", "lt", "le", "gt", "ge")
            for k in (0, 0.5)
        ),
        kinds=("usual", "halves", "special"),
        dtypes=MIXED,
    ),
    "1 / x": choosing(("1", lambda x: 1 / x), ("-2.5", lambda x: -2.5 / x), dtypes=MIXED),
    "prelu": lambda d: _prelu(d),
    "glu": lambda d: _glu(d),
}


def _prelu(d: Draw) -> Trial:
    channels, sizes, dtype = d.pick(1, 3), d.sizes(0, 2), d.pick(*FLOATS)
    weight = d.tensor([channels], dtype)
    return d.trial(
        lambda x: F.prelu(x, weight),
        lambda rows, kind: (d.tensor([rows, 3, *sizes], dtype, kind),),
        ("usual", "special"),
    )


def _glu(d: Draw) -> Trial:
    sizes, dtype = d.sizes(0, 1), d.pick(*FLOATS)
    dim = d.pick(1, -1) if not sizes else 1
    return d.trial(
        lambda x: F.glu(x, dim), lambda rows, kind: (d.tensor([rows, 6, *sizes], dtype, kind),), ("usual", "special")
    )


BINARY_KINDS = ("usual", "halves", "special")


def binary(
    function: Callable[[Any, Any], Any],
    dtypes: Any = (*MIXED, torch.bool),
    kinds: tuple[str, ...] = BINARY_KINDS,
    same: bool = False,
    count: int = 2,
) -> Callable[[Draw], Trial]:
    """Makes trials of a function of two (or ``count``) tensors of any dtypes, which broadcast to each other."""

    def make(d: Draw) -> Trial:
        sizes = d.sizes(1, 3)
        first = d.pick(*dtypes)
        types = [first, *(first if same else d.pick(*dtypes) for _ in range(count - 1))]
        shapes: list[Any] = [["rows", *sizes]]
        for _ in range(count - 1):
            cut = d.integer(0, len(sizes) + 1)
            shapes.append([1 if d.maybe() else size for size in ["rows", *sizes][cut:]])
        order = d.maybe()

        def inputs(rows: int, kind: str) -> tuple[torch.Tensor, ...]:
            return tuple(
                d.tensor([rows if s == "rows" else s for s in shape], dtype, kind)
                for shape, dtype in zip(shapes, types, strict=True)
            )

        rows_of = [0 if shape[:1] == ["rows"] else None for shape in shapes]
        called = (lambda *xs: function(*xs[::-1])) if order and not same else function
        return d.trial(called, inputs, kinds, rows_of)

    return make


NUMBERS = (*MIXED,)
OPERATORS |= {
    "add": binary(torch.add),
    "add, alpha": binary(lambda a, b: torch.add(a, b, alpha=3), NUMBERS),
    "sub": binary(torch.sub, NUMBERS),
    "sub, alpha": binary(lambda a, b: torch.sub(a, b, alpha=-2), NUMBERS),
    "rsub": binary(lambda a, b: torch.rsub(a, b, alpha=2), NUMBERS),
    "mul": binary(torch.mul),
    "div": binary(torch.div),
    "div, floor": binary(
        lambda a, b: torch.div(a, torch.where(b == 0, 1, b), rounding_mode="floor"),
        NUMBERS,
        ("usual", "halves", "special"),
    ),
    "div, trunc": binary(
        lambda a, b: torch.div(a, torch.where(b == 0, 1, b), rounding_mode="trunc"), NUMBERS, ("usual", "halves")
    ),
    "floor_divide": binary(
        lambda a, b: torch.floor_divide(a, torch.where(b == 0, 1, b)), NUMBERS, ("usual", "halves", "special")
    ),
    "remainder": binary(lambda a, b: torch.remainder(a, torch.where(b == 0, 1, b)), NUMBERS, ("usual", "halves")),
    "fmod": binary(lambda a, b: torch.fmod(a, torch.where(b == 0, 1, b)), NUMBERS, ("usual", "halves")),
    "pow": binary(torch.pow, FLOATS, ("usual", "halves", "positive")),
    "pow, integers to floats": binary(lambda a, b: a.abs() ** b, (*FLOATS, torch.int64), ("usual",)),
    "maximum": binary(torch.maximum),
    "minimum": binary(torch.minimum),
    "fmax": binary(torch.fmax, NUMBERS),
    "fmin": binary(torch.fmin, NUMBERS),
    "atan2": binary(torch.atan2, FLOATS),
    "hypot": binary(torch.hypot, FLOATS, ("usual", "large")),
    "copysign": binary(torch.copysign, FLOATS, ("usual", "halves")),
    "heaviside": binary(torch.heaviside, (torch.float32,), ("usual", "halves"), same=True),
    "xlogy": binary(torch.xlogy, FLOATS, ("positive", "halves")),
    "logaddexp": binary(torch.logaddexp, (torch.float32,), ("usual", "large", "special"), same=True),
    "eq": binary(torch.eq),
    "ne": binary(torch.ne),
    "lt": binary(torch.lt),
    "le": binary(torch.le),
    "gt": binary(torch.gt),
    "ge": binary(torch.ge),
    "logical_and": binary(torch.logical_and),
    "logical_or": binary(torch.logical_or),
    "logical_xor": binary(torch.logical_xor),
    "bitwise_and": binary(torch.bitwise_and, (*INTEGERS, torch.bool)),
    "bitwise_or": binary(torch.bitwise_or, (*INTEGERS, torch.bool)),
    "bitwise_xor": binary(torch.bitwise_xor, (*INTEGERS, torch.bool)),
    "shift": binary(lambda a, b: (a << b.abs()) >> 1, INTEGERS, ("tiny",), same=True),
    "where": binary(lambda a, b: torch.where(a > 0, a, b), NUMBERS),
    "where, a number": binary(lambda a, b: torch.where(a > b, a, 0.5), NUMBERS),
    "where, two numbers": binary(lambda a, b: torch.where(a > b, 1, 2), NUMBERS),
    "masked_fill": binary(lambda a, b: a.masked_fill(b > 0, -1), NUMBERS, same=True),
    "masked_fill, -inf": binary(lambda a, b: a.masked_fill(b > 0, float("-inf")), FLOATS, same=True),
    "clamp by tensors": binary(lambda a, b: torch.clamp(a, min=b, max=b + 1), NUMBERS, same=True),
    "lerp": binary(lambda a, b: torch.lerp(a, b, 0.3), FLOATS, same=True, kinds=("usual", "tiny")),
    "lerp by a tensor": binary(
        lambda a, b, c: torch.lerp(a, b, c), (torch.float32,), same=True, count=3, kinds=("usual", "tiny")
    ),
    "addcmul": binary(
        lambda a, b, c: torch.addcmul(a, b, c, value=2.5), FLOATS, same=True, count=3, kinds=("usual", "tiny")
    ),
    "addcdiv": binary(
        lambda a, b, c: torch.addcdiv(a, b, c.abs() + 1, value=-2), FLOATS, same=True, count=3, kinds=("usual", "tiny")
    ),
    "copy_": binary(lambda a, b: torch.zeros_like(a).copy_(b), (*MIXED, torch.bool), ("usual", "halves")),
    "copy_ of a row": binary(lambda a, b: a.clone().copy_(a[:1] + 1) + b, NUMBERS, same=True),
    "mse_loss": binary(lambda a, b: F.mse_loss(a, b.expand_as(a)), FLOATS, same=True, kinds=("usual",)),
    "l1_loss": binary(
        lambda a, b: F.l1_loss(a, b.expand_as(a), reduction="sum"), (torch.float32,), same=True, kinds=("usual",)
    ),
    "smooth_l1_loss": binary(
        lambda a, b: F.smooth_l1_loss(a, b.expand_as(a), reduction="none"), FLOATS, same=True, kinds=("usual", "large")
    ),
    "huber_loss": binary(
        lambda a, b: F.huber_loss(a, b.expand_as(a), reduction="none", delta=0.5), FLOATS, same=True, kinds=("usual",)
    ),
    "binary_cross_entropy_with_logits": binary(
        lambda a, b: F.binary_cross_entropy_with_logits(a, b.expand_as(a).sigmoid(), reduction="none"),
        FLOATS,
        same=True,
        kinds=("usual", "large"),
    ),
    "kl_div": binary(
        lambda a, b: F.kl_div(a, b.expand_as(a).sigmoid(), reduction="none"), FLOATS, same=True, kinds=("usual",)
    ),
}
