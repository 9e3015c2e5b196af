"""Tiny networks, each with inputs and with the outputs that follow from NVIDIA's documentation of its layers.

They are compared with the interpreter here, and with engines on a GPU by ``benchmarks/gpu/layers.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import tensorrt_rtx as trt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

_DTYPES = {
    torch.float32: trt.float32,
    torch.float16: trt.float16,
    torch.bfloat16: trt.bfloat16,
    torch.int32: trt.int32,
    torch.int64: trt.int64,
    torch.int8: trt.int8,
    torch.uint8: trt.uint8,
    torch.bool: trt.bool,
}


def tensorrt_dtype(dtype: torch.dtype) -> Any:
    """Returns TensorRT's dtype for one of PyTorch."""
    return _DTYPES[dtype]


class HandMade:
    """A network under construction, the values of its inputs, and what its outputs must be.

    Attributes:
        inputs: the inputs' values by name.
        expected: the right outputs by name.
    """

    def __init__(self) -> None:
        self._logger = trt.Logger(trt.Logger.ERROR)
        self.builder = trt.Builder(self._logger)
        self.network = self.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.config = self.builder.create_builder_config()
        self._profile = self.builder.create_optimization_profile()
        self._kept: list[Tensor] = []
        self.inputs: dict[str, Tensor] = {}
        self.expected: dict[str, Tensor] = {}

    def input(self, value: Tensor, *, dynamic: bool = False, static: Collection[int] = ()) -> Any:
        """Adds an input to the network.

        Args:
            value: the input's value.
            dynamic: whether its sizes range from 1 to twice the value's.
            static: dimensions whose sizes are fixed even then.
        """
        name = f"input{len(self.inputs)}"
        self.inputs[name] = value
        shape = tuple(value.shape)
        fixed = range(value.ndim) if not dynamic else static
        if dynamic:
            least, most = (
                [size if dim in fixed else other for dim, (size, other) in enumerate(zip(shape, others, strict=True))]
                for others in ([1] * value.ndim, [2 * size for size in shape])
            )
            self._profile.set_shape(name, least, shape, most)
        sizes = [size if dim in fixed else -1 for dim, size in enumerate(shape)]
        return self.network.add_input(name, _DTYPES[value.dtype], sizes)

    def constant(self, value: Any, dtype: torch.dtype | None = None) -> Any:
        """Adds a constant layer, and returns its output."""
        tensor = torch.as_tensor(value, dtype=dtype).contiguous()
        return self.network.add_constant(tuple(tensor.shape), self.weights(tensor)).get_output(0)

    def weights(self, tensor: Tensor) -> Any:
        self._kept.append(tensor)
        return trt.Weights(_DTYPES[tensor.dtype], tensor.data_ptr(), tensor.numel())

    def output(self, tensor: Any, expected: Tensor) -> None:
        """Marks an output of the network, with its right value."""
        tensor.name = f"output{len(self.expected)}"
        self.expected[tensor.name] = expected
        self.network.mark_output(tensor)

    def plan(self) -> Any:
        """Builds the engine; returns None where TensorRT refuses."""
        self.config.add_optimization_profile(self._profile)
        return self.builder.build_serialized_network(self.network, self.config)


CASES: dict[str, Callable[[HandMade], None]] = {}


def case(name: str) -> Callable[[Callable[[HandMade], None]], Callable[[HandMade], None]]:
    def register(function: Callable[[HandMade], None]) -> Callable[[HandMade], None]:
        CASES[name] = function
        return function

    return register


