"""Patterns that TensorRT-RTX computes wrongly on a GPU are rewritten before the build, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from linux_side import upstream
from linux_side.backends.rtx_defects import avoid_defects
from tests.integration.harness import Built, assert_right, assert_same_wiring, build_here

pytestmark = pytest.mark.rtx


class AfterLinear(nn.Module):
    def __init__(self, tail: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 32)
        self.tail = tail

    def forward(self, x: Tensor) -> Any:
        return self.tail(self.linear(x))


def gelu_by_hand(h: Tensor) -> Tensor:
    return 0.5 * h * (1 + torch.erf(h * 0.7071067811865476))


def gelu_tanh_by_hand(h: Tensor) -> Tensor:
    return 0.5 * h * (1 + torch.tanh(0.7978845608028654 * (h + 0.044715 * h.pow(3))))


# Patterns that were wrong on a GPU (docs/benchmarks/gpu.md); those after the line are like them, but were not run.
PARTED = {
    "relu, times 2": lambda h: h.relu() * 2,
    "relu, an output too": lambda h: (h.relu() * 2, h.relu()),
    "gelu by hand, times 2": lambda h: gelu_by_hand(h) * 2,
    "gelu, tanh by hand, times 2": lambda h: gelu_tanh_by_hand(h) * 2,
    "gelu, in another shape": lambda h: F.gelu(h).unsqueeze(0) * 2,
    "relu, times itself": lambda h: h.relu() * h.relu(),
    "relu, addcmul": lambda h: torch.addcmul(h, h.relu(), h),
    # ---
    "gelu, gate": lambda h: F.gelu(h) * h.sin(),
    "gelu, reshaped": lambda h: F.gelu(h).reshape(2, 2, 32) * 2,
    "gelu, flattened before": lambda h: F.gelu(h.flatten()) * 2,
    "gelu, half of a layer": lambda h: F.gelu(h.chunk(2, -1)[0]) * h.chunk(2, -1)[1],
    "relu, row by row": lambda h: h[0].relu() * h[1],
}
LEFT_ALONE = {
    "relu": lambda h: h.relu(),
    "relu, plus 1": lambda h: h.relu() + 1,
    "plus 1 and times 2": lambda h: (h + 1, h * 2),
    "sigmoid, times 2": lambda h: h.sigmoid() * 2,
    "silu, times 2": lambda h: F.silu(h) * 2,
    # ---
    "gelu by hand, a layer": lambda h: gelu_by_hand(h) @ torch.ones(32, 4),
    "gelu, tanh by hand, a layer": lambda h: gelu_tanh_by_hand(h) @ torch.ones(32, 4),
}


def built(tail: Callable[[Tensor], Any], folder: Path) -> Built:
    torch.manual_seed(0)
    return build_here(AfterLinear(tail).eval(), (torch.randn(4, 16),), folder=folder)


def operators(built: Built) -> list[str]:
    (partition,) = built.partitions.values()
    return [str(node.target).removeprefix("aten.") for node in partition.graph.nodes if node.op == "call_function"]


def adds_zero(node: torch.fx.Node) -> bool:
    return node.target is torch.ops.aten.add.Tensor and isinstance(node.args[1], float) and node.args[1] == 0


def zeros_added(built: Built) -> int:
    (partition,) = built.partitions.values()
    return sum(map(adds_zero, partition.graph.nodes))


def users_behind_shapes(node: torch.fx.Node) -> list[torch.fx.Node]:
    """Returns the users of a value, also through changes of its shape."""
    shapes = ("_reshape_copy", "unsqueeze", "squeeze", "select", "slice", "getitem")
    found = []
    for user in node.users:
        found += users_behind_shapes(user) if any(word in str(user.target) for word in shapes) else [user]
    return found


@pytest.mark.parametrize("case", PARTED)
def test_an_activation_and_a_product_are_parted(tmp_path: Path, case: str) -> None:
    made = built(PARTED[case], tmp_path)
    assert zeros_added(made)
    (partition,) = made.partitions.values()
    for node in partition.graph.nodes:
        if node.target in (torch.ops.aten.relu.default, torch.ops.aten.gelu.default):
            assert not [user for user in users_behind_shapes(node) if "mul" in str(user.target)]
    assert_same_wiring(made, torch.randn(4, 16))


Layers = list[tuple[Any, ...]]


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[Layers]:
    """Records for every network that is built each layer's kind, operation and size, and the layers that it reads."""
    found: list[Layers] = []
    construct = upstream.construct_network

    def construct_and_look(interpreter: Any) -> None:
        construct(interpreter)
        network = upstream.network_of(interpreter)
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        makers = {layer.get_output(0).name: number for number, layer in enumerate(layers)}
        found.append([_described(layer, makers) for layer in layers])

    monkeypatch.setattr(upstream, "construct_network", construct_and_look)
    return found


