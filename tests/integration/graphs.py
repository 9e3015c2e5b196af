"""Models of many kinds for the differential harness, each with its calls and its build options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Graph:
    """A model, its example, and further calls that must be right too.

    Attributes:
        make: makes the model; its weights come from a fixed seed.
        args: the example's positional arguments.
        kwargs: the example's keyword arguments.
        calls: further calls.
        options: the options for ``build_here``.
        tolerance: the largest relative L2 error of an output, compared with the original model.
    """

    make: Callable[[], nn.Module]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    calls: tuple[Call, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()

    def all_calls(self) -> list[Call]:
        return [(self.args, self.kwargs), *self.calls]


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns random numbers that depend only on the shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + len(shape))).to(dtype)


def in_torch(*operators: str, **options: Any) -> dict[str, Any]:
    """Returns options that keep these operators in PyTorch, so that they separate engines."""
    return {"torch_executed_ops": list(operators), **options}


def _calls(*args: tuple[Any, ...]) -> tuple[Call, ...]:
    return tuple((arguments, {}) for arguments in args)


# Dynamic sizes


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(dim=(2, 3)))


class FullyConvolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.convolution(x)) + x.mean(dim=1, keepdim=True)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layer(self.embedding(tokens))


class SizesOnBothSides(nn.Module):
    """A model in which sizes enter and leave an engine, and one is an output."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        doubled = torch.cat([x, x + 1]).relu()
        ramp = torch.arange(doubled.shape[0], device=x.device, dtype=x.dtype)
        return doubled * ramp.unsqueeze(1), doubled.reshape(-1), x.shape[0] * 2


class EqualBatches(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.relu(left) + right


# Structures


@dataclass
class Sample:
    """A dataclass as input and output of a model; it is registered with pytree below."""

    image: Tensor
    weights: dict[str, Tensor]


torch.export.register_dataclass(Sample, serialized_type_name="tests.integration.graphs.Sample")


class Pair(NamedTuple):
    """A named tuple as input and output of a model; it is registered with pytree below."""

    left: Tensor
    right: Tensor


_pytree._register_namedtuple(Pair, serialized_type_name="tests.integration.graphs.Pair")


class NamedTupleInAndOut(nn.Module):
    def forward(self, pair: Pair, x: Tensor) -> dict[str, Pair]:
        return {"pair": Pair(pair.right * x, torch.relu(pair.left) + 1)}


class TokenTypes(nn.Module):
    """A model that looks up the types of its tokens, however many there are, as BERT does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("types", torch.arange(16)[None] % 3)
        self.register_buffer("positions", torch.arange(16)[None].flip(1))
        self.embedding = nn.Embedding(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        types = torch.gather(self.types.expand(1, -1), 1, self.positions[:, : x.shape[1]])
        return x + self.embedding(types)


class Keywords(nn.Module):
    """A model whose arguments cannot be confused: it is not commutative, and their shapes differ."""

    def forward(self, a: Tensor, b: Tensor, *, c: Tensor, d: Tensor) -> Tensor:
        return (a - 2 * b) / (3 + c.abs()) - 5 * d.relu()


class Nested(nn.Module):
    def forward(self, parts: list[Any], named: dict[str, Any]) -> dict[str, Any]:
        first, (second, third) = parts
        return {
            "sum": first + second.relu(),
            "more": [third * named["scale"], (named["inner"]["bias"] - first, [second])],
            "point": (first * 2, third.sigmoid()),
        }


class DataclassInAndOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, sample: Sample, bias: Tensor) -> Sample:
        hidden = self.linear(sample.image) * sample.weights["gain"] + bias
        return Sample(hidden, {"twice": hidden * 2, "gain": bias - sample.weights["gain"]})


class PlainValues(nn.Module):
    """A model with None, int, bool and float among its inputs and outputs."""

    def forward(
        self, x: Tensor, mask: Tensor | None, times: int, invert: bool, factor: float
    ) -> tuple[Tensor, None, int, float, bool]:
        result = x.relu() * factor + times
        if mask is not None:
            result = result + mask
        return (-result if invert else result), None, times + 1, factor, invert


# Dtypes


class ManyDtypes(nn.Module):
    def forward(
        self, long: Tensor, flags: Tensor, half: Tensor, brain: Tensor, single: Tensor, int32: Tensor
    ) -> tuple[Tensor, ...]:
        return (
            long * 2 + int32,
            flags & (single > 0),
            half + half.relu(),
            brain * 2 - 1,
            torch.where(flags, single, -single),
            int32 - 1,
        )


class SmallIntegers(nn.Module):
    def forward(self, unsigned: Tensor, signed: Tensor) -> Tensor:
        return unsigned.float() / 255 - signed.float()


class ManyDtypesInTorch(nn.Module):
    """A model in which every dtype passes from an engine to PyTorch and on to an engine."""

    def forward(self, long: Tensor, flags: Tensor, half: Tensor, brain: Tensor) -> tuple[Tensor, ...]:
        first = (long + 1, ~flags, half.relu() + 1, brain.relu() + 1)
        second = tuple(torch.roll(value, 1) for value in first)
        return second[0] * 2, second[1] & first[1], second[2] - half, second[3] - brain


class ComplexEverywhere(nn.Module):
    """A model with complex inputs, outputs and weights, as rotary embeddings have."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rotation", torch.polar(torch.ones(4), torch.arange(4.0)))

    def forward(self, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        turned = x * self.rotation
        return turned + 1, torch.view_as_real(turned).flatten(1).relu(), torch.complex(real.relu(), real)


class Doubles(nn.Module):
    """A model with fp64 inputs, outputs and inner values, in engines and in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        hidden = (x.relu() @ self.weight) + 1
        rolled = torch.roll(hidden, 1)
        return (rolled * y).relu(), hidden, y.double() + x, torch.full_like(y, 0.5, dtype=torch.float64) * x


class EmptyParts(nn.Module):
    """A model with empty tensors, where TensorRT accepts them or lowering removes them."""

    def forward(self, x: Tensor, empty: Tensor) -> tuple[Tensor, ...]:
        return torch.cat([x.relu(), x[:, :0]], dim=1) + empty.sum(), x[:0]


class Scopes(nn.Module):
    """A model that uses no_grad and autocast inside."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            hidden = x.relu() + 1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            product = hidden @ hidden.t()
        return hidden * 2, product.float()


class SizeOfData(nn.Module):
    """A model with a size that depends on data, which stays in PyTorch."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        positive = x.relu()
        return positive[x > 0], positive * positive.sum().item()


# State


class TiedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        self.head = nn.Linear(8, 16, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.roll(self.embedding(tokens), 1))


class TiedInTorch(nn.Module):
    """A model with one weight under two names, both of which are read outside of the engines."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(4))
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return ((x.relu() * self.first).sigmoid() * self.second).relu()


class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.arange(4.0))
        self.register_buffer("forgotten", torch.arange(4.0) * 3, persistent=False)
        self.plain = torch.full((4,), 7.0)

    def forward(self, x: Tensor) -> Tensor:
        return ((x.relu() * self.kept).relu() * self.forgotten).relu() * self.plain