def numbers(*shape: int) -> Tensor:
    """Returns numbers around zero that all differ."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def ramp(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


# Pointwise


@case("activations")
def activations(net: HandMade) -> None:
    x = torch.tensor([-100.0, -2.0, -0.5, 0.0, 0.25, 3.0, 100.0])
    tensor = net.input(x)
    wanted = {
        "RELU": (0, 0, F.relu(x)),
        "SIGMOID": (0, 0, torch.sigmoid(x)),
        "TANH": (0, 0, torch.tanh(x)),
        "LEAKY_RELU": (0.1, 0, F.leaky_relu(x, 0.1)),
        "ELU": (1.5, 0, F.elu(x, 1.5)),
        "SELU": (1.6732632, 1.0507009, F.selu(x)),
        "SOFTSIGN": (0, 0, F.softsign(x)),
        "SOFTPLUS": (2.0, 0.5, F.softplus(x, 0.5, threshold=1e9).clamp(max=200) * 0.5 * 2.0),
        "CLIP": (-1, 2, x.clamp(-1, 2)),
        "HARD_SIGMOID": (0.2, 0.5, (0.2 * x + 0.5).clamp(0, 1)),
        "SCALED_TANH": (2, 0.5, 2 * torch.tanh(0.5 * x)),
        "THRESHOLDED_RELU": (0.25, 0, F.threshold(x, 0.25, 0)),
        "GELU_ERF": (0, 0, F.gelu(x)),
        "GELU_TANH": (0, 0, F.gelu(x, approximate="tanh")),
    }
    for name, (alpha, beta, expected) in wanted.items():
        layer = net.network.add_activation(tensor, getattr(trt.ActivationType, name))
        layer.alpha, layer.beta = alpha, beta
        net.output(layer.get_output(0), expected)


@case("elementwise")
def elementwise(net: HandMade) -> None:
    a, b = numbers(3, 1, 4).abs() + 0.1, numbers(1, 2, 4)
    first, second = net.input(a), net.input(b)
    wanted = {
        "SUM": a + b, "PROD": a * b, "MAX": torch.maximum(a, b), "MIN": torch.minimum(a, b), "SUB": a - b,
        "DIV": a / b, "POW": a**b, "FLOOR_DIV": (a / b).floor(), "EQUAL": a == b, "GREATER": a > b, "LESS": a < b,
    }  # fmt: skip
    for name, expected in wanted.items():
        operation = getattr(trt.ElementWiseOperation, name)
        net.output(net.network.add_elementwise(first, second, operation).get_output(0), expected)


@case("elementwise of integers")
def elementwise_of_integers(net: HandMade) -> None:
    for dtype in (torch.int32, torch.int64):
        a, b = torch.tensor([7, -7, 7, -7, 0], dtype=dtype), torch.tensor([2, 2, -2, -2, 5], dtype=dtype)
        first, second = net.input(a), net.input(b)
        wanted = {
            "SUM": [9, -5, 5, -9, 5], "SUB": [5, -9, 9, -5, -5], "PROD": [14, -14, -14, 14, 0],
            "DIV": [3, -3, -3, 3, 0], "FLOOR_DIV": [3, -4, -4, 3, 0], "MAX": [7, 2, 7, -2, 5],
        }  # fmt: skip
        for name, expected in wanted.items():
            operation = getattr(trt.ElementWiseOperation, name)
            result = net.network.add_elementwise(first, second, operation).get_output(0)
            net.output(result, torch.tensor(expected, dtype=dtype))


@case("logic")
def logic(net: HandMade) -> None:
    a, b = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    first, second = net.input(a), net.input(b)
    for name, expected in {"AND": a & b, "OR": a | b, "XOR": a ^ b}.items():
        operation = getattr(trt.ElementWiseOperation, name)
        net.output(net.network.add_elementwise(first, second, operation).get_output(0), expected)
    net.output(net.network.add_unary(first, trt.UnaryOperation.NOT).get_output(0), ~a)


@case("unary")
def unary(net: HandMade) -> None:
    x = torch.tensor([-0.9, -0.5, -0.1, 0.1, 0.5, 0.9])
    inputs = {"within one": x, "positive": x.abs() * 3, "halves": torch.tensor([-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5])}
    tensors = {name: net.input(value) for name, value in inputs.items()}
    circular = ["SIN", "COS", "TAN", "SINH", "COSH", "ASIN", "ACOS", "ATAN", "ASINH", "ATANH"]
    for name in (*circular, "ERF", "EXP", "ABS", "NEG", "SIGN"):
        layer = net.network.add_unary(tensors["within one"], getattr(trt.UnaryOperation, name))
        net.output(layer.get_output(0), getattr(torch, name.lower())(x))
    positive = inputs["positive"]
    for name, expected in {"LOG": positive.log(), "SQRT": positive.sqrt(), "RECIP": 1 / positive}.items():
        layer = net.network.add_unary(tensors["positive"], getattr(trt.UnaryOperation, name))
        net.output(layer.get_output(0), expected)
    wanted = {"ROUND": [-2, -2, 0, 0, 0, 2, 2], "CEIL": [-2, -1, 0, 0, 1, 2, 3], "FLOOR": [-3, -2, -1, 0, 0, 1, 2]}
    for name, rounded in wanted.items():
        layer = net.network.add_unary(tensors["halves"], getattr(trt.UnaryOperation, name))
        net.output(layer.get_output(0), torch.tensor(rounded).float())


@case("infinity and NaN")
def infinity_and_nan(net: HandMade) -> None:
    x = torch.tensor([1.0, torch.inf, -torch.inf, torch.nan])
    tensor = net.input(x)
    for name, expected in {"ISINF": x.isinf(), "ISNAN": x.isnan()}.items():
        net.output(net.network.add_unary(tensor, getattr(trt.UnaryOperation, name)).get_output(0), expected)


@case("select")
def select(net: HandMade) -> None:
    condition, then, otherwise = torch.tensor([[[True], [False]]]), ramp(3, 1, 4), -ramp(1, 2, 4)
    layer = net.network.add_select(*map(net.input, (condition, then, otherwise)))
    net.output(layer.get_output(0), torch.where(condition, then, otherwise))


@case("casts")
def casts(net: HandMade) -> None:
    x = torch.tensor([-2.75, -0.5, 0.0, 0.5, 2.75])
    tensor = net.input(x)
    whole = torch.tensor([-2, 0, 0, 0, 2])
    wanted = {
        trt.int32: whole.int(), trt.int64: whole, trt.bool: torch.tensor([True, True, False, True, True]),
        trt.float16: x.half(), trt.bfloat16: x.bfloat16(),
    }  # fmt: skip
    for dtype, expected in wanted.items():
        net.output(net.network.add_cast(tensor, dtype).get_output(0), expected)
    net.output(net.network.add_identity(tensor).get_output(0), x)
    flags = net.input(torch.tensor([True, False]))
    net.output(net.network.add_cast(flags, trt.float32).get_output(0), torch.tensor([1.0, 0.0]))


@case("halves are rounded once")
def halves(net: HandMade) -> None:
    x = torch.full((1, 2048), 1 / 3).half()
    tensor = net.input(x)
    net.output(net.network.add_reduce(tensor, trt.ReduceOperation.SUM, 2, False).get_output(0), x.float().sum(1).half())
    other = net.constant(torch.full((1, 2048), 3.0), torch.bfloat16)
    brain = net.input(torch.full((1, 2048), 1 / 3).bfloat16())
    product = net.network.add_elementwise(brain, other, trt.ElementWiseOperation.PROD).get_output(0)
    net.output(product, torch.full((1, 2048), 1 / 3).bfloat16() * 3)


@case("scale")
def scale(net: HandMade) -> None:
    x = numbers(2, 3, 4, 5).abs()
    factors, shifts, powers = (torch.tensor(row) for row in ([1.0, 2.0, 3.0], [0.5, 0.0, 1.0], [1.0, 2.0, 0.5]))
    tensor = net.input(x)
    layer = net.network.add_scale_nd(
        tensor, trt.ScaleMode.CHANNEL, net.weights(shifts), net.weights(factors), net.weights(powers), 1
    )
    shaped = [part.reshape(1, 3, 1, 1) for part in (factors, shifts, powers)]
    net.output(layer.get_output(0), (x * shaped[0] + shaped[1]) ** shaped[2])
    none, two = trt.Weights(), net.weights(torch.tensor([2.0]))
    net.output(net.network.add_scale_nd(tensor, trt.ScaleMode.UNIFORM, none, two, none, 1).get_output(0), 2 * x)


@case("parametric relu")
def parametric_relu(net: HandMade) -> None:
    x, slopes = numbers(2, 3, 4), numbers(1, 3, 1)
    layer = net.network.add_parametric_relu(net.input(x), net.constant(slopes))
    net.output(layer.get_output(0), torch.where(x < 0, x * slopes, x))


# Shapes


@case("shuffle")
def shuffle(net: HandMade) -> None:
    x = ramp(2, 3, 4)
    layer = net.network.add_shuffle(net.input(x))
    layer.first_transpose, layer.reshape_dims, layer.second_transpose = (2, 0, 1), (0, -1), (1, 0)
    net.output(layer.get_output(0), x.permute(2, 0, 1).reshape(4, 6).t())


@case("shuffle by a shape tensor")
def shuffle_by_tensor(net: HandMade) -> None:
    x = ramp(2, 3, 4)
    tensor = net.input(x, dynamic=True)
    sizes = net.network.add_shape(tensor).get_output(0)
    last = net.network.add_gather(sizes, net.constant([2, 0]), 0).get_output(0)
    layer = net.network.add_shuffle(tensor)
    layer.set_input(1, net.network.add_concatenation([last, net.constant([-1])]).get_output(0))
    net.output(layer.get_output(0), x.reshape(4, 2, 3))


@case("concatenation, squeeze, unsqueeze, shape")
def joined(net: HandMade) -> None:
    a, b = ramp(2, 1, 3), -ramp(2, 2, 3)
    first, second = net.input(a), net.input(b)
    layer = net.network.add_concatenation([first, second])
    layer.axis = 1
    net.output(layer.get_output(0), torch.cat([a, b], 1))
    net.output(net.network.add_squeeze(first, net.constant([-2])).get_output(0), a.squeeze(1))
    net.output(net.network.add_unsqueeze(second, net.constant([0, -1])).get_output(0), b[None, ..., None])
    net.output(net.network.add_shape(second).get_output(0), torch.tensor([2, 2, 3]))


@case("slice")
def slice_(net: HandMade) -> None:
    x = torch.tensor([[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]])
    tensor = net.input(x)
    layer = net.network.add_slice(tensor, (1, 0), (1, 2), (1, 2))
    net.output(layer.get_output(0), torch.tensor([[1.0, 5.0]]))
    backward = net.network.add_slice(tensor, (0, 2), (2, 3), (1, -1))
    net.output(backward.get_output(0), x.flip(1))


@case("slice out of bounds")
def slice_out_of_bounds(net: HandMade) -> None:
    tensor = net.input(torch.tensor([10.0, 20.0, 30.0]))
    wanted = {
        "WRAP": [20, 30, 10, 20, 30, 10, 20, 30, 10],
        "CLAMP": [10, 10, 10, 20, 30, 30, 30, 30, 30],
        "FILL": [7, 7, 10, 20, 30, 7, 7, 7, 7],
        "REFLECT": [30, 20, 10, 20, 30, 20, 10, 20, 30],
    }
    for name, expected in wanted.items():
        layer = net.network.add_slice(tensor, (-2,), (9,), (1,))
        layer.mode = getattr(trt.SampleMode, name)
        if name == "FILL":
            layer.set_input(4, net.constant(7.0))
        net.output(layer.get_output(0), torch.tensor(expected).float())


@case("slice by tensors")
def slice_by_tensors(net: HandMade) -> None:
    x = ramp(4, 5)
    tensor = net.input(x, dynamic=True)
    sizes = net.network.add_shape(tensor).get_output(0)
    one = net.constant([1, 1])
    layer = net.network.add_slice(tensor, (1, 1), (0, 0), (1, 1))
    layer.set_input(2, net.network.add_elementwise(sizes, one, trt.ElementWiseOperation.SUB).get_output(0))
    net.output(layer.get_output(0), x[1:, 1:])


@case("fill")
def fill(net: HandMade) -> None:
    layer = net.network.add_fill((4,), trt.FillOperation.LINSPACE, trt.float32)
    layer.alpha, layer.beta = 1.0, 0.5
    net.output(layer.get_output(0), torch.tensor([1.0, 1.5, 2.0, 2.5]))
    both = net.network.add_fill((2, 3), trt.FillOperation.LINSPACE, trt.int64)
    both.set_input(1, net.constant(5))
    both.set_input(2, net.constant([10, 1]))
    net.output(both.get_output(0), torch.tensor([[5, 6, 7], [15, 16, 17]]))


@case("assertion")
def assertion(net: HandMade) -> None:
    x = ramp(3, 3)
    tensor = net.input(x, dynamic=True)
    sizes = net.network.add_shape(tensor).get_output(0)
    rows, columns = (net.network.add_gather(sizes, net.constant(dim), 0).get_output(0) for dim in (0, 1))
    equal = net.network.add_elementwise(rows, columns, trt.ElementWiseOperation.EQUAL).get_output(0)
    net.network.add_assertion(equal, "a square")
    net.output(net.network.add_unary(tensor, trt.UnaryOperation.NEG).get_output(0), -x)


@case("padding")
def padding(net: HandMade) -> None:
    x = ramp(1, 2, 3, 3)
    layer = net.network.add_padding_nd(net.input(x), (1, -1), (0, 2))
    net.output(layer.get_output(0), F.pad(x, (-1, 2, 1, 0)))


# Indices


@case("gather")
def gather(net: HandMade) -> None:
    x, indices = ramp(2, 4, 3), torch.tensor([[3, 0], [1, 3]])
    data, places = net.input(x), net.input(indices)
    net.output(net.network.add_gather(data, places, 1).get_output(0), x[:, indices])
    rows = net.network.add_gather(data, places, 1)
    rows.num_elementwise_dims = 1
    net.output(rows.get_output(0), torch.stack([x[row, indices[row]] for row in range(2)]))


@case("gather of elements")
def gather_of_elements(net: HandMade) -> None:
    x, indices = ramp(3, 4), torch.tensor([[3, 0], [1, 1], [2, 3]])
    layer = net.network.add_gather_v2(net.input(x), net.input(indices), trt.GatherMode.ELEMENT)
    layer.axis = 1
    net.output(layer.get_output(0), x.gather(1, indices))


@case("gather of many dimensions")
def gather_nd(net: HandMade) -> None:
    x, indices = ramp(2, 3, 4), torch.tensor([[[1], [0]], [[2], [2]]])
    data, places = net.input(x), net.input(indices)
    whole = net.network.add_gather_v2(data, net.input(torch.tensor([[1, 2], [0, 0]])), trt.GatherMode.ND)
    net.output(whole.get_output(0), torch.stack([x[1, 2], x[0, 0]]))
    rows = net.network.add_gather_v2(data, places, trt.GatherMode.ND)
    rows.num_elementwise_dims = 1
    net.output(rows.get_output(0), torch.stack([x[0, [1, 0]], x[1, [2, 2]]]))


@case("gather beside the data")
def gather_beside(net: HandMade) -> None:
    """Tests that negative indices count from the end, and that indices out of bounds read zero."""
    x = ramp(4) + 1
    layer = net.network.add_gather(net.input(x), net.input(torch.tensor([-1, -4, 4, 100])), 0)
    net.output(layer.get_output(0), torch.tensor([4.0, 1.0, 0.0, 0.0]))


@case("scatter")
def scatter(net: HandMade) -> None:
    x, indices, updates = ramp(3, 4), torch.tensor([[3, 0], [1, 2]]), -ramp(2, 2) - 1
    layer = net.network.add_scatter(*map(net.input, (x, indices, updates)), trt.ScatterMode.ELEMENT)
    layer.axis = 1
    net.output(layer.get_output(0), x.scatter(1, indices, updates))


@case("scatter of many dimensions")
def scatter_nd(net: HandMade) -> None:
    x, indices, updates = ramp(3, 4), torch.tensor([[2], [0]]), -ramp(2, 4) - 1
    layer = net.network.add_scatter(*map(net.input, (x, indices, updates)), trt.ScatterMode.ND)
    net.output(layer.get_output(0), torch.stack([updates[1], x[1], updates[0]]))


@case("top k")
def topk(net: HandMade) -> None:
    x = numbers(3, 7)
    tensor = net.input(x)
    for name, largest in {"MAX": True, "MIN": False}.items():
        layer = net.network.add_topk(tensor, getattr(trt.TopKOperation, name), 3, 2, trt.int64)
        values, indices = x.topk(3, dim=1, largest=largest)
        net.output(layer.get_output(0), values)
        net.output(layer.get_output(1), indices)


@case("indices of what is not zero")
def non_zero(net: HandMade) -> None:
    x = torch.tensor([[True, False, True], [False, True, False]])
    layer = net.network.add_non_zero(net.input(x), trt.int64)
    net.output(layer.get_output(0), torch.tensor([[0, 0, 1], [0, 2, 1]]))


@case("one hot")
def one_hot(net: HandMade) -> None:
    indices = torch.tensor([[2, 0]], dtype=torch.int32)
    values, depth = net.constant([-1.0, 5.0]), net.constant(3, torch.int32)
    layer = net.network.add_one_hot(net.input(indices), values, depth, 1)
    net.output(layer.get_output(0), F.one_hot(indices.long(), 3).movedim(-1, 1) * 6.0 - 1)


# Whole dimensions


@case("reductions")
def reductions(net: HandMade) -> None:
    x = numbers(2, 3, 4)
    tensor = net.input(x)
    wanted = {"SUM": x.sum((0, 2)), "MAX": x.amax((0, 2)), "MIN": x.amin((0, 2)), "AVG": x.mean((0, 2))}
    wanted["PROD"] = x.prod(2).prod(0)
    for name, expected in wanted.items():
        for keep in (False, True):
            layer = net.network.add_reduce(tensor, getattr(trt.ReduceOperation, name), 0b101, keep)
            net.output(layer.get_output(0), expected.reshape(1, 3, 1) if keep else expected)


@case("softmax")
def softmax(net: HandMade) -> None:
    x = numbers(2, 3, 4) * 30
    layer = net.network.add_softmax(net.input(x))
    layer.axes = 0b010
    net.output(layer.get_output(0), x.softmax(1))


@case("normalization")
def normalization(net: HandMade) -> None:
    x, scales, shifts = numbers(2, 3, 4) * 5 + 2, numbers(1, 1, 4), numbers(1, 1, 4) * 2
    layer = net.network.add_normalization(net.input(x), net.constant(scales), net.constant(shifts), 0b100)
    layer.epsilon = 0.1
    net.output(layer.get_output(0), F.layer_norm(x, (4,), scales.flatten(), shifts.flatten(), 0.1))


@case("normalization of channels")
def instance_normalization(net: HandMade) -> None:
    x, scales, shifts = numbers(2, 4, 3, 5) * 5 + 2, numbers(1, 4, 1, 1), numbers(1, 4, 1, 1) * 2
    layer = net.network.add_normalization(net.input(x), net.constant(scales), net.constant(shifts), 0b1100)
    net.output(layer.get_output(0), F.instance_norm(x, weight=scales.flatten(), bias=shifts.flatten(), eps=1e-5))


@case("normalization of groups")
def group_normalization(net: HandMade) -> None:
    x, scales, shifts = numbers(2, 6, 4, 5) * 5 + 2, numbers(1, 3, 1, 1), numbers(1, 3, 1, 1) * 2
    layer = net.network.add_normalization(net.input(x), net.constant(scales), net.constant(shifts), 0b1100)
    layer.num_groups = 3
    each = [part.flatten().repeat_interleave(2) for part in (scales, shifts)]
    net.output(layer.get_output(0), F.group_norm(x, 3, *each))


@case("cumulative sums")
def cumulative(net: HandMade) -> None:
    tensor, axis = net.input(torch.tensor([[1.0, 2.0, 4.0]])), net.constant(1)
    wanted = {
        (False, False): [1, 3, 7], (False, True): [7, 6, 4], (True, False): [0, 1, 3], (True, True): [6, 4, 0],
    }  # fmt: skip
    for (exclusive, backward), expected in wanted.items():
        layer = net.network.add_cumulative(tensor, axis, trt.CumulativeOperation.SUM, exclusive, backward)
        net.output(layer.get_output(0), torch.tensor([expected]).float())


# Products


@case("products of matrices")
def products(net: HandMade) -> None:
    a, b, row = numbers(2, 3, 4), numbers(1, 5, 4), numbers(2, 4)
    first, second, vector = net.input(a), net.input(b), net.input(row)
    none, transpose, is_vector = trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE, trt.MatrixOperation.VECTOR
    net.output(net.network.add_matrix_multiply(first, none, second, transpose).get_output(0), a @ b.mT)
    net.output(
        net.network.add_matrix_multiply(first, none, vector, is_vector).get_output(0), (a @ row[..., None]).squeeze(-1)
    )
    net.output(
        net.network.add_matrix_multiply(vector, is_vector, first, transpose).get_output(0),
        (row[:, None] @ a.mT).squeeze(-2),
    )


@case("einsum")
def einsum(net: HandMade) -> None:
    a, b = numbers(2, 3, 4), numbers(2, 4, 5)
    net.output(net.network.add_einsum([net.input(a), net.input(b)], "bij,bjk->bki").get_output(0), (a @ b).mT)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Computes attention without a scale, with ``mask`` added."""
    scores = q @ k.mT
    return (scores if mask is None else scores + mask).softmax(-1) @ v