def _described(layer: Any, makers: dict[str, int]) -> tuple[object, ...]:
    import tensorrt

    kind = layer.type.name
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    sources = [makers.get(each.name, each.name) for each in inputs if each]
    size = tuple(layer.get_output(0).shape)
    if kind == "ELEMENTWISE":
        layer.__class__ = tensorrt.IElementWiseLayer  # the way in which the bindings cast a layer
        kind = layer.op.name
    return kind, size, sources


@pytest.mark.parametrize("dynamic", [(), ("x.0=1:4:8",)], ids=["static", "dynamic"])
@pytest.mark.parametrize("sizes", [(4, 16), (2, 4, 16)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("activation", [F.relu, F.gelu, gelu_by_hand])
def test_the_network_is_the_one_that_ran_right_on_a_gpu(
    tmp_path: Path, networks: list[Layers], activation: Any, sizes: tuple[int, ...], dynamic: tuple[str, ...]
) -> None:
    """On the GPU the zero was written in the model: docs/benchmarks/gpu.md."""
    for tail in (lambda h: activation(h) * 2, lambda h: (activation(h) + 0.0) * 2):
        build_here(AfterLinear(tail).eval(), (torch.randn(sizes),), folder=tmp_path, dynamic=dynamic)
    ours, seen_right = networks
    assert ours == seen_right
    assert [kind for kind, *_ in ours][-1] == "PROD"


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_is_right_stays_as_it_is(tmp_path: Path, case: str) -> None:
    assert zeros_added(built(LEFT_ALONE[case], tmp_path)) == 0


def test_after_a_convolution_nothing_is_parted(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Scale())
    assert zeros_added(build_here(model.eval(), (torch.randn(1, 3, 8, 8),), folder=tmp_path)) == 0


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


@pytest.mark.parametrize("exponent", [2, 3, 5, 7, 8.0])
def test_whole_powers_are_products(tmp_path: Path, exponent: float) -> None:
    made = built(lambda h: h**exponent, tmp_path)
    assert not any(operator.startswith("pow") for operator in operators(made))
    (partition,) = made.partitions.values()
    x = torch.randn(4, 16)
    with torch.no_grad():
        torch.testing.assert_close(partition(x), made.program.module()(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float16, 10), (torch.bfloat16, 7)], ids=str)
def test_whole_powers_of_halves_are_off_by_their_last_bits(tmp_path: Path, dtype: torch.dtype, bits: int) -> None:
    model = AfterLinear(lambda h: (h.abs() + 0.5).clamp(max=2) ** 8)
    x = torch.randn(4, 16).to(dtype)
    made = build_here(model.eval().to(dtype), (x,), folder=tmp_path)
    (partition,) = made.partitions.values()
    with torch.no_grad():
        torch.testing.assert_close(partition(x), made.program.module()(x), rtol=4 * 2**-bits, atol=0)


def test_a_whole_number_to_a_power_in_floating_point_is_right(tmp_path: Path) -> None:
    made = built(lambda h: (h * 3).to(torch.int64) ** 2.0, tmp_path)
    result = assert_same_wiring(made, torch.randn(4, 16))
    assert result.dtype is torch.float32 and torch.equal(result, result.round())


@pytest.mark.parametrize("exponent", [0.5, 2.5, 9])
def test_other_powers_stay_powers(tmp_path: Path, exponent: float) -> None:
    assert "pow.Tensor_Scalar" in operators(built(lambda h: h.abs() ** exponent, tmp_path))


def test_operators_that_were_added_are_not_counted(tmp_path: Path) -> None:
    made = built(lambda h: (h**5).relu() * 2, tmp_path)
    assert made.artifact.manifest.coverage.operators == 4  # linear, pow, relu, mul


SHARED: dict[str, Callable[[Tensor], Any]] = {
    "nearest and bilinear": lambda x: (
        F.interpolate(x, (9, 5), mode="nearest"),
        F.interpolate(x, (9, 5), mode="bilinear"),
    ),
    "two sizes": lambda x: (F.interpolate(x, (9, 5), mode="nearest"), F.interpolate(x, (5, 9), mode="nearest")),
    "a pyramid": lambda x: [F.interpolate(x, (size, size), mode="nearest") for size in (5, 6, 7)],
    "averages": lambda x: (F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), F.avg_pool2d(x, 3, 2, 1)),
}