class Inner(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size))
        self.register_buffer("offset", torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).relu() * self.offset


class SameNames(nn.Module):
    """A model with dotted names that become equal without their dots."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Module()
        self.a.b = Inner(4)
        self.a_b = Inner(4)
        self.weight = nn.Parameter(torch.randn(4))
        self.blocks = nn.ModuleList([Inner(4), Inner(4)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.a.b(x) - self.a_b(x) * self.weight
        for block in self.blocks:
            x = block(x.relu())
        return x


class StridesAndGradients(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.turned = nn.Parameter(torch.randn(6, 4).t())
        self.frozen = nn.Parameter(torch.randn(4, 6), requires_grad=False)
        self.register_buffer("expanded", torch.randn(4, 1).expand(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return ((x.relu() * self.turned).relu() * self.frozen).relu() * self.expanded


class KeyValueCache(nn.Module):
    """A model that writes one position of its caches at each call, and reads all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(1, 2, 8, 4))
        self.register_buffer("values", torch.zeros(1, 2, 8, 4), persistent=False)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, position: Tensor) -> Tensor:
        self.keys.index_copy_(2, position, key)
        self.values.index_copy_(2, position, value)
        weights = torch.softmax(query @ self.keys.transpose(2, 3), dim=-1)
        return weights @ self.values