def _attention(net: HandMade, *parts: Any, causal: str = "NONE") -> Any:
    kind = getattr(trt.CausalMaskKind, causal)
    attention = net.network.add_attention_v2(*parts, trt.AttentionNormalizationOp.SOFTMAX, kind)
    attention.decomposable = True
    return attention


@case("attention")
def attention(net: HandMade) -> None:
    q, k, v = numbers(1, 2, 3, 8), numbers(1, 2, 5, 8), numbers(1, 2, 5, 8) * 2
    parts = [net.input(part) for part in (q, k, v)]
    net.output(_attention(net, *parts).get_output(0), _attend(q, k, v))


@case("attention with a boolean mask")
def masked_attention(net: HandMade) -> None:
    q, k, v = numbers(1, 2, 3, 8), numbers(1, 2, 5, 8), numbers(1, 2, 5, 8) * 2
    seen = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]]).bool().reshape(1, 1, 3, 5)
    layer = _attention(net, *[net.input(part) for part in (q, k, v)])
    layer.mask = net.input(seen)
    net.output(layer.get_output(0), _attend(q, k, v, torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)))


@case("attention with an added mask")
def biased_attention(net: HandMade) -> None:
    q, k, v, bias = numbers(1, 2, 3, 8), numbers(1, 2, 5, 8), numbers(1, 2, 5, 8) * 2, numbers(1, 1, 3, 5)
    layer = _attention(net, *[net.input(part) for part in (q, k, v)])
    layer.mask = net.input(bias)
    net.output(layer.get_output(0), _attend(q, k, v, bias))