@pytest.mark.parametrize("name", SHARED)
def test_layers_of_resizing_and_averages_share_no_tensor(tmp_path: Path, networks: list[Layers], name: str) -> None:
    """TensorRT-RTX 1.6 confuses two of them that read one tensor; benchmarks/gpu/rtx_defects.py shows it."""

    class Shared(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return SHARED[name](x)

    x = torch.randn(1, 2, 8, 8)
    assert_right(build_here(Shared(), (x,), folder=tmp_path), Shared(), (x,))
    [layers] = networks
    read = [str(sources[0]) for kind, _, sources in layers if kind in ("RESIZE", "POOLING")]
    assert len(read) == len(set(read)) > 1


class Upsampler(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).relu()


class ComputedWeight(nn.Module):
    """A transposed convolution whose weight is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(8, 8)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv_transpose2d(self.scale(x.mT).mT.relu(), weight * 2, stride=2)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.ConvTranspose1d(8, 4, 4, stride=2, padding=1), (2, 8, 6)),
        (nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False), (2, 8, 6, 6)),
        (nn.ConvTranspose3d(8, 4, 2, stride=2), (2, 8, 4, 4, 4)),
    ],
    ids=["1d", "2d without bias", "3d"],
)
def test_a_transposed_convolution_in_bf16_is_in_the_engine(tmp_path: Path, layer: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"precision": "bf16", "dynamic": ("x.0=1:2:4",), "require_full_coverage": True}
    model = Upsampler(layer)
    built = build_here(model, (x,), folder=tmp_path, **options)
    assert_right(built, model, (x,), other_args=[(x[:1],)])


def test_one_whose_weight_is_computed_too(tmp_path: Path) -> None:
    model, x, weight = ComputedWeight(), torch.rand(1, 8, 8, 8), torch.rand(8, 4, 2, 2)
    built = build_here(model, (x, weight), folder=tmp_path, precision="bf16", require_full_coverage=True)
    assert_right(built, model, (x, weight))


class Gate(nn.Module):
    """A tensor beside what a convolution makes of it, and a layer behind both."""

    def __init__(self, gate: Callable[[Tensor, Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.convolution = nn.Sequential(*(layers or [nn.Conv2d(8, 8, 3, padding=1)]))
        self.behind = nn.Linear(6, 6)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.gate(x, self.convolution(x)))


# Wrong on a GPU in halves, with another convolution behind them (docs/benchmarks/gpu.md); those after the line are like
# them, but were not run.
GATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "times itself": lambda x, h: x * h,
    "times sigmoid": lambda x, h: x * h.sigmoid(),
    "times silu": lambda x, h: x * F.silu(h),
    "times hardsigmoid": lambda x, h: x * F.hardsigmoid(h),
    "plus relu": lambda x, h: x + h.relu(),
    "plus sigmoid": lambda x, h: x + h.sigmoid(),
    "in fp32": lambda x, h: (x.float() * h.float().sigmoid()).to(x.dtype),
    # ---
    "one minus sigmoid": lambda x, h: x * (1 - (-h).sigmoid()),
    "plus mish": lambda x, h: x + F.mish(h),
    "plus relu of a scaled result": lambda x, h: x + (2 * h).relu(),
    "minus relu": lambda x, h: x - h.relu(),
    "plus half of it": lambda x, h: torch.add(x, h.relu(), alpha=0.5),
    "minus half of it": lambda x, h: torch.sub(x, h.relu(), alpha=0.5),
    "the larger": lambda x, h: torch.maximum(x, h),
    "the smaller": lambda x, h: torch.minimum(x, h.relu()),
    "addcmul": lambda x, h: torch.addcmul(x, h.relu(), h.sigmoid()),
    "in another shape": lambda x, h: x.flatten(1, 2) + h.relu().flatten(1, 2),
    "transposed": lambda x, h: x.transpose(1, 2) * h.transpose(1, 2).sigmoid(),
}


def reaches_input(value: Any) -> bool:
    """Returns whether a value is an input in some shape and dtype."""
    while any(word in str(getattr(value, "target", "")) for word in ("_to_copy", "reshape", "permute", "squeeze")):
        value = value.args[0]
    return isinstance(value, torch.fx.Node) and value.op == "placeholder"


def assert_convolution_comes_first(made: Built) -> None:
    (partition,) = made.partitions.values()
    combined = [
        node
        for node in partition.graph.nodes
        if any(word in str(node.target) for word in ("add.T", "sub.T", "mul.T", "maximum", "minimum"))
        and any(map(reaches_input, node.args))
    ]
    assert [list(map(reaches_input, node.args)) for node in combined] == [[False, True]]


@pytest.mark.parametrize("name", GATES)
def test_what_a_convolution_gives_comes_before_its_own_input(tmp_path: Path, name: str) -> None:
    """TensorRT-RTX's kernels for any size compute other values for ``x * f(convolution(x))`` in halves."""
    torch.manual_seed(0)
    model, x = Gate(GATES[name]).eval(), torch.randn(1, 8, 6, 6)
    made = build_here(model, (x,), folder=tmp_path, dynamic=("x.0=1:1:4", "x.2=4:6:9"), precision="fp16")
    assert_convolution_comes_first(made)
    assert_same_wiring(made, x)
    assert_right(made, model, (x,), other_args=[(torch.randn(4, 8, 9, 6),)])


KINDS: dict[str, tuple[tuple[nn.Module, ...], tuple[int, ...]]] = {
    "1d": ((nn.Conv1d(8, 8, 3, padding=1),), (1, 8, 6)),
    "3d": ((nn.Conv3d(8, 8, 3, padding=1),), (1, 8, 4, 4, 6)),
    "transposed": ((nn.ConvTranspose2d(8, 8, 3, padding=1),), (1, 8, 6, 6)),
    "gated by itself": ((nn.Conv2d(8, 16, 1), nn.GLU(1)), (1, 8, 6, 6)),
    "batch norm that is folded": ((nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)), (1, 8, 6, 6)),
    "batch norm that is not": ((nn.Conv2d(8, 8, 1), nn.SiLU(), nn.BatchNorm2d(8)), (1, 8, 6, 6)),
    "of a sequence, as one row": ((nn.Unflatten(2, (1, 6)), nn.Conv2d(8, 8, 1), nn.Flatten(2)), (1, 8, 6)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_any_convolution_gives_comes_before_its_own_input(tmp_path: Path, kind: str) -> None:
    layers, shape = KINDS[kind]
    model, x = Gate(lambda x, h: x + h.relu(), *layers).eval(), torch.randn(shape)
    made = build_here(model, (x,), folder=tmp_path, dynamic=("x.0=1:1:4",), precision="fp16")
    assert_convolution_comes_first(made)
    assert_right(made, model, (x,))


def test_a_tensor_that_the_convolution_does_not_read_stays_first(tmp_path: Path) -> None:
    model = Gate(lambda x, h: (2 * x) * h.sigmoid()).eval()
    made = build_here(model, (torch.randn(1, 8, 6, 6),), folder=tmp_path)
    (partition,) = made.partitions.values()
    *_, gate = partition.graph.find_nodes(op="call_function", target=torch.ops.aten.mul.Tensor)
    assert gate.args[0].target is torch.ops.aten.mul.Tensor


def test_a_sum_with_the_convolution_itself_keeps_its_order(tmp_path: Path) -> None:
    """It was right on a GPU as it is."""
    made = build_here(Gate(lambda x, h: x + h).eval(), (torch.randn(1, 8, 6, 6),), folder=tmp_path, precision="fp16")
    (partition,) = made.partitions.values()
    [total] = partition.graph.find_nodes(op="call_function", target=torch.ops.aten.add.Tensor)
    assert total.args[1].target is torch.ops.aten.convolution.default


def normed(convolution: nn.Module, norm: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    for name, value in norm.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "mean" not in name else torch.randn_like(value))
    return nn.Sequential(convolution, norm, nn.ReLU()).eval()


NORMED: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "1d": lambda: (normed(nn.Conv1d(6, 8, 3), nn.BatchNorm1d(8)), (2, 6, 9)),
    "2d, no bias": lambda: (normed(nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8)), (2, 6, 9, 9)),
    "2d, depthwise": lambda: (normed(nn.Conv2d(6, 12, 3, groups=6), nn.BatchNorm2d(12)), (2, 6, 9, 9)),
    "2d, no scale": lambda: (normed(nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8, affine=False)), (2, 6, 9, 9)),
    "3d": lambda: (normed(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4)), (2, 2, 5, 5, 5)),
    "transposed": lambda: (normed(nn.ConvTranspose2d(6, 8, 2, 2), nn.BatchNorm2d(8)), (2, 6, 5, 5)),
    "transposed, groups": lambda: (
        normed(nn.ConvTranspose2d(6, 12, 3, 2, groups=3), nn.BatchNorm2d(12)),
        (2, 6, 5, 5),
    ),
}


