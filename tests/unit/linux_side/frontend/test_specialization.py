"""An example whose size is the model's own stays dynamic; the error about a size that torch fixes explains why."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812 - its usual name

from linux_side.frontend.dynamic_shapes import program_guards  # noqa: E402
from linux_side.frontend.source import export_program  # noqa: E402
from linux_side.options import DynamicDimension  # noqa: E402
from toolchain.errors import BuildFailedError  # noqa: E402
from toolchain.guards.grammar import Size  # noqa: E402


class WindowMask(nn.Module):
    """As in SwinIR: the mask for the model's own size is stored, and masks for other sizes are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.own = (16, 16)
        self.register_buffer("mask", self.computed(16, 16))

    def computed(self, height: Any, width: Any) -> Tensor:
        return (torch.arange(height)[:, None] + torch.arange(width)).remainder(4).float()

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        return x * (self.mask if size == self.own else self.computed(*size))


class Positions(nn.Module):
    """As in a vision transformer: the table of positions is resized for every number of rows but its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 4, 16))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] == self.table.shape[2]:
            return x + self.table
        return x + F.interpolate(self.table, size=x.shape[2], mode="linear")


class Patches(nn.Module):
    """As in DINOv2: the table of positions is resized, except for the number of patches that it has, in a square."""

    def __init__(self, rounds: bool = False, factor: float = 1.0) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 2, 3, 3))
        self.rounds, self.factor = rounds, factor

    def own(self, height: Any, width: Any) -> bool:
        return bool(height == width)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2], x.shape[3]
        patches = F.avg_pool2d(x, 8)
        if patches.shape[2] * patches.shape[3] == 9 and self.own(height, width):
            return self.resized(patches + self.factor * self.table, height // 8, width // 8)
        table = F.interpolate(self.table, size=(height // 8, width // 8), mode="bilinear")
        return self.resized(patches + table, height // 8, width // 8)

    def resized(self, x: Tensor, rows: Any, columns: Any) -> Tensor:
        return F.interpolate(x, size=(int(rows * 4), int(columns * 4))) if self.rounds else x


class OneSquare(Patches):
    """A model that treats one of the sizes with its number of patches unlike the others."""

    def own(self, height: Any, width: Any) -> bool:
        return bool(height == 27)


class Padded(nn.Module):
    """As in SCUNet and Twins: an image is padded to whole windows, and none is padded that has them."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        down, right = (8 - height % 8) % 8, (8 - width % 8) % 8
        if down or right:
            x = F.pad(x, (0, right, 0, down), mode="reflect")
        batch, channels, rows, columns = x.shape
        x = x.reshape(batch, channels, rows // 8, 8, columns // 8, 8).transpose(3, 4)
        x = x * x.mean((4, 5), keepdim=True).softmax(2)
        return x.transpose(3, 4).reshape(batch, channels, rows, columns)[:, :, :height, :width].contiguous()


class OnlyAt(nn.Module):
    """A model that computes something else at its own size."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[2] == 16 else x * 3


class OverTime(nn.Module):
    def __init__(self, layer: type[nn.RNNBase]) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"time": layer(4, 4, batch_first=True)})

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder["time"](x)[0]


class Loop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = x[:, 0]
        for row in range(1, x.shape[1]):
            total = total * 0.5 + x[:, row]
        return total


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x * 3


class LeastSquares(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.lstsq(x, x).solution


def _export(model: nn.Module, x: Tensor, *dynamic: str) -> Any:
    return export_program("model", model.eval(), (x,), {}, [DynamicDimension.parse(text) for text in dynamic])


IMAGE = ("x.2=8:16:32", "x.3=8:16:32")
PATCHES = ("x.2=16:24:40", "x.3=16:24:40")


@pytest.mark.parametrize(
    ("make", "shape", "dynamic", "others"),
    [
        (WindowMask, (1, 3, 16, 16), IMAGE, [(1, 3, 8, 8), (1, 3, 16, 20), (1, 3, 31, 32)]),
        (WindowMask, (1, 3, 16, 24), IMAGE, [(1, 3, 16, 16), (1, 3, 8, 32)]),
        (Positions, (2, 4, 16), ("x.2=8:16:32",), [(2, 4, 8), (2, 4, 32)]),
        (Patches, (1, 2, 24, 24), PATCHES, [(1, 2, 31, 31), (1, 2, 24, 25), (1, 2, 16, 40), (1, 2, 39, 18)]),
        (partial(Patches, rounds=True), (1, 2, 24, 24), PATCHES, [(1, 2, 27, 27), (1, 2, 25, 30), (1, 2, 17, 40)]),
        (Padded, (1, 2, 16, 16), ("x.2=11:16:32", "x.3=11:16:32"), [(1, 2, 11, 11), (1, 2, 24, 25), (1, 2, 31, 16)]),
        (Padded, (1, 2, 12, 12), ("x.2=10:12:24", "x.3=10:12:24"), [(1, 2, 10, 10), (1, 2, 24, 24), (1, 2, 16, 23)]),
    ],
)
def test_a_size_of_the_models_own_stays_free(
    make: Callable[[], nn.Module], shape: tuple[int, ...], dynamic: tuple[str, ...], others: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    model = make()
    program = _export(model, torch.randn(shape), *dynamic)
    guards, module = program_guards(program), program.module()
    for other in (shape, *others):
        assert guards.allows({size: other[size.dim] for size in guards.sizes.expressions})
        x = torch.randn(other)
        torch.testing.assert_close(module(x), model(x))


def test_a_model_that_gives_something_else_at_its_own_size_is_refused() -> None:
    with pytest.raises(BuildFailedError, match=r"fixes the example's sizes \(x\.2 = 16\)"):
        _export(OnlyAt(), torch.randn(1, 3, 16), "x.2=8:16:32")
    assert Size("x", 2) in program_guards(_export(OnlyAt(), torch.randn(1, 3, 12), "x.2=8:12:32")).sizes.expressions


@pytest.mark.parametrize("make", [partial(Patches, factor=2.0), partial(OneSquare, factor=2.0)])
def test_many_sizes_that_a_model_may_treat_otherwise_stay_excluded(make: Callable[[], nn.Module]) -> None:
    """The middle and the ends of the sizes with nine patches do not stand for one that the model asks for by itself."""
    torch.manual_seed(0)
    guards = program_guards(_export(make(), torch.randn(1, 2, 16, 40), "x.2=16:16:40", "x.3=16:40:40"))
    sizes = {Size("x", 2): 16, Size("x", 3): 40}
    assert guards.takes(sizes) and not guards.takes(dict.fromkeys(sizes, 27))


def test_sizes_that_a_guard_refuses_in_any_case_keep_no_other_guard() -> None:
    """Four rows cannot be padded by four more in a mirror, but five by three; the program of padded images is kept."""
    guards = program_guards(_export(Padded(), torch.randn(1, 2, 16, 16), "x.2=4:16:29", "x.3=4:16:29"))
    taken = [rows for rows in range(4, 30) if guards.takes({Size("x", 2): rows, Size("x", 3): 16})]
    assert taken == list(range(5, 30))


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_over_time_is_explained(layer: type[nn.RNNBase]) -> None:
    with pytest.raises(BuildFailedError) as caught:
        _export(OverTime(layer), torch.randn(2, 5, 4), "x.1=2:5:9")
    assert "fixes x.1 at 5: it unrolls time" in caught.value.problem
    assert f"encoder.time ({layer.__name__})" in caught.value.problem
    assert "leave --dynamic x.1 out" in str(caught.value.remedy)


def test_a_recurrent_layer_takes_any_batch() -> None:
    assert _export(OverTime(nn.GRU), torch.randn(3, 5, 4), "x.0=2:3:9").range_constraints


def test_a_loop_over_a_size_is_explained() -> None:
    with pytest.raises(BuildFailedError, match=r"fixes x\.1 at 5, the example's size; .* x\.1 at 6: the model loops"):
        _export(Loop(), torch.randn(2, 5), "x.1=2:5:9")


def test_torchs_reason_is_whole_where_its_first_line_says_nothing() -> None:
    with pytest.raises(BuildFailedError) as caught:
        _export(Branch(), torch.randn(2, 5))
    assert "if x.sum() > 0" in caught.value.problem and "draft_export" not in caught.value.problem
    with pytest.raises(BuildFailedError, match=r"DynamicOutputShapeException: aten\.linalg_lstsq\.default"):
        _export(LeastSquares(), torch.randn(2, 4, 4))