@case("causal attention")
def causal_attention(net: HandMade) -> None:
    q, k, v = numbers(1, 2, 3, 8), numbers(1, 2, 5, 8), numbers(1, 2, 5, 8) * 2
    parts = [net.input(part) for part in (q, k, v)]
    for kind, shift in {"UPPER_LEFT": 1, "LOWER_RIGHT": 3}.items():
        mask = torch.full((3, 5), -torch.inf).triu(shift)
        net.output(_attention(net, *parts, causal=kind).get_output(0), _attend(q, k, v, mask))


@case("attention with shared heads")
def grouped_attention(net: HandMade) -> None:
    q, k, v = numbers(1, 4, 3, 8), numbers(1, 2, 5, 8), numbers(1, 2, 5, 8) * 2
    layer = _attention(net, *[net.input(part) for part in (q, k, v)])
    net.output(layer.get_output(0), _attend(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)))


@case("cache update")
def cache_update(net: HandMade) -> None:
    cache, update, places = numbers(2, 2, 8, 4), numbers(2, 2, 3, 4) + 9, torch.tensor([5, 0], dtype=torch.int32)
    parts = [net.input(part) for part in (cache, update, places)]
    expected = cache.clone()
    expected[0, :, 5:8], expected[1, :, 0:3] = update
    net.output(net.network.add_kv_cache_update(*parts, trt.KVCacheMode.LINEAR).get_output(0), expected)