@pytest.mark.parametrize("name", NORMED)
def test_batch_norm_becomes_part_of_the_convolution_before_it(tmp_path: Path, name: str) -> None:
    """TensorRT-RTX's kernels for one size compute some networks of both wrongly."""
    model, shape = NORMED[name]()
    x = torch.randn(shape)
    made = build_here(model, (x,), folder=tmp_path, dynamic=("input.0=1:2:4",))
    assert not [operator for operator in operators(made) if "batch_norm" in operator]
    assert made.artifact.manifest.coverage.operators == 3
    assert_right(made, model, (x,), other_args=[(torch.randn(4, *shape[1:]),)])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_batch_norm_in_halves_becomes_part_of_the_convolution_before_it(tmp_path: Path, precision: str) -> None:
    model, shape = NORMED["2d, no bias"]()
    x = torch.randn(shape)
    made = build_here(model, (x,), folder=tmp_path, dynamic=("input.0=1:2:4",), precision=precision)
    assert not [operator for operator in operators(made) if "batch_norm" in operator]
    assert_right(made, model, (x,))


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.convolution(x)
        return self.norm(h) * h


def test_batch_norm_of_a_convolution_that_is_read_elsewhere_stays(tmp_path: Path) -> None:
    model, x = ReadTwice().eval(), torch.randn(1, 4, 6, 6)
    made = build_here(model, (x,), folder=tmp_path)
    assert [operator for operator in operators(made) if "batch_norm" in operator]
    assert_right(made, model, (x,))