class SlicedCache(nn.Module):
    """A model with a cache that is written by slice at a fixed place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 2, 8, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.cache[:, :, 3:5] = x.relu()
        return self.cache.sum(dim=2)


class OldAndNewCache(nn.Module):
    """A model that reads the cache's old values after it has written new ones, so that no engine may write in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 2, 8, 4))

    def forward(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        before = self.cache.clone()
        self.cache.index_copy_(2, position, x)
        return torch.roll(before, 1).relu(), self.cache * 2


class CountersEverywhere(nn.Module):
    """A model with state in an engine and in PyTorch, which it reads before and after changes, and sets to an input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.inner = nn.Module()
        self.inner.register_buffer("mean", torch.zeros(4))
        self.register_buffer("last", torch.zeros(2, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = self.inner.mean + self.last
        self.count += 1
        self.inner.mean.mul_(0.5).add_(x.mean(dim=0))
        self.last.copy_(x)
        return before * self.count, self.inner.mean - x


class ChangedInput(nn.Module):
    """A model that writes into its caller's tensor."""

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        state.add_(x)
        return state.relu() * 2


class CacheGivenAndReturned(nn.Module):
    """A model with a cache that the caller keeps, so that the engine must not write into the caller's tensor."""

    def forward(self, cache: Tensor, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        cache = cache.index_copy(2, position, x)
        return cache.sum(dim=2), cache


# Inputs and outputs


class EveryKindOfOutput(nn.Module):
    """A model that returns an input twice, a constant, a tensor twice, a view, and the result of a no-op."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("constant", torch.arange(3.0))
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor, unused: Tensor, y: Tensor) -> tuple[Any, ...]:
        hidden = (x + y).relu()
        return x, hidden, self.constant, hidden, x, y.view(-1), hidden.contiguous(), self.weight, x.to(x.dtype), 3


class UnusedParts(nn.Module):
    """A model that reads two of its four inputs, and one result of a split."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.unused = nn.Linear(4, 4)

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        left, _middle, _right = self.linear(b).split(2, dim=1)
        torch.roll(self.unused(a), 1)
        return left - d


class ManyEngines(nn.Module):
    """A model of three engines with PyTorch between them; values of the first are read at the end."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        first = x.relu()
        second = first * 2
        third = torch.roll(second, 1)
        fourth = (third - first).sigmoid()
        fifth = torch.roll(fourth, 2)
        return fifth.relu() + second, third, first, fourth


class TwoReadersOfOneOutput(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = x.relu()
        rolled = torch.roll(hidden, 1)
        return rolled + hidden, rolled, torch.roll(hidden, 2)


class SeveralResultsInTorch(nn.Module):
    """A model with an operator in PyTorch that has several results, of which the middle one is never read."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, _second, third = torch.split(x.relu(), 2, dim=1)
        return third - 1, first + 1


X = random(2, 4)
STEP = random(1, 2, 1, 4)

GRAPHS: dict[str, Graph] = {
    "dynamic batch": Graph(
        Convolutions,
        (random(4, 3, 16, 16),),
        calls=_calls((random(1, 3, 16, 16),), (random(8, 3, 16, 16),)),
        options={"dynamic": ("x.0=1:4:8",)},
    ),
    "dynamic sequence": Graph(
        Attention,
        (torch.arange(12).reshape(2, 6),),
        calls=_calls((torch.arange(2).reshape(2, 1),), (torch.arange(20).reshape(2, 10),)),
        options={"dynamic": ("tokens.1=1:6:10",)},
    ),
    "dynamic batch and sequence": Graph(
        Attention,
        (torch.arange(12).reshape(2, 6),),
        calls=_calls((torch.arange(1).reshape(1, 1),), (torch.arange(30).reshape(3, 10),)),
        options={"dynamic": ("tokens.0=1:2:4", "tokens.1=1:6:10")},
    ),
    "dynamic image": Graph(
        FullyConvolutional,
        (random(1, 3, 16, 24),),
        calls=_calls((random(1, 3, 8, 8),), (random(1, 3, 32, 9),)),
        options={"dynamic": ("x.2=8:16:32", "x.3=8:24:32")},
    ),
    "dynamic image from one pixel": Graph(
        FullyConvolutional,
        (random(1, 3, 4, 4),),
        calls=_calls((random(1, 3, 1, 1),)),
        options={"dynamic": ("x.2=1:4:8", "x.3=1:4:8")},
    ),
    "sizes on both sides": Graph(
        SizesOnBothSides,
        (random(4, 3),),
        calls=_calls((random(1, 3),), (random(8, 3),)),
        options=in_torch("aten.arange.start_step", dynamic=("x.0=1:4:8",)),
    ),
    "equal batches": Graph(
        EqualBatches,
        (random(4, 3), random(4, 3) * 2),
        calls=_calls((random(1, 3), random(1, 3) + 1)),
        options={"dynamic": ("left.0=1:4:8", "right.0=1:4:8")},
    ),
    "profiles": Graph(
        Convolutions,
        (random(4, 3, 16, 16),),
        calls=_calls((random(1, 3, 16, 16),), (random(16, 3, 16, 16),)),
        options={"dynamic": ("x.0=1:1:1,2:8:16",)},
    ),
    "profiles and sizes": Graph(
        SizesOnBothSides,
        (random(4, 3),),
        calls=_calls((random(1, 3),), (random(16, 3),)),
        options=in_torch("aten.arange.start_step", dynamic=("x.0=1:1:1,2:8:16",)),
    ),
    "keywords": Graph(
        Keywords,
        (X,),
        {"d": X - 1, "b": X + 2, "c": X * 3},
        calls=(((X,), {"b": X + 2, "c": X * 3, "d": X - 1}), ((), {"c": X * 3, "a": X, "d": X, "b": X + 2})),
    ),
    "nested": Graph(
        Nested,
        ([X, (X + 1, X * 2)], {"scale": X - 3, "inner": {"bias": X * 5}}),
    ),
    "gather of a dynamic length": Graph(
        TokenTypes,
        (random(2, 5, 4),),
        calls=(((random(1, 2, 4),), {}), ((random(4, 16, 4),), {})),
        options={"dynamic": ("x.0=1:2:4", "x.1=2:5:16"), "require_full_coverage": True},
    ),
    "named tuple": Graph(NamedTupleInAndOut, (Pair(X, X * 2), X - 5)),
    "dataclass": Graph(DataclassInAndOut, (Sample(X, {"gain": X * 2}), X - 5)),
    "plain values": Graph(PlainValues, (X, None, 3, True, 0.5)),
    "plain values by keyword": Graph(PlainValues, (X,), {"mask": X * 2, "factor": 0.25, "invert": False, "times": 2}),
    "dtypes": Graph(
        ManyDtypes,
        (
            torch.arange(8).reshape(2, 4) - 2**40,
            X > 0,
            X.half(),
            X.bfloat16(),
            X,
            torch.arange(8, dtype=torch.int32).reshape(2, 4),
        ),
    ),
    "dtypes in PyTorch": Graph(
        ManyDtypesInTorch,
        (torch.arange(8).reshape(2, 4), X > 0, X.half(), X.bfloat16()),
        options=in_torch("aten.roll.default"),
    ),
    "tied weights": Graph(TiedWeights, (torch.arange(6).reshape(2, 3),), options=in_torch("aten.roll.default")),
    "tied weights in PyTorch": Graph(TiedInTorch, (random(4, 4),), options=in_torch("aten.mul.Tensor")),
    "buffers": Graph(Buffers, (X,), options=in_torch("aten.mul.Tensor")),
    "same names": Graph(SameNames, (X,), options=in_torch("aten.mul.Tensor")),
    "strides and gradients": Graph(StridesAndGradients, (random(4, 6),), options=in_torch("aten.mul.Tensor")),
    "every kind of output": Graph(EveryKindOfOutput, (random(2, 3), random(5), random(2, 3) * 2)),
    "unused parts": Graph(UnusedParts, (X, X + 1, X + 2, random(2, 2))),
    "many engines": Graph(ManyEngines, (X,), options=in_torch("aten.roll.default")),
    "two readers": Graph(TwoReadersOfOneOutput, (X,), options=in_torch("aten.roll.default")),
    "several results in PyTorch": Graph(SeveralResultsInTorch, (random(2, 6),), options=in_torch("aten.split.Tensor")),
    "key-value cache": Graph(
        KeyValueCache,
        (STEP, STEP + 1, STEP * 2, torch.tensor([0])),
        calls=_calls(*((STEP * i, STEP - i, STEP + i, torch.tensor([i])) for i in (1, 2, 7, 1))),
    ),
    "key-value cache in PyTorch": Graph(
        KeyValueCache,
        (STEP, STEP + 1, STEP * 2, torch.tensor([0])),
        calls=_calls((STEP, STEP - 3, STEP * 3, torch.tensor([5]))),
        options=in_torch("aten.index_copy.default"),
    ),
    "sliced cache": Graph(SlicedCache, (random(1, 2, 2, 4),), calls=_calls((random(1, 2, 2, 4) * 2,))),
    "old and new cache": Graph(
        OldAndNewCache,
        (STEP, torch.tensor([0])),
        calls=_calls((STEP + 1, torch.tensor([3]))),
        options=in_torch("aten.roll.default"),
    ),
    "counters": Graph(CountersEverywhere, (X,), calls=_calls((X + 1,), (X - 1,)), options=in_torch("aten.mul.Tensor")),
    "changed input": Graph(ChangedInput, (X, X.clone()), calls=_calls((X, X * 3))),
    "cache given and returned": Graph(
        CacheGivenAndReturned,
        (random(1, 2, 8, 4), STEP, torch.tensor([3])),
    ),
    "complex": Graph(ComplexEverywhere, (torch.complex(X, X + 1), X)),
    "doubles": Graph(Doubles, (X.double(), X + 1), options=in_torch("aten.roll.default"), tolerance=1e-6),
    "empty parts": Graph(EmptyParts, (X, random(0, 4))),
    "scopes": Graph(Scopes, (X,)),
    "size of data": Graph(SizeOfData, (X,)),
    "LSTM": Graph(lambda: nn.LSTM(4, 5, batch_first=True), (random(2, 3, 4),)),
    "strided inputs": Graph(EqualBatches, (random(4, 2).t(), random(2, 1).expand(2, 4))),
    "small integers": Graph(SmallIntegers, (torch.arange(4, dtype=torch.uint8), torch.arange(4, dtype=torch.int8) - 2)),
}