# Windows


@case("convolution")
def convolution(net: HandMade) -> None:
    x, kernel, bias = numbers(2, 4, 9, 8), numbers(6, 2, 3, 3), numbers(6)
    layer = net.network.add_convolution_nd(net.input(x), 6, (3, 3), net.weights(kernel), net.weights(bias))
    layer.num_groups, layer.stride_nd, layer.dilation_nd = 2, (2, 1), (1, 2)
    layer.pre_padding, layer.post_padding = (1, 2), (0, 3)
    net.output(layer.get_output(0), F.conv2d(F.pad(x, (2, 3, 1, 0)), kernel, bias, (2, 1), 0, (1, 2), 2))


@case("convolution of volumes")
def convolution_of_volumes(net: HandMade) -> None:
    x, kernel = numbers(1, 2, 5, 6, 7), numbers(3, 2, 3, 2, 3)
    layer = net.network.add_convolution_nd(net.input(x), 3, (3, 2, 3), net.weights(kernel), trt.Weights())
    layer.padding_nd = (1, 0, 1)
    net.output(layer.get_output(0), F.conv3d(x, kernel, None, 1, (1, 0, 1)))


@case("convolution, padded to the same size")
def convolution_same(net: HandMade) -> None:
    x, kernel = numbers(1, 2, 6, 6), numbers(3, 2, 4, 4)
    tensor = net.input(x)
    for mode, sides in {"SAME_UPPER": (1, 2, 1, 2), "SAME_LOWER": (2, 1, 2, 1)}.items():
        layer = net.network.add_convolution_nd(tensor, 3, (4, 4), net.weights(kernel), trt.Weights())
        layer.padding_mode = getattr(trt.PaddingMode, mode)
        net.output(layer.get_output(0), F.conv2d(F.pad(x, sides), kernel))