def test_batch_norm_with_weights_that_halves_do_not_hold_stays(tmp_path: Path) -> None:
    model = normed(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model[0].weight.data.mul_(1e3)
    model[1].running_var.fill_(1e-5)  # the product of both is beyond 65504, the result of the norm is not
    model[1].weight.data.fill_(1.0)
    x = torch.randn(1, 4, 6, 6) * 1e-3
    made = build_here(model, (x,), folder=tmp_path, precision="fp16")
    assert [operator for operator in operators(made) if "batch_norm" in operator]


def test_batch_norm_whose_products_are_too_small_for_halves_stays(tmp_path: Path) -> None:
    """Numbers below 6e-5 lose digits in fp16."""
    model = normed(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
    model[0].weight.data.mul_(1e-3)
    model[1].running_var.fill_(3e4)
    made = build_here(model.half(), (torch.randn(1, 4, 6, 6).half(),), folder=tmp_path)
    assert [operator for operator in operators(made) if "batch_norm" in operator]


def test_batch_norm_of_sequences_of_any_number_and_length_becomes_part_of_the_convolution(tmp_path: Path) -> None:
    model = normed(nn.Conv1d(6, 8, 3), nn.BatchNorm1d(8))
    x, dynamic = torch.randn(2, 6, 9), ("input.0=1:2:4", "input.2=3:9:20")
    made = build_here(model, (x,), folder=tmp_path, dynamic=dynamic)
    assert operators(made) == ["convolution.default", "relu.default"]
    assert_right(made, model, (x,), other_args=[(torch.randn(4, 6, 20),)])


class SharedWeight(nn.Module):
    """Two convolutions with one weight and a norm each, beside a buffer that is called like a rewrite's."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 1)
        self.norms = nn.ModuleList(normed(nn.Identity(), nn.BatchNorm2d(4))[1] for _ in range(2))
        self.norms[1].running_mean += 1
        self.register_buffer("_folded_0_weight", torch.rand(4, 4, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = F.conv2d(x, self._folded_0_weight)
        return self.norms[0](self.convolution(x)), self.norms[1](self.convolution(y)), self.convolution(y.relu())


def test_a_weight_of_several_convolutions_is_folded_for_each(tmp_path: Path) -> None:
    model, x = SharedWeight().eval(), torch.randn(1, 4, 6, 6)
    made = build_here(model, (x,), folder=tmp_path)
    assert not [operator for operator in operators(made) if "batch_norm" in operator]
    assert_right(made, model, (x,))


@pytest.mark.parametrize("operator", [torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor], ids=str)
def test_a_long_row_of_sums_and_products_takes_little_time(operator: Any) -> None:
    graph = torch.fx.Graph()
    first = graph.placeholder("x")
    first.meta["val"] = torch.empty(1, 1, 1, 1)

    def call(target: Any, *args: Any) -> torch.fx.Node:
        node = graph.call_function(target, args)
        node.meta["val"] = first.meta["val"]
        return node

    convolution = call(torch.ops.aten.convolution.default, first, first, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    last = activated = call(torch.ops.aten.sigmoid.default, convolution)
    for _ in range(4000):
        last = call(operator, first, last)
    graph.output(last)
    start = time.process_time()
    avoid_defects(torch.fx.GraphModule({}, graph))
    assert time.process_time() - start < 10
    [swapped, *others] = activated.users
    assert swapped.args == (activated, first) and not others


def test_grouped_convolutions_of_as_many_channels_compute_what_they_did(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 1), *(nn.Conv2d(8, 8, size, padding=size // 2, groups=8) for size in (3, 5, 7))]
    model, x = nn.Sequential(*layers).eval(), torch.randn(1, 3, 6, 6)
    made = build_here(model, (x,), folder=tmp_path, dynamic=("input.0=1:1:4", "input.2=4:6:9"))
    assert made.artifact.manifest.coverage.operators == made.artifact.manifest.coverage.in_engines == 4
    assert_right(made, model, (x,), other_args=[(torch.randn(3, 3, 9, 6),)])
