"""What TensorRT-RTX lacks stays in PyTorch and is right: complex numbers, linear algebra, sizes that depend on data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.integration.harness import Built, assert_right, build_here
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.rtx


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@dataclass(frozen=True)
class Case:
    """A function of the inputs, the first of which passes a linear layer.

    Attributes:
        calls: the example, and further calls.
        kept: an operator that must stay in PyTorch; None where none may.
        options: the options of the build.
    """

    function: Callable[..., Any]
    calls: list[tuple[Tensor, ...]]
    kept: str | None
    options: dict[str, Any] = field(default_factory=dict)


class Behind(nn.Module):
    def __init__(self, function: Callable[..., Any], width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(width, width)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.register_buffer("kernel", torch.randn(4, width))
        self.register_buffer("spectrum", torch.randn(width, width // 2 + 1, dtype=torch.complex64))
        self.register_buffer("rotation", torch.polar(torch.ones(16, width // 2), torch.rand(16, width // 2) * 3))
        self.function = function

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        return self.function(self, self.linear(x), *others)


def _filtered(model: Any, x: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x) * model.spectrum, s=(8, 8)).relu()


def _long_convolution(model: Any, x: Tensor) -> Tensor:
    size = 2 * x.shape[-1]
    spectrum = torch.fft.rfft(x, n=size) * torch.fft.rfft(model.kernel, n=size)
    return torch.fft.irfft(spectrum, n=size)[..., : x.shape[-1]] + x


def _spectrogram(_: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    z = torch.stft(x.flatten(1), 16, 4, window=torch.hann_window(16), return_complex=True)
    return z.abs(), z.angle().cos()


def _there_and_back(_: Any, x: Tensor) -> Tensor:
    window = torch.hann_window(16)
    z = torch.stft(x.flatten(1), 16, 4, window=window, return_complex=True)
    return torch.istft(z * 2, 16, 4, window=window)


def _complex_product(_: Any, x: Tensor, y: Tensor) -> Tensor:
    return torch.view_as_real(torch.complex(x, x * 2) @ torch.complex(y, -y).mT)


def _exponential(_: Any, x: Tensor) -> Tensor:
    return (torch.exp(1j * x) * (1 + 2j)).angle()


def _complex_border(_: Any, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    return z * x, z.conj().abs() + x


def _rotary(model: Any, x: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * model.rotation[: x.shape[1]].unsqueeze(0)).flatten(-2).type_as(x)


def _rotary_of_positions(_: Any, x: Tensor) -> Tensor:
    angles = torch.arange(x.shape[1])[:, None] * 0.3 ** torch.arange(x.shape[2] // 2)
    rotation = torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * rotation).flatten(-2)


def _positive_definite(x: Tensor) -> Tensor:
    return x @ x.mT + torch.eye(x.shape[-1])


def _solved(_: Any, x: Tensor) -> Tensor:
    return torch.linalg.solve(_positive_definite(x), x).relu()


def _factorized(_: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    values, _vectors = torch.linalg.eigh(_positive_definite(x))
    return torch.linalg.cholesky(_positive_definite(x)), values.log()


def _determined(_: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.logdet(_positive_definite(x)), torch.linalg.pinv(x) * 2


def _chosen_rows(model: Any, x: Tensor) -> Tensor:
    which = model.experts[0](x).argmax(-1) % 2
    out = torch.zeros_like(x)
    for index, expert in enumerate(model.experts):
        (rows,) = torch.where(which == index)
        out[rows] = expert(x[rows])
    return out


def _doubled_where_positive(_: Any, x: Tensor) -> Tensor:
    y, positive = x.clone(), x > 0
    y[positive] = y[positive] * 2
    return y + 1


def _repeated(_: Any, x: Tensor, counts: Tensor) -> Tensor:
    return x.repeat_interleave(counts, 0).relu()


BATCH = {"dynamic": ("x.0=1:2:8",)}
ROWS = {"dynamic": ("x.0=2:6:16",)}
OF_ROWS = [(_random(6, 8),), (_random(2, 8),), (_random(16, 8),), (-_random(6, 8).abs() * 9,)]
IMAGES = [(_random(2, 4, 8, 8),), (_random(1, 4, 8, 8),), (_random(8, 4, 8, 8),)]
SOUNDS = [(_random(2, 8, 8),)]
SQUARES = [(_random(2, 4, 4),), (_random(1, 4, 4),), (_random(8, 4, 4),)]

CASES = {
    "FFT filter, fp16": Case(_filtered, IMAGES, "aten._fft_r2c.default", {**BATCH, "precision": "fp16"}),
    "long convolution, bf16": Case(
        _long_convolution, [(_random(2, 4, 8),)], "aten._fft_c2r.default", {"precision": "bf16"}
    ),
    "spectrogram of any length": Case(
        _spectrogram, [(_random(2, n, 8),) for n in (8, 4, 16)], "aten._fft_r2c.default", {"dynamic": ("x.1=4:8:16",)}
    ),
    "inverse spectrogram": Case(_there_and_back, SOUNDS, "aten._fft_c2r.default"),
    "complex matrix product, fp16": Case(
        _complex_product, [(_random(2, 4, 8), _random(2, 4, 8))], "aten.matmul.default", {"precision": "fp16"}
    ),
    "complex exponential": Case(_exponential, [(_random(2, 8),)], "aten.exp.default"),
    "complex in and out": Case(
        _complex_border, [(_random(2, 8), torch.complex(_random(2, 8), _random(2, 8)))], "aten._conj.default"
    ),
    "rotary embedding of any length": Case(
        _rotary, [(_random(1, n, 8),) for n in (4, 2, 16)], None, {"dynamic": ("x.1=2:4:16",)}
    ),
    "rotary embedding, fp16": Case(_rotary, [(_random(2, 4, 8),)], None, {"precision": "fp16"}),
    "rotary embedding of positions": Case(
        _rotary_of_positions, [(_random(1, n, 8),) for n in (4, 2, 16)], None, {"dynamic": ("x.1=2:4:16",)}
    ),
    "solve": Case(_solved, SQUARES, "aten._linalg_solve_ex.default", BATCH),
    "eigenvalues and Cholesky": Case(_factorized, SQUARES, "aten._linalg_eigh.default", BATCH),
    "determinant and pseudo-inverse": Case(_determined, SQUARES, "aten._linalg_slogdet.default", BATCH),
    "mask": Case(lambda _, x: x[x > 0], OF_ROWS, "aten.index.Tensor", ROWS),
    "mixture of experts, fp16": Case(_chosen_rows, OF_ROWS, "aten.nonzero.default", {**ROWS, "precision": "fp16"}),
    "assignment by a mask": Case(_doubled_where_positive, OF_ROWS, "aten.index_put.default", ROWS),
    "repeat by data": Case(
        _repeated,
        [(_random(6, 8), torch.arange(6)), (_random(6, 8), torch.ones(6, dtype=torch.int64))],
        "aten.repeat_interleave.Tensor",
    ),
}  # fmt: skip


def _build(name: str, folder: Path) -> Built:
    case = CASES[name]
    width = case.calls[0][0].shape[-1]
    return build_here(Behind(case.function, width), case.calls[0], folder=folder, **case.options)


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_right_with_a_part_in_pytorch(tmp_path: Path, name: str) -> None:
    case, built = CASES[name], _build(name, tmp_path)
    kept = [entry.operator for entry in built.artifact.manifest.fallback]
    assert case.kept in kept if case.kept else not kept and len(built.artifact.engines) == 1
    assert built.original is not None
    assert_right(built, built.original, case.calls[0], other_args=case.calls[1:])


def test_full_coverage_is_refused_with_the_reason(tmp_path: Path) -> None:
    case = CASES["FFT filter, fp16"]
    with pytest.raises(BuildFailedError, match="it computes with complex numbers"):
        build_here(Behind(case.function, 8), case.calls[0], folder=tmp_path, require_full_coverage=True)