@case("deconvolution")
def deconvolution(net: HandMade) -> None:
    x, kernel, bias = numbers(2, 4, 5, 5), numbers(4, 3, 3, 3), numbers(6)
    layer = net.network.add_deconvolution_nd(net.input(x), 6, (3, 3), net.weights(kernel), net.weights(bias))
    layer.num_groups, layer.stride_nd = 2, (2, 2)
    layer.pre_padding, layer.post_padding = (1, 1), (0, 1)
    whole = F.conv_transpose2d(x, kernel, bias, 2, groups=2)
    net.output(layer.get_output(0), whole[:, :, 1:, 1:-1])


@case("pooling")
def pooling(net: HandMade) -> None:
    x = numbers(1, 2, 7, 7) - 3
    tensor = net.input(x)

    def pool(kind: str, up: bool = False, excludes: bool = True) -> Any:
        layer = net.network.add_pooling_nd(tensor, getattr(trt.PoolingType, kind), (3, 3))
        layer.stride_nd, layer.padding_nd, layer.average_count_excludes_padding = (3, 2), (1, 1), excludes
        mode = trt.PaddingMode.EXPLICIT_ROUND_UP if up else trt.PaddingMode.EXPLICIT_ROUND_DOWN
        layer.padding_mode = mode
        return layer.get_output(0)

    net.output(pool("MAX"), F.max_pool2d(x, 3, (3, 2), 1))
    net.output(pool("MAX", up=True), F.max_pool2d(x, 3, (3, 2), 1, ceil_mode=True))
    for excludes in (True, False):
        expected = F.avg_pool2d(x, 3, (3, 2), 1, count_include_pad=not excludes)
        net.output(pool("AVERAGE", excludes=excludes), expected)


# Between elements


@case("resize")
def resize(net: HandMade) -> None:
    x = numbers(1, 2, 4, 5)
    tensor = net.input(x)
    size = (7, 3)

    def resized(mode: str, transformation: str, rounding: str = "FLOOR") -> Any:
        layer = net.network.add_resize(tensor)
        layer.shape = (1, 2, *size)
        layer.resize_mode = getattr(trt.InterpolationMode, mode)
        layer.coordinate_transformation = getattr(trt.ResizeCoordinateTransformation, transformation)
        layer.nearest_rounding = getattr(trt.ResizeRoundMode, rounding)
        return layer.get_output(0)

    net.output(resized("NEAREST", "ASYMMETRIC"), F.interpolate(x, size, mode="nearest"))
    net.output(resized("NEAREST", "HALF_PIXEL", "HALF_UP"), F.interpolate(x, size, mode="nearest-exact"))
    for corners, transformation in ((False, "HALF_PIXEL"), (True, "ALIGN_CORNERS")):
        net.output(resized("LINEAR", transformation), F.interpolate(x, size, mode="bilinear", align_corners=corners))
        net.output(resized("CUBIC", transformation), F.interpolate(x, size, mode="bicubic", align_corners=corners))


@case("resize by factors")
def resize_by_factors(net: HandMade) -> None:
    x = numbers(1, 2, 4, 5)
    layer = net.network.add_resize(net.input(x))
    layer.scales = [1, 1, 2, 1.5]
    layer.resize_mode = trt.InterpolationMode.LINEAR
    layer.coordinate_transformation = trt.ResizeCoordinateTransformation.HALF_PIXEL
    net.output(layer.get_output(0), F.interpolate(x, (8, 7), mode="bilinear"))


@case("grid sample")
def grid_sample(net: HandMade) -> None:
    x, grid = numbers(1, 2, 4, 5), numbers(1, 3, 6, 2) * 1.5
    tensor, places = net.input(x), net.input(grid)
    outside = {"FILL": "zeros", "CLAMP": "border", "REFLECT": "reflection"}
    for sample, padding_mode in outside.items():
        for corners in (False, True):
            layer = net.network.add_grid_sample(tensor, places)
            layer.sample_mode, layer.align_corners = getattr(trt.SampleMode, sample), corners
            net.output(layer.get_output(0), F.grid_sample(x, grid, "bilinear", padding_mode, corners))


# Control


@case("loop")
def loop(net: HandMade) -> None:
    """Computes running sums of rows from the last row backwards, and the last of these sums."""
    x = ramp(3, 4) + 1
    scope = net.network.add_loop()
    three = net.constant(3, torch.int32)
    scope.add_trip_limit(three, trt.TripLimit.COUNT)
    row = scope.add_iterator(net.input(x), 0, True).get_output(0)
    total = scope.add_recurrence(net.constant(torch.zeros(4)))
    after = net.network.add_elementwise(total.get_output(0), row, trt.ElementWiseOperation.SUM).get_output(0)
    total.set_input(1, after)
    every = scope.add_loop_output(after, trt.LoopOutput.CONCATENATE, 0)
    every.set_input(1, three)
    net.output(every.get_output(0), x.flip(0).cumsum(0))
    net.output(scope.add_loop_output(total.get_output(0), trt.LoopOutput.LAST_VALUE).get_output(0), x.sum(0))


@case("loop while")
def loop_while(net: HandMade) -> None:
    """Doubles a number until it is not below 100."""
    scope = net.network.add_loop()
    value = scope.add_recurrence(net.input(torch.tensor([3.0])))
    limit = net.constant([100.0])
    small = net.network.add_elementwise(value.get_output(0), limit, trt.ElementWiseOperation.LESS).get_output(0)
    squeezed = net.network.add_shuffle(small)
    squeezed.reshape_dims = ()
    scope.add_trip_limit(squeezed.get_output(0), trt.TripLimit.WHILE)
    double = net.network.add_elementwise(value.get_output(0), value.get_output(0), trt.ElementWiseOperation.SUM)
    value.set_input(1, double.get_output(0))
    last = scope.add_loop_output(value.get_output(0), trt.LoopOutput.LAST_VALUE)
    net.output(last.get_output(0), torch.tensor([192.0]))


@case("loop in a loop")
def nested_loops(net: HandMade) -> None:
    """Adds each of three numbers twice over, and doubles the sum after each time."""
    add = trt.ElementWiseOperation.SUM
    values = net.input(torch.tensor([1.0, 2.0, 4.0]))
    outer, inner = net.network.add_loop(), net.network.add_loop()
    outer.add_trip_limit(net.constant(2, torch.int32), trt.TripLimit.COUNT)
    total = outer.add_recurrence(net.constant(0.0))
    inner.add_trip_limit(net.constant(3, torch.int32), trt.TripLimit.COUNT)
    number = inner.add_iterator(values).get_output(0)
    part = inner.add_recurrence(total.get_output(0))
    part.set_input(1, net.network.add_elementwise(part.get_output(0), number, add).get_output(0))
    whole = inner.add_loop_output(part.get_output(0), trt.LoopOutput.LAST_VALUE).get_output(0)
    total.set_input(1, net.network.add_elementwise(whole, whole, add).get_output(0))
    last = outer.add_loop_output(total.get_output(0), trt.LoopOutput.LAST_VALUE)
    net.output(last.get_output(0), torch.tensor(42.0))


@case("conditional")
def conditional(net: HandMade) -> None:
    x = numbers(3)
    scope = net.network.add_if_conditional()
    scope.set_condition(net.input(torch.tensor(False)))
    inside = scope.add_input(net.input(x)).get_output(0)
    negated = net.network.add_unary(inside, trt.UnaryOperation.NEG).get_output(0)
    absolute = net.network.add_unary(inside, trt.UnaryOperation.ABS).get_output(0)
    net.output(scope.add_output(negated, absolute).get_output(0), x.abs())
